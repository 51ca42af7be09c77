//! What version 5 adds to packets: identifiers of subscriptions, aliases, limits of both sides, what the CONNACK says.

use bugle_core::mqtt::{Property, Publish, SubscriptionOptions};

use crate::peer::{How, V5, V311, VERSIONS, each, each_with, publish, qos};

/// [MQTT-3.3.4-3] [MQTT-3.3.4-4]
#[test]
fn one_copy_carries_the_identifiers_of_all_subscriptions_that_match() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        for (filter, number, level) in [("a/#", 1, 0), ("a/b", 200_000, 2), ("a/+", 1, 1), ("c", 7, 0)] {
            let options = SubscriptionOptions::new(qos(level));
            broker.subscribe_as(&mut app, filter, options, &[Property::SubscriptionIdentifier(number)]);
        }
        broker.subscribe(&mut app, "#", 0);
        for _ in 0..3 {
            broker.publish(&mut pump, 1, 1, "a/b", "x");
            let heard = broker.heard(&mut app);
            let [line] = &heard[..] else { panic!("{heard:?}") };
            let mut numbers: Vec<&str> = line.split("SubscriptionIdentifier(").skip(1).collect();
            numbers.iter_mut().for_each(|number| *number = number.split(')').next().unwrap());
            numbers.sort_unstable();
            assert_eq!(numbers, ["1", "1", "200000"], "{line}");
            assert!(line.starts_with("PUBLISH q1"), "at the highest QoS: {line}");
        }
        broker.publish(&mut pump, 0, 0, "c", "x");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 c x {SubscriptionIdentifier(7)}"]);
        broker.publish(&mut pump, 0, 0, "d", "x");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 d x"]);
    });
}

/// [MQTT-3.8.4-3]: subscribing again replaces options and identifier.
#[test]
fn a_repeated_subscription_replaces_the_first() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        for (number, level) in [(1, 1), (2, 0)] {
            let options = SubscriptionOptions::new(qos(level));
            broker.subscribe_as(&mut app, "a", options, &[Property::SubscriptionIdentifier(number)]);
        }
        broker.publish(&mut pump, 1, 1, "a", "x");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 a x {SubscriptionIdentifier(2)}"]);
    });
}

/// [MQTT-3.8.3-3]: own messages come where at least one matching subscription wants them.
#[test]
fn no_local_of_one_subscription_does_not_hide_another() {
    each(&[V5], |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(qos(0)) };
        broker.subscribe_as(&mut app, "a/#", no_local, &[]);
        assert_eq!(broker.publish(&mut app, 0, 0, "a/b", "mine"), [""; 0]);
        broker.subscribe(&mut app, "a/+", 0);
        assert_eq!(broker.publish(&mut app, 0, 0, "a/b", "mine"), ["PUBLISH q0 a/b mine"]);
    });
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-7] [MQTT-3.3.2-11]: never more aliases than the client takes, and the topic the first time.
#[test]
fn topics_get_aliases_where_the_client_takes_them() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let how = How::kept().with(Property::TopicAliasMaximum(2));
        let mut app = broker.connect(version, "app", &how);
        broker.subscribe(&mut app, "#", 1);
        let expected = [
            ("a", "PUBLISH q1 #1 a x {TopicAlias(1)}"),
            ("a", "PUBLISH q1 #2  x {TopicAlias(1)}"),
            ("b", "PUBLISH q1 #3 b x {TopicAlias(2)}"),
            ("c", "PUBLISH q1 #4 c x"),
            ("b", "PUBLISH q1 #5  x {TopicAlias(2)}"),
        ];
        for (topic, line) in expected {
            broker.publish(&mut pump, 1, 1, topic, "x");
            assert_eq!(broker.heard(&mut app), [line]);
        }
        broker.lose(app);
        let (_, heard) = broker.resume(version, "app", &how);
        assert_eq!(heard[1], "PUBLISH q1 #2 dup a x", "another connection knows no alias: {heard:?}");
    });
}

/// [MQTT-3.1.2-24]: a message that fits the client's largest packet comes. The alias that it was to get made it too large, and it was dropped.
#[test]
fn an_alias_made_a_message_too_large() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let how = How::kept().with(Property::TopicAliasMaximum(2)).with(Property::MaximumPacketSize(20));
        let mut app = broker.connect(version, "app", &how);
        broker.subscribe(&mut app, "#", 1);
        // 20 bytes without an alias, 23 with one, and 21 without.
        for (payload, came) in [("012345678", true), ("0123456789", false)] {
            broker.publish(&mut pump, 1, 1, "topi", payload);
            assert_eq!(broker.heard(&mut app).len(), usize::from(came), "{payload}");
        }
        broker.publish(&mut pump, 1, 1, "topi", "x");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q1 #2 topi x {TopicAlias(1)}"]);
    });
}

/// [MQTT-3.2.2-17] [MQTT-3.3.2-7] [MQTT-3.3.2-9] [MQTT-3.3.2-12]: on this connection.
#[test]
fn a_clients_aliases_stand_for_its_topics_and_for_no_others() {
    each(&[V5], |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "#", 0);
        let mut pump = broker.connect(version, "pump", &How::kept());
        for alias in 1..=16 {
            broker.publish_as(&mut pump, &publish(0, 0, "a", "x"), &[Property::TopicAlias(alias)]);
            broker.publish_as(&mut pump, &publish(0, 0, "", "x"), &[Property::TopicAlias(alias)]);
        }
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 a x"; 32]);
        broker.lose(pump);
        let (mut pump, _) = broker.resume(version, "pump", &How::kept());
        let forgotten = broker.publish_as(&mut pump, &publish(0, 0, "", "x"), &[Property::TopicAlias(1)]);
        assert_eq!(forgotten, ["DISCONNECT 82 {reason}"]);
        let mut pump = broker.fresh(version, "pump");
        for (topic, alias) in [("a", 1), ("", 1), ("b", 1), ("", 1)] {
            broker.publish_as(&mut pump, &publish(0, 0, topic, "x"), &[Property::TopicAlias(alias)]);
        }
        let topics = ["a", "a", "b", "b"].map(|topic| format!("PUBLISH q0 {topic} x"));
        assert_eq!(broker.heard(&mut app), topics);
        let unknown = broker.publish_as(&mut pump, &publish(0, 0, "", "x"), &[Property::TopicAlias(2)]);
        assert_eq!(unknown, ["DISCONNECT 82 {reason}"]);
        let mut pump = broker.fresh(version, "pump");
        let high = broker.publish_as(&mut pump, &publish(0, 0, "a", "x"), &[Property::TopicAlias(17)]);
        assert_eq!(high, ["DISCONNECT 94 {reason}"]);
    });
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]: what is larger than the client takes is as if it had been sent.
#[test]
fn nothing_is_larger_than_the_client_takes() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let how = How::default().with(Property::MaximumPacketSize(40));
        let mut app = broker.connect(version, "app", &how);
        broker.subscribe(&mut app, "a", 1);
        for payload in ["fits", &"x".repeat(40), "fits too"] {
            assert_eq!(broker.publish(&mut pump, 1, 1, "a", payload), ["PUBACK 1 00"]);
        }
        let heard = broker.heard(&mut app);
        assert_eq!(broker.take_all(&mut app, heard), ["fits", "fits"]);
        let dropped: u64 = broker.gateway.shards.iter().map(|shard| shard.counters().sessions.oversize).sum();
        assert_eq!(dropped, 1, "and counted");
    });
}

/// [MQTT-3.3.4-9] [MQTT-4.9.0-2]: the client's window.
#[test]
fn no_more_is_under_way_than_the_receive_maximum() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let how = How::default().with(Property::ReceiveMaximum(2));
        let mut app = broker.connect(version, "app", &how);
        broker.subscribe(&mut app, "a", 2);
        for (number, level) in [(1, 1), (2, 2), (3, 1), (4, 0)] {
            broker.publish(&mut pump, level, number, "a", "x");
        }
        assert_eq!(broker.heard(&mut app), ["PUBLISH q1 #1 a x", "PUBLISH q2 #2 a x"]);
        assert_eq!(broker.pubrec(&mut app, 2), ["PUBREL 2 00"], "still under way until PUBCOMP");
        assert_eq!(broker.pubcomp(&mut app, 2)[0], "PUBLISH q1 #2 a x", "and its identifier is free");
        let heard = broker.puback(&mut app, 1);
        assert!(heard.contains(&"PUBLISH q0 a x".to_owned()), "{heard:?}");
    });
}

/// [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22]: the operator's longest keep-alive is said and kept.
#[test]
fn the_servers_keep_alive_replaces_the_clients() {
    each_with(
        &[V5],
        |limits| limits.keep_alive_max = 60,
        |mut broker, version| {
            for (keep_alive, said) in [(0, true), (600, true), (60, false), (10, false)] {
                let how = How { keep_alive, ..How::default() };
                let (peer, connack) = broker.try_connect(version, "peer", &how);
                assert_eq!(connack[0].contains("ServerKeepAlive(60)"), said, "{connack:?}");
                let limit = if said { 90_000 } else { u64::from(keep_alive) * 1500 };
                broker.gateway.advance(limit - 1);
                assert!(broker.gateway.is_open(peer.who));
                broker.gateway.advance(1);
                assert!(!broker.gateway.is_open(peer.who));
            }
        },
    );
}

/// [MQTT-3.1.2-28] (section 3.2.2.3.15): only to who asks.
#[test]
fn response_information_is_for_who_asks() {
    each(&[V5], |mut broker, version| {
        let (_, connack) = broker.try_connect(version, "me", &How::default());
        assert!(!connack[0].contains("Response"), "{connack:?}");
        let how = How::default().with(Property::RequestResponseInformation(true));
        let (_, connack) = broker.try_connect(version, "me", &how);
        assert!(connack[0].contains("ResponseInformation(\"response/me\")"), "{connack:?}");
    });
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn what_is_said_of_a_message_passes_unaltered_and_in_order() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        let mut old = broker.fresh(V311, "old");
        broker.subscribe(&mut app, "a", 0);
        broker.subscribe(&mut old, "a", 0);
        let properties = [
            Property::PayloadFormatIndicator(true),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answers"),
            Property::CorrelationData(b"7"),
            Property::UserProperty("b", "1"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("b", "3"),
        ];
        broker.publish_as(&mut pump, &publish(0, 0, "a", "x"), &properties);
        let heard = broker.heard(&mut app);
        assert!(
            heard[0].starts_with("PUBLISH q0 a x {PayloadFormatIndicator(true), ContentType(\"text/plain\")")
        );
        assert!(heard[0].ends_with("b=1, a=2, b=3}"), "{heard:?}");
        assert_eq!(broker.heard(&mut old), ["PUBLISH q0 a x"]);
    });
}

/// [MQTT-3.3.1-3] and 3.1.1 [MQTT-3.3.1-3]
#[test]
fn dup_is_not_passed_on() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "a", 1);
        broker.publish_as(&mut pump, &Publish { dup: true, ..publish(1, 1, "a", "x") }, &[]);
        assert_eq!(broker.heard(&mut app), ["PUBLISH q1 #1 a x"]);
    });
}
