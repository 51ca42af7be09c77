//! The board's interrupts by number: one handler for all, since there is no device crate with a table of them.

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;

/// An interrupt of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Interrupt {
    SerialReceive = 0,
    Timer0 = 8,
    Timer1 = 9,
    Ethernet = 13,
}

#[allow(unsafe_code, reason = "these are the numbers of the board's manual, all below 32")]
// Safety: each number is one line of the NVIC.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

impl Interrupt {
    /// Lets it through, without what came before.
    #[allow(unsafe_code, reason = "unmasking breaks no critical section here: none is built on masks")]
    pub fn enable(self) {
        NVIC::unpend(self);
        // Safety: critical sections of this program disable all interrupts, not single ones.
        unsafe { NVIC::unmask(self) };
    }
}

#[allow(unsafe_code, reason = "what the attribute wants")]
#[exception]
unsafe fn DefaultHandler(number: i16) {
    match number {
        0 => crate::serial::on_interrupt(),
        8 => crate::time::on_wrap(),
        9 => crate::time::on_alarm(),
        13 => crate::network::on_interrupt(),
        _ => defmt::panic!("an interrupt that nobody allowed: {}", number),
    }
}
