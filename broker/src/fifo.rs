//! The queues between shards: one bounded FIFO of batches per ordered pair, shared by all that goes that way.
//!
//! A batch is all that one shard has for another after a wake-up, so that what lies between threads is touched once for
//! it, however many messages it has. A full FIFO makes nobody wait: the one batch that it doesn't take stays in the
//! link, and the shard, told that there is no room, goes on to collect within its own bounds.

use std::rc::Rc;

use bugle_core::hub::PeerBatch;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::shard_thread::ShardHost;

/// Batches that a FIFO holds. Few, since a batch grows as long as it waits.
const BATCHES: usize = 4;

/// The ends of all FIFOs that one shard has.
pub struct FifoEnds {
    /// To each shard, none to itself.
    pub outgoing: Vec<Option<mpsc::Sender<PeerBatch>>>,
    /// From each other shard, with its number.
    pub incoming: Vec<(u16, mpsc::Receiver<PeerBatch>)>,
}

/// Makes a FIFO for each ordered pair of shards, and gives each shard its ends.
pub fn connect_shards(shards: u16) -> Vec<FifoEnds> {
    let empty = |_| FifoEnds { outgoing: Vec::new(), incoming: Vec::new() };
    let mut ends: Vec<_> = (0..shards).map(empty).collect();
    for from in 0..shards {
        for to in 0..shards {
            let sender = (from != to).then(|| {
                let (sender, receiver) = mpsc::channel(BATCHES);
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
    sender: mpsc::Sender<PeerBatch>,
    waiting: Option<PeerBatch>,
}

/// What became of a batch that was put on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on the FIFO, or the other shard has ended.
    Taken,
    /// It waits: nothing more may be put before [`resume`] has been run.
    Waits,
}

impl Link {
    /// The link over this end of a FIFO.
    pub const fn new(sender: mpsc::Sender<PeerBatch>) -> Self {
        Self { sender, waiting: None }
    }

    /// Puts `batch` behind all that was put before.
    pub fn put(&mut self, batch: PeerBatch) -> Put {
        match self.sender.try_send(batch) {
            // The process is stopping, and nobody is there any more whom it could reach.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Put::Taken,
            Err(mpsc::error::TrySendError::Full(batch)) => {
                self.waiting = Some(batch);
                Put::Waits
            }
        }
    }
}

/// Moves what waits at the link to `peer` onto its FIFO when there is room, then tells the shard that there is.
pub async fn resume(host: Rc<ShardHost>, peer: u16) {
    let Some(sender) = host.with_link(peer, |link| link.sender.clone()) else { return };
    if let Ok(permit) = sender.reserve().await {
        if let Some(batch) = host.with_link(peer, |link| link.waiting.take()).flatten() {
            permit.send(batch);
        }
        host.set_peer_room(peer, true);
    }
}

/// Hands the shard what another one sent.
pub async fn receive(host: Rc<ShardHost>, from: u16, mut fifo: mpsc::Receiver<PeerBatch>) {
    while let Some(mut batch) = fifo.recv().await {
        host.handle_peer(from, &mut batch);
        while !batch.is_empty() {
            // What came of the first ones is written before the next ones come.
            yield_now().await;
            host.handle_peer(from, &mut batch);
        }
    }
}
