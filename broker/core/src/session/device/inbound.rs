//! Frames from the device, and what they ask of the hub.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;

use bugle_protocol::{
    Frame, Hello, Kind, MAX_PAYLOAD, MAX_TOPIC, MIN_DEVICE_BODY, Malformed, NameKind, NameList, NameRef,
    Publish, RawFrame, Reason, Send, Status, Target as WireTarget, VERSION, announced_handle, is_name,
};

use super::{
    Announcer, Asking, DeviceSession, NAMES, Phase, Received, Sent, Terms, UNWINDOWED, WINDOW, What, refusal,
};
use crate::model::{
    Addressed, ClientId, Command, ConnectRequest, Credential, Filter, GroupName, Identity, Instant,
    MessageId, ModerationRequest, Publication, QoS, Reception, RecipientList, Refusal, RequestId, Settled,
    Signal, SignalOptions, SubscribeItem, Target, Text, Will,
};
use crate::mqtt::{RetainHandling, topic};
use crate::session::mqtt::moderation_topic;

impl DeviceSession {
    pub(super) fn handle_frame<'i>(&mut self, raw: RawFrame<'i>, now: Instant) -> Option<Command<'i>> {
        match &self.phase {
            Phase::AwaitingHello | Phase::AwaitingProof(..) if raw.kind.is_optional() => None,
            Phase::AwaitingHello => self.handle_hello(raw),
            Phase::AwaitingProof(..) => self.handle_proof(raw),
            Phase::Connected if raw.kind.is_numbered() => self.handle_numbered(raw),
            Phase::Connected => self.handle_control(raw, now),
            Phase::AwaitingHub(_) | Phase::Away | Phase::Closing => None,
        }
    }

    fn handle_hello(&mut self, raw: RawFrame<'_>) -> Option<Command<'static>> {
        match raw.decode() {
            Ok(Frame::Hello(hello)) if hello.version != VERSION => {
                let text = format!("version {} was asked for; this gateway speaks {VERSION}", hello.version);
                self.bye(Reason::UnsupportedVersion, &text);
                None
            }
            Ok(Frame::Hello(hello)) => match self.asking(&hello) {
                Ok(asking) => {
                    self.announcer = Announcer::new(hello.names);
                    self.client_id = hello.client_id.into();
                    Some(self.ask(Box::new(asking), Credential::Challengeable))
                }
                Err(why) => {
                    self.bye(why.reason, &why.text);
                    None
                }
            },
            other => {
                self.handle_opening_fault(raw.kind, Kind::HELLO, other);
                None
            }
        }
    }

    /// What isn't the frame that the opening is at: a device that gives up, or a fault.
    fn handle_opening_fault(&mut self, kind: Kind, wanted: Kind, frame: Result<Frame<'_>, Malformed>) {
        match frame {
            Ok(Frame::Bye { .. }) => self.phase = Phase::Closing,
            Err(malformed) if kind == wanted => self.bye(Reason::Malformed, &malformed.to_string()),
            _ if wanted == Kind::HELLO => self.bye(Reason::ProtocolError, "the first frame is a hello"),
            _ => self.bye(Reason::ProtocolError, "a challenge is answered by a proof"),
        }
    }

    fn asking(&self, hello: &Hello<'_>) -> Result<Asking, Refusal> {
        if !is_name(hello.client_id) {
            return Err(refusal(Reason::BadName, "a client id is 1-64 of A-Z a-z 0-9 . _ : -"));
        }
        if usize::from(hello.max_body) < MIN_DEVICE_BODY {
            return Err(refusal(Reason::BadOption, "a device takes bodies of at least 128 bytes"));
        }
        let will = hello.will.map(|will| match will.frame() {
            Ok(Frame::Send(send)) => {
                self.signal(&send).map(|signal| Will::Send(Box::new(signal.into_owned())))
            }
            Ok(Frame::Publish(publish)) => self.publication(&publish).map(|publication| {
                let publisher = || Identity::new(hello.client_id);
                let message = Arc::new(publication.view().to_message(publisher));
                Will::Publish { message, expiry: None }
            }),
            _ => Err(refusal(Reason::Malformed, "the will is no send or publish")),
        });
        let terms = Terms {
            keep_alive: hello.keep_alive,
            max_body: hello.max_body.into(),
            window: hello.window.into(),
            names: hello.names,
        };
        Ok(Asking {
            identity: Identity::new(hello.client_id),
            terms,
            will: will.transpose()?,
            session_expiry: hello.session_expiry.min(self.config.limits.device_resume),
            resume: hello.resume,
        })
    }

    fn ask(&mut self, asking: Box<Asking>, credential: Credential) -> Command<'static> {
        let request = ConnectRequest {
            identity: Some(asking.identity.clone()),
            credential,
            will: asking.will.clone(),
            inbox: Some(Reception::DEVICE),
            // What another protocol left is kept (S1).
            clean_start: false,
            session_expiry: asking.session_expiry,
            will_delay: 0,
        };
        self.phase = Phase::AwaitingHub(asking);
        Command::Connect(Box::new(request))
    }

    fn handle_proof(&mut self, raw: RawFrame<'_>) -> Option<Command<'static>> {
        let proof = match raw.decode() {
            Ok(Frame::Proof { proof }) => proof,
            other => {
                self.handle_opening_fault(raw.kind, Kind::PROOF, other);
                return None;
            }
        };
        let Phase::AwaitingProof(asking, challenge) = std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            return None;
        };
        Some(self.ask(asking, Credential::Proof { challenge, proof: *proof }))
    }

    fn handle_control(&mut self, raw: RawFrame<'_>, now: Instant) -> Option<Command<'static>> {
        match raw.decode() {
            Ok(Frame::Ping { token }) => {
                self.write_control(&Frame::Pong { clock: token.map(|token| (token, now.as_millis())) });
            }
            Ok(Frame::Pong { .. }) => {}
            Ok(Frame::Ack { frames }) => self.handle_ack(frames),
            Ok(Frame::Bye { reason, .. }) => {
                self.phase = Phase::Closing;
                // It is through with the session, whatever its reason.
                self.give_up_resuming();
                return Some(Command::Disconnect {
                    with_will: reason != Reason::Normal,
                    session_expiry: None,
                });
            }
            _ if raw.kind.is_optional() => {}
            Ok(_) => self.bye(Reason::ProtocolError, "this kind of frame isn't allowed here"),
            Err(malformed) if malformed.is_unknown_kind() => {
                self.bye(Reason::ProtocolError, "an unknown kind of frame");
            }
            Err(malformed) => self.bye(Reason::Malformed, &malformed.to_string()),
        }
        None
    }

    /// The device has done with its oldest `frames` frames.
    fn handle_ack(&mut self, frames: u32) {
        if frames as usize > self.unacknowledged.len() {
            return self.bye(Reason::ProtocolError, "an ack of more frames than are outstanding");
        }
        let presumed = std::mem::take(&mut self.presumed).into_iter().flatten();
        self.settled.extend(presumed.map(|slot| (slot, Settled::Final(Status::Delivered))));
        for _ in 0..frames {
            let slot = self.forget_oldest().and_then(Sent::slot);
            self.settled.extend(slot.map(|slot| (slot, Settled::Final(Status::Delivered))));
        }
    }

    /// The device refused one of the gateway's frames: who waits for a delivery hears of it, and the frame
    /// stays in the window until its ack.
    fn handle_refused(&mut self, number: u16, reason: Reason) {
        let presumed = self.presumed.len();
        let first = self.sent.wrapping_sub((self.unacknowledged.len() + presumed) as u32) as u16;
        let at = usize::from(number.wrapping_sub(first));
        let slot = match (self.presumed.get_mut(at), at.checked_sub(presumed)) {
            (Some(slot), _) => slot,
            (None, Some(at)) => match self.unacknowledged.get_mut(at) {
                Some(Sent { what: What::Payload(slot), .. }) => slot,
                _ => return,
            },
            (None, None) => return,
        };
        let status = match reason {
            Reason::Expired => Status::Expired,
            Reason::NotAuthorized => Status::Denied,
            _ => Status::Overflow,
        };
        self.settled.extend(slot.take().map(|slot| (slot, Settled::Final(status))));
    }

    fn handle_numbered<'i>(&mut self, raw: RawFrame<'i>) -> Option<Command<'i>> {
        let request = RequestId(self.received);
        self.received = self.received.wrapping_add(1);
        self.unfinished.push_back(Received { takes_window: raw.kind.takes_window(), done: false });
        let windowed = self.unfinished.iter().filter(|frame| frame.takes_window).count();
        if windowed > usize::from(WINDOW) || self.unfinished.len() > UNWINDOWED {
            self.bye(Reason::WindowExceeded, "more unacknowledged frames than the window of 32");
            return None;
        }
        match self.command(raw, request) {
            Ok(command) => command,
            Err(refusal) => Some(Command::Refuse { request, refusal }),
        }
    }

    /// What a numbered frame asks of the hub, if it asks anything.
    fn command<'i>(&mut self, raw: RawFrame<'i>, request: RequestId) -> Result<Option<Command<'i>>, Refusal> {
        let frame = raw.decode().map_err(|malformed| match malformed.is_unknown_kind() {
            true => refusal(Reason::Unsupported, "an unknown kind of frame"),
            false => refusal(Reason::Malformed, malformed.to_string()),
        });
        if raw.kind == Kind::NAME
            && frame.is_err()
            && let Some(handle) = announced_handle(raw.body)
            && let Some(slot) = self.names.get_mut(usize::from(handle.get()) - 1)
        {
            *slot = None;
        }
        if raw.kind == Kind::REFUSED && frame.is_err() {
            // Refusing it in turn could go on for ever.
            self.bye(Reason::Malformed, "a malformed refusal");
            return Ok(None);
        }
        Ok(Some(match frame? {
            Frame::Name { handle, kind, name } => {
                self.handle_name(handle, kind, name)?;
                self.finish(request.0);
                return Ok(None);
            }
            Frame::Refused { number, reason, .. } => {
                self.handle_refused(number, reason);
                self.finish(request.0);
                return Ok(None);
            }
            Frame::Join { group } => {
                let retained = RetainHandling::DoNotSend;
                let filter = self.group_filter(group)?;
                let item = SubscribeItem { filter, reception: Reception::DEVICE, retained, forms: 0 };
                Command::Subscribe { request, items: vec![Ok(item)] }
            }
            Frame::Leave { group } => {
                Command::Unsubscribe { request, filters: vec![self.group_filter(group)?] }
            }
            Frame::Send(send) => {
                Command::Send { request: Some(request), signal: self.signal(&send)?, refusable: true }
            }
            Frame::Publish(publish) if self.moderates(&publish) => {
                Command::Moderate { request, moderation: Box::new(self.moderation(&publish)?) }
            }
            Frame::Publish(publish) => {
                Command::Publish { request: Some(request), publication: self.publication(&publish)? }
            }
            Frame::Subscribe { at_least_once, filter } => {
                let filter = self.topic_filter(filter)?;
                let reception = Reception { qos: qos(at_least_once), ..Reception::DEVICE };
                let retained = RetainHandling::SendAtSubscribe;
                Command::Subscribe {
                    request,
                    items: vec![Ok(SubscribeItem { filter, reception, retained, forms: 0 })],
                }
            }
            Frame::Unsubscribe { filter } => {
                Command::Unsubscribe { request, filters: vec![self.topic_filter(filter)?] }
            }
            _ => return Err(refusal(Reason::Unsupported, "only a gateway sends this kind of frame")),
        }))
    }

    /// A refused name leaves its handle empty, so that what was sent on behind it can't go to the wrong place.
    fn handle_name(&mut self, handle: u16, kind: NameKind, name: &str) -> Result<(), Refusal> {
        let index = match usize::from(handle).checked_sub(1) {
            Some(index) if handle <= NAMES => index,
            _ => return Err(refusal(Reason::TooMany, "handles go from 1 to 256")),
        };
        if self.names.len() <= index {
            self.names.resize(index + 1, None);
        }
        let slot = self.names.get_mut(index);
        let (good, reason) = match kind {
            NameKind::Client | NameKind::Group => (is_name(name), Reason::BadName),
            NameKind::Topic => (topic::is_valid_name(name) && name.len() <= MAX_TOPIC, Reason::BadTopic),
        };
        if let Some(slot) = slot {
            *slot = good.then(|| (kind, name.into()));
        }
        if good { Ok(()) } else { Err(refusal(reason, "not a name of this kind; the handle is empty now")) }
    }

    fn resolve<'a>(&'a self, name: NameRef<'a>, kind: NameKind) -> Result<&'a str, Refusal> {
        match name {
            NameRef::Inline(text) => Ok(text),
            NameRef::Handle(handle) => self.resolve_handle(handle, kind).map(|text| &**text),
        }
    }

    fn resolve_handle(&self, handle: NonZeroU16, kind: NameKind) -> Result<&Rc<str>, Refusal> {
        match self.names.get(usize::from(handle.get()) - 1) {
            Some(Some((found, text))) if *found == kind => Ok(text),
            _ => Err(refusal(Reason::UnknownHandle, format!("handle {handle} stands for no {kind:?}"))),
        }
    }

    fn group(&self, name: NameRef<'_>) -> Result<GroupName, Refusal> {
        let name = self.resolve(name, NameKind::Group)?;
        GroupName::new(name).ok_or_else(|| refusal(Reason::BadName, "not a group name"))
    }

    fn group_filter(&self, name: NameRef<'_>) -> Result<Filter, Refusal> {
        self.group(name).map(Filter::Group)
    }

    fn topic_filter(&self, filter: &str) -> Result<Filter, Refusal> {
        if !topic::is_valid_filter(filter)
            || filter.len() > MAX_TOPIC
            || filter.starts_with("$share/")
            || self.is_signalling(filter) && !self.is_presence(filter)
        {
            return Err(refusal(Reason::BadTopic, "not a filter for plain topics"));
        }
        Ok(Filter::Topic(filter.into()))
    }

    /// Whether it watches a group's members (T5), which is the same as over MQTT.
    fn is_presence(&self, filter: &str) -> bool {
        let group = filter.strip_prefix(&*self.config.prefix).and_then(|path| path.strip_prefix("/p/"));
        group.is_some_and(is_name)
    }

    fn is_signalling(&self, name: &str) -> bool {
        name.split('/').next() == Some(&self.config.prefix)
    }

    fn signal<'i>(&self, send: &Send<'i>) -> Result<Signal<'i>, Refusal> {
        Signal::check_payload(send.payload.len())?;
        Signal::check_ttl(send.ttl)?;
        let target = match send.target {
            WireTarget::Client(client) => {
                let id = ClientId::new(self.resolve(client, NameKind::Client)?);
                Target::Client(id.ok_or_else(|| refusal(Reason::BadName, "not a client id"))?)
            }
            WireTarget::Group { group, only, except } => {
                let list = |list: Option<NameList<'_>>| list.map(|list| self.list(list)).transpose();
                Target::group(self.group(group)?, list(only)?, list(except)?)?
            }
        };
        let id = send.id.map(|id| {
            MessageId::new(id)
                .ok_or_else(|| refusal(Reason::BadOption, "a message id is 1-64 of A-Z a-z 0-9 . _ : -"))
        });
        let options = SignalOptions {
            ttl: send.ttl,
            receipt: send.receipt,
            store: send.store,
            echo: send.echo,
            urgent: send.urgent,
            id: id.transpose()?,
        };
        Ok(Signal {
            addressed: Rc::new(Addressed { target, options }),
            payload: Cow::Borrowed(send.payload),
            properties: Cow::Borrowed(&[]),
            qos: QoS::AtLeastOnce,
            as_sent: None,
        })
    }

    fn list(&self, list: NameList<'_>) -> Result<RecipientList, Refusal> {
        if list.len() > bugle_protocol::MAX_LIST {
            return Err(refusal(Reason::ListTooLong, "a list has at most 128 entries"));
        }
        let names = list.iter().map(|name| self.resolve(name, NameKind::Client));
        RecipientList::new(names.collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether it is to a topic of moderation, which is the same as over MQTT.
    fn moderates(&self, publish: &Publish<'_>) -> bool {
        self.moderation_path(publish).is_some()
    }

    /// What follows `{prefix}/m/` in its topic.
    fn moderation_path<'a>(&'a self, publish: &Publish<'a>) -> Option<&'a str> {
        let topic = self.resolve(publish.topic, NameKind::Topic).ok()?;
        topic.strip_prefix(&*self.config.prefix)?.strip_prefix("/m/")
    }

    /// A kick, mute or ban (S14).
    fn moderation(&self, publish: &Publish<'_>) -> Result<ModerationRequest, Refusal> {
        if publish.retain {
            return Err(refusal(Reason::RetainRefused, "moderation is not retained"));
        }
        moderation_topic::parse(self.moderation_path(publish).unwrap_or_default(), publish.payload)
    }

    fn publication<'i>(&self, publish: &Publish<'i>) -> Result<Publication<'i>, Refusal> {
        let name = match publish.topic {
            NameRef::Inline(text) => Text::Borrowed(text),
            NameRef::Handle(handle) => Text::Shared(self.resolve_handle(handle, NameKind::Topic)?.clone()),
        };
        if !topic::is_valid_name(&name) || name.starts_with('$') || self.is_signalling(&name) {
            return Err(refusal(Reason::BadTopic, "not a plain topic that a client may publish to"));
        }
        if publish.payload.len() > MAX_PAYLOAD {
            return Err(refusal(Reason::TooLarge, "a payload is at most 8192 bytes"));
        }
        Ok(Publication {
            topic: name,
            payload: Cow::Borrowed(publish.payload),
            properties: Cow::Borrowed(&[]),
            qos: qos(publish.at_least_once),
            retain: publish.retain,
            deadline: None,
            as_sent: None,
        })
    }
}

fn qos(at_least_once: bool) -> QoS {
    if at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}
