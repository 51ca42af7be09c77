//! The Bugle client for microcontrollers: signals to one client, a group, some of a group or all but some,
//! with what became of them at every recipient, over any byte stream. `no_std`, no heap; the same code runs
//! on Linux.
//!
//! [`new`] makes a [`Client`] for the application and a [`Runner`] for a task of its own, both on memory that
//! the application sizes ([`State`]). The runner connects, proves the credential, keeps the connection alive,
//! restores groups and subscriptions, and connects again with full jitter. It is generic over
//! [`embedded_io_async`] 0.7 and [`DelayNs`](embedded_hal_async::delay::DelayNs): embassy-net and
//! `embassy_time::Delay` on boards, tokio on Linux.
//!
//! ```
//! use bugle_device::*;
//! use embassy_sync::blocking_mutex::raw::NoopRawMutex;
//!
//! async fn lamp(client: Client<'_, NoopRawMutex>) -> Result<(), SendError> {
//!     client.join("floor3").await?;
//!     loop {
//!         // The payload is lent, not copied. A signal past its deadline never gets here (S9).
//!         let (is_on, reply_to) = client
//!             .receive(|incoming| match incoming {
//!                 Incoming::Signal { sender, payload, .. } => (payload == b"on", heapless::String::try_from(sender).ok()),
//!                 Incoming::Message { .. } => (false, None::<heapless::String<64>>),
//!             })
//!             .await;
//!         if let (true, Some(sender)) = (is_on, reply_to) {
//!             let options = SendOptions { ttl: Some(500), ..SendOptions::default() };
//!             match client.send(Target::client(&sender), b"is on", &options).await {
//!                 Ok(Accepted) => {}
//!                 Err(SendError::Refused { reason, retry_after }) => { /* the gateway says why, and when to try again */ }
//!                 Err(error) => return Err(error),
//!             }
//!         }
//!     }
//! }
//!
//! # use embedded_io_async::{Read, Write};
//! # use embedded_hal_async::delay::DelayNs;
//! # async fn example<T: Read + Write>(open_socket: impl AsyncFn() -> Result<T, ()>, mut delay: impl DelayNs) {
//! # fn milliseconds() -> u64 { 0 }
//! // In firmware: `static STATE: ConstStaticCell<State<NoopRawMutex>> = ConstStaticCell::new(State::new())`, and two tasks.
//! let mut state = State::<NoopRawMutex>::new();
//! let config = Config::new("lamp-1", b"a secret of this lamp alone", 0x5EED);
//! let (client, mut runner) = new(&mut state, config, milliseconds).unwrap();
//! let mut connector = async || open_socket().await;
//! embassy_futures::select::select(runner.run(&mut connector, &mut delay), lamp(client)).await;
//! # }
//! ```
//!
//! # On a board
//!
//! docs/device-sdk.md in the repository goes from nothing to a commanded board, firmware-example is one application on five boards, and
//! firmware-example/size/src/bin/sdk.rs the smallest whole one. What has to be decided:
//!
//! - **Memory.** All of it is a [`State`], in a `ConstStaticCell`. Its default takes payloads of some 370 bytes, four at a time, and sends
//!   of almost a kilobyte. One that only obeys short commands:
//!
//!   ```
//!   use bugle_device::{Config, State, new};
//!   use embassy_sync::blocking_mutex::raw::NoopRawMutex;
//!
//!   // Receives into 800 bytes, sends from 256, without handles, one outcome at a time, 32 bytes of groups, no named receipts.
//!   let mut memory = State::<NoopRawMutex, 800, 256, 0, 1, 32, 0>::new();
//!   let made = new(&mut memory, Config::new("lamp-1", b"a secret of this lamp alone", 7), || 0);
//!   assert!(made.is_ok());
//!   ```
//!
//! - **Power.** A board with nothing to say wakes its radio for the pings of [`Config::keep_alive`] and [`Config::clock_sync`]: 79 times an
//!   hour by default, 3 times with 1200 s for both. What that costs in bytes, and what it takes away from deadlines, is in docs/device-sdk.md.
//! - **Errors.** [`SendError`], [`Disconnect`], [`ConfigError`] and each [`Reason`] have a line there with what to do. The runner connects again
//!   by itself; [`Disconnect::needs_help`] says when a person has to do something.
//! - **A watchdog** may be fed by the task that runs the [`Runner`]: none of its awaits is without an end.
//!
//! # What it does of its own accord
//!
//! - **Deadlines.** It follows the gateway's clock by its pings and drops what isn't surely in time, when it
//!   arrives and again when the application takes it. The sender hears EXPIRED.
//! - **Back-pressure.** A delivery is acknowledged once the application has taken it. Until then it holds its
//!   place in the receive buffer and in the gateway's window.
//! - **Nothing twice.** What was written but not acknowledged when a session is lost is
//!   [`Unconfirmed`](SendError::Unconfirmed) and is never sent again by itself (S12). Give it an
//!   [id](SendOptions::id), and the application may.
//! - **Bounds.** Every buffer and table is sized by [`State`]; what doesn't fit is refused with a reason and
//!   counted ([`Counters`]), never dropped in silence.
//!
//! # On Linux, and between threads
//!
//! The transport is `embedded_io_adapters::tokio_1::FromTokio<TcpStream>`, the delay four lines over
//! `tokio::time::sleep` (tests/tcp.rs has both). With `CriticalSectionRawMutex`, a leaked [`State`] and an
//! `async move` closure as connector, the runner's future may be spawned on a runtime with many threads;
//! critical-section then needs its `std` feature.
//!
//! # Features
//!
//! `defmt`: `defmt::Format` on public types, and log lines through defmt. `log`: log lines through the log
//! crate. `names`: each name is sent once, and a handle from then on. `tls`: TLS 1.3 to the gateway, over any socket. `flash-outbox`: messages that survive a power cut.
//! None is on by default.
//!
//! Those who bring their own loop, or want virtual time, use [`session::Session`], which is all of it without
//! IO.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

#[macro_use]
mod notice;
mod client;
mod config;
#[cfg(feature = "flash-outbox")]
pub mod flash_outbox;
mod runner;
pub mod session;
mod signal;
mod state;
#[cfg(feature = "tls")]
pub mod tls;

pub use bugle_protocol as protocol;
pub use bugle_protocol::{Mode, Reason, ReceiptCounts, ReceiptMode, Status};

pub use client::{Acceptance, Client, Sending};
pub use config::{Config, ConfigError, MAX_WILL, WillError, will};
pub use runner::{Connect, Runner};
pub use signal::{
    Accepted, Connection, Counters, Disconnect, Event, Incoming, Receipt, SendError, SendOptions, Target,
};
pub use state::{State, new};
