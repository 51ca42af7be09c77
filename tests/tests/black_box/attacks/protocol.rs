//! Clients that are in, and use the protocol against the gateway.

use bugle_tests::{
    App, Device, Gateway, RawClient, Setup, Version, connect_packet, disconnect_reason, publish_packet,
    raw_packet, raw_text, subscribe_packet,
};

async fn connected(gateway: &Gateway, id: &str) -> RawClient {
    let mut client = RawClient::open(gateway, &connect_packet(5, id, 0)).await;
    assert_eq!(client.packet().await.map(|packet| (packet.0, packet.1[1])), Some((0x20, 0)));
    client
}

/// PUBLISH of version 5 at QoS 0 with a topic alias.
fn aliased(topic: &str, alias: u16) -> Vec<u8> {
    raw_packet(0x30, &[&raw_text(topic), &[3, 0x23], &alias.to_be_bytes(), b"x"])
}

#[tokio::test]
async fn an_alias_that_is_not_there_or_too_high_ends_the_connection() {
    let gateway = Gateway::start(1).await;
    for bytes in [aliased("a", 0), aliased("a", u16::MAX), aliased("", 1)] {
        let mut client = connected(&gateway, "app").await;
        client.write(&bytes).await;
        let reason = disconnect_reason(&client.packet().await);
        assert!(matches!(reason, Some(0x94 | 0x82 | 0x81)), "{bytes:x?}: {reason:x?}");
        assert_eq!(client.rest().await, b"");
    }
    // An alias is its connection's: another's is none.
    let mut first = connected(&gateway, "first").await;
    first.write(&aliased("home/x", 1)).await;
    first.write(&[0xC0, 0]).await;
    assert_eq!(first.packet().await, Some((0xD0, Vec::new())));
    let mut second = connected(&gateway, "second").await;
    second.write(&aliased("", 1)).await;
    assert!(disconnect_reason(&second.packet().await).is_some());
}

#[tokio::test]
async fn a_window_or_a_packet_size_of_nothing_is_refused() {
    let gateway = Gateway::start(1).await;
    for property in [&[0x21, 0, 0][..], &[0x27, 0, 0, 0, 0]] {
        let parts: [&[u8]; 5] =
            [&raw_text("MQTT"), &[5, 2, 0, 0], &[property.len() as u8], property, &raw_text("app")];
        let mut client = RawClient::open(&gateway, &raw_packet(0x10, &parts)).await;
        let (first, body) = client.packet().await.unwrap();
        assert_eq!((first, body[1]), (0x20, 0x82), "{property:x?}");
        assert_eq!(client.packet().await, None);
    }
}

#[tokio::test]
async fn more_unfinished_publishes_than_the_window_end_the_connection() {
    let gateway = Setup::shards(1).config("[limits]\nrequests_per_client = 20").start().await;
    let mut client = connected(&gateway, "app").await;
    for id in 1..=200_u16 {
        client.write(&raw_packet(0x34, &[&raw_text("home/x"), &id.to_be_bytes(), &[0], b"x"])).await;
    }
    let mut last = None;
    while let Some(packet) = client.packet().await {
        last = Some(packet);
    }
    assert_eq!(disconnect_reason(&last), Some(0x93));
}

#[tokio::test]
async fn subscriptions_and_groups_beyond_the_limit_are_refused() {
    let limits = "[limits]\nfilters_per_client = 10\ngroups_per_client = 3";
    let gateway = Setup::shards(2).config(limits).start().await;
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    for number in 0..20 {
        let granted = app.subscribe(&format!("home/{number}")).await;
        let expected = if number < 10 { "Success(AtLeastOnce)" } else { "QuotaExceeded" };
        assert_eq!(granted, [expected], "{number}");
    }
    for number in 0..6 {
        let granted = app.subscribe(&format!("sig/g/group-{number}")).await;
        let expected = if number < 3 { "Success(AtLeastOnce)" } else { "QuotaExceeded" };
        assert_eq!(granted, [expected], "{number}");
    }
    assert_eq!(app.publish("home/x", "still here").await.reason, "Success");
}

#[tokio::test]
async fn the_longest_and_deepest_topics_cost_nobody_else_anything() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let deep = "/".repeat(65_535);
    let wild = "+/".repeat(32_767) + "#";
    for filter in [&deep, &wild] {
        let mut client = connected(&gateway, "deep").await;
        client.write(&subscribe_packet(5, filter, 0)).await;
        client.write(&publish_packet(5, &deep, b"x")).await;
        client.write(&[0xC0, 0]).await;
        client.packet().await.expect("an answer, or why it ends");
    }
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    app.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn acknowledgements_of_nothing_reach_nobody() {
    let gateway = Gateway::start(1).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    for first in [0x40, 0x50, 0x62, 0x70] {
        let mut client = connected(&gateway, "liar").await;
        for id in 1..500_u16 {
            client.write(&raw_packet(first, &[&id.to_be_bytes()])).await;
        }
        client.write(&[0xE0, 0]).await;
        client.rest().await;
    }
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    app.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}
