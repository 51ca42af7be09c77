//! What a shard has for the durable store, and who waits until that is committed.
//!
//! Operations gather in a batch, which leaves at the end of a wake-up as long as the store takes more. An answer that
//! promises that something lasts is noted with the batch that makes it last, and given when that is committed: never
//! before it's true. Nothing live waits here, but for QoS 2 to a session that lasts, whose packet identifier has to be
//! remembered before it is used.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::parts::Part;
use super::{ConnectionKey, PublishKey, SendKey, Shard};
use crate::backbone::{Backbone, PeerMessage, ShardIndex, ShardReport};
use crate::model::{ClientId, Identity, Instant, Reason, Refusal, Reply, Status};
use crate::store::{BatchNumber, MessageNumber, StoreBatch, StoreEvent, StoreOperation, WallTime};

/// Operations that wait for room in the store beyond which nothing new is to be kept.
const MAX_OPERATIONS: usize = 64 * 1024;
/// Likewise, bytes.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What is done when a batch is committed.
pub(super) enum AfterCommit {
    /// An answer to the session that began on this connection.
    Reply(ConnectionKey, Reply),
    /// A publish has one less to wait for.
    Publish(PublishKey),
    /// An answer to another shard.
    Peer(ShardIndex, PeerMessage),
    /// This shard's part of a send is taken.
    Taken(SendKey, Option<ShardReport>),
    /// A queued recipient of a send of this shard has ended.
    Ended(u64, ClientId, Status),
    /// A QoS 2 publish to this client may go its next step.
    Write(Identity, NonZeroU16),
}

/// Where the outbox stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    operations: u64,
    missed: u64,
}

/// What became of something that may have to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// There was nothing to be kept.
    Nothing,
    /// It is, when the batch at hand is committed.
    WhenCommitted,
    /// It couldn't be.
    Not,
}

/// Operations for the store, and who waits for them.
pub(super) struct Outbox {
    durable: bool,
    /// The wall clock at the gateway's moment 0.
    wall_at_start: WallTime,
    batch: StoreBatch,
    /// The number of the last batch that left.
    last: BatchNumber,
    has_room: bool,
    /// Why nothing can be written for now.
    unavailable: Option<Arc<str>>,
    /// How many operations there were so far.
    operations: u64,
    /// How many messages weren't kept because nothing can be written.
    missed: u64,
    /// The last batch that is committed.
    committed: BatchNumber,
    /// The next free number of a message.
    next_message: u64,
    waiting: VecDeque<(BatchNumber, AfterCommit)>,
}

impl Outbox {
    pub(super) fn new(durable: bool, wall_at_start: WallTime) -> Self {
        Self {
            durable,
            wall_at_start,
            batch: StoreBatch::default(),
            last: BatchNumber(0),
            has_room: true,
            unavailable: None,
            operations: 0,
            missed: 0,
            committed: BatchNumber(0),
            next_message: 1,
            waiting: VecDeque::new(),
        }
    }

    /// Whether there is a store.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// What happened so far, so that it shows whether something was added, or couldn't be.
    pub(super) fn mark(&self) -> Mark {
        Mark { operations: self.operations, missed: self.missed }
    }

    /// A message that should have been kept isn't.
    pub(super) fn miss(&mut self) {
        self.missed += 1;
    }

    /// What became of what was done since.
    pub(super) fn since(&self, mark: Mark) -> Kept {
        if self.missed != mark.missed {
            Kept::Not
        } else if self.operations != mark.operations {
            Kept::WhenCommitted
        } else {
            Kept::Nothing
        }
    }

    /// The batch that is being gathered.
    pub(super) fn present(&self) -> BatchNumber {
        BatchNumber(self.last.0 + 1)
    }

    /// Adds an operation; without a store it is nothing.
    pub(super) fn push(&mut self, operation: StoreOperation) {
        if self.durable {
            self.operations += 1;
            self.batch.bytes += cost(&operation);
            self.batch.operations.push(operation);
        }
    }

    /// Does something when all that was added so far is committed.
    pub(super) fn after(&mut self, then: AfterCommit) {
        let number = if self.batch.operations.is_empty() { self.last } else { self.present() };
        self.waiting.push_back((number, then));
    }

    /// A number for another message.
    pub(super) fn number_message(&mut self, shard: ShardIndex) -> MessageNumber {
        let count = self.next_message;
        self.next_message += 1;
        MessageNumber::new(count, shard)
    }

    pub(super) fn set_next_message(&mut self, next: u64) {
        self.next_message = self.next_message.max(next);
    }

    /// The moment as the wall clock has it.
    pub(super) fn wall(&self, moment: Instant) -> WallTime {
        WallTime(self.wall_at_start.0.saturating_add(moment.as_millis()))
    }

    /// The moment as the gateway's clock has it; one before it started is its start.
    pub(super) fn moment(&self, wall: WallTime) -> Instant {
        Instant::from_millis(wall.0.saturating_sub(self.wall_at_start.0))
    }

    fn is_full(&self) -> bool {
        self.batch.operations.len() >= MAX_OPERATIONS || self.batch.bytes >= MAX_BYTES
    }
}

/// About how many bytes an operation takes on its way.
fn cost(operation: &StoreOperation) -> usize {
    const OPERATION: usize = 64;
    OPERATION
        + match operation {
            StoreOperation::PutRecord { key, value, .. } => key.len() + value.len(),
            StoreOperation::PutMessage { message, .. } | StoreOperation::PutRetained { message, .. } => {
                message.payload.len() + message.properties.len()
            }
            StoreOperation::Enqueue { entry, .. } => entry.len(),
            _ => 0,
        }
}

impl Shard {
    /// What is to be written to the durable store next, if the store has room and there is something.
    pub fn poll_store(&mut self) -> Option<StoreBatch> {
        let outbox = &mut self.store;
        if !outbox.has_room || outbox.batch.operations.is_empty() {
            return None;
        }
        outbox.last = outbox.present();
        let mut batch = std::mem::take(&mut outbox.batch);
        batch.number = outbox.last;
        Some(batch)
    }

    /// The batch that makes all last that was done so far; none: it lasts already, or there is no store.
    pub fn uncommitted(&self) -> Option<BatchNumber> {
        let outbox = &self.store;
        let number = if outbox.batch.operations.is_empty() { outbox.last } else { outbox.present() };
        (number > outbox.committed).then_some(number)
    }

    /// The last batch that the store has committed.
    pub fn committed(&self) -> BatchNumber {
        self.store.committed
    }

    /// Says whether the store takes another batch; while it doesn't, [`poll_store`](Self::poll_store) gives none.
    pub fn store_has_room(&mut self, room: bool) {
        self.store.has_room = room;
    }

    /// The store has committed batches, found messages, or can't write.
    pub fn handle_store(&mut self, event: StoreEvent, now: Instant) {
        match event {
            StoreEvent::Committed(number) => self.handle_committed(number, now),
            StoreEvent::Fetched { client, messages, more } => {
                self.handle_fetched(&client, messages, more, now);
            }
            StoreEvent::Unavailable(why) => self.store.unavailable = Some(why),
            StoreEvent::Available => self.store.unavailable = None,
        }
        self.resume_sessions(now);
    }

    fn handle_committed(&mut self, number: BatchNumber, now: Instant) {
        self.store.committed = self.store.committed.max(number);
        while self.store.waiting.front().is_some_and(|(waits, _)| *waits <= number) {
            let Some((_, then)) = self.store.waiting.pop_front() else { break };
            match then {
                AfterCommit::Reply(origin, reply) => self.reply(self.current(origin), reply, now),
                AfterCommit::Publish(publish) => self.handle_kept(publish, true, None, now),
                AfterCommit::Peer(peer, message) => self.backbone.forward(peer, message),
                AfterCommit::Taken(send, report) => self.handle_taken(send, report, now),
                AfterCommit::Ended(number, client, status) => self.handle_ended(number, client, status, now),
                AfterCommit::Write(client, id) => self.proceed(&client, id),
            }
        }
    }

    /// Gives an answer to a client whose session the store keeps when all that was done so far is committed; to others at
    /// once.
    pub(super) fn reply_when_kept(&mut self, key: ConnectionKey, reply: Reply, now: Instant) {
        if self.clients.get(key).is_some_and(|client| client.stored) {
            self.reply_when_committed(key, reply, now);
        } else {
            self.reply(key, reply, now);
        }
    }

    /// Gives an answer when all that was done so far is committed.
    pub(super) fn reply_when_committed(&mut self, key: ConnectionKey, reply: Reply, now: Instant) {
        let outbox = &self.store;
        if outbox.batch.operations.is_empty() && outbox.committed == outbox.last {
            return self.reply(key, reply, now);
        }
        let origin = self.origin(key);
        self.store.after(AfterCommit::Reply(origin, reply));
    }

    /// Tells another shard that what a publish of its was for is kept, when that is so; and which part was noted.
    pub(super) fn answer_when_kept(
        &mut self,
        mark: Mark,
        peer: ShardIndex,
        publish: PublishKey,
        part: Option<Part>,
    ) {
        if publish == PublishKey::default() {
            return;
        }
        let answer = |kept| PeerMessage::Kept { publish, kept, part };
        match self.store.since(mark) {
            Kept::Nothing => self.backbone.forward(peer, answer(true)),
            Kept::Not => self.backbone.forward(peer, answer(false)),
            Kept::WhenCommitted => self.store.after(AfterCommit::Peer(peer, answer(true))),
        }
    }

    /// Whether something new can be kept; what can't is refused with this.
    pub(super) fn check_store(&self) -> Result<(), Refusal> {
        if let Some(why) = &self.store.unavailable {
            let text = format!("the gateway can't store anything for now: {why}");
            return Err(Refusal::new(Reason::Busy, text));
        }
        if self.store.is_full() {
            return Err(Refusal::new(Reason::Busy, "the gateway's store doesn't keep up; try again"));
        }
        Ok(())
    }
}
