//! The outbox: the device's numbered frames, encoded, from when they are queued until they are acknowledged,
//! so that a resumed session can send again what the gateway didn't get.
//!
//! ```text
//!   | free | written, not acknowledged | not written | free |
//!          start                       written       end
//! ```
//!
//! Only frames that the gateway's window allows are queued, so none here waits for anything but the
//! transport, and a refusal is never behind a frame that may not be written.

use bugle_protocol::{Kind, Writer, write};

use super::inbox::{Header, header};

/// No room now; it comes with acknowledgements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// An acknowledgement of frames that were never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

pub(super) struct Outbox<'a> {
    buffer: &'a mut [u8],
    start: usize,
    written: usize,
    end: usize,
    /// Bytes of the frame being written that are left; 0 between frames.
    left: usize,
    /// The frame being written is a refusal.
    is_refusal: bool,
    /// Number of the frame at `start`: so many were acknowledged.
    pub(super) first: u32,
    /// Number of the first frame that isn't wholly written.
    pub(super) unwritten: u32,
    /// Number that the next queued frame gets.
    pub(super) next: u32,
    /// Frames here that count against the gateway's window.
    pub(super) in_flight: u16,
    /// Refusals that are not wholly written: no acknowledgement may overtake them.
    pub(super) refusals_unwritten: usize,
}

/// A place to go back to when the second of two frames doesn't fit.
pub(super) struct Mark {
    /// How long the queue was.
    length: usize,
    next: u32,
    in_flight: u16,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        let (start, written, end, left) = (0, 0, 0, 0);
        let (first, unwritten, next) = (0, 0, 0);
        Self {
            buffer,
            start,
            written,
            end,
            left,
            is_refusal: false,
            first,
            unwritten,
            next,
            in_flight: 0,
            refusals_unwritten: 0,
        }
    }

    /// Begins a new session.
    pub(super) fn restart(&mut self) {
        (self.start, self.written, self.end, self.left) = (0, 0, 0, 0);
        (self.first, self.unwritten, self.next) = (0, 0, 0);
        (self.in_flight, self.refusals_unwritten) = (0, 0);
    }

    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn is_all_written(&self) -> bool {
        self.written == self.end
    }

    /// A writer for the body of a numbered frame, which [`push`](Self::push) then queues.
    pub(super) fn body(&mut self) -> Writer<'_> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.written -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        write::body(&mut self.buffer[self.end..])
    }

    /// Queues the numbered frame whose body of so many bytes was written, and says its number.
    pub(super) fn push(&mut self, kind: Kind, body: usize) -> Result<u32, Full> {
        let length = write::finish(&mut self.buffer[self.end..], kind, body).map_err(|_| Full)?;
        self.end += length;
        self.in_flight += u16::from(kind.takes_window());
        self.refusals_unwritten += usize::from(kind == Kind::REFUSED);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        Ok(number)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { length: self.end - self.start, next: self.next, in_flight: self.in_flight }
    }

    /// Takes back what was pushed since `mark`: nothing of it can have been written, or be a refusal.
    pub(super) fn take_back(&mut self, mark: &Mark) {
        self.end = self.start + mark.length;
        (self.next, self.in_flight) = (mark.next, mark.in_flight);
    }

    /// Writes what fits into `buffer` and says how many bytes.
    pub(super) fn poll(&mut self, buffer: &mut [u8]) -> usize {
        let mut total = self.poll_rest(buffer);
        while total < buffer.len() && self.written < self.end {
            (self.is_refusal, self.left) = match self.frame_at(self.written) {
                Some((kind, frame)) => (kind == Kind::REFUSED, frame.len()),
                None => break,
            };
            total += self.poll_rest(&mut buffer[total..]);
        }
        total
    }

    /// Writes what fits of the frame that was begun.
    pub(super) fn poll_rest(&mut self, buffer: &mut [u8]) -> usize {
        let length = self.left.min(buffer.len());
        buffer[..length].copy_from_slice(&self.buffer[self.written..self.written + length]);
        self.written += length;
        self.left -= length;
        if self.left == 0 && length > 0 {
            self.unwritten = self.unwritten.wrapping_add(1);
            self.refusals_unwritten -= usize::from(self.is_refusal);
        }
        length
    }

    /// The connection ended, perhaps within a frame.
    pub(super) fn interrupt(&mut self) {
        self.left = 0;
    }

    pub(super) fn is_within_a_frame(&self) -> bool {
        self.left > 0
    }

    /// Kind and body of the unacknowledged frame with these low 16 bits of its number.
    pub(super) fn frame(&self, number: u16) -> Option<(Kind, &[u8])> {
        let mut left = number.wrapping_sub(self.first as u16);
        let mut at = self.start;
        loop {
            let (kind, frame) = self.frame_at(at)?;
            if left == 0 {
                // Of one or two bytes: what is looked up is short.
                let body = if frame.get(1)? & 0x80 == 0 { 2 } else { 3 };
                return Some((kind, frame.get(body..)?));
            }
            at += frame.len();
            left -= 1;
        }
    }

    /// The frame that begins there, its header included. Queued frames are whole.
    #[inline(never)]
    fn frame_at(&self, at: usize) -> Option<(Kind, &[u8])> {
        let bytes = self.buffer.get(at..self.end)?;
        let Header::Whole { kind, header, body } = header(bytes) else { return None };
        Some((kind, bytes.get(..header + body)?))
    }

    /// The gateway is done with `frames` more frames, which must have been written.
    pub(super) fn acknowledge(&mut self, frames: u32) -> Result<(), NeverSent> {
        if frames > self.unwritten.wrapping_sub(self.first) {
            return Err(NeverSent);
        }
        for _ in 0..frames {
            let (kind, frame) = self.frame_at(self.start).ok_or(NeverSent)?;
            self.start += frame.len();
            self.first = self.first.wrapping_add(1);
            self.in_flight -= u16::from(kind.takes_window());
        }
        if self.start == self.end {
            (self.start, self.written, self.end) = (0, 0, 0);
        }
        Ok(())
    }

    /// Goes on in a resumed session, of which the gateway received `received` frames.
    pub(super) fn resume(&mut self, received: u32) -> Result<(), NeverSent> {
        if received.wrapping_sub(self.first) > self.unwritten.wrapping_sub(self.first) {
            return Err(NeverSent);
        }
        (self.written, self.left, self.refusals_unwritten) = (self.start, 0, 0);
        let mut number = self.first;
        let mut at = self.start;
        while number != self.next {
            let Some((kind, frame)) = self.frame_at(at) else { break };
            at += frame.len();
            number = number.wrapping_add(1);
            if number.wrapping_sub(self.first) <= received.wrapping_sub(self.first) {
                self.written = at;
            } else {
                self.refusals_unwritten += usize::from(kind == Kind::REFUSED);
            }
        }
        self.unwritten = received;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &mut Outbox<'_>, filter: &str) -> Result<u32, Full> {
        let mut writer = outbox.body();
        write::unsubscribe(&mut writer, filter);
        let body = writer.written();
        outbox.push(Kind::UNSUBSCRIBE, body)
    }

    #[test]
    fn what_is_acknowledged_makes_room() {
        let mut buffer = [0; 12];
        let mut outbox = Outbox::new(&mut buffer);
        assert_eq!(push(&mut outbox, "aa"), Ok(0));
        assert_eq!(push(&mut outbox, "bbb"), Ok(1));
        assert_eq!(push(&mut outbox, "cc"), Err(Full));
        let mut out = [0; 6];
        assert_eq!(outbox.poll(&mut out), 6);
        assert!(outbox.is_within_a_frame());
        assert_eq!(outbox.acknowledge(2), Err(NeverSent));
        assert_eq!(outbox.acknowledge(1), Ok(()));
        assert_eq!(push(&mut outbox, "cc"), Ok(2));
        assert_eq!(outbox.frame(2), Some((Kind::UNSUBSCRIBE, &b"cc"[..])));
        assert_eq!((outbox.in_flight, outbox.frame(0), outbox.frame(3)), (2, None, None));
        assert_eq!(outbox.poll(&mut out), 6, "the rest of the second, and some of the third");
        assert_eq!(outbox.acknowledge(2), Err(NeverSent));
    }

    #[test]
    fn a_resumed_session_sends_again_what_was_not_received() {
        let mut buffer = [0; 32];
        let mut outbox = Outbox::new(&mut buffer);
        ["a", "b", "c"].iter().for_each(|filter| assert!(push(&mut outbox, filter).is_ok()));
        let mut out = [0; 32];
        assert_eq!(outbox.poll(&mut out[..8]), 8);
        outbox.acknowledge(1).unwrap();
        assert_eq!(outbox.resume(3), Err(NeverSent));
        assert_eq!(outbox.resume(0), Err(NeverSent));
        assert_eq!(outbox.resume(1), Ok(()));
        assert_eq!(outbox.poll(&mut out), 6);
        assert_eq!(&out[..6], &[0x16, 1, b'b', 0x16, 1, b'c']);
        outbox.acknowledge(2).unwrap();
        assert!(outbox.is_empty());
    }
}
