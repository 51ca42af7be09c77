//! Writing CONNECT and CONNACK.

use super::{framed, write_properties};
use crate::mqtt::properties::PropertySet;
use crate::mqtt::wire::{put_binary, put_string};
use crate::mqtt::{ConnAck, Connect, EncodeError, PacketType, ReasonCode, Version, topic};

pub(super) fn write_connect(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let version = connect.version;
    // 3.1.1 [MQTT-3.1.2-22]
    if connect.password.is_some() && connect.username.is_none() && !version.has_properties() {
        return Err(EncodeError::new("password without a user name before MQTT 5"));
    }
    let (name, level) = version.name_and_level();
    put_string(name, out)?;
    out.extend_from_slice(&[level, connect_flags(connect)]);
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    write_properties(PacketType::Connect, &connect.properties, version, out)?;
    put_string(connect.client_id, out)?;
    if let Some(will) = &connect.will {
        if version.has_properties() {
            will.properties.write(PropertySet::WILL, out)?;
        }
        if !topic::is_valid_name(will.topic) {
            return Err(EncodeError::new("will topic is no topic name"));
        }
        put_string(will.topic, out)?;
        put_binary(will.payload, out)?;
    }
    if let Some(username) = connect.username {
        put_string(username, out)?;
    }
    if let Some(password) = connect.password {
        put_binary(password, out)?;
    }
    Ok(())
}

/// Section 3.1.2.3.
fn connect_flags(connect: &Connect<'_>) -> u8 {
    let will = connect.will.map_or(0, |will| 1 << 2 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5);
    u8::from(connect.clean_start) << 1
        | will
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.username.is_some()) << 7
}

pub(super) fn write_connack(
    connack: &ConnAck<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    connack.reason.check(PacketType::ConnAck)?;
    let code = if version.has_properties() {
        connack.reason.as_u8()
    } else {
        match connack.reason.connect_return_code() {
            Some(code) => code,
            // 3.1.1 [MQTT-3.2.2-6]: then the connection is closed without a CONNACK.
            None => return Ok(()),
        }
    };
    // [MQTT-3.2.2-6]; in 3.1 the byte is unused.
    let present = connack.session_present && connack.reason == ReasonCode::Success && version.reserves_bits();
    framed(PacketType::ConnAck, out, |out| {
        out.extend_from_slice(&[present.into(), code]);
        write_properties(PacketType::ConnAck, &connack.properties, version, out)
    })
}
