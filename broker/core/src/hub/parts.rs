//! QoS 2 publishes in which several shards have a part: once to each over a crash as well [MQTT-4.3.3-10].
//!
//! Every shard commits what its clients are to get in a batch of its own. A gateway that is killed between two of them has
//! kept the message for some and not for others, and its publisher sends it again. So each shard notes in the same batch that
//! it had its part, and a message that comes again goes to the others only. When all have had theirs, one record
//! says that it was received, and those of the parts go.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU16;

use super::outbox::{Kept, Mark};
use super::{ConnectionKey, PublishKey, Shard};
use crate::backbone::{Backbone, ShardIndex};
use crate::model::{Identity, Message, MessageView, Origin, OriginView, QoS, RequestId};
use crate::store::{RecordKind, StoreOperation};

/// Who waits for what becomes of a publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AwaitedPublish {
    /// The publish, on its publisher's shard; null: nobody waits.
    pub key: PublishKey,
    /// Its packet identifier, if it is of QoS 2 and its publisher's session lasts: a part in it is to be noted.
    pub received: Option<NonZeroU16>,
}

/// Whose part it is: a shard's for its subscribers, or a share's, which one of many shards has.
pub(super) type Part = Box<str>;

/// The parts of a publish that is being given out.
#[derive(Debug)]
pub(super) struct Parts {
    publisher: Identity,
    /// Those that are noted, or may be.
    all: Vec<Part>,
    /// Shares of which a member of this shard got it.
    own_shares: Vec<Part>,
}

/// Parts of a publish that were had before the gateway stopped.
#[derive(Debug, Default)]
pub(super) struct HadParts {
    /// Tells it from another one that has its packet identifier.
    fingerprint: u64,
    parts: Vec<Part>,
}

impl HadParts {
    /// The parts, if they are of this message.
    pub(super) fn of(&self, message: &MessageView<'_>) -> &[Part] {
        if self.fingerprint == fingerprint_of(message) { &self.parts } else { &[] }
    }
}

impl Shard {
    /// The packet identifier of a publish whose parts are to be noted.
    pub(super) fn noted_packet_id(
        &self,
        key: ConnectionKey,
        request: RequestId,
        qos: QoS,
    ) -> Option<NonZeroU16> {
        let lasts = qos == QoS::ExactlyOnce && self.clients.get(key).is_some_and(|client| client.stored);
        lasts.then(|| u16::try_from(request.0).ok().and_then(NonZeroU16::new)).flatten()
    }

    /// The name of a shard's part. It is no longer one if the number of shards is another.
    pub(super) fn part_of(&self, shard: ShardIndex) -> Part {
        part_of(shard, self.backbone.shards())
    }

    /// Whether this shard's part is among those that were had.
    pub(super) fn was_had(&self, had: &[Part], shard: ShardIndex) -> bool {
        !had.is_empty() && had.contains(&self.part_of(shard))
    }

    /// What another shard, or a share, is to note of a publish.
    pub(super) fn expect_part(&mut self, publish: AwaitedPublish, part: impl FnOnce(&Self) -> Part) {
        if publish.received.is_some() {
            let part = part(self);
            if let Some(parts) = self.parts_of(publish.key) {
                parts.all.push(part);
            }
        }
    }

    /// A member of this shard gets what is for one of a share.
    pub(super) fn expect_own_share(&mut self, publish: AwaitedPublish, share: &str) {
        if publish.received.is_some()
            && let Some(parts) = self.parts_of(publish.key)
        {
            parts.own_shares.push(share.into());
        }
    }

    fn parts_of(&mut self, publish: PublishKey) -> Option<&mut Parts> {
        let publisher = self.publisher_of(publish)?;
        let waiting = self.publishes.get_mut(publish)?;
        let none = || Box::new(Parts { publisher, all: Vec::new(), own_shares: Vec::new() });
        Some(waiting.parts.get_or_insert_with(none))
    }

    fn publisher_of(&self, publish: PublishKey) -> Option<Identity> {
        let origin = self.publishes.get(publish)?.key;
        self.clients.get(self.current(origin))?.identity.clone()
    }

    /// Notes, in the batch at hand, that a part of a publish was had here.
    pub(super) fn note_part(
        &mut self,
        publisher: &str,
        id: NonZeroU16,
        part: &str,
        message: &MessageView<'_>,
    ) {
        self.store.push(StoreOperation::PutRecord {
            kind: RecordKind::Received,
            owner: publisher.into(),
            key: format!("{id} {part}").into(),
            value: fingerprint_of(message).to_string(),
            expires: None,
        });
    }

    /// Likewise, where something of a publish of another shard's was kept here; `share`: for one of these.
    pub(super) fn note_part_since(
        &mut self,
        mark: Mark,
        publish: AwaitedPublish,
        publisher: &str,
        share: Option<&str>,
        message: &MessageView<'_>,
    ) {
        let Some(id) = publish.received else { return };
        if self.store.since(mark) == Kept::WhenCommitted {
            let part = share.map_or_else(|| self.part_of(self.index), Part::from);
            self.note_part(publisher, id, &part, message);
        }
    }

    /// Likewise, of a message that says who published it.
    pub(super) fn note_part_of(
        &mut self,
        mark: Mark,
        publish: AwaitedPublish,
        share: Option<&str>,
        message: &Message,
    ) {
        if let Origin::Topic { publisher, .. } = &message.origin {
            self.note_part_since(mark, publish, publisher.as_str(), share, &message.view());
        }
    }

    /// Notes this shard's own parts: those of others come later.
    pub(super) fn note_own_parts(&mut self, publish: PublishKey, id: NonZeroU16, message: &MessageView<'_>) {
        let own = self.part_of(self.index);
        let Some(parts) = self.parts_of(publish) else { return };
        let noted: Vec<Part> = std::mem::take(&mut parts.own_shares).into_iter().chain([own]).collect();
        parts.all.extend(noted.iter().cloned());
        let publisher = parts.publisher.clone();
        for part in noted {
            self.note_part(publisher.as_str(), id, &part, message);
        }
    }

    /// What was noted of parts is no longer needed.
    pub(super) fn forget_parts(&mut self, id: NonZeroU16, parts: &Parts) {
        for part in &parts.all {
            self.store.push(StoreOperation::RemoveRecord {
                kind: RecordKind::Received,
                owner: parts.publisher.as_str().into(),
                key: format!("{id} {part}").into(),
            });
        }
    }

    /// Parts of this publish that were had before the gateway was started. They are forgotten with it.
    #[cold]
    pub(super) fn take_had_parts(&mut self, publish: AwaitedPublish) -> Option<HadParts> {
        let id = publish.received?;
        let publisher = self.publisher_of(publish.key)?;
        let of_publisher = self.had_parts.get_mut(&publisher)?;
        let had = of_publisher.swap_remove(&id)?;
        if of_publisher.is_empty() {
            self.had_parts.swap_remove(&publisher);
        }
        if let Some(parts) = self.parts_of(publish.key) {
            parts.all.extend(had.parts.iter().cloned());
        }
        Some(had)
    }

    /// A part that was noted before the gateway was started.
    pub(super) fn restore_part(&mut self, publisher: &str, id: &str, part: &str, value: &str) -> Option<()> {
        let id: NonZeroU16 = id.parse().ok()?;
        let of_publisher = self.had_parts.entry(Identity::new(publisher)).or_default();
        let had = of_publisher.entry(id).or_default();
        had.fingerprint = value.parse().ok()?;
        had.parts.push(part.into());
        Some(())
    }
}

/// The part of one of so many shards.
pub(super) fn part_of(shard: ShardIndex, shards: u16) -> Part {
    format!("{shard}/{shards}").into()
}

fn fingerprint_of(message: &MessageView<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let OriginView::Topic { topic, retain } = message.origin {
        (topic, retain).hash(&mut hasher);
    }
    message.payload.hash(&mut hasher);
    hasher.finish()
}
