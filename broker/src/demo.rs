//! `bugle demo`: a gateway, eight lamps on the device SDK and an MQTT 5 app on rumqttc, in one process. It shows the
//! four modes, a device commanding the app, and what is refused, and fails if anything isn't as it should be.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bugle_device::{Incoming, SendOptions, State, Target};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::client::{self, Failure, Sleep};
use crate::config::Config;
use crate::serve::Gateway;
use crate::watch::shown;

const SHARDS: u16 = 2;
const LAMPS: usize = 8;
const GROUP: &str = "floor3";
const APP: &str = "app";
/// How long anything may take before the demo has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What lamps and app have to tell and nobody has looked at yet.
const EVENTS: usize = 1024;
/// A lamp that gets this tells the app how it is.
const REPORT: &str = "report";

/// Runs the command.
pub async fn run() -> ExitCode {
    match show().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(what)) => {
            eprintln!("bugle: the demo failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// What didn't happen as it should.
struct Failed(String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What a lamp has to tell.
#[derive(Debug)]
enum LampEvent {
    Joined,
    Received { lamp: usize, payload: String },
    Failed(String),
}

async fn show() -> Result<(), Failed> {
    let gateway = Gateway::start(&Config::private(SHARDS)?)?;
    let address = gateway.address().ok_or_else(|| Failed("the gateway listens nowhere".to_owned()))?;
    say(&format!(
        "Gateway on {address}, {SHARDS} shards. {LAMPS} lamps on the device SDK join {GROUP}; an MQTT 5 app commands them."
    ));

    let (tell, lamps) = mpsc::channel(EVENTS);
    for number in 1..=LAMPS {
        let (server, tell) = (address.to_string(), tell.clone());
        spawn_local(async move {
            if let Err(failure) = run_lamp(number, &server, &tell).await {
                // The demo may be over.
                let _ = tell.send(LampEvent::Failed(format!("{}: {failure}", lamp_id(number)))).await;
            }
        });
    }
    let mut stage = Stage { app: App::start(address.port()), lamps };
    stage.assemble().await?;
    stage.show_modes().await?;
    stage.show_device_to_app().await?;
    stage.show_refusals().await?;
    gateway.stop().await;
    say("\nAll as it should be.");
    Ok(())
}

fn say(line: &str) {
    // A demo that nobody watches still has its exit code.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn lamp_id(number: usize) -> String {
    format!("lamp-{number}")
}

/// A lamp: joins the group and tells what it receives, until the connection ends.
async fn run_lamp(number: usize, server: &str, tell: &mpsc::Sender<LampEvent>) -> Result<(), Failure> {
    let id = lamp_id(number);
    let transport = client::connect(server).await?;
    let mut state = Box::new(State::<NoopRawMutex>::new());
    let mut config = client::config(&id, b"");
    (config.window, config.max_body) = (4, None);
    let (client, mut runner) = bugle_device::new(&mut state, config, client::now)?;
    let application = async {
        client.join(GROUP).await.map_err(client::not_done)?;
        let mut news = LampEvent::Joined;
        // Until nobody listens any more.
        while tell.send(news).await.is_ok() {
            let payload = client.receive(|incoming| match incoming {
                Incoming::Signal { payload, .. } | Incoming::Message { payload, .. } => shown(payload),
            });
            let payload = payload.await;
            if payload == REPORT {
                let report = format!("{id} is on");
                let sent = client.send(Target::client(APP), report.as_bytes(), &SendOptions::default()).await;
                sent.map_err(client::not_done)?;
            }
            news = LampEvent::Received { lamp: number, payload };
        }
        Ok(())
    };
    client::alongside(client, runner.run_connection(transport, &mut Sleep), application).await
}

/// An unmodified MQTT 5 client.
struct App {
    client: AsyncClient,
    incoming: mpsc::Receiver<Result<Packet, String>>,
    /// What came to its inbox while it waited for something else.
    inbox: VecDeque<String>,
}

/// What the app learned of a publish that was refused.
struct Refused {
    reason: PubAckReason,
    code: String,
}

impl App {
    fn start(port: u16) -> Self {
        let mut options = MqttOptions::new(APP, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = AsyncClient::new(options, 16);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        connection.options.set_network_options(network);
        let (tell, incoming) = mpsc::channel(EVENTS);
        spawn_local(pump(connection, tell));
        Self { client, incoming, inbox: VecDeque::new() }
    }

    /// The next packet. What it brings to the inbox is put there.
    async fn next(&mut self) -> Result<Packet, Failed> {
        match timeout(PATIENCE, self.incoming.recv()).await {
            Ok(Some(Ok(packet))) => {
                if let Packet::Publish(message) = &packet
                    && message.topic == format!("sig/c/{APP}")
                {
                    self.inbox.push_back(shown(&message.payload));
                }
                Ok(packet)
            }
            Ok(Some(Err(error))) => Err(Failed(format!("the app's connection: {error}"))),
            Ok(None) => Err(Failed("the app has ended".to_owned())),
            Err(_) => Err(Failed("the app waited in vain for an answer".to_owned())),
        }
    }

    /// Subscribes to its inbox and to its receipts.
    async fn subscribe(&mut self) -> Result<(), Failed> {
        for topic in [format!("sig/c/{APP}"), format!("sig/r/{APP}")] {
            self.client.subscribe(topic.as_str(), QoS::AtLeastOnce).await?;
            let codes = loop {
                if let Packet::SubAck(ack) = self.next().await? {
                    break ack.return_codes;
                }
            };
            if !matches!(codes.as_slice(), [SubscribeReasonCode::Success(_)]) {
                return Err(Failed(format!("subscribing to {topic} was answered by {codes:?}")));
            }
        }
        Ok(())
    }

    /// Publishes, and waits for the answer; then, if it was accepted, for the receipt, and gives its counts.
    async fn publish(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
    ) -> Result<Result<serde_json::Value, Refused>, Failed> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await?;
        let mut is_accepted = false;
        let mut counts = None;
        while !is_accepted || counts.is_none() {
            match self.next().await? {
                Packet::PubAck(ack) if ack.reason == PubAckReason::Success => is_accepted = true,
                Packet::PubAck(ack) => {
                    let properties =
                        ack.properties.map(|properties| properties.user_properties).unwrap_or_default();
                    let code = properties.into_iter().find(|(key, _)| key == "code").map(|(_, code)| code);
                    return Ok(Err(Refused { reason: ack.reason, code: code.unwrap_or_default() }));
                }
                Packet::Publish(message) if message.topic == format!("sig/r/{APP}") => {
                    let report: serde_json::Value = serde_json::from_slice(&message.payload)?;
                    // A notice of an earlier refusal has none.
                    counts = report.get("counts").cloned().or(counts);
                }
                _ => {}
            }
        }
        Ok(Ok(counts.unwrap_or_default()))
    }

    /// Waits for a message to its inbox.
    async fn take_from_inbox(&mut self) -> Result<String, Failed> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            self.next().await?;
        }
    }
}

/// Moves the MQTT client's bytes and passes on what comes in.
async fn pump(mut connection: EventLoop, tell: mpsc::Sender<Result<Packet, String>>) {
    loop {
        let event = match connection.poll().await {
            Ok(Event::Incoming(packet)) => Ok(packet),
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => Err(error.to_string()),
        };
        let has_ended = event.is_err();
        if tell.send(event).await.is_err() || has_ended {
            return;
        }
    }
}

/// The app and what the lamps tell.
struct Stage {
    app: App,
    lamps: mpsc::Receiver<LampEvent>,
}

impl Stage {
    async fn next_lamp(&mut self) -> Result<LampEvent, Failed> {
        match timeout(PATIENCE, self.lamps.recv()).await {
            Ok(Some(LampEvent::Failed(error))) => Err(Failed(error)),
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(Failed("the lamps have gone".to_owned())),
            Err(_) => Err(Failed("a lamp that should have got something didn't".to_owned())),
        }
    }

    /// Waits until everyone is there.
    async fn assemble(&mut self) -> Result<(), Failed> {
        for _ in 0..LAMPS {
            match self.next_lamp().await? {
                LampEvent::Joined => {}
                other => return Err(Failed(format!("a lamp that has yet to join tells {other:?}"))),
            }
        }
        self.app.subscribe().await
    }

    async fn show_modes(&mut self) -> Result<(), Failed> {
        say("\nThe four modes, from the app:");
        self.command("one", "sig/c/lamp-4?receipt=each", "blink", &[4]).await?;
        self.command("all", "sig/g/floor3?receipt=each", "on", &[1, 2, 3, 4, 5, 6, 7, 8]).await?;
        self.command("only", "sig/g/floor3?only=lamp-1,lamp-2&ttl=500&receipt=each", "dim", &[1, 2]).await?;
        self.command("except", "sig/g/floor3?except=lamp-8&receipt=each", "off", &[1, 2, 3, 4, 5, 6, 7]).await
    }

    /// Publishes, and checks that exactly these lamps got it and that the receipt says so.
    async fn command(
        &mut self,
        mode: &str,
        topic: &str,
        payload: &str,
        expected: &[usize],
    ) -> Result<(), Failed> {
        let started = Instant::now();
        let counts = match self.app.publish(topic, payload.into()).await? {
            Ok(counts) => counts,
            Err(refused) => return Err(Failed(format!("{topic} was refused: {}", refused.code))),
        };
        let took = started.elapsed();
        let delivered = counts["delivered"].as_u64();
        if delivered != Some(expected.len() as u64) {
            return Err(Failed(format!(
                "the receipt of {topic} says {counts}, not {} delivered",
                expected.len()
            )));
        }
        let mut reached = BTreeSet::new();
        while reached.len() < expected.len() {
            match self.next_lamp().await? {
                LampEvent::Received { lamp, payload: got } if got == payload && expected.contains(&lamp) => {
                    reached.insert(lamp);
                }
                other => return Err(Failed(format!("{topic} led to {other:?}"))),
            }
        }
        let lamps: Vec<_> = reached.iter().map(usize::to_string).collect();
        let lamps = lamps.join(" ");
        let milliseconds = took.as_secs_f64() * 1e3;
        say(&format!(
            "  {mode:<7} {topic:<57} {payload:<6} -> lamps {lamps:<16} receipt: {} delivered, {milliseconds:.1} ms",
            expected.len()
        ));
        Ok(())
    }

    async fn show_device_to_app(&mut self) -> Result<(), Failed> {
        say("\nAnd back, from a device to the app:");
        self.command("one", "sig/c/lamp-3?receipt=each", REPORT, &[3]).await?;
        let got = self.app.take_from_inbox().await?;
        if got != "lamp-3 is on" {
            return Err(Failed(format!("the app's inbox got {got:?}")));
        }
        say(&format!("  one     lamp-3 -> {APP:<47} {got:?} on sig/c/{APP}"));
        Ok(())
    }

    async fn show_refusals(&mut self) -> Result<(), Failed> {
        say("\nWhat is refused, with no effect on anyone:");
        let names: Vec<_> = (1..=129).map(lamp_id).collect();
        let long = format!("sig/g/floor3?only={}", names.join(","));
        self.refusal("a list of 129 entries", &long, vec![b'x'], "LIST_TOO_LONG").await?;
        self.refusal("an empty only-list", "sig/g/floor3?only=", vec![b'x'], "NO_RECIPIENT").await?;
        self.refusal("a payload of 8193 bytes", "sig/g/floor3", vec![b'x'; 8193], "TOO_LARGE").await?;
        self.refusal("an unknown option", "sig/g/floor3?colour=red", vec![b'x'], "BAD_OPTION").await?;
        // Whatever had come of them would have come before this.
        self.command("all", "sig/g/floor3?receipt=each", "bye", &[1, 2, 3, 4, 5, 6, 7, 8]).await
    }

    async fn refusal(
        &mut self,
        what: &str,
        topic: &str,
        payload: Vec<u8>,
        expected: &str,
    ) -> Result<(), Failed> {
        match self.app.publish(topic, payload).await? {
            Ok(_) => Err(Failed(format!("{what} was accepted"))),
            Err(Refused { reason, code }) if code == expected => {
                say(&format!("  {what:<25} {code:<15} (PUBACK {reason:?})"));
                Ok(())
            }
            Err(Refused { reason, code }) => {
                Err(Failed(format!("{what} was refused with {code:?} ({reason:?}), not {expected}")))
            }
        }
    }
}
