//! Attacks and misuses that no other test of the black box shows, each against the real process; and the table of all of
//! them in docs/security.md, held against the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod admin_port;
mod before_authentication;
mod names;
mod protocol;
mod rights;

/// How many attacks the table has at least.
const AT_LEAST: usize = 60;

/// The tests in and below a folder, as `file::name`; of a folder of files, `folder::file::name`.
fn tests(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            tests(&path, &format!("{prefix}{stem}::"), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in source.lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test |= line.contains("test]") || line.contains("::test(");
                    continue;
                }
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some(name) = name.filter(|_| is_test).and_then(|name| name.split('(').next()) {
                    found.insert(format!("{prefix}{stem}::{name}"));
                }
                is_test = false;
            }
        }
    }
}

#[test]
fn every_attack_in_the_table_has_its_test_and_every_test_here_its_attack() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut there = BTreeSet::new();
    tests(&root.join("tests/tests/black_box"), "", &mut there);
    let document = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let section = document.split("\n## Attacks that were tried\n").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let mut named = BTreeSet::new();
    let mut attacks = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).skip(1) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [attack, stopped_by, shown_by] = cells[..] else { panic!("not three columns: {line}") };
        assert!(!stopped_by.is_empty(), "what stops it? {line}");
        assert!(attacks.insert(attack), "twice in the table: {attack}");
        let mut tests = shown_by.split('`').skip(1).step_by(2).peekable();
        assert!(tests.peek().is_some(), "no test shows it: {line}");
        for test in tests {
            assert!(there.contains(test), "there is no test {test}: {line}");
            named.insert(test);
        }
    }
    assert!(attacks.len() >= AT_LEAST, "{} attacks in the table", attacks.len());
    let own =
        there.iter().filter(|test| test.starts_with("attacks::") && !test.starts_with("attacks::mod::"));
    let missing: Vec<_> = own.filter(|test| !named.contains(test.as_str())).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
