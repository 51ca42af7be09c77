//! The bounds that docs/security.md gives for what a stranger may cost, each met from outside.

use std::time::{Duration, Instant};

use bugle_tests::websocket::{PING, PONG, WebSocket};
use bugle_tests::{
    App, Authority, Device, Gateway, Program, RawClient, Scratch, Setup, Version, bugle_program,
    connect_packet, raw_packet, raw_text, soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::closed_early;

/// A CONNECT with a will and a password of 65,000 bytes each, and so many bytes behind them.
fn large_connect(more: usize) -> Vec<u8> {
    let body = [
        raw_text("MQTT"),
        // User name, password, will, clean start.
        vec![5, 0xC6, 0, 0, 0],
        raw_text("stranger"),
        vec![0],
        raw_text("home/will"),
        raw_text(&"w".repeat(65_000)),
        raw_text("user"),
        raw_text(&"p".repeat(65_000)),
        vec![0; more],
    ];
    raw_packet(0x10, &[&body.concat()])
}

/// Waits for the gateway to close the connection, however it does.
async fn closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    soon("the end", async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} }).await;
}

#[tokio::test]
async fn a_thousand_large_first_packets_take_a_bounded_memory_and_keep_nobody_out() {
    let gateway = Setup::shards(2).config("[limits]\nconnect_timeout_ms = 8000").start().await;
    let before = gateway.resident();
    let mut bytes = large_connect(0);
    bytes.pop();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (mut stream, bytes) = (gateway.connect().await, bytes.clone());
        writers.spawn(async move {
            // The gateway may take no more of it.
            let _ = stream.write_all(&bytes).await;
            stream
        });
    }
    // A small first packet, and a small client, is not held up by them.
    let app = App::connect_as(&gateway, Version::V5, "app", None).await.unwrap();
    let held = writers.join_all().await;
    let most = std::cell::Cell::new(0);
    let is_wanted = |count| {
        most.set(most.get().max(gateway.resident()));
        count >= 1000 - 2 * 64
    };
    gateway.wait_metric(&closed_early("too_many_large"), is_wanted).await;
    let most = most.get();
    println!("{before} KiB before, {most} KiB at most");
    assert!(most < before + 60_000, "{before} KiB before, {most} KiB at most");
    drop((app, held));
}

#[tokio::test]
async fn a_first_packet_over_the_bound_is_refused_whatever_it_goes_through() {
    let gateway = Gateway::start(1).await;
    let mut stream = gateway.connect().await;
    // Of what it announces nothing more than the bound is read.
    let _ = stream.write_all(&large_connect(200_000)).await;
    gateway.wait_metric(&closed_early("too_large"), |count| count == 1).await;
    closed(&mut stream).await;
    // One under it is read whole, and is a client's.
    let mut client = RawClient::open(&gateway, &large_connect(0)).await;
    assert_eq!(client.packet().await.map(|(kind, _)| kind), Some(0x20), "a CONNACK");
    // What never reaches a session counts as well.
    let mut socket = WebSocket::open(gateway.connect().await).await;
    socket.send(PING, &[b'p'; 125]).await;
    let mut pings = 1;
    while socket.frame().await.is_some_and(|(opcode, _)| opcode == PONG) {
        socket.send(PING, &[b'p'; 125]).await;
        pings += 1;
        assert!(pings < 3_000, "closed after 256 KiB");
    }
    gateway.wait_metric(&closed_early("too_large"), |count| count == 2).await;
}

#[tokio::test]
async fn a_large_will_of_a_client_that_has_not_proved_itself_keeps_its_place() {
    // SCRAM: the gateway waits for the client's proof, with its will in hand.
    let lines = "rules_default = 'allow'\n[[credential]]\nid = 'stranger'\nsecret = 'b'\n[limits]\nconnect_timeout_ms = 1500\n";
    let gateway = Setup::shards(1).config(lines).start().await;
    let scram = {
        let text = |text: &str| [vec![0x15], raw_text(text)].concat();
        let data = [vec![0x16], raw_text("n,,n=stranger,r=0123456789abcdef")].concat();
        let properties = [text("SCRAM-SHA-256"), data].concat();
        let body = [
            raw_text("MQTT"),
            vec![5, 0x06, 0, 0, properties.len() as u8],
            properties,
            raw_text("stranger"),
            vec![0],
            raw_text("home/will"),
            raw_text(&"w".repeat(60_000)),
        ]
        .concat();
        raw_packet(0x10, &[&body])
    };
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut client = RawClient::open(&gateway, &scram).await;
        assert_eq!(client.packet().await.map(|(kind, _)| kind), Some(0xF0), "an AUTH");
        waiting.push(client);
    }
    let mut next = gateway.connect().await;
    next.write_all(&scram).await.unwrap();
    // Its turn comes when one of them has gone.
    let told = tokio::time::timeout(Duration::from_millis(300), next.read_u8()).await;
    assert!(told.is_err(), "{told:?}");
    waiting.pop();
    assert_eq!(soon("an AUTH", next.read_u8()).await.unwrap(), 0xF0);
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_leaves_room_for_others() {
    let lines = "[limits]\nlimit_loopback = true\nconnections_per_address = 3\n";
    let gateway = Setup::shards(2).config(lines).start().await;
    let mut apps = Vec::new();
    for name in ["a", "b", "c"] {
        apps.push(App::connect_as(&gateway, Version::V5, name, None).await.unwrap());
    }
    assert!(App::connect_as(&gateway, Version::V5, "d", None).await.is_err());
    gateway.wait_metric(&closed_early("too_many_of_address"), |count| count > 0).await;
    // Linux answers on all of 127.0.0.0/8: another address is another's.
    let mut other = connect_from("127.0.0.2", gateway.port).await;
    other.write_all(&connect_packet(5, "e", 0)).await.unwrap();
    assert_eq!(soon("a CONNACK", other.read_u8()).await.unwrap(), 0x20);
    // Who goes leaves his place.
    drop(apps.pop());
    gateway.wait_metric("bugle_clients", |count| count == 3).await;
    loop {
        if App::connect_as(&gateway, Version::V5, "d", None).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn an_address_that_says_nothing_has_a_quarter_of_the_places() {
    let lines = "[limits]\nlimit_loopback = true\nconnect_timeout_ms = 5000\n";
    let gateway = Setup::shards(1).config(lines).start().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(gateway.connect().await);
    }
    gateway.wait_metric(&closed_early("too_many_of_address"), |count| count == 300 - 256).await;
    let mut other = connect_from("127.0.0.2", gateway.port).await;
    other.write_all(&connect_packet(5, "e", 0)).await.unwrap();
    assert_eq!(soon("a CONNACK", other.read_u8()).await.unwrap(), 0x20);
}

/// A connection from another of this machine's addresses.
async fn connect_from(address: &str, port: u16) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    soon("a connection", socket.connect(([127, 0, 0, 1], port).into())).await.unwrap()
}

#[tokio::test]
async fn half_of_the_places_are_for_handshakes_and_who_needs_none_is_not_held_up() {
    let authority = Authority::new();
    let section = authority.sign("server", &["localhost"]).section();
    let gateway =
        Setup::shards(1).config(&section).config("[limits]\nconnect_timeout_ms = 6000").start().await;
    let beginnings: [&[u8]; 2] = [&[22, 3, 1, 0x3F, 0, 1, 0, 0x3E, 0, 3, 3], b"GET /mqtt HTTP/1.1\r\nX: "];
    let mut begun = Vec::new();
    for index in 0..600 {
        let mut stream = gateway.connect().await;
        stream.write_all(beginnings[index % 2]).await.unwrap();
        begun.push(stream);
    }
    let device = Device::connect(&gateway, "lamp").await;
    assert!(device.is_online());
    // Those beyond the bound wait for their turn, but not until their time is over.
    gateway.wait_metric(&closed_early("too_many_handshakes"), |count| count == 600 - 512).await;
    assert_eq!(gateway.metric(&closed_early("timeout")).await, 0);
    drop(begun);
    WebSocket::open(gateway.connect().await).await;
}

#[tokio::test]
async fn all_connections_are_bounded() {
    let gateway = Setup::shards(1).config("[limits]\nclients_per_shard = 2").start().await;
    let _one = Device::connect(&gateway, "one").await;
    let _two = Device::connect(&gateway, "two").await;
    let mut third = gateway.connect().await;
    closed(&mut third).await;
    gateway.wait_metric(&closed_early("full"), |count| count >= 1).await;
}

#[tokio::test]
async fn only_so_many_connections_of_an_address_wait_for_their_failures() {
    let lines = "rules_default = 'allow'\n[[credential]]\nid = 'a'\nsecret = 'b'\n";
    let gateway = Setup::shards(1).config(lines).start().await;
    let login = {
        let body =
            [raw_text("MQTT"), vec![5, 0xC2, 0, 0, 0], raw_text("a"), raw_text("a"), raw_text("guess")];
        raw_packet(0x10, &[&body.concat()])
    };
    let failed = "bugle_refused_total{reason=\"NOT_AUTHENTICATED\"}";
    // The first thirty are free; what comes with them, before they are counted, as well.
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(RawClient::open(&gateway, &login).await);
    }
    gateway.wait_metric(failed, |count| count >= 40).await;
    for _ in 0..80 {
        clients.push(RawClient::open(&gateway, &login).await);
    }
    gateway.wait_metric(&closed_early("back_off"), |count| count > 0).await;
    // The right one gets in all the same, once there is room to wait.
    drop(clients);
    let mut app = loop {
        if let Ok(app) = App::connect_as(&gateway, Version::V5, "a", Some("b")).await {
            break app;
        }
    };
    assert_eq!(app.publish("home/x", "in").await.reason, "Success");
}

#[tokio::test]
async fn a_user_has_as_many_connections_as_his_role_lets_him() {
    let lines = "rules_default = 'allow'\n\
        [[credential]]\nid = 'anna'\nsecret = 'b'\nclients = ['anna-*']\nroles = ['guest']\n\
        [[credential]]\nid = 'bob'\nsecret = 'b'\nclients = ['bob-*']\n\
        [[role]]\nname = 'guest'\nlimits = { connections = 3 }\n";
    let gateway = Setup::shards(4).config(lines).start().await;
    let come = async |user: &str, client: &str| {
        let flags = vec![5, 0xC2, 0, 0, 0];
        let body = [raw_text("MQTT"), flags, raw_text(client), raw_text(user), raw_text("b")].concat();
        let mut client = RawClient::open(&gateway, &raw_packet(0x10, &[&body])).await;
        let (kind, answer) = client.packet().await.unwrap();
        assert_eq!(kind, 0x20);
        (client, answer[1])
    };
    // Their client ids are owned by several shards.
    let mut annas = Vec::new();
    for index in 0..3 {
        let (client, reason) = come("anna", &format!("anna-{index}")).await;
        assert_eq!(reason, 0);
        annas.push(client);
    }
    for index in 3..8 {
        assert_eq!(come("anna", &format!("anna-{index}")).await.1, 0x97);
    }
    // One that is connected is taken over all the same.
    let (again, reason) = come("anna", "anna-1").await;
    assert_eq!(reason, 0);
    annas[1].rest().await;
    let mut bobs = Vec::new();
    for index in 0..8 {
        let (client, reason) = come("bob", &format!("bob-{index}")).await;
        assert_eq!(reason, 0);
        bobs.push(client);
    }
    // Who goes leaves his place to another.
    drop(annas.remove(0));
    gateway.wait_metric("bugle_clients", |count| count == 2 + 8).await;
    assert_eq!(come("anna", "anna-9").await.1, 0);
    drop(again);
}

#[tokio::test]
async fn one_name_tried_from_many_addresses_has_to_wait_and_its_user_does_not() {
    let scratch = Scratch::new();
    let file = scratch.path("passwords").display().to_string();
    Program::run(bugle_program(), &["passwd", &file, "anna"], b"mellon\n").await.expect(0);
    let lines = format!("rules_default = 'allow'\npasswords = '{file}'\n");
    let gateway = Setup::shards(2).config(&lines).start().await;
    let login = async |address: &str, password: &str| {
        let flags = vec![5, 0xC2, 0, 0, 0];
        let body = [raw_text("MQTT"), flags, raw_text("anna"), raw_text("anna"), raw_text(password)].concat();
        let mut client = RawClient::on(connect_from(address, gateway.port).await);
        let started = Instant::now();
        client.write(&raw_packet(0x10, &[&body])).await;
        let (_, answer) = client.packet().await.unwrap();
        (answer[1], started.elapsed())
    };
    assert_eq!(login("127.0.0.1", "mellon").await.0, 0);
    // Few from each, so that none of them has to wait for itself. Some are forgotten meanwhile.
    let waits = "bugle_authentication_waits_total";
    let mut tries = 0;
    while gateway.metric(waits).await == 0 {
        let address = format!("127.0.1.{}", 1 + tries % 200);
        assert_eq!(login(&address, "guess").await.0, 0x86);
        tries += 1;
        assert!(tries < 300, "it never has to wait");
    }
    assert!(tries > 30, "{tries}");
    // From where she has come in she still does, at once; from elsewhere she does, too, and waits.
    let (reason, _) = login("127.0.0.1", "mellon").await;
    assert_eq!((reason, gateway.metric(waits).await), (0, 1));
    let (reason, took) = login("127.0.2.1", "mellon").await;
    assert_eq!(reason, 0);
    assert!(took >= Duration::from_secs(2), "{took:?}");
}
