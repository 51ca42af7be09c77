use super::*;
use crate::model::{Credential, Reason, Will};
use crate::mqtt::Disconnect;

fn first(connect: &Connect<'_>) -> (Script, Vec<Command<'static>>) {
    let mut script = Script::new(connect.version, config());
    let commands = script.packet(Packet::Connect(*connect));
    (script, commands)
}

/// [MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.1.3-1] and 3.1.1 [MQTT-3.1.2-19] [MQTT-3.1.2-21] [MQTT-3.1.3-1]
#[test]
fn connect_names_who_wants_in_and_waits_for_the_answer() {
    for version in VERSIONS {
        let login = Connect { username: Some("ann"), password: Some(b"pw"), ..connect(version, "me") };
        let (mut script, commands) = first(&login);
        let [Command::Connect(request)] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!(request.identity.as_ref().unwrap().as_str(), "me");
        let Credential::Password { user, password } = &request.credential else { panic!() };
        assert_eq!((user.as_str(), &password[..]), ("ann", &b"pw"[..]));
        // A ping behind it waits.
        assert!(!script.session.wants_bytes() && !script.session.has_room());
        assert!(script.packet(Packet::PingReq).is_empty());
        assert!(script.output().is_empty());
        script.let_in("me", false);
        assert!(script.session.wants_bytes() && script.session.has_room());
        assert!(script.bytes(&[]).is_empty());
        let out = script.output();
        assert_eq!(out.len(), 2);
        assert!(out[0].starts_with("CONNACK 00"), "{out:?}");
        assert_eq!(out[1], "PINGRESP");
    }
}

#[test]
fn connack_of_version_5_says_what_is_not_the_default() {
    let mut writer = PropertyWriter::new();
    let asks = properties(&mut writer, &[Property::SessionExpiryInterval(60)]);
    let (mut script, commands) = first(&Connect { properties: asks, ..connect(Version::V5, "") });
    let [Command::Connect(request)] = &commands[..] else { panic!("{commands:?}") };
    assert!(request.identity.is_none());
    script.let_in("auto-1", true);
    assert_eq!(
        script.output(),
        [
            "CONNACK 00 {SessionExpiryInterval(0), AssignedClientIdentifier(\"auto-1\"), ReceiveMaximum(1024), \
          MaximumPacketSize(1048576), TopicAliasMaximum(16)}"
        ]
    );
}

#[test]
fn connects_that_the_session_refuses() {
    let long = "x".repeat(257);
    let mut writer = PropertyWriter::new();
    let method = properties(&mut writer, &[Property::AuthenticationMethod("SCRAM")]);
    let unclean = |version| Connect { clean_start: false, ..connect(version, "") };
    for (connect, expected) in [
        (unclean(Version::V311), &["CONNACK 85"][..]),
        (connect(Version::V31, ""), &["CONNACK 85"]),
        (connect(Version::V311, &long), &["CONNACK 85"]),
        (connect(Version::V5, &long), &["CONNACK 85 {reason}"]),
        (Connect { properties: method, ..connect(Version::V5, "a") }, &["CONNACK 8c {reason}"]),
    ] {
        let (mut script, commands) = first(&connect);
        assert!(commands.is_empty());
        assert_eq!(script.output(), expected, "{connect:?}");
        assert!(script.session.is_closing());
    }
    for fine in [unclean(Version::V5), connect(Version::V311, "")] {
        assert_eq!(first(&fine).1.len(), 1);
    }
}

/// [MQTT-3.2.2-8] and 3.1.1 [MQTT-3.2.2-6]: where there is no code, there is no CONNACK.
#[test]
fn the_hubs_refusals_become_connack_codes() {
    for (reason, v5, v311) in [
        (Reason::NotAuthenticated, "CONNACK 86 {reason}", Some("CONNACK 86")),
        (Reason::NotAuthorized, "CONNACK 87 {reason}", Some("CONNACK 87")),
        (Reason::TooMany, "CONNACK 97 {reason}", Some("CONNACK 88")),
        (Reason::Kicked, "CONNACK 8a {reason}", Some("CONNACK 87")),
        (Reason::TooLarge, "CONNACK 95 {reason}", None),
    ] {
        for (version, expected) in [(Version::V5, Some(v5)), (Version::V311, v311)] {
            let (mut script, _) = first(&connect(version, "me"));
            script.reply(Reply::ConnectRefused(Refusal::new(reason, "no")));
            assert_eq!(script.output(), expected.into_iter().collect::<Vec<_>>(), "{reason} {version:?}");
            assert!(script.session.is_closing());
        }
    }
}

#[test]
fn t1_a_will_on_a_signal_topic_is_a_send_and_a_malformed_one_refuses_the_connect() {
    let will = |topic| crate::mqtt::Will {
        topic,
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::EMPTY,
    };
    for version in VERSIONS {
        let with = |will| Connect { will: Some(will), ..connect(version, "me") };
        let (_, commands) = first(&with(will("sig/g/floor3?ttl=500")));
        let [Command::Connect(request)] = &commands[..] else { panic!() };
        let Some(Will::Send(signal)) = &request.will else { panic!() };
        assert_eq!((signal.options().ttl, &signal.payload[..]), (Some(500), &b"gone"[..]));

        let (_, commands) = first(&with(crate::mqtt::Will { retain: true, ..will("a/b") }));
        let [Command::Connect(request)] = &commands[..] else { panic!() };
        let Some(Will::Publish { message, .. }) = &request.will else { panic!() };
        assert!(matches!(&message.origin, Origin::Topic { topic, retain: true, .. } if &**topic == "a/b"));

        for (bad, code) in [
            (will("sig/x"), "CONNACK 90 {reason}"),
            (will("sig/g/floor3?ttl=0"), "CONNACK 90 {reason}"),
            (crate::mqtt::Will { retain: true, ..will("sig/g/floor3") }, "CONNACK 9a {reason}"),
            (crate::mqtt::Will { payload: &[0; 8193], ..will("sig/g/floor3") }, "CONNACK 95 {reason}"),
        ] {
            let (mut script, commands) = first(&with(bad));
            assert!(commands.is_empty() && script.session.is_closing());
            let expected: &[&str] = if version == Version::V5 { &[code] } else { &[] };
            assert_eq!(script.output(), expected, "{bad:?}");
        }
    }
}

#[test]
fn s1_takeover_is_told_in_version_5_and_closes_in_all() {
    for (reason, code) in [
        (Reason::TakenOver, "DISCONNECT 8e {reason}"),
        (Reason::ShuttingDown, "DISCONNECT 8b {reason}"),
        (Reason::Kicked, "DISCONNECT 98 {reason}"),
    ] {
        for version in VERSIONS {
            let mut script = Script::connected(version, "me");
            script.reply(Reply::Close(Refusal::new(reason, "why")));
            let expected: &[&str] = if version == Version::V5 { &[code] } else { &[] };
            assert_eq!(script.output(), expected);
            assert!(script.session.is_closing() && !script.session.has_room());
            assert!(script.publish(QoS::AtLeastOnce, 1, "a").is_empty());
        }
    }
}

#[test]
fn keep_alive_is_one_and_a_half_intervals_of_silence_mqtt_3_1_2_22() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        assert_eq!(script.session.deadline(), Some(script.now + 15_000));
        script.after(14_999);
        script.packet(Packet::PingReq);
        assert_eq!(script.output(), ["PINGRESP"]);
        script.after(14_999);
        assert!(!script.session.is_closing());
        script.after(1);
        let expected: &[&str] = if version == Version::V5 { &["DISCONNECT 8d {reason}"] } else { &[] };
        assert_eq!(script.output(), expected);
        assert!(script.session.is_closing());
    }
    let never = Connect { keep_alive: 0, ..connect(Version::V311, "me") };
    assert_eq!(Script::connected_with(config(), &never).session.deadline(), None);
}

#[test]
fn s7_while_paused_nothing_is_read_and_the_keep_alive_timer_stands() {
    let mut script = Script::connected(Version::V311, "me");
    script.session.pause(script.now);
    assert!(!script.session.wants_bytes());
    assert_eq!(script.session.deadline(), None);
    assert!(script.publish(QoS::AtMostOnce, 0, "sig/c/you").is_empty());
    script.after(1_000_000);
    assert!(!script.session.is_closing());
    script.session.resume(script.now);
    assert_eq!(script.session.deadline(), Some(script.now + 15_000));
    assert!(matches!(script.bytes(&[])[..], [Command::Send { .. }]));
    assert!(script.session.wants_bytes());
}

#[test]
fn without_a_connect_the_connection_ends_silently() {
    let mut script = Script::new(Version::V5, config());
    assert_eq!(script.session.deadline(), Some(script.now + 10_000));
    script.bytes(&[0x10]);
    script.after(10_000);
    assert!(script.session.is_closing() && script.output().is_empty());

    let mut script = Script::new(Version::V5, config());
    script.packet(Packet::PingReq);
    assert!(script.session.is_closing() && script.output().is_empty());
}

#[test]
fn a_second_connect_ends_the_connection() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        assert!(script.packet(Packet::Connect(connect(version, "me"))).is_empty());
        let expected: &[&str] = if version == Version::V5 { &["DISCONNECT 82 {reason}"] } else { &[] };
        assert_eq!(script.output(), expected);
        assert!(script.session.is_closing());
    }
}

#[test]
fn disconnect_says_whether_the_will_is_published() {
    for (reason, expected) in [(ReasonCode::Success, false), (ReasonCode::DisconnectWithWill, true)] {
        let mut script = Script::connected(Version::V5, "me");
        let disconnect = Disconnect { reason, properties: Properties::EMPTY };
        let commands = script.packet(Packet::Disconnect(disconnect));
        let [Command::Disconnect { with_will, .. }] = commands[..] else { panic!("{commands:?}") };
        assert_eq!(with_will, expected);
        assert!(script.session.is_closing() && script.output().is_empty());
    }
    let mut writer = PropertyWriter::new();
    let longer = properties(&mut writer, &[Property::SessionExpiryInterval(9)]);
    let mut script = Script::connected(Version::V5, "me");
    let disconnect = Disconnect { reason: ReasonCode::Success, properties: longer };
    assert!(script.packet(Packet::Disconnect(disconnect)).is_empty());
    assert_eq!(script.output(), ["DISCONNECT 82 {reason}"]);
}
