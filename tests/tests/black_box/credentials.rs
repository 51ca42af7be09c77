//! Who may come in: one secret for both protocols (S1).

use bugle_device::{Disconnect, Reason, Target};
use bugle_tests::{App, Device, Gateway, Program, Setup, Version, bugle_program, config, mosquitto_pub};

const CREDENTIALS: &str = "rules_default = 'allow'\n[[credential]]\nid = 'lamp'\nsecret = 'open sesame'\n[[credential]]\nid = 'app'\nsecret = 'mellon'";

async fn guarded() -> Gateway {
    Setup::shards(2).config(CREDENTIALS).start().await
}

#[tokio::test]
async fn a_device_is_let_in_with_its_own_secret_only() {
    let gateway = guarded().await;
    let lamp = Device::connect_as(&gateway, config("lamp", "open sesame")).await.unwrap();
    for (id, secret) in
        [("lamp", "open sesam"), ("lamp", "mellon"), ("lamp", ""), ("stranger", "open sesame")]
    {
        let end = Device::connect_as(&gateway, config(id, secret)).await.err();
        assert_eq!(end, Some(Disconnect::Bye(Reason::NotAuthenticated)), "{id} {secret:?}");
    }
    assert!(lamp.is_online(), "who fails to prove an id doesn't take it over");
    assert_eq!(gateway.metric("bugle_refused_total{reason=\"NOT_AUTHENTICATED\"}").await, 4);
}

#[tokio::test]
async fn an_app_is_let_in_with_its_own_password_only() {
    let gateway = guarded().await;
    for (version, refused) in [(Version::V5, "BadUserNamePassword"), (Version::V311, "BadUserNamePassword")] {
        let mut app = App::connect_as(&gateway, version, "app", Some("mellon")).await.unwrap();
        for (id, password) in [("app", Some("open sesame")), ("app", None), ("stranger", Some("mellon"))] {
            let error = App::connect_as(&gateway, version, id, password).await.err();
            let error = error.unwrap_or_else(|| panic!("{id} was let in"));
            assert!(error.contains(refused) || error.contains("NotAuthorized"), "{error}");
        }
        assert_eq!(app.subscribe("sig/c/app").await, ["Success(AtLeastOnce)"]);
        let lamp = Device::connect_as(&gateway, config("lamp", "open sesame")).await.unwrap();
        assert_eq!(lamp.send(Target::client("app"), "on").await.unwrap()["app"], "DELIVERED");
    }
}

#[tokio::test]
async fn mosquitto_pub_is_let_in_with_its_own_password_only() {
    let gateway = guarded().await;
    for version in ["311", "5"] {
        mosquitto_pub(&gateway, version, "app", "x", "on", &["-u", "app", "-P", "mellon"]).await.expect(0);
        let refused = mosquitto_pub(&gateway, version, "app", "x", "on", &["-u", "app", "-P", "wrong"]).await;
        assert!(refused.code != 0, "{refused:?}");
        let refused = mosquitto_pub(&gateway, version, "app", "x", "on", &[]).await;
        assert!(refused.code != 0, "{refused:?}");
    }
}

#[tokio::test]
async fn send_proves_the_secret_of_its_file() {
    let gateway = guarded().await;
    let file = std::env::temp_dir().join(format!("bugle-test-{}-secret", std::process::id()));
    let server = gateway.server();
    let arguments = [
        "send",
        "--server",
        &server,
        "--as",
        "app",
        "--secret-file",
        file.to_str().unwrap(),
        "--group",
        "floor",
        "on",
    ];
    std::fs::write(&file, "mellon\n").unwrap();
    Program::run(bugle_program(), &arguments, b"").await.expect(0);
    std::fs::write(&file, "wrong\n").unwrap();
    let refused = Program::run(bugle_program(), &arguments, b"").await.expect(3);
    assert!(refused.err.contains("--secret-file"), "{refused:?}");
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn no_secret_is_printed_or_logged() {
    let gateway = Setup::shards(1).config(CREDENTIALS).argument("--log").argument("trace").start().await;
    let _lamp = Device::connect_as(&gateway, config("lamp", "open sesame")).await.unwrap();
    let _app = App::connect_as(&gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    assert!(gateway.metric("bugle_connects_total").await == 2);
    let seen = gateway.seen();
    assert!(!seen.contains("sesame") && !seen.contains("mellon"), "{seen}");
}

#[tokio::test]
async fn who_fails_again_and_again_has_to_wait_and_locks_nobody_out() {
    let gateway = guarded().await;
    let wrong = || Device::connect_as(&gateway, config("lamp", "a guess"));
    for _ in 0..30 {
        assert_eq!(wrong().await.err(), Some(Disconnect::Bye(Reason::NotAuthenticated)));
    }
    let waits = "bugle_authentication_waits_total";
    assert_eq!(gateway.metric(waits).await, 0);
    for _ in 0..4 {
        assert_eq!(wrong().await.err(), Some(Disconnect::Bye(Reason::NotAuthenticated)));
    }
    assert!(gateway.metric(waits).await >= 2);
    // Neither the address nor the name that was tried is locked.
    let started = std::time::Instant::now();
    let lamp = Device::connect_as(&gateway, config("lamp", "open sesame")).await.unwrap();
    assert!(started.elapsed() >= std::time::Duration::from_millis(100), "it came from there, too");
    assert!(lamp.is_online());
}
