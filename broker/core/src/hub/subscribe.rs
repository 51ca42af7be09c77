//! Joining groups and subscribing to topics, and making sure that every shard knows before the answer.

use std::sync::Arc;

use super::topic_tree::MAX_LEVELS;
use super::{ConnectionKey, Member, Shard, SubscribeKey, presence, shared};
use crate::backbone::{Backbone, InterestKey, PeerMessage, ShardIndex};
use crate::model::{
    Filter, GroupName, Instant, QoS, Reason, Reception, Refusal, Reply, RequestId, SubscribeItem,
};
use crate::mqtt::{RetainHandling, topic};
use crate::rules::{Action, Object};

/// This shard's interest in a group or filter.
pub(super) struct LocalInterest {
    /// How many clients have it.
    clients: usize,
    /// The number of the last addition.
    added: u64,
    /// Shards that don't know of it yet.
    awaited: usize,
    /// Subscribes that wait for them.
    waiting: Vec<SubscribeKey>,
}

/// A subscribe whose answer waits.
pub(super) struct PendingSubscribe {
    key: ConnectionKey,
    request: RequestId,
    results: Vec<Result<QoS, Refusal>>,
    awaited: usize,
    /// Filters whose retained messages come after the answer.
    replays: Vec<(Arc<str>, Reception)>,
}

impl Shard {
    pub(super) fn handle_subscribe(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        items: Vec<Result<SubscribeItem, Refusal>>,
        now: Instant,
    ) {
        let pending = self.subscribes.insert(PendingSubscribe {
            key: self.origin(key),
            request,
            results: Vec::new(),
            awaited: 0,
            replays: Vec::new(),
        });
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let result = item.and_then(|item| self.subscribe(key, pending, item, now));
            if let Err(refusal) = &result {
                self.counters.count_refusal(refusal.reason);
            }
            results.push(result);
        }
        if let Some(subscribe) = self.subscribes.get_mut(pending) {
            subscribe.results = results;
        }
        self.answer_subscribe(pending, now);
    }

    fn subscribe(
        &mut self,
        key: ConnectionKey,
        pending: SubscribeKey,
        item: SubscribeItem,
        now: Instant,
    ) -> Result<QoS, Refusal> {
        let reception = item.reception;
        let no_client = || Refusal::new(Reason::Internal, "not connected");
        let client = self.clients.get(key).ok_or_else(no_client)?;
        let limits = &client.limits;
        let watches;
        let (action, object, is_new, full) = match &item.filter {
            Filter::Inbox | Filter::Notices => {
                if item.filter == Filter::Inbox
                    && let Some(client) = self.clients.get_mut(key)
                {
                    client.inbox = Some(reception);
                    self.by_identity.touch();
                }
                self.store_subscription(key, &item);
                return Ok(reception.qos);
            }
            Filter::Group(group) => (
                Action::Join,
                Object::Group(group.as_str()),
                !client.groups.contains(group),
                client.groups.len() >= limits.groups_per_client,
            ),
            Filter::Topic(filter) => {
                let inner = shared::filter_of(filter).unwrap_or(filter);
                if !topic::is_valid_filter(inner) || inner.split('/').count() > MAX_LEVELS {
                    return Err(Refusal::new(Reason::BadTopic, "not a topic filter of at most 128 levels"));
                }
                let watched = presence::group_of(&self.session_config.prefix, filter);
                watches = watched;
                let (action, object) = match &watches {
                    Some(group) => (Action::Presence, Object::Group(group.as_str())),
                    None => (Action::Subscribe, Object::Topic(inner)),
                };
                (
                    action,
                    object,
                    !client.filters.contains(filter),
                    client.filters.len() >= limits.filters_per_client,
                )
            }
        };
        if !self.client_may(key, action, object) {
            return Err(Refusal::new(Reason::NotAuthorized, "the rules don't allow this subscription"));
        }
        if let (Filter::Group(group), Some(id)) = (&item.filter, &client.client_id) {
            self.judge_ban(id.as_str(), Some(group), now)?;
        }
        if is_new && full {
            return Err(Refusal::new(
                Reason::TooMany,
                "this client has all the subscriptions that it may have",
            ));
        }
        self.store_subscription(key, &item);
        match item.filter {
            Filter::Inbox | Filter::Notices => {}
            Filter::Group(group) => self.add_member(key, group, reception, pending),
            Filter::Topic(filter) => {
                let replays = match item.retained {
                    _ if self.watched_group(&filter).is_some() => true,
                    RetainHandling::SendAtSubscribe => true,
                    RetainHandling::SendIfNew => is_new,
                    RetainHandling::DoNotSend => false,
                };
                // A share gets none [section 4.8.2].
                let is_shared = shared::filter_of(&filter).is_some();
                if let Some(pending) = self.subscribes.get_mut(pending).filter(|_| replays && !is_shared) {
                    pending.replays.push((filter.clone(), reception));
                }
                self.add_filter(key, filter, reception, pending);
            }
        }
        Ok(reception.qos)
    }

    /// A device gets what goes to its provisioned groups without having to join (S2). An MQTT client would
    /// get publishes that it never subscribed to, so it is OFFLINE there until it does.
    pub(super) fn join_provisioned(&mut self, key: ConnectionKey, reception: Reception) {
        let Some(id) = self.clients.get(key).and_then(|client| client.client_id.clone()) else { return };
        let rules = self.rules.clone();
        for group in rules.groups_of(&id) {
            if self.is_banned(id.as_str(), Some(group)) {
                continue;
            }
            // Nobody waits for an answer.
            self.add_member(key, group.clone(), reception, SubscribeKey::default());
        }
    }

    /// Gives a client a topic filter, or another way to receive by one that it has.
    pub(super) fn add_filter(
        &mut self,
        key: ConnectionKey,
        filter: Arc<str>,
        reception: Reception,
        pending: SubscribeKey,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let is_new = client.filters.insert(filter.clone());
        let is_shared = shared::filter_of(&filter).is_some();
        if let Some(group) = self.watched_group(&filter) {
            self.add_watcher(key, group, reception);
        } else if !is_shared {
            self.topics.insert(&filter, key, reception);
            if is_new && could_observe(&filter, &self.session_config.prefix) {
                self.observing += 1;
            }
        }
        self.add_interest(InterestKey::Filter(filter.clone()), is_new, pending);
        if is_shared {
            self.join_share(key, &filter, reception);
        }
    }

    pub(super) fn add_member(
        &mut self,
        key: ConnectionKey,
        group: GroupName,
        reception: Reception,
        pending: SubscribeKey,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let is_new = client.groups.insert(group.clone());
        let may_receive = self.may_receive_in(key, &group);
        self.groups.entry(group.clone()).or_default().insert(key, Member { reception, may_receive });
        self.counters.groups = self.groups.len() as u64;
        self.look_at(&group);
        self.add_interest(InterestKey::Group(group), is_new, pending);
    }

    /// Whether the rules let a member receive what goes to a group.
    pub(super) fn may_receive_in(&self, key: ConnectionKey, group: &GroupName) -> bool {
        // A plain MQTT client needs a name only for rules that tell names apart.
        (self.rules.is_uniform(Action::Receive)
            || self.clients.get(key).is_some_and(|client| client.client_id.is_some()))
            && self.client_may(key, Action::Receive, Object::Group(group.as_str()))
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        filters: &[Filter],
        now: Instant,
    ) {
        let mut results = Vec::with_capacity(filters.len());
        for filter in filters {
            let Some(client) = self.clients.get_mut(key) else { return };
            let was_there = match filter {
                Filter::Inbox => client.inbox.take().is_some(),
                Filter::Notices => true,
                Filter::Group(group) => client.groups.remove(group),
                Filter::Topic(filter) => {
                    let was_there = client.filters.remove(filter);
                    self.end_replay(key, filter);
                    was_there
                }
            };
            if was_there {
                self.forget(key, filter, now);
            }
            results.push(was_there);
        }
        self.reply_when_kept(key, Reply::Unsubscribed(request, results), now);
    }

    /// Takes a client out of a group or topic filter that it is no longer noted to have.
    pub(super) fn forget(&mut self, key: ConnectionKey, filter: &Filter, now: Instant) {
        self.unstore_subscription(key, filter);
        match filter {
            Filter::Notices => {}
            Filter::Inbox => self.by_identity.touch(),
            Filter::Group(group) => {
                if let Some(members) = self.groups.get_mut(group) {
                    members.swap_remove(&key);
                    if members.is_empty() {
                        self.groups.swap_remove(group);
                    }
                }
                self.counters.groups = self.groups.len() as u64;
                self.look_at(group);
                self.remove_interest(&InterestKey::Group(group.clone()), now);
            }
            Filter::Topic(filter) if let Some(group) = self.watched_group(filter) => {
                self.remove_watcher(key, &group);
                self.remove_interest(&InterestKey::Filter(filter.clone()), now);
            }
            Filter::Topic(filter) if shared::filter_of(filter).is_some() => {
                self.leave_share(key, filter);
                self.hand_on_waiting(key, filter, now);
                self.remove_interest(&InterestKey::Filter(filter.clone()), now);
            }
            Filter::Topic(filter) => {
                self.topics.remove(filter, &key);
                if could_observe(filter, &self.session_config.prefix) {
                    self.observing -= 1;
                }
                self.remove_interest(&InterestKey::Filter(filter.clone()), now);
            }
        }
    }

    /// Ends the topic filters of a client.
    pub(super) fn forget_filters(&mut self, key: ConnectionKey, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        for filter in std::mem::take(&mut client.filters) {
            self.forget(key, &Filter::Topic(filter), now);
        }
    }

    /// Keeps the retained messages that were to come after answers which a lost connection can't be given any more.
    pub(super) fn keep_replays(&mut self, from: ConnectionKey, to: ConnectionKey, now: Instant) {
        let pending = self.subscribes.values_mut().filter(|pending| pending.key == from);
        let replays: Vec<_> = pending.flat_map(|pending| std::mem::take(&mut pending.replays)).collect();
        for (filter, reception) in replays {
            self.begin_replay(to, filter, reception, now);
        }
    }

    /// Gives all groups and topic filters of one client to another, which is the same to everyone else.
    pub(super) fn move_subscriptions(&mut self, from: ConnectionKey, to: ConnectionKey) {
        let Some(client) = self.clients.get_mut(from) else { return };
        let (groups, filters) = (std::mem::take(&mut client.groups), std::mem::take(&mut client.filters));
        for group in &groups {
            if let Some(members) = self.groups.get_mut(group)
                && let Some(reception) = members.swap_remove(&from)
            {
                members.insert(to, reception);
            }
            self.look_at(group);
        }
        for filter in &filters {
            if let Some(group) = self.watched_group(filter) {
                self.move_watcher(from, to, &group);
            } else if shared::filter_of(filter).is_some() {
                self.move_share(from, to, filter);
            } else if let Some(reception) = self.topics.remove(filter, &from) {
                self.topics.insert(filter, to, reception);
            }
        }
        if let Some(client) = self.clients.get_mut(to) {
            (client.groups, client.filters) = (groups, filters);
        }
    }

    fn add_interest(&mut self, key: InterestKey, is_new: bool, pending: SubscribeKey) {
        let others = usize::from(self.backbone.shards()) - 1;
        let fresh = LocalInterest { clients: 0, added: 0, awaited: 0, waiting: Vec::new() };
        let interest = self.interest.entry(key.clone()).or_insert(fresh);
        interest.clients += usize::from(is_new);
        self.counters.subscriptions += u64::from(is_new);
        if interest.added == 0 {
            self.interests += 1;
            interest.added = self.interests;
            interest.awaited = others;
            let added = Some(interest.added);
            for peer in (0..self.backbone.shards()).filter(|&peer| peer != self.index) {
                self.backbone.forward(peer, PeerMessage::Interest { key: key.clone(), added });
            }
        }
        if let Some(interest) = self.interest.get_mut(&key)
            && interest.awaited > 0
            && let Some(subscribe) = self.subscribes.get_mut(pending)
        {
            interest.waiting.push(pending);
            subscribe.awaited += 1;
        }
    }

    fn remove_interest(&mut self, key: &InterestKey, now: Instant) {
        let Some(interest) = self.interest.get_mut(key) else { return };
        interest.clients -= 1;
        self.counters.subscriptions -= 1;
        if interest.clients > 0 {
            return;
        }
        // Whoever still waits had the subscription ended before it was confirmed; there is nothing to wait for.
        let waiting = std::mem::take(&mut interest.waiting);
        self.interest.swap_remove(key);
        for peer in (0..self.backbone.shards()).filter(|&peer| peer != self.index) {
            self.backbone.forward(peer, PeerMessage::Interest { key: key.clone(), added: None });
        }
        for pending in waiting {
            self.confirm(pending, now);
        }
    }

    /// Another shard has its first, or no longer any, client for `key`.
    pub(super) fn handle_interest(&mut self, from: ShardIndex, key: InterestKey, added: Option<u64>) {
        match &key {
            InterestKey::Group(group) => {
                let shards = self.peer_groups.entry(group.clone()).or_default();
                if added.is_some() {
                    shards.insert(from);
                } else {
                    shards.swap_remove(&from);
                    if shards.is_empty() {
                        self.peer_groups.swap_remove(group);
                    }
                }
            }
            InterestKey::Filter(filter) if let Some(group) = self.watched_group(filter) => {
                self.handle_peer_watches(from, &group, added.is_some());
            }
            InterestKey::Filter(filter) if shared::filter_of(filter).is_some() => {
                self.handle_share_interest(from, filter, added.is_some());
            }
            InterestKey::Filter(filter) => {
                let observes = usize::from(could_observe(filter, &self.session_config.prefix));
                if added.is_some() {
                    if self.peer_topics.insert(filter, from, ()).is_none() {
                        self.peer_observing += observes;
                    }
                } else if self.peer_topics.remove(filter, &from).is_some() {
                    self.peer_observing -= observes;
                }
            }
        }
        if let Some(added) = added {
            self.backbone.forward(from, PeerMessage::InterestKnown { key, added });
        }
    }

    /// Whether another shard may not know yet of something that this one's clients are subscribed to. A gateway that has restored
    /// sessions serves nobody before: what is published until then would not reach them.
    pub fn awaits_peers(&self) -> bool {
        self.interest.values().any(|interest| interest.awaited > 0)
    }

    /// Another shard knows of this one's interest.
    pub(super) fn handle_interest_known(&mut self, key: &InterestKey, added: u64, now: Instant) {
        let Some(interest) = self.interest.get_mut(key) else { return };
        if interest.added != added {
            return;
        }
        interest.awaited -= 1;
        if interest.awaited == 0 {
            for pending in std::mem::take(&mut interest.waiting) {
                self.confirm(pending, now);
            }
        }
    }

    fn confirm(&mut self, pending: SubscribeKey, now: Instant) {
        if let Some(subscribe) = self.subscribes.get_mut(pending) {
            subscribe.awaited -= 1;
            self.answer_subscribe(pending, now);
        }
    }

    /// Answers when every shard knows: from then on nothing that others send is missed.
    fn answer_subscribe(&mut self, pending: SubscribeKey, now: Instant) {
        if self.subscribes.get(pending).is_some_and(|subscribe| subscribe.awaited == 0)
            && let Some(subscribe) = self.subscribes.remove(pending)
        {
            let key = self.current(subscribe.key);
            self.reply_when_kept(key, Reply::Subscribed(subscribe.request, subscribe.results), now);
            if self.store.is_durable() {
                self.recall_deferred(key);
            }
            for (filter, reception) in subscribe.replays {
                self.begin_replay(key, filter, reception, now);
            }
        }
    }
}

/// Whether a filter could match a topic under the signalling prefix (T6).
fn could_observe(filter: &Arc<str>, prefix: &str) -> bool {
    let first = filter.split('/').next().unwrap_or_default();
    first == "#" || first == "+" || first == prefix
}
