//! Sessions, queues and retained messages that outlive the gateway: it is killed with what its store had committed, and
//! started again. Nothing that was acknowledged is lost, and QoS 2 is not repeated.

use bugle_core::mqtt::{Property, Publish, Version};
use bugle_core::store::{RecordKind, StoreEvent};

use crate::gateway::{Gateway, Setup};
use crate::peer::{Broker, How, V5, VERSIONS, publish};

/// With one and with several shards, in a steady and in other orders.
fn each(story: impl Fn(Broker, Version)) {
    for version in VERSIONS {
        for (shards, seed) in [(1, None), (3, None), (3, Some(11)), (2, Some(12))] {
            let setup = Setup { durable: true, ..Setup::new(shards, seed) };
            story(Broker { gateway: Gateway::new(&setup) }, version);
        }
    }
}

/// Clients of all shards, whose sessions are kept.
const AWAY: [&str; 8] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];

impl Broker {
    /// They subscribe at QoS 2, and go.
    fn away(&mut self, version: Version, filters: &[&str]) {
        for name in AWAY {
            let mut kept = self.connect(version, name, &How::kept());
            for filter in filters {
                self.subscribe(&mut kept, filter, 2);
            }
            self.lose(kept);
        }
    }

    /// Whether no shard waits for the store.
    fn all_committed(&self) -> bool {
        self.gateway.uncommitted() == 0
    }

    /// From here on the store commits nothing, or goes on.
    fn stick(&mut self, stuck: bool) {
        self.gateway.store_stuck = stuck;
        self.gateway.pump();
    }
}

#[test]
fn a_session_is_there_after_a_restart_with_its_subscriptions() {
    each(|mut broker, version| {
        let mut kept = broker.connect(version, "kept", &How::kept());
        let _clean = broker.fresh(version, "clean");
        for (filter, qos) in [("a/+", 1), ("b/#", 2), ("gone", 1), ("sig/g/room", 1), ("sig/r/kept", 1)] {
            broker.subscribe(&mut kept, filter, qos);
        }
        broker.subscribe(&mut kept, "sig/g/room/#", 1);
        broker.unsubscribe(&mut kept, "gone");
        broker.gateway.restart();
        assert_eq!(broker.gateway.store.records(RecordKind::Session), 1);
        let mut other = broker.fresh(version, "other");
        for (id, topic) in [(1, "a/1"), (2, "b/2"), (3, "gone"), (4, "sig/g/room")] {
            broker.publish(&mut other, 1, id, topic, topic);
        }
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(broker.take_all(&mut kept, heard), ["a/1", "b/2"], "signals don't wait without store");
        broker.publish(&mut other, 1, 5, "sig/g/room", "live");
        let heard = broker.heard(&mut kept).join(" ");
        assert!(heard.contains("sig/g/room/other live"), "{heard}");
        let done = if version == V5 { "UNSUBACK 901 00" } else { "UNSUBACK 901" };
        assert_eq!(broker.unsubscribe(&mut kept, "sig/g/room/#"), [done]);
        assert_eq!(broker.unsubscribe(&mut kept, "sig/g/room"), [done]);
        broker.publish(&mut other, 1, 6, "sig/g/room", "not for it");
        assert_eq!(broker.heard(&mut kept), [""; 0]);
        let heard = broker.publish(&mut kept, 1, 7, "sig/c/nobody?receipt=each", "?").join(" ");
        assert!(heard.contains("sig/r/kept"), "receipts still come: {heard}");
    });
}

#[test]
fn what_waited_for_a_client_waits_still_and_in_order() {
    each(|mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 1);
        broker.lose(kept);
        // More than the window that is in memory.
        let all: Vec<String> = (0..700).map(|number| format!("{number:04}")).collect();
        for payload in &all {
            assert_eq!(broker.publish(&mut other, 1, 1, "a", payload), ["PUBACK 1 00"]);
        }
        broker.gateway.restart();
        assert_eq!(broker.gateway.store.queued(), 700);
        let mut other = broker.fresh(version, "other");
        broker.publish(&mut other, 1, 1, "a", "before");
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert!(!heard.is_empty());
        broker.publish(&mut other, 1, 2, "a", "live");
        broker.publish(&mut other, 0, 0, "a", "once");
        let payloads = broker.take_all(&mut kept, heard);
        let ordered: Vec<_> = payloads.iter().filter(|text| *text != "once").collect();
        let more = ["before".to_owned(), "live".to_owned()];
        assert_eq!(ordered, all.iter().chain(&more).collect::<Vec<_>>());
        assert_eq!(broker.gateway.store.queued(), 0);
    });
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1]
#[test]
fn what_was_on_its_way_comes_again_by_the_same_identifier() {
    each(|mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 2);
        for (number, id, payload) in [(1, 1, "one"), (2, 2, "two"), (1, 3, "three"), (2, 4, "four")] {
            broker.publish(&mut other, number, id, "a", payload);
        }
        assert_eq!(broker.heard(&mut kept).len(), 4);
        broker.puback(&mut kept, 3);
        assert_eq!(broker.pubrec(&mut kept, 2), ["PUBREL 2 00"]);
        broker.gateway.restart();
        let (mut kept, mut heard) = broker.resume(version, "kept", &How::kept());
        heard.sort();
        assert_eq!(heard, ["PUBLISH q1 #1 dup a one", "PUBLISH q2 #4 dup a four", "PUBREL 2 00"]);
        broker.pubcomp(&mut kept, 2);
        broker.puback(&mut kept, 1);
        assert_eq!(broker.pubrec(&mut kept, 4), ["PUBREL 4 00"]);
        broker.pubcomp(&mut kept, 4);
        assert_eq!(broker.gateway.store.queued(), 0);
        broker.gateway.restart();
        let (_, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, [""; 0]);
    });
}

/// [MQTT-4.3.3-10]: each acknowledgement is a promise, which the store has to know first.
#[test]
fn an_acknowledgement_waits_for_the_store_and_a_live_delivery_does_not() {
    each(|mut broker, version| {
        let mut other = broker.connect(version, "other", &How::kept());
        let mut kept = broker.connect(version, "kept", &How::kept());
        let mut clean = broker.fresh(version, "clean");
        broker.subscribe(&mut kept, "a", 2);
        broker.subscribe(&mut clean, "#", 2);
        broker.stick(true);
        assert_eq!(broker.publish(&mut other, 1, 1, "a", "one"), [""; 0]);
        assert_eq!(broker.heard(&mut kept), ["PUBLISH q1 #1 a one"]);
        assert_eq!(broker.heard(&mut clean), ["PUBLISH q1 #1 a one"]);
        assert_eq!(broker.publish(&mut clean, 0, 0, "a", "zero"), ["PUBLISH q0 a zero"]);
        assert_eq!(broker.heard(&mut kept), ["PUBLISH q0 a zero"]);
        assert_eq!(
            broker.publish(&mut clean, 1, 3, "b", "nobody keeps it").len(),
            2,
            "and so it waits for nothing"
        );
        assert_eq!(broker.subscribe(&mut kept, "c", 1), [""; 0]);
        assert_eq!(broker.retain(&mut other, "r", "kept"), [""; 0]);
        assert_eq!(broker.publish(&mut other, 2, 2, "a", "two"), [""; 0]);
        assert_eq!(broker.heard(&mut kept), [""; 0], "QoS 2 waits until its identifier is known");
        broker.stick(false);
        let mut acks = broker.heard(&mut other);
        acks.sort();
        assert_eq!(acks, ["PUBACK 1 00", "PUBACK 777 00", "PUBREC 2 00"]);
        let mut heard = broker.heard(&mut kept);
        heard.sort();
        assert_eq!(heard, ["PUBLISH q2 #2 a two", "SUBACK 900 01"]);
        broker.stick(true);
        assert_eq!(
            broker.pubrec(&mut kept, 2),
            [""; 0],
            "it is released when the store knows that it is there"
        );
        assert_eq!(broker.pubrel(&mut other, 2), [""; 0]);
        broker.stick(false);
        assert_eq!(broker.heard(&mut kept), ["PUBREL 2 00"]);
        assert_eq!(broker.heard(&mut other), ["PUBCOMP 2 00"]);
    });
}

/// Killed before the store had anything, or after it: the publisher repeats what wasn't acknowledged.
#[test]
fn what_was_acknowledged_survives_and_what_was_not_may_be_repeated() {
    each(|mut broker, version| {
        let mut other = broker.connect(version, "other", &How::kept());
        let mut kept = broker.connect(version, "kept", &How::kept());
        broker.subscribe(&mut kept, "a", 2);
        broker.lose(kept);
        assert_eq!(broker.publish(&mut other, 2, 5, "a", "taken"), ["PUBREC 5 00"]);
        broker.stick(true);
        assert_eq!(broker.publish(&mut other, 2, 6, "a", "not taken"), [""; 0]);
        broker.gateway.restart();
        broker.stick(false);
        let (mut other, heard) = broker.resume(version, "other", &How::kept());
        assert_eq!(heard, [""; 0]);
        for (id, payload) in [(5, "taken"), (6, "not taken")] {
            let again = Publish { dup: true, ..publish(2, id, "a", payload) };
            assert_eq!(broker.publish_as(&mut other, &again, &[]), [format!("PUBREC {id} 00")]);
            assert_eq!(broker.pubrel(&mut other, id), [format!("PUBCOMP {id} 00")]);
        }
        // The identifier is free again.
        assert_eq!(broker.publish(&mut other, 2, 5, "a", "another"), ["PUBREC 5 00"]);
        let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
        assert_eq!(heard, ["PUBLISH q2 #1 a taken", "PUBLISH q2 #2 a not taken", "PUBLISH q2 #3 a another"]);
        for number in 1..=3 {
            broker.pubrec(&mut kept, number);
            broker.pubcomp(&mut kept, number);
        }
        assert_eq!(broker.gateway.store.queued(), 0);
    });
}

/// Killed when some shards' parts of a QoS 2 publish were committed, and others' not: its repetition goes to those who
/// don't have it [MQTT-4.3.3-10].
#[test]
fn a_qos_2_publish_reaches_each_once_whichever_shards_had_committed() {
    for stuck in 1..8_u16 {
        for retain in [false, true] {
            each(|mut broker, version| {
                let mut other = broker.connect(version, "other", &How::kept());
                broker.away(version, &["a", "$share/s/a"]);
                broker.gateway.stuck_shards = (0..3).filter(|shard| stuck & (1 << shard) != 0).collect();
                let publish = Publish { retain, ..publish(2, 5, "a", "once") };
                broker.publish_as(&mut other, &publish, &[]);
                broker.gateway.restart();
                broker.gateway.stuck_shards.clear();
                let (mut other, heard) = broker.resume(version, "other", &How::kept());
                assert_eq!(heard, [""; 0]);
                let again = Publish { dup: true, ..publish };
                assert_eq!(broker.publish_as(&mut other, &again, &[]), ["PUBREC 5 00"]);
                let own = |broker: &Broker| broker.gateway.store.records(RecordKind::Received);
                assert_eq!(own(&broker), 1, "nothing is left of parts");
                assert_eq!(broker.pubrel(&mut other, 5), ["PUBCOMP 5 00"]);
                assert_eq!(own(&broker), 0);
                // The identifier is free, and means another message.
                let more = Publish { payload: b"more", retain: false, ..publish };
                assert_eq!(broker.publish_as(&mut other, &more, &[]), ["PUBREC 5 00"]);
                let mut shared = 0;
                for name in AWAY {
                    let (mut kept, heard) = broker.resume(version, name, &How::kept());
                    let mut payloads = broker.take_all(&mut kept, heard);
                    payloads.sort();
                    let times = |text| payloads.iter().filter(|payload| *payload == text).count();
                    assert!(times("once") >= 1 && times("more") >= 1, "{name} {stuck} {payloads:?}");
                    shared += payloads.len() - 2;
                }
                assert_eq!(shared, 2, "one of the share for each: stuck {stuck} retain {retain}");
            });
        }
    }
}

/// Its connection is lost before its publish is committed on all shards, and the gateway is killed afterwards or not: who has
/// it then is told so when it sends it again, and only when it's true.
#[test]
fn a_qos_2_publish_whose_connection_was_lost_is_acknowledged_when_it_is_kept() {
    for stuck in 1..8_u16 {
        for killed in [false, true] {
            each(|mut broker, version| {
                let mut other = broker.connect(version, "other", &How::kept());
                broker.away(version, &["a"]);
                broker.gateway.stuck_shards = (0..3).filter(|shard| stuck & (1 << shard) != 0).collect();
                let publish = publish(2, 5, "a", "once");
                broker.publish_as(&mut other, &publish, &[]);
                broker.lose(other);
                let (mut other, _) = broker.try_connect(version, "other", &How::kept());
                let again = Publish { dup: true, ..publish };
                let mut answered = false;
                for _ in 0..2 {
                    let early = broker.publish_as(&mut other, &again, &[]);
                    assert!(early.is_empty() || broker.all_committed(), "not kept yet: {early:?}");
                    answered |= !early.is_empty();
                }
                broker.gateway.stuck_shards.clear();
                broker.gateway.pump();
                answered |= broker.heard(&mut other).contains(&"PUBREC 5 00".to_owned());
                assert!(answered);
                if killed {
                    broker.gateway.restart();
                    (other, _) = broker.resume(version, "other", &How::kept());
                    broker.publish_as(&mut other, &again, &[]);
                }
                assert_eq!(broker.pubrel(&mut other, 5), ["PUBCOMP 5 00"]);
                assert_eq!(broker.gateway.store.records(RecordKind::Received), 0);
                for name in AWAY {
                    let (mut kept, heard) = broker.resume(version, name, &How::kept());
                    assert_eq!(broker.take_all(&mut kept, heard), ["once"], "{name} stuck {stuck} {killed}");
                }
            });
        }
    }
}

/// The disk is full when a QoS 2 publish is to be kept, and its connection is lost before that shows.
#[test]
fn a_qos_2_publish_that_was_not_kept_is_a_new_one_when_it_comes_again() {
    let story = |mut broker: Broker, version, early| {
        let mut other = broker.connect(version, "other", &How::kept());
        broker.away(version, &["a"]);
        let now = bugle_core::model::Instant::from_millis(1000);
        // Full for one shard, as it may be seen at different moments.
        let last = broker.gateway.shards.len() - 1;
        broker.gateway.shards[last].handle_store(StoreEvent::Unavailable("the disk is full".into()), now);
        let once = publish(2, 5, "a", "once");
        broker.gateway.hold(early);
        let heard = broker.publish_as(&mut other, &once, &[]).join(" ");
        assert!(!heard.contains("PUBREC 5 00"), "{heard}");
        if broker.gateway.is_open(other.who) {
            broker.lose(other);
        }
        broker.gateway.hold(false);
        broker.gateway.pump();
        broker.gateway.shards[last].handle_store(StoreEvent::Available, now);
        let (mut other, _) = broker.resume(version, "other", &How::kept());
        let again = Publish { dup: true, ..once };
        assert_eq!(broker.publish_as(&mut other, &again, &[]), ["PUBREC 5 00"]);
        assert_eq!(broker.pubrel(&mut other, 5), ["PUBCOMP 5 00"]);
        assert_eq!(broker.gateway.store.records(RecordKind::Received), 0);
        for name in AWAY {
            let (mut kept, heard) = broker.resume(version, name, &How::kept());
            let payloads = broker.take_all(&mut kept, heard);
            // Version 5 was told that it is to publish anew, and did.
            let most = if version == V5 { 2 } else { 1 };
            assert!((1..=most).contains(&payloads.len()), "{name} {payloads:?}");
        }
    };
    for early in [false, true] {
        each(|broker, version| story(broker, version, early));
    }
}

#[test]
fn retained_messages_are_there_after_a_restart() {
    each(|mut broker, version| {
        let mut other = broker.fresh(version, "other");
        for (topic, payload) in
            [("r/1", "old"), ("r/1", "new"), ("r/2", "cleared"), ("r/2", ""), ("r/3", "three")]
        {
            broker.retain(&mut other, topic, payload);
        }
        if version == V5 {
            let soon = Publish { retain: true, ..publish(1, 9, "r/4", "soon over") };
            broker.publish_as(&mut other, &soon, &[Property::MessageExpiryInterval(5)]);
            broker.gateway.advance(6000);
        }
        for _ in 0..2 {
            broker.gateway.restart();
            let mut reader = broker.fresh(version, "reader");
            let mut heard = broker.subscribe(&mut reader, "r/#", 0);
            heard.sort();
            assert_eq!(heard, ["PUBLISH q0 retain r/1 new", "PUBLISH q0 retain r/3 three", "SUBACK 900 00"]);
        }
        // Later ones are later, however little this gateway has seen.
        let mut other = broker.fresh(version, "other");
        broker.retain(&mut other, "r/1", "newest");
        broker.gateway.restart();
        let mut reader = broker.fresh(version, "reader");
        assert!(broker.subscribe(&mut reader, "r/1", 0).contains(&"PUBLISH q0 retain r/1 newest".to_owned()));
    });
}

#[test]
fn sessions_end_when_they_would_have_ended() {
    each(|mut broker, version| {
        let expiry = 60;
        let how = How { expiry, ..How::kept() };
        let mut away = broker.connect(version, "away", &how);
        broker.subscribe(&mut away, "a", 1);
        broker.lose(away);
        broker.gateway.advance(40_000);
        let clean = broker.connect(version, "clean", &How::kept());
        broker.lose(clean);
        let clean = broker.fresh(version, "clean");
        broker.lose(clean);
        broker.gateway.restart();
        broker.gateway.advance(30_000);
        let (_, heard) = broker.try_connect(version, "clean", &How::kept());
        assert!(!heard[0].contains("present"), "a clean start ended it");
        let (_, heard) = broker.try_connect(version, "away", &how);
        // Before version 5 a session has no end.
        assert_eq!(heard[0].contains("present"), version != V5, "{heard:?}");
    });
}

/// The clock of the machine was set while the gateway was down.
#[test]
fn a_clock_that_was_set_shifts_what_is_kept_and_loses_nothing_else() {
    for hours in [-48_i64, 48] {
        each(|mut broker, version| {
            let mut other = broker.fresh(version, "other");
            let mut kept = broker.connect(version, "kept", &How::kept());
            broker.subscribe(&mut kept, "a", 1);
            broker.lose(kept);
            broker.publish(&mut other, 1, 1, "a", "endless");
            if version == V5 {
                let ends = Publish { ..publish(1, 2, "a", "ending") };
                broker.publish_as(&mut other, &ends, &[Property::MessageExpiryInterval(3600)]);
            }
            broker.gateway.set_clock(hours * 3_600_000);
            broker.gateway.restart();
            let (mut kept, heard) = broker.resume(version, "kept", &How::kept());
            let all: &[&str] = if version == V5 && hours < 0 { &["endless", "ending"] } else { &["endless"] };
            assert_eq!(broker.take_all(&mut kept, heard), all);
            let mut other = broker.fresh(version, "other");
            broker.publish(&mut other, 1, 3, "a", "more");
            assert!(broker.heard(&mut kept).join(" ").contains("more"));
        });
    }
}

/// A disk that is full stops what has to last, and nothing else.
#[test]
fn what_cannot_be_kept_is_refused_and_the_rest_goes_on() {
    each(|mut broker, version| {
        let mut other = broker.fresh(version, "other");
        let mut kept = broker.connect(version, "kept", &How::kept());
        let mut clean = broker.fresh(version, "clean");
        broker.subscribe(&mut kept, "a", 1);
        broker.subscribe(&mut clean, "#", 1);
        for shard in &mut broker.gateway.shards {
            shard.handle_store(
                StoreEvent::Unavailable("the disk is full".into()),
                bugle_core::model::Instant::from_millis(1000),
            );
        }
        let heard = broker.publish(&mut other, 1, 1, "a", "one");
        if version == V5 {
            assert_eq!(heard.len(), 1);
            assert!(heard[0].starts_with("PUBACK 1 97"), "{heard:?}");
        } else {
            assert!(
                heard.is_empty() && !broker.gateway.is_open(other.who),
                "closed, and never acknowledged: {heard:?}"
            );
            other = broker.fresh(version, "other");
        }
        assert_eq!(broker.heard(&mut clean).len(), 1, "whoever doesn't need the disk got it");
        assert_eq!(broker.publish(&mut other, 0, 0, "a", "zero"), [""; 0]);
        assert_eq!(broker.heard(&mut kept).last().unwrap(), "PUBLISH q0 a zero");
        assert_eq!(broker.publish(&mut other, 1, 2, "b", "nobody keeps it"), ["PUBACK 2 00"]);
        for shard in &mut broker.gateway.shards {
            shard.handle_store(StoreEvent::Available, bugle_core::model::Instant::from_millis(1000));
        }
        assert_eq!(broker.publish(&mut other, 1, 3, "a", "three"), ["PUBACK 3 00"]);
    });
}
