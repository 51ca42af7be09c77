//! Enhanced authentication [section 4.12]: SCRAM-SHA-256, at the beginning and again.

use bugle_core::mqtt::{
    Auth, Packet, PacketType, Properties, Property, PropertyWriter, ReasonCode, Version, decode, frame_length,
};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::gateway::{Gateway, Setup};
use crate::peer::{Broker, How, Peer, V5, publish};

const METHOD: Property<'static> = Property::AuthenticationMethod("SCRAM-SHA-256");
const FIRST: &str = "n,,n=lamp,r=client-nonce";

/// With the secret `opensesame` for `lamp`.
fn each(story: impl Fn(Broker)) {
    for (shards, seed) in [(1, None), (3, Some(5))] {
        let secrets = vec![("lamp".to_owned(), b"opensesame".to_vec())];
        story(Broker { gateway: Gateway::new(&Setup { secrets, ..Setup::new(shards, seed) }) });
    }
}

fn begin(broker: &mut Broker, first: &'static str) -> (Peer, Vec<String>) {
    let how = How::default().with(METHOD).with(Property::AuthenticationData(first.as_bytes()));
    broker.try_connect(V5, "lamp", &how)
}

fn auth(broker: &mut Broker, peer: &mut Peer, reason: ReasonCode, data: &[u8]) -> Vec<String> {
    auth_by(broker, peer, reason, METHOD, data)
}

fn auth_by(
    broker: &mut Broker,
    peer: &mut Peer,
    reason: ReasonCode,
    method: Property<'_>,
    data: &[u8],
) -> Vec<String> {
    let mut writer = PropertyWriter::new();
    writer.extend([method, Property::AuthenticationData(data)]);
    broker.tell(peer, &Packet::Auth(Auth { reason, properties: writer.finish().unwrap() }))
}

/// The data of the last packet that the client got.
fn last_data(broker: &Broker, peer: &Peer) -> (PacketType, String) {
    let mut bytes = broker.gateway.bytes(peer.who);
    let mut data = None;
    while let Ok(Some(length)) = frame_length(bytes) {
        let (frame, rest) = bytes.split_at(length);
        let packet = decode(frame, Version::V5).unwrap();
        let of = |properties: &Properties<'_>| properties.authentication_data().map(<[u8]>::to_vec);
        let found = match &packet {
            Packet::ConnAck(connack) => of(&connack.properties),
            Packet::Auth(auth) => of(&auth.properties),
            _ => None,
        };
        data = found.map(|data| (packet.packet_type(), String::from_utf8(data).unwrap())).or(data);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    data.unwrap()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

/// The client's last message, and what the gateway has to answer, as RFC 5802 has it.
fn prove(server_first: &str, secret: &str) -> (String, String) {
    prove_as(&FIRST[3..], server_first, secret)
}

fn prove_as(first_bare: &str, server_first: &str, secret: &str) -> (String, String) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let salt = STANDARD.decode(field("s=")).unwrap();
    assert!(salt.len() >= 16 && field("r=").starts_with("client-nonce") && field("r=").len() > 30);
    let mut round = hmac(secret.as_bytes(), &[&salt[..], &[0, 0, 0, 1]].concat());
    let mut salted = round.clone();
    for _ in 1..field("i=").parse::<u32>().unwrap() {
        round = hmac(secret.as_bytes(), &round);
        salted = xor(&salted, &round);
    }
    let client_key = hmac(&salted, b"Client Key");
    let stored = Sha256::digest(&client_key);
    let without_proof = format!("c=biws,r={}", field("r="));
    let signed = format!("{first_bare},{server_first},{without_proof}");
    let proof = STANDARD.encode(xor(&client_key, &hmac(&stored, signed.as_bytes())));
    let server = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
    (format!("{without_proof},p={proof}"), format!("v={}", STANDARD.encode(server)))
}

fn connected(broker: &mut Broker) -> Peer {
    let (mut peer, heard) = begin(broker, FIRST);
    assert!(heard[0].starts_with("AUTH"), "{heard:?}");
    let (last, _) = prove(&last_data(broker, &peer).1, "opensesame");
    let heard = auth(broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
    assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
    peer
}

/// [MQTT-3.15.2-1] [MQTT-3.15.2-2] [MQTT-3.15.2-3] [MQTT-4.12.0-2] [MQTT-4.12.0-3]: byte by byte, the first AUTH of the
/// gateway is its reason code, the method and its data.
#[test]
fn an_auth_packet_has_no_more_than_it_needs() {
    each(|mut broker| {
        let (mut peer, _) = begin(&mut broker, FIRST);
        let data = last_data(&broker, &peer).1;
        let field = |id: u8, text: &str| [&[id, 0, text.len() as u8], text.as_bytes()].concat();
        let properties = [field(0x15, "SCRAM-SHA-256"), field(0x16, &data)].concat();
        let length = u8::try_from(properties.len()).unwrap();
        let expected = [&[0xF0, length + 2, 0x18, length], &properties[..]].concat();
        assert_eq!(broker.bytes(&peer), expected);
        for reason in [0x00, 0x19] {
            let auth = [&[0xF0, length + 2, reason, length], &properties[..]].concat();
            let heard = broker.write(&mut peer, &auth);
            assert_eq!(heard, ["CONNACK 82 {reason}"], "{reason}");
            (peer, _) = begin(&mut broker, FIRST);
        }
        let heard = broker.write(&mut peer, &[0xF0, 1, 0x01]);
        assert_eq!(heard, ["CONNACK 82 {reason}"], "no reason code of AUTH");
    });
}

/// [MQTT-3.15.1-1]
#[test]
fn the_flags_of_auth_are_zero() {
    for flags in 1..16 {
        each(|mut broker| {
            let mut peer = connected(&mut broker);
            let heard = broker.write(&mut peer, &[0xF0 | flags, 0]);
            assert_eq!(heard, ["DISCONNECT 81 {reason}"]);
            assert!(!broker.gateway.is_open(peer.who));
        });
    }
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]: and both sides know that the other has the secret.
#[test]
fn both_sides_prove_that_they_have_the_secret() {
    each(|mut broker| {
        let (mut peer, _) = begin(&mut broker, FIRST);
        let (kind, server_first) = last_data(&broker, &peer);
        assert_eq!(kind, PacketType::Auth);
        let (last, proof) = prove(&server_first, "opensesame");
        let heard = auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert!(heard[0].starts_with("CONNACK 00"), "{heard:?}");
        assert_eq!(last_data(&broker, &peer), (PacketType::ConnAck, proof));
        assert_eq!(broker.publish(&mut peer, 1, 1, "a", "x"), ["PUBACK 1 00"]);
    });
}

/// [MQTT-4.12.0-4]
#[test]
fn a_wrong_secret_ends_in_a_refusal() {
    each(|mut broker| {
        let (mut peer, _) = begin(&mut broker, FIRST);
        let (last, _) = prove(&last_data(&broker, &peer).1, "openbarley");
        let heard = auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert_eq!(heard, ["CONNACK 86 {reason}"]);
        assert!(!broker.gateway.is_open(peer.who));
        // Whether somebody is known shows no earlier than whether the secret is right.
        let (mut peer, _) = begin(&mut broker, "n,,n=other,r=client-nonce");
        let first_bare = "n=other,r=client-nonce";
        let (last, _) = prove_as(first_bare, &last_data(&broker, &peer).1, "opensesame");
        let heard = auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert_eq!(heard, ["CONNACK 86 {reason}"], "a name that isn't known");
        assert!(!broker.gateway.is_open(peer.who));
        let (_, heard) = begin(&mut broker, "hello");
        assert_eq!(heard, ["CONNACK 86 {reason}"]);
    });
}

/// An exchange is good for once: its answer can't be played back.
#[test]
fn a_proof_is_good_for_one_exchange() {
    each(|mut broker| {
        let (mut peer, _) = begin(&mut broker, FIRST);
        let (last, _) = prove(&last_data(&broker, &peer).1, "opensesame");
        auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        let (mut other, _) = begin(&mut broker, FIRST);
        let heard = auth(&mut broker, &mut other, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert_eq!(heard, ["CONNACK 86 {reason}"]);
    });
}

/// [MQTT-4.12.0-1]
#[test]
fn another_method_is_refused_and_so_is_any_where_no_secrets_are() {
    each(|mut broker| {
        let how = How::default().with(Property::AuthenticationMethod("PLAIN"));
        let (_, heard) = broker.try_connect(V5, "lamp", &how);
        assert_eq!(heard, ["CONNACK 8c {reason}"]);
    });
    crate::peer::each(&[V5], |mut broker, _| {
        let (_, heard) = begin(&mut broker, FIRST);
        assert_eq!(heard, ["CONNACK 8c {reason}"]);
    });
}

/// [MQTT-3.1.2-30]: nothing but AUTH and DISCONNECT until the CONNACK.
#[test]
fn nothing_else_comes_before_the_exchange_is_over() {
    each(|mut broker| {
        let (mut peer, _) = begin(&mut broker, FIRST);
        let heard = broker.tell(&mut peer, &Packet::Publish(publish(0, 0, "a", "x")));
        assert_eq!(heard, ["CONNACK 82 {reason}"]);
        let (peer, _) = begin(&mut broker, FIRST);
        broker.disconnect(peer);
        let (peer, _) = begin(&mut broker, FIRST);
        broker.gateway.advance(10_000);
        assert!(!broker.gateway.is_open(peer.who), "its time is bounded");
    });
}

/// [MQTT-4.12.1-1]: with the method of CONNECT, at any time, while everything else goes on.
#[test]
fn a_client_that_is_in_proves_itself_again() {
    each(|mut broker| {
        let mut peer = connected(&mut broker);
        let heard = auth(&mut broker, &mut peer, ReasonCode::ReAuthenticate, FIRST.as_bytes());
        assert!(heard[0].starts_with("AUTH"), "{heard:?}");
        assert_eq!(broker.publish(&mut peer, 1, 1, "a", "x"), ["PUBACK 1 00"], "meanwhile");
        let (last, proof) = prove(&last_data(&broker, &peer).1, "opensesame");
        auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert_eq!(last_data(&broker, &peer), (PacketType::Auth, proof));
        assert!(broker.gateway.is_open(peer.who));
    });
}

/// [MQTT-4.12.1-2]
#[test]
fn who_fails_again_is_out() {
    each(|mut broker| {
        let mut peer = connected(&mut broker);
        auth(&mut broker, &mut peer, ReasonCode::ReAuthenticate, FIRST.as_bytes());
        let (last, _) = prove(&last_data(&broker, &peer).1, "openbarley");
        let heard = auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, last.as_bytes());
        assert_eq!(heard, ["DISCONNECT 87 {reason}"]);
        assert!(!broker.gateway.is_open(peer.who));
    });
}

/// [MQTT-4.12.0-6] [MQTT-4.12.0-7]: no AUTH out of the blue, and none by another method.
#[test]
fn auth_that_nobody_asked_for_is_a_protocol_error() {
    each(|mut broker| {
        let how = How { properties: Vec::new(), ..How::default() };
        let (peer, heard) = broker.try_connect(V5, "lamp", &how);
        assert_eq!(heard, ["CONNACK 86 {reason}"], "no secret at all");
        broker.lose(peer);
        let mut peer = connected(&mut broker);
        let heard = auth(&mut broker, &mut peer, ReasonCode::ContinueAuthentication, b"x");
        assert_eq!(heard, ["DISCONNECT 82 {reason}"], "nothing to continue");
        let mut peer = connected(&mut broker);
        let plain = Property::AuthenticationMethod("PLAIN");
        let heard = auth_by(&mut broker, &mut peer, ReasonCode::ReAuthenticate, plain, b"x");
        assert_eq!(heard, ["DISCONNECT 82 {reason}"], "another method");
    });
    crate::peer::each(&[V5], |mut broker, version| {
        let mut peer = broker.fresh(version, "peer");
        let heard = auth(&mut broker, &mut peer, ReasonCode::ReAuthenticate, FIRST.as_bytes());
        assert_eq!(heard, ["DISCONNECT 82 {reason}"], "none in CONNECT");
    });
}
