//! Runs a soak and prints its report; see docs/reliability.md.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use bugle_tests::soak::Soak;
use clap::Parser;

/// A mixed fleet under random faults, with every message accounted for. Ends when all that is wanted is reached.
#[derive(Parser)]
struct Options {
    /// At least so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// At least so many deliveries.
    #[arg(long, default_value_t = 0)]
    deliveries: u64,
    /// At least so many faults.
    #[arg(long, default_value_t = 0)]
    faults: u64,
    /// Groups.
    #[arg(long, default_value_t = 5)]
    groups: usize,
    /// Members of each, 2 to 16.
    #[arg(long, default_value_t = 12)]
    members: usize,
    /// Sends a second by all clients together.
    #[arg(long, default_value_t = 1500)]
    rate: u32,
    /// Milliseconds between two faults.
    #[arg(long, default_value_t = 500)]
    fault_interval: u64,
    /// Shards of the gateway.
    #[arg(long, default_value_t = 2)]
    shards: u16,
    /// Where the gateway keeps what lasts; without it nothing does, and it is never killed.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Kill the gateway at every fault, and do nothing else; with a data directory
    #[arg(long, requires = "data_dir")]
    only_kills: bool,
    /// Settles sends and faults, though not when they come.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let soak = Soak {
        seconds: options.seconds,
        deliveries: options.deliveries,
        faults: options.faults,
        groups: options.groups,
        members: options.members,
        rate: options.rate,
        fault_interval: options.fault_interval,
        shards: options.shards,
        data_dir: options.data_dir,
        only_kills: options.only_kills,
        seed: options.seed,
    };
    let outcome = runtime.block_on(soak.run());
    print!("{}", outcome.report);
    if outcome.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
