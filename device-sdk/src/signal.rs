//! What an application sends and receives: targets, options, outcomes, and what comes in.

use bugle_protocol::{Mode, Reason, ReceiptCounts, ReceiptMode};

/// Whom a signal is for (S3).
///
/// ```
/// use bugle_device::Target;
///
/// let one = Target::client("lamp-1");
/// let all = Target::group("floor3");
/// let most = Target::group("floor3").except(&["lamp-7", "lamp-8"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_group: bool,
    pub(crate) only: Option<&'a [&'a str]>,
    pub(crate) except: Option<&'a [&'a str]>,
}

impl<'a> Target<'a> {
    /// One client, by its id.
    pub const fn client(name: &'a str) -> Self {
        Self { name, is_group: false, only: None, except: None }
    }

    /// A group, as a whole unless [`only`](Self::only) or [`except`](Self::except) say less.
    pub const fn group(name: &'a str) -> Self {
        Self { name, is_group: true, only: None, except: None }
    }

    /// Only these members of the group: 1 to 128 client ids (S4). On a target that is a client it is
    /// refused with [`SendError::BadOption`].
    #[must_use]
    pub const fn only(mut self, members: &'a [&'a str]) -> Self {
        self.only = Some(members);
        self
    }

    /// Not these members of the group: up to 128 client ids (S4); takes away from *only* too. On a target
    /// that is a client it is refused with [`SendError::BadOption`].
    #[must_use]
    pub const fn except(mut self, members: &'a [&'a str]) -> Self {
        self.except = Some(members);
        self
    }
}

/// How a signal is sent. The default has no deadline, no receipt, and no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SendOptions<'a> {
    /// Time to live in milliseconds from acceptance by the gateway (S9).
    pub ttl: Option<u32>,
    /// What to hear of the recipients (S8). With [`ReceiptMode::None`] there is no receipt to wait for.
    pub receipt: ReceiptMode,
    /// Keep it for offline recipients (S10).
    pub store: bool,
    /// Deliver to this device too, where it is a recipient (S5).
    pub echo: bool,
    /// Overtake what isn't urgent (S16).
    pub urgent: bool,
    /// An id of the application's own, 1-64 of `A-Z a-z 0-9 . _ : -`, under which the gateway accepts the
    /// signal once: whoever sends again after [`SendError::Unconfirmed`] needs one (S12).
    pub id: Option<&'a str>,
}

/// The gateway took a frame: S8's acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Accepted;

/// What became of a send at its recipients (S8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Receipt {
    /// Recipients per status.
    pub counts: ReceiptCounts,
    /// Some are QUEUED, and another receipt will end them (S10).
    pub interim: bool,
    /// The id was seen before: this is the first send's outcome, and nothing was delivered (S12).
    pub duplicate: bool,
    /// Some entries didn't fit the receipts buffer and were not reported one by one.
    pub truncated: bool,
}

/// Something that came in, lent for as long as the application looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Incoming<'a> {
    /// A signal (S3), surely within its deadline (S9).
    Signal {
        /// How it was addressed.
        mode: Mode,
        /// Who sent it.
        sender: &'a str,
        /// The group it came through, except with [`Mode::One`].
        group: Option<&'a str>,
        /// Whether it overtook what isn't urgent (S16).
        urgent: bool,
        /// Milliseconds that are surely left before its deadline; `None` where it has none.
        remaining: Option<u32>,
        /// The message.
        payload: &'a [u8],
    },
    /// A message from a plain topic that was subscribed to.
    Message {
        /// The topic.
        topic: &'a str,
        /// Whether it is the topic's retained message, sent because the subscription is new.
        retained: bool,
        /// The message.
        payload: &'a [u8],
    },
}

/// Why a send, publish, join or subscription didn't work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SendError {
    /// Caller: a payload over 8192 bytes (S6), or a frame over the outbox's size or the gateway's limit.
    TooLarge,
    /// Caller: a list of more than 128 entries (S4).
    ListTooLong,
    /// Caller: an empty *only* (S4).
    NoRecipient,
    /// Caller: not a client id, group name or message id (S1, S2).
    BadName,
    /// Caller: not a topic name or topic filter.
    BadTopic,
    /// Caller: lists on a send to one client.
    BadOption,
    /// Resource: no room to remember another group or subscription.
    TooMany,
    /// Resource: outbox, window or slots are full; only from `try_` methods.
    Full,
    /// Environment: no connection at present; only from `try_` methods.
    NotConnected,
    /// The gateway refused it.
    Refused {
        /// Why.
        reason: Reason,
        /// When to try again, in milliseconds; 0 where that says nothing (S7).
        retry_after: u32,
    },
    /// Environment: it was written, but the session ended before its acknowledgement. It may have had its
    /// effect and is never sent again by itself (S12).
    Unconfirmed,
    /// Environment: the session ended before it was written; it had no effect.
    NotSent,
    /// It was accepted, but no receipt came in time or the session ended before it.
    NoReceipt,
    /// Caller: the runner has ended, by [`disconnect`](crate::Client::disconnect) or a takeover (S1).
    Stopped,
}

impl SendError {
    /// What happened, in a few words.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::TooLarge => "too large",
            Self::ListTooLong => "a list of more than 128 entries",
            Self::NoRecipient => "an empty only-list",
            Self::BadName => "not a name",
            Self::BadTopic => "not a topic",
            Self::BadOption => "lists on a send to one client",
            Self::TooMany => "no room to remember it",
            Self::Full => "the outbox is full",
            Self::NotConnected => "not connected",
            Self::Refused { reason, .. } => reason.name(),
            Self::Unconfirmed => "written but not acknowledged",
            Self::NotSent => "not sent",
            Self::NoReceipt => "no receipt came",
            Self::Stopped => "the client has stopped",
        }
    }
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for SendError {}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Disconnect {
    /// The application asked for it.
    Stopped,
    /// The gateway said goodbye, for this reason.
    Bye(Reason),
    /// The gateway broke the protocol, and was told this reason.
    Broken(Reason),
    /// The transport could not be opened.
    NoTransport,
    /// The transport ended or failed.
    Lost,
    /// Connecting, the handshake, a write, an acknowledgement or the keep-alive took too long.
    TimedOut,
}

impl Disconnect {
    /// Whether the runner ends with it and doesn't connect again by itself: the application asked for it, or
    /// a newer connection with the same client id took over, and would in turn be taken over (S1).
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Bye(Reason::TakenOver))
    }

    /// Whether another attempt is no use before a person or the operator has changed something.
    pub const fn needs_help(self) -> bool {
        matches!(
            self,
            Self::Bye(
                Reason::NotAuthenticated
                    | Reason::NotAuthorized
                    | Reason::UnsupportedVersion
                    | Reason::BadName
                    | Reason::Kicked
                    | Reason::Banned
            )
        )
    }
}

impl core::fmt::Display for Disconnect {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped by the application",
            Self::Bye(reason) | Self::Broken(reason) => reason.name(),
            Self::NoTransport => "no transport",
            Self::Lost => "the transport ended",
            Self::TimedOut => "timed out",
        })
    }
}

impl core::error::Error for Disconnect {}

/// How the client stands to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Connection {
    /// No connection, or none yet that was welcomed; with why the last one ended.
    Offline(Option<Disconnect>),
    /// Welcomed, and groups and subscriptions are being restored.
    Restoring,
    /// Ready. What restores groups and subscriptions is on its way, ahead of anything that is sent now.
    Online,
    /// The runner has ended and must be run again.
    Stopped(Disconnect),
}

/// Something that concerns no single call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// The gateway welcomed the device.
    Connected {
        /// The session goes on where it stood.
        resumed: bool,
    },
    /// The connection ended; see [`Disconnect::needs_help`].
    Disconnected(Disconnect),
    /// A group or subscription could not be restored and was forgotten.
    NotRestored(Reason),
    /// The gateway reported something that concerns no single frame.
    Error(Reason),
}

/// What happened to what came in and could not be handed over, and other things worth counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Connections that were welcomed.
    pub welcomes: u32,
    /// Deliveries and messages that the application took.
    pub taken: u32,
    /// Deliveries that were not surely within their deadline (S9).
    pub expired: u32,
    /// Frames of a kind that this version doesn't know.
    pub unsupported: u32,
    /// Deliveries and messages that could not be read.
    pub malformed: u32,
    /// Frames over the receive limit, and names over their slot.
    pub too_large: u32,
    /// Frames with a handle that was never announced.
    pub unknown_handle: u32,
    /// Outcomes that nobody waits for.
    pub outcomes_unclaimed: u32,
    /// Events that were overwritten before the application saw them.
    pub events_missed: u32,
}
