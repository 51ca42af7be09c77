//! Letting clients in, taking over, and what is left when they go (S1).

use std::sync::Arc;

use super::authenticate::Exchange;
use super::credentials::Check;
use super::park::Park;
use super::timers::Timer;
use super::{ConnectionKey, Shard, Who};
use crate::backbone::{Backbone, owner};
use crate::model::{
    Challenge, ConnectRequest, Connected, Credential, Identity, Instant, Limits, Message, Principal, Reason,
    Refusal, Reply, Will,
};
use crate::rules::{Action, Object};

/// Rates and parked sends kept of identities that aren't connected.
const KEPT_PARKS: usize = 4096;

/// What is kept of an identity that isn't connected.
pub(super) struct Departed {
    pub(super) park: Park,
    /// As whom it sent what is still parked.
    pub(super) principal: Option<Arc<Principal>>,
    /// Its role's limits, or those of all.
    pub(super) limits: Arc<Limits>,
}

/// A client that may be let in: it is who it says.
pub(super) struct Admission {
    pub(super) request: ConnectRequest,
    /// Its identity, which is the hub's choice if the client `brought_none`.
    pub(super) identity: Identity,
    pub(super) brought_none: bool,
    pub(super) principal: Option<Arc<Principal>>,
    /// What ends the exchange by which it proved that.
    pub(super) authentication: Option<Vec<u8>>,
}

impl Shard {
    pub(super) fn connect(&mut self, key: ConnectionKey, request: ConnectRequest, now: Instant) {
        self.note_claim(key, &request);
        if let Credential::Scram { data } = &request.credential {
            let data = data.clone();
            return self.begin_connect(key, request, &data, now);
        }
        let brought_none = request.identity.is_none();
        let identity = request.identity.clone().unwrap_or_else(|| self.new_identity());
        let Some(client) = self.clients.get_mut(key) else { return };
        let expected = match client.exchange.take().map(|exchange| *exchange) {
            Some(Exchange::Challenge(challenge)) => Some(challenge),
            _ => None,
        };
        if let Some(principal) = client.principal.clone().filter(|_| request.credential.is_none()) {
            return self.connect_by_certificate(key, request, identity, principal, now);
        }
        let principal = match self.credentials.check(&identity, &request.credential, expected.as_ref()) {
            Check::Good(principal) => principal,
            Check::ChallengeFirst => {
                let mut nonce = [0; bugle_protocol::auth::NONCE];
                (self.random)(&mut nonce);
                client.exchange = Some(Box::new(Exchange::Challenge(Challenge(nonce))));
                return self.reply(key, Reply::Challenge(Challenge(nonce)), now);
            }
            Check::Ask => {
                let (principal, authentication) = (None, None);
                let admission = Admission { request, identity, brought_none, principal, authentication };
                return self.ask(key, admission, now);
            }
            Check::Refused(refusal) => return self.refuse_connect(key, refusal, now),
        };
        let admission = Admission { request, identity, brought_none, principal, authentication: None };
        self.admit(key, admission, now);
    }

    /// A client that has nothing to show but its certificate is the client of that name, and no other.
    fn connect_by_certificate(
        &mut self,
        key: ConnectionKey,
        request: ConnectRequest,
        identity: Identity,
        principal: Arc<Principal>,
        now: Instant,
    ) {
        let brought_none = request.identity.is_none();
        if !brought_none && principal.certificate.as_deref() != Some(identity.as_str()) {
            let text = "the client id is not the name in the certificate";
            return self.refuse_connect(key, Refusal::new(Reason::NotAuthorized, text), now);
        }
        let (principal, authentication) = (Some(principal), None);
        self.admit(key, Admission { request, identity, brought_none, principal, authentication }, now);
    }

    /// Lets a client in that is who it says, if rules and limits have it so.
    pub(super) fn admit(&mut self, key: ConnectionKey, admission: Admission, now: Instant) {
        let Admission { request, identity, brought_none, principal, authentication } = admission;
        // Whoever else it has proved to be, it has shown its certificate.
        let shown = self.clients.get(key).and_then(|client| client.principal.as_ref()?.certificate.clone());
        let principal = match (principal, shown) {
            (Some(principal), Some(name)) if principal.certificate.is_none() => {
                Some(Arc::new(Principal { certificate: Some(name), ..Principal::clone(&principal) }))
            }
            (principal, _) => principal,
        };
        if self.shutting_down {
            let refusal = Refusal::new(Reason::ShuttingDown, "the gateway is stopping");
            return self.refuse_connect(key, refusal, now);
        }
        // One that takes over needs no place of its own.
        if self.by_identity.len() >= self.limits.clients_per_shard
            && !self.by_identity.contains_key(&identity)
        {
            let refusal = Refusal::new(Reason::TooMany, "the gateway has all the clients that it may have");
            return self.refuse_connect(key, refusal, now);
        }
        let who = Who { identity, principal, limits: self.limits.clone() };
        if !self.may(who.actor(), Action::Connect, Object::Gateway) {
            let refusal = Refusal::new(Reason::NotAuthorized, "the rules don't let this client connect");
            return self.refuse_connect(key, refusal, now);
        }
        if let Err(refusal) = self.judge_ban(who.identity.as_str(), None, now) {
            return self.refuse_connect(key, refusal, now);
        }
        if self.is_anothers(&who) {
            let text = "this client id is connected, or has a session, as another user's";
            return self.refuse_connect(key, Refusal::new(Reason::NotAuthorized, text), now);
        }
        let limits = self.limits_of(who.actor());
        let user_place =
            match self.user_place(&who.identity, who.principal.as_deref(), limits.connections_per_user) {
                Ok(place) => place,
                Err(refusal) => return self.refuse_connect(key, refusal, now),
            };
        let Who { identity, principal, .. } = who;
        if let Err(reason) = self.backbone.claim_session(identity.as_str()) {
            let refusal = Refusal::new(reason, "this client's session is owned elsewhere");
            return self.refuse_connect(key, refusal, now);
        }
        let kept = self.take_over(&identity, request.clean_start, now);
        let kept = kept.filter(|&kept| self.goes_on(kept, key, now));

        // Not to come again, after a restart either.
        let mut session = [0; 8];
        (self.random)(&mut session);
        let session = u64::from_be_bytes(session);
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(departed) = self.departed.swap_remove(&identity) {
            client.park = departed.park;
        }
        client.client_id = identity.client_id();
        client.principal = principal;
        client.user_place = user_place;
        client.limits = limits;
        client.identity = Some(identity.clone());
        client.will = request.will;
        client.will_delay = request.will_delay;
        client.session_expiry = request.session_expiry.min(self.limits.session_expiry_max);
        client.inbox = request.inbox;
        self.by_identity.insert(identity.clone(), key);
        self.counters.connects += 1;
        self.counters.clients += 1;
        let is_kept = kept.is_some();
        let session_present = kept.is_some_and(|kept| self.resume_session(kept, key, now));
        self.store_session(key, None);
        // A session that goes on has its memberships, and what it left.
        if let Some(reception) = request.inbox.filter(|_| !session_present) {
            self.join_provisioned(key, reception);
        }
        // A device that goes on with the session of another protocol can't resume its own part of it.
        let client = self.clients.get(key).filter(|client| !client.foreign);
        let session_expiry = client.map_or(0, |client| client.session_expiry);
        let lasts = client.is_some_and(|client| client.stored);
        let connected = Connected {
            identity,
            assigned: brought_none,
            session,
            session_present,
            session_expiry,
            lasts,
            authentication,
        };
        self.note_connected(key, session_present);
        self.reply(key, Reply::Connected(connected), now);
        // Whoever comes back may have fewer roles than when it subscribed.
        if is_kept {
            self.judge_subscriptions(key, &self.rules.clone(), now);
            self.judge_receiving_of(key);
        }
        if self.store.is_durable() {
            self.load_queue(key);
            self.tell_unheard(key, now);
        }
    }

    /// Whether a client id has a connection or a session of another user: neither is taken over from him (S1).
    fn is_anothers(&self, who: &Who) -> bool {
        let kept = self.by_identity.get(&who.identity).and_then(|&key| self.clients.get(key));
        // Of nobody's session that isn't known any more the client id decides alone.
        let owner = kept.and_then(|kept| kept.principal.as_ref()?.user.as_ref());
        owner.is_some_and(|owner| who.actor().principal.user.as_ref() != Some(owner))
    }

    pub(super) fn refuse_connect(&mut self, key: ConnectionKey, refusal: Refusal, now: Instant) {
        self.counters.count_refusal(refusal.reason);
        self.note_refused(key, &refusal);
        // As many as may connect at once: whoever drives the shard asks for them after each call.
        if refusal.reason == Reason::NotAuthenticated && self.failed.len() < self.limits.clients_per_shard {
            self.failed.push_back(key);
        }
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

    /// Whether the connection `key` goes on with a session that was kept; one that it can't resume ends.
    fn goes_on(&mut self, kept: ConnectionKey, key: ConnectionKey, now: Instant) -> bool {
        let fits = match (self.clients.get(kept), self.clients.get(key)) {
            (Some(kept), Some(new)) => kept.foreign || new.session.fits(&kept.session),
            _ => false,
        };
        if !fits {
            self.end_away(kept, now);
        }
        fits
    }

    /// Keeps a used bucket, so that reconnecting doesn't refill it, and parked sends, which are still sent.
    pub(super) fn keep_park(&mut self, who: Who, mut park: Park, now: Instant) {
        if park.is_idle(&who.limits, now) {
            return;
        }
        if self.departed.len() >= KEPT_PARKS {
            self.departed.retain(|_, Departed { park, limits, .. }| !park.is_idle(limits, now));
        }
        if self.departed.len() >= KEPT_PARKS {
            // All were used within the last second. Whoever makes ids up gains a bucket by it, or loses what it
            // left parked, which is counted.
            if let Some((_, lost)) = self.departed.swap_remove_index(0) {
                self.counters.parked_lost += lost.park.waiting() as u64;
            }
        }
        park.forget_requests();
        if let Some(release) = park.release() {
            self.timers.push(release, Timer::Departed);
        }
        let Who { identity, principal, limits } = who;
        self.departed.insert(identity, Departed { park, principal, limits });
    }

    /// A will on a signalling topic is a send, checked when it fires (T1).
    pub(super) fn fire_will(&mut self, who: &Who, will: Will, now: Instant) {
        let sent = match will {
            Will::Send(signal) => self.send_will(who, *signal, now),
            Will::Publish { message, expiry: None } => self.publish(who, &message, now),
            Will::Publish { message, expiry: Some(seconds) } => {
                let deadline = Some(now + u64::from(seconds) * 1000);
                let message = Message { deadline, ..Message::clone(&message) };
                self.publish(who, &message, now)
            }
        };
        match sent {
            Ok(()) => self.counters.wills += 1,
            Err(_) => self.counters.wills_refused += 1,
        }
    }
}
