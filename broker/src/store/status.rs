//! How the store is doing, for metrics, `/healthz` and the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the histogram of commits, in microseconds: from a disk with a battery to one that barely answers.
const BOUNDS: [u64; 13] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];
/// A commit that takes longer is a disk that doesn't answer.
const STUCK: Duration = Duration::from_secs(5);

/// Counters and states, written by the store's thread.
#[derive(Debug)]
pub struct StoreStatus {
    started: Instant,
    commits: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    commit_micros: AtomicU64,
    operations: AtomicU64,
    rows: AtomicU64,
    failures: AtomicU64,
    checkpoint_failures: AtomicU64,
    refused: AtomicU64,
    pending_bytes: AtomicU64,
    database_bytes: AtomicU64,
    /// Microseconds from the start to when the commit that runs began, plus one; 0: none runs.
    commit_began: AtomicU64,
    fault: Mutex<Option<Arc<str>>>,
    /// Where the store is that could not be read at the start.
    quarantined: Option<String>,
}

/// A histogram at one moment.
#[derive(Debug, PartialEq)]
pub struct Histogram {
    /// Sum of all, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
    /// How many were in each bucket, by its upper bound in seconds.
    pub buckets: Vec<(f64, u64)>,
}

/// What is the matter with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In one word.
    pub state: &'static str,
    /// In words for people.
    pub reason: String,
}

impl StoreStatus {
    /// Of a store that is open; `quarantined` is where the one before it was moved to.
    pub fn new(quarantined: Option<String>) -> Self {
        Self {
            started: Instant::now(),
            commits: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            commit_micros: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            checkpoint_failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            pending_bytes: AtomicU64::new(0),
            database_bytes: AtomicU64::new(0),
            commit_began: AtomicU64::new(0),
            fault: Mutex::default(),
            quarantined,
        }
    }

    /// A commit begins.
    pub fn commit_begins(&self) {
        self.commit_began.store(self.started.elapsed().as_micros() as u64 + 1, Ordering::Relaxed);
    }

    /// It ended well: so many operations had become so many changed rows.
    pub fn committed(&self, operations: u64, rows: u64) {
        let micros = self.commit_ends();
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        self.operations.fetch_add(operations, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// It, or a read, failed for this reason.
    pub fn failed(&self, reason: &Arc<str>) {
        self.commit_ends();
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
    }

    /// All is well again. Whether it wasn't.
    pub fn recovered(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// The log could not be copied to the database.
    pub fn checkpoint_failed(&self) {
        self.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// So many operations could not be carried out, for their message wasn't there. Whether these are the first.
    pub fn refused(&self, count: u64) -> bool {
        count > 0 && self.refused.fetch_add(count, Ordering::Relaxed) == 0
    }

    /// Bytes that aren't committed.
    pub fn set_pending(&self, bytes: usize) {
        self.pending_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of its files.
    pub fn set_database_bytes(&self, bytes: u64) {
        self.database_bytes.store(bytes, Ordering::Relaxed);
    }

    fn commit_ends(&self) -> u64 {
        let now = self.started.elapsed().as_micros() as u64 + 1;
        match self.commit_began.swap(0, Ordering::Relaxed) {
            0 => 0,
            began => now - began,
        }
    }

    /// What is the matter, the worst first.
    pub fn trouble(&self) -> Option<Trouble> {
        if let Some(reason) = &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(Trouble { state: "unavailable", reason: reason.to_string() });
        }
        let began = self.commit_began.load(Ordering::Relaxed);
        let running = Duration::from_micros(self.started.elapsed().as_micros() as u64 + 1 - began.max(1));
        if began > 0 && running > STUCK {
            let reason =
                format!("a commit has been running for {} s: does the disk answer?", running.as_secs());
            return Some(Trouble { state: "stuck", reason });
        }
        self.quarantined.as_ref().map(|path| Trouble {
            state: "was_corrupt",
            reason: format!(
                "the store could not be read when the gateway started, and was moved to {path}; this one began empty"
            ),
        })
    }

    /// How long commits took.
    pub fn commit_seconds(&self) -> Histogram {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        Histogram {
            sum: load(&self.commit_micros) as f64 / 1e6,
            count: load(&self.commits),
            buckets: bounds.zip(self.buckets.iter().map(load)).collect(),
        }
    }

    /// Name, help, value, and whether it is a gauge, of each of the others.
    pub fn each(&self, f: &mut dyn FnMut(&'static str, &'static str, u64, bool)) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        f(
            "store_operations",
            "Operations that were committed, those that cancelled out included",
            load(&self.operations),
            false,
        );
        f("store_rows", "Rows that commits added, changed or removed", load(&self.rows), false);
        f(
            "store_failures",
            "Commits and reads that failed; what they were for was kept and tried again",
            load(&self.failures),
            false,
        );
        let help = "Times that the log could not be copied to the database; it grows meanwhile";
        f("store_checkpoint_failures", help, load(&self.checkpoint_failures), false);
        f(
            "store_operations_refused",
            "Operations that made no sense to the store; please report",
            load(&self.refused),
            false,
        );
        let is_unavailable = self.trouble().is_some_and(|trouble| trouble.state != "was_corrupt");
        f("store_unavailable", "1 while nothing can be written", u64::from(is_unavailable), true);
        f(
            "store_pending_bytes",
            "Bytes taken by the store and not committed",
            load(&self.pending_bytes),
            true,
        );
        f("store_database_bytes", "Bytes of the store's files", load(&self.database_bytes), true);
    }
}
