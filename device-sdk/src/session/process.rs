//! What comes in. A frame is first looked at, where it stands in the buffer ([`Session::look_at`]); numbered
//! frames of others' making are then settled one by one at the head ([`Session::settle`]), down to the first
//! that the application has to take ([`Session::take`]).

use bugle_protocol::{Kind, Malformed, NameKind, Reason, Receipt, auth, body, write};

use super::clock::GatewayClock;
use super::inbox::{Head, Inbox, Next};
use super::interest::Interest;
use super::names::KnownNames;
use super::timer::Timer;
use super::{Greeting, Link, OnReturn, Session};
use crate::signal::{Disconnect, Event, Incoming};

/// The shortest wait before something that was refused for now is asked for again, in milliseconds.
const RETRY: u32 = 1000;

/// The receive buffer, lent out so that the application can look at the first delivery without holding up
/// anything but receiving. It must be given back.
pub struct Lent<'a> {
    inbox: Inbox<'a>,
    clock: GatewayClock,
    now: u32,
}

impl Lent<'_> {
    /// What came in.
    pub fn incoming(&self) -> Option<Incoming<'_>> {
        match self.inbox.head()? {
            Head::Frame(kind, body) => read(&self.inbox.names, &self.clock, kind, body, self.now).ok(),
            Head::Done(_) | Head::Oversized => None,
        }
    }
}

/// What a kept frame says to the application, or why it can't have it.
fn read<'b>(
    names: &'b KnownNames<'_>,
    clock: &GatewayClock,
    kind: Kind,
    bytes: &'b [u8],
    now: u32,
) -> Result<Incoming<'b>, Reason> {
    match kind {
        Kind::DELIVERY => {
            let delivery = body::delivery(bytes).map_err(malformed)?;
            let remaining = match delivery.deadline {
                Some(deadline) => Some(clock.left(deadline, now).ok_or(Reason::Expired)?),
                None => None,
            };
            let group = match delivery.group {
                Some(group) => Some(names.name(group, NameKind::Group).ok_or(Reason::UnknownHandle)?),
                None => None,
            };
            Ok(Incoming::Signal {
                mode: delivery.mode,
                sender: names.name(delivery.sender, NameKind::Client).ok_or(Reason::UnknownHandle)?,
                group,
                urgent: delivery.urgent,
                remaining,
                payload: delivery.payload,
            })
        }
        Kind::MESSAGE => {
            let message = body::message(bytes).map_err(malformed)?;
            Ok(Incoming::Message {
                topic: names.name(message.topic, NameKind::Topic).ok_or(Reason::UnknownHandle)?,
                retained: message.retained,
                payload: message.payload,
            })
        }
        // Looked at before, and found to be none.
        Kind::RECEIPT => Err(Reason::Malformed),
        _ => Err(Reason::Unsupported),
    }
}

fn malformed(_: Malformed) -> Reason {
    Reason::Malformed
}

/// What was text when it was encoded.
fn own_text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

impl<'a> Session<'a> {
    /// Takes received bytes and says how many. The rest, if any, must be given again when
    /// [`receive_room`](Self::receive_room) isn't 0.
    #[inline(never)]
    pub fn handle_bytes(&mut self, now: u64, bytes: &[u8]) -> usize {
        if !self.listens() {
            return bytes.len();
        }
        let now = now as u32;
        let Some(mut inbox) = self.inbox.take() else { return 0 };
        self.last_heard = now;
        let mut used = 0;
        loop {
            let taken = inbox.fill(&bytes[used..]);
            used += taken;
            self.look(&mut inbox, now);
            if !self.listens() {
                used = bytes.len();
                break;
            }
            self.settle(&mut inbox, now);
            if taken == 0 || used == bytes.len() {
                break;
            }
        }
        let has_head = inbox.head().is_some();
        self.inbox = Some(inbox);
        if has_head {
            self.wake();
        }
        used
    }

    fn listens(&self) -> bool {
        matches!(self.link, Link::Greeting(_) | Link::Open)
    }

    /// Looks at every whole frame that wasn't looked at.
    fn look(&mut self, inbox: &mut Inbox<'a>, now: u32) {
        while self.listens() {
            let fault = match inbox.next(self.max_body.into()) {
                Next::Partial => return,
                Next::Broken => Err(Reason::FrameTooLarge),
                Next::Oversized(kind) if kind.is_optional() => {
                    inbox.skip_oversized(false);
                    Ok(())
                }
                Next::Oversized(kind)
                    if kind.is_numbered()
                        && !matches!(kind, Kind::NAME | Kind::REFUSED)
                        && self.is_open() =>
                {
                    inbox.skip_oversized(true);
                    Ok(())
                }
                Next::Oversized(_) => Err(Reason::FrameTooLarge),
                Next::Frame { kind, body } => {
                    let end = body.end;
                    self.look_at(inbox, kind, body, end, now)
                }
            };
            if let Err(reason) = fault {
                self.close(Disconnect::Broken(reason), Some(reason));
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open)
    }

    /// Processes the frame, marks it as done with, or keeps it for its turn. A fault ends the connection.
    #[inline(never)]
    fn look_at(
        &mut self,
        inbox: &mut Inbox<'a>,
        kind: Kind,
        body: core::ops::Range<usize>,
        end: usize,
        now: u32,
    ) -> Result<(), Reason> {
        if kind.is_optional() {
            inbox.pass(end);
            return Ok(());
        }
        let is_own_outcome = matches!(kind, Kind::REFUSED | Kind::RECEIPT);
        if kind.is_numbered() && !is_own_outcome {
            if !self.is_open() {
                return Err(Reason::ProtocolError);
            }
            inbox.keep(end);
            return Ok(());
        }
        let is_awaited = matches!(self.link, Link::Greeting(Greeting::Waiting));
        // Shown again after a resume: its outcome is known already.
        let is_known = (inbox.looked_at.wrapping_sub(self.known_until) as i32) < 0;
        let bytes = inbox.bytes(body);
        match kind {
            Kind::BYE => self.close(Disconnect::Bye(body::reason(bytes).map_err(malformed)?.0), None),
            Kind::ERROR => self.tell(Event::Error(body::reason(bytes).map_err(malformed)?.0)),
            Kind::CHALLENGE => {
                let nonce = body::challenge(bytes).map_err(malformed)?;
                if !is_awaited {
                    return Err(Reason::ProtocolError);
                }
                self.proof = auth::proof(self.config.secret, nonce, self.config.client_id);
                self.link = Link::Greeting(Greeting::WriteProof);
            }
            Kind::WELCOME => {
                let welcome = body::welcome(bytes).map_err(malformed)?;
                if !is_awaited {
                    return Err(Reason::ProtocolError);
                }
                inbox.pass(end);
                return self.handle_welcome(inbox, welcome, now);
            }
            _ if !self.is_open() => return Err(Reason::ProtocolError),
            Kind::PING => self.pong = Some(body::ping(bytes).map_err(malformed)?),
            Kind::PONG => {
                let clock = body::pong(bytes).map_err(malformed)?;
                self.handle_pong(clock, now);
            }
            Kind::ACK => {
                let frames = body::ack(bytes).map_err(malformed)?;
                self.handle_ack(frames, now)?;
            }
            Kind::REFUSED | Kind::RECEIPT if is_known => {}
            // Refusing a malformed one could go on for ever.
            Kind::REFUSED => {
                let refused = body::refused(bytes).map_err(malformed)?;
                self.handle_refused(refused.number, refused.reason, refused.retry_after, now);
            }
            Kind::RECEIPT => match body::receipt(bytes) {
                Ok(receipt) => self.handle_receipt(inbox, &receipt),
                // Refused in its turn.
                Err(_) => {
                    inbox.keep(end);
                    return Ok(());
                }
            },
            _ => return Err(Reason::ProtocolError),
        }
        if is_own_outcome {
            inbox.mark_done(end);
        } else {
            inbox.pass(end);
        }
        Ok(())
    }

    fn handle_pong(&mut self, clock: Option<(u32, u64)>, now: u32) {
        if let Some((token, gateway)) = clock
            && self.sync_asked == Some(token)
        {
            self.sync_asked = None;
            self.clock.sample(gateway, token, now);
        }
    }

    fn handle_ack(&mut self, frames: u32, now: u32) -> Result<(), Reason> {
        self.outbox.acknowledge(frames).map_err(|_| Reason::ProtocolError)?;
        self.owed_since = now;
        self.outcomes.acknowledged(self.outbox.first, now);
        self.wake();
        Ok(())
    }

    fn handle_refused(&mut self, number: u16, reason: Reason, retry_after: u32, now: u32) {
        debug!("frame {} refused: {:?}", number, reason);
        let is_claimed = self.outcomes.refused(number, reason, retry_after);
        self.wake();
        // Of our own encoding, so that firmware needs no decoder for it: a join names its group inline, in 64 bytes at most.
        let interest = match self.outbox.frame(number) {
            Some((Kind::JOIN, [0, _, group @ ..])) => Interest::Group(own_text(group)),
            Some((Kind::SUBSCRIBE, [flags, filter @ ..])) => {
                Interest::Filter { filter: own_text(filter), at_least_once: *flags != 0 }
            }
            Some((Kind::NAME, _)) => return self.announced.give_up(),
            _ => {
                let unclaimed = &mut self.counters.outcomes_unclaimed;
                *unclaimed = unclaimed.wrapping_add(u32::from(!is_claimed));
                return;
            }
        };
        let is_for_now =
            retry_after > 0 || matches!(reason, Reason::RateLimited | Reason::Busy | Reason::Overflow);
        if is_for_now && !is_claimed {
            self.interests.want(interest);
            self.restore = Timer::new(now, retry_after.max(RETRY));
            return;
        }
        self.interests.forget(interest);
        if !is_claimed {
            self.tell(Event::NotRestored(reason));
        }
    }

    fn handle_receipt(&mut self, inbox: &Inbox<'a>, receipt: &Receipt<'_>) {
        let Some(slot) = self.outcomes.awaiting_receipt(receipt.number) else {
            self.counters.outcomes_unclaimed = self.counters.outcomes_unclaimed.wrapping_add(1);
            return;
        };
        for entry in receipt.entries.read() {
            // An empty name stands for a handle that was never announced.
            let client = inbox.latest_name(entry.client, NameKind::Client).unwrap_or_default();
            self.outcomes.add_entry(slot, client, entry.status);
        }
        self.outcomes.add_receipt(slot, receipt);
        self.wake();
    }

    /// Deals with kept frames in their order, down to one that the application has to take, or until there is
    /// no room for a refusal.
    fn settle(&mut self, inbox: &mut Inbox<'a>, now: u32) {
        while let (Some(head), names) = inbox.head_and_names() {
            let verdict = match head {
                Head::Done(_) => Ok(()),
                Head::Oversized => Err(Reason::TooLarge),
                Head::Frame(Kind::NAME, body) => names.announce(body),
                Head::Frame(kind, body) => match read(names, &self.clock, kind, body, now) {
                    Ok(_) => return,
                    Err(reason) => Err(reason),
                },
            };
            if let Err(reason) = verdict
                && !self.refuse(inbox.done, reason)
            {
                return;
            }
            inbox.pop_head();
        }
    }

    /// Queues the refusal of the gateway's frame with this number, if there is room, and counts it.
    fn refuse(&mut self, number: u32, reason: Reason) -> bool {
        let mut writer = self.outbox.body();
        write::refused(&mut writer, number as u16, reason, 0, "");
        let body = writer.written();
        if self.outbox.push(Kind::REFUSED, body).is_err() {
            return false;
        }
        debug!("refusing frame {}: {:?}", number, reason);
        let counters = &mut self.counters;
        let counter = match reason {
            Reason::Expired => &mut counters.expired,
            Reason::Unsupported => &mut counters.unsupported,
            Reason::TooLarge => &mut counters.too_large,
            Reason::UnknownHandle | Reason::TooMany => &mut counters.unknown_handle,
            _ => &mut counters.malformed,
        };
        *counter = counter.wrapping_add(1);
        true
    }

    /// Lends the receive buffer with something in it for the application, or nothing when there is nothing or
    /// it is lent already. Deadlines are held against `now` (S9).
    pub fn lend(&mut self, now: u64) -> Option<Lent<'a>> {
        let now = now as u32;
        let mut inbox = self.inbox.take()?;
        let done = inbox.done;
        self.settle(&mut inbox, now);
        if inbox.done != done {
            self.call_runner();
        }
        // What is left at the head is readable, or its refusal waits for room.
        let lent = Lent { inbox, clock: self.clock, now };
        if lent.incoming().is_some() {
            return Some(lent);
        }
        self.inbox = Some(lent.inbox);
        None
    }

    /// Takes the receive buffer back; with `is_taken` the application has what was in it.
    pub fn give_back(&mut self, now: u64, lent: Lent<'a>, is_taken: bool) {
        let mut inbox = lent.inbox;
        if is_taken {
            inbox.pop_head();
            self.counters.taken = self.counters.taken.wrapping_add(1);
        }
        match core::mem::replace(&mut self.on_return, OnReturn::Nothing) {
            OnReturn::Nothing => self.settle(&mut inbox, now as u32),
            OnReturn::Clear => {
                self.known_until = inbox.looked_at;
                inbox.clear();
            }
            OnReturn::Restart => {
                inbox.clear();
                inbox.begin_session();
            }
        }
        if inbox.head().is_some() {
            self.wake();
        }
        self.inbox = Some(inbox);
        self.call_runner();
    }

    /// Lets the application look at the first thing that came in, and is done with it. `None` when there is
    /// nothing.
    pub fn take<R>(&mut self, now: u64, look: impl FnOnce(Incoming<'_>) -> R) -> Option<R> {
        let lent = self.lend(now)?;
        let result = lent.incoming().map(look);
        self.give_back(now, lent, result.is_some());
        result
    }
}
