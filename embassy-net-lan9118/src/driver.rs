//! The controller as embassy-net wants it: tokens for one frame in and one out, and a waker for the interrupt.

use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;

use crate::bus::{Bus, Register};
use crate::chip::{Chip, Error, MTU, interrupt};

/// Frames that the receive FIFO holds if they are as long as they can be.
const BURST: usize = 6;

/// What driver and interrupt handler share.
pub struct State {
    waker: AtomicWaker,
    link_changed: AtomicBool,
}

impl State {
    /// For one controller.
    #[must_use]
    pub const fn new() -> Self {
        Self { waker: AtomicWaker::new(), link_changed: AtomicBool::new(false) }
    }

    /// For the interrupt handler: silences the controller until the driver has looked at it, and wakes the stack.
    pub fn on_interrupt(&self, bus: &impl Bus) {
        let status = bus.read(Register::InterruptStatus);
        bus.write(Register::InterruptEnable, 0);
        bus.write(Register::InterruptStatus, status & !interrupt::PHY);
        if status & interrupt::PHY != 0 {
            self.link_changed.store(true, Ordering::Relaxed);
        }
        self.waker.wake();
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// The driver.
pub struct Lan9118<'s, B> {
    chip: Chip<B>,
    state: &'s State,
    address: [u8; 6],
    has_link: bool,
    received: [u8; MTU],
    outgoing: [u8; MTU],
}

impl<'s, B: Bus> Lan9118<'s, B> {
    /// Resets and starts the controller. `fallback` becomes its address where it has none of its own.
    ///
    /// Its interrupt line may be enabled after that, not before: out of reset it is active low.
    pub fn new(bus: B, state: &'s State, fallback: [u8; 6]) -> Result<Self, Error> {
        let (chip, address) = Chip::start(bus, fallback)?;
        let has_link = chip.has_link();
        Ok(Self { chip, state, address, has_link, received: [0; MTU], outgoing: [0; MTU] })
    }

    /// Its address.
    pub fn address(&self) -> [u8; 6] {
        self.address
    }
}

impl<B: Bus> Driver for Lan9118<'_, B> {
    type RxToken<'a>
        = ReceiveToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TransmitToken<'a, B>
    where
        Self: 'a;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.state.waker.register(context.waker());
        // An interrupt comes only with the next frame, so one that waits already has to be seen after it is allowed.
        self.chip.allow(interrupt::RECEIVED | interrupt::PHY);
        while self.chip.has_frame() {
            if !self.chip.has_room() {
                self.chip.allow(interrupt::ROOM | interrupt::PHY);
                // It may have been made just before that.
                if !self.chip.has_room() {
                    return None;
                }
            }
            if let Some(length) = self.chip.receive(&mut self.received) {
                let received = ReceiveToken { frame: &mut self.received[..length] };
                return Some((received, TransmitToken { chip: &self.chip, frame: &mut self.outgoing }));
            }
        }
        None
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Self::TxToken<'_>> {
        if !self.chip.has_room() {
            self.state.waker.register(context.waker());
            self.chip.allow(interrupt::RECEIVED | interrupt::ROOM | interrupt::PHY);
            if !self.chip.has_room() {
                return None;
            }
        }
        Some(TransmitToken { chip: &self.chip, frame: &mut self.outgoing })
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        self.state.waker.register(context.waker());
        if self.state.link_changed.swap(false, Ordering::Relaxed) {
            self.has_link = self.chip.has_link();
            self.chip.allow(interrupt::RECEIVED | interrupt::PHY);
        }
        if self.has_link { LinkState::Up } else { LinkState::Down }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MTU;
        capabilities.max_burst_size = Some(BURST);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}

/// A frame that came.
pub struct ReceiveToken<'a> {
    frame: &'a mut [u8],
}

impl RxToken for ReceiveToken<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        f(self.frame)
    }
}

/// Room for a frame to be sent.
pub struct TransmitToken<'a, B> {
    chip: &'a Chip<B>,
    frame: &'a mut [u8; MTU],
}

impl<B: Bus> TxToken for TransmitToken<'_, B> {
    fn consume<R, F>(self, length: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        // The stack keeps to the capabilities.
        let frame = &mut self.frame[..length.min(MTU)];
        let result = f(frame);
        self.chip.send(frame);
        result
    }
}

#[cfg(test)]
mod tests;
