use super::*;
use crate::model::{MessageId, Reason, ReceiptCounts, ReceiptMode, ReceiptReport, Status, Target};
use serde_json::{Value, json};

fn publish_with(script: &mut Script, publish: Publish<'_>, list: &[Property<'_>]) -> Vec<Command<'static>> {
    let mut writer = PropertyWriter::new();
    writer.extend(list.iter().copied());
    script.packet(Packet::Publish(Publish { properties: writer.finish().unwrap(), ..publish }))
}

/// The payloads on `sig/r/me` among these lines.
fn notices(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .filter_map(|line| line.split_once("sig/r/me "))
        .map(|(_, rest)| serde_json::Deserializer::from_str(rest).into_iter().next().unwrap().unwrap())
        .collect()
}

#[test]
fn t1_a_send_is_acknowledged_when_the_hub_says_so() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        for (qos, number) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 8)] {
            let commands = script.publish(qos, number, "sig/g/floor3?ttl=500");
            let [Command::Send { request, signal, refusable }] = &commands[..] else {
                panic!("{commands:?}")
            };
            assert_eq!(*request, (number > 0).then_some(RequestId(number.into())));
            assert_eq!(*refusable, version == Version::V5 && number > 0);
            assert_eq!((signal.qos, signal.options().ttl), (qos, Some(500)));
            assert!(script.output().is_empty());
        }
        for request in [0, 7, 8] {
            script.done(request);
        }
        assert_eq!(script.output(), ["PUBACK 7 00", "PUBREC 8 00"]);
    }
}

#[test]
fn t2_reserved_keys_are_consumed_and_the_rest_passes_unaltered() {
    let mut script = Script::connected(Version::V5, "me");
    let commands = publish_with(
        &mut script,
        publish(QoS::AtLeastOnce, 1, "sig/g/floor3"),
        &[
            Property::UserProperty("colour", "red"),
            Property::UserProperty("only", "a,b"),
            Property::ContentType("text/plain"),
            Property::MessageExpiryInterval(3),
            Property::UserProperty("colour", "blue"),
        ],
    );
    let [Command::Send { signal, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((signal.target().mode(), signal.options().ttl), (Mode::Only, Some(3000)));
    let passed: Vec<_> = super::super::passthrough::read(&signal.properties).collect();
    assert_eq!(
        passed,
        [
            Property::UserProperty("colour", "red"),
            Property::ContentType("text/plain"),
            Property::UserProperty("colour", "blue"),
        ]
    );
}

#[test]
fn what_the_session_itself_refuses_is_asked_of_the_hub_as_a_refusal() {
    let large = vec![0; 8193];
    let plain = publish(QoS::AtLeastOnce, 1, "sig/c/you");
    let cases = [
        ("me", Publish { topic: "sig/x", ..plain }, Reason::BadTopic),
        ("me", Publish { topic: "sig/r/me", ..plain }, Reason::BadTopic),
        ("me", Publish { topic: "sig/g/a b", ..plain }, Reason::BadName),
        ("me", Publish { topic: "sig/g/f?only=", ..plain }, Reason::NoRecipient),
        ("me", Publish { retain: true, ..plain }, Reason::RetainRefused),
        ("me", Publish { payload: &large, ..plain }, Reason::TooLarge),
        ("me", Publish { topic: "$SYS/x", ..plain }, Reason::NotAuthorized),
        ("not a client id", plain, Reason::NotAuthorized),
    ];
    for version in VERSIONS {
        for (client, publish, reason) in &cases {
            let mut script = Script::connected(version, client);
            let commands = script.packet(Packet::Publish(*publish));
            let [Command::Refuse { request: RequestId(1), refusal }] = &commands[..] else {
                panic!("{commands:?}")
            };
            assert_eq!(refusal.reason, *reason, "{}", publish.topic);
        }
    }
    let mut script = Script::connected(Version::V311, "me");
    let fits = Publish { payload: &large[..8192], ..plain };
    assert!(matches!(script.packet(Packet::Publish(fits))[..], [Command::Send { .. }]));
}

#[test]
fn t3_refusals_in_both_versions() {
    for (reason, code) in [
        (Reason::RateLimited, "97"),
        (Reason::Overflow, "97"),
        (Reason::TooMany, "97"),
        (Reason::Busy, "97"),
        (Reason::NotAuthorized, "87"),
        (Reason::BadTopic, "90"),
        (Reason::BadOption, "83"),
        (Reason::ListTooLong, "83"),
        (Reason::TooLarge, "83"),
    ] {
        let refusal = || Refusal::new(reason, "because");
        let mut script = Script::connected(Version::V5, "me");
        script.publish(QoS::AtLeastOnce, 1, "sig/c/you");
        script.publish(QoS::ExactlyOnce, 2, "sig/c/you");
        script.publish(QoS::AtMostOnce, 0, "sig/c/you?receipt=each");
        script.refuse(1, refusal());
        script.refuse(2, Refusal { retry_after: Some(40), ..refusal() });
        script.refuse(0, refusal());
        let name = reason.name();
        assert_eq!(
            script.output(),
            [
                format!("PUBACK 1 {code} {{reason, code={name}}}"),
                format!("PUBREC 2 {code} {{reason, code={name}, retry-after=40}}"),
            ]
        );
        // The identifier of a refused QoS 2 publish is free again [MQTT-4.3.3-9].
        assert_eq!(script.publish(QoS::ExactlyOnce, 2, "sig/c/you").len(), 1);

        let mut script = Script::connected(Version::V311, "me");
        script.publish(QoS::AtLeastOnce, 1, "sig/c/you");
        script.refuse(1, refusal());
        assert_eq!(script.output(), ["PUBACK 1 00"]);
    }
}

#[test]
fn t3_refusals_are_also_published_to_the_senders_notices() {
    for version in [Version::V311, Version::V5] {
        let mut script = Script::with_notices(version);
        script.publish(QoS::AtLeastOnce, 1, "sig/g/floor3?id=m-1&only=a");
        script.publish(QoS::AtMostOnce, 0, "sig/x");
        script.refuse(1, Refusal { retry_after: Some(40), ..Refusal::new(Reason::RateLimited, "slow") });
        script.refuse(0, Refusal::new(Reason::BadTopic, "what?"));
        assert_eq!(
            notices(&script.output()),
            [
                json!({"type": "refusal", "code": "RATE_LIMITED", "reason": "slow", "packet_id": 1,
                       "id": "m-1", "topic": "sig/g/floor3", "retry_after_ms": 40}),
                json!({"type": "refusal", "code": "BAD_TOPIC", "reason": "what?", "packet_id": null,
                       "id": null, "topic": "sig/x"}),
            ]
        );
    }
}

#[test]
fn t3_who_asks_for_no_problem_information_hears_it_only_there() {
    let mut writer = PropertyWriter::new();
    let quiet = properties(&mut writer, &[Property::RequestProblemInformation(false)]);
    let mut script =
        Script::connected_with(config(), &Connect { properties: quiet, ..connect(Version::V5, "me") });
    script.subscribe(9, &[("sig/r/me", QoS::AtMostOnce)]);
    script.publish(QoS::AtLeastOnce, 1, "sig/c/you");
    script.refuse(1, Refusal::new(Reason::Busy, "later"));
    let out = script.output();
    assert_eq!(out[..2], ["SUBACK 9 00", "PUBACK 1 97"]);
    assert_eq!(notices(&out)[0]["reason"], "later");
}

#[test]
fn t4_receipts_are_json_and_each_comes_in_parts() {
    let mut counts = ReceiptCounts::default();
    counts.add(Status::Delivered, 2);
    counts.add(Status::Offline, 1);
    let name = |n: usize| ClientId::new(&format!("lamp-with-quite-a-long-name-{n:04}")).unwrap();
    let report = |mode, entries: usize| ReceiptReport {
        request: RequestId(7),
        id: MessageId::new("m-1"),
        target: Target::group(GroupName::new("floor3").unwrap(), None, None).unwrap(),
        mode,
        interim: false,
        duplicate: false,
        counts,
        entries: (0..entries).map(|n| (name(n), Status::Offline)).collect(),
    };
    let mut script = Script::with_notices(Version::V311);
    script.reply(Reply::Receipt(Box::new(report(ReceiptMode::Summary, 0))));
    assert_eq!(
        notices(&script.output()),
        [json!({"type": "receipt", "id": "m-1", "packet_id": 7, "target": {"group": "floor3"},
                "counts": {"delivered": 2, "offline": 1}, "final": true, "part": 1, "parts": 1})]
    );
    for entries in [0, 1, 128, 1000] {
        script.reply(Reply::Receipt(Box::new(report(ReceiptMode::Each, entries))));
        let lines = script.output();
        let parts = notices(&lines);
        assert_eq!(parts.len(), lines.len());
        assert!(parts.iter().all(|part| part.to_string().len() <= 8192 && part["parts"] == parts.len()));
        assert_eq!(parts.len() > 1, entries == 1000);
        let named: usize = parts.iter().map(|part| part["statuses"].as_object().unwrap().len()).sum();
        assert_eq!(named, entries);
        let numbers: Vec<_> = parts.iter().map(|part| part["part"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=parts.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn t4_notices_that_nobody_reads_are_bounded_and_counted() {
    let mut script = Script::with_notices(Version::V311);
    for _ in 0..300 {
        script.publish(QoS::AtMostOnce, 0, "sig/x");
        script.refuse(0, Refusal::new(Reason::BadTopic, ""));
    }
    assert_eq!(script.session.counters.notices_dropped, 44);
    assert_eq!(notices(&script.output()).len(), 256);
    assert!(!script.session.has_output());
}

#[test]
fn t7_a_plain_topic_is_a_publish() {
    let mut script = Script::connected(Version::V5, "not a client id");
    let commands = publish_with(
        &mut script,
        Publish { retain: true, ..publish(QoS::AtLeastOnce, 3, "a/b") },
        &[Property::MessageExpiryInterval(2), Property::UserProperty("from", "x")],
    );
    let [Command::Publish { request: Some(RequestId(3)), publication }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(publication.deadline, Some(script.now + 2000));
    assert_eq!((&*publication.topic, publication.retain), ("a/b", true));
    let passed: Vec<_> = super::super::passthrough::read(&publication.properties).collect();
    assert_eq!(passed, [Property::UserProperty("from", "x")]);
}

#[test]
fn qos_2_from_the_client_is_taken_once_mqtt_4_3_3() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        assert_eq!(script.publish(QoS::ExactlyOnce, 5, "a").len(), 1);
        let again = Publish { dup: true, ..publish(QoS::ExactlyOnce, 5, "a") };
        assert!(script.packet(Packet::Publish(again)).is_empty());
        script.done(5);
        assert!(script.packet(Packet::Publish(again)).is_empty());
        assert_eq!(script.output(), ["PUBREC 5 00", "PUBREC 5 00"]);
        script.packet(Packet::PubRel(ack(5)));
        script.packet(Packet::PubRel(ack(5)));
        let unknown = if version == Version::V5 { "PUBCOMP 5 92" } else { "PUBCOMP 5 00" };
        assert_eq!(script.output(), ["PUBCOMP 5 00", unknown]);
        assert_eq!(script.publish(QoS::ExactlyOnce, 5, "a").len(), 1);
    }
}

#[test]
fn topic_aliases_3_3_2_3_4() {
    let mut script = Script::connected(Version::V5, "me");
    let alias = |script: &mut Script, topic: &str, alias| {
        let commands =
            publish_with(script, publish(QoS::AtMostOnce, 0, topic), &[Property::TopicAlias(alias)]);
        match commands.first() {
            Some(Command::Publish { publication, .. }) => publication.topic.to_string(),
            Some(Command::Send { .. }) => "signal".to_owned(),
            _ => "none".to_owned(),
        }
    };
    assert_eq!(alias(&mut script, "a/b", 16), "a/b");
    assert_eq!(alias(&mut script, "sig/c/you", 1), "signal");
    assert_eq!(alias(&mut script, "", 16), "a/b");
    assert_eq!(alias(&mut script, "", 1), "signal");
    assert_eq!(alias(&mut script, "c", 16), "c");
    assert_eq!(alias(&mut script, "", 16), "c");
    assert_eq!(alias(&mut script, "", 2), "none");
    assert_eq!(script.output(), ["DISCONNECT 82 {reason}"]);

    let mut script = Script::connected(Version::V5, "me");
    assert_eq!(alias(&mut script, "a", 17), "none");
    assert_eq!(script.output(), ["DISCONNECT 94 {reason}"]);

    let mut script = Script::connected(Version::V5, "me");
    assert_eq!(alias(&mut script, &"x".repeat(16 * 1024 + 1), 1), "none");
    assert_eq!(script.output(), ["DISCONNECT 97 {reason}"]);
}

#[test]
fn with_too_many_requests_unanswered_publishes_wait_but_pings_before_them_do_not() {
    let config = || config_with(|limits| limits.requests_per_client = 2);
    let mut script = Script::connected_with(config(), &connect(Version::V311, "me"));
    script.publish(QoS::AtLeastOnce, 1, "a");
    script.publish(QoS::AtMostOnce, 0, "sig/c/you?receipt=each");
    assert!(script.session.wants_bytes());
    script.packet(Packet::PingReq);
    assert_eq!(script.output(), ["PINGRESP"]);
    assert!(script.publish(QoS::AtLeastOnce, 2, "a").is_empty());
    assert!(!script.session.wants_bytes());
    assert_eq!(script.session.deadline(), None);
    script.after(100_000);
    script.done(1);
    assert!(script.session.wants_bytes());
    assert!(matches!(script.bytes(&[])[..], [Command::Publish { request: Some(RequestId(2)), .. }]));
    assert_eq!(script.output(), ["PUBACK 1 00"]);
    script.done(0);
    script.done(2);
    assert_eq!(script.output(), ["PUBACK 2 00"]);
    assert_eq!(script.session.deadline(), Some(script.now + 15_000));

    // QoS 2 publishes count until they are released; version 5 was told the receive maximum.
    let mut script = Script::connected_with(config(), &connect(Version::V5, "me"));
    for number in 1..=2 {
        script.publish(QoS::ExactlyOnce, number, "a");
        script.done(number.into());
    }
    assert_eq!(script.output(), ["PUBREC 1 00", "PUBREC 2 00"]);
    assert!(script.publish(QoS::ExactlyOnce, 3, "a").is_empty());
    assert_eq!(script.output(), ["DISCONNECT 93 {reason}"]);
}

/// [MQTT-2.2.1-3] of a client that doesn't keep to it: reason code 0x91. Before version 5 there is none, and it is a
/// violation: 3.1.1 [MQTT-2.3.1-2] [MQTT-4.8.0-1]
#[test]
fn a_packet_identifier_without_an_answer_is_in_use() {
    for version in VERSIONS {
        for (first, again, answer) in [
            (1, 1, "PUBACK 1 91 {reason}"),
            (1, 2, "PUBREC 1 91 {reason}"),
            (2, 1, "PUBACK 1 91 {reason}"),
            (2, 3, "SUBACK 1 91 91 {reason}"),
            (1, 4, "UNSUBACK 1 91 91"),
            (3, 3, "SUBACK 1 91 91 {reason}"),
            (3, 1, "PUBACK 1 91 {reason}"),
        ] {
            let mut script = Script::connected(version, "me");
            let ask = |script: &mut Script, what| match what {
                1 | 2 => script.publish(QoS::from_u8(what).unwrap(), 1, "a"),
                3 => script.subscribe(1, &[("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce)]),
                _ => script.unsubscribe(1, &["a", "b"]),
            };
            assert_eq!(ask(&mut script, first).len(), 1);
            assert!(ask(&mut script, again).is_empty());
            let told = version == Version::V5;
            let expected: &[&str] = if told { &[answer] } else { &[] };
            assert_eq!(script.output(), expected, "{first} {again}");
            assert_eq!(script.session.is_closing(), !told);
        }
    }
}

#[test]
fn a_repetition_is_answered_with_what_it_repeats() {
    for version in VERSIONS {
        for (qos, dup, answer) in [
            (QoS::AtLeastOnce, true, "PUBACK 1 00"),
            (QoS::ExactlyOnce, true, "PUBREC 1 00"),
            (QoS::ExactlyOnce, false, "PUBREC 1 00"),
        ] {
            let mut script = Script::connected(version, "me");
            assert_eq!(script.publish(qos, 1, "a").len(), 1);
            let again = Publish { dup, ..publish(qos, 1, "a") };
            assert!(script.packet(Packet::Publish(again)).is_empty());
            script.done(1);
            assert_eq!(script.output(), [answer]);
        }
    }
}

/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3]
#[test]
fn an_explanation_that_is_too_large_for_the_client_is_left_out_mqtt_3_1_2_24() {
    let mut writer = PropertyWriter::new();
    let small = properties(&mut writer, &[Property::MaximumPacketSize(40)]);
    let mut script =
        Script::connected_with(config(), &Connect { properties: small, ..connect(Version::V5, "me") });
    script.publish(QoS::AtLeastOnce, 1, "sig/c/you");
    script.publish(QoS::ExactlyOnce, 2, "sig/c/you");
    script.refuse(1, Refusal::new(Reason::Busy, "x".repeat(100)));
    script.refuse(2, Refusal::new(Reason::Busy, "x".repeat(100)));
    assert_eq!(script.output(), ["PUBACK 1 97", "PUBREC 2 97"]);
}

#[test]
fn the_second_publish_to_a_topic_is_read_like_the_first() {
    for version in VERSIONS {
        for topic in ["a/b", "sig/c/you", "sig/g/floor3?only=a,b&ttl=5"] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let mut script = Script::connected(version, "me");
                let commands: Vec<_> = (0..3)
                    .map(|_| {
                        let commands = script.publish(qos, u16::from(qos == QoS::AtLeastOnce), topic);
                        assert_eq!(script.session.knows_topic(), Some(topic));
                        script.done(1);
                        format!("{commands:?}")
                    })
                    .collect();
                assert_eq!(commands[0], commands[1]);
                assert_eq!(commands[0], commands[2]);
                let again = script.publish(qos, u16::from(qos == QoS::AtLeastOnce), "another");
                assert!(format!("{again:?}").contains("another"));
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_publish_to_a_known_topic_is_found_as_ever() {
    for version in VERSIONS {
        let known = || {
            let mut script = Script::connected(version, "me");
            script.publish(QoS::AtLeastOnce, 1, "sig/c/you");
            script
        };
        // The identifier is in use, and there is none.
        let mut script = known();
        assert!(script.publish(QoS::AtLeastOnce, 1, "sig/c/you").is_empty());
        assert_eq!(script.session.is_closing(), version != Version::V5);
        let mut zero = bytes_of(Packet::Publish(publish(QoS::AtLeastOnce, 1, "sig/c/you")), version);
        zero[2 + 2 + 9..][..2].fill(0);
        let mut script = known();
        assert!(script.bytes(&zero).is_empty() && script.session.is_closing());
        // A signal isn't retained, and has at most 8192 bytes.
        for refused in [
            Publish { retain: true, ..publish(QoS::AtLeastOnce, 2, "sig/c/you") },
            Publish { payload: &[0; 8193], ..publish(QoS::AtLeastOnce, 2, "sig/c/you") },
        ] {
            assert!(matches!(known().packet(Packet::Publish(refused))[..], [Command::Refuse { .. }]));
        }
    }
}

#[test]
fn t3_a_refused_signal_of_qos_0_is_told_though_it_has_no_number() {
    let mut script = Script::with_notices(Version::V311);
    for _ in 0..2 {
        let commands = script.publish(QoS::AtMostOnce, 0, "sig/c/you?id=m-1");
        let [Command::Send { request: None, signal, .. }] = &commands[..] else { panic!("{commands:?}") };
        let about = About::Signal(signal.addressed.clone());
        script.reply(Reply::RefusedUnasked(about, Refusal::new(Reason::NotAuthorized, "no")));
        let notices = notices(&script.output());
        assert_eq!(notices.len(), 1);
        assert_eq!((&notices[0]["topic"], &notices[0]["id"]), (&"sig/c/you".into(), &"m-1".into()));
    }
}
