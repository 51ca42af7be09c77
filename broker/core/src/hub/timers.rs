//! What is due when: one queue for all clients and receipts of a shard.
//!
//! A client has at most one live entry, at or before its deadline; when it fires too early (the keep-alive
//! deadline moves with every packet) it is simply put in again. That keeps the packet path free of the queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slotmap::DefaultKey;

use super::{ConnectionKey, Shard};
use crate::model::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Client(ConnectionKey),
    Receipt(DefaultKey),
    /// Sends that clients left parked when they went.
    Departed,
}

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn push(&mut self, at: Instant, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        self.next().filter(|&at| at <= now)?;
        self.0.pop().map(|Reverse(due)| due)
    }
}

impl Shard {
    /// Makes sure that the client's deadline is in the queue.
    pub(super) fn schedule(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let release = client.park.release();
        let deadline = match (client.session.deadline(), release) {
            (Some(deadline), Some(release)) => deadline.min(release),
            (deadline, release) => match deadline.or(release) {
                Some(only) => only,
                None => return,
            },
        };
        if client.timer.is_none_or(|at| deadline < at) {
            client.timer = Some(deadline);
            self.timers.push(deadline, Timer::Client(key));
        }
    }

    pub(super) fn handle_timers(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Departed => self.release_departed(now),
                Timer::Receipt(tracker) => self.finish_tracker(tracker, now),
                Timer::Client(key) => {
                    let Some(client) = self.clients.get_mut(key) else { continue };
                    if client.timer != Some(at) {
                        continue;
                    }
                    client.timer = None;
                    if client.session.deadline().is_some_and(|deadline| deadline <= now) {
                        client.session.handle_time(now);
                        self.settle(key, now);
                        self.mark(key);
                    }
                    self.release_parked(key, now);
                    self.schedule(key);
                }
            }
        }
    }
}
