//! Other MQTT brokers that messages are exchanged with: the `[[bridge]]` tables.

use std::path::PathBuf;
use std::time::Duration;

use bugle_protocol::MAX_NAME;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::bridge::Version;
use crate::bridge::pattern::{Pattern, Way, is_filter, overlap};
use crate::bridge::settings::{BridgeSettings, BridgeTls, LOCAL_ID, PasswordSource};

/// Most bridges.
const MAX_BRIDGES: usize = 64;
/// Most patterns of one.
const MAX_PATTERNS: usize = 256;

/// One bridge as it stands in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeSection {
    name: String,
    address: String,
    client_id: String,
    #[serde(default)]
    mqtt: VersionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
    #[serde(default = "keep_alive")]
    keep_alive_seconds: u16,
    #[serde(default = "session_expiry")]
    session_expiry_seconds: u32,
    #[serde(default = "in_flight")]
    in_flight: u16,
    #[serde(default = "reconnect_min")]
    reconnect_min_ms: u64,
    #[serde(default = "reconnect_max")]
    reconnect_max_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<BridgeTlsSection>,
    #[serde(default)]
    topic: Vec<TopicSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
enum VersionName {
    #[serde(rename = "3.1.1")]
    V311,
    #[default]
    #[serde(rename = "5")]
    V5,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BridgeTlsSection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TopicSection {
    pattern: String,
    direction: Direction,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    local_prefix: String,
    #[serde(default)]
    remote_prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    In,
    Out,
    Both,
}

fn keep_alive() -> u16 {
    60
}

fn session_expiry() -> u32 {
    7 * 24 * 3600
}

fn in_flight() -> u16 {
    100
}

fn reconnect_min() -> u64 {
    1000
}

fn reconnect_max() -> u64 {
    60_000
}

/// All bridges, checked. `prefix` is that of signalling topics, `max_packet` a limit in bytes.
pub fn checked(
    sections: &[BridgeSection],
    prefix: &str,
    max_packet: usize,
) -> Result<Vec<BridgeSettings>, ConfigError> {
    if sections.len() > MAX_BRIDGES {
        return Err(ConfigError::Invalid(format!("there are more than {MAX_BRIDGES} [[bridge]] tables")));
    }
    let mut bridges: Vec<BridgeSettings> = Vec::new();
    for section in sections {
        let bridge = section.checked(prefix, max_packet).map_err(|text| section.invalid(&text))?;
        if bridges.iter().any(|other| other.name == bridge.name) {
            return Err(section.invalid("is there twice: each needs a name of its own"));
        }
        bridges.push(bridge);
    }
    Ok(bridges)
}

impl BridgeSection {
    /// Whether a password stands in it.
    pub fn has_secret(&self) -> bool {
        self.password.is_some()
    }

    /// What must not be shown.
    pub fn hide_secrets(&mut self) {
        if let Some(password) = &mut self.password {
            "(hidden)".clone_into(password);
        }
    }

    fn invalid(&self, text: &str) -> ConfigError {
        ConfigError::Invalid(format!("the [[bridge]] {:?} {text}", self.name))
    }

    fn checked(&self, prefix: &str, max_packet: usize) -> Result<BridgeSettings, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        let longest = MAX_NAME - LOCAL_ID.len();
        if self.name.is_empty() || self.name.len() > longest || !self.name.bytes().all(is_name) {
            return Err(format!("needs a name of 1 to {longest} of A-Z a-z 0-9 . _ : -"));
        }
        let (host, port) = self.host_and_port()?;
        if self.client_id.is_empty() || self.client_id.len() > 65_535 {
            return Err("needs a client_id, which no other client of the far broker has".to_owned());
        }
        within("keep_alive_seconds", self.keep_alive_seconds.into(), 5, 65_535)?;
        within("in_flight", self.in_flight.into(), 1, 1000)?;
        within("reconnect_min_ms", self.reconnect_min_ms, 10, 3_600_000)?;
        within("reconnect_max_ms", self.reconnect_max_ms, self.reconnect_min_ms, 3_600_000)?;
        let version = match self.mqtt {
            VersionName::V311 => Version::V311,
            VersionName::V5 => Version::V5,
        };
        let tls = match &self.tls {
            None => None,
            Some(section) => {
                Some(section.load(&host).map_err(|text| format!("has a tls that can't be used: {text}"))?)
            }
        };
        Ok(BridgeSettings {
            name: self.name.as_str().into(),
            host,
            port,
            version,
            client_id: self.client_id.clone(),
            login: self.login(version)?,
            keep_alive: self.keep_alive_seconds,
            session_expiry: self.session_expiry_seconds,
            in_flight: self.in_flight,
            max_packet,
            back_off: (
                Duration::from_millis(self.reconnect_min_ms),
                Duration::from_millis(self.reconnect_max_ms),
            ),
            tls,
            patterns: self.patterns(version, prefix)?,
            local_password: random_password()?,
        })
    }

    fn host_and_port(&self) -> Result<(String, u16), String> {
        let parts = self.address.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
            (!host.is_empty()).then_some(())?;
            Some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
        });
        parts.ok_or_else(|| {
            format!("has the address {:?}; write host:port, as broker.example:1883", self.address)
        })
    }

    fn login(&self, version: Version) -> Result<(String, String), String> {
        let source = match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => {
                return Err("has password and password_file: take one of them out".to_owned());
            }
            (Some(password), None) => Some(PasswordSource::Given(password.clone())),
            (None, Some(path)) => Some(PasswordSource::File(path.clone())),
            (None, None) => None,
        };
        let password = source.map(|source| source.read()).transpose()?.unwrap_or_default();
        let username = self.username.clone().unwrap_or_default();
        if version == Version::V311 && username.is_empty() && !password.is_empty() {
            return Err("has a password and no username, which MQTT 3.1.1 doesn't have".to_owned());
        }
        if username.len().max(password.len()) > 65_535 {
            return Err("has a username or password of more than 65535 bytes".to_owned());
        }
        Ok((username, password))
    }

    fn patterns(&self, version: Version, prefix: &str) -> Result<Vec<Pattern>, String> {
        if self.topic.is_empty() || self.topic.len() > MAX_PATTERNS {
            return Err(format!("needs 1 to {MAX_PATTERNS} [[bridge.topic]] tables"));
        }
        let patterns: Vec<Pattern> =
            self.topic.iter().map(|topic| topic.checked(prefix)).collect::<Result<_, _>>()?;
        for (index, one) in patterns.iter().enumerate() {
            for other in &patterns[index + 1..] {
                for way in Way::ALL {
                    let (first, second) = (one.source_filter(way), other.source_filter(way));
                    if one.goes(way) && other.goes(way) && overlap(&first, &second) {
                        return Err(format!(
                            "has {first:?} and {second:?} with direction {:?}, and a topic may be in both: it could \
                             only go one of the two ways",
                            way.key()
                        ));
                    }
                }
            }
        }
        if version == Version::V311 {
            no_way_back(&patterns)?;
        }
        Ok(patterns)
    }
}

/// In MQTT 3.1.1 a far broker sends a client what it has published itself, and nothing tells that it is the same.
fn no_way_back(patterns: &[Pattern]) -> Result<(), String> {
    for into in patterns.iter().filter(|pattern| pattern.is_in) {
        for out in patterns.iter().filter(|pattern| pattern.is_out) {
            let (into, out) = (into.remote_filter(), out.remote_filter());
            if overlap(&into, &out) {
                return Err(format!(
                    "takes {into:?} in and {out:?} out, and the far broker would send back what goes out, for ever: \
                     with mqtt = \"5\" it doesn't; in 3.1.1 each direction needs topics of its own there, by another \
                     remote_prefix"
                ));
            }
        }
    }
    Ok(())
}

impl TopicSection {
    fn checked(&self, prefix: &str) -> Result<Pattern, String> {
        let pattern = Pattern {
            is_in: self.direction != Direction::Out,
            is_out: self.direction != Direction::In,
            qos: self.qos,
            local_prefix: self.local_prefix.clone(),
            remote_prefix: self.remote_prefix.clone(),
            topic: self.pattern.clone(),
        };
        let of = format!("with the pattern {:?}", self.pattern);
        if self.qos > 2 {
            return Err(format!("{of} has qos = {}, which is not within 0 to 2", self.qos));
        }
        for (key, text) in [("local_prefix", &self.local_prefix), ("remote_prefix", &self.remote_prefix)] {
            if text.contains(['+', '#']) {
                return Err(format!("{of} has {key} = {text:?}: a prefix has no wildcards"));
            }
        }
        for filter in [pattern.local_filter(), pattern.remote_filter()] {
            if !is_filter(&filter) {
                return Err(format!("{of}: {filter:?}, the prefix with the pattern, is no topic filter"));
            }
        }
        // A filter whose wildcard takes them in with others is fine: signals are left out of it.
        if pattern.local_filter().split('/').next() == Some(prefix) {
            return Err(format!(
                "{of} is about {prefix}/, whose topics are signals: they are judged, counted and answered by this gateway \
                 and mean nothing elsewhere. Send them at the gateway that its recipients are connected to"
            ));
        }
        Ok(pattern)
    }
}

impl BridgeTlsSection {
    fn load(&self, host: &str) -> Result<BridgeTls, String> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
            (None, None) => None,
            _ => return Err("certificate and key belong together".to_owned()),
        };
        BridgeTls::load(self.server_name.as_deref().unwrap_or(host), self.ca.as_deref(), identity)
    }
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("has {key} = {value}, which is not within {least} to {most}"))
}

/// Known to nobody, for one run of the process.
fn random_password() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked_text(bridge: &str, topics: &str) -> Result<Vec<BridgeSettings>, String> {
        #[derive(Deserialize)]
        struct File {
            bridge: Vec<BridgeSection>,
        }
        let text = format!(
            "[[bridge]]\nname = 'cloud'\naddress = 'broker.example:1883'\nclient_id = 'site-7'\n{bridge}\n{topics}"
        );
        let file: File = toml::from_str(&text).map_err(|error| error.to_string())?;
        checked(&file.bridge, "sig", 1024).map_err(|error| error.to_string())
    }

    fn topic(lines: &str) -> String {
        format!("[[bridge.topic]]\n{lines}\n")
    }

    #[track_caller]
    fn refused(bridge: &str, topics: &str, expected: &str) {
        match checked_text(bridge, topics) {
            Ok(_) => panic!("{bridge} {topics} was taken"),
            Err(error) => assert!(error.contains(expected), "{error}"),
        }
    }

    #[test]
    fn a_bridge_is_what_its_table_says() {
        let topics = topic("pattern = 'a/#'\ndirection = 'both'\nqos = 2\nremote_prefix = 'site-7/'");
        let bridges = checked_text("mqtt = '5'\nusername = 'u'\npassword = 'p'", &topics).unwrap();
        let [bridge] = bridges.as_slice() else { panic!("one bridge") };
        assert_eq!((&*bridge.host, bridge.port), ("broker.example", 1883));
        assert_eq!(bridge.local_id(), "bridge.cloud");
        assert_eq!(bridge.login, ("u".to_owned(), "p".to_owned()));
        assert_eq!(bridge.patterns[0].remote_filter(), "site-7/a/#");
        assert_eq!(bridge.back_off, (Duration::from_secs(1), Duration::from_secs(60)));
    }

    #[test]
    fn the_example_of_the_document_is_one() {
        let document = include_str!("../../../docs/bridge.md");
        let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        // Its files are the reader's.
        let without_files = |line: &&str| !line.contains("_file =") && !line.starts_with("ca =");
        let example: String = example.lines().filter(without_files).map(|line| format!("{line}\n")).collect();
        let table: toml::Table = toml::from_str(&example).unwrap();
        let bridges: Vec<BridgeSection> = table["bridge"].clone().try_into().unwrap();
        let filters: Vec<_> = checked(&bridges, "sig", 1024).unwrap()[0]
            .patterns
            .iter()
            .map(|pattern| (pattern.local_filter(), pattern.remote_filter()))
            .collect();
        let expected = [("sensors/#", "site-7/sensors/#"), ("cloud/commands/+", "site-7/commands/+")];
        assert_eq!(filters, expected.map(|(here, there)| (here.to_owned(), there.to_owned())));
    }

    #[test]
    fn values_that_cannot_be_used_are_named_with_the_bridge() {
        let good = topic("pattern = 'a'\ndirection = 'out'");
        refused("", "", "the [[bridge]] \"cloud\" needs 1 to 256 [[bridge.topic]]");
        refused("in_flight = 0", &good, "in_flight = 0");
        refused("reconnect_max_ms = 10", &good, "reconnect_max_ms = 10, which is not within 1000");
        refused("password = 'p'\npassword_file = 'f'", &good, "take one of them out");
        refused("mqtt = '3.1.1'\npassword = 'p'", &good, "no username");
        refused("mqtt = '3'", &good, "`3.1.1`");
        refused("[bridge.tls]\nca = '/nowhere'", &good, "/nowhere");
        refused("[bridge.tls]\ncertificate = 'a'", &good, "belong together");
        refused("", &topic("pattern = 'a#'\ndirection = 'out'"), "no topic filter");
        refused("", &topic("pattern = 'a'\ndirection = 'out'\nqos = 3"), "qos = 3");
        refused("", &topic("pattern = 'a'\ndirection = 'in'\nlocal_prefix = '+/'"), "no wildcards");
        refused("", &topic("pattern = '$share/g/a'\ndirection = 'in'"), "no topic filter");
        let twice = "[[bridge]]\nname = 'cloud'\naddress = 'b:1'\nclient_id = 'c'\n";
        refused("", &format!("{good}{twice}{good}"), "is there twice");
    }

    #[test]
    fn signals_stay_at_their_gateway() {
        refused("", &topic("pattern = 'sig/g/floor'\ndirection = 'out'"), "are signals");
        refused("", &topic("pattern = 'g/floor'\ndirection = 'in'\nlocal_prefix = 'sig/'"), "are signals");
        assert!(checked_text("", &topic("pattern = '#'\ndirection = 'out'")).is_ok());
        assert!(
            checked_text(
                "",
                &topic("pattern = 'x'\ndirection = 'in'\nremote_prefix = 'sig/'\nlocal_prefix = 'y/'")
            )
            .is_ok()
        );
    }

    #[test]
    fn a_topic_has_one_way() {
        let two = topic("pattern = '#'\ndirection = 'out'") + &topic("pattern = 'a/b'\ndirection = 'both'");
        refused("", &two, "a topic may be in both");
        let two = topic("pattern = '#'\ndirection = 'out'") + &topic("pattern = 'a/b'\ndirection = 'in'");
        assert!(checked_text("", &two).is_ok());
    }

    #[test]
    fn what_would_come_back_for_ever_in_3_1_1_is_refused() {
        let both = topic("pattern = 'a/#'\ndirection = 'both'");
        refused("mqtt = '3.1.1'", &both, "for ever");
        assert!(checked_text("mqtt = '5'", &both).is_ok());
        let apart = topic("pattern = 'a/#'\ndirection = 'out'\nremote_prefix = 'up/'")
            + &topic("pattern = 'a/#'\ndirection = 'in'\nremote_prefix = 'down/'");
        assert!(checked_text("mqtt = '3.1.1'", &apart).is_ok());
    }
}
