//! A stranger who subscribes and misbehaves, a publisher, and a watcher, on one to three shards in one thread. Whatever the
//! stranger does: every publish is answered once and reaches the watcher once and in order, every signal has a receipt that
//! adds up and says that the watcher has it, all comes to rest, and of the stranger nothing is left when its session is over.

use std::collections::VecDeque;
use std::sync::Arc;

use bugle_core::hub::{Credentials, Shard, ShardConfig, Transmit, UserConnections};
use bugle_core::model::{Instant, Limits};
use bugle_core::mqtt::QoS;
use bugle_core::rules::Rules;
use bugle_core::store::WallTime;
use serde_json::Value;

use crate::connection::StrangersConnection;
use crate::party::Party;
use crate::stranger::Stranger;
use crate::{Step, Steps, trace};

/// More than one signal takes at 100 a second.
const BETWEEN_SIGNALS: u64 = 20;
/// Connections of the stranger, and messages of the publisher. More would only take time.
const MOST_CONNECTIONS: u32 = 6;
const MOST_MESSAGES: u32 = 40;
/// Bytes at a time for a socket.
const WRITE: usize = 16 * 1024;
/// Seconds for which a session is kept at most.
const SESSION: u32 = 100;
/// Milliseconds after which nothing is left of a session or a will of the stranger.
const LONG: u64 = 200_000;
/// What the publisher's payloads begin with, which the stranger doesn't know.
const MARK: &[u8] = b"\xC3\x28publisher\xA0\xA1";
const TOPICS: [&str; 4] = ["a/b", "a/c", "a/b/c", "a"];
const WATCHED: [&str; 3] = ["a/#", "sig/g/floor/+", "sig/r/watcher"];

/// Runs one input. Its first byte says how many shards there are, and how the stranger begins.
pub fn run(input: &[u8], stranger: &mut dyn Stranger) {
    let Some((&flags, input)) = input.split_first() else { return };
    let mut parties = Parties::new(1 + u16::from(flags >> 5) % 3, stranger);
    parties.connect_stranger((flags & 1 == 0).then_some(flags >> 2 & 7));
    let mut steps = Steps(input);
    while let Some(step) = steps.next() {
        match step {
            Step::Bytes(bytes) => parties.say(bytes),
            Step::Time(millis) => parties.advance(millis),
            Step::Other(0..6) => parties.reads = !parties.reads,
            Step::Other(6..8) => parties.lose_stranger(),
            Step::Other(way @ 8..16) if parties.connections < MOST_CONNECTIONS => {
                parties.lose_stranger();
                parties.connect_stranger(Some(way & 7));
            }
            Step::Other(16..21) => parties.publish(steps.byte()),
            Step::Other(21..24) => parties.send(steps.byte()),
            Step::Other(number) => {
                let bytes = parties.model.phrase(number, &mut steps);
                parties.say(&bytes);
            }
        }
        parties.pump();
        parties.check();
    }
    parties.end();
}

struct Parties<'a> {
    shards: Vec<Shard>,
    limits: Arc<Limits>,
    now: Instant,
    publisher: Party,
    watcher: Party,
    stranger: StrangersConnection,
    model: &'a mut dyn Stranger,
    /// The stranger takes what is written to it.
    reads: bool,
    connections: u32,
    messages: u32,
    /// What the watcher is still to get: topic and number.
    plain: VecDeque<(String, u32)>,
    signals: VecDeque<u32>,
    /// Receipts that the publisher is still to get.
    receipts: u32,
}

impl<'a> Parties<'a> {
    fn new(count: u16, model: &'a mut dyn Stranger) -> Self {
        let limits = Arc::new(Limits { session_expiry_max: SESSION, ..Limits::default() });
        let users = Arc::new(UserConnections::default());
        let shard = |index| {
            let config = ShardConfig {
                index,
                shards: count,
                limits: limits.clone(),
                prefix: "sig".into(),
                rules: Arc::new(Rules::open()),
                credentials: Arc::new(Credentials::open()),
                users: users.clone(),
                durable: false,
                wall_at_start: WallTime::default(),
            };
            Shard::new(config, Box::new(|bytes| bytes.fill(0x5A)))
        };
        let mut shards: Vec<_> = (0..count).map(shard).collect();
        let now = Instant::from_millis(1000);
        let publisher = Party::new("publisher", &["sig/r/publisher"], &mut shards, now);
        let watcher = Party::new("watcher", &WATCHED, &mut shards, now);
        let mut parties = Self {
            shards,
            limits,
            now,
            publisher,
            watcher,
            stranger: StrangersConnection::over(),
            model,
            reads: true,
            connections: 0,
            messages: 0,
            plain: VecDeque::new(),
            signals: VecDeque::new(),
            receipts: 0,
        };
        parties.pump();
        assert_eq!((parties.publisher.subscribed(), parties.watcher.subscribed()), (1, WATCHED.len()));
        parties
    }

    fn connect_stranger(&mut self, way: Option<u8>) {
        self.connections += 1;
        trace(|| format!("connection {}", self.connections));
        self.stranger = StrangersConnection::default();
        self.model.connected();
        if let Some(way) = way {
            let greeting = self.model.greeting(way);
            self.say(&greeting);
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        if !self.stranger.ended {
            self.model.said(bytes);
            let others = ["publisher", "watcher"];
            self.stranger.say(bytes, &mut self.shards, &self.limits, &others, self.now);
        }
    }

    fn lose_stranger(&mut self) {
        self.stranger.lose(&mut self.shards, self.now);
    }

    fn advance(&mut self, millis: u64) {
        trace(|| format!("{millis} ms pass"));
        self.now = self.now + millis;
        for shard in &mut self.shards {
            shard.handle_time(self.now);
        }
    }

    fn next_payload(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.messages == MOST_MESSAGES {
            return None;
        }
        self.messages += 1;
        Some((self.messages, [MARK, &self.messages.to_be_bytes()].concat()))
    }

    /// The publisher publishes to a plain topic that the watcher watches.
    fn publish(&mut self, bits: u8) {
        let Some((number, payload)) = self.next_payload() else { return };
        let topic = TOPICS[usize::from(bits & 3)];
        let qos = QoS::from_u8(bits >> 2 & 3).unwrap_or(QoS::ExactlyOnce);
        self.publisher.publish(topic, &payload, qos, bits & 0x10 != 0);
        self.plain.push_back((topic.to_owned(), number));
    }

    /// The publisher commands the watcher's group.
    fn send(&mut self, bits: u8) {
        let Some((number, payload)) = self.next_payload() else { return };
        self.advance(BETWEEN_SIGNALS);
        let lists = ["", "&only=watcher", "&only=garbage,watcher,nobody", "&except=garbage"];
        let topic = format!("sig/g/floor?receipt=each{}", lists[usize::from(bits & 3)]);
        let qos = if bits & 4 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        self.publisher.publish(&topic, &payload, qos, false);
        self.signals.push_back(number);
        self.receipts += 1;
    }

    /// Moves everything until nothing moves.
    fn pump(&mut self) {
        let mut turns = 0;
        while self.turn() {
            turns += 1;
            assert!(turns < 100_000, "it never comes to rest");
        }
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            while self.shards[from].poll_dirty(self.now).is_some() {}
            while let Some((to, mut batch)) = self.shards[from].poll_peer() {
                moved = true;
                while !batch.is_empty() {
                    self.shards[usize::from(to)].handle_peer(from as u16, &mut batch, self.now);
                }
            }
        }
        moved |= self.write_stranger();
        moved |= self.stranger.hand_over(&mut self.shards, self.now);
        moved |= self.publisher.turn(&mut self.shards, self.now);
        moved |= self.watcher.turn(&mut self.shards, self.now);
        moved
    }

    fn write_stranger(&mut self) -> bool {
        let Some((shard, key)) = self.stranger.place else { return false };
        let mut moved = false;
        while !self.stranger.ended && self.reads {
            let mut out = Vec::new();
            let transmit = self.shards[shard].poll_transmit(key, &mut out, WRITE, self.now);
            moved |= !out.is_empty();
            self.model.hears(&out);
            match transmit {
                Transmit::More => {}
                Transmit::Drained => break,
                Transmit::Close => {
                    self.shards[shard].handle_closed(key, self.now);
                    self.stranger.ended = true;
                    moved = true;
                }
            }
        }
        moved
    }

    /// What publisher and watcher have got: each message once and in order.
    fn check(&mut self) {
        for got in std::mem::take(&mut self.watcher.got) {
            let number = got
                .payload
                .strip_prefix(MARK)
                .and_then(|rest| Some(u32::from_be_bytes(rest.try_into().ok()?)));
            // The stranger publishes as well.
            let Some(number) = number else { continue };
            if got.topic == "sig/g/floor/publisher" {
                assert_eq!(Some(number), self.signals.pop_front(), "signals to the watcher, in order");
            } else {
                assert_eq!(
                    Some((got.topic, number)),
                    self.plain.pop_front(),
                    "messages to the watcher, in order"
                );
            }
        }
        for got in std::mem::take(&mut self.publisher.got) {
            assert_eq!(got.topic, "sig/r/publisher");
            let notice: Value = serde_json::from_slice(&got.payload).expect("a notice is JSON");
            assert_eq!((&notice["type"], &notice["final"]), (&"receipt".into(), &true.into()), "{notice}");
            let statuses = notice["statuses"].as_object().expect("each was asked for");
            let counts = notice["counts"].as_object().expect("counts");
            let total: u64 = counts.values().map(|count| count.as_u64().expect("a count")).sum();
            assert_eq!(statuses.len() as u64, total, "{notice}");
            assert_eq!(statuses["watcher"], "DELIVERED", "{notice}");
            self.receipts -= 1;
        }
        assert!(self.publisher.is_answered(), "the stranger holds up an answer");
        assert!(self.plain.is_empty() && self.signals.is_empty(), "the stranger holds up the watcher");
    }

    /// The stranger goes, and in the end there is nothing left of it.
    fn end(&mut self) {
        self.reads = true;
        self.pump();
        self.lose_stranger();
        self.pump();
        self.advance(LONG);
        self.pump();
        self.publish(0b1000);
        self.send(0);
        self.pump();
        self.check();
        assert_eq!(self.receipts, 0, "a receipt for each signal");
        let sum = |count: fn(&Shard) -> u64| self.shards.iter().map(count).sum::<u64>();
        assert_eq!(sum(|shard| shard.counters().clients), 2, "connections");
        assert_eq!(sum(|shard| shard.counters().sessions_away), 0, "sessions without one");
    }
}
