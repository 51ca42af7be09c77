//! Exchanges by which clients prove who they are in several steps: SCRAM over MQTT 5's AUTH, when they connect and
//! again while they are connected [section 4.12].

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::scram::{ScramExchange, ScramFault};
use super::{ConnectionKey, Shard};
use crate::model::{Challenge, ConnectRequest, Identity, Instant, Reason, Refusal, Reply};

/// What a connection has been asked and not yet answered.
pub(super) enum Exchange {
    /// A device's proof over this nonce.
    Challenge(Challenge),
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
        let Some(identity) = request.identity.clone() else {
            let text = "the client id is the user name, and has to be given";
            return self.refuse_connect(key, Refusal::new(Reason::BadName, text), now);
        };
        match self.begin_scram(key, &identity, Some(request), data) {
            Ok(answer) => self.reply(key, Reply::Authenticate(answer), now),
            Err(refusal) => self.refuse_connect(key, refusal, now),
        }
    }

    /// A message of an exchange: the first one of a client that is in and proves itself `again`, or the last.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, data: &[u8], again: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if again {
            let Some(identity) = client.identity.clone() else { return };
            return match self.begin_scram(key, &identity, None, data) {
                Ok(answer) => self.reply(key, Reply::Authenticate(answer), now),
                Err(refusal) => self.close(key, refusal, now),
            };
        }
        let Some(Exchange::Scram { exchange, request }) = client.exchange.take().map(|exchange| *exchange)
        else {
            let text = "an authentication that nobody began";
            return self.close(key, Refusal::new(Reason::ProtocolError, text), now);
        };
        let keys = self.credentials.scram_keys(&exchange.user);
        match (exchange.finish(data, keys).map_err(refusal), request) {
            (Ok(answer), Some(request)) => self.admit(key, *request, Some(answer), now),
            (Ok(answer), None) => self.reply(key, Reply::Authenticated(answer), now),
            (Err(refusal), Some(_)) => self.refuse_connect(key, refusal, now),
            (Err(refusal), None) => self.close(key, refusal, now),
        }
    }

    fn begin_scram(
        &mut self,
        key: ConnectionKey,
        identity: &Identity,
        request: Option<ConnectRequest>,
        data: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let mut nonce = [0; 18];
        (self.random)(&mut nonce);
        let salt = |user: &str| self.credentials.scram_salt(user);
        let (exchange, answer) = ScramExchange::begin(data, &BASE64.encode(nonce), salt).map_err(refusal)?;
        if exchange.user != identity.as_str() {
            return Err(Refusal::new(Reason::NotAuthenticated, "the user name is the client id"));
        }
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
