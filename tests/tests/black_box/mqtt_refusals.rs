//! rumqttc's clients: refusals by reason code in version 5, on `sig/r/{me}` in both, and the connection stays (T3).

use bugle_tests::{Acknowledgement, App, Device, Gateway, Version};

/// What a publish is refused with, by topic, payload and RETAIN.
fn refusals() -> Vec<(String, Vec<u8>, bool, &'static str, &'static str)> {
    let list = |count: usize| (0..count).map(|number| format!("l{number}")).collect::<Vec<_>>().join(",");
    let on = || b"on".to_vec();
    let else_ = "ImplementationSpecificError";
    vec![
        (format!("sig/g/floor?only={}", list(129)), on(), false, "LIST_TOO_LONG", else_),
        (format!("sig/g/floor?except={}", list(129)), on(), false, "LIST_TOO_LONG", else_),
        ("sig/g/floor?only=".into(), on(), false, "NO_RECIPIENT", else_),
        ("sig/g/floor".into(), vec![b'x'; 8193], false, "TOO_LARGE", else_),
        ("sig/g/floor?colour=red".into(), on(), false, "BAD_OPTION", else_),
        ("sig/g/floor?ttl=soon".into(), on(), false, "BAD_OPTION", else_),
        ("sig/g/floor?only=%ff".into(), on(), false, "BAD_OPTION", else_),
        ("sig/g/floor".into(), on(), true, "RETAIN_REFUSED", else_),
        ("sig/g/a b".into(), on(), false, "BAD_NAME", "TopicNameInvalid"),
        ("sig/elsewhere".into(), on(), false, "BAD_TOPIC", "TopicNameInvalid"),
    ]
}

#[tokio::test]
async fn t3_mqtt_5_is_refused_by_reason_code_and_the_connection_stays() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        for (topic, payload, retain, code, reason) in refusals() {
            let answer = app.publish_with(&topic, payload, retain, &[]).await;
            assert_eq!(answer, Acknowledgement { reason: reason.into(), code: code.into() }, "{topic}");
            assert_eq!(app.notice("refusal").await["code"], code, "{topic}");
        }
        for (key, value) in [("ttl", "soon"), ("from", "someone-else")] {
            let answer = app.publish_with("sig/g/floor", "on", false, &[(key, value)]).await;
            assert_eq!(answer.code, "BAD_OPTION", "{key}");
        }
        assert_eq!(app.publish("sig/g/floor", "still here").await.reason, "Success");
        assert_eq!(lamp.text().await, "still here");
    }
}

#[tokio::test]
async fn t3_mqtt_3_1_1_is_acknowledged_hears_of_the_refusal_and_the_connection_stays() {
    for shards in [1, 3] {
        let gateway = Gateway::start(shards).await;
        let mut lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V311, "app", "floor").await;
        for (topic, payload, retain, code, _) in refusals() {
            assert_eq!(app.publish_with(&topic, payload, retain, &[]).await.reason, "Success", "{topic}");
            assert_eq!(app.notice("refusal").await["code"], code, "{topic}");
            let counted = gateway.metric(&format!("bugle_refused_total{{reason=\"{code}\"}}")).await;
            assert!(counted > 0, "{code}");
        }
        app.publish("sig/g/floor", "still here").await;
        assert_eq!(lamp.text().await, "still here");
    }
}

#[tokio::test]
async fn t1_user_properties_and_query_are_united() {
    let gateway = Gateway::start(2).await;
    let mut lamps = [
        Device::member(&gateway, "lamp-1", "floor").await,
        Device::member(&gateway, "lamp-2", "floor").await,
        Device::member(&gateway, "lamp-3", "floor").await,
    ];
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    let properties = [("only", "lamp-2"), ("only", "lamp-3"), ("except", "lamp-3"), ("receipt", "each")];
    app.publish_with("sig/g/floor?only=lamp-1", "on", false, &properties).await;
    let receipt = app.notice("receipt").await;
    assert_eq!(receipt["statuses"], serde_json::json!({"lamp-1": "DELIVERED", "lamp-2": "DELIVERED"}));
    app.publish("sig/g/floor", "end").await;
    for (lamp, texts) in lamps.iter_mut().zip([vec!["on", "end"], vec!["on", "end"], vec!["end"]]) {
        for text in texts {
            assert_eq!(lamp.text().await, text);
        }
    }
}

#[tokio::test]
async fn t2_t3_what_may_not_be_subscribed_to_is_refused() {
    let gateway = Gateway::start(1).await;
    let mut new = App::connect(&gateway, Version::V5, "new").await;
    let mut old = App::connect(&gateway, Version::V311, "old").await;
    for (filter, reason) in [
        ("sig/c/someone-else", "NotAuthorized"),
        ("sig/r/someone-else", "NotAuthorized"),
        ("$share/x/sig/g/floor", "NotAuthorized"),
        ("sig/g/a b", "TopicFilterInvalid"),
        ("sig/elsewhere", "TopicFilterInvalid"),
    ] {
        let granted = new.subscribe(filter).await;
        assert_eq!(granted, [reason], "{filter}");
        assert_eq!(old.subscribe(filter).await, ["Failure"], "{filter}");
    }
    assert_eq!(new.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"], "the connection stays");
}

#[tokio::test]
async fn s5_a_sender_gets_its_own_message_only_where_it_asks_for_it() {
    let gateway = Gateway::start(1).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    for topic in
        ["sig/g/floor", "sig/g/floor?echo=1", "sig/g/floor?only=app", "sig/g/floor?echo=1&except=app"]
    {
        app.publish(topic, topic).await;
    }
    assert_eq!(app.message("sig/g/floor").await.text, "sig/g/floor?echo=1");
    assert_eq!(app.message("sig/g/floor").await.text, "sig/g/floor?only=app");
    app.publish("sig/c/app", "end").await;
    app.message("sig/c/app").await;
    assert_eq!(app.left("sig/g/floor"), 0);
}
