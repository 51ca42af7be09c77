//! An MQTT client whose session outlives its connection, and the gateway: it repeats what isn't acknowledged, in order, and
//! takes a QoS 2 message once. Its acknowledgements leave when chance says so.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Ack, Connect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode, Subscribe,
    SubscriptionOptions, Subscriptions, Version, decode, encode, frame_length,
};
use serde_json::Value;

use crate::plan::client_id;

/// What a client tells the world.
#[derive(Debug)]
pub enum Event {
    /// It is in, with or without its session.
    In { present: bool },
    /// All its subscriptions are confirmed.
    Subscribed,
    /// A publish is acknowledged, or refused.
    Answered { number: u32, refused: bool },
    /// A publish is sent again.
    Repeated(u32),
    /// The application gets a message.
    Got { topic: String, number: u32, dup: bool },
    /// A receipt or refusal.
    Notice(Value),
    /// The gateway broke the protocol.
    Shocked(String),
}

#[derive(Clone, Debug)]
struct Sent {
    id: NonZeroU16,
    number: u32,
    topic: String,
    qos: u8,
    retain: bool,
    /// QoS 2: the gateway has it.
    released: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Connecting,
    In,
}

/// One of them.
pub struct Client {
    me: usize,
    pub version: Version,
    /// The QoS of its subscriptions.
    pub qos: u8,
    lasts: bool,
    phase: Phase,
    next_id: u16,
    sent: Vec<Sent>,
    received: BTreeSet<NonZeroU16>,
    asked: Option<NonZeroU16>,
    subscribed: bool,
    /// Acknowledgements that haven't left.
    owed: VecDeque<Vec<u8>>,
    input: Vec<u8>,
    out: Vec<u8>,
    pub events: Vec<Event>,
}

impl Client {
    /// One without a connection; `lasts`: its session does.
    pub fn new(me: usize, version: Version, qos: u8, lasts: bool) -> Self {
        Self {
            me,
            version,
            qos,
            lasts,
            phase: Phase::Down,
            next_id: 0,
            sent: Vec::new(),
            received: BTreeSet::new(),
            asked: None,
            subscribed: false,
            owed: VecDeque::new(),
            input: Vec::new(),
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether it may send.
    pub fn is_in(&self) -> bool {
        self.phase == Phase::In
    }

    /// Publishes that aren't at their end.
    pub fn unfinished(&self) -> usize {
        self.sent.len()
    }

    /// A connection is open.
    pub fn connect(&mut self) {
        self.phase = Phase::Connecting;
        let mut writer = PropertyWriter::new();
        if self.version == Version::V5 && self.lasts {
            writer.push(Property::SessionExpiryInterval(u32::MAX));
        }
        let connect = Connect {
            version: self.version,
            client_id: &client_id(self.me),
            clean_start: !self.lasts,
            keep_alive: 0,
            username: None,
            password: None,
            will: None,
            properties: writer.finish().unwrap_or(Properties::EMPTY),
        };
        self.put(&Packet::Connect(connect));
    }

    /// The connection is no more.
    pub fn lost(&mut self) {
        self.phase = Phase::Down;
        self.input.clear();
        self.out.clear();
        self.owed.clear();
        self.asked = None;
        if !self.lasts {
            self.sent.clear();
            self.received.clear();
            self.subscribed = false;
        }
    }

    /// Bytes to be written.
    pub fn pump(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether something waits to be written, and whether acknowledgements do.
    pub fn wants(&self) -> (bool, bool) {
        (!self.out.is_empty(), !self.owed.is_empty())
    }

    /// Acknowledges so many.
    pub fn acknowledge(&mut self, count: usize) {
        for _ in 0..count {
            let Some(bytes) = self.owed.pop_front() else { break };
            self.out.extend(bytes);
        }
    }

    /// Publishes; the payload is the message's number.
    pub fn publish(&mut self, number: u32, topic: &str, qos: u8, retain: bool) {
        let topic = topic.to_owned();
        if qos == 0 {
            return self.put_publish(number, &topic, None, 0, retain, false);
        }
        let id = self.fresh_id();
        self.put_publish(number, &topic, Some(id), qos, retain, false);
        self.sent.push(Sent { id, number, topic, qos, retain, released: false });
    }

    fn put_publish(
        &mut self,
        number: u32,
        topic: &str,
        packet_id: Option<NonZeroU16>,
        qos: u8,
        retain: bool,
        dup: bool,
    ) {
        let payload = number.to_string();
        let (qos, properties) = (level(qos), Properties::EMPTY);
        self.put(&Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload: payload.as_bytes(),
        }));
    }

    fn put(&mut self, packet: &Packet<'_>) {
        // What is built here is well-formed.
        let encoded = encode(packet, self.version, &mut self.out);
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
    }

    fn owe(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        let encoded = encode(packet, self.version, &mut bytes);
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
        self.owed.push_back(bytes);
    }

    fn fresh_id(&mut self) -> NonZeroU16 {
        loop {
            // Few, so that they come again soon.
            self.next_id = self.next_id % 24 + 1;
            if let Some(id) = NonZeroU16::new(self.next_id)
                && !self.sent.iter().any(|sent| sent.id == id)
            {
                return id;
            }
        }
    }

    /// Bytes came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Ok(Some(length)) = frame_length(rest)
            && length <= rest.len()
        {
            let (frame, behind) = rest.split_at(length);
            rest = behind;
            match decode(frame, self.version) {
                Ok(packet) => self.handle(&packet),
                Err(error) => self.shocked(format!("{frame:02x?}: {error}")),
            }
        }
        self.input = rest.to_vec();
    }

    fn shocked(&mut self, what: String) {
        self.events.push(Event::Shocked(what));
    }

    fn handle(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => {
                self.let_in(connack.session_present);
            }
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => self.finish(ack, 1),
            Packet::PubRec(ack) if ack.reason.is_failure() => self.finish(ack, 2),
            Packet::PubRec(ack) => {
                match self.sent.iter_mut().find(|sent| sent.id == ack.packet_id && sent.qos == 2) {
                    Some(sent) => {
                        if !std::mem::replace(&mut sent.released, true) {
                            let number = sent.number;
                            self.events.push(Event::Answered { number, refused: false });
                        }
                        self.put(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                    }
                    None => self.shocked(format!("PUBREC {}", ack.packet_id)),
                }
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                self.owe(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::PubComp(ack) => {
                let waits = |sent: &Sent| sent.id == ack.packet_id && sent.released;
                match self.sent.iter().position(waits) {
                    Some(at) => drop(self.sent.remove(at)),
                    None => self.shocked(format!("PUBCOMP {}", ack.packet_id)),
                }
            }
            Packet::SubAck(ack) if Some(ack.packet_id) == self.asked => {
                if ack.reasons.iter().any(|reason| reason.is_failure()) {
                    // The store can't be written for now: it asks again on its next connection.
                    return;
                }
                self.subscribed = true;
                self.events.push(Event::Subscribed);
            }
            Packet::Disconnect(_) => {}
            other => self.shocked(format!("{other:?}")),
        }
    }

    fn let_in(&mut self, present: bool) {
        self.phase = Phase::In;
        self.events.push(Event::In { present });
        for sent in self.sent.clone() {
            if sent.released {
                self.put(&Packet::PubRel(Ack::new(sent.id, ReasonCode::Success)));
            } else {
                self.events.push(Event::Repeated(sent.number));
                self.put_publish(sent.number, &sent.topic, Some(sent.id), sent.qos, sent.retain, true);
            }
        }
        if !self.subscribed {
            let id = NonZeroU16::new(60_000).unwrap_or(NonZeroU16::MAX);
            self.asked = Some(id);
            let own = format!("sig/r/{}", client_id(self.me));
            let options = SubscriptionOptions::new(level(self.qos));
            let filters: [(&str, SubscriptionOptions); 5] = [
                ("t/+", options),
                ("r/#", options),
                ("sig/g/g", options),
                (&own, SubscriptionOptions::new(QoS::AtLeastOnce)),
                ("$share/s/shared", options),
            ];
            let subscriptions = Subscriptions::from(&filters[..]);
            self.put(&Packet::Subscribe(Subscribe {
                packet_id: id,
                properties: Properties::EMPTY,
                subscriptions,
            }));
        }
    }

    fn finish(&mut self, ack: &Ack<'_>, qos: u8) {
        let waits = |sent: &Sent| sent.id == ack.packet_id && sent.qos == qos;
        let Some(at) = self.sent.iter().position(waits) else {
            return self.shocked(format!("an acknowledgement of {} at QoS {qos}", ack.packet_id));
        };
        let number = self.sent.remove(at).number;
        self.events.push(Event::Answered { number, refused: ack.reason.is_failure() });
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let is_new = match (publish.packet_id, publish.qos) {
            (Some(id), QoS::AtLeastOnce) => {
                self.owe(&Packet::PubAck(Ack::new(id, ReasonCode::Success)));
                true
            }
            (Some(id), _) => {
                self.owe(&Packet::PubRec(Ack::new(id, ReasonCode::Success)));
                self.received.insert(id)
            }
            (None, _) => true,
        };
        if !is_new {
            return;
        }
        if publish.topic.starts_with("sig/r/") {
            match serde_json::from_slice(publish.payload) {
                Ok(notice) => self.events.push(Event::Notice(notice)),
                Err(error) => self.shocked(error.to_string()),
            }
            return;
        }
        let number = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
        match number {
            Some(number) => {
                let (topic, dup) = (publish.topic.to_owned(), publish.dup);
                self.events.push(Event::Got { topic, number, dup });
            }
            None => self.shocked(format!("{:?}", publish.payload)),
        }
    }
}

fn level(number: u8) -> QoS {
    QoS::from_u8(number).unwrap_or(QoS::AtMostOnce)
}
