//! The first serial line, input only.

use core::cell::RefCell;
use core::future::poll_fn;
use core::task::Poll;

use critical_section::Mutex;
use embassy_sync::waitqueue::AtomicWaker;
use heapless::Deque;

use crate::interrupts::Interrupt;

/// What was received and not taken. It holds any line that someone types.
static BYTES: Mutex<RefCell<Deque<u8, 256>>> = Mutex::new(RefCell::new(Deque::new()));
static WAKER: AtomicWaker = AtomicWaker::new();

const BASE: usize = 0x4000_4000;
const DATA: usize = 0x0;
const STATE: usize = 0x4;
const CONTROL: usize = 0x8;
const INTERRUPTS: usize = 0xC;
const DIVIDER: usize = 0x10;

#[allow(unsafe_code, reason = "registers of the board")]
fn read(offset: usize) -> u32 {
    // Safety: the board's first UART is there; only this module uses it.
    unsafe { ((BASE + offset) as *const u32).read_volatile() }
}

#[allow(unsafe_code, reason = "registers of the board")]
fn write(offset: usize, value: u32) {
    // Safety: as above.
    unsafe { ((BASE + offset) as *mut u32).write_volatile(value) }
}

/// For its interrupt.
pub(crate) fn on_interrupt() {
    let is_kept = critical_section::with(|cs| {
        write(INTERRUPTS, 1 << 1);
        let is_empty = read(STATE) & 1 << 1 == 0;
        is_empty || BYTES.borrow(cs).borrow_mut().push_back(read(DATA) as u8).is_ok()
    });
    if !is_kept {
        defmt::error!("a serial byte is lost");
    }
    WAKER.wake();
}

/// The serial line.
pub struct Serial(());

impl Serial {
    /// Opens it, once.
    pub fn open() -> Self {
        write(DIVIDER, 25_000_000 / 115_200);
        // Receiver, and its interrupt.
        write(CONTROL, 1 << 1 | 1 << 3);
        Interrupt::SerialReceive.enable();
        Self(())
    }

    /// The next byte. Cancel-safe.
    pub async fn byte(&mut self) -> u8 {
        poll_fn(|context| {
            WAKER.register(context.waker());
            match critical_section::with(|cs| BYTES.borrow(cs).borrow_mut().pop_front()) {
                Some(byte) => Poll::Ready(byte),
                None => Poll::Pending,
            }
        })
        .await
    }
}
