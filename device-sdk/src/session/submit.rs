//! What the application asks for: checked here first, then encoded into the outbox, with the names in it
//! announced before it.

use core::task::{Poll, Waker};

use bugle_protocol::{
    Frame, MAX_LIST, MAX_PAYLOAD, MAX_TOPIC, NameKind, NameList, NameRef, Publish, Reason, ReceiptMode, Send, is_name,
};

use super::interest::Interest;
use super::names::AnnouncedNames;
use super::outbox::{Full, Outbox};
use super::outcomes::ReceiptWish;
use super::{Link, Session};
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

impl Request<'_> {
    /// What can be refused without asking the gateway.
    pub(crate) fn check(&self) -> Result<(), SendError> {
        let name = |name: &str| if is_name(name) { Ok(()) } else { Err(SendError::BadName) };
        match *self {
            Self::Send { target, payload, options } => {
                name(target.name)?;
                options.id.map_or(Ok(()), name)?;
                if !target.is_group && (target.only.is_some() || target.except.is_some()) {
                    return Err(SendError::BadOption);
                }
                for list in [target.only, target.except].into_iter().flatten() {
                    if list.len() > MAX_LIST {
                        return Err(SendError::ListTooLong);
                    }
                    list.iter().try_for_each(|entry| name(entry))?;
                }
                if target.only.is_some_and(<[_]>::is_empty) {
                    return Err(SendError::NoRecipient);
                }
                payload_fits(payload)
            }
            Self::Publish { topic, payload, .. } => {
                topic_fits(topic, &['\0', '+', '#'])?;
                payload_fits(payload)
            }
            Self::Join(group) | Self::Leave(group) => name(group),
            Self::Subscribe { filter, .. } | Self::Unsubscribe(filter) => topic_fits(filter, &['\0']),
        }
    }

    fn receipt_wish(&self) -> ReceiptWish {
        match self {
            Self::Send { options: SendOptions { receipt: ReceiptMode::None, .. }, .. } => ReceiptWish::None,
            Self::Send { options, .. } if options.store => ReceiptWish::Whenever,
            Self::Send { options, .. } => ReceiptWish::Within(options.ttl),
            _ => ReceiptWish::None,
        }
    }

    /// What this wants to be remembered.
    fn interest(&self) -> Option<Interest<'_>> {
        match *self {
            Self::Join(group) => Some(Interest::Group(group)),
            Self::Subscribe { filter, at_least_once } => Some(Interest::Filter { filter, at_least_once }),
            _ => None,
        }
    }

    /// Whether doing it twice is as good as once, so that it may be repeated when its outcome isn't known.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Send { .. } | Self::Publish { .. })
    }
}

fn payload_fits(payload: &[u8]) -> Result<(), SendError> {
    if payload.len() > MAX_PAYLOAD { Err(SendError::TooLarge) } else { Ok(()) }
}

fn topic_fits(topic: &str, forbidden: &[char]) -> Result<(), SendError> {
    let is_good = (1..=MAX_TOPIC).contains(&topic.len()) && !topic.contains(forbidden);
    if is_good { Ok(()) } else { Err(SendError::BadTopic) }
}

impl Session<'_> {
    /// Queues a request and says in which slot its outcome will be; the slot stays taken until it is
    /// [released](Self::release).
    ///
    /// Fails with [`SendError::NotConnected`] and [`SendError::Full`] where it may be tried again.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<u8, SendError> {
        request.check()?;
        if let Some(_cause) = self.stopped {
            return Err(SendError::Stopped);
        }
        let (Link::Open, Some(agreed), false) = (&self.link, self.agreed, self.is_restoring) else {
            return Err(SendError::NotConnected);
        };
        let slot = self.outcomes.vacant().ok_or(SendError::Full)?;
        if self.outbox.in_flight >= agreed.window {
            return Err(SendError::Full);
        }
        let new_interest = request.interest().filter(|interest| !self.interests.contains(*interest));
        if let Some(interest) = request.interest() {
            self.interests.remember(interest).map_err(|_| SendError::TooMany)?;
        }
        match self.queue(request, agreed.max_body) {
            Ok(number) => {
                self.outcomes.claim(slot, number, request.receipt_wish());
                match *request {
                    Request::Leave(group) => self.interests.forget(Interest::Group(group)),
                    Request::Unsubscribe(filter) => {
                        self.interests.forget(Interest::Filter { filter, at_least_once: false });
                    }
                    _ => {}
                }
                self.call_runner();
                Ok(slot)
            }
            Err(error) => {
                if let Some(interest) = new_interest {
                    self.interests.forget(interest);
                }
                Err(error)
            }
        }
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
                match self.submit(request) {
                    Ok(place) => *slot = Some(place),
                    Err(SendError::Full | SendError::NotConnected) => {
                        self.senders.register(waker);
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            };
            let error = match self.outcomes.acceptance(place) {
                None => {
                    self.outcomes.register(place, waker);
                    return Poll::Pending;
                }
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
    }

    /// All frames of the request, or none.
    fn queue(&mut self, request: &Request<'_>, max_body: u16) -> Result<u32, SendError> {
        for announce in [true, false] {
            let mark = self.outbox.mark();
            self.announced.begin_turn();
            let names = &mut Names { announced: &mut self.announced, outbox: &mut self.outbox, announce };
            let error = match push(names, request, max_body.into()) {
                Ok(number) => return Ok(number),
                Err(error) => error,
            };
            self.outbox.take_back(&mark);
            self.announced.take_back();
            // A frame that doesn't fit an empty outbox behind its names may fit without them.
            if error != SendError::Full || !self.outbox.is_empty() {
                return Err(error);
            }
        }
        Err(SendError::TooLarge)
    }
}

/// Turns names into handles, announcing them first.
struct Names<'n, 'a> {
    announced: &'n mut AnnouncedNames<'a>,
    outbox: &'n mut Outbox<'a>,
    announce: bool,
}

impl Names<'_, '_> {
    fn refer<'r>(&mut self, kind: NameKind, name: &'r str, evict: bool) -> Result<NameRef<'r>, Full> {
        if !self.announce {
            return Ok(NameRef::Inline(name));
        }
        let found = self.announced.find(kind, name, evict);
        if let Some(handle) = found.announce {
            self.outbox.push(&Frame::Name { handle: handle.get(), kind, name })?;
        }
        Ok(found.name)
    }

    /// The entries of a list, of which there are [`MAX_LIST`] at most. A list takes no other name's place.
    fn refer_all<'r>(
        &mut self,
        list: Option<&'r [&'r str]>,
        refs: &mut [NameRef<'r>; MAX_LIST],
    ) -> Result<(), Full> {
        for (place, name) in refs.iter_mut().zip(list.unwrap_or_default()) {
            *place = self.refer(NameKind::Client, name, false)?;
        }
        Ok(())
    }
}

impl From<Full> for SendError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

fn push(names: &mut Names<'_, '_>, request: &Request<'_>, max_body: usize) -> Result<u32, SendError> {
    match *request {
        Request::Send { target, payload, options } => {
            let kind = if target.is_group { NameKind::Group } else { NameKind::Client };
            let name = names.refer(kind, target.name, true)?;
            if target.only.is_some() || target.except.is_some() {
                return push_listed(names, name, &target, options, payload, max_body);
            }
            let target = if target.is_group {
                bugle_protocol::Target::Group { group: name, only: None, except: None }
            } else {
                bugle_protocol::Target::Client(name)
            };
            push_send(names, target, options, payload, max_body)
        }
        Request::Publish { topic, payload, at_least_once, retain } => {
            let topic = names.refer(NameKind::Topic, topic, true)?;
            push_frame(names, &Frame::Publish(Publish { topic, at_least_once, retain, payload }), max_body)
        }
        // Inline, so that a refusal says by itself what it is about.
        Request::Join(group) => push_frame(names, &Frame::Join { group: NameRef::Inline(group) }, max_body),
        Request::Leave(group) => push_frame(names, &Frame::Leave { group: NameRef::Inline(group) }, max_body),
        Request::Subscribe { filter, at_least_once } => {
            push_frame(names, &Frame::Subscribe { at_least_once, filter }, max_body)
        }
        Request::Unsubscribe(filter) => push_frame(names, &Frame::Unsubscribe { filter }, max_body),
    }
}

/// A function of its own, so that only sends with lists take its 2 KiB of stack.
#[inline(never)]
fn push_listed(
    names: &mut Names<'_, '_>,
    group: NameRef<'_>,
    target: &Target<'_>,
    options: &SendOptions<'_>,
    payload: &[u8],
    max_body: usize,
) -> Result<u32, SendError> {
    let mut refs = [[NameRef::Inline(""); MAX_LIST]; 2];
    let [only, except] = &mut refs;
    names.refer_all(target.only, only)?;
    names.refer_all(target.except, except)?;
    let only = target.only.map(|list| NameList::new(&only[..list.len()]));
    let except = target.except.map(|list| NameList::new(&except[..list.len()]));
    push_send(names, bugle_protocol::Target::Group { group, only, except }, options, payload, max_body)
}

fn push_send(
    names: &mut Names<'_, '_>,
    target: bugle_protocol::Target<'_>,
    options: &SendOptions<'_>,
    payload: &[u8],
    max_body: usize,
) -> Result<u32, SendError> {
    let &SendOptions { ttl, receipt, store, echo, urgent, id } = options;
    push_frame(names, &Frame::Send(Send { target, ttl, receipt, store, echo, urgent, id, payload }), max_body)
}

fn push_frame(names: &mut Names<'_, '_>, frame: &Frame<'_>, max_body: usize) -> Result<u32, SendError> {
    let length = frame.body_len_from_device();
    if length > max_body || length > names.outbox.capacity() {
        return Err(SendError::TooLarge);
    }
    Ok(names.outbox.push(frame)?)
}
