//! A client that never reads: its mailbox is bounded, the sender hears of it, and nobody else does.

use bugle_device::{SendOptions, Target};
use bugle_tests::{Device, RawClient, Setup, connect_packet, device_hello, soon, subscribe_packet};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;

/// A flood that no kernel buffer takes.
const FLOOD: usize = 3000;
/// What the process may grow by, in KiB: mailbox and kernel-sized slack, not the flood of 24 MB twice over.
const GROWTH: u64 = 64 * 1024;

/// A socket that takes little while nobody reads from it.
async fn small_socket(port: u16) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    RawClient::on(soon("a connection", socket.connect(([127, 0, 0, 1], port).into())).await.unwrap())
}

async fn floods(slow_is_device: bool, qos: u8, shards: u16) {
    let setup =
        Setup::shards(shards).config("[limits]\nsignals_per_second = 100000\nreceipt_timeout_ms = 2000");
    let gateway = setup.start().await;
    let panel = Device::connect(&gateway, "panel").await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut slow = small_socket(gateway.port).await;
    if slow_is_device {
        slow.write(&device_hello("slow", 0)).await;
        // NAME 1 is the group "floor"; JOIN it.
        slow.write(b"\x10\x07\x01\x02floor\x11\x01\x01").await;
    } else {
        slow.write(&connect_packet(5, "slow", 0)).await;
        slow.write(&subscribe_packet(5, "sig/g/floor", qos)).await;
        assert_eq!(slow.packet().await.unwrap().0, 0x20);
        assert_eq!(slow.packet().await.unwrap().0, 0x90);
    }
    // Its interest is known everywhere before its SUBACK; for the device, once a send finds it.
    while !panel.send(Target::group("floor").only(&["slow"]), "x").await.unwrap().contains_key("slow") {}

    let payload = vec![b'x'; 8192];
    let before = gateway.resident();
    let mut sent = 0;
    let mut overflowed = false;
    while !overflowed {
        sent += 1;
        assert!(sent <= FLOOD, "no OVERFLOW after {FLOOD} signals");
        // The receipt of what waits in the slow one's mailbox would take its time.
        let options = SendOptions {
            ttl: Some(60_000),
            receipt: bugle_device::ReceiptMode::Each,
            ..SendOptions::default()
        };
        let mut sending = loop {
            match panel.client.try_send(Target::group("floor"), &payload, &options) {
                Ok(sending) => break sending,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        soon("the acknowledgement", sending.accepted()).await.unwrap();
        assert_eq!(lamp.text().await.len(), payload.len(), "who reads gets everything");
        let counted = gateway.metric("bugle_recipients_total{status=\"OVERFLOW\"}").await;
        if counted > 0 {
            let mut statuses = std::collections::BTreeMap::new();
            let note = |id: &str, status: bugle_device::Status| {
                statuses.insert(id.to_owned(), status.name());
            };
            soon("the receipt", sending.receipt(note)).await.unwrap();
            assert_eq!(statuses["slow"], "OVERFLOW");
            assert_eq!(statuses["lamp"], "DELIVERED");
            overflowed = true;
        }
    }
    // It goes on, and memory doesn't.
    for _ in 0..200 {
        let outcome =
            panel.send_with(Target::group("floor"), &payload, &SendOptions::default()).await.unwrap();
        assert_eq!((outcome["slow"], outcome["lamp"]), ("OVERFLOW", "DELIVERED"));
        lamp.text().await;
    }
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB more after {sent} signals");
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn s8_an_app_at_qos_0_that_never_reads_overflows_and_delays_nobody() {
    floods(false, 0, 1).await;
}

#[tokio::test]
async fn s8_an_app_at_qos_1_that_never_reads_overflows_and_delays_nobody() {
    floods(false, 1, 3).await;
}

#[tokio::test]
async fn s8_a_device_that_never_reads_overflows_and_delays_nobody() {
    floods(true, 1, 3).await;
}
