//! No bytes panic the MQTT decoder in any version, and what it decodes is written as bytes that mean the same.
#![no_main]

use bugle_core::mqtt::{Packet, Version, decode, encode, frame_length};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut rest = input;
        while let Ok(Some(length)) = frame_length(rest) {
            let Some((frame, after)) = rest.split_at_checked(length) else { break };
            rest = after;
            let Ok(packet) = decode(frame, version) else { continue };
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let mut bytes = Vec::new();
            encode(&packet, version, &mut bytes).expect("what was decoded can be encoded");
            assert_eq!(frame_length(&bytes), Ok(Some(bytes.len())));
            assert_eq!(decode(&bytes, version), Ok(packet));
        }
    }
});
