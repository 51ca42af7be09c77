//! A client that behaves: MQTT 5, everything acknowledged at once. What it publishes is answered once, and what it gets
//! is handed to whoever holds it against what there was to get.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use bugle_core::hub::{ConnectionKey, Shard, Transmit, owner};
use bugle_core::model::Instant;
use bugle_core::mqtt::{
    Ack, Connect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode, Subscribe,
    SubscriptionOptions, Subscriptions, Version, decode, encode, frame_length,
};
use bugle_core::session::Protocol;

use crate::trace;

/// Bytes at a time for a socket.
const WRITE: usize = 16 * 1024;
/// Seconds: longer than any input.
const EXPIRY: u32 = 1_000_000;

/// What came on a topic.
pub struct Got {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// One of them.
pub struct Party {
    id: &'static str,
    pub shard: usize,
    pub key: ConnectionKey,
    heard: Vec<u8>,
    outbound: Vec<u8>,
    next_id: u16,
    /// Publishes without an answer yet: by identifier, QoS.
    waiting: BTreeMap<u16, QoS>,
    /// QoS 2 messages that it has and that aren't released.
    received: Vec<u16>,
    subscribed: usize,
    pub got: Vec<Got>,
}

impl Party {
    /// Connects, and subscribes at the highest QoS.
    pub fn new(id: &'static str, filters: &[&str], shards: &mut [Shard], now: Instant) -> Self {
        let shard = usize::from(owner(id, shards.len() as u16));
        let key = shards[shard].open(Protocol::Mqtt, now);
        let mut party = Self {
            id,
            shard,
            key,
            heard: Vec::new(),
            outbound: Vec::new(),
            next_id: 0,
            waiting: BTreeMap::new(),
            received: Vec::new(),
            subscribed: 0,
            got: Vec::new(),
        };
        let mut writer = PropertyWriter::new();
        writer.push(Property::SessionExpiryInterval(EXPIRY));
        party.say(&Packet::Connect(Connect {
            version: Version::V5,
            client_id: id,
            clean_start: true,
            keep_alive: 0,
            username: None,
            password: None,
            will: None,
            properties: writer.finish().expect("it fits"),
        }));
        let options = SubscriptionOptions::new(QoS::ExactlyOnce);
        let filters: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        party.say(&Packet::Subscribe(Subscribe {
            packet_id: NonZeroU16::MAX,
            properties: Properties::EMPTY,
            subscriptions: Subscriptions::from(&filters[..]),
        }));
        party
    }

    /// How many of its filters were granted.
    pub fn subscribed(&self) -> usize {
        self.subscribed
    }

    /// Whether every publish was answered.
    pub fn is_answered(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Publishes.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        self.next_id = self.next_id % 60_000 + 1;
        let packet_id = (qos != QoS::AtMostOnce).then(|| NonZeroU16::new(self.next_id).expect("not 0"));
        if qos != QoS::AtMostOnce {
            self.waiting.insert(self.next_id, qos);
        }
        let properties = Properties::EMPTY;
        self.say(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        }));
    }

    fn say(&mut self, packet: &Packet<'_>) {
        trace(|| format!("  {} > {packet:?}", self.id));
        encode(packet, Version::V5, &mut self.outbound).expect("a good packet");
    }

    /// Takes what its shard has for it, answers, and hands over what it says. Says whether something moved.
    pub fn turn(&mut self, shards: &mut [Shard], now: Instant) -> bool {
        let mut moved = false;
        loop {
            let mut out = Vec::new();
            let transmit = shards[self.shard].poll_transmit(self.key, &mut out, WRITE, now);
            moved |= !out.is_empty();
            self.hear(&out);
            match transmit {
                Transmit::More => {}
                Transmit::Drained => break,
                Transmit::Close => panic!("{} is thrown out", self.id),
            }
        }
        if !self.outbound.is_empty() && shards[self.shard].wants_bytes(self.key) {
            let bytes = std::mem::take(&mut self.outbound);
            shards[self.shard].handle_bytes(self.key, &bytes, now);
            moved = true;
        }
        moved
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend(bytes);
        let heard = std::mem::take(&mut self.heard);
        let mut rest = &heard[..];
        while let Some(length) = frame_length(rest).expect("the gateway writes good lengths")
            && let Some((packet, after)) = rest.split_at_checked(length)
        {
            rest = after;
            self.take(&decode(packet, Version::V5).expect("the gateway writes good packets"));
        }
        self.heard = rest.to_vec();
    }

    fn take(&mut self, packet: &Packet<'_>) {
        trace(|| format!("  {} < {packet:?}", self.id));
        match packet {
            Packet::ConnAck(connack) => assert_eq!(connack.reason, ReasonCode::Success, "{}", self.id),
            Packet::SubAck(ack) => {
                self.subscribed = ack.reasons.iter().filter(|reason| !reason.is_failure()).count();
            }
            Packet::PubAck(ack) => self.answered(ack, QoS::AtLeastOnce),
            Packet::PubRec(ack) => {
                assert!(!ack.reason.is_failure(), "{ack:?}");
                assert_eq!(self.waiting.get(&ack.packet_id.get()), Some(&QoS::ExactlyOnce), "{ack:?}");
                self.say(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::PubComp(ack) => self.answered(ack, QoS::ExactlyOnce),
            Packet::PubRel(ack) => {
                self.received.retain(|id| *id != ack.packet_id.get());
                self.say(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::Publish(publish) => {
                assert!(!publish.dup, "its connection was never lost: {publish:?}");
                match (publish.qos, publish.packet_id) {
                    (QoS::AtMostOnce, _) | (_, None) => {}
                    (QoS::AtLeastOnce, Some(id)) => {
                        self.say(&Packet::PubAck(Ack::new(id, ReasonCode::Success)))
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        assert!(!self.received.contains(&id.get()), "identifier {id} isn't released");
                        self.received.push(id.get());
                        self.say(&Packet::PubRec(Ack::new(id, ReasonCode::Success)));
                    }
                }
                self.got.push(Got { topic: publish.topic.to_owned(), payload: publish.payload.to_vec() });
            }
            other => panic!("{} gets {other:?}", self.id),
        }
    }

    /// A publish has its one answer.
    fn answered(&mut self, ack: &Ack<'_>, qos: QoS) {
        assert!(!ack.reason.is_failure(), "{ack:?}");
        assert_eq!(self.waiting.remove(&ack.packet_id.get()), Some(qos), "{ack:?}");
    }
}
