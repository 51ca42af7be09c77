//! Kick, mute and ban (S14): what is asked for, and what is in force.

use std::fmt;
use std::sync::Arc;

use super::{ClientId, GroupName, Identity};
use crate::store::WallTime;

/// What is done to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModerationAct {
    /// It leaves now, and may come back.
    Kick,
    /// It sends nothing.
    Mute,
    /// It leaves now, doesn't come back, and sends nothing.
    Ban,
    /// The end of a mute.
    Unmute,
    /// The end of a ban.
    Unban,
}

impl ModerationAct {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kick, Self::Mute, Self::Ban, Self::Unmute, Self::Unban];

    /// The word for it in topics, JSON and commands.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Mute => "mute",
            Self::Ban => "ban",
            Self::Unmute => "unmute",
            Self::Unban => "unban",
        }
    }

    /// The act of this name.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.key() == key)
    }

    /// Whether something is in force afterwards, for a time or for good.
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Mute | Self::Ban)
    }
}

impl fmt::Display for ModerationAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// The longest reason that is given for a moderation, in bytes.
pub const MAX_WHY: usize = 256;

/// What someone asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModerationRequest {
    /// What.
    pub act: ModerationAct,
    /// To whom.
    pub client: ClientId,
    /// In this group; none: everywhere.
    pub group: Option<GroupName>,
    /// For so many seconds, at least 1; none: for good. Of a mute or a ban only.
    pub seconds: Option<u32>,
    /// What the client is told, at most [`MAX_WHY`] bytes; may be empty.
    pub why: Arc<str>,
}

/// A mute or a ban that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moderation {
    /// [`ModerationAct::Mute`] or [`ModerationAct::Ban`].
    pub act: ModerationAct,
    /// Whose.
    pub client: ClientId,
    /// In this group; none: everywhere.
    pub group: Option<GroupName>,
    /// Until then; none: for good.
    pub until: Option<WallTime>,
    /// Who asked for it: a client's id, or an operator's name.
    pub by: Identity,
    /// What the client is told; may be empty.
    pub why: Arc<str>,
}
