//! Transports that never become ready, and an application that looks for ever: the runner ends each wait within the limit that
//! its documentation gives. Virtual time, so that the limits are exact.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::convert::Infallible;
use std::future::pending;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use bugle_device::protocol::{Delivery, Frame, Kind, NameRef, Welcome, split};
use bugle_device::*;
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use embedded_hal_async::delay::DelayNs;
use embedded_io_async::{ErrorType, Read, Write};
use tokio::time::Instant;

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        tokio::time::sleep(Duration::from_nanos(nanoseconds.into())).await;
    }
}

/// Virtual where tokio's clock is paused.
fn now() -> u64 {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    Instant::now().into_std().saturating_duration_since(*start).as_millis() as u64
}

/// A transport in which everything hangs that isn't allowed.
#[derive(Default)]
struct Hanging {
    /// What the gateway says; then reads hang.
    says: Vec<u8>,
    /// Kinds of the frames that the device wrote.
    heard: Vec<Kind>,
    writes: bool,
}

impl ErrorType for Hanging {
    type Error = Infallible;
}

impl Read for Hanging {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        // The hello comes before the welcome.
        if self.says.is_empty() || self.heard.is_empty() {
            return pending().await;
        }
        let length = buffer.len().min(self.says.len());
        buffer[..length].copy_from_slice(&self.says[..length]);
        self.says.drain(..length);
        Ok(length)
    }
}

impl Write for Hanging {
    async fn write(&mut self, mut bytes: &[u8]) -> Result<usize, Infallible> {
        if !self.writes {
            return pending().await;
        }
        let length = bytes.len();
        while let Ok(Some(frame)) = split(bytes, usize::MAX) {
            self.heard.push(frame.kind);
            bytes = &bytes[frame.length..];
        }
        Ok(length)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        pending().await
    }
}

impl Hanging {
    fn that_writes() -> Self {
        Self { writes: true, ..Self::default() }
    }

    fn says(mut self, frame: &Frame<'_>) -> Self {
        let mut bytes = vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        self.says.extend(bytes);
        self
    }

    fn welcomes(self) -> Self {
        self.says(&Frame::Welcome(Welcome {
            version: protocol::VERSION,
            resumed: false,
            keep_alive: 60,
            max_body: 9000,
            window: 4,
            names: 8,
            session_expiry: 0,
            session: 1,
            received: 0,
            clock: 5_000,
        }))
    }
}

/// Limits that can be told from each other, in milliseconds.
fn config() -> Config<'static> {
    let mut config = Config::new("lamp-1", b"secret", 7);
    (config.connect_timeout, config.handshake_timeout) = (1_100, 2_200);
    (config.write_timeout, config.ack_timeout) = (3_300, 4_400);
    config
}

/// How one connection ends that hangs, and after how many milliseconds.
async fn serve(config: Config<'static>, transport: Hanging) -> (Disconnect, u64) {
    let mut state = State::<NoopRawMutex>::new();
    let (_client, mut runner) = new(&mut state, config, now).unwrap();
    let begin = now();
    (runner.run_connection(transport, &mut Sleep).await, now() - begin)
}

/// Clock and timers go by milliseconds.
#[track_caller]
fn assert_took(took: u64, limit: u64) {
    assert!((limit - 1..limit + 10).contains(&took), "{took} ms instead of {limit}");
}

#[track_caller]
fn assert_timed_out((end, took): (Disconnect, u64), limit: u64) {
    assert_eq!(end, Disconnect::TimedOut);
    assert_took(took, limit);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_is_given_up_and_tried_again() {
    let mut state = State::<NoopRawMutex>::new();
    let (client, mut runner) = new(&mut state, config(), now).unwrap();
    let begin = now();
    let mut attempts = 0;
    let mut connector = async || {
        attempts += 1;
        if attempts == 2 {
            client.disconnect();
        }
        pending::<Result<Hanging, ()>>().await
    };
    let mut delay = Sleep;
    let watch = async { (client.event().await, now() - begin) };
    let (end, (event, took)) = tokio::join!(runner.run(&mut connector, &mut delay), watch);
    let Event::Disconnected(cause) = event else { panic!("{event:?}") };
    assert_timed_out((cause, took), 1_100);
    assert_eq!(end, Disconnect::Stopped);
    assert_eq!(attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_ends_the_connection() {
    let mut config = config();
    config.handshake_timeout = 60_000;
    assert_timed_out(serve(config, Hanging::default()).await, 3_300);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_ends_the_connection_before_the_welcome() {
    assert_timed_out(serve(config(), Hanging::that_writes()).await, 2_200);
}

/// The device pings after three quarters of a keep-alive; a silent gateway is left after one and a half.
#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_ends_the_connection_after_the_welcome() {
    assert_timed_out(serve(config(), Hanging::that_writes().welcomes()).await, 90_000);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_is_not_waited_for() {
    let mut state = State::<NoopRawMutex>::new();
    let (client, mut runner) = new(&mut state, config(), now).unwrap();
    let mut delay = Sleep;
    let transport = Hanging::that_writes().welcomes();
    let leave = async {
        client.wait_connected().await.unwrap();
        client.disconnect();
        now()
    };
    let (end, begin) = tokio::join!(runner.run_connection(transport, &mut delay), leave);
    assert_eq!(end, Disconnect::Stopped);
    assert_took(now() - begin, 1_000);
}

/// On another thread, where the runner goes on meanwhile.
#[tokio::test]
async fn a_look_at_a_delivery_that_hangs_ends_the_connection() {
    let state = Box::leak(Box::new(State::<CriticalSectionRawMutex>::new()));
    let mut config = config();
    config.ack_timeout = 100;
    let (client, mut runner) = new(state, config, now).unwrap();
    let (looking, is_looking) = tokio::sync::oneshot::channel();
    let (release, released) = mpsc::channel::<()>();
    let runtime = tokio::runtime::Handle::current();
    let application = tokio::task::spawn_blocking(move || {
        runtime.block_on(client.receive(move |_| {
            looking.send(()).unwrap();
            released.recv().unwrap();
        }));
    });

    let delivery = Frame::Delivery(Delivery {
        mode: Mode::One,
        urgent: false,
        group: None,
        sender: NameRef::Inline("panel"),
        deadline: None,
        payload: b"on",
    });
    let (more, mut comes) = tokio::sync::mpsc::channel(1);
    let transport = Hanging::that_writes().welcomes().says(&delivery);
    let transport = Later { transport, comes: &mut comes, more: Hanging::default().says(&delivery).says };
    let then = async {
        is_looking.await.unwrap();
        more.send(()).await.unwrap();
    };
    let mut delay = Sleep;
    let both = async { tokio::join!(runner.run_connection(transport, &mut delay), then).0 };
    let end = tokio::time::timeout(Duration::from_secs(10), both).await;
    release.send(()).unwrap();
    application.await.unwrap();
    assert_eq!(end.expect("the wait ends"), Disconnect::TimedOut);
    assert_eq!(client.status(), Connection::Offline(Some(Disconnect::TimedOut)));
}

/// A transport on which more comes on demand.
struct Later<'c> {
    transport: Hanging,
    comes: &'c mut tokio::sync::mpsc::Receiver<()>,
    more: Vec<u8>,
}

impl ErrorType for Later<'_> {
    type Error = Infallible;
}

impl Read for Later<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        if self.transport.says.is_empty() && self.comes.recv().await.is_some() {
            self.transport.says = std::mem::take(&mut self.more);
        }
        self.transport.read(buffer).await
    }
}

impl Write for Later<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.transport.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
