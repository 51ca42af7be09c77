//! The seeds of the fuzzers' target `store_records`, among them what once failed, run without a fuzzer.

#[path = "../../../tests/fuzz/src/kept.rs"]
mod kept;

use std::path::Path;

#[test]
fn what_once_failed_in_the_fuzzer_of_stores_fails_no_more() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/store_records");
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
        let (written, _) = kept::run(&kept::operations(&text));
        assert_eq!(kept::run(&written).1, 0, "{written:#?}");
        seeds += 1;
    }
    assert!(seeds >= 7, "{seeds} seeds");
}
