//! What the fuzz targets share: inputs as steps, the SDK's memory, a gateway of two shards in one thread, and the models
//! that its answers are held against.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

pub mod connection;
pub mod device_stranger;
pub mod gateway;
pub mod kept;
pub mod memory;
pub mod mqtt_stranger;
pub mod naive;
pub mod parties;
pub mod party;
pub mod stranger;

/// With `FUZZ_TRACE` set, says what is said and heard: for a person who looks into one input.
pub fn trace(line: impl FnOnce() -> String) {
    static WANTED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FUZZ_TRACE").is_some());
    if *WANTED {
        eprintln!("{}", line());
    }
}

/// One thing to do. An input is a run of them, so that libFuzzer can cut and splice it and most of it keeps its sense.
pub enum Step<'a> {
    /// Bytes come in: a first byte below 0x80 is their number, 0x7F says that two bytes with it follow.
    Bytes(&'a [u8]),
    /// So many milliseconds pass.
    Time(u64),
    /// Anything else that the target has, by number.
    Other(u8),
}

/// The steps of an input.
pub struct Steps<'a>(pub &'a [u8]);

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match first {
            0x7F => {
                let length = self.take(2).iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
                Step::Bytes(self.take(length))
            }
            0..0x7F => Step::Bytes(self.take(first.into())),
            0x80..0xC0 => Step::Time(u64::from(first & 0x3F).pow(2) * 10),
            _ => Step::Other(first & 0x3F),
        })
    }
}

impl<'a> Steps<'a> {
    /// The next byte, 0 where there is none.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next `length` bytes, or as many as there are.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
