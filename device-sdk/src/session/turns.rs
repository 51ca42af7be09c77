//! What the runner does next, so that it has nothing to decide: within a connection ([`Turns`]), and between connections
//! ([`Attempts`]). It waits on what the one says, and brings the outcome back.

use core::ops::Range;

use super::Session;
use super::timer::Timer;
use crate::signal::Disconnect;

/// A connection that was open for so long, in milliseconds, was a good one: the next wait is short.
const GOOD_CONNECTION: u32 = 10_000;
/// After a planned stop all devices come back at once: they spread out as if after so many failures.
const FAILURES_AFTER_STOP: u32 = 4;
/// How long the gateway may take to close behind a goodbye, in milliseconds.
const LINGER: u32 = 1_000;
/// The longest sleep at a stretch, in milliseconds.
const LONGEST_SLEEP: u32 = 60_000;

/// What the runner does next.
#[derive(Clone, Copy)]
pub(crate) enum Turn {
    /// Writes the chunk's first `length` bytes; more than `limit` milliseconds are too long.
    Write { length: usize, limit: u32 },
    /// Reads up to `room` bytes into the chunk, if any, but waits no longer than `time` milliseconds or until there is news.
    Wait { room: usize, time: u32 },
    /// The connection is over.
    End(Disconnect),
}

/// What the runner is about, within a connection.
#[derive(Default)]
pub(crate) struct Turns {
    /// Where in the chunk bytes are that the session didn't take yet.
    received: Range<usize>,
    /// Until when it has to take them, where it doesn't at once.
    held: Option<Timer>,
    has_written: bool,
    /// The connection is over, for this reason, and until then the gateway may close it.
    over: Option<(Disconnect, Timer)>,
}

impl Turns {
    /// So many bytes were read into the chunk. Those behind a goodbye are of no more use.
    pub(crate) fn read(&mut self, length: usize) {
        if self.over.is_none() {
            self.received = 0..length;
        }
    }

    /// Why the connection ended when the transport did.
    pub(crate) fn lost(&self) -> Disconnect {
        self.over.map_or(Disconnect::Lost, |(cause, _)| cause)
    }
}

impl Session<'_> {
    /// A transport is open. Not any more wanted once the application wants no connection: then it is to be dropped.
    pub(crate) fn handle_wanted(&mut self, now: u64) -> bool {
        let is_wanted = self.stopped.is_none();
        if is_wanted {
            self.handle_connected(now);
        }
        is_wanted
    }

    /// What the runner does next; what it has read is taken first. `chunk` has [`CHUNK`](super::CHUNK) bytes or more.
    #[inline(never)]
    pub(crate) fn next_turn(&mut self, turns: &mut Turns, now: u64, chunk: &mut [u8]) -> Turn {
        let moment = now as u32;
        if let Some((cause, timer)) = turns.over {
            let time = timer.left(moment);
            return if time == 0 { Turn::End(cause) } else { Turn::Wait { room: chunk.len(), time } };
        }
        if !turns.received.is_empty() {
            turns.received.start += self.handle_bytes(now, &chunk[turns.received.clone()]);
            if !turns.received.is_empty() {
                // There was room for it, so it waits for the application's look at a delivery. That has a limit: meanwhile
                // no ping is written, and no acknowledgement counted.
                let held = turns.held.get_or_insert(Timer::new(moment, self.config.ack_timeout));
                let time = held.left(moment).min(LONGEST_SLEEP);
                return if time == 0 {
                    Turn::End(Disconnect::TimedOut)
                } else {
                    Turn::Wait { room: 0, time }
                };
            }
            turns.held = None;
        }
        self.handle_time(now);
        let length = self.poll_transmit(now, chunk);
        let closed = self.poll_closed();
        if length > 0 {
            turns.has_written = true;
            return Turn::Write { length, limit: self.config.write_timeout };
        }
        let has_written = core::mem::take(&mut turns.has_written);
        if let Some(cause) = closed {
            if !has_written {
                return Turn::End(cause);
            }
            // Where a transport is dropped with bytes unread, TCP may throw away what was written, and the gateway would
            // take it for a lost connection.
            turns.over = Some((cause, Timer::new(moment, LINGER)));
            return Turn::Wait { room: chunk.len(), time: LINGER };
        }
        let time = self.left(moment).min(LONGEST_SLEEP);
        Turn::Wait { room: self.receive_room().min(chunk.len()), time }
    }

    /// How long the runner rests on before its next attempt; `None` when that is due, or isn't wanted.
    pub(crate) fn rest(&mut self, attempts: &Attempts, now: u64) -> Option<u32> {
        self.handle_time(now);
        let left = attempts.rest.left(now as u32);
        (self.stopped.is_none() && left > 0).then(|| left.min(self.left(now as u32)).min(LONGEST_SLEEP))
    }
}

/// What the runner remembers of its attempts to connect.
pub(crate) struct Attempts {
    pub(crate) failures: u32,
    /// How often the device was welcomed before this attempt.
    welcomes: u32,
    /// State of the jitter's generator, never 0.
    random: u32,
    /// Until the next attempt.
    rest: Timer,
}

impl Attempts {
    pub(crate) fn new(seed: u32) -> Self {
        Self { failures: 0, welcomes: 0, random: seed.max(1), rest: Timer::OVER }
    }

    /// Says how long the transport may take to open, in milliseconds.
    pub(crate) fn begin(&mut self, session: &Session<'_>) -> u32 {
        self.welcomes = session.counters.welcomes;
        session.config.connect_timeout
    }

    /// Begins the rest before the next attempt, or says why there is none.
    #[inline(never)]
    pub(crate) fn end(
        &mut self,
        session: &Session<'_>,
        cause: Disconnect,
        now: u64,
    ) -> Result<(), Disconnect> {
        if let Some(cause) = session.stopped {
            return Err(cause);
        }
        let now = now as u32;
        let is_welcome = session.counters.welcomes != self.welcomes;
        if is_welcome && now.wrapping_sub(session.connected_at) >= GOOD_CONNECTION {
            self.failures = 0;
        }
        let (cap, base) = (session.config.backoff_cap, session.config.backoff_base);
        let wait = if cause.needs_help() {
            cap / 2 + self.jitter(cap / 2)
        } else {
            if matches!(cause, Disconnect::Bye(_)) {
                self.failures = self.failures.max(FAILURES_AFTER_STOP);
            }
            let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
            self.jitter(base.saturating_mul(factor).min(cap))
        };
        self.failures = self.failures.saturating_add(1);
        debug!("next attempt in {} ms", wait);
        self.rest = Timer::new(now, wait);
        Ok(())
    }

    /// A number up to and including `limit`, by xorshift: it only has to differ between devices.
    fn jitter(&mut self, limit: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % limit.saturating_add(1).max(1)
    }
}
