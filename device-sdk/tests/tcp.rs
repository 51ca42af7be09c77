//! Client and runner over real TCP sockets, against a gateway of a few lines that speaks the framing by script.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::protocol::{
    Delivery, Frame, Kind, Message, NameRef, Receipt as ReceiptFrame, ReceiptEntries, ReceiptEntry, Welcome,
    auth, split,
};
use bugle_device::*;
use embassy_sync::blocking_mutex::raw::{CriticalSectionRawMutex, NoopRawMutex};
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        tokio::time::sleep(Duration::from_nanos(nanoseconds.into())).await;
    }
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

async fn connect(address: std::net::SocketAddr) -> std::io::Result<FromTokio<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(FromTokio::new(stream))
}

fn config(id: &'static str) -> Config<'static> {
    let mut config = Config::new(id, b"secret", 7);
    (config.backoff_base, config.session_expiry) = (20, 0);
    config
}

/// The gateway's end of one connection.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of the frame that was read last.
    last: usize,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) =
            timeout(Duration::from_secs(5), listener.accept()).await.expect("a connection").unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new(), last: 0 }
    }

    /// The next frame that isn't a ping or an acknowledgement.
    async fn read(&mut self) -> Frame<'_> {
        loop {
            self.input.drain(..self.last);
            self.last = 0;
            while split(&self.input, usize::MAX).unwrap().is_none() {
                let mut chunk = [0; 1000];
                let read = self.stream.read(&mut chunk);
                let length = timeout(Duration::from_secs(5), read).await.expect("bytes").unwrap();
                assert!(length > 0, "the device closed the connection");
                self.input.extend_from_slice(&chunk[..length]);
            }
            let raw = split(&self.input, usize::MAX).unwrap().unwrap();
            self.last = raw.length;
            let frame = Frame::decode(raw.kind, raw.body).unwrap();
            match frame {
                Frame::Ping { token: Some(token) } => {
                    self.write(&Frame::Pong { clock: Some((token, 5_000)) }).await;
                }
                Frame::Ack { .. } => {}
                _ => break,
            }
        }
        let raw = split(&self.input, usize::MAX).unwrap().unwrap();
        Frame::decode(raw.kind, raw.body).unwrap()
    }

    async fn kind(&mut self) -> Kind {
        self.read().await.kind()
    }

    async fn write(&mut self, frame: &Frame<'_>) {
        let mut bytes = vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Lets the device in after a challenge.
    async fn welcome(&mut self) {
        let Frame::Hello(hello) = self.read().await else { panic!() };
        let id = hello.client_id.to_owned();
        let nonce = [3; 32];
        self.write(&Frame::Challenge { nonce: &nonce }).await;
        let Frame::Proof { proof } = self.read().await else { panic!() };
        assert!(auth::verify(b"secret", &nonce, &id, proof));
        self.write(&Frame::Welcome(Welcome {
            version: protocol::VERSION,
            resumed: false,
            keep_alive: 30,
            max_body: 9000,
            window: 4,
            names: 8,
            session_expiry: 0,
            session: 1,
            received: 0,
            clock: 5_000,
        }))
        .await;
    }
}

fn from_panel(payload: &[u8]) -> Frame<'_> {
    let (mode, group, sender) = (Mode::One, None, NameRef::Inline("panel"));
    Frame::Delivery(Delivery { mode, urgent: false, group, sender, deadline: None, payload })
}

#[tokio::test]
async fn a_device_joins_sends_receives_and_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // On the stack, for as long as it is needed.
    let mut state = State::<NoopRawMutex, 4096, 1024>::new();
    let (client, mut runner) = new(&mut state, config("lamp-1"), now).unwrap();

    let application = async {
        client.join("floor3").await.unwrap();
        let options = SendOptions { ttl: Some(500), ..SendOptions::default() };
        let mut seen = Vec::new();
        let receipt = client
            .send_with_receipt(Target::group("floor3").except(&["lamp-2"]), b"on", &options, |id, status| {
                seen.push((id.to_owned(), status));
            })
            .await
            .unwrap();
        assert_eq!(receipt.counts.count(Status::Delivered), 1);
        assert_eq!(seen, [("lamp-3".to_owned(), Status::Delivered)]);
        let refused = client.publish("a/b", b"21.5", true, true).await.unwrap_err();
        assert_eq!(refused, SendError::Refused { reason: Reason::NotAuthorized, retry_after: 0 });

        let payload = client
            .receive(|incoming| match incoming {
                // The application may send while it looks at what it received.
                Incoming::Signal { sender: "panel", payload, .. } => {
                    client.try_send(Target::client("panel"), b"done", &SendOptions::default()).unwrap();
                    payload.to_vec()
                }
                other => panic!("{other:?}"),
            })
            .await;
        assert_eq!(payload, [7; 300]);
        let topic =
            client.receive(|incoming| matches!(incoming, Incoming::Message { topic: "a/b", .. })).await;
        assert!(topic);
        client.disconnect();
    };
    let gateway = async {
        let mut peer = Peer::accept(&listener).await;
        peer.welcome().await;
        assert_eq!(peer.read().await, Frame::Join { group: NameRef::Inline("floor3") });
        peer.write(&Frame::Ack { frames: 1 }).await;
        assert_eq!(peer.kind().await, Kind::NAME);
        let Frame::Send(send) = peer.read().await else { panic!() };
        assert_eq!((send.payload, send.ttl, send.receipt), (&b"on"[..], Some(500), ReceiptMode::Each));
        peer.write(&Frame::Ack { frames: 2 }).await;
        let mut counts = ReceiptCounts::default();
        counts.add(Status::Delivered, 1);
        let entries = [ReceiptEntry { client: NameRef::Inline("lamp-3"), status: Status::Delivered }];
        let entries = ReceiptEntries::new(&entries);
        let (interim, more, duplicate) = (false, false, false);
        peer.write(&Frame::Receipt(ReceiptFrame { number: 2, interim, more, duplicate, counts, entries }))
            .await;
        assert_eq!(peer.kind().await, Kind::NAME);
        assert_eq!(peer.kind().await, Kind::PUBLISH);
        let (reason, retry_after, text) = (Reason::NotAuthorized, 0, "no");
        peer.write(&Frame::Refused { number: 4, reason, retry_after, text }).await;
        peer.write(&Frame::Ack { frames: 2 }).await;
        peer.write(&from_panel(&[7; 300])).await;
        let topic = NameRef::Inline("a/b");
        peer.write(&Frame::Message(Message { at_least_once: true, retained: false, topic, payload: b"x" }))
            .await;
        assert_eq!(peer.kind().await, Kind::NAME);
        assert_eq!(peer.kind().await, Kind::SEND);
        assert_eq!(peer.kind().await, Kind::BYE);
    };
    let run = async {
        let end = runner.run(&mut async || connect(address).await, &mut Sleep).await;
        assert_eq!(end, Disconnect::Stopped);
    };
    let all = async { tokio::join!(run, application, gateway) };
    timeout(Duration::from_secs(10), all).await.expect("it ends");
    assert_eq!(client.status(), Connection::Stopped(Disconnect::Stopped));
    assert_eq!(client.join("floor3").await, Err(SendError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_replaced_and_groups_are_restored() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // For ever, so that client and runner can live in tasks of their own on any thread.
    let state = Box::leak(Box::new(State::<CriticalSectionRawMutex>::new()));
    let (client, mut runner) = new(state, config("lamp-2"), now).unwrap();
    let mut attempts = 0;
    let running = tokio::spawn(async move {
        let mut connector = async move || {
            attempts += 1;
            if attempts == 2 {
                return Err(std::io::Error::other("no route"));
            }
            connect(address).await
        };
        runner.run(&mut connector, &mut Sleep).await
    });
    let joining = tokio::spawn(async move { client.join("floor3").await });

    let mut peer = Peer::accept(&listener).await;
    peer.welcome().await;
    assert_eq!(peer.kind().await, Kind::JOIN);
    peer.write(&Frame::Ack { frames: 1 }).await;
    assert_eq!(joining.await.unwrap(), Ok(Accepted));
    let sending =
        tokio::spawn(
            async move { client.send(Target::client("panel"), b"hello", &SendOptions::default()).await },
        );
    assert_eq!(peer.kind().await, Kind::NAME);
    assert_eq!(peer.kind().await, Kind::SEND);
    drop(peer);
    assert_eq!(sending.await.unwrap(), Err(SendError::Unconfirmed), "never sent again by itself");

    let mut peer = Peer::accept(&listener).await;
    peer.welcome().await;
    assert_eq!(peer.read().await, Frame::Join { group: NameRef::Inline("floor3") });
    peer.write(&Frame::Ack { frames: 1 }).await;
    client.wait_connected().await.unwrap();
    peer.write(&from_panel(b"again")).await;
    assert!(client.receive(|incoming| matches!(incoming, Incoming::Signal { .. })).await);
    let mut events = Vec::new();
    while events.last() != Some(&Event::Connected { resumed: false }) || events.len() < 3 {
        events.push(client.event().await);
    }
    let connected = Event::Connected { resumed: false };
    let lost = |cause| Event::Disconnected(cause);
    assert_eq!(events, [connected, lost(Disconnect::Lost), lost(Disconnect::NoTransport), connected]);

    peer.write(&Frame::Bye { reason: Reason::TakenOver, text: "a newer connection" }).await;
    let end = timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert_eq!(end, Disconnect::Bye(Reason::TakenOver));
}

/// 500 payloads of 1 KiB through a receive buffer of 4 KiB, with acknowledgements that come behind them.
#[tokio::test]
async fn a_slow_application_holds_the_gateway_back_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut state = State::<NoopRawMutex, 4096, 512>::new();
    let mut config = config("lamp-3");
    config.max_body = Some(1100);
    let (client, mut runner) = new(&mut state, config, now).unwrap();
    let gateway = async {
        let mut peer = Peer::accept(&listener).await;
        peer.welcome().await;
        for number in 0..500u16 {
            let mut payload = [0; 1024];
            payload[..2].copy_from_slice(&number.to_be_bytes());
            peer.write(&from_panel(&payload)).await;
        }
        assert_eq!(peer.kind().await, Kind::BYE);
    };
    let application = async {
        for number in 0..500u16 {
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client
                .receive(|incoming| {
                    let Incoming::Signal { payload, .. } = incoming else { panic!() };
                    assert_eq!(payload[..2], number.to_be_bytes());
                })
                .await;
        }
        client.disconnect();
    };
    let mut connector = async || connect(address).await;
    let mut delay = Sleep;
    let run = runner.run(&mut connector, &mut delay);
    let all = async { tokio::join!(run, application, gateway) };
    timeout(Duration::from_secs(10), all).await.expect("it ends");
    assert_eq!(client.counters().taken, 500);
}

#[tokio::test]
async fn a_gateway_that_accepts_and_says_nothing_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut state = State::<NoopRawMutex>::new();
    let mut config = config("lamp-4");
    config.handshake_timeout = 50;
    let (client, mut runner) = new(&mut state, config, now).unwrap();
    let end = runner.run_connection(connect(address).await.unwrap(), &mut Sleep).await;
    assert_eq!(end, Disconnect::TimedOut);
    assert_eq!(client.status(), Connection::Offline(Some(Disconnect::TimedOut)));
    // A second one, dropped half way.
    let mut delay = Sleep;
    let served = runner.run_connection(connect(address).await.unwrap(), &mut delay);
    assert!(timeout(Duration::from_millis(10), served).await.is_err());
    assert_eq!(client.status(), Connection::Offline(Some(Disconnect::Lost)));
}

#[tokio::test]
async fn a_disconnect_ends_the_wait_for_the_next_attempt() {
    let mut state = State::<NoopRawMutex>::new();
    let mut config = config("lamp-5");
    (config.backoff_base, config.backoff_cap) = (1_000_000, 1_000_000);
    let (client, mut runner) = new(&mut state, config, now).unwrap();
    let mut connector = async || Err::<FromTokio<TcpStream>, ()>(());
    let mut delay = Sleep;
    let stop = async {
        assert_eq!(client.event().await, Event::Disconnected(Disconnect::NoTransport));
        client.disconnect();
        client.wait_connected().await
    };
    let both = async { tokio::join!(runner.run(&mut connector, &mut delay), stop) };
    let (end, waited) = timeout(Duration::from_secs(5), both).await.expect("it ends");
    assert_eq!((end, waited), (Disconnect::Stopped, Err(Disconnect::Stopped)));
}
