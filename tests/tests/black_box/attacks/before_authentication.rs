//! Strangers: what a connection that has proved nothing may cost, and what it may not get done.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bugle_protocol::{Frame, auth};
use bugle_tests::websocket::{BINARY, WebSocket, websocket_request};
use bugle_tests::{
    App, Authority, Device, Gateway, RawClient, Scratch, Setup, Version, config, connect_packet,
    device_hello, publish_packet, raw_packet, raw_text, soon,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::closed_early;

const CREDENTIALS: &str = "rules_default = 'allow'\n[[credential]]\nid = 'lamp'\nsecret = 'open sesame'\n[[credential]]\nid = 'app'\nsecret = 'mellon'";

/// A beginning that goes on byte by byte for as long as it's let.
async fn drip(gateway: &Gateway, first: &[u8]) -> Duration {
    let mut stream = gateway.connect().await;
    stream.write_all(first).await.unwrap();
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let (mut reader, mut writer) = stream.into_split();
    let ended = async { while reader.read_u8().await.is_ok() {} };
    let dripping = async {
        loop {
            pace.tick().await;
            if writer.write_all(b"a").await.is_err() {
                return;
            }
        }
    };
    soon("the deadline", async {
        tokio::select! { () = ended => {}, () = dripping => {} }
    })
    .await;
    started.elapsed()
}

#[tokio::test]
async fn a_drip_of_bytes_buys_no_time_in_any_of_the_four_beginnings() {
    let authority = Authority::new();
    let section = authority.sign("server", &["localhost"]).section();
    let gateway =
        Setup::shards(2).config(&section).config("[limits]\nconnect_timeout_ms = 300").start().await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let upgrade = [
        websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").into_bytes(),
        vec![0x82, 0xFE, 0x7F, 0, 0, 0, 0, 0, 0x10, 0xFF, 0x7F],
    ];
    let beginnings: [&[u8]; 5] = [
        &[0x10, 0xFF, 0x7F],
        &[0x0B, 0xFF, 0x01],
        b"GET /mqtt HTTP/1.1\r\nX-Slow: ",
        &[22, 3, 1, 0x3F, 0, 1, 0, 0x3E, 0, 3, 3],
        &upgrade.concat(),
    ];
    for (index, first) in beginnings.iter().enumerate() {
        let took = drip(&gateway, first).await;
        assert!(took < Duration::from_secs(3), "{took:?}: {first:x?}");
        gateway.wait_metric(&closed_early("timeout"), |count| count == index as u64 + 1).await;
    }
    let panel = Device::connect(&gateway, "panel").await;
    panel.client.send(bugle_device::Target::group("floor"), b"well", &Default::default()).await.unwrap();
    assert_eq!(lamp.text().await, "well");
}

#[tokio::test]
async fn what_follows_a_refused_login_is_never_handled() {
    let gateway = Setup::shards(2).config(CREDENTIALS).start().await;
    let mut app = App::connect_as(&gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    app.subscribe("home/#").await;
    for version in [4, 5] {
        let bytes =
            [connect_packet(version, "app", 0), publish_packet(version, "home/door", b"open")].concat();
        RawClient::open(&gateway, &bytes).await.rest().await;
    }
    // A device that publishes instead of its proof, and one before its HELLO.
    let publish = Frame::Subscribe { at_least_once: false, filter: "home/#" };
    let mut frame = vec![0; publish.encoded_len()];
    publish.encode(&mut frame).unwrap();
    RawClient::open(&gateway, &[device_hello("lamp", 0), frame.clone()].concat()).await.rest().await;
    RawClient::open(&gateway, &frame).await.rest().await;
    app.publish("home/end", "end").await;
    assert_eq!(app.message("home/end").await.text, "end");
    assert_eq!(app.left("home/door"), 0);
    assert_eq!(gateway.metric("bugle_clients").await, 1);
}

#[tokio::test]
async fn a_proof_that_was_recorded_is_no_good_again() {
    let gateway = Setup::shards(2).config(CREDENTIALS).start().await;
    let nonce = async |client: &mut RawClient| {
        let (_, body) = client.packet().await.unwrap();
        <[u8; 32]>::try_from(&body[..]).unwrap_or_else(|_| panic!("no challenge: {body:?}"))
    };
    let mut recorded = RawClient::open(&gateway, &device_hello("lamp", 0)).await;
    let first = nonce(&mut recorded).await;
    let proof = auth::proof(b"open sesame", &first, "lamp");
    let frame = Frame::Proof { proof: &proof };
    let mut bytes = vec![0; frame.encoded_len()];
    frame.encode(&mut bytes).unwrap();
    recorded.write(&bytes).await;
    recorded.packet().await.expect("the right proof is welcome");
    gateway.wait_metric("bugle_clients", |count| count == 1).await;
    let mut again = RawClient::open(&gateway, &device_hello("lamp", 0)).await;
    assert_ne!(nonce(&mut again).await, first, "a nonce is used once");
    again.write(&bytes).await;
    again.rest().await;
    assert_eq!(gateway.metric("bugle_refused_total{reason=\"NOT_AUTHENTICATED\"}").await, 1);
    // Nor is it, said before there is a challenge.
    RawClient::open(&gateway, &[device_hello("lamp", 0), bytes].concat()).await.rest().await;
    assert_eq!(gateway.metric("bugle_refused_total{reason=\"NOT_AUTHENTICATED\"}").await, 2);
}

#[tokio::test]
async fn a_token_of_no_algorithm_or_of_another_is_none() {
    let scratch = Scratch::new();
    let secret = "0123456789abcdef0123456789abcdef";
    let key = scratch.write("key", secret);
    let lines = format!("rules_default = 'allow'\n[jwt]\nkeys = ['{key}']\naudience = 'bugle'\n");
    let gateway = Setup::shards(1).config(&lines).start().await;
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 60;
    let claims = BASE64.encode(format!(r#"{{"sub":"anna","aud":"bugle","exp":{seconds}}}"#));
    let sign = |text: &str| {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    };
    let token = |header: &str, signature: Option<&str>| {
        let signed = format!("{}.{claims}", BASE64.encode(header));
        let signature = signature.map_or_else(|| sign(&signed), str::to_owned);
        format!("{signed}.{signature}")
    };
    let good = token(r#"{"alg":"HS256"}"#, None);
    let other = BASE64.encode(format!(r#"{{"sub":"anna","aud":"bugle","exp":{}}}"#, seconds + 3600));
    let parts: Vec<&str> = good.split('.').collect();
    for wrong in [
        token(r#"{"alg":"none"}"#, Some("")),
        token(r#"{"alg":"nOnE"}"#, Some("")),
        token(r#"{"alg":"none"}"#, None),
        token(r#"{"alg":"HS256"}"#, Some("")),
        token(r#"{"alg":"HS512"}"#, None),
        token(r#"{"alg":"RS256"}"#, None),
        token(r#"{"alg":"HS256","crit":["x"]"#, None),
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.{}", parts[2]),
        format!("{good}A"),
    ] {
        let refused = App::connect_as(&gateway, Version::V5, "anna", Some(&wrong)).await.err();
        assert!(refused.is_some(), "let in by {wrong}");
    }
    App::connect_as(&gateway, Version::V5, "anna", Some(&good)).await.unwrap();
}

/// All that comes in answer to these bytes.
async fn answer(gateway: &Gateway, port: u16, bytes: &[u8]) -> String {
    let mut stream = gateway.connect_to(port).await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_within_a_request_is_not_answered() {
    let gateway = Gateway::start(1).await;
    let upgrade = websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    for head in [
        "POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let told = answer(&gateway, gateway.port, format!("{head}{upgrade}").as_bytes()).await;
        assert!(
            told.starts_with("HTTP/1.1 4") && told.matches("\nConnection: close").count() == 1,
            "{head:?}: {told}"
        );
        let bytes = [head.as_bytes(), &connect_packet(5, "smuggled", 0)].concat();
        answer(&gateway, gateway.port, &bytes).await;
    }
    // A body before the WebSocket is begun is read as its frames, and isn't one.
    let with_body = upgrade.replace("Host: localhost", "Host: a\r\nContent-Length: 4") + "GET ";
    let told = answer(&gateway, gateway.port, with_body.as_bytes()).await;
    assert!(told.matches("HTTP/1.1 ").count() == 1, "{told}");
    assert_eq!(gateway.metric("bugle_connects_total").await, 0);
}

#[tokio::test]
async fn no_path_leads_out_of_what_is_served() {
    let gateway = Gateway::start(1).await;
    for path in [
        "/../../../../etc/passwd",
        "/mqtt/../metrics",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//metrics/..",
        "/..%2fetc%2fpasswd",
        "/mqtt%00/metrics",
        "/.\\..\\metrics",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        for port in [gateway.port, gateway.admin.port()] {
            let told = answer(&gateway, port, request.as_bytes()).await;
            assert!(told.starts_with("HTTP/1.1 40"), "{path}: {told}");
            assert!(!told.contains("root:") && !told.contains("bugle_"), "{path}: {told}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_header_fields_is_refused_on_both_ports() {
    let gateway = Gateway::start(1).await;
    let many = format!("GET /mqtt HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(5_000));
    let long = format!("GET /mqtt HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "b".repeat(1 << 20));
    for request in [many, long] {
        for port in [gateway.port, gateway.admin.port()] {
            let told = answer(&gateway, port, request.as_bytes()).await;
            // Who is still writing may see a reset instead.
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 431 "), "{told}");
        }
    }
    let resident = gateway.resident();
    assert!(resident < 200_000, "{resident} KiB");
    assert_eq!(gateway.get("/healthz").await.0, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn compression_is_never_agreed_to_and_a_compressed_frame_is_an_error() {
    let gateway = Gateway::start(1).await;
    let fields = "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut stream = gateway.connect().await;
    stream.write_all(websocket_request("/mqtt", fields).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("extensions"), "{head}");
    let mut socket = WebSocket::open(gateway.connect().await).await;
    socket.send(0x40 | BINARY, b"\x10").await;
    assert_eq!(socket.close_code().await, Some(1002));
}

#[tokio::test]
async fn a_stranger_takes_nobodys_connection_over_in_either_protocol() {
    let gateway = Setup::shards(3).config(CREDENTIALS).start().await;
    let lamp = Device::connect_as(&gateway, config("lamp", "open sesame")).await.unwrap();
    let mut app = App::connect_as(&gateway, Version::V5, "app", Some("mellon")).await.unwrap();
    for version in [4, 5] {
        for id in ["lamp", "app"] {
            let none: &[u8] = if version == 5 { &[0] } else { &[] };
            let with_password = raw_packet(
                0x10,
                &[
                    &raw_text("MQTT"),
                    &[version, 0xC2, 0, 0],
                    none,
                    &raw_text(id),
                    &raw_text(id),
                    &raw_text("guess"),
                ],
            );
            for connect in [connect_packet(version, id, 0), with_password] {
                RawClient::open(&gateway, &connect).await.rest().await;
            }
        }
    }
    for id in ["lamp", "app"] {
        // The HELLO alone, and gone again.
        drop(RawClient::open(&gateway, &device_hello(id, 0)).await);
        Device::connect_as(&gateway, config(if id == "app" { "app" } else { "lamp" }, "guess"))
            .await
            .err()
            .unwrap();
    }
    assert!(lamp.is_online());
    assert_eq!(app.publish("home/x", "still here").await.reason, "Success");
}

#[tokio::test]
async fn silent_connections_are_bounded_and_end_no_client_that_is_in() {
    let gateway = Setup::shards(2).config("[limits]\nconnect_timeout_ms = 5000").start().await;
    let mut lamp = Device::member(&gateway, "lamp", "floor").await;
    let panel = Device::connect(&gateway, "panel").await;
    let mut silent = Vec::new();
    // Those beyond the bound wait a second for a place.
    for _ in 0..1026 {
        silent.push(gateway.connect().await);
    }
    gateway.wait_metric(&closed_early("too_many_waiting"), |count| count >= 2).await;
    panel.client.send(bugle_device::Target::group("floor"), b"well", &Default::default()).await.unwrap();
    assert_eq!(lamp.text().await, "well");
    // Their places are free again when they go, or at the deadline.
    drop(silent);
    gateway.wait_metric(&closed_early("ended"), |count| count > 0).await;
    let mut app = loop {
        if let Ok(app) = App::connect_as(&gateway, Version::V5, "app", None).await {
            break app;
        }
    };
    assert_eq!(app.publish("home/x", "in").await.reason, "Success");
}
