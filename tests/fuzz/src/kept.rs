//! A gateway that starts with what a store holds, and the clients of whom that speaks: they come, get what there is for them,
//! and go.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use bugle_core::backbone::RetainedVersion;
use bugle_core::hub::{ConnectionKey, Credentials, Shard, ShardConfig, Transmit, UserConnections, owner};
use bugle_core::model::{ClientId, GroupName, Identity, Instant, Limits, Message, Mode, Origin, QoS};
use bugle_core::rules::Rules;
use bugle_core::session::Protocol;
use bugle_core::store::{
    BatchNumber, MemoryStore, MessageNumber, RecordKind, Sequence, Stage, StoreBatch, StoreOperation,
    WallTime,
};
use bugle_protocol::{Frame, Hello, VERSION};

/// Two shards, so that some of it is for the other.
const SHARDS: u16 = 2;
/// The wall's time when it starts.
const STARTED: u64 = 1_000_000_000;
/// Clients that come.
const CLIENTS: usize = 4;

/// What an input's lines put into a store:
///
/// ```text
/// KIND OWNER KEY VALUE EXPIRES     a record of this kind
/// q CLIENT SEQUENCE ENTRY ID TOPIC a queued message; with a packet identifier one that was written; to a topic, or from `c:SENDER`
/// r TOPIC PAYLOAD                  a retained message
/// ```
pub fn operations(input: &str) -> Vec<StoreOperation> {
    let mut operations = Vec::new();
    for (index, line) in input.lines().take(64).enumerate() {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        let first = next();
        let number = MessageNumber::new(index as u64, 0);
        if let Some(kind) = RecordKind::ALL.into_iter().find(|kind| kind.as_str() == first) {
            let (owner, key, value) = (next().into(), next().into(), next().to_owned());
            let expires = next().parse().ok().map(WallTime);
            operations.push(StoreOperation::PutRecord { kind, owner, key, value, expires });
        } else if first == "q" {
            let client = Identity::new(next());
            let sequence = Sequence(next().parse().unwrap_or(1));
            let entry = next().to_owned();
            let packet_id = next().parse().ok().and_then(NonZeroU16::new);
            let Some(origin) = origin(next()) else { continue };
            let expires = next().parse().ok().map(WallTime);
            let qos = if entry.contains("\"qos\":2") { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            let message = Arc::new(message(origin, line, qos));
            operations.push(StoreOperation::PutMessage { number, message, expires });
            operations.push(StoreOperation::Enqueue {
                client: client.clone(),
                sequence,
                message: number,
                entry,
            });
            let stage = Stage { packet_id, released: packet_id.is_some() && line.ends_with('!') };
            operations.push(StoreOperation::SetStage { client, sequence, stage });
        } else if first == "r" {
            let topic: Arc<str> = next().into();
            let origin =
                Origin::Topic { topic: topic.clone(), publisher: Identity::new("publisher"), retain: true };
            let message = Arc::new(message(origin, next(), QoS::AtLeastOnce));
            let version = RetainedVersion { number: index as u64, shard: 0 };
            operations.push(StoreOperation::PutRetained { topic, version, message, expires: None });
        }
    }
    operations
}

fn origin(text: &str) -> Option<Origin> {
    Some(match text.split_once(':') {
        Some(("c", sender)) => Origin::Signal {
            sender: ClientId::new(sender)?,
            group: None,
            client: ClientId::new("lamp"),
            mode: Mode::One,
        },
        Some(("g", sender)) => Origin::Signal {
            sender: ClientId::new(sender)?,
            group: GroupName::new("floor"),
            client: None,
            mode: Mode::All,
        },
        _ => Origin::Topic { topic: text.into(), publisher: Identity::new("publisher"), retain: false },
    })
}

fn message(origin: Origin, payload: &str, qos: QoS) -> Message {
    let payload = payload.as_bytes().to_vec().into();
    Message { origin, payload, properties: Default::default(), qos, deadline: None, urgent: false }
}

/// Starts a gateway with what these left in the store, has its clients come and go; gives the records that it has written, and
/// how many it couldn't read.
pub fn run(operations: &[StoreOperation]) -> (Vec<StoreOperation>, u64) {
    let mut gateway = Gateway::new(operations);
    let named = operations.iter().filter_map(|operation| match operation {
        StoreOperation::PutRecord { owner, .. } => Some(owner.to_string()),
        StoreOperation::Enqueue { client, .. } => Some(client.as_str().to_owned()),
        _ => None,
    });
    let clients: BTreeSet<String> =
        named.filter(|name| (1..=64).contains(&name.len())).take(CLIENTS).collect();
    for (index, client) in clients.iter().enumerate() {
        // Each protocol goes on with what another has left.
        let ways = [Protocol::Mqtt, Protocol::Device, Protocol::Mqtt];
        for (turn, protocol) in ways.into_iter().enumerate().skip(index % 2) {
            gateway.visit(client, protocol, turn);
        }
    }
    gateway.advance(200_000_000);
    let unread = gateway.shards.iter().map(|shard| shard.counters().records_unread).sum();
    (gateway.written, unread)
}

struct Gateway {
    shards: Vec<Shard>,
    store: MemoryStore,
    now: Instant,
    written: Vec<StoreOperation>,
}

impl Gateway {
    fn new(operations: &[StoreOperation]) -> Self {
        let mut store = MemoryStore::default();
        store.commit(StoreBatch { number: BatchNumber(0), operations: operations.to_vec(), bytes: 0 });
        let users = Arc::new(UserConnections::default());
        let shards = (0..SHARDS).map(|index| {
            let config = ShardConfig {
                index,
                shards: SHARDS,
                limits: Arc::new(Limits::default()),
                prefix: "sig".into(),
                rules: Arc::new(Rules::open()),
                credentials: Arc::new(Credentials::open()),
                users: users.clone(),
                durable: true,
                wall_at_start: WallTime(STARTED),
            };
            Shard::new(config, Box::new(|bytes| bytes.fill(0x5A)))
        });
        let shards = shards.collect();
        let mut gateway = Self { shards, store, now: Instant::from_millis(1000), written: Vec::new() };
        for index in 0..SHARDS {
            for restored in gateway.store.restore(index, SHARDS, WallTime(STARTED)) {
                gateway.shards[usize::from(index)].handle_restored(restored, gateway.now);
            }
        }
        gateway.settle();
        gateway
    }

    /// A client comes, hears what there is, and goes.
    fn visit(&mut self, client: &str, protocol: Protocol, turn: usize) {
        let shard = usize::from(owner(client, SHARDS));
        let key = self.shards[shard].open(protocol, self.now);
        let hello = match protocol {
            Protocol::Mqtt => connect(client, if turn == 0 { 5 } else { 4 }),
            Protocol::Device => {
                let Some(_) = ClientId::new(client) else { return };
                let frame = Frame::Hello(Hello {
                    version: VERSION,
                    keep_alive: 0,
                    max_body: 9000,
                    window: 8,
                    names: 8,
                    session_expiry: 60,
                    client_id: client,
                    resume: None,
                    will: None,
                });
                let mut bytes = vec![0; frame.encoded_len()];
                frame.encode(&mut bytes).map(|_| bytes).unwrap_or_default()
            }
        };
        self.shards[shard].handle_bytes(key, &hello, self.now);
        self.settle();
        let is_open = self.read(shard, key);
        self.advance(1500);
        if is_open {
            self.shards[shard].handle_closed(key, self.now);
        }
        self.settle();
        self.advance(1500);
    }

    /// Takes what there is for a connection. False: it is over.
    fn read(&mut self, shard: usize, key: ConnectionKey) -> bool {
        let mut out = Vec::new();
        for _ in 0..16 {
            out.clear();
            match self.shards[shard].poll_transmit(key, &mut out, 4096, self.now) {
                Transmit::Close => {
                    self.shards[shard].handle_closed(key, self.now);
                    return false;
                }
                Transmit::Drained => break,
                Transmit::More => {}
            }
            self.settle();
        }
        true
    }

    fn advance(&mut self, millis: u64) {
        self.now = self.now + millis;
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_time(self.now);
        }
        self.settle();
    }

    /// Carries what shards have for each other and for the store.
    fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 1000, "shards and store never come to rest");
            let mut is_quiet = true;
            for index in 0..self.shards.len() {
                while let Some((to, mut batch)) = self.shards[index].poll_peer() {
                    is_quiet = false;
                    while !batch.is_empty() {
                        self.shards[usize::from(to)].handle_peer(index as u16, &mut batch, self.now);
                    }
                }
                if let Some(batch) = self.shards[index].poll_store() {
                    is_quiet = false;
                    let records = batch.operations.iter();
                    let records = records.filter(|one| matches!(one, StoreOperation::PutRecord { .. }));
                    self.written.extend(records.cloned());
                    for event in self.store.commit(batch) {
                        self.shards[index].handle_store(event, self.now);
                    }
                }
                while self.shards[index].poll_dirty(self.now).is_some() {}
            }
            if is_quiet {
                return;
            }
        }
    }
}

/// A CONNECT that goes on with a session, and wants to keep it.
fn connect(client: &str, version: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[5, 0x11, 0, 0, 0x0E, 0x10] } else { &[] };
    let id = [&(client.len() as u16).to_be_bytes(), client.as_bytes()].concat();
    let body = [&b"\0\x04MQTT"[..], &[version, 0, 0, 60], properties, &id].concat();
    [&[0x10, body.len() as u8][..], &body].concat()
}
