//! Messages on their way to recipients.
//!
//! A message is borrowed as long as it can be: a [`Publication`] from the packet that brought it, a [`MessageView`]
//! of that while it is given to recipients who can be written to at once. Only what has to wait somewhere becomes a
//! [`Message`].

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::{ClientId, GroupName, Identity, Instant, Mode, Status};
use crate::mqtt::EncodedPublish;
pub use crate::mqtt::QoS;
use crate::store::{BatchNumber, MessageNumber};

/// A message, shared by all its recipients on all shards.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it comes from.
    pub origin: Origin,
    /// The payload.
    pub payload: Bytes,
    /// MQTT 5 properties that pass unaltered, as on the wire.
    pub properties: Bytes,
    /// The QoS that it was sent with, which no delivery exceeds.
    pub qos: QoS,
    /// Past this moment it is dropped (S9, MQTT's message expiry).
    pub deadline: Option<Instant>,
    /// It overtakes what isn't urgent (S16).
    pub urgent: bool,
}

/// Where a message comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A signal (S3).
    Signal {
        /// Who sent it.
        sender: ClientId,
        /// The group that it was sent to, none if to one client.
        group: Option<GroupName>,
        /// The client that it was sent to, none if to a group.
        client: Option<ClientId>,
        /// How it was addressed.
        mode: Mode,
    },
    /// A plain topic (T7).
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// Who published it, for MQTT's no local.
        publisher: Identity,
        /// Its RETAIN flag as published.
        retain: bool,
    },
}

/// A message, whoever holds it.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    /// Where it comes from.
    pub origin: OriginView<'a>,
    /// As in [`Message`].
    pub payload: &'a [u8],
    /// As in [`Message`].
    pub properties: &'a [u8],
    /// As in [`Message`].
    pub qos: QoS,
    /// As in [`Message`].
    pub deadline: Option<Instant>,
    /// As in [`Message`].
    pub urgent: bool,
    /// The packet that brought it, if recipients may get it as it is.
    pub as_sent: Option<AsSent<'a>>,
}

/// A PUBLISH as the publisher's client wrote it. A recipient of the same form is sent the same bytes, but for the packet
/// identifier.
#[derive(Clone, Copy, Debug)]
pub struct AsSent<'a> {
    /// The whole packet, without properties.
    pub packet: &'a [u8],
    /// Where in it the packet identifier is, for QoS 1 and 2.
    pub packet_id_at: Option<usize>,
    /// Its form, as in [`EncodingKey`].
    pub form: u32,
}

/// Where a message comes from, as far as a recipient sees it.
#[derive(Clone, Copy, Debug)]
pub enum OriginView<'a> {
    /// A signal (S3).
    Signal {
        /// Who sent it.
        sender: &'a ClientId,
        /// The group that it was sent to, none if to one client.
        group: Option<&'a GroupName>,
        /// The client that it was sent to, none if to a group.
        client: Option<&'a ClientId>,
        /// How it was addressed.
        mode: Mode,
    },
    /// A plain topic (T7).
    Topic {
        /// The topic.
        topic: &'a str,
        /// Its RETAIN flag as published.
        retain: bool,
    },
}

impl Message {
    /// A look at it.
    pub fn view(&self) -> MessageView<'_> {
        let origin = match &self.origin {
            Origin::Signal { sender, group, client, mode } => {
                OriginView::Signal { sender, group: group.as_ref(), client: client.as_ref(), mode: *mode }
            }
            Origin::Topic { topic, retain, .. } => OriginView::Topic { topic, retain: *retain },
        };
        MessageView {
            origin,
            payload: &self.payload,
            properties: &self.properties,
            qos: self.qos,
            deadline: self.deadline,
            urgent: self.urgent,
            as_sent: None,
        }
    }
}

impl MessageView<'_> {
    /// The message for itself, to be kept. `publisher` is only asked for plain topics.
    pub fn to_message(&self, publisher: impl FnOnce() -> Identity) -> Message {
        let origin = match self.origin {
            OriginView::Signal { sender, group, client, mode } => Origin::Signal {
                sender: sender.clone(),
                group: group.cloned(),
                client: client.cloned(),
                mode,
            },
            OriginView::Topic { topic, retain } => {
                Origin::Topic { topic: topic.into(), publisher: publisher(), retain }
            }
        };
        Message {
            origin,
            payload: Bytes::copy_from_slice(self.payload),
            properties: Bytes::copy_from_slice(self.properties),
            qos: self.qos,
            deadline: self.deadline,
            urgent: self.urgent,
        }
    }
}

/// Text from a packet, or from a table that stands for it (a topic alias, a handle).
#[derive(Clone)]
pub enum Text<'i> {
    /// In the packet.
    Borrowed(&'i str),
    /// In a table.
    Shared(Rc<str>),
}

impl Text<'_> {
    /// The text for itself.
    pub fn into_owned(self) -> Text<'static> {
        Text::Shared(match self {
            Self::Borrowed(text) => text.into(),
            Self::Shared(text) => text,
        })
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A message to a plain topic as its publisher sent it, in the packet that brought it as far as it can be.
#[derive(Clone, Debug)]
pub struct Publication<'i> {
    /// A valid topic name outside of the signalling topics.
    pub topic: Text<'i>,
    /// As in [`Message`].
    pub payload: Cow<'i, [u8]>,
    /// As in [`Message`].
    pub properties: Cow<'i, [u8]>,
    /// The QoS that it was published with.
    pub qos: QoS,
    /// The RETAIN flag.
    pub retain: bool,
    /// As in [`Message`].
    pub deadline: Option<Instant>,
    /// The packet, if it is one that recipients may get as it is.
    pub as_sent: Option<AsSent<'i>>,
}

impl Publication<'_> {
    /// A look at it.
    pub fn view(&self) -> MessageView<'_> {
        MessageView {
            origin: OriginView::Topic { topic: &self.topic, retain: self.retain },
            payload: &self.payload,
            properties: &self.properties,
            qos: self.qos,
            deadline: self.deadline,
            urgent: false,
            as_sent: self.as_sent,
        }
    }

    /// The publication for itself.
    pub fn into_owned(self) -> Publication<'static> {
        Publication {
            topic: self.topic.into_owned(),
            payload: Cow::Owned(self.payload.into_owned()),
            properties: Cow::Owned(self.properties.into_owned()),
            qos: self.qos,
            retain: self.retain,
            deadline: self.deadline,
            as_sent: None,
        }
    }
}

/// A message on one shard, with the encodings that its recipients there share.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Arc<Message>,
    /// What has been encoded of it.
    pub encodings: RefCell<Encodings>,
    /// By what number the store knows it, and in which batch it was told: later ones may find it gone.
    pub kept: Cell<Option<(BatchNumber, MessageNumber)>>,
}

/// What an encoding depends on; the packet identifier is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingKey {
    /// Version, QoS and flags, as the session packs them.
    pub form: u32,
    /// The remaining time to live that it carries.
    pub ttl: Option<u32>,
    /// The subscription identifier that it carries.
    pub subscription: Option<u32>,
}

/// The encodings of one message, each to be copied once per recipient.
///
/// Keeps a few: a recipient with a key of its own (a rare ttl or subscription id) doesn't make it grow.
#[derive(Debug, Default)]
pub struct Encodings {
    kept: Vec<(EncodingKey, EncodedPublish)>,
    /// How many of them are of the present message; the rest is room.
    used: usize,
}

impl Encodings {
    /// Forgets all of them, for another message.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The encoding for `key`, made by `encode` if it is the first of its kind.
    ///
    /// # Errors
    ///
    /// That of `encode`; nothing is kept of it.
    pub fn encoding<E>(
        &mut self,
        key: EncodingKey,
        encode: impl FnOnce(&mut EncodedPublish) -> Result<(), E>,
    ) -> Result<&EncodedPublish, E> {
        const KEPT: usize = 4;
        let found = self.kept.iter().take(self.used).position(|(kept, _)| *kept == key);
        let at = match found {
            Some(at) => at,
            None => {
                if self.used == KEPT {
                    self.kept.rotate_left(1);
                    self.used -= 1;
                }
                if self.used == self.kept.len() {
                    self.kept.push((key, EncodedPublish::default()));
                }
                let (place, packet) = &mut self.kept[self.used];
                *place = key;
                encode(packet)?;
                self.used += 1;
                self.used - 1
            }
        };
        Ok(&self.kept[at].1)
    }
}

impl Outgoing {
    /// A message without encodings.
    pub fn new(message: Arc<Message>) -> Rc<Self> {
        Rc::new(Self { message, encodings: RefCell::default(), kept: Cell::new(None) })
    }
}

/// How a recipient wants what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// The highest QoS.
    pub qos: QoS,
    /// Not its own messages (MQTT 5).
    pub no_local: bool,
    /// Signals come on `sig/g/{group}/{sender}` instead of `sig/g/{group}` (T2).
    pub with_sender: bool,
    /// The RETAIN flag is kept as published (MQTT 5).
    pub retain_as_published: bool,
    /// The subscription identifier (MQTT 5).
    pub subscription: Option<u32>,
}

impl Reception {
    /// What a device session wants: everything acknowledged.
    pub const DEVICE: Self = Self {
        qos: QoS::AtLeastOnce,
        no_local: false,
        with_sender: false,
        retain_as_published: false,
        subscription: None,
    };
}

/// Where what becomes of a delivery is noted. The keys are the hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptSlot {
    /// A receipt waits for it.
    Tracker {
        /// Which.
        tracker: slotmap::DefaultKey,
        /// The recipient within it.
        index: u32,
    },
    /// It is in a queue of the store, and stays there until the client has it.
    Queue {
        /// Which.
        queue: slotmap::DefaultKey,
        /// Its place there, modulo 2^32.
        sequence: u32,
    },
}

impl ReceiptSlot {
    /// Whether the message lasts in the store until its outcome is known.
    pub fn is_queue(self) -> bool {
        matches!(self, Self::Queue { .. })
    }
}

/// What a session tells of a delivery that has a [`ReceiptSlot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is written, and an acknowledgement is awaited.
    Written,
    /// The client has the message, of QoS 2 and with this packet identifier, which is released when the store has noted
    /// that. Only of what is [in a queue](ReceiptSlot::is_queue).
    Received(NonZeroU16),
    /// The device says that it is done with it; a refusal of it may still come.
    Taken,
    /// It is written, at QoS 0: no acknowledgement will come, and it is UNCONFIRMED for good.
    Unanswerable,
    /// Its final status.
    Final(Status),
}

/// A message for one recipient.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub outgoing: Rc<Outgoing>,
    /// How the recipient wants it.
    pub reception: Reception,
    /// It came through a wildcard over `sig/`, and not because the recipient was addressed (T6).
    pub observed: bool,
    /// Who waits to hear what became of it.
    pub slot: Option<ReceiptSlot>,
    /// The share whose only recipient this is: another member gets it if this one doesn't take it.
    pub share: Option<ShareId>,
}

/// A shared subscription, as the recipient's shard numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareId(pub NonZeroU32);

impl Delivery {
    /// A message for a recipient that was addressed or has subscribed, of which nobody waits to hear.
    pub fn new(outgoing: Rc<Outgoing>, reception: Reception) -> Self {
        Self { outgoing, reception, observed: false, slot: None, share: None }
    }

    /// What it costs where it waits, in bytes.
    pub fn size(&self) -> usize {
        let message = &self.outgoing.message;
        message.payload.len() + message.properties.len()
    }

    /// The QoS that it has.
    pub fn qos(&self) -> QoS {
        self.outgoing.message.qos.min(self.reception.qos)
    }

    /// Whether it stays in a queue of the store until the client has it.
    pub fn is_queued(&self) -> bool {
        self.slot.is_some_and(ReceiptSlot::is_queue)
    }

    /// Whether its deadline is past.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.outgoing.message.deadline.is_some_and(|deadline| deadline <= now)
    }
}
