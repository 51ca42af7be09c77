//! Frames that carry something to others: SEND (a signal, S3-S9) and PUBLISH (a plain topic, T7).

use crate::name::{NameList, NameRef};
use crate::wire::{Field, Reader, Writer, flag};

/// How a delivered signal was addressed (S3). A send with both lists is [`Mode::Only`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Mode {
    /// To one client.
    One = 0,
    /// To a whole group.
    All = 1,
    /// To named members of a group (whitelist).
    Only = 2,
    /// To a group without the named (blacklist).
    Except = 3,
}

impl Mode {
    /// The name in lower case, as the user property `mode` and JSON have it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::All => "all",
            Self::Only => "only",
            Self::Except => "except",
        }
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::One,
            1 => Self::All,
            2 => Self::Only,
            _ => Self::Except,
        }
    }
}

/// How much the sender wants to hear of what became of a send (S8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum ReceiptMode {
    /// Only the acknowledgement.
    #[default]
    None = 0,
    /// Counts per status.
    Summary = 1,
    /// Client id and status of each recipient.
    Each = 2,
}

impl ReceiptMode {
    /// The name in lower case, as the option `receipt` has it (T1).
    pub const fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Summary => "summary",
            Self::Each => "each",
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::None),
            1 => Some(Self::Summary),
            2 => Some(Self::Each),
            _ => None,
        }
    }
}

/// Whom a signal is for (S3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// One client.
    Client(NameRef<'a>),
    /// A group, or some of it. With both lists the recipients are *only* minus *except* (S4).
    Group {
        /// The group.
        group: NameRef<'a>,
        /// The whitelist, if there is one; an empty one is refused.
        only: Option<NameList<'a>>,
        /// The blacklist, if there is one; an empty one excludes nobody.
        except: Option<NameList<'a>>,
    },
}

/// A signal to a client or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send<'a> {
    /// Whom it is for.
    pub target: Target<'a>,
    /// Time to live in milliseconds from acceptance by the gateway (S9).
    pub ttl: Option<u32>,
    /// What the sender wants to hear (S8).
    pub receipt: ReceiptMode,
    /// Keep it for offline recipients (S10).
    pub store: bool,
    /// Deliver to the sender too, where it is a recipient (S5).
    pub echo: bool,
    /// Overtake what isn't urgent (S16).
    pub urgent: bool,
    /// The sender's own id for the message, within which it is accepted once (S12).
    pub id: Option<&'a str>,
    /// The message.
    pub payload: &'a [u8],
}

const TO_CLIENT: u8 = 1;
const ONLY: u8 = 1 << 1;
const EXCEPT: u8 = 1 << 2;
const TTL: u8 = 1 << 3;
const ID: u8 = 1 << 4;
const OPTIONS: u8 = 1 << 5;

const OPTION_RECEIPT: u8 = 3;
const OPTION_STORE: u8 = 1 << 2;
const OPTION_ECHO: u8 = 1 << 3;
const OPTION_URGENT: u8 = 1 << 4;

impl<'a> Send<'a> {
    /// A signal without options.
    pub const fn new(target: Target<'a>, payload: &'a [u8]) -> Self {
        let (ttl, receipt, id) = (None, ReceiptMode::None, None);
        Self { target, ttl, receipt, store: false, echo: false, urgent: false, id, payload }
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let flags = reader.u8(Field::SendFlags);
        reader.reserve(flags, TO_CLIENT | ONLY | EXCEPT | TTL | ID | OPTIONS, Field::SendReserved);
        let name = NameRef::decode(reader);
        let target = if flags & TO_CLIENT == 0 {
            let only = if flags & ONLY != 0 { Some(NameList::decode(reader)) } else { None };
            let except = if flags & EXCEPT != 0 { Some(NameList::decode(reader)) } else { None };
            Target::Group { group: name, only, except }
        } else {
            reader.reserve(flags, !(ONLY | EXCEPT), Field::ListsToClient);
            Target::Client(name)
        };
        let ttl = if flags & TTL != 0 { Some(reader.varint(Field::Ttl)) } else { None };
        let id = if flags & ID != 0 { Some(reader.text(Field::MessageId)) } else { None };
        let options = if flags & OPTIONS != 0 { reader.u8(Field::SendOptions) } else { 0 };
        let known = OPTION_RECEIPT | OPTION_STORE | OPTION_ECHO | OPTION_URGENT;
        reader.reserve(options, known, Field::SendOptionsReserved);
        let receipt = ReceiptMode::from_bits(options).unwrap_or_else(|| {
            reader.fail(Field::ReceiptMode);
            ReceiptMode::None
        });
        Self {
            target,
            ttl,
            receipt,
            store: options & OPTION_STORE != 0,
            echo: options & OPTION_ECHO != 0,
            urgent: options & OPTION_URGENT != 0,
            id,
            payload: reader.rest(),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        let options = self.receipt as u8
            | flag(self.store, OPTION_STORE)
            | flag(self.echo, OPTION_ECHO)
            | flag(self.urgent, OPTION_URGENT);
        let (name, only, except) = match &self.target {
            Target::Client(name) => (name, None, None),
            Target::Group { group, only, except } => (group, only.as_ref(), except.as_ref()),
        };
        writer.u8(flag(matches!(self.target, Target::Client(_)), TO_CLIENT)
            | flag(only.is_some(), ONLY)
            | flag(except.is_some(), EXCEPT)
            | flag(self.ttl.is_some(), TTL)
            | flag(self.id.is_some(), ID)
            | flag(options != 0, OPTIONS));
        name.encode(writer);
        if let Some(list) = only {
            list.encode(writer);
        }
        if let Some(list) = except {
            list.encode(writer);
        }
        if let Some(ttl) = self.ttl {
            writer.varint(ttl);
        }
        if let Some(id) = self.id {
            writer.text(id);
        }
        if options != 0 {
            writer.u8(options);
        }
        writer.bytes(self.payload);
    }
}

/// A message to a plain topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic.
    pub topic: NameRef<'a>,
    /// Whether recipients are to acknowledge it: MQTT's QoS 1, else 0.
    pub at_least_once: bool,
    /// Keep it as the topic's retained message; with an empty payload, clear that.
    pub retain: bool,
    /// The message.
    pub payload: &'a [u8],
}

pub(crate) const AT_LEAST_ONCE: u8 = 1;
pub(crate) const RETAIN: u8 = 1 << 1;

impl<'a> Publish<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let flags = reader.u8(Field::PublishFlags);
        reader.reserve(flags, AT_LEAST_ONCE | RETAIN, Field::PublishReserved);
        let topic = NameRef::decode(reader);
        let (at_least_once, retain) = (flags & AT_LEAST_ONCE != 0, flags & RETAIN != 0);
        Self { topic, at_least_once, retain, payload: reader.rest() }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(flag(self.at_least_once, AT_LEAST_ONCE) | flag(self.retain, RETAIN));
        self.topic.encode(writer);
        writer.bytes(self.payload);
    }
}
