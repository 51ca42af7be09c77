//! How a message stands in a row, and a number that SQLite has no type for.

use std::sync::Arc;

use bugle_core::model::{ClientId, GroupName, Identity, Message, Mode, Origin, QoS};
use bugle_core::store::WallTime;
use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;

/// Columns of `message m` that [`read_message`] takes, in this order.
pub const MESSAGE_COLUMNS: &str =
    "m.qos, m.retain, m.urgent, m.mode, m.sender, m.topic, m.to_group, m.to_client, m.properties, m.payload";

/// A row that isn't as this program writes them.
#[derive(Debug, thiserror::Error)]
#[error("a row of table {table} has no valid {column}")]
pub struct BadRow {
    /// Where.
    pub table: &'static str,
    /// What.
    pub column: &'static str,
}

/// Why a row was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite's reason.
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    /// It was read and isn't valid.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// It was read, and a value in it isn't of its column's kind: a text that is no UTF-8, a number out of its range.
    #[error("a value in a row isn't valid: {0}")]
    Value(rusqlite::Error),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        match error {
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..) => Self::Value(error),
            error => Self::Sqlite(error),
        }
    }
}

/// The columns of a message's origin.
pub struct OriginColumns<'a> {
    /// How it was addressed; none for a plain topic.
    pub mode: Option<&'static str>,
    /// Who sent or published it.
    pub sender: &'a str,
    /// The plain topic.
    pub topic: Option<&'a str>,
    /// The group of a signal.
    pub group: Option<&'a str>,
    /// The client of a signal.
    pub client: Option<&'a str>,
    /// RETAIN as published.
    pub retain: bool,
}

impl<'a> From<&'a Origin> for OriginColumns<'a> {
    fn from(origin: &'a Origin) -> Self {
        match origin {
            Origin::Signal { sender, group, client, mode } => Self {
                mode: Some(mode.key()),
                sender: sender.as_str(),
                topic: None,
                group: group.as_ref().map(GroupName::as_str),
                client: client.as_ref().map(ClientId::as_str),
                retain: false,
            },
            Origin::Topic { topic, publisher, retain } => Self {
                mode: None,
                sender: publisher.as_str(),
                topic: Some(topic),
                group: None,
                client: None,
                retain: *retain,
            },
        }
    }
}

/// Bytes of payload and properties.
pub fn content_bytes(message: &Message) -> usize {
    message.payload.len() + message.properties.len()
}

/// The message in columns [`MESSAGE_COLUMNS`] from `at` on.
pub fn read_message(row: &Row<'_>, at: usize) -> Result<Arc<Message>, ReadError> {
    let bad = |column| BadRow { table: "message", column };
    let text = |index: usize, column| optional_text(row, at + index).map_err(|_| bad(column));
    let sender = text(4, "sender")?.ok_or(bad("sender"))?;
    let origin = match (text(3, "mode")?, text(5, "topic")?) {
        (None, Some(topic)) => {
            Origin::Topic { topic: topic.into(), publisher: Identity::new(sender), retain: row.get(at + 1)? }
        }
        (Some(mode), None) => {
            let group = text(6, "to_group")?.map(|name| GroupName::new(name).ok_or(bad("to_group")));
            let client = text(7, "to_client")?.map(|name| ClientId::new(name).ok_or(bad("to_client")));
            Origin::Signal {
                sender: ClientId::new(sender).ok_or(bad("sender"))?,
                group: group.transpose()?,
                client: client.transpose()?,
                mode: read_mode(mode).ok_or(bad("mode"))?,
            }
        }
        _ => return Err(bad("topic or mode").into()),
    };
    Ok(Arc::new(Message {
        origin,
        payload: read_bytes(row, at + 9)?,
        properties: read_bytes(row, at + 8)?,
        qos: read_qos(row, at).map_err(|_| bad("qos"))?,
        deadline: None,
        urgent: row.get(at + 2)?,
    }))
}

/// A text, or NULL.
pub fn optional_text<'r>(row: &'r Row<'_>, at: usize) -> rusqlite::Result<Option<&'r str>> {
    Ok(row.get_ref(at)?.as_str_or_null()?)
}

/// A blob.
pub fn read_bytes(row: &Row<'_>, at: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(at)?.as_blob()?))
}

/// A QoS; an error where the number has none.
pub fn read_qos(row: &Row<'_>, at: usize) -> rusqlite::Result<QoS> {
    let number: i64 = row.get(at)?;
    let qos = u8::try_from(number).ok().and_then(QoS::from_u8);
    qos.ok_or(rusqlite::Error::IntegralValueOutOfRange(at, number))
}

/// A moment, or NULL.
pub fn read_expiry(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<WallTime>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(number) => Some(WallTime(from_column(number))),
        _ => None,
    })
}

/// A moment as a column has it.
pub fn expiry_column(expires: Option<WallTime>) -> Option<i64> {
    expires.map(|WallTime(moment)| column(moment))
}

/// A count as a column has it. All that we have stay below 2^63: counters, and times of this era.
pub fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What [`column`] made; a negative number was not made by it.
pub fn from_column(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn read_mode(name: &str) -> Option<Mode> {
    [Mode::One, Mode::All, Mode::Only, Mode::Except].into_iter().find(|mode| mode.key() == name)
}
