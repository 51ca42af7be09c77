//! Devices whose connection is lost, and that go on with their session (S12, docs/protocol.md section 12).

use crate::gateway::{Kind, Options, Outcome, SendSpec, Who, Will};
use crate::stage::{Run, Stage, id_beside, number, numbers};

/// Seconds for which the devices here want their sessions kept.
const EXPIRY: u32 = 60;

fn options(stage: &Stage) -> Options {
    Options { session_expiry: EXPIRY, ..stage.options() }
}

fn device(stage: &mut Stage, id: &str) -> Who {
    let options = options(stage);
    stage.member_with(id, options)
}

/// Whether the recipients speak the framing; MQTT's sessions have stories of their own.
fn is_framing(kind: Kind) -> bool {
    !kind.is_mqtt()
}

pub fn s12_goes_on(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = device(&mut stage, &far);
    assert_eq!(stage.gateway.subscribe(r, "news/+", 1), Outcome::Accepted);
    stage.accepted(app, "g/g", "0000");
    stage.gateway.lose(r);
    stage.accepted(app, "g/g?receipt=each", "0001");
    stage.accepted(app, &format!("c/{far}?receipt=each"), "0002");
    stage.accepted(app, &format!("g/g?only={far}"), "0003");
    stage.gateway.publish(app, "news/today", b"0004", false);
    assert_eq!(stage.gateway.receipts(app), [], "it may be back at any moment");
    stage.gateway.advance(9_000);
    assert!(stage.gateway.reconnect(r));
    assert_eq!(stage.gateway.texts(r), numbers(0..5));
    let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    assert_eq!(lines, [(); 2].map(|()| format!("{far}=DELIVERED")));
    // Names, groups and subscriptions are there as before, in both directions, and again after another loss.
    for round in 0..3 {
        assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), format!("{far}=DELIVERED"));
        assert_eq!(stage.receipt(r, "c/app?receipt=each", "up"), "app=DELIVERED");
        stage.gateway.publish(app, "news/today", b"news", false);
        assert_eq!(stage.gateway.texts(r), ["on", "news"], "round {round}");
        stage.gateway.lose(r);
        assert!(stage.gateway.reconnect(r));
    }
    assert_eq!(stage.gateway.texts(app), ["up"; 3]);
    let counters = stage.gateway.shards.iter().map(|shard| shard.counters());
    let sums = counters.fold((0, 0, 0), |sum, of| {
        (sum.0 + of.sessions_resumed, sum.1 + of.sessions_away, sum.2 + of.sessions_ended)
    });
    assert_eq!(sums, (4, 0, 0));
}

pub fn s12_cut_deliveries(run: Run) {
    if !is_framing(run.to) || run.from != Kind::Device || run.seed.is_some() {
        return;
    }
    let mut whole = false;
    for at in 1.. {
        let mut stage = Stage::open(run);
        let app = stage.app();
        let r = device(&mut stage, "r1");
        stage.gateway.set_fuse(r, usize::MAX, at);
        for n in 0..3 {
            stage.accepted(app, "g/g?receipt=each", &number(n));
        }
        whole = stage.gateway.is_open(r);
        stage.gateway.lose(r);
        assert!(stage.gateway.reconnect(r), "cut after {at} bytes");
        assert_eq!(stage.gateway.texts(r), numbers(0..3), "cut after {at} bytes");
        let receipts = stage.gateway.receipts(app);
        let delivered = receipts.iter().filter(|receipt| receipt.line() == "r1=DELIVERED").count();
        // Taken, says the device's hello, but a refusal may still come until its next acknowledgement.
        stage.accepted(app, "g/g", "0003");
        let later = stage.gateway.receipts(app);
        assert!(later.iter().all(|receipt| receipt.line() == "r1=DELIVERED"), "cut after {at} bytes");
        assert_eq!(delivered + later.len(), 3, "cut after {at} bytes");
        if whole {
            break;
        }
    }
    assert!(whole);
}

pub fn s12_cut_sends(run: Run) {
    if !is_framing(run.to) || run.from != Kind::Device || run.seed.is_some() {
        return;
    }
    let mut whole = [false; 2];
    for (direction, whole) in whole.iter_mut().enumerate() {
        for at in 1.. {
            let mut stage = Stage::open(run);
            let app = stage.app();
            let r = device(&mut stage, "r1");
            let bytes = if direction == 0 { [at, usize::MAX] } else { [usize::MAX, at] };
            stage.gateway.set_fuse(r, bytes[0], bytes[1]);
            let lines = ["c/app?receipt=each", "c/app?only=x", "g/g?only={129}", "c/app?receipt=summary"];
            let lines = lines.map(|line| line.replace("?only=x", ""));
            let tickets: Vec<_> = lines
                .iter()
                .enumerate()
                .map(|(n, line)| stage.gateway.start_send(r, &SendSpec::new(line, &number(n))))
                .collect();
            stage.gateway.pump();
            *whole = stage.gateway.is_open(r);
            stage.gateway.lose(r);
            assert!(stage.gateway.reconnect(r), "cut after {at} bytes");
            let outcomes: Vec<_> =
                tickets.iter().map(|&ticket| stage.gateway.outcome(r, ticket).unwrap()).collect();
            let names: Vec<_> = outcomes.iter().map(Outcome::name).collect();
            assert_eq!(names, ["ACCEPTED", "ACCEPTED", "LIST_TOO_LONG", "ACCEPTED"], "cut after {at} bytes");
            assert_eq!(stage.gateway.texts(app), ["0000", "0001", "0003"], "cut after {at} bytes");
            let receipts = stage.gateway.receipts(r);
            let counts: Vec<_> = receipts.iter().map(|receipt| receipt.counts()).collect();
            assert_eq!(counts, ["DELIVERED 1"; 2], "cut after {at} bytes");
            if *whole {
                break;
            }
        }
    }
    assert_eq!(whole, [true; 2]);
}

pub fn s12_held(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let options = Options { acks: false, window: 2, ..options(&stage) };
    let slow = stage.member_with("slow", options);
    for n in 0..4 {
        stage.accepted(app, "g/g?receipt=each", &number(n));
    }
    assert_eq!(stage.gateway.texts(slow), numbers(0..2), "the window");
    stage.gateway.lose(slow);
    assert!(stage.gateway.reconnect(slow));
    assert_eq!(stage.gateway.texts(slow), [""; 0], "it has them, and takes window for them as before");
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.ack_again(slow);
    assert_eq!(stage.gateway.texts(slow), numbers(2..4));
    let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    assert_eq!(lines, ["slow=DELIVERED"; 4]);
}

pub fn s12_outcomes(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.mute_member("mute");
    let r = device(&mut stage, "r1");
    stage.gateway.stop_reading(r);
    let send = |stage: &mut Stage, line: &str| stage.gateway.start_send(r, &SendSpec::new(line, "up"));
    let refused = send(&mut stage, "g/g?only=");
    let accepted = send(&mut stage, "g/g?only=mute&receipt=each");
    stage.gateway.pump();
    stage.gateway.lose(r);
    stage.gateway.ack_again(mute);
    stage.gateway.read_again(r);
    assert!(stage.gateway.reconnect(r));
    assert_eq!(stage.gateway.outcome(r, refused).unwrap().name(), "NO_RECIPIENT");
    assert_eq!(stage.gateway.outcome(r, accepted), Some(Outcome::Accepted));
    assert_eq!(stage.gateway.receipt(r).line(), "mute=DELIVERED");
    assert_eq!(stage.gateway.texts(mute), ["up"]);
    drop(stage.gateway.texts(app));
}

pub fn s12_takeover(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r = device(&mut stage, "r1");
    stage.accepted(app, "g/g?receipt=each", "0000");
    stage.gateway.receipt(app);
    // The gateway writes into the void.
    stage.gateway.set_fuse(r, usize::MAX, usize::MAX);
    stage.gateway.stop_reading(r);
    stage.accepted(app, "g/g?receipt=each", "0001");
    stage.gateway.read_again(r);
    assert!(stage.gateway.reconnect(r));
    let said = stage.gateway.close_forsaken();
    assert!(said[0].starts_with(&[0x04]) && said[0][2] == 9, "BYE TAKEN_OVER: {:02x?}", said[0]);
    assert_eq!(stage.gateway.texts(r), numbers(0..2));
    assert_eq!(stage.gateway.receipt(app).line(), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&ttl=50", "0002"), "r1=DELIVERED");
    assert_eq!(stage.gateway.texts(r), ["0002"]);
    // A newer connection of the same id that asks for no session begins anew.
    let newer = stage.gateway.connect(run.to, "r1", options(&stage));
    assert!(!stage.gateway.is_resumed(newer));
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "no member"), "r1=NOT_MEMBER");
}

pub fn s12_in_hand(run: Run) {
    if !is_framing(run.to) || run.shards == 1 {
        return;
    }
    let mut stage = Stage::open(run);
    let far = id_beside("app", "r1", run.shards, false);
    let app = stage.gateway.connect(run.from, &far, stage.options());
    let r = device(&mut stage, "r1");
    stage.gateway.hold(true);
    let send = stage.gateway.start_send(r, &SendSpec::new(&format!("c/{far}?receipt=each"), "up"));
    let join = stage.gateway.start_join(r, "other");
    stage.gateway.pump();
    stage.gateway.lose(r);
    stage.gateway.start_reconnect(r);
    stage.gateway.pump();
    assert_eq!((stage.gateway.outcome(r, send), stage.gateway.outcome(r, join)), (None, None));
    stage.gateway.lose(r);
    stage.gateway.hold(false);
    assert!(stage.gateway.reconnect(r));
    assert_eq!(
        [send, join].map(|ticket| stage.gateway.outcome(r, ticket)),
        [(); 2].map(|()| Some(Outcome::Accepted))
    );
    assert_eq!(stage.gateway.receipt(r).line(), format!("{far}=DELIVERED"));
    assert_eq!(stage.gateway.texts(app), ["up"]);
    assert_eq!(stage.receipt(app, "g/other?receipt=each", "on"), "r1=DELIVERED");
}

pub fn s12_waits(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 3);
    let app = stage.app();
    let r = device(&mut stage, "r1");
    stage.gateway.lose(r);
    stage.accepted(app, "g/g?receipt=each&ttl=5000", "too late");
    stage.accepted(app, "g/g?receipt=each&ttl=30000", "in time");
    stage.accepted(app, "g/g?receipt=each", "whenever");
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "too much"), "r1=OVERFLOW");
    stage.gateway.advance(5_000);
    assert_eq!(stage.gateway.receipt(app).line(), "r1=EXPIRED");
    stage.gateway.advance(5_000);
    assert_eq!(stage.gateway.receipt(app).line(), "r1=UNCONFIRMED", "after 10 s nobody knows");
    assert!(stage.gateway.reconnect(r));
    assert_eq!(stage.gateway.texts(r), ["in time", "whenever"]);
    assert_eq!(stage.gateway.receipt(app).line(), "r1=DELIVERED");
}

pub fn s12_expires(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.member_with("mute", Options { acks: false, ..options(&stage) });
    let r = device(&mut stage, "r1");
    stage.accepted(app, "g/g?receipt=each&ttl=100000", "on");
    for who in [mute, r] {
        stage.gateway.lose(who);
    }
    stage.accepted(app, "c/r1?receipt=each&ttl=100000", "waits");
    stage.gateway.advance(59_999);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.gateway.advance(1);
    let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    assert!(lines.contains(&"mute=UNCONFIRMED r1=DELIVERED".into()), "{lines:?}");
    assert!(lines.contains(&"r1=OFFLINE".into()), "{lines:?}");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "gone"), "r1=OFFLINE");
    assert!(!stage.gateway.reconnect(r));
    stage.gateway.received(r);
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "no member"), "r1=NOT_MEMBER");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "on"), "r1=DELIVERED");
    assert_eq!(stage.gateway.texts(r), ["on"]);
    assert_eq!(stage.gateway.join(r, "g"), Outcome::Accepted, "numbers begin anew");
}

pub fn s12_goodbye(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let r = device(&mut stage, "r1");
    stage.gateway.goodbye(r);
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "gone"), "r1=OFFLINE");
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "gone"), "r1=NOT_MEMBER");
    assert!(!stage.gateway.reconnect(r));
}

pub fn s12_not_granted(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::new(run, |setup| setup.limits.device_resume = 0);
    let app = stage.app();
    let r = device(&mut stage, "r1");
    stage.gateway.lose(r);
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "gone"), "r1=OFFLINE");
    assert!(!stage.gateway.reconnect(r));
    // And one that grants less than is asked for.
    let mut stage = Stage::new(run, |setup| setup.limits.device_resume = 5);
    let r = device(&mut stage, "r1");
    stage.gateway.lose(r);
    stage.gateway.advance(4_999);
    assert!(stage.gateway.reconnect(r));
    stage.gateway.lose(r);
    stage.gateway.advance(5_000);
    assert!(!stage.gateway.reconnect(r));
}

pub fn s12_will(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let will = Will::Send(SendSpec::new("c/app", "lost"));
    let r = stage.member_with("r1", Options { will: Some(will), ..options(&stage) });
    stage.gateway.lose(r);
    assert_eq!(stage.gateway.texts(app), ["lost"], "at once");
    assert!(stage.gateway.reconnect(r));
    stage.gateway.advance(100_000);
    assert_eq!(stage.gateway.texts(app), [""; 0]);
    stage.gateway.lose(r);
    assert_eq!(stage.gateway.texts(app), ["lost"], "of each connection");
    stage.gateway.advance(60_000);
    assert_eq!(stage.gateway.texts(app), [""; 0], "the session's end is no other");
}

pub fn s1_protocol(run: Run) {
    if !is_framing(run.to) || !run.from.is_mqtt() {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mute = stage.member_with("r1", Options { acks: false, ..options(&stage) });
    stage.accepted(app, "g/g?receipt=each", "written");
    stage.gateway.start_send(mute, &SendSpec::new("g/g?receipt=each&echo=1", "its own"));
    stage.gateway.pump();
    stage.gateway.lose(mute);
    stage.accepted(app, "g/g?receipt=each", "waits");
    let r = stage.gateway.connect(run.from, "r1", options(&stage));
    let mut lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    lines.sort();
    assert_eq!(lines, ["r1=DELIVERED", "r1=UNCONFIRMED"]);
    assert_eq!(stage.gateway.texts(r), ["waits"]);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r1=DELIVERED", "still a member");
    stage.gateway.advance(20_000);
    assert_eq!(stage.gateway.receipts(r), [], "nor hears of what the device asked");
    assert!(!stage.gateway.reconnect(mute), "its packets' state is gone");
}

/// What a device has taken, as its hello says, was reported as DELIVERED when the receipt closed, though the device may
/// have dropped it as late and be about to say so.
pub fn s8_taken_isnt_delivered(run: Run) {
    if !is_framing(run.to) {
        return;
    }
    for (line, wait) in [("g/g?receipt=each", 10_000), ("g/g?receipt=each&ttl=500", 500)] {
        let mut stage = Stage::open(run);
        let app = stage.app();
        let r = device(&mut stage, "r1");
        // Its acknowledgement is lost.
        stage.gateway.set_fuse(r, 0, usize::MAX);
        stage.accepted(app, line, "on");
        stage.gateway.lose(r);
        assert!(stage.gateway.reconnect(r));
        assert_eq!(stage.gateway.texts(r), ["on"]);
        assert_eq!(stage.gateway.receipts(app), []);
        stage.gateway.advance(wait);
        assert_eq!(stage.gateway.receipt(app).line(), "r1=UNCONFIRMED");
    }
}
