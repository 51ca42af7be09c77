//! Opens the generator's connections, one after the other and waiting for each answer: this part isn't measured.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::BenchError;
use super::options::{Protocol, Target};
use super::plan::Subscription;
use super::wire::{Event, Wire};

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is ready for the load.
pub struct Opened {
    /// The socket, which no longer blocks.
    pub socket: TcpStream,
    /// Messages that its sender may have unacknowledged, if the broker limits them.
    pub limit: Option<u32>,
}

/// Connects, and subscribes where that is asked for.
pub fn open(
    target: Target,
    id: &str,
    subscription: Option<&Subscription>,
    qos: u8,
) -> Result<Opened, BenchError> {
    let wire = Wire(target.protocol);
    let failed =
        |error: io::Error| BenchError::Connection(format!("{target} (as {id}): {}", explained(&error)));
    let socket = TcpStream::connect(target.address).map_err(failed)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut opening = Opening { socket, wire, input: Vec::new() };

    let mut out = Vec::new();
    wire.connect(id, &mut out)?;
    opening.send(&out).map_err(failed)?;
    let mut limit = None;
    opening.wait(target, |event| match event {
        Event::Connected(window) => {
            limit = window;
            true
        }
        _ => false,
    })?;

    out.clear();
    if let Some(subscription) = subscription
        && wire.subscribe(id, subscription, qos, &mut out)?
    {
        opening.send(&out).map_err(failed)?;
        let is_device = target.protocol == Protocol::Device;
        opening.wait(target, |event| match event {
            Event::Subscribed => true,
            Event::Acknowledged(_) => is_device,
            _ => false,
        })?;
    }
    opening.socket.set_read_timeout(None)?;
    opening.socket.set_nonblocking(true)?;
    Ok(Opened { socket: opening.socket, limit })
}

struct Opening {
    socket: TcpStream,
    wire: Wire,
    input: Vec<u8>,
}

impl Opening {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads until an event is what is waited for.
    fn wait(&mut self, target: Target, mut is_it: impl FnMut(Event<'_>) -> bool) -> Result<(), BenchError> {
        let mut buffer = [0; 4096];
        loop {
            let read = match self.socket.read(&mut buffer) {
                Ok(0) => {
                    return Err(BenchError::Connection(format!(
                        "{target} closed a connection that was opening"
                    )));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let why = explained(&error);
                    return Err(BenchError::Connection(format!("{target} gave no answer: {why}")));
                }
            };
            self.input.extend_from_slice(&buffer[..read]);
            let (mut found, mut refused, mut out) = (false, None, Vec::new());
            let taken = self.wire.walk(&self.input, &mut out, |event| match event {
                Event::Refused(why) => refused = Some(why),
                event => found |= is_it(event),
            })?;
            self.input.drain(..taken);
            if let Some(why) = refused {
                return Err(BenchError::Refused(why));
            }
            if !out.is_empty() {
                self.socket.write_all(&out)?;
            }
            if found {
                return Ok(());
            }
        }
    }
}

/// The error with what helps against it.
pub fn explained(error: &io::Error) -> String {
    // EMFILE and ENFILE, which have no kind of their own.
    let advice = match (error.kind(), error.raw_os_error()) {
        (_, Some(23 | 24)) => "; raise the limit of open files (ulimit -n) here and at the broker",
        (io::ErrorKind::ConnectionRefused, _) => "; is the broker running there?",
        (io::ErrorKind::AddrNotAvailable, _) => "; this machine has no more free ports, wait a minute",
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, _) => " in 10 seconds",
        _ => "",
    };
    format!("{error}{advice}")
}
