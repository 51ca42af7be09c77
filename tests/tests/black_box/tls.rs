//! TLS on the port that everything else is on: who gets in through it, and what those who don't are told.

use std::io::Write;
use std::sync::Arc;

use bugle_device::{Disconnect, Reason, SendOptions, Target};
use bugle_tests::websocket::{BINARY, WebSocket};
use bugle_tests::{
    App, Authority, Certificate, Device, Gateway, Program, RawClient, Setup, Tls, Version, Way, config,
    connect_packet, disconnect_reason, mosquitto_pub, mqtt_packet, publish_packet, soon, subscribe_packet,
    tls, tls_on,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::rustls::ClientConfig;

/// A gateway with a certificate for `localhost` and 127.0.0.1, of two shards.
async fn gateway(authority: &Authority) -> Gateway {
    setup(authority).start().await
}

fn setup(authority: &Authority) -> Setup {
    Setup::shards(2).config(&authority.sign("server", &["localhost", "127.0.0.1"]).section())
}

fn failures(reason: &str) -> String {
    format!("bugle_tls_failures_total{{reason=\"{reason}\"}}")
}

fn closed_early(reason: &str) -> String {
    format!("bugle_connections_closed_early_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn every_way_in_leads_to_the_same_group() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut devices = Vec::new();
    devices.push(Device::member(&gateway, "device-tcp", "floor").await);
    for (id, version) in [("device-tls12", Tls::V12), ("device-tls13", Tls::V13)] {
        let stream = tls(&gateway, authority.client(version)).await.unwrap();
        let device = Device::connect_on(stream, config(id, "")).await.unwrap();
        soon("the join", device.client.join("floor")).await.unwrap();
        devices.push(device);
    }
    let mut apps = Vec::new();
    let client = |version| Arc::new(authority.client(version));
    for (id, version, way) in [
        ("app-tcp", Version::V311, Way::Tcp),
        ("app-tls12", Version::V311, Way::Tls(client(Tls::V12))),
        ("app-tls13", Version::V5, Way::Tls(client(Tls::V13))),
        ("app-ws", Version::V311, Way::WebSocket),
        ("app-ws5", Version::V5, Way::WebSocket),
        ("app-wss12", Version::V5, Way::SecureWebSocket(client(Tls::V12))),
        ("app-wss13", Version::V311, Way::SecureWebSocket(client(Tls::V13))),
    ] {
        let mut app = App::connect_by(&gateway, version, id, None, way).await.unwrap();
        assert_eq!(app.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"]);
        apps.push(app);
    }

    // From each kind to all.
    let options = SendOptions { echo: true, ..SendOptions::default() };
    let outcome = devices[2].send_with(Target::group("floor"), b"from a device", &options).await.unwrap();
    assert_eq!(outcome.len(), 10);
    assert!(outcome.values().all(|status| *status == "DELIVERED"), "{outcome:?}");
    for index in [2, 4, 6] {
        let sent = apps[index].publish("sig/g/floor?echo=1", format!("from app {index}")).await;
        assert_eq!(sent.reason, "Success");
    }
    let expected = ["from a device", "from app 2", "from app 4", "from app 6"];
    for device in &mut devices {
        for text in expected {
            assert_eq!(device.text().await, text);
        }
    }
    for app in &mut apps {
        let mut texts = Vec::new();
        while texts.len() < expected.len() {
            texts.push(app.message("sig/g/floor").await.text);
        }
        assert_eq!(texts, expected);
    }

    for (transport, count) in [("tcp", 2), ("tls", 4), ("websocket", 2), ("wss", 2)] {
        let name = format!("bugle_connections_taken_over_total{{transport=\"{transport}\"}}");
        assert_eq!(gateway.metric(&name).await, count, "{transport}");
    }
    assert_eq!(gateway.metric("bugle_transports_open{transport=\"wss\"}").await, 2);
    apps.clear();
    devices.clear();
    for transport in ["tls", "websocket", "wss"] {
        let name = format!("bugle_transports_open{{transport=\"{transport}\"}}");
        gateway.wait_metric(&name, |count| count == 0).await;
    }
}

/// mosquitto's own option names the least version; OpenSSL's configuration names the most.
async fn mosquitto_over(version: &str) {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let file = authority.pem().with_file_name("openssl.cnf");
    let number = version.trim_start_matches("tlsv");
    let section = format!("[tls]\nMinProtocol = TLSv{number}\nMaxProtocol = TLSv{number}\n");
    let head = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n";
    std::fs::write(&file, format!("{head}{section}")).unwrap();
    let command = |program: &str, arguments: &[&str]| {
        let mut command = tokio::process::Command::new("stdbuf");
        let (port, ca) = (gateway.port.to_string(), authority.pem().display().to_string());
        command.args([
            "-oL",
            program,
            "-h",
            "localhost",
            "-p",
            &port,
            "--cafile",
            &ca,
            "--tls-version",
            version,
        ]);
        command.args(["--tls-alpn", "mqtt"]).args(arguments).env("OPENSSL_CONF", &file);
        Program::spawn(command)
    };
    let mut sub =
        command("mosquitto_sub", &["-d", "-i", "sub", "-q", "1", "-t", "sig/g/floor", "-F", "got %p"]);
    sub.line("Subscribed (mid").await;
    let large = "x".repeat(8000);
    for payload in ["on", &large] {
        let sent = command("mosquitto_pub", &["-i", "pub", "-q", "1", "-t", "sig/g/floor", "-m", payload]);
        sent.finish().await.expect(0);
        assert!(sub.line("got ").await.ends_with(payload));
        assert_eq!(lamp.text().await, payload);
    }
    // The other version isn't meant: the gateway has both.
    let taken = gateway.metric("bugle_connections_taken_over_total{transport=\"tls\"}").await;
    assert_eq!(taken, 3);
}

#[tokio::test]
async fn mosquitto_over_tls_1_2() {
    mosquitto_over("tlsv1.2").await;
}

#[tokio::test]
async fn mosquitto_over_tls_1_3() {
    mosquitto_over("tlsv1.3").await;
}

/// What `openssl s_client` tells of the gateway.
async fn s_client(gateway: &Gateway, arguments: &[&str]) -> String {
    let server = gateway.server();
    let all = [&["s_client", "-connect", &server], arguments].concat();
    let ended = Program::run("openssl", &all, b"").await;
    ended.out + &ended.err
}

#[tokio::test]
async fn openssl_finds_versions_alpn_and_the_certificate_of_the_name() {
    let authority = Authority::new();
    let (first, second) =
        (authority.sign("first", &["one.example"]), authority.sign("second", &["*.two.example"]));
    let gateway = Setup::shards(1).config(&Certificate::sections(&[&first, &second])).start().await;
    let ca = authority.pem().display().to_string();
    for (name, version, expected) in [
        ("one.example", "-tls1_2", "CN = first"),
        ("a.two.example", "-tls1_2", "CN = second"),
        ("a.two.example", "-tls1_3", "CN = second"),
        ("three.example", "-tls1_3", "CN = first"),
    ] {
        let told =
            s_client(&gateway, &["-servername", name, version, "-CAfile", &ca, "-alpn", "x,mqtt"]).await;
        assert!(told.contains(expected), "{name}: {told}");
        assert!(told.contains("ALPN protocol: mqtt") && told.contains("Verification: OK"), "{told}");
        let spoken = if version == "-tls1_2" { "TLSv1.2" } else { "TLSv1.3" };
        assert!(told.contains(&format!("New, {spoken}")), "{told}");
    }
    assert!(s_client(&gateway, &["-noservername"]).await.contains("CN = first"));
    assert!(s_client(&gateway, &["-alpn", "http/1.1"]).await.contains("ALPN protocol: http/1.1"));
    let refused = s_client(&gateway, &["-alpn", "h2"]).await;
    assert!(refused.contains("alert no application protocol"), "{refused}");
    let refused = s_client(&gateway, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).await;
    assert!(refused.contains("alert handshake failure"), "{refused}");
    gateway.wait_metric(&failures("alpn"), |count| count == 1).await;
    gateway.wait_metric(&failures("incompatible"), |count| count == 1).await;
}

#[tokio::test]
async fn without_a_certificate_tls_is_refused_by_an_alert() {
    let gateway = Gateway::start(1).await;
    let error = tls(&gateway, Authority::new().client(Tls::V13)).await.unwrap_err();
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
    gateway.wait_metric(&failures("not_configured"), |count| count == 1).await;
    gateway.wait_metric(&closed_early("tls"), |count| count == 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_counted() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let error = tls(&gateway, Authority::new().client(Tls::V13)).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    gateway.wait_metric(&failures("client_alert"), |count| count == 1).await;
}

/// The first bytes of a TLS client's hello.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[tokio::test]
async fn half_handshakes_end_at_the_deadline_and_hold_up_nobody() {
    let authority = Authority::new();
    let gateway = setup(&authority).config("[limits]\nconnect_timeout_ms = 4000").start().await;
    let mut half = Vec::new();
    for _ in 0..50 {
        half.push(RawClient::open(&gateway, HALF_A_HELLO).await);
    }
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    for version in [Tls::V12, Tls::V13] {
        let way = Way::Tls(Arc::new(authority.client(version)));
        let mut app = App::connect_by(&gateway, Version::V5, "app", None, way).await.unwrap();
        app.publish("sig/g/floor", "beside").await;
        assert_eq!(lamp.text().await, "beside");
    }
    assert_eq!(gateway.metric(&failures("timeout")).await, 0, "they were not waited for");
    for client in &mut half {
        assert_eq!(client.rest().await, b"");
    }
    gateway.wait_metric(&failures("timeout"), |count| count == 50).await;
    assert_eq!(gateway.metric(&closed_early("timeout")).await, 50);
    // Who goes away in the middle isn't late.
    drop(RawClient::open(&gateway, HALF_A_HELLO).await);
    gateway.wait_metric(&failures("ended"), |count| count == 1).await;
}

#[tokio::test]
async fn garbage_is_refused_before_within_and_after_the_handshake() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut malformed = 0;

    // A record that is no hello.
    let mut client = RawClient::open(&gateway, b"\x16\x03\x01\x00\x05\x01\0\0\x01\0").await;
    assert_eq!(client.rest().await.first(), Some(&21), "an alert");
    malformed += 1;
    gateway.wait_metric(&failures("malformed"), |count| count == malformed).await;

    for version in [Tls::V12, Tls::V13] {
        // Garbage on the socket, once as first bytes and once within a session.
        for packets in [vec![], connect_packet(5, "app", 0)] {
            let mut stream = tls(&gateway, authority.client(version)).await.unwrap();
            if !packets.is_empty() {
                stream.write_all(&packets).await.unwrap();
                assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, 0x20);
            }
            let socket = stream.get_mut().0;
            socket.write_all(b"\x17\x03\x03\x00\x20 this was not encrypted by anyone!").await.unwrap();
            let mut rest = Vec::new();
            assert!(soon("the end", stream.read_to_end(&mut rest)).await.is_err(), "an alert ends it");
            malformed += 1;
            gateway.wait_metric(&failures("malformed"), |count| count == malformed).await;
        }
        // Garbage within TLS.
        let mut stream = tls(&gateway, authority.client(version)).await.unwrap();
        stream.write_all(b"\x00what is this").await.unwrap();
        let mut rest = Vec::new();
        soon("the end", stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"", "and then TLS's own goodbye, without which reading would fail");
    }
    gateway.wait_metric(&closed_early("unknown_protocol"), |count| count == 2).await;
    // TLS within TLS.
    let mut stream = tls(&gateway, authority.client(Tls::V13)).await.unwrap();
    stream.write_all(HALF_A_HELLO).await.unwrap();
    soon("the end", stream.read_to_end(&mut Vec::new())).await.unwrap();
    gateway.wait_metric(&closed_early("unknown_protocol"), |count| count == 3).await;

    let panel = Device::connect(&gateway, "panel").await;
    assert_eq!(panel.send(Target::group("floor"), "well").await.unwrap()["lamp"], "DELIVERED");
    assert_eq!(lamp.text().await, "well");
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn who_announces_one_protocol_may_not_come_with_another() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    for (alpn, bytes) in [
        ("http/1.1", connect_packet(5, "app", 0)),
        ("mqtt", b"GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ] {
        let mut client = authority.client(Tls::V13);
        client.alpn_protocols = vec![alpn.into()];
        let mut stream = tls(&gateway, client).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        soon("the end", stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"");
    }
    gateway.wait_metric(&failures("alpn"), |count| count == 2).await;
}

#[tokio::test]
async fn large_payloads_go_both_ways() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    for version in [Tls::V12, Tls::V13] {
        let mut stream = tls(&gateway, authority.client(version)).await.unwrap();
        stream.write_all(&connect_packet(4, "app", 0)).await.unwrap();
        stream.write_all(&subscribe_packet(4, "large/#", 0)).await.unwrap();
        assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, 0x20);
        assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, 0x90);
        for length in [1, 16_383, 16_384, 16_385, 65_536, 1_000_000] {
            let payload: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            stream.write_all(&publish_packet(4, "large/one", &payload)).await.unwrap();
            stream.flush().await.unwrap();
            let (kind, body) = mqtt_packet(&mut stream).await.unwrap();
            assert_eq!((kind, body[2..11].to_vec()), (0x30, b"large/one".to_vec()));
            assert!(body[11..] == payload, "{length} bytes");
        }
    }
}

/// A client of TLS that reads nothing while it is flooded, and then all.
#[tokio::test]
async fn a_slow_reader_over_tls_costs_bounded_memory_and_gets_all_that_was_accepted() {
    const MESSAGES: usize = 400;
    let authority = Authority::new();
    let setup = setup(&authority).config("[limits]\nmailbox_messages = 2000\nmailbox_bytes = 8000000");
    let gateway = setup.start().await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    let socket = socket.connect(([127, 0, 0, 1], gateway.port).into()).await.unwrap();
    let mut slow = tls_on(socket, authority.client(Tls::V13), "localhost").await.unwrap();
    slow.write_all(&connect_packet(4, "slow", 0)).await.unwrap();
    slow.write_all(&subscribe_packet(4, "flood/#", 0)).await.unwrap();
    assert_eq!(mqtt_packet(&mut slow).await.unwrap().0, 0x20);
    assert_eq!(mqtt_packet(&mut slow).await.unwrap().0, 0x90);

    let before = gateway.resident();
    let mut app = App::connect(&gateway, Version::V5, "app").await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    for index in 0..MESSAGES {
        let mut payload = vec![b'x'; 8000];
        payload[..4].copy_from_slice(&(index as u32).to_be_bytes());
        assert_eq!(app.publish("flood/one", payload).await.reason, "Success");
    }
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
    let panel = Device::connect(&gateway, "panel").await;
    assert_eq!(panel.send(Target::group("floor"), "well").await.unwrap()["lamp"], "DELIVERED");
    assert_eq!(lamp.text().await, "well");

    for index in 0..MESSAGES {
        let (_, body) = mqtt_packet(&mut slow).await.unwrap();
        assert_eq!(body[11..15], (index as u32).to_be_bytes(), "in order, and none is missing");
    }
}

#[tokio::test]
async fn limited_listeners_take_what_they_are_for() {
    let authority = Authority::new();
    let listener = |lines: &str| format!("[[listener]]\naddress = '127.0.0.1:0'\n{lines}");
    let gateway = setup(&authority)
        .config(&listener("protocols = ['tls']\ninside_tls = ['mqtt']\nmax_fragment_bytes = 512"))
        .config(&listener("protocols = ['mqtt']"))
        .config(&listener("protocols = ['device', 'tls']\ninside_tls = ['device', 'websocket']"))
        .start()
        .await;
    let (secure, plain, mixed) = ("TLS with MQTT ", "MQTT ", "devices; TLS with devices, WebSocket");
    let connect = connect_packet(4, "app", 0);
    let hello = bugle_tests::device_hello("lamp", 0);
    let request = bugle_tests::websocket::websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    let client = || authority.client(Tls::V13);
    let mut refused = 0;
    for (listener, in_tls, bytes, is_taken) in [
        (secure, true, connect.as_slice(), true),
        (secure, true, &hello, false),
        (secure, true, request.as_bytes(), false),
        (secure, false, &connect, false),
        (secure, false, &hello[..1], false),
        (plain, false, &connect, true),
        (plain, false, &hello, false),
        (plain, false, request.as_bytes(), false),
        (plain, false, HALF_A_HELLO, false),
        (mixed, false, &hello, true),
        (mixed, false, &connect[..1], false),
        (mixed, true, &hello, true),
        (mixed, true, request.as_bytes(), true),
        (mixed, true, &connect, false),
    ] {
        let mut stream = gateway.connect_to_listener(listener).await;
        let mut answer = vec![0];
        let read = if in_tls {
            let mut stream = tls_on(stream, client(), "localhost").await.unwrap();
            stream.write_all(bytes).await.unwrap();
            soon("an answer", stream.read(&mut answer)).await
        } else {
            stream.write_all(bytes).await.unwrap();
            soon("an answer", stream.read(&mut answer)).await
        };
        // Closed with bytes unread is a reset.
        assert_eq!(read.unwrap_or(0) > 0, is_taken, "{listener} {in_tls} {bytes:?}");
        refused += u64::from(!is_taken);
        gateway.wait_metric(&closed_early("not_on_this_listener"), |count| count == refused).await;
    }

    // Records to the client of the first are small.
    let stream = gateway.connect_to_listener(secure).await;
    let mut stream = tls_on(stream, client(), "localhost").await.unwrap();
    stream.write_all(&connect).await.unwrap();
    stream.write_all(&subscribe_packet(4, "a", 0)).await.unwrap();
    for kind in [0x20, 0x90] {
        assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, kind);
    }
    stream.write_all(&publish_packet(4, "a", &[7; 4000])).await.unwrap();
    let mut headers = Vec::new();
    let socket = stream.get_mut().0;
    while headers.len() < 4 {
        let mut header = [0; 5];
        soon("a record", socket.read_exact(&mut header)).await.unwrap();
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        soon("a record", socket.read_exact(&mut vec![0; length])).await.unwrap();
        headers.push(length);
    }
    // 512 bytes, their kind, and a tag.
    assert!(headers.iter().all(|length| *length <= 512 + 1 + 16), "{headers:?}");
}

#[tokio::test]
async fn new_certificates_hold_after_sighup_and_bad_ones_do_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.sign("server", &["localhost"]);
    let mut gateway = Setup::shards(1).config(&files.section()).start().await;
    let mut before = tls(&gateway, old.client(Tls::V13)).await.unwrap();
    before.write_all(&connect_packet(5, "before", 0)).await.unwrap();
    assert_eq!(mqtt_packet(&mut before).await.unwrap().0, 0x20);

    let renewed = new.sign("server", &["localhost"]);
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    assert!(gateway.reload().await.contains("stay as they are"), "a certificate without its key is no good");
    tls(&gateway, old.client(Tls::V13)).await.unwrap();
    std::fs::copy(&renewed.key, &files.key).unwrap();
    assert!(gateway.reload().await.contains("hold for new connections"));
    tls(&gateway, new.client(Tls::V13)).await.unwrap();
    assert!(tls(&gateway, old.client(Tls::V13)).await.is_err());

    // A connection that is there goes on.
    before.write_all(b"\xC0\x00").await.unwrap();
    assert_eq!(mqtt_packet(&mut before).await.unwrap().0, 0xD0);
}

#[tokio::test]
async fn where_clients_need_a_certificate_others_stay_outside() {
    let (authority, devices) = (Authority::new(), Authority::new());
    let client_ca = format!("client_ca = '{}'", devices.pem().display());
    let gateway = setup(&authority).config(&client_ca).start().await;
    let with = authority.client_with(&devices.sign("lamp", &["lamp"]));
    let device = Device::connect_on(tls(&gateway, with).await.unwrap(), config("lamp", "")).await.unwrap();
    assert!(device.is_online());
    for client in [authority.client(Tls::V13), authority.client_with(&authority.sign("other", &["other"]))] {
        // In TLS 1.3 a client hears of it after its handshake.
        if let Ok(mut stream) = tls(&gateway, client).await {
            assert!(soon("the end", stream.read(&mut [0])).await.is_err());
        }
    }
    gateway.wait_metric(&failures("client_certificate"), |count| count == 2).await;
}

/// The reason code of the CONNACK to a CONNECT over TLS, of version 5.
async fn connack(gateway: &Gateway, client: ClientConfig, id: &str) -> u8 {
    let mut stream = tls(gateway, client).await.unwrap();
    stream.write_all(&connect_packet(5, id, 0)).await.unwrap();
    let (_, body) = mqtt_packet(&mut stream).await.unwrap();
    body[1]
}

#[tokio::test]
async fn a_client_is_the_one_that_its_certificate_names() {
    let (authority, devices) = (Authority::new(), Authority::new());
    let config_lines = format!(
        "client_ca = '{}'\nclient_name = 'common_name'\nclient_certificate_optional = true\n\
         [[credential]]\nid = 'app'\nsecret = 'mellon'\n\
         [[rule]]\neffect = 'allow'\nactions = ['connect', 'send', 'receive']\n\
         [[rule]]\neffect = 'allow'\nactions = ['join']\ncertificates = ['lamp-*']\nusers = ['lamp-*']\n",
        devices.pem().display()
    );
    let gateway = setup(&authority).config(&config_lines).start().await;
    let lamp = devices.sign("lamp-1", &["lamp-1"]);
    let with = || authority.client_with(&lamp);
    // A device needs no secret, an MQTT client no password; neither comes as another.
    let device =
        Device::connect_on(tls(&gateway, with()).await.unwrap(), config("lamp-1", "")).await.unwrap();
    device.client.join("floor").await.unwrap();
    let other = Device::connect_on(tls(&gateway, with()).await.unwrap(), config("lamp-2", "")).await.err();
    assert_eq!(other, Some(Disconnect::Bye(Reason::NotAuthorized)));
    assert_eq!(connack(&gateway, with(), "lamp-2").await, 0x87);
    assert!(device.is_online());
    assert_eq!(connack(&gateway, with(), "lamp-1").await, 0, "it takes over its own connection");
    // Without one, a secret is needed; a certificate of another authority is none.
    let without = || authority.client(Tls::V13);
    assert_eq!(connack(&gateway, without(), "lamp-1").await, 0x86);
    let app = App::connect_as(&gateway, Version::V5, "app", Some("mellon")).await;
    let mut app = app.unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(app.subscribe("sig/g/floor").await, ["Success(AtLeastOnce)"], "its user has no certificate");
    let foreign = authority.client_with(&authority.sign("lamp-1", &["lamp-1"]));
    if let Ok(mut stream) = tls(&gateway, foreign).await {
        assert!(soon("the end", stream.read(&mut [0])).await.is_err());
    }
    // In the clear nobody has one.
    let mut raw = RawClient::open(&gateway, &connect_packet(5, "lamp-1", 0)).await;
    assert_eq!(raw.packet().await.unwrap().1[1], 0x86);
}

#[tokio::test]
async fn when_the_gateway_stops_tls_ends_in_order() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut stream = tls(&gateway, authority.client(Tls::V13)).await.unwrap();
    stream.write_all(&connect_packet(5, "app", 0)).await.unwrap();
    assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, 0x20);
    gateway.terminate().await;
    assert_eq!(disconnect_reason(&mqtt_packet(&mut stream).await), Some(0x8B));
    // Without close_notify this would be an error.
    assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    drop(stream);
    let ended = gateway.finish().await.expect(0);
    assert!(ended.err.contains("stopped"), "{ended:?}");
}

#[tokio::test]
async fn a_client_may_close_tls_and_read_on() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let mut stream = tls(&gateway, authority.client(Tls::V13)).await.unwrap();
    let last = [connect_packet(5, "app", 0), publish_packet(5, "sig/g/floor", b"last")];
    // All at once and without the end of the socket, so that TLS alone says that it was all.
    let (socket, connection) = stream.get_mut();
    connection.writer().write_all(&last.concat()).unwrap();
    connection.send_close_notify();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    socket.write_all(&bytes).await.unwrap();
    assert_eq!(lamp.text().await, "last");
    let mut rest = Vec::new();
    soon("the end", stream.read_to_end(&mut rest)).await.unwrap();
    gateway.wait_metric("bugle_transports_open{transport=\"tls\"}", |count| count == 0).await;
}

#[tokio::test]
async fn mosquitto_reaches_devices_in_the_clear_beside_tls() {
    let authority = Authority::new();
    let gateway = gateway(&authority).await;
    let stream = tls(&gateway, authority.client(Tls::V12)).await.unwrap();
    let mut lamp = Device::connect_on(stream, config("lamp", "")).await.unwrap();
    mosquitto_pub(&gateway, "5", "app", "sig/c/lamp", "on", &[]).await.expect(0);
    assert_eq!(lamp.text().await, "on");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let (one, other) = (authority.sign("one", &["a"]), authority.sign("other", &["b"]));
    let mixed = Certificate { certificate: one.certificate.clone(), key: other.key.clone() };
    let nowhere = Certificate { certificate: "/nowhere.pem".into(), key: one.key.clone() };
    let swapped = Certificate { certificate: one.key.clone(), key: one.certificate.clone() };
    for (certificate, expected) in
        [(mixed, "other.key can't be used together"), (nowhere, "/nowhere.pem"), (swapped, "one.key")]
    {
        let file = authority.pem().with_file_name("gateway.toml");
        std::fs::write(&file, certificate.section()).unwrap();
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--admin", "none", "--config", file.to_str().unwrap()];
        let ended = Program::run(bugle_tests::bugle_program(), &arguments, b"").await.expect(1);
        assert!(ended.err.contains("[tls]") && ended.err.contains(expected), "{ended:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_through_tls_or_a_websocket_holds_no_buffers() {
    const MANY: u64 = 400;
    let authority = Authority::new();
    let gateway = setup(&authority).start().await;
    // KiB each, with the session's own 2 to 3: rustls's buffered interface alone would add 4.
    for (kind, bound) in [("websocket", 6), ("tls", 9)] {
        let mut connections: Vec<Box<dyn std::any::Any>> = Vec::new();
        let mut before = 0;
        // The first are for what grows but once.
        for number in 0..MANY + 100 {
            if number == 100 {
                before = gateway.resident();
            }
            let connect = connect_packet(4, &format!("{kind}-{number}"), 0);
            if kind == "tls" {
                let mut stream = tls(&gateway, authority.client(Tls::V13)).await.unwrap();
                stream.write_all(&connect).await.unwrap();
                assert_eq!(mqtt_packet(&mut stream).await.unwrap().0, 0x20);
                connections.push(Box::new(stream));
            } else {
                let mut socket = WebSocket::open(gateway.connect().await).await;
                socket.send(BINARY, &connect).await;
                assert_eq!(socket.data(4).await[0], 0x20);
                connections.push(Box::new(socket));
            }
        }
        let each = (gateway.resident() - before) as f64 / MANY as f64;
        assert!(each < f64::from(bound), "{kind}: {each:.1} KiB");
    }
}
