//! Presence (S13, T5) from outside: apps on rumqttc, and a device on the SDK, watch who is in a group.

use std::collections::BTreeMap;

use bugle_tests::{App, Device, Gateway, RawClient, Setup, Version, connect_packet, subscribe_packet};
use serde_json::{Value, json};

const TOPIC: &str = "sig/p/floor";

/// Members as a watcher knows them, and how many messages told it.
#[derive(Default)]
struct Floor {
    members: BTreeMap<String, bool>,
    messages: usize,
}

impl Floor {
    fn apply(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        assert!(text.len() <= 8192, "{}", text.len());
        let kind = message["type"].as_str().unwrap();
        if kind == "members" && message["part"] == 1 {
            self.members.clear();
        }
        for entry in message[kind].as_array().unwrap() {
            let client = entry["client"].as_str().unwrap().to_owned();
            match entry["online"].as_bool() {
                Some(online) => drop(self.members.insert(client, online)),
                None => drop(self.members.remove(&client)),
            }
        }
        self.messages += 1;
    }

    async fn wait(&mut self, app: &mut App, is_wanted: impl Fn(&BTreeMap<String, bool>) -> bool) {
        while !is_wanted(&self.members) {
            self.apply(&app.message(TOPIC).await.text);
        }
    }
}

#[tokio::test]
async fn s13_t5_a_new_watcher_gets_the_members_and_then_each_change() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let lamp = Device::member(&gateway, "lamp", "floor").await;
        for version in [Version::V311, Version::V5] {
            let mut watcher = App::connect(&gateway, version, "watcher").await;
            watcher.subscribe(TOPIC).await;
            let first: Value = serde_json::from_str(&watcher.message(TOPIC).await.text).unwrap();
            assert_eq!(
                first,
                json!({"type": "members", "group": "floor", "part": 1, "parts": 1,
                    "members": [{"client": "lamp", "online": true}]})
            );
            let app = App::member(&gateway, version, "app", "floor").await;
            let message = watcher.message(TOPIC).await;
            let event: Value = serde_json::from_str(&message.text).unwrap();
            assert_eq!(event["events"], json!([{"event": "join", "client": "app", "online": true}]));
            drop(app);
            let event: Value = serde_json::from_str(&watcher.message(TOPIC).await.text).unwrap();
            assert_eq!(event["events"], json!([{"event": "leave", "client": "app"}]));
        }
        drop(lamp);
    }
}

#[tokio::test]
async fn s13_watching_takes_the_right_and_the_operators_members_are_listed() {
    let gateway = Setup::shards(2)
        .config(
            r#"
            [[group]]
            name = "floor"
            members = ["lamp-1", "lamp-2"]
            [[rule]]
            effect = "deny"
            actions = ["presence"]
            clients = ["guest"]
            "#,
        )
        .start()
        .await;
    let _lamp = Device::connect(&gateway, "lamp-1").await;
    let mut guest = App::connect(&gateway, Version::V5, "guest").await;
    assert_eq!(guest.subscribe(TOPIC).await, ["NotAuthorized"]);
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    app.subscribe(TOPIC).await;
    let mut floor = Floor::default();
    floor.wait(&mut app, |members| members.len() == 2).await;
    assert_eq!((floor.members["lamp-1"], floor.members["lamp-2"]), (true, false));
}

/// 2,000 join within moments: every watcher ends with all of them, by few messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_storm_of_2000_joins_and_leaves_is_told_in_batches() {
    let gateway = Gateway::start(2).await;
    let mut watchers = Vec::new();
    for n in 0..10 {
        let mut app = App::connect(&gateway, Version::V5, &format!("watcher-{n}")).await;
        app.subscribe(TOPIC).await;
        watchers.push((app, Floor::default()));
    }
    let mut joiners = Vec::new();
    for n in 0..2000 {
        let bytes =
            [connect_packet(5, &format!("phone-{n:04}"), 0), subscribe_packet(5, "sig/g/floor", 1)].concat();
        joiners.push(RawClient::open(&gateway, &bytes).await);
    }
    for (app, floor) in &mut watchers {
        floor.wait(app, |members| members.len() == 2000).await;
        assert!(floor.members.values().all(|&online| online));
    }
    drop(joiners);
    for (app, floor) in &mut watchers {
        floor.wait(app, BTreeMap::is_empty).await;
        // Up to 50 members are told of one by one, on each of two shards and both ways; then it is parts of 8 KiB.
        assert!(floor.messages < 400, "{} messages", floor.messages);
    }
    assert_eq!(gateway.metric("bugle_clients").await, 10);
}
