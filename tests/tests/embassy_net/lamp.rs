//! A lamp: the SDK with its real runner on a board.

use bugle_device::{Accepted, Client, Config, Connect, Event, SendError, SendOptions, State, Target, new};
use bugle_tests::{Signal, soon};
use embassy_net::Stack;
use embassy_net::tcp::{ConnectError, TcpSocket};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::{Delay, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_local;

use crate::board::GATEWAY;

/// A lamp, and what it got.
pub struct Lamp {
    /// The SDK's client.
    pub client: Client<'static, NoopRawMutex>,
    signals: UnboundedReceiver<Signal>,
}

/// Small enough for a microcontroller, but for payloads of 8 KiB.
type Memory = State<'static, NoopRawMutex, 10_240, 9_216, 8, 8, 256, 1_024>;

/// Opens sockets on the board's stack, as firmware does.
struct Sockets {
    stack: Stack<'static>,
    receive: [u8; 4096],
    transmit: [u8; 2048],
}

impl Connect for Sockets {
    type Transport<'t> = TcpSocket<'t>;
    type Error = ConnectError;

    async fn connect(&mut self) -> Result<TcpSocket<'_>, ConnectError> {
        let mut socket = TcpSocket::new(self.stack, &mut self.receive, &mut self.transmit);
        socket.set_nagle_enabled(false);
        socket.connect(GATEWAY).await?;
        Ok(socket)
    }
}

impl Lamp {
    /// Settings for a lamp of this name.
    pub fn config(id: &'static str, seed: u64) -> Config<'static> {
        let mut config = Config::new(id, b"", seed as u32);
        (config.max_body, config.window) = (Some(9_000), 8);
        (config.backoff_base, config.backoff_cap) = (50, 500);
        config
    }

    /// Starts its runner, waits until it is connected, and joins a group.
    pub async fn member(stack: Stack<'static>, config: Config<'static>, group: &str) -> Self {
        let memory: &'static mut Memory = Box::leak(Box::new(State::new()));
        let (client, mut runner) = new(memory, config, || Instant::now().as_millis()).unwrap();
        let mut sockets = Sockets { stack, receive: [0; 4096], transmit: [0; 2048] };
        spawn_local(async move { runner.run(&mut sockets, &mut Delay).await });
        let (tell, signals) = unbounded_channel();
        spawn_local(async move { while tell.send(client.receive(Signal::new).await).is_ok() {} });
        soon("the join", client.join(group)).await.unwrap();
        Self { client, signals }
    }

    /// Sends without options, and waits for the gateway's answer.
    pub async fn send(&self, target: Target<'_>, payload: &[u8]) -> Result<Accepted, SendError> {
        let options = SendOptions::default();
        soon("the acknowledgement", self.client.send(target, payload, &options)).await
    }

    /// The next that comes.
    pub async fn next(&mut self) -> Signal {
        soon("a signal", self.signals.recv()).await.unwrap()
    }

    /// The text of the next that comes.
    pub async fn text(&mut self) -> String {
        self.next().await.text
    }

    /// Whether nothing has come that wasn't asked for.
    pub fn has_nothing(&mut self) -> bool {
        self.signals.is_empty()
    }

    /// Waits for this event; those before it are passed over.
    pub async fn event(&self, is_wanted: impl Fn(Event) -> bool) -> Event {
        let wanted = async {
            loop {
                let event = self.client.event().await;
                if is_wanted(event) {
                    return event;
                }
            }
        };
        soon("an event", wanted).await
    }
}
