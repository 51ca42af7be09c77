use super::*;
use crate::mqtt::PacketType;
use proptest::prelude::*;

#[test]
fn malformed_packets_end_the_connection_and_version_5_says_why() {
    let pingreq_with_flags: &[u8] = &[0xC1, 0];
    let qos_3: &[u8] = &[0x36, 5, 0, 1, b'a', 0, 1];
    let endless: &[u8] = &[0x30, 0xFF, 0xFF, 0xFF, 0xFF];
    let too_large: &[u8] = &[0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    let from_server: &[u8] = &[0xD0, 0];
    for (bytes, code) in
        [(pingreq_with_flags, "81"), (qos_3, "81"), (endless, "81"), (too_large, "95"), (from_server, "82")]
    {
        for version in [Version::V311, Version::V5] {
            let mut script = Script::connected(version, "me");
            assert!(script.bytes(bytes).is_empty());
            let expected = format!("DISCONNECT {code} {{reason}}");
            let expected: &[String] = if version == Version::V5 { &[expected] } else { &[] };
            assert_eq!(script.output(), expected, "{bytes:02x?}");
            assert!(script.session.is_closing());
        }
    }
}

#[test]
fn a_connect_of_an_unknown_level_is_refused_in_the_nearest_version() {
    let mut script = Script::new(Version::V5, config());
    script.bytes(b"\x10\x0D\x00\x04MQTT\x06\x02\x00\x0a\x00\x00\x00");
    assert_eq!(script.output(), ["CONNACK 84 {reason}"]);
    let mut script = Script::new(Version::V311, config());
    script.bytes(b"\x10\x0C\x00\x04MQTT\x03\x02\x00\x0a\x00\x00");
    assert_eq!(script.output(), ["CONNACK 84"]);
    let mut script = Script::new(Version::V311, config());
    script.bytes(b"\x10\x0C\x00\x04HTTP\x04\x02\x00\x0a\x00\x00");
    assert!(script.output().is_empty() && script.session.is_closing());
}

/// One conversation, to be cut into pieces.
fn conversation() -> Vec<u8> {
    let mut bytes = bytes_of(Packet::Connect(connect(Version::V5, "me")), Version::V5);
    let topics = ["sig/g/floor3?only=a,b", "a/b", "sig/c/you?receipt=each", "sig/x"];
    for (number, topic) in (1..).zip(topics) {
        bytes.extend(bytes_of(Packet::Publish(publish(QoS::AtLeastOnce, number, topic)), Version::V5));
        bytes.extend(bytes_of(Packet::PingReq, Version::V5));
    }
    bytes
}

/// What a session makes of these pieces; the hub answers everything at once.
fn run(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let mut script = Script::new(Version::V5, config());
    let mut commands = Vec::new();
    let mut out = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(command) = script.session.handle_bytes(&mut input, script.now) {
            commands.push(format!("{command:?}"));
            match command {
                Command::Connect(_) => script.let_in("me", false),
                Command::Send { request: Some(request), .. }
                | Command::Publish { request: Some(request), .. } => {
                    script.done(request.0);
                }
                Command::Send { request: None, .. } | Command::Publish { request: None, .. } => {}
                Command::Refuse { request, refusal } => script.refuse(request.0, refusal),
                Command::Subscribe { request, items } => {
                    let results = items.into_iter().map(|item| item.map(|item| item.reception.qos)).collect();
                    script.reply(Reply::Subscribed(request, results));
                }
                Command::Unsubscribe { request, filters } => {
                    script.reply(Reply::Unsubscribed(request, vec![true; filters.len()]));
                }
                Command::Moderate { request, .. } => script.done(request.0),
                Command::Disconnect { .. }
                | Command::Authenticate { .. }
                | Command::Release { .. }
                | Command::Confirm { .. } => {}
            }
        }
        script.session.poll_transmit(&mut out, script.now);
    }
    (commands, out)
}

#[test]
fn a_conversation_is_the_same_however_it_is_cut() {
    let bytes = conversation();
    let whole = run(&[&bytes]);
    assert_eq!(whole.0.len(), 5);
    for size in 1..40 {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert!(run(&pieces) == whole, "in pieces of {size}");
    }
}

#[test]
fn an_idle_session_keeps_no_input() {
    let mut script = Script::connected(Version::V311, "me");
    let ping = bytes_of(Packet::PingReq, Version::V311);
    script.bytes(&ping[..1]);
    assert!(script.session.link.has_input());
    script.bytes(&ping[1..]);
    assert!(!script.session.link.has_input());
    assert!(size_of::<MqttSession>() <= 768, "{}", size_of::<MqttSession>());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(pieces: Vec<Vec<u8>>, version in 0..3_usize) {
        let mut script = Script::connected(VERSIONS[version], "me");
        for piece in &pieces {
            script.bytes(piece);
        }
        let mut first = Script::new(Version::V5, config());
        for piece in &pieces {
            first.bytes(piece);
        }
    }

    #[test]
    fn altered_conversations_never_panic(
        changes: Vec<(prop::sample::Index, u8)>,
        cut: prop::sample::Index,
    ) {
        let mut bytes = conversation();
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at.index(length)] = byte;
        }
        let (head, tail) = bytes.split_at(cut.index(bytes.len()));
        run(&[head, tail]);
    }

    #[test]
    fn arbitrary_packets_with_plausible_bodies_never_panic(
        packets in prop::collection::vec((0..15_usize, 0..16_u8, prop::collection::vec(0..8_u8, 0..12)), 0..40),
    ) {
        let mut bytes = conversation();
        for (kind, flags, body) in packets {
            bytes.push((PacketType::ALL[kind] as u8) << 4 | flags);
            bytes.push(body.len() as u8);
            bytes.extend(body);
        }
        run(&[&bytes]);
    }

    #[test]
    fn arbitrary_topics_and_filters_never_panic(topic in "sig/[gcrp]/.{0,40}", filter in "(sig|\\$share)/.{0,40}") {
        let mut script = Script::connected(Version::V5, "me");
        if crate::mqtt::topic::is_valid_name(&topic) {
            script.publish(QoS::AtMostOnce, 0, &topic);
        }
        let _ = super::super::filter::parse("sig", None, &filter);
    }
}
