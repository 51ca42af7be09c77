//! What is due when: one queue for all clients and receipts of a shard.
//!
//! A client has at most one live entry, at or before its deadline; when it fires too early (the keep-alive
//! deadline moves with every packet) it is simply put in again. That keeps the packet path free of the queue.
//! What is over before its time is taken out, so that the queue is no longer than what is really awaited,
//! whatever ttl a sender asks for.

use std::collections::BTreeSet;

use slotmap::DefaultKey;

use super::{ConnectionKey, Shard};
use crate::model::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Client(ConnectionKey),
    Receipt(DefaultKey),
    /// Sends that clients left parked when they went.
    Departed,
    /// The next retained message to expire.
    Retained,
    /// A client whose retained messages weren't looked through yet.
    Replay(ConnectionKey),
    /// A send that waits for the ends of recipients that are queued.
    StoredSend(u64),
    /// The next message of a queue to expire.
    Queue(DefaultKey),
    /// The next message id whose time is over.
    MessageIds,
    /// Clients that are to be judged by new rules.
    Judge,
    /// A client whose credential the process is to judge.
    Asked(ConnectionKey),
    /// A client that came in by what holds for a time.
    Expires(ConnectionKey),
    /// Groups whose presence is to be told.
    Presence,
    /// A mute or ban whose time is over.
    Moderation,
}

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn push(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn remove(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        self.next().filter(|&at| at <= now)?;
        self.0.pop_first()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Shard {
    /// Makes sure that the client's deadline is in the queue.
    pub(super) fn schedule(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let release = client.park.release();
        let due = match &client.away {
            Some(away) => away.deadline(),
            None => client.session.deadline(),
        };
        let deadline = match (due, release) {
            (Some(deadline), Some(release)) => deadline.min(release),
            (deadline, release) => match deadline.or(release) {
                Some(only) => only,
                None => return,
            },
        };
        if client.timer.is_none_or(|at| deadline < at) {
            if let Some(later) = client.timer.replace(deadline) {
                self.timers.remove(later, Timer::Client(key));
            }
            self.timers.push(deadline, Timer::Client(key));
        }
    }

    pub(super) fn handle_timers(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Departed => self.release_departed(now),
                Timer::Retained => self.expire_retained(now),
                Timer::StoredSend(number) => self.expire_stored(number, now),
                Timer::Queue(queue) => {
                    if let Some(queue) = self.queues.get_mut(queue) {
                        queue.timer = None;
                    }
                    self.expire_queue(queue, now);
                }
                Timer::MessageIds => self.expire_message_ids(now),
                Timer::Judge => self.judge_clients(now),
                Timer::Expires(key) => self.expire_client(key, now),
                Timer::Presence => self.tell_presence(now),
                Timer::Moderation => self.expire_moderations(now),
                Timer::Asked(key) => self.give_up_asking(key, now),
                Timer::Replay(key) => self.mark_dirty(key),
                Timer::Receipt(tracker) => self.finish_tracker(tracker, now),
                Timer::Client(key) => {
                    let Some(client) = self.clients.get_mut(key) else { continue };
                    if client.timer != Some(at) {
                        continue;
                    }
                    client.timer = None;
                    if client.away.is_some() {
                        self.handle_away(key, now);
                        self.schedule(key);
                        continue;
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_leaves_the_queue() {
        let at = Instant::from_millis;
        let mut timers = Timers::default();
        timers.push(at(5), Timer::Departed);
        timers.push(at(5), Timer::Departed);
        timers.push(at(u64::MAX), Timer::Receipt(DefaultKey::default()));
        timers.remove(at(u64::MAX), Timer::Receipt(DefaultKey::default()));
        assert_eq!((timers.len(), timers.next()), (1, Some(at(5))));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(5)), Some((at(5), Timer::Departed)));
        assert_eq!(timers.len(), 0);
    }
}
