//! Firmware on the Bugle device SDK. For now it only boots, with the SDK linked in, and ends through
//! semihosting: exit code 0 when it got this far, 1 after a panic.
//!
//! Read `README.md` first. Boards, the network and the application come with the firmware's own issue.

#![no_std]
#![no_main]

// Linked although unused, so that the build fails should the SDK want std, a heap or more than `memory.x` has.
use bugle_device as _;
use bugle_protocol as _;
use panic_semihosting as _;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};

#[entry]
fn main() -> ! {
    hprintln!("bugle-firmware-example: up");
    debug::exit(debug::EXIT_SUCCESS);
    // Reached only where no debugger or QEMU serves semihosting calls.
    loop {
        cortex_m::asm::wfi();
    }
}
