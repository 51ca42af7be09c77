//! What the process counts by itself, and how that and the shards' counters become Prometheus text.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bugle_core::hub::Counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::admin::AdminCounters;
use crate::audit::AuditLog;
use crate::back_off::BackOff;
use crate::bridge::BridgeStatus;
use crate::reload_status::ReloadStatus;
use crate::store::StoreHealth;
use crate::store::status::Histogram;
use crate::transport::TransportKind;
use crate::transport::tls::TlsFailure;
use crate::transport::upgrade::UpgradeRefusal;
use crate::transport::websocket::WebSocketFailure;

/// What every name begins with.
const PREFIX: &str = "bugle";

macro_rules! early_closes {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// Why a connection was closed before its first packet was whole.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EarlyClose { $($(#[$doc])* $name,)* }

        impl EarlyClose {
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics and logs.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

early_closes! {
    /// As many connections as there may be are open.
    Full = "full";
    /// Too many others have not sent their first packet.
    TooManyWaiting = "too_many_waiting";
    /// As many connections as there may be of its address are open, or haven't sent their first packet.
    TooManyOfAddress = "too_many_of_address";
    /// Too many others were in the midst of TLS or HTTP, until it was too late.
    TooManyHandshakes = "too_many_handshakes";
    /// Too many others held a large first packet, until it was too late.
    TooManyLarge = "too_many_large";
    /// It took too long.
    Timeout = "timeout";
    /// None of the protocols, or one that may not be within the other.
    UnknownProtocol = "unknown_protocol";
    /// A protocol that this listener isn't for.
    NotOnThisListener = "not_on_this_listener";
    /// TLS failed; `tls_failures` says how.
    Tls = "tls";
    /// An HTTP request that got no WebSocket; `websockets_refused` says why.
    NoWebSocket = "no_websocket";
    /// The WebSocket failed; `websocket_failures` says how.
    WebSocket = "websocket";
    /// Longer than a first packet may be.
    TooLarge = "too_large";
    /// Many credentials from its address were wrong, and as many others of it as may were waiting.
    BackOff = "back_off";
    /// The peer closed it, or it failed.
    Ended = "ended";
}

/// Counters of the process, beside those of the shards.
#[derive(Debug, Default)]
pub struct ProcessCounters {
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    early_closes: [AtomicU64; EarlyClose::ALL.len()],
    taken_over: [AtomicU64; TransportKind::ALL.len()],
    open: [AtomicU64; TransportKind::ALL.len()],
    tls_failures: [AtomicU64; TlsFailure::ALL.len()],
    websockets_refused: [AtomicU64; UpgradeRefusal::ALL.len()],
    websocket_failures: [AtomicU64; WebSocketFailure::ALL.len()],
    handovers_refused: AtomicU64,
    unread: AtomicU64,
    hook_failures: AtomicU64,
    back_off: BackOff,
    audit: AuditLog,
    waits: AtomicU64,
    panics: AtomicU64,
}

impl ProcessCounters {
    /// Nothing counted yet. What an audit is to know goes into this log.
    pub fn new(audit: AuditLog) -> Self {
        Self { audit, ..Self::default() }
    }

    /// The audit log, which may be off.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed before its first packet.
    pub fn closed_early(&self, why: EarlyClose) {
        self.early_closes[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection goes to its shard.
    pub fn taken_over(&self, kind: TransportKind) {
        self.taken_over[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection with TLS or a WebSocket is open.
    pub fn transport_opened(&self, kind: TransportKind) {
        self.open[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// It is no more.
    pub fn transport_closed(&self, kind: TransportKind) {
        self.open[kind as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// TLS failed, in its handshake or later.
    pub fn tls_failed(&self, why: TlsFailure) {
        self.tls_failures[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An HTTP request got no WebSocket.
    pub fn websocket_refused(&self, why: UpgradeRefusal) {
        self.websockets_refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A WebSocket was closed for what its client did.
    pub fn websocket_failed(&self, why: WebSocketFailure) {
        self.websocket_failures[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A shard didn't take a connection.
    pub fn handover_refused(&self) {
        self.handovers_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed because its client didn't read.
    pub fn closed_unread(&self) {
        self.unread.fetch_add(1, Ordering::Relaxed);
    }

    /// The authentication hook didn't answer as it should.
    pub fn hook_failed(&self) {
        self.hook_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Addresses from which credentials were wrong.
    pub fn back_off(&self) -> &BackOff {
        &self.back_off
    }

    /// A connection waited because of its address.
    pub fn waited(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Code of ours panicked.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// Names and values.
type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// All values of one name at one moment.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    is_gauge: bool,
    values: Vec<(Labels, u64)>,
}

/// What all counters showed at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    metrics: Vec<Metric>,
    commit_seconds: Option<Histogram>,
}

impl Snapshot {
    /// What the process has counted, and the sum of what its shards have; `answered` of `shards` gave theirs.
    pub fn new(
        process: &ProcessCounters,
        sum: &Counters,
        answered: usize,
        shards: usize,
        uptime: u64,
    ) -> Self {
        let mut snapshot = Self::default();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        snapshot.add("connections_accepted", "Connections accepted", &[], load(&process.accepted), false);
        let help = "Connections that could not be accepted";
        snapshot.add("accept_errors", help, &[], load(&process.accept_errors), false);
        for &why in EarlyClose::ALL {
            let help = "Connections closed before their first packet was whole";
            let count = load(&process.early_closes[why as usize]);
            snapshot.add("connections_closed_early", help, &[("reason", why.key())], count, false);
        }
        for &kind in TransportKind::ALL {
            let help = "Connections that went to a shard with their first packet";
            let labels = [("transport", kind.key())];
            snapshot.add(
                "connections_taken_over",
                help,
                &labels,
                load(&process.taken_over[kind as usize]),
                false,
            );
            // Those of TCP alone are the rest of all clients.
            if kind != TransportKind::Plain {
                let help = "Connections through TLS or a WebSocket that are open";
                snapshot.add("transports_open", help, &labels, load(&process.open[kind as usize]), true);
            }
        }
        for &why in TlsFailure::ALL {
            let help = "Failures of TLS, in the handshake or later";
            let count = load(&process.tls_failures[why as usize]);
            snapshot.add("tls_failures", help, &[("reason", why.key())], count, false);
        }
        for &why in UpgradeRefusal::ALL {
            let help = "HTTP requests that got no WebSocket";
            let count = load(&process.websockets_refused[why as usize]);
            snapshot.add("websockets_refused", help, &[("reason", why.key())], count, false);
        }
        for &why in WebSocketFailure::ALL {
            let help = "WebSockets closed for what their client did";
            let count = load(&process.websocket_failures[why as usize]);
            snapshot.add("websocket_failures", help, &[("reason", why.key())], count, false);
        }
        let help = "Connections that their shard did not take over";
        snapshot.add("handovers_refused", help, &[], load(&process.handovers_refused), false);
        let help = "Connections closed because their client did not read its answers";
        snapshot.add("connections_closed_unread", help, &[], load(&process.unread), false);
        let help = "Connections that had to wait, since many credentials from their address, or of their user, were wrong";
        snapshot.add("authentication_waits", help, &[], load(&process.waits), false);
        let help = "Questions to the authentication hook without a usable answer";
        snapshot.add("authentication_hook_failures", help, &[], load(&process.hook_failures), false);
        let help = "Panics in the gateway's own code, each of which cost at most one connection";
        snapshot.add("panics", help, &[], load(&process.panics), false);
        snapshot.add("shards", "Shards of this process", &[], shards as u64, true);
        let help = "Shards whose counters are in this answer";
        snapshot.add("shards_answered", help, &[], answered as u64, true);
        snapshot.add("uptime_seconds", "Seconds since the process started", &[], uptime, true);
        sum.each(&mut |name, help, labels, value, is_gauge| {
            snapshot.add(name, help, labels, value, is_gauge)
        });
        snapshot
    }

    /// Adds how it went to read files again.
    pub fn add_reloads(&mut self, reloads: &ReloadStatus) {
        reloads
            .each(&mut |name, help, labels, value, is_gauge| self.add(name, help, labels, value, is_gauge));
    }

    /// Adds how the audit log is doing, if there is one.
    pub fn add_audit(&mut self, audit: &AuditLog) {
        audit.each(&mut |name, help, labels, value, is_gauge| self.add(name, help, labels, value, is_gauge));
    }

    /// Adds what the admin port has counted.
    pub fn add_admin(&mut self, admin: &AdminCounters) {
        admin.each(&mut |name, help, labels, value, is_gauge| self.add(name, help, labels, value, is_gauge));
    }

    /// Adds what a bridge has counted, under its name.
    pub fn add_bridge(&mut self, bridge: &BridgeStatus) {
        bridge.each(&mut |name, help, labels, value, is_gauge| {
            let own = ("bridge", Cow::Owned(bridge.name().to_string()));
            let rest = labels.iter().map(|(key, value)| (*key, Cow::Borrowed(*value)));
            self.add_labelled(name, help, std::iter::once(own).chain(rest).collect(), value, is_gauge);
        });
    }

    /// Adds how the store is doing.
    pub fn add_store(&mut self, store: &StoreHealth) {
        store.each(&mut |name, help, value, is_gauge| self.add(name, help, &[], value, is_gauge));
        self.commit_seconds = Some(store.commit_seconds());
    }

    /// Prometheus text, in the OpenMetrics form.
    pub fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
        value: u64,
        is_gauge: bool,
    ) {
        // The encoder adds both by itself.
        let name = name.strip_prefix("bugle_").unwrap_or(name);
        let name = if is_gauge { name } else { name.strip_suffix("_total").unwrap_or(name) };
        let labels = labels.iter().map(|(key, value)| (*key, Cow::Borrowed(*value))).collect();
        self.add_labelled(name, help, labels, value, is_gauge);
    }

    /// `name` is as the encoder wants it.
    fn add_labelled(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        value: u64,
        is_gauge: bool,
    ) {
        let value = (labels, value);
        match self.metrics.iter_mut().find(|metric| metric.name == name) {
            Some(metric) => metric.values.push(value),
            None => self.metrics.push(Metric { name, help, is_gauge, values: vec![value] }),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(Histogram { sum, count, buckets }) = &self.commit_seconds {
            let help = "Seconds that commits of the store took, those that had nothing to write included";
            encoder
                .encode_descriptor("store_commit_seconds", help, None, MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
        }
        for Metric { name, help, is_gauge, values } in &self.metrics {
            let kind = if *is_gauge { MetricType::Gauge } else { MetricType::Counter };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in values {
                if labels.is_empty() {
                    encode_value(&mut metric, *value, *is_gauge)?;
                } else {
                    encode_value(&mut metric.encode_family(labels)?, *value, *is_gauge)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, value: u64, is_gauge: bool) -> Result<(), fmt::Error> {
    if is_gauge {
        metric.encode_gauge(&value)
    } else {
        metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_there_once_under_its_name() {
        let process = ProcessCounters::default();
        process.accepted();
        process.closed_early(EarlyClose::UnknownProtocol);
        let text = Snapshot::new(&process, &Counters::default(), 2, 2, 7).into_text().unwrap();
        assert!(text.contains("bugle_connections_accepted_total 1\n"), "{text}");
        let line = "bugle_connections_closed_early_total{reason=\"unknown_protocol\"} 1\n";
        assert_eq!(text.matches(line).count(), 1, "{text}");
        assert_eq!(text.matches("# TYPE bugle_connections_closed_early counter").count(), 1, "{text}");
        assert!(text.contains("bugle_uptime_seconds 7\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
