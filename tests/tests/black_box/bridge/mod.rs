//! Bridges to other brokers, unmodified: what crosses them and what doesn't, and what comes of cut links and killed
//! brokers. What a bridge promises is in docs/bridge.md.

mod crossing;
mod failing;
mod refusing;

use bugle_tests::{Gateway, Listens, Setup};

/// A `[[bridge]]` named `far`, to a port of this machine, with these topics and lines.
fn bridge(far: &impl Listens, lines: &str, topics: &[&str]) -> String {
    named("far", far, lines, topics)
}

fn named(name: &str, far: &impl Listens, lines: &str, topics: &[&str]) -> String {
    let port = far.port();
    let topics: String = topics.iter().map(|topic| format!("[[bridge.topic]]\n{topic}\n")).collect();
    format!(
        "[[bridge]]\nname = '{name}'\naddress = '127.0.0.1:{port}'\nclient_id = 'gateway-{name}'\n\
         reconnect_min_ms = 50\nreconnect_max_ms = 200\n{lines}\n{topics}"
    )
}

/// A gateway with two shards and this configuration, whose bridges are connected.
async fn bridged(config: &str) -> Gateway {
    let gateway = Setup::shards(2).config(config).start().await;
    for line in config.lines() {
        if let Some(name) = line.strip_prefix("name = '") {
            connected(&gateway, name.trim_end_matches('\'')).await;
        }
    }
    gateway
}

async fn connected(gateway: &Gateway, name: &str) {
    gateway.wait_metric(&format!("bugle_bridge_connected{{bridge=\"{name}\"}}"), |up| up == 1).await;
}

fn messages(name: &str, direction: &str) -> String {
    format!("bugle_bridge_messages_total{{bridge=\"{name}\",direction=\"{direction}\"}}")
}

fn dropped(name: &str, direction: &str, reason: &str) -> String {
    format!("bugle_bridge_dropped_total{{bridge=\"{name}\",direction=\"{direction}\",reason=\"{reason}\"}}")
}

fn failures(name: &str, reason: &str) -> String {
    format!("bugle_bridge_failures_total{{bridge=\"{name}\",reason=\"{reason}\"}}")
}
