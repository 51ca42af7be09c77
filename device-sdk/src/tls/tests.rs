//! Records that come in pieces, records that lie, and a server that finishes the handshake without having shown who it is.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use std::vec::Vec;

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit};
use embedded_io_adapters::tokio_1::FromTokio;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::ecdh::EphemeralSecret;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rand_core::OsRng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// Gives one byte at every second poll, and nothing at the others.
struct Dripping<'b> {
    bytes: &'b [u8],
    is_dry: bool,
}

impl ErrorType for Dripping<'_> {
    type Error = embedded_io_async::ErrorKind;
}

impl Read for Dripping<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        poll_fn(|context| {
            self.is_dry = !self.is_dry;
            if self.is_dry {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some((first, rest)) = self.bytes.split_first() else { return Poll::Ready(Ok(0)) };
            (buffer[0], self.bytes) = (*first, rest);
            Poll::Ready(Ok(1))
        })
        .await
    }
}

fn records<'m>(bytes: &'m [u8], buffer: &'m mut [u8]) -> Records<'m, Dripping<'m>> {
    Records { socket: Dripping { bytes, is_dry: false }, buffer, filled: 0, given: 0 }
}

#[tokio::test]
async fn a_read_that_is_dropped_within_a_record_loses_nothing() {
    let bytes =
        [22, 3, 3, 0, 2, 7, 8, 23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
    let mut buffer = [0; 22];
    let mut records = records(&bytes, &mut buffer);
    let (mut got, mut dropped) = (Vec::new(), 0);
    while got.len() < bytes.len() {
        let mut piece = [0; 5];
        // Polled once, and dropped where it isn't ready.
        let result = poll_fn(|context| {
            let read = pin!(records.read(&mut piece));
            match read.poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await;
        match result {
            Some(result) => got.extend_from_slice(&piece[..result.unwrap()]),
            None => dropped += 1,
        }
    }
    assert_eq!(got, bytes);
    assert!(dropped >= 20, "{dropped}");
    assert_eq!(records.read(&mut [0; 5]).await.unwrap(), 0, "the end");
}

#[tokio::test]
async fn records_that_are_too_long_or_too_short_go_no_further() {
    let mut buffer = [0; 22];
    let error = records(&[23, 3, 3, 0, 18], &mut buffer).read(&mut [0; 5]).await.unwrap_err();
    assert!(matches!(error, RecordError::TooLarge), "{error}");
    let empty = [23, 3, 3, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let error = records(&empty, &mut buffer).read(&mut [0; 5]).await.unwrap_err();
    assert!(matches!(error, RecordError::TooShort), "{error}");
    assert_eq!(records(&[22, 3, 3], &mut buffer).read(&mut [0; 5]).await.unwrap(), 0, "ends within a record");
}

fn secret(from: &Hkdf<Sha256>, label: &str, context: &[u8], length: u16) -> Vec<u8> {
    let mut info = length.to_be_bytes().to_vec();
    info.push(6 + label.len() as u8);
    info.extend_from_slice(b"tls13 ");
    info.extend_from_slice(label.as_bytes());
    info.push(context.len() as u8);
    info.extend_from_slice(context);
    let mut secret = std::vec![0; length.into()];
    from.expand(&info, &mut secret).unwrap();
    secret
}

/// A server that does the handshake of RFC 8446 without Certificate and CertificateVerify. Its key exchange is good, so all that
/// it says can be read.
async fn serve_without_certificate(mut stream: DuplexStream) {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.unwrap();
    let mut hello = std::vec![0; u16::from_be_bytes([header[3], header[4]]).into()];
    stream.read_exact(&mut hello).await.unwrap();
    let session = hello[38..39 + usize::from(hello[38])].to_vec();
    // The share of secp256r1: group, length, an uncompressed point.
    let share = hello.windows(5).position(|bytes| bytes == [0, 0x17, 0, 65, 4]).unwrap() + 4;
    let theirs = p256::PublicKey::from_sec1_bytes(&hello[share..share + 65]).unwrap();
    let ours = EphemeralSecret::random(&mut OsRng);

    let mut body = [3, 3].to_vec();
    body.extend_from_slice(&[9; 32]);
    body.extend_from_slice(&session);
    body.extend_from_slice(&[0x13, 0x01, 0, 0, 79, 0, 43, 0, 2, 3, 4, 0, 51, 0, 69, 0, 0x17, 0, 65]);
    body.extend_from_slice(ours.public_key().to_encoded_point(false).as_bytes());
    let mut server_hello = [2, 0, 0, body.len() as u8].to_vec();
    server_hello.extend_from_slice(&body);
    stream.write_all(&[22, 3, 3, 0, server_hello.len() as u8]).await.unwrap();
    stream.write_all(&server_hello).await.unwrap();

    let mut transcript = Sha256::new();
    transcript.update(&hello);
    transcript.update(&server_hello);
    let (_, early) = Hkdf::<Sha256>::extract(None, &[0; 32]);
    let derived = secret(&early, "derived", &Sha256::digest([]), 32);
    let shared = ours.diffie_hellman(&theirs);
    let (_, handshake) = Hkdf::<Sha256>::extract(Some(&derived), shared.raw_secret_bytes());
    let traffic = secret(&handshake, "s hs traffic", &transcript.clone().finalize(), 32);
    let traffic = Hkdf::<Sha256>::from_prk(&traffic).unwrap();
    let (key, nonce) = (secret(&traffic, "key", &[], 16), secret(&traffic, "iv", &[], 12));

    let extensions = [8, 0, 0, 2, 0, 0];
    transcript.update(extensions);
    let finished = secret(&traffic, "finished", &[], 32);
    let mut proof = <Hmac<Sha256> as Mac>::new_from_slice(&finished).unwrap();
    proof.update(&transcript.finalize());
    let mut flight = extensions.to_vec();
    flight.extend_from_slice(&[20, 0, 0, 32]);
    flight.extend_from_slice(&proof.finalize().into_bytes());
    flight.push(22);
    let header = [ENCRYPTED, 3, 3, 0, flight.len() as u8 + 16];
    let cipher = Aes128Gcm::new_from_slice(&key).unwrap();
    cipher.encrypt_in_place(nonce.as_slice().into(), &header, &mut flight).unwrap();
    stream.write_all(&header).await.unwrap();
    stream.write_all(&flight).await.unwrap();
    // The client may find it good, and say so.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_server_that_shows_no_certificate_is_refused_though_it_finishes_the_handshake() {
    let (near, far) = tokio::io::duplex(4096);
    let server = tokio::spawn(serve_without_certificate(far));
    let trust = Trust { authority: b"nobody's", name: "gateway.test", clock: no_clock };
    let mut memory = Memory::<1048, 640>::new();
    let opened = open(FromTokio::new(near), &mut memory, &trust, OsRng).await;
    assert!(matches!(opened, Err(OpenError::Untrusted(Untrusted::NoProof))), "{:?}", opened.err());
    server.await.unwrap();
}

#[tokio::test]
async fn a_gateway_without_a_name_is_not_looked_for() {
    let (near, _far) = tokio::io::duplex(16);
    let trust = Trust { authority: b"", name: "", clock: no_clock };
    let mut memory = Memory::<64, 160>::new();
    let opened = open(FromTokio::new(near), &mut memory, &trust, OsRng).await;
    assert!(matches!(opened, Err(OpenError::Untrusted(Untrusted::NoName))));
}

/// An authority, and a certificate that it has signed, changed by `change`.
fn signed(change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let names = ["gateway.test", "*.site.example", "10.0.2.2"].map(std::string::String::from);
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let certificate = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    (authority.der().to_vec(), certificate.der().to_vec())
}

fn check(authority: &[u8], shown: &[u8], name: &str, now: Option<u64>) -> Result<(), Untrusted> {
    let authority = Certificate::read(authority).ok_or(Untrusted::BadAuthority)?;
    Certificate::read(shown).ok_or(Untrusted::Unreadable)?.check(&authority, name, now)
}

#[test]
fn a_certificate_is_for_its_names_and_addresses_within_its_dates() {
    let (authority, shown) = signed(|params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 31);
    });
    for name in ["gateway.test", "GATEWAY.test", "a.site.example", "10.0.2.2"] {
        assert_eq!(check(&authority, &shown, name, None), Ok(()), "{name}");
    }
    for name in
        ["gateway.tes", "site.example", "a.b.site.example", "10.0.2.3", "authority", "rcgen self signed cert"]
    {
        assert_eq!(check(&authority, &shown, name, None), Err(Untrusted::Name), "{name}");
    }
    let day = |days: u64| Some(days * 86_400);
    for (now, expected) in [
        (day(20_453), Err(Untrusted::Dates)),
        (day(20_454), Ok(())),
        (day(20_818), Ok(())),
        (day(20_819), Err(Untrusted::Dates)),
    ] {
        assert_eq!(check(&authority, &shown, "gateway.test", now), expected, "{now:?}");
    }
}

#[test]
fn a_certificate_that_another_has_signed_or_that_is_for_clients_is_refused() {
    let (authority, shown) = signed(|_| {});
    // Of the same name, with another key.
    let (other, _) = signed(|_| {});
    assert_eq!(check(&other, &shown, "gateway.test", None), Err(Untrusted::Authority));
    assert_eq!(check(&shown, &shown, "gateway.test", None), Err(Untrusted::Authority));
    assert_eq!(check(b"", &shown, "gateway.test", None), Err(Untrusted::BadAuthority));
    assert_eq!(check(&authority, &authority, "gateway.test", None), Err(Untrusted::Name));
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (authority, shown) = signed(|params| params.extended_key_usages = [ClientAuth].into());
    assert_eq!(check(&authority, &shown, "gateway.test", None), Err(Untrusted::Purpose));
    let (authority, shown) = signed(|params| params.extended_key_usages = [ClientAuth, ServerAuth].into());
    assert_eq!(check(&authority, &shown, "gateway.test", None), Ok(()));
}

#[test]
fn a_certificate_with_a_critical_extension_that_is_unknown_is_unreadable() {
    for (is_critical, expected) in [(false, Ok(())), (true, Err(Untrusted::Unreadable))] {
        let (authority, shown) = signed(|params| {
            let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], std::vec![5, 0]);
            extension.set_criticality(is_critical);
            params.custom_extensions = std::vec![extension];
        });
        assert_eq!(check(&authority, &shown, "gateway.test", None), expected, "critical: {is_critical}");
    }
}

#[test]
fn no_changed_byte_of_a_certificate_goes_unnoticed_and_none_panics() {
    let (authority, shown) = signed(|_| {});
    assert_eq!(check(&authority, &shown, "gateway.test", None), Ok(()));
    for at in 0..shown.len() {
        for change in [1, 0x80, 0xFF] {
            let mut changed = shown.clone();
            changed[at] ^= change;
            assert!(check(&authority, &changed, "gateway.test", None).is_err(), "byte {at}");
        }
        assert_eq!(check(&authority, &shown[..at], "gateway.test", None), Err(Untrusted::Unreadable));
    }
}
