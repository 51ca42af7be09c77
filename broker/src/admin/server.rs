//! The connections of the admin port: how many there may be, and how long each may take.
//!
//! A request's head has [`HEAD`] to be whole, an idle connection as long to begin the next one, and a connection [`LIFETIME`] in all
//! unless it has become a WebSocket, which is a client's connection from then on. So nobody holds a place by saying
//! nothing, by saying it slowly or by not reading the answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::Response;
use bugle_core::hub::EachNumber;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;

use super::tls::AdminTls;
use crate::back_off::network;

/// Connections at a time; more are closed.
const MAX_CONNECTIONS: usize = 128;
/// Connections of one address at a time, so that one doesn't take all places.
const MAX_OF_ADDRESS: usize = 64;
/// How long the head of a request may take, from when it is waited for.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be there.
const LIFETIME: Duration = Duration::from_secs(60);
/// How much longer, for the answer that is under way.
const GRACE: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 32 * 1024;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;
/// How long to wait after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// What the admin port has counted.
#[derive(Debug, Default)]
pub struct AdminCounters {
    accepted: AtomicU64,
    full: AtomicU64,
    full_of_address: AtomicU64,
    late: AtomicU64,
    tls_failed: AtomicU64,
    /// Requests to the API that were answered as asked.
    done: AtomicU64,
    /// Those that made no sense, or couldn't be done.
    refused: AtomicU64,
    /// Those without a right token, or whose operator may only look.
    unauthorized: AtomicU64,
    /// Those of operators who ask too much.
    slowed: AtomicU64,
}

impl AdminCounters {
    /// A request to the API was answered with this status.
    pub fn answered(&self, status: u16) {
        let counter = match status {
            200..=299 => &self.done,
            401 | 403 => &self.unauthorized,
            429 => &self.slowed,
            _ => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `each` for every number.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        each("admin_connections", "Connections to the admin port", &[], load(&self.accepted), false);
        for (reason, count) in [
            ("full", &self.full),
            ("full_of_address", &self.full_of_address),
            ("timeout", &self.late),
            ("tls", &self.tls_failed),
        ] {
            let help = "Connections to the admin port that were closed for a bound or a fault";
            each("admin_connections_closed", help, &[("reason", reason)], load(count), false);
        }
        for (result, count) in [
            ("done", &self.done),
            ("refused", &self.refused),
            ("unauthorized", &self.unauthorized),
            ("rate_limited", &self.slowed),
        ] {
            let help = "Requests to the admin API by what became of them";
            each("admin_requests", help, &[("result", result)], load(count), false);
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How many connections each address has; of IPv6, each network.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place, free again with this.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// A place for a connection of this address, or the counter for why there is none.
    fn take<'c>(
        self: &Arc<Self>,
        address: IpAddr,
        counters: &'c AdminCounters,
    ) -> Result<Place, &'c AtomicU64> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= MAX_CONNECTIONS {
            return Err(&counters.full);
        }
        let of_address = taken.entry(address).or_default();
        if *of_address >= MAX_OF_ADDRESS {
            return Err(&counters.full_of_address);
        }
        *of_address += 1;
        Ok(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_address) = taken.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Answers on `listener` until dropped, which also ends its connections.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<AdminTls>>,
    counters: Arc<AdminCounters>,
) {
    let places = Arc::new(Places::default());
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin port can't accept; if files have run out, raise the limit (ulimit -n)");
                sleep(PAUSE).await;
                continue;
            }
        };
        count(&counters.accepted);
        let place = match places.take(network(peer.ip()), &counters) {
            Ok(place) => place,
            Err(counter) => {
                tracing::debug!(%peer, "closed: the admin port has all the connections that it may have");
                count(counter);
                continue;
            }
        };
        let (router, tls, counters) = (router.clone(), tls.clone(), counters.clone());
        connections.spawn(async move {
            let _place = place;
            greet(stream, peer, router, tls.as_deref(), &counters).await;
        });
    }
}

/// Takes the connection's TLS off, if it is to have one.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<&AdminTls>,
    counters: &AdminCounters,
) {
    let Some(tls) = tls else { return serve(stream, peer, router, counters).await };
    match timeout(HEAD, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, router, counters).await,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no TLS on the admin port");
            count(&counters.tls_failed);
        }
        Err(_) => count(&counters.late),
    }
}

/// Answers the requests of one connection.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: SocketAddr,
    router: Router,
    counters: &AdminCounters,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().call(request);
        async move { answer.await as Result<Response<Body>, Infallible> }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
    // Both are cancel-safe.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(LIFETIME) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or_else(|_| {
                count(&counters.late);
                Ok(())
            })
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            count(&counters.late);
        }
        tracing::debug!(%peer, %error, "a connection of the admin port has ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// How long a connection is there that does this, and what it was counted as.
    async fn stays(request: &[u8]) -> (Duration, u64) {
        let (mut client, server) = tokio::io::duplex(1024);
        let router = Router::new().route("/", axum::routing::get(|| async { "x".repeat(1 << 20) }));
        let (counters, peer) = (AdminCounters::default(), SocketAddr::from(([127, 0, 0, 1], 1)));
        client.write_all(request).await.unwrap();
        let started = tokio::time::Instant::now();
        serve(server, peer, router, &counters).await;
        (started.elapsed(), counters.late.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_reads_nothing_is_closed_in_the_end() {
        assert_eq!(stays(b"").await, (HEAD, 1));
        assert_eq!(stays(b"GET / HTTP/1.1\r\nHost: ").await, (HEAD, 1));
        assert_eq!(stays(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await, (LIFETIME + GRACE, 1));
    }

    #[test]
    fn one_address_leaves_places_to_others_and_all_have_an_end() {
        let (places, counters) = (Arc::new(Places::default()), AdminCounters::default());
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut taken: Vec<Place> = Vec::new();
        let mut take = |n: u8| {
            let place = places.take(address(n), &counters);
            let result = place.as_ref().map(drop).map_err(|counter| std::ptr::eq(*counter, &counters.full));
            taken.extend(place.ok());
            result
        };
        for _ in 0..MAX_OF_ADDRESS {
            assert_eq!(take(1), Ok(()));
        }
        assert_eq!(take(1), Err(false));
        for _ in 0..MAX_CONNECTIONS - MAX_OF_ADDRESS {
            assert_eq!(take(2), Ok(()));
        }
        assert_eq!(take(3), Err(true));
        taken.clear();
        assert!(places.0.lock().unwrap().is_empty());
    }
}
