//! Messages to plain topics, from the publisher's connection to the subscribers' (T7).
//!
//! A publisher mostly publishes to the topic that it published to before: the way there, with the rules' verdict, is
//! kept as its [`Route`] until a subscription or the rules change. A message to few is written at once where its
//! recipient takes it, from the packet that brought it, and becomes a [`Message`] only if it has to wait.

use std::rc::Rc;
use std::sync::Arc;

use super::parts::{AwaitedPublish, Part, part_of};
use super::{ConnectionKey, Shard, Who};
use crate::backbone::{Backbone, ShardIndex};
use crate::model::{
    About, Delivery, Identity, Instant, Map, Message, MessageView, Origin, OriginView, Outgoing, Publication,
    QoS, Reason, Reception, Refusal, Reply, RequestId, Status,
};
use crate::rules::{Action, Object, Rules};
use crate::session::with_subscriptions;

/// Subscribers of one shard to whom a message is written at once, and that are kept with a route. To more it is
/// cheaper to write all that came for one of them at a time.
pub(super) const FEW: usize = 16;
/// Bytes that may be written for a client ahead of its mailbox, before they go to its socket (S9, S16).
const AT_ONCE: usize = 8 * 1024;
/// Room for subscribers that is kept from one publish to the next.
const KEPT_SUBSCRIBERS: usize = 16 * 1024;

/// Where a client's last publish went, should the next go there too.
pub(super) struct Route {
    topic: Box<str>,
    /// Those that allowed it.
    rules: Arc<Rules>,
    /// How often the trees had changed when this was found in them.
    changes: [u64; 3],
    /// None: there are more than a few.
    subscribers: Option<Box<[(ConnectionKey, Reception)]>>,
    peers: Box<[ShardIndex]>,
    /// Shared subscriptions match it as well.
    has_shares: bool,
}

/// A message being given out on one shard.
pub(super) struct Posting<'a> {
    view: MessageView<'a>,
    publisher: Publisher<'a>,
    /// The message for itself, once it has to wait somewhere.
    outgoing: Option<Rc<Outgoing>>,
    /// Its acknowledgement, if that waits for others; else null.
    publish: AwaitedPublish,
}

/// Who published it.
#[derive(Clone, Copy)]
enum Publisher<'a> {
    Here(ConnectionKey),
    Known(&'a Identity),
    /// On another shard.
    Elsewhere(&'a str),
    /// A signal says who sent it.
    InSignal,
}

impl<'a> Posting<'a> {
    /// A signal.
    pub(super) fn of_signal(view: MessageView<'a>) -> Self {
        Self { view, publisher: Publisher::InSignal, outgoing: None, publish: AwaitedPublish::default() }
    }
}

/// What became of an accepted publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// All of it is done.
    Done,
    /// It is answered when every shard retains it, and what lasts is committed.
    Waits,
    /// Something that should last couldn't be kept.
    NotKept,
}

impl Shard {
    /// A message to a plain topic from a client. Without a `request` nobody waits for the answer.
    pub(super) fn handle_publish(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        publication: &Publication<'_>,
        now: Instant,
    ) {
        match (self.publish_from(key, publication, request, now), request) {
            (Ok(Published::Done), Some(request)) => self.reply(key, Reply::Done(request), now),
            (Ok(Published::NotKept), Some(request)) => self.tell_not_kept(key, request, now),
            (Ok(_), _) => {}
            (Err(refusal), Some(request)) => self.refuse(key, request, refusal, now),
            (Err(refusal), None) => {
                self.refuse_unasked(key, About::Topic((&*publication.topic).into()), refusal, now);
            }
        }
    }

    fn publish_from(
        &mut self,
        key: ConnectionKey,
        publication: &Publication<'_>,
        request: Option<RequestId>,
        now: Instant,
    ) -> Result<Published, Refusal> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(Published::Done) };
        let route = match client.route.take() {
            Some(route) if self.is_current(&route, &publication.topic) => route,
            _ => Box::new(self.find_route(key, &publication.topic)?),
        };
        let waits = request.map(|request| (key, request));
        let publish = self.await_publish(waits, publication.qos, publication.retain);
        let view = publication.view();
        let posting = Posting { view, publisher: Publisher::Here(key), outgoing: None, publish };
        let before;
        let had: &[Part] = if self.had_parts.is_empty() {
            &[]
        } else {
            before = self.take_had_parts(publish);
            before.as_ref().map_or(&[], |before| before.of(&posting.view))
        };
        let result = self.publish_along(&route, posting, had, now);
        if let Some(client) = self.clients.get_mut(key) {
            client.route = Some(route);
        }
        result
    }

    fn is_current(&self, route: &Route, topic: &str) -> bool {
        *route.topic == *topic
            && route.changes == self.subscription_changes()
            && Arc::ptr_eq(&route.rules, &self.rules)
    }

    fn subscription_changes(&self) -> [u64; 3] {
        [self.topics.changes(), self.peer_topics.changes(), self.shared_topics.changes()]
    }

    /// Whether shared subscriptions match the topic.
    fn has_shares(&self, topic: &str) -> bool {
        let mut found = false;
        if !self.shared_topics.is_empty() {
            self.shared_topics.for_each_match(topic, &mut |_, _| found = true);
        }
        found
    }

    /// Judges a publish to `topic` and finds its way.
    fn find_route(&mut self, key: ConnectionKey, topic: &str) -> Result<Route, Refusal> {
        if !self.client_may(key, Action::Publish, Object::Topic(topic)) {
            return Err(publish_refused());
        }
        let peers = self.subscribed_peers(topic).into();
        let has_shares = self.has_shares(topic);
        Ok(Route { has_shares, ..self.route_to(topic, Some(key), peers) })
    }

    /// The way to the subscribers here, and to these peers, for a publisher here, if it is.
    fn route_to(&mut self, topic: &str, own: Option<ConnectionKey>, peers: Box<[ShardIndex]>) -> Route {
        let subscribers = self.subscribers(topic, own);
        let several = !std::mem::take(&mut self.several).is_empty();
        let few = (subscribers.len() <= FEW && !several).then(|| subscribers.as_slice().into());
        self.keep_room(subscribers);
        Route {
            topic: topic.into(),
            rules: self.rules.clone(),
            changes: self.subscription_changes(),
            has_shares: false,
            subscribers: few,
            peers,
        }
    }

    /// `had`: parts of it that were had when it came before.
    fn publish_along(
        &mut self,
        route: &Route,
        posting: Posting<'_>,
        had: &[Part],
        now: Instant,
    ) -> Result<Published, Refusal> {
        let mut posting = posting;
        let mark = self.store.mark();
        if let Err(refusal) = self.forward_publish(&route.peers, &mut posting, had, now) {
            // Before version 5 what is refused is acknowledged.
            self.forget_publish(posting.publish.key, true);
            return Err(refusal);
        }
        match &route.subscribers {
            _ if self.was_had(had, self.index) => {}
            Some(few) => self.post_to(&mut posting, few, now),
            None => self.post(&mut posting, now),
        }
        if route.has_shares {
            self.share_posting(&mut posting, had, now);
        }
        Ok(self.publish_given_out(posting.publish.key, &posting.view, mark))
    }

    /// Gives a message to these clients.
    pub(super) fn post_to(
        &mut self,
        posting: &mut Posting<'_>,
        recipients: &[(ConnectionKey, Reception)],
        now: Instant,
    ) {
        self.encodings.clear();
        self.begin_giving(recipients.len());
        let is_shared = recipients.len() > 1;
        let are_few = recipients.len() <= FEW;
        for (key, reception) in recipients {
            if are_few {
                self.hand_over(posting, *key, reception, is_shared, now);
            } else {
                self.queue(posting, *key, *reception, now);
            }
        }
        self.end_giving();
    }

    /// Whether a client's last publish went to more than a few.
    pub(super) fn publishes_to_many(&self, key: ConnectionKey) -> bool {
        let route = self.clients.get(key).and_then(|client| client.route.as_ref());
        route.is_some_and(|route| route.subscribers.is_none())
    }

    /// Gives a message of this shard's clients to the shares that it matches.
    fn share_posting(&mut self, posting: &mut Posting<'_>, had: &[Part], now: Instant) {
        if !self.shared_topics.is_empty()
            && let OriginView::Topic { topic, .. } = posting.view.origin
        {
            let message = self.outgoing(posting).message.clone();
            self.share_out(topic, &message, posting.publish, had, now);
        }
    }

    /// A message of the gateway's own accord: a will.
    pub(super) fn publish(
        &mut self,
        publisher: &Who,
        message: &Message,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Origin::Topic { topic, .. } = &message.origin else {
            return Err(Refusal::new(Reason::Internal, "not a plain topic"));
        };
        if !self.may(publisher.actor(), Action::Publish, Object::Topic(topic)) {
            return Err(publish_refused());
        }
        let peers = self.subscribed_peers(topic);
        let mut posting = Posting {
            view: message.view(),
            publisher: Publisher::Known(&publisher.identity),
            outgoing: None,
            publish: AwaitedPublish::default(),
        };
        self.forward_publish(&peers, &mut posting, &[], now)?;
        self.post(&mut posting, now);
        self.share_posting(&mut posting, &[], now);
        Ok(())
    }

    /// A retained message that the gateway publishes in its own name, whatever the rules say of clients.
    pub fn publish_own(&mut self, topic: &str, payload: &[u8], now: Instant) {
        let message = Arc::new(Message {
            origin: Origin::Topic { topic: topic.into(), publisher: Identity::new(""), retain: true },
            payload: payload.to_vec().into(),
            properties: Vec::new().into(),
            qos: QoS::AtMostOnce,
            deadline: None,
            urgent: false,
        });
        // Where there is no room, the next one comes soon.
        if let Err(refusal) = self.check_retained(&message) {
            return self.counters.count_refusal(refusal.reason);
        }
        self.retain(&message, AwaitedPublish::default(), &[], now);
        self.deliver_retained(&message, now);
    }

    /// A message that another shard's client published.
    pub(super) fn deliver_publish(&mut self, view: MessageView<'_>, publisher: &str, now: Instant) {
        let OriginView::Topic { topic, .. } = view.origin else { return };
        let route = match self.peer_route.take() {
            Some(route) if self.is_current(&route, topic) => route,
            _ => Box::new(self.route_to(topic, None, Box::default())),
        };
        let publisher = Publisher::Elsewhere(publisher);
        let publish = AwaitedPublish::default();
        let mut posting = Posting { view, publisher, outgoing: None, publish };
        match &route.subscribers {
            Some(few) => self.post_to(&mut posting, few, now),
            None => self.post(&mut posting, now),
        }
        self.peer_route = Some(route);
    }

    /// A message that another shard retains as well.
    pub(super) fn deliver_retained(&mut self, message: &Arc<Message>, now: Instant) {
        let Origin::Topic { publisher, .. } = &message.origin else { return };
        let outgoing = Some(Outgoing::new(message.clone()));
        let (view, publish) = (message.view(), AwaitedPublish::default());
        let publisher = Publisher::Known(publisher);
        let mut posting = Posting { view, publisher, outgoing, publish };
        self.post(&mut posting, now);
    }

    fn subscribed_peers(&self, topic: &str) -> Vec<ShardIndex> {
        let mut peers = Vec::new();
        if !self.peer_topics.is_empty() {
            self.peer_topics.for_each_match(topic, &mut |&shard, ()| {
                if !peers.contains(&shard) {
                    peers.push(shard);
                }
            });
        }
        peers
    }

    /// Sends a message on its way to the other shards: to those with subscribers or, if it is to be retained, to
    /// all of them.
    fn forward_publish(
        &mut self,
        peers: &[ShardIndex],
        posting: &mut Posting<'_>,
        had: &[Part],
        now: Instant,
    ) -> Result<(), Refusal> {
        if let OriginView::Topic { retain: true, .. } = posting.view.origin {
            let message = self.outgoing(posting).message.clone();
            self.check_retained(&message)?;
            if self.check_store().is_err() {
                self.store.miss();
                return Ok(());
            }
            self.counters.publishes += 1;
            self.retain(&message, posting.publish, had, now);
            return Ok(());
        }
        if peers.iter().any(|&peer| !self.backbone.has_room(peer)) {
            return Err(Refusal::new(Reason::Overflow, "the queue to a part of the gateway is full"));
        }
        self.counters.publishes += 1;
        if let OriginView::Topic { topic, .. } = posting.view.origin
            && !peers.is_empty()
        {
            let publisher = match posting.publisher {
                Publisher::Here(key) => self.clients.get(key).and_then(|client| client.identity.as_ref()),
                Publisher::Known(identity) => Some(identity),
                Publisher::Elsewhere(_) | Publisher::InSignal => None,
            };
            let publisher = publisher.map_or("", Identity::as_str);
            let publish = posting.publish;
            let shards = self.backbone.shards();
            for &peer in peers {
                if had.is_empty() || !had.contains(&part_of(peer, shards)) {
                    self.backbone.forward_publish(peer, &posting.view, topic, publisher, publish);
                }
            }
            for &peer in peers {
                if !self.was_had(had, peer) {
                    self.await_peer(publish.key);
                }
            }
        }
        Ok(())
    }

    /// Gives a message to its subscribers here, once to each however many of its filters match.
    fn post(&mut self, posting: &mut Posting<'_>, now: Instant) {
        let OriginView::Topic { topic, .. } = posting.view.origin else { return };
        let own = match posting.publisher {
            Publisher::Here(key) => Some(key),
            Publisher::Known(identity) => self.by_identity.get(identity).copied(),
            Publisher::Elsewhere(_) | Publisher::InSignal => None,
        };
        let subscribers = self.subscribers(topic, own);
        self.post_to(posting, &subscribers, now);
        self.keep_room(subscribers);
        for (key, reception, subscriptions) in std::mem::take(&mut self.several) {
            let message = Message::clone(&self.outgoing(posting).message);
            let properties = with_subscriptions(&message.properties, &subscriptions);
            let outgoing = Outgoing::new(Arc::new(Message { properties, ..message }));
            self.queue(&mut Posting { outgoing: Some(outgoing), ..*posting }, key, reception, now);
        }
    }

    /// The subscribers of a topic here, each once; not the publisher `own` by its subscriptions that want nothing of its own
    /// [MQTT-3.8.3-3]. [`keep_room`](Self::keep_room) takes the list back.
    fn subscribers(&mut self, topic: &str, own: Option<ConnectionKey>) -> Vec<(ConnectionKey, Reception)> {
        let mut subscribers = std::mem::take(&mut self.subscribers);
        self.topics.for_each_match(topic, &mut |&key, &reception| {
            if !(reception.no_local && own == Some(key)) {
                subscribers.push((key, reception));
            }
        });
        if subscribers.len() > 1 {
            self.unite(&mut subscribers);
        }
        subscribers
    }

    /// Keeps the room of a list for the next publish, unless it is out of the ordinary.
    pub(super) fn keep_room(&mut self, mut subscribers: Vec<(ConnectionKey, Reception)>) {
        if subscribers.capacity() <= KEPT_SUBSCRIBERS {
            subscribers.clear();
            self.subscribers = subscribers;
        }
    }

    /// A client with several matching filters gets the message once, with the highest QoS of them
    /// [MQTT-3.3.5-1]; one that has several subscription identifiers for it goes to `several`. Usually there is no such client, which one look at each shows.
    fn unite(&mut self, subscribers: &mut Vec<(ConnectionKey, Reception)>) {
        self.signals += 1;
        let round = self.signals;
        let mut overlaps = false;
        for (key, _) in &*subscribers {
            if let Some(client) = self.clients.get_mut(*key) {
                overlaps |= std::mem::replace(&mut client.considered, round) == round;
            }
        }
        if overlaps {
            let mut united: Map<ConnectionKey, (Reception, Vec<u32>)> = Map::default();
            for (key, reception) in subscribers.drain(..) {
                let (kept, subscriptions) = united.entry(key).or_insert((reception, Vec::new()));
                kept.qos = kept.qos.max(reception.qos);
                kept.retain_as_published |= reception.retain_as_published;
                kept.subscription = kept.subscription.or(reception.subscription);
                subscriptions.extend(reception.subscription);
            }
            for (key, (reception, subscriptions)) in united {
                if subscriptions.len() > 1 {
                    let reception = Reception { subscription: None, ..reception };
                    self.several.push((key, reception, subscriptions));
                } else {
                    subscribers.push((key, reception));
                }
            }
        }
    }

    /// Gives a message to one of a few: at once if it takes it, else into its mailbox. What may expire, or whose
    /// outcome someone waits for, is looked at again just before it is written, and so goes by the mailbox (S8, S9).
    fn hand_over(
        &mut self,
        posting: &mut Posting<'_>,
        key: ConnectionKey,
        reception: &Reception,
        is_shared: bool,
        now: Instant,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if posting.view.deadline.is_some() || !client.takes_at_once(posting.view.payload.len()) {
            return self.queue(posting, key, *reception, now);
        }
        if client.out.capacity() == 0 {
            client.out = self.buffers.pop().unwrap_or_default();
        }
        let encodings = is_shared.then_some(&mut self.encodings);
        client.session.deliver(&posting.view, reception, encodings, &mut client.out, now);
        let is_plain = matches!(posting.view.origin, OriginView::Topic { .. });
        client.written_ahead[usize::from(is_plain)] += 1;
        self.counters.mailed += 1;
        self.mark_dirty(key);
    }

    fn queue(&mut self, posting: &mut Posting<'_>, key: ConnectionKey, reception: Reception, now: Instant) {
        let outgoing = self.outgoing(posting).clone();
        let delivery = Delivery::new(outgoing, reception);
        if let Err(refused) = self.mail(key, delivery, now) {
            self.drop_delivery(&refused, Status::Overflow, now);
        }
    }

    /// The message for itself.
    fn outgoing<'p>(&self, posting: &'p mut Posting<'_>) -> &'p Rc<Outgoing> {
        let Posting { view, publisher, outgoing, .. } = posting;
        outgoing.get_or_insert_with(|| {
            let publisher = || match *publisher {
                Publisher::Known(identity) => identity.clone(),
                Publisher::Elsewhere(name) => Identity::new(name),
                Publisher::InSignal => Identity::new(""),
                Publisher::Here(key) => {
                    let identity = self.clients.get(key).and_then(|client| client.identity.clone());
                    identity.unwrap_or_else(|| Identity::new(""))
                }
            };
            Outgoing::new(Arc::new(view.to_message(publisher)))
        })
    }
}

fn publish_refused() -> Refusal {
    Refusal::new(Reason::NotAuthorized, "the rules don't let this client publish there")
}

impl super::Client {
    /// Whether a message of this many bytes may be written now, ahead of the mailbox: nothing waits there, and its
    /// socket takes bytes.
    pub(super) fn takes_at_once(&self, bytes: usize) -> bool {
        self.mailbox.is_idle()
            && !self.stalled
            && self.out.len() + bytes <= AT_ONCE
            && self.session.takes_at_once()
    }
}
