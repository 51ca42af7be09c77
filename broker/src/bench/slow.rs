//! Readers that are slow among fast ones: they take so many bytes a second during the load, and the rest after it.
//! What a broker keeps for them, drops, or ends them for shows in what they get in all; latencies are the fast ones'.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::BenchError;
use super::open::{Client, Opened};
use super::wire::{Event, Stamp, Wire};

/// How often a slow reader reads.
const PERIOD: Duration = Duration::from_millis(50);
/// Bytes that its system keeps for it unread: little, so that the broker soon feels how slow it is.
pub const RECEIVE_BUFFER: usize = 16 * 1024;
/// After the load, when nothing has come for so long, nothing more does.
const SILENCE: Duration = Duration::from_secs(2);
/// What is read at a time, in bytes.
const READ_BUFFER: usize = 64 * 1024;

/// The slow readers of a load.
pub struct SlowReaders {
    wire: Wire,
    readers: Vec<Reader>,
    bytes_per_second: u32,
    /// When they read last, on the load's clock.
    last: Duration,
    buffer: Vec<u8>,
}

/// What slow readers got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowOutcome {
    /// How many there were.
    pub readers: u64,
    /// Deliveries that came, during the load and after it.
    pub received: u64,
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Readers that the broker closed.
    pub closed: u64,
}

struct Reader {
    socket: TcpStream,
    stream: usize,
    /// The first number that can still come.
    next: u32,
    received: u64,
    repeated: u64,
    input: Vec<u8>,
    unsent: Vec<u8>,
    /// Bytes that it may read now.
    credit: usize,
    is_closed: bool,
}

impl SlowReaders {
    /// None yet.
    pub fn new(wire: Wire, bytes_per_second: u32) -> Self {
        let buffer = vec![0; READ_BUFFER];
        Self { wire, readers: Vec::new(), bytes_per_second, last: Duration::ZERO, buffer }
    }

    /// Connects one that gets this stream.
    pub fn connect(&mut self, client: &Client<'_>, stream: usize) -> Result<(), BenchError> {
        let Opened { socket, .. } = client.open()?;
        self.readers.push(Reader {
            socket,
            stream,
            next: 0,
            received: 0,
            repeated: 0,
            input: Vec::new(),
            unsent: Vec::new(),
            credit: 0,
            is_closed: false,
        });
        Ok(())
    }

    /// Lets them read what they may at `now`, and says when they want to read again.
    pub fn read(&mut self, now: Duration) -> Result<Option<Duration>, BenchError> {
        if self.readers.is_empty() || self.bytes_per_second == 0 {
            return Ok(None);
        }
        let passed = now.saturating_sub(self.last);
        if passed < PERIOD {
            return Ok(Some(PERIOD - passed));
        }
        self.last = now;
        let earned = (passed.as_secs_f64() * f64::from(self.bytes_per_second)) as usize;
        for reader in &mut self.readers {
            // What wasn't there to be read isn't saved up for later.
            reader.credit = earned.max(1);
            while reader.credit > 0 && reader.read(self.wire, &mut self.buffer)? > 0 {}
        }
        Ok(Some(PERIOD))
    }

    /// Reads all that still comes, once the load is over. `sent` says how many messages a stream sent.
    pub fn finish(mut self, sent: impl Fn(usize) -> u64) -> Result<SlowOutcome, BenchError> {
        let mut heard = Instant::now();
        let all = |reader: &Reader| reader.is_closed || reader.received >= sent(reader.stream);
        while !self.readers.iter().all(all) && heard.elapsed() < SILENCE {
            let mut read = 0;
            for reader in &mut self.readers {
                reader.credit = usize::MAX;
                read += reader.read(self.wire, &mut self.buffer)?;
            }
            if read > 0 {
                heard = Instant::now();
            } else {
                sleep(Duration::from_millis(5));
            }
        }
        let mut outcome = SlowOutcome { readers: self.readers.len() as u64, ..SlowOutcome::default() };
        for reader in &self.readers {
            outcome.received += reader.received;
            outcome.lost += sent(reader.stream).saturating_sub(reader.received);
            outcome.repeated += reader.repeated;
            outcome.closed += u64::from(reader.is_closed);
        }
        Ok(outcome)
    }
}

impl Reader {
    /// Reads once, counts and acknowledges; how many bytes came.
    fn read(&mut self, wire: Wire, buffer: &mut [u8]) -> Result<usize, BenchError> {
        if self.is_closed {
            return Ok(0);
        }
        let most = self.credit.min(buffer.len());
        let read = match self.socket.read(&mut buffer[..most]) {
            Ok(0) => 0,
            Ok(read) => read,
            Err(error) if is_later(&error) => return Ok(0),
            // Whatever the error is, nothing more comes.
            Err(_) => 0,
        };
        if read == 0 {
            self.is_closed = true;
            return Ok(0);
        }
        self.credit -= read;
        self.input.extend_from_slice(&buffer[..read]);
        let Self { stream, next, received, repeated, .. } = self;
        let taken = wire.walk(&self.input, &mut self.unsent, |event| {
            let Event::Message(payload) = event else { return };
            let Some(stamp) = Stamp::of(payload).filter(|stamp| stamp.stream as usize == *stream) else {
                return;
            };
            // Behind what came already: numbers wrap.
            if stamp.number.wrapping_sub(*next) > u32::MAX / 2 {
                *repeated += 1;
            } else {
                *received += 1;
                *next = stamp.number.wrapping_add(1);
            }
        })?;
        self.input.drain(..taken);
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if is_later(&error) => break,
                Err(_) => {
                    self.is_closed = true;
                    break;
                }
            }
        }
        Ok(read)
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::bench::handles::Handles;
    use crate::bench::options::Protocol;
    use crate::bench::plan::{Send, To};
    use crate::bench::wire::Message;

    /// Bytes of QoS 0 messages with these numbers.
    fn messages(numbers: &[u32]) -> Vec<u8> {
        let send = Send { to: To::Topic("t".to_owned()), recipients: 1 };
        let message = Message::new(Protocol::Mqtt, &send, &Handles::default(), 16, 0).unwrap();
        let mut bytes = Vec::new();
        numbers.iter().for_each(|&number| message.put(Stamp { stream: 0, number, due: 0 }, &mut bytes));
        bytes
    }

    fn slow_readers(bytes_per_second: u32) -> (SlowReaders, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut slow = SlowReaders::new(Wire(Protocol::Mqtt), bytes_per_second);
        slow.readers.push(Reader {
            socket,
            stream: 0,
            next: 0,
            received: 0,
            repeated: 0,
            input: Vec::new(),
            unsent: Vec::new(),
            credit: 0,
            is_closed: false,
        });
        (slow, listener.accept().unwrap().0)
    }

    #[test]
    fn a_reader_that_was_closed_lost_what_it_did_not_get() {
        let (slow, mut broker) = slow_readers(0);
        broker.write_all(&messages(&[0, 2, 2])).unwrap();
        drop(broker);
        let outcome = slow.finish(|_| 5).unwrap();
        assert_eq!(outcome, SlowOutcome { readers: 1, received: 2, lost: 3, repeated: 1, closed: 1 });
    }

    #[test]
    fn a_reader_takes_no_more_than_its_rate() {
        let one = messages(&[0]).len() as u32;
        let (mut slow, mut broker) = slow_readers(one * 20);
        broker.write_all(&messages(&[0, 1, 2, 3])).unwrap();
        assert!(slow.read(PERIOD / 2).unwrap().is_some_and(|pause| pause <= PERIOD));
        assert_eq!(slow.readers[0].received, 0, "it isn't time yet");
        slow.read(PERIOD).unwrap();
        assert_eq!(slow.readers[0].received, 1);
        slow.read(PERIOD * 3).unwrap();
        assert_eq!(slow.readers[0].received, 3);
        let outcome = slow.finish(|_| 4).unwrap();
        assert_eq!(outcome, SlowOutcome { readers: 1, received: 4, lost: 0, repeated: 0, closed: 0 });
    }
}
