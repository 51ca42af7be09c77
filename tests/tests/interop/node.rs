//! MQTT.js, from npm, in Node and in a browser: `tests/interop/mqtt_js_*`.

use bugle_tests::{Browser, Program, foreign, in_foreign, source};

use crate::broker::{Broker, Transport};

/// The cases of mqtt_js_suite.mjs.
fn cases(version: &str, is_bugle: bool) -> Vec<&'static str> {
    let mut cases = vec!["qos", "wildcards", "will", "retained", "retainedWill", "resume", "takeover"];
    if version == "5" {
        cases.extend(["propertiesOf5", "shared"]);
    }
    if is_bugle {
        cases.push("signals");
        if version == "5" {
            cases.push("toldOfTakeover");
        }
    }
    cases
}

async fn mqtt_js(broker: &Broker, version: &str, transport: Transport) {
    foreign("node/node_modules");
    in_foreign("tests/interop/mqtt_js_suite.mjs", "node");
    let script = in_foreign("tests/interop/mqtt_js_node.mjs", "node").display().to_string();
    let scheme = if transport == Transport::Tcp { "mqtt" } else { "ws" };
    let url = format!("{scheme}://127.0.0.1:{}", broker.port());
    let cases = cases(version, broker.is_bugle());
    let arguments = [&[script.as_str(), &url, version], &cases[..]].concat();
    let ended = Program::run("node", &arguments, b"").await.expect(0);
    assert_eq!(ended.out.matches("ok ").count(), cases.len(), "{ended:?}");
}

#[tokio::test]
async fn node_mqtt_js_in_3_1_1() {
    for shards in [1, 3] {
        mqtt_js(&Broker::bugle(shards).await, "3", Transport::Tcp).await;
    }
}

#[tokio::test]
async fn node_mqtt_js_in_5() {
    for shards in [1, 3] {
        mqtt_js(&Broker::bugle(shards).await, "5", Transport::Tcp).await;
    }
}

#[tokio::test]
async fn node_mqtt_js_over_websocket() {
    let broker = Broker::bugle(3).await;
    for version in ["3", "5"] {
        mqtt_js(&broker, version, Transport::WebSocket).await;
    }
}

#[tokio::test]
async fn node_mqtt_js_with_mosquitto_for_comparison() {
    let broker = Broker::mosquitto().await;
    for version in ["3", "5"] {
        mqtt_js(&broker, version, Transport::Tcp).await;
    }
}

#[tokio::test]
async fn node_mqtt_js_in_chromium() {
    let broker = Broker::bugle(3).await;
    for version in ["3", "5"] {
        let files = vec![
            ("/", "text/html", std::fs::read(source("tests/interop/mqtt_js_page.html")).unwrap()),
            (
                "/mqtt_js_suite.mjs",
                "text/javascript",
                std::fs::read(source("tests/interop/mqtt_js_suite.mjs")).unwrap(),
            ),
            (
                "/mqtt.js",
                "text/javascript",
                std::fs::read(foreign("node/node_modules/mqtt/dist/mqtt.min.js")).unwrap(),
            ),
        ];
        let cases = cases(version, broker.is_bugle());
        let page = format!(
            "/?url=ws://127.0.0.1:{}/mqtt&version={version}&cases={}",
            broker.port(),
            cases.join(",")
        );
        let mut browser = Browser::show(&page, files).await;
        for case in cases {
            assert_eq!(browser.told().await, format!("ok {case}"));
        }
        assert_eq!(browser.told().await, "end");
    }
}
