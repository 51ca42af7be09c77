//! The gateway is killed, and another takes its place: what wasn't acknowledged is unconfirmed and isn't sent again (S12),
//! and the board is a member as it was.

use bugle_tests::{App, Firmware, Gateway, Link, Setup, Version, free_port};
use serde_json::json;

/// A gateway that listens on this port too.
async fn gateway_on(port: u16) -> Gateway {
    let listener = format!("[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['mqtt', 'device']");
    Setup::shards(2).config(&listener).start().await
}

#[tokio::test]
async fn s12_qemu_what_a_killed_gateway_did_not_acknowledge_is_unconfirmed_and_never_sent_again() {
    let port = free_port();
    let gateway = gateway_on(port).await;
    let link = Link::to(&port).await;
    let mut board = Firmware::member(&link, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(board.send("g/floor first").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "first");
    gateway.suspend().await;
    board.tell("send g/floor lost").await;
    gateway.wait_unread(port).await;
    link.sever();
    gateway.kill().await;
    board.line("failed Unconfirmed").await;

    let gateway = gateway_on(port).await;
    // A member before the board can be back.
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    link.mend();
    board.line("connected false").await;
    assert_eq!(board.send("g/floor second").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "second", "{}", board.seen());
    assert_eq!(app.send("sig/g/floor?receipt=each", "back").await["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[5], "back");
}

#[tokio::test]
async fn s12_qemu_what_had_not_left_the_board_when_the_gateway_was_killed_is_sent_to_the_next() {
    let port = free_port();
    let gateway = gateway_on(port).await;
    let mut board = Firmware::member(&port, "board", "floor", &[]).await;
    gateway.kill().await;
    board.line("disconnected Lost").await;
    board.tell("send g/floor kept").await;
    let gateway = gateway_on(port).await;
    board.line("connected false").await;
    assert!(board.line("receipt").await.starts_with("receipt "), "{}", board.seen());
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(board.send("g/floor next").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "next");
}
