//! What is no packet, or none that the standard allows: the connection ends, and version 5 says by which code
//! [section 2.1, 4.13].

use crate::peer::{
    Broker, How, V5, VERSIONS, Version, connect_bytes, each, each_with, field, packet, properties,
};

/// What each of these bytes makes of a client that is in.
pub fn assert_each_ends(version: Version, all: &[(Vec<u8>, &str)]) {
    each(&[version], |mut broker, version| {
        for (bytes, code) in all {
            let mut peer = broker.fresh(version, "peer");
            let heard = broker.write(&mut peer, bytes);
            broker.assert_ended(&peer, &heard, code);
            assert_undisturbed(&mut broker, version);
        }
    });
}

/// A client that did nothing wrong notices nothing.
fn assert_undisturbed(broker: &mut Broker, version: Version) {
    let mut other = broker.fresh(version, "other");
    assert_eq!(broker.write(&mut other, &[0xC0, 0]), ["PINGRESP"]);
}

/// [MQTT-4.13.1-1] and 3.1.1 [MQTT-4.8.0-1]: lengths that nothing has, packets that end too early or too late, types
/// that there aren't, and those that only a server sends.
#[test]
fn what_is_no_packet_ends_the_connection() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let topic = field(b"a");
        let mut all = vec![
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF], "81"),
            (vec![0xC0, 0x80, 0x80, 0x80, 0x80, 0x00], "81"),
            (packet(0x00, &[]), "81"),
            (packet(0xC0, &[b"x"]), "81"),
            (packet(0x30, &[b"\0"]), "81"),
            (packet(0x30, &[b"\0\x02a"]), "81"),
            (packet(0x32, &[&topic, &[0]]), "81"),
            (packet(0x40, &[&[0]]), "81"),
            (packet(0x82, &[&[0, 1], &none, &topic]), "81"),
            (packet(0x82, &[&[0, 1], &none, &topic, &[0], &[0]]), "81"),
            (packet(0xA2, &[&[0, 1], &none, &topic, &[0]]), "81"),
            (packet(0x20, &[&[0, 0], &none]), "82"),
            (packet(0x90, &[&[0, 1], &none, &[0]]), "82"),
            (packet(0xD0, &[]), "82"),
        ];
        if version == V5 {
            all.push((packet(0xB0, &[&[0, 1, 0, 0]]), "82"));
        } else {
            all.push((packet(0xB0, &[&[0, 1]]), "82"));
            all.push((packet(0xF0, &[]), "81"));
            all.push((packet(0xE0, &[&[0]]), "81"));
            all.push((packet(0x40, &[&[0, 1, 0]]), "81"));
        }
        assert_each_ends(version, &all);
    }
}

/// [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] and 3.1.1 [MQTT-2.2.2-1]
/// [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]: every type with every other flag.
#[test]
fn reserved_flags_are_as_the_table_has_them() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let bodies = [
            (0x40, 0, vec![0, 1]),
            (0x50, 0, vec![0, 1]),
            (0x60, 2, vec![0, 1]),
            (0x70, 0, vec![0, 1]),
            (0x80, 2, [&[0, 1][..], &none, &field(b"a"), &[0]].concat()),
            (0xA0, 2, [&[0, 1][..], &none, &field(b"a")].concat()),
            (0xC0, 0, Vec::new()),
            (0xE0, 0, Vec::new()),
        ];
        let wrong = bodies.iter().flat_map(|(kind, right, body)| {
            (0..16_u8)
                .filter(move |flags| flags != right)
                .map(move |flags| (packet(kind | flags, &[body]), "81"))
        });
        assert_each_ends(version, &wrong.collect::<Vec<_>>());
    }
    each(&VERSIONS, |mut broker, version| {
        for flags in 1..16 {
            let mut connect = connect_bytes(version, 2, &[&field(b"peer")]);
            connect[0] |= flags;
            let (peer, heard) = broker.raw(version, &connect);
            broker.assert_refused(&peer, &heard, "81", false);
        }
    });
}

/// [MQTT-2.2.1-3] and 3.1.1 [MQTT-2.3.1-1]
#[test]
fn no_packet_identifier_is_zero() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let topic = field(b"a");
        let all = [
            packet(0x32, &[&topic, &[0, 0], &none]),
            packet(0x34, &[&topic, &[0, 0], &none]),
            packet(0x82, &[&[0, 0], &none, &topic, &[0]]),
            packet(0xA2, &[&[0, 0], &none, &topic]),
            packet(0x40, &[&[0, 0]]),
            packet(0x62, &[&[0, 0]]),
        ];
        assert_each_ends(version, &all.map(|bytes| (bytes, "82")));
    }
}

/// [MQTT-3.3.1-2] [MQTT-3.3.1-4] and 3.1.1 [MQTT-3.3.1-2] [MQTT-3.3.1-4]
#[test]
fn there_is_no_qos_3_and_no_duplicate_of_qos_0() {
    for version in VERSIONS {
        let body = [&field(b"a")[..], &[0, 1], &properties(version, &[])].concat();
        let all = [0x36, 0x37, 0x3E, 0x3F, 0x38, 0x39].map(|first| (packet(first, &[&body]), "81"));
        assert_each_ends(version, &all);
    }
}

/// [MQTT-3.3.2-2] [MQTT-3.3.2-14] [MQTT-4.7.0-1] [MQTT-4.7.3-1] and 3.1.1 [MQTT-3.3.2-2] [MQTT-4.7.1-1]
/// [MQTT-4.7.3-1]: an empty topic, too, unless an alias stands for it.
#[test]
fn no_message_has_a_topic_with_wildcards() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let mut all: Vec<_> = ["#", "+", "a/#", "a/+/b", "a+", "b#", "+a"]
            .map(|topic| (packet(0x30, &[&field(topic.as_bytes()), &none]), "90"))
            .into();
        all.push((packet(0x30, &[&field(b""), &none]), "82"));
        if version == V5 {
            for topic in [&b"+"[..], b"a/#", b""] {
                let response = properties(V5, &[&[0x08][..], &field(topic)].concat());
                all.push((packet(0x30, &[&field(b"a"), &response]), "82"));
            }
        }
        assert_each_ends(version, &all);
    }
    each(&VERSIONS, |mut broker, version| {
        for topic in ["a/#", "+", ""] {
            let payload =
                [&field(b"peer")[..], &properties(version, &[]), &field(topic.as_bytes()), &field(b"")];
            let (peer, heard) = broker.raw(version, &connect_bytes(version, 0x06, &payload));
            broker.assert_refused(&peer, &heard, "90", false);
        }
    });
}

/// [MQTT-3.8.3-2] [MQTT-3.10.3-2] and 3.1.1 [MQTT-3.8.3-3] [MQTT-3.10.3-2]
#[test]
fn a_subscription_to_nothing_is_none() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let all = [0x82, 0xA2].map(|first| (packet(first, &[&[0, 1], &none]), "82"));
        assert_each_ends(version, &all);
    }
}

/// [MQTT-3.8.3-5] and 3.1.1 [MQTT-3.8.3-4]: reserved bits, QoS 3, and a retain handling of 3.
#[test]
fn subscription_options_have_no_other_bits() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let with = |options: u8| packet(0x82, &[&[0, 1], &none, &field(b"a"), &[options]]);
        let mut all: Vec<_> = [0x03, 0x40, 0x80, 0xC0, 0x43].map(|options| (with(options), "81")).into();
        match version {
            V5 => all.push((with(0x30), "82")),
            _ => all.extend([0x04, 0x08, 0x10, 0x20].map(|options| (with(options), "81"))),
        }
        assert_each_ends(version, &all);
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.3-4] and 3.1.1 [MQTT-4.7.1-2]
/// [MQTT-4.7.1-3] [MQTT-4.7.3-1]: that is no filter that could be refused, but a malformed packet.
#[test]
fn wildcards_stand_for_whole_levels_and_shares_have_names() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let mut filters = vec!["", "a#", "#a", "a/#/b", "#/", "##", "a+", "+a", "a/+b/c", "++"];
        if version == V5 {
            filters.extend([
                "$share/",
                "$share/a",
                "$share/a/",
                "$share//a",
                "$share/+/a",
                "$share/a#/b",
                "$share/a/b#",
            ]);
        }
        let mut all: Vec<_> = filters
            .iter()
            .flat_map(|filter| {
                let filter = field(filter.as_bytes());
                [packet(0x82, &[&[0, 1], &none, &filter, &[0]]), packet(0xA2, &[&[0, 1], &none, &filter])]
            })
            .map(|bytes| (bytes, "8f"))
            .collect();
        if version == V5 {
            all.push((packet(0x82, &[&[0, 1], &none, &field(b"$share/a/b"), &[0x04]]), "82"));
        }
        assert_each_ends(version, &all);
    }
}

/// [MQTT-3.2.2-15]: more than the CONNACK said; the rest of it isn't waited for.
#[test]
fn a_packet_over_the_maximum_size_ends_the_connection() {
    each_with(
        &VERSIONS,
        |limits| limits.max_packet = 1000,
        |mut broker, version| {
            let (mut peer, connack) = broker.try_connect(version, "peer", &How::default());
            assert_eq!(connack[0].contains("MaximumPacketSize(1000)"), version == V5);
            let most = 1000 - 3 - 3 - properties(version, &[]).len();
            assert_eq!(broker.publish(&mut peer, 0, 0, "a", &"x".repeat(most)), [""; 0]);
            assert_eq!(broker.write(&mut peer, &[0xC0, 0]), ["PINGRESP"]);
            let heard = broker.write(&mut peer, &packet(0x30, &[&vec![0; 1000]])[..3]);
            broker.assert_ended(&peer, &heard, "95");
        },
    );
}
