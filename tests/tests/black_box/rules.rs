//! The rules file of a running gateway: changes hold at the next message, for both protocols, and a wrong one changes nothing.

use bugle_device::{Disconnect, Reason, SendError, Target};
use bugle_tests::{App, Device, Gateway, Program, Scratch, Setup, Version, bugle_program, soon};

const TAKEN: &str = "bugle_rules_reloads_total{result=\"taken\"}";
const REFUSED: &str = "bugle_rules_reloads_total{result=\"refused\"}";
const OPEN: &str = "default = \"allow\"\n";

/// A gateway with a rules file.
async fn ruled(scratch: &Scratch, rules: &str) -> Gateway {
    let file = scratch.write("rules.toml", rules);
    Setup::shards(3).config(&format!("rules = '{file}'")).start().await
}

/// Puts other rules into the file, and waits until they hold.
async fn change(gateway: &Gateway, scratch: &Scratch, rules: &str) {
    let before = gateway.metric(TAKEN).await;
    // As an editor does it: at no moment is the file half there.
    let new = scratch.write("rules.new", rules);
    std::fs::rename(new, scratch.path("rules.toml")).unwrap();
    gateway.wait_metric(TAKEN, |count| count > before).await;
}

#[tokio::test]
async fn a_changed_file_holds_at_the_next_message_and_ends_what_it_forbids() {
    let scratch = Scratch::new();
    let gateway = ruled(&scratch, OPEN).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    let mut old = App::member(&gateway, Version::V311, "old", "floor").await;
    let all = app.send("sig/g/floor?receipt=each", "one").await;
    assert_eq!(all["statuses"], serde_json::json!({"lamp": "DELIVERED", "old": "DELIVERED"}));

    let deny = "[[rule]]\neffect = 'deny'\nclients = ['old', 'lamp']\nactions = ['join']\n\
                [[rule]]\neffect = 'deny'\nclients = ['lamp']\nactions = ['send']\n";
    change(&gateway, &scratch, deny).await;
    let notice = old.notice("ended").await;
    assert_eq!((&notice["topic"], &notice["code"]), (&"sig/g/floor".into(), &"NOT_AUTHORIZED".into()));
    let receipt = app.send("sig/g/floor?only=lamp,old&receipt=each", "two").await;
    assert_eq!(receipt["statuses"], serde_json::json!({"lamp": "NOT_MEMBER", "old": "NOT_MEMBER"}));
    assert_eq!(
        lamp.send(Target::group("floor"), "three").await,
        Err(SendError::Refused { reason: Reason::NotAuthorized, retry_after: 0 })
    );
    assert_eq!(gateway.metric("bugle_subscriptions_ended_total").await, 2);

    change(
        &gateway,
        &scratch,
        "[[rule]]\neffect = 'deny'\nclients = ['lamp', 'old']\nactions = ['connect']\n",
    )
    .await;
    assert_eq!(soon("the end", lamp.ended()).await, Disconnect::Bye(Reason::NotAuthorized));
    soon("the end", old.ended()).await;
    assert_eq!(lamp.text().await, "one");
    change(&gateway, &scratch, OPEN).await;
    let _lamp = Device::member(&gateway, "lamp", "floor").await;
    let receipt = app.send("sig/g/floor?receipt=each", "four").await;
    assert_eq!(receipt["statuses"], serde_json::json!({"lamp": "DELIVERED"}));
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_told() {
    let scratch = Scratch::new();
    let deny = "[[rule]]\neffect = 'deny'\nactions = ['send']\n";
    let mut gateway = ruled(&scratch, deny).await;
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    for (wrong, words) in [
        ("[[rule]]\neffect = 'deny'\nactions = ['sned']\n", &["line 3", "did you mean 'send'?"][..]),
        (
            "[[rule]]\neffect = 'allow'\n\n[[rule]]\neffect = 'allow'\ntopics = ['a/#/b']\n",
            &["line 4", "'a/#/b'"],
        ),
        ("[[rule]\n", &["line 1"]),
    ] {
        let before = gateway.metric(REFUSED).await;
        scratch.write("rules.toml", wrong);
        gateway.wait_metric(REFUSED, |count| count > before).await;
        let (_, health) = gateway.get("/healthz").await;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        let reason = health["rules"]["reason"].as_str().unwrap();
        assert_eq!(health["status"], "degraded");
        for word in words {
            assert!(reason.contains(word) && gateway.seen().contains(word), "{word} in {reason}");
        }
        assert_eq!(gateway.metric("bugle_rules_outdated").await, 1);
        let refused = app.publish("sig/g/floor", "on").await;
        assert_eq!(refused.code, "NOT_AUTHORIZED", "the older rules hold");
    }
    // SIGHUP reads it again, wrong as it is; a good one heals.
    let before = gateway.metric(REFUSED).await;
    gateway.reload().await;
    gateway.wait_metric(REFUSED, |count| count > before).await;
    scratch.write("rules.toml", OPEN);
    gateway.wait_metric("bugle_rules_outdated", |outdated| outdated == 0).await;
    let (_, health) = gateway.get("/healthz").await;
    assert!(health.contains("\"status\":\"ok\""), "{health}");
    assert_eq!(app.publish("sig/g/floor", "on").await.code, "");
}

#[tokio::test]
async fn a_gateway_with_a_wrong_rules_file_does_not_start() {
    let scratch = Scratch::new();
    let rules = scratch.write("rules.toml", "[[rule]]\neffect = 'alow'\n");
    let config = scratch.write("bugle.toml", &format!("rules = '{rules}'\n"));
    let ended = Program::run(bugle_program(), &["serve", "--config", &config], b"").await.expect(1);
    assert!(ended.err.contains("rules.toml") && ended.err.contains("line 2"), "{ended:?}");
    assert!(ended.err.contains("did you mean 'allow'?"), "{ended:?}");
}

#[tokio::test]
async fn explain_says_which_line_decides() {
    let scratch = Scratch::new();
    let rules = "[[role]]\nname = 'operator'\nusers = ['anna']\n\n\
                 [[rule]]\neffect = 'allow'\nroles = ['operator']\nactions = ['send']\ngroups = ['floor*']\n\n\
                 [[rule]]\neffect = 'deny'\nclients = ['guest-*']\n\n\
                 [[group]]\nname = 'floor9'\nallow = ['boss']\n";
    let file = scratch.write("rules.toml", rules);
    let explain = async |asked: &str, code: i32| {
        let arguments = format!("rules explain --rules {file} {asked}");
        let arguments: Vec<&str> = arguments.split(' ').collect();
        Program::run(bugle_program(), &arguments, b"").await.expect(code).out
    };
    let allowed = explain("--client app --user anna --action send --group floor3", 0).await;
    assert!(allowed.starts_with("allowed: ") && allowed.contains("rules.toml:5:"), "{allowed}");
    assert!(allowed.contains("roles = ['operator']"), "{allowed}");
    let denied = explain("--client guest-1 --role operator --action send --group floor3", 1).await;
    assert!(denied.starts_with("denied: ") && denied.contains("rules.toml:11:"), "{denied}");
    let denied = explain("--client app --user anna --action join --group floor3", 1).await;
    assert!(denied.contains("no rule matches, and the default is to deny"), "{denied}");
    let denied = explain("--client app --user anna --action send --group floor9", 1).await;
    assert!(denied.contains("rules.toml:15:") && denied.contains("allow list"), "{denied}");
    for (misused, word) in [
        ("--action sned", "send"),
        ("--action send", "a group or a client"),
        ("--action join --topic a", "a group"),
    ] {
        let arguments = format!("rules explain --rules {file} {misused}");
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let ended = Program::run(bugle_program(), &arguments, b"").await.expect(2);
        assert!(ended.err.contains(word), "{ended:?}");
    }
}

#[tokio::test]
async fn a_table_of_expectations_is_tested() {
    let scratch = Scratch::new();
    scratch
        .write("rules.toml", "[[rule]]\neffect = 'allow'\nclients = ['app']\nactions = ['send', 'join']\n");
    let table = "rules = 'rules.toml'\n\
                 [[expect]]\nclient = 'app'\nactions = ['send', 'join']\ngroup = 'g'\nverdict = 'allowed'\n\n\
                 [[expect]]\nclient = 'lamp'\nactions = ['send']\nto = 'app'\nverdict = 'denied'\n";
    let file = scratch.write("table.toml", table);
    let test = ["rules", "test", &file];
    let ended = Program::run(bugle_program(), &test, b"").await.expect(0);
    assert!(ended.out.contains("3 as expected, 0 not"), "{ended:?}");
    scratch.write("table.toml", &table.replace("'denied'", "'allowed'"));
    let ended = Program::run(bugle_program(), &test, b"").await.expect(1);
    assert!(ended.out.contains("2 as expected, 1 not"), "{ended:?}");
    assert!(ended.out.contains("table.toml:8: lamp Send is denied: no rule matches"), "{ended:?}");
    scratch.write("table.toml", &table.replace("verdict", "verdikt"));
    let ended = Program::run(bugle_program(), &test, b"").await.expect(2);
    assert!(ended.err.contains("did you mean 'verdict'?"), "{ended:?}");
}
