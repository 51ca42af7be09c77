//! Other people's MQTT clients, each doing what it can: every QoS, wills, retained messages, sessions that outlive a cut, shared
//! subscriptions, and signals; over TCP and WebSocket, in MQTT 3.1.1 and 5.
//!
//! Each suite runs against Bugle with one and three shards, and, without what is Bugle's own, against Mosquitto: where it fails there, the
//! suite is wrong. A test has the name of the program that it needs in its own.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod broker;
mod mosquitto;
mod mqtt5;
mod node;
mod node_red;
mod peer;
mod python;
mod rumqttc;
