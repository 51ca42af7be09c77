//! What stands between a socket and a session: nothing, TLS, a WebSocket, or a WebSocket within TLS.
//!
//! Nothing here has a socket, waits or knows the time. Bytes of the socket go in and bytes for the session come out,
//! and the other way round; what a layer itself has to say (a handshake, a pong, a close) is for the socket. A plain
//! connection has no layers: no memory, no work. The way of a connection: [`greeting`] finds out from its
//! first bytes what it speaks and puts the layers on, [`tls`] and [`websocket`] are the layers, [`upgrade`] judges the
//! HTTP request for a WebSocket.

pub mod client_name;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod greeting;
pub mod tls;
pub mod upgrade;
pub mod websocket;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tungstenite::protocol::frame::coding::CloseCode;

use crate::metrics::ProcessCounters;
use client_name::NamePlace;
use tls::{Tls, TlsEnd, TlsFailure};
use upgrade::Origins;
use websocket::{WebSocket, WebSocketEnd, WebSocketFailure};

/// Longest header of a frame to a client, in bytes.
const MAX_SENT_HEADER: usize = 10;

/// What the layers of all connections share.
#[derive(Debug)]
pub struct TransportSettings {
    /// Pages that may open a WebSocket.
    pub origins: Origins,
    /// Largest WebSocket frame that is taken, in bytes.
    pub max_frame: usize,
    /// Where in a client's certificate its name is, if that lets it in.
    pub client_name: Option<NamePlace>,
    /// Where it is counted.
    pub counters: Arc<ProcessCounters>,
    /// The process stops.
    is_stopping: AtomicBool,
}

impl TransportSettings {
    /// Of a process that runs.
    pub fn new(
        origins: Origins,
        max_frame: usize,
        client_name: Option<NamePlace>,
        counters: Arc<ProcessCounters>,
    ) -> Self {
        Self { origins, max_frame, client_name, counters, is_stopping: AtomicBool::new(false) }
    }

    /// Says that the process stops, which a WebSocket's close will tell.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}

macro_rules! transports {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// What a connection's bytes go through.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TransportKind { $($(#[$doc])* $name,)* }

        impl TransportKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics and logs.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

transports! {
    /// TCP alone.
    Plain = "tcp";
    /// TLS.
    Tls = "tls";
    /// A WebSocket.
    WebSocket = "websocket";
    /// A WebSocket within TLS.
    SecureWebSocket = "wss";
}

/// Why the layers are at their end. What the peer is to be told about it is among the bytes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportEnd {
    /// The peer closed in order.
    Closed,
    /// TLS failed.
    Tls(TlsFailure),
    /// The WebSocket failed.
    WebSocket(WebSocketFailure),
    /// The code here, or a library's, panicked.
    Panicked,
}

/// The layers of a connection that isn't plain.
#[derive(Debug)]
pub struct Layers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
    /// They have said their goodbye, and say no more.
    is_over: bool,
    /// What it is counted as among the open ones, once it is handed over.
    counted: Option<TransportKind>,
    settings: Arc<TransportSettings>,
}

impl Layers {
    fn new(tls: Option<Tls>, websocket: Option<WebSocket>, settings: Arc<TransportSettings>) -> Self {
        Self { tls, websocket, is_over: false, counted: None, settings }
    }

    /// The name in the client's certificate, if it has shown one and the settings say where its name is.
    pub fn client_name(&self) -> Option<String> {
        let certificate = self.tls.as_ref()?.client_certificate()?;
        self.settings.client_name.and_then(|place| place.find(certificate))
    }

    /// Whether nothing more goes through them.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn is_handshaking(&self) -> bool {
        !self.is_over && self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }

    fn kind(&self) -> TransportKind {
        match (&self.tls, &self.websocket) {
            (_, None) => TransportKind::Tls,
            (None, Some(_)) => TransportKind::WebSocket,
            (Some(_), Some(_)) => TransportKind::SecureWebSocket,
        }
    }

    /// Takes what the socket had. Bytes for the session are appended to `data`, those for the socket to `reply`. After
    /// an error nothing more is to be given; [`Layers::close`] isn't needed then.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TransportEnd> {
        let result = self.guarded(|layers| layers.receive_layered(bytes, data, reply));
        self.finish_if_over(result, reply)
    }

    /// As [`Layers::receive`], for bytes that have come through TLS already.
    fn receive_within(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TransportEnd> {
        let result = self.guarded(|layers| layers.receive_frames(bytes, data, reply));
        self.finish_if_over(result, reply)
    }

    fn finish_if_over(
        &mut self,
        result: Result<(), TransportEnd>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TransportEnd> {
        match result {
            Ok(()) => return Ok(()),
            Err(TransportEnd::Closed | TransportEnd::Panicked) => {}
            Err(TransportEnd::WebSocket(why)) => self.settings.counters.websocket_failed(why),
            Err(TransportEnd::Tls(why)) => {
                self.settings.counters.tls_failed(why);
                // Its alert was its last word.
                self.is_over = true;
            }
        }
        self.close_with(CloseCode::Normal, reply);
        result
    }

    fn receive_layered(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TransportEnd> {
        let Some(tls) = &mut self.tls else { return self.receive_frames(bytes, data, reply) };
        let was_tls = |end| match end {
            TlsEnd::Closed => TransportEnd::Closed,
            TlsEnd::Failed(why) => TransportEnd::Tls(why),
        };
        if self.websocket.is_none() {
            return tls.receive(bytes, data, reply).map_err(was_tls);
        }
        let mut plain = Vec::new();
        let received = tls.receive(bytes, &mut plain, reply).map_err(was_tls);
        // What came before the end still counts.
        self.receive_frames(&plain, data, reply)?;
        received
    }

    /// Takes what was within TLS, or came without.
    fn receive_frames(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TransportEnd> {
        let Some(websocket) = &mut self.websocket else {
            data.extend_from_slice(bytes);
            return Ok(());
        };
        let mut frames = Vec::new();
        let received = websocket.receive(bytes, self.settings.max_frame, data, &mut frames);
        let received = received.map_err(|end| match end {
            WebSocketEnd::Closed => TransportEnd::Closed,
            WebSocketEnd::Failed(why) => {
                websocket.close(why.code(), &mut frames);
                TransportEnd::WebSocket(why)
            }
        });
        self.send_control(&frames, reply);
        received
    }

    /// Appends to `out` what the socket is to get for these bytes of the session. After an error nothing can be sent
    /// any more.
    pub fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TransportEnd> {
        self.guarded(|layers| layers.send_layered(bytes, out))
    }

    fn send_layered(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TransportEnd> {
        if bytes.is_empty() || self.is_over {
            return Ok(());
        }
        let Some(websocket) = &self.websocket else { return self.send_counted(bytes, out) };
        if self.tls.is_none() {
            websocket.send_header(bytes.len(), out);
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let mut frame = Vec::with_capacity(bytes.len() + MAX_SENT_HEADER);
        websocket.send_header(bytes.len(), &mut frame);
        frame.extend_from_slice(bytes);
        self.send_counted(&frame, out)
    }

    fn send_counted(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TransportEnd> {
        let Err(why) = self.send_raw(bytes, out) else { return Ok(()) };
        self.settings.counters.tls_failed(why);
        self.is_over = true;
        Err(TransportEnd::Tls(why))
    }

    /// Appends to `out` the goodbye of all layers.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        let is_stopping = self.settings.is_stopping.load(Ordering::Relaxed);
        self.close_with(if is_stopping { CloseCode::Away } else { CloseCode::Normal }, out);
    }

    fn close_with(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        // Whatever comes of it, they are over.
        let _ = self.guarded(|layers| {
            layers.close_layered(code, out);
            Ok(())
        });
    }

    fn close_layered(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        if let Some(websocket) = &mut self.websocket {
            let mut frame = Vec::new();
            websocket.close(code, &mut frame);
            self.send_control(&frame, out);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(out);
        }
    }

    /// A panic within costs this connection, whoever called.
    fn guarded(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<(), TransportEnd>,
    ) -> Result<(), TransportEnd> {
        catch_unwind(AssertUnwindSafe(|| call(&mut *self))).unwrap_or_else(|_| {
            self.settings.counters.panicked();
            tracing::error!("a panic in TLS or a WebSocket, which please report; others are served on");
            self.is_over = true;
            Err(TransportEnd::Panicked)
        })
    }

    /// Sends what isn't the session's: an HTTP answer, or control frames. Where TLS can't send any more it has said so
    /// itself, or will when the session has something to send.
    fn send_control(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let _ = self.send_raw(bytes, out);
    }

    fn send_raw(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFailure> {
        match &mut self.tls {
            _ if bytes.is_empty() => Ok(()),
            Some(tls) => tls.send(bytes, out).map_err(|end| match end {
                TlsEnd::Failed(why) => why,
                TlsEnd::Closed => TlsFailure::Ended,
            }),
            None => {
                out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Counts it among the open ones until it is dropped.
    fn count_open(&mut self) {
        let kind = self.kind();
        if self.counted.replace(kind).is_none() {
            self.settings.counters.transport_opened(kind);
        }
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if let Some(kind) = self.counted {
            self.settings.counters.transport_closed(kind);
        }
    }
}

/// Tells what a connection's bytes go through, and counts it as taken over.
pub fn count_taken_over(layers: &mut Option<Layers>, counters: &ProcessCounters) -> TransportKind {
    let kind = layers.as_ref().map_or(TransportKind::Plain, |layers| layers.kind());
    counters.taken_over(kind);
    if let Some(layers) = layers {
        layers.count_open();
    }
    kind
}
