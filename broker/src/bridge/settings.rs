//! A bridge as the operator wants it, checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::packet::Version;
use super::pattern::Pattern;
use crate::transport::tls::{authorities, certificates};

/// What the client id of a bridge at this gateway begins with; its name follows.
pub const LOCAL_ID: &str = "bridge.";

/// One bridge.
#[derive(Clone)]
pub struct BridgeSettings {
    /// Its name, which fits into a client id.
    pub name: Arc<str>,
    /// The far broker's host: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is spoken with it.
    pub version: Version,
    /// By which it knows this gateway.
    pub client_id: String,
    /// User name and password there; either may be empty, which means none.
    pub login: (String, String),
    /// Longest silence, in seconds.
    pub keep_alive: u16,
    /// For how many seconds the far broker shall keep the session (MQTT 5).
    pub session_expiry: u32,
    /// Messages of QoS 1 and 2 that may be unacknowledged in each direction.
    pub in_flight: u16,
    /// Largest packet that is taken from the far broker, in bytes.
    pub max_packet: usize,
    /// Waits before it is tried again, the least and the most.
    pub back_off: (Duration, Duration),
    /// TLS; none: in the clear.
    pub tls: Option<BridgeTls>,
    /// What crosses it.
    pub patterns: Vec<Pattern>,
    /// The password by which it comes in here, where one is needed.
    pub local_password: String,
}

impl BridgeSettings {
    /// Its client id at this gateway.
    pub fn local_id(&self) -> String {
        format!("{LOCAL_ID}{}", self.name)
    }
}

/// What TLS towards a far broker needs, read and checked.
#[derive(Clone)]
pub struct BridgeTls {
    /// The configuration.
    pub config: Arc<ClientConfig>,
    /// The name that has to be in the far broker's certificate.
    pub server_name: ServerName<'static>,
}

impl BridgeTls {
    /// Reads the files. Without `ca`, those authorities are trusted that the system trusts. `identity` is a
    /// certificate of ours with its key.
    pub fn load(
        server_name: &str,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, String> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| format!("{server_name:?} is no name that a certificate could have"))?;
        let roots = match ca {
            Some(path) => authorities(path)?,
            None => system_authorities()?,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{}: no private key in PEM form: {error}", key.display()))?;
                builder.with_client_auth_cert(certificates(chain)?, secret).map_err(|error| {
                    format!("{} and {} can't be used together: {error}", chain.display(), key.display())
                })?
            }
        };
        Ok(Self { config: Arc::new(config), server_name })
    }
}

fn system_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this system has no trusted authorities: name a file of them with ca".to_owned());
    }
    Ok(roots)
}

/// Where a password is.
#[derive(Clone, Debug)]
pub enum PasswordSource {
    /// In the configuration.
    Given(String),
    /// In a file, without the line's end.
    File(PathBuf),
}

impl PasswordSource {
    /// Reads it.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Given(password) => Ok(password.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}
