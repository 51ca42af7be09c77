//! The receive buffer: received bytes, and the frames in them that wait for their turn.
//!
//! ```text
//!   | free | kept frames, in order | looked at | not looked at | free |
//!          start                   kept        scan            end
//! ```
//!
//! What concerns the device's own sends is processed when it is looked at, wherever it stands. All other
//! numbered frames are kept, in order, and are dealt with one by one at the head; of a processed frame behind
//! a kept one a mark of two bytes stays, so that the acknowledgement counts it in its turn.

use core::ops::Range;

use bugle_protocol::{Kind, NameKind, NameRef};

use super::names::{KnownNames, NameSlot};

/// Stands for as many processed frames as its second byte says. No frame of this kind is ever kept.
const DONE_MARK: u8 = 0;
/// Stands for a frame that was too large to be received.
const OVERSIZED_MARK: u8 = 1;
const MARK_LEN: usize = 2;

/// Kind and lengths of the frame that begins at the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Partial,
    /// The length is not a varint: there is no next frame to be found.
    Broken,
    Whole {
        kind: Kind,
        header: usize,
        body: usize,
    },
}

pub(super) fn header(bytes: &[u8]) -> Header {
    let Some((&kind, length)) = bytes.split_first() else { return Header::Partial };
    let mut body = 0usize;
    // Four bytes say more than any frame may have.
    for (index, &byte) in length.iter().take(4).enumerate() {
        body |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return match (index, byte) {
                (1.., 0) => Header::Broken,
                _ => Header::Whole { kind: Kind(kind), header: index + 2, body },
            };
        }
    }
    if length.len() < 4 { Header::Partial } else { Header::Broken }
}

/// The next frame to be looked at.
pub(super) enum Next {
    Partial,
    Broken,
    Frame { kind: Kind, body: Range<usize> },
    Oversized(Kind),
}

/// The first kept thing.
pub(super) enum Head<'b> {
    Done(u32),
    Oversized,
    Frame(Kind, &'b [u8]),
}

pub(super) struct Inbox<'a> {
    buffer: &'a mut [u8],
    start: usize,
    kept: usize,
    scan: usize,
    end: usize,
    /// Where the last kept thing begins, if it is a [`DONE_MARK`] that can still count.
    open_mark: Option<usize>,
    /// Bytes of an oversized body that are still to come.
    skip: usize,
    /// The gateway's numbered frames that are done with.
    pub(super) done: u32,
    /// The gateway's numbered frames that were looked at.
    pub(super) looked_at: u32,
    pub(super) names: KnownNames<'a>,
}

impl<'a> Inbox<'a> {
    pub(super) fn new(buffer: &'a mut [u8], names: &'a mut [NameSlot]) -> Self {
        let (start, kept, scan, end) = (0, 0, 0, 0);
        let names = KnownNames::new(names);
        Self { buffer, start, kept, scan, end, open_mark: None, skip: 0, done: 0, looked_at: 0, names }
    }

    /// Forgets all bytes and what wasn't taken. What is done with stays so.
    pub(super) fn clear(&mut self) {
        (self.start, self.kept, self.scan, self.end) = (0, 0, 0, 0);
        (self.open_mark, self.skip) = (None, 0);
        self.looked_at = self.done;
    }

    /// Begins a new session. Bytes that weren't looked at stay: they may have come right behind the welcome.
    pub(super) fn begin_session(&mut self) {
        (self.done, self.looked_at) = (0, 0);
        self.names.clear();
    }

    pub(super) fn table_size(&self) -> u16 {
        self.names.table_size()
    }

    /// How many more bytes would be taken.
    pub(super) fn room(&self) -> usize {
        match self.skip {
            0 => self.buffer.len() - (self.kept - self.start) - (self.end - self.scan),
            skip => skip,
        }
    }

    /// Takes received bytes and says how many.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let bytes = &bytes[skipped..];
        if bytes.len() > self.buffer.len() - self.end {
            self.compact();
        }
        let length = bytes.len().min(self.buffer.len() - self.end);
        self.buffer[self.end..self.end + length].copy_from_slice(&bytes[..length]);
        self.end += length;
        skipped + length
    }

    fn compact(&mut self) {
        self.buffer.copy_within(self.start..self.kept, 0);
        self.open_mark = self.open_mark.map(|mark| mark - self.start);
        self.kept -= self.start;
        self.start = 0;
        self.buffer.copy_within(self.scan..self.end, self.kept);
        self.end = self.kept + (self.end - self.scan);
        self.scan = self.kept;
    }

    /// The next frame that wasn't looked at; it stays the next until passed, marked or kept.
    pub(super) fn next(&self, max_body: usize) -> Next {
        let unseen = &self.buffer[self.scan..self.end];
        match header(unseen) {
            Header::Partial => Next::Partial,
            Header::Broken => Next::Broken,
            Header::Whole { kind, body, .. } if body > max_body => Next::Oversized(kind),
            Header::Whole { header, body, .. } if unseen.len() < header + body => Next::Partial,
            Header::Whole { kind, header, body } => {
                let from = self.scan + header;
                Next::Frame { kind, body: from..from + body }
            }
        }
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Is done with an unnumbered frame that ends at `end`.
    pub(super) fn pass(&mut self, end: usize) {
        self.scan = end;
    }

    /// Is done with a numbered frame that ends at `end`; it counts when its turn comes.
    pub(super) fn mark_done(&mut self, end: usize) {
        self.scan = end;
        self.looked_at = self.looked_at.wrapping_add(1);
        if self.start == self.kept {
            self.done = self.done.wrapping_add(1);
            return;
        }
        if let Some(mark) = self.open_mark
            && self.buffer[mark + 1] < u8::MAX
        {
            self.buffer[mark + 1] += 1;
            return;
        }
        self.open_mark = Some(self.kept);
        self.put_mark(DONE_MARK, 1);
    }

    /// Keeps a numbered frame that ends at `end` for its turn.
    pub(super) fn keep(&mut self, end: usize) {
        self.looked_at = self.looked_at.wrapping_add(1);
        self.open_mark = None;
        self.buffer.copy_within(self.scan..end, self.kept);
        self.kept += end - self.scan;
        self.scan = end;
    }

    /// Passes over a body that is too large, also over what of it is still to come. A numbered one is kept as
    /// a mark.
    pub(super) fn skip_oversized(&mut self, numbered: bool) {
        let Header::Whole { header, body, .. } = header(&self.buffer[self.scan..self.end]) else { return };
        self.scan += header;
        if numbered {
            self.looked_at = self.looked_at.wrapping_add(1);
            self.open_mark = None;
            self.put_mark(OVERSIZED_MARK, 0);
        }
        let here = body.min(self.end - self.scan);
        self.scan += here;
        self.skip = body - here;
    }

    /// A frame takes two bytes or more, so where one was passed there is room for a mark.
    fn put_mark(&mut self, mark: u8, count: u8) {
        self.buffer[self.kept..self.kept + MARK_LEN].copy_from_slice(&[mark, count]);
        self.kept += MARK_LEN;
    }

    fn item(&self, at: usize) -> Option<(Head<'_>, usize)> {
        item(&self.buffer[at..self.kept])
    }

    pub(super) fn head(&self) -> Option<Head<'_>> {
        self.item(self.start).map(|(head, _)| head)
    }

    /// The head, and the names that it may change.
    pub(super) fn head_and_names(&mut self) -> (Option<Head<'_>>, &mut KnownNames<'a>) {
        (item(&self.buffer[self.start..self.kept]).map(|(head, _)| head), &mut self.names)
    }

    /// Is done with the head, and with the processed frames right behind it.
    pub(super) fn pop_head(&mut self) {
        while let Some((head, length)) = self.item(self.start) {
            let count = if let Head::Done(count) = head { count } else { 1 };
            self.start += length;
            self.done = self.done.wrapping_add(count);
            if !matches!(self.head(), Some(Head::Done(_))) {
                break;
            }
        }
        if self.start == self.kept {
            (self.start, self.kept) = (self.scan, self.scan);
            self.open_mark = None;
        }
    }

    /// What `name` stands for in the frame that is being looked at: kept announcements count.
    pub(super) fn latest_name<'b>(&'b self, name: NameRef<'b>, kind: NameKind) -> Option<&'b str> {
        let mut latest = self.names.name(name, kind);
        let NameRef::Handle(handle) = name else { return latest };
        let mut at = self.start;
        while let Some((head, length)) = self.item(at) {
            at += length;
            if let Head::Frame(Kind::NAME, bytes) = head
                && let Some(announced) = KnownNames::announced(bytes, handle, kind)
            {
                latest = announced;
            }
        }
        latest
    }
}

/// The first thing in kept bytes, and its length.
fn item(bytes: &[u8]) -> Option<(Head<'_>, usize)> {
    match (bytes, header(bytes)) {
        ([DONE_MARK, count, ..], _) => Some((Head::Done((*count).into()), MARK_LEN)),
        ([OVERSIZED_MARK, ..], _) => Some((Head::Oversized, MARK_LEN)),
        (_, Header::Whole { kind, header, body }) => {
            Some((Head::Frame(kind, &bytes[header..header + body]), header + body))
        }
        (_, Header::Partial | Header::Broken) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn fed<'a>(buffer: &'a mut [u8], frames: &[&[u8]]) -> Inbox<'a> {
        let mut inbox = Inbox::new(buffer, &mut []);
        for frame in frames {
            assert_eq!(inbox.fill(frame), frame.len());
        }
        inbox
    }

    fn end(inbox: &Inbox<'_>) -> usize {
        match inbox.next(64) {
            Next::Frame { body, .. } => body.end,
            _ => panic!("no frame"),
        }
    }

    #[test]
    fn frames_behind_a_kept_one_count_in_their_turn() {
        let mut buffer = [0; 16];
        let mut inbox = fed(&mut buffer, &[&[0x22, 2, 7, 8], &[0x20, 0], &[0x20, 0], &[0x22, 1, 9]]);
        inbox.keep(end(&inbox));
        inbox.mark_done(end(&inbox));
        inbox.mark_done(end(&inbox));
        inbox.keep(end(&inbox));
        assert_eq!((inbox.done, inbox.looked_at), (0, 4));
        assert_eq!(inbox.room(), 16 - 4 - 2 - 3);
        assert_eq!(inbox.fill(&[0x22; 16]), 7, "kept frames are moved together to make room");
        assert!(matches!(inbox.head(), Some(Head::Frame(Kind(0x22), [7, 8]))));
        inbox.pop_head();
        assert_eq!(inbox.done, 3);
        assert!(matches!(inbox.head(), Some(Head::Frame(Kind(0x22), [9]))));
        inbox.pop_head();
        assert_eq!(inbox.done, 4);
        assert!(inbox.head().is_none());
    }

    #[test]
    fn a_mark_counts_up_to_255_and_another_goes_on() {
        let mut buffer = [0; 2048];
        let frames: Vec<u8> = [0x20, 0].repeat(600);
        let mut inbox = fed(&mut buffer, &[&[0x22, 0], &frames]);
        inbox.keep(end(&inbox));
        (0..600).for_each(|_| inbox.mark_done(end(&inbox)));
        assert_eq!(inbox.room(), 2048 - 2 - 3 * 2);
        inbox.pop_head();
        assert_eq!(inbox.done, 601);
    }

    #[test]
    fn an_oversized_body_is_passed_over_as_it_comes() {
        let mut buffer = [0; 32];
        let mut inbox = fed(&mut buffer, &[&[0x22, 0x80, 0x02, 1, 2, 3]]);
        assert!(matches!(inbox.next(64), Next::Oversized(Kind(0x22))));
        inbox.skip_oversized(true);
        assert!(matches!(inbox.head(), Some(Head::Oversized)));
        assert_eq!(inbox.fill(&[0; 200]), 200);
        let mut rest = [0; 55];
        rest[53..].copy_from_slice(&[0x20, 0]);
        assert_eq!(inbox.fill(&rest), 55);
        assert_eq!(end(&inbox), inbox.end);
        inbox.pop_head();
        assert_eq!(inbox.done, 1);
    }

    #[test]
    fn lengths_that_lie_are_broken_or_wait() {
        assert_eq!(header(&[0x22, 0x80, 0x00]), Header::Broken);
        assert_eq!(header(&[0x22, 0xFF, 0xFF, 0xFF, 0xFF]), Header::Broken);
        assert_eq!(header(&[0x22, 0xFF, 0xFF, 0xFF]), Header::Partial);
        assert_eq!(header(&[0x22, 0x81, 0x01]), Header::Whole { kind: Kind(0x22), header: 3, body: 129 });
    }
}
