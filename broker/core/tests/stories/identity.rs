//! Who is who, who is a member, and who gets its own (S1, S2, S5).

use bugle_core::hub::owner;
use bugle_core::model::Reason;

use crate::gateway::{Kind, Options, Outcome, SendSpec, Will};
use crate::stage::{Run, Stage};

pub fn s1_takeover(run: Run) {
    let mut stage = Stage::open(run);
    let watcher = stage.member("watcher");
    let will = Some(Will::Send(SendSpec::new("g/g", "will")));
    let older = stage.gateway.connect(run.from, "twin", Options { will, ..stage.options() });
    assert_eq!(stage.gateway.join(older, "g"), Outcome::Accepted);
    let newer = stage.gateway.connect(run.to, "twin", stage.options());
    // MQTT 3.1.1 has no way to say why.
    let why = if run.from == Kind::Mqtt4 { "" } else { "TAKEN_OVER" };
    assert_eq!((stage.gateway.end(older), stage.gateway.is_open(older)), (Some(why), false));
    assert_eq!(stage.gateway.refused(Reason::TakenOver), 1);
    assert_eq!(stage.gateway.texts(watcher), ["will"]);

    let app = stage.app();
    assert_eq!(stage.receipt(app, "c/twin?receipt=each", "one"), "twin=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?only=twin&receipt=each", "all"), "twin=NOT_MEMBER");
    assert_eq!(stage.gateway.texts(newer), ["one"]);
    assert_eq!(stage.gateway.texts(older), [""; 0]);
}

pub fn s1_plain_client(run: Run) {
    if !run.from.is_mqtt() {
        let refused = Stage::open(run).gateway.try_connect(run.from, "an app", Options::default());
        return assert_eq!(refused, Err("BAD_NAME".into()));
    }
    let mut stage = Stage::open(run);
    let r1 = stage.member("r1");
    let plain = stage.gateway.try_connect(run.from, "an app", stage.options()).unwrap();
    // It can't have notices, so only version 5 can tell it.
    let outcome = stage.gateway.send(plain, &SendSpec::new("g/g", "no"));
    let told = if run.from == Kind::Mqtt5 { "NOT_AUTHORIZED" } else { "ACCEPTED" };
    assert_eq!(outcome.name(), told);
    assert!(matches!(stage.gateway.join(plain, "g"), Outcome::Refused(..)));
    assert_eq!(stage.gateway.subscribe(r1, "a/b", 1), Outcome::Accepted);
    assert_eq!(stage.gateway.publish(plain, "a/b", b"plain", false), Outcome::Accepted);
    assert_eq!(stage.gateway.texts(r1), ["plain"]);
    let app = stage.app();
    stage.refused(app, "c/an app", "BAD_NAME");
}

pub fn s2_leaving(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2, r3] = ["r1", "r2", "r3"].map(|id| stage.member(id));
    assert_eq!(stage.gateway.leave(r1, "g"), Outcome::Accepted);
    assert_eq!(stage.gateway.leave(r1, "g"), Outcome::Accepted, "leaving twice is no error");
    stage.gateway.goodbye(r2);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r3=DELIVERED");
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted, "so is joining twice");
    stage.gateway.lose(r3);
    let line = "g/g?only=r1,r2,r3&receipt=each";
    assert_eq!(stage.receipt(app, line, "again"), "r1=DELIVERED r2=NOT_MEMBER r3=NOT_MEMBER");
    assert_eq!(stage.receipt(app, "c/r3?receipt=each", "one"), "r3=OFFLINE");
    assert_eq!([r1, r2, r3].map(|who| stage.gateway.texts(who).concat()), ["again", "", "on"]);
    let groups: u64 = stage.gateway.shards.iter().map(|shard| shard.counters().groups).sum();
    assert_eq!(groups, 1);
}

pub fn s5_no_local(run: Run) {
    if run.from != Kind::Mqtt5 {
        return;
    }
    let mut stage = Stage::open(run);
    let r1 = stage.member("r1");
    let app = stage.gateway.connect(run.from, "app", Options { no_local: true, ..stage.options() });
    assert_eq!(stage.gateway.join(app, "g"), Outcome::Accepted);
    for line in ["g/g?echo=1&receipt=each", "g/g?only=app,r1&receipt=each"] {
        assert_eq!(stage.receipt(app, line, "on"), "r1=DELIVERED", "{line}");
    }
    assert_eq!((stage.gateway.texts(app).len(), stage.gateway.texts(r1).len()), (0, 2));
    assert_eq!(stage.receipt(r1, "g/g?receipt=each", "back"), "app=DELIVERED");
}

/// A send to the own inbox went there although that is subscribed with No Local.
pub fn s5_no_local_own_inbox(run: Run) {
    if run.from != Kind::Mqtt5 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.gateway.connect(run.from, "app", Options { no_local: true, ..stage.options() });
    let r1 = stage.stranger("r1");
    assert_eq!(stage.receipt(app, "c/app?receipt=each", "to myself"), "");
    for _ in 0..2 {
        stage.accepted(app, "c/app?echo=1", "to myself");
    }
    stage.accepted(r1, "c/app", "from another");
    assert_eq!(stage.gateway.texts(app), ["from another"]);
}

/// A gateway with all the clients that it may have still lets one take over its own connection.
pub fn s1_full(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.clients_per_shard = 1);
    let older = stage.app();
    let owned_alike = |id: &String| owner(id, run.shards) == owner("app", run.shards);
    let another = (0..).map(|n| format!("r{n}")).find(owned_alike).unwrap();
    let options = stage.options();
    assert!(stage.gateway.try_connect(run.to, &another, options).is_err());
    assert_eq!(stage.gateway.refused(Reason::TooMany), 1);
    assert!(stage.gateway.is_open(older));
    let options = stage.options();
    assert!(stage.gateway.try_connect(run.to, "app", options).is_ok());
    assert!(!stage.gateway.is_open(older));
}
