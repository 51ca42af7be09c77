//! How fast a broker takes new clients: from connecting to its answer, as after a power cut. Many at a time, or open
//! loop, at fixed times: devices that come back don't wait for each other.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use super::open::explained;
use super::options::StormOptions;
use super::process::{Sample, check_open_files};
use super::report::per_second;
use super::wire::{Event, KEEP_ALIVE, Wire};
use super::{BenchError, say};

/// The longest time that is told apart, in microseconds.
const MAX_LATENCY: u64 = 600_000_000;
/// How long nothing happens before a look around.
const IDLE: Duration = Duration::from_millis(100);

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    Asked,
    Done,
}

struct Attempt {
    socket: TcpStream,
    /// When it should have begun.
    due: Duration,
    step: Step,
    input: Vec<u8>,
}

struct Storm<'a> {
    options: &'a StormOptions,
    poll: Poll,
    attempts: Vec<Attempt>,
    waiting: u32,
    done: u32,
    failed: u32,
    /// Why the first one failed.
    why: Option<String>,
    clock: Instant,
    /// How late the generator itself began one, at worst; 0 without a rate.
    latest: Duration,
    /// In microseconds.
    latency: Histogram<u64>,
}

/// Runs the measurement.
pub fn run(options: &StormOptions) -> Result<ExitCode, BenchError> {
    check_open_files(options.pid, options.connections)?;
    let latency = Histogram::new_with_bounds(1, MAX_LATENCY, 3)
        .map_err(|error| BenchError::Usage(format!("no histogram: {error}")))?;
    let mut storm = Storm {
        options,
        poll: Poll::new()?,
        attempts: Vec::new(),
        waiting: 0,
        done: 0,
        failed: 0,
        why: None,
        clock: Instant::now(),
        latest: Duration::ZERO,
        latency,
    };
    let sample = || options.pid.map(Sample::take).transpose();
    let before = sample()?;
    storm.clock = Instant::now();
    storm.run()?;
    let (elapsed, after) = (storm.clock.elapsed(), sample()?);
    let cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    say(&storm.report(elapsed, cpu));
    Ok(if storm.done == options.connections { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Storm<'_> {
    fn run(&mut self) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(1024);
        let mut heard = Instant::now();
        while self.done + self.failed < self.options.connections {
            let pause = self.begin_what_is_due()?;
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            if !events.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > self.options.patience {
                let unanswered = self.options.connections - self.done - self.failed;
                self.why.get_or_insert_with(|| format!("no answer to {unanswered}"));
                self.failed += unanswered;
            }
            for event in &events {
                let Token(index) = event.token();
                if let Err(error) = self.go_on(index) {
                    self.settle(index, Err(error));
                }
            }
        }
        Ok(())
    }

    /// Begins connections, and says how long to wait for answers.
    fn begin_what_is_due(&mut self) -> Result<Duration, BenchError> {
        while self.attempts.len() < self.options.connections as usize {
            let now = self.clock.elapsed();
            let Some(rate) = self.options.rate else {
                if self.waiting >= self.options.window {
                    break;
                }
                self.begin(now)?;
                continue;
            };
            let due = Duration::from_secs_f64(self.attempts.len() as f64 / rate);
            if due > now {
                return Ok((due - now).min(IDLE));
            }
            self.latest = self.latest.max(now - due);
            self.begin(due)?;
        }
        Ok(IDLE)
    }

    fn begin(&mut self, due: Duration) -> Result<(), BenchError> {
        let target = self.options.target;
        let mut socket = TcpStream::connect(target.address)
            .map_err(|error| BenchError::Connection(format!("{target}: {}", explained(&error))))?;
        let token = Token(self.attempts.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.attempts.push(Attempt { socket, due, step: Step::Connecting, input: Vec::new() });
        self.waiting += 1;
        Ok(())
    }

    fn go_on(&mut self, index: usize) -> Result<(), BenchError> {
        let wire = Wire(self.options.target.protocol);
        let attempt = &mut self.attempts[index];
        let broken = |error: io::Error| BenchError::Connection(explained(&error));
        if attempt.step == Step::Connecting {
            if let Some(error) = attempt.socket.take_error()? {
                return Err(broken(error));
            }
            if attempt.socket.peer_addr().is_err() {
                return Ok(());
            }
            let mut out = Vec::new();
            wire.connect(&format!("b{}-storm{index}", std::process::id()), KEEP_ALIVE, false, &mut out)?;
            // The first bytes of a connection fit its empty buffer.
            attempt.socket.write_all(&out).map_err(broken)?;
            attempt.step = Step::Asked;
        }
        if attempt.step == Step::Asked {
            let mut buffer = [0; 1024];
            match attempt.socket.read(&mut buffer) {
                Ok(0) => return Err(BenchError::Broker("closed a connection".to_owned())),
                Ok(read) => attempt.input.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
            let mut answer = None;
            wire.walk(&attempt.input, &mut Vec::new(), |event| match event {
                Event::Connected(_) => answer = Some(Ok(())),
                Event::Refused(why) => answer = Some(Err(BenchError::Refused(why))),
                _ => {}
            })?;
            if let Some(answer) = answer {
                self.settle(index, answer);
            }
        }
        Ok(())
    }

    /// An attempt has its answer.
    fn settle(&mut self, index: usize, answer: Result<(), BenchError>) {
        let attempt = &mut self.attempts[index];
        if attempt.step == Step::Done {
            return;
        }
        attempt.step = Step::Done;
        attempt.input = Vec::new();
        self.waiting -= 1;
        match answer {
            Ok(()) => {
                self.done += 1;
                let waited = self.clock.elapsed().saturating_sub(attempt.due);
                self.latency.saturating_record(waited.as_micros() as u64);
            }
            Err(error) => {
                self.failed += 1;
                self.why.get_or_insert(error.to_string());
            }
        }
    }

    fn report(&self, elapsed: Duration, cpu: Option<Duration>) -> String {
        let rate = per_second(self.done.into(), elapsed).unwrap_or_default();
        let (p50, p99) = (self.latency.value_at_quantile(0.5), self.latency.value_at_quantile(0.99));
        if self.options.json {
            return json!({
                "name": "storm",
                "target": self.options.target.to_string(),
                "connected": self.done,
                "failed": self.failed,
                "why": self.why,
                "seconds": elapsed.as_secs_f64(),
                "connections_per_second": rate,
                "connections_per_cpu_second": cpu.and_then(|cpu| per_second(self.done.into(), cpu)),
                "rate": self.options.rate,
                "latency_us": {
                    "p50": p50,
                    "p99": p99,
                    "max": self.latency.max(),
                    "generator_late": self.latest.as_micros() as u64,
                },
            })
            .to_string();
        }
        let failures = match &self.why {
            Some(why) => format!("; {} failed, the first because: {why}", self.failed),
            None => String::new(),
        };
        let late = match self.options.rate {
            Some(_) => format!("; the generator was {} us late at worst", self.latest.as_micros()),
            None => String::new(),
        };
        let cpu = cpu.map_or(String::new(), |cpu| format!("; broker: {:.2} CPU seconds", cpu.as_secs_f64()));
        format!(
            "{} connected in {:.2} s: {rate:.0} a second; answered after {p50} us (p50), {p99} us (p99){late}{cpu}{failures}",
            self.done,
            elapsed.as_secs_f64()
        )
    }
}
