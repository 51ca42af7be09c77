//! The gateway by its name, from the DNS.

use bugle_tests::{App, Core, Firmware, Gateway, Version};
use tokio::net::UdpSocket;

/// Answers each question for `gateway.test` with the host as QEMU's guests see it, others with "no such name".
async fn answer(socket: UdpSocket) {
    let mut bytes = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        let question = &bytes[12..length];
        let is_known = question.starts_with(b"\x07gateway\x04test\0");
        // Its number; a response, recursion wanted and available, and perhaps name error; one question, perhaps one answer.
        let mut reply = [bytes[0], bytes[1], 0x81, if is_known { 0x80 } else { 0x83 }].to_vec();
        reply.extend_from_slice(&[0, 1, 0, is_known.into(), 0, 0, 0, 0]);
        reply.extend_from_slice(question);
        if is_known {
            // The name of the question, type A, class IN, a minute, four bytes.
            reply.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 2, 2]);
        }
        socket.send_to(&reply, from).await.unwrap();
    }
}

/// Where port 53 of the loopback can't be had, which takes root, nothing is tested: a board has no other port to ask.
#[tokio::test]
async fn qemu_a_board_finds_its_gateway_by_name_and_says_where_there_is_none() {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:53").await else {
        return eprintln!("port 53 can't be had: not tested");
    };
    let server = tokio::spawn(answer(socket));
    let gateway = Gateway::start(1).await;
    let network = ["address=10.0.2.15", "dns=10.0.2.2"];
    let mut board =
        Firmware::member(&gateway, "board", "floor", &["gateway=gateway.test", network[0], network[1]]).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(board.send("g/floor hello").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "hello");

    let settings = ["gateway=nowhere.test", network[0], network[1]];
    let mut lost = Firmware::boot(&gateway, Core::M3, "exercise", "lost", &settings).await;
    lost.line("cannot connect: NoAddress").await;
    server.abort();
}
