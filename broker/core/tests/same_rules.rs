//! S15: one table of cases through both protocols. Every case runs for each pairing of the sender's and the
//! recipients' protocol, with one shard and with three, in a steady order of things and in random ones, with
//! handles or user properties and without; and gives the same recipients and the same outcomes.
//!
//! [`SENDS`] are the cases that one send tells, [`STORIES`] those that take several steps. Where a protocol can't
//! say or do a thing, the story says so itself.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod gateway;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bugle_core::hub::owner;
use bugle_core::model::{Reason, ReceiptMode, Status};
use gateway::{Gateway, Kind, Options, Outcome, Random, Received, SendSpec, Setup, Who, Will, rules};

/// A send by `app`, a member of `g`, while `r1`, `r2` and `r3` are members too, `out` is connected and no member,
/// and `none-0` and so on don't exist. What is expected is a refusal's code, or every recipient with its status:
/// those that are DELIVERED, and nobody else, get it.
struct Send(&'static str, &'static str, &'static str);

const SENDS: &[Send] = &[
    Send("S3 one", "c/r1", "r1=DELIVERED"),
    Send("S3 one, in no group", "c/out", "out=DELIVERED"),
    Send("S3 one, unknown", "c/none-0", "none-0=OFFLINE"),
    Send("S3 one, the sender itself", "c/app", "app=DELIVERED"),
    Send("S3 all", "g/g", "r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
    Send("S3 all of a group that is empty", "g/empty", ""),
    Send("S3 only", "g/g?only=r3,r1", "r1=DELIVERED r3=DELIVERED"),
    Send("S3 except", "g/g?except=r2", "r1=DELIVERED r3=DELIVERED"),
    Send("S3 except everyone", "g/g?except=r2,r1,r3", ""),
    Send("S4 only minus except", "g/g?only=r1,r2&except=r2,r3", "r1=DELIVERED"),
    Send("S4 only minus all of it", "g/g?only=r1&except=r1", ""),
    Send("S4 only with one that is no member", "g/g?only=r1,out", "out=NOT_MEMBER r1=DELIVERED"),
    Send("S4 only with one that doesn't exist", "g/g?only=none-0,r1", "none-0=NOT_MEMBER r1=DELIVERED"),
    Send("S4 only in a group that is empty", "g/empty?only=r1", "r1=NOT_MEMBER"),
    Send("S4 except with strangers", "g/g?except=out,none-0,r1", "r2=DELIVERED r3=DELIVERED"),
    Send("S4 duplicates collapse", "g/g?only=r1,r2,r1,r1&except=r3,r3", "r1=DELIVERED r2=DELIVERED"),
    Send("S4 128 entries", "g/g?only=r1,r2,{126}", "r1=DELIVERED r2=DELIVERED none-0=126"),
    Send("S4 128 entries, excepted", "g/g?except=r1,r2,{126}", "r3=DELIVERED"),
    Send("S4 129 entries", "g/g?only=r1,{128}", "LIST_TOO_LONG"),
    Send("S4 129 entries, excepted", "g/g?except=r1,{128}", "LIST_TOO_LONG"),
    Send("S4 129 entries that collapse", "g/g?only=r1,{64},{64}", "LIST_TOO_LONG"),
    Send("S4 128 entries that collapse", "g/g?only={64},{63},r1", "r1=DELIVERED none-0=64"),
    Send("S4 an empty only", "g/g?only=", "NO_RECIPIENT"),
    Send("S4 an empty only and except", "g/g?only=&except=r1", "NO_RECIPIENT"),
    Send("S4 an empty except", "g/g?except=", "r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
    Send("S4 only with an empty except", "g/g?only=r1&except=", "r1=DELIVERED"),
    Send("S5 echo", "g/g?echo=1", "app=DELIVERED r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
    Send("S5 echo and except", "g/g?echo=1&except=r1", "app=DELIVERED r2=DELIVERED r3=DELIVERED"),
    Send("S5 echo, but excepted", "g/g?echo=1&except=app,r1", "r2=DELIVERED r3=DELIVERED"),
    Send("S5 the sender in only", "g/g?only=app,r1", "app=DELIVERED r1=DELIVERED"),
    Send("S5 the sender in only, but excepted", "g/g?only=app,r1&except=app", "r1=DELIVERED"),
    Send("S5 echo doesn't widen only", "g/g?only=r1&echo=1", "r1=DELIVERED"),
    Send("S6 no payload", "g/g?only=r1&size=0", "r1=DELIVERED"),
    Send("S6 8192 bytes", "g/g?only=r1&size=8192", "r1=DELIVERED"),
    Send("S6 8193 bytes", "g/g?only=r1&size=8193", "TOO_LARGE"),
    Send("S6 8193 bytes to one", "c/r1?size=8193", "TOO_LARGE"),
    Send("S2 a group name with a space", "g/a b", "BAD_NAME"),
    Send("S2 an empty group name", "g/", "BAD_NAME"),
    Send(
        "S2 a group name of 65",
        concat!("g/", "12345678901234567890123456789012345678901234567890123456789012345"),
        "BAD_NAME",
    ),
    Send(
        "S2 a group name of 64",
        concat!("g/", "1234567890123456789012345678901234567890123456789012345678901234"),
        "",
    ),
    Send("S1 a client id with a space", "c/a b", "BAD_NAME"),
    Send("S1 a client id beyond ASCII", "c/l\u{e4}mp", "BAD_NAME"),
    Send("S1 a bad client id in only", "g/g?only=r1,a b", "BAD_NAME"),
    Send("S1 an empty client id in only", "g/g?only=r1,,r2", "BAD_NAME"),
    Send("S1 a bad client id in except", "g/g?except=a+b", "BAD_NAME"),
    Send("S9 a ttl of 0", "g/g?ttl=0", "BAD_OPTION"),
    Send("S9 a ttl of 1", "g/g?ttl=1", "r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
    Send("S9 the longest ttl", "c/r1?ttl=4294967295", "r1=DELIVERED"),
    Send("S12 a message id", "c/r1?id=m-1", "r1=DELIVERED"),
    Send("S12 a bad message id", "c/r1?id=m 1", "BAD_OPTION"),
    Send("S10 store, which this gateway doesn't have yet", "c/r1?store=1&ttl=1000", "UNSUPPORTED"),
    Send("S16 urgent", "g/g?urgent=1", "r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
];

/// What a case is run with.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: Kind,
    to: Kind,
    shards: u16,
    seed: Option<u64>,
    inline: bool,
}

/// One gateway with its clients, and what they speak.
struct Stage {
    run: Run,
    gateway: Gateway,
}

impl Stage {
    fn new(run: Run, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new(run.shards, run.seed);
        change(&mut setup);
        Self { run, gateway: Gateway::new(&setup) }
    }

    fn open(run: Run) -> Self {
        Self::new(run, |_| {})
    }

    fn options(&self) -> Options {
        Options { inline: self.run.inline, ..Options::default() }
    }

    /// The sender, in no group.
    fn app(&mut self) -> Who {
        let options = self.options();
        self.gateway.connect(self.run.from, "app", options)
    }

    /// A recipient, in no group.
    fn stranger(&mut self, id: &str) -> Who {
        let options = self.options();
        self.gateway.connect(self.run.to, id, options)
    }

    /// A recipient in the group `g`.
    fn member(&mut self, id: &str) -> Who {
        let options = self.options();
        self.member_with(id, options)
    }

    fn member_with(&mut self, id: &str, options: Options) -> Who {
        let who = self.gateway.connect(self.run.to, id, options);
        assert_eq!(self.gateway.join(who, "g"), Outcome::Accepted);
        who
    }

    /// A member that writes no acknowledgement.
    fn mute_member(&mut self, id: &str) -> Who {
        let options = Options { acks: false, ..self.options() };
        self.member_with(id, options)
    }

    #[track_caller]
    fn accepted(&mut self, who: Who, line: &str, payload: &str) {
        assert_eq!(self.gateway.send(who, &SendSpec::new(line, payload)), Outcome::Accepted, "{line}");
    }

    #[track_caller]
    fn refused(&mut self, who: Who, line: &str, code: &str) -> u32 {
        match self.gateway.send(who, &SendSpec::new(line, "refused")) {
            Outcome::Refused(refused, retry_after) if refused == code => retry_after,
            other => panic!("{line}: {other:?} and not {code}"),
        }
    }

    /// Sends with a receipt that names everyone, and gives it as a line.
    #[track_caller]
    fn receipt(&mut self, who: Who, line: &str, payload: &str) -> String {
        self.accepted(who, line, payload);
        self.gateway.receipt(who).line()
    }
}

// -- one send -------------------------------------------------------------------------------------------------

fn run_send(run: Run, Send(_, line, expected): &Send, receipt: ReceiptMode) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    assert_eq!(stage.gateway.join(app, "g"), Outcome::Accepted);
    let mut clients = BTreeMap::from([("app", app)]);
    for id in ["r1", "r2", "r3"] {
        clients.insert(id, stage.member(id));
    }
    clients.insert("out", stage.stranger("out"));

    let spec = SendSpec { receipt, ..SendSpec::new(line, "on") };
    let outcome = stage.gateway.send(app, &spec);
    let pairs: Vec<(&str, &str)> = expected.split(' ').filter_map(|pair| pair.split_once('=')).collect();
    let refused = !expected.is_empty() && pairs.is_empty();
    assert_eq!(outcome.name(), if refused { expected } else { "ACCEPTED" });

    for (id, who) in &clients {
        let got = stage.gateway.received(*who);
        if !pairs.contains(&(id, "DELIVERED")) {
            assert_eq!(got, [], "{id} is no recipient");
            continue;
        }
        let [got] = &got[..] else { panic!("{id} got {got:?}") };
        // The framing's deadline is never further ahead.
        let longest = if run.to == Kind::Device { i32::MAX as u32 } else { u32::MAX };
        let says_more = if *id == "app" { run.from } else { run.to } != Kind::Mqtt4;
        let wanted = Received {
            group: (!spec.to_client).then(|| spec.name.clone()),
            topic: None,
            sender: "app".into(),
            mode: says_more.then(|| spec.mode().into()),
            ttl: spec.ttl.filter(|_| says_more).map(|ttl| u64::from(ttl.min(longest))),
            payload: spec.payload.clone(),
        };
        assert_eq!(got, &wanted, "{id}");
    }

    let receipts = stage.gateway.receipts(app);
    if refused || receipt == ReceiptMode::None {
        assert_eq!(receipts, []);
    } else {
        let [told] = &receipts[..] else { panic!("receipts: {receipts:?}") };
        let mut each = BTreeMap::new();
        for (id, status) in pairs {
            match status.parse() {
                Ok(count) => {
                    each.extend((0..count).map(|n: u32| (format!("none-{n}"), "NOT_MEMBER".to_owned())))
                }
                Err(_) => drop(each.insert(id.to_owned(), status.to_owned())),
            }
        }
        let mut counts = BTreeMap::new();
        for status in each.values() {
            *counts.entry(status.clone()).or_insert(0) += 1;
        }
        assert_eq!(told.counts, counts);
        assert_eq!(told.each, if receipt == ReceiptMode::Each { each } else { BTreeMap::new() });
        assert!(run.from == Kind::Device || told.id == spec.id, "T4: the message id comes back");
    }

    // Whatever came of it, the connection goes on.
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "after"), "r1=DELIVERED");
}

// -- stories --------------------------------------------------------------------------------------------------

type Story = fn(Run);

const STORIES: &[(&str, Story)] = &[
    ("S1 takeover across protocols", s1_takeover),
    ("S1 an id that is no client id is a plain client", s1_plain_client),
    ("S2 leaving, and the end of a connection, end membership", s2_leaving),
    ("S5 No Local wins over only and echo", s5_no_local),
    ("S7 100 at once, then refused or slowed", s7_rate),
    ("S7 QoS 0 is slowed", s7_qos_0),
    ("S7 while slowed, pings are answered", s7_pings),
    ("S7 a full park pauses reading and the keep-alive, and nothing is lost", s7_full_park),
    ("S7 what is parked is sent after a goodbye too", s7_goodbye),
    ("S7 the rate is the identity's, over all protocols and connections", s7_identity),
    ("S8 one without a subscription to its inbox is OFFLINE", s8_no_inbox),
    ("S8 the ack waits for all mailboxes", s8_ack_waits),
    ("S8 who never acknowledges is UNCONFIRMED after 10 s", s8_never_acks),
    ("S8 or at the ttl", s8_never_acks_ttl),
    ("S8 a link lost after the write is UNCONFIRMED, before it OFFLINE", s8_link_lost),
    ("S8 QoS 0 is UNCONFIRMED", s8_qos_0),
    ("S8 above 128 recipients only those not DELIVERED are named", s8_many),
    ("S8 a full mailbox is OVERFLOW, and nobody else's affair", s8_overflow),
    ("S8 too large for the recipient is OVERFLOW", s8_too_large),
    ("S8 a receipt isn't for who takes over its sender", s8_sender_gone),
    ("S8 a full queue between shards refuses with OVERFLOW", s8_full_queue),
    ("S8 a full window fills the mailbox", s8_window),
    ("S9 past its ttl a signal is dropped from the mailbox", s9_expires),
    ("S9 the remaining time comes with the delivery", s9_remaining),
    ("S11 in order over all modes", s11_order),
    ("S11 joins and leaves are ordered with the own sends", s11_own_joins),
    ("S11 a join holds for what is sent after its answer", s11_joins),
    ("S11 whatever joins and leaves, in the end the members get it", s11_churn),
    ("S11 a leave holds for what is still on its way", s11_leaves),
    ("S16 urgent overtakes in the mailbox", s16_mailbox),
    ("S16 urgent overtakes between shards", s16_between_shards),
    ("S16 urgent overtakes what is parked", s16_parked),
    ("S16 urgent has a rate of its own", s16_rate),
    ("S16 the urgent lane has bounds of its own", s16_bounds),
    ("T1 retained signals are refused", t1_retain),
    ("T2 overlapping subscriptions deliver once", t2_overlap),
    ("T2 only the own inbox and notices, and nothing shared", t2_not_yours),
    ("T6 observing takes a right", t6_observers),
    ("T6 an observer that is a recipient gets it once", t6_observing_member),
    ("T7 plain topics, both ways", t7_plain),
    ("rules: sending", rules_send),
    ("rules: receiving", rules_receive),
    ("rules: joining", rules_join),
    ("rules: connecting", rules_connect),
    ("rules: urgent", rules_urgent),
    ("rules: plain topics", rules_plain),
    ("credentials", credentials),
    ("wills that are signals", wills_signals),
    ("wills to plain topics", wills_plain),
    ("wills are checked when they fire", wills_refused),
    ("a silent client is closed", keep_alive),
    ("a stop is told", shut_down),
];

/// The bytes of a burst's n-th message.
fn number(n: usize) -> String {
    format!("{n:04}")
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(number).collect()
}

/// An id like `base` whose owner is, or isn't, that of `other`.
fn id_beside(base: &str, other: &str, shards: u16, same: bool) -> String {
    let mut ids = (0..).map(|n| format!("{base}-{n}"));
    ids.find(|id| shards == 1 || (owner(id, shards) == owner(other, shards)) == same).unwrap()
}

fn s1_takeover(run: Run) {
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

fn s1_plain_client(run: Run) {
    if !run.from.is_mqtt() {
        let refused = Stage::open(run).gateway.try_connect(Kind::Device, "an app", Options::default());
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

fn s2_leaving(run: Run) {
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

fn s5_no_local(run: Run) {
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

fn s7_rate(run: Run) {
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

fn s7_qos_0(run: Run) {
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
fn s7_pings(run: Run) {
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

fn s7_full_park(run: Run) {
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

fn s7_goodbye(run: Run) {
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

fn s7_identity(run: Run) {
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

fn s8_no_inbox(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let deaf = stage.member_with("deaf", Options { inbox: false, ..stage.options() });
    let expected = if run.to.is_mqtt() { "deaf=OFFLINE" } else { "deaf=DELIVERED" };
    assert_eq!(stage.receipt(app, "c/deaf?receipt=each", "one"), expected);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "deaf=DELIVERED");
    let wanted: &[&str] = if run.to.is_mqtt() { &["all"] } else { &["one", "all"] };
    assert_eq!(stage.gateway.texts(deaf), wanted);
}

fn s8_ack_waits(run: Run) {
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

fn s8_never_acks(run: Run) {
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

fn s8_never_acks_ttl(run: Run) {
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

fn s8_link_lost(run: Run) {
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

fn s8_qos_0(run: Run) {
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

fn s8_many(run: Run) {
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

fn s8_overflow(run: Run) {
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

fn s8_window(run: Run) {
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

fn s8_too_large(run: Run) {
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

fn s8_sender_gone(run: Run) {
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

fn s8_full_queue(run: Run) {
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

fn s9_expires(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [slow, r1] = ["slow", "r1"].map(|id| stage.member(id));
    stage.gateway.stop_reading(slow);
    stage.accepted(app, "g/g?receipt=each&ttl=100", "short");
    stage.accepted(app, "g/g?receipt=each&ttl=101", "longer");
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

fn s9_remaining(run: Run) {
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

fn s11_order(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let others = [id_beside("far", "app", run.shards, false), id_beside("near", "app", run.shards, true)];
    let [far, near] = others.clone().map(|id| stage.member(&id));
    stage.gateway.hold(true);
    for n in 0..28 {
        let line = match n % 4 {
            0 => "g/g".to_owned(),
            1 => format!("g/g?only={},{},none-0", others[0], others[1]),
            2 => "g/g?except=none-0".to_owned(),
            _ => format!("c/{}?receipt=each", others[n / 4 % 2]),
        };
        stage.gateway.start_send(app, &SendSpec::new(&line, &number(n)));
    }
    stage.gateway.pump();
    stage.gateway.hold(false);
    for (at, who) in [far, near].into_iter().enumerate() {
        let wanted: Vec<_> = (0..28).filter(|n| n % 4 != 3 || n / 4 % 2 == at).map(number).collect();
        assert_eq!(stage.gateway.texts(who), wanted);
    }
}

fn s11_own_joins(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    stage.gateway.hold(true);
    let send = |stage: &mut Stage, text| {
        stage.gateway.start_send(app, &SendSpec::new("g/g?echo=1&receipt=each", text));
    };
    send(&mut stage, "before");
    stage.gateway.start_join(app, "g");
    send(&mut stage, "in");
    stage.gateway.start_leave(app, "g");
    send(&mut stage, "after");
    stage.gateway.start_join(app, "g");
    send(&mut stage, "in again");
    stage.gateway.pump();
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(app), ["in", "in again"]);
    let lines: Vec<_> =
        stage.gateway.receipts(app).iter().map(|receipt| (receipt.ticket, receipt.line())).collect();
    let mut lines = lines;
    lines.sort();
    let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["", "app=DELIVERED", "", "app=DELIVERED"]);
}

fn s11_joins(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.stranger(&far);
    stage.gateway.hold(true);
    let ticket = stage.gateway.start_join(r, "g");
    stage.gateway.pump();
    assert_eq!(
        stage.gateway.outcome(r, ticket).is_none(),
        run.shards > 1,
        "the answer waits for every shard"
    );
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.outcome(r, ticket), Some(Outcome::Accepted));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), format!("{far}=DELIVERED"));
}

fn s11_churn(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mut random = Random(run.seed.unwrap_or(9));
    let mut clients: Vec<_> = (0..6).map(|n| (format!("r{n}"), None, false)).collect();
    for round in 0..60 {
        let (id, who, member) = &mut clients[random.below(6)];
        match (*who, random.below(4)) {
            (None, _) => (*who, *member) = (Some(stage.stranger(id)), false),
            (Some(client), 0) => {
                stage.gateway.lose(client);
                (*who, *member) = (None, false);
            }
            (Some(client), 1) => {
                stage.gateway.start_leave(client, "g");
                *member = false;
            }
            (Some(client), _) => {
                stage.gateway.start_join(client, "g");
                *member = true;
            }
        }
        // Several changes pass each other between the shards.
        stage.gateway.hold(random.below(3) > 0);
        if round % 5 < 4 {
            continue;
        }
        stage.gateway.hold(false);
        stage.gateway.advance(1000);
        let members = clients.iter().filter(|(_, _, member)| *member);
        let expected: Vec<_> = members.map(|(id, ..)| format!("{id}=DELIVERED")).collect();
        assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), expected.join(" "), "round {round}");
    }
}

fn s11_leaves(run: Run) {
    if run.shards == 1 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.member(&far);
    stage.gateway.hold(true);
    stage.gateway.start_send(app, &SendSpec::new("g/g?receipt=each", "all"));
    stage.gateway.start_send(app, &SendSpec::new(&format!("g/g?only={far}&receipt=each"), "only"));
    stage.gateway.pump();
    assert_eq!(stage.gateway.leave(r, "g"), Outcome::Accepted);
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(r), [""; 0], "nothing after the answer to a leave");
    let mut lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    lines.sort();
    assert_eq!(lines, [String::new(), format!("{far}=NOT_MEMBER")]);
}

fn s16_mailbox(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    for (n, urgent) in [0, 1, 0, 1, 0].into_iter().enumerate() {
        let line = if urgent == 1 { "g/g?urgent=1" } else { "c/slow" };
        stage.accepted(app, line, &number(n));
    }
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.texts(slow), ["0001", "0003", "0000", "0002", "0004"]);
}

fn s16_between_shards(run: Run) {
    if run.shards == 1 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.member(&far);
    stage.gateway.hold(true);
    for (n, line) in ["g/g", "g/g?urgent=1", "g/g", "g/g?urgent=1"].into_iter().enumerate() {
        stage.gateway.start_send(app, &SendSpec::new(line, &number(n)));
    }
    stage.gateway.pump();
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(r), ["0001", "0003", "0000", "0002"]);
}

fn s16_parked(run: Run) {
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

fn s16_rate(run: Run) {
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

fn s16_bounds(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 2);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    for expected in ["", "", "slow=OVERFLOW"] {
        stage.accepted(app, "g/g?receipt=each", "normal");
        let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
        assert_eq!(lines.concat(), expected);
    }
    stage.accepted(app, "g/g?urgent=1", "urgent");
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.texts(slow), ["urgent", "normal", "normal"]);
}

fn t1_retain(run: Run) {
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

fn t2_overlap(run: Run) {
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

fn t2_not_yours(run: Run) {
    let mut stage = Stage::open(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    for filter in ["sig/c/r1", "sig/c/r1/+", "sig/r/r1", "$share/s/sig/g/g", "sig/x/y", "sig/g/a b"] {
        assert!(matches!(stage.gateway.subscribe(app, filter, 1), Outcome::Refused(..)), "{filter}");
    }
    assert_eq!(stage.receipt(r1, "c/app?receipt=each", "mine"), "app=DELIVERED");
}

/// Only an MQTT client can subscribe over the prefix.
fn t6_observers(run: Run) {
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

fn t6_observing_member(run: Run) {
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

fn t7_plain(run: Run) {
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

fn rules_send(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["send"], "clients": ["app"], "groups": ["g"]},
        {"effect": "deny", "actions": ["send"], "clients": ["app"], "to": ["r1"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    for line in ["g/g?receipt=each", "g/g?only=r1", "g/g?except=r1", "c/r1"] {
        stage.refused(app, line, "NOT_AUTHORIZED");
    }
    assert_eq!(stage.gateway.refused(Reason::NotAuthorized), 4);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.accepted(app, "c/r2", "allowed");
    stage.accepted(r2, "c/r1", "others may");
    assert_eq!([r1, r2].map(|who| stage.gateway.texts(who).concat()), ["others may", "allowed"]);
}

fn rules_receive(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["receive"], "clients": ["r1"], "groups": ["g"]},
        {"effect": "deny", "actions": ["receive"], "clients": ["r2"], "to": ["app"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "r1=DENIED r2=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "only"), "r1=DENIED");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "one"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "c/r2?receipt=each", "one"), "r2=DENIED");
    stage.accepted(app, "g/g", "no receipt");
    assert_eq!(stage.gateway.texts(r1), ["one"]);
    assert_eq!(stage.gateway.texts(r2), ["all", "no receipt"]);
}

fn rules_join(run: Run) {
    let json =
        r#"{"rule": [{"effect": "deny", "actions": ["join"], "clients": ["r*"], "groups": ["private*"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let r1 = stage.member("r1");
    assert_eq!(stage.gateway.join(app, "private"), Outcome::Accepted);
    let told = if run.to == Kind::Mqtt4 { "80" } else { "NOT_AUTHORIZED" };
    let refused = stage.gateway.join(r1, "private");
    assert!(refused.name() == told || refused.name() == "NOT_AUTHORIZED", "{refused:?}");
    let line = "g/private?only=r1,app&receipt=each";
    assert_eq!(stage.receipt(app, line, "on"), "app=DELIVERED r1=NOT_MEMBER");
    assert_eq!(stage.receipt(app, "g/private?receipt=each", "on"), "");
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

fn rules_connect(run: Run) {
    let json = r#"{"rule": [{"effect": "deny", "actions": ["connect"], "clients": ["guest-*"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let refused = stage.gateway.try_connect(run.to, "guest-1", stage.options());
    assert_eq!(refused, Err("NOT_AUTHORIZED".into()));
    assert_eq!(stage.gateway.refused(Reason::NotAuthorized), 1);
    let app = stage.app();
    assert_eq!(stage.receipt(app, "c/guest-1?receipt=each", "on"), "guest-1=OFFLINE");
}

fn rules_urgent(run: Run) {
    let json =
        r#"{"rule": [{"effect": "deny", "actions": ["urgent"], "clients": ["app"], "groups": ["g"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let r1 = stage.member("r1");
    stage.refused(app, "g/g?urgent=1", "NOT_AUTHORIZED");
    stage.accepted(app, "g/g", "calm");
    stage.accepted(app, "c/r1?urgent=1", "urgent");
    assert_eq!(stage.gateway.texts(r1), ["calm", "urgent"]);
}

fn rules_plain(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["publish"], "topics": ["locked/#"]},
        {"effect": "deny", "actions": ["subscribe"], "topics": ["secret/#"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let (app, r1) = (stage.app(), stage.stranger("r1"));
    assert_eq!(stage.gateway.subscribe(r1, "locked/#", 1), Outcome::Accepted);
    assert!(matches!(stage.gateway.subscribe(r1, "secret/door", 1), Outcome::Refused(..)));
    assert_eq!(stage.gateway.publish(app, "locked/door", b"open", false).name(), "NOT_AUTHORIZED");
    assert_eq!(stage.gateway.publish(app, "secret/door", b"open", false), Outcome::Accepted);
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

/// Clients of the tests prove themselves with their id as secret.
fn credentials(run: Run) {
    let secrets = ["app", "r1"].map(|id| (id.to_owned(), id.as_bytes().to_vec()));
    let wrong = ("wrong".to_owned(), b"something else".to_vec());
    let mut stage = Stage::new(run, |setup| setup.secrets = secrets.into_iter().chain([wrong]).collect());
    let (app, _) = (stage.app(), stage.member("r1"));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r1=DELIVERED");
    for id in ["wrong", "unknown"] {
        let refused = stage.gateway.try_connect(run.to, id, stage.options());
        assert_eq!(refused, Err("NOT_AUTHENTICATED".into()), "{id}");
    }
    assert_eq!(stage.gateway.refused(Reason::NotAuthenticated), 2);
}

fn wills_signals(run: Run) {
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

fn wills_plain(run: Run) {
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

fn wills_refused(run: Run) {
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

fn keep_alive(run: Run) {
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

fn shut_down(run: Run) {
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

// -- all pairings ---------------------------------------------------------------------------------------------

/// All ways to run a case with these two protocols.
fn runs(from: Kind, to: Kind) -> impl Iterator<Item = Run> {
    let ways =
        [(1, None, false), (1, Some(1), true), (3, None, true), (3, Some(2), false), (3, Some(3), false)];
    ways.into_iter().map(move |(shards, seed, inline)| Run { from, to, shards, seed, inline })
}

fn all_cases(from: Kind, to: Kind) {
    let failed = failures(from, to);
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Runs the cases, and tells which fail.
fn failures(from: Kind, to: Kind) -> Vec<String> {
    let mut failed = Vec::new();
    let mut check = |name: &str, run: Run, case: &dyn Fn()| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(case)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text =
                text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            failed.push(format!("{name} {run:?}\n    {}", text.replace('\n', "\n    ")));
        }
    };
    for run in runs(from, to) {
        for send in SENDS {
            for receipt in [ReceiptMode::Each, ReceiptMode::Summary, ReceiptMode::None] {
                check(&format!("{} ({}, {})", send.0, send.1, receipt.key()), run, &|| {
                    run_send(run, send, receipt)
                });
            }
        }
        for (name, story) in STORIES {
            check(name, run, &|| story(run));
        }
    }
    failed
}

macro_rules! pairings {
    ($($name:ident: $from:ident -> $to:ident;)*) => {
        $(#[test]
        fn $name() {
            all_cases(Kind::$from, Kind::$to);
        })*
    };
}

pairings! {
    device_to_device: Device -> Device;
    device_to_mqtt_5: Device -> Mqtt5;
    device_to_mqtt_311: Device -> Mqtt4;
    mqtt_5_to_device: Mqtt5 -> Device;
    mqtt_5_to_mqtt_5: Mqtt5 -> Mqtt5;
    mqtt_5_to_mqtt_311: Mqtt5 -> Mqtt4;
    mqtt_311_to_device: Mqtt4 -> Device;
    mqtt_311_to_mqtt_5: Mqtt4 -> Mqtt5;
    mqtt_311_to_mqtt_311: Mqtt4 -> Mqtt4;
}
