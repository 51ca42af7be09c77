//! `$SYS/broker/...`, read by the client that made its names usual.

use bugle_tests::{Setup, mosquitto_pub, mosquitto_sub};

#[tokio::test]
async fn mosquitto_sub_reads_statistics_under_the_usual_names() {
    let gateway = Setup::shards(2).config("sys_interval_seconds = 1").start().await;
    let topics = ["$SYS/broker/version", "$SYS/broker/clients/connected", "$SYS/broker/load/#"];
    for version in ["311", "5"] {
        let mut reader = mosquitto_sub(&gateway, version, &format!("reader-{version}"), &topics).await;
        reader.line("$SYS/broker/version|bugle version 0").await;
        // Another look, a second later, has counted the reader itself.
        reader.line("$SYS/broker/clients/connected|").await;
        mosquitto_pub(&gateway, version, "app", "a", "x", &[]).await.expect(0);
        reader.line("$SYS/broker/load/publish/received/1min|").await;
    }
    let mut everything = mosquitto_sub(&gateway, "5", "everything", &["#", "$SYS/broker/uptime"]).await;
    let first = everything.line("got ").await;
    assert!(first.contains("$SYS/broker/uptime|"), "[MQTT-4.7.2-1] {first}");
}

#[tokio::test]
async fn mosquitto_sub_reads_no_statistics_where_there_are_none() {
    let gateway = Setup::shards(1).config("sys_interval_seconds = 0").start().await;
    let mut reader = mosquitto_sub(&gateway, "5", "reader", &["$SYS/#", "a"]).await;
    mosquitto_pub(&gateway, "5", "app", "a", "first", &[]).await.expect(0);
    assert!(reader.line("got ").await.starts_with("got a|first|"));
}
