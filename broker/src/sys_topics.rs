//! `$SYS/broker/...`: what the gateway has counted, as retained messages under the names that Mosquitto made usual.
//!
//! The first shard publishes them, every so many seconds, and each only when it has changed. They are what `/metrics`
//! says, for whoever has no HTTP; `docs/operations.md` lists them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bugle_core::hub::Counters;
use tokio::time::{MissedTickBehavior, interval};

use crate::bridge::BridgeStatus;
use crate::shard_thread::{Clock, Control, ShardSender, sum_counters};

/// Over how many minutes loads are averaged.
const MINUTES: [u32; 3] = [1, 5, 15];

/// A number that only grows, and its growth a minute, averaged with exponential weights.
#[derive(Default)]
struct Load {
    last: u64,
    averages: [f64; MINUTES.len()],
}

impl Load {
    /// Takes the present number, `seconds` after the last one.
    fn advance(&mut self, now: u64, seconds: f64) {
        let per_minute = now.saturating_sub(self.last) as f64 * 60.0 / seconds;
        self.last = now;
        for (average, minutes) in self.averages.iter_mut().zip(MINUTES) {
            let weight = (-seconds / (f64::from(minutes) * 60.0)).exp();
            *average = per_minute + (*average - per_minute) * weight;
        }
    }
}

/// What has been published, and what loads are made of.
#[derive(Default)]
struct Published {
    texts: HashMap<String, String>,
    loads: HashMap<&'static str, Load>,
    most_clients: u64,
}

impl Published {
    /// The topics, below `$SYS/broker/`, whose text isn't what it was.
    fn changes(
        &mut self,
        counters: &Counters,
        bridges: &[Arc<BridgeStatus>],
        uptime: Duration,
        seconds: f64,
    ) -> Vec<(String, String)> {
        self.most_clients = self.most_clients.max(counters.clients);
        let received = counters.publishes + counters.signals;
        let dropped =
            counters.publishes_overflowed + counters.publishes_expired + counters.publishes_abandoned;
        let numbers = [
            ("clients/connected", counters.clients),
            ("clients/active", counters.clients),
            ("clients/disconnected", counters.sessions_away),
            ("clients/inactive", counters.sessions_away),
            ("clients/total", counters.clients + counters.sessions_away),
            ("clients/maximum", self.most_clients),
            ("clients/expired", counters.sessions_ended),
            ("subscriptions/count", counters.subscriptions),
            ("retained messages/count", counters.retained_messages),
            ("publish/messages/received", received),
            ("publish/messages/sent", counters.mailed),
            ("publish/messages/dropped", dropped),
            ("bytes/received", counters.bytes_received),
            ("bytes/sent", counters.bytes_sent),
        ];
        let mut texts: Vec<(String, String)> =
            numbers.iter().map(|(topic, number)| ((*topic).to_owned(), number.to_string())).collect();
        texts.push(("version".to_owned(), concat!("bugle version ", env!("CARGO_PKG_VERSION")).to_owned()));
        texts.push(("uptime".to_owned(), format!("{} seconds", uptime.as_secs())));
        texts.extend(bridges.iter().map(|bridge| {
            let state = if bridge.is_connected() { "1" } else { "0" };
            (format!("connection/{}/state", bridge.name()), state.to_owned())
        }));
        for (name, number) in [
            ("load/publish/received", received),
            ("load/publish/sent", counters.mailed),
            ("load/publish/dropped", dropped),
            ("load/bytes/received", counters.bytes_received),
            ("load/bytes/sent", counters.bytes_sent),
            ("load/connections", counters.connects),
        ] {
            let load = self.loads.entry(name).or_default();
            load.advance(number, seconds);
            let averages = MINUTES.iter().zip(load.averages);
            texts.extend(
                averages.map(|(minutes, value)| (format!("{name}/{minutes}min"), format!("{value:.2}"))),
            );
        }
        texts.retain(|(topic, text)| self.texts.get(topic) != Some(text));
        self.texts.extend(texts.iter().cloned());
        texts
    }
}

/// Publishes every `period`, until dropped.
pub async fn publish(
    shards: Vec<ShardSender>,
    bridges: Arc<[Arc<BridgeStatus>]>,
    clock: Clock,
    period: Duration,
) {
    let mut published = Published::default();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A part of the sum would look like a loss; the next time will do.
        let (counters, told) = sum_counters(&shards).await;
        if told < shards.len() {
            continue;
        }
        let changes = published.changes(&counters, &bridges, clock.elapsed(), period.as_secs_f64());
        let messages =
            changes.into_iter().map(|(topic, text)| (format!("$SYS/broker/{topic}"), text)).collect();
        if let Some(first) = shards.first()
            && first.control.send(Control::Publish(messages)).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_published_again() {
        let mut published = Published::default();
        let mut counters = Counters::default();
        (counters.clients, counters.bytes_sent) = (3, 600);
        let bridges = [Arc::new(BridgeStatus::new("cloud".into()))];
        let first = published.changes(&counters, &bridges, Duration::from_secs(10), 10.0);
        assert!(first.contains(&("clients/connected".to_owned(), "3".to_owned())));
        assert!(
            first.contains(&("version".to_owned(), format!("bugle version {}", env!("CARGO_PKG_VERSION"))))
        );
        assert!(first.contains(&("connection/cloud/state".to_owned(), "0".to_owned())));
        counters.clients = 2;
        let second: HashMap<_, _> =
            published.changes(&counters, &bridges, Duration::from_secs(20), 10.0).into_iter().collect();
        assert_eq!(second["clients/connected"], "2");
        assert_eq!(second["uptime"], "20 seconds");
        assert!(!second.contains_key("clients/maximum") && !second.contains_key("bytes/sent"), "{second:?}");
    }

    #[test]
    fn a_steady_load_is_its_own_average() {
        let mut load = Load::default();
        for minute in 1..=120 {
            load.advance(minute * 50, 60.0);
        }
        assert!(load.averages.iter().all(|average| (average - 50.0).abs() < 0.1), "{:?}", load.averages);
    }
}
