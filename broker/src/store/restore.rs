//! Gives shards what is kept, when the gateway starts: one pass over each table, in pieces, so that memory stays small however much
//! there is.

use std::num::NonZeroU16;
use std::sync::Arc;

use bugle_core::backbone::{RetainedVersion, ShardIndex};
use bugle_core::hub::owner;
use bugle_core::model::{Identity, Message, Origin};
use bugle_core::store::{MessageNumber, QueuedMessage, RecordKind, Restored, Sequence, Stage, WallTime};
use rusqlite::{Connection, Row};
use tokio::sync::mpsc;

use super::rows::{
    BadRow, MESSAGE_COLUMNS, ReadError, column, from_column, optional_text, read_bytes, read_expiry,
    read_message, read_qos,
};

/// Things that go to a shard at a time.
const PIECE: usize = 256;
/// Pieces that wait for a shard.
pub const PIECES: usize = 4;

/// The way to one shard.
pub type RestoreSender = mpsc::Sender<Vec<Restored>>;

/// What was given to shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredCount {
    /// Records of all kinds.
    pub records: u64,
    /// Clients with a queue.
    pub queues: u64,
    /// Messages in them that were not written.
    pub queued: u64,
    /// Those that were written and are not done.
    pub in_flight: u64,
    /// Retained messages.
    pub retained: u64,
    /// Rows that could not be read, and were left where they are.
    pub unreadable: u64,
}

/// Gives everything that hasn't expired at `now` to the shards at the other ends of `shards`. One that has ended gets nothing.
pub fn restore(
    connection: &Connection,
    now: WallTime,
    shards: Vec<RestoreSender>,
) -> Result<RestoredCount, ReadError> {
    let pieces = shards.into_iter().map(|sender| (sender, Vec::new())).collect();
    let mut feed = Feed { shards: pieces, count: RestoredCount::default() };
    for kind in RecordKind::ALL {
        records(connection, kind, now, &mut feed)?;
    }
    queues(connection, &mut feed)?;
    retained(connection, now, &mut feed)?;
    let highest: Option<i64> =
        connection.query_row("SELECT max(number) FROM message", [], |row| row.get(0))?;
    let next_message = highest.map_or(0, |number| MessageNumber(from_column(number)).count() + 1);
    feed.end(next_message);
    Ok(feed.count)
}

struct Feed {
    shards: Vec<(RestoreSender, Vec<Restored>)>,
    count: RestoredCount,
}

impl Feed {
    fn give(&mut self, client: &str, restored: Restored) {
        let shard = owner(client, self.shards.len() as ShardIndex);
        self.give_to(usize::from(shard), restored);
    }

    fn give_to(&mut self, shard: usize, restored: Restored) {
        let Some((sender, piece)) = self.shards.get_mut(shard) else { return };
        piece.push(restored);
        if piece.len() >= PIECE {
            // An error says that the shard has ended, and with it the start.
            let _ = sender.blocking_send(std::mem::replace(piece, Vec::with_capacity(PIECE)));
        }
    }

    fn end(&mut self, next_message: u64) {
        for (sender, piece) in &mut self.shards {
            piece.push(Restored::End { next_message });
            let _ = sender.blocking_send(std::mem::take(piece));
        }
    }

    /// Counts and logs a row that can't be read; what SQLite itself could not read is an error.
    fn pass_over(&mut self, error: ReadError) -> Result<(), ReadError> {
        match error {
            ReadError::Sqlite(error) => Err(ReadError::Sqlite(error)),
            fault @ (ReadError::Row(_) | ReadError::Value(_)) => {
                self.count.unreadable += 1;
                tracing::error!(%fault, "left as it is, and not served; `bugle store verify` says more");
                Ok(())
            }
        }
    }
}

fn records(
    connection: &Connection,
    kind: RecordKind,
    now: WallTime,
    feed: &mut Feed,
) -> Result<(), ReadError> {
    let sql = "SELECT owner, key, value, expires_ms FROM record \
               WHERE kind = ?1 AND (expires_ms IS NULL OR expires_ms > ?2)";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query((kind.as_str(), column(now.0)))?;
    let mut last = Arc::<str>::from("");
    while let Some(row) = rows.next()? {
        match read_record(row, kind, &mut last) {
            Ok(record) => {
                feed.count.records += 1;
                feed.give(&last, record);
            }
            Err(error) => feed.pass_over(error)?,
        }
    }
    Ok(())
}

/// `owner` is the one of the record before, and then of this.
fn read_record(row: &Row<'_>, kind: RecordKind, owner: &mut Arc<str>) -> Result<Restored, ReadError> {
    let text = |at, column| optional_text(row, at)?.ok_or(ReadError::Row(BadRow { table: "record", column }));
    let name = text(0, "owner")?;
    let (key, value) = (text(1, "key")?.into(), text(2, "value")?.to_owned());
    let expires = read_expiry(row, 3)?;
    if **owner != *name {
        *owner = name.into();
    }
    Ok(Restored::Record { kind, owner: owner.clone(), key, value, expires })
}

fn queues(connection: &Connection, feed: &mut Feed) -> Result<(), ReadError> {
    // In the order in which the table lies: one pass. Only messages in flight are looked up.
    let sql = "SELECT client, sequence, bytes, expires_ms, packet_id IS NOT NULL, entry FROM queue ORDER BY client, sequence";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut current: Option<(i64, Option<Identity>)> = None;
    let (mut queues, mut queued) = (0, 0);
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        if current.as_ref().is_none_or(|(known, _)| *known != number) {
            let name = match client_name(connection, number) {
                Ok(name) => Some(name),
                Err(error) => {
                    feed.pass_over(error)?;
                    None
                }
            };
            queues += 1;
            current = Some((number, name));
        }
        let Some((_, Some(client))) = &current else { continue };
        let sequence = Sequence(from_column(row.get(1)?));
        if row.get(4)? {
            in_flight(connection, number, client, sequence, feed)?;
            continue;
        }
        let read = || {
            Ok(Restored::Queued {
                client: client.clone(),
                sequence,
                bytes: from_column(row.get(2)?) as usize,
                expires: read_expiry(row, 3)?,
                entry: optional_text(row, 5)?.unwrap_or_default().to_owned(),
            })
        };
        match read() {
            Ok(queued_message) => {
                queued += 1;
                feed.give(client.as_str(), queued_message);
            }
            Err(error) => feed.pass_over(error)?,
        }
    }
    feed.count.queues += queues;
    feed.count.queued += queued;
    Ok(())
}

fn client_name(connection: &Connection, number: i64) -> Result<Identity, ReadError> {
    let bad = || BadRow { table: "queue", column: "client" };
    let mut statement = connection.prepare_cached("SELECT name FROM client WHERE id = ?1")?;
    let mut rows = statement.query([number])?;
    let row = rows.next()?.ok_or_else(bad)?;
    Ok(Identity::new(optional_text(row, 0)?.ok_or_else(bad)?))
}

fn in_flight(
    connection: &Connection,
    number: i64,
    client: &Identity,
    sequence: Sequence,
    feed: &mut Feed,
) -> Result<(), ReadError> {
    let sql = format!(
        "SELECT {QUEUED_COLUMNS}, {MESSAGE_COLUMNS} FROM queue q JOIN message m ON m.number = q.message \
         WHERE q.client = ?1 AND q.sequence = ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((number, column(sequence.0)))?;
    let read = match rows.next()? {
        Some(row) => read_queued(row),
        None => Err(BadRow { table: "queue", column: "message" }.into()),
    };
    match read {
        Ok(message) => {
            feed.count.in_flight += 1;
            feed.give(client.as_str(), Restored::InFlight { client: client.clone(), message });
            Ok(())
        }
        Err(error) => feed.pass_over(error),
    }
}

/// Columns of a place `q` of a queue, which those of its message follow.
pub const QUEUED_COLUMNS: &str = "q.sequence, q.message, q.entry, q.packet_id, q.released, q.expires_ms";

/// The message in [`QUEUED_COLUMNS`] and [`MESSAGE_COLUMNS`].
pub fn read_queued(row: &Row<'_>) -> Result<QueuedMessage, ReadError> {
    Ok(QueuedMessage {
        sequence: Sequence(from_column(row.get(0)?)),
        number: MessageNumber(from_column(row.get(1)?)),
        entry: optional_text(row, 2)?.unwrap_or_default().to_owned(),
        stage: Stage {
            packet_id: row.get::<_, Option<u16>>(3)?.and_then(NonZeroU16::new),
            released: row.get(4)?,
        },
        expires: read_expiry(row, 5)?,
        message: read_message(row, 6)?,
    })
}

fn retained(connection: &Connection, now: WallTime, feed: &mut Feed) -> Result<(), ReadError> {
    let sql = "SELECT topic, version, version_shard, qos, publisher, expires_ms, properties, payload FROM retained \
               WHERE expires_ms IS NULL OR expires_ms > ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([column(now.0)])?;
    while let Some(row) = rows.next()? {
        let restored = match read_retained(row) {
            Ok(restored) => restored,
            Err(error) => {
                feed.pass_over(error)?;
                continue;
            }
        };
        feed.count.retained += 1;
        for shard in 0..feed.shards.len() {
            feed.give_to(shard, restored.clone());
        }
    }
    Ok(())
}

fn read_retained(row: &Row<'_>) -> Result<Restored, ReadError> {
    let bad = |column| BadRow { table: "retained", column };
    let topic = optional_text(row, 0)?.ok_or(bad("topic"))?;
    let version = RetainedVersion {
        number: from_column(row.get(1)?),
        shard: u16::try_from(row.get::<_, i64>(2)?).map_err(|_| bad("version_shard"))?,
    };
    let publisher = Identity::new(optional_text(row, 4)?.ok_or(bad("publisher"))?);
    let message = Message {
        origin: Origin::Topic { topic: topic.into(), publisher, retain: true },
        qos: read_qos(row, 3).map_err(|_| bad("qos"))?,
        properties: read_bytes(row, 6)?,
        payload: read_bytes(row, 7)?,
        deadline: None,
        urgent: false,
    };
    Ok(Restored::Retained { version, message: Arc::new(message), expires: read_expiry(row, 5)? })
}

#[cfg(test)]
mod tests {
    use super::super::schema::{STEPS, migrate};
    use super::*;

    #[test]
    fn a_row_with_a_value_of_another_kind_kept_the_gateway_from_starting() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, STEPS).unwrap();
        let rows = "
            INSERT INTO client VALUES (1, 'lamp'), (2, CAST(x'FF' AS TEXT));
            INSERT INTO record VALUES ('session', 'lamp', CAST(x'FFFE' AS TEXT), '{}', NULL);
            INSERT INTO record VALUES ('session', 'lamp', '', '{}', NULL);
            INSERT INTO message VALUES (1024, 3, 1, 0, 0, NULL, 'desk', 'home/a', NULL, NULL, NULL, x'', x'');
            INSERT INTO queue VALUES (1, 1, 1024, 0, NULL, 70000, 0, '{}');
            INSERT INTO queue VALUES (1, 2, 1024, 0, NULL, NULL, 0, CAST(x'FF' AS TEXT));
            INSERT INTO queue VALUES (1, 3, 1024, 0, NULL, NULL, 0, '{}');
            INSERT INTO queue VALUES (2, 1, 1024, 0, NULL, NULL, 0, '{}');
            INSERT INTO retained VALUES ('home/a', 1, 0, 7, 'desk', NULL, x'', x'');
        ";
        connection.execute_batch(rows).unwrap();
        let (sender, mut receiver) = mpsc::channel(PIECES);
        let count = restore(&connection, WallTime(0), vec![sender]).unwrap();
        let expected =
            RestoredCount { records: 1, queues: 2, queued: 1, in_flight: 0, retained: 0, unreadable: 5 };
        assert_eq!(count, expected);
        let given = receiver.try_recv().unwrap();
        assert!(
            matches!(
                &given[..],
                [Restored::Record { .. }, Restored::Queued { .. }, Restored::End { next_message: 2 }]
            ),
            "{given:?}"
        );
    }
}
