//! docs/device-sdk.md names every error and every reason, so that whoever meets one finds what to do.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use bugle_device::Reason;

const PAGE: &str = include_str!("../../docs/device-sdk.md");
const SOURCES: &[&str] = &[
    include_str!("../src/config.rs"),
    include_str!("../src/flash_outbox.rs"),
    include_str!("../src/signal.rs"),
    include_str!("../src/tls.rs"),
];
const ERRORS: &[&str] =
    &["ConfigError", "Disconnect", "OpenError", "OutboxError", "SendError", "Untrusted", "WillError"];

/// The variants of a public enum, as its source has them: lines of one level that begin with a capital.
fn variants(name: &str) -> Vec<String> {
    let begin = |source: &&str| {
        source.find(&format!("pub enum {name} {{")).or_else(|| source.find(&format!("pub enum {name}<")))
    };
    let (source, at) = SOURCES.iter().find_map(|source| Some((source, begin(source)?))).expect(name);
    source[at..]
        .lines()
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_page_says_what_to_do_about_every_error() {
    for name in ERRORS {
        let variants = variants(name);
        assert!(variants.len() >= 2, "{name}: {variants:?}");
        for variant in variants {
            let row = format!("| `{name}::{variant}` |");
            assert!(PAGE.contains(&row), "docs/device-sdk.md has no row {row}");
        }
    }
}

/// An error of a new kind has to get into [`ERRORS`].
#[test]
fn no_public_error_is_left_out() {
    for source in SOURCES {
        for (at, _) in source.match_indices("core::error::Error for ") {
            let name = source[at..].split_whitespace().nth(2).unwrap();
            let name = name.split('<').next().unwrap();
            if !source.contains(&format!("pub enum {name}"))
                && !source.contains(&format!("pub struct {name}"))
            {
                continue;
            }
            assert!(ERRORS.contains(&name), "{name} isn't checked");
        }
    }
}

#[test]
fn the_page_says_what_to_do_about_every_reason() {
    for reason in Reason::ALL {
        let row = format!("| `{}` |", reason.name());
        assert!(PAGE.contains(&row), "docs/device-sdk.md has no row {row}");
    }
}
