//! Asks another program about credentials that nobody here knows: one POST with JSON for each, with a deadline. What isn't
//! a clear yes lets nobody in.
//!
//! ```text
//! POST /authenticate   {"client_id": "app-1", "user": "anna", "password": "mellon"}
//! 200                  {"allow": true, "user": "anna", "roles": ["operator"], "clients": ["app-*"], "seconds": 3600}
//! ```
//! Of the answer all but `allow` may be left out. It is spoken in the clear, and so to this machine alone: passwords cross it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bugle_core::hub::{AuthenticationRequest, Judgement};
use bugle_core::model::Principal;
use bugle_core::rules::Pattern;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::metrics::ProcessCounters;

/// Questions under way at a time.
const AT_ONCE: usize = 32;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Answers that are kept.
const KEPT: usize = 4096;

/// Whom to ask, as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HookSettings {
    /// `http://`, an address of this machine with its port, and a path.
    pub url: String,
    /// How long an answer may take, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// For how long a yes is kept, so that who comes again needs no question; 0: never.
    #[serde(default = "cache_seconds")]
    pub cache_seconds: u64,
}

fn timeout_ms() -> u64 {
    3000
}

fn cache_seconds() -> u64 {
    60
}

/// Where to ask.
#[derive(Clone, Debug)]
pub struct HookAddress {
    address: SocketAddr,
    host: String,
    path: String,
}

impl HookSettings {
    /// Where to ask; the error says what is wrong.
    pub fn address(&self) -> Result<HookAddress, String> {
        let wrong = |what: &str| Err(format!("[authentication_hook] url = {:?} {what}", self.url));
        if !(1..=9000).contains(&self.timeout_ms) {
            return Err(format!(
                "[authentication_hook] timeout_ms = {} is not within 1 to 9000",
                self.timeout_ms
            ));
        }
        let Some(rest) = self.url.strip_prefix("http://") else {
            return wrong("doesn't begin with http://; let a program on this machine speak TLS to others");
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let Ok(address) = host.parse::<SocketAddr>() else {
            return wrong("has no address with a port, as 127.0.0.1:9000, after http://");
        };
        if !address.ip().is_loopback() {
            return wrong("is not on this machine: passwords would cross the network in the clear");
        }
        if path.contains([' ', '\r', '\n']) {
            return wrong("has a path with spaces");
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(HookAddress { address, host: host.to_owned(), path: path.to_owned() })
    }
}

/// The way to the other program, and what it has said lately.
pub struct Hook {
    place: HookAddress,
    deadline: Duration,
    kept_for: Duration,
    places: Semaphore,
    /// Makes keys of what was asked, from which no password can be had without it.
    secret: Zeroizing<[u8; 32]>,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
    counters: Arc<ProcessCounters>,
}

struct Kept {
    judgement: Judgement,
    since: Instant,
}

/// What the other program says.
#[derive(Debug, Deserialize)]
struct Answer {
    allow: bool,
    user: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    clients: Option<Vec<String>>,
    seconds: Option<u64>,
}

impl Hook {
    /// A hook as the operator wants it.
    pub fn new(settings: &HookSettings, counters: Arc<ProcessCounters>) -> Result<Self, String> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(|error| error.to_string())?;
        Ok(Self {
            place: settings.address()?,
            deadline: Duration::from_millis(settings.timeout_ms),
            kept_for: Duration::from_secs(settings.cache_seconds),
            places: Semaphore::new(AT_ONCE),
            secret,
            kept: Mutex::default(),
            counters,
        })
    }

    /// Asks, or remembers.
    pub async fn judge(&self, request: &AuthenticationRequest) -> Judgement {
        let key = self.key(request);
        if let Some(known) = self.remember(&key) {
            return known;
        }
        let asked = async {
            let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
            self.ask(request).await
        };
        let answer = match timeout(self.deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return self.fail(&error),
            Err(_) => return self.fail("no answer in time"),
        };
        let judgement = judged(&answer, request);
        if matches!(judgement, Judgement::Good(_) | Judgement::GoodFor(..)) {
            self.keep(key, judgement.clone());
        }
        judgement
    }

    fn fail(&self, error: &str) -> Judgement {
        self.counters.hook_failed();
        tracing::warn!(address = %self.place.address, error, "the authentication hook didn't answer, and nobody is let in for that");
        Judgement::Unavailable
    }

    async fn ask(&self, request: &AuthenticationRequest) -> Result<Answer, String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let stream =
            TcpStream::connect(self.place.address).await.map_err(|error| failed("no connection", &error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed("no HTTP", &error))?;
        // Ends with the sender, or with the other program's end.
        let driven = tokio::spawn(connection);
        let asked = async {
            let Ok(password) = str::from_utf8(&request.password) else {
                return Err("a password that is no text can't be asked about".to_owned());
            };
            let body = serde_json::json!({
                "client_id": request.identity.as_str(),
                "client_id_is_assigned": request.is_assigned,
                "user": request.user,
                "password": password,
            });
            let question = Request::post(&self.place.path)
                .header(header::HOST, &self.place.host)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CONNECTION, "close")
                .body(Full::new(Bytes::from(body.to_string())))
                .map_err(|error| failed("no question", &error))?;
            let answer = sender.send_request(question).await.map_err(|error| failed("no answer", &error))?;
            if answer.status() != hyper::StatusCode::OK {
                return Err(format!("status {} instead of 200", answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| failed("no whole answer", &error))?.to_bytes();
            serde_json::from_slice(&body)
                .map_err(|error| failed("an answer that is not as described", &error))
        }
        .await;
        driven.abort();
        asked
    }

    fn key(&self, request: &AuthenticationRequest) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&*self.secret).expect("HMAC takes a key of any length");
        let id = if request.is_assigned { "" } else { request.identity.as_str() };
        for part in [id.as_bytes(), request.user.as_bytes(), &request.password] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn remember(&self, key: &[u8; 32]) -> Option<Judgement> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { judgement, since } = kept.get(key).filter(|kept| kept.since.elapsed() < self.kept_for)?;
        match judgement {
            // What is left of it.
            Judgement::GoodFor(principal, millis) => {
                let left = millis.saturating_sub(since.elapsed().as_millis() as u64);
                (left > 0).then(|| Judgement::GoodFor(principal.clone(), left))
            }
            judgement => Some(judgement.clone()),
        }
    }

    fn keep(&self, key: [u8; 32], judgement: Judgement) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.retain(|_, kept| kept.since.elapsed() < self.kept_for);
        }
        // Where that leaves no room, the next one is asked about again.
        if kept.len() < KEPT && !self.kept_for.is_zero() {
            kept.insert(key, Kept { judgement, since: Instant::now() });
        }
    }
}

fn judged(answer: &Answer, request: &AuthenticationRequest) -> Judgement {
    if !answer.allow {
        return Judgement::Wrong;
    }
    let user = answer.user.as_deref().unwrap_or(&request.user);
    if user.is_empty() {
        return Judgement::Wrong;
    }
    let id = request.identity.as_str();
    let may_be = match &answer.clients {
        // It was told the client id, and allowed it.
        None => true,
        Some(patterns) => patterns.iter().any(|pattern| Pattern::new(pattern).matches(id)),
    };
    if !may_be && !request.is_assigned {
        return Judgement::NotThisClient;
    }
    let roles = answer.roles.iter().map(|role| role.as_str().into()).collect();
    let principal = Arc::new(Principal { roles, ..Principal::user(user) });
    match answer.seconds {
        Some(seconds) => Judgement::GoodFor(principal, seconds.saturating_mul(1000)),
        None => Judgement::Good(principal),
    }
}

/// What this body, as an answer, comes to; none if it is none.
#[cfg(fuzzing)]
pub fn fuzz_answer(body: &[u8], request: &AuthenticationRequest) -> Option<Judgement> {
    serde_json::from_slice(body).ok().map(|answer| judged(&answer, request))
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook({})", self.place.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_on_this_machine() {
        let address =
            |url: &str| HookSettings { url: url.to_owned(), timeout_ms: 1, cache_seconds: 0 }.address();
        let good = address("http://127.0.0.1:9000/auth?x=1").unwrap();
        assert_eq!((good.host.as_str(), good.path.as_str()), ("127.0.0.1:9000", "/auth?x=1"));
        assert_eq!(address("http://[::1]:9000").unwrap().path, "/");
        for (url, expected) in [
            ("https://127.0.0.1:9000/", "doesn't begin with http://"),
            ("http://192.0.2.1:9000/", "not on this machine"),
            ("http://localhost/", "no address with a port"),
            ("http://127.0.0.1:9000/a b", "spaces"),
        ] {
            assert!(address(url).unwrap_err().contains(expected), "{url}");
        }
    }
}
