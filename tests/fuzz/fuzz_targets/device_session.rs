//! A device that says anything at all, beside two that behave; and what it hears.
#![no_main]

use bugle_fuzz::device_stranger::DeviceStranger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| bugle_fuzz::gateway::run(input, &mut DeviceStranger::default()));
