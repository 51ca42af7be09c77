//! What an operator sees: configuration that is refused with a hint, ports in use, health and metrics.

use bugle_device::Target;
use bugle_tests::{App, Device, Finished, Gateway, Program, Version, bugle_program};

/// `bugle serve` with this configuration, which it must refuse.
async fn refused(name: &str, config: &str, arguments: &[&str]) -> Finished {
    let path = std::env::temp_dir().join(format!("bugle-test-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, config).unwrap();
    let path_text = path.to_str().unwrap().to_owned();
    let all = [&["serve", "--config", &path_text, "--admin", "none"], arguments].concat();
    let ended = Program::run(bugle_program(), &all, b"").await.expect(1);
    std::fs::remove_file(&path).unwrap();
    ended
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_one() {
    for (name, config, hint) in [
        ("key", "lisen = ['127.0.0.1:0']", "did you mean 'listen'?"),
        ("limit", "[limits]\nsignal_per_second = 3", "did you mean 'signals_per_second'?"),
        ("rule", "[[rule]]\neffect = 'allow'\ngroup = ['x']", "did you mean 'groups'?"),
        ("value", "[limits]\nsignals_per_second = 0", "limits.signals_per_second = 0"),
        ("toml", "listen = [", "bugle-test-"),
    ] {
        let ended = refused(name, config, &["--listen", "127.0.0.1:0"]).await;
        assert!(ended.err.contains(hint), "{config}: {ended:?}");
    }
    let ended = Program::run(bugle_program(), &["serve", "--config", "/nowhere.toml"], b"").await.expect(1);
    assert!(ended.err.contains("/nowhere.toml"), "{ended:?}");
}

#[tokio::test]
async fn a_listener_for_everyone_wants_credentials() {
    let ended = refused("open", "", &["--listen", "0.0.0.0:0"]).await;
    assert!(ended.err.contains("credential") && ended.err.contains("allow_anonymous"), "{ended:?}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let gateway = Gateway::start(1).await;
    let ended = refused("port", "", &["--listen", &gateway.server()]).await;
    assert!(ended.err.contains(&gateway.server()) && ended.err.contains("--listen"), "{ended:?}");
    let admin = gateway.admin.to_string();
    let ended =
        Program::run(bugle_program(), &["serve", "--listen", "127.0.0.1:0", "--admin", &admin], b"").await;
    assert!(ended.expect(1).err.contains("--admin"));
}

#[tokio::test]
async fn the_configuration_can_be_printed_and_read_again() {
    let printed =
        Program::run(bugle_program(), &["serve", "--print-config", "--shards", "3"], b"").await.expect(0);
    assert!(printed.out.contains("shards = 3"), "{printed:?}");
    let path = std::env::temp_dir().join(format!("bugle-test-{}-printed.toml", std::process::id()));
    std::fs::write(&path, &printed.out).unwrap();
    let arguments = ["serve", "--print-config", "--config", path.to_str().unwrap()];
    let again = Program::run(bugle_program(), &arguments, b"").await.expect(0);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(again.out, printed.out);
}

#[tokio::test]
async fn healthz_says_that_it_is_well() {
    let gateway = Gateway::start(1).await;
    let (status, body) = gateway.get("/healthz").await;
    assert!(status.contains("200"), "{status}");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["status"], "ok");
    assert!(gateway.get("/nothing").await.0.contains("404"));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        assert_eq!(gateway.metric("bugle_shards").await, u64::from(shards));
        let lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        app.send("sig/g/floor?receipt=each", "on").await;
        app.publish("sig/g/floor?only=", "on").await;
        lamp.send(Target::client("nobody"), "on").await.unwrap();
        for (name, value) in [
            ("bugle_shards_answered", u64::from(shards)),
            ("bugle_clients", 2),
            ("bugle_connections_accepted_total", 2),
            ("bugle_connects_total", 2),
            ("bugle_signals_total", 2),
            ("bugle_refused_total{reason=\"NO_RECIPIENT\"}", 1),
            ("bugle_recipients_total{status=\"DELIVERED\"}", 1),
            ("bugle_recipients_total{status=\"OFFLINE\"}", 1),
            ("bugle_panics_total", 0),
        ] {
            assert_eq!(gateway.metric(name).await, value, "{name}");
        }
    }
}

#[tokio::test]
async fn a_start_without_anything_says_what_is_listening_and_what_to_try() {
    let gateway = Gateway::start(1).await;
    let seen = gateway.seen();
    for command in ["bugle watch --group demo", "mosquitto_sub", "bugle send --group demo"] {
        assert!(seen.contains(command), "{seen}");
    }
}
