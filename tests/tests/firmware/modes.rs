//! The four modes in both directions, with the device in and out of the lists; two firmwares and two MQTT clients in one
//! group.

use bugle_tests::{App, Firmware, Gateway, Version};
use serde_json::json;

#[tokio::test]
async fn s3_s4_qemu_an_app_reaches_a_board_in_all_four_modes() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    for version in [Version::V311, Version::V5] {
        let mut app = App::member(&gateway, version, "app", "floor").await;
        for (topic, mode, statuses) in [
            ("g/floor?receipt=each", Some("all"), json!({"board": "DELIVERED"})),
            (
                "g/floor?only=board,gone&receipt=each",
                Some("only"),
                json!({"board": "DELIVERED", "gone": "NOT_MEMBER"}),
            ),
            ("g/floor?only=gone&receipt=each", None, json!({"gone": "NOT_MEMBER"})),
            ("g/floor?except=app&receipt=each", Some("except"), json!({"board": "DELIVERED"})),
            ("g/floor?except=board&receipt=each", None, json!({})),
            ("c/board?receipt=each", Some("one"), json!({"board": "DELIVERED"})),
        ] {
            assert_eq!(app.send(&format!("sig/{topic}"), topic).await["statuses"], statuses, "{topic}");
            if let Some(mode) = mode {
                let group = if mode == "one" { "-" } else { "floor" };
                let got = board.got().await;
                let shown: String = topic.chars().take(32).collect();
                assert_eq!([&got[0], &got[1], &got[2], &got[5]], [mode, "app", group, &shown], "{topic}");
            }
        }
    }
    let report = board.does("report", "welcomes").await;
    assert_eq!(report, "welcomes 1 taken 8 expired 0 too_large 0", "and nothing else came");
}

#[tokio::test]
async fn s3_s4_s8_qemu_a_board_reaches_apps_and_a_board_in_all_four_modes() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut other = Firmware::member(&gateway, "other", "floor", &[]).await;
    let mut old = App::member(&gateway, Version::V311, "old", "floor").await;
    let mut new = App::member(&gateway, Version::V5, "new", "floor").await;
    for (what, statuses) in [
        ("g/floor all", &["new DELIVERED", "old DELIVERED", "other DELIVERED"][..]),
        ("g/floor only=old,gone only", &["gone NOT_MEMBER", "old DELIVERED"]),
        ("g/floor only=other,board own", &["board DELIVERED", "other DELIVERED"]),
        ("g/floor except=old,other except", &["new DELIVERED"]),
        ("c/new one", &["new DELIVERED"]),
        ("c/other one", &["other DELIVERED"]),
        ("c/nobody one", &["nobody OFFLINE"]),
    ] {
        assert_eq!(board.send(what).await, statuses, "{what}");
    }
    for text in ["all", "only"] {
        assert_eq!(old.message("sig/g/floor").await.text, text);
    }
    for text in ["all", "except"] {
        let message = new.message("sig/g/floor").await;
        assert_eq!((message.text.as_str(), message.property("from")), (text, Some("board")));
    }
    assert_eq!(new.message("sig/c/new").await.text, "one");
    assert_eq!(old.left("sig/g/floor") + new.left("sig/g/floor"), 0);
    for (mode, text) in [("all", "all"), ("only", "own"), ("one", "one")] {
        let got = other.got().await;
        assert_eq!((got[0].as_str(), got[1].as_str(), got[5].as_str()), (mode, "board", text));
    }
}
