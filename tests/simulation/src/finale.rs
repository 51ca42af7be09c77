//! The end of a run: all is healed, everything that is on its way arrives, and then everyone is asked once more.

use std::collections::BTreeMap;

use bugle_protocol::ReceiptMode;

use crate::client::Body;
use crate::ledger::Place;
use crate::message::{Submission, Target, What};
use crate::plan::client_id;
use crate::world::World;

/// Milliseconds in which everything that was begun comes to its end: receipts without ttl close after 10 s, and the SDK
/// waits 5 s longer for one.
const HORIZON: u64 = 26_000;
/// How often that is waited for.
const MOST_ROUNDS: usize = 40;

impl World<'_> {
    /// Heals all and checks what holds then.
    pub(crate) fn finale(&mut self) {
        self.say(|| "all is healed".to_owned());
        self.settle(HORIZON);
        // What is parked leaves at its sender's rate.
        for _ in 0..MOST_ROUNDS {
            if !self.clients.iter().any(|client| client.waits()) {
                break;
            }
            self.settle(HORIZON);
        }
        self.check_quiet();
        // Twice: a device only knows of what was restored by the answer to something later.
        for _ in 0..2 {
            self.call_the_roll();
        }
        self.ask_for_retained();
        self.check_quiet();
    }

    fn check_quiet(&mut self) {
        if !self.is_sound() {
            return;
        }
        let links: Vec<_> = self.clients.iter().map(|client| client.link).collect();
        let dropped = self.dropped();
        self.ledger.check_end(&dropped, &links);
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            if client.wants && !client.is_ready() {
                self.ledger.violated(format!("{} can't come in", client_id(at)));
            } else if client.waits() {
                self.ledger.violated(format!("{} still waits for an answer", client_id(at)));
            } else if let Body::Device(device) = &client.body
                && device.faults() > 0
            {
                self.ledger.violated(format!("{} was sent what it can't read", client_id(at)));
            }
        }
        let connected = self.clients.iter().filter(|client| client.link.is_some()).count() as u64;
        let counted: u64 = self
            .gateway
            .iter()
            .flat_map(|gateway| &gateway.shards)
            .map(|shard| shard.counters().clients)
            .sum();
        if connected != counted {
            self.ledger.violated(format!("{connected} clients are connected, {counted} are counted"));
        }
        let shards = self.gateway.iter().flat_map(|gateway| &gateway.shards);
        let waiting: u64 = shards.map(|shard| shard.counters().waiting_bytes).sum();
        if waiting > 0 && connected == self.clients.len() as u64 {
            self.ledger.violated(format!("all is written and acknowledged, and {waiting} bytes wait"));
        }
    }

    /// A signal to each group and each client, of whom all is known.
    fn call_the_roll(&mut self) {
        if !self.is_sound() {
            return;
        }
        let groups = (0..self.plan.groups).map(|group| Target::Group { group, only: None, except: None });
        let clients = (0..self.clients.len()).map(Target::Client);
        for target in groups.chain(clients).collect::<Vec<_>>() {
            let sender = self.random.below(self.clients.len());
            self.pass(1100);
            let (echo, urgent, ttl, receipt, id) = (true, false, None, ReceiptMode::Each, false);
            let what = What::Signal { target, echo, urgent, ttl, receipt, id };
            self.send(sender, Submission { what, qos: 1, size: 8 });
            self.settle(0);
        }
        self.settle(HORIZON);
    }

    /// Everyone subscribes to everything: on every shard the same is retained.
    fn ask_for_retained(&mut self) {
        if !self.is_sound() {
            return;
        }
        let all = Place::Filter(self.plan.topics + 1);
        for client in 0..self.clients.len() {
            self.begin_step(40);
            self.leave(client, all);
            self.settle(0);
        }
        let since = self.now.step;
        for client in 0..self.clients.len() {
            self.begin_step(41);
            self.join(client, all);
        }
        self.settle(HORIZON);
        let mut found: BTreeMap<(usize, usize), Vec<u32>> = BTreeMap::new();
        for (number, message) in self.ledger.messages.iter().enumerate() {
            let What::Publish { topic, .. } = message.submission.what else { continue };
            let after =
                message.deliveries.iter().filter(|delivered| delivered.retained && delivered.seen > since);
            for delivered in after {
                found.entry((delivered.client, topic)).or_default().push(number as u32);
            }
        }
        for topic in 0..self.plan.topics {
            let mut first = None;
            for client in 0..self.clients.len() {
                if !self.is_up_since(client, since) {
                    continue;
                }
                let retained = found.get(&(client, topic)).cloned().unwrap_or_default();
                let who = client_id(client);
                match retained[..] {
                    [] | [_] if self.ledger.may_be_retained(topic, retained.first().copied()) => {}
                    _ => {
                        let text = format!(
                            "{who} is given {retained:?} as retained of t/{topic}, which isn't the last"
                        );
                        self.ledger.violated(text);
                    }
                }
                match &first {
                    None => first = Some((who, retained)),
                    Some((_, same)) if *same == retained => {}
                    Some((other, different)) => {
                        let text = format!(
                            "t/{topic} has {different:?} retained for {other} and {retained:?} for {who}"
                        );
                        self.ledger.violated(text);
                    }
                }
            }
        }
    }
}
