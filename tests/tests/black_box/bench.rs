//! `bugle bench` as a user runs it: what it counts is what the gateway did.

use bugle_tests::{Gateway, Program, Setup, bugle_program};
use serde_json::Value;

/// Runs a measurement to its end and gives its result.
async fn bench(arguments: &[&str]) -> Value {
    let arguments = [&["bench"], arguments, &["--json"]].concat();
    let ended = Program::run(bugle_program(), &arguments, b"").await.expect(0);
    serde_json::from_str(&ended.out).unwrap()
}

fn target(scheme: &str, gateway: &Gateway) -> String {
    format!("{scheme}://{}", gateway.server())
}

#[tokio::test]
async fn every_shape_of_load_is_delivered_whole_over_both_protocols() {
    let gateway = Setup::shards(2).config("[limits]\nsignals_per_second = 100000").start().await;
    let shapes = [
        ("fanout --subscribers 5 --messages 40", 200),
        ("fanout --subscribers 5 --messages 40 --signals", 200),
        ("pairs --pairs 5 --messages 40", 40),
        ("unicast --pairs 5 --messages 40", 40),
        ("groups --only 8 --members 20 --messages 40", 320),
        // More names than the gateway's table takes: the rest go by name.
        ("groups --only 128 --members 300 --groups 2 --messages 8", 1024),
        ("groups --except 8 --members 20 --messages 40", 480),
        ("subscriptions --clients 5 --filters 40 --messages 300", 300),
    ];
    for scheme in ["mqtt", "device"] {
        let target = target(scheme, &gateway);
        for qos in ["0", "1"] {
            for (shape, deliveries) in shapes {
                let arguments =
                    [shape.split(' ').collect(), vec!["--target", &target, "--qos", qos]].concat();
                let result = bench(&arguments).await;
                assert_eq!(result["received"], deliveries, "{scheme} {qos} {shape}: {result}");
                assert_eq!(
                    (&result["missing"], &result["repeated"]),
                    (&0.into(), &0.into()),
                    "{shape}: {result}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_slow_readers_lose_is_what_the_gateway_counts() {
    let gateway = Setup::shards(2).config("[limits]\nmailbox_messages = 50").start().await;
    let target = target("mqtt", &gateway);
    let load = "fanout --subscribers 2 --slow 3 --messages 3000 --payload 4096 --qos 1";
    let result = bench(&[load.split(' ').collect(), vec!["--target", &target]].concat()).await;
    assert_eq!(result["received"], 6000, "the fast ones got all: {result}");
    let slow = &result["slow"];
    let (lost, received) = (slow["lost"].as_u64().unwrap(), slow["received"].as_u64().unwrap());
    assert!(lost > 0 && received > 0, "{result}");
    assert_eq!(lost + received, 9000, "{result}");
    assert_eq!(gateway.metric("bugle_publishes_dropped_total{reason=\"overflow\"}").await, lost);
}

#[tokio::test]
async fn a_new_subscriber_gets_every_retained_message_and_they_are_taken_back() {
    let gateway = Gateway::start(2).await;
    let pid = gateway.pid().to_string();
    for scheme in ["mqtt", "device"] {
        let target = target(scheme, &gateway);
        let what = ["retained", "--messages", "2000", "--settle", "0", "--target", &target, "--pid", &pid];
        let result = bench(&what).await;
        assert_eq!(result["replayed"], 2016, "{scheme}: {result}");
    }
}

#[tokio::test]
async fn connections_are_counted_and_a_storm_keeps_its_rate() {
    let gateway = Gateway::start(2).await;
    let (target, pid) = (target("mqtt", &gateway), gateway.pid().to_string());
    let result =
        bench(&["idle", "--connections", "50", "--settle", "0", "--target", &target, "--pid", &pid]).await;
    assert_eq!(result["alive"], 50, "{result}");
    let result = bench(&["storm", "--connections", "50", "--rate", "500", "--target", &target]).await;
    assert_eq!(result["connected"], 50, "{result}");
    // The last of them is due after 98 ms.
    assert!(result["seconds"].as_f64().unwrap() >= 0.098, "{result}");
}

#[tokio::test]
async fn the_floor_copies_to_every_subscriber() {
    let mut floor = Program::start(bugle_program(), &["bench", "floor", "--listen", "127.0.0.1:0"]);
    let line = floor.line("copy-only broker").await;
    let target = format!("mqtt://{}", line.rsplit(' ').next().unwrap());
    let result = bench(&["fanout", "--subscribers", "20", "--messages", "100", "--target", &target]).await;
    assert_eq!((&result["received"], &result["missing"]), (&2000.into(), &0.into()), "{result}");
}
