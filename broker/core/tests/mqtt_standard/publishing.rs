//! PUBLISH in both directions, with its acknowledgements, packet identifiers, flow control and order [section 3.3 to
//! 3.7, 4.3, 4.4, 4.6, 4.9].

use bugle_core::mqtt::{Ack, Packet, Property, Publish, ReasonCode};

use crate::peer::{
    Broker, How, Peer, V5, VERSIONS, Version, each, each_with, field, packet, properties, publish,
};

/// A client that gets what is published to `a`, at QoS 2.
fn taker(broker: &mut Broker, version: Version, how: &How) -> Peer {
    let mut taker = broker.connect(version, "taker", how);
    broker.subscribe(&mut taker, "a", 2);
    taker
}

fn refuse(
    broker: &mut Broker,
    peer: &mut Peer,
    make: fn(Ack<'static>) -> Packet<'static>,
    id: u16,
) -> Vec<String> {
    broker.tell(peer, &make(Ack::new(id.try_into().unwrap(), ReasonCode::QuotaExceeded)))
}

/// [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] and 3.1.1 [MQTT-3.3.4-1] [MQTT-2.3.1-6]
/// [MQTT-4.3.2-2] [MQTT-4.3.3-2]
#[test]
fn each_qos_has_its_answer_with_the_same_identifier() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.publish(&mut peer, 0, 0, "a", "x"), [""; 0]);
        for id in [1, 0x102, u16::MAX] {
            assert_eq!(broker.publish(&mut peer, 1, id, "a", "x"), [format!("PUBACK {id} 00")]);
            assert_eq!(broker.publish(&mut peer, 2, id, "a", "x"), [format!("PUBREC {id} 00")]);
            assert_eq!(broker.pubrel(&mut peer, id), [format!("PUBCOMP {id} 00")]);
        }
    });
}

/// [MQTT-2.2.1-2] [MQTT-4.3.1-1] and 3.1.1 [MQTT-2.3.1-5] [MQTT-4.3.1-1]: what would be an identifier is payload.
#[test]
fn qos_0_has_no_identifier() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        let bytes = packet(0x30, &[&field(b"a"), &properties(version, &[]), &[0, 1, b'x']]);
        assert_eq!(broker.write(&mut peer, &bytes), [""; 0]);
        assert_eq!(broker.heard(&mut taker), ["PUBLISH q0 a \0\u{1}x"]);
    });
}

/// [MQTT-4.3.2-5] [MQTT-4.3.3-12] [MQTT-3.3.1-3] and 3.1.1 [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-3.3.1-3]: after the last
/// answer an identifier is a new message's, whatever DUP says; and DUP goes no further.
#[test]
fn an_identifier_that_was_answered_is_another_messages() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        for (number, dup, line) in [
            (1, false, "q1 #1 a x"),
            (1, true, "q1 #2 a x"),
            (2, false, "q2 #3 a x"),
            (2, true, "q2 #4 a x"),
            (1, true, "q1 #5 a x"),
        ] {
            broker.publish_as(&mut peer, &Publish { dup, ..publish(number, 7, "a", "x") }, &[]);
            if number == 2 {
                broker.pubrel(&mut peer, 7);
            }
            assert_eq!(broker.heard(&mut taker), [format!("PUBLISH {line}")]);
        }
    });
}

/// [MQTT-4.3.3-10] and 3.1.1 [MQTT-4.3.3-2]: with DUP or without, and whatever it carries.
#[test]
fn until_its_release_a_qos_2_publish_is_the_same_one() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        broker.publish(&mut peer, 2, 7, "a", "first");
        for dup in [true, false] {
            let again = Publish { dup, ..publish(2, 7, "a", "other") };
            assert_eq!(broker.publish_as(&mut peer, &again, &[]), ["PUBREC 7 00"]);
        }
        assert_eq!(broker.pubrel(&mut peer, 7), ["PUBCOMP 7 00"]);
        assert_eq!(broker.heard(&mut taker), ["PUBLISH q2 #1 a first"]);
    });
}

/// [MQTT-4.3.3-9]: the exchange ended with the refusal.
#[test]
fn a_refused_qos_2_publish_leaves_its_identifier_free() {
    each(&[V5], |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        assert!(broker.publish(&mut peer, 2, 7, "$x", "")[0].starts_with("PUBREC 7 87"));
        assert_eq!(broker.publish(&mut peer, 2, 7, "a", "x"), ["PUBREC 7 00"]);
        assert_eq!(broker.heard(&mut taker), ["PUBLISH q2 #1 a x"]);
    });
}

/// 3.1.1 [MQTT-3.3.5-2], and in version 5 a reason code: neither closes.
#[test]
fn a_refused_publish_is_answered_and_nothing_ends() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        let (one, two) = match version {
            V5 => ("PUBACK 1 87 {reason, code=NOT_AUTHORIZED}", "PUBREC 2 87 {reason, code=NOT_AUTHORIZED}"),
            _ => ("PUBACK 1 00", "PUBREC 2 00"),
        };
        assert_eq!(broker.publish(&mut peer, 0, 0, "$x", ""), [""; 0]);
        assert_eq!(broker.publish(&mut peer, 1, 1, "$x", ""), [one]);
        assert_eq!(broker.publish(&mut peer, 2, 2, "$x", ""), [two]);
        assert_eq!(broker.write(&mut peer, &[0xC0, 0]), ["PINGRESP"]);
    });
}

/// A client that comes back without its own state begins to count anew, and meets a QoS 2 publish that it never
/// released: nothing else with that identifier is kept from it.
#[test]
fn an_unreleased_publish_is_in_the_way_of_no_other_packet() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.connect(version, "peer", &How::kept());
        assert_eq!(broker.publish(&mut peer, 2, 900, "a", "x"), ["PUBREC 900 00"]);
        broker.lose(peer);
        let (mut peer, _) = broker.resume(version, "peer", &How::kept());
        assert_eq!(broker.subscribe(&mut peer, "a", 0), ["SUBACK 900 00"]);
        let mut heard = broker.publish(&mut peer, 1, 900, "a", "y");
        heard.sort();
        assert_eq!(heard, ["PUBACK 900 00", "PUBLISH q0 a y"]);
        assert_eq!(broker.pubrel(&mut peer, 900), ["PUBCOMP 900 00"]);
        assert_eq!(broker.publish(&mut peer, 2, 901, "b", "x"), ["PUBREC 901 00"]);
        assert!(broker.unsubscribe(&mut peer, "a")[0].starts_with("UNSUBACK 901"));
    });
}

/// [MQTT-4.3.3-13]: also for a message that has expired.
#[test]
fn an_expired_publish_is_acknowledged_to_its_end() {
    each(&[V5], |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        let expired = [Property::MessageExpiryInterval(0)];
        assert_eq!(broker.publish_as(&mut peer, &publish(2, 1, "a", "x"), &expired), ["PUBREC 1 00"]);
        broker.gateway.advance(1);
        assert_eq!(broker.pubrel(&mut peer, 1), ["PUBCOMP 1 00"]);
        assert_eq!(broker.heard(&mut taker), [""; 0]);
    });
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3]
/// [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.4.0-1] and 3.1.1 [MQTT-2.3.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]: towards a client,
/// an identifier is its message's until the last answer, and nothing is repeated on the same connection.
#[test]
fn a_delivery_is_one_exchange_and_is_not_repeated() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        broker.publish(&mut peer, 1, 9, "a", "one");
        broker.publish(&mut peer, 2, 9, "a", "two");
        assert_eq!(broker.heard(&mut taker), ["PUBLISH q1 #1 a one", "PUBLISH q2 #2 a two"]);
        broker.gateway.advance(1_000_000);
        assert_eq!(broker.heard(&mut taker), [""; 0]);
        assert_eq!(broker.puback(&mut taker, 2), [""; 0], "not the answer to QoS 2");
        assert_eq!(broker.pubrec(&mut taker, 2), ["PUBREL 2 00"]);
        broker.gateway.advance(1_000_000);
        assert_eq!(broker.heard(&mut taker), [""; 0]);
        // Of all identifiers only these two are taken, and stay so.
        for _ in 0..600 {
            broker.pubrel(&mut peer, 9);
            broker.publish(&mut peer, 1, 9, "a", "x");
            let heard = broker.heard(&mut taker);
            let id: u16 = heard[0].split(['#', ' ']).nth(3).unwrap().parse().unwrap();
            assert!(heard.len() == 1 && id > 2, "{heard:?}");
            broker.puback(&mut taker, id);
        }
        assert_eq!(broker.pubcomp(&mut taker, 2), [""; 0]);
        assert_eq!(broker.puback(&mut taker, 1), [""; 0]);
    });
}

/// [MQTT-4.3.3-6] and 3.1.1 [MQTT-4.3.3-1] [MQTT-4.4.0-1]: once released, only the PUBREL is repeated.
#[test]
fn after_pubrel_the_publish_does_not_come_again() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::kept());
        let mut peer = broker.fresh(version, "peer");
        broker.publish(&mut peer, 2, 9, "a", "x");
        assert_eq!(broker.pubrec(&mut taker, 1), ["PUBLISH q2 #1 a x", "PUBREL 1 00"]);
        for _ in 0..2 {
            broker.lose(taker);
            let heard;
            (taker, heard) = broker.resume(version, "taker", &How::kept());
            assert_eq!(heard, ["PUBREL 1 00"]);
        }
        broker.pubcomp(&mut taker, 1);
        broker.lose(taker);
        assert_eq!(broker.resume(version, "taker", &How::kept()).1, [""; 0]);
    });
}

/// [MQTT-4.3.3-7]: what was sent once doesn't expire any more.
#[test]
fn a_publish_under_way_does_not_expire() {
    each(&[V5], |mut broker, version| {
        let taker = taker(&mut broker, version, &How::kept());
        let mut peer = broker.fresh(version, "peer");
        for (number, payload) in [(1, "one"), (2, "two")] {
            let expiry = [Property::MessageExpiryInterval(10)];
            broker.publish_as(&mut peer, &publish(number, 9, "a", payload), &expiry);
        }
        broker.lose(taker);
        broker.gateway.advance(60_000);
        let (_, heard) = broker.resume(version, "taker", &How::kept());
        assert_eq!(
            heard,
            [
                "PUBLISH q1 #1 dup a one {MessageExpiryInterval(0)}",
                "PUBLISH q2 #2 dup a two {MessageExpiryInterval(0)}"
            ]
        );
    });
}

/// [MQTT-4.4.0-2]: refused by the client is acknowledged, too.
#[test]
fn what_a_client_refuses_does_not_come_again() {
    each(&[V5], |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::kept());
        let mut peer = broker.fresh(version, "peer");
        broker.publish(&mut peer, 1, 8, "a", "one");
        broker.publish(&mut peer, 2, 9, "a", "two");
        broker.heard(&mut taker);
        assert_eq!(refuse(&mut broker, &mut taker, Packet::PubAck, 1), [""; 0]);
        assert_eq!(refuse(&mut broker, &mut taker, Packet::PubRec, 2), [""; 0], "no PUBREL");
        broker.lose(taker);
        assert_eq!(broker.resume(version, "taker", &How::kept()).1, [""; 0]);
    });
}

/// [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]: a mismatch is told by the code alone.
#[test]
fn answers_to_what_is_not_under_way_carry_no_explanation() {
    each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.pubrec(&mut peer, 7), ["PUBREL 7 92"]);
        assert_eq!(broker.pubrel(&mut peer, 7), ["PUBCOMP 7 92"]);
        assert_eq!(broker.puback(&mut peer, 7), [""; 0]);
        assert_eq!(broker.pubcomp(&mut peer, 7), [""; 0]);
    });
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3]: a full window holds back publishes only, and none of them is lost.
#[test]
fn control_packets_do_not_wait_for_the_window() {
    each(&[V5], |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default().with(Property::ReceiveMaximum(1)));
        let mut peer = broker.fresh(version, "peer");
        for id in 1..=3 {
            broker.publish(&mut peer, 1, id, "a", "x");
        }
        assert_eq!(broker.heard(&mut taker), ["PUBLISH q1 #1 a x"]);
        assert_eq!(broker.write(&mut taker, &[0xC0, 0]), ["PINGRESP"]);
        assert_eq!(broker.subscribe(&mut taker, "b", 0), ["SUBACK 900 00"]);
        assert_eq!(broker.unsubscribe(&mut taker, "b"), ["UNSUBACK 901 00"]);
        assert_eq!(broker.publish(&mut taker, 1, 5, "c", "x"), ["PUBACK 5 00"]);
        assert_eq!(broker.publish(&mut taker, 2, 6, "c", "x"), ["PUBREC 6 00"]);
        assert_eq!(broker.pubrel(&mut taker, 6), ["PUBCOMP 6 00"]);
        assert_eq!(broker.pubrec(&mut taker, 77), ["PUBREL 77 92"]);
        assert_eq!(broker.puback(&mut taker, 1).len(), 1);
    });
}

/// The same of bounds of payload: a client whose mailbox is full, and one that publishes too much.
#[test]
fn control_packets_do_not_wait_for_payload() {
    each_with(
        &VERSIONS,
        |limits| {
            limits.mailbox_messages = 3;
            limits.mailbox_bytes = 100;
        },
        |mut broker, version| {
            let mut taker = taker(&mut broker, version, &How::default());
            broker.subscribe(&mut taker, "sig/g/all", 1);
            broker.gateway.stop_reading(taker.who);
            let mut peer = broker.fresh(version, "peer");
            for id in 1..=50 {
                assert_eq!(broker.publish(&mut peer, 1, id, "a", &"x".repeat(50)).len(), 1, "answered");
            }
            broker.write(&mut taker, &[0xC0, 0]);
            broker.subscribe(&mut taker, "b", 0);
            broker.publish(&mut taker, 1, 5, "c", "x");
            broker.gateway.read_again(taker.who);
            let heard = broker.heard(&mut taker);
            for answer in ["PINGRESP", "SUBACK 900 00", "PUBACK 5 00"] {
                assert!(heard.iter().any(|line| line == answer), "{answer}: {heard:?}");
            }
            // Three hundred signals at once, of which a hundred a second are sent.
            for _ in 0..300 {
                broker.publish(&mut peer, 0, 0, "sig/g/none", "x");
            }
            assert_eq!(broker.write(&mut peer, &[0xC0, 0]), ["PINGRESP"]);
            assert_eq!(broker.subscribe(&mut peer, "b", 0), ["SUBACK 900 00"]);
        },
    );
}

/// [MQTT-3.3.4-7] [MQTT-4.9.0-1]: the CONNACK says how many; one more ends the connection with 0x93.
#[test]
fn a_client_over_the_receive_maximum_is_closed() {
    each_with(
        &[V5],
        |limits| limits.requests_per_client = 3,
        |mut broker, version| {
            let (mut peer, connack) = broker.try_connect(version, "peer", &How::default());
            assert!(connack[0].contains("ReceiveMaximum(3)"), "{connack:?}");
            for id in 1..=3 {
                assert_eq!(broker.publish(&mut peer, 2, id, "a", "x"), [format!("PUBREC {id} 00")]);
            }
            broker.pubrel(&mut peer, 2);
            assert_eq!(
                broker.publish(&mut peer, 2, 2, "a", "x"),
                ["PUBREC 2 00"],
                "what has ended doesn't count"
            );
            assert_eq!(broker.publish(&mut peer, 0, 0, "a", "x"), [""; 0], "nor does QoS 0");
            let heard = broker.publish(&mut peer, 1, 4, "a", "x");
            broker.assert_ended(&peer, &heard, "93");
        },
    );
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] and 3.1.1 [MQTT-4.6.0-5] [MQTT-4.6.0-6]: of one topic, at each QoS, to every
/// subscriber, whatever shards they are on.
#[test]
fn messages_come_in_the_order_in_which_they_were_published() {
    each(&VERSIONS, |mut broker, version| {
        let mut takers: Vec<_> = (0..3)
            .map(|number| {
                let mut taker = broker.fresh(version, &format!("taker-{number}"));
                broker.subscribe(&mut taker, "a/#", number);
                taker
            })
            .collect();
        let mut peer = broker.fresh(version, "peer");
        let mut bytes = Vec::new();
        let none = properties(version, &[]);
        for number in 0..60_u16 {
            let text = number.to_string();
            let (first, id) = match number % 3 {
                0 => (0x30, vec![]),
                1 => (0x32, (number + 1).to_be_bytes().to_vec()),
                _ => (0x34, (number + 1).to_be_bytes().to_vec()),
            };
            bytes.extend(packet(first, &[&field(b"a/b"), &id, &none, text.as_bytes()]));
        }
        broker.write(&mut peer, &bytes);
        for taker in &mut takers {
            let payloads: Vec<u16> = broker
                .heard(taker)
                .iter()
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(payloads, (0..60).collect::<Vec<_>>());
        }
    });
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] of the server as a receiver, and [MQTT-4.6.0-4] of it as a sender; and
/// 3.1.1 [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
#[test]
fn answers_leave_in_the_order_of_what_they_answer() {
    each(&VERSIONS, |mut broker, version| {
        let mut taker = taker(&mut broker, version, &How::default());
        let mut peer = broker.fresh(version, "peer");
        let none = properties(version, &[]);
        let all: Vec<u8> = (1..=20).flat_map(|id| packet(0x32, &[&field(b"x"), &[0, id], &none])).collect();
        let acks: Vec<_> = (1..=20).map(|id| format!("PUBACK {id} 00")).collect();
        assert_eq!(broker.write(&mut peer, &all), acks);
        let all: Vec<u8> = (1..=20).flat_map(|id| packet(0x34, &[&field(b"a"), &[0, id], &none])).collect();
        let recs: Vec<_> = (1..=20).map(|id| format!("PUBREC {id} 00")).collect();
        assert_eq!(broker.write(&mut peer, &all), recs);
        assert_eq!(broker.heard(&mut taker).len(), 20);
        let order = [3, 1, 2, 20, 7];
        let all: Vec<u8> = order.iter().flat_map(|&id| packet(0x50, &[&[0, id]])).collect();
        assert_eq!(broker.write(&mut taker, &all), order.map(|id| format!("PUBREL {id} 00")));
    });
}
