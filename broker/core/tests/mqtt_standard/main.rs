//! What the two MQTT standards say of a server, clause by clause, over the whole gateway in virtual time.
//! docs/mqtt-conformance.md names these tests.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod auth;
mod connecting;
mod durable;
mod fields;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../gateway/mod.rs"]
mod gateway;
mod malformed;
mod peer;
mod principals;
mod properties;
mod publishing;
mod retained;
mod sessions;
mod shared;
mod signals;
mod subscribing;
mod wills;
