//! Names and the handles that stand for them, in both directions: the feature `names`. Without it `inline_names.rs` stands here,
//! which has the same face and nothing in it.

use core::num::NonZeroU16;

use bugle_protocol::{Kind, MAX_NAME, NameKind, NameRef, Reason, announced_handle, body, write};
use heapless::String;

use super::outbox::Outbox;

/// A name that the gateway announced.
#[derive(Debug, Default)]
pub struct NameSlot(Option<(NameKind, String<MAX_NAME>)>);

impl NameSlot {
    /// One that holds nothing.
    pub const EMPTY: Self = Self(None);
}

/// The names that the gateway announced, each standing for its handle until the gateway gives that to another.
pub(super) struct KnownNames<'a>(&'a mut [NameSlot]);

impl<'a> KnownNames<'a> {
    pub(super) fn new(slots: &'a mut [NameSlot]) -> Self {
        Self(slots)
    }

    pub(super) fn clear(&mut self) {
        self.0.iter_mut().for_each(|slot| slot.0 = None);
    }

    pub(super) fn table_size(&self) -> u16 {
        self.0.len().min(u16::MAX.into()) as u16
    }

    /// What `name` stands for.
    pub(super) fn name<'b>(&'b self, name: NameRef<'b>, kind: NameKind) -> Option<&'b str> {
        match name {
            NameRef::Inline(text) => Some(text),
            NameRef::Handle(handle) => self.text(handle, kind),
        }
    }

    fn text(&self, handle: NonZeroU16, kind: NameKind) -> Option<&str> {
        match &self.0.get(usize::from(handle.get()) - 1)?.0 {
            Some((found, text)) if *found == kind => Some(text),
            _ => None,
        }
    }

    /// What the announcement with this body makes of the handle; `None` where it is of another.
    pub(super) fn announced(bytes: &[u8], handle: NonZeroU16, kind: NameKind) -> Option<Option<&str>> {
        (announced_handle(bytes) == Some(handle)).then(|| match body::name(bytes) {
            Ok((_, found, name)) if found == kind => Some(name),
            _ => None,
        })
    }

    /// Takes an announcement. What its handle stood for is gone even if the new name doesn't fit or can't be read.
    pub(super) fn announce(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let slot = announced_handle(bytes).and_then(|handle| self.0.get_mut(usize::from(handle.get()) - 1));
        let Ok((_, kind, name)) = body::name(bytes) else {
            if let Some(slot) = slot {
                slot.0 = None;
            }
            return Err(Reason::Malformed);
        };
        let slot = slot.ok_or(Reason::TooMany)?;
        slot.0 = String::try_from(name).ok().map(|name| (kind, name));
        if slot.0.is_some() { Ok(()) } else { Err(Reason::TooLarge) }
    }
}

/// A name that the device announced.
#[derive(Debug, Default)]
pub struct AnnouncedSlot(Option<Announced>);

impl AnnouncedSlot {
    /// One that holds nothing.
    pub const EMPTY: Self = Self(None);
}

#[derive(Debug)]
struct Announced {
    kind: NameKind,
    name: String<MAX_NAME>,
    /// The turn in which it was last used.
    used: u32,
}

/// The names that the device announced to the gateway, each standing for its handle until it is the one that wasn't used for
/// longest and another wants the place.
pub(super) struct AnnouncedNames<'a> {
    slots: &'a mut [AnnouncedSlot],
    /// How many the gateway's table takes.
    usable: usize,
    turn: u32,
    /// Where the name stands that was announced in this turn.
    fresh: Option<usize>,
}

impl<'a> AnnouncedNames<'a> {
    pub(super) fn new(slots: &'a mut [AnnouncedSlot]) -> Self {
        Self { slots, usable: 0, turn: 0, fresh: None }
    }

    /// Begins a new session with a gateway whose table has this size.
    pub(super) fn restart(&mut self, table: u16) {
        self.slots.iter_mut().for_each(|slot| slot.0 = None);
        self.usable = self.slots.len().min(table.into());
    }

    /// Announces no more in this session: the gateway refused to.
    pub(super) fn give_up(&mut self) {
        self.restart(0);
    }

    /// The handle of `name`, announced first where it is new; or the name itself where there is no room for that.
    pub(super) fn refer<'n>(
        &mut self,
        kind: NameKind,
        name: &'n str,
        outbox: &mut Outbox<'_>,
    ) -> NameRef<'n> {
        self.turn = self.turn.wrapping_add(1);
        self.fresh = None;
        let mut place: Option<(usize, u32)> = None;
        for (index, slot) in self.slots[..self.usable].iter_mut().enumerate() {
            let age = match &mut slot.0 {
                Some(known) if known.kind == kind && known.name == name => {
                    known.used = self.turn;
                    return handle(index).map_or(NameRef::Inline(name), NameRef::Handle);
                }
                Some(known) => self.turn.wrapping_sub(known.used),
                None => u32::MAX,
            };
            if age > place.map_or(0, |(_, oldest)| oldest) {
                place = Some((index, age));
            }
        }
        if let Some((index, _)) = place
            && let Some(handle) = handle(index)
            && let Ok(text) = String::try_from(name)
            && announce(outbox, handle, kind, name)
        {
            self.slots[index].0 = Some(Announced { kind, name: text, used: self.turn });
            self.fresh = Some(index);
            return NameRef::Handle(handle);
        }
        NameRef::Inline(name)
    }

    /// Forgets what was announced in this turn, since it is taken back from the outbox. Whether there was something.
    pub(super) fn take_back(&mut self) -> bool {
        let Some(index) = self.fresh.take() else { return false };
        self.slots[index].0 = None;
        true
    }
}

fn announce(outbox: &mut Outbox<'_>, handle: NonZeroU16, kind: NameKind, name: &str) -> bool {
    let mut writer = outbox.body();
    write::name(&mut writer, handle.get(), kind, name);
    let body = writer.written();
    outbox.push(Kind::NAME, body).is_ok()
}

fn handle(index: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(index + 1).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_name_loses_its_place() {
        let mut slots = [const { AnnouncedSlot(None) }; 3];
        let mut names = AnnouncedNames::new(&mut slots);
        let mut buffer = [0; 256];
        let mut outbox = Outbox::new(&mut buffer);
        names.restart(2);
        let mut refer = |name: &'static str| {
            let queued = outbox.next;
            let found = names.refer(NameKind::Group, name, &mut outbox);
            (found, outbox.next - queued)
        };
        let handle = |number| NameRef::Handle(NonZeroU16::new(number).unwrap());
        assert_eq!(refer("a"), (handle(1), 1));
        assert_eq!(refer("b"), (handle(2), 1));
        assert_eq!(refer("a"), (handle(1), 0));
        assert_eq!(refer("c"), (handle(2), 1));
        assert_eq!(refer("a"), (handle(1), 0));
    }

    #[test]
    fn a_name_that_cannot_be_announced_is_used_itself() {
        let mut slots = [const { AnnouncedSlot(None) }; 1];
        let mut names = AnnouncedNames::new(&mut slots);
        names.restart(9);
        let mut buffer = [0; 8];
        let mut outbox = Outbox::new(&mut buffer);
        assert_eq!(names.refer(NameKind::Group, "lamps", &mut outbox), NameRef::Inline("lamps"));
        assert!(!names.take_back() && outbox.is_empty());
    }
}
