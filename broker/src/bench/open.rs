//! Opens the generator's connections, one after the other and waiting for each answer: this part isn't measured.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::BenchError;
use super::handles::Handles;
use super::options::{Protocol, Target};
use super::plan::{Send, Subscription};
use super::wire::{Event, KEEP_ALIVE, Terms, Wire};

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is ready for the load.
pub struct Opened {
    /// The socket, which no longer blocks.
    pub socket: TcpStream,
    /// Messages that its sender may have unacknowledged, if the broker limits them.
    pub limit: Option<u32>,
    /// The names that a device announced.
    pub handles: Handles,
}

/// A connection that is wanted.
pub struct Client<'a> {
    /// To which broker.
    pub target: Target,
    /// The client id.
    pub id: &'a str,
    /// What it subscribes to.
    pub subscription: Option<&'a Subscription>,
    /// At which QoS.
    pub qos: u8,
    /// What it will send: a device announces the names in it.
    pub sends: &'a [Send],
    /// In seconds; 0 is none.
    pub keep_alive: u16,
    /// Bytes that its system keeps for it unread; left to the system if not given.
    pub receive_buffer: Option<usize>,
    /// Its session outlives the connection (MQTT).
    pub lasting: bool,
}

impl<'a> Client<'a> {
    /// One that subscribes to nothing and sends nothing.
    pub fn new(target: Target, id: &'a str) -> Self {
        Self {
            target,
            id,
            subscription: None,
            qos: 0,
            sends: &[],
            keep_alive: KEEP_ALIVE,
            receive_buffer: None,
            lasting: false,
        }
    }

    /// Connects, and subscribes and announces where that is asked for.
    pub fn open(&self) -> Result<Opened, BenchError> {
        let (dialogue, terms, handles) = self.open_dialogue()?;
        let socket = dialogue.socket;
        socket.set_read_timeout(None)?;
        socket.set_nonblocking(true)?;
        Ok(Opened { socket, limit: terms.window, handles })
    }

    /// The same, for one that goes on asking and waiting.
    pub fn open_dialogue(&self) -> Result<(Dialogue, Terms, Handles), BenchError> {
        let Self { target, id, qos, .. } = *self;
        let wire = Wire(target.protocol);
        let failed =
            |error: io::Error| BenchError::Connection(format!("{target} (as {id}): {}", explained(&error)));
        let socket = self.connect().map_err(failed)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut dialogue = Dialogue { socket, wire, target, input: Vec::new() };

        let mut out = Vec::new();
        wire.connect(id, self.keep_alive, self.lasting, &mut out)?;
        dialogue.send(&out).map_err(failed)?;
        let mut terms = Terms::default();
        dialogue.wait(|event| match event {
            Event::Connected(granted) => {
                terms = granted;
                true
            }
            _ => false,
        })?;

        let is_device = target.protocol == Protocol::Device;
        let handles = if is_device { Handles::new(self.sends, terms.names) } else { Handles::default() };
        let mut requests = vec![wire.announce(&handles)?];
        if let Some(subscription) = self.subscription {
            requests.extend(wire.subscribe(id, subscription, qos)?);
        }
        for request in requests.into_iter().filter(|request| request.answers > 0) {
            dialogue.send(&request.bytes).map_err(failed)?;
            let mut lacking = request.answers;
            dialogue.wait(|event| {
                lacking = match event {
                    Event::Subscribed => lacking.saturating_sub(1),
                    Event::Acknowledged(frames) if is_device => lacking.saturating_sub(frames),
                    _ => lacking,
                };
                lacking == 0
            })?;
        }
        Ok((dialogue, terms, handles))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let Some(bytes) = self.receive_buffer else { return TcpStream::connect(self.target.address) };
        // Before connecting, since the first window that the other end sees comes from it.
        let socket = Socket::new(Domain::for_address(self.target.address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(bytes)?;
        socket.connect(&self.target.address.into())?;
        Ok(socket.into())
    }
}

/// A connection whose owner waits for every answer.
pub struct Dialogue {
    socket: TcpStream,
    wire: Wire,
    target: Target,
    /// A packet that isn't whole yet.
    input: Vec<u8>,
}

impl Dialogue {
    /// Writes all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads until an event is what is waited for. What is whole in the same read is looked at too.
    pub fn wait(&mut self, mut is_it: impl FnMut(Event<'_>) -> bool) -> Result<(), BenchError> {
        let target = self.target;
        let mut buffer = [0; 16 * 1024];
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
