//! What an audit is to know: who was let in, refused, gone, moderated. Only kept where somebody asks for it.
//!
//! Events wait in a queue of [`MAX_EVENTS`] until the process takes them; what finds it full is counted, and the count is an event of its
//! own. Nothing that a client sends has to wait for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::{ConnectionKey, Shard};
use crate::model::{
    ConnectRequest, Credential, Identity, Map, ModerationRequest, Principal, Reason, Refusal,
};

/// Events that wait for the process.
const MAX_EVENTS: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum AuditEvent {
    /// A client was let in.
    Connected {
        /// Its connection.
        connection: ConnectionKey,
        /// Its id.
        client: Identity,
        /// What it has proved to be.
        principal: Option<Arc<Principal>>,
        /// What it speaks.
        protocol: &'static str,
        /// It goes on with a session that was kept.
        session_present: bool,
    },
    /// A client wasn't let in.
    Refused {
        /// Its connection.
        connection: ConnectionKey,
        /// The id that it said it had.
        client: Option<Identity>,
        /// The user that it said it was.
        user: Option<Arc<str>>,
        /// Why.
        reason: Reason,
        /// The same in words.
        text: Cow<'static, str>,
    },
    /// The connection of a client that was let in is over.
    Disconnected {
        /// The connection.
        connection: ConnectionKey,
        /// The client.
        client: Identity,
        /// Why.
        how: Parting,
    },
    /// A kick, mute or ban, or the end of one, was asked for.
    Moderated {
        /// What.
        request: Box<ModerationRequest>,
        /// By whom: a client's id, or an operator's name.
        by: Identity,
        /// Why it wasn't done; none: it is in force.
        refused: Option<Reason>,
    },
    /// So many events were not kept, because too many others waited.
    Missed(u64),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The client said goodbye.
    Goodbye,
    /// The gateway closed it, for this reason; or the client broke the protocol, or was silent for too long.
    Closed(Reason),
    /// The network, or the client without a word.
    Lost,
}

impl Parting {
    /// The word for it: `GOODBYE`, `LOST`, or the name of the reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::Goodbye => "GOODBYE",
            Self::Closed(reason) => reason.name(),
            Self::Lost => "LOST",
        }
    }
}

/// What is known of a connection.
#[derive(Debug)]
struct Known {
    client: Option<Identity>,
    user: Option<Arc<str>>,
    is_in: bool,
    how: Parting,
}

/// Events, and what the next ones will say.
#[derive(Debug, Default)]
pub(super) struct Audit {
    events: VecDeque<AuditEvent>,
    missed: u64,
    connections: Map<ConnectionKey, Known>,
}

impl Audit {
    fn push(&mut self, event: AuditEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.missed += 1;
        } else {
            self.events.push_back(event);
        }
    }

    /// A connection that isn't let in, ends, or has been told so.
    fn refuse(&mut self, connection: ConnectionKey, reason: Reason, text: Cow<'static, str>) {
        let known = self.connections.swap_remove(&connection);
        let (client, user) = known.map_or((None, None), |known| (known.client, known.user));
        self.push(AuditEvent::Refused { connection, client, user, reason, text });
    }

    fn end(&mut self, connection: ConnectionKey, how: Parting) -> bool {
        let known = self.connections.get_mut(&connection).filter(|known| known.is_in);
        // What came first is the reason for what comes behind.
        known.is_some_and(|known| {
            if known.how == Parting::Lost {
                known.how = how;
            }
            true
        })
    }
}

impl Shard {
    /// Keeps events from now on, for [`poll_audit`](Self::poll_audit).
    pub fn keep_audit(&mut self) {
        self.audit = Some(Box::default());
    }

    /// Which shard this is, of several that have the same keys.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Whether events are kept.
    pub fn keeps_audit(&self) -> bool {
        self.audit.is_some()
    }

    /// The next event. To be called after anything that went in, until it gives none.
    pub fn poll_audit(&mut self) -> Option<AuditEvent> {
        let audit = self.audit.as_mut()?;
        let missed = std::mem::take(&mut audit.missed);
        if missed > 0 && audit.events.is_empty() {
            return Some(AuditEvent::Missed(missed));
        }
        audit.missed = missed;
        audit.events.pop_front()
    }

    /// A client says who it is.
    pub(super) fn note_claim(&mut self, key: ConnectionKey, request: &ConnectRequest) {
        let Some(audit) = &mut self.audit else { return };
        let user = match &request.credential {
            Credential::Password { user, .. } => Some(user.as_str().into()),
            _ => None,
        };
        let known = Known { client: request.identity.clone(), user, is_in: false, how: Parting::Lost };
        audit.connections.insert(key, known);
    }

    /// It is let in.
    pub(super) fn note_connected(&mut self, key: ConnectionKey, session_present: bool) {
        let (Some(audit), Some(client)) = (&mut self.audit, self.clients.get(key)) else { return };
        let Some(identity) = client.identity.clone() else { return };
        let known = Known { client: Some(identity.clone()), user: None, is_in: true, how: Parting::Lost };
        audit.connections.insert(key, known);
        audit.push(AuditEvent::Connected {
            connection: key,
            client: identity,
            principal: client.principal.clone(),
            protocol: client.session.protocol_name(),
            session_present,
        });
    }

    /// It is not.
    pub(super) fn note_refused(&mut self, key: ConnectionKey, refusal: &Refusal) {
        if let Some(audit) = &mut self.audit {
            audit.refuse(key, refusal.reason, refusal.text.clone());
        }
    }

    /// The gateway ends a connection.
    pub(super) fn note_close(&mut self, key: ConnectionKey, why: &Refusal) {
        let Some(audit) = &mut self.audit else { return };
        if !audit.end(key, Parting::Closed(why.reason)) && why.reason != Reason::ShuttingDown {
            audit.refuse(key, why.reason, why.text.clone());
        }
    }

    /// The client has broken the protocol, or was silent for too long.
    pub(super) fn note_fault(&mut self, key: ConnectionKey, reason: Reason) {
        let Some(audit) = &mut self.audit else { return };
        if !audit.end(key, Parting::Closed(reason)) {
            audit.refuse(key, reason, Cow::Borrowed(""));
        }
    }

    /// The client says goodbye.
    pub(super) fn note_goodbye(&mut self, key: ConnectionKey) {
        if let Some(audit) = &mut self.audit {
            audit.end(key, Parting::Goodbye);
        }
    }

    /// The connection is gone.
    pub(super) fn note_closed(&mut self, key: ConnectionKey) {
        let Some(audit) = &mut self.audit else { return };
        let Some(Known { client: Some(client), is_in: true, how, .. }) = audit.connections.swap_remove(&key)
        else {
            return;
        };
        audit.push(AuditEvent::Disconnected { connection: key, client, how });
    }

    /// Somebody has moderated, or may not.
    pub(super) fn note_moderation(
        &mut self,
        request: &ModerationRequest,
        by: &Identity,
        result: &Result<(), Refusal>,
    ) {
        let Some(audit) = &mut self.audit else { return };
        let refused = result.as_ref().err().map(|refusal| refusal.reason);
        audit.push(AuditEvent::Moderated { request: Box::new(request.clone()), by: by.clone(), refused });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_the_queue_full_is_counted_and_told_when_there_is_room() {
        let mut audit = Audit::default();
        for _ in 0..MAX_EVENTS + 3 {
            audit.refuse(ConnectionKey::default(), Reason::Banned, Cow::Borrowed(""));
        }
        assert_eq!((audit.events.len(), audit.missed), (MAX_EVENTS, 3));
    }
}
