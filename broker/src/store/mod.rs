//! The durable store of the process, in SQLite. The contract is `bugle_core::store`; the reasons are in docs/decisions/0008.
//!
//! The way through: [`open`] opens and locks the data directory, [`restore`] gives shards what is kept, [`thread`] then takes their
//! batches through the [`exchange`], folds them into [`pending`] changes, has [`apply`] write these in one transaction of [`schema`]'s
//! tables, and answers questions from [`fetch`]. [`rows`] is how a message stands in a row, [`link`] a shard's end of all this,
//! [`settings`] what the operator decides, [`status`] how it goes, [`command`] what `bugle store` does.
//!
//! Nothing here knows what a session or a receipt is: records and queue entries are texts of the hub's making.

mod apply;
pub mod command;
pub mod exchange;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod link;
mod open;
mod pending;
mod restore;
mod rows;
mod schema;
pub mod settings;
pub mod status;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use bugle_core::backbone::ShardIndex;
use bugle_core::store::WallTime;
use tokio::sync::mpsc;

use self::exchange::Exchange;
use self::link::StoreEnd;
pub use self::open::{Database, OpenError};
pub use self::rows::ReadError;
use self::settings::StoreSettings;
use self::status::{Histogram, StoreStatus, Trouble};
use self::thread::StoreThread;

/// A clock of the wall.
pub type WallClock = Box<dyn Fn() -> WallTime + Send>;

/// A running store.
pub struct StoreHandle {
    exchange: Arc<Exchange>,
    status: Arc<StoreStatus>,
    restored: blocking::Receiver<Result<(), ReadError>>,
    shards: u16,
    ended: blocking::Receiver<bool>,
}

/// A look at how a store is doing.
#[derive(Clone)]
pub struct StoreHealth {
    exchange: Arc<Exchange>,
    status: Arc<StoreStatus>,
}

impl StoreHealth {
    /// What is the matter with it, if something is.
    pub fn trouble(&self) -> Option<Trouble> {
        self.status.trouble()
    }

    /// How long commits took.
    pub fn commit_seconds(&self) -> Histogram {
        self.status.commit_seconds()
    }

    /// Name, help, value, and whether it is a gauge, of each of the other metrics.
    pub fn each(&self, f: &mut dyn FnMut(&'static str, &'static str, u64, bool)) {
        let (batches, bytes) = self.exchange.waiting();
        f("store_waiting_batches", "Batches of shards that the store has not taken", batches as u64, true);
        f("store_waiting_bytes", "Bytes of batches that the store has not taken", bytes as u64, true);
        self.status.each(f);
    }
}

/// Starts the thread for an open database. It gives the shards what is kept, each at its end, and then takes their batches.
pub fn start(
    database: Database,
    settings: StoreSettings,
    shards: u16,
    wall: WallClock,
) -> io::Result<(StoreHandle, Vec<StoreEnd>)> {
    let exchange = Arc::new(Exchange::new(shards));
    let quarantined = database.quarantined.as_ref().map(|path| path.display().to_string());
    let status = Arc::new(StoreStatus::new(quarantined));
    let (is_restored, restored) = blocking::channel();
    let mut ends = Vec::new();
    let mut feeds = Vec::new();
    for shard in 0..shards {
        let (feed, fed) = mpsc::channel(restore::PIECES);
        feeds.push(feed);
        ends.push(StoreEnd::new(shard as ShardIndex, exchange.clone(), fed, is_restored.clone()));
    }
    let (has_ended, ended) = blocking::channel();
    let now = wall();
    let thread = StoreThread::new(database, settings, shards, exchange.clone(), status.clone(), wall);
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        let began = Instant::now();
        match restore::restore(&thread.database().connection, now, feeds) {
            Ok(count) => {
                let millis = began.elapsed().as_millis();
                tracing::info!(
                    records = count.records,
                    queues = count.queues,
                    queued = count.queued,
                    in_flight = count.in_flight,
                    retained = count.retained,
                    unreadable = count.unreadable,
                    millis,
                    "the store was read"
                );
                drop(is_restored);
                // Nobody waits for it if the process ends another way.
                let _ = has_ended.send(thread.run());
            }
            Err(error) => {
                let _ = is_restored.send(Err(error));
            }
        }
    })?;
    Ok((StoreHandle { exchange, status, restored, shards, ended }, ends))
}

impl StoreHandle {
    /// Waits until all shards have what is kept.
    pub fn wait_restored(&self) -> Result<(), ReadError> {
        // A shard that ends before it has everything says nothing; then neither does its end of this.
        self.restored.iter().take(usize::from(self.shards)).collect()
    }

    /// The way to it, for those that aren't shards.
    pub fn exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    /// Where to look at how it is doing.
    pub fn health(&self) -> StoreHealth {
        StoreHealth { exchange: self.exchange.clone(), status: self.status.clone() }
    }

    /// Commits what was put, takes no more, and waits for the thread to end, as long as `patience`. Whether everything is kept.
    pub fn stop(self, patience: Duration) -> bool {
        self.exchange.close();
        self.ended.recv_timeout(patience).unwrap_or(false)
    }
}
