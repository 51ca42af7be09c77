//! What crosses a bridge: directions, prefixes, QoS, RETAIN, and nothing twice.

use bugle_tests::{App, Broker, Gateway, Listens, Program, Version, mosquitto_pub, mosquitto_sub};

use super::{bridge, bridged, dropped, messages, named};

/// A subscriber that prints `got TOPIC|PAYLOAD|QoS|RETAIN` for each message, asking for QoS 2.
async fn subscriber(server: &impl Listens, version: &str, id: &str, filter: &str) -> Program {
    let port = server.port().to_string();
    let arguments = [
        "-oL",
        "mosquitto_sub",
        "-d",
        "-q",
        "2",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-V",
        version,
        "-i",
        id,
        "-F",
        "got %t|%p|%q|%r",
        "-t",
        filter,
    ];
    let mut program = Program::start("stdbuf", &arguments);
    program.line("Subscribed (mid").await;
    program
}

async fn got(program: &mut Program) -> String {
    program.line("got ").await.trim_start_matches("got ").to_owned()
}

#[tokio::test]
async fn out_and_in_with_prefixes_and_every_qos_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    for version in ["3.1.1", "5"] {
        let topics = [
            "pattern = 'out/#'\ndirection = 'out'\nqos = 2\nlocal_prefix = 'home/'\nremote_prefix = 'site/'",
            "pattern = 'in/+'\ndirection = 'in'\nqos = 2\nlocal_prefix = 'cloud/'",
        ];
        let gateway = bridged(&bridge(&far, &format!("mqtt = '{version}'"), &topics)).await;
        let mut there = subscriber(&far, "5", "there", "#").await;
        let mut here = subscriber(&gateway, "5", "here", "cloud/#").await;
        for qos in ["0", "1", "2"] {
            mosquitto_pub(&gateway, "5", "pub", "home/out/a/b", qos, &["-q", qos]).await.expect(0);
            assert_eq!(got(&mut there).await, format!("site/out/a/b|{qos}|{qos}|0"), "MQTT {version}");
            mosquitto_pub(&far, "311", "pub", "in/x", qos, &["-q", qos]).await.expect(0);
            assert_eq!(got(&mut there).await, format!("in/x|{qos}|{qos}|0"));
            assert_eq!(got(&mut here).await, format!("cloud/in/x|{qos}|{qos}|0"), "MQTT {version}");
        }
        // What no pattern has stays.
        mosquitto_pub(&gateway, "5", "pub", "home/other", "no", &[]).await.expect(0);
        mosquitto_pub(&gateway, "5", "pub", "home/out/end", "end", &[]).await.expect(0);
        assert_eq!(got(&mut there).await, "site/out/end|end|1|0");
        gateway.wait_metric(&messages("far", "out"), |count| count == 4).await;
        gateway.wait_metric(&messages("far", "in"), |count| count == 3).await;
    }
}

#[tokio::test]
async fn a_pattern_bounds_the_qos_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let topics = ["pattern = 'zero'\ndirection = 'out'", "pattern = 'one'\ndirection = 'out'\nqos = 1"];
    let gateway = bridged(&bridge(&far, "", &topics)).await;
    let mut there = subscriber(&far, "5", "there", "#").await;
    for (topic, expected) in [("zero", "zero|x|0|0"), ("one", "one|x|1|0")] {
        mosquitto_pub(&gateway, "5", "pub", topic, "x", &["-q", "2"]).await.expect(0);
        assert_eq!(got(&mut there).await, expected);
    }
}

#[tokio::test]
async fn both_ways_without_an_echo_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'shared/#'\ndirection = 'both'\nqos = 1"])).await;
    let mut there = subscriber(&far, "5", "there", "shared/#").await;
    let mut here = subscriber(&gateway, "5", "here", "shared/#").await;
    mosquitto_pub(&gateway, "5", "pub", "shared/a", "from here", &[]).await.expect(0);
    assert_eq!(got(&mut there).await, "shared/a|from here|1|0");
    mosquitto_pub(&far, "5", "pub", "shared/a", "from there", &[]).await.expect(0);
    for line in ["shared/a|from here|1|0", "shared/a|from there|1|0"] {
        assert_eq!(got(&mut here).await, line);
    }
    assert_eq!(got(&mut there).await, "shared/a|from there|1|0");
    // An echo would have come before these.
    mosquitto_pub(&gateway, "5", "pub", "shared/a", "end here", &[]).await.expect(0);
    mosquitto_pub(&far, "5", "pub", "shared/a", "end there", &[]).await.expect(0);
    for end in ["end here", "end there"] {
        assert_eq!(got(&mut there).await, format!("shared/a|{end}|1|0"));
        assert_eq!(got(&mut here).await, format!("shared/a|{end}|1|0"));
    }
    for direction in ["in", "out"] {
        gateway.wait_metric(&messages("far", direction), |count| count == 2).await;
        assert_eq!(gateway.metric(&dropped("far", direction, "loop")).await, 0);
    }
}

/// It has no No Local: what it sends back is known by the user property.
#[tokio::test]
async fn both_ways_to_rumqttd_which_echoes() {
    let (far, _) = Broker::rumqttd().await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'shared/#'\ndirection = 'both'\nqos = 1"])).await;
    let mut there = App::connect(&far, Version::V5, "there").await;
    let mut here = App::connect(&gateway, Version::V5, "here").await;
    there.subscribe("shared/#").await;
    here.subscribe("shared/#").await;
    here.publish("shared/a", "from here").await;
    assert_eq!(there.message("shared/a").await.text, "from here");
    assert_eq!(here.message("shared/a").await.text, "from here");
    gateway.wait_metric(&dropped("far", "in", "loop"), |count| count == 1).await;
    there.publish("shared/a", "from there").await;
    assert_eq!(here.message("shared/a").await.text, "from there");
    assert_eq!(there.message("shared/a").await.text, "from there");
    for direction in ["in", "out"] {
        gateway.wait_metric(&messages("far", direction), |count| count == 1).await;
    }
}

#[tokio::test]
async fn out_and_in_to_rumqttd_in_3_1_1() {
    let (_broker, far) = Broker::rumqttd().await;
    let topics =
        ["pattern = 'out/#'\ndirection = 'out'\nqos = 1", "pattern = 'in/#'\ndirection = 'in'\nqos = 1"];
    let gateway = bridged(&bridge(&far, "mqtt = '3.1.1'", &topics)).await;
    let mut there = App::connect(&far, Version::V311, "there").await;
    let mut here = App::connect(&gateway, Version::V311, "here").await;
    there.subscribe("out/#").await;
    here.subscribe("in/#").await;
    here.publish("out/a", "from here").await;
    assert_eq!(there.message("out/a").await.text, "from here");
    there.publish("in/a", "from there").await;
    assert_eq!(here.message("in/a").await.text, "from there");
}

#[tokio::test]
async fn retained_messages_are_retained_behind_the_bridge_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    mosquitto_pub(&far, "5", "pub", "in/before", "1", &["-r"]).await.expect(0);
    let topics =
        ["pattern = 'out/#'\ndirection = 'out'\nqos = 1", "pattern = 'in/#'\ndirection = 'in'\nqos = 1"];
    let gateway = bridged(&bridge(&far, "", &topics)).await;
    mosquitto_pub(&gateway, "5", "pub", "out/live", "2", &["-r"]).await.expect(0);
    mosquitto_pub(&far, "5", "pub", "in/live", "3", &["-r"]).await.expect(0);
    mosquitto_pub(&gateway, "5", "pub", "out/passing", "4", &[]).await.expect(0);
    gateway.wait_metric(&messages("far", "out"), |count| count == 2).await;
    gateway.wait_metric(&messages("far", "in"), |count| count == 2).await;
    let mut there = subscriber(&far, "5", "there", "out/#").await;
    assert_eq!(got(&mut there).await, "out/live|2|1|1");
    let mut here = subscriber(&gateway, "5", "here", "in/#").await;
    let mut lines = [got(&mut here).await, got(&mut here).await];
    lines.sort();
    assert_eq!(lines, ["in/before|1|1|1", "in/live|3|1|1"]);
    // An empty one takes it away on the other side, too.
    mosquitto_pub(&gateway, "5", "pub", "out/live", "", &["-r"]).await.expect(0);
    gateway.wait_metric(&messages("far", "out"), |count| count == 3).await;
    let mut later = subscriber(&far, "5", "later", "out/#").await;
    mosquitto_pub(&far, "5", "pub", "out/end", "end", &[]).await.expect(0);
    assert_eq!(got(&mut later).await, "out/end|end|1|0");
}

#[tokio::test]
async fn user_properties_and_the_like_cross_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'out'\ndirection = 'out'"])).await;
    let mut there = mosquitto_sub(&far, "5", "there", &["out"]).await;
    let more = ["-D", "publish", "user-property", "colour", "red"];
    mosquitto_pub(&gateway, "5", "pub", "out", "x", &more).await.expect(0);
    let line = got(&mut there).await;
    assert!(line.contains("colour:red") && line.contains("bugle-via:"), "{line}");
}

#[tokio::test]
async fn signals_stay_though_a_wildcard_has_them_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let observe = "[[rule]]\neffect = 'allow'\nclients = ['bridge.far']\nactions = ['observe']\n";
    let topics = ["pattern = '#'\ndirection = 'both'\nqos = 1"];
    let gateway = bridged(&format!("{observe}{}", bridge(&far, "", &topics))).await;
    let mut there = subscriber(&far, "5", "there", "#").await;
    let mut lamp = mosquitto_sub(&gateway, "5", "lamp", &["sig/g/floor"]).await;
    mosquitto_pub(&gateway, "5", "app", "sig/g/floor", "on", &[]).await.expect(0);
    assert!(got(&mut lamp).await.starts_with("sig/g/floor|on|"));
    mosquitto_pub(&far, "5", "pub", "sig/g/floor", "from there", &[]).await.expect(0);
    assert_eq!(got(&mut there).await, "sig/g/floor|from there|1|0");
    gateway.wait_metric(&dropped("far", "in", "signal"), |count| count == 1).await;
    gateway.wait_metric(&dropped("far", "out", "signal"), |count| count == 1).await;
    mosquitto_pub(&gateway, "5", "app", "plain", "end", &[]).await.expect(0);
    assert_eq!(got(&mut there).await, "plain|end|1|0");
}

#[tokio::test]
async fn two_bridges_carry_a_message_from_one_mosquitto_to_the_other() {
    let [one, other] =
        [Broker::mosquitto("allow_anonymous true").await, Broker::mosquitto("allow_anonymous true").await];
    let topics = ["pattern = 'all/#'\ndirection = 'both'\nqos = 1"];
    let config = named("one", &one, "", &topics) + &named("other", &other, "", &topics);
    let gateway = bridged(&config).await;
    let mut there = subscriber(&other, "5", "there", "all/#").await;
    let mut first = subscriber(&one, "5", "first", "all/#").await;
    for (server, text) in [(one.port(), "across"), (gateway.port, "from the middle")] {
        mosquitto_pub(&server, "5", "pub", "all/a", text, &[]).await.expect(0);
        assert_eq!(got(&mut there).await, format!("all/a|{text}|1|0"));
        assert_eq!(got(&mut first).await, format!("all/a|{text}|1|0"));
    }
    for (name, direction, count) in
        [("one", "in", 1), ("one", "out", 1), ("other", "in", 0), ("other", "out", 2)]
    {
        gateway.wait_metric(&messages(name, direction), |seen| seen == count).await;
    }
}

/// A bridge from each of two gateways to the other, for the same topics: a mistake, which doesn't go on for ever.
#[tokio::test]
async fn a_ring_of_two_gateways_ends() {
    let topics = ["pattern = 'all/#'\ndirection = 'both'\nqos = 1"];
    let port = bugle_tests::free_port();
    let first = bugle_tests::Setup::shards(1).config(&named("second", &port, "", &topics)).start().await;
    let second: Gateway = bugle_tests::Setup::shards(1)
        .config(&format!(
            "[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['mqtt']\n{}",
            named("first", &first, "", &topics)
        ))
        .start()
        .await;
    super::connected(&first, "second").await;
    super::connected(&second, "first").await;
    let mut app = App::connect(&first, Version::V5, "app").await;
    let mut there = App::connect(&second, Version::V5, "there").await;
    there.subscribe("all/#").await;
    // It crosses by either bridge, comes back by the other's connection, and is known there.
    for round in 1..=3 {
        app.publish("all/a", "once").await;
        first.wait_metric(&dropped("second", "out", "loop"), |count| count == round).await;
        second.wait_metric(&dropped("first", "in", "loop"), |count| count == round).await;
    }
    // Nothing more came while three rounds went by.
    for (gateway, name) in [(&first, "second"), (&second, "first")] {
        assert_eq!(gateway.metric(&messages(name, "out")).await, 3, "{name}");
        assert_eq!(gateway.metric(&messages(name, "in")).await, 3, "{name}");
    }
    for _ in 0..6 {
        assert_eq!(there.message("all/a").await.text, "once");
    }
    assert_eq!(there.left("all/a"), 0);
}
