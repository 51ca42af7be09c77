//! Sends to many, one after the other, so that nobody who commands one client waits for them.
//!
//! A send to a group of ten thousand takes milliseconds to give out, and many more to write. While as many connections as
//! [`Limits::bulk_unwritten`](crate::model::Limits::bulk_unwritten) have yet to be written to because of such sends, the next one waits
//! for its turn, its sender's input too; when too many wait they are refused. Connections with something else to write go first.
//!
//! ```text
//! handle_send ── to few, or nothing else is under way ──────────────────────► given out
//!      ├──────── to many, while others are given out ── waits ── poll_dirty ─► given out
//!      └──────── and too many wait ──► BUSY
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use super::{ConnectionKey, Shard, Who};
use crate::model::{Instant, Recipients, RequestId, Signal, Target};

/// After so many connections with something else to write, one of those has its turn: they aren't starved either.
const SOON_PER_BULK: u32 = 8;

/// What has to do with sends to many.
#[derive(Default)]
pub(super) struct Bulk {
    /// A message is being given to many.
    is_giving: bool,
    /// Connections with something to write because of such messages, and nothing else.
    dirty: VecDeque<ConnectionKey>,
    /// How many others had their turn since one of these.
    passed: u32,
    /// Sends that wait.
    sends: VecDeque<Postponed>,
    /// Connections that sent to many, whose input waits.
    breathers: VecDeque<ConnectionKey>,
}

/// Whether a connection has something to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dirty {
    #[default]
    No,
    /// Because of messages to many alone.
    Bulk,
    /// Because of others.
    Soon,
}

/// A send that waits for its turn.
struct Postponed {
    /// The connection on which its sender's session began.
    origin: ConnectionKey,
    who: Who,
    request: Option<RequestId>,
    signal: Signal<'static>,
    /// Since when.
    since: Instant,
}

impl Postponed {
    /// The signal, of whose time to live the wait is a part (S9).
    fn signal(self, now: Instant) -> Signal<'static> {
        let mut signal = self.signal;
        if let Some(ttl) = signal.options().ttl {
            let waited = u32::try_from(now.millis_since(self.since)).unwrap_or(u32::MAX);
            // With nothing left it ends as EXPIRED for everyone.
            Rc::make_mut(&mut signal.addressed).options.ttl = Some(ttl.saturating_sub(waited));
        }
        signal
    }
}

impl Shard {
    /// Whether sends to many are being given out.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        !self.bulk.dirty.is_empty() && self.bulk.dirty.len() >= self.limits.bulk_unwritten
    }

    /// Connections that such messages have yet to be written to.
    #[inline]
    pub(super) fn unwritten_bulk(&self) -> usize {
        self.bulk.dirty.len()
    }

    /// A message is about to be given to so many clients of this shard.
    #[inline]
    pub(super) fn begin_giving(&mut self, recipients: usize) {
        self.bulk.is_giving = recipients > self.limits.bulk_recipients;
    }

    /// It is given.
    #[inline]
    pub(super) fn end_giving(&mut self) {
        self.bulk.is_giving = false;
    }

    /// Whether a signal has to wait for its turn. What its sender sends behind one that waits does too (S11), but urgent ones, which have
    /// an order of their own (S16).
    pub(super) fn has_to_wait(&self, postponed: u32, signal: &Signal<'_>) -> bool {
        let options = signal.options();
        if options.urgent {
            return false;
        }
        if postponed > 0 {
            return true;
        }
        let Target::Group { group, recipients, .. } = signal.target() else { return false };
        let members = match recipients {
            Recipients::All => self.groups.get(group).map_or(0, |members| members.len()),
            Recipients::Only(_) => 0,
        };
        members > self.limits.bulk_recipients
    }

    /// Whether one more may wait.
    pub(super) fn has_room_to_wait(&self) -> bool {
        self.bulk.sends.len() < self.limits.bulk_sends
    }

    /// Lets a signal wait for its turn.
    pub(super) fn postpone(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: Signal<'_>,
        now: Instant,
    ) {
        let origin = self.origin(key);
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(who) = client.who() else { return };
        client.postponed += 1;
        client.session.pause(now);
        self.counters.postponed += 1;
        let signal = signal.into_owned();
        self.bulk.sends.push_back(Postponed { origin, who, request, signal, since: now });
    }

    /// A connection has sent to many, and others wait to do so: its input waits as well.
    pub(super) fn pause_for_breath(&mut self, key: ConnectionKey, now: Instant) {
        if let Some(client) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.breathes, true)
        {
            client.session.pause(now);
            self.bulk.breathers.push_back(key);
        }
    }

    /// Whether a client that was made to wait may go on.
    pub(super) fn may_go_on(&self, key: ConnectionKey) -> bool {
        self.clients.get(key).is_some_and(|client| {
            client.postponed == 0 && !client.breathes && client.park.bytes() < self.limits.park_bytes
        })
    }

    fn go_on(&mut self, key: ConnectionKey, now: Instant) {
        if self.may_go_on(key)
            && let Some(client) = self.clients.get_mut(key)
        {
            client.session.resume(now);
            self.resumable.push(key);
            // Its socket may be read again.
            self.mark(key);
        }
    }

    /// Does what had to wait, as far as there is room for it.
    fn give_turns(&mut self, now: Instant) {
        while !self.is_crowded() {
            if let Some(key) = self.bulk.breathers.pop_front() {
                if let Some(client) = self.clients.get_mut(key) {
                    client.breathes = false;
                }
                self.go_on(key, now);
            }
            let Some(postponed) = self.bulk.sends.pop_front() else {
                self.resume_sessions(now);
                if self.bulk.breathers.is_empty() {
                    return;
                }
                continue;
            };
            let key = self.current(postponed.origin);
            match self.clients.get_mut(key) {
                Some(client) if client.identity.as_ref() == Some(&postponed.who.identity) => {
                    client.postponed = client.postponed.saturating_sub(1);
                    let request = postponed.request;
                    self.accept_in_turn(key, request, &postponed.signal(now), now);
                    self.go_on(key, now);
                }
                _ => {
                    let who = postponed.who.clone();
                    self.accept_unheard(&who, postponed.signal(now), now);
                }
            }
            self.resume_sessions(now);
        }
    }

    /// Puts a connection into one of the queues of those with something to write.
    #[inline]
    pub(super) fn mark_dirty(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match (client.dirty, self.bulk.is_giving) {
            _ if client.away.is_some() => {}
            (Dirty::No, true) => {
                client.dirty = Dirty::Bulk;
                self.bulk.dirty.push_back(key);
            }
            // It stays in the other queue, where it is passed over.
            (Dirty::No | Dirty::Bulk, false) => {
                client.dirty = Dirty::Soon;
                self.dirty.push_back(key);
            }
            (Dirty::Soon, _) | (Dirty::Bulk, true) => {}
        }
    }

    /// A connection that has something to write, is to be closed, or may be read again. What waited for its turn is done before, when
    /// it has come.
    pub fn poll_dirty(&mut self, now: Instant) -> Option<ConnectionKey> {
        loop {
            let is_awaited = !self.bulk.sends.is_empty() || !self.bulk.breathers.is_empty();
            if is_awaited && !self.is_crowded() {
                self.give_turns(now);
            }
            let next = self.next_dirty();
            // Without one it isn't crowded any more.
            if next.is_some() || !is_awaited {
                return next;
            }
        }
    }

    fn next_dirty(&mut self) -> Option<ConnectionKey> {
        loop {
            let is_bulks_turn = self.dirty.is_empty() || self.bulk.passed >= SOON_PER_BULK;
            let from_bulk = if is_bulks_turn { self.bulk.dirty.pop_front() } else { None };
            let (key, queue) = match from_bulk {
                Some(key) => (key, Dirty::Bulk),
                None => (self.dirty.pop_front()?, Dirty::Soon),
            };
            self.bulk.passed = if queue == Dirty::Bulk { 0 } else { self.bulk.passed.saturating_add(1) };
            if let Some(client) = self.clients.get_mut(key)
                && client.dirty == queue
            {
                client.dirty = Dirty::No;
                return Some(key);
            }
        }
    }
}
