//! Outcomes and receipts, and what is dropped on the way (S8, S9).

use bugle_core::model::{Reason, Status};

use crate::gateway::{Kind, Options, Outcome, SendSpec};
use crate::stage::{Run, Stage, id_beside, number, numbers};

pub fn s8_no_inbox(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let deaf = stage.member_with("deaf", Options { inbox: false, ..stage.options() });
    let expected = if run.to.is_mqtt() { "deaf=OFFLINE" } else { "deaf=DELIVERED" };
    assert_eq!(stage.receipt(app, "c/deaf?receipt=each", "one"), expected);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "deaf=DELIVERED");
    let wanted: &[&str] = if run.to.is_mqtt() { &["all"] } else { &["one", "all"] };
    assert_eq!(stage.gateway.texts(deaf), wanted);
}

pub fn s8_ack_waits(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.member(&far);
    stage.gateway.hold(true);
    let ticket = stage.gateway.start_send(app, &SendSpec::new("g/g?receipt=each", "on"));
    stage.gateway.pump();
    let held = run.shards > 1;
    assert_eq!(stage.gateway.outcome(app, ticket).is_none(), held);
    assert_eq!(stage.gateway.receipts(app).is_empty(), held);
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.outcome(app, ticket), Some(Outcome::Accepted));
    assert_eq!(stage.gateway.texts(r), ["on"]);
}

pub fn s8_never_acks(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.mute_member("mute");
    stage.member("r1");
    stage.accepted(app, "g/g?receipt=each", "on");
    stage.gateway.advance(9_999);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    assert_eq!(stage.gateway.receipt(app).line(), "mute=UNCONFIRMED r1=DELIVERED");
    // Too late.
    stage.gateway.ack_again(mute);
    stage.gateway.advance(20_000);
    assert_eq!(stage.gateway.receipts(app), []);
    assert_eq!(stage.gateway.texts(mute), ["on"]);
}

pub fn s8_never_acks_ttl(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    stage.mute_member("mute");
    stage.accepted(app, "g/g?receipt=summary&ttl=300", "short");
    stage.accepted(app, "g/g?receipt=summary&ttl=30000", "long");
    stage.gateway.advance(299);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    assert_eq!(stage.gateway.receipt(app).counts(), "UNCONFIRMED 1");
    stage.gateway.advance(29_699);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    assert_eq!(stage.gateway.receipt(app).counts(), "UNCONFIRMED 1");
}

pub fn s8_link_lost(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let written = stage.mute_member("written");
    let waiting = stage.member("waiting");
    let leaving = stage.mute_member("leaving");
    stage.gateway.stop_reading(waiting);
    stage.accepted(app, "g/g?receipt=each", "on");
    assert_eq!(stage.gateway.texts(written), ["on"]);
    stage.gateway.lose(written);
    stage.gateway.lose(waiting);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.goodbye(leaving);
    let expected = "leaving=UNCONFIRMED waiting=OFFLINE written=UNCONFIRMED";
    assert_eq!(stage.gateway.receipt(app).line(), expected);
}

pub fn s8_qos_0(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r0 = stage.member_with("r0", Options { qos: 0, ..stage.options() });
    stage.member("r1");
    let expected = if run.to.is_mqtt() { "r0=UNCONFIRMED r1=DELIVERED" } else { "r0=DELIVERED r1=DELIVERED" };
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), expected);
    assert_eq!(stage.gateway.texts(r0), ["on"]);
    if run.from.is_mqtt() {
        // Sent at QoS 0, it is nowhere better than that; a device acknowledges all the same.
        let status = if run.to.is_mqtt() { "UNCONFIRMED" } else { "DELIVERED" };
        stage.accepted(app, "g/g?receipt=each&qos=0&id=m-0", "off");
        let receipt = stage.gateway.receipt(app);
        assert_eq!((receipt.line(), receipt.id), (format!("r0={status} r1={status}"), Some("m-0".into())));
    }
}

pub fn s8_many(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    stage.mute_member("mute");
    for n in 1..128 {
        stage.member(&format!("r{n}"));
    }
    stage.accepted(app, "g/g?receipt=each&ttl=100", "on");
    stage.gateway.advance(100);
    let receipt = stage.gateway.receipt(app);
    assert_eq!((receipt.counts().as_str(), receipt.each.len()), ("DELIVERED 127, UNCONFIRMED 1", 128));
    stage.member("r128");
    stage.accepted(app, "g/g?receipt=each&ttl=100", "on");
    stage.gateway.advance(100);
    let receipt = stage.gateway.receipt(app);
    assert_eq!(
        (receipt.counts().as_str(), receipt.line().as_str()),
        ("DELIVERED 128, UNCONFIRMED 1", "mute=UNCONFIRMED")
    );
}

pub fn s8_overflow(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 5);
    let app = stage.app();
    let [slow, r1] = ["slow", "r1"].map(|id| stage.member(id));
    stage.gateway.stop_reading(slow);
    for n in 0..5 {
        stage.accepted(app, "g/g", &number(n));
    }
    assert_eq!(stage.receipt(app, "c/slow?receipt=each", "too much"), "slow=OVERFLOW");
    stage.accepted(app, "g/g?receipt=summary&ttl=50", "too much for one");
    stage.accepted(app, "g/g", "uncounted by the sender, not by the gateway");
    assert_eq!(stage.gateway.receipt(app).counts(), "DELIVERED 1, OVERFLOW 1");
    let overflowed: u64 = stage.gateway.shards.iter().map(|s| s.counters().status(Status::Overflow)).sum();
    assert_eq!(overflowed, 3);
    assert_eq!(stage.gateway.texts(r1).len(), 7);
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.texts(slow), numbers(0..5), "what was taken is kept");
    assert_eq!(stage.receipt(app, "c/slow?receipt=each", "there is room again"), "slow=DELIVERED");

    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_bytes = 10_000);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    stage.accepted(app, "g/g?size=8192", "");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&size=2000", ""), "slow=OVERFLOW");
    stage.accepted(app, "g/g?size=1808", "");
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.received(slow).len(), 2);
}

/// What goes to many waits for others of its kind, and nobody else for it.
pub fn s7_many(run: Run) {
    let mut stage = Stage::new(run, |setup| {
        setup.limits.bulk_recipients = 3;
        setup.limits.bulk_unwritten = 4;
        // An app waits with its input; what a device sends meanwhile waits as well.
        setup.limits.bulk_sends = if run.from.is_mqtt() { 1 } else { 100 };
    });
    let app = stage.app();
    let other = stage.stranger("other");
    let members: Vec<_> = (0..20).map(|n| stage.member(&format!("r{n}"))).collect();
    let sent: Vec<_> = (0..7).map(number).collect();
    for text in &sent {
        stage.gateway.start_send(app, &SendSpec::new("g/g?echo=0", text));
        stage.gateway.start_send(app, &SendSpec::new("c/other", text));
        stage.gateway.start_send(app, &SendSpec::new("c/r5", &format!("to one {text}")));
        stage.gateway.start_send(app, &SendSpec::new("g/g?only=r1,r2&urgent=1", "urgent"));
    }
    stage.gateway.pump();
    assert_eq!(stage.gateway.texts(other), sent, "in order, behind what waits for its turn");
    for (at, &who) in members.iter().enumerate() {
        let (urgent, texts): (Vec<_>, Vec<_>) =
            stage.gateway.texts(who).into_iter().partition(|text| text == "urgent");
        let expected: Vec<_> = match at {
            5 => sent.iter().flat_map(|text| [text.clone(), format!("to one {text}")]).collect(),
            _ => sent.clone(),
        };
        assert_eq!(texts, expected, "in order to r{at}");
        assert_eq!(urgent.is_empty(), !(1..3).contains(&at));
    }
    let sum = |count: fn(&bugle_core::hub::Counters) -> u64| -> u64 {
        stage.gateway.shards.iter().map(|shard| count(shard.counters())).sum()
    };
    assert_eq!(sum(|counters| counters.refused(Reason::Busy)), 0);
    if run.from.is_mqtt() {
        return;
    }
    if run.shards == 1 {
        assert!(sum(|counters| counters.postponed) > 0);
    }

    let mut stage = Stage::new(run, |setup| {
        setup.limits.bulk_recipients = 1;
        setup.limits.bulk_unwritten = 1;
        setup.limits.bulk_sends = 1;
    });
    let app = stage.app();
    for n in 0..8 {
        stage.member(&format!("r{n}"));
    }
    let sends: Vec<_> =
        (0..3).map(|_| stage.gateway.start_send(app, &SendSpec::new("g/g?echo=0", "on"))).collect();
    stage.gateway.pump();
    if run.shards == 1 && run.seed.is_none() {
        let outcomes: Vec<_> = sends.iter().map(|&send| stage.gateway.outcome(app, send)).collect();
        assert!(matches!(&outcomes[2], Some(Outcome::Refused(code, _)) if code == "BUSY"), "{outcomes:?}");
        assert_eq!(outcomes[..2], [Some(Outcome::Accepted), Some(Outcome::Accepted)]);
    }
}

/// However many clients there are, and however much each may have waiting.
pub fn s7_waiting(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.waiting_bytes = 20_000 * usize::from(setup.shards));
    let app = stage.app();
    let names: Vec<_> = (0..20).map(|n| format!("slow-{n}")).collect();
    let slow: Vec<_> = names.iter().map(|id| stage.member(id)).collect();
    let quick = stage.member("quick");
    slow.iter().for_each(|&who| stage.gateway.stop_reading(who));
    let waiting = |stage: &Stage| -> (u64, u64) {
        let shards = stage.gateway.shards.iter().map(|shard| shard.counters());
        shards.fold((0, 0), |(bytes, full), counters| {
            (bytes + counters.waiting_bytes, full + counters.waiting_full)
        })
    };
    for n in 0..30 {
        stage.accepted(app, "g/g?size=1000&echo=0", &number(n));
    }
    let (bytes, full) = waiting(&stage);
    let most = 20_000 * u64::from(stage.run.shards) + 20 * 1_200;
    assert!(bytes > 10_000 && bytes <= most, "{bytes} bytes wait of at most {most}");
    assert!(full > 100, "{full} were refused");
    assert_eq!(stage.gateway.received(quick).len(), 30, "who has nothing that waits has room");
    for &who in &slow {
        stage.gateway.read_again(who);
        let came = stage.gateway.received(who).len();
        assert!((1..30).contains(&came), "{came}");
    }
    assert_eq!(waiting(&stage), (0, full), "all is written");
}

pub fn s8_window(run: Run) {
    // Before MQTT 5 a client can't say what it takes.
    if run.to == Kind::Mqtt4 {
        return;
    }
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 3);
    let app = stage.app();
    let mute = stage.member_with("mute", Options { acks: false, window: 4, ..stage.options() });
    for n in 0..7 {
        stage.accepted(app, "g/g", &number(n));
    }
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "too much"), "mute=OVERFLOW");
    assert_eq!(stage.gateway.texts(mute), numbers(0..4));
    stage.gateway.ack_again(mute);
    assert_eq!(stage.gateway.texts(mute), numbers(4..7));
}

pub fn s8_no_window(run: Run) {
    if run.to.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let closed = stage.member_with("closed", Options { window: 0, ..stage.options() });
    stage.accepted(app, "g/g?ttl=100&receipt=each", "on");
    stage.gateway.advance(100);
    assert_eq!(stage.gateway.receipt(app).line(), "closed=EXPIRED");
    assert_eq!(stage.receipt(closed, "c/app?receipt=each", "up"), "app=DELIVERED");
    assert_eq!((stage.gateway.texts(closed).len(), stage.gateway.texts(app)), (0, vec!["up".to_owned()]));
}

pub fn s8_too_large(run: Run) {
    if run.to == Kind::Mqtt4 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let small = stage.member_with("small", Options { longest: 256, ..stage.options() });
    stage.member("r1");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&size=256", ""), "r1=DELIVERED small=OVERFLOW");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&size=100", ""), "r1=DELIVERED small=DELIVERED");
    assert_eq!(stage.gateway.received(small).len(), 1);
}

pub fn s8_sender_gone(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.mute_member("mute");
    stage.accepted(app, "g/g?receipt=each&ttl=100", "on");
    let newer = stage.gateway.connect(run.to, "app", stage.options());
    stage.gateway.ack_again(mute);
    stage.gateway.advance(100);
    assert_eq!((stage.gateway.receipts(app), stage.gateway.receipts(newer)), (vec![], vec![]));
    let abandoned: u64 = stage.gateway.shards.iter().map(|s| s.counters().receipts_abandoned).sum();
    assert_eq!(abandoned, 1);
}

pub fn s8_full_queue(run: Run) {
    if run.shards == 1 {
        return;
    }
    let mut stage = Stage::new(run, |setup| setup.limits.fifo_envelopes = 3);
    let app = stage.app();
    let ids = [id_beside("far", "app", run.shards, false), id_beside("near", "app", run.shards, true)];
    let [far, near] = ids.map(|id| stage.member(&id));
    stage.gateway.hold(true);
    let tickets: Vec<_> =
        (0..4).map(|n| stage.gateway.start_send(app, &SendSpec::new("g/g", &number(n)))).collect();
    stage.gateway.pump();
    assert_eq!(stage.gateway.refused(Reason::Overflow), 1);
    assert_eq!(stage.gateway.texts(near), numbers(0..3), "a refused send has no effect at all");
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(far), numbers(0..3));
    let outcomes = tickets.iter().map(|&ticket| stage.gateway.outcome(app, ticket).unwrap());
    let names: Vec<_> = outcomes.map(|outcome| outcome.name().to_owned()).collect();
    assert_eq!(names, ["ACCEPTED", "ACCEPTED", "ACCEPTED", "OVERFLOW"]);
}

pub fn s9_expires(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [slow, r1] = ["slow", "r1"].map(|id| stage.member(id));
    stage.gateway.stop_reading(slow);
    stage.accepted(app, "g/g?receipt=each&ttl=100", "short");
    stage.accepted(app, "g/g?receipt=each&ttl=110", "longer");
    stage.accepted(app, "g/g", "for ever");
    stage.accepted(app, "g/g?ttl=100", "short, without a receipt");
    stage.gateway.advance(99);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    assert_eq!(stage.gateway.receipt(app).line(), "r1=DELIVERED slow=EXPIRED");
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.receipt(app).line(), "r1=DELIVERED slow=DELIVERED");
    assert_eq!(stage.gateway.texts(slow), ["longer", "for ever"]);
    assert_eq!(stage.gateway.texts(r1).len(), 4);
    let expired: u64 = stage.gateway.shards.iter().map(|s| s.counters().status(Status::Expired)).sum();
    assert_eq!(expired, 2);
}

/// What is in time by the gateway's clock and not by what the client can know of it.
pub fn s9_not_surely(run: Run) {
    if run.to != Kind::Python {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    stage.accepted(app, "g/g?receipt=each&ttl=101", "late");
    stage.accepted(app, "g/g?receipt=each&ttl=102", "just in time");
    stage.gateway.advance(100);
    stage.gateway.read_again(slow);
    let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    assert_eq!(lines, ["slow=EXPIRED", "slow=DELIVERED"]);
    assert_eq!(stage.gateway.texts(slow), ["just in time"]);
}

pub fn s9_remaining(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [slow, r1] = ["slow", "r1"].map(|id| stage.member(id));
    stage.gateway.stop_reading(slow);
    stage.accepted(app, "g/g?ttl=1000", "on");
    stage.gateway.advance(400);
    stage.gateway.read_again(slow);
    let ttls = [r1, slow].map(|who| stage.gateway.received(who)[0].ttl);
    assert_eq!(ttls, if run.to == Kind::Mqtt4 { [None; 2] } else { [Some(1000), Some(600)] });
}

/// A receipt that is complete leaves nothing behind that waits for its ttl, which may be weeks.
pub fn s8_nothing_left(run: Run) {
    let mut stage = Stage::open(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    let receipt = stage.receipt(app, "g/g?receipt=each&ttl=4294967295", "on");
    assert_eq!(receipt, "r1=DELIVERED");
    stage.gateway.lose(app);
    stage.gateway.lose(r1);
    assert!(stage.gateway.shards.iter().all(|shard| shard.deadline().is_none()));
}
