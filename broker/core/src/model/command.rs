//! What sessions ask of the hub, and what it answers. Both protocols use the same commands: that is what
//! makes the rules the same for both (S15).

use std::num::NonZeroU16;
use std::sync::Arc;

use super::{
    About, ClientId, GroupName, Identity, Message, ModerationRequest, Publication, QoS, ReceiptReport,
    Reception, Refusal, Secret, Signal,
};
use crate::mqtt::RetainHandling;

/// A session's own number for a request, given back with the answer: an MQTT packet identifier (a number above
/// 65,535 where there is none) or the number of a device's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// What a session asks of the hub, as far as it can be in the bytes that it came in.
#[derive(Debug)]
pub enum Command<'i> {
    /// The first packet: who wants in. Answered by [`Reply::Connected`], [`Reply::Challenge`] or
    /// [`Reply::ConnectRefused`].
    Connect(Box<ConnectRequest>),
    /// A message of an exchange by which the client proves itself. Answered by [`Reply::Authenticate`],
    /// [`Reply::Authenticated`], [`Reply::Close`], or as [`Command::Connect`] is.
    Authenticate {
        /// As the client sent it.
        data: Vec<u8>,
        /// It begins another exchange, of a client that is in.
        again: bool,
    },
    /// A signal. Answered by [`Reply::Done`] or [`Reply::Refused`], and by [`Reply::Receipt`] if asked for.
    Send {
        /// Given back with the answer. None: nobody waits for one.
        request: Option<RequestId>,
        /// The signal.
        signal: Signal<'i>,
        /// The sender can be told a refusal; else it is slowed when over its rate (S7).
        refusable: bool,
    },
    /// A message to a plain topic. Answered by [`Reply::Done`] or [`Reply::Refused`].
    Publish {
        /// Given back with the answer. None: nobody waits for one.
        request: Option<RequestId>,
        /// The message.
        publication: Publication<'i>,
    },
    /// A kick, mute or ban, or the end of one (S14). Answered by [`Reply::Done`] when it is in force, or [`Reply::Refused`].
    Moderate {
        /// Given back with the answer.
        request: RequestId,
        /// What, and to whom.
        moderation: Box<ModerationRequest>,
    },
    /// A send or publish that the session itself had to refuse. Answered by [`Reply::Refused`], so that
    /// answers keep their order and refusals are counted in one place.
    Refuse {
        /// Given back with the answer.
        request: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// Groups, inbox, filters. Answered by [`Reply::Subscribed`].
    Subscribe {
        /// Given back with the answer.
        request: RequestId,
        /// What to subscribe to, and how, or why the session refuses that entry.
        items: Vec<Result<SubscribeItem, Refusal>>,
    },
    /// The end of subscriptions. Answered by [`Reply::Unsubscribed`].
    Unsubscribe {
        /// Given back with the answer.
        request: RequestId,
        /// What to end; one that isn't there is no error.
        filters: Vec<Filter>,
    },
    /// The client releases the packet identifier of a QoS 2 publish, and the store is to know. Answered by
    /// [`Reply::Released`].
    Release {
        /// The packet identifier.
        id: NonZeroU16,
    },
    /// The client sends a QoS 2 publish again whose answer was lost with a connection: it is answered like the first, or as
    /// soon as that is. Answered as [`Command::Publish`] is.
    Confirm {
        /// Given back with the answer.
        request: RequestId,
        /// The packet identifier.
        id: NonZeroU16,
    },
    /// The client says goodbye: nothing is expected of it any more.
    Disconnect {
        /// Whether its will is to be published all the same.
        with_will: bool,
        /// A session expiry in seconds that replaces that of the connect request.
        session_expiry: Option<u32>,
    },
}

impl<'i> Command<'i> {
    /// The same send or publish, with nobody who waits for the answer.
    pub fn unheard(self) -> Self {
        match self {
            Self::Publish { publication, .. } => Self::Publish { request: None, publication },
            Self::Send { signal, refusable, .. } => Self::Send { request: None, signal, refusable },
            other => other,
        }
    }

    /// Whether what is sent or published may have to be kept in the store.
    pub fn may_last(&self) -> bool {
        match self {
            Self::Publish { .. } => true,
            Self::Send { signal, .. } => signal.options().store,
            _ => false,
        }
    }

    /// The command for itself.
    pub fn into_owned(self) -> Command<'static> {
        match self {
            Self::Publish { request, publication } => {
                Command::Publish { request, publication: publication.into_owned() }
            }
            Self::Connect(request) => Command::Connect(request),
            Self::Authenticate { data, again } => Command::Authenticate { data, again },
            Self::Send { request, signal, refusable } => {
                Command::Send { request, signal: signal.into_owned(), refusable }
            }
            Self::Moderate { request, moderation } => Command::Moderate { request, moderation },
            Self::Refuse { request, refusal } => Command::Refuse { request, refusal },
            Self::Subscribe { request, items } => Command::Subscribe { request, items },
            Self::Unsubscribe { request, filters } => Command::Unsubscribe { request, filters },
            Self::Release { id } => Command::Release { id },
            Self::Confirm { request, id } => Command::Confirm { request, id },
            Self::Disconnect { with_will, session_expiry } => {
                Command::Disconnect { with_will, session_expiry }
            }
        }
    }
}

/// Who wants in, and how.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The id, or none where the gateway is to choose one.
    pub identity: Option<Identity>,
    /// What it shows for itself.
    pub credential: Credential,
    /// What to send when the connection is lost.
    pub will: Option<Will>,
    /// Its inbox is open from the start: device sessions have no subscription for it.
    pub inbox: Option<Reception>,
    /// Begin anew: a session kept for this identity ends first.
    pub clean_start: bool,
    /// Seconds for which the session is to be kept without a connection; 0 ends it with the connection,
    /// [`NEVER_EXPIRES`] keeps it.
    pub session_expiry: u32,
    /// Seconds between the loss of the connection and the will; a session that ends before fires it.
    pub will_delay: u32,
}

/// A session expiry without end, as MQTT 5 writes it [section 3.1.2.11.2].
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// What a client shows for itself.
#[derive(Debug)]
pub enum Credential {
    /// Nothing.
    None,
    /// Name and password (MQTT).
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// The first message of SCRAM-SHA-256 (MQTT 5).
    Scram {
        /// As the client sent it.
        data: Vec<u8>,
    },
    /// It can answer a challenge (devices).
    Challengeable,
    /// The answer to a challenge.
    Proof {
        /// The nonce that the hub gave.
        challenge: Challenge,
        /// HMAC-SHA256; see [`bugle_protocol::auth`].
        proof: [u8; bugle_protocol::auth::PROOF],
    },
}

impl Credential {
    /// Whether it proves nothing by itself, or not without being asked to.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None | Self::Challengeable)
    }
}

/// The hub's nonce for one attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; bugle_protocol::auth::NONCE]);

/// What to send when a connection is lost.
#[derive(Clone, Debug)]
pub enum Will {
    /// A signal, checked when it fires (T1).
    Send(Box<Signal<'static>>),
    /// A message to a plain topic.
    Publish {
        /// The message, without a deadline.
        message: Arc<Message>,
        /// Seconds to live from the moment it fires.
        expiry: Option<u32>,
    },
}

/// Something that can be subscribed to, without the how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A group: subscribing joins, unsubscribing leaves (S2).
    Group(GroupName),
    /// The client's own inbox (T2).
    Inbox,
    /// The client's receipts and notices (T4). The hub only keeps it, where sessions last.
    Notices,
    /// A topic filter of MQTT; over the signalling prefix it observes (T6).
    Topic(Arc<str>),
}

/// One entry of a subscribe.
#[derive(Clone, Debug)]
pub struct SubscribeItem {
    /// What.
    pub filter: Filter,
    /// How.
    pub reception: Reception,
    /// Whether retained messages come first; of a topic filter only.
    pub retained: RetainHandling,
    /// In which forms the session has it, to be given back when it is restored.
    pub forms: u8,
}

/// What the hub answers.
#[derive(Debug)]
pub enum Reply {
    /// The client is in.
    Connected(Connected),
    /// Prove the credential over this nonce; then ask to connect again.
    Challenge(Challenge),
    /// The exchange goes on with this; answered by [`Command::Authenticate`].
    Authenticate(Vec<u8>),
    /// A client that is in has proved itself again; the exchange ends with this.
    Authenticated(Vec<u8>),
    /// The client is not let in; the connection ends.
    ConnectRefused(Refusal),
    /// The send, publish, or what else was asked is done; for a send that is S8's acknowledgement.
    Done(RequestId),
    /// The send or publish was refused, and nothing came of it.
    Refused(RequestId, Refusal),
    /// The send or publish was taken by some, but couldn't be kept for all for whom it should last: it isn't acknowledged,
    /// and is to be sent again.
    NotKept(RequestId, Refusal),
    /// The packet identifier is free for another publish.
    Released(NonZeroU16),
    /// A send or publish without a number was refused.
    RefusedUnasked(About, Refusal),
    /// One result per item: the granted QoS, or why not.
    Subscribed(RequestId, Vec<Result<QoS, Refusal>>),
    /// One result per filter: whether there was something to end.
    Unsubscribed(RequestId, Vec<bool>),
    /// The hub has ended a membership or subscription by itself, since it isn't allowed any more.
    Ended(Filter, Refusal),
    /// What became of a send.
    Receipt(Box<ReceiptReport>),
    /// The connection ends, for a reason outside of it: takeover, shutdown, kick.
    Close(Refusal),
}

/// What holds for a client that was let in.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its identity.
    pub identity: Identity,
    /// The hub chose the id.
    pub assigned: bool,
    /// The number of its session, unique in this process.
    pub session: u64,
    /// It goes on with what was kept of its last connection.
    pub session_present: bool,
    /// Seconds for which it will be kept, which may be less than asked for.
    pub session_expiry: u32,
    /// The session outlives the gateway: the store has to know what its client acknowledges.
    pub lasts: bool,
    /// What ends the exchange by which the client proved itself, if there was one.
    pub authentication: Option<Vec<u8>>,
}

impl Connected {
    /// The client id of S1, if the identity is one.
    pub fn client_id(&self) -> Option<ClientId> {
        self.identity.client_id()
    }
}
