//! `bugle bench`: a load generator for any MQTT 3.1.1 broker and for the device port, and the copy-only broker that
//! brokers are held against (docs/benchmarks.md).
//!
//! The way in: [`options`] is the command line, [`plan`] says who sends what to whom, [`open`] connects them,
//! [`load`] is the one thread that sends and counts over [`wire`], [`report`] prints, [`process`] looks at the broker.
//! [`slow`] are readers that don't keep up, [`handles`] what a device announces. [`idle`] and [`storm`] measure
//! connections, [`retained`] what a broker keeps, [`store`] the durable store by itself; [`floor`] is the copy-only broker.
//!
//! Nothing here uses the gateway's own sessions: the generator counts by walking length prefixes, so that it costs
//! less than what it measures.

mod floor;
mod handles;
mod idle;
mod load;
mod open;
pub mod options;
mod plan;
mod process;
mod report;
mod retained;
mod slow;
mod store;
mod storm;
mod stream;
mod wire;

use std::io::{self, Write};
use std::process::ExitCode;

use self::options::{BenchCommand, Load};
use self::plan::Plan;

/// Why a measurement could not be made, or can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No connection, or not enough of them.
    #[error("{0}")]
    Connection(String),
    /// The broker refused something.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The broker sent what can't be read, or closed.
    #[error("the broker {0}")]
    Broker(String),
    /// The options don't fit together.
    #[error("{0}")]
    Usage(String),
    /// The system refused something.
    #[error("the system: {0}")]
    System(#[from] io::Error),
}

impl BenchError {
    /// 1 refused or broken, 2 bad usage, 3 no connection.
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Connection(_) => 3,
            Self::Usage(_) => 2,
            Self::Refused(_) | Self::Broker(_) | Self::System(_) => 1,
        }
    }
}

/// Runs the command.
pub fn run(command: &BenchCommand) -> ExitCode {
    match measured(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bugle bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn measured(command: &BenchCommand) -> Result<ExitCode, BenchError> {
    let (plan, load) = match command {
        BenchCommand::Floor(options) => return floor::run(options.listen).map(|()| ExitCode::SUCCESS),
        BenchCommand::Idle(options) => return idle::run(options),
        BenchCommand::Retained(options) => return retained::run(options),
        BenchCommand::Storm(options) => return storm::run(options),
        BenchCommand::Store(options) => return store::run(options),
        BenchCommand::Subscriptions(options) => (Plan::subscriptions(options), &options.load),
        BenchCommand::Fanout(options) => (Plan::fanout(options), &options.load),
        BenchCommand::Pairs(options) => (Plan::pairs(options), &options.load),
        BenchCommand::Unicast(options) => (Plan::unicast(options), &options.load),
        BenchCommand::Groups(options) => (Plan::groups(options)?, &options.load),
    };
    if load.lasting && (load.qos == 0 || load.target.protocol != options::Protocol::Mqtt) {
        let text = "--lasting is about MQTT at QoS 1: add --qos 1, and a target of mqtt://";
        return Err(BenchError::Usage(text.to_owned()));
    }
    let outcome = load::run(&plan, load)?;
    let text =
        if load.json { report::json(&plan, load, &outcome) } else { report::text(&plan, load, &outcome) };
    say(&text);
    Ok(verdict(load, &outcome))
}

/// Whether every delivery that was promised came.
fn verdict(load: &Load, outcome: &load::Outcome) -> ExitCode {
    let lost = load.qos > 0 && outcome.missing() > 0;
    if lost || outcome.timed_out { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a result; whoever closed stdout doesn't want it.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
