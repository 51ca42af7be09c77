//! The `bugle` program, for `main.rs` alone, which calls [`main`]: the gateway's process, the client commands `send`, `watch` and `demo`, and `bench`.
//!
//! The way in: [`serve`] starts it all, [`listener`] accepts and reads a first packet through the [`transport`] that it
//! came by, [`shard_thread`] owns a shard of `bugle-core` with its sockets in [`connection`], [`fifo`] joins the
//! shards, [`bridge`] joins the gateway to other brokers, [`admin`] and [`metrics`] tell how it goes, [`audit`] who did what;
//! [`operate`] is the admin API in a terminal, and [`init`] makes what a gateway needs. What a message means is decided in `bugle-core`; nothing here looks inside one.
#![forbid(unsafe_code)]

mod admin;
mod audit;
mod authentication;
mod back_off;
mod bench;
mod bridge;
mod cli;
mod client;
mod config;
mod connection;
mod demo;
mod fifo;
mod file_mode;
mod file_watch;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake_thread;
mod init;
mod limits;
mod listener;
mod metrics;
mod operate;
mod places;
mod reload_status;
mod rules_command;
mod rules_reload;
mod send;
mod serve;
mod shard_thread;
mod store;
mod sys_topics;
mod tls_reload;
mod transport;
mod watch;

use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;

use bugle_core::model::ModerationAct;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Arguments, Command, DeviceCommand, OperatorCommand, TimedOptions};

/// Does what the command line says, and gives what the program is to end with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = start_log(&arguments) {
        return failed(2, &error);
    }
    match arguments.command.unwrap_or_default() {
        Command::Serve(options) => {
            serve::run(&options).map_or_else(|error| failed(1, &error), |()| ExitCode::SUCCESS)
        }
        Command::Send(options) => block_on(send::run(&options)),
        Command::Watch(options) => block_on(watch::run(&options)),
        Command::Demo => block_on(demo::run()),
        Command::Init(options) => init::run(&options),
        Command::Passwd(options) => authentication::command::passwd(&options),
        Command::Device(DeviceCommand::Add(options)) => authentication::command::device_add(&options),
        Command::Operator(OperatorCommand::Add(options)) => authentication::command::operator_add(&options),
        Command::Clients(options) => block_on(operate::clients(&options)),
        Command::Groups(options) => block_on(operate::groups(&options)),
        Command::Presence(options) => block_on(operate::presence(&options)),
        Command::Moderations(options) => block_on(operate::moderations(&options)),
        Command::Kick(options) => block_on(operate::moderate(ModerationAct::Kick, &options, None)),
        Command::Unmute(options) => block_on(operate::moderate(ModerationAct::Unmute, &options, None)),
        Command::Unban(options) => block_on(operate::moderate(ModerationAct::Unban, &options, None)),
        Command::Mute(TimedOptions { moderate, seconds }) => {
            block_on(operate::moderate(ModerationAct::Mute, &moderate, seconds))
        }
        Command::Ban(TimedOptions { moderate, seconds }) => {
            block_on(operate::moderate(ModerationAct::Ban, &moderate, seconds))
        }
        Command::Store(command) => store::command::run(&command),
        Command::Rules(command) => rules_command::run(&command),
        Command::Bench(command) => bench::run(&command),
    }
}

/// Says on stderr what went wrong.
fn failed(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("bugle: {error}");
    ExitCode::from(code)
}

fn block_on(task: impl Future<Output = ExitCode>) -> ExitCode {
    match serve::runtime() {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, task),
        Err(error) => failed(1, &error),
    }
}

/// Logs to stderr what `--log` or `RUST_LOG` asks for; the client commands only speak of trouble by themselves.
fn start_log(arguments: &Arguments) -> Result<(), String> {
    let filter = match (&arguments.log, &arguments.command) {
        (Some(filter), _) => filter.as_str(),
        (None, None | Some(Command::Serve(_))) => "info",
        // The demo is refused on purpose, which its MQTT client would warn of.
        (None, Some(Command::Demo)) => "error",
        (None, Some(_)) => "warn",
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("'{filter}' is no log filter ({error}); try --log debug or --log bugle=trace")
    })?;
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .with_target(false)
        .init();
    Ok(())
}
