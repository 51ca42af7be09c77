//! Patterns for ids and group names: `*` stands for any run of characters.

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; `*` is the only special character.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether the pattern matches all of `text`. Linear but for patterns with several stars.
    pub fn matches(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        // `split` yields at least one piece.
        let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text, expected) in [
            ("lamp-1", "lamp-1", true),
            ("lamp-1", "lamp-12", false),
            ("lamp-*", "lamp-", true),
            ("lamp-*", "xlamp-1", false),
            ("*", "", true),
            ("*-1", "lamp-1", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }
}
