//! Any rows in a store's tables, as a start and a client's queue read them.
#![no_main]

use bugle::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    fuzzing::rows(input);
});
