//! The log: defmt through semihosting, where it stays in order with exit codes. What ends the program is its last line.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use defmt_semihosting as _;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    crate::semihosting::exit(false)
}

#[allow(unsafe_code, reason = "what the attribute wants")]
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {:#010x}", frame.pc());
    crate::semihosting::exit(false)
}
