//! Overloads a gateway and says what bystanders noticed; see docs/reliability.md.

use std::process::ExitCode;

use bugle_tests::overload::Overload;
use clap::Parser;

/// A crowd that comes in at once, is one group, and sends, beside clients that have nothing to do with it.
#[derive(Parser)]
struct Options {
    /// Clients in the crowd. The gateway and this program need as many open files each (`ulimit -n`).
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// How many of a hundred of them read nothing.
    #[arg(long, default_value_t = 5)]
    slow: usize,
    /// Sends a second of all of them, each to the whole crowd.
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Shards of the gateway.
    #[arg(long, default_value_t = 2)]
    shards: u16,
    /// MiB that may wait in the gateway's memory (`limits.waiting_bytes`).
    #[arg(long, default_value_t = 64)]
    waiting: usize,
}

fn main() -> ExitCode {
    let Options { clients, slow, rate, seconds, shards, waiting } = Options::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let overload = Overload {
        clients,
        slow_percent: slow.min(100),
        rate,
        seconds,
        shards,
        waiting_bytes: waiting << 20,
    };
    let here = tokio::task::LocalSet::new();
    let (report, held) = here.block_on(&runtime, overload.run());
    print!("{report}");
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
