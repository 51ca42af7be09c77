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

/// A QoS 2 publish that is being given out, of a session that lasts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) publisher: Identity,
    pub(super) id: NonZeroU16,
    fingerprint: u64,
    /// Those that were had, and are noted.
    pub(super) had: Vec<Part>,
    /// Shares of which a member of this shard got it.
    own_shares: Vec<Part>,
    /// All have had theirs, and it is noted as received.
    pub(super) is_received: bool,
    /// Its publisher's session is over: the packet identifier may mean another one.
    is_over: bool,
}

/// Parts of a publish that were had before the gateway stopped, or before it could be kept for all.
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
    /// The beginning of a publish whose parts are to be noted.
    pub(super) fn begin_parts(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        qos: QoS,
    ) -> Option<Box<Parts>> {
        let client = self.clients.get(key).filter(|client| qos == QoS::ExactlyOnce && client.stored)?;
        let publisher = client.identity.clone()?;
        let id = u16::try_from(request.0).ok().and_then(NonZeroU16::new)?;
        Some(Box::new(Parts {
            publisher,
            id,
            fingerprint: 0,
            had: Vec::new(),
            own_shares: Vec::new(),
            is_received: false,
            is_over: false,
        }))
    }

    /// The name of a shard's part. It is no longer one if the number of shards is another.
    fn own_part(&self) -> Part {
        part_of(self.index, self.backbone.shards())
    }

    /// Whether a shard's part is among those that were had.
    pub(super) fn was_had(&self, had: &[Part], shard: ShardIndex) -> bool {
        !had.is_empty() && had.contains(&part_of(shard, self.backbone.shards()))
    }

    /// A member of this shard gets what is for one of a share.
    pub(super) fn expect_own_share(&mut self, publish: AwaitedPublish, share: &str) {
        if publish.received.is_some()
            && let Some(parts) = self.parts_of(publish.key)
        {
            parts.own_shares.push(share.into());
        }
    }

    pub(super) fn parts_of(&mut self, publish: PublishKey) -> Option<&mut Parts> {
        self.publishes.get_mut(publish)?.parts.as_deref_mut()
    }

    fn put_part(&mut self, publisher: &str, id: NonZeroU16, part: &str, fingerprint: u64) {
        self.store.push(StoreOperation::PutRecord {
            kind: RecordKind::Received,
            owner: publisher.into(),
            key: format!("{id} {part}").into(),
            value: fingerprint.to_string(),
            expires: None,
        });
    }

    /// Notes, in the batch at hand, that a part of another shard's publish was had here, if something of it was kept since
    /// `mark`; `share`: by one of these.
    pub(super) fn note_part_since(
        &mut self,
        mark: Mark,
        publish: AwaitedPublish,
        publisher: &str,
        share: Option<&str>,
        message: &MessageView<'_>,
    ) -> Option<Part> {
        let id = publish.received.filter(|_| self.store.since(mark) == Kept::WhenCommitted)?;
        let part = share.map_or_else(|| self.own_part(), Part::from);
        self.put_part(publisher, id, &part, fingerprint_of(message));
        Some(part)
    }

    /// Likewise, of a message that says who published it.
    pub(super) fn note_part_of(
        &mut self,
        mark: Mark,
        publish: AwaitedPublish,
        share: Option<&str>,
        message: &Message,
    ) -> Option<Part> {
        let Origin::Topic { publisher, .. } = &message.origin else { return None };
        self.note_part_since(mark, publish, publisher.as_str(), share, &message.view())
    }

    /// Notes this shard's own parts, if something was kept here: those of others come later.
    pub(super) fn note_own_parts(&mut self, publish: PublishKey, kept: Kept, message: &MessageView<'_>) {
        let own = self.own_part();
        let Some(parts) = self.parts_of(publish) else { return };
        parts.fingerprint = fingerprint_of(message);
        if kept != Kept::WhenCommitted {
            return;
        }
        let noted: Vec<Part> = std::mem::take(&mut parts.own_shares).into_iter().chain([own]).collect();
        parts.had.extend(noted.iter().cloned());
        let (publisher, id, fingerprint) = (parts.publisher.clone(), parts.id, parts.fingerprint);
        for part in noted {
            self.put_part(publisher.as_str(), id, &part, fingerprint);
        }
    }

    /// All have had their parts of a publish: one record says so, and those of the parts go.
    pub(super) fn note_received(&mut self, publish: PublishKey) {
        let Some(parts) = self.parts_of(publish) else { return };
        parts.is_received = true;
        let (had, is_over) = (std::mem::take(&mut parts.had), parts.is_over);
        let (publisher, id) = (parts.publisher.clone(), parts.id);
        self.forget_parts(&publisher, id, &had);
        if !is_over {
            self.store.push(StoreOperation::PutRecord {
                kind: RecordKind::Received,
                owner: publisher.as_str().into(),
                key: id.to_string().into(),
                value: "{}".to_owned(),
                expires: None,
            });
        }
    }

    /// A publish couldn't be kept for all. Is its packet identifier free, its parts mean nothing; else its publisher sends it
    /// again, and they are known then.
    pub(super) fn end_unkept(&mut self, parts: Parts, is_free: bool) {
        let Parts { publisher, id, fingerprint, had, is_over, .. } = parts;
        if is_free || is_over {
            self.forget_parts(&publisher, id, &had);
        } else if !had.is_empty() {
            self.had_parts.entry(publisher).or_default().insert(id, HadParts { fingerprint, parts: had });
        }
    }

    fn forget_parts(&mut self, publisher: &Identity, id: NonZeroU16, had: &[Part]) {
        for part in had {
            self.store.push(StoreOperation::RemoveRecord {
                kind: RecordKind::Received,
                owner: publisher.as_str().into(),
                key: format!("{id} {part}").into(),
            });
        }
    }

    /// The session of a publisher is over, and with it what its packet identifiers meant.
    pub(super) fn end_parts(&mut self, publisher: &Identity) {
        self.had_parts.swap_remove(publisher);
        let parts = self.publishes.values_mut().filter_map(|waiting| waiting.parts.as_deref_mut());
        for parts in parts.filter(|parts| parts.publisher == *publisher) {
            parts.is_over = true;
        }
    }

    /// The publish with this packet identifier that this client's session waits for.
    pub(super) fn waiting_publish(&self, publisher: &Identity, id: NonZeroU16) -> Option<PublishKey> {
        let is_it = |parts: &Parts| parts.id == id && parts.publisher == *publisher && !parts.is_over;
        let mut publishes = self.publishes.iter();
        publishes.find(|(_, waiting)| waiting.parts.as_deref().is_some_and(is_it)).map(|(key, _)| key)
    }

    /// Parts of this publish that were had before. They are forgotten with it.
    #[cold]
    pub(super) fn take_had_parts(&mut self, publish: AwaitedPublish) -> Option<HadParts> {
        let parts = self.publishes.get_mut(publish.key)?.parts.as_deref_mut()?;
        let of_publisher = self.had_parts.get_mut(&parts.publisher)?;
        let had = of_publisher.swap_remove(&parts.id)?;
        if of_publisher.is_empty() {
            self.had_parts.swap_remove(&parts.publisher);
        }
        parts.had.extend(had.parts.iter().cloned());
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
