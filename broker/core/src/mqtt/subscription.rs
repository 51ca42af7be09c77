//! The lists in SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK, and a subscription's options.
//!
//! Each list is either bytes of a packet, checked when it was decoded and read again while iterating, or a
//! slice that the caller wants to have encoded, checked then.

use super::wire::Reader;
use super::{DecodeError, PacketType, QoS, ReasonCode, Version, topic};
use core::fmt;

/// What a subscriber wants; before version 5 only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS to deliver with.
    pub qos: QoS,
    /// Not to get what this client itself published.
    pub no_local: bool,
    /// To get the RETAIN flag as the publisher set it.
    pub retain_as_published: bool,
    /// What to do with retained messages at the time of subscribing.
    pub retain_handling: RetainHandling,
}

/// Whether subscribing brings the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Always.
    SendAtSubscribe = 0,
    /// If there was no such subscription yet.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl SubscriptionOptions {
    /// What a subscription before version 5 means.
    pub const fn new(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The options byte; before version 5 its upper six bits are reserved.
    pub(super) const fn as_u8(self, version: Version) -> u8 {
        let options = (self.retain_handling as u8) << 4
            | (self.retain_as_published as u8) << 3
            | (self.no_local as u8) << 2;
        self.qos.as_u8() | if version.has_properties() { options } else { 0 }
    }

    /// Reads an options byte of version 5, of which the older ones are a subset.
    fn from_u8(byte: u8) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-5]
        if byte & 0b1100_0000 != 0 {
            return Err(DecodeError::malformed("reserved subscription option bits are set"));
        }
        Ok(Self {
            qos: QoS::from_u8(byte & 0b11).ok_or(DecodeError::malformed("subscription with QoS 3"))?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 & 0b11 {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::protocol("retain handling 3")),
            },
        })
    }
}

/// Where a list is.
#[derive(Clone, Copy)]
enum Source<'a, T> {
    Packet(&'a [u8]),
    Slice(&'a [T]),
}

impl<'a, T: Copy> Source<'a, T> {
    /// The items, whichever place they are in. A packet's end is the only error that its reader can meet.
    fn iter(
        self,
        read: fn(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> impl Iterator<Item = T> + use<'a, T> {
        let (packet, slice): (&[u8], &[T]) = match self {
            Source::Packet(packet) => (packet, &[]),
            Source::Slice(slice) => (&[], slice),
        };
        let mut reader = Reader::new(packet);
        core::iter::from_fn(move || read(&mut reader).ok()).chain(slice.iter().copied())
    }
}

/// Each list's item, how to read it, and how to iterate, compare and show the list.
macro_rules! list {
    ($(#[$doc:meta])* $list:ident of $item:ty, read by $read:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $list<'a>(Source<'a, $item>);

        impl<'a> $list<'a> {
            /// The items in order.
            pub fn iter(&self) -> impl Iterator<Item = $item> + use<'a> {
                self.0.iter($read)
            }
        }

        impl<'a> From<&'a [$item]> for $list<'a> {
            fn from(items: &'a [$item]) -> Self {
                Self(Source::Slice(items))
            }
        }

        impl<'a, const N: usize> From<&'a [$item; N]> for $list<'a> {
            fn from(items: &'a [$item; N]) -> Self {
                Self(Source::Slice(items))
            }
        }

        impl PartialEq for $list<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $list<'_> {}

        impl fmt::Debug for $list<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

list! {
    /// What a SUBSCRIBE asks for: topic filters with their options.
    Subscriptions of (&'a str, SubscriptionOptions), read by read_subscription
}

list! {
    /// The topic filters of an UNSUBSCRIBE.
    TopicFilters of &'a str, read by Reader::string
}

list! {
    /// The reason codes of a SUBACK or UNSUBACK.
    ReasonCodes of ReasonCode, read by read_reason
}

impl<'a> Subscriptions<'a> {
    /// All that is left of a SUBSCRIBE.
    pub(super) fn read(mut reader: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let source = Source::Packet(reader.rest());
        check_not_empty(&reader)?;
        while !reader.is_empty() {
            let (filter, options) = read_subscription(&mut reader)?;
            if options.as_u8(version) != options.as_u8(Version::V5) {
                // 3.1.1 [MQTT-3-8.3-4]
                return Err(DecodeError::malformed("subscription options of MQTT 5 in an older version"));
            }
            check_subscription(filter, options, version)?;
        }
        Ok(Self(source))
    }
}

impl<'a> TopicFilters<'a> {
    /// All that is left of an UNSUBSCRIBE.
    pub(super) fn read(mut reader: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let source = Source::Packet(reader.rest());
        check_not_empty(&reader)?;
        while !reader.is_empty() {
            check_filter(reader.string()?, version)?;
        }
        Ok(Self(source))
    }
}

impl<'a> ReasonCodes<'a> {
    /// None, as in an UNSUBACK before version 5.
    pub const EMPTY: ReasonCodes<'static> = ReasonCodes(Source::Slice(&[]));

    /// All that is left of a SUBACK or UNSUBACK.
    pub(super) fn read(
        reader: Reader<'a>,
        packet: PacketType,
        version: Version,
    ) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            return Err(DecodeError::protocol("no reason code"));
        }
        for &byte in reader.rest() {
            let reason = ReasonCode::checked(byte, packet)?;
            // 3.1.1 [MQTT-3.9.3-2]
            if !version.has_properties() && reason != suback_before_v5(reason) {
                return Err(DecodeError::malformed("reason code of MQTT 5 in an older version"));
            }
        }
        Ok(Self(Source::Packet(reader.rest())))
    }
}

/// What a SUBACK before version 5 says in place of this reason: it knows a single failure, 0x80.
pub(super) const fn suback_before_v5(reason: ReasonCode) -> ReasonCode {
    if reason.is_failure() { ReasonCode::UnspecifiedError } else { reason }
}

/// Whether a filter can be subscribed to with these options.
pub(super) fn check_subscription(
    filter: &str,
    options: SubscriptionOptions,
    version: Version,
) -> Result<(), DecodeError> {
    let shared = check_filter(filter, version)?;
    // [MQTT-3.8.3-4]
    if shared && options.no_local && version.has_properties() {
        return Err(DecodeError::protocol("no local on a shared subscription"));
    }
    Ok(())
}

/// Whether a filter is valid, and then whether it is shared.
///
/// Before version 5 `$share` means nothing; a server may still share such a subscription, and calls
/// [`topic::parse_shared`] on it itself.
pub(super) fn check_filter(filter: &str, version: Version) -> Result<bool, DecodeError> {
    if !topic::is_valid_filter(filter) {
        return Err(DecodeError::because(ReasonCode::TopicFilterInvalid, "malformed topic filter"));
    }
    Ok(version.has_properties() && topic::parse_shared(filter)?.is_some())
}

fn check_not_empty(reader: &Reader<'_>) -> Result<(), DecodeError> {
    // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    if reader.is_empty() { Err(DecodeError::protocol("no topic filter")) } else { Ok(()) }
}

fn read_subscription<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, SubscriptionOptions), DecodeError> {
    let filter = reader.string()?;
    Ok((filter, SubscriptionOptions::from_u8(reader.u8()?)?))
}

fn read_reason(reader: &mut Reader<'_>) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(reader.u8()?).ok_or(DecodeError::malformed("unknown reason code"))
}
