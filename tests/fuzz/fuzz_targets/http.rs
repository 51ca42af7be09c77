//! Any bytes on the ports: a connection's beginning, cut anywhere; a request to the admin API; and what the hook answers.
#![no_main]

use bugle::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&step, rest)) = input.split_first() else { return };
    match step {
        b'{' => fuzzing::hook_answer(input),
        b'A'..=b'Z' => fuzzing::request(input),
        _ => fuzzing::beginning(rest, usize::from(step)),
    }
});
