//! What is printed of a load: text for people, one line of JSON for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::Outcome;
use super::options::Load;
use super::plan::Plan;
use super::process::Switches;

/// The latencies that are told to people.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// The latencies that are told to scripts besides, enough for a curve.
const CURVE: [f64; 12] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];

/// What the broker's process used during a measurement.
struct Usage {
    cpu: Duration,
    switches: Switches,
    rss_kib: u64,
    deliveries_per_cpu_second: Option<f64>,
}

fn usage(outcome: &Outcome) -> Option<Usage> {
    let (before, after) = outcome.process?;
    let cpu = after.cpu.saturating_sub(before.cpu);
    Some(Usage {
        cpu,
        switches: after.switches - before.switches,
        rss_kib: after.rss_kib,
        deliveries_per_cpu_second: per_second(outcome.deliveries, cpu),
    })
}

/// Nothing where no time has passed.
pub fn per_second(count: u64, time: Duration) -> Option<f64> {
    Some(count as f64 / time.as_secs_f64()).filter(|rate| rate.is_finite())
}

/// For people.
pub fn text(plan: &Plan, load: &Load, outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut line = |what: std::fmt::Arguments<'_>| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{what}");
    };
    line(format_args!("{}, QoS {}, {} bytes, {}", plan.name, load.qos, load.payload, load.target));
    let rate = per_second(outcome.deliveries, outcome.elapsed).unwrap_or_default();
    line(format_args!(
        "  measured     {} deliveries in {:.2} s: {rate:.0} a second",
        outcome.deliveries,
        outcome.elapsed.as_secs_f64()
    ));
    let quantiles = QUANTILES.map(|(name, q)| format!("{name} {}", outcome.latency.value_at_quantile(q)));
    line(format_args!("  latency, us  {}, max {}", quantiles.join(", "), outcome.latency.max()));
    if load.rate.is_some() {
        let late = outcome.latest_send.as_micros();
        line(format_args!("  generator    {late} us late at worst; its latencies include that"));
    }
    if let Some(usage) = usage(outcome) {
        let per_cpu = usage.deliveries_per_cpu_second.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        line(format_args!(
            "  broker       {:.2} CPU seconds, {per_cpu} deliveries a CPU second, {} voluntary context switches, {} others",
            usage.cpu.as_secs_f64(),
            usage.switches.voluntary,
            usage.switches.involuntary
        ));
        let each = outcome.kib_per_connection.unwrap_or_default();
        line(format_args!(
            "  its memory   {} KiB, grown by {each:.2} KiB for each connection",
            usage.rss_kib
        ));
        if let Some(bytes) = outcome.bytes_per_subscription {
            line(format_args!("               {bytes:.0} bytes for each subscription"));
        }
    }
    if let Some(slow) = outcome.slow {
        line(format_args!(
            "  slow ones    {} at {} bytes a second: {} received, {} lost, {} repeated, {} closed by the broker",
            slow.readers, plan.slow_rate, slow.received, slow.lost, slow.repeated, slow.closed
        ));
    }
    line(format_args!(
        "  in all       {} sent, {} deliveries expected, {} received, {} missing, {} repeated",
        outcome.sent,
        outcome.expected,
        outcome.received,
        outcome.missing(),
        outcome.repeated
    ));
    if outcome.timed_out {
        line(format_args!(
            "  GIVEN UP     nothing came for {} s; {} messages were not acknowledged to their sender",
            load.patience.as_secs_f64(),
            outcome.unacknowledged
        ));
    }
    text.truncate(text.trim_end().len());
    text
}

/// For scripts, on one line.
pub fn json(plan: &Plan, load: &Load, outcome: &Outcome) -> String {
    let latency = &outcome.latency;
    let process = usage(outcome).map(|usage| {
        json!({
            "cpu_seconds": usage.cpu.as_secs_f64(),
            "deliveries_per_cpu_second": usage.deliveries_per_cpu_second,
            "voluntary_switches": usage.switches.voluntary,
            "involuntary_switches": usage.switches.involuntary,
            "rss_kib": usage.rss_kib,
            "kib_per_connection": outcome.kib_per_connection,
            "bytes_per_subscription": outcome.bytes_per_subscription,
        })
    });
    let slow = outcome.slow.map(|slow| {
        json!({
            "readers": slow.readers,
            "bytes_per_second": plan.slow_rate,
            "received": slow.received,
            "lost": slow.lost,
            "repeated": slow.repeated,
            "closed": slow.closed,
        })
    });
    let curve = CURVE.map(|quantile| json!([quantile, latency.value_at_quantile(quantile)]));
    let result: Value = json!({
        "name": plan.name,
        "target": load.target.to_string(),
        "qos": load.qos,
        "payload": load.payload,
        "seconds": outcome.elapsed.as_secs_f64(),
        "deliveries": outcome.deliveries,
        "deliveries_per_second": per_second(outcome.deliveries, outcome.elapsed),
        "latency_us": {
            "p50": latency.value_at_quantile(0.5),
            "p99": latency.value_at_quantile(0.99),
            "p999": latency.value_at_quantile(0.999),
            "max": latency.max(),
            "generator_late": outcome.latest_send.as_micros() as u64,
            "curve": curve,
        },
        "sent": outcome.sent,
        "expected": outcome.expected,
        "received": outcome.received,
        "missing": outcome.missing(),
        "repeated": outcome.repeated,
        "unacknowledged": outcome.unacknowledged,
        "timed_out": outcome.timed_out,
        "process": process,
        "slow": slow,
    });
    result.to_string()
}
