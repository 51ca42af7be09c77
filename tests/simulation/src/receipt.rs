//! What is checked when a sender gets a receipt: that everyone is in it once, and that what it says is true (S8).

use std::collections::BTreeMap;

use bugle_protocol::{ReceiptMode, Status};

use crate::arrival::FORBIDDEN;
use crate::ledger::{Ledger, NEVER, Place};
use crate::message::{Moment, Submission, Target, What};
use crate::plan::{Kind, client_id};

/// When receipts for online recipients close at the latest, in milliseconds (S8).
const CLOSES: u64 = 10_000;

/// A whole receipt.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// Recipients per status.
    pub counts: BTreeMap<u8, u32>,
    /// With `each`: what became of whom, in the order of the parts.
    pub entries: Vec<(String, Status)>,
    /// It is the outcome of an earlier send with the same id (S12).
    pub duplicate: bool,
}

impl Receipt {
    fn count(&self, status: Status) -> u32 {
        self.counts.get(&status.code()).copied().unwrap_or(0)
    }
}

impl Ledger {
    /// A sender got a receipt.
    pub fn receipted(&mut self, number: u32, receipt: &Receipt, now: Moment) {
        self.note(|_| format!("a receipt of message {number}: {receipt:?}"));
        let message = self.message(number);
        message.receipts += 1;
        let (writes, receipts) = (message.writes, message.receipts);
        let What::Signal { receipt: mode, .. } = message.submission.what else { return };
        if mode == ReceiptMode::None || receipts > writes {
            return self
                .violated(format!("receipt {receipts} of message {number}, asked for {}", mode.key()));
        }
        if self.message(number).is_void() {
            self.violated(format!("a receipt of message {number}, which was refused"));
        }
        // Of an earlier one, left parked by a sender that had gone, no names are known.
        let is_bare = receipt.duplicate && receipt.entries.is_empty();
        let mode = if is_bare { ReceiptMode::Summary } else { mode };
        self.check_sums(number, receipt, mode, now);
        if mode == ReceiptMode::Each {
            self.check_entries(number, receipt, now);
        }
    }

    fn check_sums(&mut self, number: u32, receipt: &Receipt, mode: ReceiptMode, now: Moment) {
        let total: u32 = receipt.counts.values().sum();
        let everyone = || self.everyone();
        let sure: Vec<_> = everyone().filter(|client| self.is_surely_counted(number, *client, now)).collect();
        let possible = everyone().filter(|client| self.is_possibly_counted(number, *client, now));
        let possible: Vec<_> = possible.collect();
        if (total as usize) < sure.len() || total as usize > possible.len() {
            let [sure, possible] = [sure, possible].map(|clients| Submission::names(&clients).join(","));
            self.violated(format!(
                "a receipt of message {number} counts {total}, surely {sure}, possibly {possible}: {receipt:?}"
            ));
        }
        let message = &self.messages[number as usize];
        let mut acked = message.acked_by.clone();
        acked.sort_unstable();
        acked.dedup();
        if receipt.count(Status::Delivered) as usize > acked.len() {
            let text =
                format!("a receipt of message {number} says more DELIVERED than acknowledged: {receipt:?}");
            self.violated(text);
        }
        if mode == ReceiptMode::Each {
            for &status in Status::ALL {
                let named = receipt.entries.iter().filter(|(_, named)| *named == status).count();
                if named != receipt.count(status) as usize {
                    let text = format!("a receipt of message {number} doesn't add up: {receipt:?}");
                    return self.violated(text);
                }
            }
        }
    }

    fn check_entries(&mut self, number: u32, receipt: &Receipt, now: Moment) {
        let mut named = Vec::new();
        for (id, status) in &receipt.entries {
            let Some(client) = self.everyone().find(|client| client_id(*client) == *id) else {
                self.violated(format!("a receipt of message {number} names {id}, whom nobody knows"));
                continue;
            };
            if named.contains(&client) {
                self.violated(format!("a receipt of message {number} names {id} twice"));
            }
            named.push(client);
            if !self.is_possibly_counted(number, client, now) {
                self.violated(format!(
                    "a receipt of message {number} names {id}, who is no recipient ({status:?})"
                ));
            }
            self.check_status(number, client, *status, now);
            self.message(number).statuses.push((client, *status));
        }
        for client in self.everyone().collect::<Vec<_>>() {
            if !named.contains(&client) && self.is_surely_counted(number, client, now) {
                self.violated(format!("a receipt of message {number} leaves out {}", client_id(client)));
            }
        }
    }

    /// Everyone who can be named: those of the plan, and two who never connect.
    fn everyone(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.plan.clients.len() + 2
    }

    /// When the gateway judged it: between these steps.
    fn judged(&self, number: u32, now: Moment) -> (u64, u64) {
        let message = &self.messages[number as usize];
        let end =
            message.answered.filter(|_| !message.is_repeated).map_or(now.step, |answered| answered.step);
        (message.submitted.step, end)
    }

    /// Whether it is among those that an outcome counts, whatever it is.
    fn is_surely_counted(&self, number: u32, client: usize, now: Moment) -> bool {
        let (from, to) = self.judged(number, now);
        let message = &self.messages[number as usize];
        match message.target() {
            None => false,
            Some(Target::Client(one)) => *one == client && !self.refuses_own(number, client),
            Some(Target::Group { except: Some(except), .. }) if except.contains(&client) => false,
            Some(Target::Group { only: Some(only), .. }) => {
                only.contains(&client) && !self.refuses_own(number, client)
            }
            Some(Target::Group { group, .. }) => {
                !self.is_left_out_as_own(number, client)
                    && (self.surely(client, Place::Group(*group), from, to)
                        || self.plan.law.is_provisioned(client, *group))
            }
        }
    }

    fn is_possibly_counted(&self, number: u32, client: usize, now: Moment) -> bool {
        let (from, to) = self.judged(number, now);
        let message = &self.messages[number as usize];
        match message.target() {
            None => false,
            Some(Target::Client(one)) => *one == client,
            Some(Target::Group { except: Some(except), .. }) if except.contains(&client) => false,
            Some(Target::Group { only: Some(only), .. }) => only.contains(&client),
            Some(Target::Group { group, .. }) => {
                (message.sender != client || self.echoes(number))
                    && (self.possibly(client, Place::Group(*group), from, to)
                        || self.plan.law.is_provisioned(client, *group))
            }
        }
    }

    fn echoes(&self, number: u32) -> bool {
        matches!(self.messages[number as usize].submission.what, What::Signal { echo: true, .. })
    }

    fn refuses_own(&self, number: u32, client: usize) -> bool {
        self.messages[number as usize].sender == client
            && self.plan.clients.get(client).is_some_and(|client| client.no_local)
    }

    fn is_left_out_as_own(&self, number: u32, client: usize) -> bool {
        self.messages[number as usize].sender == client
            && (!self.echoes(number) || self.refuses_own(number, client))
    }

    /// What a receipt says of one recipient is true.
    fn check_status(&mut self, number: u32, client: usize, status: Status, now: Moment) {
        let message = &self.messages[number as usize];
        let (from, to) = self.judged(number, now);
        let since = now.at - message.submitted.at;
        let is_up = self.surely_up(client, from, now.step);
        // A device's session may be gone on with, so that what comes for it waits.
        let is_there =
            is_up || (self.waits_for_it(client) && self.surely(client, Place::Inbox, from, now.step));
        let has_it = message.deliveries.iter().any(|delivered| delivered.client == client);
        let place = match message.target() {
            Some(Target::Client(_)) => Place::Inbox,
            Some(Target::Group { group, .. }) => Place::Group(*group),
            None => return,
        };
        let is_member = self.surely(client, place, from, to);
        let is_forbidden = self.may_get(number, client, from, to) == Err(FORBIDDEN);
        let may_be_forbidden = self.may_be_forbidden(number, client, from, to);
        let qos = self.plan.clients.get(client).map_or(0, |client| match client.kind {
            Kind::Device => 1,
            _ => client.signal_qos,
        });
        let qos = match self.plan.clients[message.sender].kind {
            Kind::Device => qos.min(1),
            _ => qos.min(message.submission.qos),
        };
        let closes = message.ttl().unwrap_or(CLOSES);
        let is_once = !message.is_repeated;
        let wrong = match status {
            Status::Delivered if !message.acked_by.contains(&client) => "it has acknowledged nothing",
            Status::Unconfirmed if is_up && qos > 0 && since < closes => {
                "it is connected, acknowledges, and there was time"
            }
            Status::Offline if is_there && is_member && is_once => "it was online",
            Status::NotMember if is_member && is_once => "it was a member",
            Status::NotMember if place == Place::Inbox => "there is no group",
            Status::Denied if !may_be_forbidden => "the rules don't forbid it",
            Status::Expired if message.ttl().is_none() => "it has no deadline",
            Status::Queued => "nothing was to be stored",
            _ if is_forbidden && is_up && is_member && status != Status::Denied => FORBIDDEN,
            _ if !matches!(status, Status::Delivered | Status::Unconfirmed) && has_it && is_once => {
                "it got it"
            }
            _ => return,
        };
        let text = format!("message {number} is {status:?} at {}, but {wrong}", client_id(client));
        self.violated(text);
    }

    /// A client got a message that a receipt says it never will.
    pub fn check_told(&mut self, number: u32, client: usize) {
        let message = &self.messages[number as usize];
        let told = message.statuses.iter().find(|(named, _)| *named == client).map(|(_, status)| *status);
        if !message.is_repeated
            && let Some(status) = told
            && !matches!(status, Status::Delivered | Status::Unconfirmed)
        {
            self.violated(format!(
                "message {number} was {status:?} at {}, which then got it",
                client_id(client)
            ));
        }
    }

    /// Whether its sender should have a receipt by now, and hasn't.
    pub fn misses_receipt(&self, number: u32, link: Option<u32>) -> bool {
        let message = &self.messages[number as usize];
        let What::Signal { receipt, .. } = message.submission.what else { return false };
        receipt != ReceiptMode::None
            && message.receipts == 0
            && !message.gave_up
            && message.answered.is_some()
            && !message.is_void()
            && message.incarnation == self.incarnation
            && link == Some(message.link)
            && self.surely_up(message.sender, message.submitted.step, NEVER)
    }
}
