//! RECEIPT: what became of one send at its recipients (S8).

use crate::name::NameRef;
use crate::reason::Status;
use crate::wire::{Field, Reader, Writer, flag};

/// Recipients per status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReceiptCounts([u32; Status::COUNT]);

impl ReceiptCounts {
    /// Recipients with this status.
    pub const fn count(&self, status: Status) -> u32 {
        self.0[status as usize]
    }

    /// Adds `recipients` with this status, saturating.
    pub fn add(&mut self, status: Status, recipients: u32) {
        let count = &mut self.0[status as usize];
        *count = count.saturating_add(recipients);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for &status in Status::ALL {
            self.add(status, other.count(status));
        }
    }

    /// All recipients.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    fn decode(reader: &mut Reader<'_>) -> Self {
        let present = reader.u8(Field::StatusesPresent);
        let mut counts = Self::default();
        for (code, count) in counts.0.iter_mut().enumerate() {
            if present & (1 << code) != 0 {
                *count = reader.varint(Field::Count);
            }
        }
        counts
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        let with_count = || Status::ALL.iter().filter(|status| self.count(**status) > 0);
        writer.u8(with_count().fold(0, |bits, status| bits | 1 << status.code()));
        with_count().for_each(|&status| writer.varint(self.count(status)));
    }
}

/// One recipient and what became of the message there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReceiptEntry<'a> {
    /// The recipient's client id.
    pub client: NameRef<'a>,
    /// What became of it.
    pub status: Status,
}

impl<'a> ReceiptEntry<'a> {
    fn decode(reader: &mut Reader<'a>) -> Self {
        let client = NameRef::decode(reader);
        let status = Status::from_code(reader.u8(Field::Status)).unwrap_or_else(|| {
            reader.fail(Field::Status);
            Status::Overflow
        });
        Self { client, status }
    }
}

/// The named recipients of one part of a receipt.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptEntries<'a>(Repr<'a>);

#[derive(Clone, Copy, Debug)]
enum Repr<'a> {
    /// Checked bytes from the wire.
    Encoded(&'a [u8]),
    Entries(&'a [ReceiptEntry<'a>]),
}

impl<'a> ReceiptEntries<'a> {
    /// Entries to be sent.
    pub const fn new(entries: &'a [ReceiptEntry<'a>]) -> Self {
        Self(Repr::Entries(entries))
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = ReceiptEntry<'a>> + use<'a> {
        let entries = match self.0 {
            Repr::Encoded(_) => &[][..],
            Repr::Entries(entries) => entries,
        };
        self.read().chain(entries.iter().copied())
    }
}

impl<'a> ReceiptEntries<'a> {
    /// The entries of a receipt that was read; none of one that is to be sent. A device has only the first.
    pub fn read(&self) -> impl Iterator<Item = ReceiptEntry<'a>> + use<'a> {
        let mut reader = Reader::new(match self.0 {
            Repr::Encoded(bytes) => bytes,
            Repr::Entries(_) => &[],
        });
        // Checked by `decode`; a failure would only end the list.
        core::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let entry = ReceiptEntry::decode(&mut reader);
            reader.is_good().then_some(entry)
        })
    }
}

impl PartialEq for ReceiptEntries<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReceiptEntries<'_> {}

/// What became of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// The low 16 bits of the number of the SEND frame.
    pub number: u16,
    /// Some recipients are QUEUED; another receipt will end them (S8).
    pub interim: bool,
    /// More parts of this receipt follow.
    pub more: bool,
    /// The send's id was seen before: this is the first one's outcome, and nothing was delivered (S12).
    pub duplicate: bool,
    /// Recipients per status, in all parts together; the same in each part.
    pub counts: ReceiptCounts,
    /// The recipients that this part names; none with [`ReceiptMode::Summary`](crate::ReceiptMode::Summary).
    pub entries: ReceiptEntries<'a>,
}

const INTERIM: u8 = 1;
const MORE: u8 = 1 << 1;
const DUPLICATE: u8 = 1 << 2;

impl<'a> Receipt<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let number = reader.u16(Field::SendNumber);
        let flags = reader.u8(Field::ReceiptFlags);
        reader.reserve(flags, INTERIM | MORE | DUPLICATE, Field::ReceiptReserved);
        let counts = ReceiptCounts::decode(reader);
        let entries = reader.peek();
        // Each takes two bytes or more, and a fault leaves none.
        while !reader.is_empty() {
            ReceiptEntry::decode(reader);
        }
        let (interim, more, duplicate) = (flags & INTERIM != 0, flags & MORE != 0, flags & DUPLICATE != 0);
        Self { number, interim, more, duplicate, counts, entries: ReceiptEntries(Repr::Encoded(entries)) }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.number);
        writer.u8(flag(self.interim, INTERIM) | flag(self.more, MORE) | flag(self.duplicate, DUPLICATE));
        self.counts.encode(writer);
        match self.entries.0 {
            Repr::Encoded(bytes) => writer.bytes(bytes),
            Repr::Entries(entries) => entries.iter().for_each(|entry| {
                entry.client.encode(writer);
                writer.u8(entry.status.code());
            }),
        }
    }
}
