//! The places that connections take: among all, among those of their address, among those that haven't said who they are, among the
//! handshakes that aren't over, and among the first packets that are large.
//!
//! What a stranger may cost is the product of these; docs/security.md has the table. Places are freed when they are dropped,
//! however a connection ends. Addresses of IPv6 count by their network, as in [`back_off`](crate::back_off).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bugle_core::model::Limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::back_off::network;
use crate::metrics::EarlyClose;

/// Connections without a whole first packet.
const MAX_WAITING: usize = 1024;
/// So many of them may have begun TLS or HTTP; others wait for their turn.
const MAX_HANDSHAKES: usize = 512;
/// So many of them may hold a first packet larger than [`LARGE`]; others wait for their turn.
const MAX_LARGE: usize = 64;
/// What each may hold of its first packet, in bytes, layers included, without a place among those.
pub const LARGE: usize = 16 * 1024;
/// What one address may have of the places for connections without a first packet, and for large ones: others get in, too.
const OF_ADDRESS: [u32; 2] = [256, 16];

/// All places.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    large: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    /// Whether those of this machine are bounded like others.
    limit_loopback: bool,
}

/// A connection's place among all, and among those of its address.
#[derive(Debug)]
pub struct Slot {
    _all: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

/// A connection's place among those that have not said who they are.
#[derive(Debug)]
pub struct WaitingPlace {
    _waiting: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

/// The place of a first packet that is large.
#[derive(Debug)]
pub struct LargePlace {
    _large: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

impl Places {
    /// For a process of so many shards.
    pub fn new(limits: &Limits, shards: usize) -> Self {
        let all = limits.clients_per_shard.saturating_mul(shards).min(Semaphore::MAX_PERMITS);
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            all: places(all),
            waiting: places(MAX_WAITING),
            handshakes: places(MAX_HANDSHAKES),
            large: places(MAX_LARGE),
            addresses: Arc::new(Addresses::new([
                limits.connections_per_address,
                OF_ADDRESS[0],
                OF_ADDRESS[1],
            ])),
            limit_loopback: limits.limit_loopback,
        }
    }

    /// Those of a new connection; none of an address's for one of the process's own.
    pub fn of_new(&self, address: IpAddr, is_own: bool) -> Result<(Slot, WaitingPlace), EarlyClose> {
        let of_address = |kind| if is_own { Ok(None) } else { self.of_address(address, kind) };
        // The address first: who has all that he may isn't told that nobody can come in.
        let of_all = of_address(Kind::Connection)?;
        let of_waiting = of_address(Kind::Waiting)?;
        let all = self.all.clone().try_acquire_owned().map_err(|_| EarlyClose::Full)?;
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| EarlyClose::TooManyWaiting)?;
        Ok((
            Slot { _all: all, _of_address: of_all },
            WaitingPlace { _waiting: waiting, _of_address: of_waiting },
        ))
    }

    /// Waits until one of those without a first packet is free, so that a crowd that comes at once waits its turn in the kernel.
    pub async fn wait_for_room(&self) {
        // It is taken by whoever is accepted next; an error would be for a process that stops.
        let _ = self.waiting.acquire().await;
    }

    /// Waits for one among the handshakes; none is to be had once the process stops.
    pub async fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        self.handshakes.clone().acquire_owned().await.ok()
    }

    /// Waits for one among the large first packets.
    pub async fn large(&self, address: IpAddr) -> Result<LargePlace, EarlyClose> {
        let of_address = self.of_address(address, Kind::Large)?;
        let large = self.large.clone().acquire_owned().await.map_err(|_| EarlyClose::TooManyLarge)?;
        Ok(LargePlace { _large: large, _of_address: of_address })
    }

    fn of_address(&self, address: IpAddr, kind: Kind) -> Result<Option<OfAddress>, EarlyClose> {
        if !self.limit_loopback && address.to_canonical().is_loopback() {
            return Ok(None);
        }
        match self.addresses.take(network(address), kind) {
            Some(place) => Ok(Some(place)),
            None => Err(EarlyClose::TooManyOfAddress),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    Waiting,
    Large,
}

/// What each address has; none without a connection is remembered.
#[derive(Debug)]
struct Addresses {
    most: [u32; 3],
    table: Mutex<HashMap<IpAddr, [u32; 3]>>,
}

impl Addresses {
    fn new(most: [u32; 3]) -> Self {
        Self { most, table: Mutex::default() }
    }

    fn take(self: &Arc<Self>, network: IpAddr, kind: Kind) -> Option<OfAddress> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = table.entry(network).or_default();
        let count = &mut counts[kind as usize];
        // An address that is at a bound has an entry in any case.
        if *count >= self.most[kind as usize] {
            return None;
        }
        *count += 1;
        Some(OfAddress { addresses: self.clone(), network, kind })
    }
}

/// One of an address's places.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    network: IpAddr,
    kind: Kind,
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut table = self.addresses.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = table.get_mut(&self.network) {
            counts[self.kind as usize] = counts[self.kind as usize].saturating_sub(1);
            if *counts == [0; 3] {
                table.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(change: impl FnOnce(&mut Limits)) -> Places {
        let mut limits = Limits::default();
        change(&mut limits);
        Places::new(&limits, 1)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let places = places(|limits| limits.connections_per_address = 2);
        let (one, other) = (address("2001:db8::1"), address("2001:db8::2"));
        let first = places.of_new(one, false).unwrap();
        let (slot, _) = places.of_new(other, false).unwrap();
        assert_eq!(places.of_new(one, false).unwrap_err(), EarlyClose::TooManyOfAddress);
        assert!(places.of_new(one, true).is_ok(), "the process's own isn't counted");
        assert!(places.of_new(address("2001:db8:0:1::1"), false).is_ok(), "another network");
        drop(first);
        let again = places.of_new(other, false).unwrap();
        drop((slot, again));
        assert!(places.addresses.table.lock().unwrap().is_empty(), "nothing is remembered");
    }

    #[test]
    fn an_address_has_a_quarter_of_the_places_of_those_that_say_nothing() {
        let places = places(|_| ());
        let bad = address("192.0.2.1");
        let silent: Vec<_> = std::iter::from_fn(|| places.of_new(bad, false).ok()).collect();
        assert_eq!(silent.len(), MAX_WAITING / 4);
        let mut taken = Vec::new();
        // Whoever has said who he is leaves his place to the next.
        for (slot, waiting) in silent {
            drop(waiting);
            taken.push(slot);
        }
        assert!(places.of_new(bad, false).is_ok());
        assert!(places.of_new(address("192.0.2.2"), false).is_ok());
    }

    #[test]
    fn this_machine_is_limited_only_if_that_is_said() {
        for (limit_loopback, expected) in [(false, true), (true, false)] {
            let places = places(|limits| {
                limits.limit_loopback = limit_loopback;
                limits.connections_per_address = 1;
            });
            let _one = places.of_new(address("127.0.0.1"), false).unwrap();
            assert_eq!(places.of_new(address("::ffff:127.0.0.1"), false).is_ok(), expected);
        }
    }

    #[tokio::test]
    async fn large_first_packets_wait_for_each_other_and_one_address_has_a_quarter() {
        let places = places(|_| ());
        let mut held = Vec::new();
        for host in 0..4_u8 {
            let address = IpAddr::from([192, 0, 2, host]);
            for _ in 0..MAX_LARGE / 4 {
                held.push(places.large(address).await.unwrap());
            }
            assert_eq!(places.large(address).await.unwrap_err(), EarlyClose::TooManyOfAddress);
        }
        let mut next = Box::pin(places.large(address("192.0.2.9")));
        assert!(poll_once(&mut next).is_none(), "all are taken");
        held.pop();
        assert!(next.await.is_ok());
    }

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
