//! The groups that were joined and the filters that were subscribed to: what a new session has to restore.

/// No room to remember another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A group to be in, or a filter to be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest<'n> {
    Group(&'n str),
    Filter { filter: &'n str, at_least_once: bool },
}

const FILTER: u8 = 1;
const AT_LEAST_ONCE: u8 = 1 << 1;
/// Has to be restored in this session.
const WANTED: u8 = 1 << 2;
/// Flags, and the length in two bytes.
const HEADER: usize = 3;

impl<'n> Interest<'n> {
    fn parts(self) -> (u8, &'n str) {
        match self {
            Self::Group(name) => (0, name),
            Self::Filter { filter, at_least_once: false } => (FILTER, filter),
            Self::Filter { filter, at_least_once: true } => (FILTER | AT_LEAST_ONCE, filter),
        }
    }
}

pub(super) struct Interests<'a> {
    buffer: &'a mut [u8],
    end: usize,
}

impl<'a> Interests<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, end: 0 }
    }

    /// Flags, text and length of the entry at `at`.
    fn entry(&self, at: usize) -> Option<(u8, &[u8], usize)> {
        let (header, rest) = self.buffer.get(at..self.end)?.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
        Some((header[0], rest.get(..length)?, HEADER + length))
    }

    fn position(&self, wanted: Interest<'_>) -> Option<usize> {
        let (flags, text) = wanted.parts();
        let mut at = 0;
        while let Some((found, name, length)) = self.entry(at) {
            if (found ^ flags) & FILTER == 0 && name == text.as_bytes() {
                return Some(at);
            }
            at += length;
        }
        None
    }

    pub(super) fn contains(&self, interest: Interest<'_>) -> bool {
        self.position(interest).is_some()
    }

    /// Remembers it, in place of the same group or filter. Whether it is new.
    pub(super) fn remember(&mut self, interest: Interest<'_>) -> Result<bool, Full> {
        let (flags, text) = interest.parts();
        if let Some(at) = self.position(interest) {
            self.buffer[at] = flags;
            return Ok(false);
        }
        let length = u16::try_from(text.len()).map_err(|_| Full)?;
        let entry = self.buffer.get_mut(self.end..self.end + HEADER + text.len()).ok_or(Full)?;
        let [high, low] = length.to_be_bytes();
        entry[..HEADER].copy_from_slice(&[flags, high, low]);
        entry[HEADER..].copy_from_slice(text.as_bytes());
        self.end += HEADER + text.len();
        Ok(true)
    }

    pub(super) fn forget(&mut self, interest: Interest<'_>) {
        if let Some(at) = self.position(interest)
            && let Some((_, _, length)) = self.entry(at)
        {
            self.buffer.copy_within(at + length..self.end, at);
            self.end -= length;
        }
    }

    /// Everything has to be restored.
    pub(super) fn want_all(&mut self) {
        let mut at = 0;
        while let Some((_, _, length)) = self.entry(at) {
            self.buffer[at] |= WANTED;
            at += length;
        }
    }

    /// This one has to be restored again.
    pub(super) fn want(&mut self, interest: Interest<'_>) {
        if let Some(at) = self.position(interest) {
            self.buffer[at] |= WANTED;
        }
    }

    /// The first that has to be restored, and where it stands.
    pub(super) fn wanted(&self) -> Option<(usize, Interest<'_>)> {
        let mut at = 0;
        while let Some((flags, name, length)) = self.entry(at) {
            if flags & WANTED != 0 {
                // It was text when it was remembered.
                let name = core::str::from_utf8(name).unwrap_or_default();
                let at_least_once = flags & AT_LEAST_ONCE != 0;
                return Some(if flags & FILTER == 0 {
                    (at, Interest::Group(name))
                } else {
                    (at, Interest::Filter { filter: name, at_least_once })
                });
            }
            at += length;
        }
        None
    }

    /// The one that stands at `at` was sent.
    pub(super) fn sent(&mut self, at: usize) {
        self.buffer[at] &= !WANTED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_until_forgotten() {
        let mut buffer = [0; 16];
        let mut interests = Interests::new(&mut buffer);
        let filter = Interest::Filter { filter: "a/b", at_least_once: true };
        interests.remember(Interest::Group("a/b")).unwrap();
        interests.remember(Interest::Filter { filter: "a/b", at_least_once: false }).unwrap();
        interests.remember(filter).unwrap();
        assert_eq!(interests.remember(Interest::Group("toolong")), Err(Full));
        interests.want_all();
        let (at, found) = interests.wanted().unwrap();
        assert_eq!(found, Interest::Group("a/b"));
        interests.sent(at);
        assert_eq!(interests.wanted().unwrap().1, filter);
        interests.forget(Interest::Group("a/b"));
        assert!(!interests.contains(Interest::Group("a/b")));
        let (at, found) = interests.wanted().unwrap();
        assert_eq!((at, found), (0, filter));
        interests.sent(at);
        assert!(interests.wanted().is_none());
    }
}
