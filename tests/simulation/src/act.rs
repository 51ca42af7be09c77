//! What clients do: join, leave, send, publish, subscribe, say goodbye, come back.

use bugle_protocol::ReceiptMode;

use crate::ledger::Place;
use crate::message::{Submission, Target, What};
use crate::plan::{Kind, client_id};
use crate::world::World;

impl World<'_> {
    /// A client does something.
    pub(crate) fn act(&mut self) {
        self.begin_step(30);
        let client = self.random.below(self.clients.len());
        if self.clients[client].link.is_none() {
            self.clients[client].wants = true;
            return;
        }
        if !self.clients[client].is_ready() {
            return;
        }
        match self.random.below(100) {
            0..36 => self.send_signal(client),
            36..45 => self.burst(client),
            45..62 => self.publish(client),
            62..76 => {
                let group = self.random.below(self.plan.groups);
                self.join(client, Place::Group(group));
            }
            76..83 => {
                let group = self.random.below(self.plan.groups);
                self.leave(client, Place::Group(group));
            }
            83..92 => {
                let filter = self.random.below(self.plan.topics + 2);
                self.join(client, Place::Filter(filter));
            }
            92..96 => {
                let filter = self.random.below(self.plan.topics + 2);
                self.leave(client, Place::Filter(filter));
            }
            96..98 if !self.plan.holds_input() => {
                self.say(|| format!("{} says goodbye", client_id(client)));
                self.clients[client].leave_for_good(&mut self.ledger, self.now);
            }
            _ => self.burst(client),
        }
    }

    pub(crate) fn join(&mut self, client: usize, place: Place) {
        self.say(|| format!("{} asks for {place:?}", client_id(client)));
        self.clients[client].join(place, &mut self.ledger, self.now);
    }

    pub(crate) fn leave(&mut self, client: usize, place: Place) {
        self.say(|| format!("{} leaves {place:?}", client_id(client)));
        self.clients[client].leave(place, &mut self.ledger, self.now);
    }

    /// The same to the same, several times in a row, or as the last time.
    fn burst(&mut self, client: usize) {
        let mut submission = match self.clients[client].usual.take() {
            Some(usual) if self.random.chance(4, 5) => usual,
            _ => self.signal(client),
        };
        if let What::Signal { receipt, id, .. } = &mut submission.what {
            (*receipt, *id) = (ReceiptMode::None, false);
        }
        for _ in 0..self.random.between(1, 6) {
            self.send(client, submission.clone());
        }
        self.clients[client].usual = Some(submission);
    }

    fn send_signal(&mut self, client: usize) {
        let submission = self.signal(client);
        self.send(client, submission);
    }

    fn publish(&mut self, client: usize) {
        let retain = self.random.chance(1, 3);
        let clear = retain && self.random.chance(1, 5);
        let what = What::Publish { topic: self.random.below(self.plan.topics), retain, clear };
        let qos = self.random.below(if self.plan.clients[client].kind == Kind::Device { 2 } else { 3 }) as u8;
        let size = if clear { 0 } else { self.random.between(4, 40) };
        self.send(client, Submission { what, qos, size });
    }

    pub(crate) fn send(&mut self, client: usize, submission: Submission) -> Option<u32> {
        self.now.step += 1;
        let text = submission.what.text();
        let number = self.clients[client].send(submission, &mut self.ledger, self.now);
        if let Some(number) = number {
            self.say(|| format!("{} sends message {number}, {text}", client_id(client)));
        }
        number
    }

    fn signal(&mut self, client: usize) -> Submission {
        let random = &mut self.random;
        let clients = self.plan.clients.len() + 1;
        let mut list = |least: usize| -> Vec<usize> {
            let count = random.between(least, 4);
            (0..count).map(|_| random.below(clients)).collect()
        };
        let (only, except) = (list(1), list(0));
        let target = if random.chance(1, 4) {
            Target::Client(random.below(clients))
        } else {
            let (only, except) = match random.below(8) {
                0..4 => (None, None),
                4..6 => (Some(only), None),
                6 => (None, Some(except)),
                _ => (Some(only), Some(except)),
            };
            Target::Group { group: random.below(self.plan.groups), only, except }
        };
        let receipt = match random.below(10) {
            0..5 => ReceiptMode::Each,
            5..7 => ReceiptMode::Summary,
            _ => ReceiptMode::None,
        };
        let ttl = random.chance(self.plan.hurried, 8).then(|| [1, 20, 200, 3000][random.below(4)]);
        let echo = random.chance(1, 4);
        let urgent = random.chance(1, 10);
        let qos = if self.plan.clients[client].kind == Kind::Device { 1 } else { random.below(3) as u8 };
        let size = if random.chance(1, 12) { 600 } else { random.between(4, 40) };
        // Without a packet identifier there is no other way to know what a receipt is about.
        let id = self.random.chance(1, 5) || (qos == 0 && receipt != ReceiptMode::None);
        Submission { what: What::Signal { target, echo, urgent, ttl, receipt, id }, qos, size }
    }
}
