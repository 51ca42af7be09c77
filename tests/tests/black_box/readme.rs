//! Every command of the README and the quick start that is marked as tested; see [`bugle_tests::readme`] for the marks. And what the
//! documents say that comes over the wire.

use std::collections::BTreeSet;

use bugle_tests::readme::{Block, blocks, document, run};
use bugle_tests::{App, Device, Gateway, Version};
use serde_json::Value;

async fn commands_work(path: &str, chosen: impl Fn(&Block) -> bool) {
    let blocks: Vec<_> = blocks(&document(path)).into_iter().filter(chosen).collect();
    assert!(!blocks.is_empty(), "{path} marks no such commands");
    let gateway = Gateway::start(2).await;
    let failed = run(&blocks, &gateway).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    commands_work("README.md", |block| !block.script.contains("mosquitto_")).await;
}

#[tokio::test]
async fn the_commands_of_the_readme_for_mosquitto_work() {
    commands_work("README.md", |block| block.is_beside || block.script.contains("mosquitto_")).await;
}

#[tokio::test]
async fn the_commands_of_the_quick_start_work() {
    commands_work("docs/quick-start.md", |block| !block.script.contains("mosquitto_")).await;
}

#[tokio::test]
async fn the_commands_of_the_quick_start_for_mosquitto_work() {
    commands_work("docs/quick-start.md", |_| true).await;
}

/// The names of a JSON object's members, and of those of objects in it.
fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[tokio::test]
async fn t4_notices_have_the_fields_that_docs_topics_md_says() {
    let text = document("docs/topics.md");
    let blocks = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let json = { blocks }.find(|json| json.contains(r#""type":"receipt""#)).unwrap();
    let documented: Vec<Value> =
        serde_json::Deserializer::from_str(json).into_iter().collect::<Result<_, _>>().unwrap();
    let [receipt, refusal] = &documented[..] else { panic!("a receipt and a refusal are shown") };

    let gateway = Gateway::start(1).await;
    let _lamps = (
        Device::member(&gateway, "lamp-1", "floor3").await,
        Device::member(&gateway, "lamp-2", "floor3").await,
    );
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    app.subscribe("sig/r/app").await;
    let seen = app.send("sig/g/floor3?receipt=each&only=lamp-1,lamp-2,lamp-9", "on").await;
    assert_eq!(names(&seen), names(receipt));
    for field in ["type", "target", "counts", "final", "part", "parts", "statuses"] {
        assert_eq!(seen[field], receipt[field], "{field}");
    }
    let seen = loop {
        if app.publish("sig/g/floor3?except=lamp-1,lamp-2", "on").await.code == "RATE_LIMITED" {
            break app.notice("refusal").await;
        }
    };
    assert_eq!(names(&seen), names(refusal));
    for field in ["type", "code", "reason", "topic"] {
        assert_eq!(seen[field], refusal[field], "{field}");
    }
}

#[tokio::test]
async fn a_command_that_fails_is_noticed() {
    let gateway = Gateway::start(1).await;
    let text = "<!-- tested, in another terminal -->\n```sh\nbugle watch --group floor --as lamp\n```\n\
        <!-- tested -->\n```sh\nbugle send --group floor on # in words\ncargo run --release -- send --to lamp on\n```\n\
        <!-- tested -->\n```sh\nbugle send --group floor --only '' on\n```\n";
    let failed = run(&blocks(text), &gateway).await;
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert!(failed[0].1.err.contains("NO_RECIPIENT"));
}
