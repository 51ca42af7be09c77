//! The store's thread: takes batches, commits them together, and says how far it has come.
//!
//! A commit begins as soon as there is something and the one before is done; what arrives meanwhile goes into the next. So an
//! idle gateway commits at once, and a busy one many messages at a time, without a timer.
//!
//! When a commit fails, nothing of it is lost or told: it stays in [`Pending`], is tried again each second, and goes on to
//! take batches as long as the budget lasts. The connection stays open: SQLite has rolled back in the file what failed, and what it had
//! written before is still the file's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bugle_core::backbone::ShardIndex;
use bugle_core::store::{StoreBatch, StoreEvent, StoreOperation, WallTime};
use rusqlite::{ErrorCode, TransactionBehavior};

use super::apply::{ClientNumbers, apply};
use super::exchange::{Exchange, Taken};
use super::fetch::{Window, fetch};
use super::open::Database;
use super::pending::Pending;
use super::rows::ReadError;
use super::settings::StoreSettings;
use super::status::StoreStatus;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often what has expired is swept out, and the size of the files looked at, in milliseconds.
const SWEEP: u64 = 60_000;
/// Expired records that are swept out with one commit.
const SWEPT: u32 = 10_000;

/// What the thread holds.
pub struct StoreThread {
    database: Database,
    settings: StoreSettings,
    pending: Pending,
    clients: ClientNumbers,
    exchange: Arc<Exchange>,
    status: Arc<StoreStatus>,
    wall: Box<dyn Fn() -> WallTime + Send>,
    /// After a failure: when it is tried again.
    retry_at: Option<Instant>,
    swept_at: WallTime,
}

impl StoreThread {
    /// A thread's worth for an open database. `wall` is the clock by which records expire.
    pub fn new(
        database: Database,
        settings: StoreSettings,
        shards: u16,
        exchange: Arc<Exchange>,
        status: Arc<StoreStatus>,
        wall: Box<dyn Fn() -> WallTime + Send>,
    ) -> Self {
        let swept_at = WallTime(0);
        let (pending, clients) = (Pending::new(shards), ClientNumbers::default());
        Self { database, settings, pending, clients, exchange, status, wall, retry_at: None, swept_at }
    }

    /// The database, before the first batch.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Works until the exchange is closed and what came through it is committed, or can't be. Whether it is.
    pub fn run(mut self) -> bool {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        worked.unwrap_or_else(|_| {
            let reason =
                "the store's thread has ended by a panic, which please report; start the gateway again";
            tracing::error!("{reason}");
            self.report(reason.into());
            false
        })
    }

    fn work(&mut self) -> bool {
        self.measure();
        loop {
            let patience = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
            let is_closed = match patience {
                // What is taken beyond the budget would only pile up here instead of where it is bounded.
                Some(patience) if self.pending.bytes() >= self.settings.pending_bytes => {
                    self.exchange.rest(patience)
                }
                _ => {
                    let Taken { batches, is_closed } = self.exchange.take(patience);
                    batches.into_iter().for_each(|(shard, batch)| self.take(shard, batch));
                    is_closed
                }
            };
            self.status.set_pending(self.pending.bytes());
            if is_closed || self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.commit();
            }
            if is_closed && (self.retry_at.is_some() || self.exchange.waiting().0 == 0) {
                break;
            }
        }
        let is_whole = self.pending.is_idle();
        if !is_whole {
            tracing::error!(
                operations = self.pending.operations(),
                "the store closes without what it could not write; nobody was told that it is kept"
            );
        }
        is_whole
    }

    fn take(&mut self, shard: ShardIndex, batch: StoreBatch) {
        for operation in batch.operations {
            match operation {
                StoreOperation::Fetch { client, after, messages, bytes } => {
                    let window = Window { after, messages, bytes };
                    while let Err(error) = self.answer(shard, &client, window) {
                        // Later it would be another answer: one that has what came after it.
                        self.trouble(&error.to_string());
                        if self.exchange.rest(RETRY) {
                            break;
                        }
                    }
                }
                operation => self.pending.fold(operation),
            }
        }
        self.pending.end_batch(shard, batch.number);
    }

    fn answer(
        &mut self,
        shard: ShardIndex,
        client: &bugle_core::model::Identity,
        window: Window,
    ) -> Result<(), ReadError> {
        let found = fetch(&self.database.connection, &self.pending, &mut self.clients, client, window)?;
        let (messages, more) = found;
        self.exchange.tell(shard, StoreEvent::Fetched { client: client.clone(), messages, more });
        Ok(())
    }

    fn commit(&mut self) {
        if self.pending.is_idle() && self.retry_at.is_none() {
            return;
        }
        let before = self.database.connection.total_changes();
        self.status.commit_begins();
        let now = (self.wall)();
        if let Err(error) = self.write(now) {
            self.clients.clear();
            return self.trouble(&explained(&error));
        }
        self.retry_at = None;
        let rows = self.database.connection.total_changes() - before;
        self.status.committed(self.pending.operations(), rows);
        if self.status.recovered() {
            tracing::warn!("the store can be written again, and has all that had waited");
            self.exchange.tell_all(|| StoreEvent::Available);
        }
        for (shard, number) in self.pending.committed(now) {
            self.exchange.tell(shard, StoreEvent::Committed(number));
        }
        self.status.set_pending(0);
        self.checkpoint();
    }

    fn write(&mut self, now: WallTime) -> rusqlite::Result<()> {
        let sweeps = now.0 >= self.swept_at.0 + SWEEP;
        // What failed before is only over when something could be written.
        if self.pending.is_empty() && !sweeps && self.retry_at.is_none() {
            return Ok(());
        }
        let connection = &mut self.database.connection;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let refused = apply(&transaction, &self.pending, &mut self.clients)?;
        if sweeps {
            let sql = "DELETE FROM record WHERE (kind, owner, key) IN \
                       (SELECT kind, owner, key FROM record WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
            transaction.prepare_cached(sql)?.execute((super::rows::column(now.0), SWEPT))?;
        }
        if self.retry_at.is_some() {
            transaction.execute(
                "INSERT INTO meta (name, value) VALUES ('failed_before_ms', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
                [now.0.to_string()],
            )?;
        }
        transaction.commit()?;
        if self.status.refused(refused) {
            tracing::error!(
                refused,
                "messages were to be queued that the store has not, or twice; please report. More are only counted"
            );
        }
        if sweeps {
            self.swept_at = now;
            self.measure();
        }
        Ok(())
    }

    /// Something could not be read or written: all shards hear why, once per reason.
    fn trouble(&mut self, reason: &str) {
        self.retry_at = Some(Instant::now() + RETRY);
        let is_known = self.status.trouble().is_some_and(|known| known.reason == reason);
        let reason: Arc<str> = reason.into();
        if is_known {
            return self.status.failed(&reason);
        }
        tracing::error!(
            %reason,
            "the store can't be used: nothing that must last is acknowledged until it can; it is tried again each second"
        );
        self.report(reason);
    }

    fn report(&self, reason: Arc<str>) {
        self.status.failed(&reason);
        self.exchange.tell_all(|| StoreEvent::Unavailable(reason.clone()));
    }

    /// Copies the log to the database when it is long. After shards have heard of the commit, since it takes a while.
    fn checkpoint(&mut self) {
        if self.database.log_pages.load(Ordering::Relaxed) < self.settings.checkpoint_pages {
            return;
        }
        let copied = self.database.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match copied {
            Ok((_, log, copied)) => {
                tracing::debug!(log, copied, "the store's log was copied to its database")
            }
            Err(error) => {
                // The log has everything, and a commit fails if it can't grow.
                self.status.checkpoint_failed();
                tracing::warn!(%error, "the store's log could not be copied to its database, and grows");
            }
        }
        self.measure();
    }

    fn measure(&self) {
        let database = self.settings.database();
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let log = format!("{}-wal", database.display());
        self.status.set_database_bytes(size(&database) + size(log.as_ref()));
    }
}

/// A failure, and what to do about those that someone can do something about.
fn explained(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("{error}: the disk is full; make room on it"),
        Some(ErrorCode::SystemIoFailure) => format!("{error}: the disk failed; look at the system's log"),
        Some(ErrorCode::ReadOnly) => {
            format!("{error}: the store can't be written to; look at its permissions")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("{error}: another program has locked the store; end what holds it")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("{error}: the store is corrupt; a start of the gateway moves it aside")
        }
        _ => error.to_string(),
    }
}
