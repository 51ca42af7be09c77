//! The door: accepts, reads a connection's first packet, and hands it to the shard that owns the client.
//!
//! Nothing here waits for a client: each connection has a task of its own until its first packet is whole, and these
//! are bounded in number and bytes by [`Places`], and in time. What can't be taken is closed and counted. TLS handshakes are computed on
//! a thread of their own, so that many of them hold up neither this one nor a shard. What the bytes mean is found
//! out by [`Greeting`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bugle_core::hub::owner;
use bugle_core::model::Limits;
use serde_json::json;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroize;

use crate::audit::shown_address;
use crate::back_off::{BackOff, Wait};
use crate::metrics::{EarlyClose, ProcessCounters};
use crate::places::{LARGE, LargePlace, Places, Slot, WaitingPlace};
use crate::shard_thread::{Arrival, ShardSender};
use crate::transport::greeting::{Admission, First, Greeting, Protocols};
use crate::transport::upgrade::Origins;
use crate::transport::{Layers, TransportSettings, count_taken_over};

/// How long a new connection waits for its turn at most, where too many have no first packet yet, before it is closed.
const CROWDED: Duration = Duration::from_secs(1);
/// What is read at a time of a first packet, in bytes.
const FIRST_READ: usize = 1024;
/// Connections that the system may hold before they are accepted.
const BACKLOG: u32 = 4096;
/// Unsent bytes that a socket takes: more would lie in the kernel past their deadline (S9).
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;
/// Waits after a failed accept, the first and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long a client that is refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Binds a listener.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a restart would have to wait for the connections of the last run to be forgotten.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What all listeners share.
pub struct Door {
    shards: Vec<ShardSender>,
    limits: Arc<Limits>,
    counters: Arc<ProcessCounters>,
    transports: Arc<TransportSettings>,
    /// Where TLS handshakes are computed.
    handshakes: Handle,
    places: Arc<Places>,
    /// Whose turn it is to get a client that no shard owns by its id.
    next: AtomicUsize,
}

impl Door {
    /// The way in to these shards.
    pub fn new(
        shards: Vec<ShardSender>,
        limits: Arc<Limits>,
        transports: Arc<TransportSettings>,
        handshakes: Handle,
    ) -> Self {
        let places = Arc::new(Places::new(&limits, shards.len()));
        Self {
            shards,
            limits,
            counters: transports.counters.clone(),
            transports,
            handshakes,
            places,
            next: AtomicUsize::new(0),
        }
    }

    /// Accepts until dropped, which also closes the connections that have no first packet yet.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, admission: Arc<Admission>) {
        let mut greetings = JoinSet::new();
        let mut pause = BACK_OFF.0;
        loop {
            // Those that have ended are forgotten.
            while greetings.try_join_next().is_some() {}
            // Not for ever: those who say nothing would keep everyone else out until their time is over.
            let _ = timeout(CROWDED, self.places.wait_for_room()).await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause = BACK_OFF.0;
                    let Some(place) = self.place(peer, false) else { continue };
                    let greeting = Greeting::new(admission.clone(), self.transports.clone());
                    greetings.spawn(self.clone().greet(stream, peer, greeting, Vec::new(), place));
                }
                // The client's, who has gone again.
                Err(error) if is_clients(&error) => self.counters.accept_failed(),
                Err(error) => {
                    self.counters.accept_failed();
                    tracing::warn!(
                        %error, pause_ms = pause.as_millis() as u64,
                        "cannot accept; if files have run out, raise the limit (ulimit -n)"
                    );
                    sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    /// Pages that may open a WebSocket.
    pub fn origins(&self) -> &Origins {
        &self.transports.origins
    }

    /// Takes over what somebody else has made a WebSocket, with the bytes that have come within it.
    pub async fn admit_websocket(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, bytes: &[u8]) {
        let Some(place) = self.place(peer, false) else { return };
        let nothing = Protocols::default();
        let admission = Arc::new(Admission { in_clear: nothing, in_tls: nothing, tls: None });
        let greeting = Greeting::within_websocket(admission, self.transports.clone());
        self.greet(stream, peer, greeting, bytes.to_vec(), place).await;
    }

    /// Takes over a connection of the process itself, which speaks MQTT.
    pub async fn admit_mqtt(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.place(peer, true) else { return };
        let in_clear = Protocols { mqtt: true, ..Protocols::default() };
        let admission = Arc::new(Admission { in_clear, in_tls: Protocols::default(), tls: None });
        let greeting = Greeting::new(admission, self.transports.clone());
        self.greet(stream, peer, greeting, Vec::new(), place).await;
    }

    /// Counts a connection, and gives it its place if there is one.
    fn place(&self, peer: SocketAddr, is_own: bool) -> Option<Place> {
        self.counters.accepted();
        match self.places.of_new(peer.ip(), is_own) {
            Ok((slot, waiting)) => Some(Place { slot, waiting, handshake: None, is_own }),
            Err(why) => {
                self.close(peer, why);
                None
            }
        }
    }

    fn close(&self, peer: SocketAddr, why: EarlyClose) {
        tracing::debug!(%peer, reason = why.key(), "closed before the first packet");
        self.counters.closed_early(why);
        let audit = self.counters.audit();
        // Who goes by himself was refused nothing.
        if audit.is_on() && why != EarlyClose::Ended {
            let address = shown_address(peer.ip());
            audit.record_stranger("closed_early", &json!({"address": address, "reason": why.key()}));
        }
    }

    /// Reads the first packet and hands the connection over. `bytes` have been read already.
    async fn greet(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        greeting: Greeting,
        mut bytes: Vec<u8>,
        mut place: Place,
    ) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "a socket option could not be set");
        }
        let deadline = Instant::now() + Duration::from_millis(self.limits.connect_timeout);
        let places_until = deadline - Duration::from_millis(self.limits.connect_timeout / 2);
        if bytes.is_empty() {
            let read = timeout_at(deadline, read(&stream, &mut bytes)).await;
            if let Err(why) = read.unwrap_or(Err(EarlyClose::Timeout)) {
                return self.close(peer, why);
            }
        }
        if Greeting::begins_with_handshake(&bytes) {
            // Until then it costs what was read first, and its socket.
            match timeout_at(places_until, self.places.handshake()).await {
                Ok(handshake) => place.handshake = handshake,
                Err(_) => return self.close(peer, EarlyClose::TooManyHandshakes),
            }
        }
        let is_tls = Greeting::is_tls(&bytes);
        let (reply, places) = (Vec::new(), self.places.clone());
        let visit = Visit { stream, peer, greeting, bytes, reply, places, large: None, places_until };
        let rest = self.clone().finish_greeting(visit, place, deadline);
        if is_tls {
            if Elsewhere(self.handshakes.spawn(rest)).panicked().await {
                self.counters.panicked();
            }
        } else {
            rest.await;
        }
    }

    async fn finish_greeting(self: Arc<Self>, mut visit: Visit, place: Place, deadline: Instant) {
        let first = timeout_at(deadline, visit.first(&self.limits)).await;
        match first.unwrap_or(Err(EarlyClose::Timeout)) {
            Ok(first) => {
                if !place.is_own
                    && let Err(why) = self.back_off(visit.peer.ip()).await
                {
                    return self.close(visit.peer, why);
                }
                let large = visit.large;
                let handing = self.hand_over(visit.stream, visit.peer, first, place.slot, large);
                if timeout_at(deadline, handing).await.is_err() {
                    tracing::warn!("a shard takes no more connections for now; one was closed");
                    self.counters.handover_refused();
                }
            }
            Err(why) => {
                self.close(visit.peer, why);
                visit.refuse(why).await;
            }
        }
    }

    /// Lets a connection wait from whose address many credentials were wrong.
    async fn back_off(&self, address: IpAddr) -> Result<(), EarlyClose> {
        let back_off = self.counters.back_off();
        match back_off.wait(address, std::time::Instant::now()) {
            Wait::None => Ok(()),
            Wait::TooMany => Err(EarlyClose::BackOff),
            Wait::For(time) => {
                let _place = Waiting { back_off, address };
                self.counters.waited();
                sleep(time).await;
                Ok(())
            }
        }
    }

    /// Hands a connection to its shard, when that has room for it.
    async fn hand_over(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        first: First,
        slot: Slot,
        large: Option<LargePlace>,
    ) {
        let First { bytes, protocol, client_id, mut layers } = first;
        let shards = self.shards.len();
        let shard = match client_id {
            Some(id) => usize::from(owner(&id, shards as u16)),
            None => self.next.fetch_add(1, Ordering::Relaxed) % shards,
        };
        let Ok(stream) = stream.into_std() else { return self.close(peer, EarlyClose::Ended) };
        let kind = count_taken_over(&mut layers, &self.counters);
        let certificate = layers.as_ref().and_then(Layers::client_name);
        let arrival = Arrival { stream, layers, certificate, bytes, protocol, slot, large };
        if self.shards[shard].arrivals.send(arrival).await.is_err() {
            tracing::debug!(%peer, shard, transport = kind.key(), "closed: the gateway stops");
            self.counters.handover_refused();
        }
    }
}

/// A place among those of one address that wait, freed with this however that ends.
struct Waiting<'a> {
    back_off: &'a BackOff,
    address: IpAddr,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.back_off.waited(self.address);
    }
}

/// What a connection holds of the bounds.
struct Place {
    slot: Slot,
    /// To be freed with the greeting.
    #[expect(dead_code, reason = "held, not read")]
    waiting: WaitingPlace,
    /// Likewise, where it begins with a handshake.
    handshake: Option<OwnedSemaphorePermit>,
    /// It is the process's own.
    is_own: bool,
}

/// A task on another thread, which ends with this.
struct Elsewhere(JoinHandle<()>);

impl Elsewhere {
    async fn panicked(mut self) -> bool {
        (&mut self.0).await.is_err_and(|error| error.is_panic())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection that is being greeted.
struct Visit {
    stream: TcpStream,
    peer: SocketAddr,
    greeting: Greeting,
    /// What was read and not yet looked at.
    bytes: Vec<u8>,
    /// What has yet to be written.
    reply: Vec<u8>,
    places: Arc<Places>,
    /// The place of its first packet, once that is large.
    large: Option<LargePlace>,
    /// Until when it may wait for a place, which leaves as much time again for what it is for.
    places_until: Instant,
}

impl Visit {
    /// The connection's beginning.
    async fn first(&mut self, limits: &Limits) -> Result<First, EarlyClose> {
        loop {
            if self.greeting.taken() + self.bytes.len() > LARGE && self.large.is_none() {
                let place = timeout_at(self.places_until, self.places.large(self.peer.ip())).await;
                self.large = Some(place.unwrap_or(Err(EarlyClose::TooManyLarge))?);
            }
            let progress = self.greeting.handle_bytes(&self.bytes, limits, &mut self.reply)?;
            if !self.reply.is_empty() {
                self.stream.write_all(&self.reply).await.map_err(|_| EarlyClose::Ended)?;
                self.reply.clear();
            }
            if let Some(first) = progress {
                return Ok(first);
            }
            // There may be a part of a password in it.
            self.bytes.zeroize();
            read(&self.stream, &mut self.bytes).await?;
        }
    }

    /// Tells the peer why it ends, if there is something to be told. A socket closed with bytes unread would be reset,
    /// and the peer might never read it.
    async fn refuse(mut self, why: EarlyClose) {
        self.greeting.give_up(why, &mut self.reply);
        if self.reply.is_empty() {
            return;
        }
        let told = async {
            self.stream.write_all(&self.reply).await?;
            self.stream.shutdown().await?;
            loop {
                self.bytes.clear();
                if read(&self.stream, &mut self.bytes).await.is_err() {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        // It may have gone, or take too long: it was refused all the same.
        let _ = timeout(LINGER, told).await;
    }
}

fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// Appends what the socket has, once it has something. Cancel-safe.
async fn read(stream: &TcpStream, bytes: &mut Vec<u8>) -> Result<(), EarlyClose> {
    loop {
        stream.readable().await.map_err(|_| EarlyClose::Ended)?;
        bytes.reserve(FIRST_READ);
        match stream.try_read_buf(bytes) {
            Ok(1..) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return Err(EarlyClose::Ended),
        }
    }
}
