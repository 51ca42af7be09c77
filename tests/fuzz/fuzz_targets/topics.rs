//! Topic names and filters: what is one, which match, which cover or touch each other, and the tree that many filters are
//! kept in, against matching by the words of the standard.
//!
//! An input is lines: `+FILTER` puts a filter into the tree, `-FILTER` takes it out, anything else is published to.
#![no_main]

use std::collections::BTreeSet;

use bugle_core::hub::topic_tree::{MAX_LEVELS, TopicTree};
use bugle_core::mqtt::topic;
use bugle_fuzz::naive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    let mut tree = TopicTree::default();
    let mut kept: BTreeSet<(&str, usize)> = BTreeSet::new();
    for (line, text) in input.lines().enumerate() {
        let (action, text) = match text.as_bytes().first() {
            Some(action @ (b'+' | b'-')) if text.len() > 1 => (*action, &text[1..]),
            _ => (b'?', text),
        };
        assert_eq!(topic::is_valid_name(text), naive::is_topic(text), "{text:?}");
        assert_eq!(topic::is_valid_filter(text), naive::is_filter(text), "{text:?}");
        check_shared(text);
        match action {
            _ if text.split('/').count() > MAX_LEVELS => {}
            // Four keys, so that a filter has several and a key several filters.
            b'+' if naive::is_filter(text) => {
                let had = tree.insert(text, line % 4, ());
                assert_eq!(had.is_some(), !kept.insert((text, line % 4)), "{text:?}");
            }
            b'-' if naive::is_filter(text) => {
                for key in 0..4 {
                    assert_eq!(
                        tree.remove(text, &key).is_some(),
                        kept.remove(&(text, key)),
                        "{text:?} {key}"
                    );
                }
            }
            _ if naive::is_topic(text) => {
                let mut found = Vec::new();
                tree.for_each_match(text, &mut |&key, ()| found.push(key));
                found.sort_unstable();
                let matching = kept.iter().filter(|(filter, _)| naive::filter_matches(filter, text));
                let mut expected: Vec<_> = matching.map(|&(_, key)| key).collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "{text:?}");
                for (filter, _) in &kept {
                    let expected = naive::filter_matches(filter, text);
                    assert_eq!(topic::matches(filter, text), expected, "{filter:?} {text:?}");
                    assert_eq!(topic::covers(filter, text), expected, "{filter:?} {text:?}");
                    assert_eq!(topic::overlap(filter, text), expected, "{filter:?} {text:?}");
                }
            }
            _ => {}
        }
        assert_eq!(tree.is_empty(), kept.is_empty());
    }
    check_pairs(&kept.iter().map(|(filter, _)| *filter).collect());
});

fn check_shared(text: &str) {
    let expected = text.strip_prefix("$share/").map(|rest| {
        let (group, filter) = rest.split_once('/')?;
        (naive::is_topic(group) && naive::is_filter(filter)).then_some((group, filter))
    });
    let found = topic::parse_shared(text);
    match expected {
        None => assert_eq!(found, Ok(None), "{text:?}"),
        // A name with U+0000 never gets that far: no text in a packet has one.
        Some(_) if text.contains('\0') => {}
        Some(None) => assert!(found.is_err(), "{text:?}"),
        Some(Some((group, filter))) => {
            assert_eq!(found, Ok(Some(topic::SharedFilter { group, filter })), "{text:?}");
        }
    }
}

/// Which filters cover and touch each other, by the names that they match.
fn check_pairs(filters: &BTreeSet<&str>) {
    let short = |filter: &&&str| filter.split('/').count() <= 3 && filter.len() < 32;
    let filters: Vec<&str> = filters.iter().filter(short).take(4).copied().collect();
    for (one, other) in filters.iter().flat_map(|one| filters.iter().map(move |other| (*one, *other))) {
        let names = naive::names_for(&[one, other], 4);
        let all = |name: &&String| naive::filter_matches(other, name);
        let covered = names.iter().filter(all).all(|name| naive::filter_matches(one, name));
        let common = names.iter().filter(all).any(|name| naive::filter_matches(one, name));
        if topic::covers(one, other) {
            assert!(covered, "{one:?} doesn't cover {other:?}");
        }
        // With more than four levels of their own the names don't say it all.
        let own: BTreeSet<_> =
            one.split('/').chain(other.split('/')).filter(|l| !["+", "#"].contains(l)).collect();
        if own.len() <= 3 && !own.contains("") {
            assert_eq!(topic::covers(one, other), covered, "{one:?} covers {other:?}");
            assert_eq!(topic::overlap(one, other), common, "{one:?} and {other:?}");
        }
    }
}
