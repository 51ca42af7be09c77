//! The compact framing between microcontrollers and the Bugle gateway.
//!
//! This crate owns the bytes: frames, their limits, reason codes and the credential proof. It knows
//! nothing of sockets, sessions or rules, allocates nothing, and never panics on bytes from outside.
//! The normative text is `docs/protocol.md`; where the two differ, the document is right.
//!
//! Both ends use it alike: [`split`] finds one frame in received bytes, [`Frame::decode`] gives a
//! view into them, [`Frame::encode`] writes one.
//!
//! ```
//! use bugle_protocol::{Frame, MAX_BODY, split};
//!
//! let mut buffer = [0; 16];
//! let length = Frame::Ping { token: None }.encode(&mut buffer).unwrap();
//! assert_eq!(length, 2);
//! let raw = split(&buffer[..length], MAX_BODY).unwrap().unwrap();
//! assert_eq!(raw.decode().unwrap(), Frame::Ping { token: None });
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod auth;
pub mod body;
mod delivery;
mod frame;
mod hello;
mod name;
mod reason;
mod receipt;
mod send;
mod wire;
pub mod write;

pub use delivery::{Delivery, Message};
pub use frame::{Frame, Kind, RawFrame, TooLarge, split};
pub use hello::{Hello, Resume, Welcome, WillFrame};
pub use name::{NameKind, NameList, NameListIter, NameRef, announced_handle, is_name};
pub use reason::{Reason, Status};
pub use receipt::{Receipt, ReceiptCounts, ReceiptEntries, ReceiptEntry};
pub use send::{Mode, Publish, ReceiptMode, Send, Target};
pub use wire::{Malformed, NoSpace, Writer};

/// The version of the framing that this crate speaks.
pub const VERSION: u8 = 1;
/// The first byte of a connection, the kind of [`Hello`]. No MQTT packet (type 0 is reserved), TLS
/// record (0x14-0x18) or HTTP request (a letter) begins with it.
pub const FIRST_BYTE: u8 = 0x0B;
/// Largest payload of a signal or a plain message, in bytes (S6).
pub const MAX_PAYLOAD: usize = 8192;
/// Most entries of an *only* or *except* list, counted as given (S4).
pub const MAX_LIST: usize = 128;
/// Longest client id, group name or message id, in bytes (S1, S2).
pub const MAX_NAME: usize = 64;
/// Longest topic or topic filter on this framing, in bytes.
pub const MAX_TOPIC: usize = 1024;
/// Largest frame body that a gateway reads, in bytes: a full payload under two full lists of inline
/// names. A longer one ends the connection with [`Reason::FrameTooLarge`].
pub const MAX_BODY: usize = 32 * 1024;
/// Smallest receive limit that a device may announce in its hello, in bytes of frame body.
pub const MIN_DEVICE_BODY: usize = 128;
