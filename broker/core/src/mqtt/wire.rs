//! The data types of section 1.5: integers, variable byte integers, strings and binary data, read and
//! written.
//!
//! A [`Reader`] walks over one packet's bytes and can only shrink; running past the end is an error, not a
//! panic.

use super::{DecodeError, EncodeError, MAX_REMAINING_LENGTH};
use core::num::NonZeroU16;

/// What is left to be read of a packet.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const CUT_SHORT: DecodeError = DecodeError::malformed("a field runs past the end of the packet");

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, without taking it.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left over: a packet ends where its remaining length says.
    pub(super) const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::malformed("bytes after the last field")) }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A byte that says yes or no.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol("a property of 0 or 1 has another value")),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, length) = parse_varint(self.rest)?.ok_or(CUT_SHORT)?;
        check_minimal(value, length)?;
        self.take(length)?;
        Ok(value)
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        // [MQTT-1.5.4-1]; surrogates are not UTF-8 to Rust either.
        let string = str::from_utf8(bytes).map_err(|_| DecodeError::malformed("a string is not UTF-8"))?;
        check_no_null(string)?;
        Ok(string)
    }

    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16, DecodeError> {
        // [MQTT-2.2.1-3]
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::protocol("packet identifier is zero"))
    }
}

/// A string must not hold U+0000 [MQTT-1.5.4-2]: C programs behind it would see another one.
fn check_no_null(string: &str) -> Result<(), DecodeError> {
    if string.as_bytes().contains(&0) {
        return Err(DecodeError::malformed("a string holds U+0000"));
    }
    Ok(())
}

/// A variable byte integer at the start of `input`, and the bytes it takes; `None` if it isn't all there yet.
pub(super) fn parse_varint(input: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("a variable byte integer is longer than four bytes"))
}

/// Of the encodings of a value the shortest must be used [MQTT-1.5.5-1].
pub(super) const fn check_minimal(value: u32, length: usize) -> Result<(), DecodeError> {
    if length == varint_length(value as usize) {
        return Ok(());
    }
    Err(DecodeError::malformed("a variable byte integer is not in its shortest form"))
}

/// The bytes that the variable byte integer takes, if it has a form at all.
pub(super) const fn varint_length(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// The bytes of a variable byte integer, of which the first `varint_length` count.
pub(super) fn varint_bytes(value: usize) -> Result<[u8; 4], EncodeError> {
    if value > MAX_REMAINING_LENGTH {
        return Err(EncodeError::new("longer than 268,435,455 bytes"));
    }
    let last = varint_length(value) - 1;
    Ok(core::array::from_fn(|index| {
        let digit = (value >> (7 * index)) as u8 & 0x7F;
        if index < last { digit | 0x80 } else { digit }
    }))
}

pub(super) fn put_varint(value: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let bytes = varint_bytes(value)?;
    out.extend(bytes.into_iter().take(varint_length(value)));
    Ok(())
}

pub(super) fn put_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length =
        u16::try_from(bytes.len()).map_err(|_| EncodeError::new("a field is longer than 65,535 bytes"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn put_string(string: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    check_no_null(string)?;
    put_binary(string.as_bytes(), out)
}
