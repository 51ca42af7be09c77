//! Reading and writing of the primitive fields. A reader never goes past its slice; a writer that has
//! no buffer counts, so that a frame's length is known before its first byte is written.

use core::fmt;

/// The bytes are not what the kind of frame demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Malformed {
    /// The field that was wrong, in words of docs/protocol.md.
    pub field: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed frame: {}", self.field)
    }
}

impl core::error::Error for Malformed {}

/// The buffer is too small for the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoSpace;

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too small for the frame")
    }
}

impl core::error::Error for NoSpace {}

/// A position in received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes, or an error that names `field`.
    pub(crate) fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed { field })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A varint of at most 32 bits; overlong forms are refused, so that every value has one encoding.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8(field)?;
            let bits = u32::from(byte & 0x7F);
            if (shift == 28 && bits > 0x0F) || (shift > 0 && byte == 0) {
                return Err(Malformed { field });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed { field })
    }

    /// A varint that must fit 16 bits.
    pub(crate) fn varint16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        u16::try_from(self.varint(field)?).map_err(|_| Malformed { field })
    }

    /// A varint length and as many bytes of UTF-8.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        let length = self.varint(field)? as usize;
        utf8(self.take(length, field)?, field)
    }

    /// Fails unless everything was read.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed { field: "bytes after the last field" }) }
    }
}

/// `bytes` as text, or an error that names `field`.
pub(crate) fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    core::str::from_utf8(bytes).map_err(|_| Malformed { field })
}

/// `bit` if `set`, else nothing.
pub(crate) const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Writes into a buffer, or counts when it has none.
pub(crate) struct Writer<'a> {
    buffer: Option<&'a mut [u8]>,
    written: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer: Some(buffer), written: 0 }
    }

    pub(crate) fn counting() -> Self {
        Self { buffer: None, written: 0 }
    }

    pub(crate) fn written(&self) -> usize {
        self.written
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoSpace> {
        let end = self.written.checked_add(bytes.len()).ok_or(NoSpace)?;
        if let Some(buffer) = &mut self.buffer {
            buffer.get_mut(self.written..end).ok_or(NoSpace)?.copy_from_slice(bytes);
        }
        self.written = end;
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), NoSpace> {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), NoSpace> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), NoSpace> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Result<(), NoSpace> {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn varint(&mut self, mut value: u32) -> Result<(), NoSpace> {
        loop {
            let bits = (value & 0x7F) as u8;
            value >>= 7;
            if value == 0 {
                return self.u8(bits);
            }
            self.u8(bits | 0x80)?;
        }
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), NoSpace> {
        self.varint(text.len() as u32)?;
        self.bytes(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_encoding() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut buffer = [0; 5];
            let mut writer = Writer::new(&mut buffer);
            writer.varint(value).unwrap();
            let length = writer.written();
            let mut reader = Reader::new(&buffer[..length]);
            assert_eq!(reader.varint("x"), Ok(value));
            assert!(reader.is_empty());
        }
        for bad in [&[0x80, 0x00][..], &[0xFF, 0xFF, 0xFF, 0xFF, 0x10], &[0xFF; 6], &[0x80], &[]] {
            assert!(Reader::new(bad).varint("x").is_err(), "{bad:?}");
        }
    }
}
