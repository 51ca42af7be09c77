//! Long runs of the differential test, and single sequences of it with all that was said and heard.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test says that something went wrong")]

use std::process::ExitCode;

use bugle_tests::differential::{Plan, run, trace};

const HELP: &str = "Plays random sequences of MQTT packets against Bugle and Mosquitto and compares (see tests/src/differential).

  --sequences N   how many (100000)
  --seed N        the first (0)
  --threads N     (2)
  --at-once N     sequences at a time on each thread (32)
  --enough N      stop after so many unexplained differences (10)
  --trace SEED    one sequence with all that was said and heard, up to the first difference, explained or not
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut plan = Plan { first_seed: 0, sequences: 100_000, threads: 2, at_once: 32, enough: 10 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse::<u64>().ok());
        let (name, Some(value)) = (name.as_str(), value) else {
            print!("{HELP}");
            return ExitCode::from(u8::from(name != "--help") * 2);
        };
        match name {
            "--sequences" => plan.sequences = value,
            "--seed" => plan.first_seed = value,
            "--threads" => plan.threads = value as usize,
            "--at-once" => plan.at_once = value as usize,
            "--enough" => plan.enough = value as usize,
            "--trace" => {
                print!("{}", trace(value).await);
                return ExitCode::SUCCESS;
            }
            _ => {
                print!("{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    let report = run(plan).await;
    print!("{report}");
    ExitCode::from(u8::from(!report.unexplained.is_empty() || !report.stale.is_empty()))
}
