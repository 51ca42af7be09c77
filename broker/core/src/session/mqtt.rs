//! The session of an MQTT client, any version, without a socket.
//!
//! ```text
//!                CONNECT                Connected
//! ExpectConnect ─────────▶ Deciding ─────────────▶ Open ──┐
//!       │                     │                     │     │ DISCONNECT, Close, a fault of the peer,
//!       └─────────────────────┴──────── Closing ◀───┴─────┘ silence for 1.5 keep-alive intervals
//! ```
//!
//! Between Deciding and Open, a client that authenticates itself in several steps is Authenticating whenever its AUTH
//! is awaited.
//!
//! It owns what is between bytes and commands: packet order, packet identifiers, topic aliases, the receive
//! maximum of both sides, keep-alive, and the meaning of topics below the signalling prefix (T1-T4). It knows
//! no rule, no other client and no socket. What belongs to the connection is in [`link::Link`], what a
//! persistent session would keep without one in [`state::SessionState`].
//!
//! The way of a packet: [`MqttSession::handle_bytes`] finds it, `handle_packet` sends it to one of
//! `connect.rs`, `publish.rs`, `subscribe.rs`, and the answer comes back to the same file. Deliveries are in
//! `deliver.rs`, what comes on `{prefix}/r/{me}` in `notice.rs`.
//!
//! Read first: docs/DESIGN S and T; *MQTT Version 5.0*, chapter 4.

mod connect;
mod deliver;
mod filter;
mod in_flight;
mod known;
mod link;
pub(super) mod moderation_topic;
mod notice;
pub(crate) mod passthrough;
mod publish;
mod reasons;
mod signal_topic;
mod state;
mod subscribe;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use self::in_flight::Stage;
use self::known::Known;
use self::link::{Link, Measured};
use self::state::SessionState;
use super::{SessionConfig, SessionCounters};
use crate::model::{
    Command, Delivery, Filter, GroupName, Instant, Reason, ReceiptSlot, Reception, Reply, RequestId, Settled,
    ShareId, Status,
};
use crate::mqtt::{
    Ack, DecodeError, Disconnect, Packet, PacketType, Properties, Property, PropertyWriter, ReasonCode,
    Version, decode, refusal_version,
};

/// The session of one MQTT client.
#[derive(Debug)]
pub struct MqttSession {
    config: Arc<SessionConfig>,
    phase: Phase,
    link: Link,
    state: SessionState,
    /// The second of two commands that one packet makes.
    second_command: Option<Box<Command<'static>>>,
    settled: VecDeque<(ReceiptSlot, Settled)>,
    /// What it published to last.
    known: Option<Box<Known>>,
    /// Why the session itself ended the connection, until the hub has counted it.
    fault: Option<Reason>,
    /// What was dropped.
    pub counters: SessionCounters,
}

/// What of a session outlives its connection.
#[derive(Debug)]
pub struct KeptSession(Box<SessionState>);

impl KeptSession {
    /// Takes the unacknowledged publishes of shares for which `is_wanted` says that another member takes them.
    pub fn take_shared(&mut self, is_wanted: impl Fn(ShareId) -> bool) -> Vec<Delivery> {
        self.0.in_flight.take_shared(is_wanted)
    }
}

impl Default for KeptSession {
    /// Nothing.
    fn default() -> Self {
        Self(Box::new(SessionState::new()))
    }
}

/// Where in its life the connection is; see the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    ExpectConnect {
        deadline: Instant,
    },
    /// The hub decides on the CONNECT.
    Deciding,
    /// The client is to go on with its authentication.
    Authenticating {
        deadline: Instant,
    },
    Open,
    Closing,
}

impl MqttSession {
    /// A session that waits for its CONNECT.
    pub fn new(config: Arc<SessionConfig>, now: Instant) -> Self {
        let deadline = now + config.limits.connect_timeout;
        Self {
            config,
            phase: Phase::ExpectConnect { deadline },
            link: Link::new(now),
            state: SessionState::new(),
            second_command: None,
            settled: VecDeque::new(),
            known: None,
            fault: None,
            counters: SessionCounters::default(),
        }
    }

    /// The version that the client speaks, as people call it.
    pub fn version_name(&self) -> &'static str {
        match self.link.version {
            Version::V31 => "MQTT 3.1",
            Version::V311 => "MQTT 3.1.1",
            Version::V5 => "MQTT 5",
        }
    }

    /// The next command in `input`, or in what was kept of earlier input. To be called until it gives none:
    /// then `input` is used up, or kept. After [`handle_reply`](Self::handle_reply) and
    /// [`resume`](Self::resume) it is to be called again, be it with nothing, since kept packets may now go on.
    ///
    /// What is kept is at most a packet ([`Limits::max_packet`](crate::model::Limits::max_packet)) and one
    /// `input`, as long as none is given while [`wants_bytes`](Self::wants_bytes) says no.
    pub fn handle_bytes<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Command<'i>> {
        if !input.is_empty() {
            self.link.heard(now);
        }
        loop {
            if let Some(command) = self.second_command.take() {
                return Some(*command);
            }
            match self.phase {
                Phase::Closing => {
                    self.link.forget_input();
                    *input = &[];
                    return None;
                }
                Phase::Deciding => {
                    self.link.keep(input);
                    return None;
                }
                Phase::ExpectConnect { .. } | Phase::Authenticating { .. } | Phase::Open
                    if self.link.paused =>
                {
                    self.link.keep(input);
                    return None;
                }
                Phase::ExpectConnect { .. } | Phase::Authenticating { .. } | Phase::Open => {}
            }
            match self.next_packet(input, now) {
                Next::Nothing => return None,
                Next::Handled(None) => {}
                Next::Handled(command) => return command,
            }
        }
    }

    /// The hub's answer to a command, or news of its own.
    pub fn handle_reply(&mut self, reply: Reply, now: Instant) {
        match (reply, self.phase) {
            // A session whose client is away hears of it, too.
            (Reply::Ended(filter, refusal), _) => self.end_subscription(&filter, &refusal),
            (Reply::Connected(connected), Phase::Deciding) => self.accept(connected, now),
            (Reply::ConnectRefused(refusal) | Reply::Close(refusal), Phase::Deciding) => {
                let reason = match refusal.reason {
                    Reason::Unsupported if self.link.authenticates => ReasonCode::BadAuthenticationMethod,
                    reason => reasons::for_connect(reason),
                };
                self.close(reason, &refusal.text);
            }
            (Reply::Authenticate(data), Phase::Deciding) => {
                self.phase = Phase::Authenticating { deadline: now + self.config.limits.connect_timeout };
                self.link.write_auth(ReasonCode::ContinueAuthentication, &data);
            }
            (Reply::Authenticate(data), Phase::Open) => {
                self.link.write_auth(ReasonCode::ContinueAuthentication, &data);
            }
            (Reply::Authenticated(data), Phase::Open) => self.link.write_auth(ReasonCode::Success, &data),
            (Reply::Close(refusal), Phase::Open) => {
                self.close(reasons::for_disconnect(refusal.reason), &refusal.text);
            }
            (Reply::Close(_) | Reply::ConnectRefused(_) | Reply::Challenge(_), _) => {
                self.close(ReasonCode::ImplementationSpecificError, "not possible with MQTT");
            }
            // The client doesn't hear of these any more, but of what it sends again.
            (Reply::NotKept(request, _) | Reply::Refused(request, _), Phase::Closing) => {
                self.forget_unkept(request);
            }
            (Reply::Done(request), Phase::Closing) => self.state.answer_unheard(request),
            (
                _,
                Phase::ExpectConnect { .. } | Phase::Deciding | Phase::Authenticating { .. } | Phase::Closing,
            ) => {}
            (Reply::Done(request), Phase::Open) => self.answer_publish(request, None),
            (Reply::Refused(request, refusal), Phase::Open) => self.answer_publish(request, Some(refusal)),
            // Before version 5 there is no refusal, and an acknowledgement would be a lie: the client is to come again.
            (Reply::NotKept(request, refusal), Phase::Open) if !self.link.is_expressive() => {
                self.forget_unkept(request);
                self.close(reasons::for_disconnect(refusal.reason), &refusal.text);
            }
            (Reply::NotKept(request, refusal), Phase::Open) => self.answer_publish(request, Some(refusal)),
            (Reply::Released(id), Phase::Open) => {
                self.link.write_ack(PacketType::PubComp, id, ReasonCode::Success);
            }
            (Reply::RefusedUnasked(about, refusal), Phase::Open) => {
                self.notify_refusal(RequestId(0), Some(&about), &refusal);
            }
            (Reply::Subscribed(request, results), Phase::Open) => self.answer_subscribe(request, &results),
            (Reply::Unsubscribed(request, results), Phase::Open) => {
                self.answer_unsubscribe(request, Some(results));
            }
            (Reply::Receipt(report), Phase::Open) => self.notify_receipt(&report),
            (Reply::Connected(_), Phase::Open) => {}
        }
        if self.link.blocked && self.has_request_room() {
            self.link.blocked = false;
            self.link.heard(now);
        }
    }

    /// Appends acknowledgements and other control packets, then notices as far as the window allows.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, _now: Instant) {
        self.link.flush(out);
        self.write_notices(out);
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    pub fn has_output(&self) -> bool {
        self.link.has_output() || self.can_write_notice()
    }

    /// What became of a delivery that someone waits to hear of.
    pub fn poll_settled(&mut self) -> Option<(ReceiptSlot, Settled)> {
        const KEPT: usize = 16;
        let settled = self.settled.pop_front();
        if settled.is_none() && self.settled.capacity() > KEPT {
            self.settled = VecDeque::new();
        }
        settled
    }

    /// Why the session itself ended the connection, if the client or its silence is at fault; once.
    pub fn poll_fault(&mut self) -> Option<Reason> {
        self.fault.take()
    }

    /// Whether more bytes should be read for it. No while paused, while the CONNECT is being decided on, while
    /// too many requests are unanswered, and while too many acknowledgements wait to be written.
    pub fn wants_bytes(&self) -> bool {
        match self.phase {
            Phase::ExpectConnect { .. } | Phase::Authenticating { .. } | Phase::Open => {
                !self.link.paused && !self.link.blocked && !self.link.is_choked()
            }
            Phase::Deciding | Phase::Closing => false,
        }
    }

    /// The hub's park for it is full: nothing is read, and the keep-alive timer stands still (S7).
    pub fn pause(&mut self, _now: Instant) {
        self.link.paused = true;
    }

    /// The end of a pause.
    pub fn resume(&mut self, now: Instant) {
        self.link.paused = false;
        self.link.heard(now);
    }

    /// When [`handle_time`](Self::handle_time) is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::ExpectConnect { deadline } | Phase::Authenticating { deadline } => Some(deadline),
            Phase::Open => self.link.keep_alive_deadline(),
            Phase::Deciding | Phase::Closing => None,
        }
    }

    /// Time has passed: a client that was silent for too long is closed [MQTT-3.1.2-22].
    pub fn handle_time(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.fault(ReasonCode::KeepAliveTimeout, "silent for one and a half keep-alive intervals");
        }
    }

    /// Whether the connection is to be closed after what [`poll_transmit`](Self::poll_transmit) gives.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// The connection is gone: what was written and not acknowledged is settled as UNCONFIRMED (S8).
    pub fn handle_closed(&mut self) {
        self.phase = Phase::Closing;
        self.end_connection();
    }

    /// Takes out what outlives the connection, which may still have something to be told. What was written and
    /// not acknowledged is settled as UNCONFIRMED (S8), and written again when the client is back.
    pub fn take_kept(&mut self) -> KeptSession {
        self.end_connection();
        KeptSession(Box::new(std::mem::replace(&mut self.state, SessionState::new())))
    }

    /// A session without a connection, which keeps `kept` until its client is back.
    pub fn away(config: Arc<SessionConfig>, kept: KeptSession, now: Instant) -> Self {
        let mut session = Self::new(config, now);
        session.phase = Phase::Closing;
        session.state = *kept.0;
        session
    }

    /// Goes on with what was kept of an earlier connection; before [`Reply::Connected`] says so.
    pub fn adopt(&mut self, kept: KeptSession) {
        let window = self.state.in_flight.limit();
        self.state = *kept.0;
        self.state.resumed = true;
        self.state.in_flight.set_limit(window, self.config.limits.mailbox_bytes);
        self.state.in_flight.begin_resends();
    }

    /// Begins as a member of these groups, and with this subscription to the inbox, from a session of the other
    /// protocol (S1).
    pub fn adopt_places(&mut self, groups: Vec<(GroupName, Reception)>, inbox: Option<Reception>) {
        for (group, reception) in groups {
            self.adopt_place(Filter::Group(group), reception, 0);
        }
        if let Some(reception) = inbox {
            self.adopt_place(Filter::Inbox, reception, 0);
        }
    }

    /// Begins with this subscription, in [these forms](crate::model::SubscribeItem::forms) or, if they aren't known, in
    /// one that is like it.
    pub fn adopt_place(&mut self, filter: Filter, reception: Reception, forms: u8) {
        match filter {
            Filter::Group(group) => self.state.groups.entry(group).or_default().adopt(reception, forms),
            Filter::Inbox => self.state.inbox.adopt(reception, forms),
            Filter::Notices => self.state.notice_reception = Some(reception),
            // The hub alone knows it.
            Filter::Topic(_) => {}
        }
    }

    /// A publish wasn't kept, which its client is told by the end of the connection: its repetition is a new one.
    fn forget_unkept(&mut self, request: RequestId) {
        self.state.outstanding.retain(|outstanding| {
            outstanding.request != request.0 || !matches!(outstanding.pending, state::Pending::Publish { .. })
        });
        if let Some(id) = connect::packet_id(request.0) {
            self.state.forget_received(id);
        }
    }

    /// A QoS 2 publish that was taken wasn't kept after all, and its client isn't there to be told.
    pub fn forget_received(&mut self, id: NonZeroU16) {
        if self.phase == Phase::Closing {
            self.forget_unkept(RequestId(id.get().into()));
        } else {
            self.state.forget_received(id);
        }
    }

    /// Whether its client hears answers.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a publish that isn't kept is refused, so that its packet identifier is free; else its client sends it again.
    pub fn is_expressive(&self) -> bool {
        self.link.is_expressive()
    }

    /// Remembers that a QoS 2 publish with this packet identifier was taken before the gateway started.
    pub fn restore_received(&mut self, id: NonZeroU16) {
        self.state.received.insert(id);
    }

    /// Takes the publishes that the client hasn't acknowledged: the session ends, and they may go to others.
    pub fn take_unacknowledged(&mut self) -> Vec<Delivery> {
        self.state.in_flight.take_unacknowledged()
    }

    fn end_connection(&mut self) {
        self.settled.extend(self.state.in_flight.end_connection());
        self.state.end_connection();
    }

    fn has_request_room(&self) -> bool {
        self.state.outstanding.len() < self.config.limits.requests_per_client
    }

    /// Takes one packet out of what was kept or, if nothing was, out of `input`.
    fn next_packet<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Next<'i> {
        if !self.link.has_input() {
            let available = *input;
            if let Some((length, command)) = self.known_publish(available) {
                *input = available.get(length..).unwrap_or_default();
                return Next::Handled(Some(command));
            }
            if self.plain_puback(available) {
                *input = available.get(4..).unwrap_or_default();
                return Next::Handled(None);
            }
            return match self.measure(available) {
                Ok(Measured::Whole(length)) => {
                    let (frame, rest) = available.split_at(length.min(available.len()));
                    if self.must_wait(frame) {
                        self.link.keep(input);
                        return Next::Nothing;
                    }
                    *input = rest;
                    Next::Handled(self.handle_frame(frame, now))
                }
                Ok(Measured::Partial(_)) => {
                    self.link.keep(input);
                    Next::Nothing
                }
                Err(error) => Next::Handled(self.refuse_bytes(available, error)),
            };
        }
        let mut kept = self.link.take_input();
        let next = loop {
            match self.measure(kept.rest()) {
                Ok(Measured::Whole(length)) => {
                    let (frame, _) = kept.rest().split_at(length.min(kept.rest().len()));
                    if self.must_wait(frame) {
                        kept.append(input, usize::MAX);
                        break Next::Nothing;
                    }
                    let command = self.handle_frame(frame, now).map(Command::into_owned);
                    kept.advance(length);
                    break Next::Handled(command);
                }
                // Only what completes the packet, so that the next one is read in place.
                Ok(Measured::Partial(missing)) if !input.is_empty() => kept.append(input, missing),
                Ok(Measured::Partial(_)) => break Next::Nothing,
                Err(error) => break Next::Handled(self.refuse_bytes(kept.rest(), error)),
            }
        };
        self.link.put_back(kept);
        next
    }

    fn measure(&self, bytes: &[u8]) -> Result<Measured, Fault> {
        // Nothing else can come first [MQTT-3.1.0-1]; no need to wait for all of it.
        if matches!(self.phase, Phase::ExpectConnect { .. })
            && bytes
                .first()
                .is_some_and(|&first| PacketType::of_first_byte(first) != Some(PacketType::Connect))
        {
            return Err(Fault::NotConnect);
        }
        link::measure(bytes, self.config.limits.max_packet)
    }

    /// Whether this packet asks for something and too much was asked already. Acknowledgements and pings
    /// before it have been handled.
    fn must_wait(&mut self, frame: &[u8]) -> bool {
        use PacketType::{Publish, Subscribe, Unsubscribe};
        let asks = frame
            .first()
            .and_then(|&first| PacketType::of_first_byte(first))
            .is_some_and(|kind| matches!(kind, Publish | Subscribe | Unsubscribe));
        let waits = asks && !self.has_request_room();
        self.link.blocked |= waits;
        waits
    }

    fn handle_frame<'i>(&mut self, frame: &'i [u8], now: Instant) -> Option<Command<'i>> {
        match decode(frame, self.link.version) {
            Ok(packet) => self.handle_packet(packet, now),
            Err(error) => self.refuse_bytes(frame, Fault::Decode(error)),
        }
    }

    fn handle_packet<'i>(&mut self, packet: Packet<'i>, now: Instant) -> Option<Command<'i>> {
        match (self.phase, packet) {
            (Phase::ExpectConnect { .. }, Packet::Connect(connect)) => self.handle_connect(&connect, now),
            (Phase::Open, Packet::Publish(publish)) => self.handle_publish(&publish, now),
            (Phase::Open, Packet::PubAck(ack)) => self.handle_puback(&ack),
            (Phase::Open, Packet::PubRec(ack)) => self.handle_pubrec(&ack),
            (Phase::Open, Packet::PubRel(ack)) => self.handle_pubrel(&ack),
            (Phase::Open, Packet::PubComp(ack)) => self.handle_pubcomp(&ack),
            (Phase::Open, Packet::Subscribe(subscribe)) => self.handle_subscribe(&subscribe),
            (Phase::Open, Packet::Unsubscribe(unsubscribe)) => self.handle_unsubscribe(&unsubscribe),
            (Phase::Open, Packet::PingReq) => {
                self.link.write(&Packet::PingResp);
                None
            }
            (Phase::Open | Phase::Authenticating { .. }, Packet::Auth(auth)) => self.handle_auth(&auth),
            (Phase::Open | Phase::Authenticating { .. }, Packet::Disconnect(disconnect)) => {
                self.handle_disconnect(&disconnect)
            }
            (Phase::Open, Packet::Connect(_)) => self.violation("a second CONNECT"),
            // [MQTT-3.1.2-30] among others.
            (_, packet) => self.violation(packet.packet_type().name()),
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Option<Command<'static>> {
        // [MQTT-3.14.2-2]
        if disconnect.properties.session_expiry().is_some_and(|seconds| seconds > 0)
            && self.link.session_expiry == 0
        {
            return self.violation("session expiry in DISCONNECT after none in CONNECT");
        }
        self.phase = Phase::Closing;
        self.state.notices.clear();
        Some(Command::Disconnect {
            // Nothing else takes the will back [MQTT-3.1.2-8].
            with_will: disconnect.reason != ReasonCode::NORMAL_DISCONNECTION,
            session_expiry: disconnect.properties.session_expiry(),
        })
    }

    fn handle_puback(&mut self, ack: &Ack<'_>) -> Option<Command<'static>> {
        self.acknowledged(ack.packet_id, outcome(ack.reason));
        None
    }

    fn acknowledged(&mut self, id: NonZeroU16, status: Status) {
        match self.state.in_flight.remove(id, Stage::Acknowledge) {
            Some(mut entry) => self.settle(entry.take_slot(), status),
            None => self.counters.acks_unknown += 1,
        }
    }

    fn handle_pubrec(&mut self, ack: &Ack<'_>) -> Option<Command<'static>> {
        let id = ack.packet_id;
        let reason = match self.state.in_flight.entry_mut(id) {
            Some(entry) if entry.stage != Stage::Acknowledge => {
                if ack.reason.is_failure() {
                    // The exchange ends here [MQTT-4.3.3-4].
                    let slot = entry.take_slot();
                    self.state.in_flight.release(id);
                    self.state.in_flight.remove(id, Stage::Complete);
                    self.settle(slot, outcome(ack.reason));
                    return None;
                }
                if entry.is_held() {
                    // It is released as soon as the store knows.
                    return None;
                }
                if entry.stage == Stage::Receive {
                    if let Some(slot) = entry.slot().filter(|slot| slot.is_queue()) {
                        self.state.in_flight.release_held(id);
                        self.settled.push_back((slot, Settled::Received(id)));
                        return None;
                    }
                    let slot = entry.take_slot();
                    self.state.in_flight.release(id);
                    self.settle(slot, outcome(ack.reason));
                }
                ReasonCode::Success
            }
            _ => {
                self.counters.acks_unknown += 1;
                ReasonCode::PacketIdentifierNotFound
            }
        };
        self.link.write_ack(PacketType::PubRel, id, reason);
        None
    }

    fn handle_pubcomp(&mut self, ack: &Ack<'_>) -> Option<Command<'static>> {
        match self.state.in_flight.remove(ack.packet_id, Stage::Complete) {
            Some(mut entry) => self.settle(entry.take_slot(), Status::Delivered),
            None => self.counters.acks_unknown += 1,
        }
        None
    }

    /// The peer broke the protocol [MQTT-4.13.1-1].
    fn violation(&mut self, what: &str) -> Option<Command<'static>> {
        self.fault(ReasonCode::ProtocolError, what);
        None
    }

    /// Bytes that are no packet, or not one for now.
    fn refuse_bytes(&mut self, bytes: &[u8], fault: Fault) -> Option<Command<'static>> {
        let (reason, what) = match fault {
            Fault::Decode(error) => (error.reason(), error.to_string()),
            Fault::TooLarge => {
                (ReasonCode::PacketTooLarge, "the packet is over the maximum packet size".into())
            }
            Fault::NotConnect => (ReasonCode::ProtocolError, "the first packet is not CONNECT".into()),
        };
        if matches!(self.phase, Phase::ExpectConnect { .. })
            && let Some(version) = refusal_version(bytes)
        {
            self.link.version = version;
            self.phase = Phase::Deciding;
        }
        self.fault(reason, &what);
        None
    }

    /// Ends the connection for something that the client did, or didn't.
    fn fault(&mut self, reason: ReasonCode, what: &str) {
        if self.phase != Phase::Closing {
            self.fault = Some(reasons::of_fault(reason));
        }
        self.close(reason, what);
    }

    /// Ends the connection: with a CONNACK where the client waits for one, a DISCONNECT where the version has
    /// it, and without a word to who hasn't said CONNECT.
    fn close(&mut self, reason: ReasonCode, what: &str) {
        let mut writer = PropertyWriter::new();
        if !what.is_empty() {
            writer.push(Property::ReasonString(what));
        }
        let explained = writer.finish().unwrap_or(Properties::EMPTY);
        match self.phase {
            Phase::ExpectConnect { .. } | Phase::Closing => {}
            Phase::Deciding | Phase::Authenticating { .. } => {
                self.link.write_connack_refusal(reason, explained);
            }
            Phase::Open => self.link.write_disconnect(reason, explained),
        }
        self.phase = Phase::Closing;
        self.second_command = None;
        self.state.notices.clear();
        self.link.forget_input();
    }

    fn settle(&mut self, slot: Option<ReceiptSlot>, status: Status) {
        if let Some(slot) = slot {
            self.settled.push_back((slot, Settled::Final(status)));
        }
    }
}

/// What a look for the next packet gave.
enum Next<'i> {
    /// There is none, or none that may be handled now; the input is kept.
    Nothing,
    Handled(Option<Command<'i>>),
}

/// Why bytes don't make a packet.
enum Fault {
    Decode(DecodeError),
    TooLarge,
    NotConnect,
}

/// What an acknowledgement says of the delivery: a client that refuses it hasn't got it.
fn outcome(reason: ReasonCode) -> Status {
    if reason.is_failure() { Status::Denied } else { Status::Delivered }
}

/// The only version with properties, reason codes in acknowledgements, and refusals.
fn is_expressive(version: Version) -> bool {
    version == Version::V5
}
