//! PUBLISH from the client: to a signal (T1) or a plain topic (T7), and the acknowledgement once the hub has
//! answered.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;

use super::connect::packet_id;
use super::notice::shortened;
use super::state::{Answer, Outstanding, Pending};
use super::{MqttSession, moderation_topic, passthrough, reasons, signal_topic};
use crate::model::{
    About, Addressed, Command, Instant, Publication, QoS, Reason, ReceiptMode, Refusal, RequestId, Signal,
    Text,
};
use crate::mqtt::{Ack, PacketType, Properties, Property, PropertyWriter, Publish, ReasonCode};

/// Why a request is refused that has the identifier of one without an answer.
pub(super) const ID_IN_USE: &str = "a packet identifier that is in use";
/// Identifiers of QoS 2 publishes that a client may leave unreleased where no receive maximum was announced.
const UNRELEASED: usize = 1024;

impl MqttSession {
    pub(super) fn handle_publish<'i>(&mut self, publish: &Publish<'i>, now: Instant) -> Option<Command<'i>> {
        // [MQTT-3.3.4-6]
        if publish.properties.subscription_id().is_some() {
            return self.violation("a subscription identifier in a PUBLISH from a client");
        }
        let topic = match publish.properties.topic_alias() {
            None => Text::Borrowed(publish.topic),
            Some(alias) => match self.link.resolve_alias(publish.topic, alias) {
                Ok(topic) => Text::Shared(topic),
                Err(reason) => {
                    self.fault(reason, "topic alias");
                    return None;
                }
            },
        };
        match self.novelty(publish) {
            Novelty::New => {}
            Novelty::None => return None,
            Novelty::Unconfirmed(id) => return Some(self.confirm(id)),
        }
        let request = RequestId(self.state.number(publish.packet_id));
        let judged = self.judged(&topic, publish, request, now);
        if let Ok(command) = &judged
            && !publish.retain
            && publish.properties.is_empty()
        {
            self.remember(&topic, command);
        }
        let (command, about) = match judged {
            Ok(command) if is_unheard(publish.qos, &command) => return Some(command.unheard()),
            Ok(command) => {
                let about = self.wants_notices().then(|| about(&command, &topic));
                (command, about)
            }
            Err(refusal) => {
                let about = self.wants_notices().then(|| About::Topic(shortened(&topic).into()));
                (Command::Refuse { request, refusal }, about)
            }
        };
        let may_last = command.may_last();
        let pending = Pending::Publish { qos: publish.qos, may_last, about, answer: None };
        self.state.outstanding.push_back(Outstanding { request: request.0, pending });
        Some(command)
    }

    /// Asks what became of a QoS 2 publish: the client sends it again, since it wasn't answered.
    fn confirm(&mut self, id: NonZeroU16) -> Command<'static> {
        self.state.unconfirmed.remove(&id);
        let request = RequestId(id.get().into());
        let pending = Pending::Publish { qos: QoS::ExactlyOnce, may_last: true, about: None, answer: None };
        self.state.outstanding.push_back(Outstanding { request: request.0, pending });
        Command::Confirm { request, id }
    }

    /// Whether this is one that came before [MQTT-4.3.3-10]. It may close the connection.
    fn novelty(&mut self, publish: &Publish<'_>) -> Novelty {
        let Some(id) = publish.packet_id else { return Novelty::New };
        if publish.qos == QoS::ExactlyOnce
            && self.state.received.contains(&id)
            && !self.state.is_outstanding(id)
        {
            if self.state.unconfirmed.contains(&id) {
                return Novelty::Unconfirmed(id);
            }
            self.link.write_ack(PacketType::PubRec, id, ReasonCode::Success);
            return Novelty::None;
        }
        if self.state.is_outstanding(id) {
            // A repetition is answered with the first one. QoS 2 needs no DUP for that.
            let repeats = publish.dup || publish.qos == QoS::ExactlyOnce;
            if !repeats || !self.state.is_publishing(id, publish.qos) {
                self.refuse_id_in_use(publish.qos, id);
            }
            return Novelty::None;
        }
        // [MQTT-3.3.4-9]; before version 5 nothing was announced.
        let maximum = if self.link.is_expressive() {
            self.config.limits.requests_per_client
        } else {
            self.config.limits.requests_per_client.max(UNRELEASED)
        };
        if self.state.unfinished_publishes() >= maximum {
            self.fault(ReasonCode::ReceiveMaximumExceeded, "more unfinished publishes than announced");
            return Novelty::None;
        }
        Novelty::New
    }

    /// Two answers with one identifier could not be told apart. Before version 5 no answer says so.
    fn refuse_id_in_use(&mut self, qos: QoS, id: NonZeroU16) {
        if !self.link.is_expressive() {
            self.violation(ID_IN_USE);
            return;
        }
        let mut writer = PropertyWriter::new();
        writer.push(Property::ReasonString(ID_IN_USE));
        let kind = if qos == QoS::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
        let properties = writer.finish().unwrap_or(Properties::EMPTY);
        self.link.write_explained_ack(kind, id, ReasonCode::PacketIdentifierInUse, properties);
    }

    fn judged<'i>(
        &self,
        topic: &Text<'i>,
        publish: &Publish<'i>,
        request: RequestId,
        now: Instant,
    ) -> Result<Command<'i>, Refusal> {
        if let Some(rest) = signal_topic::below(&self.config.prefix, topic) {
            if let Some(asked) = rest.strip_prefix("m/") {
                return self.moderation(asked, publish, request);
            }
            return self.signal(rest, publish, request);
        }
        if topic.starts_with('$') {
            return Err(Refusal::new(Reason::NotAuthorized, "topics with $ are the gateway's"));
        }
        let expiry = publish.properties.message_expiry();
        let publication = Publication {
            topic: topic.clone(),
            payload: Cow::Borrowed(publish.payload),
            properties: Cow::Owned(passthrough::write(&publish.properties, |_| false)),
            qos: publish.qos,
            retain: publish.retain,
            deadline: expiry.map(|seconds| now + u64::from(seconds) * 1000),
            as_sent: None,
        };
        Ok(Command::Publish { request: Some(request), publication })
    }

    /// A kick, mute or ban (S14): `rest` is what follows `{prefix}/m/`.
    fn moderation<'i>(
        &self,
        rest: &str,
        publish: &Publish<'i>,
        request: RequestId,
    ) -> Result<Command<'i>, Refusal> {
        if self.state.me.is_none() {
            let text = "only a client whose id is a client id moderates others";
            return Err(Refusal::new(Reason::NotAuthorized, text));
        }
        if publish.retain {
            return Err(Refusal::new(Reason::RetainRefused, "moderation is not retained"));
        }
        let moderation = Box::new(moderation_topic::parse(rest, publish.payload)?);
        Ok(Command::Moderate { request, moderation })
    }

    fn signal<'i>(
        &self,
        rest: &str,
        publish: &Publish<'i>,
        request: RequestId,
    ) -> Result<Command<'i>, Refusal> {
        if self.state.me.is_none() {
            return Err(Refusal::new(
                Reason::NotAuthorized,
                "only a client whose id is a client id sends signals",
            ));
        }
        let (target, options) = signal_topic::parse(rest, &publish.properties)?;
        if publish.retain {
            return Err(Refusal::new(Reason::RetainRefused, "signals are not retained"));
        }
        Signal::check_payload(publish.payload.len())?;
        let signal = Signal {
            addressed: Rc::new(Addressed { target, options }),
            payload: Cow::Borrowed(publish.payload),
            properties: Cow::Owned(passthrough::write(&publish.properties, signal_topic::is_reserved)),
            qos: publish.qos,
            as_sent: None,
        };
        Ok(Command::Send { request: Some(request), signal, refusable: self.is_refusable(publish.qos) })
    }

    /// Whether the client can be told a refusal of a publish (S7).
    pub(super) fn is_refusable(&self, qos: QoS) -> bool {
        self.link.is_expressive() && qos != QoS::AtMostOnce
    }

    /// The hub's answer to a publish. Its acknowledgement waits for those of earlier publishes: they leave in
    /// order [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    pub(super) fn answer_publish(&mut self, request: RequestId, refusal: Option<Refusal>) {
        let mut earlier = false;
        let at = self.state.outstanding.iter().position(|outstanding| match &outstanding.pending {
            Pending::Publish { answer: None, .. } if outstanding.request == request.0 => true,
            Pending::Publish { qos, .. } => {
                earlier |= *qos != QoS::AtMostOnce;
                false
            }
            _ => false,
        });
        let Some(at) = at else { return };
        if earlier
            && packet_id(request.0).is_some()
            && let Some(Outstanding { pending: Pending::Publish { answer, .. }, .. }) =
                self.state.outstanding.get_mut(at)
        {
            *answer = Some(refusal.map_or(Answer::Done, |refusal| Answer::Refused(Box::new(refusal))));
            return;
        }
        self.acknowledge(at, refusal.as_ref());
        if packet_id(request.0).is_some() {
            self.acknowledge_waiting();
        }
    }

    /// Acknowledges what waited for an earlier acknowledgement only.
    fn acknowledge_waiting(&mut self) {
        loop {
            let first = self.state.outstanding.iter_mut().enumerate().find_map(|(at, outstanding)| {
                match &mut outstanding.pending {
                    Pending::Publish { qos, answer, .. } if *qos != QoS::AtMostOnce => Some((at, answer)),
                    _ => None,
                }
            });
            match first.and_then(|(at, answer)| Some((at, answer.take()?))) {
                Some((at, Answer::Done)) => self.acknowledge(at, None),
                Some((at, Answer::Refused(refusal))) => self.acknowledge(at, Some(&refusal)),
                None => break,
            }
        }
    }

    /// Acknowledges what the hub has done or refused, and forgets the request. Before version 5 both look
    /// alike (T3).
    fn acknowledge(&mut self, at: usize, refusal: Option<&Refusal>) {
        let Some(Outstanding { request, pending: Pending::Publish { qos, about, .. } }) =
            self.state.remove_outstanding(at)
        else {
            return;
        };
        let reason = match refusal {
            Some(refusal) if self.link.is_expressive() => reasons::for_publish(refusal.reason),
            _ => ReasonCode::Success,
        };
        if let Some(id) = packet_id(request) {
            let retry_after =
                refusal.and_then(|refusal| refusal.retry_after).map(|millis| millis.to_string());
            let mut writer = PropertyWriter::new();
            if let Some(refusal) = refusal {
                if !refusal.text.is_empty() {
                    writer.push(Property::ReasonString(&refusal.text));
                }
                writer.push(Property::UserProperty("code", refusal.reason.name()));
            }
            if let Some(millis) = &retry_after {
                writer.push(Property::UserProperty("retry-after", millis));
            }
            let kind = if qos == QoS::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
            let properties = writer.finish().unwrap_or(Properties::EMPTY);
            self.link.write_explained_ack(kind, id, reason, properties);
            if qos == QoS::ExactlyOnce {
                if reason.is_failure() {
                    self.state.forget_received(id);
                } else {
                    self.state.received.insert(id);
                }
            }
        }
        if let Some(refusal) = refusal {
            self.notify_refusal(RequestId(request), about.as_ref(), refusal);
        }
    }

    pub(super) fn handle_pubrel(&mut self, ack: &Ack<'_>) -> Option<Command<'static>> {
        let was_there = self.state.received.remove(&ack.packet_id);
        self.state.unconfirmed.remove(&ack.packet_id);
        // Of a connection before, the store may not have it yet that it is released.
        if self.state.lasts && (was_there || self.state.resumed) {
            return Some(Command::Release { id: ack.packet_id });
        }
        // A client whose connection was lost may repeat what it can't know to be done.
        let reason = if was_there || self.state.resumed {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.link.write_ack(PacketType::PubComp, ack.packet_id, reason);
        None
    }
}

/// Whether a publish is one that came before.
enum Novelty {
    New,
    /// It did, and is answered as far as it can be.
    None,
    /// It did, and its answer was lost before it was there.
    Unconfirmed(NonZeroU16),
}

/// Whether nothing comes of the hub's answer: QoS 0 has none, and a refusal comes by itself.
fn is_unheard(qos: QoS, command: &Command<'_>) -> bool {
    let receipt = match command {
        Command::Moderate { .. } => return false,
        Command::Send { signal, .. } => signal.options().receipt,
        _ => ReceiptMode::None,
    };
    qos == QoS::AtMostOnce && receipt == ReceiptMode::None
}

/// What a notice would say of a publish that the hub gets.
fn about(command: &Command<'_>, topic: &str) -> About {
    match command {
        Command::Send { signal, .. } => About::Signal(signal.addressed.clone()),
        _ => About::Topic(shortened(topic).into()),
    }
}
