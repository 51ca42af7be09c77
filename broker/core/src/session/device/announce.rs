//! Names that the gateway announces to a device, so that deliveries carry handles.

use std::num::NonZeroU16;

use bugle_protocol::{MAX_NAME, NameKind, NameRef};

use crate::model::Map;

/// Most names kept for one device, whatever its table would hold.
const MOST: usize = 256;

/// The device's table, as the gateway has filled it.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    size: usize,
    /// The name of handle `index + 1`, and when it was used last.
    names: Map<(NameKind, Box<str>), u64>,
    uses: u64,
}

impl Announcer {
    pub(super) fn new(size: u16) -> Self {
        Self { size: usize::from(size).min(MOST), ..Self::default() }
    }

    /// The device's table is larger now.
    pub(super) fn grow(&mut self, size: u16) {
        self.size = self.size.max(usize::from(size).min(MOST));
    }

    /// How to refer to `name`, and whether it has to be announced first. Names that don't fit a device's slot
    /// stay inline. The least recently used one is evicted.
    pub(super) fn refer<'a>(&mut self, kind: NameKind, name: &'a str) -> (NameRef<'a>, Option<u16>) {
        if self.size == 0 || name.len() > MAX_NAME {
            return (NameRef::Inline(name), None);
        }
        self.uses += 1;
        let key = (kind, Box::from(name));
        let (index, is_new) = if let Some(index) = self.names.get_index_of(&key) {
            (index, false)
        } else if self.names.len() < self.size {
            (self.names.insert_full(key.clone(), 0).0, true)
        } else {
            let oldest =
                self.names.values().enumerate().min_by_key(|(_, used)| **used).map_or(0, |(at, _)| at);
            // Replaced in place, so that the other handles stay.
            self.names.insert(key.clone(), 0);
            self.names.swap_remove_index(oldest);
            (oldest, true)
        };
        if let Some(used) = self.names.get_mut(&key) {
            *used = self.uses;
        }
        // At most `MOST`, so it fits and is never 0.
        match NonZeroU16::new((index + 1) as u16) {
            Some(handle) => (NameRef::Handle(handle), is_new.then(|| handle.get())),
            None => (NameRef::Inline(name), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(announcer: &mut Announcer, name: &str) -> (u16, bool) {
        match announcer.refer(NameKind::Client, name) {
            (NameRef::Handle(handle), new) => (handle.get(), new.is_some()),
            (NameRef::Inline(_), _) => (0, false),
        }
    }

    #[test]
    fn the_least_recently_used_name_gives_up_its_handle() {
        let mut announcer = Announcer::new(3);
        assert_eq!(
            ["a", "b", "c"].map(|name| handle(&mut announcer, name)),
            [(1, true), (2, true), (3, true)]
        );
        assert_eq!(handle(&mut announcer, "a"), (1, false));
        assert_eq!(handle(&mut announcer, "d"), (2, true));
        assert_eq!(
            ["a", "c", "d"].map(|name| handle(&mut announcer, name)),
            [(1, false), (3, false), (2, false)]
        );
        assert_eq!(handle(&mut Announcer::new(0), "a"), (0, false));
    }
}
