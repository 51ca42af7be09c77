//! What a sender hears on `{prefix}/r/{me}`: receipts and refusals, as JSON (T3, T4).
//!
//! A receipt says what became of a send. `id` is the sender's own id for it, `packet_id` the PUBLISH's; either
//! may be null. `duplicate` is there, and true, if the id was seen before: this is what became of the first send
//! with it. `counts` has the statuses that occurred. While `final` is false some recipients are QUEUED and
//! another receipt will follow. `statuses` is there with `receipt=each`; of more than 128 recipients those
//! that are DELIVERED aren't named. It may come in `parts`, each at most 8 KiB, numbered by `part` from 1, all
//! of them with the same counts.
//!
//! ```json
//! {"type":"receipt","id":"m-1","packet_id":7,"target":{"group":"floor3"},
//!  "counts":{"delivered":1,"offline":1},"final":true,"part":1,"parts":1,
//!  "statuses":{"lamp-1":"DELIVERED","lamp-2":"OFFLINE"}}
//! ```
//!
//! A refusal says why a publish or a subscription was not accepted. `retry_after_ms` is there if it is known
//! when it might be; `topic` is that of the publish without its options (as given, shortened to 256 bytes, if
//! it could not be understood), or the filter; `id` and `topic` may be null.
//!
//! ```json
//! {"type":"refusal","code":"RATE_LIMITED","reason":"over 100 signals a second","packet_id":7,"id":"m-1",
//!  "topic":"sig/g/floor3","retry_after_ms":40}
//! ```
//!
//! An end says that a subscription has ended that was accepted before, since the rules have changed: nothing more comes on
//! `topic`, until the client subscribes again and is let.
//!
//! ```json
//! {"type":"ended","code":"NOT_AUTHORIZED","reason":"the rules don't allow it any more","topic":"sig/g/floor3"}
//! ```
//!
//! Readers should ignore fields and types that they don't know. Up to 256 notices wait for a slow client;
//! beyond that the newest is dropped and counted.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::connect::packet_id;
use super::in_flight::{Entry, Stage};
use super::{MqttSession, passthrough};
use crate::model::{
    About, ClientId, Delivery, Identity, Message, Origin, Outgoing, QoS, ReceiptMode, ReceiptReport,
    Reception, Refusal, RequestId, Status, Target,
};
use crate::mqtt::{Packet, Properties, Property, PropertyWriter, Publish, encode};

/// Notices that may wait.
const QUEUED: usize = 256;
/// Bytes of one notice.
const PART: usize = 8 * 1024;

impl MqttSession {
    /// Whether the client has subscribed to its notices.
    pub(super) fn wants_notices(&self) -> bool {
        self.state.notice_reception.is_some()
    }

    pub(super) fn notify_receipt(&mut self, report: &ReceiptReport) {
        if !self.wants_notices() {
            return;
        }
        let target = match &report.target {
            Target::Client(client) => json!({ "client": client.as_str() }),
            Target::Group { group, .. } => json!({ "group": group.as_str() }),
        };
        let counts: Map<String, Value> = Status::ALL
            .iter()
            .map(|&status| (status.key().to_owned(), report.counts.count(status)))
            .filter(|(_, count)| *count > 0)
            .map(|(key, count)| (key, count.into()))
            .collect();
        let mut notice = json!({
            "type": "receipt",
            "id": report.id.as_ref().map(|id| id.as_str()),
            "packet_id": packet_id(report.request.0),
            "target": target,
            "counts": counts,
            "final": !report.interim,
            "part": 1,
            "parts": 1,
        });
        if report.duplicate
            && let Some(fields) = notice.as_object_mut()
        {
            fields.insert("duplicate".into(), true.into());
        }
        if report.mode != ReceiptMode::Each {
            self.queue_notice(&notice);
            return;
        }
        // With room for the closing braces and for part numbers of several digits.
        let room = PART.saturating_sub(notice.to_string().len() + 64);
        let parts = in_parts(&report.entries, room);
        for (index, entries) in parts.iter().enumerate() {
            let statuses: Map<String, Value> = entries
                .iter()
                .map(|(client, status)| (client.as_str().to_owned(), status.name().into()))
                .collect();
            if let Some(fields) = notice.as_object_mut() {
                fields.insert("part".into(), (index + 1).into());
                fields.insert("parts".into(), parts.len().into());
                fields.insert("statuses".into(), statuses.into());
            }
            self.queue_notice(&notice);
        }
    }

    pub(super) fn notify_refusal(&mut self, request: RequestId, about: Option<&About>, refusal: &Refusal) {
        if !self.wants_notices() {
            return;
        }
        let prefix = &self.config.prefix;
        let (topic, id) = match about {
            Some(About::Signal(addressed)) => {
                let topic = match &addressed.target {
                    Target::Client(client) => format!("{prefix}/c/{client}"),
                    Target::Group { group, .. } => format!("{prefix}/g/{group}"),
                };
                (Some(topic), addressed.options.id.as_ref().map(|id| id.as_str()))
            }
            Some(About::Topic(topic)) => (Some(shortened(topic).to_owned()), None),
            None => (None, None),
        };
        let notice = refusal_notice(packet_id(request.0), id, topic.as_deref(), refusal);
        self.queue_notice(&notice);
    }

    pub(super) fn notify_subscribe_refusal(&mut self, id: NonZeroU16, filter: &str, refusal: &Refusal) {
        if self.wants_notices() {
            self.queue_notice(&refusal_notice(Some(id), None, Some(filter), refusal));
        }
    }

    pub(super) fn notify_ended(&mut self, filter: &str, refusal: &Refusal) {
        if self.wants_notices() {
            let notice = json!({
                "type": "ended",
                "code": refusal.reason.name(),
                "reason": refusal.text,
                "topic": filter,
            });
            self.queue_notice(&notice);
        }
    }

    fn queue_notice(&mut self, notice: &Value) {
        if self.state.notices.len() >= QUEUED {
            self.counters.notices_dropped += 1;
            return;
        }
        self.state.notices.push_back(notice.to_string().into_bytes());
    }

    /// Whether a notice waits that the window lets pass.
    pub(super) fn can_write_notice(&self) -> bool {
        !self.state.notices.is_empty()
            && self
                .state
                .notice_reception
                .is_some_and(|reception| reception.qos == QoS::AtMostOnce || self.window_has_room())
    }

    /// Writes notices to `out` until none is left or the window is full.
    pub(super) fn write_notices(&mut self, out: &mut Vec<u8>) {
        while self.can_write_notice() {
            let Some(notice) = self.state.notices.pop_front() else { return };
            self.write_notice(&notice, out);
        }
        if self.state.notices.is_empty() && self.state.notices.capacity() > 0 {
            self.state.notices.shrink_to_fit();
        }
    }

    fn write_notice(&mut self, notice: &[u8], out: &mut Vec<u8>) {
        let (Some(reception), Some(me)) = (self.state.notice_reception, &self.state.me) else { return };
        let mut packet_id = None;
        if reception.qos != QoS::AtMostOnce {
            packet_id = self.state.in_flight.insert(Entry::new(Stage::Acknowledge, None));
        }
        let mut writer = PropertyWriter::new();
        if self.link.is_expressive() {
            writer
                .push(Property::PayloadFormatIndicator(true))
                .push(Property::ContentType("application/json"));
            writer.extend(reception.subscription.map(Property::SubscriptionIdentifier));
        }
        let topic = format!("{}/r/{me}", self.config.prefix);
        let publish = Publish {
            dup: false,
            qos: reception.qos,
            retain: false,
            topic: &topic,
            packet_id,
            properties: writer.finish().unwrap_or(Properties::EMPTY),
            payload: notice,
        };
        let start = out.len();
        let encoded = encode(&Packet::Publish(publish), self.link.version, out);
        if encoded.is_err() || out.len() - start > self.link.max_packet {
            out.truncate(start);
            self.counters.oversize += 1;
            if let Some(id) = packet_id {
                self.state.in_flight.remove(id, Stage::Acknowledge);
            }
        } else if let Some(id) = packet_id.filter(|_| self.state.persistent) {
            self.state.in_flight.keep(id, kept_notice(&topic, notice, reception));
        }
    }
}

/// The notice as a message, to be written again should its acknowledgement be lost with the connection.
fn kept_notice(topic: &str, notice: &[u8], reception: Reception) -> Delivery {
    let mut writer = PropertyWriter::new();
    writer.push(Property::PayloadFormatIndicator(true)).push(Property::ContentType("application/json"));
    let message = Message {
        origin: Origin::Topic { topic: topic.into(), publisher: Identity::new(""), retain: false },
        payload: Bytes::copy_from_slice(notice),
        properties: passthrough::write(&writer.finish().unwrap_or(Properties::EMPTY), |_| false).into(),
        qos: reception.qos,
        deadline: None,
        urgent: false,
    };
    Delivery::new(Outgoing::new(Arc::new(message)), reception)
}

fn refusal_notice(
    packet_id: Option<NonZeroU16>,
    id: Option<&str>,
    topic: Option<&str>,
    refusal: &Refusal,
) -> Value {
    let mut notice = json!({
        "type": "refusal",
        "code": refusal.reason.name(),
        "reason": refusal.text,
        "packet_id": packet_id,
        "id": id,
        "topic": topic,
    });
    if let (Some(millis), Some(fields)) = (refusal.retry_after, notice.as_object_mut()) {
        fields.insert("retry_after_ms".into(), millis.into());
    }
    notice
}

/// Of a topic, as much as a notice repeats.
pub(super) fn shortened(topic: &str) -> &str {
    const SHOWN: usize = 256;
    let mut end = topic.len().min(SHOWN);
    while !topic.is_char_boundary(end) {
        end -= 1;
    }
    topic.get(..end).unwrap_or_default()
}

/// The entries in runs that take at most `room` bytes each as JSON; at least one run. Names have no character
/// that JSON escapes.
fn in_parts(entries: &[(ClientId, Status)], room: usize) -> Vec<&[(ClientId, Status)]> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut length = 0;
    for (index, (client, status)) in entries.iter().enumerate() {
        let entry = client.as_str().len() + status.name().len() + r#""":"","#.len();
        if length + entry > room && index > start {
            parts.extend(entries.get(start..index));
            start = index;
            length = 0;
        }
        length += entry;
    }
    parts.extend(entries.get(start..).filter(|rest| !rest.is_empty() || parts.is_empty()));
    parts
}
