//! Retained messages [section 3.3.1.3, 3.8.3.1].

use bugle_core::mqtt::{Property, Publish, RetainHandling, SubscriptionOptions};

use crate::peer::{Broker, How, V5, VERSIONS, each, each_with, publish, qos};

/// [MQTT-3.3.1-5] [MQTT-3.3.1-8] [MQTT-3.3.1-9] and 3.1.1 [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8]
/// [MQTT-3.3.1-12]
#[test]
fn a_new_subscriber_gets_the_last_message_marked_as_retained() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        assert_eq!(broker.retain(&mut pump, "plant/pump", "off"), ["PUBACK 777 00"]);
        assert_eq!(broker.retain(&mut pump, "plant/pump", "on"), ["PUBACK 777 00"]);
        broker.retain(&mut pump, "plant/fan", "slow");
        broker.publish(&mut pump, 1, 1, "plant/pump", "not retained");
        for (number, filter) in ["plant/pump", "plant/+", "#", "+/pump", "plant/#"].into_iter().enumerate() {
            let mut late = broker.fresh(version, &format!("late-{number}"));
            let mut heard = broker.subscribe(&mut late, filter, 1);
            assert_eq!(heard.remove(0), "SUBACK 900 01");
            heard.sort();
            let found = heard.iter().any(|line| line.ends_with("retain plant/pump on"));
            let fan = heard.iter().any(|line| line.ends_with("retain plant/fan slow"));
            assert_eq!(
                (heard.len(), found, fan),
                if filter.contains("pump") { (1, true, false) } else { (2, true, true) }
            );
        }
    });
}

/// [MQTT-3.3.1-12] and 3.1.1 [MQTT-3.3.1-9]: towards those that were subscribed before it is a message like any other.
#[test]
fn a_subscriber_of_before_gets_it_without_the_mark() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "a", 0);
        broker.retain(&mut pump, "a", "on");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 a on"]);
    });
}

/// [MQTT-3.3.1-13]
#[test]
fn retain_as_published_keeps_the_mark() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        let options = SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::new(qos(0)) };
        broker.subscribe_as(&mut app, "a", options, &[]);
        broker.retain(&mut pump, "a", "on");
        broker.publish(&mut pump, 0, 0, "a", "once");
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 retain a on", "PUBLISH q0 a once"]);
    });
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] and 3.1.1 [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12]: only an empty *retained* message clears.
#[test]
fn an_empty_retained_message_clears_the_topic_and_no_other_does() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "a", 0);
        broker.retain(&mut pump, "a", "on");
        broker.publish(&mut pump, 1, 1, "a", "");
        let mut late = broker.fresh(version, "late");
        assert_eq!(broker.subscribe(&mut late, "a", 0), ["SUBACK 900 00", "PUBLISH q0 retain a on"]);
        assert_eq!(broker.retain(&mut pump, "a", ""), ["PUBACK 777 00"]);
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 a on", "PUBLISH q0 a ", "PUBLISH q0 a "]);
        let mut later = broker.fresh(version, "later");
        assert_eq!(broker.subscribe(&mut later, "a", 0), ["SUBACK 900 00"]);
        assert_eq!(broker.retain(&mut pump, "a", "again"), ["PUBACK 777 00"]);
        assert_eq!(
            broker.subscribe(&mut later, "a", 0),
            ["PUBLISH q0 a again", "SUBACK 900 00", "PUBLISH q0 retain a again"]
        );
    });
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
#[test]
fn retain_handling_says_when() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        broker.retain(&mut pump, "a", "on");
        let mut app = broker.fresh(version, "app");
        for (retain_handling, expected) in [
            (RetainHandling::DoNotSend, 0),
            (RetainHandling::SendIfNew, 0),
            (RetainHandling::SendAtSubscribe, 1),
            (RetainHandling::SendIfNew, 0),
        ] {
            let options = SubscriptionOptions { retain_handling, ..SubscriptionOptions::new(qos(1)) };
            let heard = broker.subscribe_as(&mut app, "a", options, &[]);
            assert_eq!(heard.len(), 1 + expected, "{retain_handling:?} {heard:?}");
        }
        let options = SubscriptionOptions {
            retain_handling: RetainHandling::SendIfNew,
            ..SubscriptionOptions::new(qos(0))
        };
        broker.unsubscribe(&mut app, "a");
        assert_eq!(broker.subscribe_as(&mut app, "a", options, &[]).len(), 2, "new again");
    });
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn a_retained_message_expires_and_carries_what_is_left() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let retained = Publish { retain: true, ..publish(1, 1, "a", "on") };
        broker.publish_as(&mut pump, &retained, &[Property::MessageExpiryInterval(30)]);
        broker.gateway.advance(10_000);
        let mut late = broker.fresh(version, "late");
        let heard = broker.subscribe(&mut late, "a", 0);
        assert_eq!(heard[1..], ["PUBLISH q0 retain a on {MessageExpiryInterval(20)}"]);
        broker.gateway.advance(20_000);
        assert_eq!(broker.subscribe(&mut late, "a", 0), ["SUBACK 900 00"]);
        let kept = broker.gateway.shards[0].counters().retained_messages;
        assert_eq!(kept, 0, "forgotten, not only hidden");
    });
}

/// 3.1.1 [MQTT-3.3.1-5] [MQTT-3.3.1-7]: at whatever QoS, the last one, with its QoS.
#[test]
fn a_retained_message_of_any_qos_replaces_the_one_of_before() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        let mut late = broker.fresh(version, "late");
        for (number, payload) in [(2, "two"), (0, "zero"), (1, "one"), (0, "zero again"), (2, "two again")] {
            let retained = Publish { retain: true, ..publish(number, 5, "a", payload) };
            broker.publish_as(&mut pump, &retained, &[]);
            broker.pubrel(&mut pump, 5);
            let heard = broker.subscribe(&mut late, "a", 2);
            let expected = format!("PUBLISH q{number} ");
            assert!(heard.len() == 2 && heard[1].starts_with(&expected), "{heard:?}");
            assert!(heard[1].ends_with(&format!("retain a {payload}")), "{heard:?}");
            broker.unsubscribe(&mut late, "a");
        }
    });
}

/// 3.1.1 [MQTT-3.1.2-7]: they are nobody's session's.
#[test]
fn retained_messages_outlive_the_session_that_published_them() {
    each(&VERSIONS, |mut broker, version| {
        for how in [How::default(), How { expiry: 10, ..How::kept() }] {
            let mut pump = broker.connect(version, "pump", &how);
            broker.retain(&mut pump, "a", "on");
            broker.disconnect(pump);
            broker.fresh(version, "pump");
            broker.gateway.advance(20_000);
            let mut late = broker.fresh(version, "late");
            assert_eq!(broker.subscribe(&mut late, "a", 0), ["SUBACK 900 00", "PUBLISH q0 retain a on"]);
        }
    });
}

/// [MQTT-4.7.2-1] and 3.1.1 [MQTT-4.7.2-1]
#[test]
fn a_leading_wildcard_finds_no_dollar_topic() {
    each(&VERSIONS, |mut broker, version| {
        let filters = ["#", "+/#", "+/x", "+/+", "$SYS/#", "$SYS/+", "$SYS/x"];
        let own = |broker: &mut Broker| {
            let now = broker.gateway.now();
            broker.gateway.shards[0].publish_own("$SYS/x", b"1", now);
            broker.gateway.pump();
        };
        let mut peers: Vec<_> = filters.iter().map(|_| broker.fresh(version, "")).collect();
        for (peer, filter) in peers.iter_mut().zip(filters) {
            assert_eq!(broker.subscribe(peer, filter, 0), ["SUBACK 900 00"]);
        }
        own(&mut broker);
        for (peer, filter) in peers.iter_mut().zip(filters) {
            let expected: &[&str] = if filter.starts_with('$') { &["PUBLISH q0 $SYS/x 1"] } else { &[] };
            assert_eq!(broker.heard(peer), expected, "{filter}");
            let heard = broker.subscribe(peer, filter, 0);
            let expected: &[&str] =
                if filter.starts_with('$') { &["PUBLISH q0 retain $SYS/x 1"] } else { &[] };
            assert_eq!(heard[1..], *expected, "{filter}, retained");
        }
        let mut peer = broker.fresh(version, "peer");
        broker.publish(&mut peer, 0, 0, "$SYS/x", "2");
        assert_eq!(broker.heard(&mut peers[4]), [""; 0], "and is the gateway's alone");
    });
}

/// However many there are: they come as the client takes them, and none is dropped.
#[test]
fn a_subscriber_gets_all_of_many_though_its_mailbox_is_small() {
    each_with(
        &VERSIONS,
        |limits| limits.mailbox_messages = 70,
        |mut broker, version| {
            let mut pump = broker.fresh(version, "pump");
            for number in 0..500 {
                broker.retain(&mut pump, &format!("many/{number:03}/x"), &number.to_string());
            }
            let mut late = broker.fresh(version, "late");
            let heard = broker.subscribe(&mut late, "many/+/x", 1);
            let mut payloads: Vec<usize> =
                broker.take_all(&mut late, heard).iter().map(|n| n.parse().unwrap()).collect();
            payloads.sort_unstable();
            assert_eq!(payloads, (0..500).collect::<Vec<_>>());
            let dropped: u64 =
                broker.gateway.shards.iter().map(|shard| shard.counters().publishes_overflowed).sum();
            assert_eq!(dropped, 0);
        },
    );
}

/// Nor because they are large.
#[test]
fn a_subscriber_gets_all_of_many_large_ones_though_its_mailbox_holds_few_bytes() {
    each_with(
        &VERSIONS,
        |limits| limits.mailbox_bytes = 10_000,
        |mut broker, version| {
            let mut pump = broker.fresh(version, "pump");
            let large = "x".repeat(3000);
            for number in 0..20 {
                broker.retain(&mut pump, &format!("many/{number:03}"), &format!("{number}{large}"));
            }
            for qos in [0, 1] {
                let mut late = broker.fresh(version, &format!("late-{qos}"));
                let heard = broker.subscribe(&mut late, "many/+", qos);
                assert_eq!(broker.take_all(&mut late, heard).len(), 20);
            }
        },
    );
}

/// [MQTT-3.10.4-2]: a subscription that is over before every shard knows of it brings nothing.
#[test]
fn nothing_retained_comes_after_the_unsubscribe_of_a_subscription_that_was_not_confirmed_yet() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        broker.retain(&mut pump, "a", "on");
        let mut app = broker.fresh(version, "app");
        broker.gateway.hold(true);
        let mut heard = broker.subscribe(&mut app, "a", 0);
        heard.extend(broker.unsubscribe(&mut app, "a"));
        broker.gateway.hold(false);
        heard.extend(broker.heard(&mut app));
        assert!(heard.last().is_some_and(|last| last.starts_with("UNSUBACK")), "{heard:?}");
    });
}

/// The connection is lost before the SUBACK: the session has the subscription, and gets what belongs to it.
#[test]
fn what_is_retained_comes_though_the_suback_was_lost() {
    each(&VERSIONS, |mut broker, version| {
        let mut pump = broker.fresh(version, "pump");
        broker.retain(&mut pump, "a", "on");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.gateway.hold(true);
        broker.subscribe(&mut kept, "a", 1);
        broker.lose(kept);
        broker.gateway.hold(false);
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(broker.take_all(&mut kept, heard), ["on"]);
    });
}

/// The bound is told to who can be told.
#[test]
fn a_full_store_of_retained_messages_refuses_new_topics() {
    each_with(
        &[V5],
        |limits| limits.retained_messages = 1,
        |mut broker, version| {
            let mut pump = broker.fresh(version, "pump");
            assert_eq!(broker.retain(&mut pump, "a", "1"), ["PUBACK 777 00"]);
            assert_eq!(broker.retain(&mut pump, "b", "2"), ["PUBACK 777 97 {reason, code=TOO_MANY}"]);
            assert_eq!(broker.retain(&mut pump, "a", "3"), ["PUBACK 777 00"]);
            broker.retain(&mut pump, "a", "");
            assert_eq!(broker.retain(&mut pump, "b", "4"), ["PUBACK 777 00"]);
        },
    );
}

/// [MQTT-3.8.3-3] of what one has published oneself.
#[test]
fn no_local_leaves_out_ones_own() {
    each(&[V5], |mut broker, version| {
        let mut pump = broker.connect(version, "pump", &How::default());
        broker.retain(&mut pump, "a", "mine");
        let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(qos(0)) };
        assert_eq!(broker.subscribe_as(&mut pump, "a", options, &[]), ["SUBACK 900 00"]);
    });
}
