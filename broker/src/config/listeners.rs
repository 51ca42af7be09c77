//! Where clients connect and by what: `listen`, the `[[listener]]` tables, `[tls]` and `[websocket]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, address};
use crate::transport::client_name::NamePlace;
use crate::transport::greeting::Protocols;
use crate::transport::tls::TlsFiles;
use crate::transport::upgrade::Origins;

/// Plaintext bytes of a TLS record, least and most.
const FRAGMENTS: std::ops::RangeInclusive<usize> = 512..=16_384;
/// Most certificates, each looked at for the name that a client asks for.
const MAX_CERTIFICATES: usize = 64;
/// Most origins.
const MAX_ORIGINS: usize = 256;

/// A listener, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What may come in the clear.
    pub in_clear: Protocols,
    /// What may come within TLS.
    pub in_tls: Protocols,
    /// Most plaintext that a TLS record to a client holds, in bytes.
    pub max_fragment: Option<usize>,
}

impl Listener {
    /// For everything.
    pub fn open(address: SocketAddr) -> Self {
        Self { address, in_clear: Protocols::ALL, in_tls: Protocols::IN_TLS, max_fragment: None }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::open(self.address) {
            return formatter.write_str("MQTT 3.1.1, MQTT 5 and devices");
        }
        let names = |protocols: Protocols| {
            let all =
                [("MQTT", protocols.mqtt), ("devices", protocols.device), ("WebSocket", protocols.websocket)];
            let named: Vec<&str> = all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
            named.join(", ")
        };
        let clear = names(self.in_clear);
        match (clear.as_str(), self.in_clear.tls) {
            ("", _) => write!(formatter, "TLS with {}", names(self.in_tls)),
            (clear, true) => write!(formatter, "{clear}; TLS with {}", names(self.in_tls)),
            (clear, false) => formatter.write_str(clear),
        }
    }
}

/// One listener that is limited.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSection {
    address: String,
    protocols: Vec<ProtocolName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inside_tls: Option<Vec<ProtocolName>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_fragment_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolName {
    Mqtt,
    Device,
    WebSocket,
    Tls,
}

/// Certificates and keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    certificate: OneOrMore,
    key: OneOrMore,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crl_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_name: Option<NamePlace>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    client_certificate_optional: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

impl OneOrMore {
    fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::More(paths) => paths,
        }
    }
}

/// Who may open a WebSocket.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Vec<String>>,
}

impl ListenerSection {
    /// The listener. `has_tls` says whether there are certificates.
    pub fn checked(&self, has_tls: bool) -> Result<Listener, ConfigError> {
        let address = address("address of a [[listener]]", &self.address)?;
        let invalid = |what: &str| Err(ConfigError::Invalid(format!("the [[listener]] {address} {what}")));
        let in_clear = protocols(&self.protocols);
        let in_tls = match &self.inside_tls {
            None => Protocols::IN_TLS,
            Some(names) => protocols(names),
        };
        if in_clear == Protocols::default() {
            return invalid("has no protocols: name some of \"mqtt\", \"device\", \"websocket\", \"tls\"");
        }
        if in_clear.tls && !has_tls {
            return invalid(
                "is to speak TLS, and there is no certificate: add [tls] with certificate and key",
            );
        }
        if in_tls.tls || in_tls == Protocols::default() {
            return invalid("needs inside_tls to be some of \"mqtt\", \"device\", \"websocket\"");
        }
        if !in_clear.tls && (self.inside_tls.is_some() || self.max_fragment_bytes.is_some()) {
            return invalid(
                "doesn't speak TLS: add \"tls\" to its protocols, or take out inside_tls and max_fragment_bytes",
            );
        }
        if self.max_fragment_bytes.is_some_and(|bytes| !FRAGMENTS.contains(&bytes)) {
            return invalid("has a max_fragment_bytes that is not within 512 to 16384");
        }
        Ok(Listener { address, in_clear, in_tls, max_fragment: self.max_fragment_bytes })
    }
}

fn protocols(names: &[ProtocolName]) -> Protocols {
    let mut protocols = Protocols::default();
    for name in names {
        match name {
            ProtocolName::Mqtt => protocols.mqtt = true,
            ProtocolName::Device => protocols.device = true,
            ProtocolName::WebSocket => protocols.websocket = true,
            ProtocolName::Tls => protocols.tls = true,
        }
    }
    protocols
}

impl TlsSection {
    /// The files, which are read when the gateway starts.
    pub fn checked(&self) -> Result<TlsFiles, ConfigError> {
        let (chains, keys) = (self.certificate.all(), self.key.all());
        if chains.is_empty() || chains.len() > MAX_CERTIFICATES || chains.len() != keys.len() {
            let (chains, keys) = (chains.len(), keys.len());
            return Err(ConfigError::Invalid(format!(
                "[tls] names {chains} certificate file(s) and {keys} key file(s): it needs 1 to {MAX_CERTIFICATES}, \
                 and a key for each in the same order"
            )));
        }
        let certificates = chains.iter().cloned().zip(keys.iter().cloned()).collect();
        let uses_them =
            self.client_name.is_some() || self.client_certificate_optional || self.crl_file.is_some();
        if self.client_ca.is_none() && uses_them {
            let text = "[tls] says how clients' certificates are used, and not who signs them: add client_ca";
            return Err(ConfigError::Invalid(text.to_owned()));
        }
        let is_optional = self.client_certificate_optional;
        Ok(TlsFiles {
            certificates,
            client_ca: self.client_ca.clone(),
            is_optional,
            revoked: self.crl_file.clone(),
        })
    }

    /// Where in a client's certificate its name is, if that lets it in.
    pub fn client_name(&self) -> Option<NamePlace> {
        self.client_name
    }
}

impl WebSocketSection {
    /// The origins whose pages may connect. Without a word about them: all where everyone has to prove who he is,
    /// and only this machine's where nobody has to.
    pub fn checked(&self, has_credentials: bool) -> Result<Origins, ConfigError> {
        let Some(origins) = &self.origins else {
            return Ok(if has_credentials { Origins::Any } else { Origins::Local });
        };
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Origins::Any);
        }
        let is_origin = |text: &String| {
            text.split_once("://").is_some_and(|(scheme, host)| {
                !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', ' '])
            })
        };
        match origins.iter().find(|origin| !is_origin(origin)) {
            Some(wrong) => Err(ConfigError::Invalid(format!(
                "websocket.origins has {wrong:?}, which is no origin; write scheme://host or scheme://host:port, or \"*\" \
                 for all"
            ))),
            None if origins.len() > MAX_ORIGINS => {
                Err(ConfigError::Invalid(format!("websocket.origins has more than {MAX_ORIGINS} entries")))
            }
            None => Ok(Origins::Listed(origins.clone())),
        }
    }
}
