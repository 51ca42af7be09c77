//! Messages on their way to recipients.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::{ClientId, GroupName, Identity, Instant, Mode, Status};
pub use crate::mqtt::QoS;

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

/// A message on one shard, with the encodings that its recipients there share.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Arc<Message>,
    encodings: RefCell<Vec<Encoding>>,
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

/// One encoding of a message, to be copied once per recipient.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// What it depends on.
    pub key: EncodingKey,
    /// The packet.
    pub packet: Rc<crate::mqtt::EncodedPublish>,
}

impl Outgoing {
    /// A message without encodings.
    pub fn new(message: Arc<Message>) -> Rc<Self> {
        Rc::new(Self { message, encodings: RefCell::new(Vec::new()) })
    }

    /// The encoding for `key`, made by `encode` if it is the first of its kind.
    ///
    /// Keeps a few: a recipient with a key of its own (a rare ttl or subscription id) doesn't make it grow.
    ///
    /// # Errors
    ///
    /// That of `encode`; nothing is kept of it.
    pub fn encoding<E>(
        &self,
        key: EncodingKey,
        encode: impl FnOnce(&Message) -> Result<crate::mqtt::EncodedPublish, E>,
    ) -> Result<Rc<crate::mqtt::EncodedPublish>, E> {
        const KEPT: usize = 4;
        let mut encodings = self.encodings.borrow_mut();
        if let Some(found) = encodings.iter().find(|encoding| encoding.key == key) {
            return Ok(found.packet.clone());
        }
        let packet = Rc::new(encode(&self.message)?);
        if encodings.len() == KEPT {
            encodings.remove(0);
        }
        encodings.push(Encoding { key, packet: packet.clone() });
        Ok(packet)
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

/// Where the final status of a delivery is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptSlot {
    /// The tracker, a key of the hub's.
    pub tracker: slotmap::DefaultKey,
    /// The recipient within it.
    pub index: u32,
}

/// What a session tells of a delivery that has a [`ReceiptSlot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is written, and an acknowledgement is awaited.
    Written,
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
}

impl Delivery {
    /// Whether its deadline is past.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.outgoing.message.deadline.is_some_and(|deadline| deadline <= now)
    }
}
