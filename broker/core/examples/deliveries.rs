//! Loads shards in one thread, without sockets or a clock, for an instruction counter to look at: `tests/instructions`
//! runs it under callgrind, and compares what a delivery takes with what it took before.
//!
//! `deliveries CASE ROUNDS` prints how many deliveries the measured rounds made. What is measured is what happens in
//! [`Gateway::measured_turn`], and nothing else.

use std::process::ExitCode;
use std::sync::Arc;

use bugle_core::hub::{
    ConnectionKey, Credentials, PeerBatch, Shard, ShardConfig, Transmit, UserConnections, owner,
};
use bugle_core::model::{Instant, Limits};
use bugle_core::rules::{Rules, RulesSource};
use bugle_core::session::Protocol;
use bugle_core::store::WallTime;

/// Bytes of a payload.
const PAYLOAD: usize = 64;
/// Rounds before the measured ones.
const WARM_UP: usize = 3;
/// A read of a client's bytes, and about what a session gives at a time, in bytes.
const CHUNK: usize = 16 * 1024;

/// What there is to measure.
struct Case {
    name: &'static str,
    shards: u16,
    senders: usize,
    /// To each of the senders' topics, groups or inboxes.
    recipients: usize,
    /// Messages of a sender that arrive together.
    window: usize,
    qos: u8,
    kind: Kind,
    rules: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Topic,
    Group,
    Inbox,
    /// Only so many of the group.
    Only(usize),
}

const fn fanout(name: &'static str, shards: u16, qos: u8, kind: Kind) -> Case {
    Case { name, shards, senders: 1, recipients: 200, window: 16, qos, kind, rules: false }
}

const fn pairs(name: &'static str, shards: u16, qos: u8, kind: Kind) -> Case {
    Case { name, shards, senders: 20, recipients: 1, window: 64, qos, kind, rules: false }
}

const CASES: &[Case] = &[
    fanout("fanout-qos0", 1, 0, Kind::Topic),
    fanout("fanout-qos1", 1, 1, Kind::Topic),
    fanout("fanout-qos0-2shards", 2, 0, Kind::Topic),
    fanout("fanout-qos1-2shards", 2, 1, Kind::Topic),
    pairs("pairs-qos0", 1, 0, Kind::Topic),
    pairs("pairs-qos1", 1, 1, Kind::Topic),
    pairs("pairs-qos0-2shards", 2, 0, Kind::Topic),
    pairs("pairs-qos1-2shards", 2, 1, Kind::Topic),
    fanout("signals-fanout-qos0", 1, 0, Kind::Group),
    Case { rules: true, ..fanout("signals-fanout-qos0-rules", 1, 0, Kind::Group) },
    fanout("signals-fanout-qos0-2shards", 2, 0, Kind::Group),
    pairs("signals-pairs-qos0", 1, 0, Kind::Inbox),
    Case { rules: true, ..pairs("signals-pairs-qos0-rules", 1, 0, Kind::Inbox) },
    pairs("signals-pairs-qos1", 1, 1, Kind::Inbox),
    pairs("signals-pairs-qos0-2shards", 2, 0, Kind::Inbox),
    fanout("signals-only-8", 1, 0, Kind::Only(8)),
    fanout("signals-only-128", 1, 0, Kind::Only(128)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let case = arguments.first().and_then(|name| CASES.iter().find(|case| case.name == name));
    let rounds = arguments.get(1).and_then(|rounds| rounds.parse().ok());
    let (Some(case), Some(rounds)) = (case, rounds) else {
        for case in CASES {
            println!("{}", case.name);
        }
        return if arguments.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    let mut load = Load::new(case);
    for _ in 0..WARM_UP {
        load.round(false);
    }
    let before = load.deliveries;
    for _ in 0..rounds {
        load.round(true);
    }
    let deliveries = load.deliveries - before;
    assert_eq!(deliveries, case.expected() * rounds, "deliveries of {rounds} rounds");
    println!("{deliveries}");
    ExitCode::SUCCESS
}

impl Case {
    /// Deliveries in a round.
    fn expected(&self) -> usize {
        let each = if let Kind::Only(listed) = self.kind { listed } else { self.recipients };
        self.senders * self.window * each
    }

    fn topic(&self, sender: usize) -> String {
        match self.kind {
            Kind::Topic => format!("bench/plain/{sender}"),
            Kind::Group => format!("sig/g/group-{sender}"),
            Kind::Inbox => format!("sig/c/recipient-{sender}-0"),
            Kind::Only(listed) => {
                let ids: Vec<_> = (0..listed).map(|at| format!("recipient-{sender}-{at}")).collect();
                format!("sig/g/group-{sender}?only={}", ids.join(","))
            }
        }
    }

    fn filter(&self, sender: usize, recipient: usize) -> String {
        match self.kind {
            Kind::Topic => format!("bench/plain/{sender}"),
            Kind::Group | Kind::Only(_) => format!("sig/g/group-{sender}"),
            Kind::Inbox => format!("sig/c/recipient-{sender}-{recipient}"),
        }
    }

    /// As an installation might have them, none of which decides for these clients before the last of its kind.
    fn rules(&self) -> Rules {
        if !self.rules {
            return Rules::open();
        }
        let source: RulesSource = serde_json::from_value(serde_json::json!({"default": "deny", "rule": [
            {"effect": "deny", "actions": ["send", "receive"], "clients": ["guest-*"]},
            {"effect": "deny", "actions": ["publish"], "topics": ["system/#"]},
            {"effect": "allow", "clients": ["operator"]},
            {"effect": "allow", "actions": ["send"], "clients": ["switch-*"], "groups": ["floor*"]},
            {"effect": "allow", "actions": ["connect", "join", "receive"], "clients": ["recipient-*", "sender-*"]},
            {"effect": "allow", "actions": ["send"], "clients": ["sender-*"], "groups": ["group-*"], "to": ["recipient-*"]},
        ]}))
        .expect("these are rules");
        Rules::compile(&source).expect("these are rules")
    }
}

/// One end of a connection, and the shard that owns it.
struct Client {
    shard: usize,
    key: ConnectionKey,
    /// What the gateway wrote.
    received: Vec<u8>,
}

struct Load {
    gateway: Gateway,
    senders: Vec<usize>,
    /// What each sender writes in a round.
    batches: Vec<Vec<u8>>,
    /// What clients write next.
    inputs: Vec<(usize, Vec<u8>)>,
    deliveries: usize,
}

impl Load {
    fn new(case: &Case) -> Self {
        let mut gateway = Gateway::new(case);
        let mut senders = Vec::new();
        for sender in 0..case.senders {
            let client = gateway.connect(&format!("sender-{sender}"));
            if case.kind != Kind::Topic {
                // As senders of signals do, to hear of refusals.
                gateway.turn(&[(client, subscribe(&format!("sig/r/sender-{sender}"), 0))]);
            }
            senders.push(client);
            for recipient in 0..case.recipients {
                let client = gateway.connect(&format!("recipient-{sender}-{recipient}"));
                gateway.turn(&[(client, subscribe(&case.filter(sender, recipient), case.qos))]);
            }
        }
        for client in &mut gateway.clients {
            assert!(!client.received.is_empty(), "a client was not let in");
            client.received.clear();
        }
        let batch = |sender: usize| {
            let topic = case.topic(sender);
            let number = |at: usize| u16::try_from(at + 1).expect("a small window");
            (0..case.window).flat_map(|at| publish(&topic, case.qos, number(at))).collect()
        };
        let batches = (0..case.senders).map(batch).collect();
        Self { gateway, senders, batches, inputs: Vec::new(), deliveries: 0 }
    }

    /// All senders' messages go in, and what comes of them, until nothing does.
    fn round(&mut self, is_measured: bool) {
        self.gateway.now = self.gateway.now + 1000;
        self.inputs = self.senders.iter().copied().zip(self.batches.iter().cloned()).collect();
        while !self.inputs.is_empty() {
            if is_measured {
                self.gateway.measured_turn(&self.inputs);
            } else {
                self.gateway.turn(&self.inputs);
            }
            self.inputs.clear();
            for (index, client) in self.gateway.clients.iter_mut().enumerate() {
                let acks = read(&mut client.received, &mut self.deliveries);
                if !acks.is_empty() {
                    self.inputs.push((index, acks));
                }
            }
        }
    }
}

/// Shards and clients, with the loop that a process has around them.
struct Gateway {
    shards: Vec<Shard>,
    clients: Vec<Client>,
    /// The client of a connection, by shard.
    owners: Vec<slotmap::SecondaryMap<ConnectionKey, usize>>,
    scratch: Vec<u8>,
    now: Instant,
}

impl Gateway {
    fn new(case: &Case) -> Self {
        let limits = Limits { rate: 1_000_000, ..Limits::default() };
        let (limits, rules) = (Arc::new(limits), Arc::new(case.rules()));
        let users = Arc::new(UserConnections::default());
        let shard = |index| {
            let config = ShardConfig {
                index,
                shards: case.shards,
                limits: limits.clone(),
                prefix: "sig".into(),
                rules: rules.clone(),
                credentials: Arc::new(Credentials::default()),
                users: users.clone(),
                durable: false,
                wall_at_start: WallTime::default(),
            };
            Shard::new(config, Box::new(|bytes| bytes.fill(7)))
        };
        Self {
            shards: (0..case.shards).map(shard).collect(),
            clients: Vec::new(),
            owners: (0..case.shards).map(|_| slotmap::SecondaryMap::new()).collect(),
            scratch: Vec::with_capacity(2 * CHUNK),
            now: Instant::from_millis(1000),
        }
    }

    fn connect(&mut self, id: &str) -> usize {
        let shard = usize::from(owner(id, self.shards.len() as u16));
        let key = self.shards[shard].open(Protocol::Mqtt, self.now);
        self.owners[shard].insert(key, self.clients.len());
        self.clients.push(Client { shard, key, received: Vec::new() });
        self.turn(&[(self.clients.len() - 1, connect(id))]);
        self.clients.len() - 1
    }

    /// What [`turn`](Self::turn) does, by a name that an instruction counter can be told.
    #[inline(never)]
    fn measured_turn(&mut self, inputs: &[(usize, Vec<u8>)]) {
        self.turn(inputs);
    }

    /// A wake-up of all shards: bytes in, and whatever comes of them.
    fn turn(&mut self, inputs: &[(usize, Vec<u8>)]) {
        for (client, bytes) in inputs {
            let Client { shard, key, .. } = self.clients[*client];
            for chunk in bytes.chunks(CHUNK) {
                self.shards[shard].handle_bytes(key, chunk, self.now);
            }
        }
        loop {
            let mut is_idle = true;
            for from in 0..self.shards.len() {
                while let Some((to, mut batch)) = self.poll_peer(from) {
                    is_idle = false;
                    while !batch.is_empty() {
                        self.shards[usize::from(to)].handle_peer(from as u16, &mut batch, self.now);
                    }
                }
                while let Some(key) = self.shards[from].poll_dirty(self.now) {
                    is_idle = false;
                    self.flush(from, key);
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn poll_peer(&mut self, from: usize) -> Option<(u16, PeerBatch)> {
        self.shards[from].poll_peer()
    }

    fn flush(&mut self, shard: usize, key: ConnectionKey) {
        let client = self.owners[shard][key];
        loop {
            self.scratch.clear();
            let transmit = self.shards[shard].poll_transmit(key, &mut self.scratch, CHUNK, self.now);
            self.clients[client].received.extend_from_slice(&self.scratch);
            if transmit != Transmit::More {
                return;
            }
        }
    }
}

/// Counts the deliveries in what a client received, and gives what it answers.
fn read(received: &mut Vec<u8>, deliveries: &mut usize) -> Vec<u8> {
    let mut acks = Vec::new();
    let mut rest = &received[..];
    while let Some((&first, _)) = rest.split_first() {
        // All packets here are shorter than 16 KiB.
        let (length, header) = match (rest[1], rest.get(2)) {
            (low @ 0..128, _) => (usize::from(low), 2),
            (low, Some(&high)) => (usize::from(low - 128) | usize::from(high) << 7, 3),
            _ => unreachable!("a packet of one byte"),
        };
        let packet = &rest[header..header + length];
        rest = &rest[header + length..];
        if first >> 4 == 3 {
            *deliveries += 1;
            if first & 0b110 != 0 {
                let topic = usize::from(packet[0]) << 8 | usize::from(packet[1]);
                acks.extend_from_slice(&[0x40, 2, packet[2 + topic], packet[3 + topic]]);
            }
        }
    }
    received.clear();
    acks
}

fn connect(id: &str) -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &*string(id)].concat())
}

fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1], &*string(filter), &[qos]].concat())
}

fn publish(topic: &str, qos: u8, number: u16) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(&[b'x'; PAYLOAD]);
    packet(0x30 | qos << 1, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    if body.len() < 128 {
        packet.push(body.len() as u8);
    } else {
        packet.extend_from_slice(&[(body.len() % 128) as u8 | 128, (body.len() / 128) as u8]);
    }
    packet.extend_from_slice(body);
    packet
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
