//! Slows down addresses from which credentials fail again and again: each further connection waits a little longer before its
//! first packet is looked at.
//!
//! Nobody is locked out: an address only waits, for a few seconds at the most, and no failure counts against the name that was
//! tried, so that nobody can keep another out by failing in his name. Addresses of IPv6 count by their network, of which each site has
//! many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that cost nothing; one is forgotten every two seconds.
const FREE: f64 = 30.0;
/// Failures that are forgotten in a second.
const FORGOTTEN: f64 = 0.5;
/// The first wait, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// Connections of one address that may wait at a time; more would take the places of others.
const MAX_WAITING: u32 = 32;
/// Addresses that are remembered.
const REMEMBERED: usize = 4096;

/// What is remembered of addresses.
#[derive(Debug, Default)]
pub struct BackOff {
    /// Nothing is, which spares looking.
    has_any: AtomicBool,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: f64,
    since: Instant,
    waiting: u32,
}

/// What a new connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing.
    None,
    /// Wait, and then say so by [`BackOff::waited`].
    For(Duration),
    /// Too many of its address wait already.
    TooMany,
}

impl BackOff {
    /// A credential from this address was wrong.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= REMEMBERED {
            addresses.retain(|_, failures| failures.waiting > 0 || failures.count_at(now) > 0.0);
        }
        let key = network(address);
        if addresses.len() >= REMEMBERED && !addresses.contains_key(&key) {
            // The one with the least, so that many new addresses don't wash out the worst.
            let counts = addresses.iter().filter(|(_, failures)| failures.waiting == 0);
            let least = counts.map(|(address, failures)| (*address, failures.count_at(now)));
            if let Some((least, _)) = least.min_by(|(_, one), (_, other)| one.total_cmp(other)) {
                addresses.remove(&least);
            }
        }
        let failures = addresses.entry(key).or_insert(Failures { count: 0.0, since: now, waiting: 0 });
        *failures = Failures { count: failures.count_at(now) + 1.0, since: now, ..*failures };
        self.has_any.store(true, Ordering::Relaxed);
    }

    /// How long a new connection of this address has to wait.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Wait {
        if !self.has_any.load(Ordering::Relaxed) {
            return Wait::None;
        }
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = addresses.get_mut(&network(address)) else { return Wait::None };
        let over = failures.count_at(now) - FREE;
        if over <= 0.0 {
            return Wait::None;
        }
        if failures.waiting >= MAX_WAITING {
            return Wait::TooMany;
        }
        failures.waiting += 1;
        Wait::For(WAITS.0.mul_f64(over.min(16.0).exp2()).min(WAITS.1))
    }

    /// A connection of this address has waited.
    pub fn waited(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failures) = addresses.get_mut(&network(address)) {
            failures.waiting = failures.waiting.saturating_sub(1);
        }
    }
}

impl Failures {
    fn count_at(&self, now: Instant) -> f64 {
        (self.count - now.saturating_duration_since(self.since).as_secs_f64() * FORGOTTEN).max(0.0)
    }
}

/// What counts as one: an address of IPv4, a /64 network of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_fails_often_waits_and_who_stops_no_longer_does() {
        let (back_off, now) = (BackOff::default(), Instant::now());
        let (bad, good) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..30 {
            back_off.failed(bad, now);
        }
        assert_eq!(back_off.wait(bad, now), Wait::None, "so many are free");
        back_off.failed(bad, now);
        assert_eq!(back_off.wait(bad, now), Wait::For(Duration::from_millis(100)));
        for _ in 0..100 {
            back_off.failed(bad, now);
        }
        assert_eq!(back_off.wait(bad, now), Wait::For(Duration::from_secs(3)));
        assert_eq!(back_off.wait(good, now), Wait::None);
        for _ in 2..32 {
            assert!(matches!(back_off.wait(bad, now), Wait::For(_)));
        }
        assert_eq!(back_off.wait(bad, now), Wait::TooMany);
        back_off.waited(bad);
        assert!(matches!(back_off.wait(bad, now), Wait::For(_)));
        assert_eq!(
            back_off.wait(bad, now + Duration::from_secs(210)),
            Wait::None,
            "all but the free are forgotten"
        );
    }

    #[test]
    fn a_site_of_ipv6_is_one_and_the_table_is_bounded() {
        let (back_off, now) = (BackOff::default(), Instant::now());
        for host in 0..40 {
            back_off.failed(address(&format!("2001:db8::{host:x}")), now);
        }
        assert!(matches!(back_off.wait(address("2001:db8::ffff"), now), Wait::For(_)));
        assert_eq!(back_off.wait(address("2001:db8:0:1::1"), now), Wait::None);
        for host in 0..10_000_u32 {
            back_off.failed(IpAddr::from((0x0A00_0000 + host).to_be_bytes()), now);
        }
        assert_eq!(back_off.addresses.lock().unwrap().len(), REMEMBERED);
        assert!(
            matches!(back_off.wait(address("2001:db8::1"), now), Wait::For(_)),
            "the worst is remembered"
        );
    }
}
