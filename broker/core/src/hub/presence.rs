//! Presence (S13, T5): who is a member of a group, and whether what goes to it would reach him, for those who watch
//! `{prefix}/p/{group}`.
//!
//! ```text
//! a change of a member's ──► its group is due ──► look through, against what was told ──► changes ──► watchers here
//!                                                                                             └────► shards with watchers
//! a new watcher ──► every shard's members ──► the whole in parts, then changes
//! ```
//!
//! Each shard tells of its own members. Nothing is queued of what happens: a group that is watched remembers what it has told, and
//! when it is looked through, what differs from that is told. Small groups are looked through at once, larger ones once a
//! second, so that a storm is as many batches as seconds. A watcher whose mailbox has no room hears nothing until that is empty,
//! and then begins anew with all members; so does one that was away.
//!
//! A filter of this form is a topic filter to everyone else: sessions, the store and [`subscribe`](super::subscribe) keep it as one.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::backbone::{Backbone, PeerMessage, ShardIndex, owner};
use crate::model::{
    ClientId, Delivery, GroupName, Identity, Instant, Map, Message, Origin, Outgoing, QoS, Reception, Set,
    Status,
};
use crate::mqtt::{Properties, Property, PropertyWriter};
use crate::session::passed_through;

/// Between two looks at a large group, and before a watcher without room is looked at again; in milliseconds.
const PAUSE: u64 = 1000;
/// Bytes of one message.
const PART: usize = 8 * 1024;

/// What became of a member: none, it is none any more; else whether it is online.
pub type PresenceChange = (ClientId, Option<bool>);

/// A group that is watched, here or on other shards.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watchers: Map<ConnectionKey, Watcher>,
    /// Shards with watchers.
    peers: Set<ShardIndex>,
    /// What was told of this shard's members.
    told: Map<ClientId, bool>,
    is_due: bool,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Watcher {
    reception: Reception,
    state: WatcherState,
}

#[derive(Debug)]
enum WatcherState {
    /// It isn't served yet, since its subscription isn't confirmed.
    New,
    /// It has all members, and gets what changes.
    Current,
    /// Other shards' members are awaited.
    Collecting { members: Map<ClientId, bool>, awaited: Set<ShardIndex> },
    /// It missed something, and gets all members again when it has room.
    Stale,
}

/// The group that a topic filter watches.
pub(super) fn group_of(prefix: &str, filter: &str) -> Option<GroupName> {
    let path = filter.strip_prefix(prefix)?.strip_prefix("/p/")?;
    GroupName::new(path)
}

impl Shard {
    pub(super) fn watched_group(&self, filter: &str) -> Option<GroupName> {
        group_of(&self.session_config.prefix, filter)
    }

    /// A client watches a group. It is served when its subscription is confirmed, or now if it wants no members first.
    pub(super) fn add_watcher(&mut self, key: ConnectionKey, group: GroupName, reception: Reception) {
        self.watch(&group);
        if let Some(watch) = self.watches.get_mut(&group) {
            let state = match watch.watchers.swap_remove(&key) {
                Some(Watcher { state, .. }) => state,
                None => WatcherState::New,
            };
            watch.watchers.insert(key, Watcher { reception, state });
        }
    }

    pub(super) fn remove_watcher(&mut self, key: ConnectionKey, group: &GroupName) {
        if let Some(watch) = self.watches.get_mut(group) {
            watch.watchers.swap_remove(&key);
        }
        self.unwatch(group);
    }

    /// The same client on another connection, or without one: it begins anew.
    pub(super) fn move_watcher(&mut self, from: ConnectionKey, to: ConnectionKey, group: &GroupName) {
        if let Some(watch) = self.watches.get_mut(group)
            && let Some(watcher) = watch.watchers.swap_remove(&from)
        {
            watch.watchers.insert(to, Watcher { state: WatcherState::Stale, ..watcher });
            self.look_at(group);
        }
    }

    /// Another shard has its first watcher of a group, or no longer any.
    pub(super) fn handle_peer_watches(&mut self, from: ShardIndex, group: &GroupName, watches: bool) {
        if watches {
            self.watch(group);
            if let Some(watch) = self.watches.get_mut(group) {
                watch.peers.insert(from);
            }
        } else {
            if let Some(watch) = self.watches.get_mut(group) {
                watch.peers.swap_remove(&from);
            }
            self.unwatch(group);
        }
    }

    /// Begins to remember what is told of a group.
    fn watch(&mut self, group: &GroupName) {
        if !self.watches.contains_key(group) {
            let told = self.present_members(group);
            self.watches.insert(group.clone(), Watch { told, ..Watch::default() });
        }
    }

    fn unwatch(&mut self, group: &GroupName) {
        if self.watches.get(group).is_some_and(|watch| watch.watchers.is_empty() && watch.peers.is_empty()) {
            self.watches.swap_remove(group);
        }
    }

    /// This shard's members of a group, the operator's included, and whether each is online: what goes to the group would
    /// reach it.
    fn present_members(&self, group: &GroupName) -> Map<ClientId, bool> {
        let mut members = Map::default();
        for key in self.groups.get(group).into_iter().flat_map(|members| members.keys()) {
            if let Some(client) = self.clients.get(*key)
                && let Some(id) = &client.client_id
            {
                members.insert(id.clone(), client.away.is_none());
            }
        }
        for id in self.rules.members(group).into_iter().flatten() {
            if owner(id.as_str(), self.backbone.shards()) == self.index
                && !members.contains_key(id)
                && !self.is_banned(id.as_str(), Some(group))
            {
                members.insert(id.clone(), false);
            }
        }
        members
    }

    /// Something may have changed about a member of a group: it is looked through when it is due.
    pub(super) fn look_at(&mut self, group: &GroupName) {
        let Some(watch) = self.watches.get_mut(group).filter(|watch| !watch.is_due) else { return };
        watch.is_due = true;
        let is_large = watch.told.len() * usize::from(self.backbone.shards()) > self.limits.presence_at_once;
        let due = watch.last.filter(|_| is_large).map_or(Instant::default(), |last| last + PAUSE);
        self.timers.push(due, Timer::Presence);
    }

    /// The operator's file may have other members than before.
    pub(super) fn look_at_all(&mut self) {
        for group in self.watches.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&group);
        }
    }

    /// Looks through the groups that are due.
    pub(super) fn tell_presence(&mut self, now: Instant) {
        for at in 0..self.watches.len() {
            let Some((group, watch)) = self.watches.get_index_mut(at) else { break };
            if !watch.is_due {
                continue;
            }
            watch.is_due = false;
            let is_large =
                watch.told.len() * usize::from(self.backbone.shards()) > self.limits.presence_at_once;
            let group = group.clone();
            if is_large && watch.last.is_some_and(|last| now < last + PAUSE) {
                self.look_at(&group);
                continue;
            }
            self.tell_group(&group, now);
        }
    }

    fn tell_group(&mut self, group: &GroupName, now: Instant) {
        let present = self.present_members(group);
        let Some(watch) = self.watches.get_mut(group) else { return };
        watch.last = Some(now);
        // A shard whose queue is full hears of it later.
        let peers: Vec<ShardIndex> = watch.peers.iter().copied().collect();
        if peers.iter().any(|&peer| !self.backbone.has_room(peer)) {
            watch.is_due = true;
            self.timers.push(now + PAUSE, Timer::Presence);
            return;
        }
        let gone = watch.told.keys().filter(|id| !present.contains_key(*id)).map(|id| (id.clone(), None));
        let mut changes: Vec<(PresenceChange, &'static str)> = gone.map(|change| (change, "leave")).collect();
        for (id, online) in &present {
            let event = match (watch.told.get(id), online) {
                (Some(told), online) if told == online => continue,
                (None, _) => "join",
                (Some(_), true) => "online",
                (Some(_), false) => "offline",
            };
            changes.push(((id.clone(), Some(*online)), event));
        }
        watch.told = present;
        if !changes.is_empty() {
            let changes: Arc<[(PresenceChange, &'static str)]> = changes.into();
            for peer in peers {
                let (group, changes) = (group.clone(), changes.clone());
                self.backbone.forward(peer, PeerMessage::PresenceChanges { group, changes });
            }
            self.give_changes(group, &changes, now);
        }
        self.renew_watchers(group, now);
    }

    /// What changed about members, on this shard or another, for the watchers here.
    pub(super) fn give_changes(
        &mut self,
        group: &GroupName,
        changes: &[(PresenceChange, &'static str)],
        now: Instant,
    ) {
        let Some(watch) = self.watches.get_mut(group) else { return };
        let mut current = Vec::new();
        for (&key, watcher) in &mut watch.watchers {
            match &mut watcher.state {
                WatcherState::Current => current.push((key, watcher.reception)),
                // What this shard's members are is added last.
                WatcherState::Collecting { members, .. } => {
                    for ((id, online), _) in changes {
                        match online {
                            Some(online) => drop(members.insert(id.clone(), *online)),
                            None => drop(members.swap_remove(id)),
                        }
                    }
                }
                WatcherState::New | WatcherState::Stale => {}
            }
        }
        if current.is_empty() {
            return;
        }
        let entries = changes.iter().map(|((id, online), event)| {
            let mut entry = json!({"client": id.as_str(), "event": event});
            if let (Some(online), Some(fields)) = (online, entry.as_object_mut()) {
                fields.insert("online".into(), (*online).into());
            }
            entry
        });
        let parts = in_parts(entries.collect());
        let count = parts.len();
        let messages: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| {
                self.presence_message(
                    group,
                    &json!({"type": "events", "group": group.as_str(), "part": at + 1, "parts": count, "events": part}),
                )
            })
            .collect();
        for (key, reception) in current {
            self.give_watcher(key, group, reception, &messages, now);
        }
    }

    /// Puts messages into a watcher's mailbox. One that doesn't take all of them is to begin anew.
    fn give_watcher(
        &mut self,
        key: ConnectionKey,
        group: &GroupName,
        reception: Reception,
        messages: &[Rc<Outgoing>],
        now: Instant,
    ) {
        let is_away = self.clients.get(key).is_none_or(|client| client.away.is_some());
        let mut missed = is_away;
        for message in messages.iter().filter(|_| !is_away) {
            let delivery = Delivery::new(message.clone(), reception);
            if !missed && let Err(refused) = self.mail(key, delivery, now) {
                self.drop_delivery(&refused, Status::Overflow, now);
                missed = true;
            }
        }
        if missed
            && let Some(watch) = self.watches.get_mut(group)
            && let Some(watcher) = watch.watchers.get_mut(&key)
        {
            watcher.state = WatcherState::Stale;
            if !is_away {
                watch.is_due = true;
                self.counters.presence_renewed += 1;
                self.timers.push(now + PAUSE, Timer::Presence);
            }
        }
    }

    /// Lets those begin anew that missed something and have room again.
    fn renew_watchers(&mut self, group: &GroupName, now: Instant) {
        let Some(watch) = self.watches.get(group) else { return };
        let stale: Vec<_> = watch
            .watchers
            .iter()
            .filter(|(_, watcher)| matches!(watcher.state, WatcherState::Stale))
            .map(|(&key, _)| key)
            .collect();
        for key in stale {
            let Some(client) = self.clients.get(key) else { continue };
            if client.away.is_some() {
                continue;
            }
            if client.mailbox.is_empty() {
                self.begin_presence(key, group, now);
            } else if let Some(watch) = self.watches.get_mut(group) {
                watch.is_due = true;
                self.timers.push(now + PAUSE, Timer::Presence);
            }
        }
    }

    /// A watcher's subscription is confirmed: it gets all members, and from then on what changes.
    pub(super) fn begin_presence(&mut self, key: ConnectionKey, group: &GroupName, now: Instant) {
        let awaited: Set<ShardIndex> =
            (0..self.backbone.shards()).filter(|&peer| peer != self.index).collect();
        let Some(watcher) = self.watches.get_mut(group).and_then(|watch| watch.watchers.get_mut(&key)) else {
            return;
        };
        if matches!(watcher.state, WatcherState::Collecting { .. }) {
            return;
        }
        watcher.state = WatcherState::Collecting { members: Map::default(), awaited: awaited.clone() };
        for peer in awaited {
            self.backbone.forward(peer, PeerMessage::PresenceAsked { group: group.clone() });
        }
        self.finish_presence(key, group, now);
    }

    /// Another shard's new watcher is to know this shard's members.
    pub(super) fn answer_presence(&mut self, from: ShardIndex, group: GroupName) {
        // What was told, and not what is: what differs is told next.
        let members = match self.watches.get(&group) {
            Some(watch) => watch.told.clone(),
            None => self.present_members(&group),
        };
        let members = members.into_iter().collect();
        self.backbone.forward(from, PeerMessage::PresenceMembers { group, members });
    }

    /// Another shard's members.
    pub(super) fn handle_presence(
        &mut self,
        from: ShardIndex,
        group: &GroupName,
        found: &[(ClientId, bool)],
        now: Instant,
    ) {
        let Some(watch) = self.watches.get_mut(group) else { return };
        let mut complete = Vec::new();
        for (&key, watcher) in &mut watch.watchers {
            if let WatcherState::Collecting { members, awaited } = &mut watcher.state
                && awaited.swap_remove(&from)
            {
                members.extend(found.iter().cloned());
                complete.push(key);
            }
        }
        for key in complete {
            self.finish_presence(key, group, now);
        }
    }

    /// Gives a watcher all members, if all shards have said theirs.
    fn finish_presence(&mut self, key: ConnectionKey, group: &GroupName, now: Instant) {
        let Some(watch) = self.watches.get_mut(group) else { return };
        let Some(watcher) = watch.watchers.get_mut(&key) else { return };
        let WatcherState::Collecting { members, awaited } = &mut watcher.state else { return };
        if !awaited.is_empty() {
            return;
        }
        let mut members = std::mem::take(members);
        members.extend(watch.told.iter().map(|(id, online)| (id.clone(), *online)));
        watcher.state = WatcherState::Current;
        let reception = watcher.reception;
        let entry = |(id, online): (&ClientId, &bool)| json!({"client": id.as_str(), "online": online});
        members.sort_unstable_keys();
        let parts = in_parts(members.iter().map(entry).collect());
        let count = parts.len();
        let messages: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| {
                let text = json!({
                    "type": "members", "group": group.as_str(), "part": at + 1, "parts": count, "members": part,
                });
                self.presence_message(group, &text)
            })
            .collect();
        self.give_watcher(key, group, reception, &messages, now);
    }

    /// QoS 0: what is lost with a connection is made up for by all members when the watcher is back.
    fn presence_message(&self, group: &GroupName, text: &Value) -> Rc<Outgoing> {
        let mut writer = PropertyWriter::new();
        writer.push(Property::PayloadFormatIndicator(true)).push(Property::ContentType("application/json"));
        let properties = passed_through(&writer.finish().unwrap_or(Properties::EMPTY));
        let topic = format!("{}/p/{group}", self.session_config.prefix);
        Outgoing::new(Arc::new(Message {
            origin: Origin::Topic {
                topic: topic.as_str().into(),
                publisher: Identity::new(""),
                retain: false,
            },
            payload: Bytes::from(text.to_string()),
            properties,
            qos: QoS::AtMostOnce,
            deadline: None,
            urgent: false,
        }))
    }
}

/// The entries in runs of at most a part's bytes; at least one run.
fn in_parts(entries: Vec<Value>) -> Vec<Vec<Value>> {
    // What stands around them, with the longest name of a group.
    const ROOM: usize = PART - 256;
    let mut parts = vec![Vec::new()];
    let mut length = 0;
    for entry in entries {
        let bytes = entry.to_string().len() + 1;
        if length + bytes > ROOM {
            parts.push(Vec::new());
            length = 0;
        }
        length += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(entry);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_a_filter_names_one_group() {
        let group = |filter| group_of("sig", filter).map(|group| group.to_string());
        assert_eq!(group("sig/p/floor3").as_deref(), Some("floor3"));
        for filter in ["sig/p/", "sig/p/+", "sig/p/#", "sig/p/a/b", "sig/g/a", "p/a", "signal/p/a"] {
            assert_eq!(group(filter), None, "{filter}");
        }
    }

    #[test]
    fn t5_parts_are_of_at_most_8_kib_and_hold_everything() {
        let entries: Vec<_> =
            (0..2000).map(|n| json!({"client": format!("lamp-{n}"), "online": true})).collect();
        let parts = in_parts(entries.clone());
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| json!(part).to_string().len() <= PART - 254));
        assert_eq!(parts.concat(), entries);
        assert_eq!(in_parts(Vec::new()), [Vec::<Value>::new()]);
    }
}
