//! What lasts: messages kept for recipients that are offline (S10).
//!
//! [`Store`] is what the hub needs. Writes are asked for and confirmed later, so that no shard waits for a
//! disk: an acknowledgement that promises durability is sent at the commit. [`MemoryStore`] commits at once
//! and forgets with the process.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{ClientId, Map, Message};

/// The number of a write, in the order asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A recipient's queue is at its bound: OVERFLOW for the new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// What the hub needs of a durable store.
pub trait Store {
    /// Asks to keep `message` for `recipient`. Not kept before [`poll_commit`](Self::poll_commit) reaches the
    /// returned number.
    fn enqueue(&mut self, recipient: &ClientId, message: Arc<Message>) -> Result<WriteId, QueueFull>;

    /// The newest write that is committed, once for each change of it.
    fn poll_commit(&mut self) -> Option<WriteId>;

    /// The oldest message kept for `recipient`, taken out.
    fn dequeue(&mut self, recipient: &ClientId) -> Option<Arc<Message>>;
}

/// A store that lasts as long as the process.
#[derive(Debug)]
pub struct MemoryStore {
    messages: usize,
    bytes: usize,
    queues: Map<ClientId, VecDeque<Arc<Message>>>,
    written: u64,
    reported: u64,
}

impl MemoryStore {
    /// An empty store with these bounds per recipient: 100 messages and 1 MiB unless configured (S10).
    pub fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes, queues: Map::default(), written: 0, reported: 0 }
    }
}

impl Store for MemoryStore {
    fn enqueue(&mut self, recipient: &ClientId, message: Arc<Message>) -> Result<WriteId, QueueFull> {
        let queue = self.queues.entry(recipient.clone()).or_default();
        let bytes: usize = queue.iter().map(|message| message.payload.len()).sum();
        if queue.len() >= self.messages || bytes + message.payload.len() > self.bytes {
            return Err(QueueFull);
        }
        queue.push_back(message);
        self.written += 1;
        Ok(WriteId(self.written))
    }

    fn poll_commit(&mut self) -> Option<WriteId> {
        (self.reported < self.written).then(|| {
            self.reported = self.written;
            WriteId(self.written)
        })
    }

    fn dequeue(&mut self, recipient: &ClientId) -> Option<Arc<Message>> {
        let queue = self.queues.get_mut(recipient)?;
        let message = queue.pop_front();
        if queue.is_empty() {
            self.queues.swap_remove(recipient);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Identity, Origin, QoS};

    fn message(payload: &'static [u8]) -> Arc<Message> {
        let origin = Origin::Topic { topic: "t".into(), publisher: Identity::new("p"), retain: false };
        let (payload, properties) = (Bytes::from_static(payload), Bytes::new());
        Arc::new(Message {
            origin,
            payload,
            properties,
            qos: QoS::AtLeastOnce,
            deadline: None,
            urgent: false,
        })
    }

    #[test]
    fn s10_a_queue_is_fifo_and_bounded_in_messages_and_bytes() {
        let lamp = ClientId::new("lamp-1").unwrap();
        let mut store = MemoryStore::new(2, 10);
        assert_eq!(store.enqueue(&lamp, message(b"12345")), Ok(WriteId(1)));
        assert_eq!(store.enqueue(&lamp, message(b"123456")), Err(QueueFull), "bytes");
        assert_eq!(store.enqueue(&lamp, message(b"1")), Ok(WriteId(2)));
        assert_eq!(store.enqueue(&lamp, message(b"")), Err(QueueFull), "messages");
        assert_eq!((store.poll_commit(), store.poll_commit()), (Some(WriteId(2)), None));
        assert_eq!(store.dequeue(&lamp).unwrap().payload, b"12345".as_slice());
        assert_eq!(store.dequeue(&lamp).unwrap().payload, b"1".as_slice());
        assert!(store.dequeue(&lamp).is_none());
    }
}
