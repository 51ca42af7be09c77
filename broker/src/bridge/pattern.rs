//! What crosses a bridge, under which name: topic patterns with a prefix on either side, and how two filters relate.

use bugle_core::mqtt::topic;

/// Which way messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the far broker to this gateway.
    In,
    /// From this gateway to the far broker.
    Out,
}

impl Way {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The name in configuration, metrics and logs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// One pattern of a bridge. Both of its filters are valid, and neither is a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Messages come in by it.
    pub is_in: bool,
    /// Messages go out by it.
    pub is_out: bool,
    /// Most QoS that a message has behind the bridge: 0 to 2.
    pub qos: u8,
    /// What topics begin with here.
    pub local_prefix: String,
    /// What topics begin with at the far broker.
    pub remote_prefix: String,
    /// What comes behind either prefix: a topic filter.
    pub topic: String,
}

impl Pattern {
    /// The filter at this gateway.
    pub fn local_filter(&self) -> String {
        format!("{}{}", self.local_prefix, self.topic)
    }

    /// The filter at the far broker.
    pub fn remote_filter(&self) -> String {
        format!("{}{}", self.remote_prefix, self.topic)
    }

    /// Whether messages go this way.
    pub fn goes(&self, way: Way) -> bool {
        match way {
            Way::In => self.is_in,
            Way::Out => self.is_out,
        }
    }

    /// The filter at the end where messages that go this way come from.
    pub fn source_filter(&self, way: Way) -> String {
        match way {
            Way::In => self.remote_filter(),
            Way::Out => self.local_filter(),
        }
    }

    /// What a topic is called on the other side, if it is one of the pattern's that go this way.
    fn map(&self, way: Way, topic: &str) -> Option<String> {
        if !self.goes(way) || !topic::matches(&self.source_filter(way), topic) {
            return None;
        }
        let (from, to) = match way {
            Way::In => (&self.remote_prefix, &self.local_prefix),
            Way::Out => (&self.local_prefix, &self.remote_prefix),
        };
        Some(format!("{to}{}", topic.strip_prefix(from.as_str())?))
    }
}

/// What a topic is called on the other side by the first of `patterns` that it is one of, and that pattern's QoS.
pub fn map(patterns: &[Pattern], way: Way, topic: &str) -> Option<(String, u8)> {
    patterns.iter().find_map(|pattern| Some((pattern.map(way, topic)?, pattern.qos)))
}

/// Whether it is a topic filter that isn't a shared subscription [MQTT-4.7.1].
pub fn is_filter(text: &str) -> bool {
    topic::is_valid_filter(text) && !text.starts_with("$share/")
}

/// Whether there is a topic that both filters match.
pub fn overlap(one: &str, other: &str) -> bool {
    let is_wild = |filter: &str| filter.starts_with(['+', '#']);
    if (one.starts_with('$') && is_wild(other)) || (other.starts_with('$') && is_wild(one)) {
        return false;
    }
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            (Some("#"), _) | (_, Some("#")) => return true,
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(local_prefix: &str, remote_prefix: &str, topic: &str) -> Pattern {
        let (local_prefix, remote_prefix) = (local_prefix.to_owned(), remote_prefix.to_owned());
        Pattern { is_in: true, is_out: true, qos: 1, local_prefix, remote_prefix, topic: topic.to_owned() }
    }

    #[test]
    fn a_topic_changes_its_prefix_and_nothing_else() {
        let patterns = [pattern("home/", "site7/", "+/state"), pattern("", "all/", "#")];
        let out = |topic: &str| map(&patterns, Way::Out, topic).map(|(topic, _)| topic);
        assert_eq!(out("home/lamp/state").as_deref(), Some("site7/lamp/state"));
        assert_eq!(out("home/lamp").as_deref(), Some("all/home/lamp"));
        assert_eq!(out("$SYS/uptime"), None);
        let into = |topic: &str| map(&patterns, Way::In, topic).map(|(topic, _)| topic);
        assert_eq!(into("site7/lamp/state").as_deref(), Some("home/lamp/state"));
        assert_eq!(into("all/home/lamp").as_deref(), Some("home/lamp"));
        assert_eq!(into("site7/lamp"), None);
        let one_way = Pattern { is_in: false, ..pattern("", "", "#") };
        assert_eq!(map(&[one_way], Way::In, "a"), None);
    }

    #[test]
    fn the_level_above_a_number_sign_keeps_its_prefix() {
        // `a/#` has `a` in it, which doesn't begin with the prefix `a/`: it has no name on the other side.
        assert_eq!(map(&[pattern("a/", "b/", "#")], Way::Out, "a"), None);
        assert_eq!(map(&[pattern("", "b/", "a/#")], Way::Out, "a").unwrap().0, "b/a");
    }

    #[test]
    fn filters_are_what_the_standard_says() {
        for good in ["#", "+", "a/#", "+/a/+", "/", "a//b", "$SYS/#"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a+/b", "$share/g/a", "a\0"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn filters_overlap_where_a_topic_is_in_both() {
        for (one, other) in [
            ("a/#", "a"),
            ("a/+", "+/b"),
            ("#", "a/b"),
            ("+/#", "a"),
            ("a/b", "a/b"),
            ("$SYS/#", "$SYS/a"),
            ("a/+/c", "a/b/#"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [("a/+", "a"), ("a", "b"), ("#", "$SYS/a"), ("a/b", "a/+/c"), ("a/b/#", "a")] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }
}
