//! The gateway is killed, and another takes its place: what wasn't acknowledged is unconfirmed and isn't sent again (S12),
//! and the board is a member as it was.

use bugle_tests::{App, Firmware, Gateway, Link, Scratch, Setup, Version, free_port};
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

/// What the gateway has acknowledged as stored outlives it, and comes once (S10, S12).
#[tokio::test]
async fn s10_s12_qemu_what_was_stored_for_a_board_that_is_away_comes_once_after_the_gateway_was_killed() {
    let (port, data) = (free_port(), Scratch::new());
    let setup = || {
        let listener = format!("[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['mqtt', 'device']");
        let member = "[[group]]\nname = 'kept'\nmembers = ['board']";
        let data = data.path("data").display().to_string();
        Setup::shards(2).config(&listener).config(member).argument("--data-dir").argument(&data)
    };
    let gateway = setup().start().await;
    let link = Link::to(&port).await;
    let mut board = Firmware::exercise(&link, "board", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "office").await;
    link.sever();
    board.line("disconnected").await;
    gateway.wait_metric("bugle_clients", |clients| clients == 1).await;
    let stored = app.send("sig/g/kept?store=1&ttl=60000&receipt=each", "stored").await;
    assert_eq!(stored["statuses"], json!({"board": "QUEUED"}));
    gateway.kill().await;

    let gateway = setup().start().await;
    link.mend();
    assert_eq!(board.got().await[5], "stored");
    let mut app = App::member(&gateway, Version::V5, "app", "office").await;
    assert_eq!(app.send("sig/g/kept?receipt=each", "after").await["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[5], "after");
    let report = board.does("report", "welcomes").await;
    assert_eq!(report, "welcomes 2 taken 2 expired 0 too_large 0", "and nothing else came");
}
