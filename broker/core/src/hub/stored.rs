//! Signals that wait for recipients who aren't there (S10), and the second receipt that ends them (S8).
//!
//! A send with `store` is kept for each recipient that has a session in the store or is provisioned, whether it is
//! connected or not; the sender's acknowledgement waits until that is committed. Whoever is connected gets it at once.
//! For the others the first receipt says QUEUED. When a queued one ends, its shard tells the sender's, which keeps count
//! of the send and, when all have ended, tells the sender. That count is written down too: the last receipt comes after a
//! restart as well.

use slotmap::DefaultKey;

use super::outbox::AfterCommit;
use super::queues::{KeptSignal, Place};
use super::records::KeptReceipt;
use super::send::InFlight;
use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::backbone::{AcceptedSignal, Backbone, PeerMessage, owner};
use crate::model::{
    ClientId, Delivery, Identity, Instant, Limits, Map, MessageId, Reason, ReceiptCounts, ReceiptMode,
    ReceiptReport, Reception, Refusal, Reply, RequestId, Signal, Status, Target,
};
use crate::rules::Actor;
use crate::session::Protocol;
use crate::store::{RecordKind, StoreOperation};

use super::receipts::NAMED;

/// Milliseconds after its deadline for which the ends of a stored send are awaited.
const GRACE: u64 = 5_000;

/// Sends of this shard's clients of which some recipients are queued.
#[derive(Debug, Default)]
pub(super) struct StoredSends {
    sends: Map<u64, StoredSend>,
    /// Those that are over, of senders who weren't there to hear it.
    unheard: Map<ClientId, Vec<u64>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct StoredSend {
    pub(super) sender: ClientId,
    /// The connection on which its session began, if that was of this gateway.
    pub(super) origin: Option<ConnectionKey>,
    pub(super) request: RequestId,
    pub(super) id: Option<MessageId>,
    pub(super) target: Target,
    pub(super) mode: ReceiptMode,
    /// Of recipients that have ended.
    pub(super) counts: ReceiptCounts,
    pub(super) entries: Vec<(ClientId, Status)>,
    /// Queued recipients that haven't ended; less than none while ends come before the first receipt.
    pub(super) open: i64,
    /// The sender has had the first receipt.
    pub(super) announced: bool,
    pub(super) ends: Instant,
}

impl Shard {
    /// Whether the operator's file says that this client is a member of something (S2).
    pub(super) fn is_provisioned(&self, client: &ClientId) -> bool {
        !self.rules.groups_of(client).is_empty()
    }

    /// Whether a signal can be stored at all; what can't is refused with this.
    pub(super) fn check_stored(&self, signal: &Signal<'_>) -> Result<(), Refusal> {
        if !signal.options().store {
            return Ok(());
        }
        self.check_store()?;
        if self.stored.sends.len() >= self.limits.stored_signals {
            let text = "too many sends wait for the end of recipients that are queued";
            return Err(Refusal::new(Reason::Busy, text));
        }
        Ok(())
    }

    /// The number by which the ends of a send are told, if it is stored and somebody wants to hear of them.
    pub(super) fn number_stored(&mut self, signal: &Signal<'_>) -> Option<u64> {
        let options = signal.options();
        (options.store && options.receipt != ReceiptMode::None)
            .then(|| self.store.number_message(self.index).0)
    }

    /// Begins to count the ends of a send.
    pub(super) fn begin_stored(
        &mut self,
        number: u64,
        sender: &ClientId,
        (key, request): (ConnectionKey, RequestId),
        signal: &AcceptedSignal,
        id: Option<MessageId>,
        receipt: ReceiptMode,
    ) {
        let ends = signal.message.deadline.unwrap_or(signal.closes) + GRACE;
        let send = StoredSend {
            sender: sender.clone(),
            origin: Some(self.origin(key)),
            request,
            id,
            target: signal.target.clone(),
            mode: receipt,
            counts: ReceiptCounts::default(),
            entries: Vec::new(),
            open: 0,
            announced: false,
            ends,
        };
        self.insert_stored(number, send);
    }

    fn insert_stored(&mut self, number: u64, send: StoredSend) {
        self.timers.push(send.ends, Timer::StoredSend(number));
        self.stored.sends.insert(number, send);
    }

    /// Takes up a send of a gateway that was here before.
    pub(super) fn restore_stored(&mut self, number: u64, send: StoredSend) {
        if send.open <= 0 {
            self.stored.unheard.entry(send.sender.clone()).or_default().push(number);
        }
        self.insert_stored(number, send);
    }

    /// Keeps a signal for a recipient, if it is to be kept and this is one of those for whom that is done. False: it is to
    /// be delivered, or not, like any other.
    pub(super) fn keep_signal(
        &mut self,
        signal: &AcceptedSignal,
        delivery: Delivery,
        tracker: Option<DefaultKey>,
        id: &ClientId,
        connection: Option<(ConnectionKey, Reception)>,
    ) -> bool {
        if !signal.store {
            return false;
        }
        let known = self.by_identity.get(id.as_str()).copied();
        let is_stored = known.and_then(|key| self.clients.get(key)).is_some_and(|client| client.stored);
        if !is_stored && !self.is_provisioned(id) {
            return false;
        }
        let identity = Identity::from(id.clone());
        let queue = self.queues.ensure(&identity);
        let bytes = delivery.size();
        let limits = match known.and_then(|key| self.clients.get(key)) {
            Some(client) => client.limits.clone(),
            // Of one that was never here the id alone is known.
            None => self.limits_of(Actor::anonymous(id.as_str())),
        };
        if !self.has_room_for_signal(queue, bytes, &limits) {
            self.note_end(tracker, id, Status::Overflow);
            self.drop_queue(queue);
            return true;
        }
        let mut kept = KeptSignal { receipt: None, tracker: None };
        kept.receipt = signal.stored_as.map(|number| (signal.sender.clone(), number));
        if let Some(tracker) = tracker.and_then(|key| Some((key, self.trackers.get_mut(key)?))) {
            let (key, tracker) = tracker;
            if connection.is_some() {
                kept.tracker = Some(tracker.add_stored(key, id.clone()));
            } else {
                tracker.add_final(id.clone(), Status::Queued);
            }
        }
        let place = match (connection, known) {
            (Some(_), _) => None,
            // It is connected, and has to subscribe first.
            (None, Some(key)) if self.is_connected(key) => Some(Place::Deferred),
            (None, _) => Some(Place::Disk),
        };
        let key = connection.map(|(key, _)| key);
        self.keep_for(key, queue, delivery, Some(Box::new(kept)), place);
        true
    }

    /// `limits` are the recipient's.
    fn has_room_for_signal(&self, queue: DefaultKey, bytes: usize, limits: &Limits) -> bool {
        let shards = usize::from(self.backbone.shards().max(1));
        let (messages, max_bytes) = (limits.stored_per_client, limits.stored_bytes_per_client);
        let (in_all, bytes_in_all) = (self.limits.stored_signals / shards, self.limits.stored_bytes / shards);
        self.check_store().is_ok()
            && self
                .queues
                .get(queue)
                .is_some_and(|queue| queue.signals().has_room(bytes, messages, max_bytes))
            && self.queues.signals().has_room(bytes, in_all, bytes_in_all)
    }

    fn note_end(&mut self, tracker: Option<DefaultKey>, id: &ClientId, status: Status) {
        match tracker.and_then(|tracker| self.trackers.get_mut(tracker)) {
            Some(tracker) => tracker.add_final(id.clone(), status),
            None => self.counters.count_status(status, 1),
        }
    }

    /// A signal that was kept for a client is done with, by this status.
    pub(super) fn end_kept_signal(
        &mut self,
        client: &Identity,
        signal: KeptSignal,
        status: Status,
        now: Instant,
    ) {
        if let Some(slot) = signal.tracker.filter(|slot| self.is_tracked(*slot)) {
            return self.settle_slot(slot, crate::model::Settled::Final(status), now);
        }
        self.counters.count_status(status, 1);
        let (Some((sender, number)), Some(client)) = (signal.receipt, client.client_id()) else { return };
        let shard = owner(sender.as_str(), self.backbone.shards());
        let then = if shard == self.index {
            AfterCommit::Ended(number, client, status)
        } else {
            AfterCommit::Peer(shard, PeerMessage::Ended { number, client, status })
        };
        self.store.after(then);
    }

    /// Its deadline is over while it is with the client: that may have it or not.
    pub(super) fn close_kept_signal(&mut self, queue: DefaultKey, sequence: u64, now: Instant) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let client = queue.client.clone();
        let Some(signal) = queue.signal_mut(sequence) else { return };
        let closed = KeptSignal { receipt: signal.receipt.take(), tracker: signal.tracker.take() };
        if closed.receipt.is_some() || closed.tracker.is_some() {
            self.end_kept_signal(&client, closed, Status::Unconfirmed, now);
        }
    }

    /// A queued recipient of a send of this shard has ended.
    pub(super) fn handle_ended(&mut self, number: u64, client: ClientId, status: Status, now: Instant) {
        let Some(send) = self.stored.sends.get_mut(&number) else { return };
        send.open -= 1;
        send.counts.add(status, 1);
        if send.mode == ReceiptMode::Each && (status != Status::Delivered || send.entries.len() < NAMED) {
            send.entries.push((client, status));
        }
        self.stored_changed(number, now);
    }

    /// All shards have said what they make of a stored send: gives what its first receipt says, and whether that is only
    /// the first.
    pub(super) fn announce_stored(&mut self, number: Option<u64>, in_flight: &InFlight) -> bool {
        let (counts, entries) = in_flight.outcome();
        let queued = counts.count(Status::Queued);
        let Some(send) = number.and_then(|number| self.stored.sends.get_mut(&number)) else {
            return false;
        };
        send.announced = true;
        send.open += i64::from(queued);
        for &status in Status::ALL.iter().filter(|&&status| status != Status::Queued) {
            send.counts.add(status, counts.count(status));
        }
        send.entries.extend(entries.iter().filter(|(_, status)| *status != Status::Queued).cloned());
        queued > 0
    }

    /// Writes down where a stored send stands, or ends it.
    pub(super) fn stored_changed(&mut self, number: u64, now: Instant) {
        let Some(send) = self.stored.sends.get(&number).filter(|send| send.announced) else { return };
        if send.open <= 0 {
            return self.end_stored(number, now);
        }
        self.note_stored(number);
    }

    fn note_stored(&mut self, number: u64) {
        let Some(send) = self.stored.sends.get(&number) else { return };
        let owner = send.sender.as_str().into();
        let expires = Some(self.store.wall(send.ends));
        let value = serde_json::to_string(&KeptReceipt::new(send)).unwrap_or_default();
        let (kind, key) = (RecordKind::Receipt, number.to_string().into());
        self.store.push(StoreOperation::PutRecord { kind, owner, key, value, expires });
    }

    /// The time of a stored send is over.
    pub(super) fn expire_stored(&mut self, number: u64, now: Instant) {
        if let Some(sender) = self.stored.sends.get(&number).map(|send| send.sender.clone())
            && let Some(unheard) = self.stored.unheard.get_mut(&sender)
            && let Some(at) = unheard.iter().position(|other| *other == number)
        {
            unheard.remove(at);
            self.counters.receipts_abandoned += 1;
            return self.forget_stored(number);
        }
        let Some(send) = self.stored.sends.get_mut(&number) else { return };
        // What was to be heard of them was lost with a gateway that was killed.
        let open = u32::try_from(send.open).unwrap_or(0);
        send.counts.add(Status::Unconfirmed, open);
        (send.open, send.announced) = (0, true);
        self.end_stored(number, now);
        if self.stored.sends.contains_key(&number) {
            self.expire_stored(number, now);
        }
    }

    /// The receipt that ends a send, if its sender is there to hear it; else when it is.
    fn end_stored(&mut self, number: u64, now: Instant) {
        let Some(send) = self.stored.sends.get(&number) else { return };
        let sender = send.sender.clone();
        let key = self.by_identity.get(sender.as_str()).copied();
        let is_there = |key: &ConnectionKey| self.clients.get(*key).is_some_and(|client| !client.is_absent());
        let Some(key) = key.filter(is_there) else {
            let unheard = self.stored.unheard.entry(sender).or_default();
            if !unheard.contains(&number) {
                unheard.push(number);
                self.note_stored(number);
            }
            return;
        };
        // In another session the number of its request means another one: a device can't tell them apart.
        let is_same = send.origin.is_some_and(|origin| self.current(origin) == key);
        let is_device =
            self.clients.get(key).is_some_and(|client| client.session.protocol() == Protocol::Device);
        if is_device && !is_same {
            self.counters.receipts_abandoned += 1;
            return self.forget_stored(number);
        }
        let Some(send) = self.stored.sends.get_mut(&number) else { return };
        let mut entries = std::mem::take(&mut send.entries);
        if send.counts.total() as usize > NAMED {
            entries.retain(|(_, status)| *status != Status::Delivered);
        }
        let report = ReceiptReport {
            request: if is_same { send.request } else { RequestId(0) },
            id: send.id.clone(),
            target: send.target.clone(),
            mode: send.mode,
            interim: false,
            duplicate: false,
            counts: send.counts,
            entries,
        };
        self.forget_stored(number);
        self.reply(key, Reply::Receipt(Box::new(report)), now);
    }

    /// Nobody was queued, so that the first receipt was the last. If nobody heard it, since the connection was lost that it
    /// was for, the sender's session does.
    pub(super) fn drop_stored(&mut self, number: u64, heard: bool, now: Instant) {
        let has_session = |send: &StoredSend| self.by_identity.contains_key(send.sender.as_str());
        if !heard && self.stored.sends.get(&number).is_some_and(has_session) {
            return self.stored_changed(number, now);
        }
        if let Some(send) = self.stored.sends.swap_remove(&number) {
            self.timers.remove(send.ends, Timer::StoredSend(number));
        }
    }

    fn forget_stored(&mut self, number: u64) {
        let Some(send) = self.stored.sends.swap_remove(&number) else { return };
        self.timers.remove(send.ends, Timer::StoredSend(number));
        self.store.push(StoreOperation::RemoveRecord {
            kind: RecordKind::Receipt,
            owner: send.sender.as_str().into(),
            key: number.to_string().into(),
        });
    }

    /// A sender is back: it is told of what ended while it wasn't there.
    pub(super) fn tell_unheard(&mut self, key: ConnectionKey, now: Instant) {
        if self.stored.unheard.is_empty() {
            return;
        }
        let Some(client) = self.clients.get(key).and_then(|client| client.client_id.clone()) else { return };
        for number in self.stored.unheard.swap_remove(&client).unwrap_or_default() {
            self.end_stored(number, now);
        }
    }
}
