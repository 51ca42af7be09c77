//! The names that the device announced to the gateway, each standing for its handle until it is the one
//! that wasn't used for longest and another wants the place.

use core::num::NonZeroU16;

use bugle_protocol::{MAX_NAME, NameKind, NameRef};
use heapless::String;

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
    /// The turn in which it was announced.
    since: u32,
    /// The turn in which it was last used.
    used: u32,
}

/// A name as a frame can refer to it.
pub(super) struct Found<'n> {
    pub(super) name: NameRef<'n>,
    /// The handle is new, and has to be announced first.
    pub(super) announce: Option<NonZeroU16>,
}

pub(super) struct AnnouncedNames<'a> {
    slots: &'a mut [AnnouncedSlot],
    /// How many the gateway's table takes.
    usable: usize,
    turn: u32,
}

impl<'a> AnnouncedNames<'a> {
    pub(super) fn new(slots: &'a mut [AnnouncedSlot]) -> Self {
        Self { slots, usable: 0, turn: 0 }
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

    /// Begins a turn: what is used in it keeps its place until the next.
    pub(super) fn begin_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// The handle of `name`, or one to be announced for it, or the name itself where there is no place for
    /// it. Only with `evict` does another name lose its place.
    pub(super) fn find<'n>(&mut self, kind: NameKind, name: &'n str, evict: bool) -> Found<'n> {
        let turn = self.turn;
        let mut place: Option<(usize, u32)> = None;
        for (index, slot) in self.slots[..self.usable].iter_mut().enumerate() {
            let age = match &mut slot.0 {
                Some(known) if known.kind == kind && known.name == name => {
                    known.used = turn;
                    return Found {
                        name: handle(index).map_or(NameRef::Inline(name), NameRef::Handle),
                        announce: None,
                    };
                }
                Some(known) if evict => turn.wrapping_sub(known.used),
                Some(_) => 0,
                None => u32::MAX,
            };
            if age > place.map_or(0, |(_, oldest)| oldest) {
                place = Some((index, age));
            }
        }
        if let Some((index, _)) = place
            && let Some(handle) = handle(index)
            && let Ok(name) = String::try_from(name)
        {
            self.slots[index].0 = Some(Announced { kind, name, since: turn, used: turn });
            return Found { name: NameRef::Handle(handle), announce: Some(handle) };
        }
        Found { name: NameRef::Inline(name), announce: None }
    }

    /// Forgets what was to be announced in this turn: it was not queued after all.
    pub(super) fn take_back(&mut self) {
        for slot in &mut *self.slots {
            slot.0.take_if(|known| known.since == self.turn);
        }
    }
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
        names.restart(2);
        let mut find = |name: &'static str, evict| {
            names.begin_turn();
            let found = names.find(NameKind::Group, name, evict);
            (found.name, found.announce.map(NonZeroU16::get))
        };
        let handle = |number| NameRef::Handle(NonZeroU16::new(number).unwrap());
        assert_eq!(find("a", true), (handle(1), Some(1)));
        assert_eq!(find("b", true), (handle(2), Some(2)));
        assert_eq!(find("a", true), (handle(1), None));
        assert_eq!(find("c", false), (NameRef::Inline("c"), None), "lists take no place away");
        assert_eq!(find("c", true), (handle(2), Some(2)));
        assert_eq!(find("a", true), (handle(1), None));
    }

    #[test]
    fn a_name_used_in_this_turn_keeps_its_place() {
        let mut slots = [const { AnnouncedSlot(None) }; 1];
        let mut names = AnnouncedNames::new(&mut slots);
        names.restart(9);
        names.begin_turn();
        assert!(names.find(NameKind::Group, "a", true).announce.is_some());
        assert_eq!(names.find(NameKind::Client, "b", true).name, NameRef::Inline("b"));
    }
}
