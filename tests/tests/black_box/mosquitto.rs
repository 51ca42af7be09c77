//! Mosquitto's own clients, in 3.1.1 and 5, on signal topics and plain ones (T1 to T4, T7).

use bugle_tests::{App, Device, Gateway, Program, Version, mosquitto_pub, mosquitto_rr, mosquitto_sub};
use serde_json::json;

const VERSIONS: [&str; 2] = ["311", "5"];

/// What the subscriber got next.
async fn got(subscriber: &mut Program) -> String {
    subscriber.line("got ").await.trim_start_matches("got ").to_owned()
}

#[tokio::test]
async fn t1_t2_mosquitto_pub_reaches_mosquitto_sub_in_all_four_modes() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        for version in VERSIONS {
            let ids = ["a", "b", "c"].map(|name| format!("{name}-{version}"));
            let mut subscribers = Vec::new();
            for id in &ids {
                let inbox = format!("sig/c/{id}");
                subscribers.push(mosquitto_sub(&gateway, version, id, &["sig/g/floor", &inbox]).await);
            }
            let [a, b, c] = &ids;
            for (topic, payload) in [
                ("sig/g/floor".to_owned(), "all"),
                (format!("sig/g/floor?only={a},{b}"), "only"),
                (format!("sig/g/floor?except={a}"), "except"),
                (format!("sig/c/{c}"), "one"),
                ("sig/g/floor".to_owned(), "end"),
            ] {
                mosquitto_pub(&gateway, version, "app", &topic, payload, &[]).await.expect(0);
            }
            let expected = [
                vec!["all", "only", "end"],
                vec!["all", "only", "except", "end"],
                vec!["all", "except", "one", "end"],
            ];
            for ((subscriber, id), texts) in subscribers.iter_mut().zip(&ids).zip(expected) {
                for text in texts {
                    let topic = if text == "one" { format!("sig/c/{id}") } else { "sig/g/floor".to_owned() };
                    let line = got(subscriber).await;
                    assert!(line.starts_with(&format!("{topic}|{text}|")), "{id} got {line:?}, not {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn t2_mosquitto_sub_gets_the_sender_in_the_topic_where_it_asks_for_it() {
    let gateway = Gateway::start(2).await;
    let mut by_name = mosquitto_sub(&gateway, "311", "by-name", &["sig/g/floor/+"]).await;
    let mut all = mosquitto_sub(&gateway, "311", "all", &["sig/g/floor/#"]).await;
    mosquitto_pub(&gateway, "311", "app", "sig/g/floor", "on", &[]).await.expect(0);
    assert_eq!(got(&mut by_name).await, "sig/g/floor/app|on|");
    assert_eq!(got(&mut all).await, "sig/g/floor/app|on|");
}

#[tokio::test]
async fn t2_mosquitto_sub_gets_a_signal_once_though_its_filters_overlap() {
    let gateway = Gateway::start(1).await;
    let mut lamp =
        mosquitto_sub(&gateway, "5", "lamp", &["sig/g/floor", "sig/g/floor/+", "sig/g/floor/#"]).await;
    for text in ["one", "two"] {
        mosquitto_pub(&gateway, "5", "app", "sig/g/floor", text, &[]).await.expect(0);
    }
    assert!(got(&mut lamp).await.contains("|one|"));
    assert!(got(&mut lamp).await.contains("|two|"));
}

#[tokio::test]
async fn t2_mosquitto_sub_gets_from_mode_and_ttl_and_foreign_user_properties_in_mqtt_5() {
    let gateway = Gateway::start(2).await;
    let mut lamp = mosquitto_sub(&gateway, "5", "lamp", &["sig/g/floor", "sig/c/lamp"]).await;
    let user = |key, value| ["-D", "publish", "user-property", key, value];
    let more = [user("only", "lamp"), user("ttl", "5000"), user("colour", "red")].concat();
    mosquitto_pub(&gateway, "5", "app", "sig/g/floor", "on", &more).await.expect(0);
    let line = got(&mut lamp).await;
    for part in ["from:app", "mode:only", "ttl:", "colour:red"] {
        assert!(line.contains(part), "no {part} in {line:?}");
    }
    assert!(!line.contains("only:lamp"), "the sender's own options are consumed: {line:?}");
    let ttl: u32 = line.split("ttl:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(ttl <= 5000, "{line:?}");
    mosquitto_pub(&gateway, "5", "app", "sig/c/lamp", "on", &[]).await.expect(0);
    let line = got(&mut lamp).await;
    assert!(line.contains("mode:one") && !line.contains("ttl:"), "{line:?}");
}

#[tokio::test]
async fn t4_mosquitto_rr_gets_the_receipt_of_its_send() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let _lamps = (
            mosquitto_sub(&gateway, "311", "lamp-1", &["sig/g/floor"]).await,
            mosquitto_sub(&gateway, "5", "lamp-2", &["sig/g/floor"]).await,
        );
        for version in ["311", "mqttv5"] {
            let topic = "sig/g/floor?only=lamp-1,lamp-2,lamp-3&receipt=each&id=m-1";
            let topic = topic.replace("m-1", &format!("m-{version}"));
            let receipt = mosquitto_rr(&gateway, version, "app", &topic, "on").await;
            assert_eq!(receipt["type"], "receipt");
            assert_eq!(receipt["id"], format!("m-{version}"));
            assert_eq!(receipt["target"], json!({"group": "floor"}));
            assert_eq!(receipt["counts"], json!({"delivered": 2, "not_member": 1}));
            assert_eq!(receipt["final"], true);
            let statuses = json!({"lamp-1": "DELIVERED", "lamp-2": "DELIVERED", "lamp-3": "NOT_MEMBER"});
            assert_eq!(receipt["statuses"], statuses);
            let receipt = mosquitto_rr(&gateway, version, "app", "sig/g/floor?receipt=summary", "on").await;
            assert_eq!(receipt["counts"], json!({"delivered": 2}));
            assert_eq!(receipt.get("statuses"), None, "a summary names nobody");
        }
    }
}

#[tokio::test]
async fn t3_mosquitto_rr_gets_the_refusal_of_its_send() {
    let gateway = Gateway::start(1).await;
    let too_many: Vec<_> = (0..129).map(|number| format!("l{number}")).collect();
    for version in ["311", "mqttv5"] {
        for (topic, payload, code) in [
            (format!("sig/g/floor?only={}", too_many.join(",")), "on", "LIST_TOO_LONG"),
            ("sig/g/floor?only=".to_owned(), "on", "NO_RECIPIENT"),
            ("sig/g/floor?colour=red".to_owned(), "on", "BAD_OPTION"),
            ("sig/g/floor".to_owned(), &*"x".repeat(8193), "TOO_LARGE"),
            ("sig/g/bad name".to_owned(), "on", "BAD_NAME"),
            ("sig/x/floor".to_owned(), "on", "BAD_TOPIC"),
        ] {
            let refusal = mosquitto_rr(&gateway, version, "app", &topic, payload).await;
            assert_eq!(refusal["type"], "refusal", "{topic}: {refusal}");
            assert_eq!(refusal["code"], code, "{topic}: {refusal}");
            assert!(refusal["reason"].as_str().is_some_and(|text| !text.is_empty()), "{refusal}");
            assert!(refusal["packet_id"].is_u64(), "{refusal}");
        }
    }
}

#[tokio::test]
async fn t3_mosquitto_pub_hears_of_a_refusal_in_mqtt_5_and_is_acknowledged_in_3_1_1() {
    let gateway = Gateway::start(1).await;
    let refused = mosquitto_pub(&gateway, "5", "app", "sig/g/floor?only=", "on", &[]).await;
    assert!(refused.err.contains("failed"), "{refused:?}");
    mosquitto_pub(&gateway, "311", "app", "sig/g/floor?only=", "on", &[]).await.expect(0);
    gateway.wait_metric("bugle_refused_total{reason=\"NO_RECIPIENT\"}", |count| count == 2).await;
}

#[tokio::test]
async fn t7_mosquitto_pub_and_mosquitto_sub_on_plain_topics() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut exact = mosquitto_sub(&gateway, "311", "exact", &["home/lamp/state"]).await;
        let mut plus = mosquitto_sub(&gateway, "5", "plus", &["home/+/state"]).await;
        let mut hash = mosquitto_sub(&gateway, "5", "hash", &["#"]).await;
        for (version, qos) in [("311", "0"), ("311", "1"), ("5", "0"), ("5", "1")] {
            let text = format!("{version} at {qos}");
            mosquitto_pub(&gateway, version, "sensor", "home/lamp/state", &text, &["-q", qos])
                .await
                .expect(0);
            for subscriber in [&mut exact, &mut plus, &mut hash] {
                assert_eq!(got(subscriber).await, format!("home/lamp/state|{text}|"));
            }
        }
    }
}

#[tokio::test]
async fn t6_mosquitto_sub_to_everything_gets_no_signal_without_the_right_to_observe() {
    let gateway = Gateway::start(2).await;
    let mut curious = mosquitto_sub(&gateway, "5", "curious", &["#", "sig/#", "sig/g/+"]).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(
        app.send("sig/g/floor?receipt=each", "secret").await["statuses"],
        json!({"lamp": "DELIVERED"})
    );
    assert_eq!(lamp.text().await, "secret");
    app.publish("plain", "not secret").await;
    assert_eq!(got(&mut curious).await, "plain|not secret|");
}

#[tokio::test]
async fn s3_a_device_and_mosquitto_sub_command_each_other() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut lamp = Device::member(&gateway, "lamp", "floor").await;
        for version in VERSIONS {
            let app = format!("app-{version}");
            let inbox = format!("sig/c/{app}");
            let mut subscriber = mosquitto_sub(&gateway, version, &app, &["sig/g/floor", &inbox]).await;
            use bugle_device::Target;
            let one = [app.as_str()];
            for (target, topic, mode) in [
                (Target::group("floor"), "sig/g/floor", "all"),
                (Target::group("floor").only(&one), "sig/g/floor", "only"),
                (Target::group("floor").except(&["nobody"]), "sig/g/floor", "except"),
                (Target::client(&app), inbox.as_str(), "one"),
            ] {
                assert_eq!(
                    lamp.send(target, mode).await.unwrap(),
                    [(app.clone(), "DELIVERED")].into(),
                    "{mode}"
                );
                let line = got(&mut subscriber).await;
                assert!(line.starts_with(&format!("{topic}|{mode}|")), "{line:?}");
                assert_eq!(line.contains(&format!("mode:{mode}")), version == "5", "{line:?}");
            }
            for (topic, mode) in [
                ("sig/g/floor", "all"),
                ("sig/g/floor?only=lamp", "only"),
                ("sig/g/floor?except=nobody", "except"),
                ("sig/c/lamp", "one"),
            ] {
                mosquitto_pub(&gateway, version, "panel", topic, mode, &[]).await.expect(0);
                let signal = lamp.next().await;
                assert_eq!((signal.mode, signal.from.as_str(), signal.text.as_str()), (mode, "panel", mode));
            }
        }
    }
}
