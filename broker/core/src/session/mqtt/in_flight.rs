//! Publishes on their way to the client that it hasn't acknowledged, by packet identifier.
//!
//! An identifier is an index: giving one out, and finding what an acknowledgement is about, take constant
//! time, in whatever order acknowledgements come. When nothing is on its way it holds no memory to speak of.
//!
//! A session that outlives its connection keeps what was written, and writes it again in the same order when
//! its client is back [MQTT-4.4.0-1] [MQTT-4.6.0-1].
//!
//! What is in a queue of the store at QoS 2 is *held* where a crash could make the client take it twice: it is written
//! when the store knows its identifier, and released when the store knows that the client has it.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::model::{Delivery, ReceiptSlot, Settled, ShareId, Status};

/// The publishes on their way, at most `limit`.
#[derive(Debug)]
pub(super) struct InFlight {
    /// That with identifier n at n - 1.
    entries: Vec<Option<Entry>>,
    count: usize,
    /// Of what is kept.
    bytes: usize,
    /// Where to look for a free place first.
    next: usize,
    limit: usize,
    /// Beyond it nothing more is kept, but one message always is.
    byte_limit: usize,
    /// Numbers what is kept.
    order: u64,
    /// What is still to be written again on this connection.
    resends: VecDeque<NonZeroU16>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Entry {
    /// Who waits to hear of it.
    slot: Option<ReceiptSlot>,
    /// What the client has to answer.
    pub(super) stage: Stage,
    /// The store is to know of it before the next step.
    held: bool,
    /// What is written again after the connection was lost.
    kept: Option<Box<Kept>>,
}

/// What is kept of a publish on its way.
#[derive(Debug)]
struct Kept {
    order: u64,
    /// It was written to the client before.
    written: bool,
    /// None once the client has it, and only PUBREL is to be repeated.
    delivery: Option<Delivery>,
}

/// What is to be written again.
#[derive(Debug)]
pub(super) enum Resend {
    /// The PUBLISH, and whether it is to be marked as a duplicate.
    Publish(Delivery, bool),
    /// The PUBREL.
    Release,
}

impl Kept {
    fn size(&self) -> usize {
        self.delivery.as_ref().map_or(0, Delivery::size)
    }
}

impl Entry {
    /// A publish that is forgotten with its connection.
    pub(super) fn new(stage: Stage, slot: Option<ReceiptSlot>) -> Self {
        Self { slot, stage, held: false, kept: None }
    }

    /// Whether the store is to know of it before the next step.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Who waits to hear of it.
    pub(super) fn slot(&self) -> Option<ReceiptSlot> {
        self.slot
    }

    /// Takes who waits to hear of it.
    pub(super) fn take_slot(&mut self) -> Option<ReceiptSlot> {
        self.slot.take()
    }
}

/// What is awaited from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// PUBACK, for QoS 1.
    Acknowledge,
    /// PUBREC, for QoS 2.
    Receive,
    /// PUBCOMP: the receipt is settled, only the identifier is still taken.
    Complete,
}

/// Places that stay allocated while nothing is on its way.
const KEPT: usize = 16;

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            count: 0,
            bytes: 0,
            next: 0,
            limit: 0,
            byte_limit: 0,
            order: 0,
            resends: VecDeque::new(),
        }
    }

    /// Sets the client's receive maximum, and how many bytes are kept at most for another connection.
    pub(super) fn set_limit(&mut self, limit: u16, bytes: usize) {
        (self.limit, self.byte_limit) = (limit.into(), bytes);
    }

    /// Bytes of what is kept for another connection.
    pub(super) fn kept_bytes(&self) -> usize {
        self.bytes
    }

    /// The client's receive maximum.
    pub(super) fn limit(&self) -> u16 {
        u16::try_from(self.limit).unwrap_or(u16::MAX)
    }

    /// Whether the client has as many to acknowledge as it takes, or as are kept. What waits to be written again isn't with it.
    pub(super) fn is_full(&self) -> bool {
        self.count.saturating_sub(self.resends.len()) >= self.limit
            || (self.bytes > self.byte_limit && self.resends.is_empty())
    }

    /// Whether something is to be written again, before anything new.
    pub(super) fn has_resends(&self) -> bool {
        !self.resends.is_empty()
    }

    /// Takes a free identifier, if the window has one.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<NonZeroU16> {
        if self.is_full() || self.has_resends() {
            return None;
        }
        let index = if self.count == self.entries.len() {
            self.entries.push(None);
            self.entries.len() - 1
        } else {
            let length = self.entries.len();
            (self.next..length).chain(0..self.next.min(length)).find(|&at| self.entries[at].is_none())?
        };
        let id = NonZeroU16::new(u16::try_from(index + 1).ok()?)?;
        *self.entries.get_mut(index)? = Some(entry);
        self.count += 1;
        self.next = index + 1;
        Some(id)
    }

    pub(super) fn entry_mut(&mut self, id: NonZeroU16) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(id.get()) - 1)?.as_mut()
    }

    /// Keeps what was written under this identifier for another connection.
    pub(super) fn keep(&mut self, id: NonZeroU16, delivery: Delivery) {
        self.keep_as(id, delivery, true);
    }

    /// Keeps what is to be written under this identifier once the store knows it.
    pub(super) fn hold(&mut self, id: NonZeroU16, delivery: Delivery) {
        self.keep_as(id, delivery, false);
        if let Some(entry) = self.entry_mut(id) {
            entry.held = true;
        }
    }

    fn keep_as(&mut self, id: NonZeroU16, delivery: Delivery, written: bool) {
        self.order += 1;
        let (order, size) = (self.order, delivery.size());
        let Some(entry) = self.entry_mut(id) else { return };
        let kept = Box::new(Kept { order, written, delivery: Some(delivery) });
        let before = entry.kept.replace(kept).map_or(0, |before| before.size());
        self.bytes = self.bytes + size - before;
    }

    /// The client has it: what remains is PUBREL and its answer.
    pub(super) fn release(&mut self, id: NonZeroU16) {
        self.order += 1;
        let order = self.order;
        let Some(entry) = self.entry_mut(id) else { return };
        entry.stage = Stage::Complete;
        if let Some(kept) = &mut entry.kept {
            let size = kept.size();
            **kept = Kept { order, written: true, delivery: None };
            self.bytes -= size;
        }
    }

    /// Likewise, but PUBREL is to wait until the store knows.
    pub(super) fn release_held(&mut self, id: NonZeroU16) {
        self.release(id);
        if let Some(entry) = self.entry_mut(id) {
            entry.held = true;
        }
    }

    /// The store knows what it had to. True: the next step is due, if there is a connection.
    pub(super) fn proceed(&mut self, id: NonZeroU16, is_open: bool) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        let due = std::mem::replace(&mut entry.held, false) && is_open;
        if due {
            self.resends.push_back(id);
        }
        due
    }

    /// Takes what the store knew of before the gateway started, under the same identifier.
    pub(super) fn restore(&mut self, id: NonZeroU16, delivery: Delivery, stage: Stage) {
        let index = usize::from(id.get()) - 1;
        while self.entries.len() <= index {
            self.entries.push(None);
        }
        let slot = delivery.slot;
        if let Some(place) = self.entries.get_mut(index)
            && place.is_none()
        {
            *place = Some(Entry::new(stage, slot));
            self.count += 1;
            self.keep(id, delivery);
            if stage == Stage::Complete {
                self.release(id);
            }
        }
    }

    /// Takes what waits for its PUBACK out again, in the order in which it was written: the session ends.
    pub(super) fn take_unacknowledged(&mut self) -> Vec<Delivery> {
        self.take_where(|_| true)
    }

    /// Takes out what waits for its PUBACK and came through a share that `is_wanted` names: it goes to another member.
    pub(super) fn take_shared(&mut self, is_wanted: impl Fn(ShareId) -> bool) -> Vec<Delivery> {
        self.take_where(|delivery| delivery.share.is_some_and(&is_wanted))
    }

    fn take_where(&mut self, is_wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for place in &mut self.entries {
            let is_taken = |entry: &mut Entry| {
                entry.stage == Stage::Acknowledge
                    && entry.kept.as_ref().and_then(|kept| kept.delivery.as_ref()).is_some_and(&is_wanted)
            };
            if let Some(Entry { kept: Some(kept), .. }) = place.take_if(is_taken) {
                self.count -= 1;
                self.bytes -= kept.size();
                taken.extend(kept.delivery.map(|delivery| (kept.order, delivery)));
            }
        }
        taken.sort_by_key(|(order, _)| *order);
        taken.into_iter().map(|(_, delivery)| delivery).collect()
    }

    /// What is kept is to be written again, in the order in which it was written first.
    pub(super) fn begin_resends(&mut self) {
        let mut ids: Vec<_> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let entry = entry.as_ref().filter(|entry| !entry.held)?;
                let order = entry.kept.as_ref()?.order;
                Some((order, NonZeroU16::new(u16::try_from(index + 1).ok()?)?))
            })
            .collect();
        ids.sort_unstable();
        self.resends = ids.into_iter().map(|(_, id)| id).collect();
    }

    /// The next of these, if the client takes it now.
    pub(super) fn next_resend(&mut self) -> Option<(NonZeroU16, Resend)> {
        while let Some(&id) = self.resends.front() {
            let is_full = self.is_full();
            let resend = match self.entry_mut(id) {
                Some(Entry { stage: Stage::Complete, .. }) => Some(Resend::Release),
                Some(_) if is_full => return None,
                Some(Entry { kept: Some(kept), .. }) => {
                    let again = std::mem::replace(&mut kept.written, true);
                    kept.delivery.clone().map(|delivery| Resend::Publish(delivery, again))
                }
                _ => None,
            };
            self.resends.pop_front();
            if let Some(resend) = resend {
                return Some((id, resend));
            }
        }
        self.resends = VecDeque::new();
        None
    }

    /// Forgets what was written under this identifier. True: the client has to be told, and has the identifier until it
    /// answers.
    pub(super) fn forget_unreleased(&mut self, id: NonZeroU16) -> bool {
        match self.entry_mut(id).map(|entry| entry.stage) {
            Some(Stage::Receive) => {
                self.release(id);
                true
            }
            Some(stage) => {
                self.remove(id, stage);
                false
            }
            None => false,
        }
    }

    /// Frees the identifier if this is what is awaited for it.
    pub(super) fn remove(&mut self, id: NonZeroU16, stage: Stage) -> Option<Entry> {
        let place = self.entries.get_mut(usize::from(id.get()) - 1)?;
        let entry = place.take_if(|entry| entry.stage == stage)?;
        self.count -= 1;
        self.bytes -= entry.kept.as_ref().map_or(0, |kept| kept.size());
        if self.has_resends() {
            // Acknowledged before it was written again: the client remembers more than it had said.
            self.resends.retain(|resend| *resend != id);
        }
        if self.count == 0 && self.entries.len() > KEPT {
            self.entries = Vec::new();
            self.next = 0;
        }
        Some(entry)
    }

    /// The connection is gone: gives what became of those whose outcome is still open, and forgets what isn't kept.
    pub(super) fn end_connection(&mut self) -> Vec<(ReceiptSlot, Settled)> {
        self.resends = VecDeque::new();
        let mut settled = Vec::new();
        for place in &mut self.entries {
            let Some(entry) = place else { continue };
            let is_kept = entry.kept.is_some();
            // What is kept stays in its queue as well.
            let slot = entry.slot.take_if(|slot| !(is_kept && slot.is_queue()));
            let status = match entry.stage {
                Stage::Acknowledge | Stage::Receive => Some(Status::Unconfirmed),
                Stage::Complete => slot.filter(|slot| slot.is_queue()).map(|_| Status::Delivered),
            };
            settled.extend(slot.zip(status).map(|(slot, status)| (slot, Settled::Final(status))));
            if !is_kept {
                *place = None;
                self.count -= 1;
            }
        }
        if self.count == 0 {
            self.entries = Vec::new();
            self.next = 0;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_the_window_holds_in_any_order_of_acknowledgement() {
        let mut window = InFlight::new();
        window.set_limit(40, 0);
        let mut taken = Vec::new();
        for round in 0..500_usize {
            while let Some(id) = window.insert(Entry::new(Stage::Acknowledge, None)) {
                assert!(!taken.contains(&id));
                taken.push(id);
            }
            assert_eq!(taken.len(), 40);
            for _ in 0..=round * 7 % 40 {
                let id = taken.swap_remove(round * 13 % taken.len());
                assert!(window.remove(id, Stage::Complete).is_none());
                assert!(window.remove(id, Stage::Acknowledge).is_some());
                assert!(window.remove(id, Stage::Acknowledge).is_none());
            }
        }
    }
}
