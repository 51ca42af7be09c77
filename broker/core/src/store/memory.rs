//! A store in memory, for tests and simulators: it does what the contract says, when it is told to, and what it wasn't
//! told to do before the gateway crashes is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    MessageNumber, QueuedMessage, RecordKind, Restored, Sequence, Stage, StoreBatch, StoreEvent,
    StoreOperation, WallTime,
};
use crate::backbone::{RetainedVersion, ShardIndex, owner};
use crate::model::{Identity, Map, Message};

type RecordPlace = (RecordKind, Arc<str>, Arc<str>);

/// What is kept.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<RecordPlace, (String, Option<WallTime>)>,
    queues: BTreeMap<String, BTreeMap<Sequence, Queued>>,
    messages: Map<MessageNumber, Kept>,
    retained: BTreeMap<Arc<str>, (RetainedVersion, Option<Kept>)>,
    next_message: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    message: Arc<Message>,
    expires: Option<WallTime>,
    waiting: usize,
}

#[derive(Clone, Debug)]
struct Queued {
    number: MessageNumber,
    entry: String,
    stage: Stage,
}

impl MemoryStore {
    /// Commits a batch; gives what its shard is to hear of it.
    pub fn commit(&mut self, batch: StoreBatch) -> Vec<StoreEvent> {
        let mut events = Vec::new();
        for operation in batch.operations {
            self.apply(operation, &mut events);
        }
        self.messages.retain(|_, kept| kept.waiting > 0);
        events.push(StoreEvent::Committed(batch.number));
        events
    }

    /// How many messages wait in queues.
    pub fn queued(&self) -> usize {
        self.queues.values().map(BTreeMap::len).sum()
    }

    /// How many records of a kind there are.
    pub fn records(&self, kind: RecordKind) -> usize {
        self.records.keys().filter(|(of, ..)| *of == kind).count()
    }

    /// What the shard with this number gets when the gateway starts at that moment.
    pub fn restore(&self, shard: ShardIndex, shards: u16, now: WallTime) -> Vec<Restored> {
        let is_own = |client: &str| owner(client, shards) == shard;
        let mut restored = Vec::new();
        for ((kind, owner, key), (value, expires)) in &self.records {
            if is_own(owner) && expires.is_none_or(|expires| expires > now) {
                let (owner, key, value) = (owner.clone(), key.clone(), value.clone());
                restored.push(Restored::Record { kind: *kind, owner, key, value, expires: *expires });
            }
        }
        for (client, queue) in self.queues.iter().filter(|(client, _)| is_own(client)) {
            let client = Identity::new(client);
            for (&sequence, queued) in queue {
                let Some(message) = self.queued_message(sequence, queued) else { continue };
                restored.push(if queued.stage.packet_id.is_some() {
                    Restored::InFlight { client: client.clone(), message }
                } else {
                    let bytes = message.message.payload.len() + message.message.properties.len();
                    let QueuedMessage { expires, entry, .. } = message;
                    Restored::Queued { client: client.clone(), sequence, bytes, expires, entry }
                });
            }
        }
        for (version, kept) in self.retained.values() {
            if let Some(Kept { message, expires, .. }) = kept
                && expires.is_none_or(|expires| expires > now)
            {
                let (version, message, expires) = (*version, message.clone(), *expires);
                restored.push(Restored::Retained { version, message, expires });
            }
        }
        restored.push(Restored::End { next_message: self.next_message });
        restored
    }

    fn queued_message(&self, sequence: Sequence, queued: &Queued) -> Option<QueuedMessage> {
        let kept = self.messages.get(&queued.number)?;
        let message = Arc::new(Message { deadline: None, ..Message::clone(&kept.message) });
        let Queued { number, entry, stage } = queued.clone();
        Some(QueuedMessage { sequence, number, message, expires: kept.expires, entry, stage })
    }

    fn apply(&mut self, operation: StoreOperation, events: &mut Vec<StoreEvent>) {
        match operation {
            StoreOperation::PutRecord { kind, owner, key, value, expires } => {
                self.records.insert((kind, owner, key), (value, expires));
            }
            StoreOperation::RemoveRecord { kind, owner, key } => {
                self.records.remove(&(kind, owner, key));
            }
            StoreOperation::EndSession { client } => {
                self.records
                    .retain(|(kind, owner, _), _| !(kind.ends_with_session() && **owner == *client.as_str()));
            }
            StoreOperation::PutMessage { number, message, expires } => {
                self.next_message = self.next_message.max(number.count() + 1);
                self.messages.insert(number, Kept { message, expires, waiting: 0 });
            }
            StoreOperation::Enqueue { client, sequence, message, entry } => {
                let queued = Queued { number: message, entry, stage: Stage::default() };
                let queue = self.queues.entry(client.as_str().to_owned()).or_default();
                if queue.insert(sequence, queued).is_none()
                    && let Some(kept) = self.messages.get_mut(&message)
                {
                    kept.waiting += 1;
                }
            }
            StoreOperation::SetStage { client, sequence, stage } => {
                let queue = self.queues.get_mut(client.as_str());
                if let Some(queued) = queue.and_then(|queue| queue.get_mut(&sequence)) {
                    queued.stage = stage;
                }
            }
            StoreOperation::Dequeue { client, sequence } => {
                let Some(queue) = self.queues.get_mut(client.as_str()) else { return };
                if let Some(Queued { number, .. }) = queue.remove(&sequence)
                    && let Some(kept) = self.messages.get_mut(&number)
                {
                    kept.waiting -= 1;
                }
                if queue.is_empty() {
                    self.queues.remove(client.as_str());
                }
            }
            StoreOperation::PutRetained { topic, version, message, expires } => {
                self.retain(topic, version, Some(Kept { message, expires, waiting: 0 }));
            }
            StoreOperation::RemoveRetained { topic, version } => self.retain(topic, version, None),
            StoreOperation::Fetch { client, after, messages, bytes } => {
                let (found, more) = self.fetch(&client, after, messages, bytes);
                events.push(StoreEvent::Fetched { client, messages: found, more });
            }
        }
    }

    fn retain(&mut self, topic: Arc<str>, version: RetainedVersion, kept: Option<Kept>) {
        if self.retained.get(&topic).is_none_or(|(old, _)| *old < version) {
            self.retained.insert(topic, (version, kept));
        }
    }

    fn fetch(
        &self,
        client: &Identity,
        after: Sequence,
        messages: usize,
        bytes: usize,
    ) -> (Vec<QueuedMessage>, bool) {
        let mut found: Vec<QueuedMessage> = Vec::new();
        let mut room = bytes;
        for (&sequence, queued) in self.queues.get(client.as_str()).into_iter().flatten() {
            if sequence <= after {
                continue;
            }
            let Some(message) = self.queued_message(sequence, queued) else { continue };
            let size = message.message.payload.len() + message.message.properties.len();
            if found.len() >= messages || (!found.is_empty() && size > room) {
                return (found, true);
            }
            room = room.saturating_sub(size);
            found.push(message);
        }
        (found, false)
    }
}
