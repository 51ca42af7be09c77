//! What lies between the shards and the store's thread: batches one way, events the other.
//!
//! Neither side ever waits for the other. A shard whose batches have piled up is told that there is no room, keeps what it
//! has within its own bounds, and hears when there is room again. Events go to a mailbox per shard; what is in one is bounded by
//! what its shard has asked, since commits and troubles overwrite what they make out of date.
//!
//! Locks are held for a few moves of memory, none while another is taken or anything is awaited.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bugle_core::backbone::ShardIndex;
use bugle_core::store::{StoreBatch, StoreEvent};
use tokio::sync::Notify;

/// Batches of one shard that wait before it is told that there is no room.
const WAITING_BATCHES: usize = 64;
/// Bytes of them, likewise.
const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// The way between shards and the store's thread.
#[derive(Debug)]
pub struct Exchange {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    mailboxes: Box<[Mailbox]>,
}

/// What the store's thread has not taken yet.
#[derive(Debug)]
struct Inbox {
    batches: Vec<(ShardIndex, StoreBatch)>,
    by_shard: Box<[Waiting]>,
    is_closed: bool,
}

#[derive(Clone, Debug, Default)]
struct Waiting {
    batches: usize,
    bytes: usize,
    /// It was told that there is no room.
    is_full: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    mail: Mutex<VecDeque<Mail>>,
    arrived: Notify,
}

/// What a shard finds in its mailbox.
#[derive(Debug)]
pub enum Mail {
    /// The store said something.
    Event(StoreEvent),
    /// There is room for batches again.
    Room,
}

/// What the store's thread takes at a time.
#[derive(Debug)]
pub struct Taken {
    /// In the order of each shard.
    pub batches: Vec<(ShardIndex, StoreBatch)>,
    /// Nothing comes after these.
    pub is_closed: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves them half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// Between a store and so many shards.
    pub fn new(shards: u16) -> Self {
        let shards = usize::from(shards);
        let by_shard = vec![Waiting::default(); shards].into();
        Self {
            inbox: Mutex::new(Inbox { batches: Vec::new(), by_shard, is_closed: false }),
            arrived: Condvar::new(),
            mailboxes: std::iter::repeat_with(Mailbox::default).take(shards).collect(),
        }
    }

    /// Hands over a batch. Whether there is room for another; if not, [`Mail::Room`] comes when there is.
    pub fn put(&self, shard: ShardIndex, batch: StoreBatch) -> bool {
        let mut inbox = locked(&self.inbox);
        let Some(waiting) = inbox.by_shard.get_mut(usize::from(shard)) else { return true };
        waiting.batches += 1;
        waiting.bytes += batch.bytes;
        waiting.is_full = waiting.batches >= WAITING_BATCHES || waiting.bytes >= WAITING_BYTES;
        let has_room = !waiting.is_full;
        inbox.batches.push((shard, batch));
        drop(inbox);
        self.arrived.notify_one();
        has_room
    }

    /// Takes all that there is, after waiting for something as long as `patience` (none: for ever).
    pub fn take(&self, patience: Option<Duration>) -> Taken {
        let inbox = self.wait(patience, |inbox| !inbox.batches.is_empty() || inbox.is_closed);
        self.empty(inbox)
    }

    /// Waits as long as `patience` while batches stay where they are. Whether no more come.
    pub fn rest(&self, patience: Duration) -> bool {
        self.wait(Some(patience), |inbox| inbox.is_closed).is_closed
    }

    fn wait(&self, patience: Option<Duration>, is_over: impl Fn(&Inbox) -> bool) -> MutexGuard<'_, Inbox> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut inbox = locked(&self.inbox);
        while !is_over(&inbox) {
            inbox = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inbox
    }

    fn empty(&self, mut inbox: MutexGuard<'_, Inbox>) -> Taken {
        let batches = std::mem::take(&mut inbox.batches);
        let is_closed = inbox.is_closed;
        let mut freed = Vec::new();
        for (shard, waiting) in inbox.by_shard.iter_mut().enumerate() {
            if std::mem::take(waiting).is_full {
                freed.push(shard);
            }
        }
        drop(inbox);
        freed.into_iter().for_each(|shard| self.deliver(shard, Mail::Room));
        Taken { batches, is_closed }
    }

    /// No more batches come.
    pub fn close(&self) {
        locked(&self.inbox).is_closed = true;
        self.arrived.notify_one();
    }

    /// Batches that wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let inbox = locked(&self.inbox);
        (inbox.batches.len(), inbox.by_shard.iter().map(|waiting| waiting.bytes).sum())
    }

    /// Tells one shard.
    pub fn tell(&self, shard: ShardIndex, event: StoreEvent) {
        self.deliver(shard.into(), Mail::Event(event));
    }

    /// Tells all shards.
    pub fn tell_all(&self, event: impl Fn() -> StoreEvent) {
        (0..self.mailboxes.len()).for_each(|shard| self.deliver(shard, Mail::Event(event())));
    }

    fn deliver(&self, shard: usize, mail: Mail) {
        let Some(mailbox) = self.mailboxes.get(shard) else { return };
        let mut inside = locked(&mailbox.mail);
        inside.retain(|older| !is_out_of_date(older, &mail));
        inside.push_back(mail);
        drop(inside);
        mailbox.arrived.notify_one();
    }

    /// What there is for a shard, in order.
    pub fn mail(&self, shard: ShardIndex) -> VecDeque<Mail> {
        let mailbox = self.mailboxes.get(usize::from(shard));
        mailbox.map(|mailbox| std::mem::take(&mut *locked(&mailbox.mail))).unwrap_or_default()
    }

    /// Waits for something to be in a shard's mailbox. Cancel-safe.
    pub async fn mail_arrived(&self, shard: ShardIndex) {
        match self.mailboxes.get(usize::from(shard)) {
            Some(mailbox) => mailbox.arrived.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Whether `newer` says all that `older` does.
fn is_out_of_date(older: &Mail, newer: &Mail) -> bool {
    use StoreEvent::{Available, Committed, Unavailable};
    matches!(
        (older, newer),
        (Mail::Event(Committed(_)), Mail::Event(Committed(_)))
            | (Mail::Event(Available | Unavailable(_)), Mail::Event(Available | Unavailable(_)))
            | (Mail::Room, Mail::Room)
    )
}

#[cfg(test)]
mod tests {
    use bugle_core::store::BatchNumber;

    use super::*;

    fn batch(number: u64, bytes: usize) -> StoreBatch {
        StoreBatch { number: BatchNumber(number), operations: Vec::new(), bytes }
    }

    #[test]
    fn a_shard_hears_when_there_is_no_room_and_when_there_is_again() {
        let exchange = Exchange::new(2);
        assert!(exchange.put(0, batch(1, 10)));
        assert!(!exchange.put(1, batch(1, WAITING_BYTES)));
        assert_eq!(exchange.waiting(), (2, WAITING_BYTES + 10));
        let taken = exchange.take(None);
        assert_eq!((taken.batches.len(), taken.is_closed), (2, false));
        assert!(exchange.mail(0).is_empty());
        assert!(matches!(exchange.mail(1).make_contiguous(), [Mail::Room]));
        for number in 2..=WAITING_BATCHES as u64 {
            assert!(exchange.put(0, batch(number, 1)));
        }
        assert!(!exchange.put(0, batch(99, 1)));
    }

    #[test]
    fn commits_and_troubles_do_not_pile_up_for_a_shard_that_is_busy() {
        let exchange = Exchange::new(1);
        for number in 0..1000 {
            exchange.tell(0, StoreEvent::Committed(BatchNumber(number)));
            exchange.tell_all(|| StoreEvent::Unavailable("full".into()));
            exchange.tell_all(|| StoreEvent::Available);
        }
        let mail = exchange.mail(0);
        let last = Mail::Event(StoreEvent::Committed(BatchNumber(999)));
        assert_eq!(mail.len(), 2);
        assert!(mail.iter().any(|mail| format!("{mail:?}") == format!("{last:?}")));
        assert!(matches!(mail.back(), Some(Mail::Event(StoreEvent::Available))));
    }

    #[test]
    fn the_end_is_seen_after_what_came_before_it() {
        let exchange = Exchange::new(1);
        assert!(!exchange.rest(Duration::ZERO));
        exchange.put(0, batch(1, 1));
        exchange.close();
        assert!(exchange.rest(Duration::from_secs(60)));
        let taken = exchange.take(None);
        assert_eq!((taken.batches.len(), taken.is_closed), (1, true));
    }
}
