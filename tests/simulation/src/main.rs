//! Runs seeds as long as one likes:
//!
//!     cargo run --release -p bugle-simulation -- --seconds 60 --from 1
//!     cargo run --release -p bugle-simulation -- --from 4711 --seeds 1 --trace
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bugle_simulation::trace::Wanted;
use bugle_simulation::{Outcome, run};

const USAGE: &str = "\
usage: bugle-simulation [--from SEED] [--seeds N | --seconds N] [--threads N] [--trace] [--twice] [--keep-going]
  --from SEED    the first seed (0)
  --seeds N      how many seeds (1000)
  --seconds N    as many as can be run in so many seconds
  --threads N    so many at a time (all cores)
  --trace        print what happens
  --twice        run each seed twice, and compare all that happened
  --keep-going   go on after a seed that fails";

struct Options {
    from: u64,
    seeds: u64,
    seconds: Option<u64>,
    threads: u64,
    trace: bool,
    twice: bool,
    keep_going: bool,
}

fn options() -> Result<Options, String> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let mut options = Options {
        from: 0,
        seeds: 1000,
        seconds: None,
        threads,
        trace: false,
        twice: false,
        keep_going: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let text = args.next().ok_or(format!("{arg} needs a number"))?;
            text.parse().map_err(|_| format!("{arg} {text}: not a number"))
        };
        match arg.as_str() {
            "--from" => options.from = number()?,
            "--seeds" => options.seeds = number()?,
            "--seconds" => (options.seconds, options.seeds) = (Some(number()?), u64::MAX),
            "--threads" => options.threads = number()?.max(1),
            "--trace" => options.trace = true,
            "--twice" => options.twice = true,
            "--keep-going" => options.keep_going = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    messages: u64,
    deliveries: u64,
    failed: Vec<Outcome>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => Arc::new(options),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let (next, sum) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Sum::default())));
    let threads: Vec<_> = (0..options.threads)
        .map(|_| {
            let (options, next, sum) = (options.clone(), next.clone(), sum.clone());
            std::thread::spawn(move || work(&options, &next, &sum, began))
        })
        .collect();
    let is_whole = threads.into_iter().all(|thread| thread.join().is_ok());
    let seconds = began.elapsed().as_secs_f64();
    let Ok(sum) = sum.lock() else { return ExitCode::FAILURE };
    println!(
        "{} seeds from {} in {seconds:.1} s ({:.0} seeds/s): {} steps, {} messages, {} deliveries, {} seeds failed",
        sum.seeds,
        options.from,
        sum.seeds as f64 / seconds,
        sum.steps,
        sum.messages,
        sum.deliveries,
        sum.failed.len(),
    );
    if is_whole && sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(options: &Options, next: &AtomicU64, sum: &Mutex<Sum>, began: Instant) {
    let until = options.seconds.map(|seconds| began + Duration::from_secs(seconds));
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= options.seeds || until.is_some_and(|until| Instant::now() >= until) {
            return;
        }
        let seed = options.from.wrapping_add(at);
        let wanted = if options.trace { Wanted::Printed } else { Wanted::Nothing };
        let mut outcome = attempt(seed, wanted);
        if options.twice {
            let again = attempt(seed, Wanted::Nothing);
            if again.hash != outcome.hash {
                outcome.violations.push("two runs of this seed differ".to_owned());
            }
        }
        let Ok(mut sum) = sum.lock() else { return };
        sum.seeds += 1;
        sum.steps += outcome.steps;
        sum.messages += outcome.messages as u64;
        sum.deliveries += outcome.deliveries as u64;
        if let Some(first) = outcome.violations.first() {
            println!("seed {seed} fails at step {}: {first}", outcome.steps);
            println!(
                "    replay: cargo run --release -p bugle-simulation -- --from {seed} --seeds 1 --trace"
            );
            sum.failed.push(outcome);
            if !options.keep_going {
                next.store(options.seeds, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// A panic is a broken promise, too.
fn attempt(seed: u64, wanted: Wanted) -> Outcome {
    std::panic::catch_unwind(|| run(seed, wanted)).unwrap_or_else(|_| Outcome {
        seed,
        hash: 0,
        violations: vec!["a panic".to_owned()],
        steps: 0,
        messages: 0,
        deliveries: 0,
        lines: Vec::new(),
    })
}
