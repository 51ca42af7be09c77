//! The rate of an identity: refused or slowed (S7, S16).

use bugle_core::model::Reason;

use crate::gateway::{Kind, Options, Outcome, SendSpec};
use crate::stage::{Run, Stage, number, numbers};

pub fn s7_rate(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for n in 0..100 {
        stage.accepted(app, "g/g", &number(n));
    }
    assert_eq!(stage.gateway.texts(r1), numbers(0..100));
    if run.from == Kind::Mqtt4 {
        let tickets: Vec<_> =
            (100..150).map(|n| stage.gateway.start_send(app, &SendSpec::new("g/g", &number(n)))).collect();
        stage.gateway.advance(9);
        assert_eq!(stage.gateway.texts(r1), [""; 0]);
        stage.gateway.advance(91);
        assert_eq!(stage.gateway.texts(r1), numbers(100..110), "100 a second");
        stage.gateway.advance(400);
        assert_eq!(stage.gateway.texts(r1), numbers(110..150), "nothing is lost");
        for ticket in tickets {
            assert_eq!(stage.gateway.outcome(app, ticket), Some(Outcome::Accepted));
        }
        assert_eq!(stage.gateway.refused(Reason::RateLimited), 0);
    } else {
        assert_eq!(stage.refused(app, "g/g", "RATE_LIMITED"), 10, "ms until there is a token");
        stage.gateway.advance(9);
        assert_eq!(stage.refused(app, "c/r1", "RATE_LIMITED"), 1);
        stage.gateway.advance(1);
        stage.accepted(app, "g/g", "later");
        assert_eq!(stage.gateway.texts(r1), ["later"]);
        stage.gateway.advance(60_000);
        for _ in 0..100 {
            stage.accepted(app, "g/g", "");
        }
        stage.refused(app, "g/g", "RATE_LIMITED");
        assert_eq!(stage.gateway.refused(Reason::RateLimited), 3);
    }
    // Another's rate is another's affair.
    stage.accepted(r1, "c/app", "");
}

pub fn s7_qos_0(run: Run) {
    if !run.from.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for n in 0..130 {
        stage.gateway.start_send(app, &SendSpec::new("g/g?qos=0", &number(n)));
    }
    stage.gateway.pump();
    assert_eq!(stage.gateway.texts(r1), numbers(0..100));
    stage.gateway.advance(300);
    assert_eq!(stage.gateway.texts(r1), numbers(100..130));
    assert_eq!(stage.gateway.refused(Reason::RateLimited), 0);
}

/// 64 KiB of small publishes are many.
pub fn s7_pings(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    let qos = if run.from == Kind::Mqtt4 { 1 } else { 0 };
    let bursts = if run.from.is_mqtt() { 300 } else { 100 };
    for n in 0..bursts {
        stage.gateway.start_send(app, &SendSpec::new(&format!("g/g?qos={qos}"), &number(n)));
        // A device has a window to keep.
        if n % 16 == 0 {
            stage.gateway.pump();
        }
    }
    stage.gateway.pump();
    assert_eq!(stage.gateway.texts(r1), numbers(0..100));
    assert!(stage.gateway.ping(app));
    stage.gateway.advance(10_000);
    assert_eq!(stage.gateway.texts(r1), numbers(100..bursts));
}

pub fn s7_full_park(run: Run) {
    if run.from != Kind::Mqtt4 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.gateway.connect(run.from, "app", Options { keep_alive: 1, ..stage.options() });
    let r1 = stage.member("r1");
    for _ in 0..120 {
        stage.gateway.start_send(app, &SendSpec::new("g/g?size=8192", ""));
    }
    stage.gateway.pump();
    assert_eq!(stage.gateway.received(r1).len(), 100);
    assert!(!stage.gateway.ping(app), "8 of 8 KiB fill the park");
    stage.gateway.advance(119);
    assert_eq!(stage.gateway.received(r1).len(), 11);
    stage.gateway.advance(81);
    assert_eq!(stage.gateway.received(r1).len(), 9);
    assert!(stage.gateway.is_open(app) && stage.gateway.ping(app));
}

pub fn s7_goodbye(run: Run) {
    if !run.from.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for n in 0..130 {
        stage.gateway.start_send(app, &SendSpec::new("g/g?qos=0", &number(n)));
    }
    stage.gateway.goodbye(app);
    stage.gateway.advance(1000);
    assert_eq!(stage.gateway.texts(r1), numbers(0..130));
}

pub fn s7_identity(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    for _ in 0..100 {
        stage.accepted(app, "g/g", "");
    }
    stage.gateway.goodbye(app);
    let app = stage.gateway.connect(run.to, "app", stage.options());
    let spec = SendSpec::new("g/g?receipt=summary", "");
    let ticket = stage.gateway.start_send(app, &spec);
    stage.gateway.pump();
    match stage.gateway.outcome(app, ticket) {
        None => assert_eq!(run.to, Kind::Mqtt4),
        Some(outcome) => assert_eq!(outcome.name(), "RATE_LIMITED"),
    }
}

pub fn s16_parked(run: Run) {
    if run.from != Kind::Mqtt4 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for n in 0..130 {
        stage.gateway.start_send(app, &SendSpec::new("g/g", &number(n)));
    }
    stage.gateway.start_send(app, &SendSpec::new("g/g?urgent=1", "stop"));
    stage.gateway.pump();
    let texts = stage.gateway.texts(r1);
    assert!(texts.len() == 101 && texts.contains(&"stop".to_owned()), "{texts:?}");
}

pub fn s16_rate(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for _ in 0..10 {
        stage.accepted(app, "g/g?urgent=1", "");
    }
    if run.from == Kind::Mqtt4 {
        stage.gateway.start_send(app, &SendSpec::new("g/g?urgent=1", ""));
        stage.gateway.advance(99);
        assert_eq!(stage.gateway.received(r1).len(), 10);
        stage.gateway.advance(1);
    } else {
        assert_eq!(stage.refused(app, "g/g?urgent=1", "RATE_LIMITED"), 100);
        stage.accepted(app, "g/g", "not urgent, so of another bucket");
    }
    assert_eq!(stage.gateway.received(r1).len(), if run.from == Kind::Mqtt4 { 1 } else { 11 });
}
