//! An outbox in flash, for what must survive a power cut: a queue of messages, and a mark that says which of them was handed
//! over last. It owns a range of the flash and the order of what is in it; it refuses to send anything twice by itself (S12).
//! How bytes lie in the flash is [sequential-storage](https://docs.rs/sequential-storage)'s, which repairs what a cut broke off.
//!
//! ```text
//!  push            mark "n is handed over"      Client::send         outcome told         pop
//!  ----> stored --------------------------> in doubt ------> answered -----------> told -----> gone
//!        |                                  |                                      |
//!        cut: it is sent                    cut: it is reported as unconfirmed, and not sent
//! ```
//!
//! The range, of pages that are erased as a whole: `| messages: all but two | marks: 2 |`.
//!
//! ```
//! use bugle_device::flash_outbox::{FlashOutbox, Next};
//! use bugle_device::{Client, SendError, SendOptions, Target};
//! use embassy_sync::blocking_mutex::raw::NoopRawMutex;
//! use embedded_hal_async::delay::DelayNs;
//! use embedded_storage_async::nor_flash::MultiwriteNorFlash;
//!
//! async fn report<F: MultiwriteNorFlash>(client: Client<'_, NoopRawMutex>, flash: F, mut delay: impl DelayNs) {
//!     let mut buffer = [0; 512]; // For frames, payload and names, of up to 247 bytes.
//!     let Ok(outbox) = FlashOutbox::<NoopRawMutex, _>::open(flash, 0x1F_0000..0x1F_8000, &mut buffer).await else {
//!         return; // Corrupt: FlashOutbox::erase, or ask somebody.
//!     };
//!     let readings = async {
//!         // From here on it survives a power cut.
//!         outbox.push_signal(Target::client("hub"), b"21.5", &SendOptions::default()).await
//!     };
//!     let sending = outbox.run(client, &mut delay, |settled| {
//!         if settled.outcome == Err(SendError::Unconfirmed) { /* it may have come, or not: log settled.number */ }
//!         Next::Remove
//!     });
//!     embassy_futures::join::join(readings, sending).await;
//! }
//! ```

mod stored;

use core::ops::Range;

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_sync::mutex::Mutex;
use embassy_sync::signal::Signal;
use embedded_hal_async::delay::DelayNs;
use embedded_storage_async::nor_flash::MultiwriteNorFlash;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::queue::{QueueConfig, QueueStorage};

use crate::client::Client;
use crate::session::Request;
use crate::signal::{Accepted, SendError, SendOptions, Target};

pub use self::stored::{MAX_STORED_LIST, Stored};

/// How long [`Next::Again`] waits, in milliseconds.
const PAUSE: u32 = 1_000;
/// Pages for marks: while one is erased, the other has the last.
const MARK_PAGES: u32 = 2;
/// A mark: a message's number.
const MARK: usize = 8;
/// Room to read a mark into, whatever the flash's word.
const MARK_ROOM: usize = 32;

type Queue<'f, F> = QueueStorage<&'f mut F, Cache<Uncached, Uncached, Uncached>>;

/// Why the outbox can't do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OutboxError<E> {
    /// Caller: the range doesn't begin and end at pages, is over the flash's end, or has less than three pages; or the flash's
    /// word is over 32 bytes.
    BadRange,
    /// Caller: the message isn't one that could be sent.
    BadMessage(SendError),
    /// Caller: the message with its names is over half the buffer, or doesn't fit a page.
    TooLarge,
    /// Resource: no room before older messages are settled.
    Full,
    /// Environment: what is in the flash can't be read, or was written by a version with another format. All that helps is
    /// [`FlashOutbox::erase`], and it loses the messages.
    Corrupt,
    /// Environment: the flash's driver failed.
    Flash(E),
    /// Caller: the client's runner has ended. Nothing is lost: run it, and the outbox, again.
    Stopped,
}

impl<E> core::fmt::Display for OutboxError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadRange => "not a range of three or more pages of the flash",
            Self::BadMessage(error) => error.text(),
            Self::TooLarge => "larger than half the buffer, or than a page",
            Self::Full => "the flash is full of messages",
            Self::Corrupt => "what is in the flash can't be read",
            Self::Flash(_) => "the flash failed",
            Self::Stopped => "the client has stopped",
        })
    }
}

impl<E: core::fmt::Debug> core::error::Error for OutboxError<E> {}

impl<E> From<sequential_storage::Error<E>> for OutboxError<E> {
    fn from(error: sequential_storage::Error<E>) -> Self {
        use sequential_storage::Error as Storage;
        match error {
            Storage::Storage { value, .. } => Self::Flash(value),
            Storage::FullStorage => Self::Full,
            Storage::ItemTooBig | Storage::BufferTooBig | Storage::BufferTooSmall(_) => Self::TooLarge,
            // Whatever it may add to these, too.
            _ => Self::Corrupt,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'m> {
    /// The number that it got when it was pushed.
    pub number: u64,
    /// The message.
    pub message: &'m Stored<'m>,
    /// As of [`Client::send`] and [`Client::publish`]. [`SendError::Unconfirmed`] also where power was lost, or
    /// [`FlashOutbox::run`] was dropped, between the hand-over and this: then it may have been delivered, or refused, and even
    /// told here before.
    pub outcome: Result<Accepted, SendError>,
}

/// What to do with a message whose outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Next {
    /// Forget it, and go on with the next.
    Remove,
    /// Send it again after a second; those behind it wait. After [`SendError::Unconfirmed`] it may be delivered twice, unless it
    /// has an [id](SendOptions::id) and 120 s surely haven't passed since it was handed over (S12).
    Again,
}

/// Messages in flash, sent one after another. Shared by reference: several tasks may push while one runs it.
///
/// Awaits in it end with the flash's own, but for [`run`](Self::run). Dropping one drops the driver's read, write or erase that is under
/// way: whether the flash may be used at once after that is the driver's to say. What it leaves half done is as after a power cut.
pub struct FlashOutbox<'a, M: RawMutex, F> {
    store: Mutex<M, Store<'a, F>>,
    sending: Mutex<M, &'a mut [u8]>,
    pushed: Signal<M, ()>,
}

struct Store<'a, F> {
    flash: F,
    messages: Range<u32>,
    marks: Range<u32>,
    buffer: &'a mut [u8],
    /// The next message's number.
    next: u64,
    /// Messages up to this were handed over.
    handed_over: u64,
}

impl<'a, M: RawMutex, F: MultiwriteNorFlash> FlashOutbox<'a, M, F> {
    /// Opens the outbox in `range` of the flash, in bytes, and repairs what a power cut broke off. An erased range is an
    /// empty outbox. Half of `buffer` is for the message that is being pushed, half for the one that is being sent.
    ///
    /// Of the range's pages two are for marks, the others for messages. Each message takes, rounded up to the flash's word, 8
    /// bytes of header, 9 of number and format, and its frame: payload, names, and some bytes more. It has to fit a page, and
    /// what is left of one after the last that fits is not used. A page takes new ones when all in it are settled.
    ///
    /// Reads all that is in the range. Fails with [`OutboxError::BadRange`], [`OutboxError::Corrupt`],
    /// [`OutboxError::Flash`], and with [`OutboxError::TooLarge`] where a message is longer than half of this buffer.
    /// Cancel-safe.
    pub async fn open(
        mut flash: F,
        range: Range<u32>,
        buffer: &'a mut [u8],
    ) -> Result<Self, OutboxError<F::Error>> {
        let page = u32::try_from(F::ERASE_SIZE).map_err(|_| OutboxError::BadRange)?;
        let length = range.end.checked_sub(range.start).ok_or(OutboxError::BadRange)?;
        if page == 0 || length / page <= MARK_PAGES || range.end as usize > flash.capacity() {
            return Err(OutboxError::BadRange);
        }
        let middle = range.end - MARK_PAGES * page;
        let (messages, marks) = (range.start..middle, middle..range.end);
        let (buffer, sending) = buffer.split_at_mut(buffer.len() / 2);
        let last_pushed = last_number(&mut flash, &messages, buffer).await?;
        let handed_over = last_number(&mut flash, &marks, &mut [0; MARK_ROOM]).await?;
        // What is gone had been handed over.
        let next = last_pushed.max(handed_over).saturating_add(1);
        let store = Store { flash, messages, marks, buffer, next, handed_over };
        Ok(Self { store: Mutex::new(store), sending: Mutex::new(sending), pushed: Signal::new() })
    }

    /// Erases the range: no outbox may be open in it. What was in it is lost. Cancel-safe, as far as the driver is; an outbox
    /// that was erased half way opens, with some of its messages or none.
    pub async fn erase(flash: &mut F, range: Range<u32>) -> Result<(), OutboxError<F::Error>> {
        flash.erase(range.start, range.end).await.map_err(OutboxError::Flash)
    }

    /// Stores a signal, and says its number. Once this returns, it survives a power cut: it will be sent, or reported to the
    /// hook of [`run`](Self::run). After an error it may be there nevertheless only where that is [`OutboxError::Flash`].
    ///
    /// Its ttl counts from when the gateway accepts it, not from here (S9). Receipts aren't asked for. Lists have at most
    /// [`MAX_STORED_LIST`] entries here.
    ///
    /// Not cancel-safe: dropped before it returns, it may be stored or not, but never half.
    pub async fn push_signal(
        &self,
        target: Target<'_>,
        payload: &[u8],
        options: &SendOptions<'_>,
    ) -> Result<u64, OutboxError<F::Error>> {
        self.push(&Request::Send { target, payload, options }).await
    }

    /// Stores a message to a plain topic (T7). Otherwise as [`push_signal`](Self::push_signal).
    pub async fn push_message(
        &self,
        topic: &str,
        payload: &[u8],
        at_least_once: bool,
        retain: bool,
    ) -> Result<u64, OutboxError<F::Error>> {
        self.push(&Request::Publish { topic, payload, at_least_once, retain }).await
    }

    /// How many messages are not settled. Reads all of them. Cancel-safe.
    pub async fn len(&self) -> Result<usize, OutboxError<F::Error>> {
        let mut store = self.store.lock().await;
        let Store { flash, messages, buffer, .. } = &mut *store;
        let mut queue = queue(flash, messages)?;
        let (mut iterator, mut count) = (queue.iter().await?, 0);
        while iterator.next(buffer).await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Whether no message is left that isn't settled. Cancel-safe.
    pub async fn is_empty(&self) -> Result<bool, OutboxError<F::Error>> {
        Ok(self.len().await? == 0)
    }

    /// Sends what was pushed, one after another and the next when the one before is settled, and tells `settle` what became
    /// of each. What was handed over without an answer, before a power cut too, is told as unconfirmed and not sent (S12). A refusal
    /// with a time to try again is waited out here.
    ///
    /// Ends with an error only, of the flash or [`OutboxError::Stopped`]; then it may be run again. While it waits for
    /// messages, for the connection or for the gateway's answer it has no limit of its own, like [`Client::send`].
    ///
    /// Dropping it loses nothing: a message that was handed over and not settled is unconfirmed when it runs again. A second
    /// one that is run at the same time waits for the first.
    pub async fn run<C: RawMutex, D: DelayNs>(
        &self,
        client: Client<'_, C>,
        delay: &mut D,
        mut settle: impl FnMut(&Settled<'_>) -> Next,
    ) -> OutboxError<F::Error> {
        let mut buffer = self.sending.lock().await;
        loop {
            match self.settle_front(client, &mut buffer, delay, &mut settle).await {
                Ok(true) => {}
                Ok(false) => self.pushed.wait().await,
                Err(error) => return error,
            }
        }
    }

    /// Deals with the oldest message, if there is one.
    async fn settle_front<C: RawMutex, D: DelayNs>(
        &self,
        client: Client<'_, C>,
        buffer: &mut [u8],
        delay: &mut D,
        settle: &mut impl FnMut(&Settled<'_>) -> Next,
    ) -> Result<bool, OutboxError<F::Error>> {
        let (bytes, is_handed_over) = {
            let mut store = self.store.lock().await;
            let Store { flash, messages, handed_over, .. } = &mut *store;
            match queue(flash, messages)?.peek(buffer).await? {
                Some(bytes) => {
                    let is_handed_over = number_of(bytes).is_some_and(|number| number <= *handed_over);
                    (&*bytes, is_handed_over)
                }
                None => return Ok(false),
            }
        };
        let (Some(number), Some(message)) = (number_of(bytes), Stored::decode(bytes)) else {
            return Err(OutboxError::Corrupt);
        };
        let mut outcome = Err(SendError::Unconfirmed);
        if !is_handed_over {
            outcome = self.hand_over(client, delay, number, &message).await?;
        }
        while settle(&Settled { number, message: &message, outcome }) == Next::Again {
            delay.delay_ms(PAUSE).await;
            outcome = self.hand_over(client, delay, number, &message).await?;
        }
        self.store.lock().await.remove_front().await?;
        Ok(true)
    }

    async fn hand_over<C: RawMutex, D: DelayNs>(
        &self,
        client: Client<'_, C>,
        delay: &mut D,
        number: u64,
        message: &Stored<'_>,
    ) -> Result<Result<Accepted, SendError>, OutboxError<F::Error>> {
        // Not before there is a connection: while it waits for one, a power cut leaves no doubt about it.
        client.wait_connected().await.map_err(|_| OutboxError::Stopped)?;
        self.store.lock().await.mark(number).await?;
        loop {
            match message.send(client).await {
                Err(SendError::Refused { retry_after, .. }) if retry_after > 0 => {
                    delay.delay_ms(retry_after).await;
                }
                Err(SendError::Stopped) => {
                    // It was not queued, so there is no doubt about it.
                    self.store.lock().await.mark(number.saturating_sub(1)).await?;
                    return Err(OutboxError::Stopped);
                }
                outcome => return Ok(outcome),
            }
        }
    }

    async fn push(&self, request: &Request<'_>) -> Result<u64, OutboxError<F::Error>> {
        request.check().map_err(OutboxError::BadMessage)?;
        let number = self.store.lock().await.push(request).await?;
        self.pushed.signal(());
        Ok(number)
    }
}

impl<F: MultiwriteNorFlash> Store<'_, F> {
    async fn push(&mut self, request: &Request<'_>) -> Result<u64, OutboxError<F::Error>> {
        let number = self.next;
        // It is read back in whole words.
        let room = self.buffer.len() / MARK_ROOM * MARK_ROOM;
        let (head, tail) = self.buffer[..room].split_at_mut_checked(MARK).ok_or(OutboxError::TooLarge)?;
        head.copy_from_slice(&number.to_le_bytes());
        let length = match stored::encode(request, tail) {
            Ok(length) => length,
            Err(SendError::TooLarge) => return Err(OutboxError::TooLarge),
            Err(error) => return Err(OutboxError::BadMessage(error)),
        };
        // Before it is written: if this is dropped in the middle, it may be there all the same.
        self.next = self.next.saturating_add(1);
        queue(&mut self.flash, &self.messages)?.push(&self.buffer[..MARK + length], false).await?;
        Ok(number)
    }

    /// From now on message `number` is in doubt.
    async fn mark(&mut self, number: u64) -> Result<(), OutboxError<F::Error>> {
        // Before it is written, for the same reason; sending goes on only once it is.
        self.handed_over = number;
        queue(&mut self.flash, &self.marks)?.push(&number.to_le_bytes(), true).await?;
        Ok(())
    }

    async fn remove_front(&mut self) -> Result<(), OutboxError<F::Error>> {
        queue(&mut self.flash, &self.messages)?.pop(self.buffer).await?;
        Ok(())
    }
}

/// The queue in this range. It holds nothing but what is in the flash, so that nothing in RAM can be wrong.
fn queue<'f, F: MultiwriteNorFlash>(
    flash: &'f mut F,
    range: &Range<u32>,
) -> Result<Queue<'f, F>, OutboxError<F::Error>> {
    let config = QueueConfig::try_new(range.clone()).map_err(|_| OutboxError::BadRange)?;
    Ok(QueueStorage::new(flash, config, Cache::new_uncached()))
}

/// The number of the newest entry, 0 where there is none.
async fn last_number<F: MultiwriteNorFlash>(
    flash: &mut F,
    range: &Range<u32>,
    buffer: &mut [u8],
) -> Result<u64, OutboxError<F::Error>> {
    let mut queue = queue(flash, range)?;
    let (mut iterator, mut last) = (queue.iter().await?, 0);
    while let Some(entry) = iterator.next(buffer).await? {
        last = number_of(&entry).ok_or(OutboxError::Corrupt)?;
    }
    Ok(last)
}

/// The number at the front of a message, or in a mark.
fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_le_bytes)
}
