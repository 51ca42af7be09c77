//! The client as a state machine without IO: bytes, requests and time go in (`handle_*`,
//! [`submit`](Session::submit)), bytes to write, deadlines and events come out (`poll_*`). It owns the
//! buffers and everything that is known of the gateway, and refuses to wait, to allocate, and to look at a
//! clock: times are milliseconds since any fixed moment, as arguments, of which the low 32 bits are looked at. Read docs/protocol.md first.
//!
//! ```text
//!            handle_connected            WELCOME          disconnect
//!    Down -------------------> Greeting ---------> Open -----------> Leaving
//!     ^                           | BYE, fault,      | BYE, fault,      | all written
//!     |    handle_disconnected    v time             v time             v
//!     +------------------------ Closing <------------+------------------+
//! ```
//!
//! `connection` has the ways between these states and their times, `process` deals with frames that come in,
//! `transmit` with what goes out, `submit` with what the application asks for; each of the other files holds
//! one table.

mod clock;
mod connection;
mod inbox;
mod interest;
#[cfg_attr(not(feature = "names"), path = "session/inline_names.rs")]
mod names;
mod outbox;
mod outcomes;
mod process;
mod submit;
mod timer;
mod transmit;
mod turns;

use core::task::Waker;

use bugle_protocol::auth::PROOF;
use bugle_protocol::{MAX_NAME, Reason, Status, Welcome};
use embassy_sync::waitqueue::MultiWakerRegistration;
use heapless::{Deque, String};

pub use self::names::{AnnouncedSlot, NameSlot};
pub use self::outcomes::SendSlot;
pub use self::process::Lent;
pub use self::submit::Request;
pub(crate) use self::turns::{Attempts, Turn, Turns};

use self::clock::GatewayClock;
use self::inbox::Inbox;
use self::interest::{Interest, Interests};
use self::names::AnnouncedNames;
use self::outbox::Outbox;
use self::outcomes::Outcomes;
use self::timer::Timer;
use crate::config::{Config, ConfigError};
use crate::signal::{Accepted, Connection, Counters, Disconnect, Event, Receipt, SendError};

/// Smallest buffer for [`Session::poll_transmit`], in bytes.
pub const CHUNK: usize = 512;

const EVENTS: usize = 8;
/// Tasks that are woken; more than these wait by polling.
const WAITING: usize = 16;

/// The memory of a session, sized by the application.
#[derive(Debug)]
pub struct Storage<'a> {
    /// Received bytes, until they are dealt with.
    pub receive: &'a mut [u8],
    /// Frames to be sent, until they are acknowledged.
    pub outbox: &'a mut [u8],
    /// Names that the gateway announced.
    pub names: &'a mut [NameSlot],
    /// Names announced to the gateway.
    pub announced: &'a mut [AnnouncedSlot],
    /// Joined groups and subscriptions: 3 bytes and the name for each.
    pub interests: &'a mut [u8],
    /// Sends that somebody waits for, 256 at most.
    pub sends: &'a mut [SendSlot],
    /// Entries of receipts that nobody has read yet: 3 bytes and the client id for each.
    pub receipts: &'a mut [u8],
}

/// How the connection stands.
enum Link {
    Down,
    Greeting(Greeting),
    Open,
    /// The application wants no more: what is queued is written yet, then the goodbye.
    Leaving,
    /// Over, once the goodbye is written, if there is one.
    Closing(Disconnect, Option<Reason>),
}

enum Greeting {
    WriteHello,
    WriteProof,
    /// For the gateway's next word.
    Waiting,
}

/// What has to happen to a lent inbox when it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnReturn {
    Nothing,
    Clear,
    Restart,
}

/// What was agreed in the last welcome; all zero when there is no session to go on with.
#[derive(Clone, Copy, Default)]
struct Agreed {
    is_session: bool,
    keep_alive: u16,
    max_body: u16,
    window: u16,
    session_expiry: u32,
    /// In halves, since nothing else here needs an alignment of 8.
    session: [u32; 2],
}

impl From<&Welcome> for Agreed {
    fn from(welcome: &Welcome) -> Self {
        let &Welcome { keep_alive, max_body, window, session_expiry, session, .. } = welcome;
        Self { is_session: true, keep_alive, max_body, window, session_expiry, session: halves(session) }
    }
}

fn halves(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

/// The client's state. See [the module](self).
///
/// What is looked at most stands first, where the shortest instructions of a Cortex-M reach it.
#[repr(C)]
pub struct Session<'a> {
    link: Link,
    on_return: OnReturn,
    /// Groups and subscriptions are being restored in this new session, so nothing else may go first.
    is_restoring: bool,
    has_news_for_runner: bool,
    last: Option<Disconnect>,
    stopped: Option<Disconnect>,
    agreed: Agreed,
    /// Largest frame body to receive.
    max_body: u16,
    /// How many of the gateway's frames were looked at before the connection was lost: their outcomes are
    /// known.
    known_until: u32,
    /// How many of the gateway's frames were acknowledged.
    acknowledged: u32,
    /// When hello or proof was written.
    asked_at: u32,
    connected_at: u32,
    lost_at: u32,
    last_sent: u32,
    last_heard: u32,
    last_ping: u32,
    /// Since when the gateway owes an acknowledgement.
    owed_since: u32,
    /// Until groups and subscriptions are restored next; over when that waits for nothing but room.
    restore: Timer,
    /// Until the clock is asked for next.
    sync: Timer,
    /// When the clock question was asked that is open. It is its token, too.
    sync_asked: Option<u32>,
    /// A ping to be answered, with its token.
    pong: Option<Option<u32>>,
    outbox: Outbox<'a>,
    /// Not here while the application looks at what is in it.
    inbox: Option<Inbox<'a>>,
    outcomes: Outcomes<'a>,
    announced: AnnouncedNames<'a>,
    interests: Interests<'a>,
    clock: GatewayClock,
    counters: Counters,
    config: Config<'a>,
    proof: [u8; PROOF],
    events: Deque<Event, EVENTS>,
    /// All who wait for anything: there are few, and to look in vain costs less than to tell them apart.
    waiting: MultiWakerRegistration<WAITING>,
}

impl<'a> Session<'a> {
    /// A session without a connection.
    pub fn new(storage: Storage<'a>, config: Config<'a>) -> Result<Self, ConfigError> {
        let mut session = Self {
            config,
            max_body: 0,
            link: Link::Down,
            on_return: OnReturn::Nothing,
            inbox: Some(Inbox::new(storage.receive, storage.names)),
            outbox: Outbox::new(storage.outbox),
            announced: AnnouncedNames::new(storage.announced),
            interests: Interests::new(storage.interests),
            outcomes: Outcomes::new(storage.sends, storage.receipts),
            clock: GatewayClock::default(),
            agreed: Agreed::default(),
            proof: [0; PROOF],
            is_restoring: false,
            restore: Timer::OVER,
            known_until: 0,
            acknowledged: 0,
            asked_at: 0,
            connected_at: 0,
            lost_at: 0,
            last_sent: 0,
            last_heard: 0,
            last_ping: 0,
            sync: Timer::OVER,
            sync_asked: None,
            owed_since: 0,
            pong: None,
            last: None,
            stopped: None,
            events: Deque::new(),
            counters: Counters::default(),
            waiting: MultiWakerRegistration::new(),
            has_news_for_runner: false,
        };
        let receive_buffer = session.receive_room();
        session.max_body = config.check(receive_buffer)?;
        Ok(session)
    }

    /// How many bytes [`handle_bytes`](Self::handle_bytes) would take: 0 while the receive buffer is full of
    /// what the application didn't take.
    pub fn receive_room(&self) -> usize {
        self.inbox.as_ref().map_or(0, Inbox::room)
    }

    /// How the client stands to the gateway.
    pub fn status(&self) -> Connection {
        match (&self.link, self.stopped) {
            (Link::Down, Some(cause)) => Connection::Stopped(cause),
            (Link::Open, _) if self.is_restoring => Connection::Restoring,
            (Link::Open, _) => Connection::Online,
            _ => Connection::Offline(self.last),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether `group` was joined and is restored in a new session.
    pub fn remembers_group(&self, group: &str) -> bool {
        self.interests.contains(Interest::Group(group))
    }

    /// Whether `filter` was subscribed to and is restored in a new session.
    pub fn remembers_filter(&self, filter: &str) -> bool {
        self.interests.contains(Interest::Filter { filter, at_least_once: false })
    }

    /// The latest time that the gateway's clock can show now, in its milliseconds (S9).
    pub fn gateway_time(&self, now: u64) -> Option<u64> {
        matches!(self.link, Link::Open).then(|| self.clock.latest(now as u32)).flatten()
    }

    /// The oldest event that wasn't seen.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: Event) {
        if self.events.is_full() {
            self.events.pop_front();
            self.counters.events_missed = self.counters.events_missed.wrapping_add(1);
        }
        // There is room now.
        let _ = self.events.push_back(event);
        self.wake();
    }

    /// Whether the frame of this slot was taken; `None` while that is open.
    pub fn poll_acceptance(&mut self, slot: u8) -> Option<Result<Accepted, SendError>> {
        self.outcomes.acceptance(slot)
    }

    /// The next receipt of this slot's send; `None` while it is open.
    pub fn poll_receipt(&mut self, slot: u8) -> Option<Result<Receipt, SendError>> {
        self.outcomes.take_receipt(slot)
    }

    /// The next entry of this slot's receipts.
    pub fn poll_receipt_entry(&mut self, slot: u8) -> Option<(String<MAX_NAME>, Status)> {
        self.outcomes.take_entry(slot)
    }

    /// Nobody waits for this slot's outcome any longer.
    pub fn release(&mut self, slot: u8) {
        self.outcomes.release(slot);
        self.wake();
    }

    /// Wakes this one when anything happens.
    #[inline(never)]
    pub(crate) fn register(&mut self, waker: &Waker) {
        self.waiting.register(waker);
    }

    #[inline(never)]
    fn wake(&mut self) {
        self.waiting.wake();
    }

    /// Whether something happened that the runner must look at; if not, it is woken when it does.
    pub(crate) fn poll_runner(&mut self, waker: &Waker) -> bool {
        if core::mem::take(&mut self.has_news_for_runner) {
            return true;
        }
        self.register(waker);
        false
    }

    pub(crate) fn call_runner(&mut self) {
        self.has_news_for_runner = true;
        self.wake();
    }
}

#[cfg(test)]
mod tests;
