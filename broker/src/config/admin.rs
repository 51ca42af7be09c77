//! The admin API in the configuration: `[admin_api]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Requests a second of one operator, at most.
const MAX_RATE: u32 = 10_000;

/// Who may use the API, and by what.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminApiSection {
    operators: PathBuf,
    #[serde(default = "default_rate")]
    requests_per_second: u32,
    /// For the commands on this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tls: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_clear_text: bool,
}

fn default_rate() -> u32 {
    50
}

/// The same, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminApi {
    /// The file of operators.
    pub operators: PathBuf,
    /// Requests a second of one operator.
    pub requests_per_second: u32,
    /// The admin port speaks TLS alone.
    pub is_tls: bool,
}

/// Where the admin API is, and what it takes to use it, for the commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPlace {
    /// The address of the admin port.
    pub address: Option<String>,
    /// It speaks TLS.
    pub is_tls: bool,
    /// A file with an operator's token.
    pub token_file: Option<PathBuf>,
    /// Who signed its certificate.
    pub ca: Option<PathBuf>,
}

impl AdminApiSection {
    /// With an admin port at this address.
    pub fn place(&self, address: Option<String>) -> AdminPlace {
        AdminPlace { address, is_tls: self.tls, token_file: self.token_file.clone(), ca: self.ca.clone() }
    }

    /// For an admin port at this address. `has_tls` says whether there are certificates.
    pub fn checked(&self, admin: Option<SocketAddr>, has_tls: bool) -> Result<AdminApi, ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        let Self { operators, requests_per_second, tls, allow_clear_text, .. } = self.clone();
        let Some(admin) = admin else {
            return invalid(
                "[admin_api] is on the admin port, and admin = \"none\": take one of them out".to_owned(),
            );
        };
        if tls && !has_tls {
            return invalid(
                "admin_api.tls = true needs certificates: add [tls] with certificate and key".to_owned(),
            );
        }
        if !tls && !allow_clear_text && !admin.ip().to_canonical().is_loopback() {
            return invalid(format!(
                "the admin port {admin} can be reached from other machines, and operators' tokens would cross the network in the \
                 clear. Say admin_api.tls = true, or admin_api.allow_clear_text = true if that is what you want"
            ));
        }
        if requests_per_second == 0 || requests_per_second > MAX_RATE {
            return invalid(format!(
                "admin_api.requests_per_second = {requests_per_second} is not within 1 to {MAX_RATE}"
            ));
        }
        Ok(AdminApi { operators, requests_per_second, is_tls: tls })
    }
}
