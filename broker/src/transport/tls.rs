//! TLS 1.2 and 1.3 without a socket: certificates from PEM files, and one connection's end of it.
//!
//! The certificate is chosen by the name that a client asks for (SNI); who asks for none, or for one that no
//! certificate has, gets the first. ALPN is `mqtt` for MQTT and the device framing, `http/1.1` for a WebSocket; a
//! client may leave it out. Configurations are swapped whole, so that new certificates hold from the next
//! connection on and the old ones to the end of theirs.

use std::io::{BufRead, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

/// What ALPN calls MQTT, and the device framing with it.
const ALPN_MQTT: &[u8] = b"mqtt";
/// What ALPN calls the request for a WebSocket.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// The answer to a client's hello where there is no certificate: alert, fatal, handshake_failure.
pub const NO_TLS_HERE: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

/// Where certificates and keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chains with their keys; the first is for clients that ask for none of the others' names.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Authorities, by one of which a client's certificate has to be signed. None: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads them all. What is wrong with which file is said in the error.
    pub fn load(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = self.certificates.iter().map(|(chain, key)| certified_key(chain, key, &provider));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| format!("{}: {error}", path.display()))?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates(certificates)));
        config.alpn_protocols = vec![ALPN_MQTT.to_vec(), ALPN_HTTP.to_vec()];
        // Clients keep what is needed to resume, so that the gateway remembers nothing for each.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

fn certified_key(
    chain_path: &Path,
    key_path: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(chain_path)?;
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| format!("{}: no private key in PEM form: {error}", key_path.display()))?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|error| {
        format!("{} and {} can't be used together: {error}", chain_path.display(), key_path.display())
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| format!("{}: no certificates in PEM form: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok(found)
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// Chooses a certificate.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = ServerName::try_from(name).ok()?;
        self.0.iter().find(|one| {
            let parsed =
                one.cert.first().and_then(|certificate| ParsedCertificate::try_from(certificate).ok());
            parsed.is_some_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = match client_hello.server_name() {
            Some(name) if self.0.len() > 1 => self.named(name),
            _ => None,
        };
        named.or(self.0.first()).cloned()
    }
}

/// A listener's TLS: the configuration that its next connection gets.
#[derive(Debug)]
pub struct TlsEndpoint {
    config: ArcSwap<ServerConfig>,
    /// Most plaintext that a record holds, in bytes. None: 16 KiB, the most that TLS allows.
    max_fragment: Option<usize>,
}

impl TlsEndpoint {
    /// With the configuration that [`TlsFiles::load`] has given.
    pub fn new(config: &ServerConfig, max_fragment: Option<usize>) -> Self {
        Self { config: ArcSwap::from_pointee(fragmented(config, max_fragment)), max_fragment }
    }

    /// Puts another in its place, for connections to come.
    pub fn replace(&self, config: &ServerConfig) {
        self.config.store(Arc::new(fragmented(config, self.max_fragment)));
    }

    /// A new connection.
    pub fn accept(&self) -> Result<Tls, TlsFailure> {
        let connection = ServerConnection::new(self.config.load_full()).map_err(|error| failure(&error))?;
        let mut tls = Tls(Box::new(connection));
        // What is written is taken out at once, and was bounded before: a limit here could only lose bytes.
        tls.0.set_buffer_limit(None);
        Ok(tls)
    }
}

fn fragmented(config: &ServerConfig, max_fragment: Option<usize>) -> ServerConfig {
    let mut config = config.clone();
    config.max_fragment_size = max_fragment;
    config
}

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// Why TLS failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TlsFailure { $($(#[$doc])* $name,)* }

        impl TlsFailure {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics and logs.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

failures! {
    /// No certificate is configured.
    NotConfigured = "not_configured";
    /// The handshake took too long.
    Timeout = "timeout";
    /// The client went away within the handshake.
    Ended = "ended";
    /// The client ended it by an alert: it doesn't trust the certificate, for one.
    Alert = "client_alert";
    /// No version or algorithm that both have.
    Incompatible = "incompatible";
    /// The client wants to speak something else (ALPN).
    Alpn = "alpn";
    /// The client's certificate is missing or isn't trusted.
    ClientCertificate = "client_certificate";
    /// What came is no TLS.
    Malformed = "malformed";
    /// Something else.
    Other = "other";
}

fn failure(error: &rustls::Error) -> TlsFailure {
    use rustls::Error::{
        AlertReceived, DecryptError, InappropriateHandshakeMessage, InappropriateMessage, InvalidCertificate,
        InvalidMessage, NoApplicationProtocol, NoCertificatesPresented, PeerIncompatible, PeerMisbehaved,
        PeerSentOversizedRecord,
    };
    match error {
        AlertReceived(_) => TlsFailure::Alert,
        PeerIncompatible(_) => TlsFailure::Incompatible,
        NoApplicationProtocol => TlsFailure::Alpn,
        NoCertificatesPresented | InvalidCertificate(_) => TlsFailure::ClientCertificate,
        InvalidMessage(_)
        | InappropriateMessage { .. }
        | InappropriateHandshakeMessage { .. }
        | PeerMisbehaved(_)
        | DecryptError
        | PeerSentOversizedRecord => TlsFailure::Malformed,
        _ => TlsFailure::Other,
    }
}

/// Why a connection's TLS is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// The client closed it in order.
    Closed,
    /// It failed; the alert that says so is among what is to be sent.
    Failed(TlsFailure),
}

/// One connection's TLS.
#[derive(Debug)]
pub struct Tls(Box<ServerConnection>);

impl Tls {
    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether this first byte is of a protocol that the client has chosen by ALPN. Without ALPN all are.
    pub fn expects(&self, is_http: bool) -> bool {
        match self.0.alpn_protocol() {
            Some(ALPN_HTTP) => is_http,
            Some(ALPN_MQTT) => !is_http,
            _ => true,
        }
    }

    /// Takes what the socket had. Plaintext is appended to `data`, and what TLS has to say to `reply`. After an error
    /// nothing more is to be given.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), TlsEnd> {
        let mut end = Ok(());
        while !bytes.is_empty() && end.is_ok() {
            // It takes nothing more once the client has closed. An error says that a message is too long.
            let taken = self.0.read_tls(&mut bytes);
            let processed = self.0.process_new_packets();
            self.take_plaintext(data);
            end = match (taken, processed) {
                (_, Err(error)) => Err(TlsEnd::Failed(failure(&error))),
                (Ok(0), _) => Err(TlsEnd::Closed),
                (_, Ok(state)) if state.peer_has_closed() => Err(TlsEnd::Closed),
                (Err(_), _) => Err(TlsEnd::Failed(TlsFailure::Malformed)),
                (Ok(_), Ok(_)) => Ok(()),
            };
        }
        self.transmit(reply);
        end
    }

    /// Appends the ciphertext of these parts to `out`, together in as few records as may be.
    pub fn send(&mut self, parts: [&[u8]; 2], out: &mut Vec<u8>) {
        let [mut first, mut second] = parts;
        while !(first.is_empty() && second.is_empty()) {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            // It has no limit, and writes into memory: it can't fail, nor take nothing.
            let Ok(taken @ 1..) = self.0.writer().write_vectored(&slices) else { break };
            let of_first = taken.min(first.len());
            first = &first[of_first..];
            second = &second[taken - of_first..];
        }
        self.transmit(out);
    }

    /// Appends the goodbye of TLS to `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.transmit(out);
    }

    fn take_plaintext(&mut self, data: &mut Vec<u8>) {
        let mut reader = self.0.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let length = chunk.len();
            if length == 0 {
                return;
            }
            data.extend_from_slice(chunk);
            reader.consume(length);
        }
    }

    fn transmit(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            // Writing to a Vec can't fail.
            if self.0.write_tls(out).is_err() {
                return;
            }
        }
    }
}
