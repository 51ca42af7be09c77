//! Bridges to other MQTT brokers: each is a client of this gateway like any other, and a client over there, and takes
//! messages from one to the other. Read docs/bridge.md first.
//!
//! A message is acknowledged on one side when the other has taken it, and is kept by the side that it comes from until
//! then: by this gateway as for any client that is away, whenever the far broker isn't there. The way of a message:
//! [`link`] has the sockets, [`end`] is the session at either broker, [`packet`] its packets in either version,
//! [`relay`] takes messages from one end to the other under the names of [`pattern`]. None but this file and `link`
//! waits or knows the time.

mod end;
mod link;
mod packet;
pub mod pattern;
mod relay;
pub mod settings;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::listener::Door;
use crate::metrics::ProcessCounters;
use end::{End, Fault};
use link::{Reader, Writer, halves};
pub use packet::Version;
use relay::Relay;
use settings::BridgeSettings;
pub use status::BridgeStatus;
use status::Failure;

/// How long connecting may take: TCP with TLS, and CONNECT.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that has stood so long begins the waits anew.
const STABLE: Duration = Duration::from_secs(10);
/// How long a bridge may take, when the gateway stops, to hear of what it has sent.
const DRAIN: Duration = Duration::from_millis(500);
/// How long all bridges may take to end.
const STOP: Duration = Duration::from_secs(1);
/// How long its goodbye may take.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long the gateway's listeners wait for bridges to have their sessions.
const READY: Duration = Duration::from_secs(5);
/// Unsent bytes to the far broker beyond which nothing more is taken from this gateway.
const MAX_UNSENT: usize = 256 * 1024;
/// How often time is looked at.
const TICK: Duration = Duration::from_secs(1);

/// All bridges of the process.
pub struct Bridges {
    statuses: Arc<[Arc<BridgeStatus>]>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    ready: watch::Receiver<bool>,
}

impl Bridges {
    /// Starts them on the runtime that it is called within. `prefix` is that of signalling topics, `gateway` an id of
    /// this process.
    pub fn start(
        settings: &[BridgeSettings],
        prefix: &Arc<str>,
        gateway: &Arc<str>,
        door: &Arc<Door>,
        counters: &Arc<ProcessCounters>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut ready = Vec::new();
        let mut statuses = Vec::new();
        for settings in settings {
            let (tell_ready, is_ready) = oneshot::channel();
            let status = Arc::new(BridgeStatus::new(settings.name.clone()));
            ready.push(is_ready);
            statuses.push(status.clone());
            let bridge = Bridge {
                settings: settings.clone(),
                prefix: prefix.clone(),
                gateway: gateway.clone(),
                door: door.clone(),
                status,
            };
            tasks.spawn(bridge.keep_running(stopped.clone(), tell_ready, counters.clone()));
        }
        let (tell_all_ready, all_ready) = watch::channel(false);
        tasks.spawn(async move {
            let all = async {
                for one in ready {
                    // An error says that it has ended.
                    let _ = one.await;
                }
            };
            if timeout(READY, all).await.is_err() {
                tracing::warn!(
                    "a bridge has no session at this gateway yet: it misses what comes until then"
                );
            }
            tell_all_ready.send_replace(true);
        });
        Self { statuses: statuses.into(), stop, tasks, ready: all_ready }
    }

    /// How they are doing.
    pub fn statuses(&self) -> Arc<[Arc<BridgeStatus>]> {
        self.statuses.clone()
    }

    /// Waits, a few seconds at most, until what goes out is kept from then on.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ready = self.ready.clone();
        async move {
            // An error says that they have ended.
            let _ = ready.wait_for(|ready| *ready).await;
        }
    }

    /// Says goodbye to the far brokers, once they have acknowledged what they were sent, or have had half a second for it.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP, ended).await.is_err() {
            tracing::warn!("a bridge did not end in time");
            self.tasks.shutdown().await;
        }
    }
}

/// One bridge.
#[derive(Clone)]
struct Bridge {
    settings: BridgeSettings,
    prefix: Arc<str>,
    gateway: Arc<str>,
    door: Arc<Door>,
    status: Arc<BridgeStatus>,
}

/// How a connection of a bridge ended.
enum Ended {
    Stopped,
    Failed(Failure, String),
}

impl Ended {
    fn lost(error: &io::Error) -> Self {
        Self::Failed(Failure::Lost, format!("the connection was lost: {error}"))
    }

    fn local(text: impl std::fmt::Display) -> Self {
        Self::Failed(Failure::Local, format!("this gateway doesn't take its bridge: {text}"))
    }
}

impl Bridge {
    /// Runs, and again after a panic, until it is stopped.
    async fn keep_running(
        self,
        mut stop: watch::Receiver<bool>,
        ready: oneshot::Sender<()>,
        counters: Arc<ProcessCounters>,
    ) {
        let mut ready = Some(ready);
        loop {
            let mut task = JoinSet::new();
            task.spawn(self.clone().run(stop.clone(), ready.take()));
            match task.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    counters.panicked();
                    let text = "a panic in the gateway's own code, which may have lost what was on its way"
                        .to_owned();
                    let pause = self.settings.back_off.1;
                    self.status.failed(&self.far(), Failure::Local, text, pause);
                    // Both are cancel-safe.
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = stop.wait_for(|stop| *stop) => return self.status.stopped(),
                    }
                }
                _ => return self.status.stopped(),
            }
        }
    }

    fn far(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    async fn run(self, mut stop: watch::Receiver<bool>, ready: Option<oneshot::Sender<()>>) {
        let mut relay = Relay::new(&self.settings, &self.prefix, self.gateway.clone(), self.status.clone());
        if let Err(Ended::Failed(_, text)) = self.prepare(&mut relay).await {
            tracing::error!(bridge = &*self.settings.name, "{text}");
        }
        if let Some(ready) = ready {
            // Nobody may wait for it.
            let _ = ready.send(());
        }
        let (least, most) = self.settings.back_off;
        let mut pause = least;
        loop {
            let mut stood = None;
            let ended = self.connection(&mut relay, &mut stop, &mut stood).await;
            relay.disconnect();
            let Ended::Failed(why, text) = ended else { return };
            if stood.is_some_and(|since| since.elapsed() > STABLE) {
                pause = least;
            }
            let wait = jittered(pause);
            self.status.failed(&self.far(), why, text, wait);
            pause = (pause * 2).min(most);
            // Both are cancel-safe.
            tokio::select! {
                () = sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Has this gateway keep what goes out from now on, whether the far broker can be reached or not.
    async fn prepare(&self, relay: &mut Relay) -> Result<(), Ended> {
        let (mut reader, mut writer) = self.connect_local(&mut relay.local).await?;
        relay.subscribe_locally_for_later();
        let subscribed = async {
            while !relay.is_subscribed() {
                writer.write_all(&mut relay.local.out).await.map_err(Ended::local)?;
                reader.read().await.map_err(Ended::local)?;
                relay.local.handle_bytes(&mut reader.input, Instant::now()).map_err(local_fault)?;
                relay.settle(Instant::now());
            }
            relay.local.say_goodbye();
            writer.write_all(&mut relay.local.out).await.map_err(Ended::local)
        };
        let result = timeout(CONNECT, subscribed).await.unwrap_or_else(|_| Err(Ended::local("no answer")));
        relay.disconnect();
        result
    }

    /// Connects to both sides, and takes messages across until something ends. `stood` says since when both were there.
    async fn connection(
        &self,
        relay: &mut Relay,
        stop: &mut watch::Receiver<bool>,
        stood: &mut Option<Instant>,
    ) -> Ended {
        let connecting = async {
            // The far side first: while it isn't there, the gateway keeps what it would get.
            let far = self.connect_far(&mut relay.far).await?;
            let local = self.connect_local(&mut relay.local).await?;
            Ok((far, local))
        };
        // What is dropped here isn't used again.
        let connected = tokio::select! {
            connected = connecting => connected,
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
        };
        match connected {
            Ok((far, local)) => {
                relay.subscribe_both();
                self.pump(relay, far, local, stop, stood).await
            }
            Err(ended) => ended,
        }
    }

    async fn connect_far(&self, end: &mut End) -> Result<(Reader, Writer), Ended> {
        let connecting = async {
            let stream = link::far(&self.settings).await.map_err(|(why, text)| Ended::Failed(why, text))?;
            let (mut reader, mut writer) = halves(stream);
            end.connect();
            while !end.is_up() {
                writer.write_all(&mut end.out).await.map_err(|error| Ended::lost(&error))?;
                reader.read().await.map_err(|error| Ended::lost(&error))?;
                end.handle_bytes(&mut reader.input, Instant::now()).map_err(|fault| self.far_fault(fault))?;
            }
            Ok((reader, writer))
        };
        timeout(CONNECT, connecting).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} seconds", CONNECT.as_secs());
            Err(Ended::Failed(Failure::Timeout, text))
        })
    }

    async fn connect_local(&self, end: &mut End) -> Result<(Reader, Writer), Ended> {
        let connecting = async {
            let stream = link::local(&self.door).await.map_err(Ended::local)?;
            let (mut reader, mut writer) = halves(stream);
            end.connect();
            while !end.is_up() {
                writer.write_all(&mut end.out).await.map_err(Ended::local)?;
                reader.read().await.map_err(Ended::local)?;
                end.handle_bytes(&mut reader.input, Instant::now()).map_err(local_fault)?;
            }
            Ok((reader, writer))
        };
        timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(Ended::local("no answer")))
    }

    fn far_fault(&self, fault: Fault) -> Ended {
        let version = self.settings.version.key();
        match fault {
            Fault::Refused(why) => {
                let text = format!(
                    "the far broker refused: {why}. Check client_id, username and password, and what it allows them"
                );
                Ended::Failed(Failure::Refused, text)
            }
            Fault::Goodbye(why) => Ended::Failed(Failure::Goodbye, format!("the far broker ended it: {why}")),
            Fault::Protocol(why) => {
                let text =
                    format!("the far broker isn't understood: {why}. Does it speak MQTT {version} there?");
                Ended::Failed(Failure::Protocol, text)
            }
        }
    }

    /// Takes messages across until something ends, and in the end what is under way.
    async fn pump(
        &self,
        relay: &mut Relay,
        (mut far_reader, mut far_writer): (Reader, Writer),
        (mut local_reader, mut local_writer): (Reader, Writer),
        stop: &mut watch::Receiver<bool>,
        stood: &mut Option<Instant>,
    ) -> Ended {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulses = (Pulse::new(), Pulse::new());
        let mut drained_by = None;
        loop {
            let now = Instant::now();
            relay.settle(now);
            if stood.is_none() && relay.is_subscribed() {
                *stood = Some(now);
                self.status.connected(&self.far());
            }
            if drained_by.is_some_and(|by| now >= by || (relay.far.is_settled() && relay.local.is_settled()))
            {
                relay.far.say_goodbye();
                relay.local.say_goodbye();
                let goodbye = async {
                    far_writer.write_all(&mut relay.far.out).await?;
                    local_writer.write_all(&mut relay.local.out).await
                };
                // They will notice in any case.
                let _ = timeout(FAREWELL, goodbye).await;
                return Ended::Stopped;
            }
            // All are cancel-safe. The far broker is read whatever the gateway takes, up to what may wait: if each side
            // stopped reading because the other does, nothing would move again.
            tokio::select! {
                read = far_reader.read(), if !relay.local.is_full() => {
                    if let Err(error) = read {
                        return Ended::lost(&error);
                    }
                    pulses.0.heard = Instant::now();
                    if let Err(fault) = relay.far.handle_bytes(&mut far_reader.input, Instant::now()) {
                        return self.far_fault(fault);
                    }
                }
                read = local_reader.read(), if relay.far.out.len() < MAX_UNSENT => {
                    if let Err(error) = read {
                        return Ended::local(error);
                    }
                    pulses.1.heard = Instant::now();
                    if let Err(fault) = relay.local.handle_bytes(&mut local_reader.input, Instant::now()) {
                        return local_fault(fault);
                    }
                }
                written = far_writer.write(&mut relay.far.out), if far_writer.has_work(&relay.far.out) => {
                    if let Err(error) = written {
                        return Ended::lost(&error);
                    }
                }
                written = local_writer.write(&mut relay.local.out), if local_writer.has_work(&relay.local.out) => {
                    if let Err(error) = written {
                        return Ended::local(error);
                    }
                }
                _ = ticks.tick() => {
                    let now = Instant::now();
                    if pulses.0.is_dead(&mut relay.far, now) {
                        let text = "the far broker has been silent for too long".to_owned();
                        return Ended::Failed(Failure::Timeout, text);
                    }
                    if pulses.1.is_dead(&mut relay.local, now) {
                        return Ended::local("no answer");
                    }
                }
                _ = stop.wait_for(|stop| *stop), if drained_by.is_none() => {
                    drained_by = Some(Instant::now() + DRAIN);
                    ticks = interval(DRAIN / 10);
                }
            }
        }
    }
}

fn local_fault(fault: Fault) -> Ended {
    match fault {
        Fault::Refused(why) => {
            Ended::local(format_args!("{why}. A [[rule]] may forbid its client id to connect"))
        }
        Fault::Goodbye(why) | Fault::Protocol(why) => Ended::local(why),
    }
}

/// Whether a broker is alive.
struct Pulse {
    heard: Instant,
    pinged: Instant,
}

impl Pulse {
    fn new() -> Self {
        Self { heard: Instant::now(), pinged: Instant::now() }
    }

    /// Whether it has been silent for too long; it is asked twice in its keep-alive time.
    fn is_dead(&mut self, end: &mut End, now: Instant) -> bool {
        let keep_alive = Duration::from_secs(end.keep_alive().into());
        if keep_alive.is_zero() {
            return false;
        }
        if now.duration_since(self.pinged) >= keep_alive / 2 {
            self.pinged = now;
            end.ping();
        }
        now.duration_since(self.heard) > keep_alive * 3 / 2
    }
}

/// Somewhere between half of a wait and the whole: bridges of many gateways don't come back all at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness they come back all at once.
    let _ = getrandom::fill(&mut random);
    pause / 2 + (pause / 2).mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}
