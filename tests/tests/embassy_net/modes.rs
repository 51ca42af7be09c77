//! One group of a lamp on the SDK and a minimq, each on a board at a bad cable, and an MQTT 3.1.1 app beside the
//! gateway: whoever sends, however it is addressed, the right ones get it once, and the sender hears of each.

use std::collections::BTreeMap;

use bugle_device::{SendOptions, Status, Target};
use bugle_tests::{App, Gateway, Version, soon};
use serde_json::json;

use crate::board::board;
use crate::cable::{Cable, Faults};
use crate::lamp::Lamp;
use crate::minimq_app::MinimqApp;
use crate::{on_boards, seed};

/// Who sends, and what becomes of it at each of the three.
const MODES: [(&str, &[&str]); 4] = [
    ("g/floor?receipt=each", &["app", "lamp", "mini"]),
    ("g/floor?only=lamp,gone&receipt=each", &["lamp"]),
    ("g/floor?except=lamp&receipt=each", &["app", "mini"]),
    ("c/lamp?receipt=each", &["lamp"]),
];

#[tokio::test]
async fn s3_s8_four_modes_both_ways_over_bad_cables() {
    on_boards(async {
        let seed = seed(0xB0A2D);
        let gateway = Gateway::start(2).await;
        let cables = [Cable::new(Faults::BAD, seed), Cable::new(Faults::BAD, !seed)];
        let mut lamp =
            Lamp::member(board(&gateway, &cables[0], seed), Lamp::config("lamp", seed), "floor").await;
        let mut mini = MinimqApp::member(board(&gateway, &cables[1], seed), "mini", "floor").await;
        let mut app = App::member(&gateway, Version::V311, "app", "floor").await;

        for (topic, recipients) in MODES {
            let topic = format!("sig/{topic}");
            let expected = |sender: &str| {
                let mut statuses = serde_json::Map::new();
                for id in recipients.iter().filter(|id| **id != sender) {
                    statuses.insert((*id).to_owned(), json!("DELIVERED"));
                }
                if topic.contains("gone") {
                    statuses.insert("gone".to_owned(), json!("NOT_MEMBER"));
                }
                serde_json::Value::from(statuses)
            };
            assert_eq!(mini.send(&topic, &topic).await, expected("mini"), "{topic}");
            assert_eq!(app.send(&topic, &topic).await["statuses"], expected("app"), "{topic}");
        }
        for (mode, topic) in [("all", 0), ("only", 1), ("one", 3)] {
            for from in ["mini", "app"] {
                let signal = lamp.next().await;
                let expected = (mode, from, format!("sig/{}", MODES[topic].0));
                assert_eq!((signal.mode, signal.from.as_str(), signal.text), expected);
            }
        }
        assert!(lamp.has_nothing(), "each came once");
        for topic in [0, 2] {
            let text = format!("sig/{}", MODES[topic].0);
            assert_eq!(app.message("sig/g/floor").await.text, text);
            assert_eq!(mini.message("sig/g/floor").await.text, text);
        }

        let floor = Target::group("floor");
        for (target, text, recipients) in [
            (floor, "all", &["app", "mini"][..]),
            (floor.only(&["mini", "gone"]), "only", &["mini", "gone"]),
            (floor.except(&["mini"]), "except", &["app"]),
            (Target::client("mini"), "one", &["mini"]),
        ] {
            let mut statuses = BTreeMap::new();
            let note = |id: &str, status: Status| {
                statuses.insert(id.to_owned(), status.name());
            };
            let options = SendOptions::default();
            let sent = lamp.client.send_with_receipt(target, text.as_bytes(), &options, note);
            soon("the receipt", sent).await.unwrap();
            let expected = recipients
                .iter()
                .map(|id| ((*id).to_owned(), if *id == "gone" { "NOT_MEMBER" } else { "DELIVERED" }));
            assert_eq!(statuses, expected.collect(), "{text}");
        }
        for (topic, mode) in [("sig/g/floor", "all"), ("sig/g/floor", "only"), ("sig/c/mini", "one")] {
            let message = mini.message(topic).await;
            assert_eq!((message.text.as_str(), message.property("from")), (mode, Some("lamp")));
            assert_eq!(message.property("mode"), Some(mode));
        }
        for text in ["all", "except"] {
            assert_eq!(app.message("sig/g/floor").await.text, text);
        }
        assert_eq!(lamp.client.counters().welcomes, 1, "TCP has mended it all");
    })
    .await;
}

#[tokio::test]
async fn s6_s11_many_and_large_signals_come_once_and_in_order_over_bad_cables() {
    on_boards(async {
        let seed = seed(0x0D0E5);
        let gateway = Gateway::start(2).await;
        let cable = Cable::new(Faults::BAD, seed);
        let mut lamp = Lamp::member(board(&gateway, &cable, seed), Lamp::config("lamp", seed), "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;

        let down = async {
            for number in 0..90 {
                assert_eq!(app.publish("sig/g/floor", number.to_string()).await.reason, "Success");
            }
            assert_eq!(app.publish("sig/c/lamp", "x".repeat(8192)).await.reason, "Success");
            for number in 0..90 {
                assert_eq!(app.message("sig/g/floor").await.text, number.to_string());
            }
            assert_eq!(app.message("sig/c/app").await.text, "y".repeat(8192));
            assert_eq!(app.left("sig/g/floor") + app.left("sig/c/app"), 0);
        };
        let up = async {
            for number in 0..90 {
                lamp.send(Target::group("floor"), number.to_string().as_bytes()).await.unwrap();
            }
            lamp.send(Target::client("app"), &[b'y'; 8192]).await.unwrap();
        };
        tokio::join!(down, up);
        for number in 0..90 {
            assert_eq!(lamp.text().await, number.to_string());
        }
        assert_eq!(lamp.text().await, "x".repeat(8192));
        assert!(lamp.has_nothing());
        let counters = lamp.client.counters();
        assert_eq!((counters.welcomes, counters.taken), (1, 91));
        cable.assert_was_bad();
    })
    .await;
}
