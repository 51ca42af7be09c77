//! Credentials that the hub can't judge by itself, since that takes long or another program: it asks the process for a
//! verdict, and the client waits for it, up to a deadline.
//!
//! ```text
//! connect ── ask ──► poll_authentication ──► (the process) ──► handle_authenticated ──► admit, or refuse
//!               └──── no verdict in time ──────────────────────────────────────────► refuse
//! ```

use std::sync::Arc;

use super::authenticate::Exchange;
use super::connect::Admission;
use super::timers::Timer;
use super::{ConnectionKey, Credentials, Shard};
use crate::model::{Credential, Identity, Instant, Principal, Reason, Refusal, Secret};

/// What the process is asked to judge. Every one of them is answered by [`Shard::handle_authenticated`], or too late.
pub struct AuthenticationRequest {
    /// The connection, to be given back with the verdict.
    pub key: ConnectionKey,
    /// The client id that it wants to be.
    pub identity: Identity,
    /// The id is the gateway's choice, and so nobody else's.
    pub is_assigned: bool,
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// What the process says of a credential.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// It is good, and the client id may be used with it.
    Good(Arc<Principal>),
    /// The same for so many milliseconds, after which the connection ends.
    GoodFor(Arc<Principal>, u64),
    /// It is not.
    Wrong,
    /// It is good, and for other client ids.
    NotThisClient,
    /// It could not be judged now.
    Unavailable,
}

impl Shard {
    /// Lets a client wait until the process has judged its credential.
    pub(super) fn ask(&mut self, key: ConnectionKey, mut admission: Admission, now: Instant) {
        let Credential::Password { user, password } =
            std::mem::replace(&mut admission.request.credential, Credential::None)
        else {
            return;
        };
        self.asked.push_back(AuthenticationRequest {
            key,
            identity: admission.identity.clone(),
            is_assigned: admission.brought_none,
            user,
            password,
        });
        if let Some(client) = self.clients.get_mut(key) {
            client.exchange = Some(Box::new(Exchange::Asked(Box::new(admission))));
        }
        self.timers.push(now + self.limits.connect_timeout, Timer::Asked(key));
    }

    /// Other secrets than before; they hold for connections to come.
    pub fn set_credentials(&mut self, credentials: Arc<Credentials>) {
        self.credentials = credentials;
    }

    /// A connection whose credential was wrong, so that the process can slow down whoever tries many. To be called after
    /// anything that went in, until it gives none.
    pub fn poll_failed(&mut self) -> Option<ConnectionKey> {
        self.failed.pop_front()
    }

    /// A credential that is to be judged. To be called after anything that went in, until it gives none.
    pub fn poll_authentication(&mut self) -> Option<AuthenticationRequest> {
        while let Some(request) = self.asked.pop_front() {
            // Who has gone meanwhile needs no verdict.
            if self.clients.contains_key(request.key) {
                return Some(request);
            }
        }
        None
    }

    /// What the process says of a credential that [`poll_authentication`](Self::poll_authentication) gave. Without effect if
    /// its client has gone, or was refused because it took too long.
    pub fn handle_authenticated(&mut self, key: ConnectionKey, judgement: Judgement, now: Instant) {
        let Some(admission) = self.take_asked(key) else { return };
        let lasts = match &judgement {
            Judgement::GoodFor(_, millis) => Some(*millis),
            _ => None,
        };
        match judgement {
            // Whose client ids are bound to secrets can be another user's no more than the other way round.
            Judgement::Good(_) | Judgement::GoodFor(..)
                if !admission.brought_none && self.credentials.is_bound(&admission.identity) =>
            {
                let text = "this client id belongs to a credential of its own";
                self.refuse_connect(key, Refusal::new(Reason::NotAuthorized, text), now);
            }
            Judgement::Good(principal) | Judgement::GoodFor(principal, _) => {
                self.admit(key, Admission { principal: Some(principal), ..admission }, now);
                if let Some(millis) = lasts {
                    self.timers.push(now + millis, Timer::Expires(key));
                }
            }
            Judgement::Wrong => {
                let text = "the user name and the password don't fit";
                self.refuse_connect(key, Refusal::new(Reason::NotAuthenticated, text), now);
            }
            Judgement::NotThisClient => {
                let text = "this client id is not this user's";
                self.refuse_connect(key, Refusal::new(Reason::NotAuthorized, text), now);
            }
            Judgement::Unavailable => {
                let text = "too many passwords are being looked at; try again in a moment";
                self.refuse_connect(key, Refusal::new(Reason::Busy, text), now);
            }
        }
        self.resume_sessions(now);
    }

    /// What a client came in by holds no longer.
    pub(super) fn expire_client(&mut self, key: ConnectionKey, now: Instant) {
        let is_connected =
            self.clients.get(key).is_some_and(|client| client.identity.is_some() && client.away.is_none());
        if is_connected {
            self.end_client(key, true, now);
            let text = "the token by which it came in has expired; connect again with a new one";
            self.close(key, Refusal::new(Reason::NotAuthenticated, text), now);
        }
    }

    /// No verdict came in time.
    pub(super) fn give_up_asking(&mut self, key: ConnectionKey, now: Instant) {
        if self.take_asked(key).is_some() {
            let text = "the password was not looked at in time; try again in a moment";
            self.refuse_connect(key, Refusal::new(Reason::Busy, text), now);
        }
    }

    fn take_asked(&mut self, key: ConnectionKey) -> Option<Admission> {
        let client = self.clients.get_mut(key)?;
        match client.exchange.take().map(|exchange| *exchange) {
            Some(Exchange::Asked(admission)) => Some(*admission),
            other => {
                client.exchange = other.map(Box::new);
                None
            }
        }
    }
}

impl std::fmt::Debug for AuthenticationRequest {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthenticationRequest({:?}, {:?})", self.identity, self.user)
    }
}
