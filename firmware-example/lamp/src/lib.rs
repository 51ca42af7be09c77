//! A lamp that is commanded, a button that commands the lamps of its group, and a sensor that reports to a plain topic.
//!
//! | what | how |
//! | --- | --- |
//! | `on`, `off`, `toggle` by a signal, to it or to its group | the lamp obeys, and reports its state |
//! | `state?` by a signal | it answers the sender with `on` or `off` |
//! | its button is pressed | it toggles, and sends `on` or `off` to its group, not later than in 2 s |
//! | its state | `lamps/{id}/state`, retained: `on`, `off`, or `lost` by its will |
//! | its temperature | `lamps/{id}/celsius`, retained, every so often |
//!
//! It is written once and knows neither board nor network stack: pins are embedded-hal's, sockets are what the
//! [connector](Connect) opens.
#![no_std]

use core::cell::Cell;
use core::fmt::Write;

use bugle_device::protocol::{Frame, NameRef, Publish};
use bugle_device::{
    Client, Config, ConfigError, Connect, Disconnect, Event, Incoming, Reason, SendError, SendOptions, State,
    Target, WillError, new, will,
};
use defmt::{info, warn};
use embassy_futures::select::{Either, select, select4};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embedded_hal::digital::OutputPin;
use embedded_hal_async::delay::DelayNs;
use embedded_hal_async::digital::Wait;
use heapless::String;

/// What is soldered to the board.
pub struct Parts<L, B, S> {
    /// The lamp; high is on.
    pub lamp: L,
    /// The button; low is pressed.
    pub button: B,
    /// The thermometer.
    pub sensor: S,
}

/// A thermometer.
pub trait Sensor {
    /// Tenths of a degree Celsius, or nothing where it doesn't answer.
    #[allow(async_fn_in_trait, reason = "all of it stays on one executor")]
    async fn measure(&mut self) -> Option<i16>;
}

/// What differs from lamp to lamp.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// Its secret.
    pub secret: &'a [u8],
    /// The group that it is in.
    pub group: &'a str,
    /// Differs between devices: see [`Config::seed`].
    pub seed: u32,
    /// Seconds between two reports of the temperature.
    pub report_every: u32,
}

/// Why the application ends.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum End {
    /// The settings are wrong.
    Config(ConfigError),
    /// The client id is too long for its topics.
    Will(WillError),
    /// The gateway wants this device no more: another has its name.
    Disconnected(Disconnect),
}

/// A topic of a lamp: `lamps/`, a client id, `/celsius`.
type Topic = String<80>;
/// How long nobody presses the button again by accident, in milliseconds.
const DEBOUNCE: u32 = 50;
/// A press that is older than this moves no lamp any more, in milliseconds.
const PRESS_TTL: u32 = 2_000;

enum Command {
    Turn(bool),
    Toggle,
    Tell(String<64>),
    Unknown,
}

impl Command {
    fn new(incoming: &Incoming<'_>) -> Self {
        match *incoming {
            Incoming::Signal { payload: b"on", .. } => Self::Turn(true),
            Incoming::Signal { payload: b"off", .. } => Self::Turn(false),
            Incoming::Signal { payload: b"toggle", .. } => Self::Toggle,
            Incoming::Signal { payload: b"state?", sender, .. } => {
                String::try_from(sender).map_or(Self::Unknown, Self::Tell)
            }
            _ => Self::Unknown,
        }
    }
}

/// Runs the lamp. It connects, and connects again, by itself.
///
/// `now` tells milliseconds, as [`new`] wants it.
pub async fn run<L: OutputPin, B: Wait, S: Sensor, C: Connect, D: DelayNs + Clone>(
    parts: Parts<L, B, S>,
    connector: &mut C,
    delay: D,
    now: fn() -> u64,
    settings: &Settings<'_>,
) -> End {
    let (state, celsius) = (topic(settings.client_id, "state"), topic(settings.client_id, "celsius"));
    let mut will_bytes = [0; 128];
    let lost =
        Publish { topic: NameRef::Inline(&state), at_least_once: true, retain: false, payload: b"lost" };
    let will = match will(&Frame::Publish(lost), &mut will_bytes) {
        Ok(will) => will,
        Err(error) => return End::Will(error),
    };
    let mut config = Config::new(settings.client_id, settings.secret, settings.seed);
    config.will = Some(will);
    let mut memory = State::<NoopRawMutex>::new();
    let (client, mut runner) = match new(&mut memory, config, now) {
        Ok(made) => made,
        Err(error) => return End::Config(error),
    };
    let shown = Shown { is_on: Cell::new(false), changed: Signal::new() };
    let Parts { lamp, button, sensor } = parts;
    let application = select4(
        obey(client, lamp, &shown, settings.group),
        report_state(client, &shown, &state),
        press(client, button, &shown, settings.group, delay.clone()),
        report_temperature(client, sensor, &celsius, delay.clone(), settings.report_every),
    );
    let mut runner_delay = delay;
    match select(runner.run(connector, &mut runner_delay), application).await {
        Either::First(cause) => End::Disconnected(cause),
        Either::Second(_) => unreachable!("none of the four ends"),
    }
}

/// What the lamp shows, and whether that has to be reported.
struct Shown {
    is_on: Cell<bool>,
    changed: Signal<NoopRawMutex, ()>,
}

impl Shown {
    fn turn(&self, is_on: bool) {
        self.is_on.set(is_on);
        self.changed.signal(());
    }

    fn text(&self) -> &'static str {
        if self.is_on.get() { "on" } else { "off" }
    }
}

type Bugle<'a> = Client<'a, NoopRawMutex>;

/// Does as it is told.
async fn obey(client: Bugle<'_>, mut lamp: impl OutputPin, shown: &Shown, group: &str) {
    let join = async {
        if let Err(error) = client.join(group).await {
            warn!("cannot join {}: {}", group, error);
        }
    };
    let obey = async {
        loop {
            match client.receive(|incoming| Command::new(&incoming)).await {
                Command::Turn(is_on) => shown.turn(is_on),
                Command::Toggle => shown.turn(!shown.is_on.get()),
                Command::Tell(sender) => {
                    let answer = shown.text().as_bytes();
                    let options = SendOptions { ttl: Some(PRESS_TTL), ..SendOptions::default() };
                    // Not awaited: the next command may be more urgent than an answer.
                    if let Err(error) = client.try_send(Target::client(&sender), answer, &options) {
                        warn!("cannot answer {}: {}", sender, error);
                    }
                }
                Command::Unknown => warn!("not a command"),
            }
            // A pin that can't be set is nothing that could be mended here.
            let _ = lamp.set_state(shown.is_on.get().into());
            info!("lamp {}", shown.text());
        }
    };
    embassy_futures::join::join(join, obey).await;
}

/// Reports the state whenever it has changed, or a new session has begun.
async fn report_state(client: Bugle<'_>, shown: &Shown, topic: &str) {
    loop {
        match select(shown.changed.wait(), client.event()).await {
            Either::First(()) => {}
            Either::Second(Event::Connected { resumed }) => info!("connected, resumed: {}", resumed),
            Either::Second(Event::Disconnected(cause)) => {
                info!("disconnected: {}, needs help: {}", cause, cause.needs_help());
                continue;
            }
            Either::Second(event) => {
                warn!("{}", event);
                continue;
            }
        }
        report(client, topic, shown.text().as_bytes()).await;
    }
}

/// The button turns this lamp and those of its group.
async fn press(
    client: Bugle<'_>,
    mut button: impl Wait,
    shown: &Shown,
    group: &str,
    mut delay: impl DelayNs,
) {
    loop {
        if button.wait_for_falling_edge().await.is_err() {
            warn!("the button is out of order");
            core::future::pending().await
        }
        shown.turn(!shown.is_on.get());
        let options = SendOptions { ttl: Some(PRESS_TTL), echo: true, ..SendOptions::default() };
        let sent = client.send(Target::group(group), shown.text().as_bytes(), &options);
        // No longer than it is worth anything: without a connection nobody else hears of this press.
        match select(sent, delay.delay_ms(PRESS_TTL)).await {
            Either::First(Ok(_)) => info!("pressed: {}", shown.text()),
            Either::First(Err(error)) => warn!("pressed, but not sent: {}", error),
            Either::Second(()) => warn!("pressed, but nobody hears it"),
        }
        delay.delay_ms(DEBOUNCE).await;
    }
}

async fn report_temperature(
    client: Bugle<'_>,
    mut sensor: impl Sensor,
    topic: &str,
    mut delay: impl DelayNs,
    seconds: u32,
) {
    loop {
        if let Some(tenths) = sensor.measure().await {
            let mut text = String::<8>::new();
            let (sign, tenths) = (if tenths < 0 { "-" } else { "" }, tenths.unsigned_abs());
            // Eight places are enough for any i16.
            let _ = write!(text, "{sign}{}.{}", tenths / 10, tenths % 10);
            report(client, topic, text.as_bytes()).await;
        }
        delay.delay_ms(seconds.saturating_mul(1000)).await;
    }
}

/// Publishes, retained where the gateway keeps messages.
async fn report(client: Bugle<'_>, topic: &str, text: &[u8]) {
    let mut retain = true;
    loop {
        match client.publish(topic, text, true, retain).await {
            Ok(_) => return,
            Err(SendError::Refused { reason: Reason::Unsupported, .. }) if retain => retain = false,
            // The next report says more than this one again.
            Err(error) => return warn!("cannot report to {}: {}", topic, error),
        }
    }
}

/// At most 78 bytes: a client id has 64.
fn topic(client_id: &str, what: &str) -> Topic {
    let mut topic = Topic::new();
    // Of a client id that is too long the settings are refused.
    let _ = write!(topic, "lamps/{client_id}/{what}");
    topic
}
