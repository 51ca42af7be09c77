//! Changes that were taken and aren't committed yet, folded together as they come.
//!
//! What one operation makes and a later one takes back never reaches SQLite: a message that its client has acknowledged
//! by the time of the commit costs nothing, and where a queued message stands is written with it. Reads look
//! here first, then at what is committed, so that neither folding nor a full disk shows in an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bugle_core::backbone::{RetainedVersion, ShardIndex};
use bugle_core::model::{Identity, Map, Message};
use bugle_core::store::{BatchNumber, MessageNumber, RecordKind, Sequence, Stage, StoreOperation, WallTime};

use super::rows::content_bytes;

/// About what a change takes in memory besides its texts, in bytes.
const CHANGE: usize = 128;
/// How long it is remembered that a topic was cleared, for an older message of another shard that is still on its way,
/// in milliseconds.
const REMEMBER_CLEARED: u64 = 60_000;
/// Cleared topics that are remembered.
const MAX_CLEARED: usize = 65_536;

/// A record to be written.
#[derive(Clone, Debug)]
pub struct RecordValue {
    /// JSON.
    pub value: String,
    /// After that moment it may be forgotten.
    pub expires: Option<WallTime>,
}

/// What becomes of one place of a queue.
#[derive(Clone, Debug)]
pub enum QueueChange {
    /// It is new.
    Add {
        /// Which message.
        message: MessageNumber,
        /// JSON.
        entry: String,
        /// Where it stands.
        stage: Stage,
    },
    /// It is committed, if it is there at all, and stands elsewhere.
    Stage(Stage),
    /// It is committed, if it is there at all, and goes.
    Remove,
}

/// What becomes of what is one client's.
#[derive(Debug, Default)]
pub struct ClientChanges {
    /// Its session's records, as they are committed, go before all else.
    pub ended: bool,
    /// Records by kind and key; none: removed.
    pub records: Map<(RecordKind, Arc<str>), Option<RecordValue>>,
    /// By place.
    pub queue: BTreeMap<Sequence, QueueChange>,
}

impl ClientChanges {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        !self.ended && self.records.is_empty() && self.queue.is_empty()
    }
}

/// A message that isn't committed.
#[derive(Debug)]
pub struct NewMessage {
    /// The message.
    pub message: Arc<Message>,
    /// Its deadline.
    pub expires: Option<WallTime>,
    /// Places that are new and have it.
    pub waiting: usize,
}

/// What becomes of a topic's retained message.
#[derive(Debug)]
pub struct RetainedChange {
    /// What settles which of two stays.
    pub version: RetainedVersion,
    /// The message and its deadline; none: cleared.
    pub message: Option<(Arc<Message>, Option<WallTime>)>,
}

/// All of it.
#[derive(Debug)]
pub struct Pending {
    clients: Map<Identity, ClientChanges>,
    messages: Map<MessageNumber, NewMessage>,
    retained: Map<Arc<str>, RetainedChange>,
    cleared: Map<Arc<str>, RetainedVersion>,
    cleared_at: VecDeque<(WallTime, Arc<str>, RetainedVersion)>,
    /// Messages that may turn out to be waited for by nobody when the batch that is being taken is whole.
    unsettled: Vec<MessageNumber>,
    /// The last batch taken of each shard since the last commit.
    last: Vec<Option<BatchNumber>>,
    bytes: usize,
    operations: u64,
}

impl Pending {
    /// None, from so many shards.
    pub fn new(shards: u16) -> Self {
        Self {
            clients: Map::default(),
            messages: Map::default(),
            retained: Map::default(),
            cleared: Map::default(),
            cleared_at: VecDeque::new(),
            unsettled: Vec::new(),
            last: vec![None; usize::from(shards)],
            bytes: 0,
            operations: 0,
        }
    }

    /// Takes one operation. A [`StoreOperation::Fetch`] changes nothing.
    pub fn fold(&mut self, operation: StoreOperation) {
        self.operations += 1;
        match operation {
            StoreOperation::PutRecord { kind, owner, key, value, expires } => {
                self.set_record(&owner, kind, key, Some(RecordValue { value, expires }));
            }
            StoreOperation::RemoveRecord { kind, owner, key } => self.set_record(&owner, kind, key, None),
            StoreOperation::EndSession { client } => self.end_session(&client),
            StoreOperation::PutMessage { number, message, expires } => {
                self.unsettled.push(number);
                self.bytes += message_bytes(&message);
                let waiting = self.messages.get(&number).map_or(0, |new| new.waiting);
                if let Some(old) = self.messages.insert(number, NewMessage { message, expires, waiting }) {
                    self.bytes -= message_bytes(&old.message);
                }
            }
            StoreOperation::Enqueue { client, sequence, message, entry } => {
                self.bytes += CHANGE + entry.len();
                if let Some(new) = self.messages.get_mut(&message) {
                    new.waiting += 1;
                }
                let stage = Stage::default();
                let add = QueueChange::Add { message, entry, stage };
                let old = self.client(client).queue.insert(sequence, add);
                self.forget(old);
            }
            StoreOperation::SetStage { client, sequence, stage: now } => {
                let changes = self.client(client);
                match changes.queue.get_mut(&sequence) {
                    Some(QueueChange::Add { stage, .. } | QueueChange::Stage(stage)) => *stage = now,
                    Some(QueueChange::Remove) => {}
                    None => {
                        changes.queue.insert(sequence, QueueChange::Stage(now));
                        self.bytes += CHANGE;
                    }
                }
            }
            StoreOperation::Dequeue { client, sequence } => {
                let changes = self.client(client);
                let old = changes.queue.remove(&sequence);
                if !matches!(old, Some(QueueChange::Add { .. })) {
                    changes.queue.insert(sequence, QueueChange::Remove);
                    self.bytes += CHANGE;
                }
                self.forget(old);
            }
            StoreOperation::PutRetained { topic, version, message, expires } => {
                self.set_retained(topic, RetainedChange { version, message: Some((message, expires)) });
            }
            StoreOperation::RemoveRetained { topic, version } => {
                self.set_retained(topic, RetainedChange { version, message: None });
            }
            StoreOperation::Fetch { .. } => {}
        }
    }

    /// The batch of which operations were taken last is whole. Messages of it that nobody waits for are dropped.
    pub fn end_batch(&mut self, shard: ShardIndex, number: BatchNumber) {
        for number in std::mem::take(&mut self.unsettled) {
            if self.messages.get(&number).is_some_and(|new| new.waiting == 0) {
                self.drop_message(number);
            }
        }
        if let Some(last) = self.last.get_mut(usize::from(shard)) {
            *last = Some(number);
        }
    }

    /// Forgets everything: it is committed. The last batch of each shard that had one.
    pub fn committed(&mut self, now: WallTime) -> Vec<(ShardIndex, BatchNumber)> {
        for (topic, change) in std::mem::take(&mut self.retained) {
            if change.message.is_none() {
                self.cleared.insert(topic.clone(), change.version);
                self.cleared_at.push_back((now, topic, change.version));
            }
        }
        while self.cleared_at.len() > MAX_CLEARED
            || self.cleared_at.front().is_some_and(|(at, ..)| at.0 + REMEMBER_CLEARED <= now.0)
        {
            let Some((_, topic, version)) = self.cleared_at.pop_front() else { break };
            if self.cleared.get(&topic) == Some(&version) {
                self.cleared.swap_remove(&topic);
            }
        }
        self.clients.clear();
        self.messages.clear();
        (self.bytes, self.operations) = (0, 0);
        let last = self.last.iter_mut().enumerate();
        last.filter_map(|(shard, number)| Some((shard as ShardIndex, number.take()?))).collect()
    }

    /// Whether no batch waits to be committed.
    pub fn is_idle(&self) -> bool {
        self.last.iter().all(Option::is_none)
    }

    /// Whether nothing is to be written, though batches may wait.
    pub fn is_empty(&self) -> bool {
        self.retained.is_empty() && self.clients.values().all(ClientChanges::is_empty)
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Operations taken since the last commit.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Changes of each client.
    pub fn clients(&self) -> impl Iterator<Item = (&Identity, &ClientChanges)> {
        self.clients.iter().filter(|(_, changes)| !changes.is_empty())
    }

    /// Changes of one client.
    pub fn client_changes(&self, client: &Identity) -> Option<&ClientChanges> {
        self.clients.get(client)
    }

    /// A message that isn't committed.
    pub fn message(&self, number: MessageNumber) -> Option<&NewMessage> {
        self.messages.get(&number)
    }

    /// Changes of retained messages.
    pub fn retained(&self) -> impl Iterator<Item = (&Arc<str>, &RetainedChange)> {
        self.retained.iter()
    }

    fn client(&mut self, client: Identity) -> &mut ClientChanges {
        self.clients.entry(client).or_default()
    }

    fn set_record(&mut self, owner: &str, kind: RecordKind, key: Arc<str>, record: Option<RecordValue>) {
        self.bytes += record_bytes(&key, record.as_ref());
        let freed = {
            let changes = self.client(Identity::new(owner));
            let goes = changes.ended && kind.ends_with_session() && record.is_none();
            let at = (kind, key);
            let old = if goes {
                // What is committed of it goes with the session.
                changes.records.swap_remove_entry(&at)
            } else {
                let old = changes.records.insert(at.clone(), record);
                old.map(|old| (at.clone(), old))
            };
            let of_old = old.map_or(0, |((_, key), old)| record_bytes(&key, old.as_ref()));
            of_old + if goes { record_bytes(&at.1, None) } else { 0 }
        };
        self.bytes -= freed;
    }

    fn end_session(&mut self, client: &Identity) {
        let changes = self.client(client.clone());
        let is_first = !std::mem::replace(&mut changes.ended, true);
        let mut freed = 0;
        changes.records.retain(|(kind, key), record| {
            let stays = !kind.ends_with_session();
            freed += if stays { 0 } else { record_bytes(key, record.as_ref()) };
            stays
        });
        self.bytes = self.bytes + if is_first { CHANGE } else { 0 } - freed;
    }

    /// A change that no longer counts.
    fn forget(&mut self, change: Option<QueueChange>) {
        match change {
            None => {}
            Some(QueueChange::Stage(_) | QueueChange::Remove) => self.bytes -= CHANGE,
            Some(QueueChange::Add { message, entry, .. }) => {
                self.bytes -= CHANGE + entry.len();
                let Some(new) = self.messages.get_mut(&message) else { return };
                new.waiting = new.waiting.saturating_sub(1);
                if new.waiting == 0 {
                    self.unsettled.push(message);
                }
            }
        }
    }

    fn drop_message(&mut self, number: MessageNumber) {
        if let Some(new) = self.messages.swap_remove(&number) {
            self.bytes -= message_bytes(&new.message);
        }
    }

    fn set_retained(&mut self, topic: Arc<str>, change: RetainedChange) {
        let newer = |known: RetainedVersion| known > change.version;
        if self.cleared.get(&topic).copied().is_some_and(newer)
            || self.retained.get(&topic).is_some_and(|known| newer(known.version))
        {
            return;
        }
        self.bytes += retained_bytes(&topic, &change);
        if let Some(old) = self.retained.insert(topic.clone(), change) {
            self.bytes -= retained_bytes(&topic, &old);
        }
    }
}

fn message_bytes(message: &Message) -> usize {
    2 * CHANGE + content_bytes(message)
}

fn record_bytes(key: &str, record: Option<&RecordValue>) -> usize {
    CHANGE + key.len() + record.map_or(0, |record| record.value.len())
}

fn retained_bytes(topic: &str, change: &RetainedChange) -> usize {
    CHANGE + topic.len() + change.message.as_ref().map_or(0, |(message, _)| message_bytes(message))
}
