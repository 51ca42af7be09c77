use super::*;
use crate::model::Status;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

#[test]
fn t2_topics_and_properties_of_signals() {
    let one = |qos| Message {
        origin: Origin::Signal {
            sender: ClientId::new("boss").unwrap(),
            group: None,
            client: ClientId::new("me"),
            mode: Mode::One,
        },
        ..to_group(qos)
    };
    let with_sender = Reception { with_sender: true, ..reception(Q1) };
    for (message, reception, v311, v5) in [
        (
            to_group(Q0),
            reception(Q1),
            "PUBLISH q0 sig/g/floor3 on",
            "PUBLISH q0 sig/g/floor3 on {from=boss, mode=all}",
        ),
        (
            to_group(Q0),
            with_sender,
            "PUBLISH q0 sig/g/floor3/boss on",
            "PUBLISH q0 sig/g/floor3/boss on {from=boss, mode=all}",
        ),
        (one(Q0), reception(Q2), "PUBLISH q0 sig/c/me on", "PUBLISH q0 sig/c/me on {from=boss, mode=one}"),
        (
            one(Q1),
            with_sender,
            "PUBLISH q1 #1 sig/c/me/boss on",
            "PUBLISH q1 #1 sig/c/me/boss on {from=boss, mode=one}",
        ),
        (
            Message { deadline: Some(Instant::from_millis(2500)), ..to_group(Q2) },
            Reception { subscription: Some(7), ..reception(Q2) },
            "PUBLISH q2 #1 sig/g/floor3 on",
            "PUBLISH q2 #1 sig/g/floor3 on {from=boss, mode=all, ttl=1500, MessageExpiryInterval(2), \
             SubscriptionIdentifier(7)}",
        ),
    ] {
        let shared = Arc::new(message);
        for (version, expected) in [(Version::V31, v311), (Version::V311, v311), (Version::V5, v5)] {
            let outgoing = Outgoing::new(shared.clone());
            let delivery = || Delivery::new(outgoing.clone(), reception);
            // Shared, and alone: the same bytes.
            assert_eq!(Script::connected(version, "me").deliver(delivery()), [expected]);
            let alone = Delivery { outgoing: Outgoing::new(shared.clone()), ..delivery() };
            assert_eq!(Script::connected(version, "me").deliver(alone), [expected]);
        }
    }
}

#[test]
fn t7_plain_messages_keep_retain_only_if_asked_and_carry_what_passes() {
    let mut writer = PropertyWriter::new();
    let list = [Property::ContentType("x"), Property::UserProperty("a", "b")];
    let passing = super::super::passthrough::write(&properties(&mut writer, &list), |_| false);
    let message = || Message {
        properties: passing.clone().into(),
        deadline: Some(Instant::from_millis(2001)),
        ..to_topic(Q0, true)
    };
    let kept = Reception { retain_as_published: true, ..reception(Q1) };
    let mut script = Script::connected(Version::V5, "me");
    assert_eq!(
        script.deliver(delivery(message(), kept)),
        ["PUBLISH q0 retain a/b on {MessageExpiryInterval(2), ContentType(\"x\"), a=b}"]
    );
    let mut script = Script::connected(Version::V311, "me");
    assert_eq!(script.deliver(delivery(message(), reception(Q1))), ["PUBLISH q0 a/b on"]);
}

#[test]
fn s8_settlements_in_each_qos() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        let written = Settled::Written;
        let last = Settled::Final;
        script.deliver(delivery(to_group(Q0), reception(Q2)));
        assert_eq!(script.settled(), [Settled::Unanswerable]);

        script.deliver(delivery(to_group(Q1), reception(Q2)));
        assert_eq!(script.settled(), [written]);
        script.packet(Packet::PubAck(ack(1)));
        assert_eq!(script.settled(), [last(Status::Delivered)]);
        script.packet(Packet::PubAck(ack(1)));
        script.packet(Packet::PubAck(ack(999)));
        assert!(script.settled().is_empty());
        assert_eq!(script.session.counters.acks_unknown, 2);

        let lines = script.deliver(delivery(to_group(Q2), reception(Q2)));
        let number = if lines[0].contains("#1 ") { 1 } else { 2 };
        script.packet(Packet::PubRec(ack(number)));
        assert_eq!(script.settled(), [written, last(Status::Delivered)]);
        script.packet(Packet::PubRec(ack(number)));
        assert_eq!(script.output(), [format!("PUBREL {number} 00"), format!("PUBREL {number} 00")]);
        script.packet(Packet::PubComp(ack(number)));
        script.session.handle_closed();
        assert!(script.settled().is_empty());
    }
}

#[test]
fn a_client_that_refuses_a_delivery_is_denied() {
    for (qos, packet) in [(Q1, Packet::PubAck as fn(_) -> _), (Q2, Packet::PubRec as fn(_) -> _)] {
        let mut script = Script::connected(Version::V5, "me");
        script.deliver(delivery(to_group(qos), reception(qos)));
        script.packet(packet(Ack::new(id(1), ReasonCode::QuotaExceeded)));
        assert_eq!(script.settled(), [Settled::Written, Settled::Final(Status::Denied)]);
        assert!(script.output().is_empty());
    }
}

#[test]
fn s9_an_expired_delivery_is_not_written() {
    let mut script = Script::connected(Version::V5, "me");
    let message = Message { deadline: Some(script.now), ..to_group(Q1) };
    assert!(script.deliver(delivery(message, reception(Q1))).is_empty());
    assert_eq!(script.settled(), [Settled::Final(Status::Expired)]);
}

#[test]
fn a_link_lost_after_the_write_leaves_deliveries_unconfirmed() {
    let mut script = Script::connected(Version::V311, "me");
    for qos in [Q1, Q2, Q2] {
        script.deliver(delivery(to_group(qos), reception(qos)));
    }
    script.packet(Packet::PubRec(ack(3)));
    script.settled();
    script.session.handle_closed();
    assert_eq!(script.settled(), [Settled::Final(Status::Unconfirmed); 2]);
    assert!(script.session.is_closing());
}

#[test]
fn the_clients_receive_maximum_is_kept_mqtt_3_3_4_9() {
    let mut writer = PropertyWriter::new();
    let two = properties(&mut writer, &[Property::ReceiveMaximum(2)]);
    let mut script =
        Script::connected_with(config(), &Connect { properties: two, ..connect(Version::V5, "me") });
    script.deliver(delivery(to_group(Q1), reception(Q1)));
    assert!(script.session.has_room());
    script.deliver(delivery(to_group(Q2), reception(Q2)));
    assert!(!script.session.has_room());
    // Against the contract: nothing is written, and it is told.
    script.settled();
    assert!(script.deliver(delivery(to_group(Q1), reception(Q1))).is_empty());
    assert_eq!(script.settled(), [Settled::Final(Status::Overflow)]);
    assert_eq!(script.session.counters.no_room, 1);
    // QoS 2 takes its place until PUBCOMP.
    script.packet(Packet::PubRec(ack(2)));
    assert!(!script.session.has_room());
    script.packet(Packet::PubComp(ack(2)));
    assert!(script.session.has_room());

    // Before version 5 the gateway chooses.
    let mut script = Script::connected(Version::V311, "me");
    for _ in 0..256 {
        assert!(script.session.has_room());
        script.deliver(delivery(to_group(Q1), reception(Q1)));
    }
    assert!(!script.session.has_room());
}

#[test]
fn notices_of_qos_1_wait_for_the_window_and_control_packets_do_not() {
    let mut writer = PropertyWriter::new();
    let one = properties(&mut writer, &[Property::ReceiveMaximum(1)]);
    let mut script =
        Script::connected_with(config(), &Connect { properties: one, ..connect(Version::V5, "me") });
    script.subscribe(9, &[("sig/r/me", Q1)]);
    script.deliver(delivery(to_group(Q1), reception(Q1)));
    script.publish(Q1, 1, "sig/x");
    script.refuse(1, Refusal::new(crate::model::Reason::BadTopic, ""));
    assert_eq!(script.output(), ["PUBACK 1 90 {code=BAD_TOPIC}"]);
    assert!(!script.session.has_output());
    script.packet(Packet::PubAck(ack(1)));
    assert!(script.session.has_output());
    let out = script.output();
    assert!(out.len() == 1 && out[0].starts_with("PUBLISH q1 #1 sig/r/me {"), "{out:?}");
    assert!(!script.session.has_room());
    script.packet(Packet::PubAck(ack(1)));
    assert!(script.session.has_room());
}

#[test]
fn what_the_client_cannot_take_is_dropped_and_counted_mqtt_3_1_2_24() {
    for copies in [1, 2] {
        let mut writer = PropertyWriter::new();
        let small = properties(&mut writer, &[Property::MaximumPacketSize(48)]);
        let mut script =
            Script::connected_with(config(), &Connect { properties: small, ..connect(Version::V5, "me") });
        let large = Message { payload: ::bytes::Bytes::from(vec![b'x'; 100]), ..to_group(Q1) };
        let delivery = delivery(large, reception(Q1));
        let kept = vec![delivery.outgoing.clone(); copies - 1];
        assert!(script.deliver(delivery).is_empty());
        assert_eq!(script.settled(), [Settled::Final(Status::Overflow)]);
        assert_eq!(script.session.counters.oversize, 1);
        drop(kept);
        script.session.handle_closed();
        assert!(script.settled().is_empty());
    }
}

#[test]
fn a_message_to_many_is_encoded_once_for_each_kind_of_recipient() {
    let outgoing = Outgoing::new(Arc::new(to_group(Q1)));
    let mut scripts: Vec<Script> = (0..10)
        .map(|n| Script::connected(if n % 2 == 0 { Version::V311 } else { Version::V5 }, &format!("c{n}")))
        .collect();
    for (script, delivery) in scripts.iter_mut().zip(shares(&outgoing, 10)) {
        assert_eq!(script.deliver(delivery).len(), 1);
    }
    let mut encoded = 0;
    for version in [Version::V311, Version::V5] {
        let message = &outgoing.message.view();
        let form = super::super::deliver::Form::new(message, &reception(Q1), version, scripts[0].now);
        let mut encodings = outgoing.encodings.borrow_mut();
        let packet = encodings.encoding(form.key(), |_| {
            encoded += 1;
            Err(())
        });
        assert!(packet.is_ok());
    }
    assert_eq!(encoded, 0);
}

#[test]
fn an_answer_that_waits_goes_before_a_delivery() {
    let mut script = Script::connected(Version::V311, "me");
    script.packet(Packet::PingReq);
    assert_eq!(
        script.deliver(delivery(to_group(Q0), reception(Q0))),
        ["PINGRESP", "PUBLISH q0 sig/g/floor3 on"]
    );
}
