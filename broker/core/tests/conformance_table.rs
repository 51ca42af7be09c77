//! docs/mqtt-conformance.md against the tests: every statement of both standards has its row, and every row a test that
//! names the statement or a reason why there is none.
//!
//! A test names a statement in its doc comment: `[MQTT-3.1.2-5]` is one of MQTT 5, and those behind `3.1.1` are of
//! MQTT 3.1.1, up to the next word. To put the tests into the table anew:
//! `BUGLE_WRITE_TABLE=1 cargo test -p bugle-core --test conformance_table`.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The numbers of the statements of each section.
type Sections = &'static [(&'static str, RangeInclusive<u32>)];

/// Statements by section, as appendix B of MQTT 3.1.1 numbers them.
const V311: Sections = &[
    ("1.5.3", 1..=3),
    ("2.2.2", 1..=2),
    ("2.3.1", 1..=7),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=24),
    ("3.1.3", 1..=11),
    ("3.1.4", 1..=5),
    ("3.2.0", 1..=1),
    ("3.2.2", 1..=6),
    ("3.3.1", 1..=12),
    ("3.3.2", 1..=3),
    ("3.3.4", 1..=1),
    ("3.3.5", 1..=2),
    ("3.6.1", 1..=1),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=4),
    ("3.8.4", 1..=6),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.12.4", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.4", 1..=3),
    ("4.1.0", 1..=2),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=2),
    ("4.3.3", 1..=2),
    ("4.4.0", 1..=1),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.1", 1..=3),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.0", 1..=2),
    ("6.0.0", 1..=4),
    ("7.0.0", 1..=2),
    ("7.1.1", 1..=1),
    ("7.1.2", 1..=1),
];

/// The same of MQTT 5, where 2.2.1 begins with 2.
const V5: Sections = &[
    ("1.5.4", 1..=3),
    ("1.5.5", 1..=1),
    ("1.5.7", 1..=1),
    ("2.1.3", 1..=1),
    ("2.2.1", 2..=6),
    ("2.2.2", 1..=1),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=30),
    ("3.1.3", 1..=12),
    ("3.1.4", 1..=6),
    ("3.2.0", 1..=2),
    ("3.2.2", 1..=22),
    ("3.3.1", 1..=13),
    ("3.3.2", 1..=20),
    ("3.3.4", 1..=10),
    ("3.4.2", 1..=3),
    ("3.5.2", 1..=3),
    ("3.6.1", 1..=1),
    ("3.6.2", 1..=3),
    ("3.7.2", 1..=3),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=5),
    ("3.8.4", 1..=8),
    ("3.9.2", 1..=2),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.11.2", 1..=2),
    ("3.11.3", 1..=2),
    ("3.12.4", 1..=1),
    ("3.14.0", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.2", 1..=4),
    ("3.14.4", 1..=3),
    ("3.15.1", 1..=1),
    ("3.15.2", 1..=3),
    ("4.1.0", 1..=2),
    ("4.2.0", 1..=1),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=5),
    ("4.3.3", 1..=13),
    ("4.4.0", 1..=2),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.0", 1..=1),
    ("4.7.1", 1..=2),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.2", 1..=6),
    ("4.9.0", 1..=3),
    ("4.12.0", 1..=7),
    ("4.12.1", 1..=2),
    ("4.13.1", 1..=1),
    ("4.13.2", 1..=1),
    ("6.0.0", 1..=4),
];

/// The standards, as the headings of the document name them.
const STANDARDS: [(&str, Sections); 2] = [("MQTT 3.1.1", V311), ("MQTT 5", V5)];

/// Where tests are, and how their paths begin in the document.
const PLACES: [&str; 4] = ["broker/core/tests", "broker/core/src", "broker/src", "tests/tests"];

/// A statement: which standard, and its number.
type Statement = (&'static str, String);

/// The statements of both standards, in the order of the table.
fn statements() -> Vec<Statement> {
    let of = |(standard, sections): (&'static str, Sections)| {
        let numbers = |(section, numbers): &(&str, RangeInclusive<u32>)| {
            numbers.clone().map(|number| format!("{section}-{number}")).collect::<Vec<_>>()
        };
        sections.iter().flat_map(numbers).map(move |number| (standard, number)).collect::<Vec<_>>()
    };
    STANDARDS.into_iter().flat_map(of).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files in and below a folder, in order.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The tests of the repository, and what each one names.
fn tests() -> BTreeMap<String, Vec<Statement>> {
    let mut tests = BTreeMap::new();
    for place in PLACES {
        let folder = root().join(place);
        let mut found = Vec::new();
        files(&folder, &mut found);
        for path in found {
            let short = path.strip_prefix(&folder).unwrap().display().to_string();
            for (name, doc) in tests_of(&fs::read_to_string(&path).unwrap()) {
                tests.insert(format!("{short}::{name}"), cited(&doc));
            }
        }
    }
    tests
}

/// The tests of a file: their names and doc comments.
fn tests_of(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut doc, mut is_test) = (String::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
            doc.push('\n');
        } else if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("::test(");
        } else {
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = name.filter(|_| is_test).and_then(|name| name.split('(').next()) {
                found.push((name.to_owned(), std::mem::take(&mut doc)));
            }
            (doc, is_test) = (String::new(), false);
        }
    }
    found
}

/// The statements that a doc comment names.
fn cited(doc: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut standard = "MQTT 5";
    for word in doc.split_whitespace() {
        let bare = word.trim_end_matches([',', '.', ':', ';', ')']);
        if bare == "3.1.1" {
            standard = "MQTT 3.1.1";
        } else if let Some(number) = bare.strip_prefix("[MQTT-").and_then(|number| number.strip_suffix(']')) {
            found.push((standard, number.to_owned()));
            if word != bare {
                standard = "MQTT 5";
            }
        } else {
            standard = "MQTT 5";
        }
    }
    found
}

/// A row: number, in short, who is bound, the tests, and what else there is to say.
struct Row {
    statement: Statement,
    says: String,
    binds: String,
    tests: Vec<String>,
    remark: String,
}

impl Row {
    fn read(standard: &'static str, line: &str) -> Self {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, says, binds, shown] = cells[..] else { panic!("not four columns: {line}") };
        let mut tests = Vec::new();
        let mut rest = shown;
        while let Some((test, after)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'))
            && test.contains("::")
        {
            tests.push(test.to_owned());
            rest = after.strip_prefix(", ").unwrap_or(after);
        }
        let remark = rest.trim_start_matches(['.', ' ']).to_owned();
        let statement = (standard, number.to_owned());
        Self { statement, says: says.into(), binds: binds.into(), tests, remark }
    }

    fn line(&self) -> String {
        let mut shown: String =
            self.tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ");
        if !self.remark.is_empty() {
            shown.push_str(if shown.is_empty() { "" } else { ". " });
            shown.push_str(&self.remark);
        }
        format!("| {} | {} | {} | {shown} |", self.statement.1, self.says, self.binds)
    }
}

/// The lines of the document, each with its row if it is one.
fn lines(document: &str) -> Vec<(String, Option<Row>)> {
    let mut standard = None;
    let line = |line: &str| {
        if let Some(heading) = line.strip_prefix("## ") {
            standard = STANDARDS.iter().map(|(name, _)| *name).find(|name| *name == heading);
        }
        let is_row =
            line.starts_with("| ") && line.chars().nth(2).is_some_and(|first| first.is_ascii_digit());
        let row = standard.filter(|_| is_row).map(|standard| Row::read(standard, line));
        (line.to_owned(), row)
    };
    document.lines().map(line).collect()
}

#[test]
fn every_statement_has_its_row_and_every_row_its_test_or_reason() {
    let path = root().join("docs/mqtt-conformance.md");
    let tests = tests();
    let mut lines = lines(&fs::read_to_string(&path).unwrap());
    if std::env::var_os("BUGLE_WRITE_TABLE").is_some() {
        for row in lines.iter_mut().filter_map(|(_, row)| row.as_mut()) {
            let names = |cited: &Vec<Statement>| cited.contains(&row.statement);
            row.tests =
                tests.iter().filter(|(_, cited)| names(cited)).map(|(test, _)| test.clone()).collect();
        }
        let text = |(line, row): &(String, Option<Row>)| row.as_ref().map_or(line.clone(), Row::line) + "\n";
        fs::write(&path, lines.iter().map(text).collect::<String>()).unwrap();
    }

    let rows: Vec<&Row> = lines.iter().filter_map(|(_, row)| row.as_ref()).collect();
    let there: Vec<_> = rows.iter().map(|row| row.statement.clone()).collect();
    let all = statements();
    let missing: Vec<_> = all.iter().filter(|statement| !there.contains(statement)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    assert_eq!(there, all, "rows that there should not be, or not here");

    let mut wrong = Vec::new();
    for row in rows {
        let (standard, number) = &row.statement;
        let mut complain = |what: String| wrong.push(format!("{standard} {number}: {what}"));
        if row.says.is_empty() || !["both", "client", "server"].contains(&&*row.binds) {
            complain("a column is empty or unknown".into());
        }
        for test in &row.tests {
            match tests.get(test) {
                None => complain(format!("there is no test {test}")),
                Some(cited) if !cited.contains(&row.statement) => {
                    complain(format!("{test} doesn't name it in its doc comment"));
                }
                Some(_) => {}
            }
        }
        if row.tests.is_empty() && row.remark.len() < 20 {
            complain("no test and no reason".into());
        }
        let by = tests.iter().find(|(_, cited)| cited.contains(&row.statement));
        if let Some((test, _)) = by.filter(|_| row.tests.is_empty()) {
            complain(format!("{test} names it, but isn't in its row"));
        }
    }
    let how = "to put the tests in: BUGLE_WRITE_TABLE=1 cargo test -p bugle-core --test conformance_table";
    assert!(wrong.is_empty(), "{}\n{how}", wrong.join("\n"));
}

#[test]
fn no_test_names_a_statement_that_there_is_not() {
    let all: BTreeSet<_> = statements().into_iter().collect();
    for (test, cited) in tests() {
        for statement in cited {
            assert!(all.contains(&statement), "{test} names {statement:?}");
        }
    }
}

#[test]
fn doc_comments_are_read_as_this_file_says() {
    let source = "/// 3.1.1 [MQTT-1.5.3-1]\n/// [MQTT-1.5.3-2]: x [MQTT-1.5.4-1] 3.1.1 and [MQTT-1.5.4-2], 3.1.1\n\
                  #[tokio::test]\nasync fn one() {\n}\n/// [MQTT-1.5.5-1]\nfn helper() {}\n#[test]\nfn two() {";
    let tests = tests_of(source);
    assert_eq!(tests.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["one", "two"]);
    let of = |standard, number: &str| (standard, number.to_owned());
    assert_eq!(
        cited(&tests[0].1),
        [
            of("MQTT 3.1.1", "1.5.3-1"),
            of("MQTT 3.1.1", "1.5.3-2"),
            of("MQTT 5", "1.5.4-1"),
            of("MQTT 5", "1.5.4-2"),
        ]
    );
    assert_eq!(cited(&tests[1].1), []);
    assert_eq!((statements().len(), V311.len(), V5.len()), (141 + 251, 39, 56));
}
