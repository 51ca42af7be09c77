//! The recipients' side of a message: which of this shard's clients get it, by membership, lists and receive
//! rules, and whether their mailboxes take it (S3-S5, S8, T2, T6).

use std::rc::Rc;

use slotmap::DefaultKey;

use super::outbox::{AfterCommit, Kept};
use super::queues::Queue;
use super::receipts::Tracker;
use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::backbone::{
    AcceptedSignal, Backbone, Envelope, PeerMessage, ShardIndex, ShardReport, Share, owner,
};
use crate::model::{
    ClientId, Delivery, GroupName, Instant, Map, Outgoing, ReceiptMode, ReceiptSlot, Reception, Settled,
    Status, Target,
};
use crate::rules::{Action, Object};

impl Shard {
    pub(super) fn deliver_for_peer(&mut self, from: ShardIndex, envelope: &Envelope, now: Instant) {
        let mark = self.store.mark();
        let report = self.deliver_signal(from, envelope, now);
        let taken = PeerMessage::Taken { send: envelope.send, report };
        match self.store.since(mark) {
            Kept::WhenCommitted => self.store.after(AfterCommit::Peer(from, taken)),
            Kept::Nothing | Kept::Not => self.backbone.forward(from, taken),
        }
    }

    /// Puts a signal into the mailboxes of its recipients here. The report, where one is asked for, is given
    /// at once if everything is final, and later to the sender's shard `origin` otherwise.
    pub(super) fn deliver_signal(
        &mut self,
        origin: ShardIndex,
        envelope: &Envelope,
        now: Instant,
    ) -> Option<ShardReport> {
        let signal = &envelope.signal;
        self.signals += 1;
        let outgoing = Outgoing::new(signal.message.clone());
        let tracker = (signal.receipt != ReceiptMode::None).then(|| {
            let deadline = signal.message.deadline;
            self.trackers.insert(Tracker::new(origin, envelope.send, signal.receipt, deadline))
        });
        let mut round = Round { signal, outgoing, tracker, now };
        match &envelope.share {
            Share::Client => self.deliver_to_client(&mut round),
            Share::Members => self.deliver_to_members(&mut round),
            Share::Listed(listed) => self.deliver_to_listed(&mut round, listed),
            Share::Observers => {}
        }
        if self.observing > 0 {
            self.deliver_to_observers(&round);
        }
        let key = tracker?;
        if self.trackers.get(key)?.is_final() {
            let report = self.trackers.remove(key)?.report(now);
            for &status in Status::ALL {
                self.counters.count_status(status, report.counts.count(status).into());
            }
            return Some(report);
        }
        self.timers.push(signal.closes, Timer::Receipt(key));
        if let Some(tracker) = self.trackers.get_mut(key) {
            tracker.closes = Some(signal.closes);
        }
        None
    }

    /// *one*: a client whose inbox isn't open is OFFLINE. A sender that names itself is the recipient, unless it wants
    /// none of its own (S5).
    fn deliver_to_client(&mut self, round: &mut Round<'_>) {
        let Target::Client(id) = &round.signal.target else { return };
        let online = self.by_identity.get(id.as_str()).copied();
        let open = online.and_then(|key| Some((key, self.clients.get(key)?.inbox?)));
        match open {
            Some((key, reception)) if reception.no_local && *id == round.signal.sender => self.consider(key),
            Some((key, reception)) => self.give(round, key, reception),
            None => self.keep_or(round, id, Status::Offline),
        }
    }

    fn deliver_to_members(&mut self, round: &mut Round<'_>) {
        let Target::Group { group, except, .. } = &round.signal.target else { return };
        // The lists become keys once, so that a member costs no look at its name.
        let keys = |shard: &Self, id: &str| shard.by_identity.get(id).copied();
        let excluded: Vec<_> = except.iter().filter_map(|id| keys(self, id.as_str())).collect();
        let sender = keys(self, round.signal.sender.as_str());
        // By position: filling mailboxes changes no group.
        let place = self.groups.get_index_of(group);
        let members = place.and_then(|place| self.groups.get_index(place));
        let count = members.map_or(0, |(_, members)| members.len());
        self.begin_giving(count);
        let mut at = 0;
        while let Some((key, reception)) = place.and_then(|place| self.member(place, at)) {
            at += 1;
            let own = sender == Some(key);
            if excluded.contains(&key) || (own && (!round.signal.echo || reception.no_local)) {
                self.consider(key);
            } else {
                self.give(round, key, reception);
            }
        }
        self.end_giving();
        self.miss_provisioned(round, group);
    }

    fn member(&self, group: usize, at: usize) -> Option<(ConnectionKey, Reception)> {
        let (_, members) = self.groups.get_index(group)?;
        members.get_index(at).map(|(&key, member)| (key, member.reception))
    }

    /// Provisioned members of this shard that aren't there are OFFLINE (S2).
    fn miss_provisioned(&mut self, round: &Round<'_>, group: &GroupName) {
        let Target::Group { except, .. } = &round.signal.target else { return };
        let rules = self.rules.clone();
        for id in rules.members(group).into_iter().flatten() {
            let key = self.by_identity.get(id.as_str());
            let is_there = key
                .is_some_and(|key| self.groups.get(group).is_some_and(|members| members.contains_key(key)));
            if owner(id.as_str(), self.backbone.shards()) == self.index
                && !is_there
                && !except.contains(id.as_str())
                && (*id != round.signal.sender || round.signal.echo)
            {
                self.keep_or(round, id, Status::Offline);
            }
        }
    }

    fn deliver_to_listed(&mut self, round: &mut Round<'_>, listed: &[ClientId]) {
        let Target::Group { group, .. } = &round.signal.target else { return };
        for id in listed {
            let key = self.by_identity.get(id.as_str()).copied();
            let member = key.and_then(|key| Some((key, self.groups.get(group)?.get(&key)?.reception)));
            match member {
                // Named in *only*, a sender gets its own; but No Local always wins (S5).
                Some((key, reception)) if reception.no_local && *id == round.signal.sender => {
                    self.consider(key)
                }
                Some((key, reception)) => self.give(round, key, reception),
                None if self.rules.members(group).is_some_and(|members| members.contains(id)) => {
                    self.keep_or(round, id, Status::Offline);
                }
                None => self.settle_without_mailbox(round, id, Status::NotMember),
            }
        }
    }

    /// Gives the signal to one recipient, if the rules let it have it and its mailbox takes it.
    fn give(&mut self, round: &mut Round<'_>, key: ConnectionKey, reception: Reception) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.considered = self.signals;
        let is_absent = client.is_absent();
        if is_absent || round.signal.store {
            let Some(id) = client.client_id.clone() else { return };
            if round.signal.store && !self.may_receive(round.signal, key) {
                return self.settle_without_mailbox(round, &id, Status::Denied);
            }
            if is_absent {
                return self.keep_or(round, &id, Status::Offline);
            }
            let delivery = Delivery::new(round.outgoing.clone(), reception);
            if self.keep_signal(round.signal, delivery, round.tracker, &id, Some((key, reception))) {
                return;
            }
        }
        let mut slot = None;
        // The id is shared text: cloned only where a receipt is to name it.
        if round.tracker.is_some() || !self.rules.is_uniform(Action::Receive) {
            let Some(id) = self.clients.get(key).and_then(|client| client.client_id.clone()) else { return };
            if !self.may_receive(round.signal, key) {
                return self.settle_without_mailbox(round, &id, Status::Denied);
            }
            slot = round.tracker.and_then(|tracker| {
                let index = self.trackers.get_mut(tracker)?.add_waiting(id);
                Some(ReceiptSlot::Tracker { tracker, index })
            });
        }
        let delivery = Delivery { slot, ..Delivery::new(round.outgoing.clone(), reception) };
        if let Err(refused) = self.mail(key, delivery, round.now) {
            match (refused.slot, round.tracker.and_then(|tracker| self.trackers.get_mut(tracker))) {
                (Some(ReceiptSlot::Tracker { index, .. }), Some(tracker)) => {
                    tracker.settle(index, Settled::Final(Status::Overflow));
                }
                _ => self.counters.count_status(Status::Overflow, 1),
            }
        }
    }

    /// Keeps a signal for a recipient that isn't there; where that isn't done, it is this for it.
    fn keep_or(&mut self, round: &Round<'_>, id: &ClientId, status: Status) {
        let group = match &round.signal.target {
            Target::Client(_) => None,
            Target::Group { group, .. } => Some(group),
        };
        if self.is_banned(id.as_str(), group) {
            return self.settle_without_mailbox(round, id, Status::Denied);
        }
        let delivery = Delivery::new(round.outgoing.clone(), Reception::DEVICE);
        if !self.keep_signal(round.signal, delivery, round.tracker, id, None) {
            self.settle_without_mailbox(round, id, status);
        }
    }

    fn settle_without_mailbox(&mut self, round: &Round<'_>, id: &ClientId, status: Status) {
        match round.tracker.and_then(|tracker| self.trackers.get_mut(tracker)) {
            Some(tracker) => tracker.add_final(id.clone(), status),
            None => self.counters.count_status(status, 1),
        }
    }

    /// The receive rules, judged for every delivery by the recipient's shard.
    fn may_receive(&self, signal: &AcceptedSignal, recipient: ConnectionKey) -> bool {
        let object = match &signal.target {
            Target::Client(_) => Object::Client(signal.sender.as_str()),
            Target::Group { group, .. } => Object::Group(group.as_str()),
        };
        self.client_may(recipient, Action::Receive, object)
    }

    /// Clients whose wildcards match and who may observe; not counted in outcomes (T6).
    fn deliver_to_observers(&mut self, round: &Round<'_>) {
        let prefix = &self.session_config.prefix;
        let (short, object) = match &round.signal.target {
            Target::Client(client) => (format!("{prefix}/c/{client}"), Object::Client(client.as_str())),
            Target::Group { group, .. } => (format!("{prefix}/g/{group}"), Object::Group(group.as_str())),
        };
        let long = format!("{short}/{}", round.signal.sender);
        let mut found: Map<ConnectionKey, Reception> = Map::default();
        for (name, with_sender) in [(&long, true), (&short, false)] {
            self.topics.for_each_match(name, &mut |&key, &reception| {
                let wanted = Reception { with_sender, ..reception };
                let kept = found.entry(key).or_insert(wanted);
                kept.qos = kept.qos.max(reception.qos);
            });
        }
        for (key, reception) in found {
            let Some(client) = self.clients.get(key) else { continue };
            let Some(actor) = client.actor() else { continue };
            let own = actor.client == round.signal.sender.as_str();
            if client.considered == self.signals
                || (own && (!round.signal.echo || reception.no_local))
                || !self.may(actor, Action::Observe, object)
            {
                continue;
            }
            let delivery = Delivery { observed: true, ..Delivery::new(round.outgoing.clone(), reception) };
            if let Err(refused) = self.mail(key, delivery, round.now) {
                self.drop_delivery(&refused, Status::Overflow, round.now);
            }
        }
    }

    /// Notes that the client was looked at for the present signal.
    fn consider(&mut self, key: ConnectionKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.considered = self.signals;
        }
    }

    /// Puts a delivery into a mailbox, after what expired there if it is full; or gives it back.
    pub(super) fn mail(
        &mut self,
        key: ConnectionKey,
        delivery: Delivery,
        now: Instant,
    ) -> Result<(), Delivery> {
        if self.lasts(key, &delivery) {
            return self.mail_kept(key, delivery, now);
        }
        let is_pressed = self.is_pressed();
        let Some(client) = self.clients.get_mut(key) else { return Err(delivery) };
        if client.is_absent() {
            self.mail_away(key, delivery, now);
            return Ok(());
        }
        let messages = self.limits.mailbox_messages;
        let bytes = if is_pressed { 0 } else { self.limits.mailbox_bytes };
        if client.mailbox.is_holding()
            && !delivery.outgoing.message.urgent
            && let Some(identity) = &client.identity
        {
            let queue = self.queues.of(identity.as_str()).and_then(|queue| self.queues.get(queue));
            let after = queue.map_or(0, Queue::last);
            if let Err(refused) = client.mailbox.try_push_behind(after, delivery, messages, bytes) {
                self.counters.waiting_full += u64::from(is_pressed);
                return Err(refused);
            }
            self.counters.mailed += 1;
            self.weigh(key);
            return Ok(());
        }
        let size = delivery.size();
        let mut result = client.mailbox.try_push(delivery, messages, bytes);
        if let Err(refused) = result {
            let expired = client.mailbox.take_expired(now);
            result = client.mailbox.try_push(refused, messages, bytes);
            for delivery in expired {
                self.drop_delivery(&delivery, Status::Expired, now);
            }
            self.weigh(key);
            self.counters.waiting_full += u64::from(is_pressed && result.is_err());
            result?;
        } else {
            client.add_weight(size, &mut self.counters.waiting_bytes);
        }
        self.counters.mailed += 1;
        self.mark_dirty(key);
        Ok(())
    }

    /// As much waits in memory as is let: who has nothing that waits is given one message, and nobody more.
    pub(super) fn is_pressed(&self) -> bool {
        self.counters.waiting_bytes > self.most_waiting
    }

    /// Counts what waits for a client anew. To be called after anything that changes it.
    pub(super) fn weigh(&mut self, key: ConnectionKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.weigh(&mut self.counters.waiting_bytes);
        }
    }
}

/// One signal being given to one shard's clients.
struct Round<'a> {
    signal: &'a AcceptedSignal,
    outgoing: Rc<Outgoing>,
    /// Where statuses are noted, if a receipt is asked for.
    tracker: Option<DefaultKey>,
    now: Instant,
}
