//! What was wrong with a packet: whose fault it is, and the reason code that tells them.

use super::{PacketType, ReasonCode};
use core::{error::Error, fmt};

/// A packet that can't be accepted. The fault is the peer's, and the connection must be closed
/// [MQTT-4.13.1-1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    reason: ReasonCode,
    packet: Option<PacketType>,
    what: &'static str,
}

impl DecodeError {
    /// The code to give as the reason: one that CONNACK may carry if the packet was a CONNECT, else one that
    /// DISCONNECT may carry. Versions before 5 have no use for it after CONNECT.
    pub const fn reason(&self) -> ReasonCode {
        self.reason
    }

    /// The packet it was in, if the error isn't in the fixed header.
    pub const fn packet(&self) -> Option<PacketType> {
        self.packet
    }

    /// What was wrong, in words for a log.
    pub const fn what(&self) -> &'static str {
        self.what
    }

    /// Bytes that can't be parsed according to the specification.
    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::because(ReasonCode::MalformedPacket, what)
    }

    /// Bytes that can be parsed, but say something the specification forbids.
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::because(ReasonCode::ProtocolError, what)
    }

    pub(super) const fn because(reason: ReasonCode, what: &'static str) -> Self {
        Self { reason, packet: None, what }
    }

    pub(super) const fn within(self, packet: PacketType) -> Self {
        Self { packet: Some(packet), ..self }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.packet.map_or("fixed header", PacketType::name);
        write!(f, "{place}: {} ({})", self.what, self.reason)
    }
}

impl Error for DecodeError {}

/// A packet that can't be written, because no peer would accept it. The fault is the caller's; nothing was
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeError {
    what: &'static str,
}

impl EncodeError {
    /// What was wrong, in words for a log.
    pub const fn what(&self) -> &'static str {
        self.what
    }

    pub(super) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

/// The checks are the decoder's, so that both directions agree on what is valid.
impl From<DecodeError> for EncodeError {
    fn from(error: DecodeError) -> Self {
        Self::new(error.what)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet can't be encoded: {}", self.what)
    }
}

impl Error for EncodeError {}
