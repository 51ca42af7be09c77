//! What is known here of the queues that the store keeps: one per client, of messages that last until the client has them.
//!
//! The messages are the store's. Of each one a few words are kept here, so that a queue's bounds, its order and its
//! deadlines need no look at the disk; and a window of them is in the client's mailbox while it is connected.

use std::collections::VecDeque;

use slotmap::{DefaultKey, SlotMap};

use crate::model::{ClientId, Identity, Instant, Map, ReceiptSlot};

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Size {
    fn add(&mut self, bytes: u32) {
        self.messages += 1;
        self.bytes += bytes as usize;
    }

    fn subtract(&mut self, bytes: u32) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as usize);
    }

    /// Whether one more of `bytes` is within these bounds; the first one always is.
    pub(super) fn has_room(self, bytes: usize, max_messages: usize, max_bytes: usize) -> bool {
        self.messages < max_messages && (self.messages == 0 || self.bytes + bytes <= max_bytes)
    }
}

/// Where a message of a queue is, beside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    Disk,
    /// Nowhere, and it isn't wanted before the client subscribes to what it came by.
    Deferred,
    /// In the mailbox.
    Mailbox,
    /// Written to the client.
    Client,
    /// The client has it, of QoS 2; its identifier isn't free yet.
    Released,
}

/// What else is known of a signal (S10).
#[derive(Clone, Debug)]
pub(super) struct KeptSignal {
    /// Who is to hear of its end, by which number.
    pub(super) receipt: Option<(ClientId, u64)>,
    /// Its place in the first receipt, while that is open.
    pub(super) tracker: Option<ReceiptSlot>,
}

/// A message of a queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) bytes: u32,
    pub(super) place: Place,
    pub(super) expires: Option<Instant>,
    /// It came by a share, whose other members may get it.
    pub(super) is_shared: bool,
    /// None: a message to a plain topic. Boxed, since most are.
    pub(super) signal: Option<Box<KeptSignal>>,
}

/// A client's queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) client: Identity,
    /// The place of the last message.
    last: u64,
    /// In order.
    entries: VecDeque<Entry>,
    /// Plain messages that aren't with the client.
    plain: Size,
    /// Signals, wherever they are.
    signals: Size,
    /// How many are nowhere but in the store, and wanted.
    on_disk: usize,
    /// The store was asked for those between these places, the first not included.
    pub(super) fetching: Option<(u64, u64)>,
    /// When something here expires, if that is in the queue of timers.
    pub(super) timer: Option<Instant>,
}

/// All queues of a shard.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_key: SlotMap<DefaultKey, Queue>,
    by_client: Map<Identity, DefaultKey>,
    /// Signals in all of them.
    signals: Size,
    all: Size,
}

impl Place {
    fn counts(self) -> bool {
        matches!(self, Self::Disk | Self::Deferred | Self::Mailbox)
    }
}

impl Queue {
    /// Plain messages that wait for the client.
    pub(super) fn plain(&self) -> Size {
        self.plain
    }

    /// Signals that aren't done.
    pub(super) fn signals(&self) -> Size {
        self.signals
    }

    /// The place of the last message.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether something is to be fetched.
    pub(super) fn has_on_disk(&self) -> bool {
        self.on_disk > 0
    }

    /// The place before the first that is to be fetched.
    pub(super) fn before_disk(&self) -> Option<u64> {
        if self.on_disk == 0 {
            return None;
        }
        self.entries.iter().find(|entry| entry.place == Place::Disk).map(|entry| entry.sequence - 1)
    }

    fn index_of(&self, sequence: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&sequence, |entry| entry.sequence).ok()
    }

    /// The place of which a [`ReceiptSlot`] has the lower half.
    pub(super) fn whole(&self, sequence: u32) -> u64 {
        let back = (self.last as u32).wrapping_sub(sequence);
        self.last.wrapping_sub(u64::from(back))
    }

    /// What is known of a message.
    pub(super) fn entry(&self, sequence: u64) -> Option<&Entry> {
        self.entries.get(self.index_of(sequence)?)
    }

    /// Likewise, of a signal.
    pub(super) fn signal_mut(&mut self, sequence: u64) -> Option<&mut KeptSignal> {
        let at = self.index_of(sequence)?;
        self.entries.get_mut(at)?.signal.as_deref_mut()
    }

    /// Notes where a message is now.
    pub(super) fn set_place(&mut self, sequence: u64, place: Place) {
        if let Some(at) = self.index_of(sequence) {
            self.set_place_at(at, place);
        }
    }

    fn set_place_at(&mut self, at: usize, place: Place) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let old = std::mem::replace(&mut entry.place, place);
        let (bytes, is_plain) = (entry.bytes, entry.signal.is_none());
        self.on_disk -= usize::from(old == Place::Disk);
        self.on_disk += usize::from(place == Place::Disk);
        match (old.counts(), place.counts()) {
            (true, false) if is_plain => self.plain.subtract(bytes),
            (false, true) if is_plain => self.plain.add(bytes),
            _ => {}
        }
    }

    /// What `is_wanted` of the places they are in is to be fetched again.
    pub(super) fn put_back(&mut self, is_wanted: impl Fn(Place) -> bool) {
        for at in 0..self.entries.len() {
            if self.entries.get(at).is_some_and(|entry| is_wanted(entry.place)) {
                self.set_place_at(at, Place::Disk);
            }
        }
    }

    /// The places of those that `is_wanted`.
    pub(super) fn places(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<u64> {
        self.entries.iter().filter(|entry| is_wanted(entry)).map(|entry| entry.sequence).collect()
    }

    /// The first plain message that waits, to make room.
    pub(super) fn oldest_plain(&self) -> Option<u64> {
        let waits = |entry: &&Entry| entry.signal.is_none() && entry.place.counts();
        self.entries.iter().find(waits).map(|entry| entry.sequence)
    }

    /// Whether something came by a share.
    pub(super) fn has_shared(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_shared)
    }

    /// The earliest deadline.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.expires).min()
    }

    /// Forgets a deadline that is over, of a message that is with the client.
    pub(super) fn forget_expiry(&mut self, sequence: u64) {
        if let Some(at) = self.index_of(sequence)
            && let Some(entry) = self.entries.get_mut(at)
        {
            entry.expires = None;
        }
    }
}

impl Queues {
    pub(super) fn get(&self, key: DefaultKey) -> Option<&Queue> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: DefaultKey) -> Option<&mut Queue> {
        self.by_key.get_mut(key)
    }

    pub(super) fn of(&self, client: &str) -> Option<DefaultKey> {
        self.by_client.get(client).copied()
    }

    /// The queue of a client, which it has from now on.
    pub(super) fn ensure(&mut self, client: &Identity) -> DefaultKey {
        if let Some(key) = self.of(client.as_str()) {
            return key;
        }
        let key = self.by_key.insert(Queue {
            client: client.clone(),
            last: 0,
            entries: VecDeque::new(),
            plain: Size::default(),
            signals: Size::default(),
            on_disk: 0,
            fetching: None,
            timer: None,
        });
        self.by_client.insert(client.clone(), key);
        key
    }

    /// Forgets a queue that has nothing.
    pub(super) fn drop_empty(&mut self, key: DefaultKey) -> Option<Queue> {
        if !self.by_key.get(key)?.entries.is_empty() {
            return None;
        }
        let queue = self.by_key.remove(key)?;
        self.by_client.swap_remove(&queue.client);
        Some(queue)
    }

    /// Signals in all queues here.
    pub(super) fn signals(&self) -> Size {
        self.signals
    }

    /// All messages in all queues here.
    pub(super) fn all(&self) -> Size {
        self.all
    }

    /// Appends a message, and gives its place.
    pub(super) fn append(
        &mut self,
        key: DefaultKey,
        bytes: u32,
        place: Place,
        expires: Option<Instant>,
        signal: Option<Box<KeptSignal>>,
        is_shared: bool,
    ) -> Option<u64> {
        let queue = self.by_key.get_mut(key)?;
        let sequence = queue.last + 1;
        self.insert(key, Entry { sequence, bytes, place, expires, is_shared, signal });
        Some(sequence)
    }

    /// Adds a message whose place is known.
    pub(super) fn insert(&mut self, key: DefaultKey, entry: Entry) {
        let Some(queue) = self.by_key.get_mut(key) else { return };
        let Err(at) = queue.entries.binary_search_by_key(&entry.sequence, |entry| entry.sequence) else {
            return;
        };
        let Entry { bytes, place, .. } = entry;
        self.all.add(bytes);
        if entry.signal.is_some() {
            queue.signals.add(bytes);
            self.signals.add(bytes);
        } else if place.counts() {
            queue.plain.add(bytes);
        }
        queue.on_disk += usize::from(place == Place::Disk);
        queue.last = queue.last.max(entry.sequence);
        queue.entries.insert(at, entry);
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, key: DefaultKey, sequence: u64) -> Option<Entry> {
        let queue = self.by_key.get_mut(key)?;
        let at = queue.index_of(sequence)?;
        let entry = queue.entries.remove(at)?;
        self.all.subtract(entry.bytes);
        queue.on_disk -= usize::from(entry.place == Place::Disk);
        if entry.signal.is_some() {
            queue.signals.subtract(entry.bytes);
            self.signals.subtract(entry.bytes);
        } else if entry.place.counts() {
            queue.plain.subtract(entry.bytes);
        }
        if queue.entries.is_empty() && queue.entries.capacity() > 16 {
            queue.entries = VecDeque::new();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_in_whatever_order_messages_move_and_go() {
        let mut queues = Queues::default();
        let key = queues.ensure(&Identity::new("c"));
        let places = [Place::Disk, Place::Deferred, Place::Mailbox, Place::Client, Place::Released];
        let signal = || Some(Box::new(KeptSignal { receipt: None, tracker: None }));
        for (at, &place) in places.iter().enumerate() {
            assert_eq!(queues.append(key, 10, place, None, None, false), Some(2 * at as u64 + 1));
            assert_eq!(queues.append(key, 1, place, None, signal(), false), Some(2 * at as u64 + 2));
        }
        let queue = queues.get_mut(key).unwrap();
        assert_eq!((queue.plain(), queue.signals()), (size(3, 30), size(5, 5)));
        assert_eq!((queue.on_disk, queue.before_disk()), (2, Some(0)));
        queue.set_place(1, Place::Mailbox);
        queue.set_place(2, Place::Client);
        assert_eq!((queue.plain(), queue.before_disk()), (size(3, 30), None));
        queue.put_back(|place| place != Place::Released);
        assert_eq!((queue.plain(), queue.on_disk, queue.oldest_plain()), (size(4, 40), 8, Some(1)));
        assert_eq!(queue.whole(7), 7);
        for sequence in [5, 10, 1, 2, 9, 3, 4, 6, 8, 7] {
            assert!(queues.remove(key, sequence).is_some() && queues.remove(key, sequence).is_none());
        }
        assert_eq!((queues.all(), queues.signals()), (Size::default(), Size::default()));
        assert_eq!(queues.get(key).unwrap().plain(), Size::default());
        assert!(queues.drop_empty(key).is_some() && queues.of("c").is_none());
    }

    #[test]
    fn the_lower_half_of_a_place_tells_it() {
        let mut queues = Queues::default();
        let key = queues.ensure(&Identity::new("c"));
        let last = (1 << 32) + 5;
        queues.insert(
            key,
            Entry {
                sequence: last,
                bytes: 0,
                place: Place::Disk,
                expires: None,
                is_shared: false,
                signal: None,
            },
        );
        let queue = queues.get(key).unwrap();
        assert_eq!(queue.whole(5), last);
        assert_eq!(queue.whole(u32::MAX), (1 << 32) - 1);
    }

    fn size(messages: usize, bytes: usize) -> Size {
        Size { messages, bytes }
    }
}
