//! The audit log: what is in it, that nothing else is, and what becomes of it when its file moves or can't be written.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bugle_tests::{
    App, Device, Gateway, Operators, RawClient, Scratch, Setup, Version, config, connect_packet, soon,
};
use serde_json::{Value, json};
use tokio::time::sleep;

const CREDENTIALS: &str = "rules_default = 'allow'\n[[credential]]\nid = 'lamp'\nsecret = 'open sesame'\n[[credential]]\nid = 'app'\nsecret = 'mellon'";

/// A gateway with an audit log.
struct Audited {
    gateway: Gateway,
    path: PathBuf,
    _scratch: Scratch,
}

impl Audited {
    async fn start(more: &str) -> Self {
        let scratch = Scratch::new();
        let path = scratch.path("audit.jsonl");
        let lines = format!("audit_log = '{}'\n{more}", path.display());
        let gateway = Setup::shards(2).config(&lines).start().await;
        Self { gateway, path, _scratch: scratch }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Waits for a line of this event with these fields.
    async fn line(&self, event: &str, fields: Value) -> Value {
        let fits = |line: &Value| {
            line["event"] == event
                && fields.as_object().unwrap().iter().all(|(key, value)| line[key] == *value)
        };
        let found = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(fits) {
                    return line;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(bugle_tests::PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {event} with {fields} in {:#?}", self.lines()))
    }
}

#[tokio::test]
async fn who_comes_is_refused_and_goes_stands_in_the_log() {
    let audited = Audited::start(CREDENTIALS).await;
    let gateway = &audited.gateway;
    audited.line("started", json!({})).await;
    let lamp = Device::connect_as(gateway, config("lamp", "open sesame")).await.unwrap();
    let connected = audited.line("connected", json!({"client": "lamp"})).await;
    assert_eq!(
        (&connected["user"], &connected["protocol"], &connected["address"], &connected["session_present"]),
        (&json!("lamp"), &json!("device"), &json!("127.0.0.1"), &json!(false))
    );
    assert!(connected["time"].as_str().unwrap().ends_with('Z'));
    drop(lamp);
    let gone = audited.line("disconnected", json!({"client": "lamp"})).await;
    assert_eq!(gone["connection"], connected["connection"]);

    let _app = App::connect_as(gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    App::connect_as(gateway, Version::V5, "app", Some("guess")).await.err().unwrap();
    let refused =
        json!({"client": "app", "user": "app", "reason": "NOT_AUTHENTICATED", "address": "127.0.0.1"});
    audited.line("refused", refused).await;
    Device::connect_as(gateway, config("lamp", "guess")).await.err().unwrap();
    audited.line("refused", json!({"client": "lamp", "reason": "NOT_AUTHENTICATED"})).await;
    assert_eq!(audited.lines().iter().filter(|line| line["event"] == "refused").count(), 2);

    let _newer = App::connect_as(gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    audited.line("disconnected", json!({"client": "app", "reason": "TAKEN_OVER"})).await;
    RawClient::open(gateway, b"GET / HTTP/1.1\r\n\r\n").await.rest().await;
    audited.line("closed_early", json!({"reason": "no_websocket", "address": "127.0.0.1"})).await;
    let text = fs::read_to_string(&audited.path).unwrap();
    for secret in ["open sesame", "mellon", "guess"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_goodbye_a_loss_and_a_broken_rule_of_the_protocol_are_told_apart() {
    let audited = Audited::start("").await;
    let gateway = &audited.gateway;
    for (id, rest, reason) in
        [("polite", &b"\xE0\x00"[..], "GOODBYE"), ("broken", &b"\xF0\x00\x00\x00"[..], "MALFORMED")]
    {
        let mut client = RawClient::open(gateway, &[&connect_packet(4, id, 0), rest].concat()).await;
        client.packet().await.unwrap();
        client.rest().await;
        audited.line("disconnected", json!({"client": id, "reason": reason})).await;
    }
    let mut client = RawClient::open(gateway, &connect_packet(4, "lost", 0)).await;
    client.packet().await.unwrap();
    drop(client);
    audited.line("disconnected", json!({"client": "lost", "reason": "LOST"})).await;
}

#[tokio::test]
async fn who_moderates_whom_and_what_operators_do_stands_in_the_log() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let scratch = Scratch::new();
    let rules = scratch.write(
        "rules.toml",
        "default = 'allow'\n[[rule]]\neffect = 'allow'\nactions = ['moderate']\nclients = ['boss']\n\
         [[rule]]\neffect = 'deny'\nactions = ['moderate']\nclients = ['guest']\n",
    );
    let audited = Audited::start(&format!("rules = '{rules}'\n{}", operators.section())).await;
    let gateway = &audited.gateway;
    let mut boss = App::connect(gateway, Version::V5, "boss").await;
    let mut guest = App::connect(gateway, Version::V5, "guest").await;
    boss.publish("sig/m/mute/guest?group=floor&for=60", "language").await;
    let muted = json!({
        "act": "mute", "client": "guest", "group": "floor", "seconds": 60, "why": "language", "by": "boss", "refused": null,
    });
    audited.line("moderated", muted).await;
    guest.publish("sig/m/ban/boss", "").await;
    audited.line("moderated", json!({"act": "ban", "by": "guest", "refused": "NOT_AUTHORIZED"})).await;
    gateway.admin_post(&token, "/clients/guest/kick", r#"{"why": "enough"}"#).await;
    audited.line("moderated", json!({"act": "kick", "client": "guest", "by": "operator anna"})).await;
    audited.line("disconnected", json!({"client": "guest", "reason": "KICKED"})).await;
    let action = json!({"operator": "anna", "method": "POST", "path": "/clients/guest/kick", "status": 200});
    audited.line("admin", action).await;
    gateway.admin(&token[..10], "GET", "/clients?token=secret", "").await;
    audited.line("admin", json!({"operator": null, "status": 401, "address": "127.0.0.1"})).await;
    gateway.admin_post(&token, "/rules/reload", "").await;
    audited.line("reload", json!({"what": "rules", "by": "operator anna", "result": "taken"})).await;
    scratch.write("rules.toml", "nonsense");
    let refused = audited
        .line("reload", json!({"what": "rules", "by": "change of the file", "result": "refused"}))
        .await;
    assert!(refused["error"].as_str().unwrap().contains("rules.toml"), "{refused}");
    let text = fs::read_to_string(&audited.path).unwrap();
    assert!(!text.contains(&token[..10]) && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_opened_anew_on_sighup_and_none_is_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let mut audited = Audited::start("").await;
    let _one = App::connect(&audited.gateway, Version::V5, "one").await;
    audited.line("connected", json!({"client": "one"})).await;
    assert_eq!(fs::metadata(&audited.path).unwrap().permissions().mode() & 0o777, 0o600);
    let moved = audited.path.with_extension("1");
    fs::rename(&audited.path, &moved).unwrap();
    audited.gateway.reload().await;
    let _two = App::connect(&audited.gateway, Version::V5, "two").await;
    audited.line("connected", json!({"client": "two"})).await;
    assert!(fs::read_to_string(&moved).unwrap().contains("\"one\""));
    assert!(!fs::read_to_string(&audited.path).unwrap().contains("\"one\""));
    // What is there when the gateway starts stays there; and its end is told.
    let before = fs::read_to_string(&audited.path).unwrap();
    let lines = format!("audit_log = '{}'", audited.path.display());
    let next = Setup::shards(1).config(&lines).start().await;
    let _three = App::connect(&next, Version::V5, "three").await;
    next.terminate().await;
    next.finish().await;
    let after = fs::read_to_string(&audited.path).unwrap();
    assert!(after.starts_with(&before) && after.contains("\"three\""), "{after}");
    let last: Vec<Value> =
        after.lines().rev().take(2).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&last[0]["event"], &last[1]["reason"]),
        (&json!("stopped"), &json!("SHUTTING_DOWN")),
        "{last:?}"
    );
}

#[tokio::test]
async fn strangers_do_not_fill_the_log() {
    let audited = Audited::start(CREDENTIALS).await;
    for _ in 0..400 {
        RawClient::open(&audited.gateway, b"\x00nonsense").await.rest().await;
    }
    let left_out = "bugle_audit_lines_total{result=\"left_out\"}";
    audited.gateway.wait_metric(left_out, |count| count > 0).await;
    let early = audited.lines().iter().filter(|line| line["event"] == "closed_early").count();
    let left_out = audited.gateway.metric(left_out).await as usize;
    assert_eq!(early + left_out, 400);
    sleep(Duration::from_secs(1)).await;
    RawClient::open(&audited.gateway, b"\x00nonsense").await.rest().await;
    let told = audited.line("left_out", json!({})).await;
    assert!(told["lines"].as_u64().unwrap() > 0);
    // Who is in is written down all the same.
    let _app = App::connect_as(&audited.gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    audited.line("connected", json!({"client": "app"})).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_and_holds_up_nobody() {
    let scratch = Scratch::new();
    let path = scratch.path("audit.jsonl");
    // Everything written there fails.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let gateway = Setup::shards(1).config(&format!("audit_log = '{}'", path.display())).start().await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    gateway.wait_metric("bugle_audit_unavailable", |value| value == 1).await;
    let health = gateway.get("/healthz").await.1;
    assert!(health.contains("degraded") && health.contains("audit.jsonl"), "{health}");
    assert_eq!(app.publish("sig/g/floor", "x").await.reason, "Success");
    fs::remove_file(&path).unwrap();
    let _other = App::connect(&gateway, Version::V5, "other").await;
    soon("the log", async {
        while !fs::read_to_string(&path).unwrap_or_default().contains("\"other\"") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    gateway.wait_metric("bugle_audit_unavailable", |value| value == 0).await;
    assert!(gateway.metric("bugle_audit_lines_total{result=\"failed\"}").await > 0);
    // At the start it is an error.
    let config = scratch.write("bugle.toml", "audit_log = '/nowhere/audit.jsonl'");
    let arguments = ["serve", "--config", &config, "--listen", "127.0.0.1:0", "--admin", "none"];
    let ended = bugle_tests::Program::run(bugle_tests::bugle_program(), &arguments, b"").await.expect(1);
    assert!(ended.err.contains("/nowhere/audit.jsonl"), "{ended:?}");
}
