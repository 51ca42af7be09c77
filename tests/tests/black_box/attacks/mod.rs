//! Attacks and misuses that no other test of the black box shows, each against the real process; and the table of all of
//! them in docs/security.md, held against the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod admin_port;
mod before_authentication;
mod bounds;
mod names;
mod protocol;
mod rights;

/// The counter of connections that were closed before their first packet, for this reason.
fn closed_early(reason: &str) -> String {
    format!("bugle_connections_closed_early_total{{reason=\"{reason}\"}}")
}

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

/// A table of three columns in a section of docs/security.md: what, what stops or bounds it, and the tests that show it.
fn table(section: &str) -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let text = document.split(&format!("\n## {section}\n")).nth(1).expect("the section is there");
    let text = text.split("\n## ").next().unwrap();
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).skip(1) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, by, shown_by] = cells[..] else { panic!("not three columns: {line}") };
        assert!(!by.is_empty(), "by what? {line}");
        assert!(rows.iter().all(|(other, _)| other != what), "twice in the table: {what}");
        let tests: Vec<_> = shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!tests.is_empty(), "no test shows it: {line}");
        rows.push((what.to_owned(), tests));
    }
    rows
}

#[test]
fn every_attack_and_bound_in_the_tables_has_its_test_and_every_test_here_its_attack() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut there = BTreeSet::new();
    tests(&root.join("tests/tests/black_box"), "", &mut there);
    let (attacks, bounds) = (table("Attacks that were tried"), table("What a stranger may cost"));
    assert!(attacks.len() >= AT_LEAST, "{} attacks in the table", attacks.len());
    assert!(!bounds.is_empty());
    let mut named = BTreeSet::new();
    for (what, tests) in attacks.into_iter().chain(bounds) {
        for test in tests {
            assert!(there.contains(&test), "there is no test {test}: {what}");
            named.insert(test);
        }
    }
    let own =
        there.iter().filter(|test| test.starts_with("attacks::") && !test.starts_with("attacks::mod::"));
    let missing: Vec<_> = own.filter(|test| !named.contains(test.as_str())).collect();
    assert!(missing.is_empty(), "not in the tables: {missing:?}");
}
