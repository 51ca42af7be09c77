//! A device that says anything at all, beside two that behave.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// HELLO of `garbage`: a session expiry of 60 s, 4 deliveries at a time, 8 names.
const HELLO: &[u8] = b"\x0b\x13BG\x01\x00\x00\x00\x02\x00\x04\x08\x3c\x07garbage";

fuzz_target!(|input: &[u8]| bugle_fuzz::gateway::run(input, HELLO));
