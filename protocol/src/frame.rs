//! One frame: `kind`, varint `length`, `length` bytes of body.
//!
//! Kinds 0x10-0x7F are *numbered*: they count in their direction's sequence and are acknowledged
//! cumulatively. The others are not. An unknown numbered kind is refused and the connection goes on; an
//! unknown kind from 0x80 is passed over; so later versions can add both.

use crate::auth::{NONCE, PROOF};
use crate::body;
use crate::delivery::{Delivery, Message};
use crate::hello::{Hello, Welcome};
use crate::name::{NameKind, NameRef};
use crate::reason::Reason;
use crate::receipt::Receipt;
use crate::send::{AT_LEAST_ONCE, Publish, Send};
use crate::wire::{Field, Malformed, NoSpace, Reader, Writer};
use crate::write;

/// The first byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Kind(pub u8);

#[allow(missing_docs, reason = "each is documented at the Frame variant of its name")]
impl Kind {
    pub const PING: Self = Self(0x01);
    pub const PONG: Self = Self(0x02);
    pub const ACK: Self = Self(0x03);
    pub const BYE: Self = Self(0x04);
    pub const ERROR: Self = Self(0x05);
    pub const HELLO: Self = Self(crate::FIRST_BYTE);
    pub const WELCOME: Self = Self(0x0C);
    pub const CHALLENGE: Self = Self(0x0D);
    pub const PROOF: Self = Self(0x0E);
    pub const NAME: Self = Self(0x10);
    pub const JOIN: Self = Self(0x11);
    pub const LEAVE: Self = Self(0x12);
    pub const SEND: Self = Self(0x13);
    pub const PUBLISH: Self = Self(0x14);
    pub const SUBSCRIBE: Self = Self(0x15);
    pub const UNSUBSCRIBE: Self = Self(0x16);
    pub const REFUSED: Self = Self(0x20);
    pub const RECEIPT: Self = Self(0x21);
    pub const DELIVERY: Self = Self(0x22);
    pub const MESSAGE: Self = Self(0x23);

    /// Whether frames of this kind count in the sequence of their direction.
    pub const fn is_numbered(self) -> bool {
        matches!(self.0, 0x10..=0x7F)
    }

    /// Whether frames of this kind count against the receiver's window. Names, refusals and receipts don't:
    /// they are bounded by what they belong to, and must not wait behind deliveries.
    pub const fn takes_window(self) -> bool {
        matches!(self.0, 0x11..=0x1F | 0x22..=0x7F)
    }

    /// Whether a receiver that doesn't know this kind passes over it in silence.
    pub const fn is_optional(self) -> bool {
        self.0 >= 0x80
    }
}

/// One frame, with views into the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Both ways: I am here; with a token, tell me the gateway's clock.
    Ping {
        /// Comes back in the pong.
        token: Option<u32>,
    },
    /// Both ways: the answer to a ping. Token and clock are there exactly when the ping had a token.
    Pong {
        /// The ping's token, and the gateway's clock in milliseconds (0 from a device).
        clock: Option<(u32, u64)>,
    },
    /// Both ways: `frames` more numbered frames are done with. For a send that means S8's acknowledgement,
    /// for a delivery that the application has it.
    Ack {
        /// How many more; at least 1.
        frames: u32,
    },
    /// Both ways: this is my last frame.
    Bye {
        /// Why.
        reason: Reason,
        /// For people.
        text: &'a str,
    },
    /// From the gateway: something that concerns no single frame; the connection goes on.
    Error {
        /// What.
        reason: Reason,
        /// For people.
        text: &'a str,
    },
    /// From the device, first.
    Hello(Hello<'a>),
    /// From the gateway: the device is in.
    Welcome(Welcome),
    /// From the gateway: prove the credential over this nonce.
    Challenge {
        /// Fresh and random.
        nonce: &'a [u8; NONCE],
    },
    /// From the device: the answer to a challenge.
    Proof {
        /// See [`crate::auth::proof`].
        proof: &'a [u8; PROOF],
    },
    /// Both ways: from now on `handle` stands for `name`.
    Name {
        /// 1 up to the size of the receiver's table.
        handle: u16,
        /// What it stands for.
        kind: NameKind,
        /// The name.
        name: &'a str,
    },
    /// From the device: join a group (S2).
    Join {
        /// The group.
        group: NameRef<'a>,
    },
    /// From the device: leave a group.
    Leave {
        /// The group.
        group: NameRef<'a>,
    },
    /// From the device: a signal.
    Send(Send<'a>),
    /// From the device: to a plain topic.
    Publish(Publish<'a>),
    /// From the device: subscribe to a plain topic filter.
    Subscribe {
        /// Take messages at QoS 1, else at 0.
        at_least_once: bool,
        /// The topic filter, as in MQTT.
        filter: &'a str,
    },
    /// From the device: end a subscription.
    Unsubscribe {
        /// The topic filter.
        filter: &'a str,
    },
    /// Both ways: a numbered frame of yours was refused. Comes before the acknowledgement that covers it.
    Refused {
        /// The low 16 bits of the refused frame's number.
        number: u16,
        /// Why.
        reason: Reason,
        /// When to try again, in milliseconds; 0 where that says nothing (S7).
        retry_after: u32,
        /// For people.
        text: &'a str,
    },
    /// From the gateway: what became of a send.
    Receipt(Receipt<'a>),
    /// From the gateway: a signal for the device.
    Delivery(Delivery<'a>),
    /// From the gateway: a message from a plain topic.
    Message(Message<'a>),
}

/// A frame body that is longer than the receiver's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TooLarge;

/// A frame as found by [`split`], its body not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// Its first byte.
    pub kind: Kind,
    /// Its body.
    pub body: &'a [u8],
    /// How many bytes of the input it took.
    pub length: usize,
}

impl<'a> RawFrame<'a> {
    /// A view of the body.
    pub fn decode(&self) -> Result<Frame<'a>, Malformed> {
        Frame::decode(self.kind, self.body)
    }
}

/// The first frame in `input`, or `None` while it isn't all there.
///
/// Fails on a body of more than `max_body` bytes as soon as its length is known, and on a length that
/// isn't a varint: then there is no way to find the next frame, and the connection has to end.
pub fn split(input: &[u8], max_body: usize) -> Result<Option<RawFrame<'_>>, TooLarge> {
    let Some((&kind, after_kind)) = input.split_first() else { return Ok(None) };
    let mut reader = Reader::new(after_kind);
    let length = reader.varint(Field::Length);
    if !reader.is_good() {
        // A good varint that isn't all there is at most four bytes, all of them continued.
        let partial = after_kind.len() <= 4 && after_kind.iter().all(|byte| byte & 0x80 != 0);
        return if partial { Ok(None) } else { Err(TooLarge) };
    }
    let length = length as usize;
    if length > max_body {
        return Err(TooLarge);
    }
    let rest = reader.rest();
    Ok(rest.get(..length).map(|body| {
        let header = input.len() - rest.len();
        RawFrame { kind: Kind(kind), body, length: header + length }
    }))
}

impl<'a> Frame<'a> {
    /// The kind of this frame.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ping { .. } => Kind::PING,
            Self::Pong { .. } => Kind::PONG,
            Self::Ack { .. } => Kind::ACK,
            Self::Bye { .. } => Kind::BYE,
            Self::Error { .. } => Kind::ERROR,
            Self::Hello(_) => Kind::HELLO,
            Self::Welcome(_) => Kind::WELCOME,
            Self::Challenge { .. } => Kind::CHALLENGE,
            Self::Proof { .. } => Kind::PROOF,
            Self::Name { .. } => Kind::NAME,
            Self::Join { .. } => Kind::JOIN,
            Self::Leave { .. } => Kind::LEAVE,
            Self::Send(_) => Kind::SEND,
            Self::Publish(_) => Kind::PUBLISH,
            Self::Subscribe { .. } => Kind::SUBSCRIBE,
            Self::Unsubscribe { .. } => Kind::UNSUBSCRIBE,
            Self::Refused { .. } => Kind::REFUSED,
            Self::Receipt(_) => Kind::RECEIPT,
            Self::Delivery(_) => Kind::DELIVERY,
            Self::Message(_) => Kind::MESSAGE,
        }
    }

    /// Reads the body of a frame of a known kind; an unknown kind is an error too.
    pub fn decode(kind: Kind, body: &'a [u8]) -> Result<Self, Malformed> {
        match kind {
            Kind::HELLO
            | Kind::PROOF
            | Kind::JOIN
            | Kind::LEAVE
            | Kind::SEND
            | Kind::PUBLISH
            | Kind::SUBSCRIBE
            | Kind::UNSUBSCRIBE => Self::decode_from_device(kind, body),
            _ => Self::decode_from_gateway(kind, body),
        }
    }

    /// The same for what only a device sends.
    fn decode_from_device(kind: Kind, body: &'a [u8]) -> Result<Self, Malformed> {
        let reader = &mut Reader::new(body);
        let frame = match kind {
            Kind::HELLO => Self::Hello(Hello::decode(reader)),
            Kind::PROOF => Self::Proof { proof: reader.rest_array(Field::Proof) },
            Kind::JOIN => Self::Join { group: NameRef::decode(reader) },
            Kind::LEAVE => Self::Leave { group: NameRef::decode(reader) },
            Kind::SEND => Self::Send(Send::decode(reader)),
            Kind::PUBLISH => Self::Publish(Publish::decode(reader)),
            Kind::SUBSCRIBE => {
                let flags = reader.u8(Field::SubscribeFlags);
                reader.reserve(flags, AT_LEAST_ONCE, Field::SubscribeReserved);
                Self::Subscribe { at_least_once: flags != 0, filter: reader.rest_text(Field::Filter) }
            }
            Kind::UNSUBSCRIBE => Self::Unsubscribe { filter: reader.rest_text(Field::Filter) },
            _ => return Err(Malformed::UNKNOWN_KIND),
        };
        reader.finish()?;
        Ok(frame)
    }

    /// The same for what a gateway sends, and what both send.
    fn decode_from_gateway(kind: Kind, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            Kind::PING => Self::Ping { token: body::ping(body)? },
            Kind::PONG => Self::Pong { clock: body::pong(body)? },
            Kind::ACK => Self::Ack { frames: body::ack(body)? },
            Kind::BYE => {
                let (reason, text) = body::reason(body)?;
                Self::Bye { reason, text }
            }
            Kind::ERROR => {
                let (reason, text) = body::reason(body)?;
                Self::Error { reason, text }
            }
            Kind::WELCOME => Self::Welcome(body::welcome(body)?),
            Kind::CHALLENGE => Self::Challenge { nonce: body::challenge(body)? },
            Kind::NAME => {
                let (handle, kind, name) = body::name(body)?;
                Self::Name { handle, kind, name }
            }
            Kind::REFUSED => {
                let body::Refused { number, reason, retry_after, text } = body::refused(body)?;
                Self::Refused { number, reason, retry_after, text }
            }
            Kind::RECEIPT => Self::Receipt(body::receipt(body)?),
            Kind::DELIVERY => Self::Delivery(body::delivery(body)?),
            Kind::MESSAGE => Self::Message(body::message(body)?),
            _ => return Err(Malformed::UNKNOWN_KIND),
        })
    }

    /// How many bytes [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        let body = self.body_len();
        1 + varint_len(body) + body
    }

    /// How many bytes the body has, to be held against the receiver's limit.
    pub fn body_len(&self) -> usize {
        let mut counter = Writer::counting();
        self.encode_body(&mut counter);
        counter.written()
    }

    /// Writes the frame at the start of `buffer` and says how many bytes it took.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, NoSpace> {
        let mut writer = Writer::new(buffer);
        writer.u8(self.kind().0);
        writer.varint(self.body_len() as u32);
        self.encode_body(&mut writer);
        writer.finish()
    }

    fn encode_body(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Ping { token } => write::ping(writer, token),
            Self::Pong { clock } => write::pong(writer, clock),
            Self::Ack { frames } => write::ack(writer, frames),
            Self::Bye { reason, text } | Self::Error { reason, text } => write::bye(writer, reason, text),
            Self::Hello(hello) => write::hello(writer, &hello),
            Self::Welcome(welcome) => welcome.encode(writer),
            Self::Challenge { nonce } => writer.bytes(nonce),
            Self::Proof { proof } => write::proof(writer, proof),
            Self::Name { handle, kind, name } => write::name(writer, handle, kind, name),
            Self::Join { group } | Self::Leave { group } => write::group(writer, group),
            Self::Send(send) => write::send(writer, &send),
            Self::Publish(publish) => write::publish(writer, &publish),
            Self::Subscribe { at_least_once, filter } => write::subscribe(writer, at_least_once, filter),
            Self::Unsubscribe { filter } => write::unsubscribe(writer, filter),
            Self::Refused { number, reason, retry_after, text } => {
                write::refused(writer, number, reason, retry_after, text);
            }
            Self::Receipt(receipt) => receipt.encode(writer),
            Self::Delivery(delivery) => delivery.encode(writer),
            Self::Message(message) => message.encode(writer),
        }
    }
}

pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
