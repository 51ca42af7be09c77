//! Links cut, brokers killed, gateways started again: nothing of QoS 1 is lost within the bounds, and the order stays.

use bugle_tests::{App, Broker, Collector, Link, Setup, Version, mosquitto_pub};

use super::{bridge, bridged, connected, dropped, failures, messages};

const MESSAGES: usize = 1000;

/// Checks that every number came, in order apart from repeats, and tells how many of these there were.
fn check(texts: &[String]) -> usize {
    let mut next = 0;
    let mut repeats = 0;
    for text in texts {
        let number: usize = text.parse().unwrap();
        if number == next {
            next += 1;
        } else {
            assert!(number < next, "{number} came, and {next} is missing");
            repeats += 1;
        }
    }
    assert_eq!(next, MESSAGES, "some never came");
    println!("{repeats} of {MESSAGES} came twice");
    repeats
}

async fn publish_all(app: &mut App, topic: &str, meanwhile: impl AsyncFn(usize)) {
    for number in 0..MESSAGES {
        app.publish(topic, number.to_string()).await;
        meanwhile(number).await;
    }
}

#[tokio::test]
async fn a_link_to_mosquitto_that_is_cut_loses_nothing_of_what_goes_out() {
    for version in ["3.1.1", "5"] {
        let far = Broker::mosquitto("allow_anonymous true").await;
        let link = Link::to(&far).await;
        let topics = ["pattern = 'out'\ndirection = 'out'\nqos = 1"];
        let gateway = bridged(&bridge(&link, &format!("mqtt = '{version}'"), &topics)).await;
        let mut there = Collector::start(&far, "there", "out").await;
        let mut app = App::connect(&gateway, Version::V5, "app").await;
        publish_all(&mut app, "out", async |number| {
            if number % 150 == 100 {
                link.cut();
            }
        })
        .await;
        check(&there.until("999").await);
        gateway.wait_metric("bugle_bridge_connects_total{bridge=\"far\"}", |count| count >= 2).await;
    }
}

#[tokio::test]
async fn a_link_to_mosquitto_that_is_cut_loses_nothing_of_what_comes_in() {
    for version in ["3.1.1", "5"] {
        let far = Broker::mosquitto("allow_anonymous true").await;
        let link = Link::to(&far).await;
        let topics = ["pattern = 'in'\ndirection = 'in'\nqos = 1"];
        // Else Mosquitto 2.0.11 has messages wait, and overtakes them with new ones.
        let lines = format!("mqtt = '{version}'\nin_flight = 1000");
        let gateway = bridged(&bridge(&link, &lines, &topics)).await;
        let mut here = Collector::start(&gateway, "here", "in").await;
        let mut app = App::connect(&far, Version::V311, "app").await;
        publish_all(&mut app, "in", async |number| {
            if number % 150 == 100 {
                link.cut();
            }
        })
        .await;
        let texts = here.until("999").await;

        check(&texts);
        gateway.wait_metric("bugle_bridge_connects_total{bridge=\"far\"}", |count| count >= 2).await;
    }
}

/// QoS 2 on both legs: not one of them twice, however often the link between them is cut.
#[tokio::test]
async fn qos_2_to_mosquitto_comes_once_though_the_link_is_cut() {
    for version in ["3.1.1", "5"] {
        let far = Broker::mosquitto("allow_anonymous true").await;
        let link = Link::to(&far).await;
        let topics =
            ["pattern = 'out'\ndirection = 'out'\nqos = 2", "pattern = 'in'\ndirection = 'in'\nqos = 2"];
        let gateway = bridged(&bridge(&link, &format!("mqtt = '{version}'"), &topics)).await;
        let mut there = Collector::start(&far, "there", "out").await;
        let mut here = Collector::start(&gateway, "here", "in").await;
        let numbers: String = (0..MESSAGES).map(|number| format!("{number}\n")).collect();
        let publish = async |port: u16, topic: &str| {
            let port = port.to_string();
            let arguments = ["-p", &port, "-i", "pub", "-q", "2", "-t", topic, "-l"];
            bugle_tests::Program::run("mosquitto_pub", &arguments, numbers.as_bytes()).await.expect(0);
        };
        // Mosquitto 2.0.11 publishes again what it has already released if it is cut off twice within one exchange.
        let cutting = async {
            for connects in 1.. {
                let name = "bugle_bridge_connects_total{bridge=\"far\"}";
                gateway.wait_metric(name, |count| count >= connects).await;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                link.cut();
            }
        };
        let all = async {
            let (here_port, there_port) = (gateway.port, bugle_tests::Listens::port(&far));
            let both = async { tokio::join!(publish(here_port, "out"), publish(there_port, "in")) };
            let gathered = async { tokio::join!(there.until("999"), here.until("999")) };
            tokio::join!(both, gathered).1
        };
        let (went, came) = tokio::select! {
            texts = all => texts,
            () = cutting => unreachable!(),
        };
        gateway.wait_metric("bugle_bridge_connects_total{bridge=\"far\"}", |count| count >= 2).await;
        assert_eq!((check(&went), check(&came)), (0, 0), "MQTT {version}");
    }
}

#[tokio::test]
async fn mosquitto_killed_in_the_middle_loses_nothing_of_what_goes_out() {
    let mut far = Broker::mosquitto("allow_anonymous true").await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'out'\ndirection = 'out'\nqos = 1"])).await;
    let mut there = Collector::start(&far, "there", "out").await;
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    let mut texts = Vec::new();
    for number in 0..MESSAGES {
        app.publish("out", number.to_string()).await;
        if number == 400 {
            texts.extend(there.until("300").await);
            far.kill().await;
        }
        if number == 600 {
            far.start().await;
        }
    }
    texts.extend(there.until("999").await);
    check(&texts);
    gateway.wait_metric(&messages("far", "out"), |count| count >= 1000).await;
    assert_eq!(gateway.metric("bugle_publishes_dropped_total{reason=\"overflow\"}").await, 0);
}

#[tokio::test]
async fn mosquitto_killed_in_the_middle_loses_nothing_of_what_comes_in() {
    let mut far = Broker::mosquitto("allow_anonymous true").await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'in'\ndirection = 'in'\nqos = 1"])).await;
    let mut here = Collector::start(&gateway, "here", "in").await;
    let mut texts = Vec::new();
    let mut app = App::connect(&far, Version::V311, "app").await;
    for number in 0..MESSAGES {
        app.publish("in", number.to_string()).await;
        if number == 400 {
            texts.extend(here.until("400").await);
            far.kill().await;
            far.start().await;
            app = App::connect(&far, Version::V311, "app").await;
        }
    }
    texts.extend(here.until("999").await);
    check(&texts);
}

#[tokio::test]
async fn rumqttd_killed_in_the_middle_gets_the_rest_afterwards() {
    let (mut far, _) = Broker::rumqttd().await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'out'\ndirection = 'out'\nqos = 1"])).await;
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    for number in 0..500 {
        app.publish("out", number.to_string()).await;
    }
    far.kill().await;
    gateway.wait_metric("bugle_bridge_connected{bridge=\"far\"}", |up| up == 0).await;
    let known = gateway.metric(&messages("far", "out")).await;
    for number in 500..MESSAGES {
        app.publish("out", number.to_string()).await;
    }
    far.start().await;
    // It keeps nothing over a kill: what it has acknowledged before is lost there, what it hasn't is not. What it had
    // acknowledged just before, and the bridge not yet to the gateway, goes twice: that is QoS 1.
    gateway.wait_metric(&messages("far", "out"), |count| count >= MESSAGES as u64).await;
    assert!(known <= 500);
}

#[tokio::test]
async fn a_gateway_that_is_killed_gets_what_came_to_mosquitto_meanwhile() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let config = bridge(&far, "", &["pattern = 'in'\ndirection = 'in'\nqos = 1"]);
    let gateway = bridged(&config).await;
    gateway.kill().await;
    let mut app = App::connect(&far, Version::V5, "app").await;
    for number in 0..200 {
        app.publish("in", number.to_string()).await;
    }
    // Before the bridge brings them: here nobody's session outlives the process yet.
    let port = bugle_tests::free_port();
    let listener = format!("[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['mqtt']\n");
    let link = Link::to(&far).await;
    link.sever();
    let config = bridge(&link, "", &["pattern = 'in'\ndirection = 'in'\nqos = 1"]);
    let gateway = Setup::shards(2).config(&format!("{listener}{config}")).start().await;
    let mut here = Collector::start(&gateway, "here", "in").await;
    link.mend();
    let texts = here.until("199").await;
    let expected: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn messages_for_mosquitto_that_is_away_are_kept_up_to_the_bound_and_then_counted() {
    let mut far = Broker::mosquitto_later("allow_anonymous true");
    let config = "[limits]\noffline_messages = 50\n".to_owned()
        + &bridge(&far, "", &["pattern = 'out'\ndirection = 'out'\nqos = 1"]);
    let gateway = Setup::shards(2).config(&config).start().await;
    gateway.wait_metric(&failures("far", "unreachable"), |count| count >= 1).await;
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    for number in 0..80 {
        app.publish("out", number.to_string()).await;
    }
    gateway.wait_metric("bugle_publishes_dropped_total{reason=\"overflow\"}", |count| count == 30).await;
    far.start().await;
    let mut there = Collector::start(&far, "there", "out").await;
    connected(&gateway, "far").await;
    gateway.wait_metric(&messages("far", "out"), |count| count == 50).await;
    app.publish("out", "end").await;
    there.until("end").await;
    let (_, health) = gateway.get("/healthz").await;
    assert!(health.contains("\"state\":\"connected\""), "{health}");
}

#[tokio::test]
async fn a_message_that_mosquitto_finds_too_large_is_dropped_and_counted() {
    let far = Broker::mosquitto("allow_anonymous true\nmax_packet_size 1000").await;
    let gateway = bridged(&bridge(&far, "", &["pattern = 'out'\ndirection = 'out'\nqos = 1"])).await;
    mosquitto_pub(&gateway, "5", "pub", "out", &"x".repeat(1200), &[]).await.expect(0);
    gateway.wait_metric(&dropped("far", "out", "too_large"), |count| count == 1).await;
    mosquitto_pub(&gateway, "5", "pub", "out", "small", &[]).await.expect(0);
    gateway.wait_metric(&messages("far", "out"), |count| count == 1).await;
}
