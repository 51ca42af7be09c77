//! What MQTT alone can ask for, and plain topics (T1, T2, T6, T7).

use crate::gateway::{Outcome, rules};
use crate::stage::{Run, Stage};

pub fn t1_retain(run: Run) {
    if !run.from.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    let outcome = stage.gateway.publish(app, "sig/g/g", b"kept", true);
    assert_eq!(outcome.name(), "RETAIN_REFUSED");
    assert_eq!(stage.gateway.publish(app, "sig/g/g?colour=red", b"", false).name(), "BAD_OPTION");
    assert_eq!(stage.gateway.publish(app, "sig/x/g", b"", false).name(), "BAD_TOPIC");
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

pub fn t2_overlap(run: Run) {
    if !run.to.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for filter in ["sig/g/g", "sig/g/g/+", "sig/g/g/#", "sig/c/r1", "sig/c/r1/+"] {
        assert_eq!(stage.gateway.subscribe(r1, filter, 1), Outcome::Accepted);
    }
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "one"), "r1=DELIVERED");
    assert_eq!(stage.gateway.texts(r1), ["all", "one"]);
    for filter in ["sig/g/g", "sig/g/g/+"] {
        assert_eq!(stage.gateway.unsubscribe(r1, filter), Outcome::Accepted);
    }
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "still in"), "r1=DELIVERED");
    stage.gateway.unsubscribe(r1, "sig/g/g/#");
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "out"), "");
}

pub fn t2_not_yours(run: Run) {
    let mut stage = Stage::open(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    for filter in ["sig/c/r1", "sig/c/r1/+", "sig/r/r1", "$share/s/sig/g/g", "sig/x/y", "sig/g/a b"] {
        assert!(matches!(stage.gateway.subscribe(app, filter, 1), Outcome::Refused(..)), "{filter}");
    }
    assert_eq!(stage.receipt(r1, "c/app?receipt=each", "mine"), "app=DELIVERED");
}

/// Only an MQTT client can subscribe over the prefix.
pub fn t6_observers(run: Run) {
    if !run.to.is_mqtt() {
        return;
    }
    let json = r#"{"rule": [{"effect": "allow", "actions": ["observe"], "clients": ["seer*"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let r1 = stage.member("r1");
    let filters = ["sig/#", "#", "sig/g/+", "sig/+/+/+", "+/c/#"];
    let seers = filters.map(|filter| {
        ["seer", "blind"].map(|who| {
            let id = format!("{who}-{}", filter.replace(['#', '+', '/'], "_"));
            let who = stage.stranger(&id);
            assert_eq!(stage.gateway.subscribe(who, filter, 1), Outcome::Accepted);
            who
        })
    });
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "r1=DELIVERED");
    assert_eq!(
        stage.receipt(app, "g/g?only=r1,none-0&receipt=each", "only"),
        "none-0=NOT_MEMBER r1=DELIVERED"
    );
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "one"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "c/none-0?receipt=each", "nobody"), "none-0=OFFLINE");
    assert_eq!(stage.receipt(app, "g/empty?receipt=each", "empty"), "");
    assert_eq!(stage.gateway.texts(r1), ["all", "only", "one"]);
    for (filter, [seer, blind]) in filters.into_iter().zip(seers) {
        let wanted: &[&str] = match filter {
            "sig/#" | "#" | "sig/+/+/+" => &["all", "only", "one", "nobody", "empty"],
            "sig/g/+" => &["all", "only", "empty"],
            _ => &["one", "nobody"],
        };
        assert_eq!(stage.gateway.texts(seer), wanted, "{filter}");
        assert_eq!(stage.gateway.texts(blind), [""; 0], "{filter}");
    }
}

pub fn t6_observing_member(run: Run) {
    if !run.to.is_mqtt() {
        return;
    }
    let mut stage = Stage::new(run, |setup| {
        setup.rules = rules(r#"{"rule": [{"effect": "allow", "actions": ["observe"]}]}"#);
    });
    let app = stage.app();
    let r1 = stage.member("r1");
    assert_eq!(stage.gateway.subscribe(r1, "sig/#", 1), Outcome::Accepted);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "one"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?except=r1&receipt=each", "not for r1"), "");
    assert_eq!(stage.gateway.texts(r1), ["all", "one"]);
}

pub fn t7_plain(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2, r3] = ["r1", "r2", "r3"].map(|id| stage.stranger(id));
    assert_eq!(stage.gateway.subscribe(r1, "home/+/state", 1), Outcome::Accepted);
    assert_eq!(stage.gateway.subscribe(r1, "home/#", 0), Outcome::Accepted);
    assert_eq!(stage.gateway.subscribe(r2, "home/lamp/other", 1), Outcome::Accepted);
    assert_eq!(stage.gateway.subscribe(r3, "#", 1), Outcome::Accepted);
    assert_eq!(stage.gateway.publish(app, "home/lamp/state", b"on", false), Outcome::Accepted);
    for who in [r1, r3] {
        let [got] = &stage.gateway.received(who)[..] else { panic!("once, however many filters match") };
        assert_eq!((got.topic.as_deref(), got.text().as_str()), (Some("home/lamp/state"), "on"));
    }
    assert_eq!(stage.gateway.texts(r2), [""; 0]);
    assert_eq!(stage.gateway.unsubscribe(r1, "home/#"), Outcome::Accepted);
    assert_eq!(stage.gateway.publish(app, "home/lamp/state", b"off", false), Outcome::Accepted);
    assert_eq!(stage.gateway.publish(app, "home/lamp/other", b"dim", false), Outcome::Accepted);
    assert_eq!(stage.gateway.texts(r1), ["off"]);
    assert_eq!(stage.gateway.texts(r2), ["dim"]);
    // Signals are no plain topics.
    stage.accepted(app, "g/home", "signal");
    assert_eq!(stage.gateway.texts(r3), ["off", "dim"]);
}
