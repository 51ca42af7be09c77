//! What the black-box tests are written with: a gateway of their own, and clients as a user has them.
//!
//! Everything here talks to built programs over sockets and pipes, in ways that are open to every user. It waits for
//! events, [`PATIENCE`] at most, and panics with what it has seen where one doesn't come. A process that it starts
//! ends with the value that stands for it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test says that something went wrong")]

use std::future::Future;
use std::time::Duration;

mod app;
mod broker;
mod browser;
mod built;
mod certificates;
mod device;
pub mod differential;
mod faulty_disk;
mod firmware;
mod foreign;
mod gateway;
mod mosquitto;
mod mqtt_bytes;
mod operator;
pub mod overload;
mod program;
pub mod readme;
pub mod soak;
pub mod websocket;

pub use app::{Acknowledgement, App, Message, Version, Way};
pub use broker::{Broker, Collector, Link, Listens, Scratch, free_port};
pub use browser::{Browser, File};
pub use built::{bugle_program, example_program};
pub use certificates::{Authority, Certificate, Tls, tls, tls_on};
pub use device::{Device, Outcome, Signal, config};
pub use faulty_disk::{Disk, FaultyDisk};
pub use firmware::{Core, Firmware};
pub use foreign::{foreign, in_foreign, source};
pub use gateway::{Gateway, Setup};
pub use mosquitto::{mosquitto_pub, mosquitto_rr, mosquitto_sub};
pub use mqtt_bytes::{
    RawClient, connect_packet, connect_packet_with_will, device_hello, disconnect_reason, mqtt_packet,
    packet as raw_packet, publish_packet, subscribe_packet, text as raw_text,
};
pub use operator::{Answered, Operators};
pub use program::{Finished, Program};

/// How long anything may take. Generous, so that only what will never come is missed on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `event`, and panics if it doesn't come.
#[track_caller]
pub fn soon<F: Future>(what: &str, event: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(value) => value,
            Err(_) => panic!("{what} didn't come ({place})"),
        }
    }
}
