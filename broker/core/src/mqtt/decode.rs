//! From bytes to packets: the fixed header, and which function reads the rest.
//!
//! CONNECT and CONNACK are in `decode/connect.rs`, PUBLISH in `decode/publish.rs`, the lists of SUBSCRIBE and
//! its like in `subscription.rs`; the small packets are here.

mod connect;
mod publish;

use super::properties::PropertySet;
use super::wire::{Reader, check_minimal, parse_varint};
use super::{
    Ack, Auth, DecodeError, Disconnect, Packet, PacketType, Properties, ReasonCode, ReasonCodes, SubAck,
    Subscribe, Subscriptions, TopicFilters, UnsubAck, Unsubscribe, Version,
};
pub use connect::refusal_version;
pub(super) use publish::check_topic;

/// The length in bytes of the packet that starts with `input`, with its fixed header, as that header says it:
/// 2 to 268,435,460. `Ok(None)`: too little of it is there to tell; five bytes are always enough.
///
/// The caller compares with its limit before it waits for that many bytes. Only the length is looked at.
///
/// # Errors
///
/// The remaining length takes more than four bytes.
pub fn frame_length(input: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some((_, after_type)) = input.split_first() else { return Ok(None) };
    Ok(parse_varint(after_type)?.map(|(remaining, length)| 1 + length + remaining as usize))
}

/// Reads exactly one packet, `frame` being as long as [`frame_length`] says.
///
/// CONNECT says its version itself, and `version` is ignored for it. The packet borrows from the frame;
/// nothing is allocated, and what the views iterate over later has been checked here.
///
/// # Errors
///
/// The packet is not what the specification of that version allows, or isn't exactly `frame`.
pub fn decode(frame: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    const NOT_ONE: DecodeError = DecodeError::malformed("length differs from that of the packet");
    let (&first, after_type) = frame.split_first().ok_or(NOT_ONE)?;
    let (remaining, length) = parse_varint(after_type)?.ok_or(NOT_ONE)?;
    let (_, body) = after_type.split_at_checked(length).ok_or(NOT_ONE)?;
    if body.len() != remaining as usize {
        return Err(NOT_ONE);
    }
    let packet_type =
        PacketType::of_first_byte(first).ok_or(DecodeError::malformed("packet type 0 is reserved"))?;
    let flags = first & 0x0F;
    let packet = match read(packet_type, flags, Reader::new(body), version) {
        Ok(packet) => packet,
        Err(error) => return Err(error.within(packet_type)),
    };
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
    match check_header(packet_type, flags, remaining, length, version) {
        Ok(()) => Ok(packet),
        Err(error) => Err(error.within(packet_type)),
    }
}

/// The fixed header, once the version is known for certain.
fn check_header(
    packet_type: PacketType,
    flags: u8,
    remaining: u32,
    length: usize,
    version: Version,
) -> Result<(), DecodeError> {
    // [MQTT-2.1.3-1]; the flags of PUBLISH mean something.
    let reserved = packet_type != PacketType::Publish && version.reserves_bits();
    if reserved && flags != packet_type.reserved_flags() {
        return Err(DecodeError::malformed("reserved flags of the fixed header are set"));
    }
    // The older versions don't ask for the shortest form, and there are small clients that always write the
    // remaining length in two or four bytes.
    if version.has_properties() { check_minimal(remaining, length) } else { Ok(()) }
}

/// All after the fixed header.
#[inline]
fn read(
    kind: PacketType,
    flags: u8,
    reader: Reader<'_>,
    version: Version,
) -> Result<Packet<'_>, DecodeError> {
    Ok(match kind {
        PacketType::Publish => Packet::Publish(publish::publish(flags, reader, version)?),
        PacketType::PubAck => Packet::PubAck(ack(kind, reader, version)?),
        PacketType::PubRec => Packet::PubRec(ack(kind, reader, version)?),
        PacketType::PubRel => Packet::PubRel(ack(kind, reader, version)?),
        PacketType::PubComp => Packet::PubComp(ack(kind, reader, version)?),
        PacketType::PingReq => reader.finish().map(|()| Packet::PingReq)?,
        PacketType::PingResp => reader.finish().map(|()| Packet::PingResp)?,
        PacketType::Subscribe => Packet::Subscribe(subscribe(reader, version)?),
        PacketType::SubAck => Packet::SubAck(suback(reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(reader, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(unsuback(reader, version)?),
        PacketType::Connect => Packet::Connect(connect::connect(reader)?),
        PacketType::ConnAck => Packet::ConnAck(connect::connack(reader, version)?),
        PacketType::Disconnect => {
            let (reason, properties) = reason_and_properties(kind, reader, version)?;
            Packet::Disconnect(Disconnect { reason, properties })
        }
        PacketType::Auth if version.has_properties() => {
            let (reason, properties) = reason_and_properties(kind, reader, version)?;
            Packet::Auth(Auth { reason, properties })
        }
        PacketType::Auth => return Err(DecodeError::malformed("packet type 15 is reserved before MQTT 5")),
    })
}

fn ack(kind: PacketType, mut reader: Reader<'_>, version: Version) -> Result<Ack<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let (reason, properties) = reason_and_properties(kind, reader, version)?;
    Ok(Ack { packet_id, reason, properties })
}

fn subscribe(mut reader: Reader<'_>, version: Version) -> Result<Subscribe<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(PacketType::Subscribe, &mut reader, version)?;
    Ok(Subscribe { packet_id, properties, subscriptions: Subscriptions::read(reader, version)? })
}

fn suback(mut reader: Reader<'_>, version: Version) -> Result<SubAck<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(PacketType::SubAck, &mut reader, version)?;
    Ok(SubAck { packet_id, properties, reasons: ReasonCodes::read(reader, PacketType::SubAck, version)? })
}

fn unsubscribe(mut reader: Reader<'_>, version: Version) -> Result<Unsubscribe<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(PacketType::Unsubscribe, &mut reader, version)?;
    Ok(Unsubscribe { packet_id, properties, filters: TopicFilters::read(reader, version)? })
}

fn unsuback(mut reader: Reader<'_>, version: Version) -> Result<UnsubAck<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = properties(PacketType::UnsubAck, &mut reader, version)?;
    let reasons = if version.has_properties() {
        ReasonCodes::read(reader, PacketType::UnsubAck, version)?
    } else {
        // It has no payload (3.1.1, section 3.11).
        reader.finish()?;
        ReasonCodes::EMPTY
    };
    Ok(UnsubAck { packet_id, properties, reasons })
}

/// The end of an acknowledgement, DISCONNECT or AUTH. Both parts may be left out from the end: no reason code
/// is success, no property length is none [MQTT-3.4.2-1]. Before version 5 there is neither.
fn reason_and_properties<'a>(
    kind: PacketType,
    mut reader: Reader<'a>,
    version: Version,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if !version.has_properties() || reader.is_empty() {
        reader.finish()?;
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let reason = ReasonCode::checked(reader.u8()?, kind)?;
    if reader.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    let properties = properties(kind, &mut reader, version)?;
    reader.finish()?;
    Ok((reason, properties))
}

/// The properties at this place of the packet, which before version 5 are none and take no bytes.
fn properties<'a>(
    kind: PacketType,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Properties<'a>, DecodeError> {
    if !version.has_properties() {
        return Ok(Properties::EMPTY);
    }
    Properties::read(reader, PropertySet::allowed_in(kind))
}
