//! S15: one table of cases through both protocols. Every case runs for each pairing of the sender's and the
//! recipients' protocol, with one shard and with three, in a steady order of things and in random ones, with
//! handles or user properties and without; and gives the same recipients and the same outcomes. The framing is spoken
//! by two clients that share no code: one on this repository's codec, one in Python.
//!
//! [`SENDS`] are the cases that one send tells, [`stories::STORIES`] those that take several steps. Where a protocol can't
//! say or do a thing, the story says so itself.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod gateway;
mod stage;
mod stories;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bugle_core::model::ReceiptMode;
use gateway::{Kind, Outcome, Received, SendSpec};
use stage::{Run, Stage};

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
    Send("S16 urgent", "g/g?urgent=1", "r1=DELIVERED r2=DELIVERED r3=DELIVERED"),
];

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
        let longest = if !run.to.is_mqtt() { i32::MAX as u32 } else { u32::MAX };
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
        assert!(!run.from.is_mqtt() || told.id == spec.id, "T4: the message id comes back");
    }

    // Whatever came of it, the connection goes on.
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "after"), "r1=DELIVERED");
}

// -- all pairings ---------------------------------------------------------------------------------------------

/// All ways to run a case with these two protocols.
fn runs(from: Kind, to: Kind) -> impl Iterator<Item = Run> {
    let ways = [
        (1, None, false, false),
        (1, Some(1), true, false),
        (3, None, true, false),
        (3, Some(2), false, false),
        (3, Some(3), false, false),
        (1, None, true, true),
        (3, Some(4), false, true),
    ];
    ways.into_iter().map(move |(shards, seed, inline, durable)| Run {
        from,
        to,
        shards,
        seed,
        inline,
        durable,
    })
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
        for (name, story) in stories::STORIES {
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
    python3_to_python3: Python -> Python;
    python3_to_device: Python -> Device;
    python3_to_mqtt_5: Python -> Mqtt5;
    python3_to_mqtt_311: Python -> Mqtt4;
    device_to_python3: Device -> Python;
    mqtt_5_to_python3: Mqtt5 -> Python;
    mqtt_311_to_python3: Mqtt4 -> Python;
}
