//! More than the gateway has room for: who is in keeps being served, and who isn't is told or waits.

use std::process::Command;

use bugle_tests::{App, Device, Gateway, RawClient, Version, connect_packet};

/// How many files the gateway may have open beyond those that it has.
fn allow_files(gateway: &Gateway, more: usize) {
    let pid = gateway.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={}:", open + more);
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(done.unwrap().success());
}

#[tokio::test]
async fn prlimit_a_gateway_that_has_run_out_of_files_serves_who_is_there_and_lets_others_in_later() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut app = App::member(&gateway, Version::V5, "app", "apps").await;
    allow_files(&gateway, 5);
    let mut crowd = Vec::new();
    for n in 0..20 {
        let bytes = connect_packet(5, &format!("crowd-{n}"), 0);
        crowd.push(RawClient::open(&gateway, &bytes).await);
    }
    for client in &mut crowd[..3] {
        assert_eq!(client.packet().await.unwrap().0, 0x20, "there was room for it");
    }
    // The kernel holds the others; who is in notices nothing.
    for text in ["one", "two"] {
        let receipt = app.send("sig/g/floor?receipt=each", text).await;
        assert_eq!(receipt["statuses"]["lamp"], "DELIVERED");
        assert_eq!(lamp.text().await, text);
    }
    assert!(gateway.seen().contains("cannot accept; if files have run out"), "{}", gateway.seen());
    allow_files(&gateway, 100);
    for client in &mut crowd[3..] {
        let packet = client.packet().await;
        assert!(packet.is_none() || packet.is_some_and(|packet| packet.0 == 0x20));
    }
    // Nobody has to come again but those whose socket the kernel gave up.
    let late = App::connect(&gateway, Version::V311, "late").await;
    drop(late);
    assert_eq!(app.send("sig/g/floor?receipt=each", "three").await["statuses"]["lamp"], "DELIVERED");
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_waits_its_turn_and_is_not_closed() {
    let gateway = std::sync::Arc::new(Gateway::start(2).await);
    let mut coming = tokio::task::JoinSet::new();
    for n in 0..3000 {
        let gateway = gateway.clone();
        coming.spawn(async move {
            let mut client = RawClient::open(&gateway, &connect_packet(5, &format!("crowd-{n}"), 0)).await;
            let answer = client.packet().await.map(|(first, _)| first);
            (client, answer)
        });
    }
    // All stay, so that each is one more.
    let clients = coming.join_all().await;
    let refused = clients.iter().filter(|(_, answer)| *answer != Some(0x20)).count();
    assert_eq!(refused, 0);
}
