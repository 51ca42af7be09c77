//! The gateway's clock, as the latest that it can be (S9).
//!
//! A sample is the gateway's time in an answer and the device's time when it asked. The gateway looked at its
//! clock after the question was written, so at any later time it is at most as many milliseconds ahead of the
//! sample as have passed since the question. Of all samples the one that allows the least is kept: that is
//! the one of the least round trip. Each loses worth as it ages, since the two clocks don't run alike.

/// How much two clocks may differ in pace: one part in 2^10, about 1000 ppm; crystals do better.
const DRIFT_SHIFT: u32 = 10;
/// Both ends cut their times down to whole milliseconds.
const ROUNDING: u32 = 2;
/// A sample of this age, in milliseconds, is renewed by reckoning, since ages are reckoned modulo 2^32.
const OLD: u32 = 1 << 30;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GatewayClock {
    best: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The low and the high half of the gateway's time: a whole one would align the session to 8, which costs firmware.
    low: u32,
    high: u32,
    asked_at: u32,
}

impl Sample {
    /// How far the gateway's clock can have gone on.
    fn gone(self, now: u32) -> u32 {
        let age = now.wrapping_sub(self.asked_at);
        age + (age >> DRIFT_SHIFT) + ROUNDING
    }

    /// The low 32 bits of the latest that the gateway's clock can show.
    fn latest(self, now: u32) -> u32 {
        self.low.wrapping_add(self.gone(now))
    }
}

impl GatewayClock {
    /// Another gateway, perhaps.
    pub(super) fn restart(&mut self) {
        self.best = None;
    }

    pub(super) fn sample(&mut self, gateway: u64, asked_at: u32, now: u32) {
        let sample = Sample { low: gateway as u32, high: (gateway >> 32) as u32, asked_at };
        if self.best.is_none_or(|best| sample.latest(now).wrapping_sub(best.latest(now)) as i32 <= 0) {
            self.best = Some(sample);
        }
    }

    /// The latest that the gateway's clock can show now, in its milliseconds.
    pub(super) fn latest(&self, now: u32) -> Option<u64> {
        let best = self.best?;
        let gateway = u64::from(best.high) << 32 | u64::from(best.low);
        Some(gateway.saturating_add(best.gone(now).into()))
    }

    /// Has to be called more often than a sample gets old.
    pub(super) fn handle_time(&mut self, now: u32) {
        if let Some(best) = &mut self.best
            && now.wrapping_sub(best.asked_at) >= OLD
        {
            let (low, carries) = best.low.overflowing_add(best.gone(now));
            (best.low, best.high, best.asked_at) = (low, best.high.wrapping_add(carries.into()), now);
        }
    }

    /// Milliseconds that are surely left before a deadline in the low 32 bits of the gateway's clock.
    /// Deadlines are less than 2^31 milliseconds away.
    pub(super) fn left(&self, deadline: u32, now: u32) -> Option<u32> {
        let left = deadline.wrapping_sub(self.best?.latest(now));
        (left <= i32::MAX as u32).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_round_trip_holds_until_it_is_old() {
        let mut clock = GatewayClock::default();
        assert_eq!(clock.left(5, 0), None, "nothing is sure without a sample");
        // True offset: the gateway is 1000 ahead. Asked at 0, answered 40 later, stamped half way.
        clock.sample(1020, 0, 40);
        assert_eq!(clock.latest(40), Some(1062));
        clock.sample(1103, 100, 106);
        assert_eq!(clock.latest(106), Some(1111));
        clock.sample(1290, 200, 400);
        assert_eq!(clock.latest(400), Some(1405), "a slow answer doesn't replace a fast one");
        // After 100 s the old one may be 97 ms off, and a round trip of 40 is better.
        clock.sample(101_020, 100_000, 100_040);
        assert_eq!(clock.latest(100_040), Some(101_062));
    }

    #[test]
    fn a_sample_outlives_the_wrap_of_the_devices_clock() {
        let mut clock = GatewayClock::default();
        clock.sample(7_000_000_000, 0, 0);
        let (mut now, hour) = (0u64, 3_600_000);
        for _ in 0..3 * 24 * 50 {
            now += hour / 3;
            clock.handle_time(now as u32);
        }
        let latest = clock.latest(now as u32).unwrap() - 7_000_000_000;
        assert!(latest >= now + now / 1024 && latest < now + now / 512, "{latest} after {now}");
    }

    #[test]
    fn a_deadline_is_met_only_surely_and_across_the_wrap() {
        let mut clock = GatewayClock::default();
        let gateway = u64::from(u32::MAX) - 10;
        clock.sample(gateway, 0, 0);
        assert_eq!(clock.left(u32::MAX - 8, 0), Some(0));
        assert_eq!(clock.left(u32::MAX - 9, 0), None);
        assert_eq!(clock.left(20, 0), Some(29));
        assert_eq!(clock.left(20, 30), None);
    }
}
