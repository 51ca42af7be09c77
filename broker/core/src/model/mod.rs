//! The values that sessions, rules and hub speak to each other in. Everything here is already checked:
//! code that holds a [`ClientId`] or a [`RecipientList`] needs no further look at it.

mod command;
mod identity;
mod limits;
mod message;
mod moderation;
mod outcome;
mod principal;
mod secret;
mod signal;
mod time;

pub use command::{
    Challenge, Command, ConnectRequest, Connected, Credential, Filter, NEVER_EXPIRES, Reply, RequestId,
    SubscribeItem, Will,
};
pub use identity::{ClientId, GroupName, Identity, MessageId};
pub use limits::{Limits, OfflineFull};
pub use message::{
    AsSent, Delivery, EncodingKey, Encodings, Message, MessageView, Origin, OriginView, Outgoing,
    Publication, QoS, ReceiptSlot, Reception, Settled, ShareId, Text,
};
pub use moderation::{MAX_WHY, Moderation, ModerationAct, ModerationRequest};
pub use outcome::{About, ReceiptReport, Refusal};
pub use principal::Principal;
pub use secret::Secret;
pub use signal::{Addressed, RecipientList, Recipients, Signal, SignalOptions, Target};
pub use time::Instant;

pub use bugle_protocol::{Mode, Reason, ReceiptCounts, ReceiptMode, Status};

/// A hash map whose iteration order doesn't depend on the hash, so that a simulated run replays exactly.
pub type Map<K, V> = indexmap::IndexMap<K, V, foldhash::fast::RandomState>;
/// A set likewise.
pub type Set<K> = indexmap::IndexSet<K, foldhash::fast::RandomState>;
