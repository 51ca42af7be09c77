//! Shared subscriptions [section 4.8.2], in both versions: 3.1.1 clients may have them too.

use std::collections::BTreeMap;

use bugle_core::mqtt::{Ack, Packet, ReasonCode};

use crate::peer::{Broker, How, Peer, V5, VERSIONS, Version, each, each_with};

fn workers(broker: &mut Broker, version: Version, names: &[&str], how: &How) -> Vec<Peer> {
    let mut workers = Vec::new();
    for name in names {
        let mut worker = broker.connect(version, name, how);
        assert_eq!(broker.subscribe(&mut worker, "$share/crew/jobs/#", 1), ["SUBACK 900 01"]);
        workers.push(worker);
    }
    workers
}

/// How many each of them got, all acknowledged, and that each payload came once.
fn counts(broker: &mut Broker, workers: &mut [Peer]) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let counts = workers.iter_mut().map(|worker| {
        let heard = broker.heard(worker);
        let payloads = broker.take_all(worker, heard);
        payloads.iter().for_each(|payload| *seen.entry(payload.clone()).or_default() += 1);
        payloads.len()
    });
    let counts = counts.collect();
    assert!(seen.values().all(|&times| times == 1), "{seen:?}");
    counts
}

/// Section 4.8.2: each to one of them, evenly, whatever shards they are on; to ordinary subscribers all.
#[test]
fn one_member_gets_each_message_and_all_get_their_turn() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut all = broker.fresh(version, "all");
        broker.subscribe(&mut all, "jobs/#", 0);
        let mut crew = workers(&mut broker, version, &["w1", "w2", "w3", "w4"], &How::default());
        for number in 0..400 {
            broker.publish(&mut boss, 1, 1, "jobs/x", &number.to_string());
        }
        let counts = counts(&mut broker, &mut crew);
        assert_eq!(counts.iter().sum::<usize>(), 400);
        assert!(counts.iter().all(|&count| (60..=140).contains(&count)), "{counts:?}");
        assert_eq!(broker.heard(&mut all).len(), 400);
    });
}

/// Shares of another name, or with another filter, are others.
#[test]
fn every_share_gets_each_message() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut peers: Vec<Peer> = Vec::new();
        for (id, filter) in
            [("a", "$share/one/jobs/+"), ("b", "$share/two/jobs/+"), ("c", "$share/one/jobs/x")]
        {
            let mut peer = broker.fresh(version, id);
            broker.subscribe(&mut peer, filter, 0);
            peers.push(peer);
        }
        broker.publish(&mut boss, 1, 1, "jobs/x", "go");
        for peer in &mut peers {
            assert_eq!(broker.heard(peer), ["PUBLISH q0 jobs/x go"]);
        }
        broker.publish(&mut boss, 1, 1, "jobs/y", "go");
        let heard: Vec<usize> = peers.iter_mut().map(|peer| broker.heard(peer).len()).collect();
        assert_eq!(heard, [1, 1, 0]);
    });
}

/// [MQTT-4.8.2-3]: at the QoS of the member.
#[test]
fn each_member_has_a_qos_of_its_own() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut peer = broker.fresh(version, "peer");
        broker.subscribe(&mut peer, "$share/crew/jobs", 0);
        broker.publish(&mut boss, 1, 1, "jobs", "go");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q0 jobs go"]);
        broker.subscribe(&mut peer, "$share/crew/jobs", 1);
        broker.publish(&mut boss, 1, 1, "jobs", "go");
        assert_eq!(broker.heard(&mut peer), ["PUBLISH q1 #1 jobs go"]);
    });
}

/// What a member hasn't acknowledged when its session ends goes to another; nothing is lost or given to two that
/// acknowledge it.
#[test]
fn a_member_that_dies_hands_on_what_it_had_not_acknowledged() {
    for how in [How::default(), How::kept()] {
        each_with(
            &VERSIONS,
            |limits| limits.mailbox_messages = 10_000,
            |mut broker, version| {
                let mut boss = broker.fresh(version, "boss");
                let mut crew = workers(&mut broker, version, &["w1", "w2", "w3"], &how);
                let dead = crew.remove(0);
                // More than its window holds: some wait in the mailbox.
                for number in 0..3000 {
                    broker.publish(&mut boss, 1, 1, "jobs/x", &number.to_string());
                }
                let before = counts(&mut broker, &mut crew);
                broker.lose(dead);
                let after = counts(&mut broker, &mut crew);
                assert_eq!(before.iter().chain(&after).sum::<usize>(), 3000, "{before:?} {after:?}");
                assert!(after.iter().sum::<usize>() > 800);
            },
        );
    }
}

/// The same for one that leaves: what was written stays with it, since it is still there to acknowledge.
#[test]
fn a_member_that_leaves_hands_on_what_waits_for_it() {
    each_with(
        &[V5],
        |limits| limits.mailbox_messages = 10_000,
        |mut broker, version| {
            let mut boss = broker.fresh(version, "boss");
            let how = How::default().with(bugle_core::mqtt::Property::ReceiveMaximum(5));
            let mut crew = workers(&mut broker, version, &["w1", "w2"], &how);
            let mut other = crew.pop().unwrap();
            for number in 0..20 {
                broker.publish(&mut boss, 1, 1, "jobs/x", &number.to_string());
            }
            let mut left = crew.pop().unwrap();
            let mut had = broker.heard(&mut left);
            had.extend(broker.unsubscribe(&mut left, "$share/crew/jobs/#"));
            assert_eq!(had.pop().unwrap(), "UNSUBACK 901 00");
            let had = broker.take_all(&mut left, had);
            let heard = broker.heard(&mut other);
            let got = broker.take_all(&mut other, heard);
            assert_eq!((had.len(), got.len()), (5, 15));
        },
    );
}

/// [MQTT-4.8.2-4] [MQTT-4.8.2-5]: QoS 2 that is under way isn't given to another, who might do it twice.
#[test]
fn qos_2_under_way_stays_with_its_member() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut one = broker.connect(version, "one", &How::kept());
        broker.subscribe(&mut one, "$share/crew/jobs", 2);
        broker.publish(&mut boss, 2, 1, "jobs", "once");
        assert_eq!(broker.heard(&mut one), ["PUBLISH q2 #1 jobs once"]);
        let mut two = broker.fresh(version, "two");
        broker.subscribe(&mut two, "$share/crew/jobs", 2);
        broker.lose(one);
        assert_eq!(broker.heard(&mut two), [""; 0]);
        let (one, heard) = broker.resume(version, "one", &How::kept());
        assert_eq!(heard, ["PUBLISH q2 #1 dup jobs once"]);
        broker.lose(one);
        broker.fresh(version, "one");
        assert_eq!(broker.heard(&mut two), [""; 0], "nor when its session has ended");
    });
}

/// [MQTT-4.8.2-6]: refused by its member, it is done with.
#[test]
fn a_refused_message_goes_to_nobody_else() {
    each(&[V5], |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut one = broker.fresh(version, "one");
        broker.subscribe(&mut one, "$share/crew/jobs", 1);
        broker.publish(&mut boss, 1, 1, "jobs", "no");
        assert_eq!(broker.heard(&mut one).len(), 1);
        let mut two = broker.fresh(version, "two");
        broker.subscribe(&mut two, "$share/crew/jobs", 1);
        let refusal = Ack::new(1.try_into().unwrap(), ReasonCode::NotAuthorized);
        broker.tell(&mut one, &Packet::PubAck(refusal));
        broker.lose(one);
        assert_eq!(broker.heard(&mut two), [""; 0]);
    });
}

/// Where all are away the message waits for one that will be back; where one is there it gets all.
#[test]
fn members_that_are_away_are_passed_over_while_another_is_there() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        let mut crew = workers(&mut broker, version, &["w1", "w2", "w3"], &How::kept());
        let mut there = crew.pop().unwrap();
        for away in crew {
            broker.lose(away);
        }
        for number in 0..9 {
            broker.publish(&mut boss, 1, 1, "jobs/x", &number.to_string());
        }
        let heard = broker.heard(&mut there);
        assert_eq!(broker.take_all(&mut there, heard).len(), 9);
        broker.lose(there);
        for number in 0..9 {
            broker.publish(&mut boss, 1, 1, "jobs/x", &number.to_string());
        }
        let mut back = 0;
        for id in ["w1", "w2", "w3"] {
            let (mut worker, heard) = broker.resume(version, id, &How::kept());
            back += broker.take_all(&mut worker, heard).len();
        }
        assert_eq!(back, 9);
    });
}

/// Section 4.8.2: no retained messages; [MQTT-3.8.3-4] no No Local.
#[test]
fn what_a_shared_subscription_is_not() {
    each(&VERSIONS, |mut broker, version| {
        let mut boss = broker.fresh(version, "boss");
        broker.retain(&mut boss, "jobs/x", "old");
        let mut peer = broker.fresh(version, "peer");
        assert_eq!(broker.subscribe(&mut peer, "$share/crew/jobs/#", 1), ["SUBACK 900 01"]);
        let refused = if version == V5 { "SUBACK 900 87 {reason}" } else { "SUBACK 900 80" };
        assert_eq!(broker.subscribe(&mut peer, "$share/crew/sig/g/floor3", 1), [refused], "T2");
        if version == V5 {
            // The codec of the tests wouldn't write it.
            broker.gateway.write(peer.who, b"\x82\x13\x03\x84\x00\x00\x0d$share/crew/x\x05");
            assert_eq!(broker.heard(&mut peer), ["DISCONNECT 82 {reason}"]);
        }
    });
}
