//! A device: the SDK over a tokio socket, with a task of its own that takes what comes in.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::tls::Transport;
use bugle_device::{
    Config, Connection, Disconnect, Incoming, ReceiptMode, SendError, SendOptions, State, Status, Target,
};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::{Gateway, soon};

type Client = bugle_device::Client<'static, CriticalSectionRawMutex>;
type Runner = bugle_device::Runner<'static, CriticalSectionRawMutex>;
type Memory = State<'static, CriticalSectionRawMutex, 65_536, 40_960, 32, 16, 4_096, 65_536>;

/// A connected device.
pub struct Device {
    /// The SDK's client, for whatever isn't here.
    pub client: Client,
    signals: UnboundedReceiver<Signal>,
    runner: JoinHandle<Disconnect>,
    taker: JoinHandle<()>,
}

/// What a device got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `one`, `all`, `only`, `except`, or `topic` for a plain message.
    pub mode: &'static str,
    /// The group, or the topic.
    pub group: Option<String>,
    /// Who sent it; empty for a plain message.
    pub from: String,
    /// The payload, as text.
    pub text: String,
    /// Milliseconds that were left.
    pub ttl: Option<u32>,
}

/// What became of a send: each recipient's status by its name.
pub type Outcome = BTreeMap<String, &'static str>;

/// Settings for a client of this name, with a secret if it has one.
pub fn config(id: &'static str, secret: &'static str) -> Config<'static> {
    let mut config = Config::new(id, secret.as_bytes(), 0x5EED);
    (config.session_expiry, config.window, config.max_body) = (0, 32, Some(9_000));
    config
}

impl Device {
    /// Connects.
    pub async fn connect(gateway: &Gateway, id: &'static str) -> Self {
        Self::connect_as(gateway, config(id, "")).await.unwrap_or_else(|end| panic!("{id}: {end}"))
    }

    /// Connects with these settings, or says why the gateway didn't let it in. It doesn't connect again by itself.
    pub async fn connect_as(gateway: &Gateway, config: Config<'static>) -> Result<Self, Disconnect> {
        Self::connect_on(gateway.connect().await, config).await
    }

    /// The same over a stream, as one of TLS.
    pub async fn connect_on(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: Config<'static>,
    ) -> Result<Self, Disconnect> {
        let transport = FromTokio::new(stream);
        Self::begin(config, |mut runner| {
            tokio::spawn(async move { runner.run_connection(transport, &mut Sleep).await })
        })
        .await
    }

    /// The same over the SDK's own TLS, whose futures stay on one thread: within a `LocalSet`.
    pub async fn connect_in_tls(
        transport: Transport<'static, FromTokio<TcpStream>>,
        config: Config<'static>,
    ) -> Result<Self, Disconnect> {
        Self::begin(config, |mut runner| {
            tokio::task::spawn_local(async move { runner.run_connection(transport, &mut Sleep).await })
        })
        .await
    }

    async fn begin(
        config: Config<'static>,
        run: impl FnOnce(Runner) -> JoinHandle<Disconnect>,
    ) -> Result<Self, Disconnect> {
        let memory: &'static mut Memory = Box::leak(Box::new(State::new()));
        let (client, runner) = bugle_device::new(memory, config, now).unwrap();
        let mut runner = run(runner);
        let (tell, signals) = unbounded_channel();
        let taker =
            tokio::spawn(async move { while tell.send(client.receive(Signal::new).await).is_ok() {} });
        let connected = async {
            tokio::select! {
                result = client.wait_connected() => result,
                end = &mut runner => Err(end.unwrap()),
            }
        };
        soon("the welcome", connected).await?;
        Ok(Self { client, signals, runner, taker })
    }

    /// Connects and joins a group.
    pub async fn member(gateway: &Gateway, id: &'static str, group: &str) -> Self {
        let device = Self::connect(gateway, id).await;
        soon("the join", device.client.join(group)).await.unwrap();
        device
    }

    /// Sends, and waits for what became of it at each recipient.
    pub async fn send(&self, target: Target<'_>, payload: &str) -> Result<Outcome, SendError> {
        self.send_with(target, payload.as_bytes(), &SendOptions::default()).await
    }

    /// The same, with options.
    pub async fn send_with(
        &self,
        target: Target<'_>,
        payload: &[u8],
        options: &SendOptions<'_>,
    ) -> Result<Outcome, SendError> {
        let mut outcome = Outcome::new();
        let options = SendOptions { receipt: ReceiptMode::Each, ..*options };
        let note = |id: &str, status: Status| {
            outcome.insert(id.to_owned(), status.name());
        };
        let sent =
            soon("the receipt", self.client.send_with_receipt(target, payload, &options, note)).await?;
        assert_eq!(sent.counts.total() as usize, outcome.len(), "counts and statuses agree: {outcome:?}");
        Ok(outcome)
    }

    /// The next that comes.
    pub async fn next(&mut self) -> Signal {
        soon("a signal", self.signals.recv()).await.unwrap()
    }

    /// The text of the next that comes.
    pub async fn text(&mut self) -> String {
        self.next().await.text
    }

    /// Whether the connection stands.
    pub fn is_online(&self) -> bool {
        self.client.status() == Connection::Online
    }

    /// Waits until the connection ends, and says why it did.
    pub async fn ended(&mut self) -> Disconnect {
        soon("the end of the connection", &mut self.runner).await.unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.runner.abort();
        self.taker.abort();
    }
}

impl Signal {
    /// Of what the SDK lends.
    pub fn new(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Signal { mode, sender, group, remaining, payload, .. } => Self {
                mode: mode.key(),
                group: group.map(str::to_owned),
                from: sender.to_owned(),
                text: String::from_utf8_lossy(payload).into_owned(),
                ttl: remaining,
            },
            Incoming::Message { topic, payload, .. } => Self {
                mode: "topic",
                group: Some(topic.to_owned()),
                from: String::new(),
                text: String::from_utf8_lossy(payload).into_owned(),
                ttl: None,
            },
        }
    }
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        tokio::time::sleep(Duration::from_nanos(nanoseconds.into())).await;
    }

    async fn delay_ms(&mut self, milliseconds: u32) {
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
    }
}
