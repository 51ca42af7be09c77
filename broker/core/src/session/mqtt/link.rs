//! What belongs to the connection and dies with it: version, kept input, what waits to be written, keep-alive,
//! topic aliases.

use std::num::NonZeroU16;
use std::rc::Rc;

use super::{Fault, is_expressive};
use crate::hub::SCRAM_SHA_256;
use crate::model::{Instant, Map};
use crate::mqtt::{
    Ack, Auth, ConnAck, Disconnect, Packet, PacketType, Properties, Property, PropertyWriter, ReasonCode,
    Version, encode, frame_length,
};

/// The highest topic alias that a client may use.
pub(super) const TOPIC_ALIAS_MAXIMUM: u16 = 16;
/// Bytes of topics that aliases of one client may stand for; beyond, the connection is closed.
const ALIAS_BYTES: usize = 16 * 1024;
/// The most aliases that are used towards one client, and the longest topic that gets one, in bytes.
const OWN_ALIASES: u16 = 32;
const OWN_ALIAS_TOPIC: usize = 256;
/// Bytes of control packets that may wait before no more is read.
const CHOKED: usize = 16 * 1024;
/// Bytes that an idle connection's queue of control packets may hold on to.
const KEPT: usize = 64;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) version: Version,
    /// The hub's park is full (S7).
    pub(super) paused: bool,
    /// A request stands in the input and too many are unanswered.
    pub(super) blocked: bool,
    /// Seconds; 0 is none.
    pub(super) keep_alive: u16,
    /// The largest packet that the client takes.
    pub(super) max_packet: usize,
    /// Reason strings and user properties may be in any packet [MQTT-3.1.2-29].
    pub(super) problem_information: bool,
    /// CONNECT named the method by which it proves itself.
    pub(super) authenticates: bool,
    /// CONNECT asked for a prefix of response topics.
    pub(super) response_information: bool,
    /// Seconds for which CONNECT asked to keep the session without a connection.
    pub(super) session_expiry: u32,
    last_heard: Instant,
    input: Input,
    control: Vec<u8>,
    /// What the client's aliases stand for: that of alias n at n - 1.
    aliases: Vec<Option<Rc<str>>>,
    /// Aliases towards the client, if it takes any.
    pub(super) own_aliases: Option<Box<OwnAliases>>,
}

/// Topic aliases that the gateway uses towards a client: for the first topics that come, since who takes aliases
/// mostly gets few topics (section 3.3.2.3.4).
#[derive(Debug)]
pub(super) struct OwnAliases {
    maximum: u16,
    topics: Map<Box<str>, NonZeroU16>,
}

/// How a PUBLISH names its topic by an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnAlias {
    pub(super) number: NonZeroU16,
    /// The client doesn't know it yet: the topic stands beside it.
    pub(super) is_new: bool,
}

impl OwnAliases {
    /// Up to `maximum`, which isn't 0, as the client says.
    pub(super) fn new(maximum: u16) -> Self {
        Self { maximum: maximum.min(OWN_ALIASES), topics: Map::default() }
    }

    /// The alias of a topic, or the next free one.
    pub(super) fn find(&self, topic: &str) -> Option<OwnAlias> {
        if let Some(&number) = self.topics.get(topic) {
            return Some(OwnAlias { number, is_new: false });
        }
        let free = self.topics.len() < usize::from(self.maximum) && topic.len() <= OWN_ALIAS_TOPIC;
        let number = u16::try_from(self.topics.len() + 1).ok().and_then(NonZeroU16::new);
        number.filter(|_| free).map(|number| OwnAlias { number, is_new: true })
    }

    /// A PUBLISH with this new alias and its topic has been written.
    pub(super) fn set(&mut self, topic: &str, number: NonZeroU16) {
        self.topics.insert(topic.into(), number);
    }
}

impl Link {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            version: Version::V5,
            paused: false,
            blocked: false,
            keep_alive: 0,
            max_packet: usize::MAX,
            problem_information: true,
            authenticates: false,
            response_information: false,
            session_expiry: 0,
            last_heard: now,
            input: Input::default(),
            control: Vec::new(),
            aliases: Vec::new(),
            own_aliases: None,
        }
    }

    /// Whether the client's version has properties and can be told a refusal.
    pub(super) fn is_expressive(&self) -> bool {
        is_expressive(self.version)
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// One and a half intervals after the last sign of life [MQTT-3.1.2-22]; none while nothing is read.
    pub(super) fn keep_alive_deadline(&self) -> Option<Instant> {
        (self.keep_alive > 0 && !self.paused && !self.blocked)
            .then(|| self.last_heard + u64::from(self.keep_alive) * 1500)
    }

    pub(super) fn has_input(&self) -> bool {
        !self.input.rest().is_empty()
    }

    /// Bytes of it.
    pub(super) fn input_bytes(&self) -> usize {
        self.input.bytes.len()
    }

    pub(super) fn keep(&mut self, input: &mut &[u8]) {
        self.input.append(input, usize::MAX);
    }

    pub(super) fn take_input(&mut self) -> Input {
        std::mem::take(&mut self.input)
    }

    /// The counterpart of [`take_input`](Self::take_input); nothing is put back once closing, and an empty
    /// buffer is freed.
    pub(super) fn put_back(&mut self, input: Input) {
        if !input.rest().is_empty() {
            self.input = input;
        }
    }

    pub(super) fn forget_input(&mut self) {
        self.input = Input::default();
    }

    pub(super) fn has_output(&self) -> bool {
        !self.control.is_empty()
    }

    pub(super) fn is_choked(&self) -> bool {
        self.control.len() > CHOKED
    }

    /// Moves what waits to `out`.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if self.control.is_empty() {
            return;
        }
        out.extend_from_slice(&self.control);
        if self.control.capacity() > KEPT {
            self.control = Vec::new();
        } else {
            self.control.clear();
        }
    }

    /// Queues a control packet, unless it can't be written or the client doesn't take one of its size
    /// [MQTT-3.1.2-24]; says whether it did.
    pub(super) fn write(&mut self, packet: &Packet<'_>) -> bool {
        let start = self.control.len();
        let written = encode(packet, self.version, &mut self.control).is_ok()
            && self.control.len() - start <= self.max_packet;
        if !written {
            self.control.truncate(start);
        }
        written
    }

    /// An acknowledgement without properties.
    pub(super) fn write_ack(&mut self, kind: PacketType, id: NonZeroU16, reason: ReasonCode) {
        self.write_explained_ack(kind, id, reason, Properties::EMPTY);
    }

    /// An acknowledgement with these properties, or without them where they make it too large. Before
    /// version 5 it always says success: there is no other.
    pub(super) fn write_explained_ack(
        &mut self,
        kind: PacketType,
        packet_id: NonZeroU16,
        reason: ReasonCode,
        properties: Properties<'_>,
    ) {
        // Nearly all are these four bytes.
        if reason == ReasonCode::Success && properties.is_empty() && self.max_packet >= 4 {
            let [high, low] = packet_id.get().to_be_bytes();
            let first = (kind as u8) << 4 | kind.reserved_flags();
            return self.control.extend_from_slice(&[first, 2, high, low]);
        }
        let packet = |properties| {
            let ack = Ack { packet_id, reason, properties };
            match kind {
                PacketType::PubRec => Packet::PubRec(ack),
                PacketType::PubRel => Packet::PubRel(ack),
                PacketType::PubComp => Packet::PubComp(ack),
                _ => Packet::PubAck(ack),
            }
        };
        let properties = if self.problem_information { properties } else { Properties::EMPTY };
        let _ = self.write(&packet(properties)) || self.write(&packet(Properties::EMPTY));
    }

    pub(super) fn write_connack_refusal(&mut self, reason: ReasonCode, properties: Properties<'_>) {
        let packet = |properties| Packet::ConnAck(ConnAck { session_present: false, reason, properties });
        let _ = self.write(&packet(properties)) || self.write(&packet(Properties::EMPTY));
    }

    pub(super) fn write_auth(&mut self, reason: ReasonCode, data: &[u8]) {
        let mut writer = PropertyWriter::new();
        writer.push(Property::AuthenticationMethod(SCRAM_SHA_256)).push(Property::AuthenticationData(data));
        self.write(&Packet::Auth(Auth { reason, properties: writer.finish().unwrap_or_default() }));
    }

    /// Nothing below version 5, where only clients send DISCONNECT.
    pub(super) fn write_disconnect(&mut self, reason: ReasonCode, properties: Properties<'_>) {
        if self.is_expressive() {
            let packet = |properties| Packet::Disconnect(Disconnect { reason, properties });
            let _ = self.write(&packet(properties)) || self.write(&packet(Properties::EMPTY));
        }
    }

    /// The topic that a PUBLISH names or whose alias it uses (section 3.3.2.3.4). The error is for DISCONNECT.
    pub(super) fn resolve_alias(&mut self, topic: &str, alias: u16) -> Result<Rc<str>, ReasonCode> {
        // [MQTT-3.3.2-9]
        if alias == 0 || alias > TOPIC_ALIAS_MAXIMUM {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            return self.aliases.get(index).cloned().flatten().ok_or(ReasonCode::ProtocolError);
        }
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, None);
        }
        let topic: Rc<str> = topic.into();
        if let Some(place) = self.aliases.get_mut(index) {
            *place = Some(topic.clone());
        }
        if self.aliases.iter().flatten().map(|topic| topic.len()).sum::<usize>() > ALIAS_BYTES {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(topic)
    }
}

/// Received bytes that could not be handled yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Up to here they have been handled.
    start: usize,
}

impl Input {
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Moves up to `count` bytes of `input` here.
    pub(super) fn append(&mut self, input: &mut &[u8], count: usize) {
        if input.is_empty() {
            return;
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let (taken, rest) = input.split_at(count.min(input.len()));
        self.bytes.extend_from_slice(taken);
        *input = rest;
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
    }
}

/// How much of the first packet is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    /// All of it: this many bytes.
    Whole(usize),
    /// At least this many bytes are missing.
    Partial(usize),
}

pub(super) fn measure(bytes: &[u8], max_packet: usize) -> Result<Measured, Fault> {
    match frame_length(bytes).map_err(Fault::Decode)? {
        Some(length) if length > max_packet => Err(Fault::TooLarge),
        Some(length) if length <= bytes.len() => Ok(Measured::Whole(length)),
        Some(length) => Ok(Measured::Partial(length - bytes.len())),
        None => Ok(Measured::Partial(1)),
    }
}
