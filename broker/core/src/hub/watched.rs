//! A value that counts how often it may have changed, so that what was found out from it can be kept until then.

use std::ops::{Deref, DerefMut};

/// A value with a counter of its changes: every mutable access is one.
#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    value: T,
    changes: u64,
}

impl<T> Watched<T> {
    /// What was found in the value holds as long as this stays the same.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Something that belongs to the value changed elsewhere.
    pub(super) fn touch(&mut self) {
        self.changes += 1;
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Watched<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changes += 1;
        &mut self.value
    }
}
