//! Reading PUBLISH: the hot path. One pass over topic and properties, none over the payload, no allocation.

use super::properties;
use crate::mqtt::wire::Reader;
use crate::mqtt::{DecodeError, PacketType, Properties, Publish, QoS, ReasonCode, Version, topic};

#[inline]
pub(super) fn publish<'a>(
    flags: u8,
    mut reader: Reader<'a>,
    version: Version,
) -> Result<Publish<'a>, DecodeError> {
    let dup = flags & 0b1000 != 0;
    let retain = flags & 0b0001 != 0;
    // [MQTT-3.3.1-4]
    let qos = QoS::from_u8(flags >> 1 & 0b11).ok_or(DecodeError::malformed("QoS 3"))?;
    // [MQTT-3.3.1-2]; before 3.1.1 DUP means nothing here.
    if dup && qos == QoS::AtMostOnce && version.reserves_bits() {
        return Err(DecodeError::malformed("DUP with QoS 0"));
    }
    let topic = reader.string()?;
    // [MQTT-2.2.1-2]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = properties(PacketType::Publish, &mut reader, version)?;
    check_topic(topic, &properties)?;
    let dup = dup && qos != QoS::AtMostOnce;
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() })
}

/// A PUBLISH needs a topic name [MQTT-3.3.2-1], or in its place a topic alias (section 3.3.2.3.4).
pub(in crate::mqtt) fn check_topic(topic: &str, properties: &Properties<'_>) -> Result<(), DecodeError> {
    // [MQTT-3.3.2-2]
    if topic::is_valid_name(topic) || topic.is_empty() && properties.topic_alias().is_some() {
        return Ok(());
    }
    if topic.is_empty() {
        return Err(DecodeError::protocol("neither a topic name nor a topic alias"));
    }
    Err(DecodeError::because(ReasonCode::TopicNameInvalid, "not a topic name"))
}
