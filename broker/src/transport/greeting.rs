//! The beginning of a connection, without a socket: what it speaks, found by its first bytes, and again within each
//! layer that these put on, until the first packet of MQTT or of the device framing is whole.
//!
//! ```text
//! bytes ──► TLS? ──► HTTP? ──► MQTT or the device framing
//!             │        └─ WebSocket: MQTT alone is within it
//!             └─ each of them again, but TLS
//! ```

use std::sync::Arc;

use bugle_core::model::Limits;
use bugle_core::session::{FirstPacket, Protocol, first_packet};
use bugle_protocol::FIRST_BYTE;
use tungstenite::protocol::frame::coding::CloseCode;

use super::tls::{NO_TLS_HERE, TlsEndpoint, TlsFailure};
use super::upgrade::{Upgrade, refusal, upgrade};
use super::websocket::WebSocket;
use super::{Layers, TransportEnd, TransportSettings};
use crate::metrics::EarlyClose;

/// Longest first packet, in bytes: a will and a password of nearly 64 KiB each fit.
const MAX_FIRST_PACKET: usize = 128 * 1024;
/// Most bytes of a socket until the first packet is whole, layers included.
const MAX_RAW: usize = 2 * MAX_FIRST_PACKET;
/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 22;

/// What a connection may begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// MQTT.
    pub mqtt: bool,
    /// The device framing.
    pub device: bool,
    /// The HTTP request for a WebSocket, with MQTT in it.
    pub websocket: bool,
    /// TLS.
    pub tls: bool,
}

impl Protocols {
    /// All of them.
    pub const ALL: Self = Self { tls: true, ..Self::IN_TLS };
    /// All that can be within TLS.
    pub const IN_TLS: Self = Self { mqtt: true, device: true, websocket: true, tls: false };
    /// What can be within a WebSocket.
    const IN_WEBSOCKET: Self = Self { mqtt: true, device: false, websocket: false, tls: false };
}

/// What a listener is for.
#[derive(Clone, Debug)]
pub struct Admission {
    /// What may come in the clear.
    pub in_clear: Protocols,
    /// What may come within TLS.
    pub in_tls: Protocols,
    /// TLS itself, where there is a certificate.
    pub tls: Option<Arc<TlsEndpoint>>,
}

/// A connection whose first packet isn't whole.
pub struct Greeting {
    admission: Arc<Admission>,
    settings: Arc<TransportSettings>,
    layers: Option<Layers>,
    /// What has come through the layers.
    bytes: Vec<u8>,
    raw: usize,
}

/// A connection's beginning.
pub struct First {
    /// All that has come for the session so far, the first packet first.
    pub bytes: Vec<u8>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The client id, if that names the shard.
    pub client_id: Option<String>,
    /// What its bytes go through. None: TCP alone.
    pub layers: Option<Layers>,
}

impl Greeting {
    /// Of a new connection.
    pub fn new(admission: Arc<Admission>, settings: Arc<TransportSettings>) -> Self {
        Self { admission, settings, layers: None, bytes: Vec::new(), raw: 0 }
    }

    /// Of one that somebody else has made a WebSocket.
    pub fn within_websocket(admission: Arc<Admission>, settings: Arc<TransportSettings>) -> Self {
        let layers = Layers::new(None, Some(WebSocket::default()), settings.clone());
        Self { layers: Some(layers), ..Self::new(admission, settings) }
    }

    /// Whether a connection that begins with these bytes begins with a TLS handshake, which costs a moment to answer.
    pub fn is_tls(bytes: &[u8]) -> bool {
        bytes.first() == Some(&TLS_HANDSHAKE)
    }

    /// Whether one that begins with these bytes begins with a handshake: of TLS, or HTTP's for a WebSocket.
    pub fn begins_with_handshake(bytes: &[u8]) -> bool {
        Self::is_tls(bytes) || bytes.first().is_some_and(u8::is_ascii_uppercase)
    }

    /// How many bytes it has had, layers included; it holds no more.
    pub fn taken(&self) -> usize {
        self.raw
    }

    /// Takes what the socket had, and appends what it is to get to `reply`. Gives the beginning once it is whole. After
    /// an error, which is counted where it has a counter of its own, the connection is to be closed.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        reply: &mut Vec<u8>,
    ) -> Result<Option<First>, EarlyClose> {
        let result = self.take(bytes, limits, reply);
        if result.is_err() {
            self.close(reply);
        }
        result
    }

    /// Counts what the end of a connection, by the peer or by the time, is to its TLS.
    pub fn give_up(&mut self, why: EarlyClose, reply: &mut Vec<u8>) {
        let failure = match why {
            EarlyClose::Timeout => Some(TlsFailure::Timeout),
            EarlyClose::Ended => Some(TlsFailure::Ended),
            _ => None,
        };
        if let Some(failure) = failure
            && self.layers.as_ref().is_some_and(|layers| layers.is_handshaking())
        {
            self.settings.counters.tls_failed(failure);
        }
        self.close(reply);
    }

    fn close(&mut self, reply: &mut Vec<u8>) {
        if let Some(layers) = &mut self.layers {
            layers.close_with(CloseCode::Policy, reply);
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        reply: &mut Vec<u8>,
    ) -> Result<Option<First>, EarlyClose> {
        self.raw += bytes.len();
        if self.raw > MAX_RAW {
            return Err(EarlyClose::TooLarge);
        }
        let mut received = match &mut self.layers {
            None => {
                self.bytes.extend_from_slice(bytes);
                Ok(())
            }
            Some(layers) => layers.receive(bytes, &mut self.bytes, reply),
        };
        loop {
            let (allowed, may_be_http) = self.allowed();
            let found = match self.bytes.first() {
                None => None,
                Some(&TLS_HANDSHAKE) if self.layers.is_none() => {
                    received = self.begin_tls(allowed, reply)?;
                    continue;
                }
                Some(first) if first.is_ascii_uppercase() && may_be_http => {
                    match self.begin_websocket(allowed, reply)? {
                        None => None,
                        Some(result) => {
                            received = result;
                            continue;
                        }
                    }
                }
                Some(&first) => self.first_packet(first, allowed, limits)?,
            };
            // Who says all that he has to say and closes is heard.
            return match received {
                Err(end) if found.is_none() || end != TransportEnd::Closed => Err(end.into()),
                _ => Ok(found),
            };
        }
    }

    /// What may come next, and whether HTTP is known there at all.
    fn allowed(&self) -> (Protocols, bool) {
        match &self.layers {
            None => (self.admission.in_clear, true),
            Some(Layers { websocket: Some(_), .. }) => (Protocols::IN_WEBSOCKET, false),
            Some(_) => (self.admission.in_tls, true),
        }
    }

    /// Puts TLS on, and gives what came of what has come.
    fn begin_tls(
        &mut self,
        allowed: Protocols,
        reply: &mut Vec<u8>,
    ) -> Result<Result<(), TransportEnd>, EarlyClose> {
        if !allowed.tls {
            return Err(EarlyClose::NotOnThisListener);
        }
        let failed = |why| {
            self.settings.counters.tls_failed(why);
            EarlyClose::Tls
        };
        let Some(endpoint) = &self.admission.tls else {
            reply.extend_from_slice(&NO_TLS_HERE);
            return Err(failed(TlsFailure::NotConfigured));
        };
        let tls = endpoint.accept().map_err(failed)?;
        let layers = self.layers.insert(Layers::new(Some(tls), None, self.settings.clone()));
        let records = std::mem::take(&mut self.bytes);
        Ok(layers.receive(&records, &mut self.bytes, reply))
    }

    /// Puts a WebSocket on, and gives what came of what has come; or None if the request isn't whole.
    fn begin_websocket(
        &mut self,
        allowed: Protocols,
        reply: &mut Vec<u8>,
    ) -> Result<Option<Result<(), TransportEnd>>, EarlyClose> {
        if !allowed.websocket {
            return Err(EarlyClose::NotOnThisListener);
        }
        self.check_alpn(true)?;
        let (length, answer, result) = match upgrade(&self.bytes, &self.settings.origins) {
            Upgrade::Partial => return Ok(None),
            Upgrade::Accepted { length, answer } => (length, answer, Ok(())),
            Upgrade::Refused(why) => {
                self.settings.counters.websocket_refused(why);
                (self.bytes.len(), refusal(why), Err(EarlyClose::NoWebSocket))
            }
        };
        match &mut self.layers {
            Some(layers) => layers.send_control(answer.as_bytes(), reply),
            None => reply.extend_from_slice(answer.as_bytes()),
        }
        result?;
        let rest = self.bytes.split_off(length);
        self.bytes = Vec::new();
        let layers = self.layers.get_or_insert_with(|| Layers::new(None, None, self.settings.clone()));
        layers.websocket = Some(WebSocket::default());
        Ok(Some(layers.receive_within(&rest, &mut self.bytes, reply)))
    }

    fn first_packet(
        &mut self,
        first: u8,
        allowed: Protocols,
        limits: &Limits,
    ) -> Result<Option<First>, EarlyClose> {
        self.check_alpn(false)?;
        let found = first_packet(&self.bytes, limits);
        if found == FirstPacket::Unknown {
            return Err(EarlyClose::UnknownProtocol);
        }
        if !(if first == FIRST_BYTE { allowed.device } else { allowed.mqtt }) {
            let in_websocket = self.layers.as_ref().is_some_and(|layers| layers.websocket.is_some());
            // No listener takes the framing there.
            let of_listener = !in_websocket || first != FIRST_BYTE;
            return Err(if of_listener {
                EarlyClose::NotOnThisListener
            } else {
                EarlyClose::UnknownProtocol
            });
        }
        match found {
            FirstPacket::Client { protocol, client_id } => {
                let (bytes, layers) = (std::mem::take(&mut self.bytes), self.layers.take());
                Ok(Some(First { bytes, protocol, client_id, layers }))
            }
            _ if self.bytes.len() >= MAX_FIRST_PACKET => Err(EarlyClose::TooLarge),
            _ => Ok(None),
        }
    }

    /// A client that has announced one protocol may not come with another: who can make a browser send requests could
    /// else have MQTT read from them.
    fn check_alpn(&self, is_http: bool) -> Result<(), EarlyClose> {
        match &self.layers {
            Some(Layers { tls: Some(tls), websocket: None, .. }) if !tls.expects(is_http) => {
                self.settings.counters.tls_failed(TlsFailure::Alpn);
                Err(EarlyClose::Tls)
            }
            _ => Ok(()),
        }
    }
}

impl From<TransportEnd> for EarlyClose {
    fn from(end: TransportEnd) -> Self {
        match end {
            TransportEnd::Closed | TransportEnd::Panicked => Self::Ended,
            TransportEnd::Tls(_) => Self::Tls,
            TransportEnd::WebSocket(_) => Self::WebSocket,
        }
    }
}
