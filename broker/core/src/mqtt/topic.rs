//! The syntax of topic names and topic filters, shared subscriptions, and how a filter matches (section 4.7).
//!
//! What a topic *means* (the `sig/` ones, say) isn't known here.

use super::{DecodeError, ReasonCode};

/// The longest topic name or filter, in bytes of UTF-8 [MQTT-4.7.3-3].
pub const MAX_LENGTH: usize = u16::MAX as usize;

/// Whether a message can be published to it: 1 to 65,535 bytes [MQTT-4.7.3-1] without wildcards
/// [MQTT-3.3.2-2] and without U+0000 [MQTT-4.7.3-2].
pub fn is_valid_name(name: &str) -> bool {
    // No early return: so the compiler compares many bytes at once, and nearly every name is valid.
    let forbidden = name.bytes().fold(false, |found, byte| found | matches!(byte, b'+' | b'#' | 0));
    !forbidden && (1..=MAX_LENGTH).contains(&name.len())
}

/// Whether it can be subscribed to: as a name, but `+` may be a whole level [MQTT-4.7.1-2] and `#` the whole
/// last one [MQTT-4.7.1-1]. For a shared subscription this holds for the filter in [`parse_shared`]'s answer.
pub fn is_valid_filter(filter: &str) -> bool {
    let bytes = filter.as_bytes();
    let starts_level = |at: usize| at == 0 || bytes.get(at - 1) == Some(&b'/');
    let valid = |(at, byte): (usize, &u8)| match byte {
        b'+' => starts_level(at) && matches!(bytes.get(at + 1), None | Some(b'/')),
        b'#' => starts_level(at) && at + 1 == bytes.len(),
        byte => *byte != 0,
    };
    (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().enumerate().all(valid)
}

/// Whether a filter can match more than one name.
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// A shared subscription: of those with the same group and filter, one gets each message (section 4.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// The share name.
    pub group: &'a str,
    /// What is subscribed to.
    pub filter: &'a str,
}

/// Reads `$share/{group}/{filter}`. `Ok(None)`: it is an ordinary filter.
///
/// # Errors
///
/// It starts with `$share/`, but there is no group, no filter, a wildcard in the group's name
/// [MQTT-4.8.2-1], [MQTT-4.8.2-2], or the filter isn't valid.
pub fn parse_shared(filter: &str) -> Result<Option<SharedFilter<'_>>, DecodeError> {
    const INVALID: DecodeError =
        DecodeError::because(ReasonCode::TopicFilterInvalid, "malformed shared subscription");
    let Some(shared) = filter.strip_prefix("$share/") else { return Ok(None) };
    let (group, filter) = shared.split_once('/').ok_or(INVALID)?;
    if group.is_empty() || has_wildcard(group) || !is_valid_filter(filter) {
        return Err(INVALID);
    }
    Ok(Some(SharedFilter { group, filter }))
}

/// Whether a message to `name` is for a subscriber to `filter`, both being valid and the filter not shared.
///
/// This walks over both level by level and is the reference that faster structures are tested against.
pub fn matches(filter: &str, name: &str) -> bool {
    // Wildcards at the front leave out `$SYS` and its like [MQTT-4.7.2-1].
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            // Also the parent: `a/#` matches `a`.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether `filter` matches every name that `narrower`, a filter or a name, matches; both valid and not shared.
pub fn covers(filter: &str, narrower: &str) -> bool {
    if narrower.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    // Every name has a first level.
    let filter = if filter == "+/#" { "#" } else { filter };
    let mut levels = narrower.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            // It stands for no level and for many, too.
            (_, Some("#")) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether there is a name that both match, each a filter or a name; both valid and not shared.
pub fn overlap(one: &str, other: &str) -> bool {
    let leading = |one: &str, other: &str| one.starts_with('$') && other.starts_with(['+', '#']);
    if leading(one, other) || leading(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(same)) if level == same => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_filters_are_told_apart() {
        let longest = "x".repeat(MAX_LENGTH);
        let too_long = "x".repeat(MAX_LENGTH + 1);
        for both in ["a", "/", "a/b", "//", " ", "$SYS/x", "ä/ö", &longest] {
            assert!(is_valid_name(both) && is_valid_filter(both), "{both:.20}");
        }
        for filter in ["#", "+", "+/+", "a/+/b", "/+", "a/#", "/#", "+/#", "$SYS/#"] {
            assert!(!is_valid_name(filter) && is_valid_filter(filter), "{filter}");
            assert!(has_wildcard(filter));
        }
        for neither in
            ["", "a#", "#a", "a/#/b", "#/b", "+a", "a+", "a/b+", "a/+b/c", "##", "++", "a\0", &too_long]
        {
            assert!(!is_valid_name(neither) && !is_valid_filter(neither), "{neither:.20}");
        }
    }

    #[test]
    fn shared_subscriptions_4_8_2() {
        let shared = |group, filter| Ok(Some(SharedFilter { group, filter }));
        assert_eq!(parse_shared("$share/g/a/+"), shared("g", "a/+"));
        assert_eq!(parse_shared("$share/g//"), shared("g", "/"));
        assert_eq!(parse_shared("$share"), Ok(None));
        assert_eq!(parse_shared("$shared/g/a"), Ok(None));
        for bad in
            ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", "$share/g/a#"]
        {
            assert_eq!(parse_shared(bad).unwrap_err().reason(), ReasonCode::TopicFilterInvalid, "{bad}");
        }
    }

    #[test]
    fn filters_cover_and_overlap() {
        for (one, other, covered, common) in [
            ("home/+", "home/#", false, true),
            ("home/#", "home/+", true, true),
            ("home/#", "home", true, true),
            ("home/+/#", "home/#", false, true),
            ("secret/#", "#", false, true),
            ("secret/#", "+/door", false, true),
            ("secret/#", "home/#", false, false),
            ("+/#", "#", true, true),
            ("#", "+/#", true, true),
            ("+/b", "a/+", false, true),
            ("a/+/c", "a/#", false, true),
            ("a/b", "a/b/c", false, false),
            ("#", "$SYS/#", false, false),
            ("$SYS/#", "#", false, false),
            ("$SYS/#", "$SYS/+", true, true),
        ] {
            assert_eq!(covers(one, other), covered, "{one} covers {other}");
            assert_eq!((overlap(one, other), overlap(other, one)), (common, common), "{one} and {other}");
        }
    }

    #[test]
    fn filters_match_4_7() {
        // The specification's own examples, then the corners.
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/+/$b", "a/$x/$b", true),
            ("#", "a/b", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("A", "a", false),
            ("a/+/#", "a/b", true),
            ("a/+/#", "a", false),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} {name}");
        }
    }
}
