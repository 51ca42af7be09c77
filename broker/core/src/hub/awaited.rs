//! Publishes whose acknowledgement waits: until every shard retains them, and until what lasts of them is committed.

use super::outbox::{AfterCommit, Kept, Mark};
use super::publish::Published;
use super::{ConnectionKey, PublishKey, Shard};
use crate::model::{Instant, QoS, Reason, Refusal, Reply, RequestId};
use crate::store::{RecordKind, StoreOperation};

/// A publish that isn't acknowledged yet.
pub(super) struct WaitingPublish {
    /// Where its publisher's session began.
    key: ConnectionKey,
    request: RequestId,
    /// How many answers are missing; one more while it is being given out.
    awaited: usize,
    /// Something that should last couldn't be kept.
    failed: bool,
}

impl Shard {
    /// Begins to wait for what becomes of a publish, if anything may have to be waited for. Null: nothing may.
    pub(super) fn await_publish(
        &mut self,
        waits: Option<(ConnectionKey, RequestId)>,
        qos: QoS,
        retain: bool,
    ) -> PublishKey {
        let may_last = self.store.is_durable() && qos != QoS::AtMostOnce;
        match waits {
            Some((key, request)) if may_last || retain => {
                let key = self.origin(key);
                self.publishes.insert(WaitingPublish { key, request, awaited: 1, failed: false })
            }
            _ => PublishKey::default(),
        }
    }

    /// Another shard is to answer for it.
    pub(super) fn await_peer(&mut self, publish: PublishKey) {
        if let Some(waiting) = self.publishes.get_mut(publish) {
            waiting.awaited += 1;
        }
    }

    /// It is given out; what was done since `mark` may have to be committed.
    pub(super) fn publish_given_out(&mut self, publish: PublishKey, qos: QoS, mark: Mark) -> Published {
        let Some(waiting) = self.publishes.get_mut(publish) else { return Published::Done };
        match self.store.since(mark) {
            Kept::Nothing if qos != QoS::ExactlyOnce => waiting.awaited -= 1,
            Kept::Not => {
                waiting.failed = true;
                waiting.awaited -= 1;
            }
            Kept::Nothing | Kept::WhenCommitted => {
                let (key, request) = (waiting.key, waiting.request);
                self.note_received(key, request, qos);
                if self.store.since(mark) == Kept::Nothing {
                    self.lower(publish);
                } else {
                    self.store.after(AfterCommit::Publish(publish));
                }
            }
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

    fn lower(&mut self, publish: PublishKey) {
        if let Some(waiting) = self.publishes.get_mut(publish) {
            waiting.awaited -= 1;
        }
    }

    /// It is refused; answers that may still come find nobody.
    pub(super) fn forget_publish(&mut self, publish: PublishKey) {
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

    /// Remembers that a QoS 2 publish was taken, so that its repetition is none after a restart either.
    fn note_received(&mut self, key: ConnectionKey, request: RequestId, qos: QoS) {
        let Some(client) = self.clients.get(self.current(key)) else { return };
        let (Some(identity), true, QoS::ExactlyOnce) = (&client.identity, client.stored, qos) else { return };
        self.store.push(StoreOperation::PutRecord {
            kind: RecordKind::Received,
            owner: identity.as_str().into(),
            key: request.0.to_string().into(),
            value: "{}".to_owned(),
            expires: None,
        });
    }

    /// A client releases the packet identifier of a QoS 2 publish.
    pub(super) fn release(&mut self, key: ConnectionKey, id: std::num::NonZeroU16, now: Instant) {
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
