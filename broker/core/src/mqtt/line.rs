//! Packets in one line each, for traces and tests.

use super::{Packet, Properties, Property, ReasonCode};

impl Packet<'_> {
    /// The packet in one line: its name, what matters of it, and its properties in braces. Reason codes are in
    /// hexadecimal; of a reason string only that there is one.
    ///
    /// It is for people and tests; a payload that isn't UTF-8 doesn't come through unharmed.
    pub fn line(&self) -> String {
        let packet = self;
        let with = |text: String, properties: &Properties<'_>| {
            let list: Vec<String> = properties
                .iter()
                .map(|property| match property {
                    Property::UserProperty(name, value) => format!("{name}={value}"),
                    Property::ReasonString(_) => "reason".to_owned(),
                    other => format!("{other:?}"),
                })
                .collect();
            if list.is_empty() { text } else { format!("{text} {{{}}}", list.join(", ")) }
        };
        let name = packet.packet_type().name();
        let code = |reason: ReasonCode| format!("{:02x}", reason.as_u8());
        match packet {
            Packet::ConnAck(connack) => {
                let present = if connack.session_present { " present" } else { "" };
                with(format!("{name} {}{present}", code(connack.reason)), &connack.properties)
            }
            Packet::Publish(publish) => {
                let id = publish.packet_id.map(|id| format!(" #{id}")).unwrap_or_default();
                let retain = if publish.retain { " retain" } else { "" };
                let payload = String::from_utf8_lossy(publish.payload);
                let dup = if publish.dup { " dup" } else { "" };
                let qos = publish.qos.as_u8();
                let text = format!("{name} q{qos}{id}{dup}{retain} {} {payload}", publish.topic);
                with(text, &publish.properties)
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                with(format!("{name} {} {}", ack.packet_id, code(ack.reason)), &ack.properties)
            }
            Packet::SubAck(suback) => {
                let codes: Vec<String> = suback.reasons.iter().map(code).collect();
                with(format!("{name} {} {}", suback.packet_id, codes.join(" ")), &suback.properties)
            }
            Packet::UnsubAck(unsuback) => {
                let codes: Vec<String> = unsuback.reasons.iter().map(code).collect();
                format!("{name} {} {}", unsuback.packet_id, codes.join(" ")).trim_end().to_owned()
            }
            Packet::Disconnect(disconnect) => {
                with(format!("{name} {}", code(disconnect.reason)), &disconnect.properties)
            }
            _ => name.to_owned(),
        }
    }
}
