//! The sends that somebody waits for, and the entries of their receipts until somebody reads them.
//!
//! An outcome is an acknowledgement or a refusal, and then, where it was asked for, a receipt, which may come
//! in parts, before the acknowledgement, and twice (S8: the first one interim).

use core::ops::Range;

use bugle_protocol::{MAX_NAME, Reason, Status};
use heapless::String;

use super::timer::{NEVER, Timer};
use crate::signal::{Accepted, Receipt, SendError};

/// How long a receipt may take after the acknowledgement if the send has no ttl (S8), and what is added
/// for the way, in milliseconds.
const RECEIPT_CLOSES: u32 = 10_000;
const RECEIPT_SLACK: u32 = 5_000;

/// A send that somebody waits for.
#[derive(Debug, Default)]
pub struct SendSlot(Option<Waiting>);

impl SendSlot {
    /// One that holds nothing.
    pub const EMPTY: Self = Self(None);
}

#[derive(Debug)]
struct Waiting {
    _taken: Taken,
    number: u32,
    ack: Ack,
    receipt: ReceiptState,
    /// How long the receipt may take from the acknowledgement, in milliseconds; or [`NEVER`].
    receipt_time: u32,
    /// Until the receipt is lost.
    receipt_timer: Timer,
    /// The session is over, and no further receipt comes.
    is_over: bool,
    collected: Receipt,
}

/// No other field leaves so many bit patterns over, so that 0 stands for an empty slot: memory made by the compiler is then
/// all zeros, and takes no flash.
#[derive(Debug)]
#[repr(u32)]
enum Taken {
    Yes = 1,
}

#[derive(Clone, Copy, Debug)]
enum Ack {
    Waiting,
    Accepted,
    Failed(SendError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiptState {
    NotAsked,
    Waiting,
    Complete,
    Lost,
}

/// What a send says about its receipt.
#[derive(Clone, Copy)]
pub(super) enum ReceiptWish {
    None,
    /// Closes after the ttl, or after 10 s without one.
    Within(Option<u32>),
    /// May end after any time: stored for offline recipients (S10).
    Whenever,
}

impl Waiting {
    /// Whether a receipt may still come: the one that ends an interim one that nobody took yet replaces it.
    fn awaits_receipt(&self) -> bool {
        match self.receipt {
            ReceiptState::Waiting => true,
            ReceiptState::Complete => self.collected.interim,
            ReceiptState::NotAsked | ReceiptState::Lost => false,
        }
    }
}

pub(super) struct Outcomes<'a> {
    slots: &'a mut [SendSlot],
    /// Entries of receipts: slot, status, length, client id.
    entries: &'a mut [u8],
    entries_end: usize,
}

const ENTRY_HEADER: usize = 3;

impl<'a> Outcomes<'a> {
    pub(super) fn new(slots: &'a mut [SendSlot], entries: &'a mut [u8]) -> Self {
        // A slot's place is written in one byte.
        let count = slots.len().min(256);
        Self { slots: &mut slots[..count], entries, entries_end: 0 }
    }

    /// A free slot's place.
    pub(super) fn vacant(&self) -> Option<u8> {
        self.slots.iter().position(|slot| slot.0.is_none()).map(|index| index as u8)
    }

    pub(super) fn claim(&mut self, index: u8, number: u32, wish: ReceiptWish) {
        let (receipt, receipt_time) = match wish {
            ReceiptWish::None => (ReceiptState::NotAsked, NEVER),
            ReceiptWish::Within(ttl) => {
                let closes = ttl.unwrap_or(RECEIPT_CLOSES).saturating_add(RECEIPT_SLACK);
                (ReceiptState::Waiting, closes)
            }
            ReceiptWish::Whenever => (ReceiptState::Waiting, NEVER),
        };
        self.slots[usize::from(index)].0 = Some(Waiting {
            _taken: Taken::Yes,
            number,
            ack: Ack::Waiting,
            receipt,
            receipt_time,
            receipt_timer: Timer::ENDLESS,
            is_over: false,
            collected: Receipt::default(),
        });
    }

    /// Nobody waits any longer.
    pub(super) fn release(&mut self, index: u8) {
        self.slots[usize::from(index)].0 = None;
        while let Some(entry) = self.entry(index) {
            self.remove_entry(&entry);
        }
    }

    /// Where the oldest entry of this send's receipts stands.
    fn entry(&self, index: u8) -> Option<Range<usize>> {
        let mut at = 0;
        while let Some([slot, _, length, ..]) = self.entries.get(at..self.entries_end) {
            let end = at + ENTRY_HEADER + usize::from(*length);
            if *slot == index {
                return Some(at..end);
            }
            at = end;
        }
        None
    }

    fn remove_entry(&mut self, entry: &Range<usize>) {
        self.entries.copy_within(entry.end..self.entries_end, entry.start);
        self.entries_end -= entry.len();
    }

    fn waiting(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.slots.iter_mut().filter_map(|slot| slot.0.as_mut())
    }

    /// All frames before `first` are acknowledged.
    pub(super) fn acknowledged(&mut self, first: u32, now: u32) {
        for send in self.waiting() {
            // Numbers here are within the outbox, so far less than half their range apart.
            if matches!(send.ack, Ack::Waiting) && (send.number.wrapping_sub(first) as i32) < 0 {
                send.ack = Ack::Accepted;
                send.receipt_timer = Timer::new(now, send.receipt_time);
            }
        }
    }

    /// Whether somebody waited for it.
    pub(super) fn refused(&mut self, number: u16, reason: Reason, retry_after: u32) -> bool {
        for send in self.waiting() {
            if matches!(send.ack, Ack::Waiting) && send.number as u16 == number {
                send.ack = Ack::Failed(SendError::Refused { reason, retry_after });
                return true;
            }
        }
        false
    }

    /// Somebody's place who waits for the receipt of this send.
    pub(super) fn awaiting_receipt(&self, number: u16) -> Option<u8> {
        let waits = |send: &Waiting| {
            send.number as u16 == number && send.awaits_receipt() && !matches!(send.ack, Ack::Failed(_))
        };
        self.slots.iter().position(|slot| slot.0.as_ref().is_some_and(waits)).map(|index| index as u8)
    }

    /// Keeps an entry of a receipt until it is taken; one that doesn't fit is missing, which the receipt
    /// says.
    pub(super) fn add_entry(&mut self, index: u8, client: &str, status: Status) {
        let length = ENTRY_HEADER + client.len();
        match self.entries.get_mut(self.entries_end..self.entries_end + length) {
            Some(entry) if client.len() <= MAX_NAME => {
                entry[..ENTRY_HEADER].copy_from_slice(&[index, status.code(), client.len() as u8]);
                entry[ENTRY_HEADER..].copy_from_slice(client.as_bytes());
                self.entries_end += length;
            }
            _ => {
                if let Some(send) = &mut self.slots[usize::from(index)].0 {
                    send.collected.truncated = true;
                }
            }
        }
    }

    pub(super) fn add_receipt(&mut self, index: u8, part: &bugle_protocol::Receipt<'_>) {
        let Some(send) = &mut self.slots[usize::from(index)].0 else { return };
        send.collected.counts = part.counts;
        send.collected.interim = part.interim;
        send.collected.duplicate = part.duplicate;
        send.receipt = if part.more { ReceiptState::Waiting } else { ReceiptState::Complete };
    }

    /// The oldest entry of this send's receipts.
    pub(super) fn take_entry(&mut self, index: u8) -> Option<(String<MAX_NAME>, Status)> {
        let entry = self.entry(index)?;
        let [_, status, _, text @ ..] = self.entries.get(entry.clone())? else { return None };
        let text = core::str::from_utf8(text).unwrap_or_default();
        let taken = (String::try_from(text).ok()?, Status::from_code(*status)?);
        self.remove_entry(&entry);
        Some(taken)
    }

    /// The session is over, and all frames from `unwritten` on were not wholly written.
    pub(super) fn session_lost(&mut self, unwritten: u32) {
        for send in self.waiting() {
            match send.ack {
                Ack::Waiting if (send.number.wrapping_sub(unwritten) as i32) < 0 => {
                    send.ack = Ack::Failed(SendError::Unconfirmed);
                }
                Ack::Waiting => send.ack = Ack::Failed(SendError::NotSent),
                Ack::Accepted | Ack::Failed(_) => {}
            }
            send.is_over = true;
            if send.receipt == ReceiptState::Waiting {
                send.receipt = ReceiptState::Lost;
            }
        }
    }

    /// Whether something ended.
    pub(super) fn handle_time(&mut self, now: u32) -> bool {
        let mut has_ended = false;
        for send in self.waiting() {
            if send.receipt == ReceiptState::Waiting && send.receipt_timer.left(now) == 0 {
                send.receipt = ReceiptState::Lost;
                has_ended = true;
            }
        }
        has_ended
    }

    /// Milliseconds until [`handle_time`](Self::handle_time) has something to do.
    pub(super) fn left(&self, now: u32) -> u32 {
        let open = |slot: &SendSlot| match &slot.0 {
            Some(send) if send.receipt == ReceiptState::Waiting => send.receipt_timer.left(now),
            _ => NEVER,
        };
        self.slots.iter().map(open).min().unwrap_or(NEVER)
    }

    /// Whether the frame was taken; `None` while that is open.
    pub(super) fn acceptance(&self, index: u8) -> Option<Result<Accepted, SendError>> {
        match self.slots[usize::from(index)].0.as_ref()?.ack {
            Ack::Waiting => None,
            Ack::Accepted => Some(Ok(Accepted)),
            Ack::Failed(error) => Some(Err(error)),
        }
    }

    /// The receipt; `None` while it is open. An interim one is followed by another, which may be asked for
    /// likewise.
    pub(super) fn take_receipt(&mut self, index: u8) -> Option<Result<Receipt, SendError>> {
        let send = self.slots[usize::from(index)].0.as_mut()?;
        match (send.ack, send.receipt) {
            (Ack::Failed(error), _) => Some(Err(error)),
            (_, ReceiptState::Complete) => {
                let receipt = send.collected;
                let follows = receipt.interim && !send.is_over;
                send.receipt = if follows { ReceiptState::Waiting } else { ReceiptState::Lost };
                // The second one comes when the last stored copy has ended.
                send.receipt_timer = Timer::ENDLESS;
                send.receipt_time = NEVER;
                send.collected = Receipt::default();
                Some(Ok(receipt))
            }
            (Ack::Accepted, ReceiptState::Lost | ReceiptState::NotAsked) => Some(Err(SendError::NoReceipt)),
            (Ack::Waiting, _) | (_, ReceiptState::Waiting) => None,
        }
    }
}
