//! Thousands of seeds in the time that a test run has for them; and the same seed twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bugle_simulation::run;
use bugle_simulation::trace::Wanted;

/// Seconds for seeds, unless `SIMULATION_SECONDS` says otherwise.
const SECONDS: u64 = 40;
/// How many have to be run in any case: less would say too little.
const LEAST: u64 = 1_000;

/// Runs seeds from 0 on both cores, and stops at the first broken promise.
#[test]
fn every_promise_holds_under_every_seed() {
    let seconds =
        std::env::var("SIMULATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= LEAST && Instant::now() >= until {
                        break;
                    }
                    let outcome = run(seed, Wanted::Nothing);
                    assert_eq!(
                        outcome.violations,
                        [""; 0],
                        "seed {seed}; replay: cargo run --release -p bugle-simulation -- --from {seed} --seeds 1 --trace"
                    );
                }
            });
        }
    });
    println!("{} seeds", next.into_inner());
}

/// Neither a table's order nor a clock or address has a say in what happens; nor has it who looks on.
#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..150 {
        let [first, second] = [Wanted::Nothing, Wanted::All].map(|wanted| run(seed, wanted));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!((first.steps, first.messages), (second.steps, second.messages), "seed {seed}");
        assert!(!second.lines.is_empty());
    }
}

/// Seeds differ, and do something.
#[test]
fn seeds_are_not_all_alike() {
    let outcomes: Vec<_> = (0..100).map(|seed| run(seed, Wanted::Nothing)).collect();
    let mut hashes: Vec<_> = outcomes.iter().map(|outcome| outcome.hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), outcomes.len());
    let deliveries: usize = outcomes.iter().map(|outcome| outcome.deliveries).sum();
    assert!(deliveries > 2_000, "{deliveries}");
}
