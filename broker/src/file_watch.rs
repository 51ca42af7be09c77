//! Tells when files have become other ones, by looking at them now and then.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Files that are read together, looked at once a second and when somebody asks for it.
#[derive(Debug)]
pub struct FileWatches {
    watches: Vec<FileWatch>,
    due: Instant,
}

/// What there is to say at a look at files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Somebody asked for it.
    pub is_asked: bool,
    /// One of the files is another one than at the last look.
    pub has_changed: bool,
}

impl FileWatches {
    /// Of files that are read now.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let watches = paths.into_iter().map(FileWatch::new).collect();
        Self { watches, due: Instant::now() + LOOK }
    }

    /// The next look: in a second, or at once when `asked` is notified. Cancel-safe.
    pub async fn next(&mut self, asked: &Notify) -> Look {
        let is_asked = tokio::select! {
            () = asked.notified() => true,
            () = sleep_until(self.due) => false,
        };
        self.due = Instant::now() + LOOK;
        Look { is_asked, has_changed: self.have_changed() }
    }

    /// Whether one is another file than at the last look.
    pub fn have_changed(&mut self) -> bool {
        // All are looked at, each time.
        self.watches.iter_mut().fold(false, |changed, watch| watch.has_changed() | changed)
    }
}

/// A file, and what it was when it was last looked at.
#[derive(Debug)]
struct FileWatch {
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
    fn new(path: PathBuf) -> Self {
        let mut watch = Self { path, seen: None };
        watch.has_changed();
        watch
    }

    /// Whether it is another one than at the last look. One that is gone for a moment is being replaced.
    fn has_changed(&mut self) -> bool {
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
