//! Random packets come back as they were; what is left of them in the older versions; and no bytes cause a
//! panic.

use super::packets::{packet, publish};
use crate::mqtt::*;
use core::num::NonZeroU16;
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn encoded(packet: &Packet<'_>, version: Version) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).map(|()| out)
}

/// What a peer of an older version sees of a packet, by the rules written once more; `None`: nothing.
fn before_v5<'a>(packet: Packet<'a>, version: Version) -> Option<Packet<'a>> {
    let plain = |ack: Ack<'a>| Ack::new(ack.packet_id, ReasonCode::Success);
    let properties = Properties::EMPTY;
    Some(match packet {
        Packet::Connect(connect) => {
            let will = connect.will.map(|will| Will { properties, ..will });
            Packet::Connect(Connect { version, will, properties, ..connect })
        }
        Packet::ConnAck(connack) => {
            let code = connack.reason.connect_return_code()?;
            let reason = ReasonCode::from_connect_return_code(code)?;
            let session_present = connack.session_present && version == Version::V311;
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        }
        Packet::Publish(publish) => Packet::Publish(Publish { properties, ..publish }),
        Packet::PubAck(ack) => Packet::PubAck(plain(ack)),
        Packet::PubRec(ack) => Packet::PubRec(plain(ack)),
        Packet::PubRel(ack) => Packet::PubRel(plain(ack)),
        Packet::PubComp(ack) => Packet::PubComp(plain(ack)),
        Packet::Subscribe(subscribe) => {
            let subscriptions: Vec<_> = subscribe
                .subscriptions
                .iter()
                .map(|(filter, options)| (filter, SubscriptionOptions::new(options.qos)))
                .collect();
            let subscriptions = Subscriptions::from(&*subscriptions.leak());
            Packet::Subscribe(Subscribe { properties, subscriptions, ..subscribe })
        }
        Packet::SubAck(suback) => {
            let known =
                |reason: ReasonCode| if reason.is_failure() { ReasonCode::UnspecifiedError } else { reason };
            let reasons: Vec<_> = suback.reasons.iter().map(known).collect();
            Packet::SubAck(SubAck { properties, reasons: ReasonCodes::from(&*reasons.leak()), ..suback })
        }
        Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe { properties, ..unsubscribe }),
        Packet::UnsubAck(unsuback) => {
            Packet::UnsubAck(UnsubAck { properties, reasons: ReasonCodes::EMPTY, ..unsuback })
        }
        Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::Success => {
            Packet::Disconnect(Disconnect { properties, ..disconnect })
        }
        Packet::Disconnect(_) | Packet::Auth(_) => return None,
        Packet::PingReq | Packet::PingResp => packet,
    })
}

/// Some packets of version 5 say what the older ones can't.
fn is_inexpressible(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => connect.password.is_some() && connect.username.is_none(),
        Packet::Publish(publish) => publish.topic.is_empty(),
        Packet::Auth(_) => true,
        _ => false,
    }
}

/// If bytes decode, then the error or the packet is one that can be handled further.
fn check_decoding(bytes: &[u8], version: Version) {
    let _ = (frame_length(bytes), refusal_version(bytes));
    match decode(bytes, version) {
        Ok(packet) => {
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let again = encoded(&packet, version).expect("what decodes can be encoded");
            assert_eq!(decode(&again, version), Ok(packet), "{bytes:02X?}");
        }
        Err(error) => {
            let told_in = match error.packet() {
                Some(PacketType::Connect) => PacketType::ConnAck,
                _ => PacketType::Disconnect,
            };
            assert!(error.reason().is_allowed_in(told_in), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn version_5_round_trip(packet in packet()) {
        let bytes = encoded(&packet, Version::V5).unwrap();
        prop_assert_eq!(frame_length(&bytes), Ok(Some(bytes.len())));
        prop_assert_eq!(decode(&bytes, Version::V5), Ok(packet));
        prop_assert_eq!(encoded(&decode(&bytes, Version::V5).unwrap(), Version::V5), Ok(bytes));
    }

    #[test]
    fn older_versions_round_trip(packet in packet()) {
        for version in [Version::V31, Version::V311] {
            let packet = if let Packet::Connect(connect) = packet {
                Packet::Connect(Connect { version, ..connect })
            } else {
                packet
            };
            if is_inexpressible(&packet) {
                prop_assert!(encoded(&packet, version).is_err());
                continue;
            }
            let bytes = encoded(&packet, version).unwrap();
            match before_v5(packet, version) {
                Some(expected) => prop_assert_eq!(decode(&bytes, version), Ok(expected)),
                None => prop_assert!(bytes.is_empty()),
            }
        }
    }

    #[test]
    fn a_shared_publish_is_what_encode_writes(publish in publish(), dup: bool) {
        for version in VERSIONS {
            let Ok(shared) = EncodedPublish::new(&publish, version) else {
                prop_assert!(publish.topic.is_empty() && version != Version::V5);
                continue;
            };
            let id = publish.packet_id.unwrap_or(NonZeroU16::MAX);
            let mut copy = b"before".to_vec();
            shared.copy_with_packet_id(id, dup, &mut copy);
            prop_assert_eq!(shared.size(), copy.len() - 6);
            let alone = encoded(&Packet::Publish(Publish { dup, ..publish }), version).unwrap();
            prop_assert_eq!(alone, &copy[6..]);
        }
    }

    #[test]
    fn every_part_of_a_packet_needs_more_or_is_refused(packet in packet()) {
        let bytes = encoded(&packet, Version::V5).unwrap();
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            prop_assert!(frame_length(part).is_ok_and(|length| length.is_none_or(|length| length > end)));
            prop_assert!(decode(part, Version::V5).is_err());
        }
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for version in VERSIONS {
            check_decoding(&bytes, version);
        }
    }

    #[test]
    fn bodies_never_panic(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let frame = [&[first, body.len() as u8], &body[..]].concat();
        for version in VERSIONS {
            check_decoding(&frame, version);
        }
    }

    #[test]
    fn mutated_packets_never_panic(
        packet in packet(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let bytes = encoded(&packet, Version::V5).unwrap();
        let mut changed = bytes.clone();
        for (at, byte) in changes {
            changed[at.index(bytes.len())] = byte;
        }
        // A body cut short under a header that agrees with it.
        let mut short = bytes[..cut.index(bytes.len() + 1)].to_vec();
        if (2..130).contains(&short.len()) {
            short[1] = short.len() as u8 - 2;
        }
        for version in VERSIONS {
            check_decoding(&changed, version);
            check_decoding(&short, version);
        }
    }
}
