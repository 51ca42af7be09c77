//! Any text as a configuration, as a rules file, and as the files of devices and passwords.
#![no_main]

use bugle::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    fuzzing::configuration(input);
    fuzzing::rules_file(input);
    fuzzing::credential_files(input);
});
