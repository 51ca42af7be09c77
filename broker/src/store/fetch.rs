//! Reads a client's queue as it stands after all operations that were taken, committed or not.

use std::ops::Bound;

use bugle_core::model::Identity;
use bugle_core::store::{MessageNumber, QueuedMessage, Sequence};
use rusqlite::Connection;

use super::apply::ClientNumbers;
use super::pending::{Pending, QueueChange};
use super::restore::{QUEUED_COLUMNS, read_queued};
use super::rows::{MESSAGE_COLUMNS, ReadError, column, content_bytes, read_expiry, read_message};

/// How much is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// What comes after this place.
    pub after: Sequence,
    /// At most so many messages.
    pub messages: usize,
    /// As long as their contents have no more bytes, but at least one message.
    pub bytes: usize,
}

/// The messages, in order, and whether there are more.
pub fn fetch(
    connection: &Connection,
    pending: &Pending,
    clients: &mut ClientNumbers,
    client: &Identity,
    window: Window,
) -> Result<(Vec<QueuedMessage>, bool), ReadError> {
    let changes = pending.client_changes(client);
    let mut taken = Taken { window, messages: Vec::new(), bytes: 0 };
    if let Some(number) = clients.find(connection, client)? {
        let sql = format!(
            "SELECT {QUEUED_COLUMNS}, {MESSAGE_COLUMNS} FROM queue q JOIN message m ON m.number = q.message \
             WHERE q.client = ?1 AND q.sequence > ?2 ORDER BY q.sequence"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((number, column(window.after.0)))?;
        while let Some(row) = rows.next()? {
            let mut message = match read_queued(row) {
                Ok(message) => message,
                Err(error @ ReadError::Sqlite(_)) => return Err(error),
                Err(fault) => {
                    tracing::error!(%client, %fault, "left as it is, and not delivered; `bugle store verify` says more");
                    continue;
                }
            };
            match changes.and_then(|changes| changes.queue.get(&message.sequence)) {
                Some(QueueChange::Remove) => continue,
                Some(QueueChange::Stage(stage) | QueueChange::Add { stage, .. }) => message.stage = *stage,
                None => {}
            }
            if !taken.take(message) {
                return Ok((taken.messages, true));
            }
        }
    }
    // Places rise: what is new comes after what is committed. A commit that failed and was made all the same must not show twice.
    let last = taken.messages.last().map_or(window.after, |message| message.sequence);
    let after = (Bound::Excluded(last), Bound::Unbounded);
    for (sequence, change) in changes.into_iter().flat_map(|changes| changes.queue.range(after)) {
        let QueueChange::Add { message: number, entry, stage } = change else { continue };
        let (message, expires) = match pending.message(*number) {
            Some(new) => (new.message.clone(), new.expires),
            None => match committed_message(connection, *number)? {
                Some(found) => found,
                None => continue,
            },
        };
        let (sequence, number, entry, stage) = (*sequence, *number, entry.clone(), *stage);
        if !taken.take(QueuedMessage { sequence, number, message, expires, entry, stage }) {
            return Ok((taken.messages, true));
        }
    }
    Ok((taken.messages, false))
}

type Found = (std::sync::Arc<bugle_core::model::Message>, Option<bugle_core::store::WallTime>);

fn committed_message(connection: &Connection, number: MessageNumber) -> Result<Option<Found>, ReadError> {
    let sql = format!("SELECT m.expires_ms, {MESSAGE_COLUMNS} FROM message m WHERE m.number = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([column(number.0)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    // A message in memory has no deadline of its own.
    Ok(Some((read_message(row, 1)?, read_expiry(row, 0)?)))
}

struct Taken {
    window: Window,
    messages: Vec<QueuedMessage>,
    bytes: usize,
}

impl Taken {
    /// Whether it fits.
    fn take(&mut self, mut message: QueuedMessage) -> bool {
        let bytes = self.bytes + content_bytes(&message.message);
        let is_full = self.messages.len() >= self.window.messages || bytes > self.window.bytes;
        if is_full && (self.window.messages == 0 || !self.messages.is_empty()) {
            return false;
        }
        self.bytes = bytes;
        if message.message.deadline.is_some() {
            std::sync::Arc::make_mut(&mut message.message).deadline = None;
        }
        self.messages.push(message);
        true
    }
}
