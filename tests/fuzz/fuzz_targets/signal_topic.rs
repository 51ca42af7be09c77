//! Signal topics with their options (T1), against a second reading of docs/topics.md: what is taken, and as what.
//!
//! An input is lines: the topic below `sig/`, then user properties as `key=value`; a line of digits alone is the message
//! expiry.
#![no_main]

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use bugle_core::model::{
    Command, Connected, Identity, Instant, Limits, ReceiptMode, Recipients, Reply, Signal, Target,
};
use bugle_core::mqtt::{
    Connect, Packet, Properties, Property, PropertyWriter, Publish, QoS, Version, encode, topic,
};
use bugle_core::session::{Protocol, Session, SessionConfig};
use libfuzzer_sys::fuzz_target;

const NOW: Instant = Instant::from_millis(1000);

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    let mut lines = input.split('\n');
    let rest = lines.next().unwrap_or_default();
    let name = format!("sig/{rest}");
    if !topic::is_valid_name(&name) || input.contains('\0') {
        return;
    }
    let mut expiry = None;
    let mut properties = Vec::new();
    for line in lines {
        match (line.parse::<u32>(), line.split_once('=')) {
            (Ok(seconds), _) => expiry = Some(seconds),
            (_, Some(pair)) => properties.push(pair),
            _ => {}
        }
    }
    // What was read before is kept, and must not be taken for what comes next.
    let (plain, whole) = ((&[][..], None), (&properties[..], expiry));
    let mut sender = Sender::new();
    for (turn, (properties, expiry)) in [plain, whole, whole, plain].into_iter().enumerate() {
        let told = sender.send(&name, properties, expiry);
        assert_eq!(told, read(rest, properties, expiry), "{input:?}, turn {turn}");
    }
});

/// A client whose session in the gateway is asked.
struct Sender {
    session: Session,
    packets: u16,
}

impl Sender {
    fn new() -> Self {
        let config = SessionConfig { prefix: "sig".into(), limits: Arc::new(Limits::default()) };
        let mut session = Session::new(Protocol::Mqtt, Arc::new(config), NOW);
        let connect = Connect {
            version: Version::V5,
            client_id: "app",
            clean_start: true,
            keep_alive: 0,
            username: None,
            password: None,
            will: None,
            properties: Properties::EMPTY,
        };
        let mut packet = Vec::new();
        encode(&Packet::Connect(connect), Version::V5, &mut packet).expect("a good packet");
        assert!(matches!(session.handle_bytes(&mut &packet[..], NOW), Some(Command::Connect(_))));
        session.handle_reply(
            Reply::Connected(Connected {
                identity: Identity::new("app"),
                assigned: false,
                session: 1,
                session_present: false,
                lasts: false,
                session_expiry: 0,
                authentication: None,
            }),
            NOW,
        );
        Self { session, packets: 0 }
    }

    /// What the session makes of it; none if it refuses it.
    fn send(&mut self, name: &str, properties: &[(&str, &str)], expiry: Option<u32>) -> Option<Read> {
        self.packets += 1;
        let mut writer = PropertyWriter::new();
        writer.extend(expiry.map(Property::MessageExpiryInterval));
        writer.extend(properties.iter().map(|(key, value)| Property::UserProperty(key, value)));
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: name,
            packet_id: NonZeroU16::new(self.packets),
            properties: writer.finish().expect("they fit"),
            payload: b"on",
        };
        let mut packet = Vec::new();
        encode(&Packet::Publish(publish), Version::V5, &mut packet).expect("the topic is one");
        match self.session.handle_bytes(&mut &packet[..], NOW) {
            Some(Command::Send { signal, refusable: true, .. }) => Some(Read::of(&signal)),
            Some(Command::Refuse { refusal, .. }) => {
                assert!(!refusal.text.is_empty() && refusal.text.len() < 1000, "{refusal:?}");
                None
            }
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    to_client: bool,
    name: String,
    only: Option<BTreeSet<String>>,
    except: BTreeSet<String>,
    ttl: Option<u32>,
    receipt: u8,
    flags: [bool; 3],
    id: Option<String>,
}

impl Read {
    fn of(signal: &Signal<'_>) -> Self {
        let ids =
            |list: &bugle_core::model::RecipientList| list.iter().map(|id| id.as_str().to_owned()).collect();
        let (to_client, name, only, except) = match signal.target() {
            Target::Client(id) => (true, id.as_str(), None, BTreeSet::new()),
            Target::Group { group, recipients, except } => {
                let only = match recipients {
                    Recipients::All => None,
                    Recipients::Only(only) => Some(ids(only)),
                };
                (false, group.as_str(), only, ids(except))
            }
        };
        let options = signal.options();
        Self {
            to_client,
            name: name.to_owned(),
            only,
            except,
            ttl: options.ttl,
            receipt: [ReceiptMode::None, ReceiptMode::Summary, ReceiptMode::Each]
                .iter()
                .position(|mode| *mode == options.receipt)
                .expect("one of three") as u8,
            flags: [options.store, options.echo, options.urgent],
            id: options.id.as_ref().map(|id| id.as_str().to_owned()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    !text.is_empty() && text.len() <= 64 && text.chars().all(good)
}

/// The second reading: none where it is to be refused.
fn read(rest: &str, properties: &[(&str, &str)], expiry: Option<u32>) -> Option<Read> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, name) = path.split_once('/')?;
    if !["g", "c"].contains(&place) || !is_name(name) {
        return None;
    }
    let mut given: Vec<(String, String, bool)> = Vec::new();
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        if !["only", "except", "ttl", "receipt", "store", "id", "echo", "urgent"].contains(&key) {
            return None;
        }
        given.push((key.to_owned(), percent_decoded(value)?, true));
    }
    for (key, value) in properties {
        if *key == "from" {
            return None;
        }
        given.push(((*key).to_owned(), (*value).to_owned(), false));
    }
    let one = |key: &str| -> Option<Option<&str>> {
        let all: Vec<_> = given.iter().filter(|(name, ..)| name == key).collect();
        // Only a user property may say again what is said already.
        let repeats = all.iter().skip(1).all(|(_, value, in_query)| !in_query && *value == all[0].1);
        repeats.then(|| all.first().map(|(_, value, _)| value.as_str()))
    };
    let list = |key: &str| -> Option<Option<Vec<&str>>> {
        let all: Vec<_> = given.iter().filter(|(name, ..)| name == key).collect();
        if all.is_empty() {
            return Some(None);
        }
        let entries: Vec<_> = all
            .iter()
            .filter(|(_, value, _)| !value.is_empty())
            .flat_map(|(_, value, _)| value.split(','))
            .collect();
        (entries.len() <= 128 && entries.iter().all(|entry| is_name(entry))).then_some(Some(entries))
    };
    let flag = |key| match one(key)? {
        None | Some("0") => Some(false),
        Some("1") => Some(true),
        Some(_) => None,
    };
    let (only, except) = (list("only")?, list("except")?);
    let to_client = place == "c";
    if only.as_ref().is_some_and(Vec::is_empty) || (to_client && (only.is_some() || except.is_some())) {
        return None;
    }
    let ttl = [numeric_values(&given)?, expiry.map(|seconds| seconds.saturating_mul(1000))]
        .into_iter()
        .flatten()
        .min();
    if ttl == Some(0) {
        return None;
    }
    let receipt = match one("receipt")? {
        None | Some("none") => 0,
        Some("summary") => 1,
        Some("each") => 2,
        Some(_) => return None,
    };
    let id = one("id")?;
    if id.is_some_and(|id| !is_name(id)) {
        return None;
    }
    let owned = |entries: Vec<&str>| entries.into_iter().map(str::to_owned).collect();
    Some(Read {
        to_client,
        name: name.to_owned(),
        only: only.map(owned),
        except: except.map_or_else(BTreeSet::new, owned),
        ttl,
        receipt,
        flags: [flag("store")?, flag("echo")?, flag("urgent")?],
        id: id.map(str::to_owned),
    })
}

/// `ttl`: here 5 and 05 are the same value.
fn numeric_values(given: &[(String, String, bool)]) -> Option<Option<u32>> {
    let mut found = None;
    for (_, value, in_query) in given.iter().filter(|(name, ..)| name == "ttl") {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = value.parse().ok()?;
        if found.is_some_and(|found| *in_query || found != number) {
            return None;
        }
        found = Some(number);
    }
    Some(found)
}

fn percent_decoded(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(digits[0])? * 16 + digit(digits[1])?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
