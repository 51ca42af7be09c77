//! Messages that last until their recipient has them (S10, and MQTT's QoS 1 and 2 to a session that is kept).
//!
//! The way of one: [`Shard::keep_for`] puts it into the client's queue in the store. Is the client connected and nothing
//! waits before it, it is also put into the mailbox, and goes on from there like any other; it never waits for the disk,
//! but for QoS 2 (see [`super::outbox`]). Else it is fetched when its turn comes: when the client is back, or has taken
//! what was before it. It leaves the queue when it is settled.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use slotmap::DefaultKey;

use super::outbox::AfterCommit;
use super::queues::{Entry, KeptSignal, Place};
use super::records::KeptEntry;
use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::model::{
    ClientId, Delivery, GroupName, Identity, Instant, Message, OfflineFull, Origin, Outgoing, QoS,
    ReceiptSlot, Reception, Settled, Status,
};
use crate::rules::{Action, Object};
use crate::store::{QueuedMessage, Sequence, Stage, StoreOperation};

/// Messages of a queue that are in the mailbox of its connected client at a time.
const WINDOW: usize = 256;
/// Likewise, bytes; one message always is.
const WINDOW_BYTES: usize = 256 * 1024;
/// Messages in a mailbox below which more are fetched.
const LOW: usize = 32;

impl Shard {
    /// Whether a delivery to this client lasts: a plain message that it acknowledges, to a session that the store keeps.
    pub(super) fn lasts(&self, key: ConnectionKey, delivery: &Delivery) -> bool {
        let message = &delivery.outgoing.message;
        matches!(message.origin, Origin::Topic { .. })
            && message.qos.min(delivery.reception.qos) != QoS::AtMostOnce
            && self.clients.get(key).is_some_and(|client| client.stored)
    }

    /// Puts a plain message into the queue of a session that the store keeps, and into the mailbox if it is its turn. What
    /// can't be kept is given back.
    pub(super) fn mail_kept(
        &mut self,
        key: ConnectionKey,
        delivery: Delivery,
        now: Instant,
    ) -> Result<(), Delivery> {
        let Some(identity) = self.clients.get(key).and_then(|client| client.identity.clone()) else {
            return Err(delivery);
        };
        if delivery.is_expired(now) {
            self.drop_delivery(&delivery, Status::Expired, now);
            return Ok(());
        }
        if self.check_store().is_err() {
            // Whoever answers the publisher sees that it wasn't kept.
            self.store.miss();
            return Err(delivery);
        }
        let queue = self.queues.ensure(&identity);
        let bytes = delivery.size();
        let is_full_member =
            delivery.share.is_some() && self.is_connected(key) && !self.takes_kept(key, bytes, true);
        if is_full_member || !self.make_room(key, queue, bytes, now) {
            return Err(delivery);
        }
        self.keep_for(Some(key), queue, delivery, None, None);
        Ok(())
    }

    /// Whether a client's queue has room for one more plain message, after the oldest made some if that is configured.
    fn make_room(&mut self, key: ConnectionKey, queue: DefaultKey, bytes: usize, now: Instant) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        let (messages, max_bytes) = (client.limits.offline_messages, client.limits.offline_bytes);
        let is_away = client.away.is_some();
        let has_room = |shard: &Self| {
            shard.queues.get(queue).is_some_and(|queue| queue.plain().has_room(bytes, messages, max_bytes))
        };
        if has_room(self) {
            return true;
        }
        self.expire_queue(queue, now);
        while !has_room(self) {
            let oldest = match self.limits.offline_full {
                OfflineFull::DropOldest if is_away => {
                    self.queues.get(queue).and_then(|queue| queue.oldest_plain())
                }
                OfflineFull::DropOldest | OfflineFull::RefuseNewest => None,
            };
            let Some(oldest) = oldest else { return false };
            self.end_kept(queue, oldest, Status::Overflow, now);
        }
        true
    }

    /// Puts a message into a client's queue, and into its mailbox if it is connected by `key` and has its turn. `signal`:
    /// what else is known of it, if it is one; `place`: where it is, if it has no turn for sure.
    pub(super) fn keep_for(
        &mut self,
        key: Option<ConnectionKey>,
        queue: DefaultKey,
        delivery: Delivery,
        signal: Option<Box<KeptSignal>>,
        place: Option<Place>,
    ) {
        let Some(kept) = self.queues.get(queue) else { return };
        let bytes = delivery.size();
        let is_shared = delivery.share.is_some();
        // One of a share has no order among the others, and is handed on from the mailbox if this member goes.
        let may_go = place.is_none() && (is_shared || !kept.has_on_disk());
        let turn = key.filter(|&key| may_go && self.takes_kept(key, bytes, is_shared));
        let place = place.unwrap_or(if turn.is_some() { Place::Mailbox } else { Place::Disk });
        let client = kept.client.clone();
        let message = &delivery.outgoing.message;
        let deadline = message.deadline;
        let share = delivery.share.and_then(|share| self.shares.text_of(share));
        let receipt = signal.as_ref().map(|signal| signal.receipt.as_ref());
        let entry = KeptEntry::new(&delivery.reception, share, receipt).to_text();
        let Some(sequence) = self.queues.append(queue, bytes as u32, place, deadline, signal, is_shared)
        else {
            return;
        };
        let number = self.number_outgoing(&delivery.outgoing);
        self.store.push(StoreOperation::Enqueue {
            client,
            sequence: Sequence(sequence),
            message: number,
            entry,
        });
        self.watch_queue(queue, deadline);
        self.count_queues();
        if let Some(key) = turn {
            let slot = Some(ReceiptSlot::Queue { queue, sequence: sequence as u32 });
            self.mail_window(key, sequence, Delivery { slot, ..delivery });
        } else if let Some(key) = key {
            self.load_queue(key);
        }
    }

    /// The number by which the store knows a message, in the batch at hand.
    fn number_outgoing(&mut self, outgoing: &Rc<Outgoing>) -> crate::store::MessageNumber {
        let present = self.store.present();
        if let Some((batch, number)) = outgoing.kept.get()
            && batch == present
        {
            return number;
        }
        let number = self.store.number_message(self.index);
        outgoing.kept.set(Some((present, number)));
        let expires = outgoing.message.deadline.map(|deadline| self.store.wall(deadline));
        let message = outgoing.message.clone();
        self.store.push(StoreOperation::PutMessage { number, message, expires });
        number
    }

    /// Whether one of these bytes goes into the window of a client: it is connected.
    fn takes_kept(&self, key: ConnectionKey, bytes: usize, is_shared: bool) -> bool {
        let is_pressed = self.is_pressed();
        let (messages, max_bytes) = match is_shared {
            true => (self.limits.mailbox_messages, self.limits.mailbox_bytes),
            false => (WINDOW, WINDOW_BYTES),
        };
        self.clients.get(key).is_some_and(|client| {
            client.away.is_none()
                && client.identity.is_some()
                && client.mailbox.len() < messages
                && (client.mailbox.is_empty() || (!is_pressed && client.mailbox.bytes() + bytes <= max_bytes))
        })
    }

    fn mail_window(&mut self, key: ConnectionKey, place: u64, delivery: Delivery) {
        if let Some(client) = self.clients.get_mut(key) {
            client.mailbox.push_kept(place, delivery);
            self.counters.mailed += 1;
            self.weigh(key);
            self.mark_dirty(key);
        }
    }

    /// Asks for more of a client's queue, if it is connected, has little to do, and there is more.
    pub(super) fn load_queue(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get_mut(key).filter(|client| client.away.is_none()) else { return };
        let Some(identity) = &client.identity else { return };
        let queue = self.queues.of(identity.as_str()).and_then(|queue| self.queues.get_mut(queue));
        let Some(queue) = queue else { return };
        let Some(after) = queue.before_disk() else { return };
        client.mailbox.hold();
        if queue.fetching.is_some() || client.mailbox.len() >= LOW {
            return;
        }
        queue.fetching = Some((after, queue.last()));
        let client = queue.client.clone();
        let (messages, bytes) = (WINDOW - LOW, WINDOW_BYTES);
        self.store.push(StoreOperation::Fetch { client, after: Sequence(after), messages, bytes });
    }

    /// The store has found messages; if not `more`, these are all that it has.
    pub(super) fn handle_fetched(
        &mut self,
        client: &Identity,
        messages: Vec<QueuedMessage>,
        more: bool,
        now: Instant,
    ) {
        let Some(key) = self.queues.of(client.as_str()) else { return };
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some((after, last)) = queue.fetching.take() else { return };
        let connection = self.by_identity.get(client).copied();
        if queue.before_disk().is_some_and(|before| before < after) {
            // What was in the mailbox went back when a connection was lost: it has its turn before these.
            return match connection {
                Some(connection) => self.load_queue(connection),
                None => self.hand_on_queue(key),
            };
        }
        let last = match messages.last() {
            Some(found) if more => found.sequence.0,
            _ => last,
        };
        let found: Vec<_> = messages.iter().map(|found| found.sequence.0).collect();
        let lost = queue.places(|entry| {
            let is_asked = entry.place == Place::Disk && (after + 1..=last).contains(&entry.sequence);
            is_asked && found.binary_search(&entry.sequence).is_err()
        });
        for sequence in lost {
            self.counters.queued_lost += 1;
            self.end_kept(key, sequence, Status::Offline, now);
        }
        if connection.is_none() {
            return self.hand_on_fetched(key, messages, now);
        }
        let is_connected =
            |key: &ConnectionKey| self.clients.get(*key).is_some_and(|client| client.away.is_none());
        let Some(connection) = connection.filter(is_connected) else { return };
        for found in messages {
            self.take_fetched(connection, key, found, now);
        }
        self.admit_behind(key);
        self.load_queue(connection);
    }

    /// What came by a share and waited for a member that is no more goes to another one.
    fn hand_on_fetched(&mut self, key: DefaultKey, messages: Vec<QueuedMessage>, now: Instant) {
        for found in messages {
            let kept = KeptEntry::from_text(&found.entry);
            let share = kept.share.as_deref().and_then(|text| self.shares.id_of(text));
            let is_there = |queue: &super::queues::Queue| queue.entry(found.sequence.0).is_some();
            if !self.queues.get(key).is_some_and(is_there) {
                continue;
            }
            if share.is_none() {
                // Nobody is left to whom it could go. Left in the queue, it would be fetched again and again.
                self.end_kept(key, found.sequence.0, Status::Offline, now);
                continue;
            }
            let sequence = found.sequence.0 as u32;
            let deadline = found.expires.map(|wall| self.store.moment(wall));
            let message = Arc::new(Message { deadline, ..Message::clone(&found.message) });
            let slot = Some(ReceiptSlot::Queue { queue: key, sequence });
            let delivery =
                Delivery { slot, share, ..Delivery::new(Outgoing::new(message), kept.reception()) };
            self.hand_on(delivery, now);
        }
        self.hand_on_queue(key);
    }

    /// Fetches what came by shares, for others, from the queue of a client that is no more; the rest is over.
    fn hand_on_queue(&mut self, key: DefaultKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if queue.fetching.is_some() {
            return;
        }
        let Some(after) = queue.before_disk() else { return self.drop_queue(key) };
        queue.fetching = Some((after, queue.last()));
        let client = queue.client.clone();
        let (messages, bytes) = (WINDOW, WINDOW_BYTES);
        self.store.push(StoreOperation::Fetch { client, after: Sequence(after), messages, bytes });
    }

    /// Lets through what waits behind a queue of which nothing more is to be fetched.
    fn admit_behind(&mut self, key: DefaultKey) {
        let Some(queue) = self.queues.get(key).filter(|queue| !queue.has_on_disk()) else { return };
        if let Some(&connection) = self.by_identity.get(&queue.client)
            && let Some(client) = self.clients.get_mut(connection)
        {
            client.mailbox.release();
            self.mark_dirty(connection);
        }
    }

    fn take_fetched(&mut self, key: ConnectionKey, queue: DefaultKey, found: QueuedMessage, now: Instant) {
        let sequence = found.sequence.0;
        let is_wanted = |entry: &Entry| entry.place == Place::Disk;
        if !self.queues.get(queue).and_then(|queue| queue.entry(sequence)).is_some_and(is_wanted) {
            return;
        }
        let deadline = found.expires.map(|wall| self.store.moment(wall));
        let kept = KeptEntry::from_text(&found.entry);
        let message = Message { deadline, ..Message::clone(&found.message) };
        let reception = match self.judge_replay(key, &message, &kept) {
            Replayed::As(reception) => reception,
            Replayed::Later => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.set_place(sequence, Place::Deferred);
                }
                return;
            }
            Replayed::Never(status) => return self.end_kept(queue, sequence, status, now),
        };
        let slot = Some(ReceiptSlot::Queue { queue, sequence: sequence as u32 });
        let share = kept.share.as_deref().and_then(|text| self.shares.id_of(text));
        let outgoing = Outgoing::new(Arc::new(message));
        let delivery = Delivery { slot, share, ..Delivery::new(outgoing, reception) };
        if delivery.is_expired(now) {
            return self.end_kept(queue, sequence, Status::Expired, now);
        }
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.set_place(sequence, Place::Mailbox);
        }
        self.mail_window(key, sequence, delivery);
    }

    /// Lists and rules apply again when a signal is replayed (S10).
    fn judge_replay(&self, key: ConnectionKey, message: &Message, kept: &KeptEntry) -> Replayed {
        let Origin::Signal { sender, group, .. } = &message.origin else {
            return Replayed::As(kept.reception());
        };
        let Some(client) = self.clients.get(key) else { return Replayed::Later };
        let object = match group {
            Some(group) => Object::Group(group.as_str()),
            None => Object::Client(sender.as_str()),
        };
        let reception = self.present_reception(key, message);
        if !self.client_may(key, Action::Receive, object) {
            return Replayed::Never(Status::Denied);
        }
        match (reception, group) {
            (Some(reception), _) => Replayed::As(reception),
            // It may still subscribe.
            (None, None) => Replayed::Later,
            (None, Some(group)) if self.is_provisioned_in(client.client_id.as_ref(), group) => {
                Replayed::Later
            }
            (None, Some(_)) => Replayed::Never(Status::NotMember),
        }
    }

    /// How a client is subscribed to what a signal came by.
    pub(super) fn present_reception(&self, key: ConnectionKey, message: &Message) -> Option<Reception> {
        match &message.origin {
            Origin::Signal { group: Some(group), .. } => {
                self.groups.get(group)?.get(&key).map(|member| member.reception)
            }
            Origin::Signal { group: None, .. } => self.clients.get(key)?.inbox,
            Origin::Topic { .. } => None,
        }
    }

    fn is_provisioned_in(&self, client: Option<&ClientId>, group: &GroupName) -> bool {
        client.is_some_and(|id| self.rules.members(group).is_some_and(|members| members.contains(id)))
    }

    /// What a session has to say of a message that is in a queue.
    pub(super) fn settle_kept(&mut self, key: DefaultKey, sequence: u32, settled: Settled, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let sequence = queue.whole(sequence);
        match settled {
            Settled::Written => queue.set_place(sequence, Place::Client),
            Settled::Taken => {}
            Settled::Received(id) => {
                queue.set_place(sequence, Place::Released);
                let client = queue.client.clone();
                let stage = Stage { packet_id: Some(id), released: true };
                let sequence = Sequence(sequence);
                self.store.push(StoreOperation::SetStage { client: client.clone(), sequence, stage });
                return self.store.after(AfterCommit::Write(client, id));
            }
            // Its connection is lost, or was before it was written: it comes again.
            Settled::Final(Status::Unconfirmed | Status::Offline) => {
                queue.set_place(sequence, Place::Disk);
                let tracker = queue.signal_mut(sequence).and_then(|signal| signal.tracker.take());
                if let Some(slot) = tracker {
                    self.settle_slot(slot, Settled::Final(Status::Queued), now);
                }
                return;
            }
            Settled::Unanswerable => return self.end_kept(key, sequence, Status::Unconfirmed, now),
            Settled::Final(status) => return self.end_kept(key, sequence, status, now),
        }
        if let Some(slot) = self.queues.get_mut(key).and_then(|queue| queue.signal_mut(sequence)?.tracker) {
            self.settle_slot(slot, settled, now);
        }
    }

    /// A message of a queue has been given to its client's session, which knows it by `id`.
    pub(super) fn note_written(
        &mut self,
        key: DefaultKey,
        sequence: u32,
        id: NonZeroU16,
        qos: QoS,
        is_stored: bool,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let sequence = queue.whole(sequence);
        queue.set_place(sequence, Place::Client);
        let client = queue.client.clone();
        if is_stored {
            let stage = Stage { packet_id: Some(id), released: false };
            self.store.push(StoreOperation::SetStage {
                client: client.clone(),
                sequence: Sequence(sequence),
                stage,
            });
        }
        if qos == QoS::ExactlyOnce {
            self.store.after(AfterCommit::Write(client, id));
        }
    }

    /// A message of a queue is done with, by this status.
    pub(super) fn end_kept(&mut self, key: DefaultKey, sequence: u64, status: Status, now: Instant) {
        let Some(queue) = self.queues.get(key) else { return };
        let client = queue.client.clone();
        let Some(entry) = self.queues.remove(key, sequence) else { return };
        self.store.push(StoreOperation::Dequeue { client: client.clone(), sequence: Sequence(sequence) });
        match entry.signal {
            Some(signal) => self.end_kept_signal(&client, *signal, status, now),
            None => self.count_plain(status),
        }
        self.count_queues();
    }

    /// A message is another client's now, and leaves this one's queue without a word.
    pub(super) fn leave_queue(&mut self, key: DefaultKey, sequence: u32) {
        let Some(queue) = self.queues.get(key) else { return };
        let (client, sequence) = (queue.client.clone(), queue.whole(sequence));
        if self.queues.remove(key, sequence).is_some() {
            self.store.push(StoreOperation::Dequeue { client, sequence: Sequence(sequence) });
            self.count_queues();
        }
    }

    /// Takes what has expired out of a queue, and watches for the next.
    pub(super) fn expire_queue(&mut self, key: DefaultKey, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if let Some(at) = queue.timer.take() {
            self.timers.remove(at, Timer::Queue(key));
        }
        let over = queue.places(|entry| entry.expires.is_some_and(|expires| expires <= now));
        for sequence in over {
            let Some(queue) = self.queues.get_mut(key) else { return };
            match queue.entry(sequence).map(|entry| entry.place) {
                // It was written: nobody can say more, and a plain message is the client's to end.
                Some(Place::Client | Place::Released) => {
                    queue.forget_expiry(sequence);
                    self.close_kept_signal(key, sequence, now);
                }
                _ => self.end_kept(key, sequence, Status::Expired, now),
            }
        }
        let next = self.queues.get(key).and_then(|queue| queue.next_expiry());
        self.watch_queue(key, next);
        self.admit_behind(key);
        self.drop_queue(key);
    }

    /// Makes sure that what expires at `at` is looked at then.
    pub(super) fn watch_queue(&mut self, key: DefaultKey, at: Option<Instant>) {
        let (Some(at), Some(queue)) = (at, self.queues.get_mut(key)) else { return };
        if queue.timer.is_none_or(|timer| at < timer) {
            if let Some(later) = queue.timer.replace(at) {
                self.timers.remove(later, Timer::Queue(key));
            }
            self.timers.push(at, Timer::Queue(key));
        }
    }

    /// Forgets a queue that has nothing.
    pub(super) fn drop_queue(&mut self, key: DefaultKey) {
        if let Some(queue) = self.queues.drop_empty(key)
            && let Some(at) = queue.timer
        {
            self.timers.remove(at, Timer::Queue(key));
        }
    }

    /// The connection of a client is over: what was in its mailbox is in its queue alone.
    pub(super) fn unload_queue(&mut self, identity: &Identity, is_lost: impl Fn(Place) -> bool) {
        if let Some(queue) = self.queues.of(identity.as_str()).and_then(|key| self.queues.get_mut(key)) {
            queue.put_back(is_lost);
        }
    }

    /// A subscription of the client's is new: what waited for one is looked at again.
    pub(super) fn recall_deferred(&mut self, key: ConnectionKey) {
        let Some(identity) = self.clients.get(key).and_then(|client| client.identity.clone()) else { return };
        self.unload_queue(&identity, |place| place == Place::Deferred);
        self.load_queue(key);
    }

    /// A client goes on by another protocol: what it didn't acknowledge comes again, and what it has at QoS 2 is done.
    pub(super) fn forget_packets(&mut self, identity: &Identity, now: Instant) {
        let Some(key) = self.queues.of(identity.as_str()) else { return };
        let Some(queue) = self.queues.get_mut(key) else { return };
        let done = queue.places(|entry| entry.place == Place::Released);
        queue.put_back(|place| matches!(place, Place::Mailbox | Place::Client));
        for sequence in done {
            self.end_kept(key, sequence, Status::Delivered, now);
        }
    }

    /// A client's session is over and, if it was `stored`, its plain messages with it. Signals stay where they may (S10).
    pub(super) fn end_queue(&mut self, identity: &Identity, stored: bool, now: Instant) {
        if stored {
            self.store.push(StoreOperation::EndSession { client: identity.clone() });
            self.end_parts(identity);
        }
        self.forget_packets(identity, now);
        let Some(key) = self.queues.of(identity.as_str()) else { return };
        let Some(queue) = self.queues.get(key) else { return };
        let stays = identity.client_id().is_some_and(|id| self.is_provisioned(&id));
        for sequence in queue.places(|entry| !(entry.is_shared || stays && entry.signal.is_some())) {
            self.end_kept(key, sequence, Status::Offline, now);
        }
        if self.queues.get(key).is_some_and(|queue| queue.has_shared()) {
            return self.hand_on_queue(key);
        }
        self.drop_queue(key);
    }

    /// A QoS 2 publish of a queue may go its next step.
    pub(super) fn proceed(&mut self, client: &Identity, id: NonZeroU16) {
        let Some(&key) = self.by_identity.get(client) else { return };
        if let Some(client) = self.clients.get_mut(key) {
            client.session.proceed(id);
            self.mark_dirty(key);
        }
    }

    fn count_plain(&mut self, status: Status) {
        match status {
            Status::Expired => self.counters.publishes_expired += 1,
            Status::Offline => self.counters.publishes_abandoned += 1,
            Status::Overflow => self.counters.publishes_overflowed += 1,
            _ => {}
        }
    }

    pub(super) fn count_queues(&mut self) {
        let all = self.queues.all();
        self.counters.queued_messages = all.messages as u64;
        self.counters.queued_bytes = all.bytes as u64;
    }
}

/// What becomes of a message that is fetched.
enum Replayed {
    As(Reception),
    Later,
    Never(Status),
}
