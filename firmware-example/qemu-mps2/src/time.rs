//! embassy's time by two CMSDK timers, which count down at 25 MHz: one runs for ever and tells the time, the other
//! counts to the next alarm.
//!
//! The first starts anew every 100 s. That moment counts when its interrupt status says so, served or not.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

use crate::interrupts::Interrupt;

/// Cycles of the timers in a microsecond, which is embassy's tick here.
const CYCLES: u32 = 25;
/// Ticks in a round of the clock.
const ROUND: u32 = 100_000_000;
/// Of the control register: counts; interrupts.
const COUNT: u32 = 1;
const INTERRUPT: u32 = 1 << 3;

/// A CMSDK APB timer.
#[derive(Clone, Copy)]
struct Timer(usize);

const CLOCK: Timer = Timer(0x4000_0000);
const ALARM: Timer = Timer(0x4000_1000);

#[allow(unsafe_code, reason = "registers of the board")]
impl Timer {
    fn read(self, offset: usize) -> u32 {
        // Safety: the board has these timers at these places; reading them has no effect.
        unsafe { ((self.0 + offset) as *const u32).read_volatile() }
    }

    fn write(self, offset: usize, value: u32) {
        // Safety: as above; only this module uses them.
        unsafe { ((self.0 + offset) as *mut u32).write_volatile(value) }
    }

    fn control(self, bits: u32) {
        self.write(0x0, bits);
    }

    /// Counts down from here, and again.
    fn count_from(self, cycles: u32) {
        self.write(0x8, cycles);
        self.write(0x4, cycles);
    }

    fn value(self) -> u32 {
        self.read(0x4)
    }

    fn has_ended(self) -> bool {
        self.read(0xC) & 1 != 0
    }

    fn clear(self) {
        self.write(0xC, 1);
    }
}

struct Timers {
    /// Rounds of the clock that were counted; nothing before the start.
    rounds: Mutex<Cell<Option<u32>>>,
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static TIMERS: Timers = Timers {
    rounds: Mutex::new(Cell::new(None)),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl Timers {
    /// Starts the clock with whoever asks first.
    fn start(&self, cs: CriticalSection<'_>) -> u32 {
        self.rounds.borrow(cs).get().unwrap_or_else(|| {
            CLOCK.count_from(ROUND * CYCLES - 1);
            CLOCK.control(COUNT | INTERRUPT);
            Interrupt::Timer0.enable();
            Interrupt::Timer1.enable();
            self.rounds.borrow(cs).set(Some(0));
            0
        })
    }

    fn now(&self, cs: CriticalSection<'_>) -> u64 {
        let mut rounds = self.start(cs);
        let mut value = CLOCK.value();
        if CLOCK.has_ended() {
            // Not counted yet. What was read may be from before or after: now it is from after.
            rounds += 1;
            value = CLOCK.value();
        }
        u64::from(rounds) * u64::from(ROUND) + u64::from((ROUND * CYCLES - 1 - value) / CYCLES)
    }

    fn set_alarm(&self, cs: CriticalSection<'_>, queue: &mut Queue) {
        ALARM.control(0);
        ALARM.clear();
        let next = queue.next_expiration(self.now(cs));
        if next == u64::MAX {
            return;
        }
        // Not longer than a round, and not zero, which would never end.
        let ticks = next.saturating_sub(self.now(cs)).clamp(1, ROUND.into()) as u32;
        ALARM.count_from(ticks * CYCLES);
        ALARM.control(COUNT | INTERRUPT);
    }
}

impl Driver for Timers {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.now(cs))
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut queue = self.queue.borrow(cs).borrow_mut();
            if queue.schedule_wake(at, waker) {
                self.set_alarm(cs, &mut queue);
            }
        });
    }
}

/// For the interrupt of the clock.
pub(crate) fn on_wrap() {
    critical_section::with(|cs| {
        CLOCK.clear();
        let rounds = TIMERS.rounds.borrow(cs);
        rounds.set(rounds.get().map(|rounds| rounds.wrapping_add(1)));
    });
}

/// For the interrupt of the alarm.
pub(crate) fn on_alarm() {
    critical_section::with(|cs| TIMERS.set_alarm(cs, &mut TIMERS.queue.borrow(cs).borrow_mut()));
}
