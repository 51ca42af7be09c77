//! What a connection costs that does nothing: the growth of the broker's memory over many of them.

use std::process::ExitCode;
use std::thread::sleep;

use serde_json::json;

use super::open::Client;
use super::options::IdleOptions;
use super::plan::Subscription;
use super::process::{Sample, check_open_files};
use super::{BenchError, say};

/// Connections before the first look, so that what a broker allocates only once isn't counted.
const FIRST: u32 = 16;

/// Runs the measurement.
pub fn run(options: &IdleOptions) -> Result<ExitCode, BenchError> {
    let connect = |number: u32| {
        let id = format!("b{}-idle{number}", std::process::id());
        let topic = Subscription::Topic(id.clone());
        let keep_alive = options.keep_alive;
        let subscription = options.subscribe.then_some(&topic);
        Client { subscription, keep_alive, ..Client::new(options.target, &id) }.open()
    };
    check_open_files(Some(options.pid), FIRST + options.connections)?;
    let _first = (0..FIRST).map(connect).collect::<Result<Vec<_>, _>>()?;
    sleep(options.settle);
    let before = Sample::take(options.pid)?;
    let connections = (FIRST..FIRST + options.connections).map(connect).collect::<Result<Vec<_>, _>>()?;
    sleep(options.settle);
    let after = Sample::take(options.pid)?;

    // One that was closed meanwhile costs nothing, and would flatter the broker.
    let mut byte = [0];
    let alive = |socket: &std::net::TcpStream| !matches!(socket.peek(&mut byte), Ok(0));
    let alive = connections.iter().map(|opened| &opened.socket).filter({
        let mut alive = alive;
        move |socket| alive(socket)
    });
    let alive = alive.count();
    let each = after.kib_each(&before, options.connections.into());
    if options.json {
        let result = json!({
            "name": "idle",
            "target": options.target.to_string(),
            "connections": options.connections,
            "alive": alive,
            "kib_per_connection": each,
            "rss_kib_before": before.rss_kib,
            "rss_kib_after": after.rss_kib,
        });
        say(&result.to_string());
    } else {
        say(&format!(
            "{} idle connections, {}: {each:.2} KiB each ({} KiB before, {} KiB after), {alive} alive",
            options.connections, options.target, before.rss_kib, after.rss_kib
        ));
    }
    Ok(if alive == connections.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
