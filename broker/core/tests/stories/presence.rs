//! Presence (S13, T5): `app` watches the group `g`, whose members come and go.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::gateway::{Kind, Options, Outcome, Who, rules};
use crate::stage::{Run, Stage, id_beside};

const TOPIC: &str = "sig/p/g";

/// What a watcher knows: it applies what it hears.
#[derive(Default)]
struct Watched {
    members: BTreeMap<String, bool>,
    /// Messages that came.
    messages: usize,
}

impl Watched {
    /// Takes what came, as `name event`, in order of names; `*` is the beginning of all members.
    #[track_caller]
    fn hear(&mut self, stage: &mut Stage, who: Who) -> Vec<String> {
        stage.gateway.advance(0);
        let mut lines = Vec::new();
        for got in stage.gateway.received(who) {
            assert_eq!(got.topic.as_deref(), Some(TOPIC));
            assert!(got.payload.len() <= 8 * 1024, "S13 a part has at most 8 KiB");
            let message: Value = serde_json::from_slice(&got.payload).unwrap();
            assert_eq!(message["group"], "g");
            self.messages += 1;
            let kind = message["type"].as_str().unwrap();
            if kind == "members" && message["part"] == 1 {
                self.members.clear();
                lines.push("*".to_owned());
            }
            for entry in message[kind].as_array().unwrap() {
                let client = entry["client"].as_str().unwrap().to_owned();
                let event = entry["event"].as_str().unwrap_or("is");
                let online = entry["online"].as_bool();
                match (kind, event) {
                    ("members", _) | ("events", "join") => {
                        assert_eq!(self.members.insert(client.clone(), online.unwrap()), None, "{client}");
                    }
                    ("events", "leave") => assert!(self.members.remove(&client).is_some(), "{client}"),
                    ("events", "online" | "offline") => {
                        let is = event == "online";
                        assert_eq!(online, Some(is));
                        assert_eq!(self.members.insert(client.clone(), is), Some(!is), "{client}");
                    }
                    _ => panic!("{message}"),
                }
                lines.push(format!("{client} {event}{}", if online == Some(false) { " off" } else { "" }));
            }
        }
        let start = usize::from(lines.first().is_some_and(|line| line == "*"));
        lines[start..].sort();
        lines
    }
}

fn watch(stage: &mut Stage, who: Who) -> Watched {
    assert_eq!(stage.gateway.subscribe(who, TOPIC, 1), Outcome::Accepted);
    Watched::default()
}

/// Clients of both shards, where there are two.
fn two(stage: &Stage) -> [String; 2] {
    [("n", true), ("r", false)].map(|(base, same)| id_beside(base, "app", stage.run.shards, same))
}

pub fn s13_watched(run: Run) {
    let json = r#"{"group": [{"name": "g", "members": ["fixed"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let [near, far] = two(&stage);
    let (r1, r2) = (stage.member(&near), stage.member(&far));
    assert_eq!(stage.gateway.subscribe(app, TOPIC, 1), Outcome::Accepted);
    let mut watched = Watched::default();
    let mut first = vec!["fixed is off".to_owned(), format!("{near} is"), format!("{far} is")];
    first.sort();
    first.insert(0, "*".to_owned());
    assert_eq!(watched.hear(&mut stage, app), first);
    let fixed = stage.stranger("fixed");
    if run.to.is_mqtt() {
        assert_eq!(watched.hear(&mut stage, app), [""; 0], "nothing would reach it before it subscribes");
        assert_eq!(stage.gateway.join(fixed, "g"), Outcome::Accepted);
    }
    assert_eq!(watched.hear(&mut stage, app), ["fixed online"]);
    stage.gateway.goodbye(fixed);
    assert_eq!(
        watched.hear(&mut stage, app),
        ["fixed offline off"],
        "the operator's file says that it is one"
    );
    assert_eq!(stage.gateway.leave(r1, "g"), Outcome::Accepted);
    assert_eq!(watched.hear(&mut stage, app), [format!("{near} leave")]);
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    assert_eq!(watched.hear(&mut stage, app), [format!("{near} join")]);
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    assert_eq!(stage.gateway.join(r1, "h"), Outcome::Accepted);
    assert_eq!(watched.hear(&mut stage, app), [""; 0]);
    stage.gateway.goodbye(r2);
    assert_eq!(watched.hear(&mut stage, app), [format!("{far} leave")]);
    assert_eq!(stage.gateway.unsubscribe(app, TOPIC), Outcome::Accepted);
    stage.gateway.goodbye(r1);
    assert_eq!(watched.hear(&mut stage, app), [""; 0]);
    assert_eq!(stage.gateway.subscribe(app, TOPIC, 0), Outcome::Accepted);
    assert_eq!(watched.hear(&mut stage, app), ["*", "fixed is off"]);
}

/// A session that lasts is a member while its client is away.
pub fn s13_away(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mut watched = watch(&mut stage, app);
    assert_eq!(watched.hear(&mut stage, app), ["*"]);
    let [near, far] = two(&stage);
    let options = Options { session_expiry: 60, ..stage.options() };
    let (r1, r2) = (stage.member_with(&near, options.clone()), stage.member_with(&far, options));
    assert_eq!(watched.hear(&mut stage, app), [format!("{near} join"), format!("{far} join")]);
    stage.gateway.lose(r1);
    stage.gateway.lose(r2);
    assert_eq!(watched.hear(&mut stage, app), [format!("{near} offline off"), format!("{far} offline off")]);
    if run.to == Kind::Device {
        assert!(stage.gateway.reconnect(r1));
        assert_eq!(watched.hear(&mut stage, app), [format!("{near} online")]);
        stage.gateway.lose(r1);
        assert_eq!(watched.hear(&mut stage, app), [format!("{near} offline off")]);
    }
    stage.gateway.advance(61_000);
    // Before version 5 a session has no end.
    let lines = [format!("{near} leave"), format!("{far} leave")];
    assert_eq!(watched.hear(&mut stage, app), if run.to == Kind::Mqtt4 { &[] } else { &lines[..] });
}

/// A newer connection of the same client is the same member.
pub fn s13_takeover(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mut watched = watch(&mut stage, app);
    assert_eq!(watched.hear(&mut stage, app), ["*"]);
    let [near, far] = two(&stage);
    for id in [&near, &far] {
        stage.member(id);
        assert_eq!(watched.hear(&mut stage, app), [format!("{id} join")]);
        let heard = {
            let newer = stage.stranger(id);
            let heard = watched.hear(&mut stage, app);
            assert_eq!(stage.gateway.join(newer, "g"), Outcome::Accepted);
            [heard, watched.hear(&mut stage, app)].concat()
        };
        assert_eq!(heard, [format!("{id} leave"), format!("{id} join")], "a new session begins in no group");
    }
}

pub fn s13_moderated(run: Run) {
    let json = r#"{"rule": [{"effect": "allow", "actions": ["moderate"], "clients": ["app"]}],
        "group": [{"name": "g", "members": ["fixed"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let mut watched = watch(&mut stage, app);
    stage.member("r1");
    watched.hear(&mut stage, app);
    for (asked, event) in [
        ("kick/r1?group=g", "r1 leave"),
        ("ban/fixed?group=g", "fixed leave"),
        ("unban/fixed?group=g", "fixed join off"),
    ] {
        assert_eq!(stage.gateway.publish(app, &format!("sig/m/{asked}"), b"", false), Outcome::Accepted);
        assert_eq!(watched.hear(&mut stage, app), [event]);
    }
}

pub fn s13_rights(run: Run) {
    const ALLOW: &str = r#"{"rule": [{"effect": "deny", "actions": ["presence"], "groups": ["h"]},
        {"effect": "deny", "actions": ["presence"], "clients": ["r1"]}]}"#;
    const DENY: &str = r#"{"rule": [{"effect": "deny", "actions": ["presence"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(ALLOW));
    let app = stage.app();
    let r1 = stage.member("r1");
    assert_ne!(stage.gateway.subscribe(r1, TOPIC, 1), Outcome::Accepted, "not for members alone");
    assert_ne!(stage.gateway.subscribe(app, "sig/p/h", 1), Outcome::Accepted);
    for filter in ["sig/p/+", "sig/p/#", "sig/p/", "sig/p", "sig/p/a b", "sig/p/g/x", "$share/s/sig/p/g"] {
        assert_ne!(stage.gateway.subscribe(app, filter, 1), Outcome::Accepted, "{filter}");
    }
    let mut watched = watch(&mut stage, app);
    assert_eq!(watched.hear(&mut stage, app), ["*", "r1 is"]);
    assert_ne!(stage.gateway.publish(app, TOPIC, b"{}", false), Outcome::Accepted, "the gateway's own");
    stage.gateway.reload(DENY);
    assert_eq!(stage.gateway.ended(app), [TOPIC]);
    stage.stranger("r2");
    stage.gateway.goodbye(r1);
    assert_eq!(watched.hear(&mut stage, app), [""; 0]);
}

/// Beyond a configured size events come once a second.
pub fn s13_large(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.presence_at_once = 10);
    let app = stage.app();
    let mut watched = watch(&mut stage, app);
    assert_eq!(watched.hear(&mut stage, app), ["*"]);
    let members: Vec<_> = (0..60).map(|n| stage.member(&format!("r{n:02}"))).collect();
    watched.hear(&mut stage, app);
    stage.gateway.advance(1000);
    watched.hear(&mut stage, app);
    assert_eq!(watched.members.len(), 60);
    let before = watched.messages;
    for round in 0..10 {
        for &who in &members[..30] {
            let outcome =
                if round % 2 == 0 { stage.gateway.leave(who, "g") } else { stage.gateway.join(who, "g") };
            assert_eq!(outcome, Outcome::Accepted);
        }
        stage.gateway.advance(100);
    }
    for &who in &members[..7] {
        stage.gateway.leave(who, "g");
    }
    stage.gateway.advance(1000);
    watched.hear(&mut stage, app);
    assert_eq!(watched.members.len(), 53);
    let batches = watched.messages - before;
    assert!(batches <= 3 * usize::from(run.shards), "{batches} in two seconds");
}

/// A watcher without room misses events, and then gets all members again.
pub fn s13_slow(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 8);
    let app = stage.app();
    let mut watched = watch(&mut stage, app);
    assert_eq!(watched.hear(&mut stage, app), ["*"]);
    stage.gateway.stop_reading(app);
    let [near, far] = two(&stage);
    let (r1, r2) = (stage.stranger(&near), stage.stranger(&far));
    for _ in 0..40 {
        for who in [r1, r2] {
            stage.gateway.join(who, "g");
            stage.gateway.advance(0);
            stage.gateway.leave(who, "g");
            stage.gateway.advance(0);
        }
    }
    stage.gateway.join(r2, "g");
    stage.gateway.advance(0);
    stage.gateway.read_again(app);
    stage.gateway.advance(3000);
    let heard = watched.hear(&mut stage, app);
    assert!(heard.contains(&"*".to_owned()), "{heard:?}");
    assert_eq!(watched.members.keys().collect::<Vec<_>>(), [&far]);
    let renewed: u64 = stage.gateway.shards.iter().map(|shard| shard.counters().presence_renewed).sum();
    assert!(renewed > 0);
    stage.gateway.join(r1, "g");
    assert_eq!(watched.hear(&mut stage, app), [format!("{near} join")]);
}

/// A watcher that was away gets all members when it is back.
pub fn s13_watcher_back(run: Run) {
    if run.from != Kind::Device {
        return;
    }
    let mut stage = Stage::open(run);
    let options = Options { session_expiry: 60, ..stage.options() };
    let app = stage.gateway.connect(run.from, "app", options);
    let mut watched = watch(&mut stage, app);
    let [near, far] = two(&stage);
    let r1 = stage.member(&near);
    watched.hear(&mut stage, app);
    stage.gateway.lose(app);
    stage.gateway.goodbye(r1);
    stage.member(&far);
    stage.gateway.advance(1000);
    assert!(stage.gateway.reconnect(app));
    assert_eq!(watched.hear(&mut stage, app), ["*".to_owned(), format!("{far} is")]);
}
