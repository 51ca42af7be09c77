//! Who may use the admin API: operators, by a bearer token in the `Authorization` field and nowhere else.
//!
//! A page in a browser can't send that field to another site without being asked first (CORS), and nothing here agrees to
//! that; nor is there a cookie that a browser would send by itself. So no page can act in an operator's name. Wrong tokens slow
//! their address down as wrong credentials of clients do ([`BackOff`]), on a count of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::problem::Problem;
use super::server::AdminCounters;
use crate::audit::{AuditLog, shown_address};
use crate::authentication::operators::{Operator, OperatorFile};
use crate::back_off::{BackOff, Wait};
use crate::file_watch::FileWatches;
use crate::reload_status::{BY_CHANGE, BY_SIGNAL, ReloadStatus, Reloadable};

/// Longest token, in bytes.
const MAX_TOKEN: usize = 512;

/// Who may use the API, and how much.
pub struct Access {
    operators: Arc<ArcSwap<OperatorFile>>,
    /// Requests a second of one operator, which is also how many may come at once.
    rate: u32,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
    back_off: BackOff,
    counters: Arc<AdminCounters>,
    audit: AuditLog,
}

/// How many requests an operator has left.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one, or tells how many seconds there is none.
    fn take(&mut self, rate: u32, now: Instant) -> Result<(), u64> {
        let rate = f64::from(rate);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        *self = Self { left: (self.left + passed * rate).min(rate), at: now };
        if self.left < 1.0 {
            return Err((((1.0 - self.left) / rate).ceil() as u64).max(1));
        }
        self.left -= 1.0;
        Ok(())
    }
}

impl Access {
    /// For these operators, who may be replaced while it runs.
    pub fn new(
        operators: Arc<ArcSwap<OperatorFile>>,
        requests_per_second: u32,
        counters: Arc<AdminCounters>,
        audit: AuditLog,
    ) -> Self {
        let (rate, back_off) = (requests_per_second, BackOff::default());
        Self { operators, rate, buckets: Mutex::default(), back_off, counters, audit }
    }

    /// Whose request with these fields it is, if he may make it now; one that `looks` changes nothing.
    async fn judge(&self, fields: &HeaderMap, looks: bool, address: IpAddr) -> Result<Operator, Problem> {
        let refused = || {
            let detail = "the admin API wants `Authorization: Bearer TOKEN` with an operator's token; `bugle operator add` makes one";
            Problem::new(StatusCode::UNAUTHORIZED, "NOT_AUTHENTICATED", detail)
        };
        let token = bearer(fields).ok_or_else(refused)?;
        match self.back_off.wait(address, Instant::now()) {
            Wait::None => {}
            Wait::TooMany => {
                let detail = "many tokens from this address were wrong; try again later";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail);
                return Err(problem.after(3));
            }
            Wait::For(time) => {
                let _waiting = Waiting { back_off: &self.back_off, address };
                sleep(time).await;
            }
        }
        let Some(operator) = self.operators.load().find(token).cloned() else {
            self.back_off.failed(address, Instant::now());
            return Err(refused());
        };
        self.take_one(&operator.name)?;
        if operator.is_viewer && !looks {
            let detail = format!(
                "'{}' may look and change nothing (roles=viewer in the operators' file)",
                operator.name
            );
            return Err(Problem::new(StatusCode::FORBIDDEN, "NOT_AUTHORIZED", detail));
        }
        Ok(operator)
    }

    fn take_one(&self, name: &Arc<str>) -> Result<(), Problem> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // At most as many as there were operators in files; who is none any more is forgotten with the others.
        if buckets.len() > 1024 {
            buckets.clear();
        }
        let full = Bucket { left: f64::from(self.rate), at: now };
        buckets.entry(name.clone()).or_insert(full).take(self.rate, now).map_err(|seconds| {
            let detail = format!("more than {} requests a second (admin_api.requests_per_second)", self.rate);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail).after(seconds)
        })
    }
}

/// A request of an address that waits, until this is dropped.
struct Waiting<'a> {
    back_off: &'a BackOff,
    address: IpAddr,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.back_off.waited(self.address);
    }
}

/// The token of a request that has one `Authorization` field with one.
fn bearer(fields: &HeaderMap) -> Option<&[u8]> {
    let mut all = fields.get_all(header::AUTHORIZATION).iter();
    let value = all.next().filter(|_| all.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let is_token = scheme.eq_ignore_ascii_case(b"Bearer ") && (1..=MAX_TOKEN).contains(&token.len());
    is_token.then_some(token)
}

/// Lets requests of operators through to the API, with the [`Operator`] among their extensions.
pub async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response<Body> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let address = peer.unwrap_or_else(|| IpAddr::from([0, 0, 0, 0]));
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let noted = |operator: Option<&str>, status: StatusCode| {
        json!({
            "operator": operator, "address": shown_address(address), "method": method.as_str(), "path": path,
            "status": status.as_u16(),
        })
    };
    let mut answer = match access.judge(request.headers(), looks, address).await {
        Ok(operator) => {
            let name = operator.name.clone();
            request.extensions_mut().insert(operator);
            let answer = next.run(request).await;
            if !looks {
                access.audit.record("admin", &noted(Some(&name), answer.status()));
            }
            answer
        }
        Err(problem) => {
            tracing::info!(%address, reason = problem.code(), "a request to the admin API was refused");
            let answer = problem.into_response();
            access.audit.record_stranger("admin", &noted(None, answer.status()));
            answer
        }
    };
    access.counters.answered(answer.status().as_u16());
    let fields = answer.headers_mut();
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Reads the operators' file again, when it changes or SIGHUP asks for it.
pub struct OperatorsReload {
    path: PathBuf,
    operators: Arc<ArcSwap<OperatorFile>>,
    status: Arc<ReloadStatus>,
    watches: FileWatches,
}

impl OperatorsReload {
    /// Of a file that was read just now.
    pub fn new(path: PathBuf, operators: Arc<ArcSwap<OperatorFile>>, status: Arc<ReloadStatus>) -> Self {
        let watches = FileWatches::new([path.clone()]);
        Self { path, operators, status, watches }
    }

    /// Looks at the file, and reads it when it has changed or when asked to.
    pub async fn run(mut self, asked: Arc<Notify>) {
        loop {
            let look = self.watches.next(&asked).await;
            if !look.has_changed && !look.is_asked {
                continue;
            }
            let by = if look.is_asked { BY_SIGNAL } else { BY_CHANGE };
            match OperatorFile::load(&self.path) {
                Ok(file) => {
                    self.operators.store(Arc::new(file));
                    self.status.set(Reloadable::Operators, by, None);
                    tracing::info!(path = %self.path.display(), "the operators' file was read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the operators stay as they are");
                    self.status.set(Reloadable::Operators, by, Some(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_in_one_field_with_its_scheme() {
        let fields = |values: &[&'static str]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            map
        };
        assert_eq!(bearer(&fields(&["Bearer abc"])), Some(&b"abc"[..]));
        assert_eq!(bearer(&fields(&["bearer abc"])), Some(&b"abc"[..]));
        for wrong in [&[][..], &["Bearer "], &["Bearer"], &["Basic abc"], &["abc"], &["Bearer a", "Bearer a"]]
        {
            assert_eq!(bearer(&fields(wrong)), None, "{wrong:?}");
        }
        let mut long = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {}", "x".repeat(MAX_TOKEN + 1))).unwrap();
        long.append(header::AUTHORIZATION, value);
        assert_eq!(bearer(&long), None);
    }

    #[test]
    fn a_bucket_is_empty_after_a_second_s_worth_and_fills_again() {
        let now = Instant::now();
        let mut bucket = Bucket { left: 2.0, at: now };
        assert_eq!([bucket.take(2, now), bucket.take(2, now), bucket.take(2, now)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!(bucket.take(2, now + Duration::from_millis(500)), Ok(()));
        assert_eq!(bucket.take(2, now + Duration::from_millis(500)), Err(1));
    }
}
