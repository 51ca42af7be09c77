//! The books of one stream: what was sent, to how many, and who has it. Pure; time is an argument.

use std::collections::VecDeque;

/// A sender's messages that not all recipients have.
#[derive(Debug, Default)]
pub struct Books {
    /// How many recipients each message lacks, the oldest first.
    lacking: VecDeque<u32>,
    /// The number of the oldest of them.
    oldest: u32,
    /// Messages sent.
    pub sent: u64,
    /// Deliveries that are due for them.
    pub expected: u64,
    /// Deliveries that came.
    pub received: u64,
    /// Deliveries that came again, or after a later one.
    pub repeated: u64,
}

impl Books {
    /// How many messages are under way, counted from the oldest.
    pub fn under_way(&self) -> usize {
        self.lacking.len()
    }

    /// The number of the next message. It wraps; no more than 32768 are under way.
    pub fn next(&self) -> u32 {
        self.oldest.wrapping_add(self.lacking.len() as u32)
    }

    /// Enters a message that goes to so many.
    pub fn send(&mut self, recipients: u32) {
        self.lacking.push_back(recipients);
        self.sent += 1;
        self.expected += u64::from(recipients);
    }

    /// Enters a delivery. `next` is the first number that this recipient can still get: what is before it came, or is
    /// lost, since each recipient gets a sender's messages in order. With `gaps_are_losses`, nobody waits for those
    /// between `next` and this one.
    pub fn deliver(&mut self, number: u32, next: &mut u32, gaps_are_losses: bool) {
        let ahead = number.wrapping_sub(*next);
        if ahead > u32::MAX / 2 || number.wrapping_sub(self.oldest) >= self.lacking.len() as u32 {
            self.repeated += 1;
            return;
        }
        self.received += 1;
        if gaps_are_losses {
            (0..ahead).for_each(|lost| self.settle(next.wrapping_add(lost)));
        }
        self.settle(number);
        *next = number.wrapping_add(1);
    }

    /// Nobody waits any longer for one delivery of this message.
    fn settle(&mut self, number: u32) {
        let Some(lacking) = self.lacking.get_mut(number.wrapping_sub(self.oldest) as usize) else { return };
        *lacking = lacking.saturating_sub(1);
        while self.lacking.front() == Some(&0) {
            self.lacking.pop_front();
            self.oldest = self.oldest.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(messages: u32, recipients: u32) -> Books {
        let mut books = Books::default();
        (0..messages).for_each(|_| books.send(recipients));
        books
    }

    #[test]
    fn a_message_is_under_way_until_its_last_recipient_has_it() {
        let mut books = sent(2, 2);
        let (mut one, mut other) = (0, 0);
        books.deliver(0, &mut one, true);
        books.deliver(1, &mut one, true);
        assert_eq!(books.under_way(), 2);
        books.deliver(0, &mut other, true);
        assert_eq!(books.under_way(), 1);
        books.deliver(1, &mut other, true);
        assert_eq!((books.under_way(), books.expected, books.received), (0, 4, 4));
        assert_eq!(books.next(), 2);
    }

    #[test]
    fn a_gap_is_missing_and_nobody_waits_for_it() {
        let mut books = sent(3, 1);
        books.deliver(2, &mut 0, true);
        assert_eq!((books.under_way(), books.expected, books.received), (0, 3, 1));
    }

    #[test]
    fn a_gap_among_lists_is_no_loss() {
        let mut books = sent(3, 1);
        let (mut one, mut other) = (0, 0);
        books.deliver(1, &mut one, false);
        assert_eq!(books.under_way(), 3);
        books.deliver(0, &mut other, false);
        assert_eq!(books.under_way(), 1);
    }

    #[test]
    fn what_comes_twice_is_counted_apart() {
        let mut books = sent(2, 2);
        let mut one = 0;
        books.deliver(0, &mut one, true);
        books.deliver(0, &mut one, true);
        // Never sent.
        books.deliver(7, &mut one, true);
        assert_eq!((books.received, books.repeated, books.under_way()), (1, 2, 2));
    }

    #[test]
    fn numbers_wrap() {
        let mut books = Books { oldest: u32::MAX, ..Books::default() };
        let mut next = u32::MAX;
        for number in [u32::MAX, 0] {
            books.send(1);
            books.deliver(number, &mut next, true);
        }
        assert_eq!((books.received, books.repeated, next), (2, 0, 1));
    }
}
