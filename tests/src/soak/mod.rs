//! A soak: a mixed fleet of real clients under random faults, against the real gateway, with every message accounted for.
//!
//! Groups of apps (MQTT 3.1.1 and 5, over TCP and WebSockets, in sessions that last) and devices (the SDK) command
//! each other and publish, while links are cut, readers stall, strangers send garbage, and the gateway is stopped and
//! killed. [`ledger`] says what is promised, and finds what wasn't kept.

mod app;
mod device;
mod faults;
mod fleet;
mod ledger;
mod wire;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::{PATIENCE, Setup, Version};
use app::{App, Identity};
use faults::Harm;
use fleet::Fleet;
use ledger::{Ledger, MAX_MEMBERS};

/// Faults that wait for one client.
const FAULTS: usize = 4;
/// How long what was sent may take to be accounted for, when nothing is sent and nothing goes wrong any more.
const SETTLING: Duration = Duration::from_secs(180);

/// How a soak is run. It ends when all of what is wanted is reached.
#[derive(Clone, Debug)]
pub struct Soak {
    /// At least so long, in seconds.
    pub seconds: u64,
    /// At least so many deliveries.
    pub deliveries: u64,
    /// At least so many faults.
    pub faults: u64,
    /// Groups.
    pub groups: usize,
    /// Members of each, at most 16.
    pub members: usize,
    /// Sends a second by all clients together.
    pub rate: u32,
    /// Milliseconds between two faults.
    pub fault_interval: u64,
    /// Shards of the gateway.
    pub shards: u16,
    /// Where the gateway keeps what lasts; none: it is never killed.
    pub data_dir: Option<PathBuf>,
    /// The gateway is killed at every fault, and nothing else happens.
    pub only_kills: bool,
    /// Settles sends and faults, though not when they come.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The report, for people, in Markdown.
    pub report: String,
    /// Promises broken.
    pub violations: u64,
}

impl Soak {
    /// Runs it.
    pub async fn run(self) -> Outcome {
        LocalSet::new().run_until(self.run_here()).await
    }

    async fn run_here(self) -> Outcome {
        assert!((2..=MAX_MEMBERS).contains(&self.members), "2 to {MAX_MEMBERS} members");
        let count = self.groups * self.members;
        // A quarter are devices, spread over all groups.
        let devices: Vec<bool> = (0..count).map(|client| client % 4 == 3).collect();
        let groups = (0..self.groups).map(|group| (0..count).filter(|c| c % self.groups == group).collect());
        let lasting = devices.iter().map(|is_device| !is_device).collect();
        let ledger = Ledger::new(groups.collect(), lasting);
        let fleet = Rc::new(RefCell::new(Fleet::new(ledger, &devices, self.rate, self.seed)));

        let setup = self.setup();
        let gateway = setup.clone().start().await;
        fleet.borrow_mut().port = gateway.port;
        let mut clients = Vec::new();
        let mut tasks = Vec::new();
        for (client, is_device) in devices.iter().enumerate() {
            let (faults, hit) = mpsc::channel(FAULTS);
            clients.push(faults);
            let group = client % self.groups;
            if *is_device {
                tasks.push(spawn_local(device::run(client, group, fleet.clone(), hit)));
                continue;
            }
            let version = if client % 3 == 0 { Version::V311 } else { Version::V5 };
            let in_websocket = client % 5 == 2;
            let identity = Identity { client, group, version, in_websocket };
            tasks.push(spawn_local(App::new(identity, fleet.clone(), hit).run()));
        }
        self.wait_online(&fleet, count).await;

        let kills = self.data_dir.is_some();
        let mut harm = Harm::new(gateway, setup, fleet.clone(), clients, self.seed, kills);
        harm.only_kills = kills && self.only_kills;
        fleet.borrow_mut().is_quiet = false;
        let started = Instant::now();
        let mut memory = Vec::new();
        let mut told = Instant::now();
        while !self.is_reached(&fleet, &harm, started) {
            sleep(Duration::from_millis(self.fault_interval)).await;
            harm.strike().await;
            memory.push(harm.gateway.resident());
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                let fleet = fleet.borrow();
                let totals = fleet.ledger.totals();
                eprintln!(
                    "{:>5} s  {} sends  {} deliveries  {} faults  {} online  {} broken promises",
                    started.elapsed().as_secs(),
                    fleet.sends,
                    totals.deliveries,
                    harm.count(),
                    fleet.count_online(),
                    totals.violations,
                );
            }
        }
        let elapsed = started.elapsed();
        fleet.borrow_mut().is_quiet = true;
        let settling = Instant::now();
        while fleet.borrow().ledger.open() > 0 && settling.elapsed() < SETTLING {
            sleep(Duration::from_millis(500)).await;
        }
        let settled = settling.elapsed();
        fleet.borrow_mut().ledger.close();
        let report = self.report(&fleet.borrow(), &harm, elapsed, settled, &memory);
        let violations = fleet.borrow().ledger.totals().violations + fleet.borrow().lost_sessions();
        fleet.borrow_mut().is_over = true;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        harm.gateway.terminate().await;
        harm.gateway.finish().await;
        Outcome { report, violations }
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup::shards(self.shards)
            .config("[limits]")
            .config("offline_messages = 1000000")
            .config("offline_bytes = 1073741824");
        if let Some(data_dir) = &self.data_dir {
            setup = setup.argument("--data-dir").argument(&data_dir.display().to_string());
        }
        setup
    }

    async fn wait_online(&self, fleet: &Rc<RefCell<Fleet>>, count: usize) {
        let started = Instant::now();
        while fleet.borrow().count_online() < count {
            let online = fleet.borrow().count_online();
            assert!(started.elapsed() < PATIENCE, "only {online} of {count} are online");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_reached(&self, fleet: &Rc<RefCell<Fleet>>, harm: &Harm, started: Instant) -> bool {
        started.elapsed() >= Duration::from_secs(self.seconds)
            && fleet.borrow().ledger.totals().deliveries >= self.deliveries
            && harm.count() >= self.faults
    }

    fn report(
        &self,
        fleet: &Fleet,
        harm: &Harm,
        elapsed: Duration,
        settled: Duration,
        memory: &[u64],
    ) -> String {
        let mut text = String::new();
        let ledger = &fleet.ledger;
        let totals = ledger.totals();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{line}");
        };
        let sends: u64 = totals.sends.values().map(|(_, accepted)| accepted).sum();
        line(format_args!("| what | how many |\n| --- | --- |"));
        line(format_args!(
            "| clients (a quarter of them devices) in groups of {} | {} |",
            self.members,
            self.groups * self.members
        ));
        line(format_args!(
            "| shards, seed, seconds | {}, {}, {} |",
            self.shards,
            self.seed,
            elapsed.as_secs()
        ));
        line(format_args!("| sends accepted | {sends} |"));
        for (kind, (sent, accepted)) in &totals.sends {
            line(format_args!("| - {kind}: sent, accepted | {sent}, {accepted} |"));
        }
        line(format_args!("| deliveries | {} |", totals.deliveries));
        line(format_args!(
            "| - of messages that are stored for who is away | {} ({:.0}%) |",
            totals.kept_deliveries,
            100.0 * totals.kept_deliveries as f64 / totals.deliveries.max(1) as f64
        ));
        line(format_args!("| faults | {} |", harm.count()));
        for (name, count) in &harm.done {
            line(format_args!("| - {name} | {count} |"));
        }
        line(format_args!(
            "| **broken promises** (lost, twice, not addressed, late, out of order, untrue receipt) | **{}** |",
            totals.violations
        ));
        line(format_args!("| sessions that should have lasted and didn't | {} |", fleet.lost_sessions()));
        line(format_args!("| repetitions that QoS 1 allows after a lost connection | {} |", totals.repeated));
        line(format_args!("| final statuses | {} |", list(&totals.statuses)));
        line(format_args!("| QUEUED first | {} |", totals.queued));
        line(format_args!("| refusals | {} |", list(&totals.refusals)));
        line(format_args!("| signals whose sender was away for its receipt | {} |", totals.unheard));
        line(format_args!("| sends of devices that were reported as unconfirmed | {} |", totals.unknown));
        let quantile = |q: f64| ledger.latency.value_at_quantile(q) as f64 / 1000.0;
        line(format_args!(
            "| ms from a send to a client that was there, faults included: p50, p99, p99.9 | {:.1}, {:.1}, {:.1} |",
            quantile(0.5),
            quantile(0.99),
            quantile(0.999)
        ));
        let slowest = harm.restarts.iter().max().copied().unwrap_or_default();
        line(format_args!("| slowest start after a kill | {} ms |", slowest.as_millis()));
        let at =
            |part: usize| memory.get(memory.len() * part / 10).or(memory.last()).copied().unwrap_or(0) / 1024;
        line(format_args!(
            "| MiB in RAM after 10%, 50%, 90% of the run; most | {}, {}, {}; {} |",
            at(1),
            at(5),
            at(9),
            memory.iter().max().copied().unwrap_or(0) / 1024
        ));
        line(format_args!(
            "| seconds until all was accounted for, after the last send | {:.0} |",
            settled.as_secs_f64()
        ));
        for told in ledger.told() {
            line(format_args!("\n{told}"));
        }
        text
    }
}

fn list(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let texts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}
