//! The tables, how a connection is set up for them, and how the tables of an older version become those of this one.
//!
//! Names are for people who look in with `sqlite3`. Times are milliseconds since 1970. What is JSON is the hub's.

use rusqlite::{Connection, TransactionBehavior};

use super::settings::StoreSettings;

/// Says in a file that it is a store of Bugle (`PRAGMA application_id`): "Bugl".
pub const APPLICATION_ID: i32 = 0x4275_676C;

/// What leads from each version to the next; the first from nothing. Never changed once released, only added to.
pub const STEPS: &[&str] = &[VERSION_1];

/// The version that this program writes.
pub const VERSION: usize = STEPS.len();

/// `waiting` is how many queue rows a message has: it goes with the last of them. Kept as a number, since an index over
/// `queue.message` would be written at every enqueue and every dequeue, and looked into at the latter.
///
/// `queue.bytes` and `queue.expires_ms` repeat the message's, so that a start reads queues without their messages. A
/// client's number stands for its name in queues; `record.owner` has the name.
pub const VERSION_1: &str = "
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE client (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE record (
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        expires_ms INTEGER,
        PRIMARY KEY (kind, owner, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX record_by_expiry ON record (expires_ms) WHERE expires_ms IS NOT NULL;
    CREATE TABLE message (
        number INTEGER PRIMARY KEY,
        waiting INTEGER NOT NULL,
        qos INTEGER NOT NULL,
        retain INTEGER NOT NULL,
        urgent INTEGER NOT NULL,
        mode TEXT,
        sender TEXT NOT NULL,
        topic TEXT,
        to_group TEXT,
        to_client TEXT,
        expires_ms INTEGER,
        properties BLOB NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
    CREATE TABLE queue (
        client INTEGER NOT NULL REFERENCES client (id),
        sequence INTEGER NOT NULL,
        message INTEGER NOT NULL REFERENCES message (number),
        bytes INTEGER NOT NULL,
        expires_ms INTEGER,
        packet_id INTEGER,
        released INTEGER NOT NULL DEFAULT 0,
        entry TEXT NOT NULL,
        PRIMARY KEY (client, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE retained (
        topic TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        version_shard INTEGER NOT NULL,
        qos INTEGER NOT NULL,
        publisher TEXT NOT NULL,
        expires_ms INTEGER,
        properties BLOB NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
";

/// Bytes of the log's file that are kept when it starts anew.
const KEPT_LOG: u32 = 64 * 1024 * 1024;
/// How long another program that has locked the database is waited for, in milliseconds.
const BUSY: u64 = 1000;

/// Prepares a connection that writes. WAL is kept in the file, all else is the connection's.
pub fn set_up(connection: &Connection, settings: &StoreSettings) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY))?;
    connection.set_prepared_statement_cache_capacity(64);
    // References are for readers and for `bugle store verify`. Enforced, each removal of a message would search all queues.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -i64::from(settings.cache_kib))?;
    connection.pragma_update(None, "synchronous", settings.durability.synchronous())?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The thread does it, after it has told who waits for the commit.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", KEPT_LOG)?;
    Ok(())
}

/// The version of the tables, 0 where there are none.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables those that `steps` lead to, each step in a transaction of its own: one that fails leaves no trace.
pub fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let found = usize::try_from(version(connection)?).unwrap_or(0);
    for (index, step) in steps.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.execute(
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            ("migrated_by", concat!("bugle ", env!("CARGO_PKG_VERSION"))),
        )?;
        transaction.commit()?;
    }
    Ok(())
}
