//! What the operator decides: a TOML file and the command line, checked and turned into types before anything
//! starts. Unknown keys are refused with the nearest known one; nothing is accepted and then ignored.

mod admin;
mod bridges;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listeners;
mod rules;

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bugle_core::hub::{Credentials, SecretEntry};
use bugle_core::model::Limits;
use bugle_core::rules::{Effect, GroupSource, Pattern, RoleSource, RuleSource, Rules};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::authentication::hook::HookSettings;
use crate::authentication::reload::CredentialsPlace;
use crate::authentication::tokens::TokenSettings;
use crate::bridge::settings::{BridgeSettings, LOCAL_ID};
use crate::cli::ServeOptions;
use crate::file_mode::{Holds, warn_if_open};
use crate::limits::LimitsSection;
use crate::store::settings::{StoreSection, StoreSettings};
use crate::transport::client_name::NamePlace;
use crate::transport::tls::TlsFiles;
use crate::transport::upgrade::Origins;
use admin::AdminApiSection;
pub use admin::{AdminApi, AdminPlace};
use bridges::BridgeSection;
pub use listeners::Listener;
use listeners::{ListenerSection, TlsSection, WebSocketSection};
pub use rules::{RulesPlace, RulesText};

/// Where clients connect unless told otherwise.
const LISTEN: &str = "127.0.0.1:1883";
/// Where health and metrics are unless told otherwise.
const ADMIN: &str = "127.0.0.1:8088";
/// Turns the admin listener off.
const NO_ADMIN: &str = "none";
/// More shards than that can't be meant.
const MAX_SHARDS: u16 = 1024;
/// Longest secret, in bytes.
const MAX_SECRET: usize = 1024;

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Certificates, if there are any.
    pub tls: Option<TlsFiles>,
    /// Where in a client's certificate its name is, if that lets it in.
    pub client_name: Option<NamePlace>,
    /// Pages that may open a WebSocket.
    pub origins: Origins,
    /// Where health and metrics are, if anywhere.
    pub admin: Option<SocketAddr>,
    /// The admin port has a WebSocket for clients: not where it would let anyone in from other machines.
    pub admin_has_websocket: bool,
    /// Who may use the admin API, if anyone.
    pub admin_api: Option<AdminApi>,
    /// Where the audit log is, if there is one.
    pub audit_log: Option<PathBuf>,
    /// How many shards.
    pub shards: u16,
    /// Where and how what must last is kept, if it is.
    pub store: Option<StoreSettings>,
    /// The first level of the signalling topics.
    pub prefix: Arc<str>,
    /// How often `$SYS` topics are published, if at all.
    pub sys_interval: Option<Duration>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// Where they are read from again; nowhere without a file.
    pub rules_place: Option<RulesPlace>,
    /// Who may come in by a secret.
    pub credentials: Arc<Credentials>,
    /// Whom to ask about credentials that nobody here knows.
    pub hook: Option<HookSettings>,
    /// Where those who may come in are read from again.
    pub credentials_place: CredentialsPlace,
    /// Other brokers that messages are exchanged with.
    pub bridges: Vec<BridgeSettings>,
}

/// Why a configuration isn't one: the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't what it should be.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why, and what may have been meant.
        message: String,
    },
    /// A value can't be used.
    #[error("{0}")]
    Invalid(String),
}

/// The configuration as it stands in a file, or is printed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<Vec<String>>,
    admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    prefix: String,
    sys_interval_seconds: u32,
    allow_anonymous: bool,
    limits: LimitsSection,
    store: StoreSection,
    websocket: WebSocketSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_log: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_api: Option<AdminApiSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsSection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listener: Vec<ListenerSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules_default: Option<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwords: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<TokenSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_hook: Option<HookSettings>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    credential: Vec<CredentialSection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rule: Vec<Spanned<RuleSource>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group: Vec<Spanned<GroupSource>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    role: Vec<Spanned<RoleSource>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bridge: Vec<BridgeSection>,
    /// Where it was read from, and all of it.
    #[serde(skip)]
    path: Option<PathBuf>,
    #[serde(skip)]
    text: String,
}

/// One client id or user, and its secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CredentialSection {
    id: String,
    secret: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clients: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            listen: None,
            admin: ADMIN.to_owned(),
            shards: None,
            data_dir: None,
            prefix: "sig".to_owned(),
            sys_interval_seconds: 10,
            allow_anonymous: false,
            limits: LimitsSection::default(),
            store: StoreSection::default(),
            websocket: WebSocketSection::default(),
            audit_log: None,
            admin_api: None,
            tls: None,
            listener: Vec::new(),
            rules: None,
            rules_default: None,
            passwords: None,
            devices: None,
            jwt: None,
            authentication_hook: None,
            credential: Vec::new(),
            rule: Vec::new(),
            group: Vec::new(),
            role: Vec::new(),
            bridge: Vec::new(),
            path: None,
            text: String::new(),
        }
    }
}

impl Config {
    /// The configuration of a `serve`: the file, with what the command line says in its place.
    pub fn load(options: &ServeOptions) -> Result<Self, ConfigError> {
        let file = read(options)?;
        let config = file.checked()?;
        file.warn_if_open();
        Ok(config)
    }

    /// The configuration as a file would have it, without secrets.
    pub fn print(options: &ServeOptions) -> Result<String, ConfigError> {
        let mut file = read(options)?;
        file.checked()?;
        file.shards = Some(file.shards());
        file.listen = Some(file.listen());
        for credential in &mut file.credential {
            "(hidden)".clone_into(&mut credential.secret);
        }
        file.bridge.iter_mut().for_each(BridgeSection::hide_secrets);
        toml::to_string(&file).map_err(|error| ConfigError::Invalid(error.to_string()))
    }

    /// Where a gateway with this configuration has its rules.
    pub fn rules_place_of(path: &Path) -> Result<RulesPlace, ConfigError> {
        let options = ServeOptions { config: Some(path.to_owned()), ..ServeOptions::default() };
        let file = read(&options)?;
        let within =
            RulesPlace { path: path.to_owned(), is_config: true, authenticates: file.authenticates() };
        Ok(file.rules_place().unwrap_or(within))
    }

    /// Where the admin API of a gateway with this configuration is.
    pub fn admin_place_of(path: &Path) -> Result<AdminPlace, ConfigError> {
        let options = ServeOptions { config: Some(path.to_owned()), ..ServeOptions::default() };
        let file = read(&options)?;
        let address = (file.admin != NO_ADMIN).then(|| file.admin.clone());
        Ok(match &file.admin_api {
            Some(section) => section.place(address),
            None => AdminPlace { address, ..AdminPlace::default() },
        })
    }

    /// For a gateway within another program, on a free port, with nothing outside of it.
    pub fn private(shards: u16) -> Result<Self, ConfigError> {
        let listen = Some(vec!["127.0.0.1:0".to_owned()]);
        let admin = NO_ADMIN.to_owned();
        ConfigFile { listen, admin, shards: Some(shards), ..ConfigFile::default() }.checked()
    }
}

fn read(options: &ServeOptions) -> Result<ConfigFile, ConfigError> {
    let mut file = match &options.config {
        None => ConfigFile::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            let file = parse(&text);
            let file = file.map_err(|message| ConfigError::Malformed { path: path.clone(), message })?;
            ConfigFile { path: Some(path.clone()), ..file }
        }
    };
    if !options.listen.is_empty() {
        file.listen = Some(options.listen.clone());
    }
    if let Some(admin) = &options.admin {
        file.admin.clone_from(admin);
    }
    file.shards = options.shards.or(file.shards);
    if options.data_dir.is_some() {
        file.data_dir.clone_from(&options.data_dir);
    }
    Ok(file)
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| explained(&error))?;
    Ok(ConfigFile { text: text.to_owned(), ..file })
}

/// What is wrong, and what may have been meant.
pub fn explained(error: &toml::de::Error) -> String {
    let hint = nearest_key(error.message()).map(|key| format!("did you mean '{key}'?\n")).unwrap_or_default();
    format!("{error}{hint}")
}

/// The known word nearest to an unknown one, from serde's message, which names the unknown one first and then all known.
fn nearest_key(message: &str) -> Option<&str> {
    if !(message.starts_with("unknown field") || message.starts_with("unknown variant")) {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

impl ConfigFile {
    fn shards(&self) -> u16 {
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_SHARDS.into()));
        self.shards.unwrap_or(cores as u16)
    }

    /// Warns of files of its own that others can read or write, and shouldn't.
    fn warn_if_open(&self) {
        let has_secrets = !self.credential.is_empty() || self.bridge.iter().any(BridgeSection::has_secret);
        let holds = if has_secrets { Holds::Secrets } else { Holds::Policy };
        self.path.iter().for_each(|path| warn_if_open(path, holds));
        self.rules.iter().for_each(|path| warn_if_open(path, Holds::Policy));
    }

    /// The default holds where nothing else is said.
    fn listen(&self) -> Vec<String> {
        match &self.listen {
            Some(listen) => listen.clone(),
            None if self.listener.is_empty() => vec![LISTEN.to_owned()],
            None => Vec::new(),
        }
    }

    fn listeners(&self) -> Result<Vec<Listener>, ConfigError> {
        let open = self.listen().into_iter().map(|text| address("listen", &text).map(Listener::open));
        let limited = self.listener.iter().map(|section| section.checked(self.tls.is_some()));
        open.chain(limited).collect()
    }

    fn checked(&self) -> Result<Config, ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        let listeners = self.listeners()?;
        if listeners.is_empty() {
            return invalid(format!("listen is empty: nobody could connect; the default is [\"{LISTEN}\"]"));
        }
        let admin = match self.admin.as_str() {
            NO_ADMIN => None,
            text => Some(address("admin", text)?),
        };
        let admin_api = self.admin_api.as_ref().map(|api| api.checked(admin, self.tls.is_some()));
        let shards = self.shards();
        if shards == 0 || shards > MAX_SHARDS {
            return invalid(format!("shards = {shards} is not within 1 to {MAX_SHARDS}"));
        }
        if self.prefix.is_empty()
            || self.prefix.len() > 64
            || self.prefix.contains(['/', '+', '#', '$', '\0', '?'])
        {
            let prefix = &self.prefix;
            return invalid(format!(
                "prefix = {prefix:?} is not one topic level of 1 to 64 bytes without '/+#$?'"
            ));
        }
        self.check_openness(&listeners)?;
        let limits = self.limits.checked().map_err(ConfigError::Invalid)?;
        let bridges = bridges::checked(&self.bridge, &self.prefix, limits.max_packet)?;
        let credentials_place = self.credentials_place(&bridges)?;
        Ok(Config {
            listeners,
            tls: self.tls.as_ref().map(TlsSection::checked).transpose()?,
            client_name: self.client_name(),
            origins: self.websocket.checked(self.authenticates())?,
            admin,
            admin_has_websocket: self.authenticates()
                || self.allow_anonymous
                || admin.is_some_and(|address| address.ip().to_canonical().is_loopback()),
            admin_api: admin_api.transpose()?,
            audit_log: self.audit_log.clone(),
            shards,
            store: self.store()?,
            prefix: self.prefix.as_str().into(),
            sys_interval: (self.sys_interval_seconds > 0)
                .then(|| Duration::from_secs(self.sys_interval_seconds.into())),
            limits: Arc::new(limits),
            rules: Arc::new(self.rules()?),
            rules_place: self.rules_place(),
            credentials: Arc::new(credentials_place.load().map_err(ConfigError::Invalid)?),
            credentials_place,
            hook: self.hook()?,
            bridges,
        })
    }

    /// Checked with or without a directory, so that a mistake in it shows at once.
    fn store(&self) -> Result<Option<StoreSettings>, ConfigError> {
        let settings = self.store.checked(self.data_dir.as_deref().unwrap_or(Path::new("")));
        let settings = settings.map_err(ConfigError::Invalid)?;
        Ok(self.data_dir.is_some().then_some(settings))
    }

    /// Without credentials everyone is let in, which nobody else on the network should be without the operator's word.
    fn check_openness(&self, listeners: &[Listener]) -> Result<(), ConfigError> {
        if !self.authenticates() {
            let mut addresses = listeners.iter().map(|listener| listener.address);
            let open = addresses.find(|address| !address.ip().to_canonical().is_loopback());
            return match open {
                Some(address) if !self.allow_anonymous => Err(ConfigError::Invalid(format!(
                    "{address} can be reached from other machines, and no credentials are configured: anyone could \
                     send anything. Add [[credential]] entries with id and secret, passwords or devices to the file given by --config, or \
                     say allow_anonymous = true there if that is what you want"
                ))),
                _ => Ok(()),
            };
        }
        if self.allow_anonymous {
            let text = "allow_anonymous = true excludes [[credential]], passwords and devices: take it, or them, out";
            return Err(ConfigError::Invalid(text.to_owned()));
        }
        Ok(())
    }

    /// Whether clients have to prove who they are.
    fn authenticates(&self) -> bool {
        let has_secrets = !self.credential.is_empty() || self.passwords.is_some() || self.devices.is_some();
        has_secrets
            || self.jwt.is_some()
            || self.authentication_hook.is_some()
            || self.client_name().is_some()
    }

    fn hook(&self) -> Result<Option<HookSettings>, ConfigError> {
        let checked = self.authentication_hook.as_ref().map(HookSettings::address).transpose();
        checked.map_err(ConfigError::Invalid)?;
        Ok(self.authentication_hook.clone())
    }

    fn client_name(&self) -> Option<NamePlace> {
        self.tls.as_ref().and_then(TlsSection::client_name)
    }

    /// The rules of the file that is named, or of the tables here.
    fn rules(&self) -> Result<Rules, ConfigError> {
        let within = RulesText::within(self);
        match self.rules_place() {
            Some(place) if !place.is_config => {
                if !within.is_empty() {
                    let text = "rules = \"FILE\" and rules_default, [[rule]], [[group]] or [[role]] exclude each other: \
                                move the tables into that file";
                    return Err(ConfigError::Invalid(text.to_owned()));
                }
                place.load()
            }
            place => within.compile(self.authenticates()).map_err(|message| match place {
                Some(place) => ConfigError::Malformed { path: place.path, message },
                None => ConfigError::Invalid(message),
            }),
        }
    }

    fn rules_place(&self) -> Option<RulesPlace> {
        let authenticates = self.authenticates();
        match (&self.rules, &self.path) {
            (Some(path), _) => Some(RulesPlace { path: path.clone(), is_config: false, authenticates }),
            (None, Some(path)) => Some(RulesPlace { path: path.clone(), is_config: true, authenticates }),
            (None, None) => None,
        }
    }

    fn credentials_place(&self, bridges: &[BridgeSettings]) -> Result<CredentialsPlace, ConfigError> {
        let (devices, passwords) = (self.devices.clone(), self.passwords.clone());
        let (tokens, has_others) =
            (self.jwt.clone(), self.client_name().is_some() || self.authentication_hook.is_some());
        if !self.authenticates() {
            return Ok(CredentialsPlace { fixed: Vec::new(), devices, passwords, tokens, has_others });
        }
        let mut seen = HashSet::new();
        for CredentialSection { id, secret, .. } in &self.credential {
            let fault = if id.is_empty() {
                "has no id"
            } else if secret.is_empty() || secret.len() > MAX_SECRET {
                "needs a secret of 1 to 1024 bytes"
            } else if !seen.insert(id) {
                "is there twice"
            } else {
                continue;
            };
            return Err(ConfigError::Invalid(format!("the [[credential]] with id = {id:?} {fault}")));
        }
        let entries = self.credential.iter().map(|one| SecretEntry {
            id: one.id.clone(),
            secret: one.secret.clone().into_bytes().into(),
            clients: one.clients.iter().map(|pattern| Pattern::new(pattern)).collect(),
            roles: one.roles.iter().map(|role| role.as_str().into()).collect(),
        });
        let own = bridges.iter().map(|bridge| SecretEntry {
            id: bridge.local_id(),
            secret: bridge.local_password.clone().into_bytes().into(),
            clients: Vec::new(),
            roles: Vec::new(),
        });
        if let Some(SecretEntry { id, .. }) = own.clone().find(|bridge| seen.contains(&bridge.id)) {
            return Err(ConfigError::Invalid(format!(
                "the [[credential]] with id = {id:?} has the client id of a [[bridge]], which is {LOCAL_ID:?} with its name \
                 and needs no secret: take it out, or rename the bridge"
            )));
        }
        Ok(CredentialsPlace { fixed: entries.chain(own).collect(), devices, passwords, tokens, has_others })
    }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // Fuzzers ask nobody for names.
    let found = if cfg!(fuzzing) { None } else { text.to_socket_addrs().ok().and_then(|mut all| all.next()) };
    found.ok_or_else(|| {
        ConfigError::Invalid(format!(
            "{key} = {text:?} is no address; write host:port, as 127.0.0.1:1883 or [::1]:1883"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::settings::Durability;

    fn checked(text: &str) -> Result<Config, String> {
        parse(text)?.checked().map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        match checked(text) {
            Ok(_) => panic!("{text:?} was taken"),
            Err(error) => assert!(error.contains(expected), "{error}"),
        }
    }

    #[test]
    fn an_empty_file_is_the_default_on_loopback() {
        let config = checked("").unwrap();
        assert_eq!(config.listeners, [Listener::open(LISTEN.parse().unwrap())]);
        assert_eq!((config.tls, config.origins), (None, Origins::Local));
        assert_eq!(config.admin, Some(ADMIN.parse().unwrap()));
        assert_eq!(*config.limits, Limits::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        refused("lisen = []", "did you mean 'listen'?");
        refused("[limits]\nmailbox_message = 3", "did you mean 'mailbox_messages'?");
        refused("[[credential]]\nid = 'a'\nsecert = 'b'", "did you mean 'secret'?");
    }

    #[test]
    fn a_listener_for_everyone_without_credentials_is_refused() {
        refused("listen = ['0.0.0.0:1883']", "allow_anonymous");
        refused("listen = ['[::]:1883']", "allow_anonymous");
        refused("listen = ['127.0.0.1:1883', '192.0.2.1:1883']", "192.0.2.1:1883");
        assert!(checked("listen = ['0.0.0.0:1883']\nallow_anonymous = true").is_ok());
        let credential = "rules_default = 'allow'\n[[credential]]\nid = 'a'\nsecret = 'b'";
        assert!(checked(&format!("listen = ['0.0.0.0:1883']\n{credential}")).is_ok());
    }

    #[test]
    fn an_admin_port_for_other_machines_was_a_way_in_for_anyone() {
        let has = |text: &str| checked(text).unwrap().admin_has_websocket;
        assert!(has("") && has("admin = '[::1]:8088'"));
        assert!(!has("admin = '0.0.0.0:8088'") && !has("admin = '192.0.2.1:8088'"));
        assert!(has("admin = '0.0.0.0:8088'\nallow_anonymous = true"));
        assert!(has(
            "admin = '0.0.0.0:8088'\nrules_default = 'allow'\n[[credential]]\nid = 'a'\nsecret = 'b'"
        ));
        let api = |more: &str| format!("admin = '0.0.0.0:8088'\n[admin_api]\noperators = 'o'\n{more}");
        refused(&api(""), "admin_api.allow_clear_text");
        refused(&api("tls = true"), "add [tls]");
        refused(&api("allow_clear_text = true\nrequests_per_second = 0"), "requests_per_second = 0");
        refused("admin = 'none'\n[admin_api]\noperators = 'o'", "take one of them out");
        refused("[admin_api]\noperator = 'o'", "did you mean 'operators'?");
        assert!(checked(&api("allow_clear_text = true")).is_ok());
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        refused("listen = ['1883']", "listen = \"1883\"");
        refused("listen = []", "listen is empty");
        refused("shards = 0", "shards = 0");
        refused("prefix = 'a/b'", "prefix = \"a/b\"");
        refused("[[credential]]\nid = 'a'\nsecret = ''", "id = \"a\"");
        refused("[limits]\nclients_per_shard = 0", "limits.clients_per_shard = 0");
        refused("[store]\ncache_mib = 0", "store.cache_mib = 0");
        refused("[store]\ndurability = 'fsyncs'", "did you mean 'fsync'?");
    }

    #[test]
    fn there_is_a_store_where_there_is_a_directory_for_it() {
        assert_eq!(checked("[store]\ndurability = 'os'").unwrap().store, None);
        let store = checked("data_dir = '/data'\n[store]\ndurability = 'os'").unwrap().store.unwrap();
        assert_eq!((store.directory, store.durability), ("/data".into(), Durability::Os));
    }

    #[test]
    fn listeners_are_limited_to_what_they_name() {
        let tls = "[tls]\ncertificate = 'a.pem'\nkey = 'a.key'\n";
        let one = |lines: &str| format!("{tls}[[listener]]\naddress = '127.0.0.1:8883'\n{lines}");
        let config =
            checked(&one("protocols = ['tls']\ninside_tls = ['mqtt']\nmax_fragment_bytes = 4096")).unwrap();
        let [listener] = config.listeners.as_slice() else { panic!("there is one listener, and no default") };
        assert!(listener.in_clear.tls && !listener.in_clear.mqtt);
        assert!(listener.in_tls.mqtt && !listener.in_tls.device);
        assert_eq!(listener.max_fragment, Some(4096));
        let two = "listen = ['127.0.0.1:1']\n".to_owned() + &one("protocols = ['mqtt']");
        assert_eq!(checked(&two).unwrap().listeners.len(), 2);
        refused("[[listener]]\naddress = '127.0.0.1:1'\nprotocols = ['tls']", "add [tls]");
        refused("[[listener]]\naddress = '127.0.0.1:1'\nprotocols = []", "has no protocols");
        refused("[[listener]]\naddress = '127.0.0.1:1'\nprotocols = ['mqttt']", "mqttt");
        refused("[[listener]]\naddress = '192.0.2.1:1'\nprotocols = ['mqtt']", "allow_anonymous");
        refused(&one("protocols = ['mqtt']\ninside_tls = ['mqtt']"), "doesn't speak TLS");
        refused(&one("protocols = ['tls']\ninside_tls = ['tls']"), "needs inside_tls");
        refused(&one("protocols = ['tls']\nmax_fragment_bytes = 64"), "max_fragment_bytes");
        refused(&one("protocol = ['tls']"), "did you mean 'protocols'?");
    }

    #[test]
    fn certificates_come_with_their_keys() {
        let config = checked("[tls]\ncertificate = ['a.pem', 'b.pem']\nkey = ['a.key', 'b.key']").unwrap();
        assert_eq!(config.tls.unwrap().certificates[1], ("b.pem".into(), "b.key".into()));
        refused(
            "[tls]\ncertificate = ['a.pem', 'b.pem']\nkey = 'a.key'",
            "2 certificate file(s) and 1 key file(s)",
        );
        refused("[tls]\ncertificate = 'a.pem'", "missing field `key`");
    }

    #[test]
    fn pages_are_kept_out_where_nobody_has_to_prove_who_he_is() {
        let credential = "rules_default = 'allow'\n[[credential]]\nid = 'a'\nsecret = 'b'\n";
        assert_eq!(checked(credential).unwrap().origins, Origins::Any);
        assert_eq!(checked("[websocket]\norigins = ['*']").unwrap().origins, Origins::Any);
        let listed = checked("[websocket]\norigins = ['https://app.example']").unwrap();
        assert_eq!(listed.origins, Origins::Listed(vec!["https://app.example".to_owned()]));
        refused("[websocket]\norigins = ['app.example']", "\"app.example\"");
        refused("[websocket]\norigin = []", "did you mean 'origins'?");
    }

    #[test]
    fn rules_are_compiled_or_refused() {
        assert!(checked("rules_default = 'deny'\n[[rule]]\neffect = 'allow'\nclients = ['app']").is_ok());
        refused("[[rule]]\neffect = 'allow'\nclint = ['app']", "did you mean 'clients'?");
        refused("rules = 'r.toml'\n[[rule]]\neffect = 'allow'", "exclude each other");
        refused("rules = 'no-such-rules.toml'", "cannot read no-such-rules.toml");
        refused("[[rule]]\neffect = 'allow'\ntopics = ['a/#/b']", "'a/#/b' is no topic filter");
        refused("rules_default = 'maybe'", "maybe");
    }

    #[test]
    fn with_credentials_what_no_rule_allows_is_denied() {
        use bugle_core::rules::{Action, Actor, Object, decide};
        let credential = "[[credential]]\nid = 'a'\nsecret = 'b'\n";
        refused(credential, "nobody could do anything");
        let may = |text: &str| {
            let rules = checked(text).unwrap().rules;
            decide(Actor::anonymous("a"), Action::Join, Object::Group("g"), &rules).allowed
        };
        let rule = "[[rule]]\neffect = 'allow'\nactions = ['send']\n";
        assert!(!may(&format!("{credential}{rule}")));
        assert!(may(&format!("rules_default = 'allow'\n{credential}{rule}")));
        assert!(may(rule));
    }

    #[test]
    fn what_is_printed_can_be_read_again_and_has_no_secrets() {
        let mut file = parse("[[credential]]\nid = 'lamp-1'\nsecret = 'opensesame'").unwrap();
        "(hidden)".clone_into(&mut file.credential[0].secret);
        let printed = toml::to_string(&file).unwrap();
        assert!(parse(&printed).is_ok(), "{printed}");
        let options = ServeOptions::default();
        assert!(Config::print(&options).unwrap().contains("signals_per_second = 100"));
    }
}
