//! An MQTT client, 3.1.1 or 5, on the gateway's own codec, that behaves as the standard says: it keeps what isn't
//! acknowledged as long as its session lasts, repeats it in order, and takes a QoS 2 message once.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Ack, Connect, Disconnect, Packet, Properties, Property, PropertyWriter, Publish, QoS, ReasonCode,
    Subscribe, SubscriptionOptions, Subscriptions, TopicFilters, Unsubscribe, Version, Will, decode, encode,
    frame_length,
};
use bugle_protocol::{ReceiptMode, Status};
use serde_json::Value;

use crate::arrival::{Arrival, Route};
use crate::device::filter_text;
use crate::ledger::{Fate, Ledger, Place};
use crate::link::Mark;
use crate::message::{Moment, Submission, Target, What};
use crate::plan::{ClientPlan, Kind, client_id, group_name, topic_name};
use crate::receipt::Receipt;

/// A client.
pub struct Mqtt {
    me: usize,
    plan: ClientPlan,
    version: Version,
    link: u32,
    phase: Phase,
    /// Publishes at a time that the gateway takes.
    gateway_window: usize,
    next_id: u16,
    /// Sent and not at its end, in the order of sending.
    sent: Vec<Sent>,
    /// Which of its sessions it is in.
    epoch: u32,
    /// QoS 2 messages that it has and the gateway hasn't released.
    received: BTreeSet<NonZeroU16>,
    asked: BTreeMap<u16, Asked>,
    /// Messages by packet identifier, for notices.
    by_id: BTreeMap<u16, u32>,
    /// Receipts of which parts are there.
    parts: BTreeMap<u32, Receipt>,
    /// Not yet a whole packet.
    input: Vec<u8>,
    out: Vec<u8>,
    marks: Vec<(usize, Mark)>,
    /// It was let in on this connection.
    pub was_let_in: bool,
    last_sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Connecting,
    /// Its own topics aren't confirmed yet.
    Subscribing(u16),
    Ready,
    /// Nothing more comes or goes.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: NonZeroU16,
    number: u32,
    qos: u8,
    /// QoS 2: the gateway has it.
    released: bool,
}

enum Asked {
    Subscribe(Vec<usize>),
    Unsubscribe(Vec<usize>),
}

fn level(number: u8) -> QoS {
    QoS::from_u8(number).unwrap_or(QoS::AtMostOnce)
}

impl Mqtt {
    /// A client without a connection.
    pub fn new(me: usize, plan: ClientPlan) -> Self {
        let version = if plan.kind == Kind::Mqtt5 { Version::V5 } else { Version::V311 };
        Self {
            me,
            plan,
            version,
            link: 0,
            phase: Phase::Down,
            gateway_window: 0,
            next_id: 0,
            sent: Vec::new(),
            epoch: 0,
            received: BTreeSet::new(),
            asked: BTreeMap::new(),
            by_id: BTreeMap::new(),
            parts: BTreeMap::new(),
            input: Vec::new(),
            out: Vec::new(),
            marks: Vec::new(),
            was_let_in: false,
            last_sent: 0,
        }
    }

    /// A connection is open.
    pub fn connect(&mut self, link: u32, ledger: &Ledger, now: Moment) {
        self.link = link;
        self.phase = Phase::Connecting;
        self.was_let_in = false;
        self.input.clear();
        self.out.clear();
        self.marks.clear();
        self.parts.clear();
        self.last_sent = now.at;
        let mut writer = PropertyWriter::new();
        if self.version == Version::V5 {
            writer.push(Property::ReceiveMaximum(self.plan.window));
            writer.extend(self.plan.expiry.map(Property::SessionExpiryInterval));
        }
        let will = ledger.plan.will_number(self.me).map(|number| {
            let submission = &ledger.messages[number as usize].submission;
            let retain = matches!(submission.what, What::Publish { retain: true, .. });
            (topic_of(&submission.what), submission.payload(number), retain)
        });
        let connect = Connect {
            version: self.version,
            client_id: &client_id(self.me),
            clean_start: self.plan.expiry.is_none(),
            keep_alive: self.plan.keep_alive,
            username: None,
            password: None,
            will: will.as_ref().map(|(topic, payload, retain)| Will {
                topic,
                payload,
                qos: QoS::AtLeastOnce,
                retain: *retain,
                properties: Properties::EMPTY,
            }),
            properties: writer.finish().unwrap_or(Properties::EMPTY),
        };
        self.put(&Packet::Connect(connect));
        self.marks.push((self.out.len(), Mark::Connect));
    }

    /// The connection is no more.
    pub fn lost(&mut self, ledger: &mut Ledger) {
        self.phase = Phase::Down;
        self.asked.clear();
        if self.plan.expiry.is_none() {
            self.forget_session(ledger);
        }
    }

    /// What is in its session is void.
    fn forget_session(&mut self, ledger: &mut Ledger) {
        for sent in self.sent.drain(..) {
            ledger.lost_sight_of(sent.number);
        }
        self.received.clear();
    }

    /// Whether it takes something to be sent.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it was let in.
    pub fn is_in(&self) -> bool {
        matches!(self.phase, Phase::Subscribing(_) | Phase::Ready)
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        !self.asked.is_empty() || !self.sent.is_empty()
    }

    /// Says goodbye.
    pub fn leave_for_good(&mut self) {
        if self.is_in() {
            let (reason, properties) = (ReasonCode::NORMAL_DISCONNECTION, Properties::EMPTY);
            self.put(&Packet::Disconnect(Disconnect { reason, properties }));
            self.marks.push((self.out.len(), Mark::Goodbye));
        }
        self.phase = Phase::Done;
    }

    /// Bytes to be written, and what is in them. The second: whether the connection is over then.
    pub fn pump(&mut self, out: &mut Vec<u8>, marks: &mut Vec<(usize, Mark)>, now: Moment) -> bool {
        let quiet = u64::from(self.plan.keep_alive) * 500;
        if self.is_in() && quiet > 0 && now.at >= self.last_sent + quiet {
            self.put(&Packet::PingReq);
        }
        if !self.out.is_empty() {
            self.last_sent = now.at;
        }
        out.append(&mut self.out);
        marks.append(&mut self.marks);
        self.phase == Phase::Done
    }

    /// When it has something to do by itself.
    pub fn deadline(&self) -> Option<u64> {
        let quiet = u64::from(self.plan.keep_alive) * 500;
        (self.is_in() && quiet > 0).then_some(self.last_sent + quiet)
    }

    fn put(&mut self, packet: &Packet<'_>) {
        // What is built here is well-formed; a packet that isn't is missed by the checks.
        let encoded = encode(packet, self.version, &mut self.out);
        debug_assert!(encoded.is_ok(), "{packet:?}: {encoded:?}");
    }

    fn fresh_id(&mut self) -> NonZeroU16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.next_id)
                && !self.asked.contains_key(&id.get())
                && !self.sent.iter().any(|sent| sent.id == id)
            {
                return id;
            }
        }
    }

    // -- what it asks for ---------------------------------------------------------------------------------

    /// Sends a message.
    pub fn send(&mut self, submission: Submission, ledger: &mut Ledger, now: Moment) -> Option<u32> {
        if submission.qos > 0 && self.sent.len() >= self.gateway_window {
            return None;
        }
        let qos = submission.qos;
        let number = ledger.submitted(self.me, submission, self.link, now);
        let id = (qos > 0).then(|| self.fresh_id());
        ledger.message(number).may_be_refused = self.version != Version::V5 || qos == 0;
        self.put_message(number, id, false, ledger);
        match id {
            Some(id) => {
                self.sent.push(Sent { id, number, qos, released: false });
                self.by_id.insert(id.get(), number);
            }
            None => ledger.lost_sight_of(number),
        }
        Some(number)
    }

    fn put_message(&mut self, number: u32, packet_id: Option<NonZeroU16>, dup: bool, ledger: &Ledger) {
        let submission = &ledger.messages[number as usize].submission;
        let payload = submission.payload(number);
        let retain = matches!(submission.what, What::Publish { retain: true, .. });
        let options = options(&submission.what, number);
        let mut writer = PropertyWriter::new();
        let mut topic = topic_of(&submission.what);
        if self.version == Version::V5 && !self.plan.inline {
            writer.extend(options.iter().map(|(key, value)| Property::UserProperty(key, value)));
        } else if !options.is_empty() {
            let pairs: Vec<_> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
            topic += &format!("?{}", pairs.join("&"));
        }
        let properties = writer.finish().unwrap_or(Properties::EMPTY);
        let qos = level(if packet_id.is_some() { submission.qos } else { 0 });
        self.put(&Packet::Publish(Publish {
            dup,
            qos,
            retain,
            topic: &topic,
            packet_id,
            properties,
            payload: &payload,
        }));
        self.marks.push((self.out.len(), Mark::Message(number)));
    }

    /// Joins a group, or subscribes to a filter.
    pub fn join(&mut self, place: Place, ledger: &mut Ledger, now: Moment) {
        let filter = self.filter_of(place, ledger.plan.topics);
        let tenure = ledger.asked(self.me, place, self.link, now);
        let options = self.reception(place);
        let id = self.subscribe(&[(&filter, options)]);
        self.asked.insert(id, Asked::Subscribe(vec![tenure]));
    }

    /// Leaves it.
    pub fn leave(&mut self, place: Place, ledger: &mut Ledger, now: Moment) {
        let filter = self.filter_of(place, ledger.plan.topics);
        let tenures = ledger.leaving(self.me, place, now);
        let packet_id = self.fresh_id();
        let filters = [filter.as_str()];
        let filters = TopicFilters::from(&filters);
        self.put(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }));
        self.asked.insert(packet_id.get(), Asked::Unsubscribe(tenures));
    }

    fn subscribe(&mut self, filters: &[(&str, SubscriptionOptions)]) -> u16 {
        let packet_id = self.fresh_id();
        let subscriptions = Subscriptions::from(filters);
        self.put(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, subscriptions }));
        packet_id.get()
    }

    fn reception(&self, place: Place) -> SubscriptionOptions {
        match place {
            Place::Filter(_) => SubscriptionOptions::new(level(self.plan.topic_qos)),
            _ => SubscriptionOptions {
                no_local: self.plan.no_local,
                ..SubscriptionOptions::new(level(self.plan.signal_qos))
            },
        }
    }

    fn filter_of(&self, place: Place, topics: usize) -> String {
        let below = if self.plan.with_sender { "/+" } else { "" };
        match place {
            Place::Inbox => format!("sig/c/{}{below}", client_id(self.me)),
            Place::Group(group) => format!("sig/g/{}{below}", group_name(group)),
            Place::Filter(filter) => filter_text(filter, topics),
        }
    }

    // -- what it is told ----------------------------------------------------------------------------------

    /// Bytes came, written by the gateway at that time.
    pub fn feed(&mut self, bytes: &[u8], written: Moment, ledger: &mut Ledger, now: Moment) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            match frame_length(rest) {
                Ok(Some(length)) if length <= rest.len() => {
                    let (frame, behind) = rest.split_at(length);
                    rest = behind;
                    match decode(frame, self.version) {
                        Ok(packet) => self.handle(&packet, written, ledger, now),
                        Err(error) => self.shocked(&format!("{frame:02x?}: {error}"), ledger),
                    }
                }
                Ok(_) => break,
                Err(error) => {
                    self.shocked(&error.to_string(), ledger);
                    break;
                }
            }
        }
        self.input = rest.to_vec();
    }

    /// The gateway broke the protocol.
    fn shocked(&self, what: &str, ledger: &mut Ledger) {
        ledger.violated(format!("{} heard what MQTT doesn't allow: {what}", client_id(self.me)));
    }

    fn handle(&mut self, packet: &Packet<'_>, written: Moment, ledger: &mut Ledger, now: Moment) {
        match packet {
            Packet::ConnAck(connack) if self.phase == Phase::Connecting => {
                if connack.reason != ReasonCode::Success {
                    let text = format!("was refused: {:?}", connack.reason);
                    return self.shocked(&text, ledger);
                }
                let maximum = connack.properties.receive_maximum().unwrap_or(u16::MAX);
                self.gateway_window = usize::from(maximum).min(20);
                self.connected(connack.session_present, ledger, now);
            }
            _ if !self.is_in() => {
                let text = format!("{:?} while {:?}", packet.packet_type(), self.phase);
                if self.phase != Phase::Done {
                    self.shocked(&text, ledger);
                }
            }
            Packet::Publish(publish) => self.handle_publish(publish, written, ledger, now),
            Packet::PubAck(ack) => self.handle_puback(ack, written, ledger),
            Packet::PubRec(ack) => self.handle_pubrec(ack, written, ledger),
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                self.put(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::PubComp(ack) => {
                let waits = |sent: &Sent| sent.id == ack.packet_id && sent.qos == 2 && sent.released;
                match self.sent.iter().position(waits) {
                    Some(at) => drop(self.sent.remove(at)),
                    None => self.shocked(&format!("PUBCOMP {}", ack.packet_id), ledger),
                }
            }
            Packet::SubAck(ack) => {
                let id = ack.packet_id.get();
                if self.phase == Phase::Subscribing(id) {
                    self.phase = Phase::Ready;
                }
                let Some(Asked::Subscribe(tenures)) = self.asked.remove(&id) else {
                    return self.shocked(&format!("SUBACK {id}"), ledger);
                };
                // The first of the own topics, the notices, is no place.
                let results: Vec<_> = ack.reasons.iter().collect();
                let offset = results.len() - tenures.len();
                for (tenure, reason) in tenures.iter().zip(&results[offset..]) {
                    if reason.is_failure() {
                        ledger.not_given(self.me, *tenure, written);
                    } else {
                        ledger.confirmed(self.me, *tenure, now);
                    }
                }
            }
            Packet::UnsubAck(ack) => match self.asked.remove(&ack.packet_id.get()) {
                Some(Asked::Unsubscribe(tenures)) => ledger.left(self.me, &tenures, written),
                _ => self.shocked(&format!("UNSUBACK {}", ack.packet_id), ledger),
            },
            Packet::PingResp => {}
            Packet::Disconnect(_) => self.phase = Phase::Done,
            other => self.shocked(&format!("{:?}", other.packet_type()), ledger),
        }
    }

    fn connected(&mut self, present: bool, ledger: &mut Ledger, now: Moment) {
        self.was_let_in = true;
        ledger.session_answered(self.me, self.link, present);
        ledger.up(self.me, self.link, now);
        let epoch = ledger.link_epochs[self.link as usize];
        if present {
            let incarnation = ledger.link_incarnations[self.link as usize];
            // The session may be one that an earlier attempt of this client began, at a gateway that knew nothing of it
            // any more: what was under way can't be told from what is new, and no client can help it.
            let is_renewed = std::mem::replace(&mut self.epoch, epoch) != epoch;
            if is_renewed {
                self.received.clear();
            }
            for at in 0..self.sent.len() {
                let sent = self.sent[at];
                if sent.released {
                    self.put(&Packet::PubRel(Ack::new(sent.id, ReasonCode::Success)));
                } else {
                    let message = ledger.message(sent.number);
                    // A gateway that doesn't know of the first one takes QoS 2 once more.
                    message.writes += u32::from(sent.qos == 1 || is_renewed);
                    message.is_repeated = true;
                    message.link = self.link;
                    message.incarnation = incarnation;
                    self.put_message(sent.number, Some(sent.id), true, ledger);
                }
            }
        } else {
            self.forget_session(ledger);
            self.epoch = epoch;
        }
        let notices = format!("sig/r/{}", client_id(self.me));
        let inbox = self.filter_of(Place::Inbox, ledger.plan.topics);
        let options = self.reception(Place::Inbox);
        let tenure = ledger.asked(self.me, Place::Inbox, self.link, now);
        let id = self.subscribe(&[(&notices, SubscriptionOptions::new(QoS::AtLeastOnce)), (&inbox, options)]);
        self.asked.insert(id, Asked::Subscribe(vec![tenure]));
        self.phase = Phase::Subscribing(id);
    }

    fn handle_puback(&mut self, ack: &Ack<'_>, written: Moment, ledger: &mut Ledger) {
        let waits = |sent: &Sent| sent.id == ack.packet_id && sent.qos == 1;
        let Some(at) = self.sent.iter().position(waits) else {
            return self.shocked(&format!("PUBACK {}", ack.packet_id), ledger);
        };
        let sent = self.sent.remove(at);
        if ack.reason.is_failure() {
            ledger.voided(sent.number, Fate::Refused);
        } else {
            self.settled(sent.number, written, ledger);
        }
    }

    /// It was taken or, before version 5, refused: then a notice says so, perhaps before.
    fn settled(&self, number: u32, written: Moment, ledger: &mut Ledger) {
        let message = ledger.message(number);
        if self.version != Version::V5 && message.fate == Fate::Refused {
            message.answered.get_or_insert(written);
            return;
        }
        ledger.accepted(number, written);
    }

    fn handle_pubrec(&mut self, ack: &Ack<'_>, written: Moment, ledger: &mut Ledger) {
        let waits = |sent: &Sent| sent.id == ack.packet_id && sent.qos == 2;
        let Some(at) = self.sent.iter().position(waits) else {
            return self.shocked(&format!("PUBREC {}", ack.packet_id), ledger);
        };
        let number = self.sent[at].number;
        if ack.reason.is_failure() {
            self.sent.remove(at);
            return ledger.voided(number, Fate::Refused);
        }
        if !std::mem::replace(&mut self.sent[at].released, true) {
            self.settled(number, written, ledger);
        }
        self.put(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
    }

    fn handle_publish(&mut self, publish: &Publish<'_>, written: Moment, ledger: &mut Ledger, now: Moment) {
        let is_notice = publish.topic.strip_prefix("sig/r/").is_some();
        if publish.dup && self.plan.expiry.is_none() {
            self.shocked("a repetition in a session that is new", ledger);
        }
        let is_known = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                self.put(&Packet::PubAck(Ack::new(id, ReasonCode::Success)));
                false
            }
            (QoS::ExactlyOnce, Some(id)) => {
                self.put(&Packet::PubRec(Ack::new(id, ReasonCode::Success)));
                !self.received.insert(id)
            }
            _ => false,
        };
        if is_known {
            return;
        }
        if is_notice {
            return match serde_json::from_slice(publish.payload) {
                Ok(notice) => self.handle_notice(&notice, publish.dup, ledger, now),
                Err(error) => self.shocked(&format!("a notice: {error}"), ledger),
            };
        }
        let user = |wanted| {
            publish.properties.user_properties().find(|(key, _)| *key == wanted).map(|(_, value)| value)
        };
        let mut route = Route::default();
        match publish.topic.strip_prefix("sig/").and_then(|below| below.split_once('/')) {
            None => route.topic = Some(publish.topic),
            Some((place, path)) => {
                let (name, in_topic) = match path.split_once('/') {
                    Some((name, sender)) => (name, Some(sender)),
                    None => (path, None),
                };
                route.group = (place == "g").then_some(name);
                route.sender = user("from").or(in_topic);
                route.mode = user("mode");
                route.remaining = user("ttl").and_then(|ttl| ttl.parse().ok());
            }
        }
        let arrival = Arrival {
            client: self.me,
            link: self.link,
            route,
            payload: publish.payload,
            qos: publish.qos.as_u8(),
            dup: publish.dup,
            retained: publish.retain,
            written,
            judged_at: written.at,
            now,
        };
        if let Some(number) = ledger.delivered(&arrival)
            && publish.qos != QoS::AtMostOnce
        {
            ledger.acknowledged(number, self.me);
        }
    }

    fn handle_notice(&mut self, notice: &Value, dup: bool, ledger: &mut Ledger, now: Moment) {
        let by_id = notice["packet_id"].as_u64().and_then(|id| self.by_id.get(&(id as u16)).copied());
        let named = notice["id"].as_str().and_then(|id| id.strip_prefix('m')?.parse().ok());
        ledger.note(|_| format!("a notice: {notice}"));
        match (notice["type"].as_str(), by_id.or(named)) {
            // One that says nothing of itself.
            (Some("refusal"), None) => {}
            (Some("refusal"), Some(number)) => {
                if ledger.message(number).fate != Fate::Refused {
                    ledger.message(number).fate = Fate::Open;
                    ledger.voided(number, Fate::Refused);
                }
            }
            // A repetition of what came before the connection was lost.
            (Some("receipt"), Some(number)) if dup && ledger.message(number).receipts > 0 => {}
            (Some("receipt"), Some(number)) => self.handle_receipt(number, notice, ledger, now),
            _ => self.shocked(&format!("a notice: {notice}"), ledger),
        }
    }

    fn handle_receipt(&mut self, number: u32, notice: &Value, ledger: &mut Ledger, now: Moment) {
        let receipt = self.parts.entry(number).or_default();
        receipt.duplicate = notice["duplicate"] == true;
        for &status in Status::ALL {
            if let Some(count) = notice["counts"][status.key()].as_u64() {
                receipt.counts.insert(status.code(), count as u32);
            }
        }
        for (id, named) in notice["statuses"].as_object().into_iter().flatten() {
            let status = Status::ALL.iter().find(|status| Some(status.name()) == named.as_str());
            receipt.entries.extend(status.map(|status| (id.clone(), *status)));
        }
        if notice["part"] == notice["parts"]
            && let Some(receipt) = self.parts.remove(&number)
        {
            ledger.receipted(number, &receipt, now);
        }
    }
}

/// Where it is published to, without its options.
fn topic_of(what: &What) -> String {
    match what {
        What::Signal { target: Target::Client(client), .. } => format!("sig/c/{}", client_id(*client)),
        What::Signal { target: Target::Group { group, .. }, .. } => format!("sig/g/{}", group_name(*group)),
        What::Publish { topic, .. } => topic_name(*topic),
    }
}

/// The options of a send as keys and values of T1.
fn options(what: &What, number: u32) -> Vec<(&'static str, String)> {
    let mut options = Vec::new();
    let What::Signal { target, echo, urgent, ttl, receipt, id } = what else { return options };
    if let Target::Group { only, except, .. } = target {
        options.extend(only.as_ref().map(|list| ("only", Submission::names(list).join(","))));
        options.extend(except.as_ref().map(|list| ("except", Submission::names(list).join(","))));
    }
    options.extend(ttl.map(|ttl| ("ttl", ttl.to_string())));
    if *receipt != ReceiptMode::None {
        options.push(("receipt", receipt.key().into()));
    }
    if *id {
        options.push(("id", format!("m{number}")));
    }
    for (set, key) in [(*echo, "echo"), (*urgent, "urgent")] {
        options.extend(set.then(|| (key, "1".into())));
    }
    options
}
