//! Scripts: packets in, answers of a hub in, and what comes out, in virtual time.

mod connecting;
mod delivering;
mod malformed;
mod publishing;
mod subscribing;

use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use super::MqttSession;
use crate::model::{
    About, ClientId, Command, Connected, Delivery, GroupName, Identity, Instant, Limits, Message, Mode,
    Origin, Outgoing, QoS, ReceiptSlot, Reception, Refusal, Reply, RequestId, Settled,
};
use crate::mqtt::{
    Ack, Connect, Packet, Properties, Property, PropertyWriter, Publish, ReasonCode, Subscribe,
    SubscriptionOptions, TopicFilters, Unsubscribe, Version, decode, encode, frame_length,
};
use crate::session::SessionConfig;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn config() -> SessionConfig {
    SessionConfig { prefix: "sig".into(), limits: Arc::new(Limits::default()) }
}

fn config_with(change: impl FnOnce(&mut Limits)) -> SessionConfig {
    let mut limits = Limits::default();
    change(&mut limits);
    SessionConfig { limits: Arc::new(limits), ..config() }
}

fn properties<'a>(writer: &'a mut PropertyWriter, list: &[Property<'a>]) -> Properties<'a> {
    writer.extend(list.iter().copied());
    writer.finish().unwrap()
}

fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        client_id,
        clean_start: true,
        keep_alive: 10,
        username: None,
        password: None,
        will: None,
        properties: Properties::EMPTY,
    }
}

fn publish(qos: QoS, number: u16, topic: &str) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: NonZeroU16::new(number),
        properties: Properties::EMPTY,
        payload: b"on",
    }
}

fn bytes_of(packet: Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&packet, version, &mut bytes).unwrap();
    bytes
}

fn lines(mut bytes: &[u8], version: Version) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(frame_length(bytes).unwrap().unwrap());
        lines.push(decode(frame, version).unwrap().line());
        bytes = rest;
    }
    lines
}

/// A client and a hub around one session.
struct Script {
    session: MqttSession,
    version: Version,
    now: Instant,
    /// The number of the last publish without a packet identifier.
    unidentified: u32,
}

impl Script {
    fn new(version: Version, config: SessionConfig) -> Self {
        let now = Instant::from_millis(1000);
        Self { session: MqttSession::new(Arc::new(config), now), version, now, unidentified: 0 }
    }

    /// A client that is in.
    fn connected(version: Version, client_id: &str) -> Self {
        Self::connected_with(config(), &connect(version, client_id))
    }

    fn connected_with(config: SessionConfig, connect: &Connect<'_>) -> Self {
        let mut script = Self::new(connect.version, config);
        let commands = script.packet(Packet::Connect(*connect));
        assert!(matches!(commands[..], [Command::Connect(_)]), "{commands:?}");
        script.let_in(connect.client_id, false);
        let out = script.output();
        assert!(out.len() == 1 && out[0].starts_with("CONNACK 00"), "{out:?}");
        script
    }

    /// A client that is in and gets its notices at QoS 0.
    fn with_notices(version: Version) -> Self {
        let mut script = Self::connected(version, "me");
        assert!(script.subscribe(900, &[("sig/r/me", QoS::AtMostOnce)]).is_empty());
        assert_eq!(script.output(), ["SUBACK 900 00"]);
        script
    }

    fn let_in(&mut self, identity: &str, assigned: bool) {
        let connected = Connected {
            identity: Identity::new(identity),
            assigned,
            session: 1,
            session_present: false,
            lasts: false,
            session_expiry: 0,
            authentication: None,
        };
        self.reply(Reply::Connected(connected));
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Vec<Command<'static>> {
        let mut commands = Vec::new();
        while let Some(command) = self.session.handle_bytes(&mut bytes, self.now) {
            if let Command::Refuse { request, .. }
            | Command::Send { request: Some(request), .. }
            | Command::Publish { request: Some(request), .. } = &command
                && request.0 > u16::MAX.into()
            {
                self.unidentified = request.0;
            }
            commands.push(command.into_owned());
        }
        assert!(bytes.is_empty(), "input is used up or kept");
        commands
    }

    fn packet(&mut self, packet: Packet<'_>) -> Vec<Command<'static>> {
        let bytes = bytes_of(packet, self.version);
        self.bytes(&bytes)
    }

    fn publish(&mut self, qos: QoS, number: u16, topic: &str) -> Vec<Command<'static>> {
        self.packet(Packet::Publish(publish(qos, number, topic)))
    }

    fn subscribe(&mut self, number: u16, filters: &[(&str, QoS)]) -> Vec<Command<'static>> {
        let filters: Vec<_> =
            filters.iter().map(|(filter, qos)| (*filter, SubscriptionOptions::new(*qos))).collect();
        self.packet(Packet::Subscribe(Subscribe {
            packet_id: id(number),
            properties: Properties::EMPTY,
            subscriptions: filters.as_slice().into(),
        }))
    }

    fn unsubscribe(&mut self, number: u16, filters: &[&str]) -> Vec<Command<'static>> {
        self.packet(Packet::Unsubscribe(Unsubscribe {
            packet_id: id(number),
            properties: Properties::EMPTY,
            filters: TopicFilters::from(filters),
        }))
    }

    fn reply(&mut self, reply: Reply) {
        self.session.handle_reply(reply, self.now);
    }

    fn done(&mut self, request: u32) {
        self.reply(Reply::Done(RequestId(request)));
    }

    /// Refuses a request, 0 for the last one that had no packet identifier.
    fn refuse(&mut self, request: u32, refusal: Refusal) {
        let request = if request == 0 { self.unidentified } else { request };
        self.reply(Reply::Refused(RequestId(request), refusal));
    }

    fn deliver(&mut self, delivery: Delivery) -> Vec<String> {
        let mut out = Vec::new();
        self.session.handle_delivery(delivery, &mut out, self.now);
        lines(&out, self.version)
    }

    fn output(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        assert!(
            self.session.has_output() || self.session.is_closing() || {
                self.session.poll_transmit(&mut out, self.now);
                out.is_empty()
            }
        );
        self.session.poll_transmit(&mut out, self.now);
        lines(&out, self.version)
    }

    fn settled(&mut self) -> Vec<Settled> {
        std::iter::from_fn(|| self.session.poll_settled()).map(|(_, settled)| settled).collect()
    }

    fn after(&mut self, millis: u64) {
        self.now = self.now + millis;
        self.session.handle_time(self.now);
    }
}

fn reception(qos: QoS) -> Reception {
    Reception { qos, no_local: false, with_sender: false, retain_as_published: false, subscription: None }
}

fn slot() -> Option<ReceiptSlot> {
    Some(ReceiptSlot::Tracker { tracker: Default::default(), index: 3 })
}

fn delivery(message: Message, reception: Reception) -> Delivery {
    Delivery { slot: slot(), ..Delivery::new(Outgoing::new(Arc::new(message)), reception) }
}

fn to_group(qos: QoS) -> Message {
    Message {
        origin: Origin::Signal {
            sender: ClientId::new("boss").unwrap(),
            group: GroupName::new("floor3"),
            client: None,
            mode: Mode::All,
        },
        payload: ::bytes::Bytes::from_static(b"on"),
        properties: ::bytes::Bytes::new(),
        qos,
        deadline: None,
        urgent: false,
    }
}

fn to_topic(qos: QoS, retain: bool) -> Message {
    let origin = Origin::Topic { topic: "a/b".into(), publisher: Identity::new("boss"), retain };
    Message { origin, ..to_group(qos) }
}

fn ack(number: u16) -> Ack<'static> {
    Ack::new(id(number), ReasonCode::Success)
}

fn shares(one: &Rc<Outgoing>, copies: usize) -> Vec<Delivery> {
    let delivery = |_| Delivery::new(one.clone(), reception(QoS::AtLeastOnce));
    (0..copies).map(delivery).collect()
}
