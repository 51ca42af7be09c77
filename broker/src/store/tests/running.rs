//! A store with its thread, and shards that are tests.

use std::sync::Arc;
use std::time::Duration;

use bugle_core::store::{BatchNumber, Restored, StoreBatch, StoreEvent, StoreOperation, WallTime};
use tokio::time::timeout;

use crate::store::exchange::{Exchange, Mail};
use crate::store::link::StoreEnd;
use crate::store::open::{Database, OpenError};
use crate::store::settings::StoreSettings;
use crate::store::{StoreHandle, start};

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running store.
pub struct Running {
    pub exchange: Arc<Exchange>,
    pub store: StoreHandle,
    /// What each shard was given.
    pub restored: Vec<Vec<Restored>>,
    last: Vec<u64>,
    mail: Vec<Vec<StoreEvent>>,
}

impl Running {
    /// Over the files of `settings`.
    pub fn open(settings: &StoreSettings, shards: u16) -> Result<Self, OpenError> {
        Ok(Self::over(Database::open(settings)?, settings, shards))
    }

    /// Over this database.
    pub fn over(database: Database, settings: &StoreSettings, shards: u16) -> Self {
        let wall = Box::new(|| WallTime(1_000_000));
        let (store, ends) = start(database, settings.clone(), shards, wall).unwrap();
        let exchange = store.exchange();
        let take = |end: StoreEnd| {
            let mut all = Vec::new();
            end.take_all(|restored| all.push(restored));
            all
        };
        let takers: Vec<_> = ends.into_iter().map(|end| std::thread::spawn(move || take(end))).collect();
        store.wait_restored().unwrap();
        let restored = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        let (last, mail) = (vec![0; shards.into()], (0..shards).map(|_| Vec::new()).collect());
        Self { exchange, store, restored, last, mail }
    }

    /// Puts a batch of a shard.
    pub fn put(&mut self, shard: u16, operations: impl IntoIterator<Item = StoreOperation>) -> BatchNumber {
        let last = &mut self.last[usize::from(shard)];
        *last += 1;
        let batch = StoreBatch {
            number: BatchNumber(*last),
            operations: operations.into_iter().collect(),
            bytes: 100,
        };
        self.exchange.put(shard, batch);
        BatchNumber(*last)
    }

    /// Puts a batch and waits until it is committed.
    pub fn keep(&mut self, shard: u16, operations: impl IntoIterator<Item = StoreOperation>) {
        let number = self.put(shard, operations);
        self.wait_committed(shard, number);
    }

    pub fn wait_committed(&mut self, shard: u16, number: BatchNumber) {
        self.wait(shard, |event| matches!(event, StoreEvent::Committed(last) if *last >= number));
    }

    /// Waits for such an event for a shard; those before it are forgotten.
    pub fn wait(&mut self, shard: u16, is_it: impl Fn(&StoreEvent) -> bool) -> StoreEvent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        loop {
            let mail = &mut self.mail[usize::from(shard)];
            if let Some(at) = mail.iter().position(&is_it) {
                return mail.drain(..=at).next_back().unwrap();
            }
            let arrived = async { timeout(PATIENCE, self.exchange.mail_arrived(shard)).await };
            runtime.block_on(arrived).expect("the store says nothing of the kind");
            mail.extend(self.exchange.mail(shard).into_iter().filter_map(|mail| match mail {
                Mail::Event(event) => Some(event),
                Mail::Room => None,
            }));
        }
    }

    /// Whether everything was kept.
    pub fn stop(self) -> bool {
        self.store.stop(PATIENCE)
    }
}
