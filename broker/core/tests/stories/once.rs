//! What is sent twice and delivered once: message ids (S12).

use crate::gateway::{Options, SendSpec};
use crate::stage::{Run, Stage, id_beside};

/// What was counted on all shards: repetitions, and those among them that weren't the same.
fn duplicates(stage: &Stage) -> (u64, u64) {
    let counters = stage.gateway.shards.iter().map(|shard| shard.counters());
    counters.fold((0, 0), |sum, of| (sum.0 + of.duplicates, sum.1 + of.duplicates_differing))
}

pub fn s12_repeated(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    let send = |stage: &mut Stage, line: &str, text: &str| {
        stage.accepted(app, line, text);
        let receipt = stage.gateway.receipt(app);
        (receipt.line(), receipt.counts(), receipt.duplicate)
    };
    let told = |duplicate| ("r1=DELIVERED".to_owned(), "DELIVERED 1".to_owned(), duplicate);
    assert_eq!(send(&mut stage, "g/g?receipt=each&id=m-1", "on"), told(false));
    stage.member("r2");
    assert_eq!(send(&mut stage, "g/g?receipt=each&id=m-1", "on"), told(true), "the first outcome");
    assert_eq!(duplicates(&stage), (1, 0));
    // What isn't the same has the first outcome as well, and is counted.
    assert_eq!(send(&mut stage, "g/g?receipt=each&id=m-1&ttl=90", "on"), told(true), "less time is left");
    assert_eq!(send(&mut stage, "c/r2?receipt=each&id=m-1", "on"), told(true));
    assert_eq!(send(&mut stage, "g/g?receipt=each&id=m-1", "off"), told(true));
    assert_eq!(duplicates(&stage), (4, 2));
    assert_eq!(
        send(&mut stage, "g/g?receipt=summary&id=m-1", "on"),
        (String::new(), "DELIVERED 1".into(), true)
    );
    stage.accepted(app, "g/g?id=m-1", "nobody asks for more than the acknowledgement");
    assert_eq!(stage.gateway.receipts(app), []);
    assert_eq!(stage.gateway.texts(r1), ["on"]);
    // 120 s from the first, not from the last.
    stage.gateway.advance(119_999);
    assert_eq!(send(&mut stage, "g/g?receipt=each&id=m-1", "on"), told(true));
    stage.gateway.advance(1);
    assert_eq!(
        send(&mut stage, "g/g?receipt=each&id=m-1", "on"),
        ("r1=DELIVERED r2=DELIVERED".into(), "DELIVERED 2".into(), false)
    );
    assert_eq!(stage.gateway.texts(r1), ["on"]);
    stage.gateway.advance(120_000);
    let remembered: u64 = stage.gateway.shards.iter().map(|shard| shard.counters().message_ids).sum();
    assert_eq!(remembered, 0);
    assert!(stage.gateway.shards.iter().all(|shard| shard.deadline().is_none()), "no timer is left");
}

/// A repetition by QoS 0 was delivered again, since nobody waits for its answer.
pub fn s12_repeated_unasked(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for _ in 0..3 {
        stage.accepted(app, "g/g?id=m-1&qos=0", "on");
    }
    assert_eq!(stage.gateway.texts(r1), ["on"]);
    assert_eq!(duplicates(&stage), (2, 0));
}

/// Counts are known even if the first send asked for nothing; names only if it asked for them.
pub fn s12_asked_later(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r1 = stage.member("r1");
    for first in ["none", "summary"] {
        stage.accepted(app, &format!("g/g?id=m-{first}&receipt={first}"), "on");
        stage.gateway.receipts(app);
        stage.accepted(app, &format!("g/g?id=m-{first}&receipt=each"), "on");
        let receipt = stage.gateway.receipt(app);
        assert_eq!(
            (receipt.counts().as_str(), receipt.line().as_str(), receipt.duplicate),
            ("DELIVERED 1", "", true)
        );
    }
    assert_eq!(stage.gateway.texts(r1).len(), 2);
}

pub fn s12_joins(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("mute", "app", run.shards, false);
    let mute = stage.mute_member(&far);
    // The acknowledgement is waited for, then the receipt.
    stage.gateway.hold(true);
    let spec = SendSpec::new("g/g?receipt=each&id=m-1", "on");
    let tickets = [(); 2].map(|()| stage.gateway.start_send(app, &spec));
    stage.gateway.pump();
    let answered = |stage: &Stage| tickets.map(|ticket| stage.gateway.outcome(app, ticket).is_some());
    assert_eq!(answered(&stage), [run.shards == 1; 2]);
    stage.gateway.hold(false);
    assert_eq!(answered(&stage), [true; 2]);
    stage.accepted(app, "g/g?receipt=each&id=m-1", "on");
    stage.accepted(app, "g/g?id=m-1", "on");
    stage.gateway.advance(4_000);
    assert_eq!((stage.gateway.receipts(app), stage.gateway.texts(mute)), (vec![], vec!["on".to_owned()]));
    stage.gateway.ack_again(mute);
    let receipts = stage.gateway.receipts(app);
    let mut told: Vec<_> = receipts.iter().map(|receipt| (receipt.line(), receipt.duplicate)).collect();
    told.sort();
    let line = format!("{far}=DELIVERED");
    assert_eq!(told, [(line.clone(), false), (line.clone(), true), (line, true)]);
    assert_eq!(stage.gateway.texts(mute), [""; 0]);
}

pub fn s12_identity(run: Run) {
    let mut stage = Stage::open(run);
    let (app, other) = (stage.app(), stage.stranger("other"));
    let r1 = stage.member("r1");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&id=m-1", "app's"), "r1=DELIVERED");
    assert_eq!(stage.receipt(other, "g/g?receipt=each&id=m-1", "other's"), "r1=DELIVERED");
    assert_eq!(stage.gateway.texts(r1), ["app's", "other's"]);
    // Its own connection is lost, and it comes back by whatever protocol.
    stage.gateway.lose(app);
    for kind in [run.to, run.from] {
        let again = stage.gateway.connect(kind, "app", stage.options());
        stage.accepted(again, "g/g?receipt=each&id=m-1", "app's");
        let receipt = stage.gateway.receipt(again);
        assert_eq!((receipt.line().as_str(), receipt.duplicate), ("r1=DELIVERED", true));
    }
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

/// One that lost its connection before it heard the outcome hears it when it asks again.
pub fn s12_unheard(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.mute_member("mute");
    stage.accepted(app, "g/g?receipt=each&id=m-1&ttl=5000", "on");
    stage.gateway.lose(app);
    let again = stage.gateway.connect(run.to, "app", stage.options());
    stage.accepted(again, "g/g?receipt=each&id=m-1&ttl=5000", "on");
    stage.gateway.advance(5_000);
    let receipt = stage.gateway.receipt(again);
    assert_eq!((receipt.line().as_str(), receipt.duplicate), ("mute=UNCONFIRMED", true));
    assert_eq!(stage.gateway.texts(mute), ["on"]);
}

pub fn s12_refused(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.receipts_per_client = 1);
    let app = stage.app();
    let mute = stage.mute_member("mute");
    let r1 = stage.member_with("r1", Options { ..stage.options() });
    stage.accepted(app, "c/mute?receipt=each", "on");
    stage.refused(app, "c/r1?receipt=each&id=m-1", "BUSY");
    stage.gateway.ack_again(mute);
    stage.gateway.receipts(app);
    stage.accepted(app, "c/r1?receipt=each&id=m-1", "on");
    let receipt = stage.gateway.receipt(app);
    assert_eq!((receipt.line().as_str(), receipt.duplicate), ("r1=DELIVERED", false));
    assert_eq!(stage.gateway.texts(r1), ["on"]);
}

pub fn s12_bounds(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.message_ids_per_client = 2);
    let (app, other) = (stage.app(), stage.stranger("other"));
    let r1 = stage.member("r1");
    stage.accepted(app, "g/g?id=m-1", "1");
    stage.gateway.advance(60_000);
    stage.accepted(app, "g/g?id=m-2", "2");
    stage.refused(app, "g/g?id=m-3", "BUSY");
    stage.accepted(app, "g/g?id=m-2", "2");
    stage.accepted(app, "g/g", "without an id");
    stage.accepted(other, "g/g?id=m-3", "another's");
    stage.gateway.advance(60_000);
    stage.accepted(app, "g/g?id=m-3", "3");
    stage.refused(app, "g/g?id=m-4", "BUSY");
    assert_eq!(stage.gateway.texts(r1), ["1", "2", "without an id", "another's", "3"]);

    let room = 600 * usize::from(run.shards);
    let mut stage = Stage::new(run, |setup| setup.limits.message_id_bytes = room);
    let app = stage.app();
    stage.accepted(app, "g/g?id=m-1", "1");
    stage.accepted(app, "g/g?id=m-2", "2");
    stage.refused(app, "g/g?id=m-3", "BUSY");
    stage.gateway.advance(120_000);
    stage.accepted(app, "g/g?id=m-3", "3");
}
