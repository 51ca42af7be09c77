//! What a cable that is cut does to a lamp: nothing where it is mended soon; else what was on its way is reported, never
//! repeated, and the lamp comes back by itself.

use std::time::Duration;

use bugle_device::{Disconnect, Event, SendError, SendOptions, Target};
use bugle_tests::{App, Gateway, Version, soon};
use serde_json::json;
use tokio::time::sleep;

use crate::board::board;
use crate::cable::{Cable, Faults};
use crate::lamp::Lamp;
use crate::{on_boards, seed};

#[tokio::test]
async fn s9_a_signal_that_tcp_holds_past_its_deadline_is_not_acted_on() {
    on_boards(async {
        let seed = seed(0x5EA);
        let gateway = Gateway::start(2).await;
        let cable = Cable::new(Faults::default(), seed);
        let mut lamp = Lamp::member(board(&gateway, &cable, seed), Lamp::config("lamp", seed), "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        // The deadline passes while the frame waits for TCP to send it again.
        cable.cut();
        assert_eq!(app.publish("sig/g/floor?ttl=400&receipt=each", "shut").await.reason, "Success");
        assert_eq!(app.publish("sig/g/floor?receipt=each", "open").await.reason, "Success");
        // It was written, and nobody can say at the ttl what became of it.
        let receipt = app.notice("receipt").await;
        assert_eq!(receipt["statuses"], json!({"lamp": "UNCONFIRMED"}), "{receipt}");
        cable.mend();
        assert_eq!(lamp.text().await, "open");
        assert_eq!(app.notice("receipt").await["statuses"], json!({"lamp": "DELIVERED"}));
        let counters = lamp.client.counters();
        assert_eq!((counters.expired, counters.taken, counters.welcomes), (1, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_cut_that_is_mended_before_anyone_gives_up_costs_nothing() {
    on_boards(async {
        let seed = seed(0xC07);
        let gateway = Gateway::start(2).await;
        let cable = Cable::new(Faults::BAD, seed);
        let mut lamp = Lamp::member(board(&gateway, &cable, seed), Lamp::config("lamp", seed), "floor").await;
        let mut app = App::member(&gateway, Version::V311, "app", "floor").await;
        cable.cut();
        let sent = lamp.send(Target::group("floor"), b"from the lamp");
        let published = app.publish("sig/g/floor", "from the app");
        // A cut has to last some time; there is nothing to wait for.
        let mended = async {
            sleep(Duration::from_millis(1500)).await;
            cable.mend();
        };
        let (sent, published, ()) = tokio::join!(sent, published, mended);
        assert!(sent.is_ok(), "{sent:?}");
        assert_eq!(published.reason, "Success");
        assert_eq!(lamp.text().await, "from the app");
        assert_eq!(app.message("sig/g/floor").await.text, "from the lamp");
        assert_eq!(lamp.client.counters().welcomes, 1);
    })
    .await;
}

#[tokio::test]
async fn s12_a_long_cut_leaves_what_was_written_unconfirmed_and_the_lamp_comes_back_to_its_group() {
    on_boards(async {
        let seed = seed(0x10C7);
        let gateway = Gateway::start(2).await;
        // Its patience is shorter than TCP's first repeat, so no other frame may be lost.
        let cable = Cable::new(Faults::default(), seed);
        let mut config = Lamp::config("lamp", seed);
        (config.keep_alive, config.ack_timeout, config.connect_timeout) = (5, 1_000, 2_000);
        config.session_expiry = 0;
        let mut lamp = Lamp::member(board(&gateway, &cable, seed), config, "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        cable.cut();
        assert_eq!(lamp.send(Target::group("floor"), b"lost").await, Err(SendError::Unconfirmed));
        lamp.event(|event| event == Event::Disconnected(Disconnect::TimedOut)).await;
        // The gateway notices too, so that nothing waits for this lamp.
        gateway.wait_metric("bugle_clients", |clients| clients == 1).await;
        let receipt = app.send("sig/g/floor?receipt=each", "to nobody").await;
        assert_eq!(receipt["statuses"], json!({}), "{receipt}");
        let alone = lamp.client.try_send(Target::group("floor"), b"too soon", &SendOptions::default());
        assert_eq!(alone.err(), Some(SendError::NotConnected));
        cable.mend();
        soon("the way back", lamp.client.wait_connected()).await.unwrap();
        assert_eq!(lamp.client.counters().welcomes, 2);
        // Its group is restored ahead of anything that it sends.
        lamp.send(Target::group("floor"), b"hello").await.unwrap();
        assert_eq!(app.message("sig/g/floor").await.text, "hello", "what was unconfirmed isn't sent again");
        let receipt = app.send("sig/g/floor?receipt=each", "again").await;
        assert_eq!(receipt["statuses"], json!({"lamp": "DELIVERED"}), "{receipt}");
        assert_eq!(lamp.text().await, "again");
    })
    .await;
}
