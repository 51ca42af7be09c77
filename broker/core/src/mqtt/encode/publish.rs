//! Writing PUBLISH: for one receiver, and once for many.

use crate::mqtt::decode::check_topic;
use crate::mqtt::properties::PropertySet;
use crate::mqtt::wire::{put_string, varint_bytes, varint_length};
use crate::mqtt::{EncodeError, PacketType, Properties, Publish, QoS, Version};
use core::num::NonZeroU16;

const DUP: u8 = 0b1000;

/// A PUBLISH for many receivers: encoded once, and copied for each with its own packet identifier.
///
/// Receivers share one if they agree in version, QoS, RETAIN flag and properties (subscription identifiers,
/// say).
///
/// ```
/// use bugle_core::mqtt::{EncodedPublish, Properties, Publish, QoS, Version};
/// use core::num::NonZeroU16;
///
/// let publish = Publish {
///     dup: false,
///     qos: QoS::AtLeastOnce,
///     retain: false,
///     topic: "a",
///     packet_id: None,
///     properties: Properties::EMPTY,
///     payload: b"hi",
/// };
/// let encoded = EncodedPublish::new(&publish, Version::V311)?;
/// let mut out = Vec::new();
/// for id in (1..=2).filter_map(NonZeroU16::new) {
///     encoded.copy_with_packet_id(id, false, &mut out);
/// }
/// assert_eq!(out, b"\x32\x07\x00\x01a\x00\x01hi\x32\x07\x00\x01a\x00\x02hi");
/// # Ok::<(), bugle_core::mqtt::EncodeError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedPublish {
    bytes: Vec<u8>,
    /// Within `bytes`, and two before its end at most.
    packet_id_at: Option<usize>,
}

impl EncodedPublish {
    /// Encodes everything but the packet identifier and DUP, which are those of a copy.
    ///
    /// # Errors
    ///
    /// As [`encode`](crate::mqtt::encode), but that the packet identifier may be absent.
    pub fn new(publish: &Publish<'_>, version: Version) -> Result<Self, EncodeError> {
        let mut encoded = Self::default();
        encoded.set(publish, version)?;
        Ok(encoded)
    }

    /// As [`new`](Self::new), in the place of what was encoded here before.
    ///
    /// # Errors
    ///
    /// As those of `new`; then nothing useful is here.
    pub fn set(&mut self, publish: &Publish<'_>, version: Version) -> Result<(), EncodeError> {
        self.bytes.clear();
        let publish = Publish { dup: false, ..*publish };
        self.packet_id_at = write_with_id(&publish, 0, version, &mut self.bytes)?;
        Ok(())
    }

    /// The packet. For QoS 0 it is complete; else the two bytes at [`packet_id_at`](Self::packet_id_at) are
    /// zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length in bytes, to be compared with a receiver's maximum packet size [MQTT-3.1.2-24].
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Where the packet identifier (two bytes, big-endian) belongs; `None` for QoS 0.
    pub fn packet_id_at(&self) -> Option<usize> {
        self.packet_id_at
    }

    /// Appends the packet to `out` with this packet identifier and DUP. For QoS 0, which has neither, both
    /// are ignored.
    pub fn copy_with_packet_id(&self, packet_id: NonZeroU16, dup: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let Some(at) = self.packet_id_at else { return };
        if let Some(id) = out.get_mut(start + at..start + at + 2) {
            id.copy_from_slice(&packet_id.get().to_be_bytes());
        }
        if let Some(first) = out.get_mut(start) {
            *first |= if dup { DUP } else { 0 };
        }
    }
}

pub(super) fn write_publish(
    publish: &Publish<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let packet_id = match publish.packet_id {
        // [MQTT-2.2.1-2]
        _ if publish.qos == QoS::AtMostOnce => 0,
        Some(packet_id) => packet_id.get(),
        None => return Err(EncodeError::new("QoS 1 or 2 without a packet identifier")),
    };
    write_with_id(publish, packet_id, version, out).map(|_| ())
}

/// Writes the packet with this packet identifier, if its QoS wants one, and says where from `out`'s start
/// that is.
fn write_with_id(
    publish: &Publish<'_>,
    packet_id: u16,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, EncodeError> {
    let has_id = publish.qos != QoS::AtMostOnce;
    let properties = if version.has_properties() { publish.properties } else { Properties::EMPTY };
    check_topic(publish.topic, &properties)?;
    let properties_length = if version.has_properties() { properties.written_length() } else { 0 };
    let id_length = if has_id { 2 } else { 0 };
    let remaining = 2 + publish.topic.len() + id_length + properties_length + publish.payload.len();

    // [MQTT-3.3.1-2]: no DUP with QoS 0.
    let dup = if publish.dup && has_id { DUP } else { 0 };
    let flags = dup | publish.qos.as_u8() << 1 | u8::from(publish.retain);
    let length = varint_bytes(remaining)?;
    out.reserve(1 + length.len() + remaining);
    out.push((PacketType::Publish as u8) << 4 | flags);
    out.extend(length.into_iter().take(varint_length(remaining)));
    put_string(publish.topic, out)?;
    let packet_id_at = has_id.then_some(out.len());
    if has_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version.has_properties() {
        properties.write(PropertySet::allowed_in(PacketType::Publish), out)?;
    }
    out.extend_from_slice(publish.payload);
    Ok(packet_id_at)
}
