//! Users and their client ids: who may come as whom, and that nobody takes over what is another's (S1).

use bugle_core::hub::{Judgement, SecretEntry};
use bugle_core::model::Principal;
use bugle_core::mqtt::{Connect, Packet, Property, PropertyWriter, Version, encode};
use bugle_core::rules::Pattern;

use crate::gateway::{Gateway, Setup, Who};
use crate::peer::{Broker, Peer, V5, V311};

/// Anna and Bob, whose client ids are `app-*`, and Anna's also what the gateway chooses.
fn each(story: impl Fn(Broker, Version)) {
    let user = |name: &str, patterns: &[&str]| SecretEntry {
        id: name.to_owned(),
        secret: name.as_bytes().into(),
        clients: patterns.iter().map(|pattern| Pattern::new(pattern)).collect(),
        roles: Vec::new(),
    };
    for version in [V311, V5] {
        for (shards, seed) in [(1, None), (3, Some(5))] {
            let users = vec![user("anna", &["app-*", "auto-*"]), user("bob", &["app-*"])];
            story(Broker { gateway: Gateway::new(&Setup { users, ..Setup::new(shards, seed) }) }, version);
        }
    }
}

#[track_caller]
fn told((_, heard): (Who, String), expected: &str) {
    assert!(heard.starts_with(expected), "{heard} instead of {expected}");
}

/// Connects as a user, with a session that is kept.
fn come(broker: &mut Broker, version: Version, user: &str, id: &str) -> (Who, String) {
    let mut bytes = Vec::new();
    let mut writer = PropertyWriter::new();
    if version == V5 {
        writer.push(Property::SessionExpiryInterval(1000));
    }
    let connect = Connect {
        version,
        client_id: id,
        clean_start: id.is_empty(),
        keep_alive: 0,
        username: Some(user),
        password: Some(user.as_bytes()),
        will: None,
        properties: writer.finish().unwrap(),
    };
    encode(&Packet::Connect(connect), version, &mut bytes).unwrap();
    let who = broker.gateway.raw(&bytes);
    let heard = broker.heard(&mut Peer { who, version, read: 0 });
    (who, heard.concat())
}

#[test]
fn a_user_may_come_as_the_clients_that_are_his() {
    each(|mut broker, version| {
        let denied = "CONNACK 87";
        assert!(come(&mut broker, version, "anna", "app-1").1.starts_with("CONNACK 00"));
        told(come(&mut broker, version, "anna", "anna"), denied);
        assert!(come(&mut broker, version, "anna", "").1.starts_with("CONNACK 00"));
        told(come(&mut broker, version, "bob", ""), denied);
    });
}

#[test]
fn a_client_id_in_use_was_taken_over_by_another_user() {
    each(|mut broker, version| {
        let denied = "CONNACK 87";
        let (anna, heard) = come(&mut broker, version, "anna", "app-1");
        assert!(heard.starts_with("CONNACK 00"), "{heard}");
        told(come(&mut broker, version, "bob", "app-1"), denied);
        assert!(broker.gateway.is_open(anna));
        broker.gateway.lose(anna);
        told(come(&mut broker, version, "bob", "app-1"), denied);
        let (_, heard) = come(&mut broker, version, "anna", "app-1");
        assert!(heard.starts_with("CONNACK 00"), "{heard}");
    });
}

/// A gateway whose process knows the passwords, but for `lamp`'s.
fn each_asking(story: impl Fn(Broker, Version)) {
    for version in [V311, V5] {
        for (shards, seed) in [(1, None), (3, Some(5))] {
            let secrets = vec![("lamp".to_owned(), b"lamp".to_vec())];
            let setup = Setup { asks: true, secrets, ..Setup::new(shards, seed) };
            story(Broker { gateway: Gateway::new(&setup) }, version);
        }
    }
}

fn good(user: &str) -> Option<Judgement> {
    Some(Judgement::Good(Principal::user(user).into()))
}

#[test]
fn what_a_client_says_before_the_verdict_waits_for_it() {
    each_asking(|mut broker, version| {
        let (who, heard) = come(&mut broker, version, "carl", "app-1");
        assert_eq!(heard, "", "nothing before the verdict");
        let mut subscribe = vec![0x82, if version == V5 { 7 } else { 6 }, 0, 1];
        subscribe.extend(if version == V5 { &[0][..] } else { &[] });
        subscribe.extend([0, 1, b'a', 0]);
        broker.gateway.write(who, &subscribe);
        let asked = broker.gateway.judge(|request| {
            assert_eq!(
                (request.identity.as_str(), &*request.user, &*request.password),
                ("app-1", "carl", &b"carl"[..])
            );
            assert!(!request.is_assigned && !format!("{request:?}").contains("password"));
            good("carl")
        });
        assert_eq!(asked, 1);
        let heard = broker.heard(&mut Peer { who, version, read: 0 });
        assert!(heard[0].starts_with("CONNACK 00") && heard[1].starts_with("SUBACK 1"), "{heard:?}");
    });
}

#[test]
fn a_verdict_lets_in_or_refuses_and_none_in_time_refuses() {
    each_asking(|mut broker, version| {
        // 3.1.1 has no busy, but unavailable.
        let busy = if version == V5 { "CONNACK 89" } else { "CONNACK 88" };
        for (user, id, judgement, expected) in [
            ("carl", "app-1", Some(Judgement::Wrong), "CONNACK 86"),
            ("carl", "app-1", Some(Judgement::NotThisClient), "CONNACK 87"),
            ("carl", "app-1", Some(Judgement::Unavailable), busy),
            ("carl", "lamp", good("carl"), "CONNACK 87"),
            ("carl", "", good("carl"), "CONNACK 00"),
            ("carl", "app-1", None, busy),
        ] {
            let who = come(&mut broker, version, user, id).0;
            broker.gateway.judge(|_| judgement.clone());
            if judgement.is_none() {
                broker.gateway.advance(9_999);
                assert!(broker.gateway.is_open(who));
                broker.gateway.advance(1);
            }
            told((who, broker.heard(&mut Peer { who, version, read: 0 }).concat()), expected);
        }
    });
}

#[test]
fn a_verdict_for_who_has_gone_lets_nobody_in() {
    each_asking(|mut broker, version| {
        let (who, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.lose(who);
        assert_eq!(broker.gateway.judge(|_| good("carl")), 0);
        let (who, _) = come(&mut broker, version, "carl", "app-2");
        let key = std::cell::Cell::new(None);
        broker.gateway.judge(|request| {
            key.set(Some(request.key));
            None
        });
        broker.gateway.lose(who);
        for shard in &mut broker.gateway.shards {
            let judgement = Judgement::Good(Principal::user("carl").into());
            shard.handle_authenticated(
                key.get().unwrap(),
                judgement,
                bugle_core::model::Instant::from_millis(2000),
            );
        }
        let clients: u64 = broker.gateway.shards.iter().map(|shard| shard.counters().clients).sum();
        assert_eq!(clients, 0);
        // A secret that is known here needs nobody else.
        told(come(&mut broker, version, "lamp", "lamp"), "CONNACK 00");
    });
}

#[test]
fn what_a_client_came_in_by_ends_with_its_time() {
    each_asking(|mut broker, version| {
        let good_for = |user: &str, millis| Some(Judgement::GoodFor(Principal::user(user).into(), millis));
        let (who, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.judge(|_| good_for("carl", 5_000));
        let mut peer = Peer { who, version, read: 0 };
        assert!(broker.heard(&mut peer)[0].starts_with("CONNACK 00"));
        broker.gateway.advance(4_999);
        assert!(broker.gateway.is_open(who));
        broker.gateway.advance(1);
        let heard = broker.heard(&mut peer);
        broker.assert_ended(&peer, &heard, "87");
        // It may have come again with a new one.
        let (older, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.judge(|_| good_for("carl", 5_000));
        let (newer, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.judge(|_| good_for("carl", 60_000));
        broker.gateway.advance(6_000);
        assert!(!broker.gateway.is_open(older) && broker.gateway.is_open(newer));
    });
}

#[test]
fn who_came_back_with_fewer_roles_kept_what_they_had_allowed() {
    for version in [V311, V5] {
        let json = r#"{"rule": [
            {"effect": "deny", "actions": ["subscribe"], "topics": ["secret/#"], "users": ["carl"]},
            {"effect": "allow", "actions": ["connect", "publish"]},
            {"effect": "allow", "actions": ["subscribe"], "roles": ["staff"], "topics": ["floor/#"]},
            {"effect": "allow", "actions": ["subscribe"], "topics": ["open/#"]}], "default": "deny"}"#;
        let rules = crate::gateway::rules(json);
        let setup = Setup { asks: true, rules, ..Setup::new(2, None) };
        let mut broker = Broker { gateway: Gateway::new(&setup) };
        let staff = Principal { roles: vec!["staff".into()], ..Principal::user("carl") };
        let (who, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.judge(|_| Some(Judgement::Good(staff.clone().into())));
        let mut peer = Peer { who, version, read: 0 };
        broker.heard(&mut peer);
        for filter in ["floor/#", "open/#"] {
            let heard = broker.subscribe(&mut peer, filter, 0);
            assert!(heard[0].ends_with("00"), "{heard:?}");
        }
        broker.gateway.lose(who);
        let (who, _) = come(&mut broker, version, "carl", "app-1");
        broker.gateway.judge(|_| good("carl"));
        let mut peer = Peer { who, version, read: 0 };
        let heard = broker.heard(&mut peer);
        assert!(heard[0].starts_with("CONNACK 00 present"), "{heard:?}");
        let published =
            ["floor/a", "open/a"].map(|topic| broker.publish(&mut peer, 0, 0, topic, "x").concat());
        assert!(!published[0].contains("PUBLISH") && published[1].contains("PUBLISH"), "{published:?}");
    }
}
