//! Times within the session: milliseconds modulo 2^32, which take less firmware than whole ones. What lasts longer than
//! [`LONGEST`] ends then; and as nothing is looked at less often, no age is mistaken for a young one.

/// Milliseconds that are left of what doesn't end.
pub(super) const NEVER: u32 = u32::MAX;
/// The longest that anything lasts, in milliseconds: 24 days.
pub(super) const LONGEST: u32 = 1 << 31;

/// From when, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    since: u32,
    lasts: u32,
}

impl Timer {
    /// One that is over.
    pub(super) const OVER: Self = Self { since: 0, lasts: 0 };
    /// One that doesn't end.
    pub(super) const ENDLESS: Self = Self { since: 0, lasts: NEVER };

    /// Begins at `since`; `lasts` may be [`NEVER`].
    pub(super) fn new(since: u32, lasts: u32) -> Self {
        Self { since, lasts }
    }

    /// Whether it never was more than over.
    pub(super) fn is_over(self) -> bool {
        self.lasts == 0
    }

    /// Milliseconds that are left; 0 when it is over.
    #[inline(never)]
    pub(super) fn left(self, now: u32) -> u32 {
        if self.lasts == NEVER {
            return NEVER;
        }
        self.lasts.min(LONGEST).saturating_sub(now.wrapping_sub(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ends_across_the_wrap_and_stays_ended_for_days() {
        let timer = Timer::new(u32::MAX - 10, 30);
        assert_eq!((timer.left(u32::MAX - 10), timer.left(u32::MAX), timer.left(10)), (30, 20, 9));
        assert_eq!((timer.left(19), timer.left(20), timer.left(1 << 31)), (0, 0, 0));
        assert_eq!((Timer::ENDLESS.left(7), Timer::OVER.left(7)), (NEVER, 0));
        assert_eq!(Timer::new(0, NEVER - 1).left(1), LONGEST - 1);
    }
}
