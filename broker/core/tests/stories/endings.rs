//! Wills, and connections that the gateway ends.

use bugle_core::model::Reason;

use crate::gateway::{Kind, Options, Outcome, SendSpec, Will, rules};
use crate::stage::{Run, Stage};

pub fn wills_signals(run: Run) {
    let mut stage = Stage::open(run);
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    for line in ["g/g?except=r2", "c/r1", "g/g?only=r1,none-0&receipt=each&ttl=100"] {
        let will = Some(Will::Send(SendSpec::new(line, "gone")));
        let app = stage.gateway.connect(run.from, "app", Options { will: will.clone(), ..stage.options() });
        stage.gateway.goodbye(app);
        assert_eq!(stage.gateway.texts(r1), [""; 0], "not after a goodbye");
        let app = stage.gateway.connect(run.from, "app", Options { will, ..stage.options() });
        assert_eq!(stage.gateway.texts(r1), [""; 0], "not yet");
        stage.gateway.lose(app);
        let [got] = &stage.gateway.received(r1)[..] else { panic!("{line}") };
        assert_eq!((got.sender.as_str(), got.text().as_str()), ("app", "gone"));
    }
    assert_eq!(stage.gateway.texts(r2), [""; 0]);
}

pub fn wills_plain(run: Run) {
    let mut stage = Stage::open(run);
    let r1 = stage.stranger("r1");
    assert_eq!(stage.gateway.subscribe(r1, "home/+/state", 1), Outcome::Accepted);
    let will = Some(Will::Publish("home/app/state".into(), b"offline".to_vec()));
    let app = stage.gateway.connect(run.from, "app", Options { will: will.clone(), ..stage.options() });
    stage.gateway.goodbye(app);
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
    let app = stage.gateway.connect(run.from, "app", Options { will, ..stage.options() });
    stage.gateway.lose(app);
    let [got] = &stage.gateway.received(r1)[..] else { panic!("the will comes once") };
    assert_eq!((got.topic.as_deref(), got.text().as_str()), (Some("home/app/state"), "offline"));
}

pub fn wills_refused(run: Run) {
    let json = r#"{"rule": [{"effect": "deny", "actions": ["send"], "clients": ["app"], "groups": ["g"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let r1 = stage.member("r1");
    let will = Some(Will::Send(SendSpec::new("g/g", "gone")));
    let app = stage.gateway.connect(run.from, "app", Options { will, ..stage.options() });
    stage.gateway.lose(app);
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
    let refused: u64 = stage.gateway.shards.iter().map(|shard| shard.counters().wills_refused).sum();
    assert_eq!(refused, 1);
}

pub fn keep_alive(run: Run) {
    let mut stage = Stage::open(run);
    let r1 = stage.member("r1");
    let will = Some(Will::Send(SendSpec::new("g/g", "gone")));
    let app = stage.gateway.connect(run.from, "app", Options { will, keep_alive: 10, ..stage.options() });
    stage.gateway.advance(14_999);
    assert!(stage.gateway.ping(app));
    stage.gateway.advance(14_999);
    assert!(stage.gateway.is_open(app));
    stage.gateway.advance(1);
    let why = if run.from == Kind::Mqtt4 { "" } else { "KEEP_ALIVE_TIMEOUT" };
    assert_eq!(stage.gateway.end(app), Some(why));
    assert_eq!(stage.gateway.texts(r1), ["gone"]);
    assert_eq!(stage.gateway.refused(Reason::KeepAliveTimeout), 1);
}

pub fn shut_down(run: Run) {
    let mut stage = Stage::open(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    let now = stage.gateway.now();
    stage.gateway.shards.iter_mut().for_each(|shard| shard.shut_down(now));
    stage.gateway.pump();
    for (who, kind) in [(app, run.from), (r1, run.to)] {
        let why = if kind == Kind::Mqtt4 { "" } else { "SHUTTING_DOWN" };
        assert_eq!((stage.gateway.end(who), stage.gateway.is_open(who)), (Some(why), false));
    }
    let late = stage.gateway.try_connect(run.to, "late", stage.options());
    assert_eq!(late, Err("SHUTTING_DOWN".into()));
}
