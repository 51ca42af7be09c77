//! The one table from Bugle's reasons to MQTT's reason codes (T3). What the codes are before version 5 is the
//! codec's to know.

use crate::model::{QoS, Reason, Refusal};
use crate::mqtt::ReasonCode;

/// For PUBACK and PUBREC. A bad name stands in the topic, so it makes a bad topic name.
pub(super) fn for_publish(reason: Reason) -> ReasonCode {
    match reason {
        Reason::RateLimited | Reason::Overflow | Reason::TooMany | Reason::Busy => ReasonCode::QuotaExceeded,
        Reason::NotAuthorized | Reason::NotAuthenticated | Reason::Muted | Reason::Banned => {
            ReasonCode::NotAuthorized
        }
        Reason::BadTopic | Reason::BadName => ReasonCode::TopicNameInvalid,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// For SUBACK.
pub(super) fn for_subscribe(result: &Result<QoS, Refusal>, wanted: QoS) -> ReasonCode {
    let refusal = match result {
        Ok(granted) => return ReasonCode::granted(wanted.min(*granted)),
        Err(refusal) => refusal,
    };
    match refusal.reason {
        Reason::RateLimited | Reason::Overflow | Reason::TooMany | Reason::Busy => ReasonCode::QuotaExceeded,
        Reason::NotAuthorized | Reason::NotAuthenticated | Reason::Kicked | Reason::Banned => {
            ReasonCode::NotAuthorized
        }
        Reason::BadTopic | Reason::BadName => ReasonCode::TopicFilterInvalid,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// For CONNACK.
pub(super) fn for_connect(reason: Reason) -> ReasonCode {
    match reason {
        Reason::NotAuthenticated => ReasonCode::BadUserNameOrPassword,
        Reason::NotAuthorized => ReasonCode::NotAuthorized,
        Reason::Kicked | Reason::Banned => ReasonCode::Banned,
        Reason::BadName => ReasonCode::ClientIdentifierNotValid,
        Reason::BadTopic => ReasonCode::TopicNameInvalid,
        Reason::ShuttingDown => ReasonCode::ServerUnavailable,
        Reason::Busy | Reason::TakenOver => ReasonCode::ServerBusy,
        Reason::TooMany | Reason::Overflow => ReasonCode::QuotaExceeded,
        Reason::RateLimited => ReasonCode::ConnectionRateExceeded,
        Reason::TooLarge | Reason::FrameTooLarge => ReasonCode::PacketTooLarge,
        Reason::Malformed => ReasonCode::MalformedPacket,
        Reason::ProtocolError => ReasonCode::ProtocolError,
        Reason::UnsupportedVersion => ReasonCode::UnsupportedProtocolVersion,
        Reason::Internal => ReasonCode::UnspecifiedError,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// For a CONNECT whose will can't be a send (T1): what is wrong stands in its topic, but for two things.
pub(super) fn for_will(reason: Reason) -> ReasonCode {
    match reason {
        Reason::RetainRefused => ReasonCode::RetainNotSupported,
        Reason::TooLarge => ReasonCode::PacketTooLarge,
        Reason::NotAuthorized => ReasonCode::NotAuthorized,
        _ => ReasonCode::TopicNameInvalid,
    }
}

/// For DISCONNECT.
pub(super) fn for_disconnect(reason: Reason) -> ReasonCode {
    match reason {
        Reason::TakenOver => ReasonCode::SessionTakenOver,
        Reason::ShuttingDown => ReasonCode::ServerShuttingDown,
        Reason::Kicked | Reason::Banned => ReasonCode::AdministrativeAction,
        Reason::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
        Reason::NotAuthorized | Reason::NotAuthenticated => ReasonCode::NotAuthorized,
        Reason::RateLimited => ReasonCode::MessageRateTooHigh,
        Reason::TooMany | Reason::Overflow => ReasonCode::QuotaExceeded,
        Reason::Busy => ReasonCode::ServerBusy,
        Reason::TooLarge | Reason::FrameTooLarge => ReasonCode::PacketTooLarge,
        Reason::WindowExceeded => ReasonCode::ReceiveMaximumExceeded,
        Reason::Malformed => ReasonCode::MalformedPacket,
        Reason::ProtocolError => ReasonCode::ProtocolError,
        Reason::Normal => ReasonCode::NORMAL_DISCONNECTION,
        Reason::Internal => ReasonCode::UnspecifiedError,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// The way back, for counting: what a client did that the session ended its connection for.
pub(super) fn of_fault(code: ReasonCode) -> Reason {
    match code {
        ReasonCode::MalformedPacket => Reason::Malformed,
        ReasonCode::PacketTooLarge => Reason::FrameTooLarge,
        ReasonCode::KeepAliveTimeout => Reason::KeepAliveTimeout,
        ReasonCode::ReceiveMaximumExceeded => Reason::WindowExceeded,
        ReasonCode::UnsupportedProtocolVersion => Reason::UnsupportedVersion,
        ReasonCode::ClientIdentifierNotValid => Reason::BadName,
        ReasonCode::TopicNameInvalid | ReasonCode::TopicFilterInvalid => Reason::BadTopic,
        ReasonCode::RetainNotSupported => Reason::RetainRefused,
        ReasonCode::NotAuthorized => Reason::NotAuthorized,
        ReasonCode::BadAuthenticationMethod => Reason::Unsupported,
        ReasonCode::QuotaExceeded => Reason::TooMany,
        _ => Reason::ProtocolError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::PacketType;

    /// [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.9.3-2] [MQTT-3.14.2-1]
    #[test]
    fn every_reason_has_a_code_that_its_packet_may_carry() {
        for &reason in Reason::ALL {
            let refused = Err(Refusal::new(reason, ""));
            assert!(for_publish(reason).is_allowed_in(PacketType::PubAck), "{reason}");
            assert!(for_publish(reason).is_allowed_in(PacketType::PubRec), "{reason}");
            assert!(for_subscribe(&refused, QoS::AtMostOnce).is_allowed_in(PacketType::SubAck), "{reason}");
            assert!(for_connect(reason).is_allowed_in(PacketType::ConnAck), "{reason}");
            assert!(for_will(reason).is_allowed_in(PacketType::ConnAck), "{reason}");
            assert!(for_disconnect(reason).is_allowed_in(PacketType::Disconnect), "{reason}");
        }
    }
}
