//! In the place of `names.rs` without the feature `names`: each name stands in each frame, both ways. The gateway is told of a
//! table without any place, and announces none.

use core::marker::PhantomData;
use core::num::NonZeroU16;

use bugle_protocol::{NameKind, NameRef, Reason};

use super::outbox::Outbox;

/// Would hold a name that the gateway announced.
#[derive(Debug, Default)]
pub struct NameSlot;

impl NameSlot {
    /// One that holds nothing.
    pub const EMPTY: Self = Self;
}

/// Would hold a name that the device announced.
#[derive(Debug, Default)]
pub struct AnnouncedSlot;

impl AnnouncedSlot {
    /// One that holds nothing.
    pub const EMPTY: Self = Self;
}

pub(super) struct KnownNames<'a>(PhantomData<&'a mut NameSlot>);

impl<'a> KnownNames<'a> {
    pub(super) fn new(_: &'a mut [NameSlot]) -> Self {
        Self(PhantomData)
    }

    pub(super) fn clear(&mut self) {}

    pub(super) fn table_size(&self) -> u16 {
        0
    }

    pub(super) fn name<'b>(&'b self, name: NameRef<'b>, _: NameKind) -> Option<&'b str> {
        match name {
            NameRef::Inline(text) => Some(text),
            NameRef::Handle(_) => None,
        }
    }

    pub(super) fn announced(_: &[u8], _: NonZeroU16, _: NameKind) -> Option<Option<&str>> {
        Some(None)
    }

    pub(super) fn announce(&mut self, _: &[u8]) -> Result<(), Reason> {
        Err(Reason::TooMany)
    }
}

pub(super) struct AnnouncedNames<'a>(PhantomData<&'a mut AnnouncedSlot>);

impl<'a> AnnouncedNames<'a> {
    pub(super) fn new(_: &'a mut [AnnouncedSlot]) -> Self {
        Self(PhantomData)
    }

    pub(super) fn restart(&mut self, _: u16) {}

    pub(super) fn give_up(&mut self) {}

    pub(super) fn refer<'n>(&mut self, _: NameKind, name: &'n str, _: &mut Outbox<'_>) -> NameRef<'n> {
        NameRef::Inline(name)
    }

    pub(super) fn take_back(&mut self) -> bool {
        false
    }
}
