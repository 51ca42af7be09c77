//! What may stand in the fields of a packet: strings, numbers, properties, reason codes [section 1.5, 2.2.2, 2.4].

use bugle_core::mqtt::{Property, SubscriptionOptions};

use crate::malformed::assert_each_ends;
use crate::peer::{
    Broker, How, Peer, V5, V311, VERSIONS, WillSpec, connect_bytes, each, field, packet, properties, publish,
    qos,
};

/// Strings that are none.
const NO_STRINGS: [&[u8]; 7] =
    [b"\xff", b"a\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\x80", b"\xe2\x82", b"\0", b"a\0b"];

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2] and
/// 3.1.1 [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
#[test]
fn topics_and_filters_are_strings() {
    for version in VERSIONS {
        let none = properties(version, &[]);
        let all: Vec<_> = NO_STRINGS
            .iter()
            .flat_map(|text| {
                let text = field(text);
                [
                    packet(0x30, &[&text, &none, b"x"]),
                    packet(0x34, &[&text, &[0, 1], &none, b"x"]),
                    packet(0x82, &[&[0, 1], &none, &text, &[0]]),
                    packet(0xA2, &[&[0, 1], &none, &text]),
                ]
            })
            .map(|bytes| (bytes, "81"))
            .collect();
        assert_each_ends(version, &all);
    }
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] and 3.1.1 [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]: client
/// id, will topic and user name.
#[test]
fn the_strings_of_a_connect_are_strings() {
    each(&VERSIONS, |mut broker, version| {
        let none = properties(version, &[]);
        let fine = field(b"a");
        for text in NO_STRINGS {
            let text = field(text);
            for (flags, payload) in [
                (0x02, [&text[..], &[], &[], &[]]),
                (0x06, [&fine[..], &none, &text, &fine]),
                (0x82, [&fine[..], &text, &[], &[]]),
            ] {
                let (peer, heard) = broker.raw(version, &connect_bytes(version, flags, &payload));
                broker.assert_refused(&peer, &heard, "81", false);
            }
        }
    });
}

/// [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]: name and value of a user property, response topic, content type,
/// and a reason string.
#[test]
fn the_strings_of_properties_are_strings() {
    let mut all = Vec::new();
    for text in NO_STRINGS {
        let text = field(text);
        for (first, head) in [(0x30, &field(b"a")[..]), (0x82, &[0, 1]), (0xA2, &[0, 1]), (0x40, &[0, 1, 0])]
        {
            let tail = if first == 0x82 { b"\0\x01a\0" } else { &b"\0\x01a\0"[..3] };
            let tail = if first < 0x80 { &[] } else { tail };
            for user in [[&[0x26][..], &text, &field(b"v")], [&[0x26], &field(b"n"), &text]] {
                all.push((packet(first, &[head, &properties(V5, &user.concat()), tail]), "81"));
            }
        }
        for id in [0x03, 0x08] {
            let property = properties(V5, &[&[id][..], &text].concat());
            all.push((packet(0x30, &[&field(b"a"), &property]), "81"));
        }
        all.push((packet(0xE0, &[&[0], &properties(V5, &[&[0x1F][..], &text].concat())]), "81"));
    }
    assert_each_ends(V5, &all);
}

/// [MQTT-1.5.4-3] and 3.1.1 [MQTT-1.5.3-3]: EF BB BF is a character like others.
#[test]
fn a_byte_order_mark_is_kept() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "\u{FEFF}a/+", 0);
        let mut plain = broker.fresh(version, "plain");
        broker.subscribe(&mut plain, "a/+", 0);
        let mut pump = broker.connect(version, "\u{FEFF}pump", &How::default());
        broker.publish(&mut pump, 0, 0, "\u{FEFF}a/\u{FEFF}", "\u{FEFF}x");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 \u{FEFF}a/\u{FEFF} \u{FEFF}x"]);
        assert_eq!(broker.heard(&mut plain), [""; 0]);
        if version == V5 {
            let property = [Property::UserProperty("\u{FEFF}", "\u{FEFF}")];
            broker.publish_as(&mut pump, &publish(0, 0, "a/x", "y"), &property);
            assert_eq!(broker.heard(&mut plain), ["PUBLISH q0 a/x y {\u{FEFF}=\u{FEFF}}"]);
        }
    });
}

/// [MQTT-1.5.5-1]: of a remaining length, of a property length, and in a property. 3.1.1 doesn't ask for the shortest
/// form, and there are clients that always write two bytes or four.
#[test]
fn numbers_of_variable_length_are_as_short_as_they_can_be() {
    let subscribe = |id: &[u8]| {
        let identifier = [&[0x0B], id].concat();
        packet(0x82, &[&[0, 1], &properties(V5, &identifier), &field(b"a"), &[0]])
    };
    assert_each_ends(
        V5,
        &[
            (vec![0xC0, 0x80, 0x00], "81"),
            (vec![0x30, 0x84, 0x80, 0x00, 0, 1, b'a', 0], "81"),
            (packet(0x30, &[&field(b"a"), &[0x80, 0x00]]), "81"),
            (subscribe(&[0x85, 0x00]), "81"),
            (subscribe(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]), "81"),
        ],
    );
    each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.write(&mut peer, &subscribe(&[0xFF, 0xFF, 0xFF, 0x7F])), ["SUBACK 1 00"]);
    });
    each(&[V311], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.write(&mut peer, &[0xC0, 0x80, 0x80, 0x00]), ["PINGRESP"]);
    });
}

/// [MQTT-2.2.2-1]: where there are no properties, a length of zero says so.
#[test]
fn a_property_length_is_never_left_out() {
    let all = [
        packet(0x30, &[&field(b"a")]),
        packet(0x82, &[&[0, 1], &field(b"a"), &[0]]),
        packet(0xA2, &[&[0, 1], &field(b"a")]),
    ];
    assert_each_ends(V5, &all.map(|bytes| (bytes, "81")));
    each(&[V5], |mut broker, version| {
        let body = [&field(b"MQTT")[..], &[5, 2, 0, 0], &field(b"peer")].concat();
        let (peer, heard) = broker.raw(version, &packet(0x10, &[&body]));
        broker.assert_refused(&peer, &heard, "81", false);
    });
}

/// [MQTT-3.3.4-6]
#[test]
fn a_client_publishes_no_subscription_identifier() {
    let with = |bytes: &[u8]| packet(0x30, &[&field(b"a"), &properties(V5, bytes)]);
    assert_each_ends(
        V5,
        &[(with(&[0x0B, 1]), "82"), (with(&[0x0B, 0]), "82"), (with(&[0x0B, 1, 0x0B, 2]), "82")],
    );
}

/// [MQTT-4.13.1-1] [MQTT-3.3.2-8]: properties that there aren't, that this packet hasn't, that come twice, and values that they can't
/// have.
#[test]
fn properties_are_those_of_their_packet_once_and_in_range() {
    let publish = |bytes: &[u8]| packet(0x30, &[&field(b"a"), &properties(V5, bytes)]);
    let subscribe = |bytes: &[u8]| packet(0x82, &[&[0, 1], &properties(V5, bytes), &field(b"a"), &[0]]);
    let disconnect = |bytes: &[u8]| packet(0xE0, &[&[0], &properties(V5, bytes)]);
    let puback = |bytes: &[u8]| packet(0x40, &[&[0, 1, 0], &properties(V5, bytes)]);
    let reason = [&[0x1F][..], &field(b"no")].concat();
    assert_each_ends(
        V5,
        &[
            (publish(&[0x7F, 0]), "81"),
            (publish(&[0x00]), "81"),
            (publish(&[0x11, 0, 0, 0, 1]), "81"),
            (publish(&[0x01, 2]), "82"),
            (publish(&[0x01, 1, 0x01, 1]), "82"),
            (publish(&[0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1]), "82"),
            (publish(&[0x23, 0, 0]), "94"),
            (publish(&[0x23, 0, 1, 0x23, 0, 1]), "82"),
            (publish(&[0x09, 0, 9]), "81"),
            (packet(0x30, &[&field(b"a"), &[9, 0x01, 1]]), "81"),
            (subscribe(&[0x0B, 0]), "82"),
            (subscribe(&[0x0B, 1, 0x0B, 2]), "82"),
            (subscribe(&[0x23, 0, 1]), "81"),
            (disconnect(&[0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0]), "82"),
            (disconnect(&[0x21, 0, 1]), "81"),
            (puback(&[&reason[..], &reason].concat()), "82"),
            (puback(&[0x0B, 1]), "81"),
        ],
    );
    each(&[V5], |mut broker, version| {
        let connect = |bytes: &[u8]| {
            let head = [&field(b"MQTT")[..], &[5, 2, 0, 0], &properties(V5, bytes)].concat();
            packet(0x10, &[&head, &field(b"peer")])
        };
        for (bytes, code) in [
            (&[0x21, 0, 0][..], "82"),
            (&[0x27, 0, 0, 0, 0], "82"),
            (&[0x17, 2], "82"),
            (&[0x19, 2], "82"),
            (&[0x16, 0, 1, 9], "82"),
            (&[0x21, 0, 1, 0x21, 0, 1], "82"),
            (&[0x22, 0, 1, 0x22, 0, 1], "82"),
            (&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], "82"),
            (&[0x13, 0, 9], "81"),
            (&[0x18, 0, 0, 0, 9], "81"),
            (&[0x7E], "81"),
        ] {
            let (peer, heard) = broker.raw(version, &connect(bytes));
            broker.assert_refused(&peer, &heard, code, false);
        }
        let will = |bytes: &[u8]| {
            let will = [&properties(V5, bytes)[..], &field(b"will"), &field(b"x")].concat();
            connect_bytes(V5, 0x06, &[&field(b"peer"), &will])
        };
        for (bytes, code) in
            [(&[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1][..], "82"), (&[0x23, 0, 1], "81"), (&[0x01, 3], "82")]
        {
            let (peer, heard) = broker.raw(version, &will(bytes));
            broker.assert_refused(&peer, &heard, code, false);
        }
    });
}

/// [MQTT-3.14.2-1] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]: one that the packet can't have is an
/// error, and a DISCONNECT that is none doesn't take the will back [MQTT-3.1.2-8].
#[test]
fn reason_codes_are_those_of_their_packet() {
    let ack = |first: u8, code: u8| packet(first, &[&[0, 1, code]]);
    assert_each_ends(
        V5,
        &[
            (ack(0x40, 0x03), "81"),
            (ack(0x40, 0x92), "82"),
            (ack(0x50, 0x92), "82"),
            (ack(0x62, 0x97), "82"),
            (ack(0x70, 0x10), "82"),
        ],
    );
    each(&[V5], |mut broker, version| {
        let mut watcher = broker.fresh(version, "watcher");
        broker.subscribe(&mut watcher, "will", 0);
        let how = How { will: Some(WillSpec::new("will", "gone")), ..How::default() };
        for (bytes, code) in [([0xE0, 1, 0x03], "81"), ([0xE0, 1, 0x8A], "82"), ([0xE0, 1, 0x01], "82")] {
            let mut peer = broker.connect(version, "peer", &how);
            let heard = broker.write(&mut peer, &bytes);
            broker.assert_ended(&peer, &heard, code);
            assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will gone"]);
        }
    });
}

/// Of the same kind, but nothing is wrong: all that is optional, at its bounds.
#[test]
fn what_is_only_unusual_is_taken() {
    each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        let options = SubscriptionOptions::new(qos(2));
        let properties = [Property::SubscriptionIdentifier(268_435_455), Property::UserProperty("", "")];
        assert_eq!(broker.subscribe_as(&mut peer, "/", options, &properties), ["SUBACK 900 02"]);
        let properties = [Property::MessageExpiryInterval(u32::MAX), Property::CorrelationData(&[])];
        let heard = broker.publish_as(&mut peer, &publish(0, 0, "/", ""), &properties);
        assert!(heard[0].contains("MessageExpiryInterval(4294967295), CorrelationData([])"), "{heard:?}");
        assert_heard_ping(&mut broker, &mut peer);
        // An acknowledgement of nothing, with reason code and properties and without.
        for bytes in
            [packet(0x40, &[&[0, 9]]), packet(0x40, &[&[0, 9, 0x10, 0]]), packet(0x70, &[&[0, 9, 0x92]])]
        {
            assert_eq!(broker.write(&mut peer, &bytes), [""; 0]);
        }
        assert_heard_ping(&mut broker, &mut peer);
    });
}

fn assert_heard_ping(broker: &mut Broker, peer: &mut Peer) {
    assert_eq!(broker.write(peer, &[0xC0, 0]), ["PINGRESP"]);
}
