//! Reason codes: their names, which packet may carry which, and what they are in versions before 5.

use super::{DecodeError, PacketType, QoS};
use core::fmt;

macro_rules! reason_codes {
    ($($code:literal $variant:ident $name:literal;)*) => {
        /// Why something succeeded or failed, as MQTT 5 numbers it (section 2.4).
        ///
        /// 0x80 and above are failures. 0x00 has three names in the specification, which depend on the
        /// packet: see [`ReasonCode::GRANTED_QOS_0`] and [`ReasonCode::NORMAL_DISCONNECTION`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = concat!("`", stringify!($code), "` ", $name, ".")] $variant = $code,)*
        }

        impl ReasonCode {
            /// Every code there is, in ascending order.
            pub const ALL: &'static [ReasonCode] = &[$(Self::$variant),*];

            /// The code of this number, if MQTT 5 knows it.
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The specification's name for it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success";
    0x01 GrantedQoS1 "Granted QoS 1";
    0x02 GrantedQoS2 "Granted QoS 2";
    0x04 DisconnectWithWill "Disconnect with Will Message";
    0x10 NoMatchingSubscribers "No matching subscribers";
    0x11 NoSubscriptionExisted "No subscription existed";
    0x18 ContinueAuthentication "Continue authentication";
    0x19 ReAuthenticate "Re-authenticate";
    0x80 UnspecifiedError "Unspecified error";
    0x81 MalformedPacket "Malformed Packet";
    0x82 ProtocolError "Protocol Error";
    0x83 ImplementationSpecificError "Implementation specific error";
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version";
    0x85 ClientIdentifierNotValid "Client Identifier not valid";
    0x86 BadUserNameOrPassword "Bad User Name or Password";
    0x87 NotAuthorized "Not authorized";
    0x88 ServerUnavailable "Server unavailable";
    0x89 ServerBusy "Server busy";
    0x8A Banned "Banned";
    0x8B ServerShuttingDown "Server shutting down";
    0x8C BadAuthenticationMethod "Bad authentication method";
    0x8D KeepAliveTimeout "Keep Alive timeout";
    0x8E SessionTakenOver "Session taken over";
    0x8F TopicFilterInvalid "Topic Filter invalid";
    0x90 TopicNameInvalid "Topic Name invalid";
    0x91 PacketIdentifierInUse "Packet Identifier in use";
    0x92 PacketIdentifierNotFound "Packet Identifier not found";
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded";
    0x94 TopicAliasInvalid "Topic Alias invalid";
    0x95 PacketTooLarge "Packet too large";
    0x96 MessageRateTooHigh "Message rate too high";
    0x97 QuotaExceeded "Quota exceeded";
    0x98 AdministrativeAction "Administrative action";
    0x99 PayloadFormatInvalid "Payload format invalid";
    0x9A RetainNotSupported "Retain not supported";
    0x9B QoSNotSupported "QoS not supported";
    0x9C UseAnotherServer "Use another server";
    0x9D ServerMoved "Server moved";
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported";
    0x9F ConnectionRateExceeded "Connection rate exceeded";
    0xA0 MaximumConnectTime "Maximum connect time";
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported";
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// What 0x00 is called in a SUBACK.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::Success;
    /// What 0x00 is called in a DISCONNECT.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::Success;

    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it reports a failure.
    pub const fn is_failure(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The SUBACK code that grants this maximum QoS.
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::GRANTED_QOS_0,
            QoS::AtLeastOnce => Self::GrantedQoS1,
            QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// Whether MQTT 5 lets this packet carry the code, in either direction.
    pub fn is_allowed_in(self, packet: PacketType) -> bool {
        allowed_in(packet).contains(&self)
    }

    /// The CONNACK return code that says this to a 3.1 or 3.1.1 client; `None` where there is none and the
    /// connection must be closed without a CONNACK (3.1.1 [MQTT-3.2.2-6]).
    pub const fn connect_return_code(self) -> Option<u8> {
        use ReasonCode::*;
        Some(match self {
            Success => 0,
            UnsupportedProtocolVersion => 1,
            ClientIdentifierNotValid => 2,
            ServerUnavailable
            | ServerBusy
            | UseAnotherServer
            | ServerMoved
            | ConnectionRateExceeded
            | QuotaExceeded
            | UnspecifiedError
            | ImplementationSpecificError => 3,
            BadUserNameOrPassword | BadAuthenticationMethod => 4,
            NotAuthorized | Banned => 5,
            _ => return None,
        })
    }

    /// What a 3.1 or 3.1.1 CONNACK return code means.
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        use ReasonCode::*;
        Some(match code {
            0 => Success,
            1 => UnsupportedProtocolVersion,
            2 => ClientIdentifierNotValid,
            3 => ServerUnavailable,
            4 => BadUserNameOrPassword,
            5 => NotAuthorized,
            _ => return None,
        })
    }

    /// The code of this number, if the packet may carry it.
    pub(super) fn checked(code: u8, packet: PacketType) -> Result<Self, DecodeError> {
        match Self::from_u8(code) {
            Some(reason) => reason.check(packet).map(|()| reason),
            None => Err(DecodeError::malformed("unknown reason code")),
        }
    }

    pub(super) fn check(self, packet: PacketType) -> Result<(), DecodeError> {
        // The usual case, and in every list but that of packets without reason codes, which don't ask.
        if self == Self::Success || self.is_allowed_in(packet) {
            return Ok(());
        }
        Err(DecodeError::protocol("reason code that this packet can't carry"))
    }
}

/// The tables of sections 3.2.2.2, 3.4.2.1 to 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1 and 3.15.2.1.
const fn allowed_in(packet: PacketType) -> &'static [ReasonCode] {
    use ReasonCode::*;
    match packet {
        PacketType::ConnAck => &[
            Success,
            UnspecifiedError,
            MalformedPacket,
            ProtocolError,
            ImplementationSpecificError,
            UnsupportedProtocolVersion,
            ClientIdentifierNotValid,
            BadUserNameOrPassword,
            NotAuthorized,
            ServerUnavailable,
            ServerBusy,
            Banned,
            BadAuthenticationMethod,
            TopicNameInvalid,
            PacketTooLarge,
            QuotaExceeded,
            PayloadFormatInvalid,
            RetainNotSupported,
            QoSNotSupported,
            UseAnotherServer,
            ServerMoved,
            ConnectionRateExceeded,
        ],
        PacketType::PubAck | PacketType::PubRec => &[
            Success,
            NoMatchingSubscribers,
            UnspecifiedError,
            ImplementationSpecificError,
            NotAuthorized,
            TopicNameInvalid,
            PacketIdentifierInUse,
            QuotaExceeded,
            PayloadFormatInvalid,
        ],
        PacketType::PubRel | PacketType::PubComp => &[Success, PacketIdentifierNotFound],
        PacketType::SubAck => &[
            Success,
            GrantedQoS1,
            GrantedQoS2,
            UnspecifiedError,
            ImplementationSpecificError,
            NotAuthorized,
            TopicFilterInvalid,
            PacketIdentifierInUse,
            QuotaExceeded,
            SharedSubscriptionsNotSupported,
            SubscriptionIdentifiersNotSupported,
            WildcardSubscriptionsNotSupported,
        ],
        PacketType::UnsubAck => &[
            Success,
            NoSubscriptionExisted,
            UnspecifiedError,
            ImplementationSpecificError,
            NotAuthorized,
            TopicFilterInvalid,
            PacketIdentifierInUse,
        ],
        PacketType::Disconnect => &[
            Success,
            DisconnectWithWill,
            UnspecifiedError,
            MalformedPacket,
            ProtocolError,
            ImplementationSpecificError,
            NotAuthorized,
            ServerBusy,
            ServerShuttingDown,
            KeepAliveTimeout,
            SessionTakenOver,
            TopicFilterInvalid,
            TopicNameInvalid,
            ReceiveMaximumExceeded,
            TopicAliasInvalid,
            PacketTooLarge,
            MessageRateTooHigh,
            QuotaExceeded,
            AdministrativeAction,
            PayloadFormatInvalid,
            RetainNotSupported,
            QoSNotSupported,
            UseAnotherServer,
            ServerMoved,
            SharedSubscriptionsNotSupported,
            ConnectionRateExceeded,
            MaximumConnectTime,
            SubscriptionIdentifiersNotSupported,
            WildcardSubscriptionsNotSupported,
        ],
        PacketType::Auth => &[Success, ContinueAuthentication, ReAuthenticate],
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::PingResp => &[],
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.as_u8(), self.name())
    }
}
