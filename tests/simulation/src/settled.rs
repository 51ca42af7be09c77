//! What is checked when all is healed and quiet: nothing accepted is unaccounted for, nobody waits for an answer, bounds
//! were held, and every shard retains what was last accepted.

use bugle_core::hub::Counters;
use bugle_protocol::Status;

use crate::ledger::{Fate, Lane, Ledger, Message, NEVER, Place};
use crate::message::{Target, What};
use crate::plan::{Kind, client_id};

/// What the gateway counted as dropped, on all shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropped {
    /// Signals: OVERFLOW, and EXPIRED.
    pub signals: u64,
    /// Messages to topics.
    pub publishes: u64,
    /// Notices.
    pub notices: u64,
    /// Wills that were sent or, by the rules or for want of room, not sent.
    pub wills: u64,
}

impl Dropped {
    /// Adds what one shard counted.
    pub fn add(&mut self, counters: &Counters) {
        self.signals += counters.status(Status::Overflow) + counters.status(Status::Expired);
        self.publishes += counters.publishes_overflowed + counters.publishes_expired;
        self.notices += counters.sessions.notices_dropped;
        self.wills += counters.wills + counters.wills_refused;
    }
}

impl Ledger {
    /// Checks what holds at the end. `links` are the connections that clients have.
    pub fn check_end(&mut self, dropped: &Dropped, links: &[Option<u32>]) {
        let mut missing = (Vec::new(), Vec::new());
        for number in 0..self.messages.len() as u32 {
            let link = links.get(self.messages[number as usize].sender).copied().flatten();
            if dropped.notices == 0 && self.misses_receipt(number, link) {
                self.violated(format!("message {number} has no receipt"));
            }
            for client in 0..self.plan.clients.len() {
                if self.has_to_have(number, client) && !self.has(number, client) {
                    let told =
                        self.messages[number as usize].statuses.iter().find(|(named, _)| *named == client);
                    match (told, self.messages[number as usize].lane()) {
                        (Some((_, Status::Overflow | Status::Expired)), _) => {}
                        // A device that drops it as late says so when the receipt has closed.
                        (Some((_, Status::Unconfirmed)), _) if self.may_drop_late(number, client) => {
                            missing.0.push((number, client));
                        }
                        (Some((_, status)), _) => {
                            let text =
                                format!("message {number}, {status:?}, never came to {}", client_id(client));
                            self.violated(text);
                        }
                        (None, Lane::Plain) => missing.1.push((number, client)),
                        (None, _) => missing.0.push((number, client)),
                    }
                }
            }
        }
        for (missing, counted) in [(missing.0, dropped.signals), (missing.1, dropped.publishes)] {
            if missing.len() as u64 > counted {
                self.violated(format!("deliveries are lost, with {counted} counted as dropped: {missing:?}"));
            }
        }
        if dropped.wills != self.wills {
            self.violated(format!("{} wills were due, and {} are counted", self.wills, dropped.wills));
        }
        self.check_mailboxes();
    }

    /// Whether it was accepted. A notice that it was refused may be lost with the connection.
    fn is_surely_accepted(&self, message: &Message) -> bool {
        message.fate == Fate::Accepted
            && (!message.may_be_refused || self.surely_up(message.sender, message.submitted.step, NEVER))
    }

    fn may_drop_late(&self, number: u32, client: usize) -> bool {
        self.messages[number as usize].ttl().is_some() && self.plan.clients[client].kind == Kind::Device
    }

    fn has(&self, number: u32, client: usize) -> bool {
        self.messages[number as usize].deliveries.iter().any(|delivered| delivered.client == client)
    }

    /// Whether a client has to have got a message by now, or its loss be counted.
    fn has_to_have(&self, number: u32, client: usize) -> bool {
        let message = &self.messages[number as usize];
        let Some(answered) = message.answered else { return false };
        let (from, to) = (message.submitted.step, answered.step);
        if !self.is_surely_accepted(message)
            || message.is_repeated
            || message.incarnation != self.incarnation
            || self.may_get(number, client, from, to).is_err()
            || self.may_be_forbidden(number, client, from, to)
        {
            return false;
        }
        match &message.submission.what {
            What::Signal { target, .. } => {
                let place = match target {
                    Target::Client(_) => Place::Inbox,
                    Target::Group { group, .. } => Place::Group(*group),
                };
                // A device that resumes its session misses nothing.
                self.surely(client, place, from, to)
                    && (self.surely_up(client, from, NEVER)
                        || (self.waits_for_it(client) && self.has_session_since(client, place, from)))
            }
            What::Publish { clear: true, .. } => false,
            What::Publish { topic, .. } => {
                // It is judged when it comes to the subscriber's shard, at any time.
                let to = NEVER;
                let is_kept = self.waits_for_it(client)
                    || self.plan.clients[client].expiry.is_some()
                        && self.plan.clients[client].kind != Kind::Device
                        && self.plan.clients[client].topic_qos.min(message.submission.qos) > 0;
                self.filters(*topic).into_iter().any(|filter| {
                    let tenures = self.accounts[client].tenures.iter();
                    let mut held = tenures.filter(|tenure| {
                        tenure.place == filter && tenure.sure_from <= from && tenure.sure_until >= to
                    });
                    if is_kept {
                        held.next().is_some() && self.surely_up_at_last(client)
                    } else {
                        held.next().is_some() && self.surely_up(client, from, NEVER)
                    }
                })
            }
        }
    }

    /// Whether it is in the session still in which it was in a place at that step.
    fn has_session_since(&self, client: usize, place: Place, step: u64) -> bool {
        let account = &self.accounts[client];
        // Leaving a place doesn't end the session; only the end of the session ends the inbox.
        let is_same = |at: Place| {
            account
                .tenures
                .iter()
                .any(|tenure| tenure.place == at && tenure.sure_from <= step && tenure.sure_until == NEVER)
        };
        is_same(Place::Inbox) && self.surely(client, place, step, step) && self.surely_up_at_last(client)
    }

    fn surely_up_at_last(&self, client: usize) -> bool {
        self.accounts[client].spans.last().is_some_and(|span| span.until == NEVER)
    }

    /// While a client read nothing, no more waited for it than may.
    fn check_mailboxes(&mut self) {
        let most = self.plan.limits.mailbox_messages;
        for client in 0..self.accounts.len() {
            for at in 0..self.accounts[client].stalls.len() {
                let (since, until) = self.accounts[client].stalls[at];
                // A message to a topic is answered when it is on its way to other shards.
                let waited = |message: &&Message| {
                    message.target().is_some()
                        && !message.is_repeated
                        && message.submitted.step >= since
                        && message.answered.is_some_and(|answered| answered.step <= until)
                        && message.deliveries.iter().any(|delivered| {
                            delivered.client == client
                                && !delivered.retained
                                && delivered.written.step > until
                        })
                };
                let waiting: Vec<_> = self.messages.iter().filter(waited).collect();
                for urgent in [false, true] {
                    let count =
                        waiting.iter().filter(|message| (message.lane() == Lane::Urgent) == urgent).count();
                    if count > most {
                        self.violated(format!(
                            "{count} messages waited for {} at step {until}, of which {most} may",
                            client_id(client)
                        ));
                        return;
                    }
                }
            }
        }
    }

    /// Whether this may be what is retained of a topic: none of those that were surely accepted later. `None` is a topic
    /// without a message.
    pub fn may_be_retained(&self, topic: usize, number: Option<u32>) -> bool {
        let publishes = || {
            self.messages.iter().enumerate().filter(move |(_, message)| {
                message.incarnation == self.incarnation
                    && matches!(message.submission.what, What::Publish { topic: of, retain: true, .. } if of == topic)
            })
        };
        let is_superseded = |message: &Message| {
            let Some(answered) = message.answered.filter(|_| !message.is_repeated) else { return false };
            publishes()
                .any(|(_, later)| self.is_surely_accepted(later) && later.submitted.step > answered.step)
        };
        match number {
            Some(number) => {
                let message = &self.messages[number as usize];
                publishes().any(|(at, _)| at == number as usize)
                    && !is_superseded(message)
                    && !message.is_void()
            }
            None => {
                let is_clear = |message: &Message| {
                    matches!(message.submission.what, What::Publish { clear: true, .. }) && !message.is_void()
                };
                !publishes().any(|(_, message)| self.is_surely_accepted(message))
                    || publishes().any(|(_, message)| is_clear(message) && !is_superseded(message))
            }
        }
    }
}
