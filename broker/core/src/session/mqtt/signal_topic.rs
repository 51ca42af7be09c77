//! From a topic below the signalling prefix, and the user properties of version 5, to a target and its
//! options (T1).
//!
//! `g/floor3?only=lamp-1,lamp-2&ttl=500`: values are percent-decoded once, whole, and then split at commas.
//! User properties with the same keys are taken as they are. Anything unknown, twice or out of range refuses
//! the send and says what.

use std::borrow::Cow;

use crate::model::{
    ClientId, GroupName, MessageId, Reason, ReceiptMode, RecipientList, Refusal, Signal, SignalOptions,
    Target,
};
use crate::mqtt::Properties;

/// The part of a topic after the prefix, if it is below it.
pub(super) fn below<'a>(prefix: &str, topic: &'a str) -> Option<&'a str> {
    topic.strip_prefix(prefix)?.strip_prefix('/')
}

/// The options' names, which are also the user properties that a send consumes.
const KEYS: [&str; 8] = ["only", "except", "ttl", "receipt", "store", "id", "echo", "urgent"];

/// Whether a send consumes the user property of this name.
pub(super) fn is_reserved(name: &str) -> bool {
    KEYS.contains(&name)
}

/// The target and options that `rest`, the topic without its prefix, asks for together with `properties`.
pub(super) fn parse(rest: &str, properties: &Properties<'_>) -> Result<(Target, SignalOptions), Refusal> {
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rest, ""),
    };
    let options = Options::collect(query, properties)?;
    let target = match path.split_once('/') {
        Some(("g", group)) => {
            let group = GroupName::new(group).ok_or_else(|| no_name(group, "group name"))?;
            Target::group(group, list(options.only)?, list(options.except)?)?
        }
        Some(("c", client)) => {
            let client = ClientId::new(client).ok_or_else(|| no_name(client, "client id"))?;
            if options.only.is_some() || options.except.is_some() {
                return Err(bad_option("'only' and 'except' are for groups"));
            }
            Target::Client(client)
        }
        _ => {
            return Err(Refusal::new(
                Reason::BadTopic,
                "signals go to g/{group} or c/{client} below the prefix",
            ));
        }
    };
    let expiry = properties.message_expiry().map(|seconds| seconds.saturating_mul(1000));
    let ttl = [options.ttl, expiry].into_iter().flatten().min();
    Signal::check_ttl(ttl)?;
    let options = SignalOptions {
        ttl,
        receipt: options.receipt.unwrap_or_default(),
        store: options.store.unwrap_or_default(),
        echo: options.echo.unwrap_or_default(),
        urgent: options.urgent.unwrap_or_default(),
        id: options.id,
    };
    Ok((target, options))
}

fn list(values: Option<Vec<Cow<'_, str>>>) -> Result<Option<RecipientList>, Refusal> {
    let Some(values) = values else { return Ok(None) };
    let entries = values.iter().filter(|value| !value.is_empty()).flat_map(|value| value.split(','));
    RecipientList::new(entries).map(Some)
}

/// Where an option was given. Only in user properties may one be repeated, with the same value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Query,
    UserProperty,
}

#[derive(Default)]
struct Options<'a> {
    only: Option<Vec<Cow<'a, str>>>,
    except: Option<Vec<Cow<'a, str>>>,
    ttl: Option<u32>,
    receipt: Option<ReceiptMode>,
    store: Option<bool>,
    echo: Option<bool>,
    urgent: Option<bool>,
    id: Option<MessageId>,
}

impl<'a> Options<'a> {
    fn collect(query: &'a str, properties: &Properties<'a>) -> Result<Self, Refusal> {
        let mut options = Self::default();
        if !query.is_empty() {
            for pair in query.split('&') {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(bad_option(format!("'{}' has no value", shown(pair))));
                };
                let value = percent_decoded(value).ok_or_else(|| {
                    bad_option(format!("the value of '{}' is not percent-encoded UTF-8", shown(key)))
                })?;
                if !options.take(key, value, Source::Query)? {
                    return Err(unknown(key));
                }
            }
        }
        for (name, value) in properties.user_properties() {
            // The gateway says who a signal is from (T2).
            if name == "from" {
                return Err(bad_option("the user property 'from' is the gateway's to set"));
            }
            options.take(name, value.into(), Source::UserProperty)?;
        }
        Ok(options)
    }

    /// Takes the option if `key` names one.
    fn take(&mut self, key: &str, value: Cow<'a, str>, source: Source) -> Result<bool, Refusal> {
        match key {
            "only" => self.only.get_or_insert_default().push(value),
            "except" => self.except.get_or_insert_default().push(value),
            "ttl" => set(&mut self.ttl, number(key, &value)?, key, source)?,
            "receipt" => set(&mut self.receipt, receipt(&value)?, key, source)?,
            "store" => set(&mut self.store, flag(key, &value)?, key, source)?,
            "echo" => set(&mut self.echo, flag(key, &value)?, key, source)?,
            "urgent" => set(&mut self.urgent, flag(key, &value)?, key, source)?,
            "id" => {
                let id = MessageId::new(&value).ok_or_else(|| {
                    bad_option(format!("'id' is 1-64 of A-Z a-z 0-9 . _ : -, not '{}'", shown(&value)))
                })?;
                set(&mut self.id, id, key, source)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn set<T: PartialEq>(place: &mut Option<T>, value: T, key: &str, source: Source) -> Result<(), Refusal> {
    match place {
        None => *place = Some(value),
        Some(present) if source == Source::UserProperty && *present == value => {}
        Some(_) => return Err(bad_option(format!("'{key}' is given twice"))),
    }
    Ok(())
}

pub(super) fn number(key: &str, value: &str) -> Result<u32, Refusal> {
    // `parse` would take a sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| bad_option(format!("'{key}' is a number up to {}, not '{}'", u32::MAX, shown(value))))
}

fn flag(key: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(bad_option(format!("'{key}' is 0 or 1, not '{}'", shown(value)))),
    }
}

fn receipt(value: &str) -> Result<ReceiptMode, Refusal> {
    [ReceiptMode::None, ReceiptMode::Summary, ReceiptMode::Each]
        .into_iter()
        .find(|mode| mode.key() == value)
        .ok_or_else(|| bad_option(format!("'receipt' is none, summary or each, not '{}'", shown(value))))
}

pub(super) fn bad_option(text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::BadOption, text)
}

pub(super) fn no_name(text: &str, what: &str) -> Refusal {
    Refusal::new(Reason::BadName, format!("'{}' is no {what}: 1-64 of A-Z a-z 0-9 . _ : -", shown(text)))
}

fn unknown(key: &str) -> Refusal {
    let nearest = KEYS.iter().map(|known| (distance(key, known), known)).min();
    bad_option(match nearest {
        Some((0..=2, known)) => format!("unknown option '{}'; '{known}' is one", shown(key)),
        _ => format!("unknown option '{}'", shown(key)),
    })
}

/// How many letters to change, add or leave out to get from one to the other; large if they are of very
/// different length.
fn distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.bytes().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(to.bytes()) {
            let changed = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// The value with each `%XX` replaced by that byte, if all of them are whole and the result is UTF-8.
pub(super) fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(value.into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// Of outside text, as much as an error message should repeat.
pub(super) fn shown(text: &str) -> &str {
    // No text of MQTT may have a NUL in it: the refusal would have to go without its reason.
    let mut end = text.find(char::is_control).unwrap_or(text.len()).min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, Recipients};
    use crate::mqtt::{Property, PropertyWriter};

    fn sent(rest: &str, user: &[(&str, &str)]) -> Result<(Target, SignalOptions), Refusal> {
        let mut writer = PropertyWriter::new();
        writer.extend(user.iter().map(|(name, value)| Property::UserProperty(name, value)));
        parse(rest, &writer.finish().unwrap())
    }

    /// The parsed send in one line, or the reason of its refusal.
    fn line(rest: &str, user: &[(&str, &str)]) -> String {
        let (target, options) = match sent(rest, user) {
            Ok(parsed) => parsed,
            Err(refusal) => return refusal.reason.name().to_owned(),
        };
        let names = |list: &RecipientList| {
            list.iter().map(|client| client.as_str().to_owned()).collect::<Vec<_>>().join(",")
        };
        let mut line = target.mode().key().to_owned();
        match &target {
            Target::Client(client) => line += &format!(" {client}"),
            Target::Group { group, recipients, except } => {
                line += &format!(" {group}");
                if let Recipients::Only(only) = recipients {
                    line += &format!(" only {}", names(only));
                }
                if !except.is_empty() {
                    line += &format!(" except {}", names(except));
                }
            }
        }
        if let Some(ttl) = options.ttl {
            line += &format!(" ttl {ttl}");
        }
        if options.receipt != ReceiptMode::None {
            line += &format!(" receipt {}", options.receipt.key());
        }
        for (set, name) in [(options.store, "store"), (options.echo, "echo"), (options.urgent, "urgent")] {
            if set {
                line += &format!(" {name}");
            }
        }
        if let Some(id) = options.id {
            line += &format!(" id {id}");
        }
        line
    }

    #[test]
    fn t1_topics_with_their_options() {
        for (rest, expected) in [
            ("g/floor3", "all floor3"),
            ("g/floor3?", "all floor3"),
            ("c/lamp-1", "one lamp-1"),
            ("c/a:b.c_d-E9", "one a:b.c_d-E9"),
            (
                "g/floor3?only=lamp-1,lamp-2&ttl=500&receipt=each",
                "only floor3 only lamp-1,lamp-2 ttl 500 receipt each",
            ),
            ("g/f?only=a%2Cb", "only f only a,b"),
            ("g/f?only=%61,b", "only f only a,b"),
            ("g/f?only=a&only=b,a", "only f only a,b"),
            ("g/f?only=&only=a", "only f only a"),
            ("g/f?only=a,b&except=b", "only f only a,b except b"),
            ("g/f?except=a", "except f except a"),
            ("g/f?except=", "all f"),
            ("g/f?only=", "NO_RECIPIENT"),
            ("g/f?only=a,,b", "BAD_NAME"),
            ("g/f?only=a%252Cb", "BAD_NAME"),
            ("g/f?only=a b", "BAD_NAME"),
            ("g/f?except=a%00", "BAD_NAME"),
            (
                "c/x?ttl=1&receipt=summary&store=1&echo=1&urgent=1&id=m-1",
                "one x ttl 1 receipt summary store echo urgent id m-1",
            ),
            ("c/x?store=0&echo=0&urgent=0&receipt=none", "one x"),
            ("c/x?ttl=4294967295", "one x ttl 4294967295"),
            ("c/x?ttl=%31%30", "one x ttl 10"),
            ("c/x?ttl=0", "BAD_OPTION"),
            ("c/x?ttl=", "BAD_OPTION"),
            ("c/x?ttl=-1", "BAD_OPTION"),
            ("c/x?ttl=%2B1", "BAD_OPTION"),
            ("c/x?ttl=4294967296", "BAD_OPTION"),
            ("c/x?ttl=1.5", "BAD_OPTION"),
            ("c/x?ttl=1&ttl=1", "BAD_OPTION"),
            ("c/x?echo", "BAD_OPTION"),
            ("c/x?echo=true", "BAD_OPTION"),
            ("c/x?receipt=all", "BAD_OPTION"),
            ("c/x?id=", "BAD_OPTION"),
            ("c/x?id=a/b", "BAD_OPTION"),
            ("c/x?only=a", "BAD_OPTION"),
            ("c/x?except=", "BAD_OPTION"),
            ("c/x?onyl=a", "BAD_OPTION"),
            ("c/x?ttl=1&", "BAD_OPTION"),
            ("c/x?ttl=%", "BAD_OPTION"),
            ("c/x?ttl=%3", "BAD_OPTION"),
            ("c/x?ttl=%zz", "BAD_OPTION"),
            ("c/x?id=%ff", "BAD_OPTION"),
            ("c/", "BAD_NAME"),
            ("g/", "BAD_NAME"),
            ("g/a/b", "BAD_NAME"),
            ("c/ä", "BAD_NAME"),
            ("g", "BAD_TOPIC"),
            ("", "BAD_TOPIC"),
            ("x", "BAD_TOPIC"),
            ("r/me", "BAD_TOPIC"),
            ("p/floor3", "BAD_TOPIC"),
            ("G/floor3", "BAD_TOPIC"),
            ("?ttl=1", "BAD_TOPIC"),
        ] {
            assert_eq!(line(rest, &[]), expected, "{rest}");
        }
    }

    #[test]
    fn t1_user_properties_unite_with_the_query() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 11] = [
            ("g/f", &[("only", "a"), ("only", "b,c")], "only f only a,b,c"),
            ("g/f?only=z", &[("only", "a")], "only f only z,a"),
            ("g/f", &[("only", "")], "NO_RECIPIENT"),
            ("g/f", &[("only", "a%2Cb")], "BAD_NAME"),
            ("c/x?ttl=5", &[("ttl", "5"), ("ttl", "5")], "one x ttl 5"),
            ("c/x?ttl=5", &[("ttl", "6")], "BAD_OPTION"),
            ("c/x", &[("ttl", "5"), ("ttl", "6")], "BAD_OPTION"),
            ("c/x", &[("ttl", "+5")], "BAD_OPTION"),
            ("c/x", &[("colour", "red"), ("echo", "1")], "one x echo"),
            ("c/x", &[("from", "me")], "BAD_OPTION"),
            ("c/x", &[("mode", "all")], "one x"),
        ];
        for (rest, user, expected) in cases {
            assert_eq!(line(rest, user), expected, "{rest} {user:?}");
        }
    }

    #[test]
    fn t1_the_smaller_of_message_expiry_and_ttl_holds() {
        for (rest, seconds, ttl) in [("c/x?ttl=500", 1, 500), ("c/x?ttl=5000", 1, 1000), ("c/x", 2, 2000)] {
            let mut writer = PropertyWriter::new();
            writer.push(Property::MessageExpiryInterval(seconds));
            let (_, options) = parse(rest, &writer.finish().unwrap()).unwrap();
            assert_eq!(options.ttl, Some(ttl), "{rest}");
        }
    }

    #[test]
    fn s4_129_entries_are_too_many_however_they_are_given() {
        let ids: Vec<String> = (0..129).map(|n| format!("l{n}")).collect();
        assert_eq!(line(&format!("g/f?only={}", ids.join(",")), &[]), "LIST_TOO_LONG");
        assert!(line(&format!("g/f?only={}", ids[..128].join(",")), &[]).starts_with("only f"));
        assert_eq!(
            line(&format!("g/f?only={}", ids[..100].join(",")), &[("only", &ids[100..].join(","))]),
            "LIST_TOO_LONG"
        );
    }

    #[test]
    fn an_unknown_option_is_named_with_the_nearest_known_one() {
        let text = |rest| sent(rest, &[]).unwrap_err().text.into_owned();
        assert_eq!(text("g/f?onyl=a"), "unknown option 'onyl'; 'only' is one");
        assert_eq!(text("g/f?colour=red"), "unknown option 'colour'");
        assert!(text("g/f?tt=1").contains("'ttl'"));
    }

    #[test]
    fn modes_3_s() {
        assert_eq!(sent("g/f", &[]).unwrap().0.mode(), Mode::All);
    }
}
