//! Writes pending changes. The caller holds the transaction: all of them are committed, or none.

use std::num::NonZeroU16;

use bugle_core::model::{Identity, Map};
use bugle_core::store::{MessageNumber, RecordKind, Sequence, Stage};
use rusqlite::{Connection, OptionalExtension, params};

use super::pending::{ClientChanges, NewMessage, Pending, QueueChange, RecordValue, RetainedChange};
use super::rows::{OriginColumns, column, content_bytes, expiry_column, from_column};

/// Clients whose numbers are remembered; beyond, all are forgotten and looked up again.
const MAX_CLIENTS: usize = 65_536;

/// The numbers that stand for clients in queues, as far as they are remembered. To be forgotten when a transaction fails:
/// some may have been its own.
#[derive(Debug, Default)]
pub struct ClientNumbers(Map<Identity, i64>);

impl ClientNumbers {
    /// Forgets them all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The number of a client, if it has one.
    pub fn find(&mut self, connection: &Connection, client: &Identity) -> rusqlite::Result<Option<i64>> {
        if let Some(number) = self.0.get(client) {
            return Ok(Some(*number));
        }
        let mut statement = connection.prepare_cached("SELECT id FROM client WHERE name = ?1")?;
        let number = statement.query_row([client.as_str()], |row| row.get(0)).optional()?;
        if let Some(number) = number {
            self.remember(client, number);
        }
        Ok(number)
    }

    fn find_or_add(&mut self, connection: &Connection, client: &Identity) -> rusqlite::Result<i64> {
        if let Some(number) = self.find(connection, client)? {
            return Ok(number);
        }
        connection.prepare_cached("INSERT INTO client (name) VALUES (?1)")?.execute([client.as_str()])?;
        let number = connection.last_insert_rowid();
        self.remember(client, number);
        Ok(number)
    }

    /// Takes the name of a client out that has nothing queued.
    fn forget_idle(&mut self, connection: &Connection, client: &Identity) -> rusqlite::Result<()> {
        self.0.swap_remove(client);
        let sql = "DELETE FROM client WHERE name = ?1 AND id NOT IN (SELECT q.client FROM queue q WHERE q.client = client.id)";
        connection.prepare_cached(sql)?.execute([client.as_str()])?;
        Ok(())
    }

    fn remember(&mut self, client: &Identity, number: i64) {
        if self.0.len() >= MAX_CLIENTS {
            self.0.clear();
        }
        self.0.insert(client.clone(), number);
    }
}

/// Writes all of `pending`. The number of places that could not be queued: their message isn't there, or the place is
/// taken, either of which only a mistake of the hub's can bring about.
pub fn apply(
    connection: &Connection,
    pending: &Pending,
    clients: &mut ClientNumbers,
) -> rusqlite::Result<u64> {
    let mut writer =
        Writer { connection, pending, added: Map::default(), waiting: Map::default(), refused: 0 };
    for (client, changes) in pending.clients() {
        writer.write_client(client, changes, clients)?;
    }
    writer.write_messages()?;
    for (topic, change) in pending.retained() {
        write_retained(connection, topic, change)?;
    }
    Ok(writer.refused)
}

struct Writer<'a> {
    connection: &'a Connection,
    pending: &'a Pending,
    /// Places that have a new message.
    added: Map<MessageNumber, i64>,
    /// By how many more places a committed message is waited for.
    waiting: Map<MessageNumber, i64>,
    refused: u64,
}

impl Writer<'_> {
    fn write_client(
        &mut self,
        client: &Identity,
        changes: &ClientChanges,
        clients: &mut ClientNumbers,
    ) -> rusqlite::Result<()> {
        let mut number = clients.find(self.connection, client)?;
        if changes.ended {
            for kind in RecordKind::ALL.into_iter().filter(|kind| kind.ends_with_session()) {
                let mut delete =
                    self.connection.prepare_cached("DELETE FROM record WHERE kind = ?1 AND owner = ?2")?;
                delete.execute((kind.as_str(), client.as_str()))?;
            }
        }
        for ((kind, key), record) in &changes.records {
            write_record(self.connection, *kind, client.as_str(), key, record.as_ref())?;
        }
        for (sequence, change) in &changes.queue {
            match (change, number) {
                (QueueChange::Add { message, entry, stage }, _) => {
                    let client = match number {
                        Some(client) => client,
                        None => *number.insert(clients.find_or_add(self.connection, client)?),
                    };
                    self.add(client, *sequence, *message, entry, *stage)?;
                }
                (QueueChange::Stage(stage), Some(client)) => {
                    let sql =
                        "UPDATE queue SET packet_id = ?3, released = ?4 WHERE client = ?1 AND sequence = ?2";
                    let packet_id = stage.packet_id.map(NonZeroU16::get);
                    let mut update = self.connection.prepare_cached(sql)?;
                    update.execute((client, column(sequence.0), packet_id, stage.released))?;
                }
                (QueueChange::Remove, Some(client)) => {
                    let sql = "DELETE FROM queue WHERE client = ?1 AND sequence = ?2 RETURNING message";
                    let mut delete = self.connection.prepare_cached(sql)?;
                    let message: Option<i64> =
                        delete.query_row((client, column(sequence.0)), |row| row.get(0)).optional()?;
                    if let Some(message) = message {
                        *self.waiting.entry(MessageNumber(from_column(message))).or_default() -= 1;
                    }
                }
                // Nothing of that client is queued.
                (QueueChange::Stage(_) | QueueChange::Remove, None) => {}
            }
        }
        if changes.ended {
            // Else names of clients that come once would pile up.
            clients.forget_idle(self.connection, client)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        client: i64,
        sequence: Sequence,
        message: MessageNumber,
        entry: &str,
        stage: Stage,
    ) -> rusqlite::Result<()> {
        let packet_id = stage.packet_id.map(NonZeroU16::get);
        let (place, number) = (column(sequence.0), column(message.0));
        let is_new = self.pending.message(message);
        let written = match is_new {
            Some(new) => {
                let sql = "INSERT INTO queue (client, sequence, message, bytes, expires_ms, packet_id, released, entry) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
                let bytes = column(content_bytes(&new.message) as u64);
                let expires = expiry_column(new.expires);
                let values = params![client, place, number, bytes, expires, packet_id, stage.released, entry];
                self.connection.prepare_cached(sql)?.execute(values)?
            }
            None => {
                let sql = "INSERT INTO queue (client, sequence, message, bytes, expires_ms, packet_id, released, entry) \
                           SELECT ?1, ?2, number, length(payload) + length(properties), expires_ms, ?4, ?5, ?6 \
                           FROM message WHERE number = ?3 ON CONFLICT DO NOTHING";
                let values = params![client, place, number, packet_id, stage.released, entry];
                self.connection.prepare_cached(sql)?.execute(values)?
            }
        };
        let count = if is_new.is_some() { &mut self.added } else { &mut self.waiting };
        match written {
            0 => self.refused += 1,
            _ => *count.entry(message).or_default() += 1,
        }
        Ok(())
    }

    /// New messages, then what the others are waited for: one that nobody waits for any more goes.
    fn write_messages(&mut self) -> rusqlite::Result<()> {
        for (number, waiting) in &self.added {
            if let Some(new) = self.pending.message(*number) {
                write_message(self.connection, *number, new, *waiting)?;
            }
        }
        for (number, more) in self.waiting.iter().filter(|(_, more)| **more != 0) {
            let number = column(number.0);
            // Mostly the one that waited has it now.
            let gone = *more < 0 && {
                let sql = "DELETE FROM message WHERE number = ?1 AND waiting <= ?2";
                self.connection.prepare_cached(sql)?.execute((number, -more))? > 0
            };
            if !gone {
                let sql = "UPDATE message SET waiting = waiting + ?2 WHERE number = ?1";
                self.connection.prepare_cached(sql)?.execute((number, more))?;
            }
        }
        Ok(())
    }
}

fn write_record(
    connection: &Connection,
    kind: RecordKind,
    owner: &str,
    key: &str,
    record: Option<&RecordValue>,
) -> rusqlite::Result<()> {
    match record {
        Some(RecordValue { value, expires }) => {
            let sql = "INSERT INTO record (kind, owner, key, value, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT DO UPDATE SET value = excluded.value, expires_ms = excluded.expires_ms";
            let values = (kind.as_str(), owner, key, value, expiry_column(*expires));
            connection.prepare_cached(sql)?.execute(values)?;
        }
        None => {
            let sql = "DELETE FROM record WHERE kind = ?1 AND owner = ?2 AND key = ?3";
            connection.prepare_cached(sql)?.execute((kind.as_str(), owner, key))?;
        }
    }
    Ok(())
}

/// A message that is there already is the same one, given again.
fn write_message(
    connection: &Connection,
    number: MessageNumber,
    new: &NewMessage,
    waiting: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO message (number, waiting, qos, retain, urgent, mode, sender, topic, to_group, to_client, \
               expires_ms, properties, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
               ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting";
    let message = &new.message;
    let origin = OriginColumns::from(&message.origin);
    connection.prepare_cached(sql)?.execute(params![
        column(number.0),
        waiting,
        message.qos.as_u8(),
        origin.retain,
        message.urgent,
        origin.mode,
        origin.sender,
        origin.topic,
        origin.group,
        origin.client,
        expiry_column(new.expires),
        &*message.properties,
        &*message.payload,
    ])?;
    Ok(())
}

fn write_retained(connection: &Connection, topic: &str, change: &RetainedChange) -> rusqlite::Result<()> {
    let (version, shard) = (column(change.version.number), change.version.shard);
    match &change.message {
        Some((message, expires)) => {
            let sql = "INSERT INTO retained (topic, version, version_shard, qos, publisher, expires_ms, properties, payload) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (topic) DO UPDATE SET \
                       version = excluded.version, version_shard = excluded.version_shard, qos = excluded.qos, \
                       publisher = excluded.publisher, expires_ms = excluded.expires_ms, \
                       properties = excluded.properties, payload = excluded.payload \
                       WHERE (excluded.version, excluded.version_shard) >= (version, version_shard)";
            let publisher = OriginColumns::from(&message.origin).sender;
            connection.prepare_cached(sql)?.execute(params![
                topic,
                version,
                shard,
                message.qos.as_u8(),
                publisher,
                expiry_column(*expires),
                &*message.properties,
                &*message.payload,
            ])?;
        }
        None => {
            let sql = "DELETE FROM retained WHERE topic = ?1 AND (version, version_shard) <= (?2, ?3)";
            connection.prepare_cached(sql)?.execute((topic, version, shard))?;
        }
    }
    Ok(())
}
