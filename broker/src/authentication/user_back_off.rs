//! Slows down tries for one user's name that come from many addresses, each of which has few failures of its own
//! ([`back_off`](crate::back_off) has those).
//!
//! Nobody is locked out by it: a try only waits, is never refused, and from where the user has come in of late not even that. Who has a
//! secret of the tables isn't judged here: those are to be long and random.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::back_off::network;

/// Failures that cost nothing; one is forgotten every two seconds.
const FREE: f64 = 30.0;
/// Failures that are forgotten in a second.
const FORGOTTEN: f64 = 0.5;
/// How long each further try waits.
pub const WAIT: Duration = Duration::from_secs(2);
/// Users that are remembered.
const REMEMBERED: usize = 4096;
/// Networks of one user that are.
const NETWORKS: usize = 4;

/// What is remembered of users, by the names that were tried, whether there are such users or not.
#[derive(Debug, Default)]
pub struct UserBackOff(Mutex<HashMap<Box<str>, Tries>>);

#[derive(Debug)]
struct Tries {
    failures: f64,
    since: Instant,
    /// From where the right credential came, the latest first.
    networks: Vec<IpAddr>,
}

impl UserBackOff {
    /// Whether a try has to wait first.
    pub fn has_to_wait(&self, user: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).is_some_and(|tries| {
            let is_known = address.is_some_and(|address| tries.networks.contains(&network(address)));
            tries.failures_at(now) > FREE && !is_known
        })
    }

    /// A try was wrong, or right.
    pub fn note(&self, user: &str, address: Option<IpAddr>, is_right: bool, now: Instant) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !users.contains_key(user) && users.len() >= REMEMBERED {
            // The one with the least, so that many new names don't wash out the worst.
            let counts = users.iter().map(|(user, tries)| (user, tries.failures_at(now)));
            let least = counts.min_by(|(_, one), (_, other)| one.total_cmp(other));
            if let Some(least) = least.map(|(user, _)| user.clone()) {
                users.remove(&least);
            }
        }
        let new = || Tries { failures: 0.0, since: now, networks: Vec::new() };
        let tries = users.entry(user.into()).or_insert_with(new);
        (tries.failures, tries.since) = (tries.failures_at(now), now);
        match address.map(network) {
            _ if !is_right => tries.failures += 1.0,
            Some(network) => {
                tries.networks.retain(|known| *known != network);
                tries.networks.insert(0, network);
                tries.networks.truncate(NETWORKS);
            }
            None => {}
        }
    }
}

impl Tries {
    fn failures_at(&self, now: Instant) -> f64 {
        (self.failures - now.saturating_duration_since(self.since).as_secs_f64() * FORGOTTEN).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, host]))
    }

    #[test]
    fn many_addresses_wait_for_one_name_and_its_user_does_not() {
        let (back_off, now) = (UserBackOff::default(), Instant::now());
        back_off.note("anna", address(200), true, now);
        for host in 0..31 {
            assert!(!back_off.has_to_wait("anna", address(host), now));
            back_off.note("anna", address(host), false, now);
        }
        assert!(back_off.has_to_wait("anna", address(99), now), "from anywhere");
        assert!(back_off.has_to_wait("anna", None, now));
        assert!(!back_off.has_to_wait("anna", address(200), now), "but from where she came in");
        assert!(!back_off.has_to_wait("bob", address(99), now));
        assert!(!back_off.has_to_wait("anna", address(99), now + Duration::from_secs(3)), "it is forgotten");
    }

    #[test]
    fn names_without_number_leave_the_worst_remembered() {
        let (back_off, now) = (UserBackOff::default(), Instant::now());
        for _ in 0..40 {
            back_off.note("anna", address(1), false, now);
        }
        for number in 0..5000 {
            back_off.note(&format!("user-{number}"), address(1), false, now);
        }
        assert_eq!(back_off.0.lock().unwrap().len(), REMEMBERED);
        assert!(back_off.has_to_wait("anna", address(2), now));
        for host in 0..9 {
            back_off.note("anna", address(host), true, now);
        }
        assert_eq!(back_off.0.lock().unwrap()["anna"].networks.len(), NETWORKS);
    }
}
