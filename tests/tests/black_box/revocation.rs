//! Certificates, authorities and revocation lists that change while the gateway runs.

use std::path::Path;

use bugle_tests::{
    Authority, Device, Gateway, Program, Setup, Tls, bugle_program, config, connect_packet, mqtt_packet,
    soon, tls,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::ClientConfig;

/// How often certificates were read again.
const READ_AGAIN: &str = "bugle_certificates_reloads_total{result=\"taken\"}";

/// A gateway for devices with certificates of this authority that it has not revoked.
async fn gateway(own: &Authority, devices: &Authority, revoked: &Path) -> Gateway {
    let lines = format!(
        "{}\nclient_ca = '{}'\ncrl_file = '{}'\nclient_name = 'common_name'\n[[rule]]\neffect = 'allow'\n",
        own.sign("server", &["localhost"]).section(),
        devices.pem().display(),
        revoked.display()
    );
    Setup::shards(1).config(&lines).start().await
}

async fn is_let_in(gateway: &Gateway, client: ClientConfig) -> bool {
    let Ok(mut stream) = tls(gateway, client).await else { return false };
    // In TLS 1.3 a client hears of it after its handshake.
    if stream.write_all(&connect_packet(5, "", 0)).await.is_err() {
        return false;
    }
    let mut first = [0; 4];
    soon("an answer, or the end", stream.read_exact(&mut first)).await.is_ok()
        && first[0] == 0x20
        && first[3] == 0
}

#[tokio::test]
async fn a_revoked_certificate_lets_nobody_in() {
    let (own, devices) = (Authority::new(), Authority::new());
    let (lamp, lost) = (devices.sign("lamp", &["lamp"]), devices.sign("lost", &["lost"]));
    let gateway = gateway(&own, &devices, &devices.revoke(&[&lost])).await;
    assert!(is_let_in(&gateway, own.client_with(&lamp)).await);
    assert!(!is_let_in(&gateway, own.client_with(&lost)).await);
    gateway.wait_metric("bugle_tls_failures_total{reason=\"client_certificate\"}", |count| count == 1).await;
}

#[tokio::test]
async fn a_list_that_changes_holds_for_new_connections_and_a_broken_one_changes_nothing() {
    let (own, devices) = (Authority::new(), Authority::new());
    let (lamp, lost) = (devices.sign("lamp", &["lamp"]), devices.sign("lost", &["lost"]));
    let revoked = devices.revoke(&[]);
    let gateway = gateway(&own, &devices, &revoked).await;
    let stream = tls(&gateway, own.client_with(&lost)).await.unwrap();
    let device = Device::connect_on(stream, config("lost", "")).await.unwrap();
    devices.revoke(&[&lost]);
    gateway.wait_metric(READ_AGAIN, |count| count == 1).await;
    assert!(!is_let_in(&gateway, own.client_with(&lost)).await);
    assert!(is_let_in(&gateway, own.client_with(&lamp)).await);
    std::fs::write(&revoked, "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n").unwrap();
    gateway.wait_metric("bugle_certificates_outdated", |value| value == 1).await;
    let health = gateway.get("/healthz").await.1;
    assert!(health.contains("degraded") && health.contains("revoked.pem"), "{health}");
    assert!(!is_let_in(&gateway, own.client_with(&lost)).await, "the list before holds");
    assert!(is_let_in(&gateway, own.client_with(&lamp)).await);
    devices.revoke(&[]);
    gateway.wait_metric("bugle_certificates_outdated", |value| value == 0).await;
    assert!(is_let_in(&gateway, own.client_with(&lost)).await);
    assert!(device.is_online(), "who is in goes on");
}

#[tokio::test]
async fn an_authority_without_a_list_lets_nobody_in() {
    let (own, devices, other) = (Authority::new(), Authority::new(), Authority::new());
    let both = [&devices, &other].map(|one| std::fs::read_to_string(one.pem()).unwrap()).concat();
    let gateway = gateway(&own, &devices, &devices.revoke(&[])).await;
    std::fs::write(devices.pem(), both).unwrap();
    let lamp = devices.sign("lamp", &["lamp"]);
    let stranger = other.sign("lamp", &["lamp"]);
    gateway.wait_metric("bugle_certificates_outdated", |value| value == 0).await;
    assert!(is_let_in(&gateway, own.client_with(&lamp)).await);
    assert!(!is_let_in(&gateway, own.client_with(&stranger)).await);
}

#[tokio::test]
async fn certificates_and_authorities_are_read_again_when_their_files_change_and_connections_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let (devices, later) = (Authority::new(), Authority::new());
    let files = old.sign("server", &["localhost"]);
    let lines = format!(
        "{}\nclient_ca = '{}'\nclient_name = 'common_name'\n[[rule]]\neffect = 'allow'\n",
        files.section(),
        devices.pem().display()
    );
    let gateway = Setup::shards(1).config(&lines).start().await;
    let mut before = tls(&gateway, old.client_with(&devices.sign("lamp", &["lamp"]))).await.unwrap();
    before.write_all(&connect_packet(5, "lamp", 0)).await.unwrap();
    assert_eq!(mqtt_packet(&mut before).await.unwrap().0, 0x20);
    let renewed = new.sign("server", &["localhost"]);
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    std::fs::copy(&renewed.key, &files.key).unwrap();
    std::fs::copy(later.pem(), devices.pem()).unwrap();
    let late = later.sign("late", &["late"]);
    gateway.wait_metric(READ_AGAIN, |count| count > 0).await;
    assert!(is_let_in(&gateway, new.client_with(&late)).await);
    assert!(!is_let_in(&gateway, old.client(Tls::V13)).await);
    before.write_all(b"\xC0\x00").await.unwrap();
    assert_eq!(mqtt_packet(&mut before).await.unwrap().0, 0xD0);
    // Neither half of a pair holds without the other.
    std::fs::write(&files.key, "nonsense").unwrap();
    gateway.wait_metric("bugle_certificates_outdated", |value| value == 1).await;
    assert!(gateway.get("/healthz").await.1.contains("server.key"));
    assert!(is_let_in(&gateway, new.client_with(&late)).await);
}

#[tokio::test]
async fn a_list_that_cannot_be_used_is_named_at_the_start() {
    let own = Authority::new();
    let server = own.sign("server", &["localhost"]);
    let scratch = bugle_tests::Scratch::new();
    let empty = scratch.write("empty.pem", "");
    let nonsense = scratch.write("nonsense.pem", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
    let ca = format!("client_ca = '{}'", own.pem().display());
    for (lines, expected) in [
        (format!("{ca}\ncrl_file = '{empty}'"), "empty.pem: there is no revocation list in it"),
        (format!("{ca}\ncrl_file = '{nonsense}'"), "nonsense.pem"),
        (format!("{ca}\ncrl_file = '/nowhere.pem'"), "/nowhere.pem"),
        (format!("crl_file = '{empty}'"), "add client_ca"),
    ] {
        let config = scratch.write("bugle.toml", &format!("{}\n{lines}\n", server.section()));
        let arguments = ["serve", "--config", &config, "--listen", "127.0.0.1:0", "--admin", "none"];
        let ended = Program::run(bugle_program(), &arguments, b"").await.expect(1);
        assert!(ended.err.contains(expected), "{lines}: {ended:?}");
    }
}
