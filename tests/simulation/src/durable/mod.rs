//! Runs with a durable store: its commits come late, shard by shard, or not at all for a while; it can be full; the gateway is killed
//! between any two steps with what it hadn't committed, and another one starts from what was. MQTT clients of both versions with
//! sessions that last publish, subscribe and send stored signals meanwhile; [`promises`] knows what they were promised.

mod client;
mod promises;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bugle_core::hub::{ConnectionKey, Shard, Transmit, owner};
use bugle_core::model::Limits;
use bugle_core::mqtt::Version;
use bugle_core::rules::{Rules, RulesSource};
use bugle_core::session::Protocol;
use bugle_core::store::{MemoryStore, RecordKind, StoreBatch, StoreEvent, WallTime};
use serde_json::json;

use self::client::{Client, Event};
use self::promises::{Kind, Promises};
use crate::Outcome;
use crate::gateway::{Gateway, Setup};
use crate::plan::client_id;
use crate::random::Random;
use crate::trace::{Trace, Wanted};

/// The wall clock at the world's moment 0.
const WALL: u64 = 1_800_000_000_000;
/// Moves until all is quiet, at most.
const MOST_MOVES: usize = 100_000;

/// A connection.
struct Link {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    shard: usize,
    key: ConnectionKey,
    wanted: bool,
    writable: bool,
    /// The gateway has closed it.
    closed: bool,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Connect(usize),
    Pump(usize),
    Acknowledge(usize),
    Read(usize),
    Write(usize),
    ClientRead(usize),
    Peer(usize),
    Forward(usize),
    Timer(usize),
    Commit(usize),
    Restart,
}

struct World {
    random: Random,
    trace: Trace,
    step: u64,
    at: u64,
    shards: u16,
    /// Clients whose sessions last: the first so many.
    lasting: usize,
    limits: Arc<Limits>,
    rules: Arc<Rules>,
    gateway: Option<Gateway>,
    touched: Vec<bool>,
    store: MemoryStore,
    uncommitted: Vec<VecDeque<StoreBatch>>,
    stuck: bool,
    full: bool,
    clients: Vec<Client>,
    links: Vec<Option<Link>>,
    /// How often each was let in.
    connections: Vec<u32>,
    promises: Promises,
    with_shares: bool,
    /// Who asks for what is retained at the end, and got this, by sender.
    newcomer: Option<usize>,
    retained: BTreeMap<usize, u32>,
}

/// Runs one seed to its end, or to the first broken promise.
pub fn run(seed: u64, wanted: Wanted) -> Outcome {
    let mut random = Random(seed ^ 0x5D0E);
    let shards = random.between(1, 3) as u16;
    let count = random.between(2, 5);
    let steps = random.between(200, 2500);
    let (may_fill, may_kill) = (random.chance(1, 4), random.chance(7, 8));
    // The last one's session ends with its connection: the store isn't to know of it.
    let lasting = if count < 3 { count } else { count - 1 };
    let clients: Vec<_> = (0..count)
        .map(|me| {
            let version = if random.chance(1, 2) { Version::V5 } else { Version::V311 };
            let qos = random.between(1, 2) as u8;
            Client::new(me, version, qos, me < lasting)
        })
        .collect();
    let qos = clients.iter().map(|client| client.qos).collect();
    let names: Vec<_> = (0..lasting).map(client_id).collect();
    let source = json!({"group": [{"name": "g", "members": names}]});
    let rules = serde_json::from_value::<RulesSource>(source)
        .map_err(|error| error.to_string())
        .and_then(|source| Rules::compile(&source).map_err(|fault| fault.to_string()));
    let mut trace = Trace::new(wanted);
    trace.line(|| format!("seed {seed}: durable, {shards} shards, {count} clients, {steps} steps"));
    let rules = match rules {
        Ok(rules) => Arc::new(rules),
        Err(error) => return outcome(seed, &trace, vec![error]),
    };
    let mut limits = Limits { rate: 1000, ..Limits::default() };
    if random.chance(1, 3) {
        limits.mailbox_messages = random.between(4, 20);
    }
    if random.chance(1, 4) {
        (limits.bulk_recipients, limits.bulk_unwritten) = (random.below(3), random.between(1, 3));
    }
    let mut world = World {
        with_shares: random.chance(1, 3),
        random,
        trace,
        step: 0,
        at: 1000,
        shards,
        lasting,
        limits: Arc::new(limits),
        rules,
        gateway: None,
        touched: vec![false; shards.into()],
        store: MemoryStore::default(),
        uncommitted: (0..shards).map(|_| VecDeque::new()).collect(),
        stuck: false,
        full: false,
        links: clients.iter().map(|_| None).collect(),
        connections: vec![0; clients.len()],
        clients,
        promises: Promises::new(qos),
        newcomer: None,
        retained: BTreeMap::new(),
    };
    world.promises.is_narrow = world.limits.mailbox_messages < 100;
    world.restart();
    for _ in 0..steps {
        if !world.promises.violations.is_empty() {
            break;
        }
        match world.random.below(1000) {
            0..60 => world.send(),
            60..90 => {
                let millis = world.random.between(1, 200);
                world.pass(millis as u64);
            }
            90..96 => world.cut(),
            96..100 if may_kill => world.kill(),
            100..106 => {
                world.stuck = !world.stuck;
                let stuck = world.stuck;
                world.say(|| format!("the store is stuck: {stuck}"));
            }
            106..109 if may_fill => {
                let full = !world.full;
                world.fill(full);
            }
            _ => {
                world.move_something();
            }
        }
    }
    world.finale();
    let messages = world.promises.messages.len();
    let deliveries = world.promises.deliveries;
    let violations = std::mem::take(&mut world.promises.violations);
    Outcome {
        steps: world.step,
        messages,
        deliveries,
        lines: world.trace.lines().map(str::to_owned).collect(),
        ..outcome(seed, &world.trace, violations)
    }
}

fn outcome(seed: u64, trace: &Trace, violations: Vec<String>) -> Outcome {
    Outcome { seed, hash: trace.hash(), violations, steps: 0, messages: 0, deliveries: 0, lines: Vec::new() }
}

impl World {
    fn say(&mut self, line: impl FnOnce() -> String) {
        self.step += 1;
        let (step, at) = (self.step, self.at);
        self.trace.number(step);
        self.trace.line(|| format!("{step:6} {at:7} ms  {}", line()));
    }

    // -- what moves ---------------------------------------------------------------------------------------

    fn move_something(&mut self) -> bool {
        let moves = self.moves();
        let Some(&chosen) = self.random.pick(&moves) else { return false };
        match chosen {
            Move::Connect(client) => self.connect(client),
            Move::Pump(client) => self.pump(client),
            Move::Acknowledge(client) => {
                let count = self.random.between(1, 4);
                self.clients[client].acknowledge(count);
            }
            Move::Read(client) => self.read(client),
            Move::Write(client) => self.write(client),
            Move::ClientRead(client) => self.client_reads(client),
            Move::Peer(way) => self.peer(way),
            Move::Forward(shard) => {
                self.touched[shard] = false;
                if let Some(gateway) = &mut self.gateway {
                    gateway.forward(shard);
                }
            }
            Move::Timer(shard) => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.pass_time(shard, self.at);
                }
                self.after(shard);
            }
            Move::Commit(shard) => self.commit(shard),
            Move::Restart => self.restart(),
        }
        true
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let Some(gateway) = &self.gateway else { return vec![Move::Restart] };
        moves.extend(gateway.ways().map(Move::Peer));
        let now = gateway.now(self.at);
        for (index, shard) in gateway.shards.iter().enumerate() {
            if self.touched[index] {
                moves.push(Move::Forward(index));
            }
            if shard.deadline().is_some_and(|deadline| deadline <= now) {
                moves.push(Move::Timer(index));
            }
            if !self.stuck && !self.full && !self.uncommitted[index].is_empty() {
                moves.push(Move::Commit(index));
            }
        }
        let is_serving =
            !gateway.shards.iter().any(Shard::awaits_peers) || self.links.iter().any(Option::is_some);
        for (index, client) in self.clients.iter().enumerate() {
            let Some(link) = &self.links[index] else {
                if is_serving {
                    moves.push(Move::Connect(index));
                }
                continue;
            };
            let (writes, owes) = client.wants();
            if writes {
                moves.push(Move::Pump(index));
            }
            if owes {
                moves.push(Move::Acknowledge(index));
            }
            if !link.up.is_empty() && link.wanted && !link.closed {
                moves.push(Move::Read(index));
            }
            if link.writable && !link.closed {
                moves.push(Move::Write(index));
            }
            if !link.down.is_empty() || link.closed {
                moves.push(Move::ClientRead(index));
            }
        }
        moves
    }

    /// Collects what a shard that did something has for its connections and the store.
    fn after(&mut self, shard: usize) {
        let Some(gateway) = &mut self.gateway else { return };
        self.touched[shard] = true;
        let now = gateway.now(self.at);
        let core = &mut gateway.shards[shard];
        // First what is to be written: it may be the turn of a send to many, which has something for the store.
        while let Some(key) = core.poll_dirty(now) {
            let link = self.links.iter_mut().flatten().find(|link| link.shard == shard && link.key == key);
            if let Some(link) = link {
                link.writable = true;
                link.wanted = core.wants_bytes(key);
            }
        }
        while let Some(batch) = core.poll_store() {
            self.uncommitted[shard].push_back(batch);
        }
    }

    fn connect(&mut self, client: usize) {
        let id = client_id(client);
        let shard = usize::from(owner(&id, self.shards));
        let Some(gateway) = &mut self.gateway else { return };
        let now = gateway.now(self.at);
        let key = gateway.shards[shard].open(Protocol::Mqtt, now);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.links[client] =
            Some(Link { up, down, shard, key, wanted: true, writable: false, closed: false });
        self.clients[client].connect();
        self.say(|| format!("{id} connects"));
    }

    fn pump(&mut self, client: usize) {
        let bytes = self.clients[client].pump();
        if let Some(link) = &mut self.links[client] {
            link.up.extend(&bytes);
        }
        self.say(|| format!("{} writes {} bytes", client_id(client), bytes.len()));
    }

    fn read(&mut self, client: usize) {
        let (Some(gateway), Some(link)) = (&mut self.gateway, &mut self.links[client]) else { return };
        let there = link.up.len();
        let count = if self.random.chance(2, 3) { there } else { self.random.between(1, there) };
        let bytes: Vec<u8> = link.up.drain(..count).collect();
        let now = gateway.now(self.at);
        let core = &mut gateway.shards[link.shard];
        core.handle_bytes(link.key, &bytes, now);
        link.wanted = core.wants_bytes(link.key);
        let shard = link.shard;
        self.trace.bytes(&bytes);
        self.say(|| format!("shard {shard} reads {count} bytes of {}", client_id(client)));
        self.after(shard);
    }

    fn write(&mut self, client: usize) {
        let (Some(gateway), Some(link)) = (&mut self.gateway, &mut self.links[client]) else { return };
        let mut out = Vec::new();
        let limit = if self.random.chance(1, 2) { 64 } else { 16 * 1024 };
        let now = gateway.now(self.at);
        let transmit = gateway.shards[link.shard].poll_transmit(link.key, &mut out, limit, now);
        link.writable = transmit == Transmit::More;
        link.wanted = gateway.shards[link.shard].wants_bytes(link.key);
        link.down.extend(&out);
        let shard = link.shard;
        if transmit == Transmit::Close {
            link.closed = true;
            gateway.shards[shard].handle_closed(link.key, now);
        }
        self.trace.bytes(&out);
        self.say(|| {
            format!("shard {shard} writes {} bytes to {} ({transmit:?})", out.len(), client_id(client))
        });
        self.after(shard);
    }

    fn client_reads(&mut self, client: usize) {
        let Some(link) = &mut self.links[client] else { return };
        if link.down.is_empty() {
            self.links[client] = None;
            self.clients[client].lost();
            return self.say(|| format!("{} hears that its connection is closed", client_id(client)));
        }
        let there = link.down.len();
        let count = if self.random.chance(2, 3) { there } else { self.random.between(1, there) };
        let bytes: Vec<u8> = link.down.drain(..count).collect();
        self.clients[client].feed(&bytes);
        self.hear(client);
    }

    fn hear(&mut self, client: usize) {
        for event in std::mem::take(&mut self.clients[client].events) {
            self.say(|| format!("{}: {event:?}", client_id(client)));
            match event {
                Event::In { present } => {
                    let count = &mut self.connections[client];
                    *count += 1;
                    // It is promised from its first confirmed subscription on.
                    if !present && self.promises.is_subscribed(client) {
                        self.promises.violated(format!("the session of {} is gone", client_id(client)));
                    }
                }
                Event::Subscribed => {
                    if self.lasts(client) {
                        self.promises.subscribed(client);
                    }
                }
                Event::Answered { number, refused } => {
                    // Before version 5 a refused signal is acknowledged, and a notice says so.
                    let is_mute = self.clients[client].version != Version::V5 && self.promises.was_refusing;
                    self.promises.answered(number, refused, is_mute);
                }
                Event::Repeated(number) => self.promises.repeated(number),
                Event::Got { topic, number, .. } if self.newcomer == Some(client) => {
                    let sender = (0..client).find(|sender| topic == format!("r/{}", client_id(*sender)));
                    self.retained.extend(sender.map(|sender| (sender, number)));
                }
                Event::Got { topic, number, dup } if self.lasts(client) => {
                    let connections = self.connections[client];
                    self.promises.got(client, &topic, number, dup, connections);
                }
                Event::Got { number, .. } => self.promises.got_of_share(client, number),
                Event::Notice(notice) => {
                    let number = notice["id"].as_str().and_then(|id| id.strip_prefix('m')?.parse().ok());
                    if let (Some("receipt"), Some(number)) = (notice["type"].as_str(), number)
                        && notice["final"] == true
                    {
                        self.promises.receipted(number, &notice);
                    }
                }
                Event::Shocked(what) => {
                    self.promises
                        .violated(format!("{} heard what MQTT doesn't allow: {what}", client_id(client)));
                }
            }
        }
    }

    fn lasts(&self, client: usize) -> bool {
        client < self.lasting
    }

    fn peer(&mut self, way: usize) {
        let Some(gateway) = &mut self.gateway else { return };
        gateway.take(way, self.at);
        let (from, to) = gateway.ends(way);
        self.say(|| format!("shard {to} takes what shard {from} has for it"));
        self.after(to);
    }

    fn commit(&mut self, shard: usize) {
        let Some(batch) = self.uncommitted[shard].pop_front() else { return };
        self.say(|| format!("shard {shard}: {:?}", batch.operations));
        let events = self.store.commit(batch);
        let Some(gateway) = &mut self.gateway else { return };
        let now = gateway.now(self.at);
        for event in events {
            gateway.shards[shard].handle_store(event, now);
        }
        self.after(shard);
    }

    fn pass(&mut self, millis: u64) {
        self.at += millis;
    }

    fn send(&mut self) {
        let client = self.random.below(self.clients.len());
        if !self.clients[client].is_in() || self.clients[client].unfinished() >= 15 {
            return;
        }
        let qos = self.random.below(3) as u8;
        let kind = match self.random.below(10) {
            0..5 => Kind::Plain,
            5 | 6 => Kind::Retained,
            7 if self.with_shares => Kind::Shared,
            _ => Kind::Stored { id: self.random.chance(1, 2) },
        };
        if !self.lasts(client) && qos > 0 {
            // What it sends ends with its connection: nothing is promised of that.
            return;
        }
        let number = self.promises.sent(client, self.connections[client], kind, qos);
        let topic = match kind {
            Kind::Plain => format!("t/{}", self.random.below(2)),
            Kind::Retained => format!("r/{}", client_id(client)),
            Kind::Shared => "shared".to_owned(),
            Kind::Stored { id: true } => format!("sig/g/g?store=1&receipt=each&id=m{number}"),
            Kind::Stored { id: false } => "sig/g/g?store=1".to_owned(),
        };
        self.say(|| format!("{} sends {number} at QoS {qos} to {topic}", client_id(client)));
        self.clients[client].publish(number, &topic, qos, kind == Kind::Retained);
    }

    // -- faults -------------------------------------------------------------------------------------------

    /// The network loses a connection, with some of what was on its way.
    fn cut(&mut self) {
        let client = self.random.below(self.clients.len());
        let (Some(gateway), Some(link)) = (&mut self.gateway, self.links[client].take()) else { return };
        let Link { mut up, shard, key, closed, .. } = link;
        let now = gateway.now(self.at);
        if !closed {
            let arrives = self.random.between(0, up.len());
            let bytes: Vec<u8> = up.drain(..arrives).collect();
            gateway.shards[shard].handle_bytes(key, &bytes, now);
            gateway.shards[shard].handle_closed(key, now);
        }
        self.clients[client].lost();
        self.say(|| format!("the connection of {} is cut", client_id(client)));
        self.after(shard);
    }

    /// The gateway dies, with all that isn't committed.
    fn kill(&mut self) {
        if self.gateway.take().is_none() {
            return;
        }
        self.say(|| "the gateway is killed".to_owned());
        for batches in &mut self.uncommitted {
            batches.clear();
        }
        for (client, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link.take() else { continue };
            // What it had written may still come.
            if self.random.chance(1, 2) {
                let bytes: Vec<u8> = link.down.into_iter().collect();
                self.clients[client].feed(&bytes);
            }
            self.clients[client].lost();
        }
        for client in 0..self.clients.len() {
            self.hear(client);
        }
    }

    fn restart(&mut self) {
        self.promises.gateway += 1;
        let wall = WallTime(WALL + self.at - 1);
        let setup = Setup {
            shards: self.shards,
            limits: self.limits.clone(),
            rules: self.rules.clone(),
            durable_since: Some(wall),
        };
        let mut gateway = Gateway::new(&setup, self.at, &mut self.random);
        let now = gateway.now(self.at);
        for (index, shard) in gateway.shards.iter_mut().enumerate() {
            for restored in self.store.restore(index as u16, self.shards, WallTime(WALL + self.at)) {
                shard.handle_restored(restored, now);
            }
            if self.full {
                shard.handle_store(StoreEvent::Unavailable("full".into()), now);
            }
        }
        self.gateway = Some(gateway);
        self.say(|| "the gateway starts".to_owned());
        for shard in 0..self.shards.into() {
            self.after(shard);
        }
    }

    /// The store is full, or has room again.
    fn fill(&mut self, full: bool) {
        self.full = full;
        self.promises.was_refusing = true;
        self.say(|| format!("the store is full: {full}"));
        let Some(gateway) = &mut self.gateway else { return };
        let now = gateway.now(self.at);
        for shard in &mut gateway.shards {
            let event = if full { StoreEvent::Unavailable("full".into()) } else { StoreEvent::Available };
            shard.handle_store(event, now);
        }
        for shard in 0..self.shards.into() {
            self.after(shard);
        }
    }

    // -- the end ------------------------------------------------------------------------------------------

    fn settle(&mut self) -> bool {
        for _ in 0..MOST_MOVES {
            if !self.promises.violations.is_empty() {
                return false;
            }
            if !self.move_something() {
                return true;
            }
        }
        self.promises.violated("it never comes to rest".to_owned());
        false
    }

    /// All is healed; then everything that was promised is there.
    fn finale(&mut self) {
        self.stuck = false;
        if self.full {
            self.fill(false);
        }
        if !self.settle() {
            return;
        }
        // Who couldn't subscribe while the store was full asks again.
        for client in 0..self.clients.len() {
            if self.links[client].is_some() && !self.promises.is_subscribed(client) && self.lasts(client) {
                self.cut_of(client);
            }
        }
        // Receipts that a killed gateway can't complete end with the time of their messages, of a day.
        for millis in [15_000, 15_000, 86_400_000, 15_000] {
            if !self.settle() {
                return;
            }
            self.pass(millis);
        }
        if !self.settle() {
            return;
        }
        self.promises.check_end(&self.connections);
        for (what, count) in [
            ("messages in queues", self.store.queued()),
            ("QoS 2 identifiers", self.store.records(RecordKind::Received)),
            ("receipts", self.store.records(RecordKind::Receipt)),
        ] {
            // Of a refused publish, parts that were had stay noted until its packet identifier is used again.
            let may_stay = what.starts_with("QoS 2") && self.promises.was_refusing;
            if count > 0 && !may_stay {
                self.promises.violated(format!("{count} {what} are left in the store"));
            }
        }
        let sessions = self.store.records(RecordKind::Session);
        if sessions != self.lasting {
            self.promises
                .violated(format!("{sessions} sessions are in the store, of {} that last", self.lasting));
        }
        self.check_retained();
    }

    fn cut_of(&mut self, client: usize) {
        let (Some(gateway), Some(link)) = (&mut self.gateway, self.links[client].take()) else { return };
        let now = gateway.now(self.at);
        if !link.closed {
            gateway.shards[link.shard].handle_closed(link.key, now);
        }
        self.clients[client].lost();
        self.after(link.shard);
    }

    /// After one more restart, a newcomer is given the last of each topic.
    fn check_retained(&mut self) {
        if self.random.chance(1, 2) {
            self.kill();
        }
        let newcomer = self.clients.len();
        self.clients.push(Client::new(newcomer, Version::V5, 0, false));
        self.links.push(None);
        self.connections.push(0);
        self.newcomer = Some(newcomer);
        if !self.settle() {
            return;
        }
        for sender in 0..newcomer {
            let found = self.retained.get(&sender).copied();
            if !self.promises.may_be_retained(sender, found) {
                self.promises.violated(format!(
                    "{found:?} is retained of r/{}, which isn't the last",
                    client_id(sender)
                ));
            }
        }
    }
}
