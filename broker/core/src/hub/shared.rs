//! Shared subscriptions: of all members of a share, whatever their shard, one gets each message [section 4.8.2].
//!
//! The publisher's shard chooses the shard, by how many members it has that are connected, and that shard the member,
//! in turn. Where nobody is connected the message waits for a member that will be back. A member that leaves, or whose
//! session ends, hands on what it hadn't acknowledged; QoS 2 that is under way stays with it [MQTT-4.8.2-5].

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::parts::{AwaitedPublish, Part};
use super::{ConnectionKey, Shard};
use crate::backbone::{Backbone, PeerMessage, ShardIndex};
use crate::model::{Delivery, Instant, Map, Message, Outgoing, ReceiptSlot, Reception, ShareId, Status};
use crate::mqtt::topic;

/// Members that are tried before a message is dropped because their mailboxes are full.
const TRIES: usize = 16;

/// One share, as one shard sees it.
#[derive(Debug)]
pub(super) struct Share {
    /// `$share/{name}/{filter}`.
    text: Arc<str>,
    members: Map<ConnectionKey, Member>,
    /// How many of them are connected.
    connected: u32,
    /// Other shards with members, and how many of these are connected.
    peers: Map<ShardIndex, u32>,
    /// Whose turn it is among shards, and among members here.
    turn: usize,
    next: usize,
}

/// One member here.
#[derive(Clone, Copy, Debug)]
struct Member {
    reception: Reception,
    connected: bool,
}

/// The shares that a shard knows of.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_id: Map<ShareId, Share>,
    by_text: Map<Arc<str>, ShareId>,
    /// Numbers them.
    last: u32,
}

/// Who is to get a message.
enum Choice {
    Here,
    Peer(ShardIndex),
    Nobody,
}

impl Shares {
    /// The text of a share that is there.
    pub(super) fn text_of(&self, id: ShareId) -> Option<&str> {
        self.by_id.get(&id).map(|share| &*share.text)
    }

    pub(super) fn id_of(&self, text: &str) -> Option<ShareId> {
        self.by_text.get(text).copied()
    }

    fn get_mut(&mut self, text: &str) -> Option<&mut Share> {
        self.by_id.get_mut(&self.id_of(text)?)
    }
}

impl Share {
    fn add(&mut self, key: ConnectionKey, member: Member) {
        let old = self.members.insert(key, member);
        self.connected += u32::from(member.connected);
        self.connected -= u32::from(old.is_some_and(|old| old.connected));
    }

    fn remove(&mut self, key: ConnectionKey) -> Option<Member> {
        let member = self.members.swap_remove(&key)?;
        self.connected -= u32::from(member.connected);
        Some(member)
    }

    /// The shard whose turn it is: of those with connected members as often as it has such, else one where a member
    /// will be back.
    fn choose(&mut self) -> Choice {
        let connected =
            self.connected as usize + self.peers.values().map(|&peer| peer as usize).sum::<usize>();
        self.turn = self.turn.wrapping_add(1);
        if connected == 0 {
            return match (self.members.is_empty(), self.peers.first()) {
                (false, _) => Choice::Here,
                (true, Some((&peer, _))) => Choice::Peer(peer),
                (true, None) => Choice::Nobody,
            };
        }
        let mut turn = self.turn % connected;
        if turn < self.connected as usize {
            return Choice::Here;
        }
        turn -= self.connected as usize;
        for (&peer, &members) in &self.peers {
            if turn < members as usize {
                return Choice::Peer(peer);
            }
            turn -= members as usize;
        }
        Choice::Nobody
    }
}

/// The topic filter of a shared subscription; none if it is not one.
pub(super) fn filter_of(text: &str) -> Option<&str> {
    Some(topic::parse_shared(text).ok()??.filter)
}

impl Shard {
    /// Makes a client a member of the share, or changes how it receives.
    pub(super) fn join_share(&mut self, key: ConnectionKey, text: &Arc<str>, reception: Reception) {
        let connected = self.is_connected(key);
        let share = self.ensure_share(text);
        self.change_share(share, |share| share.add(key, Member { reception, connected }));
    }

    /// Takes a client out of the share.
    pub(super) fn leave_share(&mut self, key: ConnectionKey, text: &Arc<str>) {
        let Some(share) = self.shares.id_of(text) else { return };
        self.change_share(share, |share| {
            share.remove(key);
        });
        self.drop_empty_share(text);
    }

    /// Gives the place of one connection in a share to another of the same session.
    pub(super) fn move_share(&mut self, from: ConnectionKey, to: ConnectionKey, text: &Arc<str>) {
        let connected = self.is_connected(to);
        let Some(share) = self.shares.id_of(text) else { return };
        self.change_share(share, |share| {
            if let Some(member) = share.remove(from) {
                share.add(to, Member { connected, ..member });
            }
        });
    }

    /// Another shard has its first, or no longer any, member of a share.
    pub(super) fn handle_share_interest(&mut self, from: ShardIndex, text: &Arc<str>, added: bool) {
        let share = self.ensure_share(text);
        if let Some(share) = self.shares.by_id.get_mut(&share) {
            if added {
                share.peers.entry(from).or_default();
            } else {
                share.peers.swap_remove(&from);
            }
        }
        self.drop_empty_share(text);
    }

    /// How many members of a share are connected to another shard.
    pub(super) fn handle_share_members(&mut self, from: ShardIndex, text: &str, connected: u32) {
        if let Some(members) = self.shares.get_mut(text).and_then(|share| share.peers.get_mut(&from)) {
            *members = connected;
        }
    }

    fn ensure_share(&mut self, text: &Arc<str>) -> ShareId {
        if let Some(id) = self.shares.id_of(text) {
            return id;
        }
        // Four thousand million shares later an old number comes again, long after its share.
        self.shares.last = self.shares.last.checked_add(1).unwrap_or(1);
        let id = ShareId(NonZeroU32::new(self.shares.last).unwrap_or(NonZeroU32::MIN));
        let share = Share {
            text: text.clone(),
            members: Map::default(),
            connected: 0,
            peers: Map::default(),
            turn: 0,
            next: 0,
        };
        self.shares.by_id.insert(id, share);
        self.shares.by_text.insert(text.clone(), id);
        if let Some(filter) = filter_of(text) {
            self.shared_topics.insert(filter, id, ());
        }
        id
    }

    fn drop_empty_share(&mut self, text: &str) {
        let Some(id) = self.shares.id_of(text) else { return };
        let is_empty = |share: &Share| share.members.is_empty() && share.peers.is_empty();
        if self.shares.by_id.get(&id).is_some_and(is_empty) {
            self.shares.by_id.swap_remove(&id);
            self.shares.by_text.swap_remove(text);
            if let Some(filter) = filter_of(text) {
                self.shared_topics.remove(filter, &id);
            }
        }
    }

    pub(super) fn is_connected(&self, key: ConnectionKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.away.is_none())
    }

    /// Changes the members of a share, and tells the other shards if the number of those connected is another then.
    fn change_share(&mut self, id: ShareId, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.shares.by_id.get_mut(&id) else { return };
        let before = share.connected;
        change(share);
        let connected = share.connected;
        if connected != before {
            for peer in (0..self.backbone.shards()).filter(|&peer| peer != self.index) {
                let share = share.text.clone();
                self.backbone.forward(peer, PeerMessage::ShareMembers { share, connected });
            }
        }
    }

    /// Gives a message that a client of this shard published to one member of each share that it matches.
    pub(super) fn share_out(
        &mut self,
        topic: &str,
        message: &Arc<Message>,
        publish: AwaitedPublish,
        had: &[Part],
        now: Instant,
    ) {
        let mut matching = Vec::new();
        self.shared_topics.for_each_match(topic, &mut |&id, ()| matching.push(id));
        let outgoing = Outgoing::new(message.clone());
        for id in matching {
            if !had.is_empty()
                && self.shares.text_of(id).is_some_and(|text| had.iter().any(|had| **had == *text))
            {
                continue;
            }
            self.share_one(id, &outgoing, publish, now);
        }
    }

    /// Gives what a member didn't take to another one.
    pub(super) fn hand_on(&mut self, mut delivery: Delivery, now: Instant) {
        // It leaves the queue of the one who didn't take it.
        if let Some(ReceiptSlot::Queue { queue, sequence }) = delivery.slot.take_if(|slot| slot.is_queue()) {
            self.leave_queue(queue, sequence);
        }
        match delivery.share.filter(|share| self.shares.by_id.contains_key(share)) {
            Some(_) if delivery.is_expired(now) => self.drop_delivery(&delivery, Status::Expired, now),
            Some(share) => self.share_one(share, &delivery.outgoing, AwaitedPublish::default(), now),
            None => self.drop_delivery(&delivery, Status::Offline, now),
        }
    }

    /// `publish`: who waits until it is kept.
    fn share_one(&mut self, id: ShareId, outgoing: &Rc<Outgoing>, publish: AwaitedPublish, now: Instant) {
        let Some(share) = self.shares.by_id.get_mut(&id) else { return };
        match share.choose() {
            Choice::Peer(peer) if self.backbone.has_room(peer) => {
                let (share, message) = (share.text.clone(), outgoing.message.clone());
                self.await_peer(publish.key);
                self.backbone.forward(peer, PeerMessage::Shared { share, message, publish });
            }
            Choice::Peer(_) if share.members.is_empty() => self.counters.publishes_overflowed += 1,
            // It is this shard's turn, or the other one can't take it now.
            Choice::Here | Choice::Peer(_) => {
                let text = share.text.clone();
                self.expect_own_share(publish, &text);
                self.deliver_share(id, outgoing, now);
            }
            Choice::Nobody => self.counters.publishes_abandoned += 1,
        }
    }

    /// Another shard chose this one for a message.
    pub(super) fn handle_shared(&mut self, text: &str, message: &Arc<Message>, now: Instant) {
        match self.shares.id_of(text) {
            Some(id) if self.shares.by_id.get(&id).is_some_and(|share| !share.members.is_empty()) => {
                self.deliver_share(id, &Outgoing::new(message.clone()), now);
            }
            // The last member has left meanwhile; others may be elsewhere.
            Some(id) => self.share_one(id, &Outgoing::new(message.clone()), AwaitedPublish::default(), now),
            None => self.counters.publishes_abandoned += 1,
        }
    }

    /// Gives a message to the member whose turn it is, or to the next one that can take it.
    fn deliver_share(&mut self, id: ShareId, outgoing: &Rc<Outgoing>, now: Instant) {
        let Some(share) = self.shares.by_id.get_mut(&id) else { return };
        share.next = share.next.wrapping_add(1);
        let (members, first, only_connected) = (share.members.len(), share.next, share.connected > 0);
        let mut delivery = None;
        let mut tries = 0;
        for at in 0..members {
            let Some(share) = self.shares.by_id.get(&id) else { break };
            let Some((&key, &member)) = share.members.get_index(first.wrapping_add(at) % members) else {
                break;
            };
            let reception = member.reception;
            if only_connected && !member.connected {
                continue;
            }
            let next = delivery.take().unwrap_or_else(|| Delivery {
                share: Some(id),
                ..Delivery::new(outgoing.clone(), reception)
            });
            match self.mail(key, Delivery { reception, ..next }, now) {
                Ok(()) => return,
                Err(refused) => delivery = Some(refused),
            }
            tries += 1;
            if tries == TRIES {
                break;
            }
        }
        if let Some(refused) = delivery {
            self.drop_delivery(&refused, Status::Overflow, now);
        }
    }

    /// Whether a member of the share is connected, to any shard.
    pub(super) fn has_connected(&self, id: ShareId) -> bool {
        let is_connected = |share: &Share| share.connected > 0 || share.peers.values().any(|&peer| peer > 0);
        self.shares.by_id.get(&id).is_some_and(is_connected)
    }

    /// Hands on what waits for a client that leaves the share.
    pub(super) fn hand_on_waiting(&mut self, key: ConnectionKey, text: &str, now: Instant) {
        let Some(id) = self.shares.id_of(text) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let taken = client.mailbox.take_share(id);
        self.weigh(key);
        for delivery in taken {
            self.hand_on(delivery, now);
        }
    }
}
