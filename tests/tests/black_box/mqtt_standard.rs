//! That the process does what docs/mqtt-conformance.md says of the core: codes, closes and order on real sockets, in both
//! versions and with several shards.

use bugle_tests::websocket::{BINARY, WebSocket, websocket_frame, websocket_request};
use bugle_tests::{
    Gateway, RawClient, Setup, connect_packet, connect_packet_with_will, disconnect_reason, publish_packet,
    subscribe_packet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client that is in.
async fn connected(gateway: &Gateway, version: u8, id: &str) -> RawClient {
    let mut client = RawClient::open(gateway, &connect_packet(version, id, 0)).await;
    assert_eq!(client.packet().await.map(|packet| (packet.0, packet.1[1])), Some((0x20, 0)));
    client
}

/// [MQTT-4.13.1-1] [MQTT-4.13.2-1] and 3.1.1 [MQTT-4.8.0-1]: with the code in 5, without a word in 3.1.1, and closed.
#[tokio::test]
async fn errors_end_the_connection_and_version_5_says_why() {
    let gateway = Gateway::start(2).await;
    for version in [5, 4] {
        let subscribe = subscribe_packet(version, "a", 0);
        for (bytes, code) in [
            (vec![0xC1, 0], 0x81),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0x81),
            ([&[0x80], &subscribe[1..]].concat(), 0x81),
            (publish_packet(version, "a/+", b""), 0x90),
            (publish_packet(version, "", b""), 0x82),
            (connect_packet(version, "peer", 0), 0x82),
            (vec![0x40, 2, 0, 0], 0x82),
            (vec![0x20, 2, 0, 0], if version == 5 { 0x81 } else { 0x82 }),
            (vec![0x30, 0x81, 0x80, 0x80, 0x01], 0x95),
        ] {
            let mut client = connected(&gateway, version, "peer").await;
            // What comes behind it isn't handled.
            client.write(&[&bytes[..], &[0xC0, 0]].concat()).await;
            let last = client.packet().await;
            assert_eq!(disconnect_reason(&last), (version == 5).then_some(code), "{bytes:x?}");
            assert_eq!(client.rest().await, b"", "{bytes:x?}");
        }
    }
}

/// [MQTT-3.1.4-1] [MQTT-3.2.2-7] [MQTT-3.14.0-1] and 3.1.1 [MQTT-3.1.2-2] [MQTT-3.1.3-8] [MQTT-3.1.4-1]
/// [MQTT-3.2.2-5]: with the code that the client's version has, if it has one.
#[tokio::test]
async fn a_refused_connect_is_answered_and_closed() {
    let gateway = Gateway::start(2).await;
    let too_long = "x".repeat(257);
    let altered = |version, at: usize, byte| {
        let mut connect = connect_packet(version, "peer", 0);
        connect[at] = byte;
        connect
    };
    let mut unclean = connect_packet(4, "", 0);
    unclean[9] = 0;
    for (bytes, answer) in [
        (altered(4, 8, 3), &[0x20, 2, 0, 1][..]),
        (unclean, &[0x20, 2, 0, 2]),
        (connect_packet(4, &too_long, 0), &[0x20, 2, 0, 2]),
        (altered(4, 9, 0x03), &[]),
        (altered(4, 9, 0x42), &[]),
        (altered(5, 8, 6), &[0x20, 0x84]),
        (connect_packet(5, &too_long, 0), &[0x20, 0x85]),
        (altered(5, 9, 0x03), &[0x20, 0x81]),
        (altered(5, 9, 0x1A), &[0x20, 0x81]),
        (altered(5, 4, b'N'), &[]),
    ] {
        let mut client = RawClient::open(&gateway, &[&bytes[..], &[0xC0, 0]].concat()).await;
        match (client.packet().await, answer) {
            (None, []) => {}
            (Some((first, body)), [expected, code]) => assert_eq!((first, body[1]), (*expected, *code)),
            (Some((first, body)), whole) => {
                assert_eq!([&[first, body.len() as u8], &body[..]].concat(), whole)
            }
            (None, expected) => panic!("{bytes:x?}: {expected:x?} didn't come"),
        }
        assert_eq!(client.rest().await, b"", "{bytes:x?}");
    }
}

/// A refused subscription or publish is answered, and whoever asked goes on: 3.1.1 [MQTT-3.3.5-2] [MQTT-3.8.4-5] and
/// [MQTT-3.8.4-7]
#[tokio::test]
async fn a_refusal_ends_no_connection() {
    let rules = "rules_default = 'allow'\n[[rule]]\neffect = 'deny'\nactions = ['publish', 'subscribe']\n\
                 topics = ['secret/#']";
    let gateway = Setup::shards(2).config(rules).start().await;
    for (version, suback, puback) in [(5, 0x87, Some(0x87)), (4, 0x80, None)] {
        let none: &[u8] = if version == 5 { &[0] } else { &[] };
        let mut client = connected(&gateway, version, "peer").await;
        client.write(&subscribe_packet(version, "secret/door", 1)).await;
        let (first, body) = client.packet().await.unwrap();
        assert_eq!((first, body.last()), (0x90, Some(&suback)));
        let topic = [&[0, 11], &b"secret/door"[..]].concat();
        let publish = [&topic[..], &[0, 7], none].concat();
        client.write(&[&[0x32, publish.len() as u8], &publish[..]].concat()).await;
        let (first, body) = client.packet().await.unwrap();
        assert_eq!((first, &body[..2], body.get(2).copied()), (0x40, &[0, 7][..], puback));
        client.write(&[0xC0, 0]).await;
        assert_eq!(client.packet().await, Some((0xD0, Vec::new())));
    }
}

/// [MQTT-3.1.4-3] and 3.1.1 [MQTT-3.1.4-2]
#[tokio::test]
async fn a_newer_connection_of_the_same_id_ends_the_older() {
    let gateway = Gateway::start(3).await;
    for (version, code) in [(5, Some(0x8E)), (4, None)] {
        let mut older = connected(&gateway, version, "peer").await;
        let mut newer = connected(&gateway, version, "peer").await;
        assert_eq!(disconnect_reason(&older.packet().await), code);
        assert_eq!(older.rest().await, b"");
        newer.write(&[0xC0, 0]).await;
        assert_eq!(newer.packet().await, Some((0xD0, Vec::new())));
    }
}

/// [MQTT-3.1.2-8] [MQTT-3.14.4-3] and 3.1.1 [MQTT-3.1.2-8] [MQTT-3.14.4-3]: a socket that ends without DISCONNECT.
#[tokio::test]
async fn a_will_comes_when_the_socket_ends_and_not_after_disconnect() {
    let gateway = Gateway::start(3).await;
    let mut watcher = connected(&gateway, 4, "watcher").await;
    watcher.write(&subscribe_packet(4, "will/#", 0)).await;
    assert_eq!(watcher.packet().await.unwrap().0, 0x90);
    for (topic, last) in [("will/said", &[0xE0, 0][..]), ("will/lost", &[]), ("will/wrong", &[0, 0])] {
        let mut client = RawClient::open(&gateway, &connect_packet_with_will("peer", topic, "gone")).await;
        assert_eq!(client.packet().await.unwrap().0, 0x20);
        client.write(last).await;
        client.stream.shutdown().await.unwrap();
        client.rest().await;
    }
    for topic in ["will/lost", "will/wrong"] {
        let body = [&[0, topic.len() as u8], topic.as_bytes(), b"gone"].concat();
        assert_eq!(watcher.packet().await, Some((0x30, body)));
    }
}

/// [MQTT-4.2.0-1] and 3.1.1 [MQTT-7.1.1-1]: of a TCP connection, however its bytes are cut.
#[tokio::test]
async fn packets_are_the_same_however_tcp_cuts_them() {
    // One shard: among several, the SUBACK waits for the others and may come later.
    let gateway = Gateway::start(1).await;
    for version in [5, 4] {
        let all = [
            connect_packet(version, "peer", 0),
            subscribe_packet(version, "a", 0),
            vec![0xC0, 0],
            publish_packet(version, "a", &[b'x'; 200]),
            vec![0xE0, 0],
        ]
        .concat();
        let whole = RawClient::open(&gateway, &all).await.rest().await;
        assert!(whole.len() > 200, "{whole:x?}");
        for size in [1, 2, 3, 7, 100] {
            let mut client = RawClient::open(&gateway, b"").await;
            client.stream.set_nodelay(true).unwrap();
            for piece in all.chunks(size) {
                client.write(piece).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(client.rest().await, whole, "in pieces of {size}");
        }
    }
}

/// [MQTT-6.0.0-3] [MQTT-6.0.0-4] and 3.1.1 [MQTT-6.0.0-3] [MQTT-6.0.0-4]: `mqtt` is chosen, wherever it stands in the
/// offer.
#[tokio::test]
async fn the_subprotocol_of_a_websocket_is_mqtt() {
    let gateway = Gateway::start(1).await;
    for offer in ["mqtt", "mqttv3.1, mqtt", "chat,mqtt"] {
        let mut stream = gateway.connect().await;
        let mut request =
            websocket_request("/mqtt", &format!("Sec-WebSocket-Protocol: {offer}\r\n")).into_bytes();
        request.extend(websocket_frame(true, BINARY, &connect_packet(4, "peer", 0)));
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n\x82\x04\x20\x02\x00\x00") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{offer}: {answer:?}");
        }
        let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let chosen: Vec<_> =
            head.lines().filter_map(|line| line.strip_prefix("sec-websocket-protocol: ")).collect();
        assert_eq!(chosen, ["mqtt"], "{offer}");
    }
    let mut socket = WebSocket::open(gateway.connect().await).await;
    socket.send(BINARY, &connect_packet(5, "peer", 0)).await;
    assert_eq!(socket.data(1).await[0], 0x20);
}
