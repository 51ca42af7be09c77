//! The largest payloads, the rate, and a flood faster than the board reads.

use bugle_tests::{App, Firmware, Gateway, Setup, Version};
use serde_json::json;

#[tokio::test]
async fn s6_qemu_8192_bytes_go_both_ways_and_8193_are_refused() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(board.send("g/floor *8192").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "x".repeat(8192));
    assert_eq!(board.does("send g/floor *8193", "failed").await, "failed TooLarge");

    let receipt = app.send("sig/c/board?receipt=each", &"y".repeat(8192)).await;
    assert_eq!(receipt["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[4], "8192");
    assert_eq!(app.publish("sig/c/board", "y".repeat(8193)).await.code, "TOO_LARGE");
    // The connection stands, and the board takes what comes next.
    app.send("sig/c/board?receipt=each", "next").await;
    assert_eq!(board.got().await[5], "next");
    assert!(board.does("report", "welcomes").await.starts_with("welcomes 1 "));
}

#[tokio::test]
async fn s7_qemu_100_a_second_for_some_seconds_and_more_is_slowed_and_not_lost() {
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    // 100 at once, and 100 in each second after that: 500 take 4 s.
    board.tell("burst g/floor 500").await;
    for number in 0..500 {
        assert_eq!(app.message("sig/g/floor").await.text, number.to_string());
    }
    let done = board.line("burst").await;
    let words: Vec<&str> = done.split(' ').collect();
    let [millis, refused] = [words[4], words[8]].map(|word| word.parse::<u32>().unwrap());
    println!("{done}");
    assert!(refused > 0, "it was told to wait, and waited: {done}");
    assert!(millis >= 3_900, "not faster than its rate: {done}");
}

/// For `BUGLE_FIRMWARE_SECONDS`, 5 without it.
#[tokio::test]
async fn s7_s11_qemu_100_a_second_each_way_at_once_are_neither_slowed_nor_lost() {
    let seconds = std::env::var("BUGLE_FIRMWARE_SECONDS").map_or(5, |text| text.parse::<u32>().unwrap());
    let count = seconds * 100;
    let gateway = Gateway::start(2).await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut member = App::member(&gateway, Version::V5, "member", "floor").await;
    let mut sender = App::connect(&gateway, Version::V5, "sender").await;
    board.tell(&format!("pace g/floor {count}")).await;
    let send = async {
        let mut each = tokio::time::interval(std::time::Duration::from_millis(10));
        for number in 0..count {
            each.tick().await;
            assert_eq!(sender.publish("sig/c/board", number.to_string()).await.reason, "Success");
        }
    };
    let take = async {
        for number in 0..count {
            assert_eq!(member.message("sig/g/floor").await.text, number.to_string());
        }
    };
    tokio::join!(send, take);
    let (mut got, mut done) = (0, String::new());
    while got < count || done.is_empty() {
        let line = board.line("").await;
        if line.starts_with("got ") {
            assert_eq!(line.split(' ').nth(6), Some(got.to_string().as_str()), "{line}");
            got += 1;
        } else if line.starts_with("burst ") {
            done = line;
        }
    }
    println!("{done}");
    assert!(done.ends_with("rate limited 0"), "{done}");
    let millis: u32 = done.split(' ').nth(4).unwrap().parse().unwrap();
    // The last goes 10 ms before the end.
    assert!(millis >= count * 10 - 10 && millis < count * 10 + 1_000, "{done}");
}

#[tokio::test]
async fn s7_s11_qemu_500_signals_to_a_board_come_once_and_in_order() {
    let gateway = Setup::shards(2).config("[limits]\nsignals_per_second = 1000").start().await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::connect(&gateway, Version::V311, "app").await;
    for number in 0..500 {
        app.publish("sig/g/floor", number.to_string()).await;
    }
    for number in 0..500 {
        assert_eq!(board.got().await[5], number.to_string());
    }
}

#[tokio::test]
async fn s8_qemu_a_flood_at_a_board_that_reads_slowly_is_accounted_for() {
    let gateway = Setup::shards(2).config("[limits]\nsignals_per_second = 10000").start().await;
    let mut board = Firmware::member(&gateway, "board", "floor", &[]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "elsewhere").await;
    board.does("slow 20", "pauses").await;
    let text = "x".repeat(7000);
    for _ in 0..200 {
        assert_eq!(app.publish("sig/g/floor?receipt=each&ttl=8000", text.as_str()).await.reason, "Success");
    }
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        let receipt = app.notice("receipt").await;
        let status = receipt["statuses"]["board"].as_str().unwrap_or_else(|| panic!("{receipt}")).to_owned();
        *counts.entry(status).or_default() += 1;
    }
    println!("{counts:?}");
    assert!(counts["DELIVERED"] > 0 && counts.values().sum::<u32>() == 200, "{counts:?}");
    // It lives, and takes what comes after.
    board.does("slow 0", "pauses").await;
    app.send("sig/c/board?receipt=each", "after").await;
    board.line("after").await;
    let report = board.does("report", "welcomes").await;
    assert!(report.starts_with("welcomes 1 "), "{report}");
}
