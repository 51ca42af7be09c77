//! The door: accepts, reads a connection's first packet, and hands it to the shard that owns the client.
//!
//! Nothing here waits for a client: each connection has a task of its own until its first packet is whole, and these
//! are bounded in number, bytes and time. What can't be taken is closed and counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bugle_core::hub::owner;
use bugle_core::model::Limits;
use bugle_core::session::{FirstPacket, Protocol, first_packet};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::metrics::{EarlyClose, ProcessCounters};
use crate::shard_thread::{Arrival, ShardSender};

/// Connections without a whole first packet.
const MAX_WAITING: usize = 1024;
/// Longest first packet, in bytes: a will and a password of nearly 64 KiB each fit.
const MAX_FIRST_PACKET: usize = 128 * 1024;
/// What is read at a time of a first packet, in bytes.
const FIRST_READ: usize = 1024;
/// Connections that the system may hold before they are accepted.
const BACKLOG: u32 = 4096;
/// Unsent bytes that a socket takes: more would lie in the kernel past their deadline (S9).
#[cfg(target_os = "linux")]
const UNSENT: u32 = 16 * 1024;
/// Waits after a failed accept, the first and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

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
    waiting: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    /// Whose turn it is to get a client that no shard owns by its id.
    next: AtomicUsize,
}

impl Door {
    /// The way in to these shards.
    pub fn new(shards: Vec<ShardSender>, limits: Arc<Limits>, counters: Arc<ProcessCounters>) -> Self {
        let slots = limits.clients_per_shard.saturating_mul(shards.len()).min(Semaphore::MAX_PERMITS);
        Self {
            shards,
            limits,
            counters,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            slots: Arc::new(Semaphore::new(slots)),
            next: AtomicUsize::new(0),
        }
    }

    /// Accepts until dropped, which also closes the connections that have no first packet yet.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut greetings = JoinSet::new();
        let mut pause = BACK_OFF.0;
        loop {
            // Those that have ended are forgotten.
            while greetings.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pause = BACK_OFF.0;
                    self.counters.accepted();
                    let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                        self.close(peer, EarlyClose::Full);
                        continue;
                    };
                    let Ok(waiting) = self.waiting.clone().try_acquire_owned() else {
                        self.close(peer, EarlyClose::TooManyWaiting);
                        continue;
                    };
                    let door = self.clone();
                    greetings.spawn(async move {
                        door.greet(stream, peer, slot).await;
                        drop(waiting);
                    });
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

    fn close(&self, peer: SocketAddr, why: EarlyClose) {
        tracing::debug!(%peer, reason = why.key(), "closed before the first packet");
        self.counters.closed_early(why);
    }

    /// Reads the first packet and hands the connection over.
    async fn greet(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "a socket option could not be set");
        }
        let limit = Duration::from_millis(self.limits.connect_timeout);
        let first = timeout(limit, read_first_packet(&stream, &self.limits)).await;
        let First { bytes, protocol, client_id } = match first.unwrap_or(Err(EarlyClose::Timeout)) {
            Ok(first) => first,
            Err(why) => return self.close(peer, why),
        };
        let shards = self.shards.len();
        let shard = match client_id {
            Some(id) => usize::from(owner(&id, shards as u16)),
            None => self.next.fetch_add(1, Ordering::Relaxed) % shards,
        };
        let Ok(stream) = stream.into_std() else { return self.close(peer, EarlyClose::Ended) };
        let arrival = Arrival { stream, bytes, protocol, slot };
        if self.shards[shard].arrivals.try_send(arrival).is_err() {
            tracing::warn!(%peer, shard, "a shard takes no more connections for now; this one is closed");
            self.counters.handover_refused();
        }
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

/// A connection's beginning.
struct First {
    bytes: Vec<u8>,
    protocol: Protocol,
    client_id: Option<String>,
}

async fn read_first_packet(stream: &TcpStream, limits: &Limits) -> Result<First, EarlyClose> {
    let mut bytes = Vec::new();
    loop {
        stream.readable().await.map_err(|_| EarlyClose::Ended)?;
        bytes.reserve(FIRST_READ);
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return Err(EarlyClose::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(EarlyClose::Ended),
        }
        match first_packet(&bytes, limits) {
            FirstPacket::Client { protocol, client_id } => return Ok(First { bytes, protocol, client_id }),
            FirstPacket::Unknown => return Err(EarlyClose::UnknownProtocol),
            FirstPacket::Partial if bytes.len() >= MAX_FIRST_PACKET => return Err(EarlyClose::TooLarge),
            FirstPacket::Partial => {}
        }
    }
}
