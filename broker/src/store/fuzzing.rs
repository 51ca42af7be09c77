//! Any rows that the tables take, as they are read when the gateway starts and when a queue is fetched.

use bugle_core::model::Identity;
use bugle_core::store::{Sequence, WallTime};
use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::apply::ClientNumbers;
use super::command::examine;
use super::fetch::{Window, fetch};
use super::pending::Pending;
use super::restore::restore;
use super::schema::{STEPS, migrate};

/// Rows of an input, so that most of what libFuzzer changes keeps its sense: a byte says the table, the rest is columns.
struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Small, or any.
    fn number(&mut self) -> i64 {
        match self.byte() {
            0xFF => self.take(8).iter().fold(0, |sum, &byte| sum << 8 | i64::from(byte)),
            small => i64::from(small),
        }
    }

    /// Bytes that SQLite takes for text, UTF-8 or not.
    fn text(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        self.take(length)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() & 1 == 1).then(|| read(self))
    }
}

/// Puts the rows in, reads them as a start does, and as a client's queue is; a row that can't be read is passed over.
pub fn rows(input: &[u8]) {
    let mut connection = Connection::open_in_memory().expect("memory");
    migrate(&mut connection, STEPS).expect("new tables");
    connection.pragma_update(None, "foreign_keys", false).expect("as the gateway has it");
    let mut columns = Columns(input);
    for _ in 0..24 {
        if columns.0.is_empty() {
            break;
        }
        // What breaks the tables' own rules doesn't get in.
        let _ = insert(&connection, &mut columns);
    }
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(64)).unzip();
    let restored = restore(&connection, WallTime(1000), senders);
    assert!(restored.is_ok(), "a row kept the gateway from starting: {restored:?}");
    for receiver in &mut receivers {
        while receiver.try_recv().is_ok() {}
    }
    let mut clients = ClientNumbers::default();
    for client in ["lamp", "desk"] {
        let window = Window { after: Sequence(0), messages: 10, bytes: 1000 };
        let found = fetch(&connection, &Pending::new(1), &mut clients, &Identity::new(client), window);
        assert!(found.is_ok(), "a row kept a client from its queue: {found:?}");
    }
    let examined = examine(&connection);
    assert!(examined.is_ok(), "`bugle store verify` can't say what is wrong: {:?}", examined.err());
}

fn insert(connection: &Connection, columns: &mut Columns<'_>) -> rusqlite::Result<usize> {
    match columns.byte() % 5 {
        0 => connection.execute(
            "INSERT INTO record VALUES (CAST(?1 AS TEXT), CAST(?2 AS TEXT), CAST(?3 AS TEXT), CAST(?4 AS TEXT), ?5)",
            params![
                kind(columns),
                columns.text(),
                columns.text(),
                columns.text(),
                columns.optional(Columns::number)
            ],
        ),
        1 => connection.execute(
            "INSERT INTO client VALUES (?1, CAST(?2 AS TEXT))",
            params![columns.number(), columns.text()],
        ),
        2 => connection.execute(
            "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, CAST(?6 AS TEXT), CAST(?7 AS TEXT), CAST(?8 AS TEXT), \
             CAST(?9 AS TEXT), CAST(?10 AS TEXT), ?11, ?12, ?13)",
            params![
                columns.number(),
                columns.number(),
                columns.number(),
                columns.number(),
                columns.number(),
                columns.optional(Columns::text),
                columns.text(),
                columns.optional(Columns::text),
                columns.optional(Columns::text),
                columns.optional(Columns::text),
                columns.optional(Columns::number),
                columns.text(),
                columns.text(),
            ],
        ),
        3 => connection.execute(
            "INSERT INTO queue VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, CAST(?8 AS TEXT))",
            params![
                columns.number(),
                columns.number(),
                columns.number(),
                columns.number(),
                columns.optional(Columns::number),
                columns.optional(Columns::number),
                columns.number(),
                columns.text(),
            ],
        ),
        _ => connection.execute(
            "INSERT INTO retained VALUES (CAST(?1 AS TEXT), ?2, ?3, ?4, CAST(?5 AS TEXT), ?6, ?7, ?8)",
            params![
                columns.text(),
                columns.number(),
                columns.number(),
                columns.number(),
                columns.text(),
                columns.optional(Columns::number),
                columns.text(),
                columns.text(),
            ],
        ),
    }
}

/// The name of a kind, mostly.
fn kind<'a>(columns: &mut Columns<'a>) -> &'a [u8] {
    let kinds = bugle_core::store::RecordKind::ALL;
    match kinds.get(usize::from(columns.byte() % 8)) {
        Some(kind) => kind.as_str().as_bytes(),
        None => columns.text(),
    }
}
