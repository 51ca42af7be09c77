//! What a client published to last: the next PUBLISH mostly goes there too, and then its topic is known to be valid and
//! what it means is known already.
//!
//! Only the plainest packets are read here: QoS 0 or 1, without RETAIN, DUP and properties. Whatever else there is, and
//! whatever is wrong with a packet, is left to the way that reads everything.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;

use super::state::{Outstanding, Pending};
use super::{MqttSession, Phase};
use crate::model::{
    About, Addressed, AsSent, Command, Publication, QoS, ReceiptMode, RequestId, Signal, Status, Text,
};

/// The longest topic that is remembered, in bytes: options that name many recipients make long ones.
const MAX_TOPIC: usize = 8 * 1024;

/// A topic and what it means.
#[derive(Debug)]
pub(super) struct Known {
    /// The topic as in the packet, its length in front.
    field: Vec<u8>,
    meaning: Meaning,
}

#[derive(Debug)]
enum Meaning {
    Topic(Rc<str>),
    /// Without options, deliveries come on the same topic.
    Signal {
        addressed: Rc<Addressed>,
        is_bare: bool,
    },
}

impl MqttSession {
    /// Remembers the topic of a publish that became this command.
    pub(super) fn remember(&mut self, topic: &str, command: &Command<'_>) {
        let Ok(length) = u16::try_from(topic.len()) else { return };
        if topic.len() > MAX_TOPIC {
            return;
        }
        let meaning = match command {
            Command::Publish { .. } => Meaning::Topic(topic.into()),
            Command::Send { signal, .. } => {
                Meaning::Signal { addressed: signal.addressed.clone(), is_bare: !topic.contains('?') }
            }
            _ => return,
        };
        let field = [&length.to_be_bytes(), topic.as_bytes()].concat();
        self.known = Some(Box::new(Known { field, meaning }));
    }

    /// The topic that is known.
    #[cfg(test)]
    pub(super) fn knows_topic(&self) -> Option<&str> {
        core::str::from_utf8(self.known.as_ref()?.field.get(2..)?).ok()
    }

    /// Takes the plain PUBACK at the start of `input`; whether there was one.
    pub(super) fn plain_puback(&mut self, input: &[u8]) -> bool {
        let Some(&[0x40, 2, high, low]) = input.first_chunk() else { return false };
        let Some(id) = NonZeroU16::new(u16::from_be_bytes([high, low])) else { return false };
        if self.phase != Phase::Open {
            return false;
        }
        self.acknowledged(id, Status::Delivered);
        true
    }

    /// The command of the packet at the start of `input` and the packet's length, if it is a plain PUBLISH to the
    /// topic that is known. None says nothing about the packet.
    pub(super) fn known_publish<'i>(&mut self, input: &'i [u8]) -> Option<(usize, Command<'i>)> {
        let known = self.known.as_deref()?;
        let &[first, low, high, ..] = input else { return None };
        let qos = match first {
            0x30 => QoS::AtMostOnce,
            0x32 => QoS::AtLeastOnce,
            _ => return None,
        };
        let (remaining, header) = match (low, high) {
            (0..0x80, _) => (usize::from(low), 2),
            (_, 1..0x80) => (usize::from(low & 0x7F) | usize::from(high) << 7, 3),
            _ => return None,
        };
        let packet = input.get(..header + remaining)?;
        let rest = packet.get(header..)?.strip_prefix(known.field.as_slice())?;
        let is_expressive = self.link.is_expressive();
        let (id, rest) = match qos {
            QoS::AtMostOnce => (None, rest),
            _ => {
                let (id, rest) = rest.split_first_chunk()?;
                (Some(NonZeroU16::new(u16::from_be_bytes(*id))?), rest)
            }
        };
        let payload = match rest.split_first() {
            // An empty list of properties.
            Some((0, payload)) if is_expressive => payload,
            _ if is_expressive => return None,
            _ => rest,
        };
        if self.phase != Phase::Open
            || packet.len() > self.config.limits.max_packet
            || !self.has_request_room()
            || id.is_some_and(|id| self.state.is_outstanding(id))
            || self.state.unfinished_publishes() >= self.config.limits.requests_per_client
        {
            return None;
        }
        let form = u32::from(is_expressive) | u32::from(qos.as_u8()) << 1;
        let packet_id_at = id.map(|_| header + known.field.len());
        let as_sent = AsSent { packet, packet_id_at, form };
        let request = RequestId(self.state.number(id));
        let wants_notices = self.wants_notices();
        let (command, is_heard, about) = match &known.meaning {
            Meaning::Topic(topic) => {
                let publication = Publication {
                    topic: Text::Shared(topic.clone()),
                    payload: Cow::Borrowed(payload),
                    properties: Cow::Borrowed(&[]),
                    qos,
                    retain: false,
                    deadline: None,
                    as_sent: Some(as_sent),
                };
                let is_heard = id.is_some();
                let about = (is_heard && wants_notices).then(|| About::Topic(topic.clone()));
                (Command::Publish { request: is_heard.then_some(request), publication }, is_heard, about)
            }
            Meaning::Signal { addressed, is_bare } => {
                Signal::check_payload(payload.len()).ok()?;
                let signal = Signal {
                    addressed: addressed.clone(),
                    payload: Cow::Borrowed(payload),
                    properties: Cow::Borrowed(&[]),
                    qos,
                    // Version 5 says who it is from.
                    as_sent: (*is_bare && !is_expressive).then_some(as_sent),
                };
                let has_receipt = addressed.options.receipt != ReceiptMode::None;
                let is_heard = id.is_some() || has_receipt;
                let about = (is_heard && wants_notices).then(|| About::Signal(addressed.clone()));
                let refusable = self.is_refusable(qos);
                (Command::Send { request: is_heard.then_some(request), signal, refusable }, is_heard, about)
            }
        };
        if is_heard {
            let may_last = command.may_last();
            let pending = Pending::Publish { qos, may_last, about, answer: None };
            self.state.outstanding.push_back(Outstanding { request: request.0, pending });
        }
        Some((packet.len(), command))
    }
}
