//! Deliveries: from a message to a PUBLISH in this client's version, QoS and topic form (T2).
//!
//! This is the hot path. A message to many is encoded once for each kind of recipient and copied for each
//! recipient; the only thing done per recipient is a packet identifier.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;

use super::in_flight::{Entry, Resend, Stage};
use super::link::OwnAlias;
use super::{MqttSession, Phase, passthrough};
use crate::model::{
    AsSent, Delivery, EncodingKey, Encodings, Instant, MessageView, OriginView, QoS, ReceiptSlot, Reception,
    Settled, Status,
};
use crate::mqtt::{
    EncodeError, EncodedPublish, Packet, PacketType, Property, PropertyWriter, Publish, ReasonCode, Version,
    encode,
};

impl MqttSession {
    /// Whether it takes a delivery now: the client is let in and hasn't as many unacknowledged publishes as it
    /// takes [MQTT-3.3.4-9].
    pub fn has_room(&self) -> bool {
        self.phase == Phase::Open && self.window_has_room()
    }

    /// Bytes that it keeps: a part of a packet, and what the client hasn't acknowledged.
    pub fn kept_bytes(&self) -> usize {
        self.state.in_flight.kept_bytes() + self.link.input_bytes()
    }

    /// Whether something new may take a packet identifier.
    pub(super) fn window_has_room(&self) -> bool {
        !self.state.in_flight.is_full() && !self.state.in_flight.has_resends()
    }

    /// Writes what the client hadn't acknowledged when its last connection ended, in the same order, until
    /// `out` holds `limit` bytes or a little more, or the client takes no more at a time. Signals past their
    /// deadline aren't written again (T7).
    pub fn poll_resend(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        while self.phase == Phase::Open && out.len() < limit {
            let Some((id, resend)) = self.state.in_flight.next_resend() else { return };
            let (delivery, dup) = match resend {
                Resend::Release => {
                    self.link.write_ack(PacketType::PubRel, id, ReasonCode::Success);
                    self.link.flush(out);
                    continue;
                }
                Resend::Publish(delivery, dup) => (delivery, dup),
            };
            let message = &delivery.outgoing.message.view();
            if delivery.is_expired(now) && matches!(message.origin, OriginView::Signal { .. }) {
                self.give_up(id, out);
                continue;
            }
            let form = Form::new(message, &delivery.reception, self.link.version, now);
            let start = out.len();
            let written = form.with_publish(message, &self.config.prefix, |publish| {
                let publish = Publish { packet_id: Some(id), dup, ..*publish };
                encode(&Packet::Publish(publish), form.version, out)
            });
            if written.is_err() || out.len() - start > self.link.max_packet {
                // The new connection takes less than the last one did [MQTT-3.1.2-25].
                out.truncate(start);
                self.give_up(id, out);
                self.counters.oversize += 1;
            }
        }
    }

    /// The store knows how far the publish with this identifier is: the next step may be made.
    pub fn proceed(&mut self, id: NonZeroU16) {
        self.state.in_flight.proceed(id, self.phase == Phase::Open);
    }

    /// Takes what was on its way before the gateway started; `released`: the client has it, at QoS 2.
    pub fn restore_in_flight(&mut self, id: NonZeroU16, delivery: Delivery, released: bool) {
        let stage = match delivery.outgoing.message.qos.min(delivery.reception.qos) {
            QoS::ExactlyOnce if released => Stage::Complete,
            QoS::ExactlyOnce => Stage::Receive,
            QoS::AtLeastOnce | QoS::AtMostOnce => Stage::Acknowledge,
        };
        self.state.in_flight.restore(id, delivery, stage);
    }

    /// Writes a publish not again that the client may have. At QoS 2 it remembers the identifier until that is released,
    /// and would take the next publish with it for this one [MQTT-4.3.3-10].
    fn give_up(&mut self, id: NonZeroU16, out: &mut Vec<u8>) {
        let slot = self.state.in_flight.entry_mut(id).and_then(|entry| entry.slot());
        self.settle(slot, Status::Expired);
        if self.state.in_flight.forget_unreleased(id) {
            self.link.write_ack(PacketType::PubRel, id, ReasonCode::Success);
            self.link.flush(out);
        }
    }

    /// Whether [`poll_resend`](Self::poll_resend) may have something.
    pub fn has_resends(&self) -> bool {
        self.phase == Phase::Open && self.state.in_flight.has_resends() && !self.state.in_flight.is_full()
    }

    /// Writes a delivery to `out`, behind the control packets that wait; only when it
    /// [has room](Self::has_room). Gives the packet identifier that it has. One of QoS 2 that is in a queue is written
    /// only when the store knows that, by [`proceed`](Self::proceed).
    pub fn handle_delivery(
        &mut self,
        delivery: Delivery,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<NonZeroU16> {
        let qos = delivery.outgoing.message.qos.min(delivery.reception.qos);
        if delivery.is_queued() && qos == QoS::ExactlyOnce {
            return self.hold(delivery);
        }
        let Delivery { outgoing, reception, slot, .. } = &delivery;
        // Alone it is written straight to `out`.
        let is_shared = Rc::strong_count(outgoing) > 1;
        let mut encodings = is_shared.then(|| outgoing.encodings.borrow_mut());
        let message = outgoing.message.view();
        let id = self.deliver(&message, reception, *slot, encodings.as_deref_mut(), out, now);
        drop(encodings);
        if let Some(id) = id.filter(|_| self.state.persistent || delivery.share.is_some()) {
            let slot = delivery.slot.filter(|slot| slot.is_queue());
            self.state.in_flight.keep(id, Delivery { slot, ..delivery });
        }
        id
    }

    fn hold(&mut self, delivery: Delivery) -> Option<NonZeroU16> {
        let Some(id) = self.state.in_flight.insert(Entry::new(Stage::Receive, delivery.slot)) else {
            self.counters.no_room += 1;
            return self.undelivered(delivery.slot, Status::Offline);
        };
        self.state.in_flight.hold(id, delivery);
        Some(id)
    }

    /// Whether a message need not come as a [`Delivery`]: there is room, and nothing is kept of what it is written.
    pub fn takes_at_once(&self) -> bool {
        self.has_room() && !self.state.persistent
    }

    /// Writes a message to `out`, behind the control packets that wait, and says by which packet identifier, if any.
    /// `encodings` are those of this message where others get it too.
    pub fn deliver(
        &mut self,
        message: &MessageView<'_>,
        reception: &Reception,
        slot: Option<ReceiptSlot>,
        encodings: Option<&mut Encodings>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<NonZeroU16> {
        self.link.flush(out);
        if self.phase != Phase::Open {
            return self.undelivered(slot, Status::Offline);
        }
        if message.deadline.is_some_and(|deadline| deadline <= now) {
            return self.undelivered(slot, Status::Expired);
        }
        let mut form = Form::new(message, reception, self.link.version, now);
        if let Some(aliases) = &self.link.own_aliases {
            form.alias = aliases.find(&form.topic(message, &self.config.prefix));
        }
        // An alias is this client's alone, and so is its packet.
        let encodings = encodings.filter(|_| form.alias.is_none());
        let as_sent = message.as_sent.filter(|sent| form.is_of(sent));
        // Encoded first, so that what can't be sent takes no identifier.
        let shared = match encodings {
            _ if as_sent.is_some_and(|sent| sent.packet.len() > self.link.max_packet) => {
                return self.drop_oversize(slot);
            }
            _ if as_sent.is_some() => None,
            None => None,
            Some(encodings) => {
                match encodings
                    .encoding(form.key(), |packet| form.encode(message, &self.config.prefix, packet))
                {
                    Ok(encoded) if encoded.size() <= self.link.max_packet => Some(encoded),
                    _ => return self.drop_oversize(slot),
                }
            }
        };
        let mut packet_id = None;
        if form.qos != QoS::AtMostOnce {
            let stage = if form.qos == QoS::ExactlyOnce { Stage::Receive } else { Stage::Acknowledge };
            let Some(id) = self.state.in_flight.insert(Entry::new(stage, slot)) else {
                self.counters.no_room += 1;
                return self.undelivered(slot, Status::Overflow);
            };
            packet_id = Some((id, stage));
        }
        match (as_sent, shared) {
            (Some(sent), _) => {
                let start = out.len();
                out.extend_from_slice(sent.packet);
                if let (Some((id, _)), Some(at)) = (packet_id, sent.packet_id_at)
                    && let Some(place) = out.get_mut(start + at..start + at + 2)
                {
                    place.copy_from_slice(&id.get().to_be_bytes());
                }
            }
            (None, Some(encoded)) => {
                let id = packet_id.map_or(NonZeroU16::MIN, |(id, _)| id);
                encoded.copy_with_packet_id(id, false, out);
            }
            (None, None) => {
                let start = out.len();
                let max_packet = self.link.max_packet;
                let packet_id_alone = packet_id.map(|(id, _)| id);
                let mut fits = |form: &Form| {
                    let written = form.with_publish(message, &self.config.prefix, |publish| {
                        let publish = Publish { packet_id: packet_id_alone, ..*publish };
                        encode(&Packet::Publish(publish), form.version, out)
                    });
                    let fits = written.is_ok() && out.len() - start <= max_packet;
                    if !fits {
                        out.truncate(start);
                    }
                    fits
                };
                if !fits(&form) {
                    // The alias itself may be what is too much.
                    let had_alias = form.alias.take().is_some();
                    if !(had_alias && fits(&form)) {
                        if let Some((id, stage)) = packet_id {
                            self.state.in_flight.remove(id, stage);
                        }
                        return self.drop_oversize(slot);
                    }
                }
            }
        }
        if let (Some(aliases), Some(OwnAlias { number, is_new: true })) =
            (&mut self.link.own_aliases, form.alias)
        {
            aliases.set(&form.topic(message, &self.config.prefix), number);
        }
        if let Some(slot) = slot {
            let settled = match packet_id {
                Some(_) => Settled::Written,
                None => Settled::Unanswerable,
            };
            self.settled.push_back((slot, settled));
        }
        packet_id.map(|(id, _)| id)
    }

    fn undelivered(&mut self, slot: Option<ReceiptSlot>, status: Status) -> Option<NonZeroU16> {
        self.settle(slot, status);
        None
    }

    /// [MQTT-3.1.2-25]: as if it had been sent, but not for its sender.
    fn drop_oversize(&mut self, slot: Option<ReceiptSlot>) -> Option<NonZeroU16> {
        self.counters.oversize += 1;
        self.undelivered(slot, Status::Overflow)
    }
}

/// All that an encoding of a message depends on.
#[derive(Clone, Copy)]
pub(super) struct Form {
    version: Version,
    qos: QoS,
    with_sender: bool,
    retain: bool,
    /// Milliseconds that remain, for a signal; seconds, rounded up, for another message. Only version 5 says
    /// it.
    remaining: Option<u32>,
    subscription: Option<u32>,
    /// The topic's alias towards this client; it is no part of the key.
    alias: Option<OwnAlias>,
}

impl Form {
    pub(super) fn new(
        message: &MessageView<'_>,
        reception: &Reception,
        version: Version,
        now: Instant,
    ) -> Self {
        let expressive = super::is_expressive(version);
        let qos = message.qos.min(reception.qos);
        let remaining = message.deadline.filter(|_| expressive).map(|deadline| deadline.millis_since(now));
        let (with_sender, retain, remaining) = match message.origin {
            OriginView::Signal { .. } => (reception.with_sender, false, remaining),
            OriginView::Topic { retain, .. } => {
                let seconds = remaining.map(|millis| millis.div_ceil(1000));
                (false, retain && reception.retain_as_published, seconds)
            }
        };
        Self {
            version,
            qos,
            with_sender,
            retain,
            remaining: remaining.map(|time| u32::try_from(time).unwrap_or(u32::MAX)),
            subscription: reception.subscription.filter(|_| expressive),
            alias: None,
        }
    }

    /// Whether a packet as its sender wrote it, with nothing added, is one of this form.
    fn is_of(&self, sent: &AsSent<'_>) -> bool {
        self.remaining.is_none()
            && self.subscription.is_none()
            && self.alias.is_none()
            && sent.form == self.bits()
    }

    pub(super) fn key(&self) -> EncodingKey {
        EncodingKey { form: self.bits(), ttl: self.remaining, subscription: self.subscription }
    }

    fn bits(&self) -> u32 {
        // 3.1 and 3.1.1 write the same PUBLISH.
        u32::from(super::is_expressive(self.version))
            | u32::from(self.qos.as_u8()) << 1
            | u32::from(self.with_sender) << 3
            | u32::from(self.retain) << 4
    }

    fn encode(
        &self,
        message: &MessageView<'_>,
        prefix: &str,
        packet: &mut EncodedPublish,
    ) -> Result<(), EncodeError> {
        self.with_publish(message, prefix, |publish| packet.set(publish, self.version))
    }

    /// Where it comes.
    fn topic<'m>(&self, message: &MessageView<'m>, prefix: &str) -> Cow<'m, str> {
        match message.origin {
            OriginView::Topic { topic, .. } => Cow::Borrowed(topic),
            OriginView::Signal { sender, group, client, .. } => {
                let (kind, name) = match (group, client) {
                    (Some(group), _) => ("/g/", group.as_str()),
                    (None, client) => ("/c/", client.map_or("", |client| client.as_str())),
                };
                Cow::Owned(if self.with_sender {
                    [prefix, kind, name, "/", sender.as_str()].concat()
                } else {
                    [prefix, kind, name].concat()
                })
            }
        }
    }

    /// Makes the packet, without its identifier, for `write`.
    fn with_publish<R>(
        &self,
        message: &MessageView<'_>,
        prefix: &str,
        write: impl FnOnce(&Publish<'_>) -> Result<R, EncodeError>,
    ) -> Result<R, EncodeError> {
        let built;
        let topic = match self.alias {
            Some(OwnAlias { is_new: false, .. }) => "",
            _ => {
                built = self.topic(message, prefix);
                &*built
            }
        };
        let mut writer = PropertyWriter::new();
        if super::is_expressive(self.version) {
            self.write_properties(message, &mut writer);
        }
        let properties = writer.finish()?;
        let Self { qos, retain, .. } = *self;
        write(&Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: None,
            properties,
            payload: message.payload,
        })
    }

    /// The gateway's own come first, so that a reader who takes the first `from` isn't told otherwise.
    fn write_properties(&self, message: &MessageView<'_>, writer: &mut PropertyWriter) {
        let mut expiry = self.remaining;
        if let OriginView::Signal { sender, mode, .. } = message.origin {
            writer.push(Property::UserProperty("from", sender.as_str()));
            writer.push(Property::UserProperty("mode", mode.key()));
            if let Some(millis) = self.remaining {
                writer.push(Property::UserProperty("ttl", &millis.to_string()));
                expiry = Some(millis.div_ceil(1000));
            }
        }
        writer.extend(expiry.map(Property::MessageExpiryInterval));
        writer.extend(passthrough::read(message.properties));
        writer.extend(self.subscription.map(Property::SubscriptionIdentifier));
        writer.extend(self.alias.map(|alias| Property::TopicAlias(alias.number.get())));
    }
}
