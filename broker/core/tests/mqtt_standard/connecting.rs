//! CONNECT, CONNACK, keep-alive and DISCONNECT [section 3.1, 3.2, 3.12, 3.14].

use bugle_core::mqtt::{Property, ReasonCode};

use crate::gateway::{Gateway, Setup};
use crate::peer::{
    Broker, How, V5, V311, VERSIONS, Version, WillSpec, connect_bytes, each, field, packet, properties,
    publish,
};

/// [MQTT-3.1.0-1] [MQTT-3.14.0-1] and 3.1.1 [MQTT-3.1.0-1] [MQTT-3.2.0-1]: whoever begins otherwise hears nothing.
#[test]
fn the_first_packet_is_connect() {
    each(&VERSIONS, |mut broker, version| {
        let none = properties(version, &[]);
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "#", 0);
        for bytes in [
            packet(0x30, &[&field(b"a"), &none, b"x"]),
            packet(0x82, &[&[0, 1], &none, &field(b"a"), &[0]]),
            packet(0xC0, &[]),
            packet(0xE0, &[]),
            packet(0xF0, &[]),
            packet(0x20, &[&[0, 0], &none]),
        ] {
            let (peer, heard) = broker.raw(version, &bytes);
            assert_eq!(heard, [""; 0]);
            assert!(!broker.gateway.is_open(peer.who));
        }
        assert_eq!(broker.heard(&mut app), [""; 0]);
    });
}

/// [MQTT-3.1.0-2] and 3.1.1 [MQTT-3.1.0-2]: with the will, since that is no goodbye.
#[test]
fn a_second_connect_is_a_protocol_error() {
    each(&VERSIONS, |mut broker, version| {
        let mut watcher = broker.fresh(version, "watcher");
        broker.subscribe(&mut watcher, "will", 0);
        let how = How { will: Some(WillSpec::new("will", "gone")), ..How::default() };
        let mut peer = broker.connect(version, "peer", &how);
        let heard = broker.write(&mut peer, &connect_bytes(version, 2, &[&field(b"peer")]));
        broker.assert_ended(&peer, &heard, "82");
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will gone"]);
    });
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] and 3.1.1 [MQTT-3.1.2-1] [MQTT-3.1.2-2]: another level is answered as the nearest
/// version has it, another name not at all; that of 3.1 is let in.
#[test]
fn protocol_names_and_levels() {
    each(&[V311], |mut broker, version| {
        let connect = |name: &[u8], level: u8| {
            let none: &[u8] = if level >= 5 { &[0] } else { &[] };
            packet(0x10, &[&field(name), &[level, 2, 0, 0], none, &field(b"peer")])
        };
        for (name, level, answer) in [
            (&b"MQIsdp"[..], 3, &[0x20, 2, 0, 0][..]),
            (b"MQTT", 4, &[0x20, 2, 0, 0]),
            (b"MQTT", 0, &[0x20, 2, 0, 1]),
            (b"MQTT", 3, &[0x20, 2, 0, 1]),
            (b"MQIsdp", 4, &[0x20, 2, 0, 1]),
            (b"MQIsdp", 5, &[0x20, 2, 0, 1]),
            (b"mqtt", 4, &[]),
            (b"MQTTX", 4, &[]),
            (b"", 4, &[]),
            (b"HTTP", 5, &[]),
        ] {
            let (peer, _) = broker.raw(version, &connect(name, level));
            assert_eq!(broker.bytes(&peer), answer, "{name:?} {level}");
            assert_eq!(broker.gateway.is_open(peer.who), answer == [0x20, 2, 0, 0], "{name:?} {level}");
        }
        for level in [6, 7, 0x7F] {
            let (peer, heard) = broker.raw(V5, &connect(b"MQTT", level));
            broker.assert_refused(&peer, &heard, "84", true);
        }
        // A bridge of Mosquitto's tries with the highest bit first, and goes on without it when it is refused so.
        let (peer, _) = broker.raw(version, &connect(b"MQTT", 0x84));
        assert_eq!(broker.bytes(&peer), [0x20, 2, 0, 1]);
    });
}

/// What CONNECT flags ask for in the payload, with the flags bit by bit.
fn asked(version: Version, flags: u8) -> Vec<Vec<u8>> {
    let mut fields = vec![field(b"peer")];
    if flags & 0x04 != 0 {
        fields.push([properties(version, &[]), field(b"will"), field(b"gone")].concat());
    }
    if flags & 0x80 != 0 {
        fields.push(field(b"user"));
    }
    if flags & 0x40 != 0 {
        fields.push(field(b"secret"));
    }
    fields
}

/// [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
/// [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.4-1] and 3.1.1 [MQTT-3.1.2-3]
/// [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-18] [MQTT-3.1.2-19]
/// [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.4-1]: all flags, with what
/// they ask for, with one field less and with one more.
#[test]
fn the_payload_of_connect_is_what_its_flags_say() {
    each(&VERSIONS, |mut broker, version| {
        for flags in 0..=255_u8 {
            let has_will = flags & 0x04 != 0;
            let will_qos = flags >> 3 & 3;
            let is_valid = flags & 0x01 == 0
                && will_qos != 3
                && (has_will || flags & 0x38 == 0)
                && (version == V5 || flags & 0xC0 != 0x40);
            let fields = asked(version, flags);
            let (peer, heard) = broker.raw(version, &connect_bytes(version, flags, &[&fields.concat()]));
            if is_valid {
                assert!(heard[0].starts_with("CONNACK 00"), "{flags:#04x}: {heard:?}");
                broker.lose(peer);
            } else {
                broker.assert_refused(&peer, &heard, "81", false);
            }
            let (_, less) = fields.split_last().unwrap();
            for payload in [less.concat(), [&fields.concat()[..], &field(b"more")].concat()] {
                let (peer, heard) = broker.raw(version, &connect_bytes(version, flags, &[&payload]));
                broker.assert_refused(&peer, &heard, "81", false);
            }
        }
    });
}

/// [MQTT-3.1.3-1] [MQTT-3.1.2-7] and 3.1.1 [MQTT-3.1.3-1] [MQTT-3.1.2-8]: each field in its place, the will with the
/// QoS of its flags [MQTT-3.1.2-12] 3.1.1 [MQTT-3.1.2-14].
#[test]
fn the_fields_of_connect_stand_in_their_order() {
    each(&VERSIONS, |mut broker, version| {
        let mut watcher = broker.fresh(version, "watcher");
        broker.subscribe(&mut watcher, "#", 2);
        for (will_qos, line) in [(0, "q0"), (1, "q1 #1"), (2, "q2 #2")] {
            let payload = asked(version, 0xC4).concat();
            let (peer, _) = broker.raw(version, &connect_bytes(version, 0xC6 | will_qos << 3, &[&payload]));
            broker.lose(peer);
            assert_eq!(broker.heard(&mut watcher), [format!("PUBLISH {line} will gone")]);
        }
    });
}

/// [MQTT-3.1.3-5] and 3.1.1 [MQTT-3.1.3-5]; more than that, too.
#[test]
fn client_ids_of_23_letters_and_digits_are_let_in() {
    each(&VERSIONS, |mut broker, version| {
        let longest = "x".repeat(256);
        for id in [
            "a",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            "more than 23 bytes, spaces and / + # $",
            "ä",
            &longest,
        ] {
            let mut peer = broker.fresh(version, id);
            assert_eq!(broker.write(&mut peer, &[0xC0, 0]), ["PINGRESP"]);
        }
    });
}

/// [MQTT-3.1.3-8] and 3.1.1 [MQTT-3.1.3-9]
#[test]
fn a_client_id_that_is_refused_is_told_so() {
    each(&VERSIONS, |mut broker, version| {
        let (peer, heard) = broker.try_connect(version, &"x".repeat(257), &How::default());
        broker.assert_refused(&peer, &heard, "85", true);
    });
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] and 3.1.1 [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8]: a new one for
/// each, which version 5 is told, and under which it comes back; before, only with a clean session.
#[test]
fn who_has_no_client_id_gets_one() {
    each(&[V5], |mut broker, version| {
        let mut ids = Vec::new();
        for clean in [true, false, true] {
            let how = How { clean, expiry: 60, ..How::default() };
            let (mut peer, heard) = broker.try_connect(version, "", &how);
            let (_, rest) = heard[0].split_once("AssignedClientIdentifier(\"").unwrap();
            let id = rest.split('"').next().unwrap().to_owned();
            assert!(!ids.contains(&id) && !id.is_empty() && !heard[0].contains("present"), "{heard:?}");
            broker.subscribe(&mut peer, "a", 1);
            broker.lose(peer);
            broker.resume(version, &id, &How::kept());
            ids.push(id);
        }
        let (_, heard) = broker.try_connect(version, "named", &How::default());
        assert!(!heard[0].contains("Assigned"), "{heard:?}");
    });
    each(&[V311], |mut broker, version| {
        let (mut one, _) = broker.try_connect(version, "", &How::default());
        let (mut two, _) = broker.try_connect(version, "", &How::default());
        for peer in [&mut one, &mut two] {
            assert_eq!(broker.subscribe(peer, "a", 0), ["SUBACK 900 00"]);
        }
        broker.publish(&mut one, 0, 0, "a", "both are there");
        assert_eq!(broker.heard(&mut two), ["PUBLISH q0 a both are there"]);
        let (peer, heard) = broker.try_connect(version, "", &How::kept());
        broker.assert_refused(&peer, &heard, "85", true);
        assert_eq!(broker.bytes(&peer), [0x20, 2, 0, 2]);
    });
}

/// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] and 3.1.1 [MQTT-3.1.4-4] [MQTT-3.2.0-1]: first, and once,
/// though more is there already.
#[test]
fn connack_comes_first_and_once() {
    each(&VERSIONS, |mut broker, version| {
        let none = properties(version, &[]);
        let all = [
            connect_bytes(version, 2, &[&field(b"peer")]),
            packet(0x82, &[&[0, 1], &none, &field(b"a"), &[1]]),
            packet(0x32, &[&field(b"a"), &[0, 2], &none, b"x"]),
            packet(0xC0, &[]),
        ];
        let (mut peer, mut heard) = broker.raw(version, &all.concat());
        heard.extend(broker.write(&mut peer, &[0xC0, 0]));
        assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
        assert_eq!(heard.iter().filter(|line| line.starts_with("CONNACK")).count(), 1);
        heard.sort();
        assert_eq!(heard[1..], ["PINGRESP", "PINGRESP", "PUBACK 2 00", "PUBLISH q1 #1 a x", "SUBACK 1 01"]);
        let bytes = broker.bytes(&peer);
        let flags = if version == V5 { bytes[2] } else { bytes[2] | bytes[3] };
        assert_eq!((bytes[0], flags), (0x20, 0));
    });
}

/// [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1] and 3.1.1 [MQTT-3.1.4-5] [MQTT-3.2.2-4] [MQTT-3.2.2-5]:
/// nothing that comes behind it is done, and the session that is there isn't shown.
#[test]
fn a_refused_connect_is_the_end() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "#", 0);
        let none = properties(version, &[]);
        let publish = packet(0x30, &[&field(b"a"), &none, b"x"]);
        let refused = connect_bytes(version, 0, &[&field(&[b'x'; 257])]);
        let (peer, heard) = broker.raw(version, &[refused, publish].concat());
        broker.assert_refused(&peer, &heard, "85", true);
        assert_eq!(broker.bytes(&peer)[2], 0, "session present");
        assert_eq!(broker.heard(&mut app), [""; 0]);
    });
}

/// [MQTT-3.1.4-2] and 3.1.1 [MQTT-3.2.2-5]: who isn't who it says, with a session of that name there.
#[test]
fn who_has_no_right_to_a_session_is_not_shown_it() {
    for version in VERSIONS {
        let secrets = vec![("kept".to_owned(), b"secret".to_vec())];
        let mut broker = Broker { gateway: Gateway::new(&Setup { secrets, ..Setup::new(1, None) }) };
        let connect = |password: &[u8]| {
            let fields = [&field(b"kept")[..], &field(b"kept"), &field(password)];
            let mut bytes = connect_bytes(version, 0xC0, &fields);
            if version == V5 {
                let head = [&field(b"MQTT")[..], &[5, 0xC0, 0, 0], &[5, 0x11, 0, 0, 0, 99]].concat();
                bytes = packet(0x10, &[&head, &fields.concat()]);
            }
            bytes
        };
        let (peer, heard) = broker.raw(version, &connect(b"secret"));
        assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
        let (wrong, heard) = broker.raw(version, &connect(b"guess"));
        broker.assert_refused(&wrong, &heard, "86", true);
        assert!(broker.gateway.is_open(peer.who), "nor does it take over");
        broker.lose(peer);
        let (wrong, heard) = broker.raw(version, &connect(b"guess"));
        broker.assert_refused(&wrong, &heard, "86", true);
        assert_eq!(broker.bytes(&wrong)[2], 0, "session present");
        let (_, heard) = broker.raw(version, &connect(b"secret"));
        assert!(heard[0].starts_with("CONNACK 00 present"), "{heard:?}");
    }
}

/// [MQTT-3.1.4-4] [MQTT-3.2.2-2] [MQTT-3.2.2-3] and 3.1.1 [MQTT-3.1.4-3] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[test]
fn session_present_says_whether_there_was_a_session() {
    each(&VERSIONS, |mut broker, version| {
        for (how, present) in [
            (How::kept(), false),
            (How::kept(), true),
            (How::default(), false),
            (How::kept(), false),
            (How::kept(), true),
        ] {
            let (peer, heard) = broker.try_connect(version, "peer", &how);
            assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
            assert_eq!(broker.bytes(&peer)[2], u8::from(present), "{how:?}");
            broker.lose(peer);
        }
    });
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]: all QoS, retained messages, wildcards, identifiers
/// and shares are there, and so nothing is said of them.
#[test]
fn connack_says_nothing_of_what_is_as_the_standard_assumes() {
    each(&[V5], |mut broker, version| {
        let will = Some(WillSpec { qos: 2, retain: true, ..WillSpec::new("will", "gone") });
        let (_, heard) = broker.try_connect(version, "peer", &How { will, ..How::default() });
        assert_eq!(
            heard,
            ["CONNACK 00 {ReceiveMaximum(1024), MaximumPacketSize(1048576), TopicAliasMaximum(16)}"]
        );
    });
}

/// [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3]
/// [MQTT-3.14.2-4]: an explanation is left out where it makes the packet larger than the client takes; the rest of it
/// comes.
#[test]
fn explanations_are_left_out_where_they_are_too_long() {
    each(&[V5], |mut broker, version| {
        let none = properties(version, &[]);
        let connect = |size: u8, will: &[u8]| {
            let head = [&field(b"MQTT")[..], &[5, 0x06, 0, 0], &[5, 0x27, 0, 0, 0, size]].concat();
            packet(0x10, &[&head, &field(b"peer"), &none, &field(will), &field(b"")])
        };
        let (peer, heard) = broker.raw(version, &connect(25, b"sig/x"));
        assert_eq!(heard, ["CONNACK 90"]);
        assert!(!broker.gateway.is_open(peer.who));
        let (mut peer, heard) = broker.raw(version, &connect(25, b"will"));
        assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
        assert_eq!(broker.subscribe(&mut peer, "sig/x", 0), ["SUBACK 900 8f"]);
        assert_eq!(broker.unsubscribe(&mut peer, "sig/x"), ["UNSUBACK 901 11"]);
        assert_eq!(broker.write(&mut peer, &[0x10, 0]), ["DISCONNECT 81"]);
    });
}

/// [MQTT-3.1.2-29]: reason strings and user properties are in CONNACK, DISCONNECT and PUBLISH alone, where the client
/// says so.
#[test]
fn who_wants_no_explanations_gets_them_only_at_the_end() {
    each(&[V5], |mut broker, version| {
        for (wants, explained) in [(true, " {reason, code=NOT_AUTHORIZED}"), (false, "")] {
            let how = How::default().with(Property::RequestProblemInformation(wants));
            let mut peer = broker.connect(version, "peer", &how);
            assert_eq!(broker.publish(&mut peer, 1, 1, "$x", ""), [format!("PUBACK 1 87{explained}")]);
            assert_eq!(broker.publish(&mut peer, 2, 2, "$x", ""), [format!("PUBREC 2 87{explained}")]);
            let heard = broker.subscribe(&mut peer, "sig/x", 0);
            assert_eq!(heard, [if wants { "SUBACK 900 8f {reason}" } else { "SUBACK 900 8f" }]);
            assert_eq!(broker.unsubscribe(&mut peer, "sig/x"), ["UNSUBACK 901 11"]);
            assert_eq!(broker.pubrel(&mut peer, 3), ["PUBCOMP 3 92"]);
            assert_eq!(broker.pubrec(&mut peer, 4), ["PUBREL 4 92"]);
            broker.subscribe(&mut peer, "a", 0);
            let property = [Property::UserProperty("a", "b")];
            let heard = broker.publish_as(&mut peer, &publish(0, 0, "a", "x"), &property);
            assert_eq!(heard, ["PUBLISH q0 a x {a=b}"]);
            let heard = broker.write(&mut peer, &[0x10, 0]);
            broker.assert_ended(&peer, &heard, "81");
        }
    });
}

/// [MQTT-3.1.2-22] [MQTT-3.1.2-20] and 3.1.1 [MQTT-3.1.2-24] [MQTT-3.1.2-23]: as if the network had failed, with the
/// will; any packet is a sign of life.
#[test]
fn silence_for_one_and_a_half_keep_alives_is_the_end() {
    each(&VERSIONS, |mut broker, version| {
        let mut watcher = broker.fresh(version, "watcher");
        broker.subscribe(&mut watcher, "will", 0);
        let will = Some(WillSpec::new("will", "gone"));
        let mut peer = broker.connect(version, "peer", &How { keep_alive: 10, will, ..How::default() });
        for packet in [&[0xC0, 0][..], &[0x40, 2, 0, 1], &[0x30, 4, 0, 1, b'a', 0]] {
            broker.gateway.advance(14_999);
            broker.write(&mut peer, packet);
        }
        broker.gateway.advance(14_999);
        assert!(broker.gateway.is_open(peer.who));
        broker.gateway.advance(1);
        let heard = broker.heard(&mut peer);
        broker.assert_ended(&peer, &heard, "8d");
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will gone"]);
        let never = broker.fresh(version, "never");
        broker.gateway.advance(100_000_000);
        assert!(broker.gateway.is_open(never.who));
    });
}

/// [MQTT-3.12.4-1] and 3.1.1 [MQTT-3.12.4-1]
#[test]
fn every_ping_is_answered() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.write(&mut peer, &[0xC0, 0, 0xC0, 0, 0xC0, 0]), ["PINGRESP"; 3]);
    });
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] and 3.1.1 [MQTT-3.14.4-1] [MQTT-3.14.4-2]: neither side says anything after
/// DISCONNECT.
#[test]
fn nothing_comes_after_a_disconnect() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "#", 0);
        let none = properties(version, &[]);
        let publish = packet(0x30, &[&field(b"a"), &none, b"x"]);
        // Its own: what follows isn't read.
        let mut peer = broker.fresh(version, "peer");
        broker.subscribe(&mut peer, "#", 0);
        assert_eq!(broker.write(&mut peer, &[&[0xE0, 0][..], &publish, &[0xC0, 0]].concat()), [""; 0]);
        assert!(!broker.gateway.is_open(peer.who));
        assert_eq!(broker.heard(&mut app), [""; 0]);
        // The gateway's: what waits for the client, and what it goes on to write, is left.
        let mut peer = broker.fresh(version, "peer");
        broker.subscribe(&mut peer, "a", 0);
        broker.gateway.stop_reading(peer.who);
        broker.publish(&mut app, 0, 0, "a", "waits");
        broker.gateway.write(peer.who, &[&[0x00, 0][..], &publish, &[0xC0, 0]].concat());
        broker.publish(&mut app, 0, 0, "a", "late");
        broker.gateway.read_again(peer.who);
        let heard = broker.heard(&mut peer);
        broker.assert_ended(&peer, &heard, "81");
    });
}

/// [MQTT-3.14.2-2] of the server, whose DISCONNECT has a reason and nothing else.
#[test]
fn the_servers_disconnect_has_no_session_expiry() {
    each(&[V5], |mut broker, version| {
        let mut older = broker.connect(version, "peer", &How::kept());
        broker.connect(version, "peer", &How::kept());
        let heard = broker.heard(&mut older);
        broker.assert_ended(&older, &heard, "8e");
        let mut peer = broker.connect(version, "other", &How::kept());
        let heard = broker.disconnect_with(&mut peer, ReasonCode::NORMAL_DISCONNECTION, &[]);
        assert_eq!(heard, [""; 0]);
    });
}
