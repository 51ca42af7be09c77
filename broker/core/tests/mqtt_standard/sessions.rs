//! Sessions that outlive their connections [section 3.1.2.11.2, 4.1, 4.4].

use bugle_core::model::OfflineFull;
use bugle_core::mqtt::{Property, Publish, ReasonCode};

use crate::peer::{How, V5, V311, VERSIONS, each, each_with, publish};

/// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.3-2] [MQTT-3.2.2-3] and 3.1.1 [MQTT-3.1.2-4] [MQTT-3.1.3-2] [MQTT-3.2.2-2]
/// [MQTT-3.2.2-3]: that of this client id, and no other.
#[test]
fn a_session_is_there_again_with_its_subscriptions() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let (mut kept, connack) = broker.try_connect(version, "kept", &How::kept());
        assert!(
            connack[0].starts_with("CONNACK 00") && !connack[0].contains("present"),
            "none before: {connack:?}"
        );
        broker.subscribe(&mut kept, "a/+", 1);
        broker.disconnect(kept);
        let (_, connack) = broker.try_connect(version, "Kept", &How::kept());
        assert!(!connack[0].contains("present"), "{connack:?}");
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, [""; 0]);
        assert_eq!(broker.publish(&mut other, 1, 1, "a/b", "on"), ["PUBACK 1 00"]);
        assert_eq!(broker.heard(&mut kept), ["PUBLISH q1 #1 a/b on"]);
    });
}

/// [MQTT-3.1.2-4] and 3.1.1 [MQTT-3.1.2-6]
#[test]
fn a_clean_start_ends_the_session_of_before() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 1);
        broker.lose(kept);
        broker.publish(&mut other, 1, 1, "a", "missed");
        let (clean, connack) = broker.try_connect(version, "kept", &How::default());
        assert!(!connack[0].contains("present"), "{connack:?}");
        broker.publish(&mut other, 1, 2, "a", "not subscribed");
        broker.lose(clean);
        let (mut kept, connack) = broker.try_connect(version, "kept", &How::kept());
        assert!(!connack[0].contains("present"), "{connack:?}");
        assert_eq!(broker.heard(&mut kept), [""; 0]);
    });
}

/// [MQTT-4.5.0-1] [MQTT-4.6.0-6] and 3.1.1 [MQTT-3.1.2-5] [MQTT-4.5.0-1] [MQTT-4.6.0-6]; QoS 0 isn't kept, and may not be.
#[test]
fn what_comes_while_a_client_is_away_waits_in_order() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a/#", 1);
        broker.subscribe(&mut kept, "low/#", 0);
        broker.lose(kept);
        for (number, topic, payload) in
            [(1, "a/1", "1"), (0, "a/2", "lost"), (2, "a/3", "3"), (1, "low/x", "lost"), (1, "a/4", "4")]
        {
            broker.publish(&mut other, number, payload.len() as u16, topic, payload);
            broker.pubrel(&mut other, 1);
        }
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(broker.take_all(&mut kept, heard), ["1", "3", "4"]);
        assert_eq!(broker.publish(&mut other, 1, 9, "a/5", "live"), ["PUBACK 9 00"]);
        let heard = broker.heard(&mut kept);
        assert_eq!(broker.take_all(&mut kept, heard), ["live"]);
    });
}

/// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] and 3.1.1 [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-2.3.1-4]
#[test]
fn what_was_not_acknowledged_comes_again_as_a_duplicate_and_in_order() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 2);
        for (number, id, payload) in [(1, 1, "one"), (2, 2, "two"), (1, 3, "three"), (2, 4, "four")] {
            broker.publish(&mut other, number, id, "a", payload);
        }
        let heard = broker.heard(&mut kept);
        assert_eq!(
            heard,
            ["PUBLISH q1 #1 a one", "PUBLISH q2 #2 a two", "PUBLISH q1 #3 a three", "PUBLISH q2 #4 a four"]
        );
        broker.puback(&mut kept, 3);
        assert_eq!(broker.pubrec(&mut kept, 2), ["PUBREL 2 00"]);
        broker.lose(kept);
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, ["PUBLISH q1 #1 dup a one", "PUBLISH q2 #4 dup a four", "PUBREL 2 00"]);
        assert_eq!(broker.pubcomp(&mut kept, 2), [""; 0]);
        assert_eq!(broker.puback(&mut kept, 1), [""; 0]);
        broker.lose(kept);
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, ["PUBLISH q2 #4 dup a four"]);
        assert_eq!(broker.pubrec(&mut kept, 4), ["PUBREL 4 00"]);
        assert_eq!(broker.pubcomp(&mut kept, 4), [""; 0]);
        broker.lose(kept);
        let (_, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, [""; 0]);
    });
}

/// [MQTT-4.9.0-1] [MQTT-4.9.0-2]: the new connection's receive maximum holds for what is sent again too.
#[test]
fn repetitions_keep_to_the_receive_maximum_of_the_new_connection() {
    each(&[V5], |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 1);
        for id in 1..=5 {
            broker.publish(&mut other, 1, id, "a", "x");
        }
        assert_eq!(broker.heard(&mut kept).len(), 5);
        broker.lose(kept);
        broker.publish(&mut other, 1, 6, "a", "later");
        let how = How::kept().with(Property::ReceiveMaximum(2));
        let (mut kept, heard) = broker.resume(version, "kept", &how);
        assert_eq!(heard, ["PUBLISH q1 #1 dup a x", "PUBLISH q1 #2 dup a x"]);
        assert_eq!(broker.puback(&mut kept, 2), ["PUBLISH q1 #3 dup a x"]);
        assert_eq!(broker.puback(&mut kept, 1), ["PUBLISH q1 #4 dup a x"]);
        let rest = broker.puback(&mut kept, 3);
        assert_eq!(rest, ["PUBLISH q1 #5 dup a x"]);
        assert_eq!(broker.puback(&mut kept, 4).len(), 1, "then what is new");
    });
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12] and 3.1.1 [MQTT-4.3.3-2] [MQTT-2.3.1-3]: a repetition of a QoS 2 publish is none, also on another connection.
#[test]
fn a_qos_2_publish_is_delivered_once_though_its_sender_reconnects() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        broker.subscribe(&mut other, "a", 0);
        let mut kept = broker.connect(version, "kept", &How::kept());
        assert_eq!(broker.publish(&mut kept, 2, 5, "a", "once"), ["PUBREC 5 00"]);
        broker.lose(kept);
        let (mut kept, _) = broker.resume(version, "kept", &How::kept());
        let again = Publish { dup: true, ..publish(2, 5, "a", "once") };
        assert_eq!(broker.publish_as(&mut kept, &again, &[]), ["PUBREC 5 00"]);
        assert_eq!(broker.pubrel(&mut kept, 5), ["PUBCOMP 5 00"]);
        broker.lose(kept);
        let (mut kept, _) = broker.resume(version, "kept", &How::kept());
        assert_eq!(broker.pubrel(&mut kept, 5), ["PUBCOMP 5 00"], "repeated, since the answer was lost");
        assert_eq!(broker.heard(&mut other), ["PUBLISH q0 a once"]);
        assert_eq!(
            broker.publish(&mut kept, 2, 5, "a", "twice"),
            ["PUBREC 5 00"],
            "the identifier is free again"
        );
        assert_eq!(broker.heard(&mut other), ["PUBLISH q0 a twice"]);
    });
}

/// A refusal that waited for an earlier publish's answer isn't taken for a success when the client comes back.
#[test]
fn a_refused_qos_2_publish_whose_sender_did_not_hear_of_it_is_judged_again() {
    each_with(
        &[V5],
        |limits| limits.retained_messages = 1,
        |mut broker, version| {
            let mut other = broker.fresh(version, "other");
            broker.subscribe(&mut other, "b", 0);
            let mut kept = broker.connect(version, "kept", &How::kept());
            broker.gateway.hold(true);
            broker.retain(&mut kept, "a", "1");
            let second = Publish { retain: true, ..publish(2, 5, "b", "2") };
            broker.publish_as(&mut kept, &second, &[]);
            broker.lose(kept);
            broker.gateway.hold(false);
            broker.retain(&mut other, "a", "");
            let (mut kept, _) = broker.resume(version, "kept", &How::kept());
            let again = Publish { dup: true, ..second };
            assert_eq!(broker.publish_as(&mut kept, &again, &[]), ["PUBREC 5 00"]);
            assert_eq!(broker.heard(&mut other), ["PUBLISH q0 b 2"]);
        },
    );
}

/// An identifier that this session never saw is a mismatch (section 3.7.2.1).
#[test]
fn pubrel_of_what_never_was_is_answered_with_not_found() {
    each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.pubrel(&mut peer, 7), ["PUBCOMP 7 92"]);
    });
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-2]: kept as long as it was asked for, and no longer.
#[test]
fn a_session_expires() {
    each(&[V5], |mut broker, version| {
        let how = How { expiry: 10, ..How::kept() };
        let kept = broker.connect(version, "kept", &how);
        broker.lose(kept);
        broker.gateway.advance(9_999);
        let (kept, _) = broker.resume(version, "kept", &how);
        broker.lose(kept);
        broker.gateway.advance(10_000);
        let (_, connack) = broker.try_connect(version, "kept", &how);
        assert!(!connack[0].contains("present"), "{connack:?}");
    });
}

/// 3.1.1 [MQTT-4.1.0-1] and section 3.1.2.11.2: 0xFFFFFFFF never ends; before version 5 a session that isn't clean never does.
#[test]
fn a_session_without_expiry_does_not_expire() {
    each(&VERSIONS, |mut broker, version| {
        let how = How { expiry: u32::MAX, ..How::kept() };
        let kept = broker.connect(version, "kept", &how);
        broker.lose(kept);
        broker.gateway.advance(u64::from(u32::MAX) * 2000);
        broker.resume(version, "kept", &how);
    });
}

/// Section 3.14.2.2.2: but not from nothing, which is a protocol error.
#[test]
fn disconnect_changes_the_expiry() {
    each(&[V5], |mut broker, version| {
        let how = How { expiry: 10, ..How::kept() };
        for (expiry, wait, present) in [(100, 99_000, true), (0, 0, false), (5, 5_000, false)] {
            let mut kept = broker.connect(version, "kept", &how);
            let expiry = [Property::SessionExpiryInterval(expiry)];
            broker.disconnect_with(&mut kept, ReasonCode::NORMAL_DISCONNECTION, &expiry);
            broker.gateway.advance(wait);
            let (again, connack) = broker.try_connect(version, "kept", &how);
            assert_eq!(connack[0].contains("present"), present, "{expiry:?}");
            broker.lose(again);
        }
        let mut none = broker.fresh(version, "none");
        let expiry = [Property::SessionExpiryInterval(5)];
        let heard = broker.disconnect_with(&mut none, ReasonCode::NORMAL_DISCONNECTION, &expiry);
        assert_eq!(heard, ["DISCONNECT 82 {reason}"]);
    });
}

/// Section 3.2.2.3.2: a clamped expiry is said in the CONNACK, and holds.
#[test]
fn the_operators_longest_expiry_holds_and_is_said() {
    each_with(
        &[V5],
        |limits| limits.session_expiry_max = 60,
        |mut broker, version| {
            let how = How { expiry: 3600, ..How::kept() };
            let (kept, connack) = broker.try_connect(version, "kept", &how);
            assert!(connack[0].contains("SessionExpiryInterval(60)"), "{connack:?}");
            broker.lose(kept);
            broker.gateway.advance(60_000);
            let (kept, connack) = broker.try_connect(version, "kept", &How { expiry: 30, ..how });
            assert!(!connack[0].contains("present") && !connack[0].contains("SessionExpiry"), "{connack:?}");
            let expiry = [Property::SessionExpiryInterval(500)];
            let mut kept = kept;
            broker.disconnect_with(&mut kept, ReasonCode::NORMAL_DISCONNECTION, &expiry);
            broker.gateway.advance(60_000);
            let (_, connack) = broker.try_connect(version, "kept", &How::kept());
            assert!(!connack[0].contains("present"), "{connack:?}");
        },
    );
}

/// [MQTT-4.1.0-1] and 3.1.1 [MQTT-4.1.0-1] [MQTT-4.1.0-2]: however short its expiry is.
#[test]
fn a_session_lasts_as_long_as_its_connection() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        for how in [How::default(), How { expiry: 1, ..How::kept() }] {
            let mut peer = broker.connect(version, "peer", &how);
            broker.subscribe(&mut peer, "a", 2);
            broker.publish(&mut other, 2, 1, "a", "x");
            broker.pubrel(&mut other, 1);
            assert_eq!(broker.heard(&mut peer), ["PUBLISH q2 #1 a x"]);
            broker.publish(&mut peer, 2, 7, "b", "x");
            broker.gateway.advance(100_000_000);
            assert_eq!(broker.pubrec(&mut peer, 1), ["PUBREL 1 00"]);
            assert_eq!(broker.publish(&mut peer, 2, 7, "a", "again"), ["PUBREC 7 00"]);
            broker.publish(&mut other, 0, 0, "a", "y");
            assert_eq!(broker.heard(&mut peer), ["PUBLISH q0 a y"]);
            broker.lose(peer);
        }
    });
}

/// [MQTT-3.1.4-3] and 3.1.1 [MQTT-3.1.4-2]
#[test]
fn a_newer_connection_takes_the_session_over() {
    each(&VERSIONS, |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut older = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut older, "a", 1);
        broker.publish(&mut other, 1, 1, "a", "one");
        assert_eq!(broker.heard(&mut older), ["PUBLISH q1 #1 a one"]);
        let (mut newer, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, ["PUBLISH q1 #1 dup a one"]);
        let said: &[&str] = if version == V5 { &["DISCONNECT 8e {reason}"] } else { &[] };
        assert_eq!(broker.heard(&mut older), said);
        assert!(!broker.gateway.is_open(older.who));
        broker.puback(&mut newer, 1);
        broker.publish(&mut other, 1, 2, "a", "two");
        let heard = broker.heard(&mut newer);
        assert_eq!(broker.take_all(&mut newer, heard), ["two"]);
    });
}

/// Bounded in messages, each drop counted; which one goes is the operator's choice.
#[test]
fn a_full_offline_queue_drops_as_configured() {
    for (policy, expected) in
        [(OfflineFull::RefuseNewest, ["1", "2", "3"]), (OfflineFull::DropOldest, ["3", "4", "5"])]
    {
        let limits = |limits: &mut bugle_core::model::Limits| {
            limits.offline_messages = 3;
            limits.offline_full = policy;
        };
        each_with(&VERSIONS, limits, |mut broker, version| {
            let mut other = broker.fresh(version, "other");
            let mut kept = broker.connect(version, "kept", &How::kept());
            broker.subscribe(&mut kept, "a", 1);
            broker.lose(kept);
            for (id, payload) in [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5")] {
                assert_eq!(broker.publish(&mut other, 1, id, "a", payload).len(), 1);
            }
            let dropped: u64 =
                broker.gateway.shards.iter().map(|shard| shard.counters().publishes_overflowed).sum();
            assert_eq!(dropped, 2);
            let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
            assert_eq!(broker.take_all(&mut kept, heard), expected);
        });
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: it expires in the queue, or comes with what is left.
#[test]
fn messages_expire_while_a_client_is_away() {
    each(&[V5], |mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 1);
        broker.lose(kept);
        for (id, seconds) in [(1, 5), (2, 50)] {
            let publish = publish(1, id, "a", "x");
            broker.publish_as(&mut other, &publish, &[Property::MessageExpiryInterval(seconds)]);
        }
        broker.gateway.advance(10_000);
        let (_, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, ["PUBLISH q1 #1 a x {MessageExpiryInterval(40)}"]);
        let expired: u64 = broker.gateway.shards.iter().map(|shard| shard.counters().publishes_expired).sum();
        assert_eq!(expired, 1);
    });
}

/// S10: signals aren't kept without `store`; membership is (S2).
#[test]
fn s2_a_kept_session_stays_a_member_and_is_offline_for_signals() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "sig/r/app", 0);
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "sig/g/floor3", 1);
        broker.lose(kept);
        let heard = broker.publish(&mut app, 1, 1, "sig/g/floor3?receipt=each", "on");
        assert_eq!(heard[0], "PUBACK 1 00");
        assert!(heard[1].contains(r#""statuses":{"kept":"OFFLINE"}"#), "{heard:?}");
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, [""; 0]);
        broker.publish(&mut app, 0, 0, "sig/g/floor3", "now");
        assert!(broker.heard(&mut kept)[0].contains("sig/g/floor3 now"));
    });
}

/// [MQTT-4.6.0-2] and 3.1.1 [MQTT-4.6.0-2]: a publish that has to wait for other shards doesn't let a later one overtake it.
#[test]
fn acknowledgements_leave_in_the_order_of_publishes() {
    each(&VERSIONS, |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        broker.gateway.hold(true);
        let retained = Publish { retain: true, ..publish(1, 1, "kept", "x") };
        let mut heard = broker.publish_as(&mut peer, &retained, &[]);
        heard.extend(broker.publish(&mut peer, 1, 2, "a", "x"));
        heard.extend(broker.publish(&mut peer, 2, 3, "a", "x"));
        broker.gateway.hold(false);
        heard.extend(broker.heard(&mut peer));
        assert_eq!(heard, ["PUBACK 1 00", "PUBACK 2 00", "PUBREC 3 00"]);
    });
}

/// A clean 3.1.1 session leaves nothing, and neither does the lost one of version 5 without an expiry.
#[test]
fn a_session_that_is_not_kept_leaves_nothing() {
    each(&[V311, V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        broker.subscribe(&mut peer, "a/#", 1);
        broker.lose(peer);
        let how = How { clean: false, ..How::default() };
        let how = if version == V5 { how } else { How::kept() };
        let (_, connack) = broker.try_connect(version, "peer", &how);
        assert!(!connack[0].contains("present"), "{connack:?}");
        let away: u64 = broker.gateway.shards.iter().map(|shard| shard.counters().sessions_away).sum();
        assert_eq!(away, 0);
    });
}
