//! How connections end: takeover, keep-alive, and the gateway's own stop.

use std::time::{Duration, Instant};

use bugle_device::protocol::{self, NameRef};
use bugle_device::{Disconnect, Reason, Target, will};
use bugle_tests::{
    App, Device, Gateway, RawClient, Version, config, connect_packet, connect_packet_with_will, device_hello,
    disconnect_reason, soon,
};

#[tokio::test]
async fn s1_a_device_and_an_app_of_one_id_take_over_from_each_other() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let panel = Device::connect(&gateway, "panel").await;
        let mut device = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::connect(&gateway, Version::V5, "lamp").await;
        assert_eq!(device.ended().await, Disconnect::Bye(Reason::TakenOver));
        app.subscribe("sig/c/lamp").await;
        assert_eq!(panel.send(Target::client("lamp"), "on").await.unwrap()["lamp"], "DELIVERED");
        assert_eq!(app.message("sig/c/lamp").await.text, "on");

        let mut device = Device::connect(&gateway, "lamp").await;
        assert!(app.ended().await.contains("SessionTakenOver"));
        assert_eq!(panel.send(Target::client("lamp"), "off").await.unwrap()["lamp"], "DELIVERED");
        assert_eq!(device.text().await, "off");
        let _old = App::connect(&gateway, Version::V311, "lamp").await;
        assert_eq!(device.ended().await, Disconnect::Bye(Reason::TakenOver));
        assert_eq!(gateway.metric("bugle_takeovers_total").await, 3);
        assert_eq!(gateway.metric("bugle_clients").await, 2);
    }
}

#[tokio::test]
async fn mqtt_3_1_2_22_who_is_silent_for_one_and_a_half_keep_alives_is_disconnected() {
    let gateway = Gateway::start(1).await;
    for (version, reason) in [(5, Some(0x8D)), (4, None)] {
        let started = Instant::now();
        let mut client = RawClient::open(&gateway, &connect_packet(version, "quiet", 1)).await;
        assert_eq!(client.packet().await.unwrap().0, 0x20);
        let last = client.packet().await;
        assert_eq!(disconnect_reason(&last), reason);
        assert_eq!(client.packet().await, None);
        assert!(started.elapsed() >= Duration::from_millis(1490), "{:?}", started.elapsed());
    }
    let started = Instant::now();
    let mut client = RawClient::open(&gateway, &device_hello("quiet", 1)).await;
    let bytes = client.rest().await;
    let at =
        bytes.windows(3).position(|bytes| bytes[0] == 0x04 && bytes[2] == Reason::KeepAliveTimeout.code());
    assert!(at.is_some(), "BYE KEEP_ALIVE_TIMEOUT in {bytes:x?}");
    assert!(started.elapsed() >= Duration::from_millis(1490), "{:?}", started.elapsed());
    assert_eq!(gateway.metric("bugle_clients").await, 0);
}

#[tokio::test]
async fn s2_s8_a_device_that_has_gone_is_offline_or_no_member_at_once() {
    let gateway = Gateway::start(3).await;
    let panel = Device::connect(&gateway, "panel").await;
    let lamp = Device::connect_as(&gateway, config("lamp", "")).await.unwrap();
    soon("the join", lamp.client.join("floor")).await.unwrap();
    drop(lamp);
    gateway.wait_metric("bugle_clients", |count| count == 1).await;
    assert_eq!(panel.send(Target::client("lamp"), "on").await.unwrap()["lamp"], "OFFLINE");
    assert_eq!(panel.send(Target::group("floor").only(&["lamp"]), "on").await.unwrap()["lamp"], "NOT_MEMBER");
}

#[tokio::test]
async fn t1_the_wills_of_an_app_and_of_a_device_that_vanish_are_signals() {
    let gateway = Gateway::start(3).await;
    let mut panel = Device::member(&gateway, "panel", "floor").await;
    let connect = connect_packet_with_will("app", "sig/g/floor?only=panel,app", "the app has gone");
    let mut app = RawClient::open(&gateway, &connect).await;
    assert_eq!(app.packet().await.unwrap().0, 0x20);
    drop(app);
    let signal = panel.next().await;
    assert_eq!(
        (signal.from.as_str(), signal.mode, signal.text.as_str()),
        ("app", "only", "the app has gone")
    );

    let group = protocol::Target::Group { group: NameRef::Inline("floor"), only: None, except: None };
    let gone = protocol::Frame::Send(protocol::Send::new(group, b"the lamp has gone"));
    let mut settings = config("lamp", "");
    settings.will = Some(will(&gone, Box::leak(Box::new([0; 64]))).unwrap());
    drop(Device::connect_as(&gateway, settings).await.unwrap());
    let signal = panel.next().await;
    assert_eq!(
        (signal.from.as_str(), signal.mode, signal.text.as_str()),
        ("lamp", "all", "the lamp has gone")
    );
    assert_eq!(gateway.metric("bugle_wills_total").await, 2);

    let refused = connect_packet_with_will("app", "sig/g/floor?only=", "never");
    let answer = RawClient::open(&gateway, &refused).await.packet().await;
    assert!(answer.is_none_or(|(first, body)| first == 0x20 && body[1] != 0), "it can't be a send");
}

#[tokio::test]
async fn sigterm_tells_every_client_and_ends_within_three_seconds() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut device = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        let mut raw = RawClient::open(&gateway, &connect_packet(5, "raw", 0)).await;
        assert_eq!(raw.packet().await.unwrap().0, 0x20);
        let mut old = RawClient::open(&gateway, &connect_packet(4, "old", 0)).await;
        assert_eq!(old.packet().await.unwrap().0, 0x20);
        let _silent = gateway.connect().await;
        let started = Instant::now();
        gateway.terminate().await;
        assert_eq!(device.ended().await, Disconnect::Bye(Reason::ShuttingDown));
        assert!(app.ended().await.contains("ServerShuttingDown"));
        assert_eq!(disconnect_reason(&raw.packet().await), Some(0x8B));
        assert_eq!(raw.packet().await, None);
        assert_eq!(old.packet().await, None, "3.1.1 has no DISCONNECT from a server");
        gateway.finish().await.expect(0);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn sigterm_is_not_held_up_by_a_client_that_reads_nothing() {
    let gateway = Gateway::start(2).await;
    let mut raw = RawClient::open(&gateway, &connect_packet(5, "raw", 0)).await;
    assert_eq!(raw.packet().await.unwrap().0, 0x20);
    gateway.terminate().await;
    let started = Instant::now();
    gateway.finish().await.expect(0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
