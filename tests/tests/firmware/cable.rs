//! What time and a cable that is pulled out do: a deadline that passes in TCP, cuts shorter and longer than the keep-alive.

use bugle_tests::{App, Firmware, Gateway, Version};
use serde_json::json;

/// With an address of its own TCP goes on after a cut; with one from DHCP it would begin anew.
const FIXED: &str = "address=10.0.2.15";

#[tokio::test]
async fn s9_qemu_a_signal_that_tcp_holds_past_its_deadline_is_not_acted_on() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[FIXED]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.set_link(false).await;
    app.publish("sig/g/floor?ttl=700&receipt=each", "shut").await;
    app.publish("sig/g/floor?receipt=each", "open").await;
    // It was written, and nobody can say at the ttl what became of it.
    assert_eq!(app.notice("receipt").await["statuses"], json!({"board": "UNCONFIRMED"}));
    board.set_link(true).await;
    assert_eq!(board.got().await[5], "open", "{}", board.seen());
    assert_eq!(app.notice("receipt").await["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.does("report", "welcomes").await, "welcomes 1 taken 1 expired 1 too_large 0");
}

#[tokio::test]
async fn s9_qemu_a_deadline_that_passes_in_the_gateways_queue_ends_the_signal_there() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    // Four fill its window and buffer; it takes the next only when the deadlines of those behind are over.
    board.does("slow 1500", "pauses").await;
    for number in 0..4 {
        app.publish("sig/c/board?receipt=each", number.to_string()).await;
    }
    for number in 4..8 {
        app.publish("sig/c/board?ttl=300&receipt=each", number.to_string()).await;
    }
    let mut late = 0;
    for _ in 0..8 {
        late += u32::from(app.notice("receipt").await["statuses"] != json!({"board": "DELIVERED"}));
    }
    for number in 0..4 {
        assert_eq!(board.got().await[5], number.to_string());
    }
    assert_eq!(late, 4, "{}", board.seen());
    board.does("slow 0", "pauses").await;
    app.send("sig/c/board?receipt=each", "after").await;
    assert_eq!(board.got().await[5], "after", "{}", board.seen());
}

#[tokio::test]
async fn s9_qemu_a_deadline_that_passes_in_the_boards_own_buffer_is_seen_there() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.does("slow 1500", "pauses").await;
    // It takes the first and then pauses; the second is in time when it gets there, and late when it would be taken.
    app.send("sig/c/board?receipt=each", "first").await;
    assert_eq!(board.got().await[5], "first");
    app.publish("sig/c/board?ttl=400&receipt=each", "late").await;
    app.publish("sig/c/board?ttl=9000&receipt=each", "in time").await;
    let statuses = [app.notice("receipt").await, app.notice("receipt").await];
    assert_ne!(statuses[0]["statuses"], json!({"board": "DELIVERED"}), "{statuses:?}");
    assert_eq!(statuses[1]["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[5], "in", "{}", board.seen());
    assert_eq!(board.does("report", "welcomes").await, "welcomes 1 taken 2 expired 1 too_large 0");
}

#[tokio::test]
async fn s9_qemu_a_board_hears_that_its_signal_came_too_late_for_another() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut other = Firmware::member(&gateway, "other", "floor", &[FIXED]).await;
    other.set_link(false).await;
    assert_eq!(board.send("c/other ttl=500 shut").await, ["other UNCONFIRMED"]);
    other.set_link(true).await;
    assert_eq!(board.send("c/other ttl=9000 open").await, ["other DELIVERED"]);
    assert_eq!(other.got().await[5], "open");
    assert_eq!(other.does("report", "welcomes").await, "welcomes 1 taken 1 expired 1 too_large 0");
}

#[tokio::test]
async fn qemu_a_cut_shorter_than_the_keep_alive_costs_nothing() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &["keepalive=30", FIXED]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.set_link(false).await;
    board.line("link_up = false").await;
    board.tell("send g/floor late").await;
    app.publish("sig/g/floor", "down").await;
    board.set_link(true).await;
    assert_eq!(app.message("sig/g/floor").await.text, "late");
    board.line("down").await;
    assert!(board.does("report", "welcomes").await.starts_with("welcomes 1 "), "{}", board.seen());
}

#[tokio::test]
async fn s12_qemu_a_cut_longer_than_the_keep_alive_is_noticed_at_both_ends_and_mended() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &["keepalive=2", "ack=2500", FIXED]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.set_link(false).await;
    board.tell("send g/floor lost").await;
    board.line("failed Unconfirmed").await;
    board.line("disconnected TimedOut").await;
    gateway.wait_metric("bugle_clients", |clients| clients == 1).await;
    assert_eq!(app.send("sig/g/floor?receipt=each", "nobody").await["statuses"], json!({}));
    board.set_link(true).await;
    board.line("connected false").await;
    // Its group is restored ahead of what it sends.
    assert_eq!(board.send("g/floor again").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "again", "what was unconfirmed isn't sent again");
    assert_eq!(app.send("sig/g/floor?receipt=each", "back").await["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[5], "back");
}

#[tokio::test]
async fn qemu_a_board_with_an_address_from_dhcp_comes_back_by_itself_after_a_cut() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    board.set_link(false).await;
    board.line("disconnected Lost").await;
    board.set_link(true).await;
    board.line("connected false").await;
    assert_eq!(board.send("g/floor back").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "back");
}
