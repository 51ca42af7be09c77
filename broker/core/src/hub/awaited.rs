//! Publishes whose acknowledgement waits: until every shard retains them, and until what lasts of them is committed.

use std::num::NonZeroU16;

use super::outbox::{AfterCommit, Kept, Mark};
use super::parts::{AwaitedPublish, Parts};
use super::publish::Published;
use super::{ConnectionKey, PublishKey, Shard};
use crate::model::{Instant, MessageView, QoS, Reason, Refusal, Reply, RequestId};
use crate::store::{RecordKind, StoreOperation};

/// A publish that isn't acknowledged yet.
pub(super) struct WaitingPublish {
    /// Where its publisher's session began.
    pub(super) key: ConnectionKey,
    request: RequestId,
    /// How many answers are missing; one more while it is being given out.
    awaited: usize,
    /// Something that should last couldn't be kept.
    failed: bool,
    /// Of QoS 2: who has a part in it.
    pub(super) parts: Option<Box<Parts>>,
    received: Option<NonZeroU16>,
}

impl Shard {
    /// Begins to wait for what becomes of a publish, if anything may have to be waited for. Null: nothing may.
    pub(super) fn await_publish(
        &mut self,
        waits: Option<(ConnectionKey, RequestId)>,
        qos: QoS,
        retain: bool,
    ) -> AwaitedPublish {
        let may_last = self.store.is_durable() && qos != QoS::AtMostOnce;
        match waits {
            Some((key, request)) if may_last || retain => {
                let received = self.noted_packet_id(key, request, qos);
                let key = self.origin(key);
                let waiting =
                    WaitingPublish { key, request, awaited: 1, failed: false, parts: None, received };
                AwaitedPublish { key: self.publishes.insert(waiting), received }
            }
            _ => AwaitedPublish::default(),
        }
    }

    /// Another shard is to answer for it.
    pub(super) fn await_peer(&mut self, publish: PublishKey) {
        if let Some(waiting) = self.publishes.get_mut(publish) {
            waiting.awaited += 1;
        }
    }

    /// It is given out; what was done since `mark` may have to be committed.
    pub(super) fn publish_given_out(
        &mut self,
        AwaitedPublish { key: publish, received }: AwaitedPublish,
        message: &MessageView<'_>,
        mark: Mark,
    ) -> Published {
        let Some(waiting) = self.publishes.get_mut(publish) else { return Published::Done };
        match (self.store.since(mark), received) {
            (Kept::Not, _) => {
                waiting.failed = true;
                waiting.awaited -= 1;
            }
            (Kept::Nothing, None) => waiting.awaited -= 1,
            (Kept::WhenCommitted, None) => self.store.after(AfterCommit::Publish(publish)),
            // Other shards are to answer: when they have, all of it is noted as received.
            (kept, Some(id)) if waiting.awaited > 1 => {
                waiting.awaited -= 1;
                if kept == Kept::WhenCommitted {
                    self.note_own_parts(publish, id, message);
                }
            }
            (_, Some(id)) => self.note_received(publish, id),
        }
        match self.publishes.get(publish) {
            Some(waiting) if waiting.awaited == 0 => {
                let failed = waiting.failed;
                self.publishes.remove(publish);
                if failed { Published::NotKept } else { Published::Done }
            }
            _ => Published::Waits,
        }
    }

    /// It is refused; answers that may still come find nobody.
    pub(super) fn forget_publish(&mut self, publish: PublishKey) {
        if let Some(id) = self.publishes.get(publish).and_then(|waiting| waiting.received) {
            self.forget_parts_of(publish, id);
        }
        self.publishes.remove(publish);
    }

    /// One of those who were to answer for a publish has.
    pub(super) fn handle_kept(&mut self, publish: PublishKey, kept: bool, now: Instant) {
        let Some(waiting) = self.publishes.get_mut(publish) else { return };
        waiting.failed |= !kept;
        waiting.awaited -= 1;
        if waiting.awaited > 0 {
            return;
        }
        if let Some(id) = waiting.received.take() {
            if !waiting.failed && waiting.parts.is_some() {
                waiting.awaited = 1;
                return self.note_received(publish, id);
            }
            self.forget_parts_of(publish, id);
        }
        let Some(WaitingPublish { key, request, failed, .. }) = self.publishes.remove(publish) else {
            return;
        };
        let key = self.current(key);
        if failed {
            self.tell_not_kept(key, request, now);
        } else {
            self.reply(key, Reply::Done(request), now);
        }
    }

    /// Tells a publisher that something that should last couldn't be kept: it is to publish it again.
    pub(super) fn tell_not_kept(&mut self, key: ConnectionKey, request: RequestId, now: Instant) {
        let text = "the gateway couldn't store it for everyone; send it again";
        let refusal = self.check_store().err().unwrap_or_else(|| Refusal::new(Reason::Busy, text));
        self.counters.count_refusal(refusal.reason);
        self.reply(key, Reply::NotKept(request, refusal), now);
    }

    /// Remembers that a QoS 2 publish was received by all, so that its repetition is none after a restart either. It is
    /// acknowledged when that is committed.
    fn note_received(&mut self, publish: PublishKey, id: NonZeroU16) {
        let Some(waiting) = self.publishes.get_mut(publish) else { return };
        waiting.received = None;
        let origin = waiting.key;
        self.forget_parts_of(publish, id);
        let client = self.clients.get(self.current(origin)).filter(|client| client.stored);
        if let Some(identity) = client.and_then(|client| client.identity.clone()) {
            self.store.push(StoreOperation::PutRecord {
                kind: RecordKind::Received,
                owner: identity.as_str().into(),
                key: id.to_string().into(),
                value: "{}".to_owned(),
                expires: None,
            });
        }
        self.store.after(AfterCommit::Publish(publish));
    }

    fn forget_parts_of(&mut self, publish: PublishKey, id: NonZeroU16) {
        if let Some(parts) = self.publishes.get_mut(publish).and_then(|waiting| waiting.parts.take()) {
            self.forget_parts(id, &parts);
        }
    }

    /// A client releases the packet identifier of a QoS 2 publish.
    pub(super) fn release(&mut self, key: ConnectionKey, id: NonZeroU16, now: Instant) {
        let owner = self.clients.get(key).and_then(|client| client.identity.clone());
        if let Some(owner) = owner {
            self.store.push(StoreOperation::RemoveRecord {
                kind: RecordKind::Received,
                owner: owner.as_str().into(),
                key: id.to_string().into(),
            });
        }
        self.reply_when_kept(key, Reply::Released(id), now);
    }
}
