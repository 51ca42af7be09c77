//! What the operator decides about the store: `[store]` of the configuration.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// 16 MiB of log.
const CHECKPOINT_PAGES: u32 = 4096;

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

/// The section as it stands in the file. A key that isn't there keeps its default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// What a commit waits for: `fsync`, `os` or `none`.
    pub durability: Durability,
    /// MiB of the database that are kept in memory.
    pub cache_mib: u32,
    /// MiB that may wait to be committed while the disk doesn't take them.
    pub pending_mib: u32,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { durability: Durability::Fsync, cache_mib: 64, pending_mib: 64 }
    }
}

impl StoreSection {
    /// The settings of a store in `directory`, if every value is within its range.
    pub fn checked(&self, directory: &Path) -> Result<StoreSettings, String> {
        let within = |key, value, range: RangeInclusive<u32>| match range.contains(&value) {
            true => Ok(()),
            false => Err(format!("store.{key} = {value} is not within {} to {}", range.start(), range.end())),
        };
        within("cache_mib", self.cache_mib, 1..=65_536)?;
        within("pending_mib", self.pending_mib, 1..=65_536)?;
        Ok(StoreSettings {
            directory: directory.to_owned(),
            durability: self.durability,
            cache_kib: self.cache_mib * 1024,
            pending_bytes: self.pending_mib as usize * 1024 * 1024,
            checkpoint_pages: CHECKPOINT_PAGES,
        })
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
    /// Pages of the log after which it is copied to the database.
    pub checkpoint_pages: u32,
}

impl StoreSettings {
    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }
}

/// The name of the database in its directory.
pub const DATABASE: &str = "bugle.sqlite3";
