//! An MPS2 board with a Cortex-M3 or M4, as QEMU emulates it (`mps2-an385`, `mps2-an386`), with a LAN9118.
//!
//! The lamp is an LED register that nobody sees, the button a serial line: a byte is a press. The log goes through
//! semihosting, as defmt. Settings come from QEMU's command line: see [`settings`].
#![no_std]

mod executor;
#[cfg(feature = "outbox")]
mod flash;
mod interrupts;
#[cfg(feature = "log")]
mod log;
mod network;
mod parts;
pub mod semihosting;
mod serial;
pub mod settings;
#[cfg(not(feature = "log"))]
mod silent;
mod stack;
mod time;
#[cfg(feature = "tls")]
mod tls;

pub use executor::run;
#[cfg(feature = "outbox")]
pub use flash::{Flash, OutOfBounds};
pub use network::{Network, Sockets, start_network};
pub use parts::{Led, SerialButton, Thermometer};
pub use serial::Serial;
pub use stack::{StackUse, stack_use};

/// Milliseconds since the start.
pub fn now() -> u64 {
    embassy_time::Instant::now().as_millis()
}
