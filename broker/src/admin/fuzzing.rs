//! Any request to the admin API, by an operator, with shards that answer nothing.

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{StatusCode, header};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tower_service::Service;

use super::api::{Api, routes};
use super::shards::Shards;
use crate::authentication::operators::Operator;
use crate::shard_thread::ShardSender;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

/// The first line is method and path, what comes behind it the body. Whatever it is, the answer isn't a fault of the gateway's,
/// and a refusal is a problem of RFC 9457.
pub fn request(input: &[u8]) {
    let (line, body) = input.split_at(input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len()));
    let Some((method, path)) = str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else {
        return;
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_vec()));
    let Ok(request) = request else { return };
    // Both are closed at once: the gateway is too busy for anything.
    let sender = ShardSender { arrivals: mpsc::channel(1).0, control: mpsc::channel(1).0 };
    let api = Api { shards: Shards::new(vec![sender]), rules: None };
    let operator = Operator { name: "desk".into(), is_viewer: false };
    let mut router = routes(Arc::new(api)).layer(Extension(operator));
    let answer = RUNTIME.with_borrow(|runtime| runtime.block_on(router.call(request)));
    let Ok(answer) = answer;
    let status = answer.status();
    assert!(!status.is_success(), "nobody answered: {status}");
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    assert_eq!(kind, Some("application/problem+json"), "{status}");
}
