//! What belongs to the session and not to its connection: identity, packet identifiers, subscriptions, what
//! waits for an answer. A persistent session would keep this while its client is away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;

use super::in_flight::InFlight;
use crate::model::{About, ClientId, GroupName, Identity, QoS, Reception, Refusal, RequestId};

/// Requests for which a session without any keeps memory.
const KEPT: usize = 8;

/// The state of one session.
#[derive(Debug)]
pub(super) struct SessionState {
    /// Set when the client is let in.
    pub(super) identity: Option<Identity>,
    /// The identity, if it can be addressed (S1).
    pub(super) me: Option<ClientId>,
    /// To the client, unacknowledged.
    pub(super) in_flight: InFlight,
    /// Identifiers of QoS 2 publishes that were taken and not yet released [MQTT-4.3.3-10].
    pub(super) received: BTreeSet<NonZeroU16>,
    /// Those of them of which the hub hadn't said that they are kept when the connection was lost.
    pub(super) unconfirmed: BTreeSet<NonZeroU16>,
    /// Asked of the hub and unanswered, in order; bounded by `requests_per_client`, or one more where a packet
    /// makes two requests.
    pub(super) outstanding: VecDeque<Outstanding>,
    /// How many requests had no packet identifier.
    unidentified: u32,
    pub(super) groups: BTreeMap<GroupName, Forms>,
    pub(super) inbox: Forms,
    /// The subscription to `{prefix}/r/{me}`.
    pub(super) notice_reception: Option<Reception>,
    /// What waits to be sent there; bounded, the newest is dropped.
    pub(super) notices: VecDeque<Vec<u8>>,
    /// Numbers subscriptions to the forms of a topic.
    pub(super) subscribes: u32,
    /// It outlives its connection: what is written is kept until the client has acknowledged it.
    pub(super) persistent: bool,
    /// It outlives the gateway as well: the store knows which identifiers were taken.
    pub(super) lasts: bool,
    /// It has outlived one, so that the client may repeat what it can't know to be done.
    pub(super) resumed: bool,
}

impl SessionState {
    pub(super) fn new() -> Self {
        Self {
            identity: None,
            me: None,
            in_flight: InFlight::new(),
            received: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            outstanding: VecDeque::new(),
            unidentified: 0,
            groups: BTreeMap::new(),
            inbox: Forms::default(),
            notice_reception: None,
            notices: VecDeque::new(),
            subscribes: 0,
            persistent: false,
            lasts: false,
            resumed: false,
        }
    }

    /// The number of a new request: its packet identifier or, where it has none, one that is no identifier, so that
    /// answers to several of these can be told apart.
    pub(super) fn number(&mut self, id: Option<NonZeroU16>) -> u32 {
        const IDENTIFIERS: u32 = 1 << 16;
        match id {
            Some(id) => id.get().into(),
            None => {
                // Below the numbers of a packet's second request.
                self.unidentified = (self.unidentified + 1) % ((1 << 31) - IDENTIFIERS);
                IDENTIFIERS + self.unidentified
            }
        }
    }

    /// What belongs to the connection is over. A QoS 2 publish that the hub has was taken, though its sender
    /// doesn't know it yet: its repetition is none [MQTT-4.3.3-10].
    pub(super) fn end_connection(&mut self) {
        for outstanding in std::mem::take(&mut self.outstanding) {
            let id = u16::try_from(outstanding.request).ok().and_then(NonZeroU16::new);
            match (outstanding.pending, id) {
                // A refusal that its sender didn't hear of is judged again.
                (Pending::Publish { answer: Some(Answer::Refused(_)), .. }, Some(id)) => {
                    self.forget_received(id);
                }
                (Pending::Publish { qos: QoS::ExactlyOnce, may_last, answer, .. }, Some(id)) => {
                    self.received.insert(id);
                    if self.lasts && may_last && answer.is_none() {
                        self.unconfirmed.insert(id);
                    } else {
                        self.unconfirmed.remove(&id);
                    }
                }
                _ => {}
            }
        }
        self.notices = VecDeque::new();
    }

    /// A publish is done whose client can't be told on this connection any more.
    pub(super) fn answer_unheard(&mut self, request: RequestId) {
        for outstanding in self.outstanding.iter_mut().filter(|outstanding| outstanding.request == request.0)
        {
            if let Pending::Publish { answer: answer @ None, .. } = &mut outstanding.pending {
                *answer = Some(Answer::Done);
            }
        }
    }

    /// A QoS 2 publish wasn't taken after all: its repetition is a new one.
    pub(super) fn forget_received(&mut self, id: NonZeroU16) {
        self.received.remove(&id);
        self.unconfirmed.remove(&id);
    }

    /// Takes the oldest request with this number that `is_meant` accepts.
    pub(super) fn take_outstanding(
        &mut self,
        request: RequestId,
        is_meant: fn(&Pending) -> bool,
    ) -> Option<Pending> {
        let at = self
            .outstanding
            .iter()
            .position(|outstanding| outstanding.request == request.0 && is_meant(&outstanding.pending))?;
        self.remove_outstanding(at).map(|outstanding| outstanding.pending)
    }

    /// Takes the request at this place of the queue.
    pub(super) fn remove_outstanding(&mut self, at: usize) -> Option<Outstanding> {
        let outstanding = self.outstanding.remove(at);
        if self.outstanding.is_empty() && self.outstanding.capacity() > KEPT {
            self.outstanding = VecDeque::new();
        }
        outstanding
    }

    /// Whether a request with this packet identifier is unanswered [MQTT-2.2.1-3].
    pub(super) fn is_outstanding(&self, id: NonZeroU16) -> bool {
        self.outstanding.iter().any(|outstanding| outstanding.request == u32::from(id.get()))
    }

    /// Whether a publish with this packet identifier and QoS is unanswered.
    pub(super) fn is_publishing(&self, id: NonZeroU16, qos: QoS) -> bool {
        self.outstanding.iter().any(|outstanding| {
            outstanding.request == u32::from(id.get())
                && matches!(outstanding.pending, Pending::Publish { qos: asked, .. } if asked == qos)
        })
    }

    /// QoS 1 and 2 publishes of the client that it hasn't seen the end of.
    pub(super) fn unfinished_publishes(&self) -> usize {
        let unanswered = self.outstanding.iter().filter(|outstanding| {
            matches!(outstanding.pending, Pending::Publish { qos: QoS::AtLeastOnce | QoS::ExactlyOnce, .. })
        });
        unanswered.count() + self.received.len()
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// The packet identifier, or a number above those.
    pub(super) request: u32,
    pub(super) pending: Pending,
}

/// What the answer is needed for.
#[derive(Debug)]
pub(super) enum Pending {
    Publish {
        qos: QoS,
        /// It may have to be kept, so that its answer is a promise.
        may_last: bool,
        /// For a notice, should it be refused.
        about: Option<About>,
        /// The hub's answer, where an earlier publish has none yet: acknowledgements leave in the order of
        /// publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
        answer: Option<Answer>,
    },
    Subscribe(Vec<SubscribePlan>),
    Unsubscribe(UnsubscribePlan),
}

/// What the hub said of a publish.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Refused(Box<Refusal>),
}

/// What becomes of one filter of a SUBSCRIBE.
#[derive(Debug)]
pub(super) struct SubscribePlan {
    pub(super) filter: Arc<str>,
    pub(super) qos: QoS,
    pub(super) kind: SubscribeKind,
}

/// Who answers for it.
#[derive(Debug)]
pub(super) enum SubscribeKind {
    /// The hub; if it refuses, a form that was new is forgotten.
    Hub { undo: Option<(Place, Form)> },
    /// The session.
    Notices,
}

/// What an UNSUBACK waits for.
#[derive(Debug)]
pub(super) struct UnsubscribePlan {
    /// Per filter: whether it was there, as far as the session knows; none: the hub does.
    pub(super) known: Vec<Option<bool>>,
    /// The hub's answers for the others.
    pub(super) answers: Vec<bool>,
    /// Commands without an answer.
    pub(super) awaited: u8,
}

/// What has forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Group(GroupName),
    Inbox,
}

/// The three filters that mean the same place (T2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `sig/g/{group}`
    Bare = 0,
    /// `sig/g/{group}/+`
    Plus = 1,
    /// `sig/g/{group}/#`
    Hash = 2,
}

/// Which forms of a place are subscribed, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forms([Option<Subscribed>; 3]);

/// One of them, with when it came.
#[derive(Clone, Copy, Debug)]
struct Subscribed {
    reception: Reception,
    order: u32,
}

impl Forms {
    /// Sets a form; says whether it is new.
    pub(super) fn set(&mut self, form: Form, reception: Reception, order: u32) -> bool {
        let with_sender = form != Form::Bare;
        let reception = Reception { with_sender, ..reception };
        self.0[form as usize].replace(Subscribed { reception, order }).is_none()
    }

    /// Which forms are there, a bit each.
    pub(super) fn present(&self) -> u8 {
        self.0.iter().enumerate().filter(|(_, form)| form.is_some()).map(|(at, _)| 1 << at).sum()
    }

    /// Sets the forms of which these bits tell, as they amount to together.
    pub(super) fn adopt(&mut self, reception: Reception, present: u8) {
        let all = [Form::Bare, Form::Plus, Form::Hash];
        let named = all.into_iter().filter(|form| present & (1 << *form as u8) != 0);
        let unnamed = if reception.with_sender { Form::Plus } else { Form::Bare };
        for form in named.chain((present == 0).then_some(unnamed)) {
            self.set(form, reception, 0);
        }
    }

    /// Ends a form; says whether it was there.
    pub(super) fn end(&mut self, form: Form) -> bool {
        self.0[form as usize].take().is_some()
    }

    /// How deliveries come while these forms are subscribed: once, and as the most demanding of them wants.
    /// None: there is no form.
    pub(super) fn merged(&self) -> Option<Reception> {
        let mut present: Vec<Subscribed> = self.0.iter().flatten().copied().collect();
        present.sort_by_key(|subscribed| subscribed.order);
        present.into_iter().map(|subscribed| subscribed.reception).reduce(|earlier, later| Reception {
            qos: earlier.qos.max(later.qos),
            no_local: earlier.no_local && later.no_local,
            with_sender: earlier.with_sender || later.with_sender,
            retain_as_published: earlier.retain_as_published || later.retain_as_published,
            subscription: later.subscription.or(earlier.subscription),
        })
    }
}
