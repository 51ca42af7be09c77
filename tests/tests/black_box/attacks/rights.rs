//! Clients that are in, and want more than they may: others' messages, others' names, and what the rules deny.

use bugle_device::{Reason, SendError, Target};
use bugle_tests::{
    App, Device, Gateway, RawClient, Setup, Version, config, connect_packet, connect_packet_with_will,
    raw_packet, raw_text,
};

/// `guest` may do nothing with `secret/#` and the group vault; `boss` may moderate.
const RULES: &str = "
[[rule]]
effect = 'deny'
actions = ['publish', 'subscribe']
topics = ['secret/#']
clients = ['guest']
[[rule]]
effect = 'deny'
actions = ['join', 'send', 'presence']
groups = ['vault']
clients = ['guest']
[[rule]]
effect = 'allow'
actions = ['moderate']
clients = ['boss']
";

async fn ruled() -> Gateway {
    Setup::shards(3).config(RULES).start().await
}

#[tokio::test]
async fn nobody_writes_to_what_only_the_gateway_writes() {
    let gateway = ruled().await;
    let mut victim = App::member(&gateway, Version::V5, "victim", "floor").await;
    victim.subscribe("sig/p/floor").await;
    victim.message("sig/p/floor").await;
    let mut guest = App::connect(&gateway, Version::V5, "guest").await;
    for topic in [
        "sig/r/victim",
        "sig/p/floor",
        "sig/m/ban/victim",
        "sig/m/kick/victim?group=floor",
        "sig/c/victim/guest",
        "sig/g/floor/boss",
        "sig",
        "sig/",
        "$SYS/broker/clients/total",
        "$SYS/x",
        "$bugle/rules",
        "$share/g/home",
    ] {
        for retain in [false, true] {
            let answer = guest.publish_with(topic, "{}", retain, &[]).await;
            // `sig` alone is a plain topic.
            assert!(!answer.code.is_empty() || topic == "sig", "{topic}: {answer:?}");
        }
    }
    guest.publish("sig/c/victim", "end").await;
    assert_eq!(victim.message("sig/c/victim").await.text, "end");
    let left =
        ["sig/r/victim", "sig/p/floor", "sig/g/floor", "sig/g/floor/boss"].map(|topic| victim.left(topic));
    assert_eq!(left, [0; 4]);
}

#[tokio::test]
async fn no_wildcard_shows_others_signals_or_receipts() {
    let gateway = Gateway::start(3).await;
    for version in [Version::V311, Version::V5] {
        let mut snooper = App::connect(&gateway, version, "snooper").await;
        for filter in [
            "#",
            "+/#",
            "+/+/+",
            "sig/#",
            "sig/+/+",
            "sig/c/#",
            "sig/c/+",
            "+/c/victim",
            "sig/r/#",
            "sig/r/+",
            "+/r/victim",
            "sig/+/victim/#",
            "sig/g/+",
            "sig/g/+/#",
            "sig/p/+",
            "sig/p/#",
        ] {
            snooper.subscribe(filter).await;
        }
        let mut victim = App::member(&gateway, Version::V5, "victim", "floor").await;
        let panel = Device::member(&gateway, "panel", "floor").await;
        panel.send(Target::client("victim"), "for the victim").await.unwrap();
        panel.send(Target::group("floor"), "for the floor").await.unwrap();
        victim.send("sig/g/floor?receipt=each", "from the victim").await;
        victim.publish("home/end", "end").await;
        snooper.message("home/end").await;
        for topic in [
            "sig/c/victim",
            "sig/r/victim",
            "sig/g/floor",
            "sig/g/floor/panel",
            "sig/p/floor",
            "sig/c/victim/panel",
        ] {
            assert_eq!(snooper.left(topic), 0, "{topic}");
        }
    }
}

#[tokio::test]
async fn a_list_does_not_tell_who_exists() {
    let gateway = ruled().await;
    let _member = Device::member(&gateway, "member", "floor").await;
    let _stranger = Device::connect(&gateway, "stranger").await;
    let mut guest = App::member(&gateway, Version::V5, "guest", "floor").await;
    let receipt = guest.send("sig/g/floor?only=stranger,ghost,member&receipt=each", "who?").await;
    assert_eq!(receipt["statuses"]["stranger"], "NOT_MEMBER");
    assert_eq!(receipt["statuses"]["ghost"], "NOT_MEMBER");
    // Nor does a refusal: a group that is there, and one that isn't.
    let _inside = Device::member(&gateway, "inside", "vault").await;
    let refused = guest.publish("sig/g/vault?only=inside&receipt=each", "who?").await;
    assert_eq!(refused.code, "NOT_AUTHORIZED");
    assert_eq!(guest.publish("sig/g/vault?only=ghost&receipt=each", "who?").await, refused);
    assert_eq!(guest.subscribe("sig/p/vault").await, ["NotAuthorized"]);
}

#[tokio::test]
async fn who_is_muted_is_muted_over_every_protocol_and_in_his_will() {
    let gateway = ruled().await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut boss = App::connect(&gateway, Version::V5, "boss").await;
    let will = connect_packet_with_will("guest", "sig/g/floor", "last words");
    let mut doomed = RawClient::open(&gateway, &will).await;
    doomed.packet().await.unwrap();
    assert_eq!(boss.publish("sig/m/mute/guest", "").await.reason, "Success");
    drop(doomed);
    gateway.wait_metric("bugle_clients", |count| count == 2).await;
    let device = Device::connect(&gateway, "guest").await;
    let refused = SendError::Refused { reason: Reason::Muted, retry_after: 0 };
    assert_eq!(device.send(Target::group("floor"), "psst").await, Err(refused));
    assert_eq!(device.send(Target::client("lamp"), "psst").await, Err(refused));
    drop(device);
    for version in [Version::V5, Version::V311] {
        let mut app = App::connect(&gateway, version, "guest").await;
        app.subscribe("sig/r/guest").await;
        app.publish("sig/g/floor", "psst").await;
        assert_eq!(app.notice("refusal").await["code"], "MUTED");
    }
    boss.publish("sig/g/floor", "end").await;
    assert_eq!(lamp.text().await, "end");
}

#[tokio::test]
async fn who_is_banned_does_not_come_back_over_any_protocol() {
    let gateway = ruled().await;
    let mut boss = App::connect(&gateway, Version::V5, "boss").await;
    let mut guest = Device::member(&gateway, "guest", "floor").await;
    assert_eq!(boss.publish("sig/m/ban/guest", "").await.reason, "Success");
    guest.ended().await;
    Device::connect_as(&gateway, config("guest", "")).await.err().expect("banned");
    for version in [Version::V311, Version::V5] {
        App::connect_as(&gateway, version, "guest", None).await.err().expect("banned");
    }
    assert_eq!(gateway.metric("bugle_clients").await, 1);
    assert_eq!(boss.publish("sig/m/unban/guest", "").await.reason, "Success");
    Device::connect(&gateway, "guest").await;
}

#[tokio::test]
async fn who_may_not_moderate_does_not_and_unbans_nobody() {
    let gateway = ruled().await;
    let mut boss = App::connect(&gateway, Version::V5, "boss").await;
    let mut guest = App::connect(&gateway, Version::V5, "guest").await;
    assert_eq!(boss.publish("sig/m/mute/guest", "").await.reason, "Success");
    for act in
        ["sig/m/unmute/guest", "sig/m/kick/boss", "sig/m/ban/boss?group=floor", "sig/m/mute/boss?for=1"]
    {
        assert_eq!(guest.publish(act, "").await.code, "NOT_AUTHORIZED", "{act}");
    }
    assert_eq!(guest.publish("sig/g/floor", "psst").await.code, "MUTED");
    assert_eq!(boss.publish("sig/g/floor", "well").await.reason, "Success");
}

#[tokio::test]
async fn retained_messages_are_neither_planted_nor_wiped_where_publishing_is_denied() {
    let gateway = ruled().await;
    let mut boss = App::connect(&gateway, Version::V5, "boss").await;
    let mut guest = App::connect(&gateway, Version::V5, "guest").await;
    boss.publish_with("secret/door", "closed", true, &[]).await;
    assert_eq!(guest.publish_with("secret/door", "open", true, &[]).await.code, "NOT_AUTHORIZED");
    assert_eq!(guest.publish_with("secret/door", "", true, &[]).await.code, "NOT_AUTHORIZED");
    let mut late = App::connect(&gateway, Version::V5, "late").await;
    late.subscribe("secret/#").await;
    assert_eq!(late.message("secret/door").await.text, "closed");
}

#[tokio::test]
async fn a_will_does_what_its_client_may_and_no_more() {
    let gateway = ruled().await;
    let mut watcher = App::member(&gateway, Version::V5, "watcher", "vault").await;
    watcher.subscribe("secret/#").await;
    watcher.subscribe("home/#").await;
    for topic in ["secret/door", "sig/g/vault", "$SYS/x", "sig/r/watcher", "sig/m/ban/watcher", "home/end"] {
        let mut guest = RawClient::open(&gateway, &connect_packet_with_will("guest", topic, "will")).await;
        // It is let in, or refused for its will; in either case it goes without a DISCONNECT.
        guest.packet().await;
        drop(guest);
        gateway.wait_metric("bugle_clients", |count| count == 1).await;
    }
    assert_eq!(watcher.message("home/end").await.text, "will");
    for topic in ["secret/door", "sig/g/vault", "sig/r/watcher", "$SYS/x"] {
        assert_eq!(watcher.left(topic), 0, "{topic}");
    }
    // A retained one on a signal's topic would outlive its sender.
    let parts: [&[u8]; 5] = [
        &raw_text("MQTT"),
        &[4, 0x26, 0, 0],
        &raw_text("guest"),
        &raw_text("sig/g/floor"),
        &raw_text("for ever"),
    ];
    let mut retained = RawClient::open(&gateway, &raw_packet(0x10, &parts)).await;
    assert!(retained.packet().await.is_none_or(|(_, body)| body[1] != 0));
}

#[tokio::test]
async fn no_shared_or_wider_subscription_goes_around_a_rule() {
    let gateway = ruled().await;
    let mut guest = App::connect(&gateway, Version::V5, "guest").await;
    for filter in [
        "secret/door",
        "secret/#",
        "secret",
        "#",
        "+/door",
        "+/#",
        "$share/g/secret/#",
        "$share/g/#",
        "$share/g/+/door",
        "$share/g/sig/g/vault",
        "$share/g/sig/#",
        "$share/x/$share/y/secret/#",
        "sig/g/vault",
        "sig/g/vault/+",
    ] {
        let granted = guest.subscribe(filter).await;
        assert!(
            !granted[0].starts_with("Success") || filter.starts_with("$share/x/$share"),
            "{filter}: {granted:?}"
        );
    }
    let mut boss = App::connect(&gateway, Version::V5, "boss").await;
    boss.publish("secret/door", "code 1234").await;
    guest.subscribe("home/#").await;
    boss.publish("home/end", "end").await;
    guest.message("home/end").await;
    assert_eq!(guest.left("secret/door"), 0);
}

#[tokio::test]
async fn the_rules_hold_for_the_id_whatever_it_speaks() {
    let gateway = ruled().await;
    let refused = SendError::Refused { reason: Reason::NotAuthorized, retry_after: 0 };
    let mut app = App::connect(&gateway, Version::V5, "guest").await;
    assert_eq!(app.publish("sig/g/vault", "psst").await.code, "NOT_AUTHORIZED");
    let device = Device::connect(&gateway, "guest").await;
    app.ended().await;
    assert_eq!(device.send(Target::group("vault"), "psst").await, Err(refused));
    assert!(device.client.join("vault").await.is_err());
    let mut raw = RawClient::open(&gateway, &connect_packet(5, "guest", 0)).await;
    assert_eq!(raw.packet().await.map(|packet| packet.1[1]), Some(0));
}
