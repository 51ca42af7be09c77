//! Names of clients, groups and topics, and the small handles that stand for them (docs/protocol.md, Names).
//!
//! Each end announces names to the other with a NAME frame and refers to them by handle from then on.
//! Whoever announces chooses the handle, and re-announcing one evicts what it stood for; the table's
//! size is the receiver's, told in hello and welcome.

use core::num::NonZeroU16;

use crate::wire::{Field, Reader, Writer};
use crate::{MAX_NAME, MAX_TOPIC};

/// Whether `text` is a client id, group name or message id: 1-64 of `A-Z a-z 0-9 . _ : -` (S1, S2).
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum NameKind {
    /// A client id (S1).
    Client = 1,
    /// A group name (S2).
    Group = 2,
    /// The name of a plain topic (T7).
    Topic = 3,
}

impl NameKind {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Self {
        match reader.u8(Field::NameKind) {
            1 => Self::Client,
            2 => Self::Group,
            3 => Self::Topic,
            _ => {
                reader.fail(Field::NameKind);
                Self::Topic
            }
        }
    }
}

/// The handle of a NAME with this body, where it can be read, though the rest may be malformed: what the handle stood for
/// before is gone then, too.
pub fn announced_handle(body: &[u8]) -> Option<NonZeroU16> {
    // Zero, which is no handle, where it can't.
    NonZeroU16::new(Reader::new(body).varint16(Field::Handle))
}

/// A name as it stands in a frame: a handle that was announced, or the name itself.
///
/// Inline text is UTF-8 of at most [`MAX_TOPIC`] bytes; whether it is a good name for its place is the
/// receiver's to check ([`is_name`]), so that a bad one is refused and not a malformed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NameRef<'a> {
    /// A handle of the sender's table.
    Handle(NonZeroU16),
    /// The name itself.
    Inline(&'a str),
}

impl<'a> NameRef<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        if let Some(handle) = NonZeroU16::new(reader.varint16(Field::Handle)) {
            return Self::Handle(handle);
        }
        let text = reader.text(Field::InlineName);
        if text.len() > MAX_TOPIC {
            reader.fail(Field::InlineNameLong);
        }
        Self::Inline(text)
    }

    pub(crate) fn encode(self, writer: &mut Writer<'_>) {
        match self {
            Self::Handle(handle) => writer.varint(handle.get().into()),
            Self::Inline(text) => {
                writer.varint(0);
                writer.text(text);
            }
        }
    }
}

/// An *only* or *except* list (S4): a count and as many name references.
///
/// Longer lists than [`MAX_LIST`](crate::MAX_LIST) decode, so that the receiver can refuse the send by name.
#[derive(Clone, Copy, Debug)]
pub struct NameList<'a>(Repr<'a>);

#[derive(Clone, Copy, Debug)]
enum Repr<'a> {
    /// Checked bytes from the wire.
    Encoded {
        count: usize,
        bytes: &'a [u8],
    },
    Refs(&'a [NameRef<'a>]),
    Inline(&'a [&'a str]),
}

impl<'a> NameList<'a> {
    /// A list to be sent.
    pub const fn new(names: &'a [NameRef<'a>]) -> Self {
        Self(Repr::Refs(names))
    }

    /// A list of inline names to be sent.
    pub const fn inline(names: &'a [&'a str]) -> Self {
        Self(Repr::Inline(names))
    }

    /// Entries as given, duplicates counted.
    pub fn len(&self) -> usize {
        match self.0 {
            Repr::Encoded { count, .. } => count,
            Repr::Refs(refs) => refs.len(),
            Repr::Inline(names) => names.len(),
        }
    }

    /// Whether the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> NameListIter<'a> {
        NameListIter(match self.0 {
            Repr::Encoded { count, bytes } => IterRepr::Encoded { left: count, reader: Reader::new(bytes) },
            Repr::Refs(refs) => IterRepr::Refs(refs.iter()),
            Repr::Inline(names) => IterRepr::Inline(names.iter()),
        })
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        let count = reader.varint(Field::ListLength) as usize;
        let before = reader.peek();
        // Every entry is a byte or more, so a count beyond the frame fails within the frame.
        for _ in 0..count {
            if !reader.is_good() {
                break;
            }
            NameRef::decode(reader);
        }
        let used = before.len() - reader.peek().len();
        Self(Repr::Encoded { count, bytes: &before[..used] })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.varint(self.len() as u32);
        match self.0 {
            Repr::Encoded { bytes, .. } => writer.bytes(bytes),
            Repr::Refs(refs) => refs.iter().for_each(|name| name.encode(writer)),
            Repr::Inline(names) => names.iter().for_each(|name| NameRef::Inline(name).encode(writer)),
        }
    }
}

impl PartialEq for NameList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for NameList<'_> {}

impl<'a> IntoIterator for NameList<'a> {
    type Item = NameRef<'a>;
    type IntoIter = NameListIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over a [`NameList`].
#[derive(Clone, Debug)]
pub struct NameListIter<'a>(IterRepr<'a>);

#[derive(Clone, Debug)]
enum IterRepr<'a> {
    Encoded { left: usize, reader: Reader<'a> },
    Refs(core::slice::Iter<'a, NameRef<'a>>),
    Inline(core::slice::Iter<'a, &'a str>),
}

impl<'a> Iterator for NameListIter<'a> {
    type Item = NameRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterRepr::Encoded { left, reader } => {
                *left = left.checked_sub(1)?;
                let name = NameRef::decode(reader);
                // Checked by `NameList::decode`; a failure would only end the list.
                reader.is_good().then_some(name)
            }
            IterRepr::Refs(refs) => refs.next().copied(),
            IterRepr::Inline(names) => names.next().map(|name| NameRef::Inline(name)),
        }
    }
}
