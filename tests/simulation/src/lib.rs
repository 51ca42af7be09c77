//! A deterministic simulator: the whole of the gateway with several shards, devices on the SDK and MQTT clients, in one
//! thread with virtual time and one seed. It cuts, delays and doubles connections, makes readers slow, blocks the FIFOs
//! between shards, kills and restarts the gateway between any two steps, and checks at every delivery, receipt and answer, and when all is
//! quiet at the end, that what was promised holds. docs/reliability.md says what, and how to run it.
//!
//! A seed makes a [`plan`]; a [`world`] moves one thing at a time by it; the [`ledger`] knows what is true. What
//! clients do is in `act`; the checks are in [`arrival`], [`receipt`] and [`settled`].
#![forbid(unsafe_code)]

mod act;
pub mod arrival;
pub mod client;
pub mod device;
mod durable;
mod finale;
pub mod gateway;
pub mod ledger;
pub mod link;
#[path = "../../fuzz/src/memory.rs"]
pub mod memory;
pub mod message;
pub mod mqtt;
pub mod plan;
pub mod random;
pub mod receipt;
pub mod settled;
pub mod trace;
pub mod world;

use bugle_device::Config;

use crate::client::{Body, Client};
use crate::device::Device;
use crate::memory::Memory;
use crate::mqtt::Mqtt;
use crate::plan::{Kind, Plan, client_id};
use crate::random::Random;
use crate::trace::{Trace, Wanted};
use crate::world::World;

/// Bytes that a device receives into.
const RECEIVE: usize = 16 * 1024;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Stands for everything that happened: the same for the same seed and code.
    pub hash: u64,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// Steps that were made.
    pub steps: u64,
    /// Messages that were sent.
    pub messages: usize,
    /// Times that a client's application got one.
    pub deliveries: usize,
    /// What happened, if that was wanted.
    pub lines: Vec<String>,
}

/// Runs one seed to its end, or to the first broken promise. Every fourth has a durable store.
pub fn run(seed: u64, wanted: Wanted) -> Outcome {
    if seed % 4 == 3 {
        return durable::run(seed, wanted);
    }
    let mut random = Random(seed);
    let plan = Plan::new(&mut random);
    let mut trace = Trace::new(wanted);
    trace.line(|| format!("seed {seed}: {plan:#?}"));
    let outcome = |trace: &Trace, violations| Outcome {
        seed,
        hash: trace.hash(),
        violations,
        steps: 0,
        messages: 0,
        deliveries: 0,
        lines: Vec::new(),
    };
    let rules = match plan.law.rules() {
        Ok(rules) => rules,
        Err(error) => return outcome(&trace, vec![error]),
    };
    let ids: Vec<String> = (0..plan.clients.len()).map(client_id).collect();
    let mut memories: Vec<_> = plan.clients.iter().map(|_| Memory::new(RECEIVE)).collect();
    let mut wills = vec![[0; 128]; plan.clients.len()];
    let mut clients = Vec::new();
    for ((me, memory), will) in memories.iter_mut().enumerate().zip(&mut wills) {
        let settings = &plan.clients[me];
        let body = if settings.kind == Kind::Device {
            let mut config = Config::new(&ids[me], b"", 1);
            (config.keep_alive, config.window) = (settings.keep_alive, settings.window);
            config.session_expiry = settings.expiry.unwrap_or(0);
            if let (Some(submission), Some(number)) = (&settings.will, plan.will_number(me)) {
                config.will = device::will_frame(submission, number, will);
            }
            Body::Device(Box::new(Device::new(me, memory.session(config), settings.clock)))
        } else {
            Body::Mqtt(Box::new(Mqtt::new(me, settings.clone())))
        };
        clients.push(Client::new(me, body));
    }
    let steps = plan.steps;
    let mut world = World::new(plan, rules, clients, random, trace);
    world.storm(steps);
    world.finale();
    world.begin_step(0);
    let ledger = &world.ledger;
    Outcome {
        violations: ledger.violations().to_vec(),
        steps: world.now.step,
        messages: ledger.messages.len(),
        deliveries: ledger.messages.iter().map(|message| message.deliveries.len()).sum(),
        lines: world.trace.lines().map(str::to_owned).collect(),
        ..outcome(&world.trace, Vec::new())
    }
}

impl World<'_> {
    /// So many steps of whatever may happen.
    fn storm(&mut self, steps: u32) {
        let odds = self.plan.odds;
        for _ in 0..steps {
            if !self.is_sound() {
                return;
            }
            let mut roll = self.random.below(1000);
            let mut falls_to = |share: usize| {
                let hit = roll < share;
                roll = if hit { usize::MAX } else { roll - share.min(roll) };
                hit
            };
            if falls_to(odds.act) {
                self.act();
            } else if falls_to(odds.time) {
                let millis = match self.random.below(20) {
                    0..10 => self.random.between(1, 5),
                    10..17 => self.random.between(5, 100),
                    17..19 => self.random.between(100, 2000),
                    _ => self.random.between(2000, 20_000),
                };
                self.pass(millis as u64);
            } else if falls_to(odds.cut) {
                self.cut();
            } else if falls_to(odds.double) {
                self.double();
            } else if falls_to(odds.kill) {
                self.kill();
            } else if falls_to(odds.slow) {
                self.slow();
            } else if falls_to(odds.block) {
                self.block();
            } else if falls_to(odds.amend) {
                self.amend();
            } else if !self.move_something() {
                self.pass(1);
            }
        }
    }
}
