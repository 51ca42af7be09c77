//! Token buckets (S7).

use crate::model::Instant;

/// A bucket that holds as many tokens as it gains in a second.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Thousandths of a token.
    milli_tokens: u64,
    refilled: Instant,
}

impl TokenBucket {
    /// A full bucket for `rate` tokens a second.
    pub fn full(rate: u32, now: Instant) -> Self {
        Self { milli_tokens: u64::from(rate) * 1000, refilled: now }
    }

    /// Takes a token, or says in how many milliseconds there will be one (at least 1).
    pub fn try_take(&mut self, rate: u32, now: Instant) -> Result<(), u32> {
        self.refill(rate, now);
        match self.milli_tokens.checked_sub(1000) {
            Some(left) => {
                self.milli_tokens = left;
                Ok(())
            }
            None if rate == 0 => Err(u32::MAX),
            None => Err((1000 - self.milli_tokens).div_ceil(u64::from(rate)) as u32),
        }
    }

    /// Whether it is as if never used.
    pub fn is_full(&mut self, rate: u32, now: Instant) -> bool {
        self.refill(rate, now);
        self.milli_tokens == u64::from(rate) * 1000
    }

    fn refill(&mut self, rate: u32, now: Instant) {
        // A rate of one a second is one thousandth a millisecond.
        let gained = now.millis_since(self.refilled).saturating_mul(u64::from(rate));
        self.milli_tokens = self.milli_tokens.saturating_add(gained).min(u64::from(rate) * 1000);
        self.refilled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_a_hundred_at_once_then_one_every_ten_milliseconds() {
        let at = Instant::from_millis;
        let mut bucket = TokenBucket::full(100, at(0));
        for _ in 0..100 {
            assert_eq!(bucket.try_take(100, at(0)), Ok(()));
        }
        assert_eq!(bucket.try_take(100, at(0)), Err(10));
        assert_eq!(bucket.try_take(100, at(4)), Err(6));
        assert_eq!(bucket.try_take(100, at(10)), Ok(()));
        assert_eq!(bucket.try_take(100, at(10)), Err(10));
        assert!(!bucket.is_full(100, at(1009)));
        assert!(bucket.is_full(100, at(1010)));
    }
}
