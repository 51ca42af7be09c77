//! The firmware in TLS 1.3 against the gateway's rustls: what it does there, whom it refuses, and that it fits.

use bugle_tests::{App, Authority, Certificate, Firmware, Gateway, Setup, Version, free_port};
use serde_json::json;

const NAME: &str = "gateway.test";
const FIXED: &str = "address=10.0.2.15";

/// A gateway with a port for devices in TLS, and the port.
async fn gateway(certificate: &Certificate) -> (Gateway, u16) {
    let port = free_port();
    let listener = format!(
        "[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['tls']\ninside_tls = ['device']\nmax_fragment_bytes = 1024"
    );
    let setup = Setup::shards(2).config(&certificate.section()).config(&listener);
    (setup.start().await, port)
}

/// A board that trusts this authority and expects this name.
async fn board(port: u16, authority: &Authority, name: &str) -> Firmware {
    let (tls, authority) = (format!("tls={name}"), format!("authority={}", authority.der().display()));
    Firmware::exercise_in_tls(&port, "board", &[&tls, &authority, FIXED]).await
}

#[tokio::test]
async fn qemu_a_board_in_tls_sends_and_takes_comes_back_after_a_cut_and_fits_64_kib() {
    let authority = Authority::new();
    let (gateway, port) = gateway(&authority.sign("server", &[NAME])).await;
    let mut board = board(port, &authority, NAME).await;
    board.line("connected false").await;
    board.does("join floor", "joined").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    assert_eq!(board.send("g/floor except=nobody ttl=5000 hello").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "hello");
    // More than a record of the gateway's holds, and more than the board writes at a time.
    let large = "y".repeat(2000);
    assert_eq!(app.send("sig/c/board?receipt=each", &large).await["statuses"], json!({"board": "DELIVERED"}));
    assert_eq!(board.got().await[4], "2000");
    assert_eq!(board.send("g/floor *2000").await, ["app DELIVERED"]);
    assert_eq!(app.message("sig/g/floor").await.text, "x".repeat(2000));
    // What is larger than its buffer is refused, and it lives on.
    let receipt = app.send("sig/c/board?receipt=each", &"y".repeat(4000)).await;
    assert_eq!(receipt["statuses"], json!({"board": "OVERFLOW"}));
    board.tell("burst g/floor 200").await;
    for number in 0..200 {
        assert_eq!(app.message("sig/g/floor").await.text, number.to_string());
    }
    board.line("burst").await;

    let stack = board.does("report", "stack").await;
    println!("{stack}");
    let words: Vec<&str> = stack.split(' ').collect();
    let [used, size] = [words[1], words[3]].map(|word| word.parse::<u32>().unwrap());
    assert!(used > 1_000 && used * 5 < size * 4, "a fifth of it is free: {stack}");
    assert!(board.line("welcomes").await.starts_with("welcomes 1 "));
}

#[tokio::test]
async fn qemu_a_board_in_tls_connects_to_another_gateway_when_the_first_is_gone() {
    let authority = Authority::new();
    let certificate = authority.sign("server", &[NAME]);
    let (first, port) = gateway(&certificate).await;
    let mut board = board(port, &authority, NAME).await;
    board.line("connected false").await;
    first.kill().await;
    board.line("disconnected Lost").await;
    let listener =
        format!("[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['tls']\nmax_fragment_bytes = 1024");
    let second = Setup::shards(2).config(&certificate.section()).config(&listener).start().await;
    board.line("connected false").await;
    let mut app = App::member(&second, Version::V5, "app", "floor").await;
    assert_eq!(
        app.send("sig/c/board?receipt=each", "hello").await["statuses"],
        json!({"board": "DELIVERED"})
    );
}

#[tokio::test]
async fn qemu_a_board_refuses_a_wrong_name_a_strange_authority_and_a_certificate_that_signed_itself() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (certificate, why) in [
        (authority.sign("server", &["elsewhere.test"]), "Name"),
        (stranger.sign("server", &[NAME]), "Authority"),
        (authority.self_signed("own", &[NAME]), "Authority"),
    ] {
        let (gateway, port) = gateway(&certificate).await;
        let mut board = board(port, &authority, NAME).await;
        board.line(&format!("cannot connect: Tls(Untrusted({why}))")).await;
        board.line("disconnected NoTransport").await;
        assert_eq!(gateway.metric("bugle_clients").await, 0);
    }
}
