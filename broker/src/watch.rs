//! `bugle watch`: joins groups, opens the inbox, and prints what comes, a line each.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bugle_device::{Event, Incoming};
use serde_json::json;

use crate::cli::WatchOptions;
use crate::client::{self, Client, Failure, Identity, Sleep, TerminalState, Transport};

/// Runs the command.
pub async fn run(options: &WatchOptions) -> ExitCode {
    match watch(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn watch(options: &WatchOptions) -> Result<(), Failure> {
    let identity = Identity::new(&options.connect, "watch")?;
    let mut state = Box::new(TerminalState::new());
    let (client, mut runner) = bugle_device::new(&mut state, identity.config(), client::now)?;
    let server = options.connect.server.as_str();
    // The first connection must work; one that is lost later is replaced.
    let mut first = Some(client::connect(server).await?);
    let mut connector = async || -> Result<Transport, Failure> {
        match first.take() {
            Some(transport) => Ok(transport),
            None => client::connect(server).await,
        }
    };
    let application = async {
        // If one of them ends, so does the command, and the others with it.
        tokio::select! {
            result = print_incoming(client, options) => result,
            result = join_all(client, options, &identity.id) => result,
            failure = follow_connection(client) => Err(failure),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    };
    client::alongside(client, runner.run(&mut connector, &mut Sleep), application).await
}

/// Joins and subscribes; then never ends, unless something is refused.
async fn join_all(client: Client<'_>, options: &WatchOptions, id: &str) -> Result<(), Failure> {
    for group in &options.groups {
        client.join(group).await.map_err(|error| named("group", group, error))?;
    }
    for topic in &options.topics {
        client.subscribe(topic, true).await.map_err(|error| named("topic", topic, error))?;
    }
    client.wait_connected().await.map_err(client::connection_ended)?;
    eprintln!("watching as {id}; to reach this inbox: bugle send --to {id} hello");
    std::future::pending().await
}

fn named(kind: &str, name: &str, error: bugle_device::SendError) -> Failure {
    match client::not_done(error) {
        Failure::Refused(text) => Failure::Refused(format!("{kind} {name}: {text}")),
        other => other,
    }
}

/// Says when the connection is lost, and ends where only a person could help.
async fn follow_connection(client: Client<'_>) -> Failure {
    let mut has_been_connected = false;
    loop {
        match client.event().await {
            Event::Connected { .. } => {
                if has_been_connected {
                    eprintln!("bugle: connected again");
                }
                has_been_connected = true;
            }
            Event::Disconnected(end) if end.needs_help() || end.is_final() || !has_been_connected => {
                return client::connection_ended(end);
            }
            Event::Disconnected(end) => eprintln!("bugle: the connection is lost ({end}); trying again"),
            Event::NotRestored(reason) => {
                return Failure::Refused(format!("a group or topic could not be restored: {reason}"));
            }
            Event::Error(reason) => eprintln!("bugle: the gateway reports {reason}"),
        }
    }
}

async fn print_incoming(client: Client<'_>, options: &WatchOptions) -> Result<(), Failure> {
    let mut count = 0;
    loop {
        let line =
            client.receive(|incoming| if options.json { json_line(&incoming) } else { text_line(&incoming) });
        let line = line.await;
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            // Who read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::Usage(format!("cannot write to stdout: {error}"))),
        }
        count += 1;
        if options.count == Some(count) {
            return Ok(());
        }
    }
}

fn text_line(incoming: &Incoming<'_>) -> String {
    let time = time_of_day();
    match *incoming {
        Incoming::Signal { mode, sender, group, urgent, payload, .. } => {
            let group = group.map(|group| format!(" {group}")).unwrap_or_default();
            let urgent = if urgent { " URGENT" } else { "" };
            format!("{time} {}{group} {sender}{urgent}: {}", mode.key(), shown(payload))
        }
        Incoming::Message { topic, retained, payload } => {
            let retained = if retained { " retained" } else { "" };
            format!("{time} topic {}{retained}: {}", shown(topic.as_bytes()), shown(payload))
        }
    }
}

fn json_line(incoming: &Incoming<'_>) -> String {
    let (mut line, payload) = match *incoming {
        Incoming::Signal { mode, sender, group, urgent, remaining, payload } => {
            let line = json!({
                "mode": mode.key(), "group": group, "from": sender, "urgent": urgent, "ttl": remaining,
            });
            (line, payload)
        }
        Incoming::Message { topic, retained, payload } => {
            (json!({"mode": "topic", "topic": topic, "retained": retained}), payload)
        }
    };
    line["time_ms"] = (since_1970().as_millis() as u64).into();
    match std::str::from_utf8(payload) {
        Ok(text) => line["payload"] = text.into(),
        Err(_) => line["payload_hex"] = hex(payload).into(),
    }
    line.to_string()
}

/// The payload as text, or as hex if it isn't any. Nothing in it can command the terminal.
pub fn shown(payload: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(payload) else { return format!("0x{}", hex(payload)) };
    let mut out = String::with_capacity(text.len());
    for character in text.trim_end_matches('\n').chars() {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time of day in UTC.
fn time_of_day() -> String {
    let now = since_1970();
    let seconds = now.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_text_or_hex_and_never_commands_the_terminal() {
        assert_eq!(shown("on – now\n".as_bytes()), "on – now");
        assert_eq!(shown(b"\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(shown(&[0xff, 0x00]), "0xff00");
    }

    #[test]
    fn json_says_what_the_text_says() {
        let incoming = Incoming::Signal {
            mode: bugle_device::Mode::Only,
            sender: "panel",
            group: Some("floor3"),
            urgent: false,
            remaining: None,
            payload: b"on",
        };
        let line: serde_json::Value = serde_json::from_str(&json_line(&incoming)).unwrap();
        assert_eq!(line["payload"], "on");
        assert_eq!(line["from"], "panel");
        assert!(text_line(&incoming).ends_with(" only floor3 panel: on"));
    }
}
