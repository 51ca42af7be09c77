//! Users and their client ids: who may come as whom, and that nobody takes over what is another's (S1).

use bugle_core::hub::SecretEntry;
use bugle_core::mqtt::{Connect, Packet, Property, PropertyWriter, Version, encode};
use bugle_core::rules::Pattern;

use crate::gateway::{Gateway, Setup, Who};
use crate::peer::{Broker, Peer, V5, V311};

/// Anna and Bob, whose client ids are `app-*`, and Anna's also what the gateway chooses.
fn each(story: impl Fn(Broker, Version)) {
    let user = |name: &str, patterns: &[&str]| SecretEntry {
        id: name.to_owned(),
        secret: name.as_bytes().to_vec(),
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
