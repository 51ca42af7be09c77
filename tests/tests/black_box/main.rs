//! The gateway from outside: built programs, real sockets, other people's clients. A test that needs a foreign program
//! has its name in its own.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod admin_api;
mod attacks;
mod audit;
mod authentication_hook;
mod bad_input;
mod bench;
mod bridge;
mod commands;
mod connections;
mod credentials;
mod device_and_mqtt;
mod device_tls;
mod differential;
mod examples;
mod framing_client;
mod init;
mod mosquitto;
mod mqtt_refusals;
mod mqtt_standard;
mod operate;
mod operator;
mod overload;
mod passwords;
mod presence;
mod readme;
mod revocation;
mod rules;
mod slow_reader;
mod soak;
#[cfg(target_os = "linux")]
mod store;
mod sys_topics;
mod tls;
mod tokens;
mod websocket;
