//! Names and options that are meant to be read differently by two parts of the gateway.

use bugle_tests::{
    App, Device, Gateway, RawClient, Version, connect_packet, disconnect_reason, publish_packet,
};

/// Names that are no group's.
fn no_names() -> Vec<String> {
    let long = "x".repeat(65);
    let names = [
        "",
        "ümlaut",
        "flооr",
        "a/b",
        "a%2Fb",
        "a b",
        "%66loor",
        "floor%00",
        "floor\u{202E}",
        "floor\u{FEFF}",
        "flo\u{301}or",
        "floor,lamp",
        "../floor",
        "floor/",
        "/floor",
        "floor//x",
        "$SYS",
        "*",
        "floor;x",
        &long,
    ];
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_name_that_is_no_groups_reaches_and_joins_none() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "hall").await;
    let mut old = App::member(&gateway, Version::V311, "old", "hall").await;
    for name in no_names() {
        let topic = format!("sig/g/{name}");
        let answer = app.publish(&topic, "trick").await;
        assert!(["BAD_NAME", "BAD_TOPIC"].contains(&answer.code.as_str()), "{topic:?}: {answer:?}");
        old.publish(&topic, "trick").await;
        let code = old.notice("refusal").await["code"].clone();
        assert!(code == "BAD_NAME" || code == "BAD_TOPIC", "{topic:?}: {code}");
        let granted = app.subscribe(&topic).await;
        assert!(!granted[0].starts_with("Success"), "{topic:?}: {granted:?}");
    }
    app.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
}

#[tokio::test]
async fn a_wildcard_or_a_nul_in_a_topic_ends_the_connection() {
    let gateway = Gateway::start(1).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    for topic in ["sig/g/+", "sig/g/#", "sig/c/#", "#", "sig/g/floor\0", "sig/g/\u{0}floor"] {
        for version in [4, 5] {
            let mut client = RawClient::open(&gateway, &connect_packet(version, "app", 0)).await;
            client.packet().await.unwrap();
            client.write(&publish_packet(version, topic, b"trick")).await;
            let last = client.packet().await;
            assert_eq!(disconnect_reason(&last).is_some(), version == 5, "{topic:?}: {last:?}");
            assert_eq!(client.rest().await, b"");
        }
    }
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    app.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
}

#[tokio::test]
async fn options_that_could_be_read_in_two_ways_refuse_the_send() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    for options in [
        "from=boss",
        "only=*",
        "only=%00",
        "only=lamp%00",
        "ttl=-1",
        "ttl=99999999999999999999",
        "ttl=1e9",
        "ttl=",
        "ttl=5000&ttl=1",
        "only",
        "=lamp",
        "only=%6",
        "only=%zz",
        "echo=yes",
        "urgent=2",
        "store=maybe",
        "ONLY=lamp",
        "except=a/b",
        "receipt=all",
        "only=lamp?ttl=5",
    ] {
        let topic = format!("sig/g/floor?{options}");
        let answer = app.publish(&topic, "trick").await;
        assert!(!answer.code.is_empty() && answer.reason != "Success", "{topic}: {answer:?}");
    }
    for (key, value) in [("from", "boss"), ("ttl", "-1"), ("only", "a b"), ("only", "")] {
        let answer = app.publish_with("sig/g/floor", "trick", false, &[(key, value)]).await;
        assert!(!answer.code.is_empty(), "{key}={value} was accepted");
    }
    app.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
}
