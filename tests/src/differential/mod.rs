//! The differential test: random sequences of valid and nearly valid MQTT packets from two clients, the same against Bugle
//! and against Mosquitto, step by step. Both must answer alike, or `explained.toml` says why they don't and who is right.
//!
//! What two clients do comes from a seed (`sequence.rs`, `packets.rs`, `spoil.rs`); `side.rs` has the sockets at one broker,
//! and takes out what the standards leave to it; `difference.rs` compares and explains; `play.rs` plays many sequences at once.
//!
//! Packets of both brokers are read by Bugle's own codec. What it misreads, it misreads of Mosquitto's as well, and that shows.
//!
//! The first difference that nothing explains ends a sequence; it is played again, more slowly, and counts if it comes
//! again. `cargo run --release -p bugle-tests --bin differential -- --help` is for long runs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod dice;
mod difference;
mod packets;
mod play;
mod sequence;
mod side;
mod spoil;

use crate::{Broker, Gateway, Listens, Setup};
use difference::{Explained, Explanations};
use play::{Outcome, Play};

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first sequence.
    pub first_seed: u64,
    /// How many.
    pub sequences: u64,
    /// On so many threads.
    pub threads: usize,
    /// So many at once on each of them.
    pub at_once: usize,
    /// Stop after so many differences that nothing explains.
    pub enough: usize,
}

/// How many sequences two brokers have between them before new ones take their place: what they keep isn't theirs for ever.
const SEQUENCES_A_BROKER: u64 = 20_000;
/// A run of so many sequences meets everything that is known; the rarest come once in 100,000.
const LONG: u64 = 1_000_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Sequences played.
    pub sequences: u64,
    /// Steps compared.
    pub steps: u64,
    /// Explanations met: how often, by what they say.
    pub met: BTreeMap<String, u64>,
    /// Differences that didn't come again, by seed.
    pub not_repeated: Vec<(u64, String)>,
    /// Differences that nothing explains, by seed.
    pub unexplained: Vec<(u64, String)>,
    /// Explanations that a long run didn't meet.
    pub stale: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Starts both brokers, alike as far as they can be configured.
async fn brokers() -> (Gateway, Broker) {
    let gateway = Setup::shards(1)
        .config("sys_interval_seconds = 0\n[limits]\nmax_packet_bytes = 1048576")
        .start()
        .await;
    let lines = "persistence false\nautosave_on_changes false\nallow_anonymous true\nset_tcp_nodelay true\n\
                 max_packet_size 1048576\nsys_interval 0\nlog_dest none";
    (gateway, Broker::mosquitto(lines).await)
}

/// Plays a plan.
pub async fn run(plan: Plan) -> Report {
    let started = Instant::now();
    let explanations = Explanations::known();
    let mut report = Report::default();
    let mut first = plan.first_seed;
    let end = plan.first_seed + plan.sequences;
    while first < end && report.unexplained.len() < plan.enough {
        let last = end.min(first + SEQUENCES_A_BROKER);
        let (gateway, broker) = brokers().await;
        let ports = [gateway.port(), broker.port()];
        let (next, shared) = (AtomicU64::new(first), Mutex::new(&mut report));
        std::thread::scope(|scope| {
            for _ in 0..plan.threads {
                scope.spawn(|| play_some(ports, &next, last, plan, &explanations, &shared));
            }
        });
        first = last;
    }
    if report.sequences >= LONG {
        let texts = explanations.explained.iter().map(Explained::text);
        report.stale = texts.filter(|text| !report.met.contains_key(text)).collect();
    }
    report.took = started.elapsed();
    report
}

/// Plays one sequence by itself, slowly, and gives all that was said and heard, and whether it is explained.
pub async fn trace(seed: u64) -> String {
    let (gateway, broker) = brokers().await;
    let explanations = Explanations { explained: Vec::new() };
    let outcome = alone([gateway.port(), broker.port()], seed, 1, &explanations);
    outcome.unexplained.unwrap_or_else(|| format!("no difference in {} steps\n", outcome.steps))
}

fn alone(ports: [u16; 2], seed: u64, attempt: u64, explanations: &Explanations) -> Outcome {
    let mut plays = vec![Play::begin(ports, seed, attempt, explanations)];
    loop {
        if let Some(outcome) = play::advance(&mut plays).pop() {
            return outcome;
        }
    }
}

/// One thread's work: sequences from `next` on, up to `last`.
fn play_some(
    ports: [u16; 2],
    next: &AtomicU64,
    last: u64,
    plan: Plan,
    explanations: &Explanations,
    report: &Mutex<&mut Report>,
) {
    let mut plays = Vec::new();
    loop {
        let enough = report.lock().unwrap().unexplained.len() >= plan.enough;
        while plays.len() < plan.at_once && !enough {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                break;
            }
            plays.push(Play::begin(ports, seed, 0, explanations));
        }
        if plays.is_empty() {
            return;
        }
        for outcome in play::advance(&mut plays) {
            let again = outcome.unexplained.is_some();
            let second = again.then(|| alone(ports, outcome.seed, 1, explanations));
            note(&mut report.lock().unwrap(), outcome, second, explanations);
        }
    }
}

fn note(report: &mut Report, outcome: Outcome, second: Option<Outcome>, explanations: &Explanations) {
    report.sequences += 1;
    report.steps += outcome.steps;
    for at in outcome.met {
        *report.met.entry(explanations.explained[at].text()).or_default() += 1;
    }
    let seed = outcome.seed;
    match (outcome.unexplained, second.and_then(|second| second.unexplained)) {
        (_, Some(trace)) => report.unexplained.push((seed, trace)),
        (Some(once), None) => report.not_repeated.push((seed, once)),
        (None, None) => {}
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (seed, trace) in &self.not_repeated {
            writeln!(f, "seed {seed}, not repeated: {trace}")?;
        }
        for (seed, trace) in &self.unexplained {
            writeln!(f, "seed {seed}:\n{trace}")?;
        }
        let seconds = self.took.as_secs_f64();
        let each = self.sequences as f64 / seconds;
        writeln!(
            f,
            "{} sequences, {} steps in {seconds:.1} s ({each:.0} sequences/s)",
            self.sequences, self.steps
        )?;
        for (name, times) in &self.met {
            writeln!(f, "{times:>9}  {name}")?;
        }
        for name in &self.stale {
            writeln!(f, "    stale  {name}")?;
        }
        writeln!(
            f,
            "{} unexplained, {} that didn't come again",
            self.unexplained.len(),
            self.not_repeated.len()
        )
    }
}
