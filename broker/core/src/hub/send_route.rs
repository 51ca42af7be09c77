//! The way of a sender's signals to their recipients, found once and kept while nothing that it depends on changes.
//!
//! It is for what senders mostly do: the same target and options again and again, nothing urgent, no receipt, no
//! message id, no observers. Then the rules have said yes, each recipient's shard is known, and so are the recipients
//! of this shard, receive rules included. Whatever a verdict or a recipient depends on has to be among a route's `changes`. Everything else goes the way that looks at all of it ([`send`](super::send), [`deliver`](super::deliver)).

use std::rc::Rc;
use std::sync::Arc;

use super::publish::Posting;
use super::{ConnectionKey, Member, Shard};
use crate::backbone::{Backbone, PeerAddressed, ShardIndex, Share, owner};
use crate::model::{
    Addressed, ClientId, GroupName, Instant, MessageView, Reason, ReceiptMode, Reception, Refusal, Reply,
    RequestId, Signal, Status, Target,
};
use crate::rules::{Action, Object, Rules};

/// Recipients of one shard that are kept with a route, as many as can be listed. Those of larger groups are looked up
/// each time, which costs little beside writing to them.
const MAX_KEPT: usize = 128;

/// Where a client's last signal went, should the next go there too.
pub(super) struct SendRoute {
    addressed: Rc<Addressed>,
    /// Those that allowed it, and judged the recipients.
    rules: Arc<Rules>,
    changes: [u64; 3],
    /// This shard's part, if it has one.
    own: Option<Part>,
    peers: Vec<(ShardIndex, Arc<PeerAddressed>)>,
    sender: ClientId,
}

/// Where the last signal of another shard's client went.
pub(super) struct PeerSendRoute {
    addressed: Arc<PeerAddressed>,
    rules: Arc<Rules>,
    changes: [u64; 3],
    part: Part,
}

/// One shard's part of the recipients.
struct Part {
    recipients: Kept,
    /// What became of those that get nothing.
    missed: Vec<(Status, u64)>,
}

/// The recipients of this shard.
enum Kept {
    These(Vec<(ConnectionKey, Reception)>),
    /// All members of the group but these.
    AllBut(GroupName, Vec<ConnectionKey>),
}

impl Shard {
    /// Sends a signal along the way that is kept for its sender. None: it has to be looked at closely.
    pub(super) fn send_along(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) -> Option<Result<(), Refusal>> {
        let options = signal.options();
        // Urgent ones have a lane of their own to other shards; those with an id may be repetitions.
        let is_plain =
            options.receipt == ReceiptMode::None && !options.urgent && !options.store && options.id.is_none();
        if !is_plain || self.observing > 0 || self.peer_observing > 0 {
            return None;
        }
        let client = self.clients.get_mut(key)?;
        let route = match client.send_route.take() {
            Some(route) if self.is_current_send(&route, &signal.addressed) => route,
            _ => match self.find_send_route(key, &signal.addressed, now)? {
                Ok(route) => Box::new(route),
                Err(refusal) => return Some(Err(refusal)),
            },
        };
        let result = self.send_by(&route, key, request, signal, now);
        // It was taken above: there is none to drop.
        if let Some(client) = self.clients.get_mut(key)
            && let slot @ None = &mut client.send_route
        {
            *slot = Some(route);
        }
        Some(result)
    }

    #[inline(always)]
    fn is_current_send(&self, route: &SendRoute, addressed: &Rc<Addressed>) -> bool {
        Rc::ptr_eq(&route.addressed, addressed)
            && route.changes == self.population()
            && Arc::ptr_eq(&route.rules, &self.rules)
    }

    /// How often had changed: who is there, who is in which group here, and which shards have members.
    fn population(&self) -> [u64; 3] {
        [self.by_identity.changes(), self.groups.changes(), self.peer_groups.changes()]
    }

    fn find_send_route(
        &self,
        key: ConnectionKey,
        addressed: &Rc<Addressed>,
        now: Instant,
    ) -> Option<Result<SendRoute, Refusal>> {
        let client = self.clients.get(key)?;
        let sender = client.client_id.clone()?;
        if let Err(refusal) = self.judge_send(client.actor()?, addressed, now) {
            return Some(Err(refusal));
        }
        let Addressed { target, options } = &**addressed;
        let mut peers = Vec::new();
        let mut own = None;
        for (shard, share) in self.shares(&sender, target) {
            if shard == self.index {
                own = Some(self.find_part(key, &sender, target, options.echo, &share));
            } else {
                let (sender, target) = (sender.clone(), target.clone());
                peers.push((shard, Arc::new(PeerAddressed { sender, target, echo: options.echo, share })));
            }
        }
        Some(Ok(SendRoute {
            addressed: addressed.clone(),
            rules: self.rules.clone(),
            changes: self.population(),
            own,
            peers,
            sender,
        }))
    }

    fn find_part(
        &self,
        own: ConnectionKey,
        sender: &ClientId,
        target: &Target,
        echo: bool,
        share: &Share,
    ) -> Part {
        let mut found = Found { recipients: Vec::new(), missed: Vec::new(), away: 0 };
        self.find_recipients(own, sender, target, echo, share, &mut found);
        let recipients = match target {
            Target::Group { group, except, .. } if found.recipients.len() > MAX_KEPT => {
                // Found to be away each time.
                found.unmiss(Status::Offline, found.away);
                let excluded = except.iter().filter_map(|id| self.by_identity.get(id.as_str()).copied());
                Kept::AllBut(group.clone(), excluded.chain((!echo).then_some(own)).collect())
            }
            _ => Kept::These(found.recipients),
        };
        Part { recipients, missed: found.missed }
    }

    /// A signal of another shard's client.
    pub(super) fn deliver_copied(
        &mut self,
        view: MessageView<'_>,
        addressed: &Arc<PeerAddressed>,
        now: Instant,
    ) {
        let route = match self.peer_send_route.take() {
            Some(route)
                if Arc::ptr_eq(&route.addressed, addressed)
                    && route.changes == self.population()
                    && Arc::ptr_eq(&route.rules, &self.rules) =>
            {
                route
            }
            _ => {
                let PeerAddressed { sender, target, echo, share } = &**addressed;
                // Its sender has no connection here.
                let part = self.find_part(ConnectionKey::default(), sender, target, *echo, share);
                Box::new(PeerSendRoute {
                    addressed: addressed.clone(),
                    rules: self.rules.clone(),
                    changes: self.population(),
                    part,
                })
            }
        };
        self.deliver_part(&route.part, ConnectionKey::default(), view, now);
        self.peer_send_route = Some(route);
    }

    fn deliver_part(&mut self, part: &Part, sender: ConnectionKey, view: MessageView<'_>, now: Instant) {
        self.signals += 1;
        let mut posting = Posting::of_signal(view);
        match &part.recipients {
            Kept::These(recipients) => self.post_to(&mut posting, recipients, now),
            Kept::AllBut(group, excluded) => {
                let mut recipients = std::mem::take(&mut self.subscribers);
                let members = self.groups.get(group).into_iter().flatten();
                let taking = members.filter(|(key, member)| {
                    member.may_receive
                        && !excluded.contains(*key)
                        && !(member.reception.no_local && **key == sender)
                });
                recipients.extend(taking.map(|(&key, member)| (key, member.reception)));
                self.post_to(&mut posting, &recipients, now);
                self.keep_room(recipients);
            }
        }
        for &(status, count) in &part.missed {
            self.counters.count_status(status, count);
        }
    }

    /// The recipients of this shard's share, as [`deliver`](super::deliver) would find them for one signal.
    fn find_recipients(
        &self,
        own: ConnectionKey,
        sender: &ClientId,
        target: &Target,
        echo: bool,
        share: &Share,
        found: &mut Found,
    ) {
        match (target, share) {
            (Target::Client(id), _) => {
                let object = Object::Client(sender.as_str());
                let online = self.by_identity.get(id.as_str()).and_then(|&key| {
                    let client = self.clients.get(key).filter(|client| !client.is_absent())?;
                    Some((key, client.inbox?))
                });
                match online {
                    // No Local always wins (S5).
                    Some((key, reception)) if reception.no_local && key == own => {}
                    Some(recipient) if self.client_may(recipient.0, Action::Receive, object) => {
                        found.recipients.push(recipient);
                    }
                    Some(_) => found.miss(Status::Denied),
                    None => found.miss(Status::Offline),
                }
            }
            (Target::Group { group, except, .. }, Share::Members) => {
                let excluded: Vec<_> =
                    except.iter().filter_map(|id| self.by_identity.get(id.as_str())).collect();
                for (&key, &member) in self.groups.get(group).into_iter().flatten() {
                    let is_own = key == own && (!echo || member.reception.no_local);
                    if !excluded.contains(&&key) && !is_own {
                        self.judge_member(key, member, found);
                    }
                }
                for id in self.rules.members(group).into_iter().flatten() {
                    if owner(id.as_str(), self.backbone.shards()) == self.index
                        && self.member_key(group, id).is_none()
                        && !except.contains(id.as_str())
                        && (id != sender || echo)
                    {
                        found.miss(Status::Offline);
                    }
                }
            }
            (Target::Group { group, .. }, Share::Listed(listed)) => {
                for id in listed {
                    match self.member_key(group, id) {
                        // No Local always wins (S5).
                        Some((key, member)) if member.reception.no_local && key == own => {}
                        Some((key, member)) => self.judge_member(key, member, found),
                        None if self.rules.members(group).is_some_and(|members| members.contains(id)) => {
                            found.miss(Status::Offline);
                        }
                        None => found.miss(Status::NotMember),
                    }
                }
            }
            (Target::Group { .. }, Share::Client | Share::Observers) => {}
        }
    }

    fn member_key(&self, group: &GroupName, id: &ClientId) -> Option<(ConnectionKey, Member)> {
        let key = self.by_identity.get(id.as_str())?;
        self.groups.get(group)?.get(key).map(|&member| (*key, member))
    }

    fn judge_member(&self, key: ConnectionKey, member: Member, found: &mut Found) {
        if self.clients.get(key).is_none_or(|client| client.is_absent()) {
            found.away += 1;
            found.miss(Status::Offline);
        } else if member.may_receive {
            found.recipients.push((key, member.reception));
        } else {
            found.miss(Status::Denied);
        }
    }

    #[inline(always)]
    fn send_by(
        &mut self,
        route: &SendRoute,
        sender: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        if route.peers.iter().any(|(peer, _)| !self.backbone.has_room(*peer)) {
            return Err(Refusal::new(Reason::Overflow, "the queue to a part of the gateway is full"));
        }
        self.counters.signals += 1;
        let view = signal.view(&route.sender, now);
        if !route.peers.is_empty() {
            let waits = request.map(|request| (sender, request));
            let shards = route.peers.len() + usize::from(route.own.is_some());
            let send = self.begin_send(waits, &route.sender, signal, shards);
            for (peer, addressed) in &route.peers {
                self.backbone.forward_signal(*peer, &view, addressed, send);
            }
            if let Some(own) = &route.own {
                self.deliver_part(own, sender, view, now);
                self.handle_taken(send, None, now);
            }
            return Ok(());
        }
        if let Some(own) = &route.own {
            self.deliver_part(own, sender, view, now);
        }
        if let Some(request) = request {
            self.reply(sender, Reply::Done(request), now);
        }
        Ok(())
    }
}

struct Found {
    recipients: Vec<(ConnectionKey, Reception)>,
    missed: Vec<(Status, u64)>,
    /// Members among the missed whose session is without a connection.
    away: u64,
}

impl Found {
    fn unmiss(&mut self, status: Status, count: u64) {
        if let Some((_, missed)) = self.missed.iter_mut().find(|(missed, _)| *missed == status) {
            *missed -= count;
        }
    }

    fn miss(&mut self, status: Status) {
        match self.missed.iter_mut().find(|(missed, _)| *missed == status) {
            Some((_, count)) => *count += 1,
            None => self.missed.push((status, 1)),
        }
    }
}
