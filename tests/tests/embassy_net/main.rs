//! The SDK on embassy-net, as on a board, but on the host: real runner, real `TcpSocket`s, two stacks joined by a cable
//! that loses, doubles and reorders frames, and behind it the gateway as a process.
//!
//! ```text
//! SDK runner or minimq -> TcpSocket -> stack =cable= stack -> TcpSocket -> forwarding -> loopback -> bugle serve
//! ```
//!
//! What a cable does to which frame follows from a seed, which each test prints; `BUGLE_SEED=n` sets it. The time is the
//! machine's, since the gateway is a process of its own: the same seed gives the same draws, but not the same
//! retransmissions.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod board;
mod cable;
mod faults;
mod lamp;
mod minimq_app;
mod modes;

use std::future::Future;

use tokio::task::LocalSet;

/// Runs a test whose tasks stay on its thread, as embassy-net's stacks have to.
async fn on_boards(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// The seed of this run, printed.
fn seed(usual: u64) -> u64 {
    let seed =
        std::env::var("BUGLE_SEED").map_or(usual, |text| text.parse().expect("BUGLE_SEED is a number"));
    println!("BUGLE_SEED={seed}");
    seed
}
