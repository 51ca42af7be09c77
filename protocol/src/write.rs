//! The bodies of frames that a device sends, each written by a function of its own: a device writes them where it knows their
//! kind, so that its firmware makes no [`Frame`](crate::Frame) first, and carries none that it doesn't use.
//!
//! The body is written first, behind the place of a short header, and the header when its length is known:
//!
//! ```
//! use bugle_protocol::{Kind, write};
//!
//! let mut buffer = [0; 16];
//! let mut writer = write::body(&mut buffer);
//! write::ack(&mut writer, 3);
//! let length = writer.written();
//! assert_eq!(write::finish(&mut buffer, Kind::ACK, length), Ok(3));
//! assert_eq!(buffer[..3], [0x03, 1, 3]);
//! ```

use crate::auth::PROOF;
use crate::frame::{Kind, varint_len};
use crate::hello::Hello;
use crate::name::{NameKind, NameRef};
use crate::reason::Reason;
use crate::send::{Publish, Send};
use crate::wire::{NoSpace, Writer};

/// Kind, and a length of one byte.
const SHORT_HEADER: usize = 2;

/// A writer for the body of the frame that stands at the beginning of `buffer`.
pub fn body(buffer: &mut [u8]) -> Writer<'_> {
    Writer::new(buffer.get_mut(SHORT_HEADER..).unwrap_or_default())
}

/// Completes the frame whose body of so many bytes was written by [`body`], and says how many bytes it has. Fails where it
/// didn't fit.
pub fn finish(buffer: &mut [u8], kind: Kind, body: usize) -> Result<usize, NoSpace> {
    let header = 1 + varint_len(body);
    let length = header + body;
    if length > buffer.len() {
        return Err(NoSpace);
    }
    if header > SHORT_HEADER {
        buffer.copy_within(SHORT_HEADER..SHORT_HEADER + body, header);
    }
    let mut writer = Writer::new(buffer);
    writer.u8(kind.0);
    writer.varint(body as u32);
    Ok(length)
}

/// The body of a PING.
pub fn ping(writer: &mut Writer<'_>, token: Option<u32>) {
    if let Some(token) = token {
        writer.u32(token);
    }
}

/// The body of a PONG: the ping's token and, with that, the gateway's clock, which a device has as 0.
pub fn pong(writer: &mut Writer<'_>, clock: Option<(u32, u64)>) {
    if let Some((token, clock)) = clock {
        writer.u32(token);
        writer.u64(clock);
    }
}

/// The body of an ACK of so many frames.
pub fn ack(writer: &mut Writer<'_>, frames: u32) {
    writer.varint(frames);
}

/// The body of a BYE.
pub fn bye(writer: &mut Writer<'_>, reason: Reason, text: &str) {
    writer.u8(reason.code());
    writer.bytes(text.as_bytes());
}

/// The body of a HELLO.
pub fn hello(writer: &mut Writer<'_>, hello: &Hello<'_>) {
    hello.encode(writer);
}

/// The body of a PROOF.
pub fn proof(writer: &mut Writer<'_>, proof: &[u8; PROOF]) {
    writer.bytes(proof);
}

/// The body of a NAME.
pub fn name(writer: &mut Writer<'_>, handle: u16, kind: NameKind, name: &str) {
    writer.varint(handle.into());
    writer.u8(kind as u8);
    writer.bytes(name.as_bytes());
}

/// The body of a JOIN or LEAVE.
pub fn group(writer: &mut Writer<'_>, group: NameRef<'_>) {
    group.encode(writer);
}

/// The body of a SEND.
pub fn send(writer: &mut Writer<'_>, send: &Send<'_>) {
    send.encode(writer);
}

/// The body of a PUBLISH.
pub fn publish(writer: &mut Writer<'_>, publish: &Publish<'_>) {
    publish.encode(writer);
}

/// The body of a SUBSCRIBE.
pub fn subscribe(writer: &mut Writer<'_>, at_least_once: bool, filter: &str) {
    writer.u8(at_least_once.into());
    writer.bytes(filter.as_bytes());
}

/// The body of an UNSUBSCRIBE.
pub fn unsubscribe(writer: &mut Writer<'_>, filter: &str) {
    writer.bytes(filter.as_bytes());
}

/// The body of a REFUSED.
pub fn refused(writer: &mut Writer<'_>, number: u16, reason: Reason, retry_after: u32, text: &str) {
    writer.u16(number);
    writer.u8(reason.code());
    writer.varint(retry_after);
    writer.bytes(text.as_bytes());
}
