//! A shard's thread: it owns a [`Shard`] with the sockets, the timer and the links that belong to it.
//!
//! Whatever goes into the shard wakes one loop, which then takes out all that has become ready: first what other
//! shards wait for, then bytes for sockets. So several reads share a write, and a message to a thousand clients is
//! a thousand writes and no wake-up. Calls into the shard are short and never wait; none is made within another.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, TcpStream as StdTcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bugle_core::hub::{
    ConnectionKey, Counters, Credentials, Judgement, PeerBatch, Shard, ShardConfig, Transmit,
};
use bugle_core::model::{Instant, ModerationRequest, Reason, Refusal};
use bugle_core::rules::Rules;
use bugle_core::session::Protocol;
use bugle_core::store::{BatchNumber, Restored, StoreEvent, WallTime};
use slotmap::{SecondaryMap, SparseSecondaryMap};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{sleep_until, timeout, timeout_at};
use zeroize::Zeroize;

use crate::authentication::Authenticator;
use crate::connection::{self, Connection};
use crate::fifo::{self, FifoEnds, Link, Put};
use crate::metrics::ProcessCounters;
use crate::places::{LargePlace, Slot};
use crate::store::link::{self, StoreEnd, StoreLink};
use crate::transport::Layers;

/// Connections that wait for the shard to take them over.
const ARRIVALS: usize = 1024;
/// Requests of the process itself that wait for the shard.
const CONTROLS: usize = 16;
/// The buffer that all reads of a shard share, in bytes.
const READ_BUFFER: usize = 64 * 1024;
/// About how many bytes a session gives at a time.
const TRANSMIT: usize = 16 * 1024;
/// A session may give more at a time; the buffer for it isn't kept larger than this, in bytes.
const MAX_SCRATCH: usize = 256 * 1024;
/// Bytes that one client may leave unread on top of what its TCP takes. Reading from it stops long before, so only
/// answers to what it had already asked add to them.
const MAX_KEPT: usize = 8 * 1024 * 1024;
/// Connections that are written to before reads and timers have their turn.
const FLUSHES_PER_TURN: usize = 1024;
/// Connections that are written to between two looks at the clock: far less than a millisecond's worth.
const FLUSHES_PER_TICK: usize = 32;
/// How long shards may take to tell what they have counted.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long clients have for their goodbye when the process stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The gateway's clock, common to all shards. It shows the wall's time as it goes on from the start: a jump of that
/// clock changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    wall_at_start: WallTime,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_at_start = WallTime(since_1970.as_millis() as u64);
        Self { start: std::time::Instant::now(), wall_at_start }
    }

    /// The time of the wall when it started.
    pub fn wall_at_start(self) -> WallTime {
        self.wall_at_start
    }

    /// The present time of the wall.
    pub fn wall(self) -> WallTime {
        WallTime(self.wall_at_start.0 + self.now().as_millis())
    }

    /// The present moment.
    pub fn now(self) -> Instant {
        Instant::from_millis(self.elapsed().as_millis() as u64)
    }

    /// Time since it started.
    pub fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    fn at(self, moment: Instant) -> tokio::time::Instant {
        // A deadline too far away to be told is never awaited: a day later is looked again.
        let ahead = moment.millis_since(self.now()).min(86_400_000);
        tokio::time::Instant::now() + Duration::from_millis(ahead)
    }
}

/// A connection whose first packet was seen, on its way to the shard that owns it.
pub struct Arrival {
    /// The socket, non-blocking.
    pub stream: StdTcpStream,
    /// What its bytes go through. None: TCP alone. Not boxed: what lasts is allocated by the thread that it lasts on,
    /// else it would lie scattered among what was freed on the other.
    pub layers: Option<Layers>,
    /// The name in its certificate, if that lets it in.
    pub certificate: Option<String>,
    /// What was read through them.
    pub bytes: Vec<u8>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its place among all connections.
    pub slot: Slot,
    /// The place of its first packet, if that is large.
    pub large: Option<LargePlace>,
}

/// What the process asks of a shard.
pub enum Control {
    /// What it has counted.
    Counters(oneshot::Sender<Counters>),
    /// To publish these texts to these topics, retained, in the gateway's own name.
    Publish(Vec<(String, String)>),
    /// To judge by these rules from now on; it answers when all of its clients have been judged by them.
    Rules(Arc<Rules>, oneshot::Sender<()>),
    /// To let clients in by these secrets from now on.
    Credentials(Arc<Credentials>),
    /// To kick, mute or ban in this operator's name, or to end that; of the shard that owns the client's id
    /// ([`bugle_core::hub::owner`]). It answers when that is in force and, if there is a store, committed.
    Moderate(ModerationRequest, Arc<str>, oneshot::Sender<Result<(), Refusal>>),
    /// To look something up; it answers by itself.
    Look(Look),
    /// What became of a credential that it wanted judged.
    Authenticated(ConnectionKey, Judgement),
    /// To tell its clients and end.
    ShutDown,
}

/// What is to be looked up.
pub type Look = Box<dyn FnOnce(&Sight<'_>) + Send>;

/// What can be seen of a shard.
pub struct Sight<'a> {
    /// It.
    pub shard: &'a Shard,
    connections: &'a SecondaryMap<ConnectionKey, Rc<Connection>>,
}

impl Sight<'_> {
    /// Where a connection comes from, as long as it is there.
    pub fn address(&self, key: ConnectionKey) -> Option<IpAddr> {
        self.connections.get(key)?.peer()
    }
}

/// A moderation that is in force, and who waits until it is committed.
type Committing = (BatchNumber, oneshot::Sender<Result<(), Refusal>>);

/// The way to a shard.
#[derive(Clone)]
pub struct ShardSender {
    /// Connections; full when the shard is overloaded.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Everything else.
    pub control: mpsc::Sender<Control>,
}

/// The sum of what the shards have counted, and how many of them told in time.
pub async fn sum_counters(shards: &[ShardSender]) -> (Counters, usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let ask = |shard: &ShardSender| {
        let (answer, answered) = oneshot::channel();
        shard.control.try_send(Control::Counters(answer)).ok().map(|()| answered)
    };
    let asked: Vec<_> = shards.iter().filter_map(ask).collect();
    let mut sum = Counters::default();
    let mut count = 0;
    for answered in asked {
        if let Ok(Ok(counters)) = timeout_at(deadline, answered).await {
            sum.add(&counters);
            count += 1;
        }
    }
    (sum, count)
}

/// A running shard.
pub struct ShardHandle {
    /// The way to it.
    pub sender: ShardSender,
    /// Resolves when it has ended.
    pub ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl ShardHandle {
    /// Waits for the thread, which is about to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard's thread ended by a panic");
        }
    }
}

/// Starts a shard on a thread of its own.
pub fn start(
    config: ShardConfig,
    ends: FifoEnds,
    clock: Clock,
    counters: Arc<ProcessCounters>,
    authenticator: Authenticator,
    store: Option<StoreEnd>,
) -> std::io::Result<ShardHandle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (arrivals, arriving) = mpsc::channel(ARRIVALS);
    let (control, controls) = mpsc::channel(CONTROLS);
    let (has_ended, ended) = oneshot::channel();
    let judge = (authenticator, control.clone());
    let thread = std::thread::Builder::new().name(format!("shard-{}", config.index)).spawn(move || {
        let mut shard = Shard::new(config, Box::new(fill_random));
        if counters.audit().is_on() {
            shard.keep_audit();
        }
        let to_store = store.as_ref().map(|end| end.link.clone());
        let host = Rc::new(ShardHost::new(shard, clock, counters, ends.outgoing, judge, to_store));
        let tasks = LocalSet::new();
        if let Some(end) = store {
            tasks.spawn_local(link::serve(host.clone(), end));
        }
        for (from, fifo) in ends.incoming {
            tasks.spawn_local(fifo::receive(host.clone(), from, fifo));
        }
        tasks.spawn_local(host.clone().settle_when_woken());
        tasks.spawn_local(host.clone().take_arrivals(arriving));
        tasks.block_on(&runtime, host.obey(controls));
        drop(tasks);
        // Nobody waits for it if the process ends another way.
        let _ = has_ended.send(());
    })?;
    Ok(ShardHandle { sender: ShardSender { arrivals, control }, ended, thread })
}

fn fill_random(bytes: &mut [u8]) {
    // Without it nobody could be authenticated. A panic here costs the connection that asked for it.
    getrandom::fill(bytes).expect("the system's random numbers, which were there when the process started");
}

/// What a shard's thread holds.
pub struct ShardHost {
    shard: RefCell<Shard>,
    connections: RefCell<SecondaryMap<ConnectionKey, Rc<Connection>>>,
    /// The places of large first packets whose clients aren't in: their wills, and their credentials, are still held.
    large: RefCell<SparseSecondaryMap<ConnectionKey, LargePlace>>,
    /// Tasks of connections, those that linger included.
    tasks: Cell<usize>,
    read_buffer: RefCell<Box<[u8]>>,
    scratch: RefCell<Vec<u8>>,
    links: RefCell<Vec<Option<Link>>>,
    /// The way to the durable store, if there is one.
    store: Option<StoreLink>,
    /// Who waits until all clients have been judged by new rules.
    judging: RefCell<Vec<oneshot::Sender<()>>>,
    /// Who waits until a moderation is committed.
    committing: RefCell<Vec<Committing>>,
    /// Who judges credentials, and the way back.
    judge: (Authenticator, mpsc::Sender<Control>),
    /// Something went into the shard.
    wake: Notify,
    /// The last task of a connection has ended.
    all_ended: Notify,
    clock: Clock,
    /// The moment that calls into the shard are told: looked at when something comes in, and every so many writes.
    now: Cell<Instant>,
    counters: Arc<ProcessCounters>,
}

impl ShardHost {
    fn new(
        shard: Shard,
        clock: Clock,
        counters: Arc<ProcessCounters>,
        outgoing: Vec<Option<mpsc::Sender<PeerBatch>>>,
        judge: (Authenticator, mpsc::Sender<Control>),
        store: Option<StoreLink>,
    ) -> Self {
        Self {
            shard: RefCell::new(shard),
            connections: RefCell::new(SecondaryMap::new()),
            large: RefCell::default(),
            now: Cell::new(clock.now()),
            tasks: Cell::new(0),
            read_buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            scratch: RefCell::new(Vec::with_capacity(2 * TRANSMIT)),
            links: RefCell::new(outgoing.into_iter().map(|sender| sender.map(Link::new)).collect()),
            store,
            judging: RefCell::default(),
            committing: RefCell::default(),
            judge,
            wake: Notify::new(),
            all_ended: Notify::new(),
            clock,
            counters,
        }
    }

    /// Looks at the clock.
    pub fn tick(&self) {
        self.now.set(self.clock.now());
    }

    /// Gives the shard what a socket had.
    pub fn handle_bytes(&self, key: ConnectionKey, bytes: &[u8]) {
        self.tick();
        let wants = self.guarded(key, |shard, now| {
            shard.handle_bytes(key, bytes, now);
            shard.wants_bytes(key)
        });
        if let (Some(wants), Some(connection)) = (wants, self.connection(key)) {
            connection.set_reads(wants);
        }
        self.free_large(key);
        self.wake.notify_one();
    }

    /// Frees the place of a large first packet whose client is in.
    fn free_large(&self, key: ConnectionKey) {
        let mut large = self.large.borrow_mut();
        // Nearly all the time there are none.
        if !large.is_empty() && self.shard.borrow().is_let_in(key) {
            large.remove(key);
        }
    }

    /// Gives the shard what another one sent; what is left in the batch then is for the next turn.
    pub fn handle_peer(&self, from: u16, batch: &mut PeerBatch) {
        self.tick();
        // Should it panic over one message, the others are still in the batch.
        self.caught("a message of another shard", |shard, now| shard.handle_peer(from, batch, now));
        self.wake.notify_one();
    }

    /// Tells the shard whether the FIFO to another takes more.
    pub fn set_peer_room(&self, peer: u16, room: bool) {
        self.caught("room at another shard", |shard, _| shard.peer_has_room(peer, room));
        self.wake.notify_one();
    }

    /// Gives the shard something that was kept when the gateway was stopped.
    pub fn handle_restored(&self, restored: Restored) {
        self.tick();
        self.caught("something from the store", |shard, now| shard.handle_restored(restored, now));
        self.wake.notify_one();
    }

    /// Whether other shards may not know yet what this one's clients are subscribed to.
    pub fn awaits_peers(&self) -> bool {
        self.shard.borrow().awaits_peers()
    }

    /// Tells the shard what the store says.
    pub fn handle_store(&self, event: StoreEvent) {
        self.tick();
        self.caught("word from the store", |shard, now| shard.handle_store(event, now));
        self.wake.notify_one();
    }

    /// Tells the shard whether the store takes more.
    pub fn set_store_room(&self, room: bool) {
        self.caught("room at the store", |shard, _| shard.store_has_room(room));
        self.wake.notify_one();
    }

    /// Writes what a session has to say, until its socket takes no more. Then the session is still asked for control
    /// packets, so that the end of a session comes through whether its client reads or not.
    pub fn flush(&self, key: ConnectionKey) {
        let Some(connection) = self.connection(key) else { return };
        let mut scratch = self.scratch.borrow_mut();
        while connection.is_open() {
            scratch.clear();
            let limit = if connection.kept() == 0 { TRANSMIT } else { 0 };
            let transmit = self.guarded(key, |shard, now| shard.poll_transmit(key, &mut scratch, limit, now));
            let Some(transmit) = transmit else { return };
            if connection.write(&scratch).is_err() {
                return self.lose(key);
            }
            if connection.kept() > MAX_KEPT {
                tracing::debug!(?key, "closed: the client does not read its answers");
                self.counters.closed_unread();
                return self.lose(key);
            }
            match transmit {
                Transmit::Close => return connection.close(),
                Transmit::More if connection.kept() == 0 && !scratch.is_empty() => {}
                Transmit::More | Transmit::Drained => break,
            }
        }
        if scratch.capacity() > MAX_SCRATCH {
            *scratch = Vec::with_capacity(2 * TRANSMIT);
        }
        let stalled = connection.kept() > 0;
        let wants = self.guarded(key, |shard, _| {
            shard.set_stalled(key, stalled);
            shard.wants_bytes(key)
        });
        if let Some(wants) = wants {
            connection.set_reads(wants);
        }
    }

    /// The connection is no more. Without effect if that is known already.
    pub fn lose(&self, key: ConnectionKey) {
        let Some(connection) = self.connections.borrow_mut().remove(key) else { return };
        self.large.borrow_mut().remove(key);
        self.tick();
        connection.end();
        self.caught("the end of a connection", |shard, now| shard.handle_closed(key, now));
        self.wake.notify_one();
    }

    /// A connection's task has ended.
    pub fn task_ended(&self) {
        self.tasks.set(self.tasks.get() - 1);
        if self.tasks.get() == 0 {
            self.all_ended.notify_one();
        }
    }

    /// Lends the buffer for reads. `f` must not wait, nor read by another way.
    pub fn with_read_buffer<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        f(&mut self.read_buffer.borrow_mut())
    }

    /// Lends the link to another shard.
    pub fn with_link<R>(&self, peer: u16, f: impl FnOnce(&mut Link) -> R) -> Option<R> {
        self.links.borrow_mut().get_mut(usize::from(peer)).and_then(Option::as_mut).map(f)
    }

    fn connection(&self, key: ConnectionKey) -> Option<Rc<Connection>> {
        self.connections.borrow().get(key).cloned()
    }

    /// Calls the shard for one connection, which a panic costs.
    fn guarded<R>(&self, key: ConnectionKey, f: impl FnOnce(&mut Shard, Instant) -> R) -> Option<R> {
        let result = self.caught("a connection", f);
        if result.is_none() {
            self.lose(key);
        }
        result
    }

    /// Calls the shard. None if it panicked, which is counted and logged.
    fn caught<R>(&self, during: &str, f: impl FnOnce(&mut Shard, Instant) -> R) -> Option<R> {
        let now = self.now.get();
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut self.shard.borrow_mut(), now)));
        if result.is_err() {
            self.counters.panicked();
            tracing::error!(
                during,
                "a panic in the gateway's code, which please report; others are served on"
            );
        }
        result.ok()
    }

    /// Takes connections over.
    async fn take_arrivals(self: Rc<Self>, mut arriving: mpsc::Receiver<Arrival>) {
        while let Some(arrival) = arriving.recv().await {
            let Arrival { stream, layers, certificate, mut bytes, protocol, slot, large } = arrival;
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken over");
                    self.counters.handover_refused();
                    continue;
                }
            };
            self.tick();
            let opened = self.caught("a new connection", |shard, now| {
                let key = shard.open(protocol, now);
                if let Some(name) = &certificate {
                    shard.set_certificate(key, name);
                }
                key
            });
            let Some(key) = opened else {
                continue;
            };
            let (connection, reader) = Connection::new(key, stream, layers);
            self.connections.borrow_mut().insert(key, connection.clone());
            self.tasks.set(self.tasks.get() + 1);
            spawn_local(connection::serve(self.clone(), connection.clone(), reader, slot));
            if let Some(large) = large {
                self.large.borrow_mut().insert(key, large);
            }
            self.handle_bytes(key, &bytes);
            // There may be a password in it.
            bytes.zeroize();
            connection.close_if_over();
        }
    }

    /// Does what the process asks, until it asks to end.
    async fn obey(self: Rc<Self>, mut controls: mpsc::Receiver<Control>) {
        while let Some(control) = controls.recv().await {
            match control {
                Control::Counters(answer) => {
                    let counted = self.shard.borrow().counters().clone();
                    // Who asked may have waited long enough.
                    let _ = answer.send(counted);
                }
                Control::Publish(messages) => {
                    self.tick();
                    for (topic, text) in messages {
                        self.caught("a message of the gateway's own", |shard, now| {
                            shard.publish_own(&topic, text.as_bytes(), now);
                        });
                    }
                    self.wake.notify_one();
                }
                Control::Rules(rules, judged) => {
                    self.tick();
                    self.caught("new rules", |shard, now| shard.handle_rules(rules, now));
                    self.judging.borrow_mut().push(judged);
                    self.wake.notify_one();
                }
                Control::Moderate(request, by, answer) => {
                    self.tick();
                    let result = self.caught("a moderation", |shard, now| {
                        shard.handle_moderation(&request, &by, now).map(|()| shard.uncommitted())
                    });
                    let failed = || Err(Refusal::new(Reason::Internal, "a fault of the gateway's own"));
                    match result.unwrap_or_else(failed) {
                        Ok(Some(batch)) => {
                            let mut committing = self.committing.borrow_mut();
                            // Who asked may have waited long enough.
                            committing.retain(|(_, answer)| !answer.is_closed());
                            committing.push((batch, answer));
                        }
                        result => drop(answer.send(result.map(drop))),
                    }
                    self.wake.notify_one();
                }
                Control::Look(look) => {
                    let connections = self.connections.borrow();
                    self.caught("a look for an operator", |shard, _| {
                        look(&Sight { shard, connections: &connections });
                    });
                }
                Control::Credentials(credentials) => {
                    self.caught("new secrets", |shard, _| shard.set_credentials(credentials));
                }
                Control::Authenticated(key, judgement) => {
                    self.tick();
                    self.guarded(key, |shard, now| shard.handle_authenticated(key, judgement, now));
                    self.free_large(key);
                    self.wake.notify_one();
                }
                Control::ShutDown => break,
            }
        }
        self.tick();
        self.caught("the stop", |shard, now| shard.shut_down(now));
        self.wake.notify_one();
        let _ = timeout(FAREWELL, async {
            while self.tasks.get() > 0 {
                self.all_ended.notified().await;
            }
        })
        .await;
        self.audit();
    }

    /// Takes out of the shard what has become ready, each time something went in, and at its deadlines.
    async fn settle_when_woken(self: Rc<Self>) {
        let mut timer = pin!(sleep_until(tokio::time::Instant::now()));
        let mut armed: Option<Instant> = None;
        loop {
            // Both are cancel-safe.
            tokio::select! {
                () = self.wake.notified() => {}
                () = timer.as_mut(), if armed.is_some() => {
                    armed = None;
                    self.tick();
                    self.caught("a deadline", |shard, now| shard.handle_time(now));
                }
            }
            if !self.settle() {
                self.wake.notify_one();
                yield_now().await;
            }
            self.audit();
            self.tell_committed();
            if !self.shard.borrow().is_judging() {
                for judged in self.judging.take() {
                    // Who asked may have waited long enough.
                    let _ = judged.send(());
                }
            }
            let next = self.shard.borrow().deadline();
            if let Some(next) = next
                && armed.is_none_or(|armed| next < armed)
            {
                // A deadline that has passed and stands is looked at once a millisecond.
                let next = next.max(self.clock.now() + 1);
                timer.as_mut().reset(self.clock.at(next));
                armed = Some(next);
            }
        }
    }

    /// Writes down what an audit is to know.
    fn audit(&self) {
        if !self.shard.borrow().keeps_audit() {
            return;
        }
        let index = self.shard.borrow().index();
        while let Some(Some(event)) = self.caught("what an audit is to know", |shard, _| shard.poll_audit()) {
            let address = |key| self.connection(key).and_then(|connection| connection.peer());
            self.counters.audit().record_event(index, event, address);
        }
    }

    /// Tells operators whose moderation the store has.
    fn tell_committed(&self) {
        // Nearly always it is empty.
        if self.committing.borrow().is_empty() {
            return;
        }
        let committed = self.shard.borrow().committed();
        for (_, answer) in self.committing.borrow_mut().extract_if(.., |(batch, _)| *batch <= committed) {
            // Who asked may have waited long enough.
            let _ = answer.send(Ok(()));
        }
    }

    /// Whether all was taken out.
    fn settle(self: &Rc<Self>) -> bool {
        let mut flushes = 0_usize;
        // While those are there whom it is about.
        self.audit();
        loop {
            self.authenticate();
            let has_forwarded = self.forward();
            // Before sockets, so that the disk works while they are written.
            self.store();
            let before = flushes;
            while let Some(Some(key)) =
                self.caught("the choice of what to write", |shard, now| shard.poll_dirty(now))
            {
                if flushes.is_multiple_of(FLUSHES_PER_TICK) {
                    self.tick();
                }
                self.flush(key);
                flushes += 1;
                if flushes == FLUSHES_PER_TURN {
                    self.forward();
                    self.store();
                    return false;
                }
            }
            if !has_forwarded && flushes == before {
                // What waited for its turn may have been given out, and to other shards alone.
                self.store();
                if !self.forward() {
                    return true;
                }
            }
        }
    }

    /// Notes whose credentials were wrong, and has those judged that the shard can't judge by itself.
    fn authenticate(&self) {
        while let Some(Some(key)) = self.caught("a wrong credential", |shard, _| shard.poll_failed()) {
            // One that has gone is of no address any more.
            if let Some(address) = self.connection(key).and_then(|connection| connection.peer()) {
                self.counters.back_off().failed(address, std::time::Instant::now());
            }
        }
        let (authenticator, way_back) = &self.judge;
        while let Some(Some(request)) =
            self.caught("a credential to be judged", |shard, _| shard.poll_authentication())
        {
            let address = self.connection(request.key).and_then(|connection| connection.peer());
            if let Err(refused) = authenticator.try_judge(request, address, way_back) {
                self.guarded(refused.key, |shard, now| {
                    shard.handle_authenticated(refused.key, Judgement::Unavailable, now);
                });
            }
        }
    }

    /// Hands the store what is to last.
    fn store(&self) {
        let Some(link) = &self.store else { return };
        while let Some(Some(batch)) =
            self.caught("what there is for the store", |shard, _| shard.poll_store())
        {
            if !link.put(batch) {
                self.caught("a full store", |shard, _| shard.store_has_room(false));
            }
        }
    }

    /// Puts what the shard has for others on their FIFOs. Whether there was something.
    fn forward(self: &Rc<Self>) -> bool {
        let mut has_forwarded = false;
        while let Some(Some((peer, batch))) =
            self.caught("what there is for another shard", |shard, _| shard.poll_peer())
        {
            has_forwarded = true;
            match self.with_link(peer, |link| link.put(batch)) {
                Some(Put::Taken) => {}
                Some(Put::Waits) => {
                    self.caught("a full shard", |shard, _| shard.peer_has_room(peer, false));
                    spawn_local(fifo::resume(self.clone(), peer));
                }
                None => tracing::error!(peer, "a message for a shard that there isn't"),
            }
        }
        has_forwarded
    }
}
