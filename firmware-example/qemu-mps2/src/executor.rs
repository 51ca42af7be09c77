//! embassy's executor with a sleep of our own: QEMU takes WFE, by which the usual one sleeps, for a hint and runs on,
//! and would keep a core of the host busy. WFI it obeys.

use core::sync::atomic::{AtomicBool, Ordering};

use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static HAS_WORK: AtomicBool = AtomicBool::new(false);

/// Runs tasks for ever; `init` spawns the first. Can be called once.
#[allow(unsafe_code, reason = "to poll an executor")]
pub fn run(init: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    begin(init, executor.spawner());
    loop {
        HAS_WORK.store(false, Ordering::Relaxed);
        // Safety: it is polled here alone, never from within itself, and was initialised above.
        unsafe { executor.poll() };
        // With interrupts off one that comes now ends the sleep, and is served after it.
        critical_section::with(|_| {
            if !HAS_WORK.load(Ordering::Relaxed) {
                cortex_m::asm::wfi();
            }
        });
    }
}

/// Apart from the loop, in whose place on the stack all that the start takes would stay for ever.
#[inline(never)]
fn begin(init: impl FnOnce(Spawner), spawner: Spawner) {
    init(spawner);
}

#[allow(unsafe_code, reason = "the name by which embassy finds it")]
// Safety: nothing else has this name.
#[unsafe(export_name = "__pender")]
fn pend(_context: *mut ()) {
    HAS_WORK.store(true, Ordering::Relaxed);
}
