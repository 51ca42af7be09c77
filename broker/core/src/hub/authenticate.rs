//! Exchanges by which clients prove who they are in several steps: SCRAM over MQTT 5's AUTH, when they connect and
//! again while they are connected [section 4.12].

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::connect::Admission;
use super::scram::{ScramExchange, ScramFault};
use super::{ConnectionKey, Shard};
use crate::model::{Challenge, ConnectRequest, Instant, Reason, Refusal, Reply};

/// Why SCRAM without a client id is refused.
const NO_IDENTITY: &str = "a client that proves itself by SCRAM has to bring its client id";

/// What a connection has been asked and not yet answered.
pub(super) enum Exchange {
    /// A device's proof over this nonce.
    Challenge(Challenge),
    /// The process is to judge its credential.
    Asked(Box<Admission>),
    Scram {
        exchange: Box<ScramExchange>,
        /// What it asks for if that goes well; none for a client that is in.
        request: Option<Box<ConnectRequest>>,
    },
}

impl Shard {
    /// The first message of a client that connects.
    pub(super) fn begin_connect(
        &mut self,
        key: ConnectionKey,
        request: ConnectRequest,
        data: &[u8],
        now: Instant,
    ) {
        if self.credentials.is_open() {
            let text = "without [[credential]] entries nobody's secret is known here";
            return self.refuse_connect(key, Refusal::new(Reason::Unsupported, text), now);
        }
        if request.identity.is_none() {
            return self.refuse_connect(key, Refusal::new(Reason::BadName, NO_IDENTITY), now);
        }
        match self.begin_scram(key, Some(request), data) {
            Ok(answer) => self.reply(key, Reply::Authenticate(answer), now),
            Err(refusal) => self.refuse_connect(key, refusal, now),
        }
    }

    /// A message of an exchange: the first one of a client that is in and proves itself `again`, or the last.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, data: &[u8], again: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if again {
            if client.identity.is_none() {
                return;
            }
            return match self.begin_scram(key, None, data) {
                Ok(answer) => self.reply(key, Reply::Authenticate(answer), now),
                Err(refusal) => self.close(key, refusal, now),
            };
        }
        let Some(Exchange::Scram { exchange, request }) = client.exchange.take().map(|exchange| *exchange)
        else {
            let text = "an authentication that nobody began";
            return self.close(key, Refusal::new(Reason::ProtocolError, text), now);
        };
        let finished = exchange.finish(data, self.credentials.scram_keys(&exchange.user)).map_err(refusal);
        let identity = match &request {
            Some(request) => request.identity.clone(),
            None => client.identity.clone(),
        };
        let proved = finished.and_then(|answer| {
            let identity = identity.ok_or_else(|| Refusal::new(Reason::BadName, NO_IDENTITY))?;
            let principal = self.credentials.principal_of(&exchange.user, &identity)?;
            Ok((answer, identity, principal))
        });
        match (proved, request) {
            (Ok((answer, identity, principal)), Some(request)) => {
                let (request, principal, authentication) = (*request, Some(principal), Some(answer));
                let brought_none = false;
                let admission = Admission { request, identity, brought_none, principal, authentication };
                self.admit(key, admission, now);
            }
            (Ok((answer, _, principal)), None) => {
                // Who it is can't change while it is connected.
                let Some(client) = self.clients.get(key) else { return };
                let known = client.principal.as_ref().and_then(|known| known.user.as_ref());
                if known == principal.user.as_ref() {
                    self.reply(key, Reply::Authenticated(answer), now);
                } else {
                    let text = "it proved to be another user than it connected as";
                    self.close(key, Refusal::new(Reason::NotAuthenticated, text), now);
                }
            }
            (Err(refusal), Some(_)) => self.refuse_connect(key, refusal, now),
            (Err(refusal), None) => self.close(key, refusal, now),
        }
    }

    fn begin_scram(
        &mut self,
        key: ConnectionKey,
        request: Option<ConnectRequest>,
        data: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let mut nonce = [0; 18];
        (self.random)(&mut nonce);
        let salt = |user: &str| self.credentials.scram_salt(user);
        let (exchange, answer) = ScramExchange::begin(data, &BASE64.encode(nonce), salt).map_err(refusal)?;
        if let Some(client) = self.clients.get_mut(key) {
            client.exchange = Some(Box::new(Exchange::Scram {
                exchange: Box::new(exchange),
                request: request.map(Box::new),
            }));
        }
        Ok(answer)
    }
}

fn refusal(fault: ScramFault) -> Refusal {
    match fault {
        ScramFault::Malformed(what) => {
            Refusal::new(Reason::NotAuthenticated, format!("not a message of SCRAM-SHA-256: {what}"))
        }
        ScramFault::WrongProof => {
            Refusal::new(Reason::NotAuthenticated, "the client id and its secret don't fit")
        }
    }
}
