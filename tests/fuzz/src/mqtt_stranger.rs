//! An MQTT client of either version, and what the standard and docs/topics.md promise it: one answer for each packet that
//! gets one, packet identifiers that aren't in use, no more in flight than its receive maximum, nothing that it never
//! subscribed to, notices that are JSON.
//!
//! What it said counts from when it is on its way, whether or not the gateway has read it: that errs to the gateway's side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Ack, Connect, Disconnect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode,
    Subscribe, SubscriptionOptions, Subscriptions, TopicFilters, Unsubscribe, Version, Will, decode, encode,
    frame_length,
};
use serde_json::Value;

use crate::stranger::{FromPanel, PanelSignal, Stranger};
use crate::{Steps, naive, trace};

const ID: &str = "garbage";
const FILTERS: [&str; 16] = [
    "sig/g/floor",
    "sig/g/floor/+",
    "sig/g/floor/#",
    "sig/c/garbage",
    "sig/c/garbage/+",
    "sig/r/garbage",
    "sig/g/roof",
    "a/b",
    "a/+",
    "a/#",
    "#",
    "+/b",
    "sig/#",
    "$share/s/a/+",
    "sig/c/lamp",
    "$share/s/sig/g/floor",
];
const TOPICS: [&str; 16] = [
    "sig/g/floor",
    "sig/g/floor?receipt=each",
    "sig/g/floor?echo=1&receipt=summary",
    "sig/g/floor?only=garbage,lamp,nobody&receipt=each",
    "sig/g/floor?except=lamp&echo=1",
    "sig/g/floor?only=",
    "sig/g/floor?urgent=1&echo=1",
    "sig/c/garbage?ttl=50",
    "sig/c/garbage?receipt=each",
    "sig/c/lamp?receipt=each",
    "sig/c/nobody?receipt=each",
    "sig/g/floor?colour=red",
    "a/b",
    "a/c",
    "a/b/c",
    "$SYS/x",
];

/// An MQTT client under test.
pub struct MqttStranger {
    version: Version,
    connection: Connection,
    /// What outlives a connection: of the one client that this is in nearly every input.
    kept: Kept,
    kept_of: String,
    /// It spoke the device framing once, or was another client: what is kept of it isn't known.
    has_another_past: bool,
    /// Counts what it says.
    clock: u64,
}

/// What a session has beyond its connection.
#[derive(Default)]
struct Kept {
    /// Filters that may hold, each with when it was said last.
    filters: BTreeMap<String, u64>,
    /// All that ever were.
    ever: BTreeSet<String>,
    panel: FromPanel,
}

#[derive(Default)]
struct Connection {
    said: Vec<u8>,
    heard: Vec<u8>,
    is_foreign: bool,
    /// It said what is no packet: nothing behind that is read.
    is_broken: bool,
    has_begun: bool,
    version: Option<Version>,
    receive_maximum: usize,
    max_packet: usize,
    alias_maximum: u16,
    is_connected: bool,
    session_present: bool,
    has_ended: bool,
    /// How often each was said and not answered: PUBLISH of QoS 1 and 2, PUBREL.
    publishes: [BTreeMap<u16, u32>; 3],
    /// Subscribes and unsubscribes: identifier, when, filters.
    subscribes: BTreeMap<u16, VecDeque<usize>>,
    unsubscribes: BTreeMap<u16, VecDeque<(u64, Vec<String>)>>,
    pings: u32,
    /// Identifiers that the gateway uses and this acknowledged neither wholly nor in advance.
    in_flight: BTreeSet<u16>,
    acknowledged_early: BTreeSet<u16>,
    aliases: BTreeMap<u16, String>,
    filters: BTreeMap<String, u64>,
}

impl MqttStranger {
    /// One that greets in this version.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            connection: Connection::default(),
            kept: Kept::default(),
            kept_of: String::new(),
            has_another_past: false,
            clock: 0,
        }
    }

    fn put(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        // What this version can't say, it doesn't.
        match encode(packet, self.connection.version.unwrap_or(self.version), &mut out) {
            Ok(()) => out,
            Err(_) => Vec::new(),
        }
    }
}

fn id(byte: u8) -> NonZeroU16 {
    NonZeroU16::new(u16::from(byte & 7) + 1).expect("not 0")
}

impl Stranger for MqttStranger {
    fn greeting(&mut self, way: u8) -> Vec<u8> {
        let mut writer = PropertyWriter::new();
        let mut will_writer = PropertyWriter::new();
        if self.version == Version::V5 {
            writer.push(Property::ReceiveMaximum(if way & 2 == 0 { 3 } else { 1 }));
            if way & 1 == 1 {
                writer.push(Property::SessionExpiryInterval(60));
                writer.push(Property::TopicAliasMaximum(2));
            }
            if way & 4 == 4 {
                will_writer.push(Property::WillDelayInterval(1));
                writer.push(Property::MaximumPacketSize(200));
            }
        }
        let will = Will {
            topic: "sig/g/floor",
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: will_writer.finish().expect("they fit"),
        };
        let connect = Connect {
            version: self.version,
            client_id: ID,
            clean_start: way & 1 == 0,
            keep_alive: if way & 2 == 0 { 0 } else { 60 },
            username: None,
            password: None,
            will: (way & 4 == 4).then_some(will),
            properties: writer.finish().expect("they fit"),
        };
        let mut out = Vec::new();
        encode(&Packet::Connect(connect), self.version, &mut out).expect("a good packet");
        out
    }

    fn phrase(&mut self, number: u8, steps: &mut Steps<'_>) -> Vec<u8> {
        let properties = Properties::EMPTY;
        match number {
            24..=31 => {
                let (which, bits) = (steps.byte(), steps.byte());
                let qos = QoS::from_u8(bits & 3).unwrap_or(QoS::AtLeastOnce);
                let options = SubscriptionOptions {
                    no_local: self.version == Version::V5 && bits & 4 != 0 && which & 15 != 13,
                    ..SubscriptionOptions::new(qos)
                };
                let filters = [
                    (FILTERS[usize::from(which & 15)], options),
                    (FILTERS[usize::from(which >> 4)], SubscriptionOptions::new(qos)),
                ];
                let subscriptions = Subscriptions::from(&filters[..1 + usize::from(bits >> 7)]);
                self.put(&Packet::Subscribe(Subscribe {
                    packet_id: id(bits >> 3),
                    properties,
                    subscriptions,
                }))
            }
            32..=34 => {
                let (which, bits) = (steps.byte(), steps.byte());
                let filters = [FILTERS[usize::from(which & 15)], FILTERS[usize::from(which >> 4)]];
                let filters = TopicFilters::from(&filters[..1 + usize::from(bits >> 7)]);
                self.put(&Packet::Unsubscribe(Unsubscribe { packet_id: id(bits), properties, filters }))
            }
            35..=42 => {
                let (which, bits) = (steps.byte(), steps.byte());
                let qos = QoS::from_u8(bits & 3).unwrap_or(QoS::AtLeastOnce);
                let payload = vec![which; if bits & 0x40 == 0 { 3 } else { 200 }];
                self.put(&Packet::Publish(Publish {
                    dup: false,
                    qos,
                    retain: bits & 0x80 != 0,
                    topic: TOPICS[usize::from(which & 15)],
                    packet_id: (qos != QoS::AtMostOnce).then(|| id(bits >> 2)),
                    properties,
                    payload: &payload,
                }))
            }
            43..=48 => {
                // All that it has heard; as if of QoS 1.
                let acks = self.connection.in_flight.clone().into_iter().filter_map(NonZeroU16::new);
                acks.flat_map(|id| self.put(&Packet::PubAck(Ack::new(id, ReasonCode::Success)))).collect()
            }
            49..=53 => {
                let bits = steps.byte();
                let ack = Ack::new(id(bits), ReasonCode::Success);
                self.put(&match number {
                    49 => Packet::PubAck(ack),
                    50 => Packet::PubRec(ack),
                    51 => Packet::PubComp(ack),
                    _ => Packet::PubRel(ack),
                })
            }
            54 => self.put(&Packet::PingReq),
            55 => {
                let reason = ReasonCode::NORMAL_DISCONNECTION;
                self.put(&Packet::Disconnect(Disconnect { reason, properties }))
            }
            _ => Vec::new(),
        }
    }

    fn connected(&mut self) {
        self.has_another_past |= self.connection.is_foreign;
        // It may have subscribed without hearing of it, and the session may go on.
        self.kept.filters.append(&mut self.connection.filters);
        self.connection = Connection::default();
    }

    fn said(&mut self, bytes: &[u8]) {
        self.connection.said.extend(bytes);
        let said = std::mem::take(&mut self.connection.said);
        let mut rest = &said[..];
        let first = said.first().copied();
        self.connection.is_foreign |= !self.connection.has_begun && first.is_some_and(|first| first != 0x10);
        while !self.connection.is_foreign && !self.connection.is_broken {
            match frame_length(rest).map(|length| length.and_then(|length| rest.split_at_checked(length))) {
                Ok(Some((packet, after))) => {
                    rest = after;
                    match decode(packet, self.connection.version.unwrap_or(Version::V5)) {
                        Ok(packet) => self.say(&packet),
                        Err(_) => self.connection.is_broken = true,
                    }
                }
                Ok(None) => break,
                Err(_) => self.connection.is_broken = true,
            }
        }
        self.connection.said = rest.to_vec();
    }

    fn hears(&mut self, bytes: &[u8]) {
        // Without a CONNECT that can be read, what it gets is in no certain version.
        let Some(version) = self.connection.version.filter(|_| !self.connection.is_foreign) else { return };
        self.connection.heard.extend(bytes);
        let heard = std::mem::take(&mut self.connection.heard);
        let mut rest = &heard[..];
        while let Some(length) = frame_length(rest).expect("the gateway writes good lengths")
            && let Some((bytes, after)) = rest.split_at_checked(length)
        {
            rest = after;
            assert!(length <= self.connection.max_packet, "{length} bytes are more than the client takes");
            let packet = decode(bytes, version).expect("the gateway writes good packets");
            self.hear(&packet);
        }
        self.connection.heard = rest.to_vec();
    }

    fn panel_sends(&mut self, signal: PanelSignal) {
        let place = if signal.to_group { "sig/g/floor" } else { "sig/c/garbage" };
        let mut filters = self.kept.filters.keys().chain(self.connection.filters.keys());
        let may_be = filters.any(|filter| {
            filter == place || filter.strip_prefix(place).is_some_and(|form| form.starts_with('/'))
        });
        if !may_be && !self.has_another_past {
            self.kept.panel.forbid(signal);
        }
    }

    fn panel_sends_elsewhere(&mut self, signal: PanelSignal) {
        self.kept.panel.forbid(signal);
    }
}

impl MqttStranger {
    /// One packet of its own.
    fn say(&mut self, packet: &Packet<'_>) {
        trace(|| format!("  > {packet:?}"));
        let connection = &mut self.connection;
        self.clock += 1;
        let time = self.clock;
        match packet {
            Packet::Connect(connect) if !connection.has_begun => {
                connection.version = Some(connect.version);
                connection.receive_maximum = connect.properties.receive_maximum().unwrap_or(u16::MAX).into();
                connection.max_packet = connect.properties.maximum_packet_size().unwrap_or(u32::MAX) as usize;
                connection.alias_maximum = connect.properties.topic_alias_maximum().unwrap_or(0);
                if self.kept_of != connect.client_id {
                    self.has_another_past |= !self.kept_of.is_empty();
                    self.kept_of = connect.client_id.to_owned();
                }
            }
            // Anything else as the first packet is the end.
            _ if !connection.has_begun => connection.is_broken = true,
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    let counts = &mut connection.publishes[usize::from(publish.qos.as_u8()) - 1];
                    *counts.entry(id.get()).or_default() += 1;
                }
            }
            Packet::PubRel(ack) => *connection.publishes[2].entry(ack.packet_id.get()).or_default() += 1,
            Packet::Subscribe(subscribe) => {
                let filters: Vec<_> =
                    subscribe.subscriptions.iter().map(|(filter, _)| filter.to_owned()).collect();
                connection.subscribes.entry(subscribe.packet_id.get()).or_default().push_back(filters.len());
                self.kept.ever.extend(filters.iter().cloned());
                connection.filters.extend(filters.into_iter().map(|filter| (filter, time)));
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.filters.iter().map(str::to_owned).collect();
                let all = connection.unsubscribes.entry(unsubscribe.packet_id.get()).or_default();
                all.push_back((time, filters));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => connection.acknowledge(ack.packet_id.get()),
            Packet::PubRec(ack) if ack.reason.is_failure() => connection.acknowledge(ack.packet_id.get()),
            Packet::PingReq => connection.pings += 1,
            _ => {}
        }
        connection.has_begun = true;
    }

    /// One packet of the gateway's.
    fn hear(&mut self, packet: &Packet<'_>) {
        trace(|| format!("  < {packet:?}"));
        let connection = &mut self.connection;
        assert!(!connection.has_ended, "{packet:?} after the end");
        if !connection.is_connected {
            match packet {
                Packet::ConnAck(connack) if connack.reason.is_failure() => connection.has_ended = true,
                Packet::ConnAck(connack) => {
                    connection.is_connected = true;
                    connection.session_present = connack.session_present;
                    if !connack.session_present {
                        let ever = connection.filters.keys().cloned().collect();
                        self.kept = Kept { ever, ..Kept::default() };
                    }
                    self.kept.filters.append(&mut connection.filters);
                }
                other => panic!("{other:?} before CONNACK"),
            }
            return;
        }
        self.kept.filters.append(&mut connection.filters);
        match packet {
            Packet::PubAck(ack) => connection.answered(0, ack.packet_id.get()),
            Packet::PubRec(ack) => connection.answered(1, ack.packet_id.get()),
            Packet::PubComp(ack) => connection.answered(2, ack.packet_id.get()),
            // Of a delivery that it has said PUBREC to, in this connection or before.
            Packet::PubRel(_) => {}
            Packet::SubAck(ack) => {
                let asked = connection.subscribes.get_mut(&ack.packet_id.get()).and_then(VecDeque::pop_front);
                assert_eq!(Some(ack.reasons.iter().count()), asked, "a code for each filter, once");
            }
            Packet::UnsubAck(ack) => {
                let asked =
                    connection.unsubscribes.get_mut(&ack.packet_id.get()).and_then(VecDeque::pop_front);
                let (time, filters) = asked.expect("one UNSUBACK for each UNSUBSCRIBE");
                for filter in filters {
                    if self.kept.filters.get(&filter).is_some_and(|said| *said < time) {
                        self.kept.filters.remove(&filter);
                    }
                }
            }
            Packet::PingResp => {
                connection.pings = connection.pings.checked_sub(1).expect("a PINGRESP was asked for");
            }
            Packet::Disconnect(_) => {
                assert_eq!(connection.version, Some(Version::V5), "only version 5 has it");
                connection.has_ended = true;
            }
            Packet::Publish(publish) => self.hear_publish(publish),
            other => panic!("{other:?} isn't for a client"),
        }
    }

    fn hear_publish(&mut self, publish: &Publish<'_>) {
        let connection = &mut self.connection;
        let topic = connection.topic(publish);
        if let Some(id) = publish.packet_id.map(NonZeroU16::get)
            && !connection.acknowledged_early.contains(&id)
        {
            assert!(connection.in_flight.insert(id), "identifier {id} is in use");
            assert!(connection.in_flight.len() <= connection.receive_maximum, "{:?}", connection.in_flight);
        }
        assert!(!publish.dup || connection.session_present, "nothing was sent before");
        let matching = |filter: &String| {
            let filter = match filter.strip_prefix("$share/") {
                Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
                None => filter,
            };
            naive::filter_matches(filter, &topic)
        };
        assert!(
            self.has_another_past || self.kept.ever.iter().any(matching),
            "it never subscribed to {topic}"
        );
        if topic == format!("sig/r/{}", self.kept_of) {
            return check_notice(publish.payload);
        }
        let mut from = publish.properties.user_properties().filter(|(key, _)| *key == "from");
        let is_named = topic == "sig/g/floor/panel" || topic == "sig/c/garbage/panel";
        // A copy that is sent again may be older than what came since.
        if (is_named || from.any(|(_, sender)| sender == "panel")) && !publish.dup {
            let signal = self.kept.panel.check(publish.payload);
            assert_eq!(signal.to_group, topic.starts_with("sig/g/floor"), "{topic}");
        }
    }
}

impl Connection {
    fn acknowledge(&mut self, id: u16) {
        if !self.in_flight.remove(&id) {
            self.acknowledged_early.insert(id);
        }
    }

    fn answered(&mut self, kind: usize, id: u16) {
        let count = self.publishes[kind].get_mut(&id).filter(|count| **count > 0);
        *count.unwrap_or_else(|| panic!("{id} is answered more often than it was said")) -= 1;
    }

    fn topic(&mut self, publish: &Publish<'_>) -> String {
        let Some(alias) = publish.properties.topic_alias() else { return publish.topic.to_owned() };
        assert!((1..=self.alias_maximum).contains(&alias), "alias {alias} of {}", self.alias_maximum);
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.to_owned());
        }
        self.aliases.get(&alias).expect("an alias stands for a topic before it is used").clone()
    }
}

/// As docs/topics.md says.
fn check_notice(payload: &[u8]) {
    assert!(payload.len() <= 8192, "a notice has at most 8 KiB");
    let notice: Value = serde_json::from_slice(payload).expect("a notice is JSON");
    match notice["type"].as_str() {
        Some("refusal") => {
            assert!(
                notice["code"].is_string() && notice["reason"].is_string() && notice["topic"].is_string()
            );
        }
        Some("receipt") => {
            let counts = notice["counts"].as_object().expect("counts");
            let total: u64 = counts.values().map(|count| count.as_u64().expect("a count")).sum();
            assert_eq!(notice["final"], true, "nothing is stored");
            if let Some(statuses) = notice["statuses"].as_object()
                && notice["parts"] == 1
                && total <= 128
            {
                assert_eq!(statuses.len() as u64, total, "{notice}");
            }
        }
        other => panic!("a notice of type {other:?}"),
    }
}
