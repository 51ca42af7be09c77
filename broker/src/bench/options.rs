//! The command line of `bugle bench`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::wire::KEEP_ALIVE;
use crate::store::settings::Durability;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Run the copy-only broker that others are held against: MQTT, QoS 0, exact topics, no checks.
    Floor(FloorOptions),
    /// One sender, many subscribers.
    Fanout(FanoutOptions),
    /// Many senders, each with a subscriber and a topic of its own.
    Pairs(PairsOptions),
    /// Signals from many senders, each to one client.
    Unicast(PairsOptions),
    /// Signals to some of a group: a whitelist or a blacklist.
    Groups(GroupsOptions),
    /// Many topic filters: what each costs, and what a publish costs among them.
    Subscriptions(SubscriptionsOptions),
    /// Memory of retained messages.
    Retained(RetainedOptions),
    /// Memory of connections that do nothing.
    Idle(IdleOptions),
    /// Connections a second.
    Storm(StormOptions),
    /// The durable store by itself, on a disk of your choice, and what one fdatasync costs there.
    Store(StoreOptions),
}

/// Where the copy-only broker is.
#[derive(Debug, Args)]
pub struct FloorOptions {
    /// Where it listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1884")]
    pub listen: SocketAddr,
}

/// What all loads have.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// The broker: mqtt://HOST:PORT, or device://HOST:PORT for the framing of devices.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub target: Target,
    /// Bytes of a message; 16 of them are the generator's.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=8192))]
    pub payload: u16,
    /// Of publishing and of subscribing.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub qos: u8,
    /// Recipients' sessions outlive their connections, so that the broker keeps each message for them until it is acknowledged: on
    /// disk, if it has one. MQTT, with --qos 1. The sessions are ended after the measurement.
    #[arg(long)]
    pub lasting: bool,
    /// Stop after this many messages, and measure them all.
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "warm_up"])]
    pub messages: Option<u64>,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,
    /// Load before the measurement begins.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    pub warm_up: Duration,
    /// Messages a second of all senders together, at fixed times: latency counts from when a message should have
    /// left. Without it, as many as the window lets.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Messages of one sender that not all recipients have yet [default: 1 for fanout and groups, 64 for pairs and
    /// unicast, 32768 with --rate].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32768))]
    pub window: Option<u16>,
    /// Give up when nothing has come in for so long.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub patience: Duration,
    /// The broker's process: tell its CPU time, memory and context switches (Linux).
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// One to many.
#[derive(Debug, Args)]
pub struct FanoutOptions {
    /// How many subscribe.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub subscribers: u32,
    /// So many more subscribe and read slowly; latencies are those of the others, and what the slow ones lose is
    /// counted apart.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub slow: u32,
    /// What a slow one reads, in bytes a second; 0 is nothing, until the load ends.
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub slow_rate: u32,
    /// A signal to a group that all have joined, and not a plain topic.
    #[arg(long)]
    pub signals: bool,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Many, one to one.
#[derive(Debug, Args)]
pub struct PairsOptions {
    /// How many pairs.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub pairs: u32,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Some of a group.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("list").required(true).args(["only", "except"])))]
pub struct GroupsOptions {
    /// Send to so many members, other ones each time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub only: Option<u32>,
    /// Send to all members but so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub except: Option<u32>,
    /// Members of each group.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub members: u32,
    /// Groups, each with a sender of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub groups: u32,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Many subscriptions.
#[derive(Debug, Args)]
pub struct SubscriptionsOptions {
    /// Clients that subscribe.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Topic filters of each.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub filters: u32,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// Retained messages.
#[derive(Debug, Args)]
pub struct RetainedOptions {
    /// The broker, as for the other measurements.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub target: Target,
    /// How many, each on a topic of its own; they are taken back at the end.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub messages: u32,
    /// Bytes of each.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub payload: u16,
    /// How long the broker is left alone before its memory is read.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub settle: Duration,
    /// The broker's process.
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A store without clients.
#[derive(Clone, Debug, Args)]
pub struct StoreOptions {
    /// A new directory on the disk to be measured; it goes at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// How long each course is measured.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub payload: u16,
    /// Clients that messages are queued for, in turn.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub clients: u32,
    /// Messages that wait for their commit at any time.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: u32,
    /// What a commit waits for: fsync, os or none.
    #[arg(long, value_name = "LEVEL", default_value = "fsync", value_parser = durability)]
    pub durability: Durability,
    /// Sessions of the start that is measured; 0: none is.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sessions: u32,
    /// Messages that are queued for them.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub queued: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Connections that do nothing.
#[derive(Debug, Args)]
pub struct IdleOptions {
    /// The broker, as for the other measurements.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub target: Target,
    /// How many; the broker and this program need as many open files (`ulimit -n`).
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub connections: u32,
    /// The broker's process.
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// Subscribe each to a topic of its own.
    #[arg(long)]
    pub subscribe: bool,
    /// The keep-alive that each asks for; 0 is none. The generator sends no pings.
    #[arg(long, value_name = "SECONDS", default_value_t = KEEP_ALIVE)]
    pub keep_alive: u16,
    /// How long the connections are left alone before the broker's memory is read.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub settle: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Many connections at once.
#[derive(Debug, Args)]
pub struct StormOptions {
    /// The broker, as for the other measurements.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub target: Target,
    /// How many in all; they stay open until the end.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub connections: u32,
    /// Connections a second, begun at fixed times: a latency counts from when its connection should have begun.
    /// Without it, as many as the window lets.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "window")]
    pub rate: Option<f64>,
    /// How many wait for their answer at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub window: u32,
    /// Give up when nothing has come in for so long.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub patience: Duration,
    /// The broker's process.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    Mqtt,
    /// The framing of devices.
    Device,
}

/// The broker under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is spoken to in.
    pub protocol: Protocol,
    /// Where it is.
    pub address: SocketAddr,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (Protocol::Mqtt, rest),
            Some(("device", rest)) => (Protocol::Device, rest),
            _ => return Err("write mqtt://127.0.0.1:1883 or device://127.0.0.1:1883".to_owned()),
        };
        let addresses = rest.to_socket_addrs().map_err(|error| format!("{rest} is no address: {error}"))?;
        let mut addresses: Vec<_> = addresses.collect();
        // `localhost` may be both, and brokers mostly listen on the older one.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| format!("{rest} has no address"))?;
        Ok(Self { protocol, address })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.protocol {
            Protocol::Mqtt => "mqtt",
            Protocol::Device => "device",
        };
        write!(formatter, "{scheme}://{}", self.address)
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let word: StrDeserializer<'_, Error> = text.into_deserializer();
    serde::Deserialize::deserialize(word).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Some(seconds)
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "not within 0 to 86400 seconds".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Some(rate)
        .filter(|rate| (0.01..=10_000_000.0).contains(rate))
        .ok_or_else(|| "not within 0.01 to 10000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_protocol_and_an_address() {
        let target: Target = "device://127.0.0.1:1883".parse().unwrap();
        assert_eq!(target.protocol, Protocol::Device);
        assert_eq!(target.to_string(), "device://127.0.0.1:1883");
        for bad in ["127.0.0.1:1883", "http://127.0.0.1:1883", "mqtt://127.0.0.1", "mqtt://"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_and_rates_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(["-1", "NaN", "inf", "1e9", "x"].iter().all(|bad| seconds(bad).is_err()));
        assert!(["0", "-1", "NaN", "x"].iter().all(|bad| rate(bad).is_err()));
    }
}
