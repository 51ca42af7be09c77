//! The main job: a device on the SDK and an MQTT app on rumqttc command each other under the same rules.

use bugle_device::{Reason, SendError, SendOptions, Target};
use bugle_tests::{App, Device, Gateway, Setup, Version};
use serde_json::json;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

#[tokio::test]
async fn s3_s8_an_app_reaches_devices_in_all_four_modes_and_hears_of_each() {
    for shards in [1, 3] {
        for version in VERSIONS {
            let gateway = Gateway::start(shards).await;
            let mut one = Device::member(&gateway, "lamp-1", "floor").await;
            let mut two = Device::member(&gateway, "lamp-2", "floor").await;
            let mut app = App::member(&gateway, version, "app", "floor").await;
            for (rest, statuses) in [
                ("g/floor?receipt=each", json!({"lamp-1": "DELIVERED", "lamp-2": "DELIVERED"})),
                (
                    "g/floor?only=lamp-1,lamp-9&receipt=each",
                    json!({"lamp-1": "DELIVERED", "lamp-9": "NOT_MEMBER"}),
                ),
                ("g/floor?except=lamp-1&receipt=each", json!({"lamp-2": "DELIVERED"})),
                ("c/lamp-2?receipt=each", json!({"lamp-2": "DELIVERED"})),
                ("c/nobody?receipt=each", json!({"nobody": "OFFLINE"})),
            ] {
                assert_eq!(app.send(&format!("sig/{rest}"), rest).await["statuses"], statuses, "{rest}");
            }
            for (lamp, expected) in [
                (
                    &mut one,
                    vec![
                        ("all", "g/floor?receipt=each"),
                        ("only", "g/floor?only=lamp-1,lamp-9&receipt=each"),
                    ],
                ),
                (
                    &mut two,
                    vec![
                        ("all", "g/floor?receipt=each"),
                        ("except", "g/floor?except=lamp-1&receipt=each"),
                        ("one", "c/lamp-2?receipt=each"),
                    ],
                ),
            ] {
                for (mode, text) in expected {
                    let signal = lamp.next().await;
                    assert_eq!(
                        (signal.mode, signal.text.as_str(), signal.from.as_str()),
                        (mode, text, "app")
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn s3_s8_a_device_reaches_apps_in_all_four_modes_and_hears_of_each() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut old = App::member(&gateway, Version::V311, "old", "floor").await;
        let mut new = App::member(&gateway, Version::V5, "new", "floor").await;
        let floor = Target::group("floor");
        for (target, text, outcome) in [
            (floor, "all", vec![("old", "DELIVERED"), ("new", "DELIVERED")]),
            (floor.only(&["old", "gone"]), "only", vec![("old", "DELIVERED"), ("gone", "NOT_MEMBER")]),
            (floor.except(&["old"]), "except", vec![("new", "DELIVERED")]),
            (Target::client("new"), "one", vec![("new", "DELIVERED")]),
            (Target::client("gone"), "none", vec![("gone", "OFFLINE")]),
        ] {
            let expected = outcome.into_iter().map(|(id, status)| (id.to_owned(), status)).collect();
            assert_eq!(lamp.send(target, text).await, Ok(expected), "{text}");
        }
        assert_eq!(old.message("sig/g/floor").await.text, "all");
        assert_eq!(old.message("sig/g/floor").await.text, "only");
        for text in ["all", "except"] {
            let message = new.message("sig/g/floor").await;
            assert_eq!((message.text.as_str(), message.property("mode")), (text, Some(text)));
            assert_eq!(message.property("from"), Some("lamp"));
        }
        assert_eq!(new.message("sig/c/new").await.text, "one");
        assert_eq!((old.left("sig/g/floor"), new.left("sig/g/floor")), (0, 0));
    }
}

#[tokio::test]
async fn s4_s6_a_device_gets_the_refusals_that_an_app_gets() {
    let gateway = Setup::shards(2)
        .config("rules_default = 'allow'\n[[rule]]\neffect = 'deny'\nactions = ['send']\ngroups = ['closed']")
        .start()
        .await;
    let lamp = Device::connect(&gateway, "lamp").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    let refused = |reason| Err(SendError::Refused { reason, retry_after: 0 });
    assert_eq!(lamp.send(Target::group("closed"), "on").await, refused(Reason::NotAuthorized));
    let answer = app.publish("sig/g/closed", "on").await;
    assert_eq!((answer.reason.as_str(), answer.code.as_str()), ("NotAuthorized", "NOT_AUTHORIZED"));
    // What the SDK can see by itself it refuses by itself.
    let many = [const { "x" }; 129];
    assert_eq!(lamp.send(Target::group("floor").only(&many), "on").await, Err(SendError::ListTooLong));
    assert_eq!(lamp.send(Target::group("floor").only(&[]), "on").await, Err(SendError::NoRecipient));
    let options = SendOptions::default();
    let sent = lamp.send_with(Target::group("floor"), &[0; 8193], &options).await;
    assert_eq!(sent, Err(SendError::TooLarge));
    assert!(lamp.send_with(Target::group("floor"), &[b'x'; 8192], &options).await.is_ok());
    assert_eq!(app.message("sig/g/floor").await.text.len(), 8192);
    assert_eq!(app.left("sig/g/floor"), 0, "what was refused went nowhere");
}

#[tokio::test]
async fn s7_a_device_and_an_mqtt_5_app_over_their_rate_are_told_when_to_try_again() {
    let gateway = Setup::shards(2).config("[limits]\nsignals_per_second = 2").start().await;
    let lamp = Device::connect(&gateway, "lamp").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    for _ in 0..2 {
        lamp.send(Target::group("floor"), "on").await.unwrap();
        assert_eq!(app.publish("sig/g/floor", "on").await.reason, "Success");
    }
    let Err(SendError::Refused { reason: Reason::RateLimited, retry_after: 1..=500 }) =
        lamp.send(Target::group("floor"), "on").await
    else {
        panic!("a third at once");
    };
    let answer = app.publish("sig/g/floor", "on").await;
    assert_eq!((answer.reason.as_str(), answer.code.as_str()), ("QuotaExceeded", "RATE_LIMITED"));
    assert!(
        app.notice("refusal").await["retry_after_ms"].as_u64().is_some_and(|wait| (1..=500).contains(&wait))
    );
    assert_eq!(gateway.metric("bugle_refused_total{reason=\"RATE_LIMITED\"}").await, 2);
}

#[tokio::test]
async fn s7_an_mqtt_3_1_1_app_over_its_rate_is_slowed_and_loses_nothing() {
    let gateway = Setup::shards(2).config("[limits]\nsignals_per_second = 20").start().await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V311, "app", "elsewhere").await;
    for number in 0..30 {
        assert_eq!(app.publish("sig/g/floor", number.to_string()).await.reason, "Success");
    }
    for number in 0..30 {
        assert_eq!(lamp.text().await, number.to_string());
    }
    assert!(gateway.metric("bugle_parked_total").await > 0);
}

#[tokio::test]
async fn s9_a_delivery_carries_what_is_left_of_its_ttl() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    app.publish("sig/g/floor?ttl=5000", "on").await;
    assert!(lamp.next().await.ttl.is_some_and(|ttl| ttl <= 5000));
    let options = SendOptions { ttl: Some(5000), ..SendOptions::default() };
    lamp.send_with(Target::client("app"), b"on", &options).await.unwrap();
    let message = app.message("sig/c/app").await;
    assert!(message.property("ttl").is_some_and(|ttl| ttl.parse::<u32>().unwrap() <= 5000), "{message:?}");
}

#[tokio::test]
async fn t7_a_device_and_an_app_meet_on_a_plain_topic() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut lamp = Device::connect(&gateway, "lamp").await;
        lamp.client.subscribe("home/+/set", true).await.unwrap();
        for version in VERSIONS {
            let mut app = App::connect(&gateway, version, "home-assistant").await;
            app.subscribe("home/#").await;
            lamp.client.publish("home/lamp/state", b"off", true, false).await.unwrap();
            assert_eq!(app.message("home/lamp/state").await.text, "off");
            app.publish("home/lamp/set", "on").await;
            let message = lamp.next().await;
            assert_eq!((message.group.as_deref(), message.text.as_str()), (Some("home/lamp/set"), "on"));
        }
    }
}
