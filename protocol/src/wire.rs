//! Reading and writing of the primitive fields, in a form that takes little firmware: neither end stops at a fault, both say
//! at their end whether there was one. A reader never goes past its slice, and reads zeros from its first fault on; a writer
//! never goes past its buffer, and counts on, so that an empty one tells a frame's length.

use core::fmt;

macro_rules! fields {
    ($($name:ident = $text:literal;)*) => {
        /// A field as docs/protocol.md names it, in one byte: a text for each would be carried by every firmware.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Field { $($name,)* }

        impl Field {
            const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

fields! {
    Acknowledged = "acknowledged";
    BytesAfter = "bytes after the last field";
    ClientId = "client id";
    Clock = "clock";
    Count = "count of a status";
    Deadline = "deadline";
    DeliveryFlags = "delivery flags";
    DeliveryReserved = "reserved delivery flags";
    Filter = "filter";
    Frames = "frames";
    FramesNone = "an ack of no frame";
    Handle = "handle";
    HelloFlags = "hello flags";
    HelloReserved = "reserved hello flags";
    InlineName = "inline name";
    InlineNameLong = "inline name longer than 1024 bytes";
    KeepAlive = "keep-alive";
    Kind = "kind";
    LargestBody = "largest body";
    Length = "length";
    ListLength = "length of a list";
    ListsToClient = "lists on a send to one client";
    Magic = "magic";
    MessageFlags = "message flags";
    MessageId = "message id";
    MessageReserved = "reserved message flags";
    Name = "name";
    NameKind = "kind of name";
    Nonce = "nonce";
    Proof = "proof";
    PublishFlags = "publish flags";
    PublishReserved = "reserved publish flags";
    Reason = "reason";
    ReceiptFlags = "receipt flags";
    ReceiptMode = "receipt mode";
    ReceiptReserved = "reserved receipt flags";
    Received = "received";
    RefusedNumber = "number of the frame";
    RetryAfter = "retry-after";
    SendFlags = "send flags";
    SendNumber = "number of the send";
    SendOptions = "send options";
    SendOptionsReserved = "reserved send options";
    SendReserved = "reserved send flags";
    Session = "session";
    SessionExpiry = "session expiry";
    Status = "status";
    StatusesPresent = "statuses present";
    SubscribeFlags = "subscribe flags";
    SubscribeReserved = "reserved subscribe flags";
    TableSize = "size of the name table";
    Taken = "taken";
    Text = "text";
    Token = "token";
    Ttl = "ttl";
    Version = "version";
    WelcomeFlags = "welcome flags";
    WelcomeReserved = "reserved welcome flags";
    Will = "will";
    WillKind = "kind of the will";
    WillLength = "length of the will";
    Window = "window";
}

/// The bytes are not what the kind of frame demands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Malformed(Field);

impl Malformed {
    /// The frame's kind is none that this version knows.
    pub(crate) const UNKNOWN_KIND: Self = Self(Field::Kind);
    pub(crate) const WILL_KIND: Self = Self(Field::WillKind);

    /// The first field that was wrong, in words of docs/protocol.md; `kind` for a kind of frame that is unknown.
    pub const fn field(self) -> &'static str {
        self.0.text()
    }

    /// Whether the frame's kind is none that this version knows. Firmware that asks this carries no field's name.
    pub const fn is_unknown_kind(self) -> bool {
        matches!(self.0, Field::Kind)
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Malformed({:?})", self.field())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Malformed {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Malformed({=str})", self.field());
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed frame: {}", self.field())
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

/// A position in received bytes. What a read gives after the first fault means nothing, so [`finish`](Self::finish) must be
/// asked before anything is believed; loops over a count from the wire must ask [`is_good`](Self::is_good).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    fault: Option<Malformed>,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, fault: None }
    }

    /// What wasn't read, still to be read.
    pub(crate) fn peek(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether nothing was wrong so far.
    pub(crate) fn is_good(&self) -> bool {
        self.fault.is_none()
    }

    /// `field` is wrong. The first fault stands, and nothing more is there to be read.
    pub(crate) fn fail(&mut self, field: Field) {
        self.fail_as(Malformed(field));
    }

    /// The same, of a fault that another reader found.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail_as(&mut self, malformed: Malformed) {
        self.fault = self.fault.or(Some(malformed));
        self.rest = &[];
    }

    /// `field` is wrong if `bits` has others than those that are `known`.
    pub(crate) fn reserve(&mut self, bits: u8, known: u8, field: Field) {
        if bits & !known != 0 {
            self.fail(field);
        }
    }

    /// The next `length` bytes, or none.
    pub(crate) fn take(&mut self, length: usize, field: Field) -> &'a [u8] {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => {
                self.fail(field);
                &[]
            }
        }
    }

    /// All the rest.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// All the rest, as text.
    pub(crate) fn rest_text(&mut self, field: Field) -> &'a str {
        let bytes = self.rest();
        self.utf8(bytes, field)
    }

    /// All the rest, which has this length.
    pub(crate) fn rest_array<const N: usize>(&mut self, field: Field) -> &'a [u8; N] {
        let rest = self.rest();
        rest.try_into().unwrap_or_else(|_| {
            self.fail(field);
            &[0; N]
        })
    }

    fn utf8(&mut self, bytes: &'a [u8], field: Field) -> &'a str {
        core::str::from_utf8(bytes).unwrap_or_else(|_| {
            self.fail(field);
            ""
        })
    }

    pub(crate) fn u8(&mut self, field: Field) -> u8 {
        match self.take(1, field) {
            [byte] => *byte,
            _ => 0,
        }
    }

    pub(crate) fn u16(&mut self, field: Field) -> u16 {
        self.u32_of(2, field) as u16
    }

    pub(crate) fn u32(&mut self, field: Field) -> u32 {
        self.u32_of(4, field)
    }

    pub(crate) fn u64(&mut self, field: Field) -> u64 {
        let high = self.u32(field);
        u64::from(high) << 32 | u64::from(self.u32(field))
    }

    /// A number of at most four bytes, high ones first.
    fn u32_of(&mut self, length: usize, field: Field) -> u32 {
        self.take(length, field).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    /// A varint of at most 32 bits; overlong forms are refused, so that every value has one encoding.
    pub(crate) fn varint(&mut self, field: Field) -> u32 {
        let mut value = 0u32;
        let mut shift = 0;
        loop {
            let byte = self.u8(field);
            let bits = u32::from(byte & 0x7F);
            value |= bits << shift;
            if (shift == 28 && byte > 0x0F) || (shift > 0 && byte == 0) {
                self.fail(field);
                return 0;
            }
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }

    /// A varint that must fit 16 bits.
    pub(crate) fn varint16(&mut self, field: Field) -> u16 {
        u16::try_from(self.varint(field)).unwrap_or_else(|_| {
            self.fail(field);
            0
        })
    }

    /// A varint length and as many bytes of UTF-8.
    pub(crate) fn text(&mut self, field: Field) -> &'a str {
        let length = self.varint(field) as usize;
        let bytes = self.take(length, field);
        self.utf8(bytes, field)
    }

    /// Fails if something was wrong, or not everything was read.
    pub(crate) fn finish(&mut self) -> Result<(), Malformed> {
        if !self.is_empty() {
            self.fail(Field::BytesAfter);
        }
        self.fault.map_or(Ok(()), Err)
    }
}

/// `bit` if `set`, else nothing.
pub(crate) const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Writes what fits into a buffer, and counts all.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    written: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, written: 0 }
    }

    /// One that only counts.
    pub(crate) fn counting() -> Self {
        Self::new(&mut [])
    }

    /// How many bytes it would take, or took.
    pub fn written(&self) -> usize {
        self.written
    }

    /// How many bytes it took, where all of them fitted.
    pub(crate) fn finish(self) -> Result<usize, NoSpace> {
        if self.written <= self.buffer.len() { Ok(self.written) } else { Err(NoSpace) }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // Once something didn't fit nothing does, since what is written lies beyond the buffer.
        let end = self.written.saturating_add(bytes.len());
        if let Some(place) = self.buffer.get_mut(self.written..end) {
            place.copy_from_slice(bytes);
        }
        self.written = end;
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.varint(text.len() as u32);
        self.bytes(text.as_bytes());
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
            writer.varint(value);
            let length = writer.finish().unwrap();
            let mut reader = Reader::new(&buffer[..length]);
            let read = reader.varint(Field::Ttl);
            assert_eq!(reader.finish().map(|()| read), Ok(value));
        }
        for bad in [&[0x80, 0x00][..], &[0xFF, 0xFF, 0xFF, 0xFF, 0x10], &[0xFF; 6], &[0x80], &[]] {
            let mut reader = Reader::new(bad);
            reader.varint(Field::Ttl);
            assert_eq!(reader.finish(), Err(Malformed(Field::Ttl)), "{bad:?}");
        }
    }

    #[test]
    fn the_first_fault_stands_and_nothing_is_read_behind_it() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!((reader.u32(Field::Token), reader.u8(Field::Status), reader.peek()), (0, 0, &[][..]));
        assert_eq!(reader.finish().unwrap_err().field(), "token");
    }

    #[test]
    fn a_writer_never_goes_past_its_buffer_and_counts_on() {
        let mut buffer = [0; 6];
        let mut writer = Writer::new(&mut buffer[..4]);
        writer.u16(0x0102);
        writer.u32(0x0304_0506);
        writer.u8(7);
        assert_eq!((writer.written(), writer.finish()), (7, Err(NoSpace)));
        assert_eq!(buffer, [1, 2, 0, 0, 0, 0]);
    }
}
