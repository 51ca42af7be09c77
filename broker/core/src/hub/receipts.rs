//! The recipients' side of receipts: what became of one signal at each recipient of this shard (S8).

use slotmap::DefaultKey;

use super::timers::Timer;
use super::{ConnectionKey, SendKey, Shard};
use crate::backbone::{Backbone, PeerMessage, ShardIndex, ShardReport};
use crate::model::{ClientId, Delivery, Instant, Origin, ReceiptMode, ReceiptSlot, Settled, Status};

/// Above this many recipients only those not DELIVERED are named (S8).
pub(super) const NAMED: usize = 128;

/// The open receipt of one signal on this shard.
pub(super) struct Tracker {
    /// The sender's shard.
    origin: ShardIndex,
    send: SendKey,
    receipt: ReceiptMode,
    /// When the receipt closes, if that is in the queue of timers.
    pub(super) closes: Option<Instant>,
    /// Past it, what is still in a mailbox is EXPIRED.
    deadline: Option<Instant>,
    recipients: Vec<Recipient>,
    open: usize,
}

struct Recipient {
    client: ClientId,
    progress: Progress,
    /// It is in its queue until it is final.
    stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// In the mailbox.
    Waiting,
    /// Written, not acknowledged.
    Written,
    /// The device said that it is done with it, and hasn't refused it so far.
    Taken,
    Final(Status),
}

impl Tracker {
    pub(super) fn new(
        origin: ShardIndex,
        send: SendKey,
        receipt: ReceiptMode,
        deadline: Option<Instant>,
    ) -> Self {
        Self { origin, send, receipt, deadline, closes: None, recipients: Vec::new(), open: 0 }
    }

    /// Notes a recipient whose mailbox is about to be tried, and says where it stands.
    pub(super) fn add_waiting(&mut self, client: ClientId) -> u32 {
        self.open += 1;
        self.recipients.push(Recipient { client, progress: Progress::Waiting, stored: false });
        (self.recipients.len() - 1) as u32
    }

    /// Notes a recipient that gets it at once, and for whom it is kept until it has it. `key`: this tracker's.
    pub(super) fn add_stored(&mut self, key: DefaultKey, client: ClientId) -> ReceiptSlot {
        self.open += 1;
        let index = self.recipients.len() as u32;
        self.recipients.push(Recipient { client, progress: Progress::Waiting, stored: true });
        ReceiptSlot::Tracker { tracker: key, index }
    }

    /// Notes a recipient that never got as far as a mailbox.
    pub(super) fn add_final(&mut self, client: ClientId, status: Status) {
        self.recipients.push(Recipient { client, progress: Progress::Final(status), stored: false });
    }

    /// Takes a settlement; a second final one is nothing.
    pub(super) fn settle(&mut self, index: u32, settled: Settled) {
        let Some(Recipient { progress, .. }) = self.recipients.get_mut(index as usize) else { return };
        match (*progress, settled) {
            (Progress::Final(_), _) => {}
            (_, Settled::Written) => *progress = Progress::Written,
            (_, Settled::Taken) => *progress = Progress::Taken,
            (_, Settled::Received(_)) => {}
            (_, Settled::Unanswerable) => self.end(index, Status::Unconfirmed),
            (_, Settled::Final(status)) => self.end(index, status),
        }
    }

    fn end(&mut self, index: u32, status: Status) {
        if let Some(recipient) = self.recipients.get_mut(index as usize) {
            recipient.progress = Progress::Final(status);
            self.open -= 1;
        }
    }

    pub(super) fn is_final(&self) -> bool {
        self.open == 0
    }

    /// The report, every recipient with one final status. What is still open at the time when the receipt
    /// closes was either written, and nobody knows, or it is past its deadline in the mailbox.
    pub(super) fn report(&self, now: Instant) -> ShardReport {
        let mut report = ShardReport::default();
        let past = self.deadline.is_some_and(|deadline| deadline <= now);
        let name_all = self.recipients.len() <= NAMED;
        for Recipient { client, progress, stored } in &self.recipients {
            let status = match progress {
                Progress::Final(status) => *status,
                _ if *stored && !past => Status::Queued,
                Progress::Waiting if past => Status::Expired,
                // The device may have dropped it as late, and not have said so yet.
                Progress::Waiting | Progress::Written | Progress::Taken => Status::Unconfirmed,
            };
            report.counts.add(status, 1);
            if self.receipt == ReceiptMode::Each && (name_all || status != Status::Delivered) {
                report.entries.push((client.clone(), status));
            }
        }
        report
    }
}

impl Shard {
    /// Collects what a session has to tell: of its end, of what it dropped, and of its deliveries.
    pub(super) fn settle(&mut self, key: ConnectionKey, now: Instant) {
        if let Some(client) = self.clients.get_mut(key) {
            let fault = client.session.poll_fault();
            if let Some(reason) = fault {
                self.counters.count_refusal(reason);
            }
            if let Some(counted) = client.session.take_counters() {
                self.counters.count_session(&counted);
            }
            client.weigh(&mut self.counters.waiting_bytes);
            if let Some(reason) = fault {
                self.note_fault(key, reason);
            }
        }
        while let Some(client) = self.clients.get_mut(key) {
            let Some((slot, settled)) = client.session.poll_settled() else { break };
            self.settle_slot(slot, settled, now);
        }
    }

    /// Whether a receipt still waits for it.
    pub(super) fn is_tracked(&self, slot: ReceiptSlot) -> bool {
        matches!(slot, ReceiptSlot::Tracker { tracker, .. } if self.trackers.contains_key(tracker))
    }

    pub(super) fn settle_slot(&mut self, slot: ReceiptSlot, settled: Settled, now: Instant) {
        let (key, index) = match slot {
            ReceiptSlot::Tracker { tracker, index } => (tracker, index),
            ReceiptSlot::Queue { queue, sequence } => return self.settle_kept(queue, sequence, settled, now),
        };
        if let Some(tracker) = self.trackers.get_mut(key) {
            tracker.settle(index, settled);
            if tracker.is_final() {
                self.finish_tracker(key, now);
            }
        }
    }

    /// Reports a receipt: because every recipient is final, or because it closes, at its ttl or after 10 s. One
    /// that was reported before is nothing.
    pub(super) fn finish_tracker(&mut self, key: DefaultKey, now: Instant) {
        let Some(tracker) = self.trackers.remove(key) else { return };
        if let Some(closes) = tracker.closes {
            self.timers.remove(closes, Timer::Receipt(key));
        }
        let report = tracker.report(now);
        for &status in Status::ALL {
            self.counters.count_status(status, report.counts.count(status).into());
        }
        let send = tracker.send;
        if tracker.origin == self.index {
            self.handle_finished(send, report, now);
        } else {
            self.backbone.forward(tracker.origin, PeerMessage::Finished { send, report });
        }
    }

    /// A delivery that isn't going to be written: it is counted, and whoever waits hears of it.
    pub(super) fn drop_delivery(&mut self, delivery: &Delivery, status: Status, now: Instant) {
        match (delivery.slot, &delivery.outgoing.message.origin) {
            (Some(slot), _) => self.settle_slot(slot, Settled::Final(status), now),
            (None, Origin::Signal { .. }) if delivery.observed => self.counters.observations_dropped += 1,
            (None, Origin::Signal { .. }) => self.counters.count_status(status, 1),
            (None, Origin::Topic { .. }) => match status {
                Status::Expired => self.counters.publishes_expired += 1,
                Status::Offline => self.counters.publishes_abandoned += 1,
                _ => self.counters.publishes_overflowed += 1,
            },
        }
    }
}
