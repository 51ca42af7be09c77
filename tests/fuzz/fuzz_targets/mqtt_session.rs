//! An MQTT client that says anything at all, beside two devices that behave.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// CONNECT of `garbage`; version 5 where the input's first byte asks for it, else 3.1.1.
const CONNECTS: [&[u8]; 2] = [
    b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07garbage",
    b"\x10\x14\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x07garbage",
];

fuzz_target!(|input: &[u8]| {
    let version = input.first().map_or(0, |flags| usize::from(flags >> 1 & 1));
    bugle_fuzz::gateway::run(input, CONNECTS[version]);
});
