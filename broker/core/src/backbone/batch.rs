//! What one shard has for another at a time: messages in order, and the bytes of those that are mere copies.
//!
//! A publish or signal that goes to another shard is copied into the batch, so that no memory is shared between threads
//! and none is allocated for a message. The room of a batch goes on to what the other shard sends next.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{PeerMessage, Share};
use crate::hub::{AwaitedPublish, SendKey};
use crate::model::{AsSent, ClientId, Instant, MessageView, OriginView, QoS, Target};

/// Room in bytes and messages that is kept of an empty batch.
const KEPT: usize = 64 * 1024;

/// Messages from one shard to another.
#[derive(Debug, Default)]
pub struct PeerBatch {
    pub(super) messages: VecDeque<PeerMessage>,
    copied: Copied,
}

/// What messages of a batch were copied to, until the batch is done with.
#[derive(Debug, Default)]
pub struct Copied {
    /// Topics and publishers.
    text: String,
    /// Packets, or properties and payloads.
    bytes: Vec<u8>,
    /// Whom signals are for.
    addressed: Vec<Arc<PeerAddressed>>,
    /// The last publish's topic and publisher: mostly those of the next one.
    last: Option<(Range<u32>, Range<u32>)>,
}

/// Whom signals of one sender are for on another shard. It is shared, so that the shard that gets many signals with the
/// same can tell it by that.
#[derive(Debug)]
pub struct PeerAddressed {
    /// Who sends.
    pub sender: ClientId,
    /// Whom it is for.
    pub target: Target,
    /// The sender gets it too, where it is a recipient (S5).
    pub echo: bool,
    /// Which recipients are the other shard's to judge.
    pub share: Share,
}

/// A message copied to a batch, but for where it comes from.
#[derive(Clone, Debug)]
pub struct CopiedMessage {
    /// A packet that ends with the payload or, without `form`, properties and payload.
    bytes: Range<u32>,
    payload: u32,
    /// The packet's form, and where in it the packet identifier is.
    form: Option<(u32, Option<u32>)>,
    qos: QoS,
    deadline: Option<Instant>,
}

/// A publish copied to a batch.
#[derive(Clone, Debug)]
pub struct CopiedPublish {
    message: CopiedMessage,
    topic: Range<u32>,
    publisher: Range<u32>,
    /// Whom it is answered for.
    pub publish: AwaitedPublish,
}

/// A signal copied to a batch: without receipt, and not urgent.
#[derive(Clone, Debug)]
pub struct CopiedSignal {
    message: CopiedMessage,
    addressed: u32,
    /// Whom it is answered for; null if nobody waits.
    pub send: SendKey,
}

impl PeerBatch {
    /// How many messages are left in it.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether all of it is done with.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that were copied to it.
    pub(super) fn bytes(&self) -> usize {
        self.copied.bytes.len()
    }

    /// The next message, and what its parts that were copied are in.
    pub(crate) fn next(&mut self) -> Option<(PeerMessage, &Copied)> {
        Some((self.messages.pop_front()?, &self.copied))
    }

    pub(super) fn push_publish(
        &mut self,
        message: &MessageView<'_>,
        topic: &str,
        publisher: &str,
        publish: AwaitedPublish,
    ) {
        let copied = &mut self.copied;
        let (topic, publisher) = match copied.last.clone() {
            Some((last_topic, last_publisher))
                if copied.text(&last_topic) == topic && copied.text(&last_publisher) == publisher =>
            {
                (last_topic, last_publisher)
            }
            _ => {
                let names = (copied.add_text(topic), copied.add_text(publisher));
                copied.last = Some(names.clone());
                names
            }
        };
        let message = copied.add(message);
        self.messages.push_back(PeerMessage::Publish(CopiedPublish { message, topic, publisher, publish }));
    }

    pub(super) fn push_signal(
        &mut self,
        message: &MessageView<'_>,
        addressed: &Arc<PeerAddressed>,
        send: SendKey,
    ) {
        let copied = &mut self.copied;
        if !copied.addressed.last().is_some_and(|last| Arc::ptr_eq(last, addressed)) {
            copied.addressed.push(addressed.clone());
        }
        let addressed = copied.addressed.len() as u32 - 1;
        let message = copied.add(message);
        self.messages.push_back(PeerMessage::CopiedSignal(CopiedSignal { message, addressed, send }));
    }

    /// An empty batch with as much of the room as is worth keeping.
    pub(super) fn emptied(mut self) -> Option<Self> {
        let copied = &mut self.copied;
        let is_small = copied.bytes.capacity() + copied.text.capacity() <= KEPT
            && self.messages.capacity() * size_of::<PeerMessage>() <= 2 * KEPT;
        if !is_small {
            return None;
        }
        self.messages.clear();
        copied.text.clear();
        copied.bytes.clear();
        copied.addressed.clear();
        copied.last = None;
        Some(self)
    }
}

impl Copied {
    fn text(&self, range: &Range<u32>) -> &str {
        self.text.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    fn add_text(&mut self, text: &str) -> Range<u32> {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        start..self.text.len() as u32
    }

    fn add(&mut self, message: &MessageView<'_>) -> CopiedMessage {
        let start = self.bytes.len() as u32;
        let form = match message.as_sent {
            Some(sent) => {
                self.bytes.extend_from_slice(sent.packet);
                Some((sent.form, sent.packet_id_at.map(|at| at as u32)))
            }
            None => {
                self.bytes.extend_from_slice(message.properties);
                self.bytes.extend_from_slice(message.payload);
                None
            }
        };
        CopiedMessage {
            bytes: start..self.bytes.len() as u32,
            payload: message.payload.len() as u32,
            form,
            qos: message.qos,
            deadline: message.deadline,
        }
    }

    fn view<'c>(&'c self, message: &CopiedMessage, origin: OriginView<'c>) -> MessageView<'c> {
        let CopiedMessage { bytes, payload, form, qos, deadline } = message;
        let bytes = self.bytes.get(bytes.start as usize..bytes.end as usize).unwrap_or_default();
        let (front, payload) = bytes.split_at(bytes.len().saturating_sub(*payload as usize));
        let as_sent = form.map(|(form, packet_id_at)| AsSent {
            packet: bytes,
            packet_id_at: packet_id_at.map(|at| at as usize),
            form,
        });
        let properties = if as_sent.is_some() { &[] } else { front };
        let (qos, deadline) = (*qos, *deadline);
        MessageView { origin, payload, properties, qos, deadline, urgent: false, as_sent }
    }

    /// A publish, and who published it.
    pub(crate) fn publish<'c>(&'c self, publish: &CopiedPublish) -> (MessageView<'c>, &'c str) {
        let origin = OriginView::Topic { topic: self.text(&publish.topic), retain: false };
        (self.view(&publish.message, origin), self.text(&publish.publisher))
    }

    /// A signal, and whom it is for.
    pub(crate) fn signal<'c>(
        &'c self,
        signal: &CopiedSignal,
    ) -> Option<(MessageView<'c>, &'c Arc<PeerAddressed>)> {
        let addressed = self.addressed.get(signal.addressed as usize)?;
        let (group, client) = match &addressed.target {
            Target::Client(client) => (None, Some(client)),
            Target::Group { group, .. } => (Some(group), None),
        };
        let sender = &addressed.sender;
        let origin = OriginView::Signal { sender, group, client, mode: addressed.target.mode() };
        Some((self.view(&signal.message, origin), addressed))
    }
}
