//! MQTT 3.1, 3.1.1 and 5 on the wire: bytes to checked views, and views to bytes.
//!
//! This module owns everything that differs between the three versions of the protocol. A [`Packet`] looks
//! the same in all of them: below version 5 the properties are empty and the reason codes are the ones that
//! the older return codes mean. Whoever holds a view needs no `match` on a version.
//!
//! It refuses what the standards forbid *within one packet*: reserved bits, strings that aren't UTF-8 or hold
//! U+0000, properties in the wrong packet or twice, malformed topics, trailing bytes. It doesn't know
//! connections, so whatever takes the state of one (packet order, packet identifiers in use, receive maximum,
//! topic aliases in force, the direction a packet may travel in) is for the session. It holds no buffer,
//! clock or socket, never panics and, when decoding, never allocates.
//!
//! What [`encode()`] writes, [`decode()`] accepts: both check by the same functions.
//!
//! Read first: *MQTT Version 5.0* (OASIS, 2019), chapters 2 and 3, and *MQTT Version 3.1.1* (OASIS, 2014).
//! Clauses are cited by version 5's numbers, as `[MQTT-x.y.z-n]`, unless marked 3.1.1.
//!
//! The way in is [`frame_length`] on what has been received, then [`decode()`] on exactly that many bytes:
//!
//! ```
//! use bugle_core::mqtt::{Packet, Version, decode, frame_length};
//!
//! let received = [0x30, 0x07, 0x00, 0x03, b'a', b'/', b'b', b'h', b'i', 0xC0];
//! let length = frame_length(&received)?.expect("the whole packet is there");
//! let Packet::Publish(publish) = decode(&received[..length], Version::V311)? else { panic!() };
//! assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
//! # Ok::<(), bugle_core::mqtt::DecodeError>(())
//! ```
//!
//! The way out is [`encode()`], or for one message to many receivers an [`EncodedPublish`].

mod decode;
mod encode;
mod error;
mod line;
mod packet;
mod properties;
mod property_writer;
mod reason;
mod subscription;
#[cfg(test)]
mod tests;
pub mod topic;
mod wire;

pub use decode::{decode, frame_length, refusal_version};
pub use encode::{EncodedPublish, encode};
pub use error::{DecodeError, EncodeError};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, QoS, SubAck, Subscribe, UnsubAck,
    Unsubscribe, Will,
};
pub use properties::{Properties, Property};
pub use property_writer::PropertyWriter;
pub use reason::ReasonCode;
pub use subscription::{ReasonCodes, RetainHandling, SubscriptionOptions, Subscriptions, TopicFilters};

/// The largest remaining length a fixed header can say, and so the largest property length: 268,435,455
/// bytes.
pub const MAX_REMAINING_LENGTH: usize = 0x0FFF_FFFF;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5: protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// The protocol name and level by which CONNECT announces this version [MQTT-3.1.2-1].
    pub const fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }

    /// Whether packets of this version carry properties and reason codes.
    const fn has_properties(self) -> bool {
        matches!(self, Version::V5)
    }

    /// Whether unused bits must be zero. MQTT 3.1 calls them "not used", and its clients set DUP on a
    /// repeated SUBSCRIBE, UNSUBSCRIBE or PUBREL; 3.1.1 was the first to reserve them.
    const fn reserves_bits(self) -> bool {
        !matches!(self, Version::V31)
    }
}
