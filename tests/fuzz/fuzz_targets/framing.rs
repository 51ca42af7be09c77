//! No bytes panic the framing's decoder, and what it decodes is written as bytes that mean the same.
#![no_main]

use bugle_protocol::{Frame, MAX_BODY, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(raw)) = split(rest, MAX_BODY) {
        rest = &rest[raw.length..];
        let Ok(frame) = raw.decode() else { continue };
        let mut bytes = vec![0; frame.encoded_len()];
        assert_eq!(frame.encode(&mut bytes), Ok(bytes.len()));
        let again = split(&bytes, usize::MAX).expect("a length").expect("a whole frame");
        assert_eq!((again.kind, again.length), (raw.kind, bytes.len()));
        assert_eq!(again.decode().as_ref(), Ok(&frame));
        if let Frame::Hello(hello) = frame
            && let Some(will) = hello.will
        {
            // Whatever it holds.
            let _ = will.frame();
        }
    }
});
