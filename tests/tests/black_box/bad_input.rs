//! Bytes that no client should send: each has its answer and its counter, and no effect on anyone else.

use bugle_device::{Reason, Target};
use bugle_protocol::{Frame, split};
use bugle_tests::{
    Device, Gateway, RawClient, Setup, connect_packet, device_hello, disconnect_reason, publish_packet,
    subscribe_packet,
};

/// Two devices that go on talking whatever happens beside them.
struct Bystanders {
    panel: Device,
    lamp: Device,
    said: u32,
}

impl Bystanders {
    async fn new(gateway: &Gateway) -> Self {
        let panel = Device::connect(gateway, "panel").await;
        Self { panel, lamp: Device::member(gateway, "lamp", "floor").await, said: 0 }
    }

    async fn are_well(&mut self) {
        self.said += 1;
        let text = self.said.to_string();
        assert_eq!(self.panel.send(Target::group("floor"), &text).await.unwrap()["lamp"], "DELIVERED");
        assert_eq!(self.lamp.text().await, text);
    }
}

/// Reasons of BYE frames in what a gateway said.
fn byes(bytes: &[u8]) -> Vec<Reason> {
    let mut rest = bytes;
    let mut reasons = Vec::new();
    while let Ok(Some(raw)) = split(rest, usize::MAX) {
        if let Ok(Frame::Bye { reason, .. }) = raw.decode() {
            reasons.push(reason);
        }
        rest = &rest[raw.length..];
    }
    reasons
}

fn refused(reason: &str) -> String {
    format!("bugle_refused_total{{reason=\"{reason}\"}}")
}

fn closed_early(reason: &str) -> String {
    format!("bugle_connections_closed_early_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn what_is_neither_mqtt_nor_a_device_is_closed_and_counted() {
    let gateway = Gateway::start(2).await;
    let mut bystanders = Bystanders::new(&gateway).await;
    let others: [&[u8]; 4] = [
        b"\0",
        b"\xff\xff\xff\xff",
        b"\x15\x03\x01\x00\x02\x02\x28",
        &publish_packet(4, "a", b"before CONNECT"),
    ];
    for (index, bytes) in others.iter().enumerate() {
        assert_eq!(RawClient::open(&gateway, bytes).await.rest().await, b"", "{bytes:x?}");
        gateway.wait_metric(&closed_early("unknown_protocol"), |count| count == index as u64 + 1).await;
        bystanders.are_well().await;
    }
}

#[tokio::test]
async fn half_a_first_packet_is_closed_at_the_deadline() {
    let gateway = Setup::shards(2).config("[limits]\nconnect_timeout_ms = 200").start().await;
    let mut bystanders = Bystanders::new(&gateway).await;
    let (connect, hello) = (connect_packet(5, "half", 0), device_hello("half", 0));
    let mut half = [
        RawClient::open(&gateway, b"").await,
        RawClient::open(&gateway, &connect[..1]).await,
        RawClient::open(&gateway, &connect[..10]).await,
        RawClient::open(&gateway, &hello[..1]).await,
        RawClient::open(&gateway, &hello[..hello.len() - 1]).await,
    ];
    bystanders.are_well().await;
    for client in &mut half {
        client.rest().await;
    }
    gateway.wait_metric(&closed_early("timeout"), |count| count == half.len() as u64).await;
    bystanders.are_well().await;
}

#[tokio::test]
async fn a_first_packet_that_comes_byte_by_byte_is_taken() {
    let gateway = Gateway::start(2).await;
    let mut client = RawClient::open(&gateway, b"").await;
    for byte in connect_packet(5, "slow", 0) {
        client.write(&[byte]).await;
    }
    assert_eq!(client.packet().await.map(|packet| (packet.0, packet.1[1])), Some((0x20, 0)));
}

#[tokio::test]
async fn mqtt_3_1_0_2_a_second_connect_ends_the_connection() {
    let gateway = Gateway::start(1).await;
    let mut bystanders = Bystanders::new(&gateway).await;
    for (version, reason) in [(5, Some(0x82)), (4, None)] {
        let connect = connect_packet(version, "twice", 0);
        let mut client = RawClient::open(&gateway, &[&*connect, &connect].concat()).await;
        assert_eq!(client.packet().await.unwrap().0, 0x20);
        let last = client.packet().await;
        assert_eq!(disconnect_reason(&last), reason);
        assert_eq!(client.packet().await, None);
    }
    assert_eq!(gateway.metric(&refused("PROTOCOL_ERROR")).await, 2);
    bystanders.are_well().await;
}

#[tokio::test]
async fn an_unknown_version_is_answered_by_its_name() {
    let gateway = Gateway::start(1).await;
    let mut bystanders = Bystanders::new(&gateway).await;
    let mut six = connect_packet(5, "six", 0);
    six[8] = 6;
    let mut client = RawClient::open(&gateway, &six).await;
    let answer = client.packet().await.unwrap();
    assert_eq!((answer.0, answer.1[1]), (0x20, 0x84), "unsupported protocol version");
    assert_eq!(client.packet().await, None);
    let mut two = device_hello("two", 0);
    two[4] = 2;
    let mut client = RawClient::open(&gateway, &two).await;
    assert_eq!(byes(&client.rest().await), [Reason::UnsupportedVersion]);
    assert_eq!(gateway.metric(&refused("UNSUPPORTED_VERSION")).await, 2);
    bystanders.are_well().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_as_soon_as_its_length_is_read() {
    let gateway = Setup::shards(2).config("[limits]\nmax_packet_bytes = 16384").start().await;
    let mut bystanders = Bystanders::new(&gateway).await;
    let mut client = RawClient::open(&gateway, &connect_packet(5, "big", 0)).await;
    assert_eq!(client.packet().await.unwrap().0, 0x20);
    client.write(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).await;
    assert_eq!(disconnect_reason(&client.packet().await), Some(0x95), "packet too large");
    assert_eq!(client.packet().await, None);

    // SEND with a body of 32769 bytes, of which none comes.
    let mut client = RawClient::open(&gateway, &device_hello("big", 0)).await;
    client.write(&[0x13, 0x81, 0x80, 0x02]).await;
    assert_eq!(byes(&client.rest().await), [Reason::FrameTooLarge]);

    for first in [&[0x10, 0xFF, 0xFF, 0xFF, 0x7F][..], &[0x0B, 0x81, 0x80, 0x02]] {
        RawClient::open(&gateway, first).await.rest().await;
    }
    bystanders.are_well().await;
}

#[tokio::test]
async fn malformed_packets_end_the_connection_that_brought_them() {
    let gateway = Gateway::start(2).await;
    let mut bystanders = Bystanders::new(&gateway).await;
    let mut bad_utf8 = publish_packet(5, "home/x", b"on");
    bad_utf8[4] = 0xFF;
    let mut bad_qos = publish_packet(5, "home", b"on");
    bad_qos[0] = 0x36;
    let mut bad_filter = subscribe_packet(5, "home/#/x", 0);
    bad_filter[0] = 0x82;
    for (bytes, reason) in [
        (bad_utf8, 0x81),
        (bad_qos, 0x81),
        (vec![0xF0, 0x05, 0xFF, 0, 0, 0, 0], 0x81),
        (vec![0x00, 0x00], 0x81),
        (vec![0xC0, 0x80, 0x80, 0x80, 0x80, 0x01], 0x81),
        (bad_filter, 0x8F),
    ] {
        let mut client = RawClient::open(&gateway, &connect_packet(5, "bad", 0)).await;
        assert_eq!(client.packet().await.unwrap().0, 0x20);
        client.write(&bytes).await;
        let answer = client.packet().await;
        let code = disconnect_reason(&answer);
        assert!(
            code.is_some_and(|code| code == reason || matches!(code, 0x81 | 0x82)),
            "{bytes:x?}: {answer:x?}"
        );
        assert_eq!(client.packet().await, None);
        bystanders.are_well().await;
    }
    for frame in [&[0x13, 0x01, 0xFF][..], &[0x06, 0x00], &[0x0B, 0x00], &[0x03, 0x01, 0x7F]] {
        let mut client = RawClient::open(&gateway, &device_hello("bad", 0)).await;
        client.write(frame).await;
        // A malformed numbered frame is refused; the others end the connection.
        client.write(&[0x04, 0x01, 0x0C]).await;
        client.rest().await;
        bystanders.are_well().await;
    }
    assert!(gateway.metric(&refused("MALFORMED")).await > 0);
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn s1_an_id_that_cannot_be_addressed_may_not_send_signals_and_has_plain_mqtt() {
    let gateway = Gateway::start(2).await;
    let mut client = RawClient::open(&gateway, &connect_packet(5, "not a client id", 0)).await;
    assert_eq!(client.packet().await.map(|packet| packet.1[1]), Some(0));
    client.write(&subscribe_packet(5, "home/#", 0)).await;
    assert_eq!(client.packet().await.unwrap().0, 0x90);
    client.write(&publish_packet(5, "sig/g/floor", b"on")).await;
    client.write(&publish_packet(5, "home/x", b"on")).await;
    assert_eq!(client.packet().await.unwrap().0, 0x30);
    assert_eq!(gateway.metric(&refused("NOT_AUTHORIZED")).await, 1);
}

#[tokio::test]
async fn a_thousand_connections_of_garbage_leave_nothing_behind() {
    let gateway = Gateway::start(2).await;
    let mut bystanders = Bystanders::new(&gateway).await;
    // A generator with a seed of its own: the same garbage in every run.
    let mut state = 0x5EED_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for number in 0..1000u32 {
        let start = match number % 4 {
            0 => connect_packet(5, "garbage", 0),
            1 => connect_packet(4, "garbage", 0),
            2 => device_hello("garbage", 0),
            _ => vec![if number % 8 == 3 { 0x10 } else { 0x0B }],
        };
        let garbage: Vec<u8> = (0..=random()).map(|_| random()).collect();
        let mut client = RawClient::open(&gateway, &[start, garbage].concat()).await;
        if number % 100 == 0 {
            bystanders.are_well().await;
        }
        // Half of them leave without a word, the others hear the gateway out.
        if number % 2 == 0 {
            tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.ok();
            client.rest().await;
        }
    }
    bystanders.are_well().await;
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
    gateway.wait_metric("bugle_clients", |count| count == 2).await;
}
