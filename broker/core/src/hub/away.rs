//! Sessions whose client is away: what is kept of them, for how long, and how they come back or end (S1, S2).
//!
//! A session that outlives its connection gets an entry of its own among the clients, so that the connection can
//! still be told why it ends while a newer one goes on with the session. The entry keeps subscriptions, membership,
//! what waited and what was unacknowledged; it has no socket. What it takes is what its protocol promises:
//!
//! - MQTT's: plain messages of QoS 1 and 2, within the bounds for offline clients. Signals are OFFLINE for it (S10).
//! - a device's, which may be resumed within minutes at most: everything, in its mailbox, as if its link were slow. The
//!   session goes on whole, so that requests which are in the hub's hands are answered in it (S12). They know it by the
//!   key of its first connection, its *origin*.

use super::queues::Place;
use super::timers::Timer;
use super::{Client, ConnectionKey, Shard, Who};
use crate::model::{Delivery, Filter, Instant, NEVER_EXPIRES, OfflineFull, Origin, QoS, Status, Will};
use crate::session::{Protocol, Session};

/// What is due of a session without a connection.
#[derive(Debug)]
pub(super) struct Away {
    /// When it ends; none: never.
    ends: Option<Instant>,
    /// The will, and when it fires: at the end of the session at the latest.
    will: Option<(Instant, Will)>,
    /// What comes waits for the device, which may be back at any moment.
    waits: bool,
}

impl Away {
    /// Of a session that was kept over a restart.
    pub(super) fn restored(ends: Option<Instant>) -> Self {
        Self { ends, will: None, waits: false }
    }

    /// Whether what comes waits in the mailbox, whatever it is.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.into_iter().chain(self.will.as_ref().map(|(at, _)| *at)).min()
    }
}

impl Shard {
    /// The connection of a client that was let in is over; its session goes on without it, or ends too. Does
    /// nothing the second time.
    pub(super) fn end_client(&mut self, key: ConnectionKey, with_will: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.identity.is_none() {
            return;
        }
        self.counters.clients -= 1;
        client.user_place = None;
        // A device's is kept to be resumed, or for the session of another protocol that it goes on with.
        let is_over = client.session.protocol() == Protocol::Device
            && !client.foreign
            && !client.session.is_resumable();
        if client.session_expiry == 0 || is_over {
            self.end_session(key, with_will, now);
        } else {
            self.detach(key, with_will, now);
        }
    }

    /// Moves a session from its connection to an entry of its own.
    fn detach(&mut self, key: ConnectionKey, with_will: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(identity) = client.identity.take() else { return };
        let origin = client.origin.take().unwrap_or(key);
        let whole = client.session.detach(now);
        let waits = whole.is_some();
        let mut kept = if waits { None } else { client.session.take_kept() };
        let foreign = !waits && kept.is_none();
        if waits {
            // It is in the session, to be written again.
            client.written_ahead = [0; 2];
        }
        let open_receipts = std::mem::take(&mut client.open_receipts);
        let waiting = std::mem::take(&mut client.mailbox);
        let replays = client.replays.take();
        let will = client.will.take().filter(|_| with_will);
        let park = std::mem::take(&mut client.park);
        let (principal, limits) = (client.principal.clone(), client.limits.clone());
        let who = Who { identity: identity.clone(), principal, limits };
        let expiry = client.session_expiry;
        let stored = std::mem::take(&mut client.stored);
        let will_delay = client.will_delay;
        let session = whole.unwrap_or_else(|| Session::away(self.session_config.clone(), None, now));
        let mut away = Client::new(session, client.limits.clone());
        away.identity = Some(identity.clone());
        away.client_id = client.client_id.take();
        away.principal = client.principal.take();
        away.inbox = client.inbox.take();
        away.session_expiry = expiry;
        away.replays = replays;
        away.foreign = foreign;
        away.stored = stored;
        if waits {
            (away.origin, away.open_receipts) = (Some(origin), open_receipts);
        }
        let ends = (expiry != NEVER_EXPIRES).then(|| now + u64::from(expiry) * 1000);
        let fires = now + u64::from(will_delay) * 1000;
        away.away = Some(Box::new(Away { ends, will: will.map(|will| (fires, will)), waits }));
        let away_key = self.clients.insert(away);
        if waits {
            self.moved.insert(origin, away_key);
        }
        self.settle(key, now);
        self.move_subscriptions(key, away_key);
        if !waits {
            self.keep_replays(key, away_key, now);
        }
        self.by_identity.insert(identity.clone(), away_key);
        self.counters.sessions_away += 1;
        self.store_session(away_key, ends);
        self.keep_park(who, park, now);
        let shared = kept.as_mut().map(|kept| kept.take_shared(|share| self.has_connected(share)));
        let mut waiting = waiting;
        if let Some(away) = self.clients.get_mut(away_key) {
            if waits {
                away.mailbox = std::mem::take(&mut waiting);
            } else {
                away.session.adopt(kept);
            }
        }
        for delivery in shared.into_iter().flatten().chain(waiting.into_deliveries()) {
            if delivery.share.is_some_and(|share| self.has_connected(share)) {
                self.hand_on(delivery, now);
            } else if !delivery.is_queued() {
                self.mail_away(away_key, delivery, now);
            }
        }
        self.settle(away_key, now);
        // What waited is in the store; what was written is in the session, if that keeps it.
        self.unload_queue(&identity, |place| place == Place::Mailbox);
        self.handle_away(away_key, now);
        self.schedule(away_key);
    }

    /// Goes on with the session `old` on the connection `key`. False: only membership and messages were taken
    /// over, since it was of another protocol (S1).
    pub(super) fn resume_session(&mut self, old: ConnectionKey, key: ConnectionKey, now: Instant) -> bool {
        let same_protocol = match (self.clients.get(old), self.clients.get(key)) {
            (Some(old), Some(new)) => old.session.protocol() == new.session.protocol() && !old.foreign,
            _ => false,
        };
        if !same_protocol {
            // What a filter's deliveries look like belongs to the protocol.
            self.forget_filters(old, now);
        }
        self.move_subscriptions(old, key);
        let Some(mut old) = self.remove_away(old) else { return false };
        let unacknowledged = if same_protocol { Vec::new() } else { old.session.take_unacknowledged() };
        let Some(client) = self.clients.get_mut(key) else { return false };
        client.inbox = client.inbox.or(old.inbox);
        client.stored = old.stored;
        if same_protocol {
            client.session.take_up(old.session);
            client.mailbox = old.mailbox;
            client.replays = old.replays;
            client.open_receipts = old.open_receipts;
            client.origin = old.origin;
            if let Some(origin) = old.origin {
                self.moved.insert(origin, key);
            }
            self.counters.sessions_resumed += 1;
            self.weigh(key);
            return true;
        }
        if let Some(origin) = old.origin {
            // Answers are about numbers that mean nothing to the other protocol.
            self.moved.swap_remove(&origin);
        }
        while let Some((slot, settled)) = old.session.poll_settled() {
            self.settle_slot(slot, settled, now);
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        if client.session.protocol() == Protocol::Device {
            // The framing can't ask for it, and the session is the same one still.
            client.session_expiry = old.session_expiry;
            client.foreign = true;
        }
        let groups: Vec<_> = client.groups.iter().cloned().collect();
        let places = groups.into_iter().filter_map(|group| {
            let reception = self.groups.get(&group)?.get(&key)?.reception;
            Some((group, reception))
        });
        client.session.adopt_places(places.collect(), old.inbox);
        if let Some(identity) = self.clients.get(key).and_then(|client| client.identity.clone()) {
            self.forget_packets(&identity, now);
        }
        for delivery in unacknowledged.into_iter().chain(old.mailbox.into_deliveries()) {
            if delivery.is_queued() && delivery.share.is_none() {
                continue;
            }
            // Its shares ended with its filters.
            if delivery.share.is_some() {
                self.hand_on(delivery, now);
            } else if let Err(refused) = self.mail(key, delivery, now) {
                self.drop_delivery(&refused, Status::Overflow, now);
            }
        }
        false
    }

    /// Ends a session: its client is out of everything, and its will fires unless that is over.
    pub(super) fn end_session(&mut self, key: ConnectionKey, with_will: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(identity) = client.identity.take() else { return };
        let groups = std::mem::take(&mut client.groups).into_iter().map(Filter::Group);
        let topics = std::mem::take(&mut client.filters).into_iter().map(Filter::Topic);
        let filters: Vec<_> = groups.chain(topics).collect();
        let will = match client.away.take() {
            Some(away) => away.will.map(|(_, will)| will),
            None => client.will.take().filter(|_| with_will),
        };
        client.client_id = None;
        client.inbox = None;
        let stored = std::mem::take(&mut client.stored);
        let origin = client.origin.take();
        let who = Who { identity, principal: client.principal.take(), limits: client.limits.clone() };
        let park = std::mem::take(&mut client.park);
        let unread = std::mem::take(&mut client.mailbox);
        let unacknowledged = client.session.take_unacknowledged();
        self.settle(key, now);
        if let Some(origin) = origin {
            self.moved.swap_remove(&origin);
        }
        for filter in filters {
            self.forget(key, &filter, now);
        }
        self.by_identity.swap_remove(&who.identity);
        self.keep_park(who.clone(), park, now);
        for delivery in unacknowledged {
            // What nobody else can get was written, and is with the client or lost with it.
            if delivery.share.is_some() {
                self.hand_on(delivery, now);
            }
        }
        for delivery in unread.into_deliveries() {
            if delivery.share.is_some() {
                self.hand_on(delivery, now);
                continue;
            }
            if delivery.is_queued() {
                continue;
            }
            let status = if delivery.is_expired(now) { Status::Expired } else { Status::Offline };
            self.drop_delivery(&delivery, status, now);
        }
        self.end_queue(&who.identity, stored, now);
        if let Some(will) = will {
            self.fire_will(&who, will, now);
        }
    }

    /// Ends a session without a connection.
    pub(super) fn end_away(&mut self, key: ConnectionKey, now: Instant) {
        self.end_session(key, true, now);
        self.remove_away(key);
        self.counters.sessions_ended += 1;
    }

    /// Does what is due of a session without a connection.
    pub(super) fn handle_away(&mut self, key: ConnectionKey, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(away) = &mut client.away else { return };
        if away.ends.is_some_and(|ends| ends <= now) {
            return self.end_away(key, now);
        }
        let due = away.will.take_if(|(at, _)| *at <= now);
        if let (Some((_, will)), Some(who)) = (due, client.who()) {
            self.fire_will(&who, will, now);
        }
    }

    /// Keeps a message for a client that is away, if it is of a kind that is kept and there is room.
    pub(super) fn mail_away(&mut self, key: ConnectionKey, delivery: Delivery, now: Instant) {
        let message = &delivery.outgoing.message;
        let is_kept = matches!(message.origin, Origin::Topic { .. })
            && message.qos.min(delivery.reception.qos) != QoS::AtMostOnce;
        if !is_kept || delivery.is_expired(now) {
            let status = if delivery.is_expired(now) { Status::Expired } else { Status::Offline };
            return self.drop_delivery(&delivery, status, now);
        }
        let is_pressed = self.is_pressed();
        let Some(client) = self.clients.get_mut(key) else { return };
        let messages = client.limits.offline_messages;
        let bytes = if is_pressed { 0 } else { client.limits.offline_bytes };
        let mut dropped = Vec::new();
        let mut refused = client.mailbox.try_push(delivery, messages, bytes).err();
        if refused.is_some() {
            dropped.extend(client.mailbox.take_expired(now).into_iter().map(|old| (old, Status::Expired)));
        }
        while let Some(delivery) = refused.take() {
            let Err(delivery) = client.mailbox.try_push(delivery, messages, bytes) else { break };
            let oldest = match self.limits.offline_full {
                OfflineFull::DropOldest => client.mailbox.pop(),
                OfflineFull::RefuseNewest => None,
            };
            if oldest.is_some() {
                refused = Some(delivery);
                dropped.extend(oldest.map(|oldest| (oldest, Status::Overflow)));
            } else {
                dropped.push((delivery, Status::Overflow));
            }
        }
        self.counters.mailed += 1;
        self.counters.waiting_full += if is_pressed { dropped.len() as u64 } else { 0 };
        self.weigh(key);
        for (delivery, status) in dropped {
            self.drop_delivery(&delivery, status, now);
        }
    }

    /// The key by which answers find the session that this connection has, wherever it goes on.
    pub(super) fn origin(&self, key: ConnectionKey) -> ConnectionKey {
        self.clients.get(key).and_then(|client| client.origin).unwrap_or(key)
    }

    /// Where the session is now that began on this connection; the connection itself, unless the session was resumed.
    pub(super) fn current(&self, origin: ConnectionKey) -> ConnectionKey {
        self.moved.get(&origin).copied().unwrap_or(origin)
    }

    fn remove_away(&mut self, key: ConnectionKey) -> Option<Client> {
        let client = self.clients.remove(key)?;
        self.counters.waiting_bytes -= client.weight as u64;
        if let Some(at) = client.timer {
            self.timers.remove(at, Timer::Client(key));
        }
        self.counters.sessions_away -= 1;
        Some(client)
    }
}
