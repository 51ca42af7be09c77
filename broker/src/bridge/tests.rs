//! The session of one end against every answer of a broker, and the way of a message from end to end, in packets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::end::{Drop, End, Event, Fault};
use super::packet::{Message, Opening, Version};
use super::pattern::{Pattern, Way};
use super::relay::{Relay, VIA};
use super::settings::BridgeSettings;
use super::status::BridgeStatus;

fn end(version: Version) -> End {
    let opening = Opening {
        client_id: "c".to_owned(),
        login: (String::new(), String::new()),
        keep_alive: 60,
        session_expiry: 60,
        receive_maximum: 2,
        max_packet: 1000,
        releases: true,
    };
    End::new(version, opening)
}

/// CONNACK of 3.1.1 without and with a session.
const NEW: &[u8] = &[0x20, 2, 0, 0];
const RESUMED: &[u8] = &[0x20, 2, 1, 0];

fn hear(end: &mut End, bytes: &[u8]) -> Result<(), Fault> {
    end.handle_bytes(&mut BytesMut::from(bytes), Instant::now())
}

/// Connects, and takes what is written behind CONNECT.
fn connect(end: &mut End, connack: &[u8]) -> Vec<u8> {
    end.connect();
    end.out.clear();
    hear(end, connack).unwrap();
    written(end)
}

fn written(end: &mut End) -> Vec<u8> {
    end.out.split().to_vec()
}

fn message(topic: &str, qos: u8) -> Message {
    let topic = topic.to_owned();
    Message { topic, payload: Bytes::from_static(b"x"), qos, retain: false, expiry: None, properties: None }
}

/// PUBLISH of 3.1.1 on topic `t` with payload `x`.
fn publish(qos: u8, dup: bool, id: u8) -> Vec<u8> {
    let mut packet = vec![0x30 | qos << 1 | u8::from(dup) << 3, 6, 0, 1, b't', 0, id, b'x'];
    if qos == 0 {
        packet.drain(5..7);
        packet[1] = 4;
    }
    packet
}

fn give(end: &mut End, qos: u8) {
    end.publish(message("t", qos), None, Instant::now());
}

#[test]
fn what_is_unacknowledged_comes_again_in_order_and_before_the_rest() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    for _ in 0..3 {
        give(&mut end, 1);
    }
    assert_eq!(written(&mut end), [publish(1, false, 1), publish(1, false, 2)].concat(), "two are in flight");
    hear(&mut end, &[0x40, 2, 0, 1]).unwrap();
    assert_eq!(end.poll_event(), Some(Event::Taken(None)));
    assert_eq!(written(&mut end), publish(1, false, 1), "the third has the identifier that is free");
    end.disconnect();
    assert_eq!(connect(&mut end, RESUMED), [publish(1, true, 2), publish(1, true, 1)].concat());
    end.disconnect();
    give(&mut end, 1);
    assert_eq!(
        connect(&mut end, NEW),
        [publish(1, false, 2), publish(1, false, 1)].concat(),
        "a new session knows no repeats"
    );
    assert!(!end.is_settled());
    for id in [2, 1, 2] {
        hear(&mut end, &[0x40, 2, 0, id]).unwrap();
    }
    assert!(end.is_settled());
}

#[test]
fn mqtt_4_3_3_of_qos_2_only_the_release_comes_again() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    give(&mut end, 2);
    give(&mut end, 2);
    written(&mut end);
    hear(&mut end, &[0x50, 2, 0, 1]).unwrap();
    assert_eq!(end.poll_event(), Some(Event::Taken(None)), "the broker has it");
    assert_eq!(written(&mut end), [0x62, 2, 0, 1]);
    end.disconnect();
    assert_eq!(connect(&mut end, RESUMED), [&[0x62, 2, 0, 1][..], &publish(2, true, 2)].concat());
    end.disconnect();
    assert_eq!(
        connect(&mut end, NEW),
        publish(2, false, 1),
        "the first was taken by the session that is no more"
    );
}

#[test]
fn identifiers_that_an_earlier_process_left_are_released() {
    let mut end = end(Version::V311);
    assert_eq!(connect(&mut end, RESUMED), [0x62, 2, 0, 1, 0x62, 2, 0, 2]);
    give(&mut end, 2);
    assert_eq!(written(&mut end), publish(2, false, 1));
    // The answers to the releases, before that to the message.
    hear(&mut end, &[0x70, 2, 0, 1, 0x70, 2, 0, 2, 0x50, 2, 0, 1]).unwrap();
    assert_eq!(end.poll_event(), Some(Event::Taken(None)));
    end.disconnect();
    assert_eq!(connect(&mut end, RESUMED), [0x62, 2, 0, 1], "not the second time");
}

#[test]
fn an_acknowledgement_waits_for_the_other_side() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    hear(&mut end, &publish(1, false, 7)).unwrap();
    let Some(Event::Message(_, token)) = end.poll_event() else { panic!("a message") };
    assert!(written(&mut end).is_empty());
    // The connection is lost before the other side has it.
    end.disconnect();
    connect(&mut end, RESUMED);
    hear(&mut end, &publish(1, true, 7)).unwrap();
    assert_eq!(end.poll_event(), None, "it is known");
    end.acknowledge(token);
    assert_eq!(written(&mut end), [0x40, 2, 0, 7]);
    end.acknowledge(token);
    assert!(written(&mut end).is_empty(), "once");
    hear(&mut end, &publish(1, true, 7)).unwrap();
    assert!(matches!(end.poll_event(), Some(Event::Message(..))), "the acknowledgement may have been lost");
}

#[test]
fn what_is_taken_while_nobody_is_there_is_acknowledged_when_it_comes_again() {
    for (qos, answer) in [(1, 0x40), (2, 0x50)] {
        let mut end = end(Version::V311);
        connect(&mut end, NEW);
        hear(&mut end, &publish(qos, false, 7)).unwrap();
        let Some(Event::Message(_, token)) = end.poll_event() else { panic!("a message") };
        end.disconnect();
        end.acknowledge(token);
        connect(&mut end, RESUMED);
        hear(&mut end, &publish(qos, true, 7)).unwrap();
        assert_eq!(end.poll_event(), None);
        assert_eq!(written(&mut end), [answer, 2, 0, 7]);
    }
}

#[test]
fn a_token_of_a_session_that_is_no_more_acknowledges_nothing() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    hear(&mut end, &publish(1, false, 7)).unwrap();
    let Some(Event::Message(_, old)) = end.poll_event() else { panic!("a message") };
    end.disconnect();
    connect(&mut end, NEW);
    hear(&mut end, &publish(1, false, 7)).unwrap();
    let Some(Event::Message(_, new)) = end.poll_event() else { panic!("another message") };
    end.acknowledge(old);
    assert!(written(&mut end).is_empty());
    end.acknowledge(new);
    assert_eq!(written(&mut end), [0x40, 2, 0, 7]);
}

#[test]
fn mqtt_4_3_3_a_message_of_qos_2_is_known_until_it_is_released() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    hear(&mut end, &publish(2, false, 7)).unwrap();
    let Some(Event::Message(_, token)) = end.poll_event() else { panic!("a message") };
    end.acknowledge(token);
    assert_eq!(written(&mut end), [0x50, 2, 0, 7]);
    hear(&mut end, &publish(2, true, 7)).unwrap();
    assert_eq!((end.poll_event(), written(&mut end)), (None, vec![0x50, 2, 0, 7]));
    hear(&mut end, &[0x62, 2, 0, 7]).unwrap();
    assert_eq!(written(&mut end), [0x70, 2, 0, 7]);
    hear(&mut end, &publish(2, false, 7)).unwrap();
    assert!(matches!(end.poll_event(), Some(Event::Message(..))));
}

#[test]
fn what_cannot_be_sent_is_told_and_never_silently_gone() {
    let now = Instant::now();
    let mut end = end(Version::V5);
    give(&mut end, 0);
    assert_eq!(end.poll_event(), Some(Event::Dropped(Drop::Away, None, String::new())));
    end.publish(Message { expiry: Some(1), ..message("t", 1) }, None, now);
    // CONNACK of version 5 with Maximum Packet Size 20 and Maximum QoS 1.
    end.connect();
    let connack: &[u8] = &[0x20, 10, 0, 0, 7, 39, 0, 0, 0, 20, 36, 1];
    end.handle_bytes(&mut BytesMut::from(connack), now + Duration::from_secs(2)).unwrap();
    assert_eq!(end.poll_event(), Some(Event::Dropped(Drop::Expired, None, String::new())));
    give(&mut end, 2);
    end.publish(message("a topic that takes much room", 1), None, now);
    assert!(matches!(end.poll_event(), Some(Event::Dropped(Drop::TooLarge, None, _))));
    // PUBACK with reason code 0x87.
    hear(&mut end, &[0x40, 4, 0, 2, 0x87, 0]).unwrap();
    assert_eq!(end.poll_event(), Some(Event::Dropped(Drop::Refused, None, "NotAuthorized".to_owned())));
    assert!(end.is_settled());
}

#[test]
fn answers_that_make_no_sense_end_the_connection() {
    let mut fresh = end(Version::V311);
    fresh.connect();
    assert!(matches!(hear(&mut fresh, &[0x20, 2, 0, 5]), Err(Fault::Refused(why)) if why == "NotAuthorized"));
    for bytes in [&[0x40, 2, 0, 1][..], &[0x10, 0], &[0xFF, 0]] {
        let mut end = end(Version::V311);
        end.connect();
        assert!(matches!(hear(&mut end, bytes), Err(Fault::Protocol(_))), "{bytes:x?}");
    }
    // What a broker of 3.1.1 answers to version 5: the packet is whole, and its inside isn't.
    let mut end = end(Version::V5);
    end.connect();
    assert!(matches!(hear(&mut end, &[0x20, 2, 0, 1]), Err(Fault::Protocol(_))));
}

#[test]
fn parts_of_a_packet_wait_for_the_rest() {
    let mut end = end(Version::V311);
    connect(&mut end, NEW);
    let mut bytes = BytesMut::new();
    for byte in publish(1, false, 3) {
        assert_eq!(end.poll_event(), None);
        bytes.extend_from_slice(&[byte]);
        end.handle_bytes(&mut bytes, Instant::now()).unwrap();
    }
    assert!(matches!(end.poll_event(), Some(Event::Message(..))));
}

fn relay(gateway: &str) -> Relay {
    let pattern = Pattern {
        is_in: true,
        is_out: true,
        qos: 1,
        local_prefix: "here/".to_owned(),
        remote_prefix: String::new(),
        topic: "#".to_owned(),
    };
    let settings = BridgeSettings {
        name: "far".into(),
        host: "localhost".to_owned(),
        port: 1883,
        version: Version::V5,
        client_id: "c".to_owned(),
        login: (String::new(), String::new()),
        keep_alive: 60,
        session_expiry: 60,
        in_flight: 10,
        max_packet: 1000,
        back_off: (Duration::from_secs(1), Duration::from_secs(1)),
        tls: None,
        patterns: vec![pattern],
        local_password: String::new(),
    };
    let status = Arc::new(BridgeStatus::new(settings.name.clone()));
    let mut relay = Relay::new(&settings, "sig", gateway.into(), status);
    for end in [&mut relay.local, &mut relay.far] {
        end.connect();
        end.out.clear();
        hear(end, &[0x20, 3, 0, 0, 0]).unwrap();
    }
    relay
}

/// Takes the PUBLISH that one end has written, as the broker there would send it on with this identifier.
fn taken_from(end: &mut End) -> Option<Message> {
    let mut bytes = end.out.split();
    match Version::V5.read(&mut bytes, 1000).unwrap()? {
        super::packet::Received::Publish { message, .. } => Some(message),
        other => panic!("{other:?}"),
    }
}

fn put_into(end: &mut End, message: &Message) {
    let mut bytes = BytesMut::new();
    Version::V5.publish(message, 1, false, 1000, &mut bytes).unwrap();
    end.handle_bytes(&mut bytes, Instant::now()).unwrap();
}

fn via(message: &Message) -> Vec<String> {
    let properties = message.properties.as_deref();
    let all = properties.into_iter().flat_map(|properties| &properties.user_properties);
    all.filter(|(key, _)| key == VIA).map(|(_, value)| value.clone()).collect()
}

#[test]
fn a_message_is_known_where_it_was_before() {
    let mut first = relay("first");
    put_into(&mut first.local, &message("here/t", 0));
    first.settle(Instant::now());
    let out = taken_from(&mut first.far).unwrap();
    assert_eq!((out.topic.as_str(), via(&out)), ("t", vec!["out first".to_owned()]));
    // From another gateway, it comes in there and may go out there.
    let mut second = relay("second");
    put_into(&mut second.far, &out);
    second.settle(Instant::now());
    let passing = taken_from(&mut second.local).unwrap();
    assert_eq!((passing.topic.as_str(), via(&passing).len()), ("here/t", 2));
    let mut third = relay("second");
    put_into(&mut third.local, &passing);
    third.settle(Instant::now());
    let out = taken_from(&mut third.far).unwrap();
    assert_eq!(via(&out).last().unwrap(), "out second");
    // But not again, nor back in.
    put_into(&mut third.local, &Message { topic: "here/t".to_owned(), ..out.clone() });
    put_into(&mut third.far, &out);
    put_into(&mut first.far, &out);
    put_into(&mut first.local, &Message { topic: "here/t".to_owned(), ..out });
    for relay in [&mut first, &mut third] {
        relay.settle(Instant::now());
        assert_eq!((taken_from(&mut relay.far), taken_from(&mut relay.local)), (None, None));
    }
}

#[test]
fn neither_side_is_told_before_the_other_has_it() {
    let mut relay = relay("g");
    // PUBLISH with QoS 1 and identifier 1, and the PUBACK that it gets in the end.
    for (way, topic) in [(Way::In, "t"), (Way::Out, "here/t")] {
        let ends = |relay: &mut Relay| match way {
            Way::In => (std::mem::take(&mut relay.far.out), std::mem::take(&mut relay.local.out)),
            Way::Out => (std::mem::take(&mut relay.local.out), std::mem::take(&mut relay.far.out)),
        };
        let (source, target): (&mut End, &mut End) = match way {
            Way::In => (&mut relay.far, &mut relay.local),
            Way::Out => (&mut relay.local, &mut relay.far),
        };
        put_into(source, &message(topic, 1));
        assert!(target.is_settled());
        relay.settle(Instant::now());
        let (to_source, to_target) = ends(&mut relay);
        assert!(to_source.is_empty() && !to_target.is_empty(), "{way:?}");
        let target = if way == Way::In { &mut relay.local } else { &mut relay.far };
        hear(target, &[0x40, 2, 0, 1]).unwrap();
        relay.settle(Instant::now());
        assert_eq!(ends(&mut relay).0[..], [0x40, 2, 0, 1], "{way:?}");
    }
}
