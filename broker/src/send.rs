//! `bugle send`: one signal, its outcome, and what became of it at its recipients.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use bugle_device::{Receipt, ReceiptMode, SendError, SendOptions as Options, Status, Target};
use serde_json::json;

use crate::cli::{ReceiptChoice, SendOptions};
use crate::client::{self, Client, Failure, Identity, Sleep, TerminalState};

/// More than that is refused anyhow (S6); reading on would be waste.
const MAX_READ: u64 = 64 * 1024;

/// Runs the command.
pub async fn run(options: &SendOptions) -> ExitCode {
    match send(options).await {
        Ok(outcome) => {
            let text = if options.json { outcome.json() } else { outcome.text() };
            // Who doesn't read it still has the exit code.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if options.json {
                let _ = writeln!(
                    std::io::stdout(),
                    "{}",
                    json!({"accepted": false, "error": failure.to_string()})
                );
            }
            failure.report()
        }
    }
}

/// A send that was accepted.
struct Outcome {
    milliseconds: f64,
    receipt: Option<Receipt>,
    /// Asked for, but it didn't come.
    is_receipt_missing: bool,
    recipients: Vec<(String, Status)>,
}

async fn send(options: &SendOptions) -> Result<Outcome, Failure> {
    let identity = Identity::new(&options.connect, "send")?;
    let payload = payload(options)?;
    let mut state = Box::new(TerminalState::new());
    let (client, mut runner) = bugle_device::new(&mut state, identity.config(), client::now)?;
    let transport = client::connect(&options.connect.server).await?;
    let application = async {
        client.wait_connected().await.map_err(client::connection_ended)?;
        perform(client, options, &payload).await
    };
    client::alongside(client, runner.run_connection(transport, &mut Sleep), application).await
}

fn payload(options: &SendOptions) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &options.payload {
        return Ok(text.clone().into_bytes());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_READ).read_to_end(&mut bytes);
    read.map_err(|error| Failure::Usage(format!("cannot read the message from stdin: {error}")))?;
    Ok(bytes)
}

/// The entries of a list; none in an empty one, which the gateway has an answer to (S4).
fn entries(list: Option<&String>) -> Option<Vec<&str>> {
    list.map(|list| list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect())
}

async fn perform(client: Client<'_>, options: &SendOptions, payload: &[u8]) -> Result<Outcome, Failure> {
    let (only, except) = (entries(options.only.as_ref()), entries(options.except.as_ref()));
    let mut target = match (&options.group, &options.to) {
        (Some(group), _) => Target::group(group),
        (None, Some(to)) => Target::client(to),
        (None, None) => return Err(Failure::Usage("say whom it is for: --group or --to".to_owned())),
    };
    if let Some(only) = &only {
        target = target.only(only);
    }
    if let Some(except) = &except {
        target = target.except(except);
    }
    let receipt = match options.receipt {
        ReceiptChoice::None => ReceiptMode::None,
        ReceiptChoice::Summary => ReceiptMode::Summary,
        ReceiptChoice::Each => ReceiptMode::Each,
    };
    let send = Options {
        ttl: options.ttl,
        receipt,
        store: options.store,
        echo: options.echo,
        urgent: options.urgent,
        id: options.id.as_deref(),
    };
    let started = Instant::now();
    let mut recipients: Vec<(String, Status)> = Vec::new();
    let result = if receipt == ReceiptMode::None {
        client.send(target, payload, &send).await.map(|_| None)
    } else {
        let each = |id: &str, status| match recipients.iter_mut().find(|(known, _)| known == id) {
            // It was QUEUED before.
            Some(known) => known.1 = status,
            None => recipients.push((id.to_owned(), status)),
        };
        client.send_with_receipt(target, payload, &send, each).await.map(Some)
    };
    let (receipt, is_receipt_missing) = match result {
        Ok(receipt) => (receipt, false),
        Err(SendError::NoReceipt) => (None, true),
        Err(error) => return Err(client::not_done(error)),
    };
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    Ok(Outcome { milliseconds, receipt, is_receipt_missing, recipients })
}

impl Outcome {
    fn counts(&self) -> Vec<(&'static str, u32)> {
        let Some(receipt) = &self.receipt else { return Vec::new() };
        let all = Status::ALL.iter().map(|&status| (status.key(), receipt.counts.count(status)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    fn text(&self) -> String {
        let mut text = format!("accepted ({:.1} ms)", self.milliseconds);
        if let Some(receipt) = &self.receipt {
            let counts: Vec<_> = self.counts().iter().map(|(key, count)| format!("{count} {key}")).collect();
            text += ": ";
            text += &if counts.is_empty() { "no recipients".to_owned() } else { counts.join(", ") };
            if receipt.duplicate {
                text += " (seen before: the first send's outcome, nothing was delivered)";
            }
        }
        if self.is_receipt_missing {
            text += "; no receipt came";
        }
        for (id, status) in &self.recipients {
            text += &format!("\n  {id} {status}");
        }
        if self.receipt.is_some_and(|receipt| receipt.truncated) {
            text += "\n  and others";
        }
        text
    }

    fn json(&self) -> String {
        let statuses: serde_json::Map<_, _> =
            self.recipients.iter().map(|(id, status)| (id.clone(), status.name().into())).collect();
        let counts: serde_json::Map<_, _> =
            self.counts().into_iter().map(|(key, count)| (key.to_owned(), count.into())).collect();
        json!({
            "accepted": true,
            "milliseconds": (self.milliseconds * 1e3).round() / 1e3,
            "counts": self.receipt.map(|_| counts),
            "duplicate": self.receipt.is_some_and(|receipt| receipt.duplicate),
            "truncated": self.receipt.is_some_and(|receipt| receipt.truncated),
            "statuses": statuses,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_an_empty_list_stays_a_list_without_entries() {
        assert_eq!(entries(None), None);
        assert_eq!(entries(Some(&String::new())), Some(vec![]));
        assert_eq!(entries(Some(&"a, b,".to_owned())), Some(vec!["a", "b"]));
    }
}
