//! Packets of a client, as bytes: valid ones from the codec, and such as no codec would write.

use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Ack, Auth, Connect, Disconnect, Packet, PacketType, Properties, Property, PropertyWriter, Publish, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscriptionOptions, Subscriptions, TopicFilters, Unsubscribe,
    Version, Will, encode,
};

use super::dice::Dice;

/// The bytes of a packet that is valid by the way it was made.
fn written(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes).unwrap();
    bytes
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

/// What a client's CONNECT has.
pub struct ConnectPlan {
    pub version: Version,
    pub client_id: String,
    pub clean: bool,
    /// Topic, payload, QoS and RETAIN.
    pub will: Option<(String, String, QoS, bool)>,
}

/// A CONNECT. Keep-alive is far longer than any sequence.
pub fn connect(plan: &ConnectPlan, dice: &mut Dice) -> Vec<u8> {
    let mut writer = PropertyWriter::new();
    let mut will_writer = PropertyWriter::new();
    if plan.version == Version::V5 {
        if dice.one_in(2) {
            writer.push(Property::SessionExpiryInterval(dice.of(&[0, 1000, 1000, 1000, u32::MAX])));
        }
        // Not both: Mosquitto counts what is too large as being on its way for ever.
        if dice.one_in(6) {
            writer.push(Property::ReceiveMaximum(dice.of(&[1, 2, 20])));
        } else if dice.one_in(10) {
            writer.push(Property::MaximumPacketSize(dice.of(&[60, 5000])));
        }
        if dice.one_in(6) {
            writer.push(Property::TopicAliasMaximum(dice.of(&[1, 3])));
        }
        if dice.one_in(8) {
            writer.push(Property::RequestProblemInformation(dice.one_in(2)));
        }
        if dice.one_in(12) {
            writer.push(Property::UserProperty("k", "v"));
        }
        if dice.one_in(2) {
            // Nothing fires by itself while a sequence lasts; the end of a session does it.
            will_writer.push(Property::WillDelayInterval(dice.of(&[0, 1000])));
        }
        if dice.one_in(4) {
            will_writer.push(Property::MessageExpiryInterval(1000));
        }
        if dice.one_in(4) {
            will_writer.push(Property::ContentType("text")).push(Property::UserProperty("will", "yes"));
        }
    }
    let will = plan.will.as_ref().map(|(topic, payload, qos, retain)| Will {
        topic,
        payload: payload.as_bytes(),
        qos: *qos,
        retain: *retain,
        properties: will_writer.finish().unwrap(),
    });
    let username = dice.one_in(20).then_some("user");
    let connect = Connect {
        version: plan.version,
        client_id: &plan.client_id,
        clean_start: plan.clean,
        keep_alive: 600,
        username,
        password: username.filter(|_| dice.one_in(2)).map(|_| b"word".as_slice()),
        will,
        properties: writer.finish().unwrap(),
    };
    written(&Packet::Connect(connect), plan.version)
}

/// What a PUBLISH has; the rest is thrown.
pub struct PublishPlan<'a> {
    pub topic: &'a str,
    pub payload: &'a str,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: u16,
    /// The alias, and whether it stands for the topic alone.
    pub alias: Option<(u16, bool)>,
}

/// A PUBLISH.
pub fn publish(plan: &PublishPlan<'_>, version: Version, dice: &mut Dice) -> Vec<u8> {
    let mut writer = PropertyWriter::new();
    if version == Version::V5 {
        if dice.one_in(8) {
            writer.push(Property::MessageExpiryInterval(dice.of(&[1000, 100_000, u32::MAX])));
        }
        if dice.one_in(8) {
            writer.push(Property::PayloadFormatIndicator(dice.one_in(2)));
        }
        if dice.one_in(8) {
            writer.push(Property::ContentType("text/plain")).push(Property::ResponseTopic("answers/here"));
        }
        if dice.one_in(8) {
            writer.push(Property::CorrelationData(&[0, 1, 255]));
        }
        if dice.one_in(6) {
            writer.push(Property::UserProperty("b", "1")).push(Property::UserProperty("a", "2"));
            writer.push(Property::UserProperty("b", "1"));
        }
        if let Some((alias, _)) = plan.alias {
            writer.push(Property::TopicAlias(alias));
        }
    }
    let is_alone = version == Version::V5 && plan.alias.is_some_and(|(_, alone)| alone);
    let publish = Publish {
        dup: plan.dup && plan.qos != QoS::AtMostOnce,
        qos: plan.qos,
        retain: plan.retain,
        topic: if is_alone { "" } else { plan.topic },
        packet_id: (plan.qos != QoS::AtMostOnce).then(|| id(plan.packet_id)),
        properties: writer.finish().unwrap(),
        payload: plan.payload.as_bytes(),
    };
    written(&Packet::Publish(publish), version)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(kind: PacketType, number: u16, reason: ReasonCode, version: Version) -> Vec<u8> {
    let ack = Ack::new(id(number), reason);
    let packet = match kind {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    };
    written(&packet, version)
}

/// A SUBSCRIBE to these filters, with options as they fall; but for what Mosquitto keeps of an earlier subscription to the same
/// filter, which `fixed` has, a bit for each filter.
pub fn subscribe(
    number: u16,
    filters: &[String],
    version: Version,
    fixed: [u64; 2],
    dice: &mut Dice,
) -> Vec<u8> {
    let mut writer = PropertyWriter::new();
    if version == Version::V5 && dice.one_in(4) {
        writer.push(Property::SubscriptionIdentifier(dice.of(&[1, 7, 200, 268_435_455])));
    }
    let filters: Vec<(&str, SubscriptionOptions)> = filters
        .iter()
        .map(|filter| {
            let qos = dice.of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
            let mut options = SubscriptionOptions::new(qos);
            if version == Version::V5 {
                let place = filter.bytes().rev().take(2).map(u32::from).sum::<u32>() % 64;
                options.no_local = fixed[0] >> place & 1 != 0 && !filter.starts_with("$share/");
                options.retain_as_published = fixed[1] >> place & 1 != 0;
                options.retain_handling = dice.of(&[
                    RetainHandling::SendAtSubscribe,
                    RetainHandling::SendAtSubscribe,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]);
            }
            (filter.as_str(), options)
        })
        .collect();
    let subscribe = Subscribe {
        packet_id: id(number),
        properties: writer.finish().unwrap(),
        subscriptions: Subscriptions::from(&filters[..]),
    };
    written(&Packet::Subscribe(subscribe), version)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(number: u16, filters: &[String], version: Version) -> Vec<u8> {
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let unsubscribe = Unsubscribe {
        packet_id: id(number),
        properties: Properties::EMPTY,
        filters: TopicFilters::from(&filters[..]),
    };
    written(&Packet::Unsubscribe(unsubscribe), version)
}

/// A DISCONNECT; the reason and the expiry are only in version 5.
pub fn disconnect(reason: ReasonCode, expiry: Option<u32>, version: Version) -> Vec<u8> {
    let mut writer = PropertyWriter::new();
    let mut reason = reason;
    if version == Version::V5 {
        writer.extend(expiry.map(Property::SessionExpiryInterval));
    } else {
        reason = ReasonCode::NORMAL_DISCONNECTION;
    }
    let properties = writer.finish().unwrap();
    written(&Packet::Disconnect(Disconnect { reason, properties }), version)
}

/// An AUTH that nobody asked for.
pub fn auth() -> Vec<u8> {
    let mut writer = PropertyWriter::new();
    writer.push(Property::AuthenticationMethod("method"));
    let properties = writer.finish().unwrap();
    written(&Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties }), Version::V5)
}

/// Packets that are whole and can't be right, as their first byte and body; properties, where version 5 has them, are
/// none.
pub fn never_valid(topic: &str, version: Version, dice: &mut Dice) -> Vec<u8> {
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let topic = [&[0, topic.len() as u8], topic.as_bytes()].concat();
    let (first, body): (u8, Vec<u8>) = match dice.below(22) {
        0 => (0x30, [&[0, 0], none, b"p"].concat()),            // no topic
        1 => (0x32, [&*topic, &[0, 0], none].concat()),         // no packet identifier
        2 => (0x36, [&*topic, &[0, 9], none].concat()),         // QoS 3
        3 => (0x38, [&*topic, none].concat()),                  // DUP at QoS 0
        4 => (0x82, [&[0, 9], none].concat()),                  // no filter
        5 => (0x82, [&[0, 0], none, &topic, &[0]].concat()),    // no packet identifier
        6 => (0x80, [&[0, 9], none, &topic, &[0]].concat()),    // flags
        7 => (0x82, [&[0, 9], none, &topic, &[3]].concat()),    // QoS 3
        8 => (0x82, [&[0, 9], none, &topic, &[0x40]].concat()), // reserved option
        9 => (0x82, [&[0, 9], none, &topic, &[0x30]].concat()), // retain handling 3
        10 => (0xA2, [&[0, 9], none].concat()),                 // no filter
        11 => (0xA2, [&[0, 0], none, &topic].concat()),         // no packet identifier
        12 => (0xA0, [&[0, 9], none, &topic].concat()),         // flags
        13 => (0x60, vec![0, 9]),                               // flags of PUBREL
        14 => (0x40, vec![0, 0]),                               // no packet identifier
        15 => (0x40, vec![0]),                                  // half a packet identifier
        16 => (0xC1, vec![]),                                   // flags of PINGREQ
        17 => (0xC0, vec![0]),                                  // PINGREQ with a body
        18 => (0xE1, vec![]),                                   // flags of DISCONNECT
        19 => (0x00, vec![]),                                   // no packet type
        20 => (dice.of(&[0x20, 0x90, 0xB0, 0xD0]), vec![0, 9, 0]), // a server's
        _ => (0x82, [&[0, 9], none, &[0, 9], b"$share/q/", &[0]].concat()), // a share of nothing
    };
    let mut packet = vec![first, body.len() as u8];
    packet.extend(body);
    packet
}
