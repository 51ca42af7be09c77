//! The queues between shards: one bounded FIFO per ordered pair, shared by all that goes that way.
//!
//! A full one makes nobody wait: the shard is told that there is no room, and what was already taken from it
//! stays in the link until there is.

use std::collections::VecDeque;
use std::rc::Rc;

use bugle_core::hub::PeerMessage;
use tokio::sync::mpsc;

use crate::shard_thread::ShardHost;

/// Messages that are taken from a FIFO in one go.
const BATCH: usize = 64;
/// Messages that a link may hold behind a full FIFO, should the shard give any after hearing of it.
const MAX_WAITING: usize = 64;

/// The ends of all FIFOs that one shard has.
pub struct FifoEnds {
    /// To each shard, none to itself.
    pub outgoing: Vec<Option<mpsc::Sender<PeerMessage>>>,
    /// From each other shard, with its number.
    pub incoming: Vec<(u16, mpsc::Receiver<PeerMessage>)>,
}

/// Makes a FIFO of `capacity` messages for each ordered pair of shards, and gives each shard its ends.
pub fn connect_shards(shards: u16, capacity: usize) -> Vec<FifoEnds> {
    let empty = |_| FifoEnds { outgoing: Vec::new(), incoming: Vec::new() };
    let mut ends: Vec<_> = (0..shards).map(empty).collect();
    for from in 0..shards {
        for to in 0..shards {
            let sender = (from != to).then(|| {
                let (sender, receiver) = mpsc::channel(capacity);
                ends[usize::from(to)].incoming.push((from, receiver));
                sender
            });
            ends[usize::from(from)].outgoing.push(sender);
        }
    }
    ends
}

/// The way to one other shard.
pub struct Link {
    sender: mpsc::Sender<PeerMessage>,
    waiting: VecDeque<PeerMessage>,
}

/// What became of a message that was put on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on the FIFO, or the other shard has ended.
    Taken,
    /// It waits, as the first one: [`Link::resume`] has to be run.
    Waits,
    /// It waits behind others.
    WaitsBehind,
}

impl Link {
    /// The link over this end of a FIFO.
    pub const fn new(sender: mpsc::Sender<PeerMessage>) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    /// Whether nothing more may be put on it for now.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Puts `message` behind all that was put before.
    pub fn put(&mut self, message: PeerMessage) -> Put {
        if !self.waiting.is_empty() {
            self.waiting.push_back(message);
            return Put::WaitsBehind;
        }
        match self.sender.try_send(message) {
            // The process is stopping, and nobody is there any more whom it could reach.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Put::Taken,
            Err(mpsc::error::TrySendError::Full(message)) => {
                self.waiting.push_back(message);
                Put::Waits
            }
        }
    }
}

/// Moves what waits at the link to `peer` onto its FIFO as room comes, then tells the shard that there is room.
pub async fn resume(host: Rc<ShardHost>, peer: u16) {
    let Some(sender) = host.with_link(peer, |link| link.sender.clone()) else { return };
    while let Ok(permit) = sender.reserve().await {
        let (message, is_last) = host
            .with_link(peer, |link| (link.waiting.pop_front(), link.waiting.is_empty()))
            .unwrap_or((None, true));
        if let Some(message) = message {
            permit.send(message);
        }
        if is_last {
            return host.set_peer_room(peer, true);
        }
    }
}

/// Hands the shard what another one sent.
pub async fn receive(host: Rc<ShardHost>, from: u16, mut fifo: mpsc::Receiver<PeerMessage>) {
    let mut batch = Vec::with_capacity(BATCH);
    while fifo.recv_many(&mut batch, BATCH).await > 0 {
        for message in batch.drain(..) {
            host.handle_peer(from, message);
        }
    }
}
