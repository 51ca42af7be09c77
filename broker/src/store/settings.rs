//! What the operator decides about the store: `[store]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The disk says that it has it (fdatasync): it survives power loss.
    #[default]
    Fsync,
    /// The operating system has it: it survives the end of the process however it ends. After power loss the last seconds
    /// may be missing; the store is whole.
    Os,
    /// The operating system has it, and the disk is never asked to keep an order: after power loss the store may be
    /// unreadable as a whole.
    None,
}

impl Durability {
    /// SQLite's name for it, in WAL mode: FULL syncs the log at every commit, NORMAL only before it is copied to the
    /// database, OFF never.
    pub const fn synchronous(self) -> &'static str {
        match self {
            Self::Fsync => "FULL",
            Self::Os => "NORMAL",
            Self::None => "OFF",
        }
    }

    /// What it promises, for the log.
    pub const fn promise(self) -> &'static str {
        match self {
            Self::Fsync => {
                "fsync: what was acknowledged as stored survives a crash of the process and power loss"
            }
            Self::Os => {
                "os: what was acknowledged as stored survives a crash of the process; power loss may cost the last seconds"
            }
            Self::None => {
                "none: what was acknowledged as stored survives a crash of the process; power loss may cost all of it"
            }
        }
    }
}

/// The store's settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where its files are.
    pub directory: PathBuf,
    /// What a commit waits for.
    pub durability: Durability,
    /// Pages of the database in memory, in KiB.
    pub cache_kib: u32,
    /// Bytes that aren't committed yet beyond which it takes no more batches.
    pub pending_bytes: usize,
}

impl StoreSettings {
    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }
}

/// The name of the database in its directory.
pub const DATABASE: &str = "bugle.sqlite3";
