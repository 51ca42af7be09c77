//! The admin listener: `/healthz` and `/metrics`. It has no authentication yet, and so nothing that changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bugle_core::hub::Counters;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::metrics::{ProcessCounters, Snapshot};
use crate::shard_thread::{Clock, Control, ShardSender};

/// How long shards may take to tell what they have counted.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the answers are made from.
pub struct Admin {
    /// The ways to all shards.
    pub shards: Vec<ShardSender>,
    /// What the process has counted.
    pub counters: Arc<ProcessCounters>,
    /// The gateway's clock.
    pub clock: Clock,
}

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(admin));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener has ended");
    }
}

async fn health(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    Json(serde_json::json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": admin.clock.elapsed().as_secs(),
    }))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (sum, answered) = admin.sum().await;
    let uptime = admin.clock.elapsed().as_secs();
    match Snapshot::new(&admin.counters, &sum, answered, admin.shards.len(), uptime).into_text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Admin {
    /// The sum of what the shards have counted, and how many of them told in time.
    async fn sum(&self) -> (Counters, usize) {
        let deadline = Instant::now() + PATIENCE;
        let ask = |shard: &ShardSender| {
            let (answer, answered) = oneshot::channel();
            shard.control.try_send(Control::Counters(answer)).ok().map(|()| answered)
        };
        let asked: Vec<_> = self.shards.iter().filter_map(ask).collect();
        let mut sum = Counters::default();
        let mut count = 0;
        for answered in asked {
            if let Ok(Ok(counters)) = timeout_at(deadline, answered).await {
                sum.add(&counters);
                count += 1;
            }
        }
        (sum, count)
    }
}
