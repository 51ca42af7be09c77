//! The client commands: `bugle send`, `bugle watch`, `bugle demo`, their outputs and exit codes.

use bugle_device::Target;
use bugle_tests::{Device, Finished, Gateway, Program, Setup, bugle_program};
use serde_json::{Value, json};

/// `bugle COMMAND --server .. REST`, with `input` on stdin, run to its end.
async fn bugle(gateway: &Gateway, command: &str, rest: &[&str], input: &str) -> Finished {
    let server = gateway.server();
    let arguments = [&[command, "--server", &server], rest].concat();
    Program::run(bugle_program(), &arguments, input.as_bytes()).await
}

/// A `bugle watch` that has joined.
async fn watch(gateway: &Gateway, rest: &[&str]) -> Program {
    let server = gateway.server();
    let mut program = Program::start(bugle_program(), &[&["watch", "--server", &server], rest].concat());
    program.line("watching as").await;
    program
}

#[tokio::test]
async fn send_reaches_watch_in_all_four_modes_and_tells_of_each() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut one = watch(&gateway, &["--group", "floor", "--as", "one", "--json"]).await;
        let two = watch(&gateway, &["--group", "floor", "--as", "two", "--count", "2"]).await;
        let send = async |rest: &[&str]| {
            let rest = [&["--as", "app", "--receipt", "each", "--json"], rest].concat();
            let sent: Value =
                serde_json::from_str(&bugle(&gateway, "send", &rest, "").await.expect(0).out).unwrap();
            assert_eq!(sent["accepted"], true);
            sent["statuses"].clone()
        };
        assert_eq!(
            send(&["--group", "floor", "hello"]).await,
            json!({"one": "DELIVERED", "two": "DELIVERED"})
        );
        assert_eq!(
            send(&["--group", "floor", "--only", "one,three", "--ttl", "5000", "--urgent", "only"]).await,
            json!({"one": "DELIVERED", "three": "NOT_MEMBER"})
        );
        assert_eq!(
            send(&["--group", "floor", "--except", "one", "except"]).await,
            json!({"two": "DELIVERED"})
        );
        assert_eq!(send(&["--to", "one", "one"]).await, json!({"one": "DELIVERED"}));
        for (mode, payload, group, urgent) in [
            ("all", "hello", json!("floor"), false),
            ("only", "only", json!("floor"), true),
            ("one", "one", json!(null), false),
        ] {
            let line: Value = serde_json::from_str(&one.line("{").await).unwrap();
            let got = (&line["mode"], &line["payload"], &line["from"], &line["group"], &line["urgent"]);
            assert_eq!(got, (&json!(mode), &json!(payload), &json!("app"), &group, &json!(urgent)));
        }
        let seen = two.finish().await.expect(0);
        let lines: Vec<_> = seen.out.lines().collect();
        assert_eq!(lines.len(), 2, "{seen:?}");
        assert!(
            lines[0].ends_with(" all floor app: hello") && lines[1].ends_with(" except floor app: except"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn send_says_in_words_what_became_of_it() {
    let gateway = Gateway::start(1).await;
    let _lamp = Device::member(&gateway, "lamp", "floor").await;
    let sent =
        bugle(&gateway, "send", &["--group", "floor", "--only", "lamp,x", "--receipt", "each", "on"], "")
            .await;
    let sent = sent.expect(0).out;
    assert!(sent.starts_with("accepted (") && sent.contains("1 delivered, 1 not_member"), "{sent}");
    assert!(sent.contains("  lamp DELIVERED") && sent.contains("  x NOT_MEMBER"), "{sent}");
    let sent = bugle(&gateway, "send", &["--group", "nobody", "on"], "").await.expect(0).out;
    assert!(sent.contains("no recipients"), "{sent}");
    let sent =
        bugle(&gateway, "send", &["--group", "floor", "--receipt", "none", "on"], "").await.expect(0).out;
    assert!(sent.trim_end().ends_with(" ms)"), "{sent}");
}

#[tokio::test]
async fn send_takes_its_message_from_stdin() {
    let gateway = Gateway::start(1).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    bugle(&gateway, "send", &["--group", "floor"], "from a pipe").await.expect(0);
    assert_eq!(lamp.text().await, "from a pipe");
    let refused = bugle(&gateway, "send", &["--group", "floor"], &"x".repeat(8193)).await.expect(1);
    assert!(refused.err.contains("TOO_LARGE"), "{refused:?}");
}

#[tokio::test]
async fn send_ends_with_1_where_it_is_refused_2_where_it_is_misused_and_3_without_a_gateway() {
    let gateway = Gateway::start(1).await;
    let many = (0..129).map(|number| format!("l{number}")).collect::<Vec<_>>().join(",");
    for (rest, code, said) in [
        (&["--group", "floor", "--only", &many, "on"][..], 1, "LIST_TOO_LONG"),
        (&["--group", "floor", "--only", "", "on"], 1, "NO_RECIPIENT"),
        (&["--group", "no name", "on"], 1, "BAD_NAME"),
        (&["--group", "floor", "--store", "--ttl", "1000", "on"], 1, "UNSUPPORTED"),
        (&["on"], 2, "--group"),
        (&["--group", "floor", "--to", "lamp", "on"], 2, "cannot be used with"),
        (&["--to", "lamp", "--only", "x", "on"], 2, "--"),
        (&["--group", "floor", "--ttl", "0", "on"], 2, "--ttl"),
        (&["--group", "floor", "--as", "no name", "on"], 2, "client id"),
        (&["--group", "floor", "--secret-file", "/nowhere", "on"], 2, "/nowhere"),
    ] {
        let ended = bugle(&gateway, "send", rest, "").await.expect(code);
        assert!(ended.err.contains(said), "{rest:?}: {ended:?}");
    }
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in [&["send", "--group", "floor", "--server", &free, "on"][..], &["watch", "--server", &free]]
    {
        let ended = Program::run(bugle_program(), command, b"").await.expect(3);
        assert!(ended.err.contains("bugle serve"), "{ended:?}");
    }
}

#[tokio::test]
async fn watch_opens_its_inbox_and_plain_topics() {
    let gateway = Gateway::start(2).await;
    let mut watcher = watch(&gateway, &["--as", "me", "--topic", "home/#"]).await;
    let lamp = Device::connect(&gateway, "lamp").await;
    assert_eq!(lamp.send(Target::client("me"), "hi\x1b[2J").await.unwrap()["me"], "DELIVERED");
    assert!(
        watcher.line(" one lamp: ").await.ends_with(" one lamp: hi\\u{1b}[2J"),
        "nothing commands the terminal"
    );
    lamp.client.publish("home/lamp", b"21.5", true, false).await.unwrap();
    watcher.line(" topic home/lamp: 21.5").await;
    watcher.signal("INT").await;
    watcher.finish().await.expect(0);
}

#[tokio::test]
async fn watch_that_is_taken_over_says_so_and_ends_with_3() {
    let gateway = Gateway::start(2).await;
    let watcher = watch(&gateway, &["--as", "me"]).await;
    let _second = Device::connect(&gateway, "me").await;
    let ended = watcher.finish().await.expect(3);
    assert!(ended.err.contains("--as"), "{ended:?}");
}

#[tokio::test]
async fn watch_connects_again_and_is_in_its_groups_again() {
    let gateway = Gateway::start(1).await;
    let port = gateway.port;
    let mut watcher = watch(&gateway, &["--as", "me", "--group", "floor"]).await;
    gateway.terminate().await;
    gateway.finish().await.expect(0);
    watcher.line("trying again").await;
    let again = format!("127.0.0.1:{port}");
    let gateway = Setup::shards(1)
        .config("[limits]\nsignals_per_second = 100000")
        .argument("--listen")
        .argument(&again)
        .start()
        .await;
    watcher.line("connected again").await;
    let panel = Device::connect(&gateway, "panel").await;
    while panel.send(Target::group("floor"), "back").await.unwrap().is_empty() {}
    watcher.line(" all floor panel: back").await;
}

#[tokio::test]
async fn demo_shows_the_four_modes_and_the_refusals() {
    let shown = Program::run(bugle_program(), &["demo"], b"").await.expect(0);
    for part in [
        "one",
        "all",
        "only",
        "except",
        "LIST_TOO_LONG",
        "NO_RECIPIENT",
        "TOO_LARGE",
        "BAD_OPTION",
        "All as it should be.",
    ] {
        assert!(shown.out.contains(part), "no {part} in {}", shown.out);
    }
    assert_eq!(shown.err, "");
}
