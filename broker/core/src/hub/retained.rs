//! Retained messages: the last one of each topic, for whoever subscribes later (T7).
//!
//! Every shard has all of them, so that a subscriber's snapshot and what comes live after it are one order. A
//! publish takes the same way to every shard as any other, with a version: where two publishers meet, all shards
//! keep the same one. It is acknowledged when every shard has it.
//!
//! A subscriber gets what matches bit by bit, as its mailbox has room: a [`Replay`] remembers how far it is, and no
//! list is made. Topics are sorted level by level, so that a walk skips what can't match.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::parts::{AwaitedPublish, Part};
use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::backbone::{Backbone, PeerMessage, RetainedVersion, ShardIndex};
use crate::model::{Delivery, Instant, Message, Origin, Outgoing, Reason, Reception, Refusal};
use crate::store::StoreOperation;

/// Messages of a replay that wait in a mailbox at a time.
const AHEAD: usize = 64;
/// Topics that a replay looks at before others have their turn.
const STEPS: usize = 4096;
/// Milliseconds for which it is remembered that a topic was cleared, for older publishes still on their way.
const CLEARED: u64 = 60_000;
/// Bytes of that memory; the oldest goes first. A publish is seldom on its way for longer than a moment.
const CLEARED_BYTES: usize = 16 * 1024 * 1024;
/// What remembering a topic costs beside its name, about.
const CLEARED_ROOM: usize = 64;

/// All retained messages.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// By topic, with U+0000 (which no topic has) for `/`: so they sort by levels.
    topics: BTreeMap<Box<str>, Kept>,
    /// What expires when.
    expiring: BTreeSet<(Instant, Box<str>)>,
    /// Topics that were cleared, in that order.
    cleared: VecDeque<Cleared>,
    cleared_bytes: usize,
    /// The highest version seen.
    clock: u64,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    version: RetainedVersion,
    /// None: the topic was cleared.
    message: Option<Arc<Message>>,
    expires: Option<Instant>,
}

/// It is remembered that a topic was cleared.
#[derive(Debug)]
struct Cleared {
    until: Instant,
    key: Box<str>,
    version: RetainedVersion,
}

impl Cleared {
    fn cost(&self) -> usize {
        self.key.len() + CLEARED_ROOM
    }
}

/// The retained messages that a subscription is still to get.
#[derive(Debug)]
pub(super) struct Replay {
    filter: Arc<str>,
    reception: Reception,
    from: Bound<Box<str>>,
}

/// What became of a look for the next match.
enum Found {
    Message(Arc<Message>),
    /// There may be more, after others had their turn.
    Paused,
    End,
}

impl Retained {
    /// The version of a publish that is being accepted here.
    pub(super) fn next_version(&mut self, shard: ShardIndex) -> RetainedVersion {
        self.clock += 1;
        RetainedVersion { number: self.clock, shard }
    }

    /// How many there are, and the bytes of their topics, properties and payloads.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// Whether one for `message` would be within these bounds.
    pub(super) fn has_room(&self, topic: &str, message: &Message, messages: usize, bytes: usize) -> bool {
        let old = self.topics.get(&*sort_key(topic)).and_then(|kept| kept.message.as_deref());
        let (old_messages, old_bytes) = old.map_or((0, 0), |old| (1, cost(topic, old)));
        message.payload.is_empty()
            || (self.messages - old_messages < messages
                && self.bytes - old_bytes + cost(topic, message) <= bytes)
    }

    /// Keeps `message` as the one of its topic, or clears the topic if its payload is empty; unless a newer one
    /// came before.
    fn set(&mut self, topic: &str, message: &Arc<Message>, version: RetainedVersion, now: Instant) {
        self.clock = self.clock.max(version.number);
        let key = sort_key(topic);
        if self.topics.get(&key).is_some_and(|kept| kept.version >= version) {
            return;
        }
        let cleared = message.payload.is_empty();
        let expires = message.deadline.filter(|_| !cleared);
        let kept = Kept { version, message: (!cleared).then(|| message.clone()), expires };
        if !cleared {
            self.messages += 1;
            self.bytes += cost(topic, message);
        }
        if let Some(at) = expires {
            self.expiring.insert((at, key.clone()));
        }
        if let Some(old) = self.topics.insert(key.clone(), kept) {
            if old.expires != expires
                && let Some(at) = old.expires
            {
                self.expiring.remove(&(at, key.clone()));
            }
            self.discount(old.message);
        }
        if cleared {
            let cleared = Cleared { until: now + CLEARED, key, version };
            self.cleared_bytes += cleared.cost();
            self.cleared.push_back(cleared);
            while self.cleared_bytes > CLEARED_BYTES {
                self.forget_cleared();
            }
        }
    }

    /// Forgets the topic that was cleared first, unless it has a message again.
    fn forget_cleared(&mut self) {
        let Some(cleared) = self.cleared.pop_front() else { return };
        self.cleared_bytes -= cleared.cost();
        if self.topics.get(&cleared.key).is_some_and(|kept| kept.version == cleared.version) {
            self.topics.remove(&cleared.key);
        }
    }

    /// Forgets what is past its expiry.
    fn expire(&mut self, now: Instant) {
        while self.expiring.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.expiring.pop_first() else { return };
            if let Some(old) = self.topics.remove(&key) {
                self.discount(old.message);
            }
        }
        while self.cleared.front().is_some_and(|cleared| cleared.until <= now) {
            self.forget_cleared();
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        let expires = self.expiring.first().map(|(at, _)| *at);
        expires.into_iter().chain(self.cleared.front().map(|cleared| cleared.until)).min()
    }

    fn discount(&mut self, old: Option<Arc<Message>>) {
        if let Some(old) = old
            && let Origin::Topic { topic, .. } = &old.origin
        {
            self.messages -= 1;
            self.bytes -= cost(topic, &old);
        }
    }

    /// The next message that `replay` is to get.
    fn next(&self, replay: &mut Replay, steps: &mut usize, now: Instant) -> Found {
        let levels: Vec<&str> = replay.filter.split('/').collect();
        loop {
            if *steps == 0 {
                return Found::Paused;
            }
            *steps -= 1;
            let from = match &replay.from {
                Bound::Included(key) => Bound::Included(&**key),
                Bound::Excluded(key) => Bound::Excluded(&**key),
                Bound::Unbounded => Bound::Unbounded,
            };
            let Some((key, kept)) = self.topics.range::<str, _>((from, Bound::Unbounded)).next() else {
                return Found::End;
            };
            match judge(&levels, key) {
                Judgement::Matches => {
                    replay.from = Bound::Excluded(key.clone());
                    if let Some(message) = &kept.message
                        && message.deadline.is_none_or(|deadline| deadline > now)
                    {
                        return Found::Message(message.clone());
                    }
                }
                Judgement::Next => replay.from = Bound::Excluded(key.clone()),
                Judgement::From(seek) => replay.from = Bound::Included(seek.into()),
                Judgement::End => return Found::End,
            }
        }
    }
}

/// What a filter has to do with a topic, and where it may match again.
enum Judgement {
    Matches,
    /// Right after this topic.
    Next,
    /// Not before this.
    From(String),
    End,
}

fn judge(levels: &[&str], key: &str) -> Judgement {
    // Leading wildcards leave out `$`-topics [MQTT-4.7.2-1]; `%` is what sorts next.
    if key.starts_with('$') && matches!(levels.first(), Some(&"+" | &"#")) {
        return Judgement::From("%".to_owned());
    }
    let past = |end: usize| Judgement::From(format!("{}\u{1}", key.get(..end).unwrap_or(key)));
    let mut rest = Some(0);
    let mut end = 0;
    let mut last_plus = None;
    for &level in levels {
        if level == "#" {
            return Judgement::Matches;
        }
        let Some(start) = rest else {
            return if level == "+" { Judgement::Next } else { Judgement::From(format!("{key}\0{level}")) };
        };
        let tail = key.get(start..).unwrap_or_default();
        let text = tail.split('\0').next().unwrap_or_default();
        end = start + text.len();
        rest = (end < key.len()).then_some(end + 1);
        if level == "+" {
            last_plus = Some(end);
            continue;
        }
        match text.cmp(level) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => {
                return Judgement::From(format!("{}{level}", key.get(..start).unwrap_or_default()));
            }
            std::cmp::Ordering::Greater => return last_plus.map_or(Judgement::End, past),
        }
    }
    match rest {
        None => Judgement::Matches,
        // Deeper than the filter: past all that is below here.
        Some(_) => past(end),
    }
}

fn sort_key(topic: &str) -> Box<str> {
    topic.replace('/', "\0").into()
}

fn cost(topic: &str, message: &Message) -> usize {
    topic.len() + message.payload.len() + message.properties.len()
}

impl Shard {
    /// Judges whether a message may be retained, before anything comes of it.
    pub(super) fn check_retained(&self, message: &Message) -> Result<(), Refusal> {
        let Origin::Topic { topic, .. } = &message.origin else { return Ok(()) };
        let limits = &self.limits;
        if !self.retained.has_room(topic, message, limits.retained_messages, limits.retained_bytes) {
            return Err(Refusal::new(
                Reason::TooMany,
                "the gateway has all the retained messages that it may have",
            ));
        }
        if (0..self.backbone.shards()).any(|peer| peer != self.index && !self.backbone.has_room(peer)) {
            return Err(Refusal::new(Reason::Overflow, "the queue to a part of the gateway is full"));
        }
        Ok(())
    }

    /// Retains an accepted message here and on every other shard, each of which also delivers it to its
    /// subscribers, but those that `had` it before. `publish`: who waits for them.
    pub(super) fn retain(
        &mut self,
        message: &Arc<Message>,
        publish: AwaitedPublish,
        had: &[Part],
        now: Instant,
    ) {
        let version = self.retained.next_version(self.index);
        self.keep_retained(message, version, now);
        // What the gateway publishes in its own name is as old as the gateway.
        if !matches!(&message.origin, Origin::Topic { publisher, .. } if publisher.as_str().is_empty()) {
            self.store_retained(message, version);
        }
        let own = self.index;
        for peer in (0..self.backbone.shards()).filter(|&peer| peer != own) {
            self.await_peer(publish.key);
            let deliver = !self.was_had(had, peer);
            let message = message.clone();
            self.backbone.forward(peer, PeerMessage::Retain { message, version, publish, deliver });
        }
    }

    /// Has the store keep what is retained of a client's publish.
    pub(super) fn store_retained(&mut self, message: &Arc<Message>, version: RetainedVersion) {
        let Origin::Topic { topic, .. } = &message.origin else { return };
        let topic = topic.clone();
        let operation = if message.payload.is_empty() {
            StoreOperation::RemoveRetained { topic, version }
        } else {
            let expires = message.deadline.map(|deadline| self.store.wall(deadline));
            StoreOperation::PutRetained { topic, version, message: message.clone(), expires }
        };
        self.store.push(operation);
    }

    /// Another shard's retained publish.
    pub(super) fn handle_retain(
        &mut self,
        message: &Arc<Message>,
        version: RetainedVersion,
        deliver: bool,
        now: Instant,
    ) {
        self.keep_retained(message, version, now);
        if deliver {
            self.deliver_retained(message, now);
        }
    }

    /// What the store kept is retained here, as it is on every shard.
    pub(super) fn restore_retained(
        &mut self,
        message: &Arc<Message>,
        version: RetainedVersion,
        now: Instant,
    ) {
        self.keep_retained(message, version, now);
    }

    fn keep_retained(&mut self, message: &Arc<Message>, version: RetainedVersion, now: Instant) {
        let Origin::Topic { topic, .. } = &message.origin else { return };
        let before = self.retained.next_expiry();
        self.retained.set(topic, message, version, now);
        self.retained.expire(now);
        let next = self.retained.next_expiry();
        if before != next {
            self.schedule_expiry(before, next);
        }
        self.count_retained();
    }

    /// Forgets what has expired.
    pub(super) fn expire_retained(&mut self, now: Instant) {
        self.retained.expire(now);
        self.schedule_expiry(None, self.retained.next_expiry());
        self.count_retained();
    }

    fn schedule_expiry(&mut self, before: Option<Instant>, next: Option<Instant>) {
        if let Some(at) = before {
            self.timers.remove(at, Timer::Retained);
        }
        if let Some(at) = next {
            self.timers.push(at, Timer::Retained);
        }
    }

    fn count_retained(&mut self) {
        // All shards have the same: they are counted once.
        if self.index == 0 {
            let (messages, bytes) = self.retained.size();
            self.counters.retained_messages = messages as u64;
            self.counters.retained_bytes = bytes as u64;
        }
    }

    /// Begins to give a client what is retained under the filter of a new subscription.
    pub(super) fn begin_replay(
        &mut self,
        key: ConnectionKey,
        filter: Arc<str>,
        reception: Reception,
        now: Instant,
    ) {
        // It may have ended the subscription before that was confirmed.
        if self.clients.get(key).is_none_or(|client| !client.filters.contains(&filter)) {
            return;
        }
        if let Some(group) = self.watched_group(&filter) {
            return self.begin_presence(key, &group, now);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let literal: Vec<&str> = filter.split('/').take_while(|level| !matches!(*level, "+" | "#")).collect();
        let from = Bound::Included(literal.join("\0").into());
        let replays: &mut VecDeque<Replay> = client.replays.get_or_insert_default();
        // The same filter again begins again.
        replays.retain(|replay| replay.filter != filter);
        replays.push_back(Replay { filter, reception, from });
        self.refill(key, now);
    }

    /// Ends what a client was still to get under a filter.
    pub(super) fn end_replay(&mut self, key: ConnectionKey, filter: &str) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(replays) = &mut client.replays
        {
            replays.retain(|replay| &*replay.filter != filter);
        }
    }

    /// Lets a replay find once more what the mailbox has no room for yet: an empty one takes it (S16).
    fn put_back(&mut self, key: ConnectionKey, refused: &Delivery) {
        if let Origin::Topic { topic, .. } = &refused.outgoing.message.origin
            && let Some(client) = self.clients.get_mut(key)
            && let Some(replay) = client.replays.as_mut().and_then(|replays| replays.front_mut())
        {
            replay.from = Bound::Included(sort_key(topic));
        }
    }

    /// Puts retained messages into the mailbox of a client that is to get some, while there is room.
    pub(super) fn refill(&mut self, key: ConnectionKey, now: Instant) {
        let mut steps = STEPS;
        while let Some(client) = self.clients.get_mut(key) {
            if client.away.is_some() || client.mailbox.len() >= AHEAD {
                return;
            }
            let Some(replays) = &mut client.replays else { return };
            let Some(replay) = replays.front_mut() else {
                client.replays = None;
                return;
            };
            match self.retained.next(replay, &mut steps, now) {
                Found::Message(message) => {
                    // The recipient is told that it was there before (RETAIN of MQTT, `retained` of the framing).
                    let reception = Reception { retain_as_published: true, ..replay.reception };
                    let own = matches!((&message.origin, &client.identity),
                        (Origin::Topic { publisher, .. }, Some(me)) if publisher == me);
                    if own && reception.no_local {
                        continue;
                    }
                    let delivery = Delivery::new(Outgoing::new(message), reception);
                    if let Err(refused) = self.mail(key, delivery, now) {
                        return self.put_back(key, &refused);
                    }
                }
                // A little later, so that others have their turn.
                Found::Paused => return self.timers.push(now + 1, Timer::Replay(key)),
                Found::End => {
                    replays.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Identity, QoS};
    use crate::mqtt::topic;

    fn message(topic: &str, payload: &'static str, deadline: Option<Instant>) -> Arc<Message> {
        Arc::new(Message {
            origin: Origin::Topic { topic: topic.into(), publisher: Identity::new("p"), retain: true },
            payload: Bytes::from_static(payload.as_bytes()),
            properties: Bytes::new(),
            qos: QoS::AtLeastOnce,
            deadline,
            urgent: false,
        })
    }

    fn matches(retained: &Retained, filter: &str, steps: usize, now: Instant) -> Vec<String> {
        let reception = Reception::DEVICE;
        let mut replay = Replay { filter: filter.into(), reception, from: Bound::Included("".into()) };
        let mut found = Vec::new();
        loop {
            match retained.next(&mut replay, &mut steps.clone(), now) {
                Found::Message(message) => {
                    let Origin::Topic { topic, .. } = &message.origin else { panic!() };
                    found.push(topic.to_string());
                }
                Found::Paused => {}
                Found::End => return found,
            }
        }
    }

    proptest! {
        /// The walk finds what the reference matcher finds, each once, however often it is interrupted.
        #[test]
        fn a_replay_finds_what_matches(
            topics in prop::collection::btree_set("\\$?[ab!]{0,2}(/[ab!]{0,2}){0,3}", 0..30),
            filters in prop::collection::vec("(\\$?[ab!]{0,2}|\\+|#)(/([ab!]{0,2}|\\+)){0,3}(/#)?", 1..10),
            steps in 1..5_usize,
        ) {
            let now = Instant::from_millis(1);
            let mut retained = Retained::default();
            let topics: Vec<_> = topics.into_iter().filter(|topic| !topic.is_empty()).collect();
            for topic in &topics {
                let version = retained.next_version(0);
                retained.set(topic, &message(topic, "on", None), version, now);
            }
            for filter in filters.iter().filter(|filter| topic::is_valid_filter(filter)) {
                let mut found = matches(&retained, filter, steps, now);
                found.sort();
                let mut expected: Vec<_> = topics.iter().filter(|t| topic::matches(filter, t)).cloned().collect();
                expected.sort();
                prop_assert_eq!(found, expected, "{}", filter);
            }
        }
    }

    #[test]
    fn the_newest_version_stays_in_whatever_order_they_come() {
        let now = Instant::from_millis(1);
        let version = |number, shard| RetainedVersion { number, shard };
        let all = [("a", version(1, 0)), ("b", version(2, 0)), ("", version(2, 1)), ("c", version(2, 2))];
        for turn in 0..all.len() {
            let mut retained = Retained::default();
            for at in 0..all.len() {
                let (payload, version) = all[(turn + at) % all.len()];
                retained.set("t/x", &message("t/x", payload, None), version, now);
            }
            assert_eq!(retained.topics["t\0x"].message.as_ref().unwrap().payload, "c");
            assert_eq!(retained.size(), (1, 4));
            assert_eq!(retained.next_version(0).number, 3);
        }
    }

    #[test]
    fn a_cleared_topic_stays_cleared_for_a_publish_that_was_before() {
        let now = Instant::from_millis(1);
        let mut retained = Retained::default();
        retained.set("t", &message("t", "", None), RetainedVersion { number: 5, shard: 0 }, now);
        retained.set("t", &message("t", "late", None), RetainedVersion { number: 4, shard: 1 }, now);
        assert_eq!((retained.size(), retained.topics.len()), ((0, 0), 1));
        retained.expire(now + CLEARED);
        assert!(retained.topics.is_empty() && retained.expiring.is_empty());
        assert_eq!((retained.cleared.len(), retained.cleared_bytes), (0, 0));
    }

    #[test]
    fn topics_cleared_without_end_take_no_memory_without_end() {
        let now = Instant::from_millis(1);
        let mut retained = Retained::default();
        retained.set("kept", &message("kept", "on", None), RetainedVersion { number: 1, shard: 0 }, now);
        let long = "x".repeat(60_000);
        for number in 0..1000 {
            let version = retained.next_version(0);
            let topic = format!("{number}/{long}");
            retained.set(&topic, &message(&topic, "", None), version, now);
        }
        let remembered: usize = retained.topics.keys().map(|key| key.len()).sum();
        assert!(remembered <= 16 * 1024 * 1024 && retained.topics.len() > 200, "{remembered}");
        assert_eq!(retained.size().0, 1, "messages aren't forgotten for it");
    }

    #[test]
    fn a_topic_that_was_cleared_and_set_again_is_not_forgotten() {
        let now = Instant::from_millis(1);
        let mut retained = Retained::default();
        for payload in ["on", "", "off"] {
            let version = retained.next_version(0);
            retained.set("t", &message("t", payload, None), version, now);
        }
        retained.expire(now + CLEARED);
        assert_eq!((retained.size().0, retained.cleared.len(), retained.next_expiry()), (1, 0, None));
    }

    #[test]
    fn what_expires_is_forgotten_and_what_replaces_it_is_not() {
        let at = Instant::from_millis;
        let mut retained = Retained::default();
        for (deadline, gone) in [(Some(at(10)), 0), (Some(at(20)), 0), (None, 1)] {
            let version = retained.next_version(0);
            retained.set("t", &message("t", "x", deadline), version, at(1));
            assert_eq!((retained.size().0, retained.expiring.len()), (1, 1 - gone));
        }
        retained.expire(at(100));
        assert_eq!(retained.size().0, 1);
        assert!(!retained.has_room("u", &message("u", "y", None), 1, 100), "full");
        assert!(retained.has_room("t", &message("t", "y", None), 1, 100), "replaces");
        assert!(retained.has_room("u", &message("u", "", None), 1, 100), "clears");
        assert!(!retained.has_room("t", &message("t", "yy", None), 1, 2), "bytes");
    }
}
