//! [embassy-net](https://docs.rs/embassy-net) driver for the SMSC/Microchip LAN9118 family (LAN9115 to LAN9118, LAN9215
//! to LAN9218, LAN9220, LAN9221) on a 32-bit bus, as on Arm's MPS2 boards and in QEMU's emulation of them. No heap, no
//! DMA; 3 KiB of RAM for one frame each way. Frames wait in the controller.
//!
//! ```
//! use embassy_net_lan9118::{Lan9118, State, Mmio};
//!
//! static STATE: State = State::new();
//! # #[allow(unsafe_code)]
//! fn start() -> Result<Lan9118<'static, Mmio>, embassy_net_lan9118::Error> {
//!     // Safety: on this board the controller is there, and nothing else uses it.
//!     let registers = unsafe { Mmio::new(0x4020_0000) };
//!     // The address is for chips without an EEPROM.
//!     Lan9118::new(registers, &STATE, [2, 0, 0, 0, 0, 1])
//! }
//! ```
//!
//! Give the result to `embassy_net::new`, then enable the controller's interrupt line, active high, and call
//! [`State::on_interrupt`] from its handler. The receive FIFO holds 10,560 bytes and drops what doesn't fit:
//! the driver tells the stack so, which keeps its TCP windows within that.
//!
//! Read the data sheet's chapters 3.12 (transmit), 3.13 (receive) and 5 (registers) first.
#![no_std]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

mod bus;
mod chip;
mod driver;

pub use bus::{Bus, Mmio, Register};
pub use chip::Error;
pub use driver::{Lan9118, ReceiveToken, State, TransmitToken};
