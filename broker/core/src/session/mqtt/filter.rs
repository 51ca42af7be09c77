//! What a topic filter means: a group, the own inbox, the own notices, or a filter for the hub (T2, T4, T6).

use std::sync::Arc;

use super::signal_topic::{below, shown};
use super::state::{Form, Place};
use crate::model::{ClientId, GroupName, Reason, Refusal};
use crate::mqtt::topic;

/// The meaning of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A group or the inbox, in one of its forms.
    Place(Place, Form),
    /// `{prefix}/r/{me}`.
    Notices,
    /// Anything that the hub matches.
    Topic(Arc<str>),
}

/// Whether it is a shared subscription.
pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// The meaning of `filter` for the client `me`, none if it can't be addressed.
pub(super) fn parse(prefix: &str, me: Option<&ClientId>, filter: &str) -> Result<Wanted, Refusal> {
    if is_shared(filter) {
        let shared = topic::parse_shared(filter).ok().flatten();
        let inner = shared.ok_or_else(|| {
            Refusal::new(Reason::BadTopic, format!("'{}' is not $share/{{name}}/{{filter}}", shown(filter)))
        })?;
        if below(prefix, inner.filter).is_some() {
            return Err(Refusal::new(
                Reason::NotAuthorized,
                "signals are for whom they are sent to, not shared",
            ));
        }
        return Ok(Wanted::Topic(filter.into()));
    }
    let topic = || Ok(Wanted::Topic(filter.into()));
    let Some(rest) = below(prefix, filter) else { return topic() };
    let (kind, path) = match rest.split_once('/') {
        Some((kind, path)) => (kind, Some(path)),
        None => (rest, None),
    };
    let path = match (kind, path) {
        // At or above the level of groups: this observes (T6).
        ("+" | "#", _) => return topic(),
        ("p", Some(group)) if GroupName::new(group).is_some() => return topic(),
        ("g" | "c" | "r", Some(path)) => path,
        _ => return Err(no_such(filter)),
    };
    let (name, form) = match path.split_once('/') {
        Some((name, form)) => (name, Some(form)),
        None => (path, None),
    };
    if topic::has_wildcard(name) {
        return topic();
    }
    let form = match form {
        None => Form::Bare,
        Some("+") => Form::Plus,
        Some("#") => Form::Hash,
        Some(_) => return Err(no_such(filter)),
    };
    let me = me.ok_or_else(|| {
        Refusal::new(Reason::NotAuthorized, "only a client whose id is a client id has groups and an inbox")
    })?;
    if kind == "g" {
        let group = GroupName::new(name).ok_or_else(|| no_such(filter))?;
        return Ok(Wanted::Place(Place::Group(group), form));
    }
    if name != me.as_str() {
        return Err(Refusal::new(Reason::NotAuthorized, "this is another client's"));
    }
    match (kind, form) {
        ("c", form) => Ok(Wanted::Place(Place::Inbox, form)),
        (_, Form::Bare) => Ok(Wanted::Notices),
        _ => Err(no_such(filter)),
    }
}

fn no_such(filter: &str) -> Refusal {
    Refusal::new(
        Reason::BadTopic,
        format!(
            "'{}' is not g/{{group}}, p/{{group}}, c/{{client}} or r/{{client}} below the prefix",
            shown(filter)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_filters_and_what_they_mean() {
        let me = ClientId::new("me").unwrap();
        let meaning = |filter: &str| match parse("sig", Some(&me), filter) {
            Ok(Wanted::Place(Place::Group(group), form)) => format!("{group} {form:?}"),
            Ok(Wanted::Place(Place::Inbox, form)) => format!("inbox {form:?}"),
            Ok(Wanted::Notices) => "notices".to_owned(),
            Ok(Wanted::Topic(filter)) => format!("topic {filter}"),
            Err(refusal) => refusal.reason.name().to_owned(),
        };
        for (filter, expected) in [
            ("sig/g/floor3", "floor3 Bare"),
            ("sig/g/floor3/+", "floor3 Plus"),
            ("sig/g/floor3/#", "floor3 Hash"),
            ("sig/g/floor3/lamp-1", "BAD_TOPIC"),
            ("sig/g/floor3/+/+", "BAD_TOPIC"),
            ("sig/g/a b", "BAD_TOPIC"),
            ("sig/g/", "BAD_TOPIC"),
            ("sig/g", "BAD_TOPIC"),
            ("sig/x", "BAD_TOPIC"),
            ("sig/x/+", "BAD_TOPIC"),
            ("sig/", "BAD_TOPIC"),
            ("sig/c/me", "inbox Bare"),
            ("sig/c/me/+", "inbox Plus"),
            ("sig/c/me/#", "inbox Hash"),
            ("sig/c/you", "NOT_AUTHORIZED"),
            ("sig/c/you/+", "NOT_AUTHORIZED"),
            ("sig/r/me", "notices"),
            ("sig/r/me/#", "BAD_TOPIC"),
            ("sig/r/you", "NOT_AUTHORIZED"),
            ("sig/p/floor3", "topic sig/p/floor3"),
            ("sig/p/+", "BAD_TOPIC"),
            ("sig/p/floor3/#", "BAD_TOPIC"),
            ("$share/x/sig/g/floor3", "NOT_AUTHORIZED"),
            ("$share/x/y", "topic $share/x/y"),
            ("$share//y", "BAD_TOPIC"),
            ("$share/x", "BAD_TOPIC"),
            ("$share/x+/y", "BAD_TOPIC"),
            ("#", "topic #"),
            ("+/g/floor3", "topic +/g/floor3"),
            ("sig/#", "topic sig/#"),
            ("sig/+/x", "topic sig/+/x"),
            ("sig/g/+", "topic sig/g/+"),
            ("sig/g/+/+", "topic sig/g/+/+"),
            ("sig/g/#", "topic sig/g/#"),
            ("sig/c/+", "topic sig/c/+"),
            ("sig", "topic sig"),
            ("signal/g/x", "topic signal/g/x"),
            ("a/b", "topic a/b"),
            ("$SYS/#", "topic $SYS/#"),
        ] {
            assert_eq!(meaning(filter), expected, "{filter}");
        }
        for filter in ["sig/g/floor3", "sig/c/me", "sig/r/me"] {
            assert_eq!(parse("sig", None, filter).unwrap_err().reason, Reason::NotAuthorized, "s1 {filter}");
        }
    }
}
