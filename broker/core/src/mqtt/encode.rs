//! From packets to bytes. What is written here, the decoder accepts.
//!
//! CONNECT and CONNACK are in `encode/connect.rs`, PUBLISH for one and for many in `encode/publish.rs`.

mod connect;
mod publish;

use super::properties::PropertySet;
use super::subscription::{check_filter, check_subscription, suback_before_v5};
use super::wire::{put_string, varint_bytes, varint_length};
use super::{
    Ack, EncodeError, Packet, PacketType, Properties, ReasonCode, ReasonCodes, SubAck, Subscribe, UnsubAck,
    Unsubscribe, Version,
};
pub use publish::EncodedPublish;

/// Appends a packet to `out`, as `version` has it; CONNECT goes by its own version.
///
/// Below version 5 there are no properties and hardly any reason codes: they are left out, CONNACK's are
/// turned into return codes by [`ReasonCode::connect_return_code`], and failures in SUBACK are all 0x80. Two
/// packets say nothing then and nothing is written, since closing the connection says it: a CONNACK with a
/// reason that has no return code, and a DISCONNECT with any reason but the normal one.
///
/// # Errors
///
/// The packet isn't one that [`decode`](super::decode) would accept: a field is too long, a topic malformed,
/// an identifier missing, a property or reason code in the wrong packet. `out` is as it was.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let result = write(packet, version, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let kind = packet.packet_type();
    match packet {
        Packet::Publish(packet) => publish::write_publish(packet, version, out),
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => write_ack(kind, packet, version, out),
        Packet::PingReq | Packet::PingResp => framed(kind, out, |_| Ok(())),
        Packet::Subscribe(packet) => framed(kind, out, |out| write_subscribe(packet, version, out)),
        Packet::SubAck(packet) => framed(kind, out, |out| write_suback(packet, version, out)),
        Packet::Unsubscribe(packet) => framed(kind, out, |out| write_unsubscribe(packet, version, out)),
        Packet::UnsubAck(packet) => framed(kind, out, |out| write_unsuback(packet, version, out)),
        Packet::Connect(packet) => framed(kind, out, |out| connect::write_connect(packet, out)),
        Packet::ConnAck(packet) => connect::write_connack(packet, version, out),
        Packet::Disconnect(packet) if version.has_properties() => {
            framed(kind, out, |out| write_reason(kind, packet.reason, &packet.properties, out))
        }
        Packet::Disconnect(packet) if packet.reason == ReasonCode::NORMAL_DISCONNECTION => {
            framed(kind, out, |_| Ok(()))
        }
        Packet::Disconnect(packet) => Ok(packet.reason.check(kind)?),
        Packet::Auth(packet) if version.has_properties() => {
            framed(kind, out, |out| write_reason(kind, packet.reason, &packet.properties, out))
        }
        Packet::Auth(_) => Err(EncodeError::new("AUTH before MQTT 5")),
    }
}

/// Writes the fixed header, then the body, then puts the body's length into the header.
///
/// A body of 128 bytes or more is moved by a few bytes for it; the packet that is often so long has an own
/// way.
fn framed(
    kind: PacketType,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    out.extend_from_slice(&[kind.first_byte(), 0]);
    let start = out.len();
    body(out)?;
    let remaining = out.len() - start;
    let length = varint_bytes(remaining)?.into_iter().take(varint_length(remaining));
    out.splice(start - 1..start, length);
    Ok(())
}

fn write_ack(
    kind: PacketType,
    ack: &Ack<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let plain = ack.reason == ReasonCode::Success && ack.properties.is_empty();
    if plain || !version.has_properties() {
        ack.reason.check(kind)?;
        let [high, low] = ack.packet_id.get().to_be_bytes();
        out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
        return Ok(());
    }
    framed(kind, out, |out| {
        out.extend_from_slice(&ack.packet_id.get().to_be_bytes());
        write_reason(kind, ack.reason, &ack.properties, out)
    })
}

/// The end of an acknowledgement, DISCONNECT or AUTH, in its shortest form.
fn write_reason(
    kind: PacketType,
    reason: ReasonCode,
    properties: &Properties<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    reason.check(kind)?;
    if reason == ReasonCode::Success && properties.is_empty() {
        return Ok(());
    }
    out.push(reason.as_u8());
    // AUTH has no form with a reason code alone (section 3.15.2.2.1).
    if properties.is_empty() && kind != PacketType::Auth {
        return Ok(());
    }
    properties.write(PropertySet::allowed_in(kind), out)
}

fn write_subscribe(packet: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(PacketType::Subscribe, &packet.properties, version, out)?;
    let start = out.len();
    for (filter, options) in packet.subscriptions.iter() {
        check_subscription(filter, options, version)?;
        put_string(filter, out)?;
        out.push(options.as_u8(version));
    }
    check_not_empty(start, out)
}

fn write_suback(packet: &SubAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(PacketType::SubAck, &packet.properties, version, out)?;
    let in_version = if version.has_properties() { |reason| reason } else { suback_before_v5 };
    write_reasons(PacketType::SubAck, &packet.reasons, in_version, out)
}

fn write_unsubscribe(
    packet: &Unsubscribe<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    write_properties(PacketType::Unsubscribe, &packet.properties, version, out)?;
    let start = out.len();
    for filter in packet.filters.iter() {
        check_filter(filter, version)?;
        put_string(filter, out)?;
    }
    check_not_empty(start, out)
}

fn write_unsuback(packet: &UnsubAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(&packet.packet_id.get().to_be_bytes());
    if !version.has_properties() {
        return Ok(());
    }
    write_properties(PacketType::UnsubAck, &packet.properties, version, out)?;
    write_reasons(PacketType::UnsubAck, &packet.reasons, |reason| reason, out)
}

fn write_reasons(
    kind: PacketType,
    reasons: &ReasonCodes<'_>,
    in_version: fn(ReasonCode) -> ReasonCode,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    for reason in reasons.iter() {
        reason.check(kind)?;
        out.push(in_version(reason).as_u8());
    }
    check_not_empty(start, out)
}

fn check_not_empty(start: usize, out: &[u8]) -> Result<(), EncodeError> {
    // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    if out.len() == start { Err(EncodeError::new("empty list")) } else { Ok(()) }
}

fn write_properties(
    kind: PacketType,
    properties: &Properties<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if !version.has_properties() {
        return Ok(());
    }
    properties.write(PropertySet::allowed_in(kind), out)
}
