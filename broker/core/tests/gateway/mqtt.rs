//! An MQTT client, 3.1.1 or 5, on the gateway's own codec. Receipts, and before version 5 refusals, are read
//! from the JSON on `sig/r/{me}`; in version 5 what it says of refusals has to fit the PUBACK.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Ack, Connect, Disconnect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode,
    Subscribe, SubscriptionOptions, Subscriptions, TopicFilters, Unsubscribe, Version, decode, encode,
    frame_length,
};
use serde_json::Value;

use super::{Heard, Kind, Options, Outcome, Receipt, Received, SendSpec, Ticket, Will};

pub struct Mqtt {
    id: String,
    version: Version,
    options: Options,
    last_id: u16,
    /// What PUBACK, SUBACK and UNSUBACK said.
    answers: BTreeMap<u32, Outcome>,
    /// What the notices said.
    refusals: BTreeMap<u32, Outcome>,
    /// Publishes that wait for their PUBACK.
    sent: BTreeSet<u32>,
    /// Subscribed to.
    notices: bool,
    /// Packet identifiers of the gateway that aren't acknowledged.
    unacknowledged: Vec<NonZeroU16>,
    /// Receipts that have more parts coming.
    parts: BTreeMap<u32, Receipt>,
}

/// Bugle's name for what MQTT 5's code says. Several names may share a code; these are the ones that tests meet.
fn name_of(reason: ReasonCode) -> String {
    let name = match reason {
        ReasonCode::NotAuthorized => "NOT_AUTHORIZED",
        ReasonCode::SessionTakenOver | ReasonCode::ServerBusy => "TAKEN_OVER",
        ReasonCode::ServerShuttingDown | ReasonCode::ServerUnavailable => "SHUTTING_DOWN",
        ReasonCode::Banned => "BANNED",
        ReasonCode::AdministrativeAction => "KICKED",
        ReasonCode::KeepAliveTimeout => "KEEP_ALIVE_TIMEOUT",
        ReasonCode::BadUserNameOrPassword => "NOT_AUTHENTICATED",
        ReasonCode::MalformedPacket => "MALFORMED",
        ReasonCode::ProtocolError => "PROTOCOL_ERROR",
        ReasonCode::TopicFilterInvalid | ReasonCode::TopicNameInvalid => "BAD_TOPIC",
        ReasonCode::QuotaExceeded => "TOO_MANY",
        ReasonCode::PacketTooLarge => "FRAME_TOO_LARGE",
        other => return format!("{:02X}", other.as_u8()),
    };
    name.into()
}

fn put(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    encode(packet, version, out).unwrap_or_else(|error| panic!("{packet:?}: {error}"));
}

fn qos(number: u8) -> QoS {
    QoS::from_u8(number).unwrap()
}

/// Percent-encodes what would end a value.
fn encoded(value: &str) -> String {
    value.replace('%', "%25").replace('&', "%26").replace(' ', "%20").replace('+', "%2B").replace('#', "%23")
}

impl Mqtt {
    pub fn new(kind: Kind, id: &str, options: Options, out: &mut Vec<u8>) -> Self {
        let version = if kind == Kind::Mqtt5 { Version::V5 } else { Version::V311 };
        let mqtt = Self {
            id: id.into(),
            version,
            options,
            last_id: 0,
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
            sent: BTreeSet::new(),
            notices: false,
            unacknowledged: Vec::new(),
            parts: BTreeMap::new(),
        };
        mqtt.connect(out);
        mqtt
    }

    fn connect(&self, out: &mut Vec<u8>) {
        let mut writer = PropertyWriter::new();
        if self.version == Version::V5 {
            writer.push(Property::ReceiveMaximum(self.options.window));
            writer.push(Property::MaximumPacketSize(self.options.longest.into()));
            writer.push(Property::SessionExpiryInterval(self.options.session_expiry));
        }
        let will = self.options.will.as_ref().map(|will| match will {
            Will::Send(spec) => (self.topic(spec), spec.payload.clone()),
            Will::Publish(topic, payload) => (topic.clone(), payload.clone()),
        });
        let will = will.as_ref().map(|(topic, payload)| bugle_core::mqtt::Will {
            topic,
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
        });
        let connect = Connect {
            version: self.version,
            client_id: &self.id,
            clean_start: self.options.session_expiry == 0,
            keep_alive: self.options.keep_alive,
            // Where the gateway has secrets, the tests' secret is the id.
            username: Some(&self.id),
            password: Some(self.id.as_bytes()),
            will,
            properties: writer.finish().unwrap(),
        };
        put(&Packet::Connect(connect), self.version, out);
    }

    /// To the own notices, and to the own inbox.
    pub fn subscribe_own(&mut self, out: &mut Vec<u8>) -> Ticket {
        self.notices = true;
        let notices = format!("sig/r/{}", self.id);
        let inbox = format!("sig/c/{}{}", self.id, self.with_sender());
        let mut filters = vec![(notices.as_str(), SubscriptionOptions::new(QoS::AtLeastOnce))];
        if self.options.inbox {
            filters.push((&inbox, self.reception()));
        }
        self.subscribe_to(&filters, out)
    }

    /// Before version 5 the sender is in the topic or nowhere.
    fn with_sender(&self) -> &'static str {
        if self.version == Version::V5 { "" } else { "/+" }
    }

    fn reception(&self) -> SubscriptionOptions {
        let no_local = self.options.no_local && self.version == Version::V5;
        SubscriptionOptions { no_local, ..SubscriptionOptions::new(qos(self.options.qos)) }
    }

    pub fn join(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        let filter = format!("sig/g/{group}{}", self.with_sender());
        self.subscribe_to(&[(&filter, self.reception())], out)
    }

    pub fn leave(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        let filter = format!("sig/g/{group}{}", self.with_sender());
        self.unsubscribe(&filter, out)
    }

    pub fn subscribe(&mut self, filter: &str, number: u8, out: &mut Vec<u8>) -> Ticket {
        self.subscribe_to(&[(filter, SubscriptionOptions::new(qos(number)))], out)
    }

    fn subscribe_to(&mut self, filters: &[(&str, SubscriptionOptions)], out: &mut Vec<u8>) -> Ticket {
        let packet_id = self.next_id();
        let subscriptions = Subscriptions::from(filters);
        let subscribe = Subscribe { packet_id, properties: Properties::EMPTY, subscriptions };
        put(&Packet::Subscribe(subscribe), self.version, out);
        Ticket(packet_id.get().into())
    }

    pub fn unsubscribe(&mut self, filter: &str, out: &mut Vec<u8>) -> Ticket {
        let packet_id = self.next_id();
        let filters = [filter];
        let filters = TopicFilters::from(&filters);
        let unsubscribe = Unsubscribe { packet_id, properties: Properties::EMPTY, filters };
        put(&Packet::Unsubscribe(unsubscribe), self.version, out);
        Ticket(packet_id.get().into())
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool, out: &mut Vec<u8>) -> Ticket {
        self.put_publish(topic, payload, QoS::AtLeastOnce, retain, Properties::EMPTY, out)
    }

    /// A signal. Its options ride on the topic or, with version 5 and unless they are to be inline, in user
    /// properties.
    pub fn send(&mut self, spec: &SendSpec, out: &mut Vec<u8>) -> Ticket {
        if self.version != Version::V5 || self.options.inline {
            let topic = self.topic(spec);
            return self.put_publish(&topic, &spec.payload, qos(spec.qos), false, Properties::EMPTY, out);
        }
        let place = if spec.to_client { "c" } else { "g" };
        let mut writer = PropertyWriter::new();
        for (key, value) in spec.options() {
            // Given once for each entry, as client libraries with maps of lists do.
            let entries: Vec<_> = if matches!(key, "only" | "except") && !value.contains(",,") {
                value.split(',').collect()
            } else {
                vec![value.as_str()]
            };
            writer.extend(entries.into_iter().map(|entry| Property::UserProperty(key, entry)));
        }
        let topic = format!("sig/{place}/{}", spec.name);
        self.put_publish(&topic, &spec.payload, qos(spec.qos), false, writer.finish().unwrap(), out)
    }

    /// With the options as a query.
    fn topic(&self, spec: &SendSpec) -> String {
        let place = if spec.to_client { "c" } else { "g" };
        let options: Vec<_> =
            spec.options().iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        format!("sig/{place}/{}{query}", spec.name)
    }

    fn put_publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        properties: Properties<'_>,
        out: &mut Vec<u8>,
    ) -> Ticket {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.next_id());
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        put(&Packet::Publish(publish), self.version, out);
        let number = packet_id.map_or(0, |id| id.get().into());
        self.sent.insert(number);
        Ticket(number)
    }

    fn next_id(&mut self) -> NonZeroU16 {
        self.last_id += 1;
        NonZeroU16::new(self.last_id).unwrap()
    }

    pub fn ping(&mut self, out: &mut Vec<u8>) -> Ticket {
        put(&Packet::PingReq, self.version, out);
        Ticket(0)
    }

    pub fn disconnect(&mut self, out: &mut Vec<u8>) -> Ticket {
        let (reason, properties) = (ReasonCode::NORMAL_DISCONNECTION, Properties::EMPTY);
        put(&Packet::Disconnect(Disconnect { reason, properties }), self.version, out);
        Ticket(0)
    }

    pub fn ack_again(&mut self, out: &mut Vec<u8>) -> Ticket {
        self.options.acks = true;
        for packet_id in std::mem::take(&mut self.unacknowledged) {
            put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)), self.version, out);
        }
        Ticket(0)
    }

    /// QoS 0 has none; before version 5 a PUBACK without a notice means that it was accepted.
    pub fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        if ticket.0 == 0 {
            return Some(self.refusals.get(&0).cloned().unwrap_or(Outcome::Accepted));
        }
        let answer = self.answers.get(&ticket.0)?;
        let refusal = self.refusals.get(&ticket.0);
        if self.version == Version::V5 && self.notices && self.sent.contains(&ticket.0) {
            assert_eq!(refusal.unwrap_or(&Outcome::Accepted), answer, "the notice says what the PUBACK does");
        }
        Some(refusal.unwrap_or(answer).clone())
    }

    pub fn handle_bytes(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, heard: &mut Heard) {
        let mut used = 0;
        while let Some(length) = frame_length(&input[used..]).unwrap()
            && let Some(frame) = input.get(used..used + length)
        {
            used += length;
            let packet = decode(frame, self.version).unwrap();
            self.handle_packet(&packet, out, heard);
        }
        input.drain(..used);
    }

    fn handle_packet(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>, heard: &mut Heard) {
        assert!(heard.end.is_none(), "nothing comes after the last packet");
        heard.log.push(packet.packet_type().name().into());
        match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => heard.connected = true,
            Packet::ConnAck(connack) => heard.end = Some(name_of(connack.reason)),
            Packet::Disconnect(disconnect) => heard.end = Some(name_of(disconnect.reason)),
            Packet::PingResp => heard.pongs += 1,
            Packet::PubAck(ack) => {
                let property = |name| {
                    ack.properties.user_properties().find(|(key, _)| *key == name).map(|(_, value)| value)
                };
                let outcome = match property("code") {
                    None if !ack.reason.is_failure() => Outcome::Accepted,
                    code => {
                        assert!(ack.reason.is_failure() && ack.properties.reason_string().is_some());
                        let retry_after = property("retry-after").map_or(0, |millis| millis.parse().unwrap());
                        Outcome::Refused(code.unwrap_or_default().into(), retry_after)
                    }
                };
                let twice = self.answers.insert(ack.packet_id.get().into(), outcome);
                assert_eq!(twice, None, "a publish is acknowledged once");
            }
            Packet::SubAck(ack) => {
                let refused = ack.reasons.iter().find(|reason| reason.is_failure());
                let outcome = refused.map_or(Outcome::Accepted, |code| Outcome::Refused(name_of(code), 0));
                self.answers.insert(ack.packet_id.get().into(), outcome);
            }
            Packet::UnsubAck(ack) => {
                self.answers.insert(ack.packet_id.get().into(), Outcome::Accepted);
            }
            Packet::Publish(publish) => self.handle_publish(publish, out, heard),
            other => panic!("{other:?} isn't for a client"),
        }
    }

    fn handle_publish(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>, heard: &mut Heard) {
        let notice = publish.topic.strip_prefix("sig/r/");
        if let Some(packet_id) = publish.packet_id {
            if self.options.acks || notice.is_some() {
                put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)), self.version, out);
            } else {
                self.unacknowledged.push(packet_id);
            }
        }
        match notice {
            Some(me) => {
                assert_eq!(me, self.id);
                assert!(publish.payload.len() <= 8192, "a notice has at most 8 KiB");
                self.handle_notice(&serde_json::from_slice(publish.payload).unwrap(), heard);
            }
            None => heard.received.push(received(&self.id, publish)),
        }
    }

    fn handle_notice(&mut self, notice: &Value, heard: &mut Heard) {
        let ticket = notice["packet_id"].as_u64().unwrap_or(0) as u32;
        match notice["type"].as_str().unwrap() {
            "refusal" => {
                let code = notice["code"].as_str().unwrap();
                assert!(!notice["reason"].as_str().unwrap().is_empty());
                let retry_after = notice["retry_after_ms"].as_u64().unwrap_or(0) as u32;
                self.refusals.insert(ticket, Outcome::Refused(code.into(), retry_after));
                heard.log.push(format!("REFUSED {code}"));
            }
            "receipt" => {
                let whole = self.parts.entry(ticket).or_default();
                whole.ticket = ticket;
                whole.interim = notice["final"] == false;
                whole.id = notice["id"].as_str().map(str::to_owned);
                whole.duplicate = notice["duplicate"].as_bool().unwrap_or(false);
                for (status, count) in notice["counts"].as_object().unwrap() {
                    whole.counts.insert(status.to_uppercase(), count.as_u64().unwrap() as u32);
                }
                for (client, status) in notice["statuses"].as_object().into_iter().flatten() {
                    let twice = whole.each.insert(client.clone(), status.as_str().unwrap().into());
                    assert_eq!(twice, None, "a recipient has one status");
                }
                if notice["part"] == notice["parts"] {
                    heard.receipts.extend(self.parts.remove(&ticket));
                }
            }
            "ended" => {
                assert!(["NOT_AUTHORIZED", "KICKED", "BANNED"].contains(&notice["code"].as_str().unwrap()));
                let topic = notice["topic"].as_str().unwrap();
                heard.ended.push(topic.strip_prefix("sig/g/").unwrap_or(topic).to_owned());
            }
            other => panic!("a notice of the type {other}"),
        }
    }
}

/// What a PUBLISH brings. Where both its topic and its properties say something, they say the same.
fn received(me: &str, publish: &Publish<'_>) -> Received {
    let user = |name| {
        let mut values = publish.properties.user_properties().filter(|(key, _)| *key == name);
        let first = values.next().map(|(_, value)| value.to_owned());
        assert!(values.next().is_none(), "{name} is there once");
        first
    };
    let below = publish.topic.strip_prefix("sig/");
    let (place, path) = below.and_then(|below| below.split_once('/')).unwrap_or(("", ""));
    let (name, in_topic) = match path.split_once('/') {
        Some((name, sender)) => (name, Some(sender.to_owned())),
        None => (path, None),
    };
    let from = user("from");
    if let (Some(from), Some(in_topic)) = (&from, &in_topic) {
        assert_eq!(from, in_topic);
    }
    Received {
        group: (place == "g").then(|| name.to_owned()),
        topic: (place != "g" && (place, name) != ("c", me)).then(|| publish.topic.to_owned()),
        sender: from.or(in_topic).unwrap_or_default(),
        mode: user("mode"),
        ttl: user("ttl").map(|millis| millis.parse().unwrap()),
        payload: publish.payload.into(),
    }
}
