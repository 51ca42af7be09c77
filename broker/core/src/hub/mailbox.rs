//! What waits for one recipient: bounded in messages and bytes, urgent before the rest (S16).

use std::collections::VecDeque;

use crate::model::{Delivery, Instant, ShareId};

/// The queue of one recipient.
#[derive(Debug, Default)]
pub struct Mailbox {
    urgent: VecDeque<Delivery>,
    normal: VecDeque<Delivery>,
    /// What comes after messages of the recipient's queue that aren't here yet, each with the place of the last of those
    /// before it; none while there are none. Boxed, since it is rare.
    #[expect(clippy::box_collection, reason = "a quarter of the room where there is none")]
    behind: Option<Box<VecDeque<(u64, Delivery)>>>,
    bytes: usize,
}

impl Mailbox {
    /// Takes `delivery`, or gives it back when the mailbox has that many messages or bytes: that is OVERFLOW for
    /// the new one.
    ///
    /// One message fits an empty mailbox whatever its size, which the longest packet bounds.
    /// The urgent lane has the same bounds for itself, so that what isn't urgent can't shut it.
    pub fn try_push(&mut self, delivery: Delivery, messages: usize, bytes: usize) -> Result<(), Delivery> {
        let size = delivery.size();
        let urgent = delivery.outgoing.message.urgent;
        let lane = if urgent { &mut self.urgent } else { &mut self.normal };
        if lane.len() >= messages || (!urgent && !lane.is_empty() && self.bytes + size > bytes) {
            return Err(delivery);
        }
        self.bytes += size;
        lane.push_back(delivery);
        Ok(())
    }

    /// Takes what comes after place `after` of the recipient's queue, of which not all is here; within the same bounds.
    pub fn try_push_behind(
        &mut self,
        after: u64,
        delivery: Delivery,
        messages: usize,
        bytes: usize,
    ) -> Result<(), Delivery> {
        let size = delivery.size();
        let behind = self.behind.get_or_insert_default();
        if behind.len() >= messages || (!behind.is_empty() && self.bytes + size > bytes) {
            return Err(delivery);
        }
        self.bytes += size;
        behind.push_back((after, delivery));
        Ok(())
    }

    /// Takes the next message of the recipient's queue in the store, whose window is bounded elsewhere, and what was to come
    /// before its place.
    pub fn push_kept(&mut self, place: u64, delivery: Delivery) {
        self.admit_behind(place);
        self.bytes += delivery.size();
        let urgent = delivery.outgoing.message.urgent;
        let lane = if urgent { &mut self.urgent } else { &mut self.normal };
        lane.push_back(delivery);
    }

    /// More of that queue is to come before anything else that isn't urgent.
    pub fn hold(&mut self) {
        self.behind.get_or_insert_default();
    }

    /// Whether it is so.
    pub fn is_holding(&self) -> bool {
        self.behind.is_some()
    }

    /// What was to come before this place has come.
    fn admit_behind(&mut self, place: u64) {
        while let Some(behind) = &mut self.behind
            && behind.front().is_some_and(|(after, _)| *after < place)
            && let Some((_, delivery)) = behind.pop_front()
        {
            self.normal.push_back(delivery);
        }
    }

    /// All of that queue has come.
    pub fn release(&mut self) {
        self.admit_behind(u64::MAX);
        self.behind = None;
    }

    /// Whether nothing waits, nor is to come first.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.behind.is_none()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that this takes, as if no other mailbox shared the messages.
    pub fn weight(&self) -> usize {
        let behind = self.behind.as_ref().map_or(0, |behind| behind.len());
        self.bytes + (self.len() + behind) * size_of::<Delivery>()
    }

    /// The next delivery, urgent ones first.
    pub fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.urgent.pop_front().or_else(|| self.normal.pop_front())?;
        self.bytes -= delivery.size();
        if self.normal.is_empty() && self.urgent.is_empty() && self.normal.capacity() > 16 {
            // An idle recipient costs no buffer.
            (self.urgent, self.normal) = Default::default();
        }
        Some(delivery)
    }

    /// Takes out what came through this share.
    pub fn take_share(&mut self, share: ShareId) -> Vec<Delivery> {
        let (taken, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.normal).into_iter().partition(|delivery| delivery.share == Some(share));
        self.normal = waiting;
        self.bytes -= taken.iter().map(Delivery::size).sum::<usize>();
        taken.into()
    }

    /// Takes out all that are past their deadline, so that they don't crowd out what can still be in time.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Delivery> {
        let mut expired = Vec::new();
        for lane in [&mut self.urgent, &mut self.normal] {
            // Usually the oldest expire first, but a later one may have the smaller ttl.
            if lane.iter().any(|delivery| delivery.is_expired(now)) {
                let (past, waiting) =
                    std::mem::take(lane).into_iter().partition(|d: &Delivery| d.is_expired(now));
                *lane = waiting;
                let past: VecDeque<Delivery> = past;
                expired.extend(past);
            }
        }
        if let Some(behind) = &mut self.behind {
            let all = std::mem::take(&mut **behind);
            let (past, waiting): (VecDeque<_>, VecDeque<_>) =
                all.into_iter().partition(|(_, delivery)| delivery.is_expired(now));
            **behind = waiting;
            expired.extend(past.into_iter().map(|(_, delivery)| delivery));
        }
        self.bytes -= expired.iter().map(Delivery::size).sum::<usize>();
        expired
    }

    /// All that waits, urgent ones first.
    pub fn into_deliveries(self) -> impl Iterator<Item = Delivery> {
        let behind = self.behind.map(|behind| *behind).unwrap_or_default().into_iter();
        self.urgent.into_iter().chain(self.normal).chain(behind.map(|(_, delivery)| delivery))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.urgent.len() + self.normal.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.normal.is_empty()
    }
}
