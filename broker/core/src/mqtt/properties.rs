//! Properties: a view of the raw bytes that has been checked once, and reads them again when asked (section
//! 2.2.2).
//!
//! Which ones occur is kept as a bit set, so that asking for an absent one costs nothing. Which ones a packet
//! may carry is a bit set as well. Writing them is `property_writer.rs`.

use super::wire::{Reader, put_binary, put_string, put_varint, varint_length};
use super::{DecodeError, EncodeError, PacketType, ReasonCode, topic};
use core::fmt;

/// The properties of one packet, in the order they were sent. Always empty before version 5.
///
/// Single-valued properties have an accessor each; the two that repeat have iterators.
#[derive(Clone, Copy, Default)]
pub struct Properties<'a> {
    /// Without the length in front.
    raw: &'a [u8],
    present: PropertySet,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { raw: &[], present: PropertySet::NONE };

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// All of them, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut reader = Reader::new(self.raw);
        // Checked before, so the only error is the end of the bytes.
        core::iter::from_fn(move || Property::read(&mut reader).ok())
    }

    /// The user properties: name and value, in order; names may repeat [MQTT-3.3.2-18].
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.every(0x26).filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The subscription identifiers: one in SUBSCRIBE, any number in a PUBLISH from a server.
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.every(0x0B).filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// A walk over all properties if there is one with this identifier, else over none.
    fn every(&self, id: u8) -> impl Iterator<Item = Property<'a>> + use<'a> {
        if self.present.contains(id) { *self } else { Self::EMPTY }.iter()
    }

    /// Reads a property length and as many bytes, all of which must be valid properties that `allowed`
    /// contains.
    pub(super) fn read(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let length = reader.varint()?;
        let raw = reader.take(length as usize)?;
        let mut rest = Reader::new(raw);
        let mut present = PropertySet::NONE;
        while !rest.is_empty() {
            let property = Property::read(&mut rest)?;
            present.insert(property.id())?;
            // Before the value, so that a bad topic alias in a CONNECT isn't called by a reason CONNACK can't
            // give.
            present.check(allowed)?;
            property.check()?;
        }
        present.check_together()?;
        Ok(Self { raw, present })
    }

    /// From properties that a writer has checked one by one.
    pub(super) const fn from_parts(raw: &'a [u8], present: PropertySet) -> Self {
        Self { raw, present }
    }

    /// The bytes that [`Self::write`] will add.
    pub(super) const fn written_length(&self) -> usize {
        varint_length(self.raw.len()) + self.raw.len()
    }

    /// Writes the property length and the properties.
    pub(super) fn write(&self, allowed: PropertySet, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.present.check(allowed)?;
        self.present.check_together()?;
        put_varint(self.raw.len(), out)?;
        out.extend_from_slice(self.raw);
        Ok(())
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One line for each property: identifier, name, the wire type of each part with its Rust type, accessor,
/// meaning.
macro_rules! properties {
    ($($id:literal $name:ident ($($wire:ident: $type:ty),+) $doc:literal;)*) => {
        /// One property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Property<'a> {
            $(#[doc = $doc] $name($($type),+),)*
        }

        impl<'a> Property<'a> {
            /// The property's identifier on the wire.
            pub const fn id(&self) -> u8 {
                match self { $(Self::$name(..) => $id,)* }
            }

            /// Reads one; whether its value is in range is for [`Self::check`] to say.
            fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                // A variable byte integer by the specification, but all that are defined take one byte.
                match reader.u8()? {
                    $($id => Ok(Self::$name($(reader.$wire()?),+)),)*
                    _ => Err(DecodeError::malformed("unknown property")),
                }
            }
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(flag: bool) "Whether the payload is UTF-8 text.";
    0x02 MessageExpiryInterval(u32: u32) "Seconds that the message is worth delivering.";
    0x03 ContentType(string: &'a str) "What the payload is; a MIME type, often.";
    0x08 ResponseTopic(string: &'a str) "A valid topic name to answer to.";
    0x09 CorrelationData(binary: &'a [u8]) "What tells the requester which request is answered.";
    0x0B SubscriptionIdentifier(varint: u32) "The subscription's number, 1 to 268,435,455.";
    0x11 SessionExpiryInterval(u32: u32) "Seconds a session outlives its connection; `u32::MAX` is for ever.";
    0x12 AssignedClientIdentifier(string: &'a str) "The identifier given to a client that had none.";
    0x13 ServerKeepAlive(u16: u16) "The keep-alive in seconds that holds instead of the client's.";
    0x15 AuthenticationMethod(string: &'a str) "Which extended authentication.";
    0x16 AuthenticationData(binary: &'a [u8]) "Whatever the method says; never without a method.";
    0x17 RequestProblemInformation(flag: bool) "If not: no reason strings outside of CONNACK and DISCONNECT.";
    0x18 WillDelayInterval(u32: u32) "Seconds before the will is published.";
    0x19 RequestResponseInformation(flag: bool) "Whether CONNACK may carry response information.";
    0x1A ResponseInformation(string: &'a str) "A basis for response topics.";
    0x1C ServerReference(string: &'a str) "Another server to use.";
    0x1F ReasonString(string: &'a str) "Words for a human; not to be parsed.";
    0x21 ReceiveMaximum(u16: u16) "How many QoS 1 and 2 messages may be unacknowledged, at least 1.";
    0x22 TopicAliasMaximum(u16: u16) "The highest topic alias taken; 0 is none.";
    0x23 TopicAlias(u16: u16) "A number for the topic, at least 1.";
    0x24 MaximumQoS(u8: u8) "The highest QoS taken: 0 or 1.";
    0x25 RetainAvailable(flag: bool) "Whether messages can be retained.";
    0x26 UserProperty(string: &'a str, string: &'a str) "A name and a value of the application's own.";
    0x27 MaximumPacketSize(u32: u32) "The largest packet taken, in bytes, fixed header included; at least 1.";
    0x28 WildcardSubscriptionAvailable(flag: bool) "Whether filters may have wildcards.";
    0x29 SubscriptionIdentifierAvailable(flag: bool) "Whether subscriptions may have identifiers.";
    0x2A SharedSubscriptionAvailable(flag: bool) "Whether subscriptions may be shared.";
}

impl Property<'_> {
    /// Whether the value is one that the specification allows.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match *self {
            Self::ReceiveMaximum(0) | Self::MaximumPacketSize(0) | Self::SubscriptionIdentifier(0) => {
                Err(DecodeError::protocol("a property that can't be zero is"))
            }
            // [MQTT-3.3.2-8]
            Self::TopicAlias(0) => {
                Err(DecodeError::because(ReasonCode::TopicAliasInvalid, "topic alias is zero"))
            }
            Self::MaximumQoS(2..) => Err(DecodeError::protocol("maximum QoS is neither 0 nor 1")),
            // [MQTT-3.3.2-14]
            Self::ResponseTopic(name) if !topic::is_valid_name(name) => {
                Err(DecodeError::protocol("response topic is no topic name"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the identifier and the value.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(self.id());
        match *self {
            Self::PayloadFormatIndicator(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => out.push(flag.into()),
            Self::MaximumQoS(byte) => out.push(byte),
            Self::ServerKeepAlive(number)
            | Self::ReceiveMaximum(number)
            | Self::TopicAliasMaximum(number)
            | Self::TopicAlias(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::MessageExpiryInterval(number)
            | Self::SessionExpiryInterval(number)
            | Self::WillDelayInterval(number)
            | Self::MaximumPacketSize(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::SubscriptionIdentifier(number) => put_varint(number as usize, out)?,
            Self::ContentType(string)
            | Self::ResponseTopic(string)
            | Self::AssignedClientIdentifier(string)
            | Self::AuthenticationMethod(string)
            | Self::ResponseInformation(string)
            | Self::ServerReference(string)
            | Self::ReasonString(string) => put_string(string, out)?,
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => put_binary(bytes, out)?,
            Self::UserProperty(name, value) => {
                put_string(name, out)?;
                put_string(value, out)?;
            }
        }
        Ok(())
    }
}

macro_rules! accessors {
    ($($accessor:ident: $type:ty = $id:literal $name:ident, $doc:literal;)*) => {
        impl<'a> Properties<'a> {
            $(#[doc = concat!("The value of [`Property::", stringify!($name), "`]. ", $doc)]
            pub fn $accessor(&self) -> Option<$type> {
                self.every($id).find_map(|property| match property {
                    Property::$name(value) => Some(value),
                    _ => None,
                })
            })*
        }
    };
}

accessors! {
    payload_format: bool = 0x01 PayloadFormatIndicator, "";
    message_expiry: u32 = 0x02 MessageExpiryInterval, "In seconds.";
    content_type: &'a str = 0x03 ContentType, "";
    response_topic: &'a str = 0x08 ResponseTopic, "A valid topic name.";
    correlation_data: &'a [u8] = 0x09 CorrelationData, "";
    subscription_id: u32 = 0x0B SubscriptionIdentifier, "The first one; not zero.";
    session_expiry: u32 = 0x11 SessionExpiryInterval, "In seconds; absent is 0.";
    assigned_client_id: &'a str = 0x12 AssignedClientIdentifier, "";
    server_keep_alive: u16 = 0x13 ServerKeepAlive, "In seconds.";
    authentication_method: &'a str = 0x15 AuthenticationMethod, "";
    authentication_data: &'a [u8] = 0x16 AuthenticationData, "";
    request_problem_information: bool = 0x17 RequestProblemInformation, "Absent is true.";
    will_delay: u32 = 0x18 WillDelayInterval, "In seconds; absent is 0.";
    request_response_information: bool = 0x19 RequestResponseInformation, "Absent is false.";
    response_information: &'a str = 0x1A ResponseInformation, "";
    server_reference: &'a str = 0x1C ServerReference, "";
    reason_string: &'a str = 0x1F ReasonString, "";
    receive_maximum: u16 = 0x21 ReceiveMaximum, "Not zero; absent is 65,535.";
    topic_alias_maximum: u16 = 0x22 TopicAliasMaximum, "Absent is 0.";
    topic_alias: u16 = 0x23 TopicAlias, "Not zero.";
    maximum_qos: u8 = 0x24 MaximumQoS, "0 or 1; absent is 2.";
    retain_available: bool = 0x25 RetainAvailable, "Absent is true.";
    maximum_packet_size: u32 = 0x27 MaximumPacketSize, "In bytes, not zero; absent is no limit.";
    wildcard_subscription_available: bool = 0x28 WildcardSubscriptionAvailable, "Absent is true.";
    subscription_id_available: bool = 0x29 SubscriptionIdentifierAvailable, "Absent is true.";
    shared_subscription_available: bool = 0x2A SharedSubscriptionAvailable, "Absent is true.";
}

/// A set of property identifiers, bit n standing for identifier n (the highest is 0x2A).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PropertySet(u64);

impl PropertySet {
    pub(super) const NONE: Self = Self(0);
    /// A bit of its own for the one property that may repeat in one packet (PUBLISH) but not in another.
    const TWO_SUBSCRIPTION_IDS: u64 = 1 << 63;

    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < ids.len() {
            bits |= 1 << ids[index];
            index += 1;
        }
        Self(bits)
    }

    pub(super) const fn contains(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }

    /// Notes one more property; only the user property and the subscription identifier may come again.
    pub(super) fn insert(&mut self, id: u8) -> Result<(), DecodeError> {
        match (self.contains(id), id) {
            (false, _) => self.0 |= 1 << id,
            (true, 0x26) => {}
            (true, 0x0B) => self.0 |= Self::TWO_SUBSCRIPTION_IDS,
            (true, _) => return Err(DecodeError::protocol("property occurs twice")),
        }
        Ok(())
    }

    /// Whether a packet that may have the `allowed` ones may have all of these.
    fn check(self, allowed: Self) -> Result<(), DecodeError> {
        match self.0 & !allowed.0 {
            0 => Ok(()),
            Self::TWO_SUBSCRIPTION_IDS => Err(DecodeError::protocol("property occurs twice")),
            _ => Err(DecodeError::malformed("property that this packet can't carry")),
        }
    }

    /// Whether one is missing that another one needs (sections 3.1.2.11.10, 3.2.2.3.18, 3.15.2.2.3).
    fn check_together(self) -> Result<(), DecodeError> {
        if self.contains(0x16) && !self.contains(0x15) {
            return Err(DecodeError::protocol("authentication data without a method"));
        }
        Ok(())
    }

    /// What the will in a CONNECT may have.
    pub(super) const WILL: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);

    /// What a packet may have (table 2-4 of the specification).
    pub(super) const fn allowed_in(packet: PacketType) -> Self {
        const CONNECT: PropertySet = PropertySet::of(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
        const CONNACK: PropertySet = PropertySet::of(&[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
            0x2A,
        ]);
        const PUBLISH: PropertySet = PropertySet(
            PropertySet::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26]).0
                | PropertySet::TWO_SUBSCRIPTION_IDS,
        );
        const ACKNOWLEDGEMENT: PropertySet = PropertySet::of(&[0x1F, 0x26]);
        const SUBSCRIBE: PropertySet = PropertySet::of(&[0x0B, 0x26]);
        const UNSUBSCRIBE: PropertySet = PropertySet::of(&[0x26]);
        const DISCONNECT: PropertySet = PropertySet::of(&[0x11, 0x1C, 0x1F, 0x26]);
        const AUTH: PropertySet = PropertySet::of(&[0x15, 0x16, 0x1F, 0x26]);
        match packet {
            PacketType::Connect => CONNECT,
            PacketType::ConnAck => CONNACK,
            PacketType::Publish => PUBLISH,
            PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::SubAck
            | PacketType::UnsubAck => ACKNOWLEDGEMENT,
            PacketType::Subscribe => SUBSCRIBE,
            PacketType::Unsubscribe => UNSUBSCRIBE,
            PacketType::Disconnect => DISCONNECT,
            PacketType::Auth => AUTH,
            PacketType::PingReq | PacketType::PingResp => Self::NONE,
        }
    }
}
