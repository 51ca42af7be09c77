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
            ReadError::Row(fault) => {
                self.count.unreadable += 1;
                tracing::error!(%fault, "left as it is, and not served; `bugle store verify` says more");
                Ok(())
            }
            ReadError::Sqlite(error) => Err(error.into()),
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
    let (mut last, mut records) = (Arc::<str>::from(""), 0);
    while let Some(row) = rows.next()? {
        let text =
            |at, column| optional_text(row, at)?.ok_or(ReadError::Row(BadRow { table: "record", column }));
        let owner = text(0, "owner")?;
        if *last != *owner {
            last = owner.into();
        }
        let (key, value) = (text(1, "key")?.into(), text(2, "value")?.to_owned());
        let expires = read_expiry(row, 3)?;
        feed.give(&last, Restored::Record { kind, owner: last.clone(), key, value, expires });
        records += 1;
    }
    feed.count.records += records;
    Ok(())
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
            let name = client_name(connection, number)?;
            if name.is_none() {
                feed.pass_over(BadRow { table: "queue", column: "client" }.into())?;
            }
            queues += 1;
            current = Some((number, name));
        }
        let Some((_, Some(client))) = &current else { continue };
        let sequence = Sequence(from_column(row.get(1)?));
        if row.get(4)? {
            in_flight(connection, number, client, sequence, feed)?;
            continue;
        }
        let queued_message = Restored::Queued {
            client: client.clone(),
            sequence,
            bytes: from_column(row.get(2)?) as usize,
            expires: read_expiry(row, 3)?,
            entry: optional_text(row, 5)?.unwrap_or_default().to_owned(),
        };
        queued += 1;
        feed.give(client.as_str(), queued_message);
    }
    feed.count.queues += queues;
    feed.count.queued += queued;
    Ok(())
}

fn client_name(connection: &Connection, number: i64) -> Result<Option<Identity>, ReadError> {
    let mut statement = connection.prepare_cached("SELECT name FROM client WHERE id = ?1")?;
    let mut rows = statement.query([number])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(optional_text(row, 0)?.map(Identity::new))
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
