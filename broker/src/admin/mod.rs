//! The admin listener: `/healthz`, `/metrics`, and the WebSocket `/mqtt`, by which pages that it serves reach the gateway
//! as any client does; and, where there is a file of operators, the [`api`] for these. What anyone may ask changes nothing.
//!
//! ```text
//! [server] (bounds, deadlines) ─► [tls] ─► router ─┬─ /healthz, /metrics, /mqtt
//!                                                  └─ [access] (token, rate) ─► [api] ─► [shards]
//! ```

mod access;
mod api;
#[cfg(fuzzing)]
pub mod fuzzing;
mod problem;
mod server;
mod shards;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

pub use access::{Access, OperatorsReload};
pub use api::{Api, ReloadRequest};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Response, StatusCode, Version, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use problem::Problem;
pub use server::AdminCounters;
pub use shards::Shards;
pub use tls::AdminTls;
use tokio::net::{TcpListener, TcpStream};

use crate::bridge::BridgeStatus;
use crate::listener::Door;
use crate::metrics::{ProcessCounters, Snapshot};
use crate::reload_status::{ReloadStatus, Reloadable};
use crate::shard_thread::{Clock, sum_counters};
use crate::store::StoreHealth;
use crate::transport::upgrade::{PATH, RequestHead, SUBPROTOCOL, UpgradeRefusal};

/// What the answers are made from.
pub struct Admin {
    /// The ways to all shards.
    pub shards: Shards,
    /// What the admin port has counted.
    pub admin_counters: Arc<AdminCounters>,
    /// What the process has counted.
    pub counters: Arc<ProcessCounters>,
    /// The gateway's clock.
    pub clock: Clock,
    /// Clients may come in by a WebSocket.
    pub has_websocket: bool,
    /// Where a WebSocket goes.
    pub door: Arc<Door>,
    /// How it went to read files again.
    pub reloads: Arc<ReloadStatus>,
    /// How the bridges are doing.
    pub bridges: Arc<[Arc<BridgeStatus>]>,
    /// How the store is doing, if there is one.
    pub store: Option<StoreHealth>,
}

/// The API, and who may use it.
pub struct OperatorsEnd {
    /// Who may.
    pub access: Access,
    /// What they do.
    pub api: Api,
}

/// Answers on `listener`, within TLS if there is one, until dropped. Without operators there is no API.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<AdminTls>>,
    admin: Admin,
    operators: Option<OperatorsEnd>,
) {
    let counters = admin.admin_counters.clone();
    let api = match operators {
        Some(OperatorsEnd { access, api }) => {
            api::routes(Arc::new(api)).layer(from_fn_with_state(Arc::new(access), access::guard))
        }
        None => Router::new().fallback(|| async {
            Problem::not_found("there is no admin API without operators: name their file in [admin_api]")
        }),
    };
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route(PATH, if admin.has_websocket && tls.is_none() { get(websocket) } else { get(no_websocket) })
        .with_state(Arc::new(admin))
        .nest("/api/v1", api)
        .fallback(|| async { Problem::not_found("here are /healthz, /metrics, /mqtt and /api/v1") });
    server::accept(listener, router, tls, counters).await;
}

async fn health(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut health = serde_json::json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": admin.clock.elapsed().as_secs(),
    });
    for &what in Reloadable::ALL {
        if let Some(fault) = admin.reloads.fault(what) {
            // It works, by what it read before: starting it again would not help.
            health["status"] = "degraded".into();
            health[what.key()] = serde_json::json!({"state": "outdated", "reason": fault});
        }
    }
    if let Some(fault) = admin.counters.audit().fault() {
        health["status"] = "degraded".into();
        health["audit"] = serde_json::json!({"state": "unavailable", "reason": fault});
    }
    if let Some(trouble) = admin.store.as_ref().and_then(StoreHealth::trouble) {
        health["status"] = "degraded".into();
        health["store"] = serde_json::json!({"state": trouble.state, "reason": trouble.reason});
    }
    if !admin.bridges.is_empty() {
        // A far broker that is away is no fault of this process.
        let bridges = admin.bridges.iter().map(|bridge| {
            let (state, why) = bridge.state();
            (bridge.name().to_string(), serde_json::json!({"state": state, "reason": why}))
        });
        health["bridges"] = bridges.collect::<serde_json::Map<_, _>>().into();
    }
    Json(health)
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (sum, answered) = sum_counters(admin.shards.all()).await;
    let uptime = admin.clock.elapsed().as_secs();
    let mut snapshot = Snapshot::new(&admin.counters, &sum, answered, admin.shards.all().len(), uptime);
    snapshot.add_reloads(&admin.reloads);
    snapshot.add_audit(admin.counters.audit());
    snapshot.add_admin(&admin.admin_counters);
    admin.bridges.iter().for_each(|bridge| snapshot.add_bridge(bridge));
    if let Some(store) = &admin.store {
        snapshot.add_store(store);
    }
    match snapshot.into_text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Within TLS there is none here: that of the listeners has one, with what it takes to be handed on to a shard. Nor is there one that would
/// let in anyone from other machines.
async fn no_websocket() -> Problem {
    Problem::not_found(
        "this admin port has no WebSocket: it speaks TLS, or can be reached from other machines while nobody has to prove who \
         he is; use a listener's",
    )
}

/// Makes a connection a WebSocket and takes it out of HTTP.
async fn websocket(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response<Body> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let head = RequestHead {
        method: request.method().as_str(),
        path: request.uri().path(),
        is_http_1_1: request.version() == Version::HTTP_11,
        fields: fields.collect(),
    };
    let accepted = head.accept(admin.door.origins());
    let (accept, on_upgrade) = match (accepted, on_upgrade) {
        (Ok(accept), Some(on_upgrade)) => (accept, on_upgrade),
        (accepted, _) => {
            let why = accepted.err().unwrap_or(UpgradeRefusal::NotUpgrade);
            admin.counters.websocket_refused(why);
            let status = StatusCode::from_u16(why.code()).unwrap_or(StatusCode::BAD_REQUEST);
            return (status, why.text()).into_response();
        }
    };
    tokio::spawn(async move {
        match on_upgrade.await.map(Upgraded::downcast::<TokioIo<TcpStream>>) {
            Ok(Ok(parts)) => {
                admin.door.clone().admit_websocket(parts.io.into_inner(), peer, &parts.read_buf).await
            }
            // The client has gone before it had its answer.
            _ => tracing::debug!(%peer, "a WebSocket that didn't come about"),
        }
    });
    let fields = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
        (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}
