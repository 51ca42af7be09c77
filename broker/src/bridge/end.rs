//! One end of a bridge: an MQTT client's session, of either version, without a socket or a clock.
//!
//! It outlives its connections. What it was given to publish and isn't acknowledged is sent again on the next
//! connection, in the order in which it was first sent; what came to it and isn't taken on the other side is
//! recognised when it comes again. A message is acknowledged only when [`End::acknowledge`] says so.
//!
//! ```text
//! Down ── connect() ──► Connecting ── CONNACK ──► Up ── disconnect() or an error ──► Down
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::packet::{Ack, Capabilities, Message, Opening, Received, Version, Wish};

/// Unsent bytes beyond which messages of QoS 0, which nobody waits for, are dropped.
const MAX_UNSENT: usize = 1024 * 1024;
/// Messages of QoS 1 and 2 that wait for their turn, beyond which nothing more should be given.
const MAX_WAITING: usize = 1000;
/// And their bytes.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// A message that came to an end, by which it can be acknowledged there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    id: u16,
    /// The session that it belongs to.
    session: u32,
}

/// Why a message went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The broker on the other side refused it.
    Refused,
    /// It is larger than the broker on the other side takes, or its topic would be too long there.
    TooLarge,
    /// It expired on the bridge.
    Expired,
    /// QoS 0, and too much is unsent.
    Overflow,
    /// QoS 0, and the other side isn't connected.
    Away,
    /// It has been at this gateway before.
    Loop,
    /// A signal of this gateway, or what would become one.
    Signal,
    /// No pattern has its topic: a subscription that an earlier configuration left at the far broker.
    NoPattern,
}

impl Drop {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::TooLarge,
        Self::Expired,
        Self::Overflow,
        Self::Away,
        Self::Loop,
        Self::Signal,
        Self::NoPattern,
    ];

    /// The name in metrics and logs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
            Self::Away => "away",
            Self::Loop => "loop",
            Self::Signal => "signal",
            Self::NoPattern => "no_pattern",
        }
    }
}

/// What has become of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came. With a token it is to be acknowledged once it is taken care of.
    Message(Message, Option<Token>),
    /// The broker has taken a message that was given with this token; QoS 0 is on its way.
    Taken(Option<Token>),
    /// A message that was given goes no further, for this reason, about which more may be said.
    Dropped(Drop, Option<Token>, String),
    /// The answer to the subscriptions: why those that were refused were, in their order.
    Subscribed(Vec<Option<String>>),
}

/// Why a connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The broker doesn't let this client in.
    Refused(String),
    /// The broker said goodbye.
    Goodbye(String),
    /// What came makes no sense.
    Protocol(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Connecting,
    Up,
}

/// A message that came and isn't done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    is_exactly_once: bool,
    waits_for: WaitsFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// The other side has to take it.
    OtherSide,
    /// It is taken, and there was no connection to say so.
    Connection,
    /// PUBREC was sent.
    Release,
}

/// A message to be published.
#[derive(Clone, Debug)]
struct Parcel {
    message: Message,
    token: Option<Token>,
    came: Instant,
}

/// One that was sent, and isn't acknowledged.
#[derive(Debug)]
struct Flight {
    id: u16,
    parcel: Parcel,
    /// QoS 2, and the broker has it: only PUBREL and PUBCOMP are left.
    is_released: bool,
}

/// One end's session.
#[derive(Debug)]
pub struct End {
    version: Version,
    opening: Opening,
    can: Capabilities,
    state: State,
    /// Bytes for the broker.
    pub out: BytesMut,
    /// Sent and not acknowledged, in the order of sending.
    flights: VecDeque<Flight>,
    flying: HashSet<u16>,
    last_id: u16,
    /// Not sent yet, in order.
    waiting: VecDeque<Parcel>,
    waiting_bytes: usize,
    received: HashMap<u16, Held>,
    session: u32,
    /// A session of this process was there before.
    has_connected: bool,
    events: VecDeque<Event>,
}

impl End {
    /// Of a client that begins so.
    pub fn new(version: Version, opening: Opening) -> Self {
        let can = Capabilities {
            receive_maximum: 1,
            max_qos: 0,
            retain: false,
            max_packet: usize::MAX,
            keep_alive: None,
        };
        Self {
            version,
            opening,
            can,
            state: State::Down,
            out: BytesMut::new(),
            flights: VecDeque::new(),
            flying: HashSet::new(),
            last_id: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            received: HashMap::new(),
            session: 0,
            has_connected: false,
            events: VecDeque::new(),
        }
    }

    /// A new connection is there.
    pub fn connect(&mut self) {
        self.state = State::Connecting;
        self.out.clear();
        self.version.connect(&self.opening, &mut self.out);
    }

    /// The connection is over. What had no promise is dropped.
    pub fn disconnect(&mut self) {
        self.state = State::Down;
        self.out.clear();
    }

    /// Says goodbye to a broker that keeps the session.
    pub fn say_goodbye(&mut self) {
        self.version.disconnect(&mut self.out);
    }

    /// Whether the broker has let this client in.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Longest silence towards the broker, in seconds; 0: any.
    pub fn keep_alive(&self) -> u16 {
        self.can.keep_alive.unwrap_or(self.opening.keep_alive)
    }

    /// Whether as much waits as may.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING || self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// Whether everything that it was given with QoS 1 and 2 is with the broker.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    /// What has happened since it was last asked.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Keeps the connection alive.
    pub fn ping(&mut self) {
        self.version.ping(&mut self.out);
    }

    /// Asks for messages.
    pub fn subscribe(&mut self, wishes: &[Wish]) {
        // Above the identifiers of messages.
        self.version.subscribe(self.opening.receive_maximum + 1, wishes, &mut self.out);
    }

    /// Takes what the socket had, up to the first packet that isn't whole.
    pub fn handle_bytes(&mut self, bytes: &mut BytesMut, now: Instant) -> Result<(), Fault> {
        while let Some(received) =
            self.version.read(bytes, self.opening.max_packet).map_err(Fault::Protocol)?
        {
            self.handle(received, now)?;
        }
        Ok(())
    }

    fn handle(&mut self, received: Received, now: Instant) -> Result<(), Fault> {
        match (self.state, received) {
            (State::Connecting, Received::Welcome { session_present, can }) => {
                self.can = can;
                self.begin(session_present, now);
            }
            (State::Connecting, Received::Refused(why)) => return Err(Fault::Refused(why)),
            (_, Received::Goodbye(why)) => return Err(Fault::Goodbye(why)),
            (State::Up, Received::Publish { id, dup, message }) => self.handle_publish(id, dup, message),
            (State::Up, Received::Ack { ack, id, refused }) => self.handle_ack(ack, id, refused, now)?,
            (State::Up, Received::Subscribed(refused)) => self.events.push_back(Event::Subscribed(refused)),
            (State::Up, Received::Nothing) => {}
            (State::Connecting, _) => {
                return Err(Fault::Protocol("it began with something else than CONNACK".to_owned()));
            }
            _ => return Err(Fault::Protocol("it sent a second CONNACK".to_owned())),
        }
        Ok(())
    }

    /// Goes on with the session, or begins a new one.
    fn begin(&mut self, session_present: bool, now: Instant) {
        self.state = State::Up;
        let flights = std::mem::take(&mut self.flights);
        if session_present && self.has_connected {
            // [MQTT-4.4.0-1]: what is unacknowledged comes again, with its identifier.
            for flight in flights {
                self.send_again(flight, now);
            }
        } else {
            if session_present && self.opening.releases {
                // The far end of a session whose near end ended with an earlier process. It may still hold an
                // identifier of QoS 2, under which a new message would be taken for an old one: release them all.
                for id in 1..=self.opening.receive_maximum {
                    self.version.ack(Ack::Release, id, &mut self.out);
                }
            }
            if !session_present {
                self.received.clear();
                self.session = self.session.wrapping_add(1);
            }
            self.flying.clear();
            for flight in flights.into_iter().rev() {
                // What is released the broker had; the rest begins anew, before what waits.
                if !flight.is_released {
                    self.waiting_bytes += flight.parcel.message.payload.len();
                    self.waiting.push_front(flight.parcel);
                }
            }
        }
        self.has_connected = true;
        self.send_waiting(now);
    }

    fn send_again(&mut self, flight: Flight, now: Instant) {
        if flight.is_released {
            self.version.ack(Ack::Release, flight.id, &mut self.out);
            return self.flights.push_back(flight);
        }
        // Expired or not: its identifier is in use until it is acknowledged.
        let message = self.fitted(&flight.parcel, now).unwrap_or_else(|| Message {
            expiry: flight.parcel.message.expiry.map(|_| 1),
            ..flight.parcel.message.clone()
        });
        let (version, limit) = (self.version, self.can.max_packet);
        match version.publish(&message, flight.id, true, limit, &mut self.out) {
            Ok(()) => self.flights.push_back(flight),
            Err(size) => {
                self.flying.remove(&flight.id);
                self.drop_large(flight.parcel.token, size);
            }
        }
    }

    /// Publishes a message, as soon as that can be. What becomes of it is told in an event with the same token.
    pub fn publish(&mut self, message: Message, token: Option<Token>, now: Instant) {
        let parcel = Parcel { message, token, came: now };
        if parcel.message.qos.min(self.max_qos()) > 0 {
            self.waiting_bytes += parcel.message.payload.len();
            self.waiting.push_back(parcel);
            return self.send_waiting(now);
        }
        let dropped = match self.state {
            // A promise was given for it, though it goes on with QoS 0.
            State::Up if self.out.len() > MAX_UNSENT && token.is_none() => Drop::Overflow,
            State::Up => return self.send(parcel, 0, now),
            State::Down | State::Connecting => Drop::Away,
        };
        self.events.push_back(Event::Dropped(dropped, token, String::new()));
    }

    /// Until it is connected, nobody knows what the broker can.
    fn max_qos(&self) -> u8 {
        if self.is_up() { self.can.max_qos } else { 2 }
    }

    /// The other side has taken the message that came with this token, or it goes no further.
    pub fn acknowledge(&mut self, token: Option<Token>) {
        let Some(Token { id, session }) = token else { return };
        let Some(held) = self.received.get_mut(&id) else { return };
        if session != self.session || held.waits_for != WaitsFor::OtherSide {
            return;
        }
        held.waits_for = WaitsFor::Connection;
        if self.is_up() {
            self.tell_taken(id);
        }
    }

    fn tell_taken(&mut self, id: u16) {
        match self.received.get_mut(&id) {
            Some(held) if held.is_exactly_once => {
                held.waits_for = WaitsFor::Release;
                self.version.ack(Ack::Received, id, &mut self.out);
            }
            _ => {
                self.received.remove(&id);
                self.version.ack(Ack::Taken, id, &mut self.out);
            }
        }
    }

    fn handle_publish(&mut self, id: u16, dup: bool, message: Message) {
        if message.qos == 0 {
            return self.events.push_back(Event::Message(message, None));
        }
        let is_exactly_once = message.qos == 2;
        if let Some(held) = self.received.get(&id).copied()
            && held.is_exactly_once == is_exactly_once
            // With QoS 1, one without DUP is another message, whatever became of the acknowledgement.
            && (is_exactly_once || dup)
        {
            return match held.waits_for {
                WaitsFor::OtherSide => {}
                WaitsFor::Connection => self.tell_taken(id),
                WaitsFor::Release => self.version.ack(Ack::Received, id, &mut self.out),
            };
        }
        self.received.insert(id, Held { is_exactly_once, waits_for: WaitsFor::OtherSide });
        self.events.push_back(Event::Message(message, Some(Token { id, session: self.session })));
    }

    fn handle_ack(&mut self, ack: Ack, id: u16, refused: Option<String>, now: Instant) -> Result<(), Fault> {
        if ack == Ack::Release {
            // Also where it is unknown: an earlier process may have had it [MQTT-4.3.3].
            self.received.remove(&id);
            self.version.ack(Ack::Completed, id, &mut self.out);
            return Ok(());
        }
        let Some(index) = self.flights.iter().position(|flight| flight.id == id) else {
            // Of a message of an earlier process, or of one that was given up.
            if ack == Ack::Received && refused.is_none() {
                self.version.ack(Ack::Release, id, &mut self.out);
            }
            return Ok(());
        };
        let flight = &mut self.flights[index];
        let token = flight.parcel.token;
        let taken = match refused {
            Some(why) => Event::Dropped(Drop::Refused, token, why),
            None => Event::Taken(token),
        };
        match (ack, flight.parcel.message.qos.min(self.can.max_qos), flight.is_released) {
            (Ack::Taken, 1, _) => {}
            (Ack::Received, 2, false) => {
                if matches!(taken, Event::Taken(_)) {
                    flight.is_released = true;
                    self.version.ack(Ack::Release, id, &mut self.out);
                    self.events.push_back(taken);
                    return Ok(());
                }
            }
            (Ack::Received, 2, true) => {
                self.version.ack(Ack::Release, id, &mut self.out);
                return Ok(());
            }
            (Ack::Completed, 2, true) => {
                self.end_flight(index, now);
                return Ok(());
            }
            // The answer to a release of what an earlier process left.
            (Ack::Completed, 2, false) => return Ok(()),
            (_, qos, _) => {
                let text = format!("it sent an acknowledgement of another kind for a message of QoS {qos}");
                return Err(Fault::Protocol(text));
            }
        }
        self.events.push_back(taken);
        self.end_flight(index, now);
        Ok(())
    }

    fn end_flight(&mut self, index: usize, now: Instant) {
        if let Some(flight) = self.flights.remove(index) {
            self.flying.remove(&flight.id);
        }
        self.send_waiting(now);
    }

    /// Sends what waits, as far as the broker takes it.
    fn send_waiting(&mut self, now: Instant) {
        let window = usize::from(self.opening.receive_maximum.min(self.can.receive_maximum));
        while self.is_up() && self.flights.len() < window {
            let Some(parcel) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= parcel.message.payload.len();
            let id = if self.can.max_qos == 0 { 0 } else { self.next_id() };
            self.send(parcel, id, now);
        }
    }

    /// Sends one, with an identifier unless it is of QoS 0.
    fn send(&mut self, parcel: Parcel, id: u16, now: Instant) {
        let Some(message) = self.fitted(&parcel, now) else {
            return self.events.push_back(Event::Dropped(Drop::Expired, parcel.token, String::new()));
        };
        let (version, limit) = (self.version, self.can.max_packet);
        match version.publish(&message, id, false, limit, &mut self.out) {
            Err(size) => self.drop_large(parcel.token, size),
            Ok(()) if message.qos == 0 => self.events.push_back(Event::Taken(parcel.token)),
            Ok(()) => {
                self.flying.insert(id);
                self.flights.push_back(Flight { id, parcel, is_released: false });
            }
        }
    }

    fn drop_large(&mut self, token: Option<Token>, size: usize) {
        let why = format!("{size} bytes, and at most {} are taken", self.can.max_packet);
        self.events.push_back(Event::Dropped(Drop::TooLarge, token, why));
    }

    /// The message as the broker can take it now. None: it has expired.
    fn fitted(&self, parcel: &Parcel, now: Instant) -> Option<Message> {
        let mut message = parcel.message.clone();
        message.qos = message.qos.min(self.can.max_qos);
        message.retain &= self.can.retain;
        if let Some(expiry) = message.expiry {
            let left = Duration::from_secs(expiry.into()).saturating_sub(now.duration_since(parcel.came));
            if left.is_zero() {
                return None;
            }
            message.expiry = Some(left.as_millis().div_ceil(1000) as u32);
        }
        Some(message)
    }

    /// The next identifier that isn't in use, of as many as may be in flight, so that a later process knows which
    /// there can be. There is one: less are in flight.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % self.opening.receive_maximum + 1;
            if !self.flying.contains(&self.last_id) {
                return self.last_id;
            }
        }
    }
}
