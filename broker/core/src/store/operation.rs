//! What a shard asks of the durable store, what it hears back, and what it finds there at the start.
//!
//! The store keeps two kinds of things. **Records** are small: a kind, an owner, a key, and a value that is JSON
//! of the hub's making, so that the store needs to know nothing of sessions or rules. **Messages** are kept once,
//! however many wait for them: retained, or in **queues**, one per client, in order.
//!
//! Nothing here waits. Operations leave a shard in batches ([`StoreBatch`]); the store applies them in their
//! order and says how far it has come ([`StoreEvent::Committed`]): only then is an acknowledgement sent that
//! promises durability.

use std::sync::Arc;

use crate::backbone::{RetainedVersion, ShardIndex};
use crate::model::{Identity, Message};

/// A moment of the wall clock, in milliseconds since 1970: what is kept outlives the gateway's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

/// The number of a batch of one shard, in the order given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// The number of a kept message, unique in a store for as long as the message is in it: a counter of the shard's
/// times 1024, plus the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(pub u64);

impl MessageNumber {
    /// The message that shard `shard` (less than 1024) counts as `count` (less than 2^53).
    pub fn new(count: u64, shard: ShardIndex) -> Self {
        Self(count * 1024 + u64::from(shard % 1024))
    }

    /// The counter in it.
    pub fn count(self) -> u64 {
        self.0 / 1024
    }
}

/// The place of a message in a client's queue, from 1, rising, unique per client for as long as its queue is kept. 0 is
/// no place: the message isn't in a queue of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// No place.
    pub const NONE: Self = Self(0);

    /// Whether it is a place.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Whether it is one that a queue can have, with more behind it.
    pub fn is_valid(self) -> bool {
        (1..u64::MAX / 2).contains(&self.0)
    }
}

/// What a record is about. Its name is what the store's table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A persistent session: owner the client, key empty. Ends with its session, as the next two do.
    Session,
    /// A subscription or membership of it: owner the client, key the filter.
    Subscription,
    /// The packet identifier of a QoS 2 publish that was received and not released: owner the client.
    Received,
    /// A message id of S12 and its outcome: owner the sender, key the id. Has an expiry.
    MessageId,
    /// A send whose receipt is to be ended by a second one (S10): owner the sender.
    Receipt,
    /// A kick, mute or ban (S14): owner the client, key the group or empty for everywhere.
    Moderation,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Session, Self::Subscription, Self::Received, Self::MessageId, Self::Receipt, Self::Moderation];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Subscription => "subscription",
            Self::Received => "received",
            Self::MessageId => "message_id",
            Self::Receipt => "receipt",
            Self::Moderation => "moderation",
        }
    }

    /// Whether [`StoreOperation::EndSession`] removes it.
    pub fn ends_with_session(self) -> bool {
        matches!(self, Self::Session | Self::Subscription | Self::Received)
    }
}

/// Where a queued message stands with its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stage {
    /// The packet identifier under which it was written; none: it wasn't.
    pub packet_id: Option<std::num::NonZeroU16>,
    /// The client has a QoS 2 message: only PUBREL is to be repeated.
    pub released: bool,
}

/// One change, or a question.
#[derive(Clone, Debug)]
pub enum StoreOperation {
    /// Adds or replaces a record.
    PutRecord {
        /// What it is about.
        kind: RecordKind,
        /// Whose.
        owner: Arc<str>,
        /// Which of the owner's.
        key: Arc<str>,
        /// JSON of the hub's making.
        value: String,
        /// After that moment it may be forgotten.
        expires: Option<WallTime>,
    },
    /// Removes a record; one that isn't there is no error.
    RemoveRecord {
        /// What it is about.
        kind: RecordKind,
        /// Whose.
        owner: Arc<str>,
        /// Which of the owner's.
        key: Arc<str>,
    },
    /// Removes the records of a client's session, its subscriptions and received identifiers. What was queued for it is
    /// dequeued by operations of its own, since signals may be kept for a client without a session (S10).
    EndSession {
        /// Whose.
        client: Identity,
    },
    /// Keeps a message that the next operations queue. It goes when the last of them is done.
    PutMessage {
        /// Its number.
        number: MessageNumber,
        /// The message; its own deadline is the gateway's clock and isn't kept.
        message: Arc<Message>,
        /// Its deadline.
        expires: Option<WallTime>,
    },
    /// Appends a message to a client's queue.
    Enqueue {
        /// Whose.
        client: Identity,
        /// Its place.
        sequence: Sequence,
        /// Which message.
        message: MessageNumber,
        /// JSON of the hub's making: how the client wants it, and who waits to hear of it.
        entry: String,
    },
    /// Notes where a queued message stands. One that isn't there is no error.
    SetStage {
        /// Whose.
        client: Identity,
        /// Its place.
        sequence: Sequence,
        /// Where it stands.
        stage: Stage,
    },
    /// Takes a message out of a client's queue: done, dropped or past its deadline. One that isn't there is no error.
    Dequeue {
        /// Whose.
        client: Identity,
        /// Its place.
        sequence: Sequence,
    },
    /// Keeps the retained message of a topic, unless a newer version is there.
    PutRetained {
        /// The topic.
        topic: Arc<str>,
        /// What settles which of two stays.
        version: RetainedVersion,
        /// The message; its own deadline is the gateway's clock and isn't kept.
        message: Arc<Message>,
        /// Its deadline.
        expires: Option<WallTime>,
    },
    /// Clears the retained message of a topic, unless a newer version is there.
    RemoveRetained {
        /// The topic.
        topic: Arc<str>,
        /// What settles which of two stays.
        version: RetainedVersion,
    },
    /// Asks for messages of a client's queue, answered by [`StoreEvent::Fetched`] as of this moment in the order of
    /// operations.
    Fetch {
        /// Whose.
        client: Identity,
        /// Those after this place.
        after: Sequence,
        /// At most so many.
        messages: usize,
        /// As long as their payloads and properties have no more bytes, but at least one.
        bytes: usize,
    },
}

/// Operations of one wake-up of a shard, to be applied together and in order.
#[derive(Debug, Default)]
pub struct StoreBatch {
    /// Its number.
    pub number: BatchNumber,
    /// In this order.
    pub operations: Vec<StoreOperation>,
    /// About how many bytes it holds.
    pub bytes: usize,
}

/// A message of a client's queue.
#[derive(Clone, Debug)]
pub struct QueuedMessage {
    /// Its place.
    pub sequence: Sequence,
    /// Which message; those of one store with the same number are the same.
    pub number: MessageNumber,
    /// The message, without a deadline.
    pub message: Arc<Message>,
    /// Its deadline.
    pub expires: Option<WallTime>,
    /// As it was given.
    pub entry: String,
    /// Where it stands.
    pub stage: Stage,
}

/// What a shard hears from the store.
#[derive(Debug)]
pub enum StoreEvent {
    /// All batches of this shard up to this one last.
    Committed(BatchNumber),
    /// The answer to a [`StoreOperation::Fetch`].
    Fetched {
        /// Whose.
        client: Identity,
        /// In order.
        messages: Vec<QueuedMessage>,
        /// There are more after these.
        more: bool,
    },
    /// Nothing can be written for now, for this reason in words for people (the disk is full). Batches given before
    /// are tried again until they are in; what would need more of them is to be refused.
    Unavailable(Arc<str>),
    /// It can be written again.
    Available,
}

/// What is kept, one thing at a time, given to a shard before it serves anybody. Records and queues go to the owner of
/// their client; retained messages go to every shard. The end is said by [`Restored::End`].
#[derive(Clone, Debug)]
pub enum Restored {
    /// A record that hasn't expired. Sessions come first, then what hangs on them.
    Record {
        /// What it is about.
        kind: RecordKind,
        /// Whose.
        owner: Arc<str>,
        /// Which of the owner's.
        key: Arc<str>,
        /// As it was given.
        value: String,
        /// After that moment it may be forgotten.
        expires: Option<WallTime>,
    },
    /// That a message waits in a client's queue; the message itself is fetched when it is wanted. In order for each
    /// client, without those that come as [`Restored::InFlight`].
    Queued {
        /// Whose.
        client: Identity,
        /// Its place.
        sequence: Sequence,
        /// Bytes of its payload and properties.
        bytes: usize,
        /// Its deadline.
        expires: Option<WallTime>,
        /// As it was given.
        entry: String,
    },
    /// A message of a queue that was written and isn't done, so that its packet identifier is taken.
    InFlight {
        /// Whose.
        client: Identity,
        /// The message.
        message: QueuedMessage,
    },
    /// A retained message.
    Retained {
        /// Its version.
        version: RetainedVersion,
        /// The message, without a deadline.
        message: Arc<Message>,
        /// Its deadline.
        expires: Option<WallTime>,
    },
    /// That is all. Numbers of messages go on from `next_message` (a [`MessageNumber::count`]).
    End {
        /// The first free count.
        next_message: u64,
    },
}
