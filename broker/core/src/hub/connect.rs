//! Letting clients in, taking over, and what is left when they go (S1).

use super::authenticate::Exchange;
use super::credentials::Check;
use super::park::Park;
use super::timers::Timer;
use super::{ConnectionKey, Shard};
use crate::backbone::{Backbone, owner};
use crate::model::{
    Challenge, ConnectRequest, Connected, Credential, Identity, Instant, Message, Reason, Refusal, Reply,
    Will,
};
use crate::rules::{Action, Object};

/// Rates and parked sends kept of identities that aren't connected.
const KEPT_PARKS: usize = 4096;

impl Shard {
    pub(super) fn connect(&mut self, key: ConnectionKey, request: ConnectRequest, now: Instant) {
        if let Credential::Scram { data } = &request.credential {
            let data = data.clone();
            return self.begin_connect(key, request, &data, now);
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        let expected = match client.exchange.take().map(|exchange| *exchange) {
            Some(Exchange::Challenge(challenge)) => Some(challenge),
            _ => None,
        };
        match self.credentials.check(request.identity.as_ref(), &request.credential, expected.as_ref()) {
            Check::Good => {}
            Check::ChallengeFirst => {
                let mut nonce = [0; bugle_protocol::auth::NONCE];
                (self.random)(&mut nonce);
                client.exchange = Some(Box::new(Exchange::Challenge(Challenge(nonce))));
                return self.reply(key, Reply::Challenge(Challenge(nonce)), now);
            }
            Check::Refused(refusal) => return self.refuse_connect(key, refusal, now),
        }
        self.admit(key, request, None, now);
    }

    /// Lets a client in that is who it says. `authentication` ends the exchange by which it proved that.
    pub(super) fn admit(
        &mut self,
        key: ConnectionKey,
        request: ConnectRequest,
        authentication: Option<Vec<u8>>,
        now: Instant,
    ) {
        if self.shutting_down {
            let refusal = Refusal::new(Reason::ShuttingDown, "the gateway is stopping");
            return self.refuse_connect(key, refusal, now);
        }
        let assigned = request.identity.is_none();
        let identity = request.identity.unwrap_or_else(|| self.new_identity());
        // One that takes over needs no place of its own.
        if self.by_identity.len() >= self.limits.clients_per_shard
            && !self.by_identity.contains_key(&identity)
        {
            let refusal = Refusal::new(Reason::TooMany, "the gateway has all the clients that it may have");
            return self.refuse_connect(key, refusal, now);
        }
        if !self.may(&identity, Action::Connect, Object::Gateway) {
            let refusal = Refusal::new(Reason::NotAuthorized, "the rules don't let this client connect");
            return self.refuse_connect(key, refusal, now);
        }
        if let Err(reason) = self.backbone.claim_session(identity.as_str()) {
            let refusal = Refusal::new(reason, "this client's session is owned elsewhere");
            return self.refuse_connect(key, refusal, now);
        }
        let kept = self.take_over(&identity, request.clean_start, now);

        self.sessions += 1;
        let session = self.sessions << 16 | u64::from(self.index);
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(park) = self.departed.swap_remove(&identity) {
            client.park = park;
        }
        client.client_id = identity.client_id();
        client.identity = Some(identity.clone());
        client.will = request.will;
        client.will_delay = request.will_delay;
        client.session_expiry = request.session_expiry.min(self.limits.session_expiry_max);
        client.inbox = request.inbox;
        self.by_identity.insert(identity.clone(), key);
        self.counters.connects += 1;
        self.counters.clients += 1;
        let session_present = kept.is_some_and(|kept| self.resume_session(kept, key, now));
        if let Some(reception) = request.inbox {
            self.join_provisioned(key, reception);
        }
        let session_expiry = self.clients.get(key).map_or(0, |client| client.session_expiry);
        let connected =
            Connected { identity, assigned, session, session_present, session_expiry, authentication };
        self.reply(key, Reply::Connected(connected), now);
    }

    pub(super) fn refuse_connect(&mut self, key: ConnectionKey, refusal: Refusal, now: Instant) {
        self.counters.count_refusal(refusal.reason);
        self.reply(key, Reply::ConnectRefused(refusal), now);
    }

    /// An id for a client that brought none: random, owned by this shard, and not yet in use.
    fn new_identity(&mut self) -> Identity {
        loop {
            let mut bytes = [0; 8];
            (self.random)(&mut bytes);
            let id = format!("auto-{:016x}", u64::from_be_bytes(bytes));
            if owner(&id, self.backbone.shards()) == self.index && !self.by_identity.contains_key(id.as_str())
            {
                return Identity::new(&id);
            }
        }
    }

    /// Ends the connection that `identity` has, if any, and tells it why; gives the session that is then kept for
    /// it, unless the newer connection begins anew.
    fn take_over(&mut self, identity: &Identity, clean_start: bool, now: Instant) -> Option<ConnectionKey> {
        if let Some(&older) = self.by_identity.get(identity)
            && self.clients.get(older).is_some_and(|client| client.away.is_none())
        {
            self.counters.takeovers += 1;
            self.end_client(older, true, now);
            let why = Refusal::new(Reason::TakenOver, "a newer connection has the same client id");
            self.close(older, why, now);
        }
        let kept = self.by_identity.get(identity).copied()?;
        if clean_start {
            self.end_away(kept, now);
            return None;
        }
        Some(kept)
    }

    /// Keeps a used bucket, so that reconnecting doesn't refill it, and parked sends, which are still sent.
    pub(super) fn keep_park(&mut self, identity: Identity, mut park: Park, now: Instant) {
        if park.is_idle(&self.limits, now) {
            return;
        }
        if self.departed.len() >= KEPT_PARKS {
            let limits = self.limits.clone();
            self.departed.retain(|_, park| !park.is_idle(&limits, now));
        }
        if self.departed.len() >= KEPT_PARKS {
            // All were used within the last second. Whoever makes ids up gains a bucket by it, or loses what it
            // left parked, which is counted.
            if let Some((_, lost)) = self.departed.swap_remove_index(0) {
                self.counters.parked_lost += lost.waiting() as u64;
            }
        }
        park.forget_requests();
        if let Some(release) = park.release() {
            self.timers.push(release, Timer::Departed);
        }
        self.departed.insert(identity, park);
    }

    /// A will on a signalling topic is a send, checked when it fires (T1).
    pub(super) fn fire_will(
        &mut self,
        identity: &Identity,
        sender: Option<crate::model::ClientId>,
        will: Will,
        now: Instant,
    ) {
        let sent = match (will, sender) {
            (Will::Send(signal), Some(sender)) => self.send_will(&sender, *signal, now),
            (Will::Send(_), None) => Err(Refusal::new(Reason::NotAuthorized, "no client id of S1")),
            (Will::Publish { message, expiry: None }, _) => self.publish(identity, &message, now),
            (Will::Publish { message, expiry: Some(seconds) }, _) => {
                let deadline = Some(now + u64::from(seconds) * 1000);
                let message = Message { deadline, ..Message::clone(&message) };
                self.publish(identity, &message, now)
            }
        };
        match sent {
            Ok(()) => self.counters.wills += 1,
            Err(_) => self.counters.wills_refused += 1,
        }
    }
}
