//! The session of a device: the compact framing on the gateway's side (docs/protocol.md).
//!
//! ```text
//! AwaitingHello --hello--> AwaitingHub --connected--> Connected --bye, timeout, error--> Closing
//!                            |     ^ ^                     |                               |
//!                       challenge  | +-- adopted ---------Away <---- lost, silent ---------+
//!                            v   proof
//!                          AwaitingProof
//! ```
//!
//! Numbered frames of the device become requests whose number is the frame's; they are acknowledged in order,
//! each when its request is answered. What is refused is told before its acknowledgement.

mod announce;
mod inbound;
mod outbound;
mod resume;

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use bugle_protocol::{Frame, MAX_BODY, NameKind, Reason, Resume, VERSION, Welcome, split};

use super::{SessionConfig, SessionCounters};
use crate::model::{
    Challenge, Command, Connected, Identity, Instant, ReceiptSlot, Refusal, Reply, Settled, Will,
};
use announce::Announcer;

/// How many numbered frames a device may have unacknowledged.
const WINDOW: u16 = 32;
/// Size of the table for names that a device announces.
const NAMES: u16 = 256;
/// Numbered frames that take no window (names; refusals and receipts the other way) and are not acknowledged
/// yet, before the connection ends: each belongs to something that was acknowledged long ago if acks flow.
const UNWINDOWED: usize = 1024;

/// One device's protocol state.
#[derive(Debug)]
pub struct DeviceSession {
    config: Arc<SessionConfig>,
    phase: Phase,
    /// What the device asked for, once it is in.
    terms: Terms,
    /// The session's number.
    number: u64,
    /// It can go on over another connection: frames are kept until they are acknowledged.
    resumable: bool,
    /// A part of a frame, or frames that wait until the hub has answered the hello.
    kept: Vec<u8>,
    kept_at: usize,
    /// What the device announced, by handle.
    names: Vec<Option<(NameKind, Rc<str>)>>,
    /// Numbered frames of the device so far.
    received: u32,
    /// Of these, from `received - unfinished.len()` on: whether it takes window, and is done.
    unfinished: VecDeque<Received>,
    /// Frames done with whose acknowledgement isn't written yet.
    ack_due: u32,
    announcer: Announcer,
    /// Numbered frames to the device so far.
    sent: u32,
    /// Of these, from `sent - unacknowledged.len()` on.
    unacknowledged: VecDeque<Sent>,
    /// Their bytes, if the session can go on over another connection.
    retained: VecDeque<u8>,
    /// Who waits to hear of those before them that the device was done with when it resumed the session, until its
    /// first acknowledgement.
    presumed: VecDeque<Option<ReceiptSlot>>,
    /// It is resumed, and what is retained from there on is to be sent again, behind what it is to be told.
    resends: Option<(usize, Vec<u8>)>,
    /// How many of `unacknowledged` take window.
    in_window: usize,
    /// What was dropped.
    pub(super) counters: SessionCounters,
    /// Who it is, from the hello on.
    client_id: Arc<str>,
    /// Frames that are to be written before anything else.
    control: Vec<u8>,
    settled: VecDeque<(ReceiptSlot, Settled)>,
    /// Why the session itself ended the connection, until the hub has counted it.
    fault: Option<Reason>,
    last_heard: Instant,
    /// When the hello, or the proof, began to be awaited.
    awaited: Instant,
}

#[derive(Debug)]
enum Phase {
    AwaitingHello,
    AwaitingHub(Box<Asking>),
    AwaitingProof(Box<Asking>, Challenge),
    Connected,
    /// Without a connection.
    Away,
    Closing,
}

/// A hello that the hub has to judge.
#[derive(Debug)]
struct Asking {
    identity: Identity,
    terms: Terms,
    will: Option<Will>,
    /// Seconds.
    session_expiry: u32,
    /// The session that it would go on with, and where it stands.
    resume: Option<Resume>,
}

/// What the device asked for in its hello.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    keep_alive: u16,
    max_body: usize,
    window: usize,
    names: u16,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    takes_window: bool,
    done: bool,
}

/// A numbered frame to the device.
#[derive(Clone, Copy, Debug)]
struct Sent {
    what: What,
    /// How many of the retained bytes are its.
    bytes: u32,
}

impl Sent {
    /// Who waits to hear of it.
    fn slot(self) -> Option<ReceiptSlot> {
        match self.what {
            What::Payload(slot) => slot,
            What::Other => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A delivery or message, and who waits to hear of it.
    Payload(Option<ReceiptSlot>),
    /// A name, refusal or receipt.
    Other,
}

/// What came of looking at the next bytes.
enum Step<'i> {
    NeedMore,
    /// So many bytes are used.
    Used(usize, Option<Command<'i>>),
}

impl DeviceSession {
    /// A session that waits for its hello.
    pub fn new(config: Arc<SessionConfig>, now: Instant) -> Self {
        Self {
            config,
            phase: Phase::AwaitingHello,
            terms: Terms::default(),
            number: 0,
            resumable: false,
            kept: Vec::new(),
            kept_at: 0,
            names: Vec::new(),
            received: 0,
            unfinished: VecDeque::new(),
            ack_due: 0,
            announcer: Announcer::default(),
            sent: 0,
            unacknowledged: VecDeque::new(),
            retained: VecDeque::new(),
            presumed: VecDeque::new(),
            resends: None,
            in_window: 0,
            counters: SessionCounters::default(),
            client_id: "".into(),
            control: Vec::new(),
            settled: VecDeque::new(),
            fault: None,
            last_heard: now,
            awaited: now,
        }
    }

    /// The next command in `input`; see [`Session::handle_bytes`](super::Session::handle_bytes).
    pub fn handle_bytes<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Command<'i>> {
        if !input.is_empty() {
            self.last_heard = now;
        }
        if !self.kept.is_empty() {
            self.kept.extend_from_slice(mem::take(input));
        }
        loop {
            match self.phase {
                Phase::Closing => {
                    *input = &[];
                    (self.kept, self.kept_at) = (Vec::new(), 0);
                    return None;
                }
                Phase::AwaitingHub(_) => {
                    self.keep(mem::take(input));
                    return None;
                }
                _ => {}
            }
            let command = if self.kept.is_empty() {
                match self.step(input, now) {
                    Step::NeedMore => {
                        self.keep(mem::take(input));
                        return None;
                    }
                    Step::Used(length, command) => {
                        *input = input.get(length..).unwrap_or_default();
                        command
                    }
                }
            } else {
                // Taken out so that frames can be read from it while the session changes.
                let kept = mem::take(&mut self.kept);
                let step = match self.step(kept.get(self.kept_at..).unwrap_or_default(), now) {
                    Step::NeedMore => Step::NeedMore,
                    Step::Used(length, command) => Step::Used(length, command.map(Command::into_owned)),
                };
                self.kept = kept;
                match step {
                    Step::NeedMore => {
                        self.kept.drain(..self.kept_at);
                        self.kept_at = 0;
                        return None;
                    }
                    Step::Used(length, command) => {
                        self.kept_at += length;
                        if self.kept_at >= self.kept.len() {
                            (self.kept, self.kept_at) = (Vec::new(), 0);
                        }
                        command
                    }
                }
            };
            if command.is_some() {
                return command;
            }
        }
    }

    /// Keeps what can't be used yet. Bounded: reading pauses while the hub is awaited, and a part of a frame is
    /// never longer than the longest frame.
    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
    }

    fn step<'i>(&mut self, bytes: &'i [u8], now: Instant) -> Step<'i> {
        match split(bytes, MAX_BODY) {
            Ok(None) => Step::NeedMore,
            Ok(Some(raw)) => Step::Used(raw.length, self.handle_frame(raw, now)),
            Err(_) => {
                self.bye(
                    Reason::FrameTooLarge,
                    "a frame body is over 32768 bytes, or its length is no varint",
                );
                Step::Used(bytes.len(), None)
            }
        }
    }

    /// The hub's answer.
    pub fn handle_reply(&mut self, reply: Reply, now: Instant) {
        match reply {
            Reply::Connected(connected) => self.welcome(&connected, now),
            Reply::Challenge(challenge) => {
                if let Phase::AwaitingHub(asking) = mem::replace(&mut self.phase, Phase::Closing) {
                    self.write_control(&Frame::Challenge { nonce: &challenge.0 });
                    self.awaited = now;
                    self.phase = Phase::AwaitingProof(asking, challenge);
                }
            }
            Reply::ConnectRefused(refusal) | Reply::Close(refusal) => {
                self.close(refusal.reason, &refusal.text)
            }
            Reply::Done(request) => self.finish(request.0),
            Reply::Released(_) => {}
            Reply::Refused(request, refusal) | Reply::NotKept(request, refusal) => {
                self.refuse(request.0, &refusal)
            }
            // All that a device sends is numbered.
            Reply::RefusedUnasked(..) => {}
            Reply::Subscribed(request, results) => match results.into_iter().find_map(Result::err) {
                None => self.finish(request.0),
                Some(refusal) => self.refuse(request.0, &refusal),
            },
            Reply::Unsubscribed(request, _) => self.finish(request.0),
            Reply::Ended(filter, refusal) => self.write_ended(&filter, &refusal),
            Reply::Receipt(report) => self.write_receipt(&report),
            // Devices prove themselves by a challenge.
            Reply::Authenticate(_) | Reply::Authenticated(_) => {}
        }
    }

    fn welcome(&mut self, connected: &Connected, now: Instant) {
        let Phase::AwaitingHub(asking) = mem::replace(&mut self.phase, Phase::Closing) else { return };
        let resends = self.resends.take();
        if resends.is_none() {
            self.number = connected.session;
        }
        self.terms = asking.terms;
        self.resumable = connected.session_expiry > 0;
        self.write_control(&Frame::Welcome(Welcome {
            version: VERSION,
            resumed: resends.is_some(),
            keep_alive: asking.terms.keep_alive,
            max_body: MAX_BODY as u16,
            window: WINDOW,
            names: NAMES,
            session_expiry: connected.session_expiry,
            session: self.number,
            received: self.received,
            clock: now.as_millis(),
        }));
        self.phase = Phase::Connected;
        if let Some((from, notices)) = resends {
            self.control.extend(notices);
            // Refusals among them come before the acknowledgements that cover them.
            self.control.extend(self.retained.iter().skip(from));
            if !self.resumable {
                self.give_up_resuming();
            }
        }
    }

    /// What became of a delivery.
    pub fn poll_settled(&mut self) -> Option<(ReceiptSlot, Settled)> {
        self.settled.pop_front()
    }

    /// Bytes that it keeps: a part of a frame, and what the device hasn't acknowledged.
    pub fn kept_bytes(&self) -> usize {
        self.kept.len() + self.retained.len()
    }

    /// Whether more bytes should be read.
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.phase, Phase::AwaitingHub(_) | Phase::Closing)
    }

    /// Nothing: a device's sends can be refused, so it is never slowed.
    pub fn pause(&mut self, _now: Instant) {}

    /// Nothing; see [`pause`](Self::pause).
    pub fn resume(&mut self, _now: Instant) {}

    /// When [`handle_time`](Self::handle_time) is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::AwaitingHello | Phase::AwaitingProof(..) => {
                Some(self.awaited + self.config.limits.connect_timeout)
            }
            Phase::Connected if self.terms.keep_alive > 0 => {
                Some(self.last_heard + u64::from(self.terms.keep_alive) * 1500)
            }
            _ => None,
        }
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            match self.phase {
                Phase::Connected => {
                    self.bye(Reason::KeepAliveTimeout, "nothing was heard for one and a half keep-alives");
                }
                _ => self.bye(Reason::ProtocolError, "no hello or proof in time"),
            }
        }
    }

    /// Whether the connection is to be closed after what is to be written.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// The connection is gone; the session may go on without it.
    pub fn handle_closed(&mut self) {
        self.phase = Phase::Closing;
        if !self.resumable {
            self.end();
        }
    }

    /// Why the session ended the connection, if the device or its silence is at fault; once.
    pub fn poll_fault(&mut self) -> Option<Reason> {
        self.fault.take()
    }

    /// Ends the connection for something that the device did.
    fn bye(&mut self, reason: Reason, text: &str) {
        if !self.is_closing() {
            self.fault = Some(reason);
            self.close(reason, text);
        }
    }

    /// The last frame: why the connection ends, and mostly the session with it.
    fn close(&mut self, reason: Reason, text: &str) {
        if !self.is_closing() {
            self.write_control(&Frame::Bye { reason, text });
            self.phase = Phase::Closing;
            if !Self::outlives(reason) {
                self.give_up_resuming();
            }
        }
    }

    fn write_control(&mut self, frame: &Frame<'_>) {
        outbound::append(frame, &mut self.control);
    }
}

/// A refusal in the session's own words.
fn refusal(reason: Reason, text: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(reason, text)
}

#[cfg(test)]
mod tests;
