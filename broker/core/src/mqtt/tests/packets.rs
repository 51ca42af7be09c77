//! Random valid packets. Their strings are leaked, which a test may do, so that they are plain
//! `Packet<'static>`.

use crate::mqtt::*;
use core::num::NonZeroU16;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn leak(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    // Sometimes beyond 127, where lengths take a second byte.
    prop_oneof![4 => vec(any::<u8>(), 0..12), 1 => vec(any::<u8>(), 100..300)].prop_map(leak)
}

fn string() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => "[^\0]{0,8}", 1 => "[a-zß€]{100,200}"].prop_map(|string| &*string.leak())
}

fn topic_name() -> impl Strategy<Value = &'static str> {
    "(/|[$a-z ü]){1,12}".prop_map(|name| &*name.leak())
}

fn topic_filter() -> impl Strategy<Value = &'static str> {
    let ordinary = "(([a-z€]{0,3}|\\+)/){0,3}([a-z]{1,3}|\\+|#)";
    prop_oneof![3 => ordinary, 1 => "\\$share/[a-z]{1,3}/(\\+|[a-z]|/)(/#)?"]
        .prop_map(|filter| &*filter.leak())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|id| NonZeroU16::new(id).unwrap())
}

fn property() -> impl Strategy<Value = Property<'static>> {
    let flags = (any::<bool>(), 0..7usize).prop_map(|(flag, which)| {
        [
            Property::PayloadFormatIndicator(flag),
            Property::RequestProblemInformation(flag),
            Property::RequestResponseInformation(flag),
            Property::RetainAvailable(flag),
            Property::WildcardSubscriptionAvailable(flag),
            Property::SubscriptionIdentifierAvailable(flag),
            Property::SharedSubscriptionAvailable(flag),
        ][which]
    });
    let numbers = (1..=0x0FFF_FFFFu32, 1..=u16::MAX, 0..9usize).prop_map(|(long, short, which)| {
        [
            Property::MessageExpiryInterval(long),
            Property::SessionExpiryInterval(u32::MAX - long),
            Property::WillDelayInterval(long),
            Property::MaximumPacketSize(long),
            Property::ServerKeepAlive(short),
            Property::ReceiveMaximum(short),
            Property::TopicAliasMaximum(short),
            Property::TopicAlias(short),
            Property::MaximumQoS((short & 1) as u8),
        ][which]
    });
    let strings = (string(), 0..6usize).prop_map(|(string, which)| {
        [
            Property::ContentType(string),
            Property::AssignedClientIdentifier(string),
            Property::AuthenticationMethod(string),
            Property::ResponseInformation(string),
            Property::ServerReference(string),
            Property::ReasonString(string),
        ][which]
    });
    prop_oneof![
        flags,
        numbers,
        strings,
        (1..=0x0FFF_FFFFu32).prop_map(Property::SubscriptionIdentifier),
        topic_name().prop_map(Property::ResponseTopic),
        bytes().prop_map(Property::CorrelationData),
        bytes().prop_map(Property::AuthenticationData),
        (string(), string()).prop_map(|(name, value)| Property::UserProperty(name, value)),
    ]
}

/// Those of some random properties that can stand together, and in the packet that `fits` tries to write.
fn properties(fits: fn(Properties<'_>) -> bool) -> impl Strategy<Value = Properties<'static>> {
    vec(property(), 0..20).prop_map(move |candidates| {
        let mut kept = PropertyWriter::new();
        for candidate in candidates {
            let mut more = kept.clone();
            if more.push(candidate).finish().is_ok_and(fits) {
                kept = more;
            }
        }
        Box::leak(Box::new(kept)).finish().unwrap()
    })
}

fn fits(packet: Packet<'_>) -> bool {
    encode(&packet, Version::V5, &mut Vec::new()).is_ok()
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    select(ReasonCode::ALL.iter().copied().filter(|reason| reason.is_allowed_in(packet)).collect::<Vec<_>>())
}

fn reasons(packet: PacketType) -> impl Strategy<Value = ReasonCodes<'static>> {
    vec(reason(packet), 1..5).prop_map(|reasons| ReasonCodes::from(&*reasons.leak()))
}

fn ack_properties() -> impl Strategy<Value = Properties<'static>> {
    properties(|properties| {
        fits(Packet::PubAck(Ack { properties, ..Ack::new(NonZeroU16::MIN, ReasonCode::Success) }))
    })
}

fn ack(packet: PacketType) -> impl Strategy<Value = Ack<'static>> {
    (packet_id(), reason(packet), ack_properties()).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

const CONNECT: Connect<'static> = Connect {
    version: Version::V5,
    client_id: "",
    clean_start: true,
    keep_alive: 0,
    username: None,
    password: None,
    will: None,
    properties: Properties::EMPTY,
};

const WILL: Will<'static> =
    Will { topic: "t", payload: b"", qos: QoS::AtMostOnce, retain: false, properties: Properties::EMPTY };

fn connect() -> impl Strategy<Value = Packet<'static>> {
    let will_properties = properties(|properties| {
        fits(Packet::Connect(Connect { will: Some(Will { properties, ..WILL }), ..CONNECT }))
    });
    let will = (topic_name(), bytes(), qos(), any::<bool>(), will_properties).prop_map(
        |(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties },
    );
    let properties = properties(|properties| fits(Packet::Connect(Connect { properties, ..CONNECT })));
    let credentials = (option::of(string()), option::of(bytes()));
    (string(), any::<(bool, u16)>(), credentials, option::of(will), properties).prop_map(
        |(client_id, (clean_start, keep_alive), (username, password), will, properties)| {
            let version = Version::V5;
            Packet::Connect(Connect {
                version,
                client_id,
                clean_start,
                keep_alive,
                username,
                password,
                will,
                properties,
            })
        },
    )
}

fn connack() -> impl Strategy<Value = Packet<'static>> {
    let properties = properties(|properties| {
        fits(Packet::ConnAck(ConnAck { session_present: false, reason: ReasonCode::Success, properties }))
    });
    (any::<bool>(), reason(PacketType::ConnAck), properties).prop_map(|(present, reason, properties)| {
        let session_present = present && reason == ReasonCode::Success;
        Packet::ConnAck(ConnAck { session_present, reason, properties })
    })
}

const PUBLISH: Publish<'static> = Publish {
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    topic: "t",
    packet_id: None,
    properties: Properties::EMPTY,
    payload: b"",
};

/// A PUBLISH of version 5, which may have a topic alias in place of its topic.
pub(super) fn publish() -> impl Strategy<Value = Publish<'static>> {
    let properties = properties(|properties| fits(Packet::Publish(Publish { properties, ..PUBLISH })));
    (any::<[bool; 3]>(), qos(), topic_name(), packet_id(), properties, bytes()).prop_map(
        |([dup, retain, aliased], qos, topic, packet_id, properties, payload)| {
            let acknowledged = qos != QoS::AtMostOnce;
            Publish {
                dup: dup && acknowledged,
                qos,
                retain,
                topic: if aliased && properties.topic_alias().is_some() { "" } else { topic },
                packet_id: acknowledged.then_some(packet_id),
                properties,
                payload,
            }
        },
    )
}

fn subscribe() -> impl Strategy<Value = Packet<'static>> {
    let handling =
        select(&[RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    let subscription = (topic_filter(), qos(), any::<[bool; 2]>(), handling).prop_map(
        |(filter, qos, [no_local, retain_as_published], retain_handling)| {
            let no_local = no_local && !filter.starts_with("$share/");
            (filter, SubscriptionOptions { qos, no_local, retain_as_published, retain_handling })
        },
    );
    let properties = properties(|properties| {
        let subscriptions = [("a", SubscriptionOptions::new(QoS::AtMostOnce))];
        let subscriptions = Subscriptions::from(&subscriptions);
        fits(Packet::Subscribe(Subscribe { packet_id: NonZeroU16::MIN, properties, subscriptions }))
    });
    (packet_id(), properties, vec(subscription, 1..4)).prop_map(|(packet_id, properties, subscriptions)| {
        let subscriptions = Subscriptions::from(&*subscriptions.leak());
        Packet::Subscribe(Subscribe { packet_id, properties, subscriptions })
    })
}

fn unsubscribe() -> impl Strategy<Value = Packet<'static>> {
    let properties = properties(|properties| {
        let filters = TopicFilters::from(&["a"]);
        fits(Packet::Unsubscribe(Unsubscribe { packet_id: NonZeroU16::MIN, properties, filters }))
    });
    (packet_id(), properties, vec(topic_filter(), 1..4)).prop_map(|(packet_id, properties, filters)| {
        let filters = TopicFilters::from(&*filters.leak());
        Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters })
    })
}

fn disconnect() -> impl Strategy<Value = Packet<'static>> {
    let properties = properties(|properties| {
        fits(Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }))
    });
    (reason(PacketType::Disconnect), properties)
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    let properties =
        properties(|properties| fits(Packet::Auth(Auth { reason: ReasonCode::Success, properties })));
    (reason(PacketType::Auth), properties)
        .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }))
}

/// Any packet of version 5, each type as often.
pub(super) fn packet() -> impl Strategy<Value = Packet<'static>> {
    let suback = (packet_id(), ack_properties(), reasons(PacketType::SubAck)).prop_map(
        |(packet_id, properties, reasons)| Packet::SubAck(SubAck { packet_id, properties, reasons }),
    );
    let unsuback = (packet_id(), ack_properties(), reasons(PacketType::UnsubAck)).prop_map(
        |(packet_id, properties, reasons)| Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }),
    );
    prop_oneof![
        connect().boxed(),
        connack().boxed(),
        publish().prop_map(Packet::Publish).boxed(),
        ack(PacketType::PubAck).prop_map(Packet::PubAck).boxed(),
        ack(PacketType::PubRec).prop_map(Packet::PubRec).boxed(),
        ack(PacketType::PubRel).prop_map(Packet::PubRel).boxed(),
        ack(PacketType::PubComp).prop_map(Packet::PubComp).boxed(),
        subscribe().boxed(),
        suback.boxed(),
        unsubscribe().boxed(),
        unsuback.boxed(),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
        disconnect().boxed(),
        auth().boxed(),
    ]
}
