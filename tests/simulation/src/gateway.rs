//! The gateway of a run: its shards, the FIFOs between them, and its clock. It can die at any moment, with everything in
//! it; another one then takes its place.

use std::collections::VecDeque;
use std::sync::Arc;

use bugle_core::hub::{Credentials, PeerBatch, Shard, ShardConfig, UserConnections};
use bugle_core::model::{Instant, Limits};
use bugle_core::rules::Rules;
use bugle_core::store::WallTime;

use crate::random::Random;

/// Batches that a FIFO holds, as in the process.
const BATCHES: usize = 4;

/// What a gateway is started with.
pub struct Setup {
    /// How many shards.
    pub shards: u16,
    /// Its bounds.
    pub limits: Arc<Limits>,
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// It has a store, and this is the wall clock at its moment 0.
    pub durable_since: Option<WallTime>,
}

/// One run of the gateway.
pub struct Gateway {
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Its bounds.
    pub limits: Arc<Limits>,
    fifos: Vec<Fifo>,
    /// When it started, by the world's clock.
    started: u64,
}

/// What lies between two shards.
#[derive(Default)]
struct Fifo {
    batches: VecDeque<PeerBatch>,
    /// The receiving shard takes nothing from it for now.
    blocked: bool,
    /// The sending shard was told that there is no room.
    full: bool,
}

impl Gateway {
    /// One that starts now.
    pub fn new(setup: &Setup, started: u64, random: &mut Random) -> Self {
        let limits = setup.limits.clone();
        let credentials = Arc::new(Credentials::open());
        let users = Arc::new(UserConnections::default());
        let shards = (0..setup.shards).map(|index| {
            let mut random = Random(random.next());
            let config = ShardConfig {
                index,
                shards: setup.shards,
                limits: limits.clone(),
                prefix: "sig".into(),
                rules: setup.rules.clone(),
                credentials: credentials.clone(),
                users: users.clone(),
                durable: setup.durable_since.is_some(),
                wall_at_start: setup.durable_since.unwrap_or_default(),
            };
            Shard::new(config, Box::new(move |bytes| bytes.fill_with(|| random.next() as u8)))
        });
        let shards: Vec<_> = shards.collect();
        let fifos = (0..shards.len() * shards.len()).map(|_| Fifo::default()).collect();
        Self { shards, limits, fifos, started }
    }

    /// Its clock, by the world's.
    pub fn now(&self, at: u64) -> Instant {
        Instant::from_millis(at - self.started + 1)
    }

    /// A deadline of its clock, by the world's.
    pub fn at(&self, deadline: Instant) -> u64 {
        deadline.as_millis() + self.started - 1
    }

    /// Pairs of shards of which the second has something to take from the first.
    pub fn ways(&self) -> impl Iterator<Item = usize> + '_ {
        let waits = |fifo: &Fifo| !fifo.blocked && !fifo.batches.is_empty();
        self.fifos.iter().enumerate().filter(move |(_, fifo)| waits(fifo)).map(|(way, _)| way)
    }

    /// The shards of a way: who sends, who receives.
    pub fn ends(&self, way: usize) -> (usize, usize) {
        (way / self.shards.len(), way % self.shards.len())
    }

    /// Puts what a shard has for others on their FIFOs.
    pub fn forward(&mut self, shard: usize) -> bool {
        let mut moved = false;
        let count = self.shards.len();
        while let Some((peer, batch)) = self.shards[shard].poll_peer() {
            moved = true;
            let fifo = &mut self.fifos[shard * count + usize::from(peer)];
            fifo.batches.push_back(batch);
            if fifo.batches.len() > BATCHES {
                fifo.full = true;
                self.shards[shard].peer_has_room(peer, false);
            }
        }
        moved
    }

    /// Hands the receiving shard of a way its next batch, if there is one.
    pub fn take(&mut self, way: usize, at: u64) -> bool {
        let (from, to) = self.ends(way);
        let now = self.now(at);
        let fifo = &mut self.fifos[way];
        let Some(mut batch) = fifo.batches.pop_front() else { return false };
        let has_room = std::mem::take(&mut fifo.full);
        while !batch.is_empty() {
            self.shards[to].handle_peer(from as u16, &mut batch, now);
        }
        if has_room {
            self.shards[from].peer_has_room(to as u16, true);
        }
        true
    }

    /// A shard does what is due. Whether it has judged its clients by other rules.
    pub fn pass_time(&mut self, shard: usize, at: u64) -> bool {
        let now = self.now(at);
        let shard = &mut self.shards[shard];
        let was_judging = shard.is_judging();
        shard.handle_time(now);
        was_judging && !shard.is_judging()
    }

    /// Blocks a way, or opens it.
    pub fn block(&mut self, way: usize, blocked: bool) {
        self.fifos[way].blocked = blocked;
    }

    /// How many ways there are.
    pub fn way_count(&self) -> usize {
        self.fifos.len()
    }

    /// When something is due, by the world's clock.
    pub fn deadline(&self) -> Option<u64> {
        self.shards.iter().filter_map(Shard::deadline).min().map(|deadline| self.at(deadline))
    }
}
