//! Frames to the device: acknowledgements, refusals, receipts, deliveries.

use bugle_protocol::{
    Delivery as DeliveryFrame, Frame, Message as MessageFrame, NameKind, NameRef, Receipt, ReceiptEntries,
    ReceiptEntry, Status,
};

use super::{DeviceSession, Phase, Sent, UNWINDOWED, What};
use crate::model::{
    Delivery, Filter, Instant, MessageView, OriginView, QoS, Reason, ReceiptReport, ReceiptSlot, Reception,
    Refusal, Settled,
};

/// Largest body of a receipt's part, in bytes (S8).
const RECEIPT_BODY: usize = 8192;

/// Appends a frame to `out`.
pub(super) fn append(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + frame.encoded_len(), 0);
    if let Some(space) = out.get_mut(start..) {
        // `encoded_len` is what `encode` needs.
        let _ = frame.encode(space);
    }
}

impl DeviceSession {
    /// Appends what waits, refusals before the acknowledgement that covers them.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, _now: Instant) {
        if !self.control.is_empty() {
            out.append(&mut self.control);
            self.control = Vec::new();
        }
        if self.ack_due > 0 && !self.is_closing() {
            append(&Frame::Ack { frames: std::mem::take(&mut self.ack_due) }, out);
        }
    }

    /// A membership or subscription that ended without having been asked to.
    pub(super) fn write_ended(&mut self, filter: &Filter, refusal: &Refusal) {
        // One that is away is told when it is back.
        if !matches!(self.phase, Phase::Connected | Phase::Away) {
            return;
        }
        match filter {
            Filter::Group(group) => {
                self.write_control(&Frame::Error { reason: Reason::Kicked, text: group.as_str() });
            }
            Filter::Topic(filter) => {
                let text = format!("{filter}: {}", refusal.text);
                let mut end = text.len().min(self.terms.max_body - 1);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let text = text.get(..end).unwrap_or_default();
                self.write_control(&Frame::Error { reason: refusal.reason, text });
            }
            Filter::Inbox | Filter::Notices => {}
        }
    }

    /// Whether the device's window has room for a delivery.
    pub fn has_room(&self) -> bool {
        matches!(self.phase, Phase::Connected)
            && self.in_window < self.terms.window
            && self.retained.len() < self.config.limits.mailbox_bytes
    }

    /// Writes a delivery, after the names that it needs.
    pub fn handle_delivery(&mut self, delivery: Delivery, out: &mut Vec<u8>, now: Instant) {
        let message = delivery.outgoing.message.view();
        self.deliver(&message, &delivery.reception, delivery.slot, out, now);
    }

    /// Writes a message, after the names that it needs. Frames name things by this device's own handles, so that there
    /// are no encodings to share.
    pub fn deliver(
        &mut self,
        message: &MessageView<'_>,
        reception: &Reception,
        slot: Option<ReceiptSlot>,
        out: &mut Vec<u8>,
        now: Instant,
    ) {
        // Numbers are given in the order of writing, and what waits has its numbers already.
        out.append(&mut self.control);
        if !matches!(self.phase, Phase::Connected) {
            return;
        }
        let max_body = self.terms.max_body;
        // The longest possible way to write the names decides, so that no name is announced in vain.
        const HEADER: usize = 16;
        let names = match message.origin {
            OriginView::Signal { sender, group, .. } => {
                sender.as_str().len() + group.map_or(0, |group| group.as_str().len())
            }
            OriginView::Topic { topic, .. } => topic.len(),
        };
        if message.payload.len() + names + HEADER > max_body {
            self.settled.extend(slot.map(|slot| (slot, Settled::Final(Status::Overflow))));
            self.counters.oversize += 1;
            return;
        }
        let payload = message.payload;
        match message.origin {
            OriginView::Signal { sender, group, mode, .. } => {
                let group = group.map(|group| self.name(NameKind::Group, group.as_str(), out));
                let sender = self.name(NameKind::Client, sender.as_str(), out);
                let deadline = message.deadline.map(|deadline| {
                    // Compared modulo 2^32, so never more than half of that ahead.
                    let ahead = deadline.millis_since(now).min(i32::MAX as u64);
                    (now + ahead).as_millis() as u32
                });
                let urgent = message.urgent;
                let frame = DeliveryFrame { mode, urgent, group, sender, deadline, payload };
                self.append_numbered(&Frame::Delivery(frame), What::Payload(slot), out);
            }
            OriginView::Topic { topic, retain } => {
                let at_least_once = message.qos.min(reception.qos) != QoS::AtMostOnce;
                let topic = self.name(NameKind::Topic, topic, out);
                let retained = retain && reception.retain_as_published;
                let frame = MessageFrame { at_least_once, retained, topic, payload };
                self.append_numbered(&Frame::Message(frame), What::Payload(slot), out);
            }
        }
        self.in_window += 1;
        self.settled.extend(slot.map(|slot| (slot, Settled::Written)));
    }

    fn name<'a>(&mut self, kind: NameKind, name: &'a str, out: &mut Vec<u8>) -> NameRef<'a> {
        let (reference, announce) = self.announcer.refer(kind, name);
        if let Some(handle) = announce {
            self.append_numbered(&Frame::Name { handle, kind, name }, What::Other, out);
        }
        reference
    }

    /// Appends a numbered frame, and keeps it if it may have to be sent again.
    fn append_numbered(&mut self, frame: &Frame<'_>, what: What, out: &mut Vec<u8>) {
        let start = out.len();
        append(frame, out);
        let mut bytes = 0;
        if self.keeps_frames() {
            bytes = (out.len() - start) as u32;
            self.retained.extend(out.get(start..).unwrap_or_default());
        }
        self.sent = self.sent.wrapping_add(1);
        self.unacknowledged.push_back(Sent { what, bytes });
        if self.retained.len() > self.config.limits.mailbox_bytes.saturating_mul(2) {
            // Deliveries wait before it comes to that; outcomes that the device doesn't take note of can't.
            self.give_up_resuming();
            self.counters.resumes_given_up += 1;
        }
        if self.unacknowledged.len() > UNWINDOWED + usize::from(u16::MAX) {
            self.bye(Reason::WindowExceeded, "too many frames that the device doesn't acknowledge");
        }
    }

    /// The device's frame `number` is done with; acknowledgements go out in order.
    pub(super) fn finish(&mut self, number: u32) {
        let first = self.received.wrapping_sub(self.unfinished.len() as u32);
        if let Some(frame) = self.unfinished.get_mut(number.wrapping_sub(first) as usize) {
            frame.done = true;
        }
        while self.unfinished.front().is_some_and(|frame| frame.done) {
            self.unfinished.pop_front();
            self.ack_due += 1;
        }
    }

    pub(super) fn refuse(&mut self, number: u32, refusal: &Refusal) {
        let retry_after = refusal.retry_after.unwrap_or(0);
        let frame = Frame::Refused {
            number: number as u16,
            reason: refusal.reason,
            retry_after,
            text: self.fitting(&refusal.text),
        };
        self.write_numbered(&frame);
        self.finish(number);
    }

    /// Writes a refusal or receipt; without a connection it is only kept, to be written when the device is back.
    fn write_numbered(&mut self, frame: &Frame<'_>) {
        let mut control = std::mem::take(&mut self.control);
        let length = control.len();
        self.append_numbered(frame, What::Other, &mut control);
        if !matches!(self.phase, Phase::Connected) {
            control.truncate(length);
        }
        self.control = control;
    }

    /// As much of a text for people as surely fits the device's limit.
    fn fitting<'a>(&self, text: &'a str) -> &'a str {
        let mut end = text.len().min(bugle_protocol::MIN_DEVICE_BODY - 16);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        &text[..end]
    }

    /// A receipt, in parts that fit the device (S8).
    pub(super) fn write_receipt(&mut self, report: &ReceiptReport) {
        if !matches!(self.phase, Phase::Connected) && !self.is_resumable() {
            return;
        }
        const HEADER: usize = 64;
        let room = self.terms.max_body.min(RECEIPT_BODY) - HEADER;
        let mut entries = Vec::new();
        let mut parts = Vec::new();
        let mut used = 0;
        for (client, status) in &report.entries {
            let size = client.as_str().len() + 4;
            if used + size > room && !entries.is_empty() {
                parts.push(std::mem::take(&mut entries));
                used = 0;
            }
            used += size;
            entries.push(ReceiptEntry { client: NameRef::Inline(client.as_str()), status: *status });
        }
        parts.push(entries);
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            let receipt = Receipt {
                number: report.request.0 as u16,
                interim: report.interim,
                more: index < last,
                duplicate: report.duplicate,
                counts: report.counts,
                entries: ReceiptEntries::new(part),
            };
            self.write_numbered(&Frame::Receipt(receipt));
        }
    }
}
