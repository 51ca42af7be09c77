//! SUBSCRIBE and UNSUBSCRIBE, and which messages come for it [section 3.8 to 3.11, 4.7].

use bugle_core::mqtt::{Property, SubscriptionOptions};

use crate::peer::{Broker, How, Peer, V5, V311, VERSIONS, Version, each, field, packet, properties, qos};

/// One SUBSCRIBE with several filters, at these QoS.
fn subscribe_all(
    broker: &mut Broker,
    peer: &mut Peer,
    version: Version,
    filters: &[(&str, u8)],
) -> Vec<String> {
    let mut body = vec![0x12, 0x34];
    body.extend(properties(version, &[]));
    for (filter, options) in filters {
        body.extend(field(filter.as_bytes()));
        body.push(*options);
    }
    broker.write(peer, &packet(0x82, &[&body]))
}

fn unsubscribe_all(broker: &mut Broker, peer: &mut Peer, version: Version, filters: &[&str]) -> Vec<String> {
    let mut body = vec![0x12, 0x35];
    body.extend(properties(version, &[]));
    for filter in filters {
        body.extend(field(filter.as_bytes()));
    }
    broker.write(peer, &packet(0xA2, &[&body]))
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// [MQTT-2.2.1-6] and 3.1.1 [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// [MQTT-2.3.1-7]: one SUBACK with a code for each, in order; a refused one ends nothing and hides no other.
#[test]
fn each_filter_has_its_code_in_order() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        let filters =
            [("a/+", 1), ("sig/x", 2), ("b", 2), ("#", 0), ("sig/c/other", 1), ("a/+", 0), ("$share/s/c", 1)];
        let heard = subscribe_all(&mut broker, &mut peer, version, &filters);
        let expected = match version {
            V5 => "SUBACK 4660 01 8f 02 00 87 00 01 {reason}",
            _ => "SUBACK 4660 01 80 02 00 80 00 01",
        };
        assert_eq!(heard, [expected]);
        assert_eq!(broker.publish(&mut peer, 2, 1, "b", "x"), ["PUBLISH q2 #1 b x", "PUBREC 1 00"]);
        assert_eq!(broker.publish(&mut peer, 1, 2, "a/b", "x"), ["PUBLISH q0 a/b x", "PUBACK 2 00"]);
    });
}

/// [MQTT-3.8.4-8] [MQTT-4.8.2-3] and 3.1.1 [MQTT-3.8.4-6]: the lower of the two, of all pairs.
#[test]
fn deliveries_have_the_lower_qos() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        for granted in 0..=2 {
            for (kind, filter) in [("plain", "a"), ("shared", "$share/s/a")] {
                let mut peer = broker.fresh(version, kind);
                assert_eq!(broker.subscribe(&mut peer, filter, granted), [format!("SUBACK 900 0{granted}")]);
                for published in 0..=2 {
                    broker.publish(&mut pump, published, 1, "a", "x");
                    broker.pubrel(&mut pump, 1);
                    let heard = broker.heard(&mut peer);
                    let expected = format!("PUBLISH q{} ", published.min(granted));
                    assert!(heard.len() == 1 && heard[0].starts_with(&expected), "{heard:?}");
                }
                broker.disconnect(peer);
            }
        }
    });
}

/// [MQTT-3.3.4-2] and 3.1.1 [MQTT-3.3.5-1]: one copy, at the highest QoS of the subscriptions that match.
#[test]
fn overlapping_subscriptions_bring_the_highest_qos() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut peer = broker.fresh(version, "peer");
        for (filter, number) in [("a/+", 0), ("a/#", 2), ("a/b", 1), ("#", 0), ("c", 2)] {
            broker.subscribe(&mut peer, filter, number);
        }
        broker.publish(&mut pump, 2, 1, "a/b", "x");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q2 #1 a/b x"]);
    });
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.3.1-9] and 3.1.1 [MQTT-3.8.4-3]: replaced whole, with the retained message
/// again; what is under way is not lost by it.
#[test]
fn subscribing_again_replaces_and_loses_nothing() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        broker.retain(&mut pump, "a", "kept");
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.subscribe(&mut peer, "a", 1), ["SUBACK 900 01", "PUBLISH q1 #1 retain a kept"]);
        broker.publish(&mut pump, 1, 1, "a", "before");
        let heard = broker.subscribe(&mut peer, "a", 0);
        assert_eq!(heard, ["PUBLISH q1 #2 a before", "SUBACK 900 00", "PUBLISH q0 retain a kept"]);
        broker.publish(&mut pump, 1, 1, "a", "after");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q0 a after"], "once, at the new QoS");
        assert_eq!(broker.unsubscribe(&mut peer, "a")[0], unsuback(version, 901, "00"));
        broker.publish(&mut pump, 1, 1, "a", "x");
        assert_eq!(broker.heard(&mut peer), [""; 0], "there was one subscription");
    });
}

fn unsuback(version: Version, id: u16, codes: &str) -> String {
    if version == V5 { format!("UNSUBACK {id} {codes}") } else { format!("UNSUBACK {id}") }
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6] and
/// 3.1.1 [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-2.3.1-7]: filters are compared as they
/// stand, and each has its code, in order, also where there was no subscription.
#[test]
fn unsubscribing_ends_the_very_same_filters() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut peer = broker.fresh(version, "peer");
        subscribe_all(&mut broker, &mut peer, version, &[("a/+", 0), ("a/b", 0), ("a/#", 0), ("c", 0)]);
        let filters = ["a/c", "a/+", "A/b", "a/", "c", "c", "#"];
        let heard = unsubscribe_all(&mut broker, &mut peer, version, &filters);
        assert_eq!(heard, [unsuback(version, 0x1235, "11 00 11 11 00 11 11")]);
        broker.publish(&mut pump, 0, 0, "a/b", "still there");
        broker.publish(&mut pump, 0, 0, "c", "gone");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q0 a/b still there"]);
        let heard = unsubscribe_all(&mut broker, &mut peer, version, &["a/b", "a/#"]);
        assert_eq!(heard, [unsuback(version, 0x1235, "00 00")]);
        broker.publish(&mut pump, 0, 0, "a/b", "gone");
        assert_eq!(broker.heard(&mut peer), [""; 0]);
        let heard = unsubscribe_all(&mut broker, &mut peer, version, &["a/b"]);
        assert_eq!(heard, [unsuback(version, 0x1235, "11")]);
    });
}

/// [MQTT-3.10.4-2] [MQTT-3.10.4-3] and 3.1.1 [MQTT-3.10.4-2] [MQTT-3.10.4-3]: nothing new comes, and what is under way
/// goes on to its end, also on another connection.
#[test]
fn what_is_under_way_ends_after_the_unsubscribe() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut peer = broker.connect(version, "peer", &How::kept());
        broker.subscribe(&mut peer, "a", 2);
        broker.publish(&mut pump, 2, 1, "a", "two");
        broker.publish(&mut pump, 1, 2, "a", "one");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q2 #1 a two", "PUBLISH q1 #2 a one"]);
        broker.unsubscribe(&mut peer, "a");
        broker.publish(&mut pump, 1, 3, "a", "new");
        assert_eq!(broker.pubrec(&mut peer, 1), ["PUBREL 1 00"]);
        broker.lose(peer);
        let (mut peer, heard) = broker.resume(version, "peer", &How::kept());
        assert_eq!(heard, ["PUBLISH q1 #2 dup a one", "PUBREL 1 00"]);
        assert_eq!(broker.pubcomp(&mut peer, 1), [""; 0]);
    });
}

/// [MQTT-3.3.2-3] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.5.0-1] and 3.1.1 [MQTT-3.3.2-3] [MQTT-3.8.3-2] [MQTT-4.7.1-2]
/// [MQTT-4.7.1-3] [MQTT-4.5.0-1]: of each filter and topic, live and retained.
#[test]
fn wildcards_match_whole_levels() {
    const TOPICS: [&str; 9] = ["a", "a/", "a/b", "a/b/c", "/", "/a", "b", "ab/b", "a//c"];
    let cases: [(&str, &[&str]); 15] = [
        ("a", &["a"]),
        ("a/", &["a/"]),
        ("#", &TOPICS),
        ("+", &["a", "b"]),
        ("+/+", &["a/", "a/b", "/", "/a", "ab/b"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c", "a//c"]),
        ("a/+", &["a/", "a/b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("+/b/#", &["a/b", "a/b/c", "ab/b"]),
        ("/+", &["/", "/a"]),
        ("/#", &["/", "/a"]),
        ("+/", &["a/", "/"]),
        ("+/#", &TOPICS),
        ("a/b/#", &["a/b", "a/b/c"]),
        ("A", &[]),
    ];
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        for (filter, topics) in cases {
            let mut peer = broker.fresh(version, "peer");
            broker.subscribe(&mut peer, filter, 0);
            for topic in TOPICS {
                broker.publish(&mut pump, 0, 0, topic, "x");
            }
            let expected: Vec<_> = topics.iter().map(|topic| format!("PUBLISH q0 {topic} x")).collect();
            assert_eq!(broker.heard(&mut peer), expected, "{filter}");
        }
        for topic in TOPICS {
            broker.retain(&mut pump, topic, "x");
        }
        for (filter, topics) in cases {
            let mut peer = broker.fresh(version, "peer");
            let mut heard = broker.subscribe(&mut peer, filter, 0);
            heard.remove(0);
            heard.sort();
            let mut expected: Vec<_> =
                topics.iter().map(|topic| format!("PUBLISH q0 retain {topic} x")).collect();
            expected.sort();
            assert_eq!(heard, expected, "{filter}");
        }
    });
}

/// [MQTT-4.7.3-3] [MQTT-4.7.3-4] and 3.1.1 [MQTT-4.7.3-3] [MQTT-4.7.3-4]: nothing is made equal that isn't the same
/// bytes, and the longest topic there is comes through.
#[test]
fn topics_are_compared_as_they_stand() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let longest = "x".repeat(65_535);
        let topics = [
            "é", "e\u{301}", "É", "a b", "a  b", " a b", "ab", "a/b/", "a/b", "a/./b", "%61b", "ﬁ", "fi",
            &longest,
        ];
        let mut peers = Vec::new();
        for (number, topic) in topics.iter().enumerate() {
            let mut peer = broker.fresh(version, &format!("peer-{number}"));
            broker.subscribe(&mut peer, topic, 0);
            peers.push(peer);
        }
        for topic in topics {
            broker.publish(&mut pump, 0, 0, topic, "x");
        }
        for (peer, topic) in peers.iter_mut().zip(topics) {
            assert!(broker.heard(peer) == [format!("PUBLISH q0 {topic} x")], "{topic:.20}");
        }
    });
}

/// [MQTT-3.3.4-3] [MQTT-3.3.4-5]: a copy that comes through a share has the identifier of that subscription, and the
/// other one those of the others.
#[test]
fn each_copy_has_the_identifiers_of_its_subscriptions() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut peer = broker.fresh(version, "peer");
        for (filter, id) in [("a", 1), ("$share/s/a", 2), ("a/#", 3)] {
            let identifier = [Property::SubscriptionIdentifier(id)];
            broker.subscribe_as(&mut peer, filter, SubscriptionOptions::new(qos(0)), &identifier);
        }
        broker.publish(&mut pump, 0, 0, "a", "x");
        let mut heard = broker.heard(&mut peer);
        heard.sort_by_key(String::len);
        assert_eq!((heard.len(), &*heard[0]), (2, "PUBLISH q0 a x {SubscriptionIdentifier(2)}"));
        assert!(heard[1].contains("Identifier(1)") && heard[1].contains("Identifier(3)"), "{heard:?}");
    });
}

/// [MQTT-3.8.3-3]: only what comes from the same client is left out, whatever connection it has.
#[test]
fn no_local_is_about_the_client() {
    each(&[V5], |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut peer = broker.connect(version, "peer", &How::kept());
        let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(qos(1)) };
        broker.subscribe_as(&mut peer, "a", options, &[]);
        assert_eq!(broker.publish(&mut peer, 1, 1, "a", "own"), ["PUBACK 1 00"]);
        broker.publish(&mut other, 1, 1, "a", "other's");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q1 #1 a other's"]);
        broker.lose(peer);
        let (mut peer, _) = broker.resume(version, "peer", &How::kept());
        assert_eq!(broker.publish(&mut peer, 1, 1, "a", "own"), ["PUBACK 1 00"]);
    });
}

/// [MQTT-3.8.3-3] [MQTT-3.3.4-2]: a subscription with No Local doesn't match what is the client's own, and so has no part in the
/// QoS of another that does. The own message came with QoS 2, and with the identifier of the subscription that didn't want it.
#[test]
fn a_subscription_without_the_own_messages_lent_them_its_qos() {
    each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        let mut other = broker.fresh(version, "other");
        let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(qos(2)) };
        broker.subscribe_as(&mut peer, "+", options, &[Property::SubscriptionIdentifier(7)]);
        broker.subscribe_as(&mut peer, "a", SubscriptionOptions::new(qos(0)), &[]);
        assert_eq!(broker.publish(&mut peer, 1, 1, "a", "own"), ["PUBLISH q0 a own", "PUBACK 1 00"]);
        broker.publish(&mut other, 1, 1, "a", "other's");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q1 #1 a other's {SubscriptionIdentifier(7)}"]);
    });
}

/// 3.1.1 [MQTT-3.9.3-2]: the only code of a refusal, also where version 5 has another.
#[test]
fn before_version_5_a_refusal_is_0x80() {
    each(&[V311], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        subscribe_all(&mut broker, &mut peer, version, &[("sig/x", 0), ("sig/c/other", 2), ("$share/s", 0)]);
        let bytes = broker.bytes(&peer);
        assert_eq!(bytes[4..], [0x90, 5, 0x12, 0x34, 0x80, 0x80, 0x80]);
    });
}
