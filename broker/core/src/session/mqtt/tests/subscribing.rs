use super::*;
use crate::model::{Filter, Reason, SubscribeItem};

/// Commands in short: `sub floor3 q1 sender`, `unsub floor3`.
fn short(commands: &[Command]) -> Vec<String> {
    let name = |filter: &Filter| match filter {
        Filter::Group(group) => group.to_string(),
        Filter::Inbox => "inbox".to_owned(),
        Filter::Notices => "notices".to_owned(),
        Filter::Topic(topic) => format!("topic {topic}"),
    };
    let item = |item: &Result<SubscribeItem, Refusal>| match item {
        Ok(SubscribeItem { filter, reception, .. }) => {
            let sender = if reception.with_sender { " sender" } else { "" };
            let local = if reception.no_local { " no-local" } else { "" };
            let number = reception.subscription.map(|id| format!(" id{id}")).unwrap_or_default();
            format!("sub {} q{}{sender}{local}{number}", name(filter), reception.qos.as_u8())
        }
        Err(refusal) => refusal.reason.name().to_owned(),
    };
    commands
        .iter()
        .flat_map(|command| match command {
            Command::Subscribe { items, .. } => items.iter().map(item).collect::<Vec<_>>(),
            Command::Unsubscribe { filters, .. } => {
                filters.iter().map(|filter| format!("unsub {}", name(filter))).collect()
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

#[test]
fn t2_filters_become_groups_inbox_and_topics_and_the_answer_keeps_their_order() {
    for version in VERSIONS {
        let mut script = Script::connected(version, "me");
        let commands = script.subscribe(
            4,
            &[
                ("sig/g/floor3", Q1),
                ("sig/r/me", Q2),
                ("sig/c/you", Q0),
                ("sig/c/me/+", Q2),
                ("sig/x", Q0),
                ("a/#", Q2),
                ("$share/s/a", Q0),
                ("b", Q0),
            ],
        );
        assert_eq!(
            short(&commands),
            [
                "sub floor3 q1",
                "NOT_AUTHORIZED",
                "sub inbox q2 sender",
                "BAD_TOPIC",
                "sub topic a/# q2",
                "sub topic $share/s/a q0",
                "sub topic b q0"
            ]
        );
        assert!(script.output().is_empty());
        let refused = |reason| Err(Refusal::new(reason, "no"));
        script.reply(Reply::Subscribed(
            RequestId(4),
            vec![
                Ok(Q1),
                refused(Reason::NotAuthorized),
                Ok(Q2),
                refused(Reason::BadTopic),
                Ok(Q1),
                Ok(Q0),
                refused(Reason::TooMany),
            ],
        ));
        let out = script.output();
        if version == Version::V5 {
            assert_eq!(out[0], "SUBACK 4 01 01 87 02 8f 01 00 97 {reason}");
        } else {
            assert_eq!(out[0], "SUBACK 4 01 01 80 02 80 01 00 80");
        }
        // Its notices were subscribed in the same packet: the refusals are said there too.
        assert_eq!(out.iter().filter(|line| line.contains("\"refusal\"")).count(), 3);
    }
}

#[test]
fn t2_overlapping_forms_are_one_membership() {
    let mut script = Script::connected(Version::V5, "me");
    let subscribe = |script: &mut Script, number, filter, options, subscription| {
        let mut writer = PropertyWriter::new();
        let commands = script.packet(Packet::Subscribe(Subscribe {
            packet_id: id(number),
            properties: properties(&mut writer, &[Property::SubscriptionIdentifier(subscription)]),
            subscriptions: (&[(filter, options)]).into(),
        }));
        script.reply(Reply::Subscribed(RequestId(number.into()), vec![Ok(Q2)]));
        script.output();
        short(&commands)
    };
    let quiet = SubscriptionOptions { no_local: true, ..SubscriptionOptions::new(Q1) };
    assert_eq!(subscribe(&mut script, 1, "sig/g/f", quiet, 11), ["sub f q1 no-local id11"]);
    assert_eq!(
        subscribe(&mut script, 2, "sig/g/f/+", SubscriptionOptions { qos: Q0, ..quiet }, 12),
        ["sub f q1 sender no-local id12"]
    );
    assert_eq!(
        subscribe(&mut script, 3, "sig/g/f/#", SubscriptionOptions::new(Q2), 13),
        ["sub f q2 sender id13"]
    );
    // Again, with less: replaced, not added.
    assert_eq!(subscribe(&mut script, 4, "sig/g/f/#", quiet, 14), ["sub f q1 sender no-local id14"]);

    // One form after the other goes; the last one leaves.
    assert_eq!(short(&script.unsubscribe(5, &["sig/g/f/#"])), ["sub f q1 sender no-local id12"]);
    assert!(script.output().is_empty());
    script.reply(Reply::Subscribed(RequestId(1 << 31 | 5), vec![Ok(Q1)]));
    assert_eq!(script.output(), ["UNSUBACK 5 00"]);
    assert_eq!(
        short(&script.unsubscribe(6, &["sig/g/f/+", "sig/g/f/+", "sig/g/f", "sig/g/g", "x"])),
        ["unsub f", "unsub topic x"]
    );
    script.reply(Reply::Unsubscribed(RequestId(6), vec![true, false]));
    assert_eq!(script.output(), ["UNSUBACK 6 00 11 00 11 11"]);
}

#[test]
fn an_unsubscribe_that_reduces_one_place_and_ends_another_waits_for_both() {
    let mut script = Script::connected(Version::V311, "me");
    script.subscribe(1, &[("sig/g/f", Q1), ("sig/g/f/+", Q0), ("sig/c/me", Q0)]);
    script.reply(Reply::Subscribed(RequestId(1), vec![Ok(Q1), Ok(Q1), Ok(Q0)]));
    assert_eq!(script.output(), ["SUBACK 1 01 00 00"]);
    let commands = script.unsubscribe(2, &["sig/c/me", "sig/g/f"]);
    assert_eq!(short(&commands), ["sub f q0 sender", "unsub inbox"]);
    script.reply(Reply::Unsubscribed(RequestId(2), vec![true]));
    assert!(script.output().is_empty());
    script.reply(Reply::Subscribed(RequestId(1 << 31 | 2), vec![Ok(Q0)]));
    assert_eq!(script.output(), ["UNSUBACK 2"]);
}

#[test]
fn a_refused_form_is_forgotten() {
    let mut script = Script::connected(Version::V5, "me");
    script.subscribe(1, &[("sig/g/f", Q1)]);
    script.reply(Reply::Subscribed(RequestId(1), vec![Err(Refusal::new(Reason::NotAuthorized, "no"))]));
    assert_eq!(script.output(), ["SUBACK 1 87 {reason}"]);
    assert!(script.unsubscribe(2, &["sig/g/f"]).is_empty());
    assert_eq!(script.output(), ["UNSUBACK 2 11"]);
    assert_eq!(short(&script.subscribe(3, &[("sig/g/f/+", Q0)])), ["sub f q0 sender"]);
}

#[test]
fn s1_who_cannot_be_addressed_has_no_groups_and_no_inbox() {
    let mut script = Script::connected(Version::V5, "not a client id");
    let filters = [("sig/g/f", Q0), ("sig/c/me", Q0), ("sig/r/me", Q0), ("sig/#", Q0), ("a", Q0)];
    assert_eq!(
        short(&script.subscribe(1, &filters)),
        ["NOT_AUTHORIZED", "NOT_AUTHORIZED", "NOT_AUTHORIZED", "sub topic sig/# q0", "sub topic a q0"]
    );
}

#[test]
fn groups_of_one_client_are_bounded() {
    let config = config_with(|limits| limits.groups_per_client = 2);
    let mut script = Script::connected_with(config, &connect(Version::V5, "me"));
    let commands =
        script.subscribe(1, &[("sig/g/a", Q0), ("sig/g/b", Q0), ("sig/g/c", Q0), ("sig/g/b/+", Q0)]);
    assert_eq!(short(&commands), ["sub a q0", "sub b q0", "TOO_MANY", "sub b q0 sender"]);
}

#[test]
fn notices_end_with_their_subscription() {
    let mut script = Script::with_notices(Version::V5);
    assert!(script.unsubscribe(1, &["sig/r/me"]).is_empty());
    script.publish(QoS::AtMostOnce, 0, "sig/x");
    script.refuse(0, Refusal::new(Reason::BadTopic, ""));
    assert_eq!(script.output(), ["UNSUBACK 1 00"]);
}
