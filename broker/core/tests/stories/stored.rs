//! Signals that are kept for recipients who aren't there (S10), and the receipts that end them (S8).

use bugle_core::store::RecordKind;

use crate::gateway::{Kind, Options, Outcome, Receipt, SendSpec, Who, rules};
use crate::stage::{Run, Stage, numbers};

/// `r1`, `r2` and `r3` are members of `g` by the operator's file.
const PROVISIONED: &str = r#"{"group": [{"name": "g", "members": ["r1", "r2", "r3"]}]}"#;

/// A gateway with a store.
fn stage(run: Run) -> Stage {
    Stage::new(run, |setup| {
        setup.durable = true;
        setup.rules = rules(PROVISIONED);
    })
}

/// MQTT clients aren't in a group that they haven't subscribed to.
fn member(stage: &mut Stage, id: &str) -> Who {
    if stage.run.to.is_mqtt() { stage.member(id) } else { stage.stranger(id) }
}

#[track_caller]
fn receipt(stage: &mut Stage, who: Who, interim: bool) -> String {
    let receipt: Receipt = stage.gateway.receipt(who);
    assert_eq!(receipt.interim, interim, "{receipt:?}");
    receipt.line()
}

/// To take it and keep nothing would be a promise broken.
pub fn s10_unsupported(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.durable = false);
    let app = stage.app();
    stage.refused(app, "c/r1?store=1&ttl=1000", "UNSUPPORTED");
}

pub fn s10_queued(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let here = member(&mut stage, "r1");
    stage.accepted(app, "g/g?store=1&receipt=each&ttl=60000", "on");
    assert_eq!(receipt(&mut stage, app, true), "r1=DELIVERED r2=QUEUED r3=QUEUED");
    assert_eq!(stage.gateway.texts(here), ["on"]);
    assert_eq!(stage.gateway.store.queued(), 2);
    let r2 = member(&mut stage, "r2");
    assert_eq!(stage.gateway.texts(r2), ["on"]);
    assert_eq!(stage.gateway.receipts(app), [], "one is still queued");
    let r3 = member(&mut stage, "r3");
    let received = stage.gateway.received(r3);
    assert_eq!(
        (received.len(), received[0].group.as_deref(), received[0].text()),
        (1, Some("g"), "on".to_owned())
    );
    assert_eq!(receipt(&mut stage, app, false), "r1=DELIVERED r2=DELIVERED r3=DELIVERED");
    assert_eq!(stage.gateway.store.queued(), 0);
    assert_eq!(stage.gateway.store.records(RecordKind::Receipt), 0);
    stage.gateway.advance(120_000);
    assert_eq!(stage.gateway.receipts(app), []);
}

pub fn s10_one(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000", "one");
    assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED");
    stage.accepted(app, "c/stranger?store=1&receipt=each&ttl=60000", "nobody keeps it");
    assert_eq!(receipt(&mut stage, app, false), "stranger=OFFLINE");
    stage.accepted(app, "c/r1?receipt=each", "without store");
    assert_eq!(receipt(&mut stage, app, false), "r1=OFFLINE");
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), ["one"]);
    assert_eq!(receipt(&mut stage, app, false), "r1=DELIVERED");
}

pub fn s10_restart(run: Run) {
    let mut stage = stage(run);
    let options = Options { session_expiry: 3600, ..stage.options() };
    let app = stage.gateway.connect(run.from, "app", options.clone());
    for payload in ["a", "b"] {
        stage.accepted(app, "g/g?store=1&only=r1,r2&receipt=each&ttl=60000", payload);
        assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED r2=QUEUED");
    }
    stage.gateway.restart();
    let r1 = member(&mut stage, "r1");
    assert_eq!(stage.gateway.texts(r1), ["a", "b"]);
    let app = stage.gateway.connect(run.from, "app", options);
    let r2 = member(&mut stage, "r2");
    assert_eq!(stage.gateway.texts(r2), ["a", "b"]);
    let lines: Vec<_> = stage.gateway.receipts(app).iter().map(Receipt::line).collect();
    // A device numbers its sends anew, so that it couldn't tell which is meant.
    let ended: &[&str] = match run.from.is_mqtt() {
        true => &["r1=DELIVERED r2=DELIVERED", "r1=DELIVERED r2=DELIVERED"],
        false => &[],
    };
    assert_eq!(lines, ended);
    assert_eq!(stage.gateway.store.queued(), 0);
    stage.gateway.advance(120_000);
    assert_eq!(stage.gateway.store.records(RecordKind::Receipt), 0);
}

pub fn s10_ttl(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=5000", "short");
    assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED");
    stage.accepted(app, "c/r1?store=1&receipt=each", "the configured one");
    assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED");
    stage.gateway.advance(4_999);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    assert_eq!(receipt(&mut stage, app, false), "r1=EXPIRED");
    assert_eq!(stage.gateway.store.queued(), 1);
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), ["the configured one"]);
    assert_eq!(receipt(&mut stage, app, false), "r1=DELIVERED");
}

pub fn s10_bounds(run: Run) {
    let mut stage = Stage::new(run, |setup| {
        setup.durable = true;
        setup.rules = rules(PROVISIONED);
        setup.limits.stored_per_client = 3;
    });
    let app = stage.app();
    for payload in numbers(0..3) {
        stage.accepted(app, "c/r1?store=1&ttl=60000", &payload);
    }
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000", "full");
    assert_eq!(receipt(&mut stage, app, false), "r1=OVERFLOW");
    stage.accepted(app, "c/r2?store=1&receipt=each&ttl=60000", "another has room");
    assert_eq!(receipt(&mut stage, app, true), "r2=QUEUED");
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), numbers(0..3));
    stage.gateway.lose(r1);
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000", "room again");
    assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED");
}

/// A role's bound holds for what is stored for its clients, known ones and others.
pub fn s10_role_bounds(run: Run) {
    let json = PROVISIONED.replacen(
        '{',
        r#"{"role": [{"name": "small", "clients": ["r1"], "limits": {"stored_messages": 2}}],"#,
        1,
    );
    let mut stage = Stage::new(run, |setup| (setup.durable, setup.rules) = (true, rules(&json)));
    let app = stage.app();
    for known in [false, true] {
        for payload in numbers(0..2) {
            stage.accepted(app, "c/r1?store=1&ttl=60000", &payload);
        }
        stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000", "full");
        assert_eq!(receipt(&mut stage, app, false), "r1=OVERFLOW", "known: {known}");
        for _ in 0..3 {
            stage.accepted(app, "c/r2?store=1&ttl=60000", "another has room");
        }
        let r1 = stage.stranger("r1");
        assert_eq!(stage.gateway.texts(r1), numbers(0..2));
        stage.gateway.lose(r1);
    }
}

pub fn s10_rules_again(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    for line in ["g/g?store=1&only=r1,r2&receipt=each&ttl=60000", "c/r1?store=1&receipt=each&ttl=60000"] {
        stage.accepted(app, line, "on");
        assert!(receipt(&mut stage, app, true).contains("r1=QUEUED"));
    }
    let json = r#"{"group": [{"name": "g", "members": ["r2"]}],
        "rule": [{"effect": "deny", "actions": ["receive"], "clients": ["r1"], "to": ["app"]}]}"#;
    stage.gateway.reload(json);
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
    assert_eq!(receipt(&mut stage, app, false), "r1=DENIED");
    let r2 = member(&mut stage, "r2");
    assert_eq!(stage.gateway.texts(r2), ["on"]);
    assert_eq!(receipt(&mut stage, app, false), "r1=NOT_MEMBER r2=DELIVERED");
}

/// In order, whatever was stored and what wasn't.
pub fn s10_order(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let r1 = member(&mut stage, "r1");
    stage.gateway.stop_reading(r1);
    let mut sent = Vec::new();
    for (at, payload) in numbers(0..60).into_iter().enumerate() {
        let line = ["g/g?store=1&ttl=60000", "c/r1?store=1&ttl=60000", "g/g?only=r1", "c/r1"][at % 4];
        stage.accepted(app, line, &payload);
        sent.push(payload);
    }
    stage.gateway.read_again(r1);
    assert_eq!(stage.gateway.texts(r1), sent);
    stage.gateway.lose(r1);
    for payload in ["1", "2", "3"] {
        stage.accepted(app, "c/r1?store=1&ttl=60000", payload);
    }
    stage.gateway.store_stuck = true;
    let r1 = stage.stranger("r1");
    stage.gateway.pump();
    for (line, payload) in [("c/r1", "4"), ("c/r1?store=1&ttl=60000", "5"), ("c/r1", "6")] {
        stage.gateway.start_send(app, &SendSpec::new(line, payload));
    }
    stage.gateway.pump();
    assert_eq!(stage.gateway.texts(r1), [""; 0], "what was stored comes first");
    stage.gateway.store_stuck = false;
    stage.gateway.pump();
    assert_eq!(stage.gateway.texts(r1), ["1", "2", "3", "4", "5", "6"]);
}

/// What a client had been given, and hadn't acknowledged when its connection was lost, comes again.
pub fn s10_link_lost(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let options = Options { acks: false, ..stage.options() };
    let mute = stage.gateway.connect(run.to, "r1", options);
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000", "on");
    assert_eq!(stage.gateway.texts(mute), ["on"]);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.lose(mute);
    stage.gateway.advance(10_000);
    assert_eq!(receipt(&mut stage, app, true), "r1=QUEUED");
    stage.gateway.advance(120_000 - 10_000 - 65_000);
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), ["on"]);
    assert_eq!(receipt(&mut stage, app, false), "r1=DELIVERED");
}

/// The connection for which a receipt is may be over when it comes; the session hears it then, after a restart too.
pub fn s8_sender_away(run: Run) {
    let mut stage = stage(run);
    let options = Options { session_expiry: 3600, ..stage.options() };
    let app = stage.gateway.connect(run.from, "app", options.clone());
    let mute = stage.gateway.connect(run.to, "r1", Options { acks: false, ..stage.options() });
    stage.accepted(app, "c/r1?store=1&receipt=each&ttl=60000&id=here", "here");
    stage.accepted(app, "c/r2?store=1&receipt=each&ttl=60000&id=queued", "queued");
    assert_eq!(receipt(&mut stage, app, true), "r2=QUEUED");
    assert_eq!(stage.gateway.texts(mute), ["here"]);
    stage.gateway.lose(app);
    stage.gateway.ack_again(mute);
    stage.stranger("r2");
    stage.gateway.restart();
    let app = stage.gateway.connect(run.from, "app", options);
    let mut lines: Vec<_> = stage.gateway.receipts(app).iter().map(Receipt::line).collect();
    lines.sort();
    // A device numbers its sends anew, so that it couldn't tell which is meant.
    let ended: &[&str] = if run.from.is_mqtt() { &["r1=DELIVERED", "r2=DELIVERED"] } else { &[] };
    assert_eq!(lines, ended);
    stage.gateway.advance(120_000);
    assert_eq!(stage.gateway.store.records(RecordKind::Receipt), 0);
}

/// Acknowledged is kept: not before.
pub fn s10_ack_waits(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let here = member(&mut stage, "r1");
    stage.gateway.store_stuck = true;
    let ticket = stage.gateway.start_send(app, &SendSpec::new("g/g?store=1&receipt=each&ttl=60000", "on"));
    stage.gateway.pump();
    assert_eq!(stage.gateway.outcome(app, ticket), None);
    assert_eq!(stage.gateway.receipts(app), []);
    assert_eq!(stage.gateway.texts(here), ["on"], "it doesn't wait for the disk");
    stage.gateway.store_stuck = false;
    stage.gateway.pump();
    assert_eq!(stage.gateway.outcome(app, ticket), Some(Outcome::Accepted));
    assert_eq!(receipt(&mut stage, app, true), "r1=DELIVERED r2=QUEUED r3=QUEUED");
}

/// S12: the same id after a restart is the first send.
pub fn s12_restart(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let line = "c/r1?store=1&receipt=summary&ttl=60000&id=once";
    stage.accepted(app, line, "on");
    assert_eq!(stage.gateway.receipt(app).counts(), "QUEUED 1");
    stage.gateway.restart();
    let app = stage.app();
    stage.accepted(app, line, "on");
    let receipt = stage.gateway.receipt(app);
    assert!(receipt.duplicate, "{receipt:?}");
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.texts(r1), ["on"]);
    stage.gateway.advance(121_000);
    stage.gateway.receipts(app);
    stage.accepted(app, line, "on");
    assert!(!stage.gateway.receipt(app).duplicate);
    assert_eq!(stage.gateway.texts(r1), ["on"]);
}

/// A session that lasts is as good as being provisioned.
pub fn s10_session(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.durable = true);
    if !run.to.is_mqtt() || run.from == Kind::Python {
        return;
    }
    let app = stage.app();
    let options = Options { session_expiry: 3600, ..stage.options() };
    let kept = stage.member_with("kept", options.clone());
    stage.gateway.lose(kept);
    stage.accepted(app, "g/g?store=1&receipt=each&ttl=60000", "group");
    assert_eq!(receipt(&mut stage, app, true), "kept=QUEUED");
    stage.accepted(app, "c/kept?store=1&receipt=each&ttl=60000", "one");
    assert_eq!(receipt(&mut stage, app, true), "kept=QUEUED");
    let kept = stage.gateway.connect(run.to, "kept", options);
    assert_eq!(stage.gateway.texts(kept), ["group", "one"]);
    let ends: Vec<_> = stage.gateway.receipts(app).iter().map(Receipt::line).collect();
    assert_eq!(ends, ["kept=DELIVERED", "kept=DELIVERED"]);
    stage.gateway.lose(kept);
    stage.accepted(app, "c/kept?store=1&receipt=each&ttl=60000", "lost with its session");
    assert_eq!(receipt(&mut stage, app, true), "kept=QUEUED");
    let clean = stage.stranger("kept");
    assert_eq!(stage.gateway.texts(clean), [""; 0]);
    assert_eq!(receipt(&mut stage, app, false), "kept=OFFLINE");
}
