//! The device SDK's TLS against the gateway's: what goes through it, and whom it doesn't take for its gateway.

use bugle_device::Target;
use bugle_device::tls::{Memory, OpenError, Transport, Trust, Untrusted, no_clock, open};
use bugle_tests::{App, Authority, Certificate, Device, Gateway, Setup, Version, config, free_port, soon};
use embedded_io_adapters::tokio_1::FromTokio;
use rand_core::OsRng;
use tokio::net::TcpStream;

const NAME: &str = "gateway.test";

/// A gateway with a port for devices, and the port.
async fn gateway(certificate: &Certificate) -> (Gateway, u16) {
    let port = free_port();
    let listener = format!(
        "[[listener]]\naddress = '127.0.0.1:{port}'\nprotocols = ['tls']\ninside_tls = ['device']\nmax_fragment_bytes = 1024"
    );
    let setup = Setup::shards(2).config(&certificate.section()).config(&listener);
    (setup.start().await, port)
}

async fn connect(
    port: u16,
    authority: &Authority,
    name: &str,
    clock: fn() -> Option<u64>,
) -> Result<Transport<'static, FromTokio<TcpStream>>, OpenError> {
    let der = std::fs::read(authority.der()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let memory = Box::leak(Box::new(Memory::<1048, 640>::new()));
    let trust = Trust { authority: &der, name, clock };
    soon("the end of the handshake", open(FromTokio::new(stream), memory, &trust, OsRng)).await
}

#[tokio::test]
async fn a_device_proves_its_gateway_and_sends_and_takes_8_kib_through_tls() {
    tokio::task::LocalSet::new().run_until(send_and_take()).await;
}

async fn send_and_take() {
    let authority = Authority::new();
    let (gateway, port) = gateway(&authority.sign("server", &[NAME])).await;
    let transport = connect(port, &authority, NAME, no_clock).await.unwrap();
    let config = config("device", "");
    let mut device = Device::connect_in_tls(transport, config).await.unwrap();
    soon("the join", device.client.join("floor")).await.unwrap();
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    for size in [0, 1, 500, 8192] {
        let text = "x".repeat(size);
        let statuses = app.send("sig/g/floor?receipt=each", &text).await["statuses"].clone();
        assert_eq!(statuses, serde_json::json!({"device": "DELIVERED"}), "{size}");
        assert_eq!(device.text().await.len(), size);
        assert_eq!(device.send(Target::group("floor"), &text).await.unwrap()["app"], "DELIVERED");
        assert_eq!(app.message("sig/g/floor").await.text.len(), size);
    }
}

/// Why the device doesn't take this for its gateway.
async fn refused(port: u16, authority: &Authority, name: &str, clock: fn() -> Option<u64>) -> Untrusted {
    match connect(port, authority, name, clock).await {
        Err(OpenError::Untrusted(why)) => why,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{name} was taken for the gateway"),
    }
}

#[tokio::test]
async fn a_device_refuses_a_wrong_name_another_authority_and_a_certificate_that_signed_itself() {
    let authority = Authority::new();
    let (_gateway, port) = gateway(&authority.sign("server", &["elsewhere.test", "127.0.0.1"])).await;
    assert_eq!(refused(port, &authority, NAME, no_clock).await, Untrusted::Name);
    for name in ["elsewhere.test", "127.0.0.1"] {
        assert!(connect(port, &authority, name, no_clock).await.is_ok(), "{name}");
    }
    let other = Authority::new();
    assert_eq!(refused(port, &other, "elsewhere.test", no_clock).await, Untrusted::Authority);

    let (_gateway, port) = gateway(&authority.self_signed("own", &[NAME])).await;
    assert_eq!(refused(port, &authority, NAME, no_clock).await, Untrusted::Authority);
}

#[tokio::test]
async fn a_device_refuses_a_chain_whoever_has_signed_what() {
    let authority = Authority::new();
    let server = authority.sign("server", &["elsewhere.test"]);
    // Both are trusted one by one; shown together, it could be any of them.
    let other = authority.sign("other", &[NAME]);
    let both = [&other, &server].map(|one| std::fs::read_to_string(&one.certificate).unwrap()).concat();
    std::fs::write(&other.certificate, both).unwrap();
    let (_gateway, port) = gateway(&other).await;
    assert_eq!(refused(port, &authority, NAME, no_clock).await, Untrusted::NotOne);
}

fn now() -> Option<u64> {
    std::time::SystemTime::UNIX_EPOCH.elapsed().ok().map(|time| time.as_secs())
}

#[tokio::test]
async fn a_device_with_a_clock_refuses_a_certificate_out_of_its_dates() {
    let authority = Authority::new();
    let (_gateway, port) = gateway(&authority.sign("server", &[NAME])).await;
    assert!(connect(port, &authority, NAME, now).await.is_ok());
    assert_eq!(refused(port, &authority, NAME, || Some(1)).await, Untrusted::Dates);
}
