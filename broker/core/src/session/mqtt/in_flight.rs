//! Publishes on their way to the client that it hasn't acknowledged, by packet identifier.
//!
//! An identifier is an index: giving one out, and finding what an acknowledgement is about, take constant
//! time, in whatever order acknowledgements come. When nothing is on its way it holds no memory to speak of.

use std::num::NonZeroU16;

use crate::model::ReceiptSlot;

/// The publishes on their way, at most `limit`.
#[derive(Debug)]
pub(super) struct InFlight {
    /// That with identifier n at n - 1.
    entries: Vec<Option<Entry>>,
    count: usize,
    /// Where to look for a free place first.
    next: usize,
    limit: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Who waits to hear of it.
    pub(super) slot: Option<ReceiptSlot>,
    /// What the client has to answer.
    pub(super) stage: Stage,
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
        Self { entries: Vec::new(), count: 0, next: 0, limit: 0 }
    }

    /// Sets the client's receive maximum.
    pub(super) fn set_limit(&mut self, limit: u16) {
        self.limit = limit.into();
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    /// Takes a free identifier, if the window has one.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<NonZeroU16> {
        if self.is_full() {
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

    /// Frees the identifier if this is what is awaited for it.
    pub(super) fn remove(&mut self, id: NonZeroU16, stage: Stage) -> Option<Entry> {
        let place = self.entries.get_mut(usize::from(id.get()) - 1)?;
        let entry = place.take_if(|entry| entry.stage == stage)?;
        self.count -= 1;
        if self.count == 0 && self.entries.len() > KEPT {
            self.entries = Vec::new();
            self.next = 0;
        }
        Some(entry)
    }

    /// Ends all of them and gives those whose outcome is still open.
    pub(super) fn take_unsettled(&mut self) -> impl Iterator<Item = ReceiptSlot> {
        self.count = 0;
        self.next = 0;
        let entries = std::mem::take(&mut self.entries).into_iter().flatten();
        entries.filter(|entry| entry.stage != Stage::Complete).filter_map(|entry| entry.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_the_window_holds_in_any_order_of_acknowledgement() {
        let mut window = InFlight::new();
        window.set_limit(40);
        let entry = Entry { slot: None, stage: Stage::Acknowledge };
        let mut taken = Vec::new();
        for round in 0..500_usize {
            while let Some(id) = window.insert(entry) {
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
