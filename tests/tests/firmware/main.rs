//! Firmware of ours on an emulated Cortex-M with an Ethernet controller, against the real gateway and real MQTT clients.
//! Each test has `qemu` in its name, since it needs QEMU and a compiler for Cortex-M.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod cable;
mod lamp;
mod limits;
mod modes;
mod names;
mod power;
mod restart;
mod tls;
