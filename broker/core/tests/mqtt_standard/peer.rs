//! MQTT clients that do exactly what a test says: packets in, lines out, nothing by themselves.

use std::num::NonZeroU16;

use bugle_core::model::Limits;
use bugle_core::mqtt::{
    Ack, Connect, Disconnect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode,
    Subscribe, SubscriptionOptions, Subscriptions, TopicFilters, Unsubscribe, Will, decode, encode,
    frame_length,
};

use crate::gateway::{Gateway, Setup, Who};

pub use bugle_core::mqtt::Version;
pub use bugle_core::mqtt::Version::{V5, V311};

/// The versions whose sessions can outlive a connection.
pub const VERSIONS: [Version; 2] = [V311, V5];

/// A gateway whose clients are scripts.
pub struct Broker {
    pub gateway: Gateway,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    pub who: Who,
    pub version: Version,
    pub read: usize,
}

/// How to connect. A session lasts for `expiry` seconds; before version 5 it is not clean if that isn't 0.
#[derive(Clone, Debug)]
pub struct How {
    pub clean: bool,
    pub expiry: u32,
    pub keep_alive: u16,
    pub will: Option<WillSpec>,
    pub properties: Vec<Property<'static>>,
}

#[derive(Clone, Debug)]
pub struct WillSpec {
    pub topic: &'static str,
    pub payload: &'static str,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<Property<'static>>,
}

impl Default for How {
    fn default() -> Self {
        Self { clean: true, expiry: 0, keep_alive: 0, will: None, properties: Vec::new() }
    }
}

impl How {
    /// A session that is kept, and taken up again if there is one.
    pub fn kept() -> Self {
        Self { clean: false, expiry: 3600, ..Self::default() }
    }

    pub fn with(self, property: Property<'static>) -> Self {
        let mut properties = self.properties;
        properties.push(property);
        Self { properties, ..self }
    }
}

impl WillSpec {
    pub fn new(topic: &'static str, payload: &'static str) -> Self {
        Self { topic, payload, qos: 0, retain: false, properties: Vec::new() }
    }
}

pub fn qos(number: u8) -> QoS {
    QoS::from_u8(number).unwrap()
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn written<'a>(writer: &'a mut PropertyWriter, properties: &[Property<'a>]) -> Properties<'a> {
    writer.extend(properties.iter().copied());
    writer.finish().unwrap()
}

/// How many shards, in which order things happen, and whether sessions last in a store.
const WAYS: [(u16, Option<u64>, bool); 7] = [
    (1, None, false),
    (3, None, false),
    (3, Some(7), false),
    (2, Some(8), false),
    (1, None, true),
    (3, None, true),
    (3, Some(9), true),
];

/// Runs a story with each of these versions, in all of these ways.
pub fn each(versions: &[Version], story: impl Fn(Broker, Version)) {
    each_with(versions, |_| {}, story);
}

pub fn each_with(versions: &[Version], change: impl Fn(&mut Limits), story: impl Fn(Broker, Version)) {
    for &version in versions {
        for (shards, seed, durable) in WAYS {
            let mut setup = Setup { durable, ..Setup::new(shards, seed) };
            change(&mut setup.limits);
            story(Broker { gateway: Gateway::new(&setup) }, version);
        }
    }
}

impl Broker {
    /// Connects, and says what the CONNACK says, without the properties that each has.
    pub fn try_connect(&mut self, version: Version, client_id: &str, how: &How) -> (Peer, Vec<String>) {
        let mut writer = PropertyWriter::new();
        if version == V5 && how.expiry > 0 {
            writer.push(Property::SessionExpiryInterval(how.expiry));
        }
        let mut will_writer = PropertyWriter::new();
        let will = how.will.as_ref().map(|will| Will {
            topic: will.topic,
            payload: will.payload.as_bytes(),
            qos: qos(will.qos),
            retain: will.retain,
            properties: written(&mut will_writer, &will.properties),
        });
        let connect = Connect {
            version,
            client_id,
            clean_start: if version == V5 { how.clean } else { how.clean && how.expiry == 0 },
            keep_alive: how.keep_alive,
            username: None,
            password: None,
            will,
            properties: written(&mut writer, &how.properties),
        };
        let mut bytes = Vec::new();
        encode(&Packet::Connect(connect), version, &mut bytes).unwrap();
        let who = self.gateway.raw(&bytes);
        let mut peer = Peer { who, version, read: 0 };
        let heard = self.heard(&mut peer);
        (peer, heard)
    }

    /// Connects.
    #[track_caller]
    pub fn connect(&mut self, version: Version, client_id: &str, how: &How) -> Peer {
        let (peer, heard) = self.try_connect(version, client_id, how);
        assert!(heard.first().is_some_and(|first| first.starts_with("CONNACK 00")), "{heard:?}");
        peer
    }

    /// A client without a session of before or after.
    #[track_caller]
    pub fn fresh(&mut self, version: Version, client_id: &str) -> Peer {
        self.connect(version, client_id, &How::default())
    }

    /// Connects again to a session that is there, and gives what follows the CONNACK.
    #[track_caller]
    pub fn resume(&mut self, version: Version, client_id: &str, how: &How) -> (Peer, Vec<String>) {
        let (peer, mut heard) = self.try_connect(version, client_id, how);
        assert!(heard.first().is_some_and(|first| first.starts_with("CONNACK 00 present")), "{heard:?}");
        heard.remove(0);
        (peer, heard)
    }

    /// Begins a connection with these bytes, whatever they are, and gives what comes of it.
    pub fn raw(&mut self, version: Version, bytes: &[u8]) -> (Peer, Vec<String>) {
        let who = self.gateway.raw(bytes);
        let mut peer = Peer { who, version, read: 0 };
        let heard = self.heard(&mut peer);
        (peer, heard)
    }

    /// Writes bytes, whatever they are, and gives what comes of it to the same client.
    pub fn write(&mut self, peer: &mut Peer, bytes: &[u8]) -> Vec<String> {
        self.gateway.write(peer.who, bytes);
        self.heard(peer)
    }

    /// All that a client was written, from the first byte on.
    pub fn bytes(&self, peer: &Peer) -> &[u8] {
        self.gateway.bytes(peer.who)
    }

    /// That the client heard only this end: before version 5, none.
    #[track_caller]
    pub fn assert_ended(&self, peer: &Peer, heard: &[String], code: &str) {
        let said = format!("DISCONNECT {code} {{reason}}");
        let said: &[String] = if peer.version == V5 { &[said] } else { &[] };
        assert_eq!(heard, said);
        assert!(!self.gateway.is_open(peer.who), "{heard:?}");
    }

    /// That a CONNECT was refused with this code; before version 5 only where `told` says that there is one.
    #[track_caller]
    pub fn assert_refused(&self, peer: &Peer, heard: &[String], code: &str, told: bool) {
        let said = match peer.version {
            V5 => vec![format!("CONNACK {code} {{reason}}")],
            _ if told => vec![format!("CONNACK {code}")],
            _ => Vec::new(),
        };
        assert_eq!(heard, said);
        assert!(!self.gateway.is_open(peer.who), "{heard:?}");
    }

    /// Writes a packet, and gives what comes of it to the same client.
    pub fn tell(&mut self, peer: &mut Peer, packet: &Packet<'_>) -> Vec<String> {
        let mut bytes = Vec::new();
        encode(packet, peer.version, &mut bytes).unwrap();
        self.gateway.write(peer.who, &bytes);
        self.heard(peer)
    }

    /// What came since it was last asked, a line a packet.
    pub fn heard(&mut self, peer: &mut Peer) -> Vec<String> {
        self.gateway.pump();
        let mut lines = Vec::new();
        let bytes = self.gateway.bytes(peer.who);
        while let Some(length) = frame_length(&bytes[peer.read..]).unwrap()
            && let Some(frame) = bytes.get(peer.read..peer.read + length)
        {
            lines.push(decode(frame, peer.version).unwrap().line());
            peer.read += length;
        }
        lines
    }

    pub fn subscribe(&mut self, peer: &mut Peer, filter: &str, number: u8) -> Vec<String> {
        self.subscribe_as(peer, filter, SubscriptionOptions::new(qos(number)), &[])
    }

    pub fn subscribe_as(
        &mut self,
        peer: &mut Peer,
        filter: &str,
        options: SubscriptionOptions,
        properties: &[Property<'_>],
    ) -> Vec<String> {
        let mut writer = PropertyWriter::new();
        let filters = [(filter, options)];
        let subscribe = Subscribe {
            packet_id: id(900),
            properties: written(&mut writer, properties),
            subscriptions: Subscriptions::from(&filters[..]),
        };
        self.tell(peer, &Packet::Subscribe(subscribe))
    }

    pub fn unsubscribe(&mut self, peer: &mut Peer, filter: &str) -> Vec<String> {
        let filters = [filter];
        let unsubscribe = Unsubscribe {
            packet_id: id(901),
            properties: Properties::EMPTY,
            filters: TopicFilters::from(&filters[..]),
        };
        self.tell(peer, &Packet::Unsubscribe(unsubscribe))
    }

    /// Publishes; the identifier is for QoS 1 and 2.
    pub fn publish(
        &mut self,
        peer: &mut Peer,
        number: u8,
        id: u16,
        topic: &str,
        payload: &str,
    ) -> Vec<String> {
        self.publish_as(peer, &publish(number, id, topic, payload), &[])
    }

    /// Publishes with RETAIN, at QoS 1.
    pub fn retain(&mut self, peer: &mut Peer, topic: &str, payload: &str) -> Vec<String> {
        self.publish_as(peer, &Publish { retain: true, ..publish(1, 777, topic, payload) }, &[])
    }

    pub fn publish_as(
        &mut self,
        peer: &mut Peer,
        publish: &Publish<'_>,
        properties: &[Property<'_>],
    ) -> Vec<String> {
        let mut writer = PropertyWriter::new();
        let properties = written(&mut writer, properties);
        self.tell(peer, &Packet::Publish(Publish { properties, ..*publish }))
    }

    pub fn puback(&mut self, peer: &mut Peer, number: u16) -> Vec<String> {
        self.tell(peer, &Packet::PubAck(Ack::new(id(number), ReasonCode::Success)))
    }

    pub fn pubrec(&mut self, peer: &mut Peer, number: u16) -> Vec<String> {
        self.tell(peer, &Packet::PubRec(Ack::new(id(number), ReasonCode::Success)))
    }

    pub fn pubrel(&mut self, peer: &mut Peer, number: u16) -> Vec<String> {
        self.tell(peer, &Packet::PubRel(Ack::new(id(number), ReasonCode::Success)))
    }

    pub fn pubcomp(&mut self, peer: &mut Peer, number: u16) -> Vec<String> {
        self.tell(peer, &Packet::PubComp(Ack::new(id(number), ReasonCode::Success)))
    }

    pub fn disconnect(&mut self, mut peer: Peer) {
        self.disconnect_with(&mut peer, ReasonCode::NORMAL_DISCONNECTION, &[]);
        assert!(!self.gateway.is_open(peer.who));
    }

    pub fn disconnect_with(
        &mut self,
        peer: &mut Peer,
        reason: ReasonCode,
        properties: &[Property<'_>],
    ) -> Vec<String> {
        let mut writer = PropertyWriter::new();
        let properties = written(&mut writer, properties);
        self.tell(peer, &Packet::Disconnect(Disconnect { reason, properties }))
    }

    pub fn lose(&mut self, peer: Peer) {
        self.gateway.lose(peer.who);
    }

    /// Acknowledges QoS 1 publishes until no more come, and gives their payloads.
    pub fn take_all(&mut self, peer: &mut Peer, mut heard: Vec<String>) -> Vec<String> {
        let mut payloads = Vec::new();
        while !heard.is_empty() {
            let mut more = Vec::new();
            for line in heard {
                let words: Vec<&str> =
                    line.split(' ').filter(|word| !matches!(*word, "dup" | "retain")).collect();
                if words[0] != "PUBLISH" {
                    continue;
                }
                if let Some(number) = words[2].strip_prefix('#') {
                    more.extend(self.puback(peer, number.parse().unwrap()));
                    payloads.push(words[4].to_owned());
                } else {
                    payloads.push(words[3].to_owned());
                }
            }
            heard = more;
        }
        payloads
    }
}

pub fn publish<'a>(number: u8, packet_id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos: qos(number),
        retain: false,
        topic,
        packet_id: NonZeroU16::new(packet_id).filter(|_| number > 0),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

/// A packet as bytes: its first one, then as many as its parts have together, and these.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    let mut remaining = body.len();
    while remaining > 0x7F {
        bytes.push(remaining as u8 | 0x80);
        remaining >>= 7;
    }
    bytes.push(remaining as u8);
    bytes.extend(body);
    bytes
}

/// A string or binary data, its length in front.
pub fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Properties as bytes, their length in front; before version 5, nothing.
pub fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    if version == V5 { [&[u8::try_from(bytes.len()).unwrap()], bytes].concat() } else { Vec::new() }
}

/// A CONNECT as bytes, of which the payload is given.
pub fn connect_bytes(version: Version, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let level = if version == V5 { 5 } else { 4 };
    let head = [&field(b"MQTT")[..], &[level, flags, 0, 0], &properties(version, &[])].concat();
    packet(0x10, &[&head, &payload.concat()])
}
