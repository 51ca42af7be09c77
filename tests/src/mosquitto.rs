//! Mosquitto's clients, unmodified.

use crate::{Finished, Listens, PATIENCE, Program};

/// A subscriber that has its SUBACK. It prints `got TOPIC|PAYLOAD|USER PROPERTIES` for each message.
pub async fn mosquitto_sub(server: &impl Listens, version: &str, id: &str, topics: &[&str]) -> Program {
    let mut arguments = common(server, version, id);
    // Line by line, though it writes into a pipe.
    arguments.splice(0..0, ["-oL", "mosquitto_sub", "-d", "-q", "1"].map(String::from));
    arguments
        .extend(["-F".to_owned(), if version == "5" { "got %t|%p|%P" } else { "got %t|%p|" }.to_owned()]);
    for topic in topics {
        arguments.extend(["-t".to_owned(), (*topic).to_owned()]);
    }
    let mut program = Program::start("stdbuf", &arguments);
    program.line("Subscribed (mid").await;
    program
}

/// Publishes at QoS 1, run to its end. `more` are arguments of its own, as `-D publish user-property ttl 500`.
pub async fn mosquitto_pub(
    server: &impl Listens,
    version: &str,
    id: &str,
    topic: &str,
    payload: &str,
    more: &[&str],
) -> Finished {
    let mut arguments = common(server, version, id);
    arguments.extend(["-q", "1", "-t", topic, "-m", payload].map(String::from));
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Program::run("mosquitto_pub", &arguments, b"").await
}

/// Publishes, and gives what then comes first on `sig/r/{id}`.
pub async fn mosquitto_rr(
    server: &impl Listens,
    version: &str,
    id: &str,
    topic: &str,
    payload: &str,
) -> serde_json::Value {
    let mut arguments = common(server, version, id);
    let seconds = PATIENCE.as_secs().to_string();
    let answers = format!("sig/r/{id}");
    arguments
        .extend(["-q", "1", "-t", topic, "-e", &answers, "-m", payload, "-W", &seconds].map(String::from));
    let finished = Program::run("mosquitto_rr", &arguments, b"").await.expect(0);
    serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn common(server: &impl Listens, version: &str, id: &str) -> Vec<String> {
    let port = server.port().to_string();
    ["-h", "127.0.0.1", "-p", &port, "-V", version, "-i", id].map(String::from).into()
}
