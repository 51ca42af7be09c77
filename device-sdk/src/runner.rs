//! The runner: moves bytes between the session and a transport, and opens another when one is lost.
//!
//! It owns the timers; what is to be done when is the session's to say. Each await in it ends within a limit, whatever the
//! transport and the application do:
//!
//! | what is waited for | limit | then |
//! | --- | --- | --- |
//! | an open transport | `connect_timeout` | `TimedOut`, another attempt |
//! | a chunk of bytes, written and flushed | `write_timeout` | `TimedOut`, another attempt |
//! | the welcome | `handshake_timeout` | `TimedOut`, another attempt |
//! | bytes, time or news from the application | what the session has to do next, at most 60 s | it looks again |
//! | the application's look at a delivery, with bytes behind it | `ack_timeout` | `TimedOut`, another attempt |
//! | the gateway to close behind a goodbye | 1 s | the transport is dropped |
//! | the next attempt | `backoff_cap` | it is made |

use core::future::{pending, poll_fn};
use core::task::Poll;

use embassy_futures::select::{Either, Either3, select, select3};
use embassy_sync::blocking_mutex::raw::RawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_async::{Read, Write};

use crate::config::Config;
use crate::signal::{Connection, Disconnect};
use crate::state::Shared;

/// A connection that was open for so long, in milliseconds, was a good one: the next wait is short.
const GOOD_CONNECTION: u64 = 10_000;
/// After a planned stop all devices come back at once: they spread out as if after so many failures.
const FAILURES_AFTER_STOP: u32 = 4;
/// How long the gateway may take to close behind a goodbye, in milliseconds.
const LINGER: u32 = 1_000;
/// The longest sleep at a stretch, in milliseconds.
const LONGEST_SLEEP: u64 = 60_000;

/// Opens transports to the gateway. Any `async` closure that returns one does.
///
/// A transport's `read` must lose nothing when it is dropped before it is ready, as those of embassy-net and
/// tokio don't. Where it can, the connector turns Nagle's algorithm off. The runner limits the time.
pub trait Connect {
    /// What it opens.
    type Transport<'t>: Read + Write
    where
        Self: 't;
    /// Why it can't. The runner only needs to know that; the connector logs it.
    type Error;

    /// Opens a transport.
    #[allow(async_fn_in_trait, reason = "whether it may move between threads is up to the implementation")]
    async fn connect(&mut self) -> Result<Self::Transport<'_>, Self::Error>;
}

impl<F, T, E> Connect for F
where
    F: AsyncFnMut() -> Result<T, E>,
    T: Read + Write,
{
    type Transport<'t>
        = T
    where
        Self: 't;
    type Error = E;

    async fn connect(&mut self) -> Result<T, E> {
        self().await
    }
}

/// Serves one client; see [`new`](crate::new). A task of its own runs it.
pub struct Runner<'a, M: RawMutex> {
    shared: &'a Shared<'a, M>,
    chunk: &'a mut [u8],
    /// State of the jitter's generator, never 0.
    random: u32,
    has_ended: bool,
}

impl<'a, M: RawMutex> Runner<'a, M> {
    pub(crate) fn new(shared: &'a Shared<'a, M>, chunk: &'a mut [u8], config: &Config<'_>) -> Self {
        Self { shared, chunk, random: config.seed.max(1), has_ended: false }
    }

    /// Keeps the client connected, with full jitter between attempts, until an end that [is
    /// final](Disconnect::is_final). May be run again after that.
    ///
    /// Dropping it ends the connection, without a goodbye.
    pub async fn run<C: Connect, D: DelayNs>(&mut self, connector: &mut C, delay: &mut D) -> Disconnect {
        if core::mem::take(&mut self.has_ended) {
            self.shared.with(|session, _| session.restart());
        }
        let mut failures = 0u32;
        loop {
            let (timeout, cap, base) = self.shared.with(|session, _| {
                let config = session.config();
                (config.connect_timeout, config.backoff_cap, config.backoff_base)
            });
            let (welcomes, mut opened) = self.shared.with(|session, now| (session.counters().welcomes, now));
            let cause = match select(connector.connect(), delay.delay_ms(timeout)).await {
                Either::First(Ok(transport)) => {
                    opened = self.shared.with(|_, now| now);
                    self.serve(transport, delay).await
                }
                Either::First(Err(_)) => self.not_connected(Disconnect::NoTransport),
                Either::Second(()) => self.not_connected(Disconnect::TimedOut),
            };
            let (stopped, was_good) = self.shared.with(|session, now| {
                let is_welcome = session.counters().welcomes != welcomes;
                (session.stopped(), is_welcome && now >= opened + GOOD_CONNECTION)
            });
            if let Some(cause) = stopped {
                self.has_ended = true;
                return cause;
            }
            if was_good {
                failures = 0;
            }
            let wait = if cause.needs_help() {
                cap / 2 + self.jitter(cap / 2)
            } else {
                if matches!(cause, Disconnect::Bye(_)) {
                    failures = failures.max(FAILURES_AFTER_STOP);
                }
                let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
                self.jitter(base.saturating_mul(factor).min(cap))
            };
            debug!("next attempt in {} ms", wait);
            self.rest(wait, delay).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Serves one connection to its end, on a transport that the application opened.
    ///
    /// Dropping it ends the connection, without a goodbye.
    pub async fn run_connection<T: Read + Write, D: DelayNs>(
        &mut self,
        transport: T,
        delay: &mut D,
    ) -> Disconnect {
        self.shared.with(|session, _| session.restart());
        self.serve(transport, delay).await
    }

    fn not_connected(&self, cause: Disconnect) -> Disconnect {
        self.shared.with(|session, now| session.handle_disconnected(now, cause))
    }

    /// Waits before the next attempt, but not once the application wants no more.
    async fn rest<D: DelayNs>(&mut self, milliseconds: u32, delay: &mut D) {
        let until = self.shared.with(|_, now| now) + u64::from(milliseconds);
        loop {
            let left = self.shared.with(|session, now| {
                session.handle_time(now);
                let is_wanted = !matches!(session.status(), Connection::Stopped(_));
                let due = session.poll_deadline().map_or(until, |deadline| deadline.min(until));
                (is_wanted && now < until).then(|| sleep(due, now))
            });
            let Some(left) = left else { return };
            select(delay.delay_ms(left), news(self.shared)).await;
        }
    }

    async fn serve<T: Read + Write, D: DelayNs>(&mut self, mut transport: T, delay: &mut D) -> Disconnect {
        let is_wanted = self.shared.with(|session, now| {
            let is_wanted = session.stopped().is_none();
            if is_wanted {
                session.handle_connected(now);
            }
            is_wanted
        });
        if !is_wanted {
            return Disconnect::Stopped;
        }
        // When this is dropped half way, the session hears of it too.
        let mut connection = Serving { shared: self.shared, end: Disconnect::Lost };
        connection.end = self.exchange(&mut transport, delay).await;
        drop(connection);
        self.shared.with(|session, _| match session.status() {
            Connection::Offline(Some(cause)) | Connection::Stopped(cause) => cause,
            _ => Disconnect::Lost,
        })
    }

    /// Moves bytes both ways until the connection ends.
    async fn exchange<T: Read + Write, D: DelayNs>(
        &mut self,
        transport: &mut T,
        delay: &mut D,
    ) -> Disconnect {
        let (limit, flush, look) = self.shared.with(|session, _| {
            let config = session.config();
            (config.write_timeout, config.flush, config.ack_timeout)
        });
        loop {
            let mut has_written = false;
            let closed = loop {
                let (length, closed) = self.shared.with(|session, now| {
                    session.handle_time(now);
                    (session.poll_transmit(now, self.chunk), session.poll_closed())
                });
                if length == 0 {
                    break closed;
                }
                has_written = true;
                let write = async {
                    transport.write_all(&self.chunk[..length]).await?;
                    if flush || closed.is_some() { transport.flush().await } else { Ok(()) }
                };
                match select(write, delay.delay_ms(limit)).await {
                    Either::First(Ok(())) => {}
                    Either::First(Err(_)) => return Disconnect::Lost,
                    Either::Second(()) => return Disconnect::TimedOut,
                }
            };
            if let Some(cause) = closed {
                if has_written {
                    self.linger(transport, delay).await;
                }
                return cause;
            }
            let (room, time) = self.shared.with(|session, now| {
                (
                    session.receive_room(),
                    session.poll_deadline().map_or(LONGEST_SLEEP as u32, |due| sleep(due, now)),
                )
            });
            let room = room.min(self.chunk.len());
            let chunk = &mut self.chunk[..room];
            let read = async {
                // Reading into nothing would look like the end of the stream.
                if chunk.is_empty() { pending().await } else { transport.read(chunk).await }
            };
            // All three are cancel-safe: see `Connect` for the first.
            match select3(read, delay.delay_ms(time), news(self.shared)).await {
                Either3::First(Ok(0) | Err(_)) => return Disconnect::Lost,
                Either3::First(Ok(length)) => {
                    if let Either::Second(()) = select(self.hand_over(length), delay.delay_ms(look)).await {
                        return Disconnect::TimedOut;
                    }
                }
                Either3::Second(()) | Either3::Third(()) => {}
            }
        }
    }

    /// Waits a little for the gateway to close behind a goodbye. Where a transport is dropped with bytes
    /// unread, TCP may throw away what was written, and the gateway would take it for a lost connection.
    async fn linger<T: Read, D: DelayNs>(&mut self, transport: &mut T, delay: &mut D) {
        let drain = async { while matches!(transport.read(self.chunk).await, Ok(1..)) {} };
        select(drain, delay.delay_ms(LINGER)).await;
    }

    /// Gives the session what was read. There was room for it, so at most it waits for the application's look
    /// at a delivery. The caller limits that: meanwhile no ping is written, and no acknowledgement counted.
    async fn hand_over(&mut self, length: usize) {
        let mut at = 0;
        loop {
            at += self.shared.with(|session, now| session.handle_bytes(now, &self.chunk[at..length]));
            if at == length {
                return;
            }
            news(self.shared).await;
        }
    }

    /// A number up to and including `limit`, by xorshift: it only has to differ between devices.
    fn jitter(&mut self, limit: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % limit.saturating_add(1).max(1)
    }
}

/// Milliseconds from `now` to `until`, within what a delay takes.
fn sleep(until: u64, now: u64) -> u32 {
    until.saturating_sub(now).min(LONGEST_SLEEP) as u32
}

/// Waits until something happened in the session that the runner must look at.
async fn news<M: RawMutex>(shared: &Shared<'_, M>) {
    poll_fn(|context| {
        let is_news = shared.with(|session, _| session.poll_runner(context.waker()));
        if is_news { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Tells the session when the connection ends, also when the runner is dropped.
struct Serving<'r, 'a, M: RawMutex> {
    shared: &'r Shared<'a, M>,
    end: Disconnect,
}

impl<M: RawMutex> Drop for Serving<'_, '_, M> {
    fn drop(&mut self) {
        self.shared.with(|session, now| session.handle_disconnected(now, self.end));
    }
}
