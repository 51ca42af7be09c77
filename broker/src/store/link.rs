//! A shard's end of the store: what it gives to the exchange, and the task that brings it what comes back.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use bugle_core::backbone::ShardIndex;
use bugle_core::store::{Restored, StoreBatch};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::exchange::{Exchange, Mail};
use super::rows::ReadError;
use crate::shard_thread::ShardHost;

/// What a shard is given to start with.
pub struct StoreEnd {
    /// The way to the store from then on.
    pub link: StoreLink,
    kept: mpsc::Receiver<Vec<Restored>>,
    is_restored: blocking::Sender<Result<(), ReadError>>,
}

/// The way from a shard to the store.
#[derive(Clone)]
pub struct StoreLink {
    shard: ShardIndex,
    exchange: Arc<Exchange>,
}

impl StoreEnd {
    /// The end of shard `shard`: it hears through `kept` what is kept, and says to `is_restored` when it has it all.
    pub fn new(
        shard: ShardIndex,
        exchange: Arc<Exchange>,
        kept: mpsc::Receiver<Vec<Restored>>,
        is_restored: blocking::Sender<Result<(), ReadError>>,
    ) -> Self {
        Self { link: StoreLink { shard, exchange }, kept, is_restored }
    }

    /// Gives all that is kept to `each`. For those that aren't shards.
    pub fn take_all(mut self, mut each: impl FnMut(Restored)) {
        while let Some(piece) = self.kept.blocking_recv() {
            piece.into_iter().for_each(&mut each);
        }
        // Who waited for it may have gone.
        let _ = self.is_restored.send(Ok(()));
    }
}

impl StoreLink {
    /// Hands over a batch. Whether there is room for another; if not, the shard is told when there is.
    pub fn put(&self, batch: StoreBatch) -> bool {
        self.exchange.put(self.shard, batch)
    }
}

/// Gives the shard what is kept, then what the store says, for as long as it lives.
pub async fn serve(host: Rc<ShardHost>, end: StoreEnd) {
    let StoreEnd { link, mut kept, is_restored } = end;
    while let Some(piece) = kept.recv().await {
        for restored in piece {
            host.handle_restored(restored);
        }
        yield_now().await;
    }
    // The other shards may be busy with what they get themselves.
    while host.awaits_peers() {
        sleep(Duration::from_millis(1)).await;
    }
    // Who waited for it may have gone.
    let _ = is_restored.send(Ok(()));
    drop((kept, is_restored));
    loop {
        link.exchange.mail_arrived(link.shard).await;
        for mail in link.exchange.mail(link.shard) {
            match mail {
                Mail::Event(event) => host.handle_store(event),
                Mail::Room => host.set_store_room(true),
            }
        }
    }
}
