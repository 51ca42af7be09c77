//! Reason codes and recipient statuses: one table for both protocols and for documents (docs/protocol.md, Reasons).

use core::fmt;

macro_rules! codes {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $value,)* }

        impl $name {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code with this number, if there is one.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($value => Some(Self::$variant),)* _ => None }
            }

            /// The number on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The name that people and programs see, in capitals.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

codes! {
    /// Why a frame, a send or a connection was refused or ended.
    Reason {
        /// The frame's bytes are not what its kind demands.
        Malformed = 1, "MALFORMED";
        /// The hello asks for a version of the framing that the gateway doesn't speak.
        UnsupportedVersion = 2, "UNSUPPORTED_VERSION";
        /// A kind of frame or a feature that the receiver doesn't know.
        Unsupported = 3, "UNSUPPORTED";
        /// A frame at a time when it isn't allowed.
        ProtocolError = 4, "PROTOCOL_ERROR";
        /// A frame body over the receiver's limit.
        FrameTooLarge = 5, "FRAME_TOO_LARGE";
        /// More unacknowledged frames than the receiver's window.
        WindowExceeded = 6, "WINDOW_EXCEEDED";
        /// The credential is missing or wrong.
        NotAuthenticated = 7, "NOT_AUTHENTICATED";
        /// The rules don't allow it.
        NotAuthorized = 8, "NOT_AUTHORIZED";
        /// A newer connection with the same client id took over (S1).
        TakenOver = 9, "TAKEN_OVER";
        /// Nothing was heard for one and a half keep-alive intervals.
        KeepAliveTimeout = 10, "KEEP_ALIVE_TIMEOUT";
        /// The gateway is stopping; come back later.
        ShuttingDown = 11, "SHUTTING_DOWN";
        /// A normal end.
        Normal = 12, "NORMAL";
        /// A payload over 8192 bytes, or over what the recipient can take (S6).
        TooLarge = 16, "TOO_LARGE";
        /// A list of more than 128 entries (S4).
        ListTooLong = 17, "LIST_TOO_LONG";
        /// An empty *only*: it must never become a broadcast (S4).
        NoRecipient = 18, "NO_RECIPIENT";
        /// Over the rate; a retry-after in milliseconds comes with it (S7).
        RateLimited = 19, "RATE_LIMITED";
        /// Not a client id, group name or message id (S1, S2).
        BadName = 20, "BAD_NAME";
        /// A handle that was never announced, or stands for something else.
        UnknownHandle = 21, "UNKNOWN_HANDLE";
        /// An option that is unknown, or has a bad value (T1).
        BadOption = 22, "BAD_OPTION";
        /// Not a topic name or topic filter.
        BadTopic = 23, "BAD_TOPIC";
        /// A queue is full; nothing was delivered.
        Overflow = 24, "OVERFLOW";
        /// A bounded table (groups, handles, subscriptions, connections) is full.
        TooMany = 25, "TOO_MANY";
        /// A budget of the gateway is exhausted for now (S12).
        Busy = 26, "BUSY";
        /// The deadline passed (S9).
        Expired = 27, "EXPIRED";
        /// Signals are not retained (T1).
        RetainRefused = 28, "RETAIN_REFUSED";
        /// A fault of the gateway's own.
        Internal = 29, "INTERNAL";
        /// Kicked out of the group or the gateway (S14).
        Kicked = 30, "KICKED";
        /// Muted in the group or everywhere: nothing may be sent (S14).
        Muted = 31, "MUTED";
        /// Banned from the group or the gateway (S14).
        Banned = 32, "BANNED";
    }
}

codes! {
    /// What became of a message at one recipient (S8). Every status but [`Status::Queued`] is final.
    Status {
        /// The recipient's client acknowledged it.
        Delivered = 0, "DELIVERED";
        /// Written, but never acknowledged: QoS 0 recipients, links lost after the write.
        Unconfirmed = 1, "UNCONFIRMED";
        /// Kept for an offline recipient; a second receipt ends it (S10).
        Queued = 2, "QUEUED";
        /// Not connected, or connected without a subscription to its inbox.
        Offline = 3, "OFFLINE";
        /// Listed, but not a member of the group (or doesn't exist: it looks the same).
        NotMember = 4, "NOT_MEMBER";
        /// The rules don't let this recipient have it.
        Denied = 5, "DENIED";
        /// Its deadline passed first (S9).
        Expired = 6, "EXPIRED";
        /// The recipient's mailbox, or a queue on the way, was full.
        Overflow = 7, "OVERFLOW";
    }
}

impl core::error::Error for Reason {}

impl Status {
    /// How many statuses there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in lower case, as receipts in JSON and metrics have it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unconfirmed => "unconfirmed",
            Self::Queued => "queued",
            Self::Offline => "offline",
            Self::NotMember => "not_member",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
        }
    }
}
