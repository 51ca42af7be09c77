//! paho-mqtt and gmqtt, from PyPI: `tests/interop/*.py`.

use bugle_tests::{Finished, Program, foreign, source};

use crate::broker::{Broker, Transport};

async fn python(script: &str, arguments: &[&str]) -> Finished {
    let script = source(&format!("tests/interop/{script}")).display().to_string();
    // Nothing is to be written beside the sources.
    let arguments = [&["-B", &script], arguments].concat();
    Program::run(foreign("python/bin/python"), &arguments, b"").await
}

async fn paho(broker: &Broker, version: &str, transport: Transport) {
    let mut cases = vec!["qos", "wildcards", "will", "retained", "retained_will", "resume", "takeover"];
    if version == "5" {
        cases.extend(["properties_of_5", "shared"]);
    }
    if broker.is_bugle() {
        cases.push("signals");
        if version == "5" {
            cases.push("told_of_takeover");
        }
    }
    let port = broker.port().to_string();
    let name = if transport == Transport::Tcp { "tcp" } else { "websockets" };
    let arguments = [&[port.as_str(), version, name], &cases[..]].concat();
    let ended = python("paho_suite.py", &arguments).await.expect(0);
    assert_eq!(ended.out.matches("ok ").count(), cases.len(), "{ended:?}");
}

async fn gmqtt(broker: &Broker, version: &str) {
    let mut cases = vec!["qos", "will", "retained", "resume"];
    if broker.is_bugle() {
        cases.push("signals");
    }
    let port = broker.port().to_string();
    let arguments = [&[port.as_str(), version], &cases[..]].concat();
    let ended = python("gmqtt_suite.py", &arguments).await.expect(0);
    assert_eq!(ended.out.matches("ok ").count(), cases.len(), "{ended:?}");
}

async fn home_assistant(broker: &Broker, version: &str) {
    let port = broker.port().to_string();
    let ended = python("home_assistant.py", &[&port, version, "tcp"]).await.expect(0);
    assert_eq!(ended.out.matches("ok ").count(), 5, "{ended:?}");
}

#[tokio::test]
async fn python3_paho_mqtt_in_3_1_1() {
    for shards in [1, 3] {
        paho(&Broker::bugle(shards).await, "3", Transport::Tcp).await;
    }
}

#[tokio::test]
async fn python3_paho_mqtt_in_5() {
    for shards in [1, 3] {
        paho(&Broker::bugle(shards).await, "5", Transport::Tcp).await;
    }
}

#[tokio::test]
async fn python3_paho_mqtt_over_websocket() {
    let broker = Broker::bugle(3).await;
    for version in ["3", "5"] {
        paho(&broker, version, Transport::WebSocket).await;
    }
}

#[tokio::test]
async fn python3_paho_mqtt_with_mosquitto_for_comparison() {
    let broker = Broker::mosquitto().await;
    for version in ["3", "5"] {
        paho(&broker, version, Transport::Tcp).await;
    }
}

#[tokio::test]
async fn python3_gmqtt_in_3_1_1_and_5() {
    for shards in [1, 3] {
        let broker = Broker::bugle(shards).await;
        for version in ["3", "5"] {
            gmqtt(&broker, version).await;
        }
    }
}

#[tokio::test]
async fn python3_gmqtt_with_mosquitto_for_comparison() {
    let broker = Broker::mosquitto().await;
    for version in ["3", "5"] {
        gmqtt(&broker, version).await;
    }
}

#[tokio::test]
async fn python3_home_assistant_discovers_a_light_on_paho_mqtt() {
    for shards in [1, 3] {
        let broker = Broker::bugle(shards).await;
        for version in ["3", "5"] {
            home_assistant(&broker, version).await;
        }
    }
}

#[tokio::test]
async fn python3_home_assistant_with_mosquitto_for_comparison() {
    home_assistant(&Broker::mosquitto().await, "3").await;
}
