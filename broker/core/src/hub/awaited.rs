//! Publishes whose acknowledgement waits: until every shard retains them, and until what lasts of them is committed.

use std::num::NonZeroU16;

use super::outbox::{AfterCommit, Kept, Mark};
use super::parts::{AwaitedPublish, Part, Parts};
use super::publish::Published;
use super::{ConnectionKey, PublishKey, Shard};
use crate::model::{Instant, MessageView, QoS, Reason, Refusal, Reply, RequestId};
use crate::session::Session;
use crate::store::{RecordKind, StoreOperation};

/// A publish that isn't acknowledged yet.
pub(super) struct WaitingPublish {
    /// Where its publisher's session began, or the connection on which it was sent again.
    key: ConnectionKey,
    request: RequestId,
    /// How many answers are missing; one more while it is being given out.
    awaited: usize,
    /// Something that should last couldn't be kept.
    failed: bool,
    /// Of QoS 2, to a session that lasts: who has a part in it.
    pub(super) parts: Option<Box<Parts>>,
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
                let parts = self.begin_parts(key, request, qos);
                let received = parts.as_ref().map(|parts| parts.id);
                let key = self.origin(key);
                let waiting = WaitingPublish { key, request, awaited: 1, failed: false, parts };
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
        publish: PublishKey,
        message: &MessageView<'_>,
        mark: Mark,
    ) -> Published {
        let kept = self.store.since(mark);
        let Some(waiting) = self.publishes.get_mut(publish) else { return Published::Done };
        let waits_for_others = waiting.awaited > 1;
        match (kept, waiting.parts.is_some()) {
            (Kept::Not, _) => {
                waiting.failed = true;
                waiting.awaited -= 1;
                self.note_own_parts(publish, kept, message);
            }
            (Kept::Nothing, false) => waiting.awaited -= 1,
            (Kept::WhenCommitted, false) => self.store.after(AfterCommit::Publish(publish)),
            // When the others have answered, all of it is noted as received.
            (_, true) if waits_for_others => {
                waiting.awaited -= 1;
                self.note_own_parts(publish, kept, message);
            }
            (_, true) => {
                self.note_received(publish);
                self.store.after(AfterCommit::Publish(publish));
            }
        }
        match self.publishes.get(publish) {
            Some(waiting) if waiting.awaited == 0 => {
                let (failed, key) = (waiting.failed, waiting.key);
                self.forget_publish(publish, self.frees_identifier(self.current(key)));
                if failed { Published::NotKept } else { Published::Done }
            }
            _ => Published::Waits,
        }
    }

    /// Its publisher is answered at once; answers that may still come find nobody. `is_free`: that frees its packet identifier.
    pub(super) fn forget_publish(&mut self, publish: PublishKey, is_free: bool) {
        let parts = self.publishes.remove(publish).and_then(|waiting| waiting.parts);
        if let Some(parts) = parts.filter(|parts| !parts.is_received) {
            self.end_unkept(*parts, is_free);
        }
    }

    /// One of those who were to answer for a publish has; `part`: what it noted as had.
    pub(super) fn handle_kept(&mut self, publish: PublishKey, kept: bool, part: Option<Part>, now: Instant) {
        let Some(waiting) = self.publishes.get_mut(publish) else { return };
        if let (Some(parts), Some(part)) = (&mut waiting.parts, part) {
            parts.had.push(part);
        }
        waiting.failed |= !kept;
        waiting.awaited -= 1;
        if waiting.awaited > 0 {
            return;
        }
        if !waiting.failed && waiting.parts.as_ref().is_some_and(|parts| !parts.is_received) {
            waiting.awaited = 1;
            self.note_received(publish);
            return self.store.after(AfterCommit::Publish(publish));
        }
        let Some(WaitingPublish { key, request, failed, parts, .. }) = self.publishes.remove(publish) else {
            return;
        };
        let key = self.current(key);
        if !failed {
            return self.reply(key, Reply::Done(request), now);
        }
        if let Some(parts) = parts {
            let is_free = self.frees_identifier(key);
            self.forget_received(&parts);
            self.end_unkept(*parts, is_free);
        }
        self.tell_not_kept(key, request, now);
    }

    /// Whether it is refused on this connection what couldn't be kept, so that the packet identifier is free. Before version 5 the
    /// connection ends instead, and the client sends it again.
    fn frees_identifier(&self, key: ConnectionKey) -> bool {
        let client =
            self.clients.get(key).filter(|client| client.identity.is_some() && client.away.is_none());
        client.is_some_and(|client| match &client.session {
            Session::Mqtt(session) => session.is_expressive() && session.is_open(),
            Session::Device(_) => false,
        })
    }

    /// A session that has lost its connection since no longer takes this publish for taken.
    fn forget_received(&mut self, parts: &Parts) {
        let client = self.by_identity.get(&parts.publisher).and_then(|key| self.clients.get_mut(*key));
        if let Some(Session::Mqtt(session)) = client.map(|client| &mut client.session) {
            session.forget_received(parts.id);
        }
    }

    /// Tells a publisher that something that should last couldn't be kept: it is to publish it again.
    pub(super) fn tell_not_kept(&mut self, key: ConnectionKey, request: RequestId, now: Instant) {
        let text = "the gateway couldn't store it for everyone; send it again";
        let refusal = self.check_store().err().unwrap_or_else(|| Refusal::new(Reason::Busy, text));
        self.counters.count_refusal(refusal.reason);
        self.reply(key, Reply::NotKept(request, refusal), now);
    }

    /// A client sends a QoS 2 publish again of which it wasn't told on the connection before.
    pub(super) fn confirm_publish(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        id: NonZeroU16,
        now: Instant,
    ) {
        let identity = self.clients.get(key).and_then(|client| client.identity.clone());
        let origin = self.origin(key);
        let publish = identity.and_then(|identity| self.waiting_publish(&identity, id));
        if let Some(waiting) = publish.and_then(|publish| self.publishes.get_mut(publish)) {
            (waiting.key, waiting.request) = (origin, request);
        } else if !self.ask_again(key, request) {
            self.reply_when_kept(key, Reply::Done(request), now);
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
