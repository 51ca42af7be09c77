//! The packets as views: fields that have been checked, borrowed from the bytes they came in.
//!
//! They are plain data with public fields, so that a client, a test or the gateway can build one for
//! [`encode`] just as well. Nothing in them depends on the protocol version, but that before version 5 the
//! properties are empty.
//!
//! [`encode`]: super::encode

use super::{Properties, ReasonCode, ReasonCodes, Subscriptions, TopicFilters, Version};
use core::num::NonZeroU16;

/// One control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a connection.
    Connect(Connect<'a>),
    /// The answer to it.
    ConnAck(ConnAck<'a>),
    /// A message, in either direction.
    Publish(Publish<'a>),
    /// A QoS 1 message has been taken over, or refused.
    PubAck(Ack<'a>),
    /// QoS 2, first: the message has been taken over, or refused.
    PubRec(Ack<'a>),
    /// QoS 2, second: it may be released.
    PubRel(Ack<'a>),
    /// QoS 2, third: it has been released.
    PubComp(Ack<'a>),
    /// A client subscribes.
    Subscribe(Subscribe<'a>),
    /// The answer to it.
    SubAck(SubAck<'a>),
    /// A client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// The answer to it.
    UnsubAck(UnsubAck<'a>),
    /// A client shows that it lives.
    PingReq,
    /// The answer to it.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// A step of extended authentication; version 5 only.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Which packet it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (section 3.1).
///
/// Whether the client identifier will do (an empty one, say) is for the session: it has an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that this connection speaks.
    pub version: Version,
    /// May be empty.
    pub client_id: &'a str,
    /// Forget an earlier session; *clean session* before version 5, where it also means to keep none
    /// afterwards.
    pub clean_start: bool,
    /// Seconds; 0 is no limit.
    pub keep_alive: u16,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password; only version 5 has it without a user name.
    pub password: Option<&'a [u8]>,
    /// What to publish should the client vanish.
    pub will: Option<Will<'a>>,
    /// CONNECT's properties.
    pub properties: Properties<'a>,
}

/// The message that a client leaves for the case that its connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// At most 65,535 bytes.
    pub payload: &'a [u8],
    /// The QoS to publish it with.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// The will's own properties.
    pub properties: Properties<'a>,
}

/// CONNACK (section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server has a session of this client. Written as false with any reason but success [MQTT-3.2.2-6].
    pub session_present: bool,
    /// Success, or why not. See [`ReasonCode::connect_return_code`] for versions before 5.
    pub reason: ReasonCode,
    /// CONNACK's properties.
    pub properties: Properties<'a>,
}

/// PUBLISH (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before; written as false for QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// The quality of service.
    pub qos: QoS,
    /// To be retained, or having been.
    pub retain: bool,
    /// A valid topic name; empty if, and only if, the properties have a topic alias and stand for it alone.
    pub topic: &'a str,
    /// Present for QoS 1 and 2. For QoS 0 it is ignored when writing.
    pub packet_id: Option<NonZeroU16>,
    /// PUBLISH's properties. The subscription identifiers that only a server may send are not refused here.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH that this is about.
    pub packet_id: NonZeroU16,
    /// Always success before version 5.
    pub reason: ReasonCode,
    /// The packet's properties.
    pub properties: Properties<'a>,
}

impl Ack<'_> {
    /// The plain one: no properties.
    pub const fn new(packet_id: NonZeroU16, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: Properties::EMPTY }
    }
}

/// SUBSCRIBE (section 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be given back in the SUBACK.
    pub packet_id: NonZeroU16,
    /// SUBSCRIBE's properties.
    pub properties: Properties<'a>,
    /// At least one filter with its options.
    pub subscriptions: Subscriptions<'a>,
}

/// SUBACK (section 3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// SUBACK's properties.
    pub properties: Properties<'a>,
    /// One for each filter, in order. Before version 5 every failure is 0x80.
    pub reasons: ReasonCodes<'a>,
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be given back in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// UNSUBSCRIBE's properties.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: TopicFilters<'a>,
}

/// UNSUBACK (section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// UNSUBACK's properties.
    pub properties: Properties<'a>,
    /// One for each filter, in order; none before version 5.
    pub reasons: ReasonCodes<'a>,
}

/// DISCONNECT (section 3.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Always a normal disconnection before version 5. There any other reason is said by closing the
    /// connection without a DISCONNECT, and [`encode`](super::encode) writes nothing.
    pub reason: ReasonCode,
    /// DISCONNECT's properties.
    pub properties: Properties<'a>,
}

/// AUTH (section 3.15).
///
/// That the authentication method is there, and the one of CONNECT, is for the session to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// AUTH's properties.
    pub properties: Properties<'a>,
}

/// Quality of service: how hard one hop tries to deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent and forgotten.
    AtMostOnce = 0,
    /// QoS 1: repeated after a reconnect until acknowledged.
    AtLeastOnce = 1,
    /// QoS 2: as QoS 1, and duplicates are recognised.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of this number; there is no QoS 3.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// 0, 1 or 2.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}

/// Which packet it is; the value is what the upper half of a packet's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the specification, see the variants of Packet")]
pub enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    /// Every type there is, in ascending order.
    pub const ALL: [PacketType; 15] = [
        PacketType::Connect,
        PacketType::ConnAck,
        PacketType::Publish,
        PacketType::PubAck,
        PacketType::PubRec,
        PacketType::PubRel,
        PacketType::PubComp,
        PacketType::Subscribe,
        PacketType::SubAck,
        PacketType::Unsubscribe,
        PacketType::UnsubAck,
        PacketType::PingReq,
        PacketType::PingResp,
        PacketType::Disconnect,
        PacketType::Auth,
    ];

    /// What the first byte of a packet announces; `None` for the forbidden type 0.
    pub const fn of_first_byte(byte: u8) -> Option<Self> {
        match byte >> 4 {
            0 => None,
            number => Some(Self::ALL[number as usize - 1]),
        }
    }

    /// The specification's name for it.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 15] = [
            "CONNECT",
            "CONNACK",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "SUBACK",
            "UNSUBSCRIBE",
            "UNSUBACK",
            "PINGREQ",
            "PINGRESP",
            "DISCONNECT",
            "AUTH",
        ];
        NAMES[self as usize - 1]
    }

    /// The lower half of the first byte, where it is fixed [MQTT-2.1.3-1]; PUBLISH has flags of its own.
    pub const fn reserved_flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of such a packet, for all but PUBLISH.
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }
}
