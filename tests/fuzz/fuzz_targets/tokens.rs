//! Any text as a token, as the claims of a signed one, and as a file with keys: who has signed nothing isn't let in, and claims let
//! in only whom they say.
#![no_main]

use bugle::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    fuzzing::token(input);
    if let Ok(input) = str::from_utf8(input) {
        fuzzing::token_keys(input);
    }
});
