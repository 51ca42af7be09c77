//! MQTT in a WebSocket: however its bytes are cut into frames, what is refused by which code, and pages in a browser.

use bugle_device::Target;
use bugle_tests::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WebSocket, websocket_frame, websocket_request,
};
use bugle_tests::{
    App, Authority, Browser, Device, Gateway, Setup, Tls, Version, connect_packet, connect_packet_with_will,
    device_hello, disconnect_reason, foreign, publish_packet, soon, subscribe_packet, tls,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn closed_early(reason: &str) -> String {
    format!("bugle_connections_closed_early_total{{reason=\"{reason}\"}}")
}

/// Connected, with what the gateway answered read.
async fn connected(gateway: &Gateway, id: &str) -> WebSocket<TcpStream> {
    let mut socket = WebSocket::open(gateway.connect().await).await;
    socket.send(BINARY, &connect_packet(5, id, 0)).await;
    assert_eq!(socket.data(1).await[0], 0x20);
    socket
}

/// [MQTT-4.2.0-1] [MQTT-6.0.0-2] and 3.1.1 [MQTT-6.0.0-2] [MQTT-7.1.1-1]
#[tokio::test]
async fn packets_may_be_cut_and_joined_anywhere() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let packets = [
        connect_packet(4, "app", 0),
        publish_packet(4, "sig/g/floor", b"on"),
        b"\xC0\x00".to_vec(),
        subscribe_packet(4, "sig/g/floor", 0),
    ]
    .concat();
    // CONNACK, PINGRESP and SUBACK.
    let answers = [b"\x20\x02\x00\x00".as_slice(), b"\xD0\x00", b"\x90\x03\x00\x01\x00"].concat();
    let mut ways: Vec<Vec<Vec<u8>>> = Vec::new();
    // All in one message; in two, cut at each place; in two frames of one message, with a ping between; byte by byte.
    ways.push(vec![websocket_frame(true, BINARY, &packets)]);
    for cut in 1..packets.len() {
        let (one, two) = packets.split_at(cut);
        ways.push(vec![websocket_frame(true, BINARY, one), websocket_frame(true, BINARY, two)]);
        if cut % 7 == 0 {
            ways.push(vec![
                websocket_frame(false, BINARY, one),
                websocket_frame(true, PING, b"now?"),
                websocket_frame(true, CONTINUATION, two),
            ]);
        }
    }
    ways.push(packets.iter().map(|byte| websocket_frame(true, BINARY, &[*byte])).collect());
    for frames in ways {
        let mut socket = WebSocket::open(gateway.connect().await).await;
        for frame in &frames {
            socket.write(frame).await;
        }
        let (mut data, mut pongs) = (Vec::new(), 0);
        while data.len() < answers.len() {
            match socket.frame().await {
                Some((BINARY, body)) => data.extend(body),
                Some((PONG, body)) => {
                    assert_eq!(body, b"now?");
                    pongs += 1;
                }
                other => panic!("{other:?} after {data:x?}"),
            }
        }
        assert_eq!(data, answers);
        assert_eq!(pongs, usize::from(frames.len() == 3));
        assert_eq!(lamp.text().await, "on");
    }
    // The frames themselves, cut at each place.
    let frames =
        [websocket_frame(true, BINARY, &packets[..5]), websocket_frame(true, BINARY, &packets[5..])].concat();
    for cut in 1..frames.len() {
        let mut socket = WebSocket::open(gateway.connect().await).await;
        socket.write(&frames[..cut]).await;
        socket.write(&frames[cut..]).await;
        assert_eq!(socket.data(answers.len()).await, answers);
        assert_eq!(lamp.text().await, "on");
    }
}

#[tokio::test]
async fn the_first_packet_may_come_with_the_request() {
    let gateway = Gateway::start(1).await;
    let mut stream = gateway.connect().await;
    let mut bytes = websocket_request("/", "Sec-WebSocket-Protocol: mqtt\r\n").into_bytes();
    bytes.extend(websocket_frame(true, BINARY, &connect_packet(4, "app", 0)));
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\x82\x04\x20\x02\x00\x00") {
        assert!(soon("the CONNACK", stream.read_buf(&mut answer)).await.unwrap() > 0, "{answer:?}");
    }
}

/// [MQTT-6.0.0-1] and 3.1.1 [MQTT-6.0.0-1]: a text frame is closed with 1003.
#[tokio::test]
async fn what_breaks_the_rules_is_closed_with_its_code_and_counted() {
    let gateway = Setup::shards(2).config("[limits]\nmax_packet_bytes = 20000").start().await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let unmasked = b"\x82\x02\xC0\x00".to_vec();
    let cases = [
        ("text", 1003, websocket_frame(true, TEXT, b"\xC0\x00")),
        ("protocol", 1002, unmasked),
        ("protocol", 1002, websocket_frame(true, CONTINUATION, b"\xC0\x00")),
        ("protocol", 1002, websocket_frame(true, 3, b"\xC0\x00")),
        ("protocol", 1002, websocket_frame(false, PING, b"")),
        ("protocol", 1002, websocket_frame(true, PING, &[0; 126])),
        // Refused by its header: the body never comes.
        ("too_large", 1009, websocket_frame(true, BINARY, &[0; 20_001])[..8].to_vec()),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (reason, code, bytes) in cases {
        // As first bytes, and within a session.
        let mut before = WebSocket::open(gateway.connect().await).await;
        let mut within = connected(&gateway, "app").await;
        for socket in [&mut before, &mut within] {
            socket.write(&bytes).await;
            assert_eq!(socket.close_code().await, Some(code), "{bytes:x?}");
        }
        let count = counts.entry(reason).or_insert(0);
        *count += 2;
        let name = format!("bugle_websocket_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&name).await, *count, "{name}");
    }
    assert_eq!(gateway.metric(&closed_early("websocket")).await, 7);
    // As large as it may be.
    let mut socket = connected(&gateway, "app").await;
    socket
        .send(BINARY, &[publish_packet(5, "a", &[0; 19_990]), b"\xC0\x00".to_vec()].concat()[..20_000])
        .await;
    socket.send(BINARY, b"\x00").await;
    let panel = Device::connect(&gateway, "panel").await;
    assert_eq!(panel.send(Target::group("floor"), "well").await.unwrap()["lamp"], "DELIVERED");
    assert_eq!(lamp.text().await, "well");
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn only_mqtt_is_within_a_websocket() {
    let gateway = Gateway::start(1).await;
    let request = websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    let hello = device_hello("lamp", 0);
    for (index, bytes) in [hello.as_slice(), request.as_bytes(), b"\x16\x03\x01\x02\x00"].iter().enumerate() {
        let mut socket = WebSocket::open(gateway.connect().await).await;
        socket.send(BINARY, bytes).await;
        assert_eq!(socket.close_code().await, Some(1008));
        gateway.wait_metric(&closed_early("unknown_protocol"), |count| count == index as u64 + 1).await;
    }
}

#[tokio::test]
async fn closing_is_answered_and_is_no_disconnect() {
    let gateway = Gateway::start(2).await;
    let mut watcher = App::member(&gateway, Version::V5, "watcher", "floor").await;
    let mut socket = WebSocket::open(gateway.connect().await).await;
    socket.send(BINARY, &connect_packet_with_will("app", "sig/g/floor", "gone")).await;
    assert_eq!(socket.data(4).await, b"\x20\x02\x00\x00");
    socket.send(PING, b"").await;
    assert_eq!(socket.frame().await, Some((PONG, Vec::new())));
    socket.send(CLOSE, &[&1001_u16.to_be_bytes(), b"leaving".as_slice()].concat()).await;
    assert_eq!(socket.close_code().await, Some(1001));
    assert_eq!(watcher.message("sig/g/floor").await.text, "gone");

    let mut socket = connected(&gateway, "app").await;
    socket.send(BINARY, b"\xE0\x00").await;
    assert_eq!(socket.close_code().await, Some(1000), "after DISCONNECT");
    gateway.wait_metric("bugle_transports_open{transport=\"websocket\"}", |count| count == 0).await;
}

#[tokio::test]
async fn when_the_gateway_stops_the_close_says_so() {
    let gateway = Gateway::start(1).await;
    let mut socket = connected(&gateway, "app").await;
    gateway.terminate().await;
    let (opcode, body) = socket.frame().await.unwrap();
    assert_eq!(opcode, BINARY);
    assert_eq!(disconnect_reason(&Some((body[0], body[2..].to_vec()))), Some(0x8B));
    assert_eq!(socket.close_code().await, Some(1001));
    drop(socket);
    gateway.finish().await.expect(0);
}

/// The whole answer to a request.
async fn answer(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// [MQTT-6.0.0-3] and 3.1.1 [MQTT-6.0.0-3]: who offers no `mqtt` is refused.
#[tokio::test]
async fn other_requests_are_answered_with_what_to_do() {
    let gateway = Gateway::start(1).await;
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let foreign = format!("{mqtt}Origin: https://evil.example\r\n");
    let long = format!("GET /mqtt HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(9000));
    let cases = [
        ("not_upgrade", "426", "mqtt://", "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("not_found", "404", "admin port", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("not_found", "404", "/mqtt", websocket_request("/chat", mqtt)),
        ("method", "405", "GET", "POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".to_owned()),
        ("subprotocol", "400", "subprotocol mqtt", websocket_request("/mqtt", "")),
        ("origin", "403", "origins", websocket_request("/mqtt", &foreign)),
        ("head_too_large", "431", "8 KiB", long),
        ("malformed", "400", "HTTP/1.1", "SSH-2.0-OpenSSH_9\r\n".to_owned()),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (reason, status, hint, request) in cases {
        let told = answer(gateway.connect().await, &request).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")) && told.contains(hint), "{request}: {told}");
        let count = counts.entry(reason).or_insert(0);
        *count += 1;
        let name = format!("bugle_websockets_refused_total{{reason=\"{reason}\"}}");
        gateway.wait_metric(&name, |counted| counted == *count).await;
    }
    gateway.wait_metric(&closed_early("no_websocket"), |count| count == 8).await;
}

#[tokio::test]
async fn where_credentials_are_needed_pages_of_any_origin_may_try() {
    let credential = "rules_default = 'allow'\n[[credential]]\nid = 'app'\nsecret = 'opensesame'";
    let gateway = Setup::shards(1).config(credential).start().await;
    let fields = "Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://app.example\r\n";
    let mut stream = gateway.connect().await;
    stream.write_all(websocket_request("/mqtt", fields).as_bytes()).await.unwrap();
    let mut line = String::new();
    soon("the answer", BufReader::new(stream).read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 101 "), "{line}");
}

#[tokio::test]
async fn the_admin_port_has_the_same_websocket() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut socket = WebSocket::open(TcpStream::connect(gateway.admin).await.unwrap()).await;
    socket.send(BINARY, &connect_packet(4, "page", 0)).await;
    assert_eq!(socket.data(4).await, b"\x20\x02\x00\x00");
    socket.send(BINARY, &publish_packet(4, "sig/g/floor", b"from the admin port")).await;
    assert_eq!(lamp.text().await, "from the admin port");
    socket.send(TEXT, b"no").await;
    assert_eq!(socket.close_code().await, Some(1003));

    let connect = || TcpStream::connect(gateway.admin);
    let request = "GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let told = answer(connect().await.unwrap(), request).await;
    assert!(told.starts_with("HTTP/1.1 426 ") && told.contains("mqtt"), "{told}");
    let fields = "Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://evil.example\r\n";
    let request =
        websocket_request("/mqtt", fields).replace("Connection: Upgrade", "Connection: Upgrade, close");
    let told = answer(connect().await.unwrap(), &request).await;
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    for reason in ["not_upgrade", "origin"] {
        assert_eq!(
            gateway.metric(&format!("bugle_websockets_refused_total{{reason=\"{reason}\"}}")).await,
            1
        );
    }
}

#[tokio::test]
async fn large_messages_go_both_ways_within_tls_too() {
    let authority = Authority::new();
    let section = authority.sign("server", &["localhost"]).section();
    let gateway = Setup::shards(2).config(&section).start().await;
    let mut plain = WebSocket::open(gateway.connect().await).await;
    let mut secure = WebSocket::open(tls(&gateway, authority.client(Tls::V13)).await.unwrap()).await;
    for (socket, id) in [(&mut plain as &mut dyn Packets, "plain"), (&mut secure, "secure")] {
        socket.give(connect_packet(4, id, 0)).await;
        socket.give(subscribe_packet(4, "large", 0)).await;
        assert_eq!(socket.take(9).await, b"\x20\x02\x00\x00\x90\x03\x00\x01\x00");
    }
    for length in [1, 117, 118, 65_535, 65_536, 1_000_000] {
        let packet = publish_packet(4, "large", &vec![0x5A; length]);
        plain.give(packet.clone()).await;
        assert!(plain.take(packet.len()).await == packet && secure.take(packet.len()).await == packet);
        secure.give(packet.clone()).await;
        assert!(plain.take(packet.len()).await == packet && secure.take(packet.len()).await == packet);
    }
}

/// A WebSocket over whatever, in whole messages.
trait Packets {
    fn give(&mut self, packet: Vec<u8>) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
    fn take(&mut self, length: usize) -> std::pin::Pin<Box<dyn Future<Output = Vec<u8>> + '_>>;
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Packets for WebSocket<S> {
    fn give(&mut self, packet: Vec<u8>) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move { self.send(BINARY, &packet).await })
    }

    fn take(&mut self, length: usize) -> std::pin::Pin<Box<dyn Future<Output = Vec<u8>> + '_>> {
        Box::pin(self.data(length))
    }
}

#[tokio::test]
async fn a_page_in_chromium_with_mqtt_js_of_node_joins_sends_and_receives() {
    let gateway = Gateway::start(2).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let page = include_str!("page.html").replace("PORT", &gateway.port.to_string());
    let script = std::fs::read(foreign("node/node_modules/mqtt/dist/mqtt.min.js")).unwrap();
    let mut browser = Browser::show(
        "/",
        vec![("/", "text/html", page.into_bytes()), ("/mqtt.js", "text/javascript", script)],
    )
    .await;
    let mut next = async |what: &str| {
        let text = browser.told().await;
        text.strip_prefix(what).unwrap_or_else(|| panic!("{text} instead of {what}")).to_owned()
    };
    assert_eq!(next("connected").await, "");
    assert_eq!(next("joined").await, "");
    // The page has sent to the group.
    assert_eq!(lamp.text().await, "from a page");
    let receipt: serde_json::Value = serde_json::from_str(&next("receipt ").await).unwrap();
    assert_eq!(receipt["counts"]["delivered"], 1, "{receipt}");
    assert_eq!(receipt["statuses"]["lamp"], "DELIVERED", "{receipt}");
    // And hears what comes to it.
    let outcome = lamp.send(Target::group("floor"), "for the page").await.unwrap();
    assert_eq!(outcome["page"], "DELIVERED");
    assert_eq!(next("signal ").await, "for the page");
    assert_eq!(gateway.metric("bugle_transports_open{transport=\"websocket\"}").await, 1);
    drop(browser);
    gateway.wait_metric("bugle_transports_open{transport=\"websocket\"}", |count| count == 0).await;
}
