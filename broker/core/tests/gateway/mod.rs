//! A whole gateway in one thread: its shards, the queues between them, its clients and the clock. Nothing
//! waits, nothing is random but by the seed, and time passes only in [`Gateway::advance`].
//!
//! Clients of all protocols have one face. A [`Who`] is asked for something by a method of the gateway; the
//! methods called `start_*` only write bytes, the others go on until everything is quiet.

mod device;
mod mqtt;
mod python;
mod send_spec;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bugle_core::hub::{
    AuthenticationRequest, ConnectionKey, Credentials, Judgement, PeerBatch, SecretEntry, Shard, ShardConfig,
    Transmit, UserConnections, owner,
};
use bugle_core::model::{Instant, Limits, Reason};
use bugle_core::rules::{Rules, RulesSource};
use bugle_core::session::{FirstPacket, Protocol, first_packet};
use bugle_core::store::{MemoryStore, StoreBatch, WallTime};
pub use send_spec::SendSpec;

/// What the gateway is made of.
#[derive(Clone)]
pub struct Setup {
    pub shards: u16,
    /// The order in which bytes and messages between shards move: none is a steady one.
    pub seed: Option<u64>,
    pub limits: Limits,
    pub rules: Rules,
    pub secrets: Vec<(String, Vec<u8>)>,
    /// Roles of those with secrets.
    pub roles: Vec<(&'static str, &'static str)>,
    /// Secrets that are good for other client ids than their own.
    pub users: Vec<SecretEntry>,
    /// Passwords that these don't have are for the process to judge.
    pub asks: bool,
    /// There is a durable store.
    pub durable: bool,
}

impl Setup {
    pub fn new(shards: u16, seed: Option<u64>) -> Self {
        Self {
            shards,
            seed,
            limits: Limits::default(),
            rules: Rules::open(),
            secrets: Vec::new(),
            roles: Vec::new(),
            users: Vec::new(),
            asks: false,
            durable: false,
        }
    }
}

/// Rules from the JSON that has the shape of the configuration.
pub fn rules(json: &str) -> Rules {
    let source: RulesSource = serde_json::from_str(json).unwrap();
    Rules::compile(&source).unwrap()
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Device,
    /// The compact framing too, by the client that was written from docs/protocol.md alone.
    Python,
    Mqtt4,
    Mqtt5,
}

impl Kind {
    pub fn is_mqtt(self) -> bool {
        matches!(self, Self::Mqtt4 | Self::Mqtt5)
    }
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names and options stand where they are used: no handles, no user properties.
    pub inline: bool,
    /// Deliveries are acknowledged as they come.
    pub acks: bool,
    /// Deliveries at a time.
    pub window: u16,
    /// The longest frame body or, with MQTT 5, packet that it takes.
    pub longest: u16,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// MQTT clients subscribe to their inbox.
    pub inbox: bool,
    /// The QoS of an MQTT client's subscriptions to signals.
    pub qos: u8,
    /// MQTT 5's No Local for them.
    pub no_local: bool,
    /// Seconds for which a device's session is to be kept without a connection.
    pub session_expiry: u32,
    /// What is left behind.
    pub will: Option<Will>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inline: false,
            acks: true,
            window: 64,
            longest: 32 * 1024,
            keep_alive: 0,
            inbox: true,
            qos: 1,
            no_local: false,
            session_expiry: 0,
            will: None,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Will {
    Send(SendSpec),
    Publish(String, Vec<u8>),
}

/// One connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who(usize);

/// One request of a client, by its number or packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// What a client was told of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The code's name, and after how many milliseconds to try again, 0 where that isn't said.
    Refused(String, u32),
}

impl Outcome {
    /// `ACCEPTED`, or the code.
    pub fn name(&self) -> &str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Refused(code, _) => code,
        }
    }
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Where it came: a group, `None` for the own inbox.
    pub group: Option<String>,
    /// A plain topic; for an observer of others' inboxes, that too.
    pub topic: Option<String>,
    /// Empty where the protocol doesn't say it.
    pub sender: String,
    /// Likewise.
    pub mode: Option<String>,
    /// What is left of the time to live, in milliseconds.
    pub ttl: Option<u64>,
    pub payload: Vec<u8>,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What a sender was told of its recipients. Statuses by their names in capitals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub ticket: u32,
    /// The message id, in MQTT.
    pub id: Option<String>,
    /// It is that of an earlier send.
    pub duplicate: bool,
    /// Another one follows.
    pub interim: bool,
    pub counts: BTreeMap<String, u32>,
    pub each: BTreeMap<String, String>,
}

impl Receipt {
    /// `lamp-1=DELIVERED lamp-2=OFFLINE`.
    pub fn line(&self) -> String {
        let pairs: Vec<_> = self.each.iter().map(|(id, status)| format!("{id}={status}")).collect();
        pairs.join(" ")
    }

    /// `DELIVERED 1, OFFLINE 1`, in the order of names.
    pub fn counts(&self) -> String {
        let pairs: Vec<_> = self.counts.iter().map(|(status, count)| format!("{status} {count}")).collect();
        pairs.join(", ")
    }
}

/// What a client has heard.
#[derive(Debug, Default)]
pub struct Heard {
    received: Vec<Received>,
    receipts: Vec<Receipt>,
    /// Groups and topic filters that the gateway has put it out of.
    ended: Vec<String>,
    pongs: usize,
    /// The connection is let in.
    connected: bool,
    /// It goes on with the session of an earlier one.
    resumed: bool,
    /// Why the gateway ended it, as far as the protocol can say.
    end: Option<String>,
    /// Every frame or packet in a few words.
    log: Vec<String>,
}

/// A client of the compact framing.
trait Framing {
    /// The clock of what follows, in milliseconds.
    fn handle_time(&mut self, now: u64);
    /// Bytes that it doesn't know are written for it.
    fn go_astray(&mut self) {}
    /// The connection is lost, and another one begins.
    fn reconnect(&mut self, out: &mut Vec<u8>);
    fn join(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket;
    fn leave(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket;
    fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) -> Ticket;
    fn unsubscribe(&mut self, filter: &str, out: &mut Vec<u8>) -> Ticket;
    fn publish(&mut self, topic: &str, payload: &[u8], retain: bool, out: &mut Vec<u8>) -> Ticket;
    fn send(&mut self, spec: &SendSpec, out: &mut Vec<u8>) -> Ticket;
    fn ping(&mut self, out: &mut Vec<u8>) -> Ticket;
    fn bye(&mut self, out: &mut Vec<u8>) -> Ticket;
    /// Acknowledges what was held back, and what comes.
    fn ack_again(&mut self, out: &mut Vec<u8>) -> Ticket;
    /// What it was told of a request, if that is there.
    fn outcome(&self, ticket: Ticket) -> Option<Outcome>;
    fn handle_bytes(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, heard: &mut Heard);
}

enum Speaker {
    Framing(Box<dyn Framing>),
    Mqtt(Box<mqtt::Mqtt>),
    /// Only listens.
    Nobody,
}

struct Client {
    speaker: Speaker,
    heard: Heard,
    shard: usize,
    key: ConnectionKey,
    /// Written by the client, not yet read by the gateway.
    to_gateway: VecDeque<u8>,
    /// Read by the client, not yet a whole frame.
    from_gateway: Vec<u8>,
    /// It takes what is written to it; else that stays in its mailbox.
    reads: bool,
    open: bool,
    /// The gateway wants its bytes, as far as it has said.
    wanted: bool,
    /// The gateway may have something to write.
    writable: bool,
    /// How many bytes its connection still carries, to the gateway and from it, before it breaks.
    fuse: Option<[usize; 2]>,
}

fn shards(setup: &Setup, wall_at_start: WallTime) -> Vec<Shard> {
    let limits = Arc::new(setup.limits.clone());
    let rules = Arc::new(setup.rules.clone());
    let entries = setup.secrets.iter().map(|(id, secret)| SecretEntry {
        id: id.clone(),
        secret: secret.clone().into(),
        clients: Vec::new(),
        roles: setup.roles.iter().filter(|(who, _)| who == id).map(|(_, role)| (*role).into()).collect(),
    });
    let credentials = Credentials::from_entries(entries.chain(setup.users.iter().cloned()));
    let credentials = Arc::new(if setup.asks { credentials.and_ask() } else { credentials });
    let users = Arc::new(UserConnections::default());
    let shards = (0..setup.shards).map(|index| {
        let mut random = Random(setup.seed.unwrap_or(0) ^ u64::from(index) << 32);
        let config = ShardConfig {
            index,
            shards: setup.shards,
            limits: limits.clone(),
            prefix: "sig".into(),
            rules: rules.clone(),
            credentials: credentials.clone(),
            users: users.clone(),
            durable: setup.durable,
            wall_at_start,
        };
        Shard::new(config, Box::new(move |bytes| bytes.fill_with(|| random.next() as u8)))
    });
    shards.collect()
}

/// The gateway and its clients.
pub struct Gateway {
    pub shards: Vec<Shard>,
    now: Instant,
    limits: Limits,
    random: Option<Random>,
    clients: Vec<Client>,
    by_key: HashMap<(usize, ConnectionKey), usize>,
    /// What lies between shards, by sender and receiver.
    wires: BTreeMap<(u16, u16), VecDeque<PeerBatch>>,
    held: bool,
    setup: Setup,
    pub store: MemoryStore,
    /// What shards gave the store, and it hasn't committed.
    uncommitted: BTreeMap<u16, VecDeque<StoreBatch>>,
    /// It commits nothing for now.
    pub store_stuck: bool,
    /// It commits nothing of these shards for now.
    pub stuck_shards: Vec<u16>,
    wall_at_start: WallTime,
    /// Connections that their clients have given up, and the gateway hasn't.
    forsaken: Vec<(usize, ConnectionKey)>,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Step {
    Read(usize),
    Write(usize),
    Peer(u16, u16),
    Store(u16),
}

impl Gateway {
    pub fn new(setup: &Setup) -> Self {
        let wall_at_start = WallTime(1_800_000_000_000);
        Self {
            shards: shards(setup, wall_at_start),
            now: Instant::from_millis(1000),
            limits: setup.limits.clone(),
            random: setup.seed.map(Random),
            clients: Vec::new(),
            by_key: HashMap::new(),
            wires: BTreeMap::new(),
            held: false,
            setup: setup.clone(),
            store: MemoryStore::default(),
            uncommitted: BTreeMap::new(),
            store_stuck: false,
            stuck_shards: Vec::new(),
            wall_at_start,
            forsaken: Vec::new(),
        }
    }

    /// The gateway is killed, and started again with what its store had committed. All connections are lost.
    pub fn restart(&mut self) {
        let was = self.now.as_millis();
        self.now = Instant::from_millis(1000);
        self.wall_at_start.0 += was - 1000;
        let now = WallTime(self.wall_at_start.0 + 1000);
        self.shards = shards(&self.setup, self.wall_at_start);
        for client in &mut self.clients {
            client.open = false;
        }
        self.by_key.clear();
        self.wires.clear();
        self.forsaken.clear();
        self.uncommitted.clear();
        for (index, shard) in self.shards.iter_mut().enumerate() {
            for restored in self.store.restore(index as u16, self.setup.shards, now) {
                shard.handle_restored(restored, self.now);
            }
        }
        self.pump();
    }

    /// The machine's clock is set, which the gateway sees when it is started again.
    pub fn set_clock(&mut self, by: i64) {
        self.wall_at_start.0 = self.wall_at_start.0.saturating_add_signed(by);
    }

    /// Batches that the store hasn't committed.
    pub fn uncommitted(&self) -> usize {
        self.uncommitted.values().map(VecDeque::len).sum()
    }

    // -- connecting ---------------------------------------------------------------------------------------

    /// Gives all shards other rules, and waits until all clients were judged by them.
    pub fn reload(&mut self, json: &str) {
        let rules = Arc::new(rules(json));
        for shard in &mut self.shards {
            shard.handle_rules(rules.clone(), self.now);
        }
        self.advance(0);
        assert!(!self.shards.iter().any(Shard::is_judging), "few enough for one turn");
    }

    /// Judges the credentials that the process is asked about, as it would.
    pub fn judge(&mut self, judge: impl Fn(&AuthenticationRequest) -> Option<Judgement>) -> usize {
        self.pump();
        let mut asked = 0;
        for shard in &mut self.shards {
            while let Some(request) = shard.poll_authentication() {
                asked += 1;
                if let Some(judgement) = judge(&request) {
                    shard.handle_authenticated(request.key, judgement, self.now);
                }
            }
        }
        self.pump();
        asked
    }

    /// The groups and filters that the gateway has put a client out of, since it was last asked.
    pub fn ended(&mut self, who: Who) -> Vec<String> {
        self.pump();
        std::mem::take(&mut self.clients[who.0].heard.ended)
    }

    /// Lets a client in; MQTT clients subscribe to their notices and, by the options, to their inbox.
    pub fn connect(&mut self, kind: Kind, id: &str, options: Options) -> Who {
        let who =
            self.try_connect(kind, id, options).unwrap_or_else(|why| panic!("{id} isn't let in: {why}"));
        if let Speaker::Mqtt(_) = self.clients[who.0].speaker {
            self.ask(who, |mqtt, out| mqtt.subscribe_own(out));
        }
        who
    }

    /// Tries to connect; the error is why not.
    pub fn try_connect(&mut self, kind: Kind, id: &str, options: Options) -> Result<Who, String> {
        let mut out = Vec::new();
        let speaker = match kind {
            Kind::Device => Speaker::Framing(Box::new(device::Device::new(id, options, &mut out))),
            Kind::Python => {
                let now = self.now.as_millis();
                Speaker::Framing(Box::new(python::Python::new(id, &options, now, &mut out)))
            }
            Kind::Mqtt4 | Kind::Mqtt5 => {
                Speaker::Mqtt(Box::new(mqtt::Mqtt::new(kind, id, options, &mut out)))
            }
        };
        let who = self.open(speaker, &out);
        self.pump();
        let heard = &self.clients[who.0].heard;
        if heard.connected { Ok(who) } else { Err(heard.end.clone().unwrap_or_default()) }
    }

    /// A connection that begins with these bytes, and a client that only listens.
    pub fn raw(&mut self, bytes: &[u8]) -> Who {
        let who = self.open(Speaker::Nobody, bytes);
        self.pump();
        who
    }

    /// A client that is let in by its protocol's first packet and then only listens.
    pub fn connect_deaf(&mut self, kind: Kind, id: &str) -> Who {
        let mut out = Vec::new();
        match kind {
            Kind::Device | Kind::Python => device::hello(id, &Options::default(), &mut out),
            Kind::Mqtt4 | Kind::Mqtt5 => drop(mqtt::Mqtt::new(kind, id, Options::default(), &mut out)),
        }
        self.raw(&out)
    }

    /// Hands the connection to the shard that owns the client, as the process does.
    fn open(&mut self, speaker: Speaker, bytes: &[u8]) -> Who {
        let protocol =
            |first| if first == bugle_protocol::FIRST_BYTE { Protocol::Device } else { Protocol::Mqtt };
        let (protocol, id) = match first_packet(bytes, &self.limits) {
            FirstPacket::Client { protocol, client_id } => (protocol, client_id),
            FirstPacket::Partial | FirstPacket::Unknown => (protocol(bytes[0]), None),
        };
        let shard = usize::from(id.map_or(0, |id| owner(&id, self.shards.len() as u16)));
        let key = self.shards[shard].open(protocol, self.now);
        let who = self.clients.len();
        self.by_key.insert((shard, key), who);
        self.clients.push(Client {
            speaker,
            heard: Heard::default(),
            shard,
            key,
            to_gateway: bytes.iter().copied().collect(),
            from_gateway: Vec::new(),
            reads: true,
            open: true,
            wanted: true,
            writable: false,
            fuse: None,
        });
        Who(who)
    }

    /// A device connects again, after its connection was lost or before the gateway knows of that, and asks for its session.
    /// Says whether it goes on with it.
    pub fn reconnect(&mut self, who: Who) -> bool {
        self.start_reconnect(who);
        self.pump();
        let heard = &self.clients[who.0].heard;
        assert!(heard.connected, "{:?}", heard.end);
        heard.resumed
    }

    pub fn start_reconnect(&mut self, who: Who) {
        let now = self.now;
        let client = &mut self.clients[who.0];
        if client.open {
            // The gateway holds it for alive until the new one takes over.
            self.by_key.remove(&(client.shard, client.key));
            self.forsaken.push((client.shard, client.key));
        }
        let mut out = Vec::new();
        match &mut client.speaker {
            Speaker::Framing(device) => {
                device.handle_time(now.as_millis());
                device.reconnect(&mut out);
            }
            _ => panic!("a device's affair"),
        }
        client.heard = Heard {
            received: std::mem::take(&mut client.heard.received),
            receipts: std::mem::take(&mut client.heard.receipts),
            log: std::mem::take(&mut client.heard.log),
            ..Heard::default()
        };
        client.key = self.shards[client.shard].open(Protocol::Device, now);
        (client.to_gateway, client.from_gateway) = (out.into(), Vec::new());
        (client.open, client.wanted, client.writable, client.fuse) = (true, true, false, None);
        self.shards[client.shard].set_stalled(client.key, !client.reads);
        self.by_key.insert((client.shard, client.key), who.0);
    }

    /// Lets the connection break after so many bytes to the gateway, or so many from it.
    pub fn set_fuse(&mut self, who: Who, to_gateway: usize, from_gateway: usize) {
        self.clients[who.0].fuse = Some([to_gateway, from_gateway]);
    }

    /// Closes connections that newer ones took over, with what the gateway said to them.
    pub fn close_forsaken(&mut self) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut said = Vec::new();
        for (shard, key) in std::mem::take(&mut self.forsaken) {
            let mut out = Vec::new();
            while self.shards[shard].poll_transmit(key, &mut out, 16 * 1024, now) == Transmit::More {}
            self.shards[shard].handle_closed(key, now);
            said.push(out);
        }
        self.pump();
        said
    }

    // -- what clients do ----------------------------------------------------------------------------------

    pub fn write(&mut self, who: Who, bytes: &[u8]) {
        self.start_write(who, bytes);
        self.pump();
    }

    pub fn start_write(&mut self, who: Who, bytes: &[u8]) {
        let client = &mut self.clients[who.0];
        client.to_gateway.extend(bytes);
        if let Speaker::Framing(device) = &mut client.speaker {
            device.go_astray();
        }
    }

    pub fn join(&mut self, who: Who, group: &str) -> Outcome {
        let ticket = self.start_join(who, group);
        self.finish(who, ticket)
    }

    pub fn start_join(&mut self, who: Who, group: &str) -> Ticket {
        self.either(who, |device, out| device.join(group, out), |mqtt, out| mqtt.join(group, out))
    }

    pub fn leave(&mut self, who: Who, group: &str) -> Outcome {
        let ticket = self.start_leave(who, group);
        self.finish(who, ticket)
    }

    pub fn start_leave(&mut self, who: Who, group: &str) -> Ticket {
        self.either(who, |device, out| device.leave(group, out), |mqtt, out| mqtt.leave(group, out))
    }

    /// Subscribes to a topic filter as it stands.
    pub fn subscribe(&mut self, who: Who, filter: &str, qos: u8) -> Outcome {
        let ticket = self.either(
            who,
            |device, out| device.subscribe(filter, qos, out),
            |mqtt, out| mqtt.subscribe(filter, qos, out),
        );
        self.finish(who, ticket)
    }

    pub fn unsubscribe(&mut self, who: Who, filter: &str) -> Outcome {
        let ticket = self.either(
            who,
            |device, out| device.unsubscribe(filter, out),
            |mqtt, out| mqtt.unsubscribe(filter, out),
        );
        self.finish(who, ticket)
    }

    /// Publishes to a topic as it stands.
    pub fn publish(&mut self, who: Who, topic: &str, payload: &[u8], retain: bool) -> Outcome {
        let ticket = self.either(
            who,
            |device, out| device.publish(topic, payload, retain, out),
            |mqtt, out| mqtt.publish(topic, payload, retain, out),
        );
        self.finish(who, ticket)
    }

    /// Begins to publish to a topic as it stands.
    pub fn start_publish(&mut self, who: Who, topic: &str, payload: &[u8]) -> Ticket {
        self.either(
            who,
            |device, out| device.publish(topic, payload, false, out),
            |mqtt, out| mqtt.publish(topic, payload, false, out),
        )
    }

    /// Sends, and gives what the sender hears of it.
    pub fn send(&mut self, who: Who, spec: &SendSpec) -> Outcome {
        let ticket = self.start_send(who, spec);
        self.finish(who, ticket)
    }

    pub fn start_send(&mut self, who: Who, spec: &SendSpec) -> Ticket {
        self.either(who, |device, out| device.send(spec, out), |mqtt, out| mqtt.send(spec, out))
    }

    /// Pings, and says whether that was answered at once.
    pub fn ping(&mut self, who: Who) -> bool {
        let before = self.clients[who.0].heard.pongs;
        self.either(who, |device, out| device.ping(out), |mqtt, out| mqtt.ping(out));
        self.pump();
        self.clients[who.0].heard.pongs > before
    }

    /// Ends the connection as the protocol wants it.
    pub fn goodbye(&mut self, who: Who) {
        self.either(who, |device, out| device.bye(out), |mqtt, out| mqtt.disconnect(out));
        self.pump();
        assert!(!self.is_open(who), "closed after a goodbye");
    }

    /// The connection is lost.
    pub fn lose(&mut self, who: Who) {
        self.cut(who.0);
        self.pump();
    }

    /// What is written to the client stays in its mailbox.
    pub fn stop_reading(&mut self, who: Who) {
        self.set_reads(who, false);
    }

    pub fn read_again(&mut self, who: Who) {
        self.set_reads(who, true);
        self.pump();
    }

    /// Acknowledges what was held back, and what comes.
    pub fn ack_again(&mut self, who: Who) {
        self.either(who, |device, out| device.ack_again(out), |mqtt, out| mqtt.ack_again(out));
        self.pump();
    }

    /// Messages between shards stay where they are, or go on.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        self.pump();
    }

    // -- what clients have heard --------------------------------------------------------------------------

    /// The outcome of a request, if it is there.
    pub fn outcome(&self, who: Who, ticket: Ticket) -> Option<Outcome> {
        match &self.clients[who.0].speaker {
            Speaker::Framing(device) => device.outcome(ticket),
            Speaker::Mqtt(mqtt) => mqtt.outcome(ticket),
            Speaker::Nobody => None,
        }
    }

    /// Takes what the client got.
    pub fn received(&mut self, who: Who) -> Vec<Received> {
        std::mem::take(&mut self.clients[who.0].heard.received)
    }

    /// The payloads of it, as text.
    pub fn texts(&mut self, who: Who) -> Vec<String> {
        self.received(who).iter().map(Received::text).collect()
    }

    /// Takes the receipts that the client got.
    pub fn receipts(&mut self, who: Who) -> Vec<Receipt> {
        std::mem::take(&mut self.clients[who.0].heard.receipts)
    }

    /// The only receipt that the client got.
    #[track_caller]
    pub fn receipt(&mut self, who: Who) -> Receipt {
        let receipts = self.receipts(who);
        assert_eq!(receipts.len(), 1, "receipts: {receipts:?}");
        receipts.into_iter().next().unwrap_or_default()
    }

    pub fn log(&self, who: Who) -> &[String] {
        &self.clients[who.0].heard.log
    }

    /// Why the gateway ended the connection, in Bugle's names; empty where the protocol can't say it.
    pub fn end(&self, who: Who) -> Option<&str> {
        self.clients[who.0].heard.end.as_deref()
    }

    /// Whether the client's connection goes on with the session of an earlier one.
    pub fn is_resumed(&self, who: Who) -> bool {
        self.clients[who.0].heard.resumed
    }

    /// Whether the client is let in.
    pub fn is_connected(&self, who: Who) -> bool {
        self.clients[who.0].open && self.clients[who.0].heard.connected
    }

    pub fn is_open(&self, who: Who) -> bool {
        self.clients[who.0].open
    }

    /// Refusals for `reason`, on all shards.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.shards.iter().map(|shard| shard.counters().refused(reason)).sum()
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    // -- the machine --------------------------------------------------------------------------------------

    /// Lets `millis` pass, with everything that falls due on the way.
    pub fn advance(&mut self, millis: u64) {
        let end = self.now + millis;
        for turn in 0.. {
            assert!(turn < 1_000_000, "a deadline never goes away");
            self.pump();
            let Some(due) = self.shards.iter().filter_map(Shard::deadline).min().filter(|&due| due <= end)
            else {
                break;
            };
            self.now = self.now.max(due);
            for shard in &mut self.shards {
                if shard.deadline().is_some_and(|due| due <= self.now) {
                    shard.handle_time(self.now);
                }
            }
        }
        self.now = end;
    }

    /// A client that doesn't read fills its socket, of which its process tells the shard.
    fn set_reads(&mut self, who: Who, reads: bool) {
        let client = &mut self.clients[who.0];
        client.reads = reads;
        self.shards[client.shard].set_stalled(client.key, !reads);
    }

    /// Moves bytes and messages until nothing moves any more.
    pub fn pump(&mut self) {
        loop {
            self.collect();
            match self.next_step() {
                None => return,
                Some(Step::Read(client)) => self.read(client),
                Some(Step::Write(client)) => self.transmit(client),
                Some(Step::Store(shard)) => self.commit(shard),
                Some(Step::Peer(from, to)) => {
                    if let Some(mut batch) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
                        while !batch.is_empty() {
                            self.shards[usize::from(to)].handle_peer(from, &mut batch, self.now);
                        }
                    }
                }
            }
        }
    }

    /// The store commits the next batch of a shard.
    fn commit(&mut self, shard: u16) {
        let batch = self.uncommitted.get_mut(&shard).and_then(VecDeque::pop_front);
        for event in batch.into_iter().flat_map(|batch| self.store.commit(batch)) {
            self.shards[usize::from(shard)].handle_store(event, self.now);
        }
    }

    /// Asks the shards what they have to say.
    fn collect(&mut self) {
        for (index, shard) in self.shards.iter_mut().enumerate() {
            // First what is to be written: it may be the turn of a send to many, which has something for others.
            while let Some(key) = shard.poll_dirty(self.now) {
                let Some(&client) = self.by_key.get(&(index, key)) else { continue };
                self.clients[client].writable = true;
                self.clients[client].wanted = shard.wants_bytes(key);
            }
            while !self.held
                && let Some((peer, message)) = shard.poll_peer()
            {
                self.wires.entry((index as u16, peer)).or_default().push_back(message);
            }
            while let Some(batch) = shard.poll_store() {
                self.uncommitted.entry(index as u16).or_default().push_back(batch);
            }
        }
    }

    /// The first thing that may happen or, in a random order of things, any of them.
    fn next_step(&mut self) -> Option<Step> {
        if self.random.is_none() {
            return self.steps().next();
        }
        let all: Vec<_> = self.steps().collect();
        self.random.as_mut()?.pick(&all).copied()
    }

    fn steps(&self) -> impl Iterator<Item = Step> {
        let clients = self.clients.iter().enumerate().filter(|(_, client)| client.open);
        let of_client = |(index, client): (usize, &Client)| {
            let read = (client.wanted && !client.to_gateway.is_empty()).then_some(Step::Read(index));
            read.into_iter().chain((client.writable && client.reads).then_some(Step::Write(index)))
        };
        let peers = self.wires.iter().filter(|(_, wire)| !wire.is_empty());
        let is_stuck = |shard: &u16| self.store_stuck || self.stuck_shards.contains(shard);
        let batches =
            self.uncommitted.iter().filter(move |(shard, batches)| !is_stuck(shard) && !batches.is_empty());
        peers
            .map(|(&(from, to), _)| Step::Peer(from, to))
            .chain(clients.flat_map(of_client))
            .chain(batches.map(|(&shard, _)| Step::Store(shard)))
    }

    /// The gateway reads from a client: all there is or, in a random order of things, a part of it.
    fn read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let there = client.to_gateway.len();
        let length = self.random.as_mut().map_or(there, |random| random.below(there) + 1);
        let length = client.fuse.map_or(length, |[left, _]| length.min(left));
        let bytes: Vec<u8> = client.to_gateway.drain(..length).collect();
        let shard = &mut self.shards[client.shard];
        if !bytes.is_empty() {
            shard.handle_bytes(client.key, &bytes, self.now);
        }
        client.wanted = shard.wants_bytes(client.key);
        if let Some([left, _]) = &mut client.fuse {
            *left -= length;
            if *left == 0 {
                self.cut(index);
            }
        }
    }

    /// The gateway writes to a client.
    fn transmit(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let mut written = Vec::new();
        let shard = &mut self.shards[client.shard];
        let transmit = shard.poll_transmit(client.key, &mut written, 16 * 1024, self.now);
        client.writable = transmit == Transmit::More;
        let lasts = client.fuse.is_none_or(|[_, left]| left > written.len());
        if let Some([_, left]) = &mut client.fuse {
            written.truncate(*left);
            *left -= written.len();
        }
        client.from_gateway.append(&mut written);
        let (mut out, input, now) = (Vec::new(), &mut client.from_gateway, self.now.as_millis());
        match &mut client.speaker {
            Speaker::Framing(device) => {
                device.handle_time(now);
                device.handle_bytes(input, &mut out, &mut client.heard);
            }
            Speaker::Mqtt(mqtt) => mqtt.handle_bytes(input, &mut out, &mut client.heard),
            Speaker::Nobody => {}
        }
        client.to_gateway.extend(out);
        if !lasts {
            self.cut(index);
        } else if transmit == Transmit::Close {
            if client.heard.end.is_none() {
                client.heard.end = Some(String::new());
            }
            self.cut(index);
        }
    }

    fn cut(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if std::mem::take(&mut client.open) {
            self.by_key.remove(&(client.shard, client.key));
            self.shards[client.shard].handle_closed(client.key, self.now);
        }
    }

    /// What a listener got that was never taken apart.
    pub fn bytes(&self, who: Who) -> &[u8] {
        &self.clients[who.0].from_gateway
    }

    fn either(
        &mut self,
        who: Who,
        device_does: impl FnOnce(&mut dyn Framing, &mut Vec<u8>) -> Ticket,
        mqtt_does: impl FnOnce(&mut mqtt::Mqtt, &mut Vec<u8>) -> Ticket,
    ) -> Ticket {
        let client = &mut self.clients[who.0];
        let mut out = Vec::new();
        let ticket = match &mut client.speaker {
            Speaker::Framing(device) => {
                device.handle_time(self.now.as_millis());
                device_does(device.as_mut(), &mut out)
            }
            Speaker::Mqtt(mqtt) => mqtt_does(mqtt, &mut out),
            Speaker::Nobody => panic!("a listener does nothing"),
        };
        client.to_gateway.extend(out);
        ticket
    }

    fn ask(&mut self, who: Who, does: impl FnOnce(&mut mqtt::Mqtt, &mut Vec<u8>) -> Ticket) {
        let ticket = self.either(who, |_, _| Ticket(0), does);
        assert_eq!(self.finish(who, ticket), Outcome::Accepted, "the own topics");
    }

    #[track_caller]
    fn finish(&mut self, who: Who, ticket: Ticket) -> Outcome {
        self.pump();
        self.outcome(who, ticket).unwrap_or_else(|| panic!("no answer to {who:?}: {:?}", self.log(who)))
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}
