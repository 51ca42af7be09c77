//! The runner: moves bytes between the session and a transport, and opens another when one is lost.
//!
//! It owns the timers; what is to be done when is the session's to say. Each await in it ends within a limit, whatever the
//! transport and the application do:
//!
//! | what is waited for | limit | then |
//! | --- | --- | --- |
//! | an open transport | `connect_timeout` | `TimedOut`, another attempt |
//! | a chunk of bytes, written | `write_timeout` | `TimedOut`, another attempt |
//! | the welcome | `handshake_timeout` | `TimedOut`, another attempt |
//! | bytes, time or news from the application | what the session has to do next, at most 60 s | it looks again |
//! | the application's look at a delivery, with bytes behind it | `ack_timeout` | `TimedOut`, another attempt |
//! | the gateway to close behind a goodbye | 1 s | the transport is dropped |
//! | the next attempt | `backoff_cap` | it is made |

use core::future::{Future, pending, poll_fn};
use core::task::Poll;

use embassy_futures::select::{Either, Either3, select, select3};
use embassy_sync::blocking_mutex::raw::RawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_async::{Read, Write};

use crate::config::Config;
use crate::session::{Attempts, Turn, Turns};
use crate::signal::Disconnect;
use crate::state::Shared;

/// Opens transports to the gateway. Any `async` closure that returns one does.
///
/// A transport's `read` must lose nothing when it is dropped before it is ready, as those of embassy-net and
/// tokio don't. It has to send what was written without a `flush`, as TCP sockets do: embassy-net's would wait until the peer's TCP
/// has acknowledged. Where it can, the connector turns Nagle's algorithm off. The runner limits the time.
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
    attempts: Attempts,
    has_ended: bool,
}

impl<'a, M: RawMutex> Runner<'a, M> {
    pub(crate) fn new(shared: &'a Shared<'a, M>, chunk: &'a mut [u8], config: &Config<'_>) -> Self {
        Self { shared, chunk, attempts: Attempts::new(config.seed), has_ended: false }
    }

    /// Keeps the client connected, with full jitter between attempts, until an end that [is
    /// final](Disconnect::is_final). May be run again after that.
    ///
    /// Dropping it ends the connection, without a goodbye.
    pub async fn run<C: Connect, D: DelayNs>(&mut self, connector: &mut C, delay: &mut D) -> Disconnect {
        if core::mem::take(&mut self.has_ended) {
            self.shared.look(|session| session.restart());
        }
        self.attempts.failures = 0;
        loop {
            let timeout = self.shared.look(|session| self.attempts.begin(session));
            let cause = match select(connector.connect(), delay.delay_ms(timeout)).await {
                Either::First(Ok(transport)) => self.serve(transport, delay).await,
                Either::First(Err(_)) => ended(self.shared, Disconnect::NoTransport),
                Either::Second(()) => ended(self.shared, Disconnect::TimedOut),
            };
            if let Err(cause) = self.shared.with(|session, now| self.attempts.end(session, cause, now)) {
                self.has_ended = true;
                return cause;
            }
            // Not once the application wants no more.
            while let Some(left) = self.shared.with(|session, now| session.rest(&self.attempts, now)) {
                select(delay.delay_ms(left), news(self.shared, true)).await;
            }
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
        self.shared.look(|session| session.restart());
        self.serve(transport, delay).await
    }

    /// Moves bytes both ways until the connection ends.
    async fn serve<T: Read + Write, D: DelayNs>(&mut self, mut transport: T, delay: &mut D) -> Disconnect {
        if !self.shared.with(|session, now| session.handle_wanted(now)) {
            return Disconnect::Stopped;
        }
        // When this is dropped half way, the session hears of it too.
        let connection = Serving { shared: self.shared };
        let mut turns = Turns::default();
        let cause = loop {
            let turn = self.shared.with(|session, now| session.next_turn(&mut turns, now, self.chunk));
            let (is_write, time) = match turn {
                Turn::Write { limit, .. } => (true, limit),
                Turn::Wait { time, .. } => (false, time),
                Turn::End(cause) => break cause,
            };
            let bytes = async {
                match turn {
                    Turn::Write { length, .. } => {
                        transport.write_all(&self.chunk[..length]).await?;
                        Ok(length)
                    }
                    Turn::Wait { room, .. } if room > 0 => transport.read(&mut self.chunk[..room]).await,
                    // Reading into nothing would look like the end of the stream.
                    _ => pending().await,
                }
            };
            // A write is only dropped with its transport; the others are cancel-safe: see `Connect` for the read.
            match select3(bytes, delay.delay_ms(time), news(self.shared, !is_write)).await {
                Either3::First(Ok(0) | Err(_)) => break turns.lost(),
                Either3::First(Ok(_)) if is_write => {}
                Either3::First(Ok(length)) => turns.read(length),
                Either3::Second(()) if is_write => break Disconnect::TimedOut,
                Either3::Second(()) | Either3::Third(()) => {}
            }
        };
        core::mem::forget(connection);
        ended(self.shared, cause)
    }
}

/// Waits until something happened in the session that the runner must look at; for ever if it isn't `wanted`.
fn news<M: RawMutex>(shared: &Shared<'_, M>, wanted: bool) -> impl Future<Output = ()> {
    poll_fn(move |context| {
        let is_news = wanted && shared.look(|session| session.poll_runner(context.waker()));
        if is_news { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// The connection ended, or wasn't made. Says why, in the session's words where it has any.
#[inline(never)]
fn ended<M: RawMutex>(shared: &Shared<'_, M>, cause: Disconnect) -> Disconnect {
    shared.with(|session, now| session.handle_disconnected(now, cause))
}

/// Tells the session that the connection ends when the runner is dropped.
struct Serving<'r, 'a, M: RawMutex> {
    shared: &'r Shared<'a, M>,
}

impl<M: RawMutex> Drop for Serving<'_, '_, M> {
    fn drop(&mut self) {
        ended(self.shared, Disconnect::Lost);
    }
}
