//! What a store holds, whoever wrote it: a gateway takes it up without a fault, serves the clients that it speaks of, and what it
//! writes itself it can read. Lines with tabs between their fields; `src/kept.rs` reads them.
#![no_main]

use bugle_fuzz::kept;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    let operations = kept::operations(input);
    let (written, _) = kept::run(&operations);
    let (_, unread) = kept::run(&written);
    assert_eq!(unread, 0, "it wrote what it can't read: {written:#?}");
});
