//! What lies between shards: messages from one to another, in order.
//!
//! They travel in batches ([`PeerBatch`]): all that one shard has for another after a wake-up, whose plain messages are
//! copied to it.
//!
//! [`Backbone`] is what the hub needs of it. [`Fifos`] is the one for shards of one process; a backbone
//! between machines would have the same face, which is why ownership of a client can be lost.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::{AwaitedPublish, ModerationKey, PresenceChange, PublishKey, SendKey};
use crate::model::{
    ClientId, GroupName, Identity, Instant, Message, MessageView, ModerationRequest, Reason, ReceiptCounts,
    ReceiptMode, Refusal, Status, Target,
};

pub use batch::{Copied, CopiedPublish, CopiedSignal, PeerAddressed, PeerBatch};

/// The number of a shard.
pub type ShardIndex = u16;

/// The shard that owns a client id, among `shards`: the same on every shard and in every run.
pub fn owner(client_id: &str, shards: u16) -> ShardIndex {
    // FNV-1a: short ids, and every part of the process has to agree.
    let hash = client_id
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    // FNV mixes its high bits badly for short ids that differ at the end; one more round spreads them.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) % u64::from(shards.max(1))) as ShardIndex
}

/// What one shard tells another.
#[derive(Debug)]
pub enum PeerMessage {
    /// A signal, to be delivered to your clients; answered by [`PeerMessage::Taken`].
    Signal(Envelope),
    /// A signal that was copied to the batch; answered by [`PeerMessage::Taken`] if someone waits.
    CopiedSignal(CopiedSignal),
    /// A message to a plain topic, copied to the batch; answered by [`PeerMessage::Kept`] if someone waits.
    Publish(CopiedPublish),
    /// A message to a plain topic, to be retained as well; answered by [`PeerMessage::Kept`] if someone waits.
    Retain {
        /// The message; an empty one clears the topic.
        message: Arc<Message>,
        /// What settles which of two stays.
        version: RetainedVersion,
        /// Whom it is answered for.
        publish: AwaitedPublish,
        /// Your subscribers haven't got it yet.
        deliver: bool,
    },
    /// The message of this publish is kept, wherever it has to be.
    Kept {
        /// The publish.
        publish: PublishKey,
        /// Else it couldn't be, and the publisher is to be refused.
        kept: bool,
        /// The part that was noted as had, of QoS 2.
        part: Option<Box<str>>,
    },
    /// Your clients' mailboxes have taken or refused the signal; with the report if that is already final.
    Taken {
        /// The send.
        send: SendKey,
        /// What became of it.
        report: Option<ShardReport>,
    },
    /// The final statuses of a signal whose [`PeerMessage::Taken`] had none.
    Finished {
        /// The send.
        send: SendKey,
        /// What became of it.
        report: ShardReport,
    },
    /// A recipient that was QUEUED has ended (S10).
    Ended {
        /// The number of the send, on the sender's shard.
        number: u64,
        /// The recipient.
        client: ClientId,
        /// What became of it there.
        status: Status,
    },
    /// A message for one of your members of a share; answered by [`PeerMessage::Kept`] if someone waits.
    Shared {
        /// `$share/{name}/{filter}`.
        share: Arc<str>,
        /// The message.
        message: Arc<Message>,
        /// Whom it is answered for.
        publish: AwaitedPublish,
    },
    /// So many members of a share are connected to me.
    ShareMembers {
        /// `$share/{name}/{filter}`.
        share: Arc<str>,
        /// How many.
        connected: u32,
    },
    /// I have the first, or no longer any, client interested in this; an addition is answered by
    /// [`PeerMessage::InterestKnown`].
    Interest {
        /// In what.
        key: InterestKey,
        /// The number of the addition; none for a removal.
        added: Option<u64>,
    },
    /// Which members of a group do you have, for a new watcher of mine (S13)? Answered by [`PeerMessage::PresenceMembers`].
    PresenceAsked {
        /// The group.
        group: GroupName,
    },
    /// My members of a group, and which of them are online.
    PresenceMembers {
        /// The group.
        group: GroupName,
        /// As far as it was told to those who watch it.
        members: Vec<(ClientId, bool)>,
    },
    /// What changed about my members of a group that you watch.
    PresenceChanges {
        /// The group.
        group: GroupName,
        /// What, with its name.
        changes: Arc<[(PresenceChange, &'static str)]>,
    },
    /// A kick, mute or ban of a client of yours, which the rules allow; answered by [`PeerMessage::Moderated`] (S14).
    Moderate {
        /// Whom it is answered for.
        asked: ModerationKey,
        /// What, and to whom.
        moderation: Box<ModerationRequest>,
        /// Who asked for it.
        by: Identity,
    },
    /// It is in force, or why not.
    Moderated {
        /// Whom it is answered for.
        asked: ModerationKey,
        /// What became of it.
        result: Result<(), Refusal>,
    },
    /// From now on my sends reach you for this.
    InterestKnown {
        /// In what.
        key: InterestKey,
        /// The number of the addition.
        added: u64,
    },
}

/// The order of retained messages of one topic, the same on all shards: a logical clock, and the shard where two
/// clocks agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetainedVersion {
    /// One more than any that the accepting shard had seen.
    pub number: u64,
    /// The shard that accepted it.
    pub shard: ShardIndex,
}

/// What a shard can be interested in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InterestKey {
    /// Signals to a group.
    Group(GroupName),
    /// What matches a topic filter.
    Filter(Arc<str>),
}

/// A signal on its way to one shard.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The send, on the sender's shard; answers go there with it.
    pub send: SendKey,
    /// What all shards get alike.
    pub signal: Arc<AcceptedSignal>,
    /// Which recipients are this shard's to judge.
    pub share: Share,
}

/// A signal that was authorised on its sender's shard.
#[derive(Debug)]
pub struct AcceptedSignal {
    /// What is delivered.
    pub message: Arc<Message>,
    /// Who sent it.
    pub sender: ClientId,
    /// Whom it is for.
    pub target: Target,
    /// The sender gets it too, where it is a recipient (S5).
    pub echo: bool,
    /// It is to be kept for recipients that aren't there (S10).
    pub store: bool,
    /// The number by which the ends of such recipients are told, if anybody wants to hear of them.
    pub stored_as: Option<u64>,
    /// What the sender wants to hear.
    pub receipt: ReceiptMode,
    /// When receipts for online recipients close (S8).
    pub closes: Instant,
}

/// One shard's part of the recipients.
#[derive(Clone, Debug)]
pub enum Share {
    /// The one client.
    Client,
    /// All your members of the group, minus *except*.
    Members,
    /// These, whose owner you are; each is a member, or NOT_MEMBER.
    Listed(Vec<ClientId>),
    /// Nobody but observers (T6).
    Observers,
}

/// What became of a signal on one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Recipients per status.
    pub counts: ReceiptCounts,
    /// With [`ReceiptMode::Each`]: the recipients, above 128 of them only those not DELIVERED.
    pub entries: Vec<(ClientId, Status)>,
}

/// What the hub needs of whatever lies between shards.
pub trait Backbone {
    /// Which shard this is.
    fn index(&self) -> ShardIndex;

    /// How many shards there are.
    fn shards(&self) -> u16;

    /// Whether the way to `peer` takes another signal or publish; a full one is OVERFLOW, never a wait.
    fn has_room(&self, peer: ShardIndex) -> bool;

    /// Sends `message` on its way. Signals and publishes only after [`has_room`](Self::has_room) said so;
    /// answers and interest always fit, since each belongs to something that is bounded itself.
    fn forward(&mut self, peer: ShardIndex, message: PeerMessage);

    /// As [`forward`](Self::forward), for a message to a plain topic.
    /// `publish`: whom it is answered for.
    fn forward_publish(
        &mut self,
        peer: ShardIndex,
        message: &MessageView<'_>,
        topic: &str,
        publisher: &str,
        publish: AwaitedPublish,
    );

    /// As [`forward`](Self::forward), for a signal of which no receipt is wanted, and that isn't urgent.
    fn forward_signal(
        &mut self,
        peer: ShardIndex,
        message: &MessageView<'_>,
        addressed: &Arc<PeerAddressed>,
        send: SendKey,
    );

    /// Takes ownership of a client for this process. Within one process the hash of the id settles it, and it
    /// always succeeds; between machines it may be refused, or lost later.
    fn claim_session(&mut self, client: &str) -> Result<(), Reason>;
}

/// Bytes of copied messages in a FIFO beyond which it takes no more.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The backbone of one process: a bounded FIFO for each pair of shards, with a lane for urgent signals (S16).
#[derive(Debug)]
pub struct Fifos {
    index: ShardIndex,
    limit: usize,
    peers: Vec<Fifo>,
    /// Batches with room for the next ones.
    spare: Vec<PeerBatch>,
}

#[derive(Debug, Default)]
struct Fifo {
    urgent: VecDeque<PeerMessage>,
    normal: PeerBatch,
    /// What comes after this shard's queue (the process's channel) is full.
    blocked: bool,
}

impl Fifos {
    /// The FIFOs of shard `index` to all `shards`, each of at most `limit` signals and publishes.
    pub fn new(index: ShardIndex, shards: u16, limit: usize) -> Self {
        let peers = (0..shards.max(1)).map(|_| Fifo::default()).collect();
        Self { index, limit, peers, spare: Vec::new() }
    }

    /// All there is for a peer that isn't blocked, urgent signals first.
    pub fn poll(&mut self) -> Option<(ShardIndex, PeerBatch)> {
        let waits = |fifo: &Fifo| !(fifo.blocked || fifo.urgent.is_empty() && fifo.normal.is_empty());
        let (peer, fifo) = self.peers.iter_mut().enumerate().find(|(_, fifo)| waits(fifo))?;
        let mut batch = std::mem::replace(&mut fifo.normal, self.spare.pop().unwrap_or_default());
        while let Some(message) = fifo.urgent.pop_back() {
            batch.messages.push_front(message);
        }
        Some((peer as ShardIndex, batch))
    }

    /// Takes a batch back that is done with, for its room.
    pub fn recycle(&mut self, batch: PeerBatch) {
        if self.spare.len() < self.peers.len()
            && let Some(batch) = batch.emptied()
        {
            self.spare.push(batch);
        }
    }

    /// Says whether what comes after this queue takes more for `peer`.
    pub fn block(&mut self, peer: ShardIndex, blocked: bool) {
        if let Some(fifo) = self.peers.get_mut(usize::from(peer)) {
            fifo.blocked = blocked;
        }
    }
}

impl Backbone for Fifos {
    fn index(&self) -> ShardIndex {
        self.index
    }

    fn shards(&self) -> u16 {
        self.peers.len() as u16
    }

    fn has_room(&self, peer: ShardIndex) -> bool {
        self.peers.get(usize::from(peer)).is_some_and(|fifo| {
            fifo.urgent.len() + fifo.normal.len() < self.limit && fifo.normal.bytes() < MAX_BYTES
        })
    }

    fn forward(&mut self, peer: ShardIndex, message: PeerMessage) {
        let Some(fifo) = self.peers.get_mut(usize::from(peer)) else { return };
        // Only signals overtake: an urgent one is judged by the recipients' own shard, so it needs no interest
        // or answer that is on its way.
        match &message {
            PeerMessage::Signal(envelope) if envelope.signal.message.urgent => fifo.urgent.push_back(message),
            _ => fifo.normal.messages.push_back(message),
        }
    }

    fn forward_publish(
        &mut self,
        peer: ShardIndex,
        message: &MessageView<'_>,
        topic: &str,
        publisher: &str,
        publish: AwaitedPublish,
    ) {
        if let Some(fifo) = self.peers.get_mut(usize::from(peer)) {
            fifo.normal.push_publish(message, topic, publisher, publish);
        }
    }

    fn forward_signal(
        &mut self,
        peer: ShardIndex,
        message: &MessageView<'_>,
        addressed: &Arc<PeerAddressed>,
        send: SendKey,
    ) {
        if let Some(fifo) = self.peers.get_mut(usize::from(peer)) {
            fifo.normal.push_signal(message, addressed, send);
        }
    }

    fn claim_session(&mut self, _client: &str) -> Result<(), Reason> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_spread_and_within_range() {
        for shards in [1, 2, 3, 8] {
            let mut clients = vec![0; usize::from(shards)];
            for n in 0..8000 {
                clients[usize::from(owner(&format!("lamp-{n}"), shards))] += 1;
            }
            let even = 8000 / usize::from(shards);
            assert!(
                clients.iter().all(|&count| count > even * 8 / 10 && count < even * 12 / 10),
                "{clients:?}"
            );
        }
    }
}
