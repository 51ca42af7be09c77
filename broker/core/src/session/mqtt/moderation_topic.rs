//! From a topic below `{prefix}/m/` to a kick, mute or ban (S14, docs/decisions/0011). Both protocols ask by it.
//!
//! `mute/guest-7?group=floor3&for=600`: the act, the client, and options as for a send; `for` is in seconds. Without `group` it is
//! everywhere, without `for` it is for good. The payload is what the client is told, and may be empty.

use super::signal_topic::{bad_option, no_name, number, percent_decoded, shown};
use crate::model::{ClientId, GroupName, MAX_WHY, ModerationAct, ModerationRequest, Reason, Refusal};

/// What `rest`, the topic after `{prefix}/m/`, asks for, with the payload as the reason.
pub(crate) fn parse(rest: &str, payload: &[u8]) -> Result<ModerationRequest, Refusal> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (act, client) = path.split_once('/').unwrap_or((path, ""));
    let act = ModerationAct::from_key(act).ok_or_else(|| {
        let text = "moderation goes to m/{kick, mute, ban, unmute or unban}/{client} below the prefix";
        Refusal::new(Reason::BadTopic, text)
    })?;
    let client = ClientId::new(client).ok_or_else(|| no_name(client, "client id"))?;
    let (mut group, mut seconds) = (None, None);
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| bad_option(format!("'{}' has no value", shown(pair))))?;
        let value = percent_decoded(value).ok_or_else(|| {
            bad_option(format!("the value of '{}' is not percent-encoded UTF-8", shown(key)))
        })?;
        let is_again = match key {
            "group" => {
                let name = GroupName::new(&value).ok_or_else(|| no_name(&value, "group name"))?;
                group.replace(name).is_some()
            }
            "for" => seconds.replace(number(key, &value)?).is_some(),
            _ => return Err(bad_option(format!("unknown option '{}'; 'group' and 'for' are", shown(key)))),
        };
        if is_again {
            return Err(bad_option(format!("'{key}' is given twice")));
        }
    }
    if seconds.is_some() && !act.lasts() {
        return Err(bad_option("'for' is for mute and ban"));
    }
    if seconds == Some(0) {
        return Err(bad_option("'for' is at least 1 second"));
    }
    let why = core::str::from_utf8(payload).ok().filter(|why| why.len() <= MAX_WHY);
    let why = why.filter(|why| !why.contains(char::is_control)).ok_or_else(|| {
        bad_option("the payload, which the client is told, is at most 256 bytes of text on one line")
    })?;
    Ok(ModerationRequest { act, client, group, seconds, why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_topics_of_moderation() {
        for (rest, expected) in [
            ("kick/c", "kick c everywhere"),
            ("kick/c?group=g", "kick c g"),
            ("mute/c?for=600&group=g", "mute c g 600"),
            ("ban/c?", "ban c everywhere"),
            ("ban/c?group=%67", "ban c g"),
            ("unmute/c?group=g", "unmute c g"),
            ("unban/c", "unban c everywhere"),
            ("unban/c?for=1", "BAD_OPTION"),
            ("kick/c?for=1", "BAD_OPTION"),
            ("mute/c?for=0", "BAD_OPTION"),
            ("mute/c?for=+1", "BAD_OPTION"),
            ("mute/c?for=4294967296", "BAD_OPTION"),
            ("mute/c?for=1&for=1", "BAD_OPTION"),
            ("mute/c?group=g&group=h", "BAD_OPTION"),
            ("mute/c?group", "BAD_OPTION"),
            ("mute/c?gruop=g", "BAD_OPTION"),
            ("mute/c?group=", "BAD_NAME"),
            ("mute/c?group=%zz", "BAD_OPTION"),
            ("mute/", "BAD_NAME"),
            ("mute", "BAD_NAME"),
            ("mute/a/b", "BAD_NAME"),
            ("silence/c", "BAD_TOPIC"),
            ("", "BAD_TOPIC"),
        ] {
            let line = match parse(rest, b"why") {
                Err(refusal) => refusal.reason.name().to_owned(),
                Ok(asked) => {
                    let place = asked.group.map_or("everywhere".to_owned(), |group| group.to_string());
                    let seconds = asked.seconds.map_or(String::new(), |seconds| format!(" {seconds}"));
                    format!("{} {} {place}{seconds}", asked.act, asked.client)
                }
            };
            assert_eq!(line, expected, "{rest}");
        }
    }

    #[test]
    fn s14_the_reason_is_a_line_of_at_most_256_bytes() {
        assert_eq!(&*parse("kick/c", &[b'x'; 256]).unwrap().why, "x".repeat(256));
        for payload in [&[b'x'; 257][..], b"\xFF", b"two\nlines"] {
            assert_eq!(parse("kick/c", payload).unwrap_err().reason, Reason::BadOption);
        }
    }
}
