//! Sessions that the store keeps: what is written down of them, and how they are there again after a restart.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use super::away::Away;
use super::queues::{Entry, KeptSignal, Place};
use super::records::{self, KeptEntry, KeptReceipt, KeptSessionRecord, KeptSubscription};
use super::{Client, ConnectionKey, Shard, SubscribeKey};
use crate::model::{
    ClientId, Delivery, Filter, Identity, Instant, Message, NEVER_EXPIRES, Outgoing, ReceiptSlot,
    SubscribeItem,
};
use crate::session::{Protocol, Session};
use crate::store::{QueuedMessage, RecordKind, Restored, StoreOperation};

impl Shard {
    /// Writes down that a session is kept, if it is one that outlives its connection; `ends`: its client is away, and then
    /// it is over.
    pub(super) fn store_session(&mut self, key: ConnectionKey, ends: Option<Instant>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(identity) = &client.identity else { return };
        let is_kept =
            client.session_expiry > 0 && client.session.protocol() == Protocol::Mqtt && !client.foreign;
        client.stored |= is_kept && self.store.is_durable();
        if !client.stored {
            return;
        }
        let ends = ends.map(|ends| self.store.wall(ends));
        let record = KeptSessionRecord::new(client.session_expiry, ends, client.principal.as_deref());
        let owner = identity.as_str().into();
        self.put_record(RecordKind::Session, owner, "".into(), &record);
    }

    /// Writes a subscription of such a session down.
    pub(super) fn store_subscription(&mut self, key: ConnectionKey, item: &SubscribeItem) {
        let Some(client) = self.clients.get(key).filter(|client| client.stored) else { return };
        let Some(identity) = &client.identity else { return };
        let owner = identity.as_str().into();
        let kept = KeptSubscription::new(&item.reception, item.forms);
        self.put_record(RecordKind::Subscription, owner, records::subscription_key(&item.filter), &kept);
    }

    /// Such a subscription is over.
    pub(super) fn unstore_subscription(&mut self, key: ConnectionKey, filter: &Filter) {
        let Some(client) = self.clients.get(key).filter(|client| client.stored) else { return };
        let Some(identity) = &client.identity else { return };
        self.store.push(StoreOperation::RemoveRecord {
            kind: RecordKind::Subscription,
            owner: identity.as_str().into(),
            key: records::subscription_key(filter),
        });
    }

    fn put_record(
        &mut self,
        kind: RecordKind,
        owner: Arc<str>,
        key: Arc<str>,
        value: &impl serde::Serialize,
    ) {
        // Nothing in these can't be written.
        let value = serde_json::to_string(value).unwrap_or_default();
        self.store.push(StoreOperation::PutRecord { kind, owner, key, value, expires: None });
    }

    pub(super) fn restore(&mut self, restored: Restored, now: Instant) {
        match restored {
            Restored::Record { kind, owner, key, value, expires } => {
                let expires = expires.map_or(now, |wall| self.store.moment(wall));
                self.restore_record(kind, &owner, &key, &value, expires, now);
            }
            Restored::Queued { sequence, .. } if !sequence.is_valid() => self.counters.records_unread += 1,
            Restored::InFlight { message, .. } if !message.sequence.is_valid() => {
                self.counters.records_unread += 1;
            }
            Restored::Queued { client, sequence, bytes, expires, entry } => {
                let queue = self.queues.ensure(&client);
                let expires = expires.map(|wall| self.store.moment(wall));
                let kept = KeptEntry::from_text(&entry);
                let signal =
                    kept.signal.then(|| Box::new(KeptSignal { receipt: kept.receipt(), tracker: None }));
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                let (sequence, place, is_shared) = (sequence.0, Place::Disk, kept.share.is_some());
                let entry = Entry { sequence, bytes, place, expires, is_shared, signal };
                self.queues.insert(queue, entry);
                self.watch_queue(queue, expires);
                self.count_queues();
            }
            Restored::InFlight { client, message } => self.restore_in_flight(&client, message),
            Restored::Retained { version, message, expires } => {
                let deadline = expires.map(|wall| self.store.moment(wall));
                let message = Arc::new(Message { deadline, ..Message::clone(&message) });
                self.restore_retained(&message, version, now);
            }
            Restored::End { next_message } => self.store.set_next_message(next_message),
        }
    }

    fn restore_record(
        &mut self,
        kind: RecordKind,
        owner: &str,
        key: &str,
        value: &str,
        expires: Instant,
        now: Instant,
    ) {
        let restored = match kind {
            RecordKind::Session => self.restore_session(owner, value, now),
            RecordKind::Subscription => self.restore_subscription(owner, key, value),
            RecordKind::Received => match key.split_once(' ') {
                Some((id, part)) => self.restore_part(owner, id, part, value),
                None => self.restore_received(owner, key),
            },
            RecordKind::MessageId => match serde_json::from_str(value) {
                Ok(kept) => self.restore_message_id(owner, key, &kept, expires),
                Err(_) => None,
            },
            RecordKind::Receipt => self.restore_receipt(owner, key, value, expires),
            RecordKind::Moderation => self.restore_moderation(owner, key, value),
        };
        if restored.is_none() {
            self.counters.records_unread += 1;
        }
    }

    /// None: it can't be read.
    fn restore_session(&mut self, owner: &str, value: &str, now: Instant) -> Option<()> {
        let record: KeptSessionRecord = serde_json::from_str(value).ok()?;
        let identity = Identity::new(owner);
        let session = Session::away(self.session_config.clone(), None, now);
        let mut client = Client::new(session, self.limits.clone());
        client.client_id = identity.client_id();
        client.identity = Some(identity.clone());
        client.principal = record.principal().map(Arc::new);
        client.session_expiry = record.expiry;
        client.stored = true;
        let ends = match record.ends {
            Some(ends) => Some(self.store.moment(crate::store::WallTime(ends))),
            // Its client was connected when the gateway stopped.
            None => (record.expiry != NEVER_EXPIRES).then(|| now + u64::from(record.expiry) * 1000),
        };
        client.away = Some(Box::new(Away::restored(ends)));
        if let Some(limits) = client.actor().map(|actor| self.limits_of(actor)) {
            client.limits = limits;
        }
        let key = self.clients.insert(client);
        self.by_identity.insert(identity, key);
        self.counters.sessions_away += 1;
        self.schedule(key);
        Some(())
    }

    fn restored_client(&self, owner: &str) -> Option<ConnectionKey> {
        self.by_identity.get(owner).copied()
    }

    fn restore_subscription(&mut self, owner: &str, key: &str, value: &str) -> Option<()> {
        let filter = records::subscription_of(key)?;
        let kept: KeptSubscription = serde_json::from_str(value).ok()?;
        let key = self.restored_client(owner)?;
        let reception = kept.reception();
        if let Session::Mqtt(session) = &mut self.clients.get_mut(key)?.session {
            session.adopt_place(filter.clone(), reception, kept.forms);
        }
        match filter {
            Filter::Inbox => self.clients.get_mut(key)?.inbox = Some(reception),
            Filter::Notices => {}
            Filter::Group(group) => self.add_member(key, group, reception, SubscribeKey::default()),
            Filter::Topic(filter) => self.add_filter(key, filter, reception, SubscribeKey::default()),
        }
        Some(())
    }

    fn restore_received(&mut self, owner: &str, key: &str) -> Option<()> {
        let id: NonZeroU16 = key.parse().ok()?;
        let client = self.restored_client(owner)?;
        if let Session::Mqtt(session) = &mut self.clients.get_mut(client)?.session {
            session.restore_received(id);
        }
        Some(())
    }

    fn restore_receipt(&mut self, owner: &str, key: &str, value: &str, ends: Instant) -> Option<()> {
        let kept: KeptReceipt = serde_json::from_str(value).ok()?;
        let number = key.parse().ok()?;
        let send = kept.send(ClientId::new(owner)?, ends)?;
        self.restore_stored(number, send);
        Some(())
    }

    /// A message that was on its way is so again, by the same packet identifier.
    fn restore_in_flight(&mut self, client: &Identity, found: QueuedMessage) {
        let queue = self.queues.ensure(client);
        let kept = KeptEntry::from_text(&found.entry);
        let expires = found.expires.map(|wall| self.store.moment(wall));
        let message = Arc::new(Message { deadline: expires, ..Message::clone(&found.message) });
        let outgoing: Rc<Outgoing> = Outgoing::new(message);
        let share = kept.share.as_deref().and_then(|text| self.shares.id_of(text));
        let sequence = found.sequence.0;
        let slot = Some(ReceiptSlot::Queue { queue, sequence: sequence as u32 });
        // It was written as the client is subscribed, which may be otherwise than when it was kept.
        let key = self.by_identity.get(client).copied();
        let present = key.and_then(|key| self.present_reception(key, &outgoing.message));
        let delivery =
            Delivery { slot, share, ..Delivery::new(outgoing, present.unwrap_or(kept.reception())) };
        let (bytes, is_shared) = (delivery.size() as u32, kept.share.is_some());
        let signal = kept.signal.then(|| Box::new(KeptSignal { receipt: kept.receipt(), tracker: None }));
        let session = self.by_identity.get(client).copied().and_then(|key| self.clients.get_mut(key));
        let place = match (session.map(|client| &mut client.session), found.stage.packet_id) {
            (Some(Session::Mqtt(session)), Some(id)) => {
                session.restore_in_flight(id, delivery, found.stage.released);
                if found.stage.released { Place::Released } else { Place::Client }
            }
            _ => Place::Disk,
        };
        if let Some(key) = key {
            self.weigh(key);
        }
        self.queues.insert(queue, Entry { sequence, bytes, place, expires, is_shared, signal });
        self.watch_queue(queue, expires);
        self.count_queues();
    }
}
