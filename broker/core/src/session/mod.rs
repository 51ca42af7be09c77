//! Sessions: one client's protocol state, without a socket.
//!
//! Both protocols have one face, [`Session`]. Bytes, replies, deliveries and time go in (`handle_*`); bytes to
//! send, commands for the hub, what became of deliveries, and the next deadline come out.

mod device;
mod first_packet;
mod mqtt;

use std::num::NonZeroU16;
use std::sync::Arc;

pub use device::DeviceSession;
pub use first_packet::{FirstPacket, first_packet};
pub(crate) use mqtt::passthrough::{passed_through, with_subscriptions};
pub use mqtt::{KeptSession, MqttSession};

use crate::model::{
    Command, Delivery, Encodings, GroupName, Instant, Limits, MessageView, Reason, ReceiptSlot, Reception,
    Reply, Settled,
};

/// What all sessions of a gateway share.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The first level of the signalling topics, `sig` unless configured (T).
    pub prefix: Arc<str>,
    /// Bounds.
    pub limits: Arc<Limits>,
}

/// What a session dropped or passed over, by reason, since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Deliveries and notices over what the client takes.
    pub oversize: u64,
    /// Deliveries that came while the window was full, against `has_room`.
    pub no_room: u64,
    /// Notices that found their queue full.
    pub notices_dropped: u64,
    /// Acknowledgements of what was not on its way.
    pub acks_unknown: u64,
    /// Device sessions that can't be resumed because too much would have to be sent again.
    pub resumes_given_up: u64,
}

/// Which protocol a connection speaks, told by its first byte (DESIGN 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1, 3.1.1 or 5.
    Mqtt,
    /// The compact framing.
    Device,
}

/// A session of either protocol.
#[derive(Debug)]
pub enum Session {
    /// MQTT.
    Mqtt(Box<MqttSession>),
    /// The compact framing.
    Device(Box<DeviceSession>),
}

macro_rules! either {
    ($self:expr, $session:ident => $call:expr) => {
        match $self {
            Session::Mqtt($session) => $call,
            Session::Device($session) => $call,
        }
    };
}

impl Session {
    /// A session that waits for its first packet.
    pub fn new(protocol: Protocol, config: Arc<SessionConfig>, now: Instant) -> Self {
        match protocol {
            Protocol::Mqtt => Self::Mqtt(Box::new(MqttSession::new(config, now))),
            Protocol::Device => Self::Device(Box::new(DeviceSession::new(config, now))),
        }
    }

    /// The next command in `input`. To be called until it gives none: then all of `input` is used up or kept.
    pub fn handle_bytes<'i>(&mut self, input: &mut &'i [u8], now: Instant) -> Option<Command<'i>> {
        either!(self, session => session.handle_bytes(input, now))
    }

    /// The hub's answer to a command.
    pub fn handle_reply(&mut self, reply: Reply, now: Instant) {
        either!(self, session => session.handle_reply(reply, now));
    }

    /// Whether it takes a delivery now.
    pub fn has_room(&self) -> bool {
        either!(self, session => session.has_room())
    }

    /// Writes a delivery to `out`; only when it [has room](Self::has_room). Gives the packet identifier by which it
    /// would be written again on another connection, if there is such a thing.
    pub fn handle_delivery(
        &mut self,
        delivery: Delivery,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<NonZeroU16> {
        match self {
            Self::Mqtt(session) => session.handle_delivery(delivery, out, now),
            Self::Device(session) => {
                session.handle_delivery(delivery, out, now);
                None
            }
        }
    }

    /// The store knows how far the delivery with this packet identifier is, so that the next step may be made.
    pub fn proceed(&mut self, id: NonZeroU16) {
        if let Self::Mqtt(session) = self {
            session.proceed(id);
        }
    }

    /// Appends what the client hadn't acknowledged when its last connection ended, until `out` holds `limit`
    /// bytes or a little more.
    pub fn poll_resend(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        match self {
            Self::Mqtt(session) => session.poll_resend(out, limit, now),
            Self::Device(_) => {}
        }
    }

    /// Whether [`poll_resend`](Self::poll_resend) may have something.
    pub fn has_resends(&self) -> bool {
        match self {
            Self::Mqtt(session) => session.has_resends(),
            Self::Device(_) => false,
        }
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Mqtt(_) => Protocol::Mqtt,
            Self::Device(_) => Protocol::Device,
        }
    }

    /// What it speaks, as people call it: `MQTT 3.1`, `MQTT 3.1.1`, `MQTT 5` or `device`.
    pub fn protocol_name(&self) -> &'static str {
        match self {
            Self::Mqtt(session) => session.version_name(),
            Self::Device(_) => "device",
        }
    }

    /// A session without a connection, which only keeps what another had.
    pub fn away(config: Arc<SessionConfig>, kept: Option<KeptSession>, now: Instant) -> Self {
        Self::Mqtt(Box::new(MqttSession::away(config, kept.unwrap_or_default(), now)))
    }

    /// Takes out what outlives the connection, if the protocol has such a thing; what was written and not
    /// acknowledged is settled.
    pub fn take_kept(&mut self) -> Option<KeptSession> {
        match self {
            Self::Mqtt(session) => Some(session.take_kept()),
            Self::Device(session) => {
                session.handle_closed();
                None
            }
        }
    }

    /// Whether it goes on when its connection is lost, as a device's may.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Mqtt(_) => false,
            Self::Device(session) => session.is_resumable(),
        }
    }

    /// Takes the whole session off its connection, if its device may go on with it over another one.
    pub fn detach(&mut self, now: Instant) -> Option<Self> {
        match self {
            Self::Device(session) if session.is_resumable() => {
                Some(Self::Device(Box::new(session.detach(now))))
            }
            _ => None,
        }
    }

    /// Whether a client with this session, which has connected anew, can go on with one that was
    /// [detached](Self::detach) or kept. Of MQTT and between protocols that is settled elsewhere.
    pub fn fits(&self, kept: &Self) -> bool {
        match (self, kept) {
            (Self::Device(session), Self::Device(kept)) => session.fits(kept),
            _ => true,
        }
    }

    /// Goes on with a session of the same protocol that [fits](Self::fits).
    pub fn take_up(&mut self, kept: Self) {
        match (self, kept) {
            (Self::Device(session), Self::Device(kept)) => session.adopt(*kept),
            (session, mut kept) => session.adopt(kept.take_kept()),
        }
    }

    /// Goes on with what was kept of an earlier connection of the same protocol.
    pub fn adopt(&mut self, kept: Option<KeptSession>) {
        if let (Self::Mqtt(session), Some(kept)) = (self, kept) {
            session.adopt(kept);
        }
    }

    /// Is a member of these groups already, and open to its inbox, from a session of the other protocol.
    pub fn adopt_places(&mut self, groups: Vec<(GroupName, Reception)>, inbox: Option<Reception>) {
        match self {
            Self::Mqtt(session) => session.adopt_places(groups, inbox),
            // Names are announced as they are used.
            Self::Device(_) => {}
        }
    }

    /// Takes the publishes that the client hasn't acknowledged: its session ends, and they may go to others. What can't
    /// is settled.
    pub fn take_unacknowledged(&mut self) -> Vec<Delivery> {
        match self {
            Self::Mqtt(session) => session.take_unacknowledged(),
            Self::Device(session) => {
                session.end();
                Vec::new()
            }
        }
    }

    /// Whether it takes a message now that nothing is kept of: by [`deliver`](Self::deliver).
    pub fn takes_at_once(&self) -> bool {
        match self {
            Self::Mqtt(session) => session.takes_at_once(),
            Self::Device(session) => session.has_room(),
        }
    }

    /// Writes a message to `out` that need not wait, and that nobody waits to hear of; only when it
    /// [takes it at once](Self::takes_at_once). `encodings` are those of this message where others get it too.
    pub fn deliver(
        &mut self,
        message: &MessageView<'_>,
        reception: &Reception,
        encodings: Option<&mut Encodings>,
        out: &mut Vec<u8>,
        now: Instant,
    ) {
        match self {
            Self::Mqtt(session) => {
                session.deliver(message, reception, None, encodings, out, now);
            }
            Self::Device(session) => session.deliver(message, reception, None, out, now),
        }
    }

    /// Appends what else is to be sent. Never waits behind deliveries.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) {
        either!(self, session => session.poll_transmit(out, now));
    }

    /// What became of a delivery that someone waits to hear of.
    pub fn poll_settled(&mut self) -> Option<(ReceiptSlot, Settled)> {
        either!(self, session => session.poll_settled())
    }

    /// Why the session itself ended the connection, if the client or its silence is at fault; once.
    pub fn poll_fault(&mut self) -> Option<Reason> {
        either!(self, session => session.poll_fault())
    }

    /// What it dropped or passed over since it was last asked; none if nothing.
    pub fn take_counters(&mut self) -> Option<SessionCounters> {
        let counters = either!(self, session => std::mem::take(&mut session.counters));
        (counters != SessionCounters::default()).then_some(counters)
    }

    /// Bytes that it keeps: a part of a packet, and what its client hasn't acknowledged.
    pub fn kept_bytes(&self) -> usize {
        either!(self, session => session.kept_bytes())
    }

    /// Whether more bytes should be read for it.
    pub fn wants_bytes(&self) -> bool {
        either!(self, session => session.wants_bytes())
    }

    /// The hub's park for it is full: it reads nothing, and its keep-alive timer stands still (S7).
    pub fn pause(&mut self, now: Instant) {
        either!(self, session => session.pause(now));
    }

    /// The end of a pause.
    pub fn resume(&mut self, now: Instant) {
        either!(self, session => session.resume(now));
    }

    /// When [`handle_time`](Self::handle_time) is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        either!(self, session => session.deadline())
    }

    /// Time has passed.
    pub fn handle_time(&mut self, now: Instant) {
        either!(self, session => session.handle_time(now));
    }

    /// Whether the connection is to be closed after what [`poll_transmit`](Self::poll_transmit) gives.
    pub fn is_closing(&self) -> bool {
        either!(self, session => session.is_closing())
    }

    /// The connection is gone: what was written and not acknowledged is settled, unless the session goes on.
    pub fn handle_closed(&mut self) {
        either!(self, session => session.handle_closed());
    }
}
