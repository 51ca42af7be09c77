//! Bugle's gateway without sockets, files, clocks, threads or randomness of its own: all of these are
//! arguments, so that the whole of it can be run in one thread with virtual time.
//!
//! The way of one message: bytes → [`session`] (checks, makes a [`model::Command`]) → [`rules`] (one pure
//! function) → [`hub`] (which shards, which recipients, mailboxes) → [`session`] of the recipient → bytes.
//! A session never sees the hub, a topic tree or a rule. The MQTT version exists only in [`mqtt`].
#![forbid(unsafe_code)]

pub mod backbone;
pub mod hub;
pub mod model;
pub mod mqtt;
pub mod rules;
pub mod session;
pub mod store;
