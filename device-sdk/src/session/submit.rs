//! What the application asks for: checked here first, then encoded into the outbox, with its name announced before it. The
//! entries of lists stand there themselves.

use core::task::{Poll, Waker};

use bugle_protocol::{
    Kind, MAX_LIST, MAX_PAYLOAD, MAX_TOPIC, NameKind, NameList, NameRef, Publish, Reason, ReceiptMode, Send,
    Writer, is_name, write,
};

use super::Session;
use super::interest::Interest;
use super::outbox::Outbox;
use super::outcomes::ReceiptWish;
use crate::signal::{Accepted, SendError, SendOptions, Target};

/// Something to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Request<'r> {
    /// A signal.
    Send {
        /// Whom it is for.
        target: Target<'r>,
        /// The message.
        payload: &'r [u8],
        /// How.
        options: &'r SendOptions<'r>,
    },
    /// A message to a plain topic.
    Publish {
        /// The topic.
        topic: &'r str,
        /// The message.
        payload: &'r [u8],
        /// MQTT's QoS 1, else 0.
        at_least_once: bool,
        /// Keep it as the topic's retained message.
        retain: bool,
    },
    /// Join a group, now and in every new session.
    Join(&'r str),
    /// Leave a group.
    Leave(&'r str),
    /// Subscribe to a topic filter, now and in every new session.
    Subscribe {
        /// The filter.
        filter: &'r str,
        /// Take messages at QoS 1, else at 0.
        at_least_once: bool,
    },
    /// End a subscription.
    Unsubscribe(&'r str),
}

/// Why a request isn't queued: a [`SendError`] that a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    ListTooLong,
    NoRecipient,
    BadName,
    BadTopic,
    BadOption,
    TooMany,
    Full,
    NotConnected,
    Stopped,
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::TooLarge,
            Refusal::ListTooLong => Self::ListTooLong,
            Refusal::NoRecipient => Self::NoRecipient,
            Refusal::BadName => Self::BadName,
            Refusal::BadTopic => Self::BadTopic,
            Refusal::BadOption => Self::BadOption,
            Refusal::TooMany => Self::TooMany,
            Refusal::Full => Self::Full,
            Refusal::NotConnected => Self::NotConnected,
            Refusal::Stopped => Self::Stopped,
        }
    }
}

impl Request<'_> {
    /// What can be refused without asking the gateway.
    #[cfg(feature = "flash-outbox")]
    pub(crate) fn check(&self) -> Result<(), SendError> {
        Ok(self.refuse()?)
    }

    fn refuse(&self) -> Result<(), Refusal> {
        let payload = match *self {
            Self::Send { target, payload, options } => {
                name_fits(target.name)?;
                if let Some(id) = options.id {
                    name_fits(id)?;
                }
                if !target.is_group && (target.only.is_some() || target.except.is_some()) {
                    return Err(Refusal::BadOption);
                }
                list_fits(target.only)?;
                list_fits(target.except)?;
                if target.only.is_some_and(<[_]>::is_empty) {
                    return Err(Refusal::NoRecipient);
                }
                payload
            }
            Self::Publish { topic, payload, .. } => {
                topic_fits(topic, b"\0+#")?;
                payload
            }
            Self::Join(group) | Self::Leave(group) => return name_fits(group),
            Self::Subscribe { filter, .. } | Self::Unsubscribe(filter) => return topic_fits(filter, b"\0"),
        };
        if payload.len() > MAX_PAYLOAD { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    fn receipt_wish(&self) -> ReceiptWish {
        match self {
            Self::Send { options: SendOptions { receipt: ReceiptMode::None, .. }, .. } => ReceiptWish::None,
            Self::Send { options, .. } if options.store => ReceiptWish::Whenever,
            Self::Send { options, .. } => ReceiptWish::Within(options.ttl),
            _ => ReceiptWish::None,
        }
    }

    /// What this wants to be remembered, or forgotten.
    fn interest(&self) -> Option<Interest<'_>> {
        match *self {
            Self::Join(group) | Self::Leave(group) => Some(Interest::Group(group)),
            Self::Subscribe { filter, at_least_once } => Some(Interest::Filter { filter, at_least_once }),
            Self::Unsubscribe(filter) => Some(Interest::Filter { filter, at_least_once: false }),
            Self::Send { .. } | Self::Publish { .. } => None,
        }
    }

    /// Whether its interest is to be remembered.
    fn is_wish(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Subscribe { .. })
    }

    /// What it is about, and what a handle for that would stand for, if it may have one.
    pub(crate) fn name(&self) -> (Option<NameKind>, &str) {
        match *self {
            Self::Send { target, .. } if target.is_group => (Some(NameKind::Group), target.name),
            Self::Send { target, .. } => (Some(NameKind::Client), target.name),
            Self::Publish { topic, .. } => (Some(NameKind::Topic), topic),
            Self::Join(group) | Self::Leave(group) => (None, group),
            Self::Subscribe { filter, .. } | Self::Unsubscribe(filter) => (None, filter),
        }
    }

    /// Writes the body of its frame, in which `name` stands, and says the kind.
    pub(crate) fn write(&self, name: NameRef<'_>, writer: &mut Writer<'_>) -> Kind {
        match *self {
            Self::Send {
                target,
                payload,
                options: &SendOptions { ttl, receipt, store, echo, urgent, id },
            } => {
                let target = if target.is_group {
                    let (only, except) =
                        (target.only.map(NameList::inline), target.except.map(NameList::inline));
                    bugle_protocol::Target::Group { group: name, only, except }
                } else {
                    bugle_protocol::Target::Client(name)
                };
                write::send(writer, &Send { target, ttl, receipt, store, echo, urgent, id, payload });
                Kind::SEND
            }
            Self::Publish { payload, at_least_once, retain, .. } => {
                write::publish(writer, &Publish { topic: name, at_least_once, retain, payload });
                Kind::PUBLISH
            }
            Self::Join(_) => {
                write::group(writer, name);
                Kind::JOIN
            }
            Self::Leave(_) => {
                write::group(writer, name);
                Kind::LEAVE
            }
            Self::Subscribe { filter, at_least_once } => {
                write::subscribe(writer, at_least_once, filter);
                Kind::SUBSCRIBE
            }
            Self::Unsubscribe(filter) => {
                write::unsubscribe(writer, filter);
                Kind::UNSUBSCRIBE
            }
        }
    }

    /// Whether doing it twice is as good as once, so that it may be repeated when its outcome isn't known.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Send { .. } | Self::Publish { .. })
    }
}

fn name_fits(name: &str) -> Result<(), Refusal> {
    if is_name(name) { Ok(()) } else { Err(Refusal::BadName) }
}

#[inline(never)]
fn list_fits(list: Option<&[&str]>) -> Result<(), Refusal> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_LIST {
        return Err(Refusal::ListTooLong);
    }
    list.iter().try_for_each(|entry| name_fits(entry))
}

fn topic_fits(topic: &str, forbidden: &[u8]) -> Result<(), Refusal> {
    let is_good =
        (1..=MAX_TOPIC).contains(&topic.len()) && !topic.bytes().any(|byte| forbidden.contains(&byte));
    if is_good { Ok(()) } else { Err(Refusal::BadTopic) }
}

impl Session<'_> {
    /// Queues a request and says in which slot its outcome will be; the slot stays taken until it is
    /// [released](Self::release).
    ///
    /// Fails with [`SendError::NotConnected`] and [`SendError::Full`] where it may be tried again.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<u8, SendError> {
        Ok(self.try_submit(request)?)
    }

    #[inline(never)]
    fn try_submit(&mut self, request: &Request<'_>) -> Result<u8, Refusal> {
        request.refuse()?;
        if self.stopped.is_some() {
            return Err(Refusal::Stopped);
        }
        if !self.is_open() || self.is_restoring {
            return Err(Refusal::NotConnected);
        }
        let slot = self.outcomes.vacant().ok_or(Refusal::Full)?;
        if self.outbox.in_flight >= self.agreed.window {
            return Err(Refusal::Full);
        }
        let interest = request.interest();
        let is_new = match interest {
            Some(interest) if request.is_wish() => {
                self.interests.remember(interest).map_err(|_| Refusal::TooMany)?
            }
            _ => false,
        };
        let queued = self.queue(request);
        if let Ok(number) = queued {
            self.outcomes.claim(slot, number, request.receipt_wish());
            self.call_runner();
        }
        if let Some(interest) = interest
            && (is_new && queued.is_err() || !request.is_wish() && queued.is_ok())
        {
            self.interests.forget(interest);
        }
        queued.map(|_| slot)
    }

    /// Submits a request when there is room, and says whether it was accepted. `slot` is where its outcome will be, once it
    /// is queued. It is submitted again only where the first attempt surely had no effect, or may have it twice.
    #[inline(never)]
    pub(crate) fn poll_request(
        &mut self,
        request: &Request<'_>,
        slot: &mut Option<u8>,
        may_name_again: &mut bool,
        waker: &Waker,
    ) -> Poll<Result<Accepted, SendError>> {
        loop {
            let Some(place) = *slot else {
                match self.try_submit(request) {
                    Ok(place) => *slot = Some(place),
                    Err(Refusal::Full | Refusal::NotConnected) => break,
                    Err(refusal) => return Poll::Ready(Err(refusal.into())),
                }
                continue;
            };
            let error = match self.outcomes.acceptance(place) {
                None => break,
                Some(Ok(accepted)) => return Poll::Ready(Ok(accepted)),
                Some(Err(error)) => error,
            };
            let again = match error {
                SendError::NotSent => true,
                SendError::Unconfirmed => request.is_repeatable(),
                // The gateway's table of names is smaller than it said; the second attempt uses none.
                SendError::Refused { reason: Reason::UnknownHandle, .. } => core::mem::take(may_name_again),
                _ => false,
            };
            if !again {
                return Poll::Ready(Err(error));
            }
            *slot = None;
            self.release(place);
        }
        self.register(waker);
        Poll::Pending
    }

    /// The frame of the request, behind the announcement of its name if that is new; or nothing.
    fn queue(&mut self, request: &Request<'_>) -> Result<u32, Refusal> {
        let mark = self.outbox.mark();
        let (kind, name) = request.name();
        let name = match kind {
            Some(kind) => self.announced.refer(kind, name, &mut self.outbox),
            // Inline, so that a refusal says by itself what it is about.
            None => NameRef::Inline(name),
        };
        let queued = push(&mut self.outbox, self.agreed.max_body, request, name);
        if queued.is_ok() || !self.announced.take_back() {
            return queued;
        }
        // What doesn't fit behind the announcement may fit without it.
        self.outbox.take_back(&mark);
        push(&mut self.outbox, self.agreed.max_body, request, NameRef::Inline(request.name().1))
    }
}

/// Queues the frame of the request, in which `name` stands.
#[inline(never)]
pub(super) fn push(
    outbox: &mut Outbox<'_>,
    max_body: u16,
    request: &Request<'_>,
    name: NameRef<'_>,
) -> Result<u32, Refusal> {
    let mut writer = outbox.body();
    let kind = request.write(name, &mut writer);
    let length = writer.written();
    if length > max_body.into() {
        return Err(Refusal::TooLarge);
    }
    outbox.push(kind, length).map_err(|_| {
        // What doesn't fit an empty outbox never will.
        if outbox.is_empty() || length > outbox.capacity() { Refusal::TooLarge } else { Refusal::Full }
    })
}
