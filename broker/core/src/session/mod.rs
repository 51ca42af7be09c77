//! Sessions: one client's protocol state, without a socket.
//!
//! Both protocols have one face. Bytes, replies, deliveries and time go in (`handle_*`); bytes to send,
//! commands for the hub, what became of deliveries, and the next deadline come out.

use std::sync::Arc;

use crate::model::Limits;

/// What all sessions of a gateway share.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The first level of the signalling topics, `sig` unless configured (T).
    pub prefix: Arc<str>,
    /// Bounds.
    pub limits: Arc<Limits>,
}
