//! What the two switches in Rust share: the command line, what a notice on `sig/r/{me}` says, and the exit codes.
//! The versions of MQTT differ in `src/bin/switch-v4.rs` and `src/bin/switch-v5.rs`.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

/// How long all of it may take. The receipt comes within the ttl of two seconds; the rest is for connecting.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What is to be switched, and where.
#[derive(Clone, Debug)]
pub struct Order {
    /// Our client id. It is who we are to the gateway, and receipts come to it: two programs that run at the same
    /// time mustn't have the same.
    pub id: String,
    /// The gateway's host.
    pub host: String,
    /// The gateway's port.
    pub port: u16,
    /// Where to publish, with the options after the `?`.
    pub topic: String,
    /// What to publish.
    pub command: String,
}

impl Order {
    /// From the command line, or none where it is of no use.
    pub fn from_command_line() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        let (command, group) = (arguments.next()?, arguments.next()?);
        let mut topic = format!("sig/g/{group}?receipt=each&ttl=2000");
        for list in arguments {
            if !list.starts_with("only=") && !list.starts_with("except=") {
                return None;
            }
            topic = format!("{topic}&{list}");
        }
        // No topic of a publish may hold these.
        if topic.contains(['+', '#']) {
            return None;
        }
        let server = std::env::var("BUGLE_SERVER").unwrap_or_else(|_| "127.0.0.1:1883".to_owned());
        let (host, port) = server.rsplit_once(':')?;
        // The standard library's one source of random numbers: the keys of its hash maps.
        let id = format!("switch-{:016x}", RandomState::new().hash_one(0));
        Some(Self { id, host: host.to_owned(), port: port.parse().ok()?, topic, command })
    }
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// Every lamp has it.
    Reached,
    /// The gateway refused it: its code, and the reason in words.
    Refused(String, String),
    /// The command line makes no sense.
    Misused,
    /// There is no connection.
    Unreachable(String),
    /// Nothing came in time.
    NoAnswer,
    /// At least one lamp doesn't have it.
    Missed,
}

impl Ended {
    /// Says what went wrong, and gives the exit code.
    pub fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Reached => 0,
            Self::Refused(code, reason) => {
                eprintln!("refused: {code}: {reason}");
                1
            }
            Self::Misused => {
                eprintln!("usage: switch COMMAND GROUP [only=ID,ID..] [except=ID,ID..]");
                eprintln!("BUGLE_SERVER is the gateway, 127.0.0.1:1883 unless set");
                2
            }
            Self::Unreachable(error) => {
                eprintln!("no connection to the gateway: {error}; is it running (bugle serve)?");
                3
            }
            Self::NoAnswer => {
                eprintln!("no answer within {} s", PATIENCE.as_secs());
                4
            }
            Self::Missed => 5,
        })
    }
}

/// Reads what came on `sig/r/{me}`, prints what a receipt says, and gives the end if this is it. With more than one send
/// under way, give each an `id=` and look for it here.
pub fn process_notice(payload: &[u8]) -> Option<Ended> {
    let notice: Value = serde_json::from_slice(payload).ok()?;
    let text = |key: &str| notice[key].as_str().unwrap_or_default().to_owned();
    match notice["type"].as_str() {
        Some("refusal") => return Some(Ended::Refused(text("code"), text("reason"))),
        Some("receipt") => {}
        // Of kinds that will be known some day.
        _ => return None,
    }
    for (lamp, status) in notice["statuses"].as_object().into_iter().flatten() {
        println!("{lamp} {}", status.as_str().unwrap_or_default());
    }
    // Long lists come in parts, and lamps for which the message is stored get a second receipt.
    if notice["part"] != notice["parts"] || notice["final"] != true {
        return None;
    }
    // Above 128 recipients those that have it aren't named, so the counts decide.
    let counts = notice["counts"].as_object()?;
    let counted: Vec<_> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
    println!("{}", if counted.is_empty() { "nobody is there".to_owned() } else { counted.join(", ") });
    let all = counts.len() == 1 && counts.contains_key("delivered");
    Some(if all { Ended::Reached } else { Ended::Missed })
}
