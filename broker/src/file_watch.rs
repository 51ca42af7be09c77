//! Tells when a file has become another one, by looking at it now and then.

use std::path::PathBuf;
use std::time::SystemTime;

/// A file, and what it was when it was last looked at.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    /// Editors put a new file in the place of the old one.
    #[cfg(unix)]
    inode: u64,
}

impl FileWatch {
    /// Of a file that is read now.
    pub fn new(path: PathBuf) -> Self {
        let mut watch = Self { path, seen: None };
        watch.has_changed();
        watch
    }

    /// Whether it is another one than at the last look. One that is gone for a moment is being replaced.
    pub fn has_changed(&mut self) -> bool {
        let Some(stamp) = self.stamp() else { return false };
        self.seen.replace(stamp) != Some(stamp)
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}
