//! The bodies of frames that a gateway sends, each read by a function of its own: a device reads them where it knows their
//! kind, so that its firmware carries none that it doesn't use, and no frame is looked at twice. [`Frame::decode`] reads them
//! all.
//!
//! [`Frame::decode`]: crate::Frame::decode

use crate::auth::NONCE;
use crate::delivery::{Delivery, Message};
use crate::hello::Welcome;
use crate::name::NameKind;
use crate::reason::Reason;
use crate::receipt::Receipt;
use crate::send::{Publish, Send};
use crate::wire::{Field, Malformed, Reader};

/// What a body of PING says: its token, if it has one.
pub fn ping(body: &[u8]) -> Result<Option<u32>, Malformed> {
    read(body, |reader| if body.is_empty() { None } else { Some(reader.u32(Field::Token)) })
}

/// What a body of PONG says: the ping's token and the gateway's clock, if there was a token.
pub fn pong(body: &[u8]) -> Result<Option<(u32, u64)>, Malformed> {
    read(body, |reader| {
        if body.is_empty() { None } else { Some((reader.u32(Field::Token), reader.u64(Field::Clock))) }
    })
}

/// What a body of ACK says: how many more frames are done with, at least 1.
pub fn ack(body: &[u8]) -> Result<u32, Malformed> {
    read(body, |reader| {
        let frames = reader.varint(Field::Frames);
        if frames == 0 {
            reader.fail(Field::FramesNone);
        }
        frames
    })
}

/// What a body of BYE or ERROR says.
pub fn reason(body: &[u8]) -> Result<(Reason, &str), Malformed> {
    read(body, |reader| (reason_code(reader), reader.rest_text(Field::Text)))
}

/// What a body of CHALLENGE says.
pub fn challenge(body: &[u8]) -> Result<&[u8; NONCE], Malformed> {
    read(body, |reader| reader.rest_array(Field::Nonce))
}

/// What a body of NAME says: the handle, and what it stands for.
pub fn name(body: &[u8]) -> Result<(u16, NameKind, &str), Malformed> {
    read(body, |reader| {
        (reader.varint16(Field::Handle), NameKind::decode(reader), reader.rest_text(Field::Name))
    })
}

/// What a body of REFUSED says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The low 16 bits of the refused frame's number.
    pub number: u16,
    /// Why.
    pub reason: Reason,
    /// When to try again, in milliseconds; 0 where that says nothing (S7).
    pub retry_after: u32,
    /// For people.
    pub text: &'a str,
}

/// What a body of REFUSED says.
pub fn refused(body: &[u8]) -> Result<Refused<'_>, Malformed> {
    read(body, |reader| Refused {
        number: reader.u16(Field::RefusedNumber),
        reason: reason_code(reader),
        retry_after: reader.varint(Field::RetryAfter),
        text: reader.rest_text(Field::Text),
    })
}

/// What a body of SEND says, for who keeps frames; a gateway reads them all by [`Frame::decode`].
pub fn send(body: &[u8]) -> Result<Send<'_>, Malformed> {
    read(body, Send::decode)
}

/// What a body of PUBLISH says, likewise.
pub fn publish(body: &[u8]) -> Result<Publish<'_>, Malformed> {
    read(body, Publish::decode)
}

/// What a body of WELCOME says.
pub fn welcome(body: &[u8]) -> Result<Welcome, Malformed> {
    read(body, Welcome::decode)
}

/// What a body of RECEIPT says.
pub fn receipt(body: &[u8]) -> Result<Receipt<'_>, Malformed> {
    read(body, Receipt::decode)
}

/// What a body of DELIVERY says.
pub fn delivery(body: &[u8]) -> Result<Delivery<'_>, Malformed> {
    read(body, Delivery::decode)
}

/// What a body of MESSAGE says.
pub fn message(body: &[u8]) -> Result<Message<'_>, Malformed> {
    read(body, Message::decode)
}

/// What `fields` make of the whole body.
fn read<'a, T>(body: &'a [u8], fields: impl FnOnce(&mut Reader<'a>) -> T) -> Result<T, Malformed> {
    let mut reader = Reader::new(body);
    let value = fields(&mut reader);
    reader.finish()?;
    Ok(value)
}

/// A number that this version doesn't know is taken for [`Reason::Internal`], so that reasons can be added.
fn reason_code(reader: &mut Reader<'_>) -> Reason {
    Reason::from_code(reader.u8(Field::Reason)).unwrap_or(Reason::Internal)
}
