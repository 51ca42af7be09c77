//! A flash that the board doesn't have: memory that outlasts a reset. It lies at the start of the board's PSRAM (0x21000000, 16 MB), where
//! neither the image nor its stack and statics are, so that neither start-up code nor QEMU's `system_reset` touches it.
//!
//! As in a NOR flash, erased bytes are 0xFF and a write only clears bits. It can be told to stop in the middle: after some words it
//! logs `stalled` and never goes on, until the board is reset.

use core::future::pending;
use core::sync::atomic::{AtomicU32, Ordering};

use embedded_storage_async::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

const BASE: usize = 0x2100_0000;
/// Before the flash: whether it was erased when the power came, for memory is all zeros then.
const ERASED: u32 = 0x0F1A_54ED;
const WORD: usize = 4;
const PAGE: usize = 512;
const SIZE: usize = 8 * PAGE;

/// Words and pages until it stalls; 0 for never.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// The flash, of 8 pages of 512 bytes.
pub struct Flash(());

/// An access beside words or pages, or over the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub struct OutOfBounds;

impl NorFlashError for OutOfBounds {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

impl Flash {
    /// All of it.
    pub const RANGE: core::ops::Range<u32> = 0..SIZE as u32;

    /// Opens it, once.
    pub fn open() -> Self {
        let mut flash = Self(());
        if flash.word(0) != ERASED {
            (0..SIZE / WORD).for_each(|word| flash.set_word(1 + word, u32::MAX));
            flash.set_word(0, ERASED);
        }
        flash
    }

    /// Has it stall in the middle, after so many words and pages.
    pub fn stall_after(operations: u32) {
        LEFT.store(operations, Ordering::Relaxed);
    }

    #[allow(unsafe_code, reason = "memory that nothing else uses")]
    fn word(&self, index: usize) -> u32 {
        // Safety: PSRAM has 16 MB, and callers stay within SIZE and a word; only this type, of which there is one, uses it.
        unsafe { ((BASE + index * WORD) as *const u32).read_volatile() }
    }

    #[allow(unsafe_code, reason = "memory that nothing else uses")]
    fn set_word(&mut self, index: usize, value: u32) {
        // Safety: as above.
        unsafe { ((BASE + index * WORD) as *mut u32).write_volatile(value) }
    }

    /// Whether this operation is the one that isn't finished.
    fn is_last(&self) -> bool {
        let left = LEFT.load(Ordering::Relaxed);
        LEFT.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 1
    }

    async fn stall(&self) {
        defmt::info!("stalled");
        pending().await
    }
}

/// The first word's index, of whole units within the flash.
fn index(offset: u32, length: usize, unit: usize) -> Result<usize, OutOfBounds> {
    let offset = offset as usize;
    let is_within = offset <= SIZE && length <= SIZE - offset;
    let is_whole = offset.is_multiple_of(unit) && length.is_multiple_of(unit);
    if is_within && is_whole { Ok(1 + offset / WORD) } else { Err(OutOfBounds) }
}

impl ErrorType for Flash {
    type Error = OutOfBounds;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let first = index(offset, bytes.len(), WORD)?;
        for (word, at) in bytes.chunks_exact_mut(WORD).zip(first..) {
            word.copy_from_slice(&self.word(at).to_le_bytes());
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        SIZE
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), OutOfBounds> {
        let length = to.checked_sub(from).ok_or(OutOfBounds)? as usize;
        let first = index(from, length, PAGE)?;
        for page in 0..length / PAGE {
            let is_last = self.is_last();
            let words = if is_last { PAGE / WORD / 2 } else { PAGE / WORD };
            (0..words).for_each(|word| self.set_word(first + page * (PAGE / WORD) + word, u32::MAX));
            if is_last {
                self.stall().await;
            }
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let first = index(offset, bytes.len(), WORD)?;
        for (word, at) in bytes.as_chunks::<WORD>().0.iter().zip(first..) {
            let is_last = self.is_last();
            let new = u32::from_le_bytes(*word) | if is_last { 0xFFFF_0000 } else { 0 };
            self.set_word(at, self.word(at) & new);
            if is_last {
                self.stall().await;
            }
        }
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}
