//! The client that was written from docs/protocol.md alone (`tests/framing_client`, Python): its own tests, with the golden
//! vectors, and the client against the built gateway. The S15 table has it too, in `broker/core/tests`.

use std::path::Path;

use bugle_tests::{Gateway, Program, Setup};
use tokio::process::Command;

fn python3(arguments: &[&str]) -> Program {
    let mut command = Command::new("python3");
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(arguments);
    Program::spawn(command)
}

/// `python3 -m framing_client COMMAND --as ID ...`, with the id as its secret.
fn client(gateway: &Gateway, command: &str, id: &str, more: &[&str]) -> Program {
    let port = gateway.port.to_string();
    let arguments = ["-m", "framing_client", "--port", &port, "--secret", id, command, "--as", id];
    python3(&[&arguments, more].concat())
}

#[tokio::test]
async fn the_golden_vectors_and_a_resumed_session_in_python3() {
    let finished = python3(&["-m", "unittest", "discover", "-s", ".", "-t", "."]).finish().await.expect(0);
    let ran =
        finished.err.lines().find_map(|line| line.strip_prefix("Ran ")).expect(&finished.err).to_owned();
    let count: u32 = ran.split(' ').next().unwrap().parse().unwrap();
    assert!(count >= 20, "{ran}");
}

#[tokio::test]
async fn python3_sends_and_gets_signals_in_all_modes_with_receipts() {
    let credentials =
        ["lamp-1", "lamp-2", "app"].map(|id| format!("[[credential]]\nid = '{id}'\nsecret = '{id}'\n"));
    let gateway =
        Setup::shards(2).config("rules_default = 'allow'").config(&credentials.concat()).start().await;
    let mut lamps = ["lamp-1", "lamp-2"]
        .map(|id| client(&gateway, "watch", id, &["--group", "floor", "--topic", "home/#"]));
    for lamp in &mut lamps {
        lamp.line("ready").await;
    }
    let each = ["--receipt", "each"];
    for (options, payload, receipt) in [
        (&["--group", "floor"][..], "all", "2 DELIVERED\n  lamp-1 DELIVERED\n  lamp-2 DELIVERED"),
        (
            &["--group", "floor", "--only", "lamp-2,none"],
            "only",
            "1 DELIVERED, 1 NOT_MEMBER\n  lamp-2 DELIVERED\n  none NOT_MEMBER",
        ),
        (
            &["--group", "floor", "--except", "lamp-2", "--ttl", "5000", "--urgent"],
            "except",
            "1 DELIVERED\n  lamp-1 DELIVERED",
        ),
        (&["--client", "lamp-2"], "one", "1 DELIVERED\n  lamp-2 DELIVERED"),
        (&["--client", "nobody"], "none", "1 OFFLINE\n  nobody OFFLINE"),
    ] {
        let finished = client(&gateway, "send", "app", &[options, &each, &[payload]].concat()).finish().await;
        assert_eq!(finished.expect(0).out, format!("receipt: {receipt}\n"));
    }
    let refused =
        client(&gateway, "send", "app", &["--group", "floor", "--only", "", "never"]).finish().await;
    assert!(refused.expect(1).err.starts_with("refused: NO_RECIPIENT"));
    client(&gateway, "publish", "app", &["home/x/state", "on"]).finish().await.expect(0);
    let [first, second] = &mut lamps;
    for line in ["app (all floor): all", "app (except floor urgent): except", "home/x/state: on"] {
        assert_eq!(first.line(": ").await, line);
    }
    for line in ["app (all floor): all", "app (only floor): only", "app (one): one", "home/x/state: on"] {
        assert_eq!(second.line(": ").await, line);
    }
    let wrong = client(&gateway, "send", "stranger", &["--group", "floor", "on"]).finish().await.expect(1);
    assert!(wrong.err.contains("NOT_AUTHENTICATED"), "{wrong:?}");
    let [first, _second] = lamps;
    let mut newer = client(&gateway, "watch", "lamp-1", &["--group", "floor"]);
    newer.line("ready").await;
    let taken_over = first.finish().await.expect(1);
    assert!(taken_over.err.contains("TAKEN_OVER"), "{taken_over:?}");
}
