//! The table of packets in `vectors.txt`, whose head explains it, and what doesn't fit into a line of it.

use crate::mqtt::*;
use core::num::NonZeroU16;

struct Vector {
    line: usize,
    version: Version,
    outcome: &'static str,
    bytes: Vec<u8>,
    notes: Vec<&'static str>,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("vectors.txt").lines().enumerate();
    let mut vectors = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let [versions, outcome, hex, notes] =
            line.splitn(4, '|').map(str::trim).collect::<Vec<_>>().try_into().expect("four columns");
        for version in versions.split(',') {
            let version = match version {
                "3.1" => Version::V31,
                "3.1.1" => Version::V311,
                "5" => Version::V5,
                other => panic!("line {}: version {other}", index + 1),
            };
            let notes = notes.split(';').map(str::trim).filter(|note| !note.is_empty()).collect();
            vectors.push(Vector { line: index + 1, version, outcome, bytes: bytes(hex), notes });
        }
    }
    vectors
}

/// Hexadecimal digits, and 'text' for itself.
fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in hex.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            bytes.extend(part.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
    }
    bytes
}

#[test]
fn every_vector_has_its_outcome() {
    for Vector { line, version, outcome, bytes, notes } in vectors() {
        let decoded = decode(&bytes, version);
        if let Some(reason) = outcome.strip_prefix('!') {
            let error = decoded.expect_err(&format!("line {line} must be refused"));
            let expected = u8::from_str_radix(reason, 16).unwrap();
            assert_eq!(error.reason().as_u8(), expected, "line {line}: {error}");
            assert_eq!(Some(&error.what()), notes.first(), "line {line}");
            continue;
        }
        let packet = decoded.unwrap_or_else(|error| panic!("line {line}: {error}"));
        assert_eq!(frame_length(&bytes), Ok(Some(bytes.len())), "line {line}");
        let shown = format!("{packet:?}");
        for note in notes {
            assert!(shown.contains(note), "line {line}: no {note} in {shown}");
        }
        if outcome == "=" {
            let mut written = Vec::new();
            encode(&packet, version, &mut written).unwrap_or_else(|error| panic!("line {line}: {error}"));
            assert_eq!(written, bytes, "line {line} is written otherwise");
        } else {
            assert_eq!(outcome, "~", "line {line}");
        }
    }
}

#[test]
fn no_part_of_a_packet_is_a_packet() {
    for Vector { line, version, outcome, bytes, .. } in vectors() {
        if outcome.starts_with('!') {
            continue;
        }
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            assert!(frame_length(part).is_ok_and(|length| length.is_none_or(|length| length > end)));
            assert!(decode(part, version).is_err(), "line {line} cut at {end}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat(), version).is_err(), "line {line} with a byte more");
    }
}

#[test]
fn frame_length_needs_at_most_five_bytes() {
    assert_eq!(frame_length(&[]), Ok(None));
    assert_eq!(frame_length(&[0x30]), Ok(None));
    assert_eq!(frame_length(&[0x30, 0xFF, 0xFF, 0xFF]), Ok(None));
    assert_eq!(frame_length(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Ok(Some(MAX_REMAINING_LENGTH + 5)));
    assert_eq!(frame_length(&[0x30, 0x80, 0x01]), Ok(Some(3 + 128)));
    let error = frame_length(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]).unwrap_err();
    assert_eq!((error.reason(), error.packet()), (ReasonCode::MalformedPacket, None));
}

#[test]
fn a_refused_connect_tells_the_version_to_answer_in() {
    for (hex, expected) in [
        ("10 0E 00 06 'MQIsdp' 04 02 00 3C 00 00", Some(Version::V31)),
        ("10 0C 00 04 'MQTT' 03 02 00 3C 00 00", Some(Version::V311)),
        ("10 0C 00 04 'MQTT' 84 02 00 3C 00 00", Some(Version::V311)),
        ("10 0C 00 04 'MQTT' 06 02 00 3C 00 00", Some(Version::V5)),
        ("10 0C 00 04 'MQTT' 05 FF 00 3C 00 00", Some(Version::V5)),
        ("10 0C 00 04 'HTTP' 05 FF 00 3C 00 00", None),
        ("20 0C 00 04 'MQTT' 05 FF 00 3C 00 00", None),
        ("10 02 00 04", None),
        ("10", None),
    ] {
        assert_eq!(refusal_version(&bytes(hex)), expected, "{hex}");
    }
}

#[test]
fn an_error_says_what_and_where() {
    let error = decode(&[0x30, 0x04, 0x00, 0x01, b'#', 0x00], Version::V5).unwrap_err();
    assert_eq!(error.packet(), Some(PacketType::Publish));
    assert_eq!(error.to_string(), "PUBLISH: not a topic name (0x90 Topic Name invalid)");
}

#[test]
fn properties_are_read_by_accessor_and_in_order() {
    let frame = bytes(
        "30 33 00 01 't' 2D 01 01 02 00 00 00 3C 03 00 01 'c' 08 00 01 'r' 09 00 01 FF \
         0B 07 0B 80 01 23 00 05 26 00 01 'k' 00 01 'v' 26 00 01 'k' 00 01 'w' 'body'",
    );
    let mut frame = frame;
    frame[1] = frame.len() as u8 - 2;
    frame[5] = frame.len() as u8 - 6 - 4;
    let Ok(Packet::Publish(publish)) = decode(&frame, Version::V5) else { panic!("not a publish") };
    let properties = publish.properties;
    assert_eq!(properties.payload_format(), Some(true));
    assert_eq!(properties.message_expiry(), Some(60));
    assert_eq!(properties.content_type(), Some("c"));
    assert_eq!(properties.response_topic(), Some("r"));
    assert_eq!(properties.correlation_data(), Some(&[0xFF][..]));
    assert_eq!(properties.topic_alias(), Some(5));
    assert_eq!(properties.will_delay(), None);
    assert!(properties.subscription_ids().eq([7, 128]));
    assert!(properties.user_properties().eq([("k", "v"), ("k", "w")]));
    assert_eq!(properties.iter().count(), 10);
    assert_eq!(publish.payload, b"body");
}

#[test]
fn what_no_peer_would_accept_is_not_written() {
    let one = NonZeroU16::MIN;
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    };
    let long = "x".repeat(65_536);
    let malformed = [("a#", SubscriptionOptions::new(QoS::AtMostOnce))];
    let shared =
        [("$share/g/a", SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(QoS::AtMostOnce) })];
    let subscribe = |subscriptions| {
        Packet::Subscribe(Subscribe { packet_id: one, properties: Properties::EMPTY, subscriptions })
    };
    let mut writer = PropertyWriter::new();
    let delay = writer.push(Property::WillDelayInterval(1)).finish().unwrap();
    let mut out = b"before".to_vec();
    for packet in [
        Packet::Publish(Publish { topic: "", ..publish }),
        Packet::Publish(Publish { topic: "a/+", ..publish }),
        Packet::Publish(Publish { topic: "a\0", ..publish }),
        Packet::Publish(Publish { topic: &long, ..publish }),
        Packet::Publish(Publish { qos: QoS::AtLeastOnce, ..publish }),
        Packet::Publish(Publish { properties: delay, ..publish }),
        Packet::PubAck(Ack::new(one, ReasonCode::PacketIdentifierNotFound)),
        Packet::Disconnect(Disconnect { reason: ReasonCode::Banned, properties: Properties::EMPTY }),
        subscribe(Subscriptions::from(&[])),
        subscribe(Subscriptions::from(&malformed)),
        subscribe(Subscriptions::from(&shared)),
    ] {
        assert!(encode(&packet, Version::V5, &mut out).is_err(), "{:?}", packet.packet_type());
        assert_eq!(out, b"before");
    }
    // `$share` is nothing special before version 5, and the option isn't written.
    assert!(encode(&subscribe(Subscriptions::from(&shared)), Version::V311, &mut out).is_ok());
}

#[test]
fn a_property_writer_remembers_its_first_error() {
    let long = "x".repeat(65_536);
    for wrong in [
        Property::ContentType(&long),
        Property::ContentType("\0"),
        Property::ReceiveMaximum(0),
        Property::TopicAlias(0),
        Property::MaximumQoS(2),
        Property::ResponseTopic("a/#"),
        Property::SubscriptionIdentifier(268_435_456),
        Property::WillDelayInterval(1),
    ] {
        let mut writer = PropertyWriter::new();
        writer.push(Property::WillDelayInterval(1)).push(wrong).push(Property::UserProperty("k", "v"));
        assert!(writer.finish().is_err(), "{:.40}", format!("{wrong:?}"));
        writer.clear();
        assert!(writer.finish().unwrap().is_empty());
    }
}

#[test]
fn before_version_5_a_refusal_without_a_code_is_silence() {
    let encoded = |packet, version| {
        let mut out = Vec::new();
        encode(&packet, version, &mut out).map(|()| out)
    };
    let connack =
        |reason| Packet::ConnAck(ConnAck { session_present: true, reason, properties: Properties::EMPTY });
    let disconnect = |reason| Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY });
    for version in [Version::V31, Version::V311] {
        assert_eq!(encoded(connack(ReasonCode::Banned), version), Ok(vec![0x20, 2, 0, 5]));
        assert_eq!(encoded(connack(ReasonCode::PacketTooLarge), version), Ok(vec![]));
        assert_eq!(encoded(disconnect(ReasonCode::SessionTakenOver), version), Ok(vec![]));
        assert_eq!(encoded(disconnect(ReasonCode::NORMAL_DISCONNECTION), version), Ok(vec![0xE0, 0]));
    }
    assert_eq!(encoded(connack(ReasonCode::Banned), Version::V5), Ok(vec![0x20, 3, 0, 0x8A, 0]));
    assert_eq!(encoded(disconnect(ReasonCode::SessionTakenOver), Version::V5), Ok(vec![0xE0, 1, 0x8E]));
}
