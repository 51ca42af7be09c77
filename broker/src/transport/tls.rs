//! TLS 1.2 and 1.3 without a socket: certificates from PEM files, and one connection's end of it.
//!
//! The certificate is chosen by the name that a client asks for (SNI); who asks for none, or for one that no
//! certificate has, gets the first. ALPN is `mqtt` for MQTT and the device framing, `http/1.1` for a WebSocket; a
//! client may leave it out. Configurations are swapped whole, so that new certificates hold from the next
//! connection on and the old ones to the end of theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerConnectionData,
    UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use crate::file_mode::{Holds, warn_if_open};

/// What ALPN calls MQTT, and the device framing with it.
const ALPN_MQTT: &[u8] = b"mqtt";
/// What ALPN calls the request for a WebSocket.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// What a record adds to its plaintext, at most and roughly.
const RECORD_OVERHEAD: usize = 64;
/// The answer to a client's hello where there is no certificate: alert, fatal, handshake_failure.
pub const NO_TLS_HERE: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

/// Where certificates and keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chains with their keys; the first is for clients that ask for none of the others' names.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Authorities, by one of which a client's certificate has to be signed. None: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Clients may come without one, and prove otherwise who they are.
    pub is_optional: bool,
    /// Which certificates the authorities have revoked. None: that isn't looked at.
    pub revoked: Option<PathBuf>,
}

impl TlsFiles {
    /// All files of it.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter().flat_map(|(chain, key)| [chain, key]);
        pairs.chain(&self.client_ca).chain(&self.revoked)
    }

    /// The same for the admin port, whose clients show no certificate.
    pub fn load_for_operators(&self) -> Result<ServerConfig, String> {
        Self { client_ca: None, is_optional: false, revoked: None, ..self.clone() }.load()
    }

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
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if self.is_optional { verifier.allow_unauthenticated() } else { verifier };
                // Of every certificate of a chain it has to be known: an authority without a list lets nobody in.
                let lists = self.revoked.as_deref().map(revocations).transpose()?;
                let verifier = verifier.with_crls(lists.unwrap_or_default()).build();
                let place = self.revoked.as_deref().unwrap_or(path);
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| format!("{}: {error}", place.display()))?,
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
    warn_if_open(key_path, Holds::Key);
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| format!("{}: no private key in PEM form: {error}", key_path.display()))?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|error| {
        format!("{} and {} can't be used together: {error}", chain_path.display(), key_path.display())
    })
}

/// The certificates of a PEM file, one at least.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| format!("{}: no certificates in PEM form: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok(found)
}

/// The revocation lists of a PEM file, one at least.
fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found =
        CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found =
        found.map_err(|error| format!("{}: no revocation lists in PEM form: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: there is no revocation list in it", path.display()));
    }
    for list in &found {
        let (_, parsed) = x509_parser::parse_x509_crl(list)
            .map_err(|error| format!("{}: no revocation list: {error}", path.display()))?;
        let now = x509_parser::time::ASN1Time::now();
        if parsed.next_update().is_some_and(|next| next < now) {
            tracing::warn!(
                path = %path.display(), issuer = %parsed.issuer(),
                "this revocation list should have been replaced by now; what was revoked since isn't in it"
            );
        }
    }
    Ok(found)
}

/// The certificates of a PEM file, as authorities to be trusted.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
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
        let connection = UnbufferedServerConnection::new(self.config.load_full());
        let connection = connection.map_err(|error| failure(&error))?;
        Ok(Tls { connection: Box::new(connection), partial: Vec::new() })
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
    /// As much was sent on one connection of TLS 1.2 as its cipher bears.
    Exhausted = "exhausted";
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

/// One connection's TLS. While nothing of a record has come it has no buffer.
///
/// rustls looks at the same bytes again, from where it was told to discard them: whatever it is asked for, it has to be
/// given what is partial.
pub struct Tls {
    connection: Box<UnbufferedServerConnection>,
    /// The beginning of a record, or of a handshake message of several.
    partial: Vec<u8>,
}

impl Tls {
    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The certificate that the client has shown, which was verified.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        Some(self.connection.peer_certificates()?.first()?.as_ref())
    }

    /// Whether this first byte is of a protocol that the client has chosen by ALPN. Without ALPN all are.
    pub fn expects(&self, is_http: bool) -> bool {
        match self.connection.alpn_protocol() {
            Some(ALPN_HTTP) => is_http,
            Some(ALPN_MQTT) => !is_http,
            _ => true,
        }
    }

    /// Takes what the socket had. Plaintext is appended to `data`, and what TLS has to say to `reply`. After an error
    /// nothing more is to be given.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>, reply: &mut Vec<u8>) -> Result<(), TlsEnd> {
        let mut records = std::mem::take(&mut self.partial);
        records.extend_from_slice(bytes);
        let (used, result) = self.drive(&mut records, data, reply);
        records.drain(..used);
        if !records.is_empty() {
            self.partial = records;
        }
        result
    }

    /// Appends the ciphertext of `bytes` to `out`.
    pub fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TlsEnd> {
        self.write(out, bytes.len(), |traffic, space| traffic.encrypt(bytes, space))
    }

    /// Appends the goodbye of TLS to `out`. Within a handshake there is none.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        // If it can't be said any more, the end of the socket says it.
        let _ = self.write(out, 0, |traffic, space| traffic.queue_close_notify(space));
    }

    /// Takes records one after the other. Gives how many bytes of them are used up.
    fn drive(
        &mut self,
        records: &mut [u8],
        data: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<(), TlsEnd>) {
        let mut used = 0;
        let mut end = Ok(());
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut records[used..]);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    // Each is whole and was decrypted already: there is no error to be had.
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        data.extend_from_slice(record.payload);
                    }
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    end = Err(TlsEnd::Closed);
                    true
                }
                Ok(state) => advance(state, out),
                Err(error) => {
                    // The alert that says so; it looks at nothing else while there is something to be sent.
                    while self.connection.wants_write()
                        && self
                            .connection
                            .process_tls_records(&mut [])
                            .state
                            .is_ok_and(|state| encode(state, out))
                    {}
                    return (records.len(), Err(TlsEnd::Failed(failure(&error))));
                }
            };
            used = (used + discard).min(records.len());
            if !goes_on {
                return (used, end);
            }
        }
    }

    /// Lets `write` write into what is appended to `out`, for so many bytes of plaintext.
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        length: usize,
        write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsEnd> {
        let mut records = std::mem::take(&mut self.partial);
        let (used, result) = self.write_beside(&mut records, out, length, write);
        records.drain(..used);
        if !records.is_empty() {
            self.partial = records;
        }
        result.map_err(TlsEnd::Failed)
    }

    fn write_beside(
        &mut self,
        records: &mut [u8],
        out: &mut Vec<u8>,
        length: usize,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> (usize, Result<(), TlsFailure>) {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut records[used..]);
            let result = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let is_written =
                        fill(out, length + RECORD_OVERHEAD, |space| match write(&mut traffic, space) {
                            Ok(length) => Ok(length),
                            Err(EncryptError::InsufficientSize(error)) => Err(Some(error.required_size)),
                            Err(EncryptError::EncryptExhausted) => Err(None),
                        });
                    Some(if is_written { Ok(()) } else { Err(TlsFailure::Exhausted) })
                }
                Ok(state) => (!advance(state, out)).then_some(Err(TlsFailure::Other)),
                Err(error) => Some(Err(failure(&error))),
            };
            used = (used + discard).min(records.len());
            if let Some(result) = result {
                return (used, result);
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("partial", &self.partial.len()).finish_non_exhaustive()
    }
}

/// Does what a state asks for that is no traffic. Whether there may be more of them.
fn advance(state: ConnectionState<'_, '_, ServerConnectionData>, out: &mut Vec<u8>) -> bool {
    match state {
        ConnectionState::TransmitTlsData(message) => {
            // What is in `out` is sent, or the connection ends.
            message.done();
            true
        }
        state => encode(state, out),
    }
}

/// Appends what TLS itself has to send to `out`. Whether there was something.
fn encode(state: ConnectionState<'_, '_, ServerConnectionData>, out: &mut Vec<u8>) -> bool {
    let ConnectionState::EncodeTlsData(mut message) = state else { return false };
    fill(out, 0, |space| match message.encode(space) {
        Ok(length) => Ok(length),
        Err(EncodeError::InsufficientSize(error)) => Err(Some(error.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    })
}

/// Appends to `out` what `write` writes, which says how much room it needs if it has too little. False if it can't.
fn fill(
    out: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = out.len();
    let mut room = guess;
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(length) => {
                out.truncate(start + length);
                return true;
            }
            // More than it had: it asks no more than twice.
            Err(Some(required)) if required > room => room = required,
            Err(_) => {
                out.truncate(start);
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};

    use super::*;

    /// A server's endpoint, and a client that trusts it.
    fn both(
        version: &'static SupportedProtocolVersion,
        client_fragment: Option<usize>,
    ) -> (TlsEndpoint, ClientConnection) {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let name = format!("bugle-unit-{}-{:p}", std::process::id(), &raw const issued);
        let (chain, key) =
            (std::env::temp_dir().join(name.clone() + ".pem"), std::env::temp_dir().join(name + ".key"));
        std::fs::write(&chain, issued.cert.pem()).unwrap();
        std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        let files = TlsFiles {
            certificates: vec![(chain.clone(), key.clone())],
            client_ca: None,
            is_optional: false,
            revoked: None,
        };
        let server = files.load();
        std::fs::remove_file(chain).unwrap();
        std::fs::remove_file(key).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.max_fragment_size = client_fragment;
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(client), name).unwrap();
        (TlsEndpoint::new(&server.unwrap(), None), client)
    }

    /// A connection in memory.
    struct Pair {
        client: ClientConnection,
        server: Tls,
        /// What the client has not yet got.
        to_client: Vec<u8>,
        /// What has come to the server's session.
        data: Vec<u8>,
    }

    impl Pair {
        /// Moves what the client has to say, so many bytes at a time; the server says `beside` after each.
        fn say(&mut self, step: usize, beside: &[u8]) -> Result<(), TlsEnd> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            for chunk in bytes.chunks(step) {
                self.server.receive(chunk, &mut self.data, &mut self.to_client)?;
                if !beside.is_empty() {
                    self.server.send(beside, &mut self.to_client)?;
                }
            }
            Ok(())
        }

        /// Moves what the server has said.
        fn hear(&mut self) -> Vec<u8> {
            let mut bytes = std::mem::take(&mut self.to_client);
            let mut rest = bytes.as_mut_slice() as &[u8];
            let mut heard = Vec::new();
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets().unwrap();
                // It has nothing more for now, which isn't the end.
                let _ = self.client.reader().read_to_end(&mut heard);
            }
            heard
        }
    }

    /// Shakes hands, `step` bytes at a time.
    fn connected(version: &'static SupportedProtocolVersion, step: usize, fragment: Option<usize>) -> Pair {
        let (endpoint, client) = both(version, fragment);
        let server = endpoint.accept().unwrap();
        let mut pair = Pair { client, server, to_client: Vec::new(), data: Vec::new() };
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            assert!(pair.client.wants_write() || !pair.to_client.is_empty(), "it stands still");
            pair.say(step, b"").unwrap();
            pair.hear();
        }
        pair
    }

    #[test]
    fn bytes_may_come_in_any_pieces_and_be_answered_between_them() {
        for version in [&TLS12, &TLS13] {
            for (step, fragment) in [(1, None), (3, Some(32)), (100, Some(64)), (usize::MAX, None)] {
                let mut pair = connected(version, step, fragment);
                let sent: Vec<u8> = (0..3000_u32).map(|number| number as u8).collect();
                pair.client.writer().write_all(&sent).unwrap();
                pair.say(step, b"and").unwrap();
                assert!(pair.data == sent, "{version:?} by {step}");
                let heard = pair.hear();
                assert!(!heard.is_empty() && heard.chunks(3).all(|chunk| chunk == b"and"));
                assert_eq!(pair.server.partial.capacity(), 0, "an idle connection has no buffer");
            }
        }
    }

    #[test]
    fn keys_are_renewed_on_the_way() {
        for step in [1, 7, usize::MAX] {
            let mut pair = connected(&TLS13, step, None);
            for round in 0..3_u8 {
                pair.client.refresh_traffic_keys().unwrap();
                pair.client.writer().write_all(&[round]).unwrap();
                pair.say(step, b"new").unwrap();
                assert!(pair.hear().starts_with(b"new"));
            }
            assert_eq!(pair.data, [0, 1, 2]);
        }
    }

    #[test]
    fn large_data_goes_out_in_records() {
        for version in [&TLS12, &TLS13] {
            let mut pair = connected(version, usize::MAX, None);
            let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
            pair.server.send(&sent, &mut pair.to_client).unwrap();
            assert!(pair.hear() == sent);
        }
    }

    #[test]
    fn the_end_is_told_and_what_came_before_it_is_not_lost() {
        for version in [&TLS12, &TLS13] {
            let mut pair = connected(version, usize::MAX, None);
            pair.client.writer().write_all(b"last").unwrap();
            pair.client.send_close_notify();
            assert_eq!(pair.say(usize::MAX, b""), Err(TlsEnd::Closed));
            assert_eq!(pair.data, b"last");
            pair.server.close(&mut pair.to_client);
            pair.hear();
            assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "it was closed in order");
        }
    }

    /// rustls panics if it isn't given what it has begun with.
    #[test]
    fn it_may_be_closed_within_a_message_of_several_records() {
        for version in [&TLS12, &TLS13] {
            let (endpoint, mut client) = both(version, Some(32));
            let mut hello = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut hello).unwrap();
            }
            for cut in 0..hello.len() {
                let mut server = endpoint.accept().unwrap();
                let (mut data, mut reply) = (Vec::new(), Vec::new());
                server.receive(&hello[..cut], &mut data, &mut reply).unwrap();
                server.close(&mut reply);
                assert!(server.send(b"too early", &mut reply).is_err());
                assert_eq!((data, reply), (Vec::new(), Vec::new()));
            }
        }
    }

    #[test]
    fn what_is_no_tls_gets_an_alert() {
        let mut pair = connected(&TLS13, usize::MAX, None);
        let mut reply = Vec::new();
        let record = b"\x17\x03\x03\x00\x20 this was not encrypted by anyone!";
        let end = pair.server.receive(record, &mut pair.data, &mut reply);
        assert_eq!(end, Err(TlsEnd::Failed(TlsFailure::Malformed)));
        pair.to_client = reply;
        let mut bytes = pair.to_client.as_slice();
        pair.client.read_tls(&mut bytes).unwrap();
        let error = pair.client.process_new_packets().unwrap_err();
        assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }

    #[test]
    fn an_idle_connection_is_small() {
        let bytes = size_of::<UnbufferedServerConnection>() + size_of::<Tls>();
        assert!(bytes <= 2048, "{bytes}");
    }
}
