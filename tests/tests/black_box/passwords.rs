//! The password file and the devices' secrets: made by the commands, used by both protocols, read again when they change.

use bugle_device::{Disconnect, Reason, Target};
use bugle_tests::{
    App, Device, Finished, Gateway, Program, RawClient, Scratch, Setup, Version, bugle_program, config,
    mosquitto_pub,
};

/// What is allowed to whom; joining to those with the role alone.
const RULES: &str = "[[rule]]\neffect = 'allow'\nactions = ['connect', 'receive', 'send', 'subscribe']\n\
                     [[rule]]\neffect = 'allow'\nroles = ['staff']\nactions = ['join']\n";

async fn passwd(scratch: &Scratch, arguments: &[&str], password: &str) -> Finished {
    let file = scratch.path("passwords");
    let arguments = [&["passwd", file.to_str().unwrap()], arguments].concat();
    Program::run(bugle_program(), &arguments, password.as_bytes()).await
}

/// Makes a secret, which lives as long as the test does.
async fn add_device(scratch: &Scratch, arguments: &[&str]) -> &'static str {
    let file = scratch.path("devices");
    let arguments = [&["device", "add", "--file", file.to_str().unwrap()], arguments].concat();
    let secret = Program::run(bugle_program(), &arguments, b"").await.expect(0).out;
    assert!(secret.trim().len() >= 16, "{secret}");
    secret.trim().to_owned().leak()
}

/// A gateway with Anna, who is staff, Bob, and the device `lamp`, whose secret is given.
async fn guarded(scratch: &Scratch) -> (Gateway, &'static str) {
    passwd(scratch, &["anna", "--client", "anna*", "--role", "staff"], "mellon\n").await.expect(0);
    passwd(scratch, &["bob"], "sesame\n").await.expect(0);
    let secret = add_device(scratch, &["lamp", "--role", "staff"]).await;
    let files = ["passwords", "devices"].map(|name| scratch.path(name).display().to_string());
    let lines = format!("passwords = '{}'\ndevices = '{}'\n{RULES}", files[0], files[1]);
    (Setup::shards(3).config(&lines).start().await, secret)
}

#[tokio::test]
async fn users_and_devices_come_in_by_what_the_commands_made() {
    let scratch = Scratch::new();
    let (gateway, secret) = guarded(&scratch).await;
    let lamp = Device::connect_as(&gateway, config("lamp", secret)).await.unwrap();
    for version in [Version::V311, Version::V5] {
        let mut anna = App::connect_as(&gateway, version, "anna", Some("mellon")).await.unwrap();
        assert_eq!(anna.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"], "she is staff");
        assert_eq!(lamp.send(Target::group("floor"), "on").await.unwrap()["anna"], "DELIVERED");
        let mut bob = App::connect_as(&gateway, version, "bob", Some("sesame")).await.unwrap();
        assert_ne!(bob.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"], "he isn't");
        for (id, password) in [("anna", "sesame"), ("carl", "mellon"), ("bob", ""), ("lamp", "mellon")] {
            let error = App::connect_as(&gateway, version, id, Some(password)).await.err();
            let error = error.unwrap_or_else(|| panic!("{id} was let in"));
            assert!(error.contains("BadUserNamePassword") || error.contains("NotAuthorized"), "{error}");
        }
    }
    let end = Device::connect_as(&gateway, config("lamp", "0123456789abcdef")).await.err();
    assert_eq!(end, Some(Disconnect::Bye(Reason::NotAuthenticated)));
    assert!(lamp.is_online());
}

#[tokio::test]
async fn mosquitto_pub_may_only_be_the_clients_of_its_user() {
    let scratch = Scratch::new();
    let (gateway, _) = guarded(&scratch).await;
    for (user, password, id, expected) in [
        ("anna", "mellon", "anna-1", true),
        ("anna", "mellon", "bob", false),
        ("bob", "sesame", "whatever", true),
        ("bob", "sesame", "anna", false),
        ("bob", "sesame", "lamp", false),
    ] {
        for version in ["311", "5"] {
            let login = ["-u", user, "-P", password];
            let ended = mosquitto_pub(&gateway, version, id, "sig/c/nobody", "on", &login).await;
            assert_eq!(ended.code == 0, expected, "{user} as {id}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn changed_files_hold_for_who_comes_then_and_wrong_ones_change_nothing() {
    let scratch = Scratch::new();
    let (gateway, _) = guarded(&scratch).await;
    let comes = async |id: &'static str, password: &'static str| {
        App::connect_as(&gateway, Version::V5, id, Some(password)).await.is_ok()
    };
    passwd(&scratch, &["bob"], "barley\n").await.expect(0);
    let started = std::time::Instant::now();
    while !comes("bob", "barley").await {
        assert!(started.elapsed() < bugle_tests::PATIENCE, "{}", gateway.seen());
    }
    assert!(!comes("bob", "sesame").await);
    assert!(comes("anna", "mellon").await, "others stay");

    let text = std::fs::read_to_string(scratch.path("passwords")).unwrap();
    scratch.write("passwords", &format!("{text}carl:sesame\n"));
    gateway.wait_metric("bugle_credentials_outdated", |outdated| outdated == 1).await;
    let (_, health) = gateway.get("/healthz").await;
    assert!(health.contains("degraded") && health.contains("line 3: no argon2id hash"), "{health}");
    assert!(
        !health.contains("sesame") && !gateway.seen().contains("sesame"),
        "what isn't a hash may be a password"
    );
    assert!(comes("bob", "barley").await, "the older file holds");
    scratch.write("passwords", &text);
    gateway.wait_metric("bugle_credentials_outdated", |outdated| outdated == 0).await;

    passwd(&scratch, &["bob", "--delete"], "").await.expect(0);
    let ended = passwd(&scratch, &["bob", "--delete"], "").await.expect(2);
    assert!(ended.err.contains("no user 'bob'"), "{ended:?}");
    while comes("bob", "barley").await {
        assert!(started.elapsed() < bugle_tests::PATIENCE, "{}", gateway.seen());
    }
    let secret = add_device(&scratch, &["door"]).await;
    while Device::connect_as(&gateway, config("door", secret)).await.is_err() {
        assert!(started.elapsed() < bugle_tests::PATIENCE, "{}", gateway.seen());
    }
}

/// CONNECT of version 4 with a clean session.
fn connect_with_password(user: &str, password: &str) -> Vec<u8> {
    let text = |text: &str| [&[0, text.len() as u8], text.as_bytes()].concat();
    let body = [text("MQTT"), vec![4, 0xC2, 0, 0], text(user), text(user), text(password)].concat();
    [vec![0x10, body.len() as u8], body].concat()
}

#[tokio::test]
async fn trying_passwords_slows_no_message() {
    let scratch = Scratch::new();
    let (gateway, secret) = guarded(&scratch).await;
    let lamp = Device::connect_as(&gateway, config("lamp", secret)).await.unwrap();
    let mut anna = App::connect_as(&gateway, Version::V5, "anna", Some("mellon")).await.unwrap();
    anna.subscribe("sig/g/floor").await;
    // As many at once as keep all threads that hash busy for a while.
    let mut attempts = Vec::new();
    for _ in 0..60 {
        let connect = connect_with_password("bob", "guess");
        attempts.push(RawClient::open(&gateway, &connect).await);
    }
    let attacked = async {
        for attempt in &mut attempts {
            let (_, body) = attempt.packet().await.unwrap();
            assert!(matches!(body[1], 3..=5), "it was let in: {body:?}");
        }
    };
    let worked = async {
        for _ in 0..20 {
            let asked = std::time::Instant::now();
            assert_eq!(lamp.send(Target::group("floor"), "on").await.unwrap()["anna"], "DELIVERED");
            assert!(asked.elapsed() < std::time::Duration::from_secs(2), "it waited for passwords");
        }
    };
    tokio::join!(attacked, worked);
}

#[tokio::test]
async fn files_that_the_commands_make_are_for_their_owner_alone() {
    let scratch = Scratch::new();
    passwd(&scratch, &["anna"], "mellon\n").await.expect(0);
    add_device(&scratch, &["lamp"]).await;
    for name in ["passwords", "devices"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(scratch.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let text = std::fs::read_to_string(scratch.path("passwords")).unwrap();
    assert!(text.starts_with("anna:$argon2id$") && !text.contains("mellon"), "{text}");
    let file = scratch.path("devices").display().to_string();
    let again = ["device", "add", "--file", &file, "lamp"];
    let ended = Program::run(bugle_program(), &again, b"").await.expect(2);
    assert!(ended.err.contains("--replace"), "{ended:?}");
    for (arguments, word) in [(&["a:b"][..], "no name"), (&["anna", "--role", "a,b"], "'a,b'")] {
        let ended = passwd(&scratch, arguments, "x\n").await.expect(2);
        assert!(ended.err.contains(word), "{ended:?}");
    }
    let ended = passwd(&scratch, &["anna"], "\n").await.expect(2);
    assert!(ended.err.contains("1 to 1024 bytes"), "{ended:?}");
}
