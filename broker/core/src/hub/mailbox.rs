//! What waits for one recipient: bounded in messages and bytes, urgent before the rest (S16).

use std::collections::VecDeque;

use crate::model::{Delivery, Instant, ShareId};

/// The queue of one recipient.
#[derive(Debug, Default)]
pub struct Mailbox {
    urgent: VecDeque<Delivery>,
    normal: VecDeque<Delivery>,
    bytes: usize,
}

impl Mailbox {
    /// Takes `delivery`, or gives it back when the mailbox has that many messages or bytes: that is OVERFLOW for
    /// the new one.
    ///
    /// One message fits an empty mailbox whatever its size, which the longest packet bounds.
    /// The urgent lane has the same bounds for itself, so that what isn't urgent can't shut it.
    pub fn try_push(&mut self, delivery: Delivery, messages: usize, bytes: usize) -> Result<(), Delivery> {
        let size = size(&delivery);
        let urgent = delivery.outgoing.message.urgent;
        let lane = if urgent { &mut self.urgent } else { &mut self.normal };
        if lane.len() >= messages || (!urgent && !lane.is_empty() && self.bytes + size > bytes) {
            return Err(delivery);
        }
        self.bytes += size;
        lane.push_back(delivery);
        Ok(())
    }

    /// The next delivery, urgent ones first.
    pub fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.urgent.pop_front().or_else(|| self.normal.pop_front())?;
        self.bytes -= size(&delivery);
        if self.is_empty() && self.normal.capacity() > 16 {
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
        self.bytes -= taken.iter().map(size).sum::<usize>();
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
        self.bytes -= expired.iter().map(size).sum::<usize>();
        expired
    }

    /// All that waits, urgent ones first.
    pub fn into_deliveries(self) -> impl Iterator<Item = Delivery> {
        self.urgent.into_iter().chain(self.normal)
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

/// What a delivery costs the mailbox, in bytes.
fn size(delivery: &Delivery) -> usize {
    let message = &delivery.outgoing.message;
    message.payload.len() + message.properties.len()
}
