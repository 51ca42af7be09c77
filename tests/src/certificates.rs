//! Certificates of a test's own, made anew each time, and clients that trust them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, date_time_ymd,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{Gateway, soon};

/// An authority with a folder for what it signs, which goes when this is dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// The numbers of what it signed, by where that is.
    serials: Mutex<BTreeMap<PathBuf, u64>>,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("bugle-test-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("Authority {number} of a test"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("authority.pem"), issuer.pem()).unwrap();
        std::fs::write(folder.join("authority.der"), issuer.der()).unwrap();
        Self { issuer, folder, serials: Mutex::default() }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// The same in DER, as devices carry it.
    pub fn der(&self) -> PathBuf {
        self.folder.join("authority.der")
    }

    /// A certificate for these names that its own key has signed, and no authority.
    pub fn self_signed(&self, file: &str, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        self.keep(file, &certificate.pem(), &key)
    }

    /// Signs a certificate for these names and addresses. Another of the same `file` name takes its place.
    pub fn sign(&self, file: &str, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        static SERIAL: AtomicU64 = AtomicU64::new(1000);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.keep(file, &certificate.pem(), &key);
        self.serials.lock().unwrap().insert(files.certificate.clone(), serial);
        files
    }

    /// Writes the list of what it has revoked: these, in PEM. The same file each time.
    pub fn revoke(&self, certificates: &[&Certificate]) -> PathBuf {
        let serials = self.serials.lock().unwrap();
        let revoked = certificates.iter().map(|certificate| RevokedCertParams {
            serial_number: serials[&certificate.certificate].into(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.join("revoked.pem");
        // At once, as whoever replaces a list should.
        std::fs::write(self.folder.join("revoked.new"), list.signed_by(&self.issuer).unwrap().pem().unwrap())
            .unwrap();
        std::fs::rename(self.folder.join("revoked.new"), &path).unwrap();
        path
    }

    fn keep(&self, file: &str, certificate: &str, key: &KeyPair) -> Certificate {
        let files = Certificate {
            certificate: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A client's settings that trust it, for TLS 1.2 or 1.3 alone.
    pub fn client(&self, version: Tls) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let version = [match version {
            Tls::V12 => &TLS12,
            Tls::V13 => &TLS13,
        }];
        let builder = builder.with_protocol_versions(&version).unwrap();
        builder.with_root_certificates(self.roots()).with_no_client_auth()
    }

    /// The same for TLS 1.3, with a certificate to show.
    pub fn client_with(&self, certificate: &Certificate) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let chain = vec![CertificateDer::from_pem_file(&certificate.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        let builder = builder.with_protocol_versions(&[&TLS13]).unwrap();
        builder.with_root_certificates(self.roots()).with_client_auth_cert(chain, key).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Which TLS a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

impl Certificate {
    /// The `[tls]` of a configuration that has this one alone.
    pub fn section(&self) -> String {
        Self::sections(&[self])
    }

    /// The `[tls]` of a configuration that has these.
    pub fn sections(all: &[&Self]) -> String {
        let list = |path: fn(&Self) -> &Path| {
            let paths: Vec<String> = all.iter().map(|one| format!("'{}'", path(one).display())).collect();
            format!("[{}]", paths.join(", "))
        };
        format!("[tls]\ncertificate = {}\nkey = {}", list(|one| &one.certificate), list(|one| &one.key))
    }
}

/// TLS to a gateway as `localhost`; or why there is none.
pub async fn tls(gateway: &Gateway, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    tls_on(gateway.connect().await, config, "localhost").await
}

/// TLS over a socket, to a server of this name.
pub async fn tls_on(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("the end of the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}
