//! Folding, writing and reading against real SQLite files.

mod crash;
mod model;
mod running;
mod thread;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bugle_core::backbone::RetainedVersion;
use bugle_core::model::{Identity, Message, Origin, QoS};
use bugle_core::store::{BatchNumber, MessageNumber, RecordKind, Sequence, Stage, StoreOperation, WallTime};
use rusqlite::Connection;

use super::apply::{ClientNumbers, apply};
use super::fetch::{Window, fetch};
use super::pending::Pending;
use super::schema::{self, STEPS, VERSION, VERSION_1, migrate};
use super::settings::{Durability, StoreSettings};

const ALL: Window = Window { after: Sequence(0), messages: 100, bytes: 1 << 20 };

/// A new directory for a store, which goes with it.
struct Place(StoreSettings);

impl Deref for Place {
    type Target = StoreSettings;

    fn deref(&self) -> &StoreSettings {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_dir_all(&self.0.directory);
    }
}

fn place() -> Place {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory: PathBuf =
        std::env::temp_dir().join(format!("bugle-store-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let durability = Durability::Fsync;
    Place(StoreSettings {
        directory,
        durability,
        cache_kib: 1024,
        pending_bytes: 1 << 20,
        checkpoint_pages: 1000,
    })
}

/// A store without its thread.
struct Store {
    connection: Connection,
    pending: Pending,
    clients: ClientNumbers,
    _place: Place,
}

impl Store {
    fn new() -> Self {
        let mut store = Self::without_tables();
        migrate(&mut store.connection, STEPS).unwrap();
        store
    }

    fn without_tables() -> Self {
        let place = place();
        let connection = Connection::open(place.database()).unwrap();
        schema::set_up(&connection, &place).unwrap();
        Self { connection, pending: Pending::new(1), clients: ClientNumbers::default(), _place: place }
    }

    fn fold(&mut self, operations: impl IntoIterator<Item = StoreOperation>) {
        operations.into_iter().for_each(|operation| self.pending.fold(operation));
        self.pending.end_batch(0, BatchNumber(1));
    }

    /// The number of rows that the commit changed.
    fn commit(&mut self) -> u64 {
        let before = self.connection.total_changes();
        let transaction = self.connection.transaction().unwrap();
        assert_eq!(apply(&transaction, &self.pending, &mut self.clients).unwrap(), 0);
        transaction.commit().unwrap();
        assert_eq!(self.pending.committed(WallTime(1)), [(0, BatchNumber(1))]);
        assert_eq!(self.pending.bytes(), 0);
        self.connection.total_changes() - before
    }

    /// Places, payloads and packet identifiers of a queue.
    fn queue(&mut self, client: &str, window: Window) -> (Vec<(u64, String, u16)>, bool) {
        let client = Identity::new(client);
        let found = fetch(&self.connection, &self.pending, &mut self.clients, &client, window);
        let (messages, more) = found.unwrap();
        let tell = |message: &bugle_core::store::QueuedMessage| {
            let payload = String::from_utf8(message.message.payload.to_vec()).unwrap();
            (message.sequence.0, payload, message.stage.packet_id.map_or(0, |id| id.get()))
        };
        (messages.iter().map(tell).collect(), more)
    }

    fn count(&self, table: &str) -> i64 {
        self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        origin: Origin::Topic { topic: "t".into(), publisher: Identity::new("app"), retain: false },
        payload: text.to_owned().into(),
        properties: Default::default(),
        qos: QoS::AtLeastOnce,
        deadline: None,
        urgent: false,
    })
}

fn put(number: u64, text: &str) -> StoreOperation {
    StoreOperation::PutMessage { number: MessageNumber(number), message: message(text), expires: None }
}

fn enqueue(client: &str, sequence: u64, number: u64) -> StoreOperation {
    let (client, sequence) = (Identity::new(client), Sequence(sequence));
    StoreOperation::Enqueue { client, sequence, message: MessageNumber(number), entry: "{}".to_owned() }
}

fn dequeue(client: &str, sequence: u64) -> StoreOperation {
    StoreOperation::Dequeue { client: Identity::new(client), sequence: Sequence(sequence) }
}

fn written(client: &str, sequence: u64, packet_id: u16) -> StoreOperation {
    let stage = Stage { packet_id: std::num::NonZeroU16::new(packet_id), released: false };
    StoreOperation::SetStage { client: Identity::new(client), sequence: Sequence(sequence), stage }
}

fn record(kind: RecordKind, owner: &str, key: &str) -> StoreOperation {
    let value = "{}".to_owned();
    StoreOperation::PutRecord { kind, owner: owner.into(), key: key.into(), value, expires: None }
}

#[test]
fn what_was_acknowledged_before_the_commit_is_never_written() {
    let mut store = Store::new();
    store.fold([put(1, "on"), enqueue("lamp", 1, 1), written("lamp", 1, 7), dequeue("lamp", 1)]);
    assert!(store.pending.is_empty() && !store.pending.is_idle());
    assert_eq!(store.commit(), 0);
}

#[test]
fn a_message_is_kept_once_and_goes_with_the_last_who_waits_for_it() {
    let mut store = Store::new();
    store.fold([put(1, "on"), enqueue("a", 1, 1), enqueue("b", 1, 1)]);
    store.commit();
    assert_eq!((store.count("message"), store.count("queue")), (1, 2));
    store.fold([dequeue("a", 1), enqueue("c", 1, 1)]);
    store.commit();
    assert_eq!(store.queue("c", ALL), (vec![(1, "on".to_owned(), 0)], false));
    store.fold([dequeue("b", 1)]);
    store.commit();
    assert_eq!(store.count("message"), 1);
    store.fold([dequeue("c", 1), StoreOperation::EndSession { client: Identity::new("c") }]);
    store.commit();
    assert_eq!((store.count("message"), store.count("queue")), (0, 0));
    assert_eq!(store.count("client"), 2, "the name of the one whose session ended has gone too");
}

#[test]
fn a_queue_reads_the_same_before_and_after_the_commit() {
    let mut store = Store::new();
    store.fold([put(1, "one"), put(2, "two"), enqueue("a", 1, 1), enqueue("a", 2, 2)]);
    store.commit();
    store.fold([put(3, "three"), dequeue("a", 1), written("a", 2, 9), enqueue("a", 3, 3)]);
    let expected = (vec![(2, "two".to_owned(), 9), (3, "three".to_owned(), 0)], false);
    assert_eq!(store.queue("a", ALL), expected);
    store.commit();
    assert_eq!(store.queue("a", ALL), expected);
    let first = (vec![(2, "two".to_owned(), 9)], true);
    assert_eq!(store.queue("a", Window { messages: 1, ..ALL }), first);
    assert_eq!(store.queue("a", Window { bytes: 1, ..ALL }), first, "at least one, whatever its size");
    assert_eq!(store.queue("a", Window { after: Sequence(3), ..ALL }), (Vec::new(), false));
}

#[test]
fn the_end_of_a_session_takes_what_is_its_own_and_leaves_what_waits_for_its_client() {
    let mut store = Store::new();
    store.fold([put(1, "on"), enqueue("a", 1, 1)]);
    let kinds = [RecordKind::Session, RecordKind::Subscription, RecordKind::Received, RecordKind::Moderation];
    store.fold(kinds.map(|kind| record(kind, "a", "k")));
    store.commit();
    store.fold([
        StoreOperation::EndSession { client: Identity::new("a") },
        record(RecordKind::Session, "a", ""),
    ]);
    store.commit();
    let mut statement = store.connection.prepare("SELECT kind || key FROM record ORDER BY kind").unwrap();
    let left: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(left, ["moderationk", "session"]);
    drop(statement);
    assert_eq!(store.queue("a", ALL).0, [(1, "on".to_owned(), 0)]);
}

#[test]
fn an_older_retained_message_never_replaces_a_newer_one() {
    let mut store = Store::new();
    let put = |number, text: &str| StoreOperation::PutRetained {
        topic: "t".into(),
        version: RetainedVersion { number, shard: 0 },
        message: message(text),
        expires: None,
    };
    store.fold([put(5, "new")]);
    store.commit();
    store.fold([put(4, "old")]);
    store.commit();
    let text: Vec<u8> =
        store.connection.query_row("SELECT payload FROM retained", [], |row| row.get(0)).unwrap();
    assert_eq!(text, b"new");
    let version = RetainedVersion { number: 7, shard: 0 };
    store.fold([StoreOperation::RemoveRetained { topic: "t".into(), version }]);
    store.commit();
    store.fold([put(6, "late")]);
    store.commit();
    assert_eq!(store.count("retained"), 0, "what was cleared stays cleared");
}

#[test]
fn a_place_whose_message_is_not_there_is_refused_and_counted() {
    let mut store = Store::new();
    store.fold([enqueue("a", 1, 99)]);
    let transaction = store.connection.transaction().unwrap();
    assert_eq!(apply(&transaction, &store.pending, &mut store.clients).unwrap(), 1);
}

#[test]
fn the_tables_of_version_1_are_brought_to_the_present_one() {
    let mut store = Store::without_tables();
    migrate(&mut store.connection, &[VERSION_1]).unwrap();
    store.fold([put(1, "kept"), enqueue("a", 1, 1)]);
    store.commit();
    migrate(&mut store.connection, STEPS).unwrap();
    assert_eq!(schema::version(&store.connection).unwrap(), VERSION as i64);
    assert_eq!(store.queue("a", ALL).0, [(1, "kept".to_owned(), 0)]);
}

#[test]
fn a_step_that_fails_leaves_no_trace() {
    let mut store = Store::without_tables();
    let steps = [VERSION_1, "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);"];
    assert!(migrate(&mut store.connection, &steps).is_err());
    assert_eq!(schema::version(&store.connection).unwrap(), 1);
    let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
    assert_eq!(store.connection.query_row(half, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn sqlite_has_the_fix_of_the_reset_write_ahead_log() {
    // 3.51.3 was the first; without it two connections that checkpoint can lose a commit.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}
