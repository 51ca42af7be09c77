//! Frames that bring something from others: DELIVERY (a signal) and MESSAGE (from a plain topic).

use crate::name::NameRef;
use crate::send::{AT_LEAST_ONCE, Mode, RETAIN};
use crate::wire::{Field, Reader, Writer, flag};

/// A signal for this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// How it was addressed.
    pub mode: Mode,
    /// Whether it overtook what wasn't urgent (S16).
    pub urgent: bool,
    /// The group it came through; `None` exactly when the mode is [`Mode::One`].
    pub group: Option<NameRef<'a>>,
    /// The sender's client id.
    pub sender: NameRef<'a>,
    /// The low 32 bits of the gateway's clock, in milliseconds, past which it must not be acted on (S9).
    pub deadline: Option<u32>,
    /// The message.
    pub payload: &'a [u8],
}

const MODE: u8 = 3;
const URGENT: u8 = 1 << 2;
const DEADLINE: u8 = 1 << 3;

impl<'a> Delivery<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let flags = reader.u8(Field::DeliveryFlags);
        reader.reserve(flags, MODE | URGENT | DEADLINE, Field::DeliveryReserved);
        let mode = Mode::from_bits(flags);
        let group = if mode == Mode::One { None } else { Some(NameRef::decode(reader)) };
        let sender = NameRef::decode(reader);
        let deadline = if flags & DEADLINE != 0 { Some(reader.u32(Field::Deadline)) } else { None };
        Self { mode, urgent: flags & URGENT != 0, group, sender, deadline, payload: reader.rest() }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        let deadline = flag(self.deadline.is_some(), DEADLINE);
        // The mode written is what the fields say, so that an encoded delivery always decodes.
        let mode = match (self.mode, self.group) {
            (_, None) => Mode::One,
            (Mode::One, Some(_)) => Mode::All,
            (mode, Some(_)) => mode,
        };
        writer.u8(mode as u8 | flag(self.urgent, URGENT) | deadline);
        if let Some(group) = self.group {
            group.encode(writer);
        }
        self.sender.encode(writer);
        if let Some(deadline) = self.deadline {
            writer.u32(deadline);
        }
        writer.bytes(self.payload);
    }
}

/// A message from a plain topic that the device subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whether its publisher asked for acknowledgement.
    pub at_least_once: bool,
    /// Whether it is the topic's retained message, sent because the subscription is new.
    pub retained: bool,
    /// The topic.
    pub topic: NameRef<'a>,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let flags = reader.u8(Field::MessageFlags);
        reader.reserve(flags, AT_LEAST_ONCE | RETAIN, Field::MessageReserved);
        let topic = NameRef::decode(reader);
        let (at_least_once, retained) = (flags & AT_LEAST_ONCE != 0, flags & RETAIN != 0);
        Self { at_least_once, retained, topic, payload: reader.rest() }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(flag(self.at_least_once, AT_LEAST_ONCE) | flag(self.retained, RETAIN));
        self.topic.encode(writer);
        writer.bytes(self.payload);
    }
}
