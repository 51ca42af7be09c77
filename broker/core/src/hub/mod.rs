//! The hub: one [`Shard`] owns its clients, their sessions and mailboxes, and decides who gets what.
//!
//! A shard is a state machine without a thread. Connections, bytes, messages of other shards and time go in
//! (`handle_*`); bytes for connections, messages for other shards and the next deadline come out (`poll_*`).
//!
//! The way of a signal through here: [`send`] (rate, rules, which shards) → [`deliver`] on each shard
//! (which recipients, receive rules, mailboxes) → `poll_transmit` (mailbox → session → bytes). The way back:
//! the session settles a delivery → [`receipts`] → [`send`] merges the shards' reports → the sender's session.

mod asked;
mod audit;
mod authenticate;
mod awaited;
mod away;
mod bulk;
mod connect;
mod counters;
mod credentials;
mod deliver;
mod keep;
mod listing;
mod mailbox;
mod message_ids;
mod moderation;
mod outbox;
mod park;
mod parts;
mod presence;
mod publish;
mod queues;
mod rate;
mod receipts;
mod records;
mod reload;
mod restore;
mod retained;
mod scram;
mod send;
mod send_route;
mod shared;
mod stored;
mod subscribe;
mod timers;
pub mod topic_tree;
mod user_connections;
mod watched;

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;

use slotmap::{DefaultKey, SlotMap};

pub use crate::backbone::{PeerBatch, owner};
pub use asked::{AuthenticationRequest, Judgement};
pub use audit::{AuditEvent, Parting};
pub use counters::{Counters, EachNumber};
pub use credentials::{Credentials, SecretEntry};
pub use listing::{ClientDetails, ClientSummary, Cursor, GroupSummary, Wanted};
pub use parts::AwaitedPublish;
pub use presence::PresenceChange;
pub use scram::SCRAM_SHA_256;
pub use user_connections::UserConnections;

use crate::backbone::{Backbone, Copied, Fifos, PeerMessage, ShardIndex};
use crate::model::{
    ClientId, Command, Delivery, Encodings, GroupName, Identity, Instant, Limits, Map, Principal, Reason,
    ReceiptSlot, Reception, Refusal, Reply, Set, ShareId, Status, Will,
};
use crate::rules::{Action, Actor, Object, Rules, decide};
use crate::session::{Protocol, Session, SessionConfig};
use crate::store::{Restored, WallTime};
use audit::Audit;
use authenticate::Exchange;
use awaited::WaitingPublish;
use away::Away;
use bulk::{Bulk, Dirty};
use connect::Departed;
use mailbox::Mailbox;
use message_ids::MessageIds;
use moderation::{AskedModeration, Moderations};
use outbox::Outbox;
use park::Park;
use parts::HadParts;
use presence::Watch;
use publish::Route;
use queues::Queues;
use receipts::Tracker;
use reload::Judging;
use retained::{Replay, Retained};
use send::InFlight;
use send_route::{PeerSendRoute, SendRoute};
use shared::Shares;
use stored::StoredSends;
use subscribe::{LocalInterest, PendingSubscribe};
use timers::{Timer, Timers};
use topic_tree::TopicTree;
use user_connections::UserPlace;
use watched::Watched;

slotmap::new_key_type! {
    /// One connection of a shard. Keys carry a generation: that of a connection that is gone finds nothing.
    pub struct ConnectionKey;
    /// A send whose sender waits to hear of it.
    pub struct SendKey;
    /// A publish that waits until every shard retains it.
    pub struct PublishKey;
    /// A moderation that waits until the client's shard has carried it out.
    pub struct ModerationKey;
    /// A subscribe that waits until every shard knows of it.
    struct SubscribeKey;
}

/// Empty buffers that are kept for the next wake-up; in all about as many bytes as one connection may leave unread.
const KEPT_BUFFERS: usize = 64;

/// Messages of another shard that are handled before what comes of them is written: fewer than a mailbox holds.
const PEER_MESSAGES: usize = 512;

/// Fills a slice with bytes that nobody can foresee.
pub type Random = Box<dyn FnMut(&mut [u8])>;

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard it is, from 0.
    pub index: ShardIndex,
    /// How many shards there are.
    pub shards: u16,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// The first level of the signalling topics, `sig` unless configured.
    pub prefix: Arc<str>,
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// Who can prove to be whom.
    pub credentials: Arc<Credentials>,
    /// How many connections each user has; the same for all shards.
    pub users: Arc<UserConnections>,
    /// There is a durable store: what lasts goes there by [`Shard::poll_store`].
    pub durable: bool,
    /// The wall clock at the gateway's moment 0, in which the store has its deadlines.
    pub wall_at_start: WallTime,
}

/// What [`Shard::poll_transmit`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Nothing more for now.
    Drained,
    /// There is more: ask again when the socket has taken this.
    More,
    /// These are the last bytes: write them, close the connection, and call [`Shard::handle_closed`].
    Close,
}

/// A group's member on its shard.
#[derive(Clone, Copy)]
struct Member {
    reception: Reception,
    /// Whether the rules let it receive what goes to the group: judged when it joins, and when they change.
    may_receive: bool,
}

/// One client and its connection.
struct Client {
    session: Session,
    /// Set when it is let in.
    identity: Option<Identity>,
    client_id: Option<ClientId>,
    /// What it has proved to be; none: nothing. Until it is let in, what its certificate says.
    principal: Option<Arc<Principal>>,
    /// Its place among its user's connections, while it is one.
    user_place: Option<Box<UserPlace>>,
    /// Its role's limits, or those of all.
    limits: Arc<Limits>,
    /// Boxed, since nearly all the time there is none.
    exchange: Option<Box<Exchange>>,
    mailbox: Mailbox,
    /// Written ahead of the mailbox, to go to the socket before anything else: empty but within a wake-up.
    out: Vec<u8>,
    /// How many signals and plain messages are in `out`.
    written_ahead: [u32; 2],
    /// Its socket takes no more for now.
    stalled: bool,
    /// Where its last publish went.
    route: Option<Box<Route>>,
    /// Where its last signal went.
    send_route: Option<Box<SendRoute>>,
    /// Takes signals to itself, and how.
    inbox: Option<Reception>,
    /// Sorted sets here and in sessions, since an empty one of a hash table is more than twice as large.
    groups: BTreeSet<GroupName>,
    filters: BTreeSet<Arc<str>>,
    will: Option<Will>,
    /// Seconds from the loss of the connection to the will.
    will_delay: u32,
    /// Seconds for which the session is kept without a connection.
    session_expiry: u32,
    /// There is no connection: what is due of the session all the same.
    away: Option<Box<Away>>,
    /// The store keeps the session.
    stored: bool,
    /// Its last connection was of another protocol than its session's.
    foreign: bool,
    /// The connection on which its session began, if that was another one.
    origin: Option<ConnectionKey>,
    park: Park,
    /// Retained messages that it is still to get; boxed, since nearly all the time there are none.
    #[expect(clippy::box_collection, reason = "a quarter of the room where there is none")]
    replays: Option<Box<VecDeque<Replay>>>,
    open_receipts: usize,
    /// It is in a queue of those with something to write.
    dirty: Dirty,
    /// Sends of it that wait for their turn.
    postponed: u32,
    /// Its input waits, since it sent to many.
    breathes: bool,
    /// The earliest entry of the timer queue.
    timer: Option<Instant>,
    /// Bytes that wait for it, as they were counted last.
    weight: usize,
    /// The last signal that it was considered for, so that an observer isn't given what it got as a recipient.
    considered: u64,
}

/// A client that isn't at hand any more, or not alone, as rules see it.
#[derive(Clone)]
struct Who {
    identity: Identity,
    principal: Option<Arc<Principal>>,
    limits: Arc<Limits>,
}

impl Who {
    fn actor(&self) -> Actor<'_> {
        let principal = self.principal.as_deref().unwrap_or(Principal::ANONYMOUS);
        Actor { client: self.identity.as_str(), principal }
    }
}

impl Client {
    /// As rules see it; none as long as it isn't let in.
    fn actor(&self) -> Option<Actor<'_>> {
        let principal = self.principal.as_deref().unwrap_or(Principal::ANONYMOUS);
        Some(Actor { client: self.identity.as_ref()?.as_str(), principal })
    }

    /// Likewise, for itself.
    fn who(&self) -> Option<Who> {
        let (principal, limits) = (self.principal.clone(), self.limits.clone());
        Some(Who { identity: self.identity.clone()?, principal, limits })
    }

    /// Counts what waits for it anew, in `waiting` as well, which is that of all clients.
    fn weigh(&mut self, waiting: &mut u64) {
        let weight = self.mailbox.weight() + self.session.kept_bytes();
        let before = std::mem::replace(&mut self.weight, weight);
        *waiting = *waiting + weight as u64 - before as u64;
    }

    /// A delivery of this size has come into its mailbox.
    fn add_weight(&mut self, size: usize, waiting: &mut u64) {
        let weight = size + size_of::<Delivery>();
        self.weight += weight;
        *waiting += weight as u64;
    }

    /// Whether it gets nothing but what is kept for clients that are away.
    fn is_absent(&self) -> bool {
        self.away.as_ref().is_some_and(|away| !away.waits())
    }

    fn new(session: Session, limits: Arc<Limits>) -> Self {
        Self {
            session,
            identity: None,
            client_id: None,
            principal: None,
            user_place: None,
            limits,
            exchange: None,
            mailbox: Mailbox::default(),
            out: Vec::new(),
            written_ahead: [0; 2],
            stalled: false,
            route: None,
            send_route: None,
            inbox: None,
            groups: BTreeSet::new(),
            filters: BTreeSet::new(),
            will: None,
            will_delay: 0,
            session_expiry: 0,
            away: None,
            stored: false,
            foreign: false,
            origin: None,
            park: Park::default(),
            replays: None,
            open_receipts: 0,
            dirty: Dirty::No,
            postponed: 0,
            breathes: false,
            timer: None,
            weight: 0,
            considered: 0,
        }
    }
}

/// One part of the gateway: an owner of clients, and of nothing else that is shared.
pub struct Shard {
    index: ShardIndex,
    limits: Arc<Limits>,
    session_config: Arc<SessionConfig>,
    rules: Arc<Rules>,
    /// Who has yet to be judged by them.
    judging: Option<Box<Judging>>,
    /// The limits of their roles that clients have, by the role's place.
    allowances: Map<usize, Arc<Limits>>,
    credentials: Arc<Credentials>,
    users: Arc<UserConnections>,
    /// Connections whose credential was wrong, until the process has heard of it; at most one for each connection.
    failed: VecDeque<ConnectionKey>,
    /// Credentials that the process has yet to be asked about; at most one for each connection.
    asked: VecDeque<AuthenticationRequest>,
    /// What an audit is to know; boxed, since many want none.
    audit: Option<Box<Audit>>,
    backbone: Fifos,
    random: Random,

    clients: SlotMap<ConnectionKey, Client>,
    /// Where sessions are that left the connection on which they began.
    moved: Map<ConnectionKey, ConnectionKey>,
    /// Those let in, by identity.
    by_identity: Watched<Map<Identity, ConnectionKey>>,
    /// Rates and parked sends of identities that aren't connected.
    departed: Map<Identity, Departed>,
    groups: Watched<Map<GroupName, Map<ConnectionKey, Member>>>,
    topics: TopicTree<ConnectionKey, Reception>,
    /// How many of this shard's topic filters could match signalling topics.
    observing: usize,

    interest: Map<crate::backbone::InterestKey, LocalInterest>,
    peer_groups: Watched<Map<GroupName, Set<ShardIndex>>>,
    peer_topics: TopicTree<ShardIndex, ()>,
    peer_observing: usize,
    subscribes: SlotMap<SubscribeKey, PendingSubscribe>,

    shares: Shares,
    shared_topics: TopicTree<ShareId, ()>,
    retained: Retained,
    publishes: SlotMap<PublishKey, WaitingPublish>,
    /// Parts of publishes that were had before the gateway was started, or that couldn't be kept for all, until they come again or
    /// their publisher's session ends. No more than a client's unanswered publishes.
    had_parts: Map<Identity, Map<NonZeroU16, HadParts>>,
    sends: SlotMap<SendKey, InFlight>,
    trackers: SlotMap<DefaultKey, Tracker>,
    message_ids: MessageIds,
    /// Groups whose presence is watched, here or on other shards.
    watches: Map<GroupName, Watch>,
    moderations: Moderations,
    asked_moderations: SlotMap<ModerationKey, AskedModeration>,
    store: Outbox,
    queues: Queues,
    stored: StoredSends,
    signals: u64,
    interests: u64,

    timers: Timers,
    /// The encodings of the message at hand, and their room in between.
    encodings: Encodings,
    /// Empty buffers for what is written ahead.
    buffers: Vec<Vec<u8>>,
    /// The connection whose input is being handled: it goes on by itself when it is answered.
    pumping: Option<ConnectionKey>,
    /// Where the last publish and the last signal of other shards went.
    peer_route: Option<Box<Route>>,
    peer_send_route: Option<Box<PeerSendRoute>>,
    /// The subscribers of the publish at hand; empty in between.
    subscribers: Vec<(ConnectionKey, Reception)>,
    /// Those among them that get it with several subscription identifiers; likewise.
    several: Vec<(ConnectionKey, Reception, Vec<u32>)>,
    dirty: VecDeque<ConnectionKey>,
    bulk: Bulk,
    /// Connections whose session may go on with input that it kept.
    resumable: Vec<ConnectionKey>,
    shutting_down: bool,
    /// This shard's part of `limits.waiting_bytes`.
    most_waiting: u64,
    counters: Counters,
}

impl Shard {
    /// A shard without clients. `random` fills a slice with bytes that nobody can foresee.
    pub fn new(config: ShardConfig, random: Random) -> Self {
        let limits = config.limits;
        Self {
            index: config.index,
            session_config: Arc::new(SessionConfig { prefix: config.prefix, limits: limits.clone() }),
            rules: config.rules,
            judging: None,
            allowances: Map::default(),
            credentials: config.credentials,
            users: config.users,
            asked: VecDeque::new(),
            audit: None,
            failed: VecDeque::new(),
            backbone: Fifos::new(config.index, config.shards, limits.fifo_envelopes),
            most_waiting: (limits.waiting_bytes / usize::from(config.shards.max(1))) as u64,
            limits,
            random,
            clients: SlotMap::with_key(),
            moved: Map::default(),
            by_identity: Watched::default(),
            departed: Map::default(),
            groups: Watched::default(),
            topics: TopicTree::default(),
            observing: 0,
            interest: Map::default(),
            peer_groups: Watched::default(),
            peer_topics: TopicTree::default(),
            peer_observing: 0,
            subscribes: SlotMap::with_key(),
            shares: Shares::default(),
            shared_topics: TopicTree::default(),
            retained: Retained::default(),
            publishes: SlotMap::with_key(),
            had_parts: Map::default(),
            sends: SlotMap::with_key(),
            trackers: SlotMap::new(),
            message_ids: MessageIds::default(),
            watches: Map::default(),
            moderations: Moderations::default(),
            asked_moderations: SlotMap::with_key(),
            store: Outbox::new(config.durable, config.wall_at_start),
            queues: Queues::default(),
            stored: StoredSends::default(),
            signals: 0,
            interests: 0,
            timers: Timers::default(),
            encodings: Encodings::default(),
            buffers: Vec::new(),
            pumping: None,
            peer_route: None,
            peer_send_route: None,
            subscribers: Vec::new(),
            several: Vec::new(),
            dirty: VecDeque::new(),
            bulk: Bulk::default(),
            resumable: Vec::new(),
            shutting_down: false,
            counters: Counters::default(),
        }
    }

    /// A new connection, whose first packet is still to come through [`handle_bytes`](Self::handle_bytes).
    pub fn open(&mut self, protocol: Protocol, now: Instant) -> ConnectionKey {
        let session = Session::new(protocol, self.session_config.clone(), now);
        let key = self.clients.insert(Client::new(session, self.limits.clone()));
        self.schedule(key);
        key
    }

    /// The client has shown a certificate with this name, which has been verified. It can come in by that alone, as the
    /// client of that name; where it proves another user, the name is still for rules to tell it by. Before its first packet.
    pub fn set_certificate(&mut self, key: ConnectionKey, name: &str) {
        if let Some(client) = self.clients.get_mut(key).filter(|client| client.identity.is_none()) {
            client.principal = Some(Arc::new(Principal::certificate(name)));
        }
    }

    /// Bytes that a connection brought.
    pub fn handle_bytes(&mut self, key: ConnectionKey, bytes: &[u8], now: Instant) {
        self.counters.bytes_received += bytes.len() as u64;
        if self.is_crowded() && self.publishes_to_many(key) {
            self.pause_for_breath(key, now);
        }
        self.pump(key, bytes, now);
        self.resume_sessions(now);
    }

    /// Whether more should be read from the connection. A `false` turns up in
    /// [`poll_dirty`](Self::poll_dirty) when it changes.
    pub fn wants_bytes(&self, key: ConnectionKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.session.wants_bytes())
    }

    /// Whether the connection's client has been let in.
    pub fn is_let_in(&self, key: ConnectionKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.identity.is_some())
    }

    /// The connection is gone: its peer or the network ended it, or [`Transmit::Close`] was carried out.
    pub fn handle_closed(&mut self, key: ConnectionKey, now: Instant) {
        if let Some(client) = self.clients.get_mut(key) {
            client.session.handle_closed();
            self.settle(key, now);
            self.end_client(key, true, now);
            self.note_closed(key);
            if let Some(client) = self.clients.remove(key) {
                self.counters.waiting_bytes -= client.weight as u64;
                let [signals, publishes] = client.written_ahead;
                self.counters.count_status(Status::Offline, signals.into());
                self.counters.publishes_abandoned += u64::from(publishes);
                if let Some(at) = client.timer {
                    self.timers.remove(at, Timer::Client(key));
                }
            }
            self.resume_sessions(now);
        }
    }

    /// What another shard has sent, to be called until the batch is empty. What is done is taken out of it; the rest is
    /// for after what came of that has been written, or after a panic.
    pub fn handle_peer(&mut self, from: ShardIndex, batch: &mut PeerBatch, now: Instant) {
        for _ in 0..PEER_MESSAGES {
            let Some((message, copied)) = batch.next() else { break };
            let before = self.unwritten_bulk();
            self.handle_peer_message(from, message, copied, now);
            if self.unwritten_bulk() > before && self.is_crowded() {
                break;
            }
        }
        if batch.is_empty() {
            self.backbone.recycle(std::mem::take(batch));
        }
        self.resume_sessions(now);
    }

    fn handle_peer_message(&mut self, from: ShardIndex, message: PeerMessage, copied: &Copied, now: Instant) {
        match message {
            PeerMessage::Signal(envelope) => self.deliver_for_peer(from, &envelope, now),
            PeerMessage::CopiedSignal(signal) => {
                if let Some((view, addressed)) = copied.signal(&signal) {
                    self.deliver_copied(view, addressed, now);
                }
                if signal.send != SendKey::default() {
                    self.backbone.forward(from, PeerMessage::Taken { send: signal.send, report: None });
                }
            }
            PeerMessage::Publish(publish) => {
                let mark = self.store.mark();
                let (view, publisher) = copied.publish(&publish);
                self.deliver_publish(view, publisher, now);
                let part = self.note_part_since(mark, publish.publish, publisher, None, &view);
                self.answer_when_kept(mark, from, publish.publish.key, part);
            }
            PeerMessage::Retain { message, version, publish, deliver } => {
                let mark = self.store.mark();
                self.handle_retain(&message, version, deliver, now);
                let part = self.note_part_of(mark, publish, None, &message);
                self.answer_when_kept(mark, from, publish.key, part);
            }
            PeerMessage::Kept { publish, kept, part } => self.handle_kept(publish, kept, part, now),
            PeerMessage::Shared { share, message, publish } => {
                let mark = self.store.mark();
                self.handle_shared(&share, &message, now);
                let part = self.note_part_of(mark, publish, Some(&share), &message);
                self.answer_when_kept(mark, from, publish.key, part);
            }
            PeerMessage::ShareMembers { share, connected } => {
                self.handle_share_members(from, &share, connected);
            }
            PeerMessage::Taken { send, report } => self.handle_taken(send, report, now),
            PeerMessage::Ended { number, client, status } => self.handle_ended(number, client, status, now),
            PeerMessage::Finished { send, report } => self.handle_finished(send, report, now),
            PeerMessage::PresenceAsked { group } => self.answer_presence(from, group),
            PeerMessage::PresenceMembers { group, members } => {
                self.handle_presence(from, &group, &members, now);
            }
            PeerMessage::PresenceChanges { group, changes } => self.give_changes(&group, &changes, now),
            PeerMessage::Moderate { asked, moderation, by } => {
                self.moderate_for_peer(from, asked, &moderation, &by, now);
            }
            PeerMessage::Moderated { asked, result } => self.handle_moderated(asked, result, now),
            PeerMessage::Interest { key, added } => self.handle_interest(from, key, added),
            PeerMessage::InterestKnown { key, added } => self.handle_interest_known(&key, added, now),
        }
    }

    /// What the store kept, one thing at a time, before anybody is served.
    pub fn handle_restored(&mut self, restored: Restored, now: Instant) {
        self.restore(restored, now);
    }

    /// What there is for another shard.
    pub fn poll_peer(&mut self) -> Option<(ShardIndex, PeerBatch)> {
        self.backbone.poll()
    }

    /// Says whether the way to `peer` takes more; while it doesn't, [`poll_peer`](Self::poll_peer) gives
    /// nothing for it.
    pub fn peer_has_room(&mut self, peer: ShardIndex, room: bool) {
        self.backbone.block(peer, !room);
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Instant) {
        self.handle_timers(now);
        self.resume_sessions(now);
    }

    /// When [`handle_time`](Self::handle_time) is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Says whether the connection's socket takes bytes. While it doesn't, all for it waits in its mailbox, where it
    /// can still expire.
    pub fn set_stalled(&mut self, key: ConnectionKey, stalled: bool) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stalled = stalled;
        }
    }

    /// Appends what the connection is to be sent to `out`, until that holds `limit` bytes or a little more.
    pub fn poll_transmit(
        &mut self,
        key: ConnectionKey,
        out: &mut Vec<u8>,
        limit: usize,
        now: Instant,
    ) -> Transmit {
        let start = out.len();
        if self.clients.get(key).is_some_and(|client| client.replays.is_some()) {
            self.refill(key, now);
        }
        let Some(client) = self.clients.get_mut(key) else { return Transmit::Close };
        let (mut expired, mut written) = (Vec::new(), Vec::new());
        if client.out.capacity() > 0 {
            let mut ahead = std::mem::take(&mut client.out);
            if out.is_empty() {
                std::mem::swap(out, &mut ahead);
            } else {
                out.append(&mut ahead);
            }
            client.written_ahead = [0; 2];
            if self.buffers.len() < KEPT_BUFFERS {
                self.buffers.push(ahead);
            }
        }
        client.session.poll_transmit(out, now);
        client.session.poll_resend(out, limit, now);
        while out.len() < limit && client.session.has_room() {
            match client.mailbox.pop() {
                Some(delivery) if delivery.is_expired(now) => expired.push(delivery),
                Some(delivery) => {
                    let (slot, qos) = (delivery.slot, delivery.qos());
                    let id = client.session.handle_delivery(delivery, out, now);
                    if let (Some(ReceiptSlot::Queue { queue, sequence }), Some(id)) = (slot, id) {
                        written.push((queue, sequence, id, qos));
                    }
                }
                None => break,
            }
        }
        client.session.poll_transmit(out, now);
        let transmit = if client.session.is_closing() {
            Transmit::Close
        } else if client.session.has_resends()
            || (client.session.has_room() && (!client.mailbox.is_empty() || client.replays.is_some()))
        {
            Transmit::More
        } else {
            Transmit::Drained
        };
        let stored = client.stored;
        self.counters.bytes_sent += (out.len() - start) as u64;
        for (queue, sequence, id, qos) in written {
            self.note_written(queue, sequence, id, qos, stored);
        }
        for delivery in expired {
            self.drop_delivery(&delivery, Status::Expired, now);
        }
        self.settle(key, now);
        if self.store.is_durable() {
            self.load_queue(key);
        }
        self.schedule(key);
        transmit
    }

    /// Tells every client that the gateway stops; each then gets [`Transmit::Close`].
    pub fn shut_down(&mut self, now: Instant) {
        self.shutting_down = true;
        let connected = self.clients.iter().filter(|(_, client)| client.away.is_none());
        for key in connected.map(|(key, _)| key).collect::<Vec<_>>() {
            self.close(key, Refusal::new(Reason::ShuttingDown, "the gateway is stopping"), now);
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Runs the session over its input and carries out its commands.
    fn pump(&mut self, key: ConnectionKey, bytes: &[u8], now: Instant) {
        let mut input = bytes;
        self.pumping = Some(key);
        while let Some(client) = self.clients.get_mut(key) {
            let Some(command) = client.session.handle_bytes(&mut input, now) else { break };
            let before = self.unwritten_bulk();
            self.execute(key, command, now);
            if self.unwritten_bulk() > before && self.is_crowded() {
                self.pause_for_breath(key, now);
            }
        }
        self.pumping = None;
        self.settle(key, now);
        self.mark(key);
    }

    /// Goes on with input that sessions kept until an answer came. Bounded: each turn answers a request.
    fn resume_sessions(&mut self, now: Instant) {
        while let Some(key) = self.resumable.pop() {
            self.pump(key, &[], now);
        }
    }

    // Inlined like what a signal passes through below: the calls are a tenth of the instructions of a delivery.
    #[inline(always)]
    fn execute(&mut self, key: ConnectionKey, command: Command<'_>, now: Instant) {
        match command {
            Command::Connect(request) => self.connect(key, *request, now),
            Command::Authenticate { data, again } => self.authenticate(key, &data, again, now),
            Command::Send { request, signal, refusable } => {
                self.handle_send(key, request, signal, refusable, now);
            }
            Command::Publish { request, publication } => self.handle_publish(key, request, &publication, now),
            Command::Moderate { request, moderation } => self.handle_moderate(key, request, moderation, now),
            Command::Refuse { request, refusal } => self.refuse(key, request, refusal, now),
            Command::Subscribe { request, items } => self.handle_subscribe(key, request, items, now),
            Command::Unsubscribe { request, filters } => self.handle_unsubscribe(key, request, &filters, now),
            Command::Release { id } => self.release(key, id, now),
            Command::Confirm { request, id } => self.confirm_publish(key, request, id, now),
            Command::Disconnect { with_will, session_expiry } => {
                self.note_goodbye(key);
                if let (Some(expiry), Some(client)) = (session_expiry, self.clients.get_mut(key)) {
                    client.session_expiry = expiry.min(self.limits.session_expiry_max);
                }
                self.end_client(key, with_will, now);
            }
        }
    }

    /// Gives a session an answer, and lets it go on if it waited for that.
    fn reply(&mut self, key: ConnectionKey, reply: Reply, now: Instant) {
        if let Some(client) = self.clients.get_mut(key) {
            client.session.handle_reply(reply, now);
            if self.pumping == Some(key) {
                return;
            }
            // Several answers to one connection in a row need one look at what it kept.
            if self.resumable.last() != Some(&key) {
                self.resumable.push(key);
            }
            self.mark(key);
        }
    }

    fn close(&mut self, key: ConnectionKey, why: Refusal, now: Instant) {
        self.counters.count_refusal(why.reason);
        self.note_close(key, &why);
        self.reply(key, Reply::Close(why), now);
    }

    /// Puts the connection into the queue of those with something to write, and its deadline into that of
    /// timers.
    fn mark(&mut self, key: ConnectionKey) {
        self.mark_dirty(key);
        self.schedule(key);
    }

    /// Whether the rules let someone do this.
    fn may(&self, actor: Actor<'_>, action: Action, object: Object<'_>) -> bool {
        decide(actor, action, object, &self.rules).allowed
    }

    /// Whether the rules let a connected client do this.
    fn client_may(&self, key: ConnectionKey, action: Action, object: Object<'_>) -> bool {
        let actor = self.clients.get(key).and_then(Client::actor);
        actor.is_some_and(|actor| self.may(actor, action, object))
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard {} with {} clients", self.index, self.clients.len())
    }
}
