//! New rules while clients are there: they hold for the next message, and what they don't allow any more ends.
//!
//! Whatever is judged from now on is judged by the new rules: routes know by which they were found, and whether members may
//! receive is judged again at once. Who is here is looked through in turns, since there may be many: connections that
//! aren't allowed any more are closed, memberships and subscriptions end, and whoever had them is told.

use std::sync::Arc;

use super::timers::Timer;
use super::{Client, ConnectionKey, Shard, shared};
use crate::model::{Filter, GroupName, Instant, Limits, Reason, Refusal, Reply};
use crate::rules::{Action, Actor, Object, Rules};
use crate::session::Protocol;

/// Clients that are judged in one turn.
const JUDGED: usize = 512;

/// What has yet to be judged by the present rules.
pub(super) struct Judging {
    /// The rules before them, which say who was a provisioned member.
    old: Arc<Rules>,
    clients: Vec<ConnectionKey>,
}

impl Shard {
    /// Other rules than before. They hold for what comes from now on; [`is_judging`](Self::is_judging) says whether
    /// all who are there have been judged by them.
    pub fn handle_rules(&mut self, rules: Arc<Rules>, now: Instant) {
        while self.is_judging() {
            self.judge_clients(now);
        }
        let old = std::mem::replace(&mut self.rules, rules);
        self.judge_receiving();
        self.look_at_all();
        self.allowances.clear();
        let clients = self.by_identity.values().copied().collect();
        self.judging = Some(Box::new(Judging { old, clients }));
        self.timers.push(now, Timer::Judge);
    }

    /// Whether there are clients that were not yet judged by the present rules.
    pub fn is_judging(&self) -> bool {
        self.judging.is_some()
    }

    /// Judges some of the clients that are left, and comes back to the others.
    pub(super) fn judge_clients(&mut self, now: Instant) {
        let Some(mut judging) = self.judging.take() else { return };
        for _ in 0..JUDGED {
            let Some(key) = judging.clients.pop() else { return };
            self.judge_client(key, &judging.old, now);
        }
        self.judging = Some(judging);
        self.timers.push(now + 1, Timer::Judge);
    }

    /// A client's limits: those of its role, which all clients of the role share, or those of all.
    pub(super) fn limits_of(&mut self, actor: Actor<'_>) -> Arc<Limits> {
        let Some((place, limits)) = self.rules.limits_of(actor) else { return self.limits.clone() };
        self.allowances.entry(place).or_insert_with(|| Arc::new(limits.over(&self.limits))).clone()
    }

    /// Whether members may receive what goes to their groups.
    fn judge_receiving(&mut self) {
        let mut changed = Vec::new();
        for (place, (group, members)) in self.groups.iter().enumerate() {
            for (at, (&key, member)) in members.iter().enumerate() {
                if self.may_receive_in(key, group) != member.may_receive {
                    changed.push((place, at));
                }
            }
        }
        for (place, at) in changed {
            if let Some((_, members)) = self.groups.get_index_mut(place)
                && let Some((_, member)) = members.get_index_mut(at)
            {
                member.may_receive = !member.may_receive;
            }
        }
    }

    /// Whether one client may receive what goes to its groups.
    pub(super) fn judge_receiving_of(&mut self, key: ConnectionKey) {
        let Some(client) = self.clients.get(key) else { return };
        let groups: Vec<_> = client.groups.iter().cloned().collect();
        for group in groups {
            let may_receive = self.may_receive_in(key, &group);
            if let Some(member) = self.groups.get_mut(&group).and_then(|members| members.get_mut(&key)) {
                member.may_receive = may_receive;
            }
        }
    }

    fn judge_client(&mut self, key: ConnectionKey, old: &Rules, now: Instant) {
        let Some(client) = self.clients.get(key) else { return };
        let Some(identity) = client.identity.clone() else { return };
        let is_connected = client.away.is_none();
        let mut kept = Some(key);
        if is_connected && !self.client_may(key, Action::Connect, Object::Gateway) {
            self.end_client(key, true, now);
            let why = Refusal::new(Reason::NotAuthorized, "the rules don't let this client connect any more");
            self.close(key, why, now);
            // Its session may go on without it.
            kept = self.by_identity.get(&identity).copied();
        }
        let Some(key) = kept else { return };
        if let Some(who) = self.clients.get(key).and_then(Client::who) {
            let limits = self.limits_of(who.actor());
            if let Some(client) = self.clients.get_mut(key) {
                client.limits = limits;
            }
        }
        // Of a session whose client isn't known any more, it is judged when that is back.
        if self.clients.get(key).is_some_and(|client| client.principal.is_some())
            || self.credentials.is_open()
        {
            self.judge_subscriptions(key, old, now);
        }
        if let Some(client) = self.clients.get(key)
            && client.session.protocol() == Protocol::Device
            && let Some(reception) = client.inbox
        {
            self.join_provisioned(key, reception);
        }
    }

    /// Ends the memberships and subscriptions that a client may not have any more. `old` says who was provisioned before.
    pub(super) fn judge_subscriptions(&mut self, key: ConnectionKey, old: &Rules, now: Instant) {
        for filter in self.disallowed(key, old) {
            self.end_subscription(key, filter, now);
        }
    }

    /// The groups and topic filters of a client that it may not have any more.
    fn disallowed(&self, key: ConnectionKey, old: &Rules) -> Vec<Filter> {
        let Some(client) = self.clients.get(key) else { return Vec::new() };
        let id = client.client_id.as_ref();
        let is_provisioned = |rules: &Rules, group: &GroupName| {
            id.is_some_and(|id| rules.members(group).is_some_and(|members| members.contains(id)))
        };
        // A device was let in without having asked to.
        let is_device = client.session.protocol() == Protocol::Device || client.foreign;
        let may_stay = |group: &GroupName| {
            is_provisioned(&self.rules, group)
                || !(is_device && is_provisioned(old, group))
                    && self.client_may(key, Action::Join, Object::Group(group.as_str()))
        };
        let may_subscribe = |filter: &str| {
            if let Some(group) = self.watched_group(filter) {
                return self.client_may(key, Action::Presence, Object::Group(group.as_str()));
            }
            let inner = shared::filter_of(filter).unwrap_or(filter);
            self.client_may(key, Action::Subscribe, Object::Topic(inner))
        };
        let groups = client.groups.iter().filter(|group| !may_stay(group)).cloned().map(Filter::Group);
        let filters = client.filters.iter().filter(|filter| !may_subscribe(filter)).cloned();
        groups.chain(filters.map(Filter::Topic)).collect()
    }

    fn end_subscription(&mut self, key: ConnectionKey, filter: Filter, now: Instant) {
        let why = Refusal::new(Reason::NotAuthorized, "the rules don't allow this subscription any more");
        self.end_subscription_for(key, filter, why, now);
    }

    /// Ends a membership or subscription of a client without having been asked, and tells it.
    pub(super) fn end_subscription_for(
        &mut self,
        key: ConnectionKey,
        filter: Filter,
        why: Refusal,
        now: Instant,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match &filter {
            Filter::Group(group) => drop(client.groups.remove(group)),
            Filter::Topic(filter) => {
                client.filters.remove(filter);
                self.end_replay(key, filter);
            }
            Filter::Inbox => client.inbox = None,
            Filter::Notices => {}
        }
        self.forget(key, &filter, now);
        self.counters.subscriptions_ended += 1;
        self.reply(key, Reply::Ended(filter, why), now);
    }
}
