//! Reading CONNECT and CONNACK, the only packets in which the version matters beyond properties and reason
//! codes.

use super::properties;
use crate::mqtt::properties::PropertySet;
use crate::mqtt::wire::Reader;
use crate::mqtt::{
    ConnAck, Connect, DecodeError, PacketType, Properties, QoS, ReasonCode, Version, Will, topic,
};

// The connect flags (section 3.1.2.3).
const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

pub(super) fn connect(mut reader: Reader<'_>) -> Result<Connect<'_>, DecodeError> {
    let version = protocol_version(&mut reader)?;
    let flags = reader.u8()?;
    check_connect_flags(flags, version)?;
    let keep_alive = reader.u16()?;
    let properties = properties(PacketType::Connect, &mut reader, version)?;
    let client_id = reader.string()?;
    let will = if flags & WILL != 0 { Some(read_will(flags, &mut reader, version)?) } else { None };
    // "Server implementations must allow for the possibility that the User Name flag is set, but the User
    // Name string is missing" (MQTT 3.1, section 3.1), for the sake of still older clients. Likewise the
    // password.
    let may_be_missing = version == Version::V31;
    let expected = |flag, reader: &Reader<'_>| flags & flag != 0 && !(may_be_missing && reader.is_empty());
    let username = if expected(USER_NAME, &reader) { Some(reader.string()?) } else { None };
    let password = if expected(PASSWORD, &reader) { Some(reader.binary()?) } else { None };
    reader.finish()?;
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect { version, client_id, clean_start, keep_alive, username, password, will, properties })
}

fn protocol_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    match (reader.string()?, reader.u8()?) {
        ("MQIsdp", 3) => Ok(Version::V31),
        ("MQTT", 4) => Ok(Version::V311),
        ("MQTT", 5) => Ok(Version::V5),
        // [MQTT-3.1.2-2]. Mosquitto's bridges set the highest bit first and try again without it.
        ("MQTT" | "MQIsdp", _) => Err(DecodeError::because(
            ReasonCode::UnsupportedProtocolVersion,
            "protocol level is not one of 3.1, 3.1.1 and 5",
        )),
        // [MQTT-3.1.2-1]
        _ => Err(DecodeError::because(ReasonCode::UnsupportedProtocolVersion, "protocol name is not MQTT")),
    }
}

fn check_connect_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // MQTT 3.1 calls the bit, and the will's details without a will, not used.
    if version.reserves_bits() {
        // [MQTT-3.1.2-3]
        if flags & RESERVED != 0 {
            return Err(DecodeError::malformed("reserved connect flag is set"));
        }
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
            return Err(DecodeError::malformed("will QoS or will retain without a will"));
        }
    }
    // [MQTT-3.1.2-12]
    if flags & WILL_QOS == WILL_QOS && (version.reserves_bits() || flags & WILL != 0) {
        return Err(DecodeError::malformed("will with QoS 3"));
    }
    // 3.1.1 [MQTT-3.1.2-22]; MQTT 5 lifted it, so that a token needs no name.
    if flags & PASSWORD != 0 && flags & USER_NAME == 0 && !version.has_properties() {
        return Err(DecodeError::malformed("password without a user name"));
    }
    Ok(())
}

fn read_will<'a>(flags: u8, reader: &mut Reader<'a>, version: Version) -> Result<Will<'a>, DecodeError> {
    let properties = if version.has_properties() {
        Properties::read(reader, PropertySet::WILL)?
    } else {
        Properties::EMPTY
    };
    let topic = reader.string()?;
    if !topic::is_valid_name(topic) {
        return Err(DecodeError::because(ReasonCode::TopicNameInvalid, "will topic is no topic name"));
    }
    Ok(Will {
        topic,
        payload: reader.binary()?,
        qos: QoS::from_u8((flags & WILL_QOS) >> 3).ok_or(DecodeError::malformed("will with QoS 3"))?,
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
}

/// The version in which to tell a client that its CONNECT is refused, when [`decode`](super::decode) failed
/// and so gave none.
///
/// `None`: the frame isn't a CONNECT or doesn't name MQTT, so that nobody there would understand an answer.
/// For a level that no version has it is the nearest version.
pub fn refusal_version(frame: &[u8]) -> Option<Version> {
    let (&first, after_type) = frame.split_first()?;
    if PacketType::of_first_byte(first) != Some(PacketType::Connect) {
        return None;
    }
    let (_, length) = crate::mqtt::wire::parse_varint(after_type).ok()??;
    let mut reader = Reader::new(after_type.get(length..)?);
    let name = reader.string().ok()?;
    // The highest bit marks a bridge that speaks the version in the other seven.
    let level = reader.u8().ok()? & 0x7F;
    match (name, level) {
        ("MQIsdp", _) => Some(Version::V31),
        ("MQTT", ..5) => Some(Version::V311),
        ("MQTT", _) => Some(Version::V5),
        _ => None,
    }
}

pub(super) fn connack(mut reader: Reader<'_>, version: Version) -> Result<ConnAck<'_>, DecodeError> {
    let flags = reader.u8()?;
    // [MQTT-3.2.2-1]; in 3.1 the whole byte is unused.
    if version.reserves_bits() && flags & !1 != 0 {
        return Err(DecodeError::malformed("reserved connect acknowledge flags are set"));
    }
    let session_present = version.reserves_bits() && flags == 1;
    let code = reader.u8()?;
    let reason = if version.has_properties() {
        ReasonCode::checked(code, PacketType::ConnAck)?
    } else {
        ReasonCode::from_connect_return_code(code).ok_or(DecodeError::malformed("unknown return code"))?
    };
    // [MQTT-3.2.2-6]
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::protocol("session present in a refusal"));
    }
    let properties = properties(PacketType::ConnAck, &mut reader, version)?;
    reader.finish()?;
    Ok(ConnAck { session_present, reason, properties })
}
