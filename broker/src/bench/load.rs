//! The load: one thread that sends, receives, acknowledges and counts, over all connections.
//!
//! ```text
//! WarmUp ── time ──► Measuring ── time, or all sent ──► Draining ── all there, or nothing comes ──► end
//! ```
//! With a rate the load is open loop: a message's time to leave is fixed beforehand, and its latency counts from then,
//! whoever held it up.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::BenchError;
use super::open::{Client, Opened};
use super::options::{Load, Target};
use super::plan::{Plan, Recipient, StreamPlan, Subscription};
use super::process::Sample;
use super::slow::{self, SlowOutcome, SlowReaders};
use super::stream::Books;
use super::wire::{Event, Message, Stamp, Wire};

/// What is read at a time, in bytes. A shorter read has emptied the socket.
const READ_BUFFER: usize = 256 * 1024;
/// Messages of one sender under way when the rate decides.
const OPEN_WINDOW: u16 = 32_768;
/// A message that is due so soon is waited for without sleep: sleeps are as coarse as this.
const SPIN: Duration = Duration::from_millis(1);
/// The longest latency that is told apart, in microseconds.
const MAX_LATENCY: u64 = 600_000_000;
/// Unsent bytes of a sender beyond which it sends no more until they have left.
const MAX_UNSENT: usize = 256 * 1024;

/// What came of a load.
pub struct Outcome {
    /// Messages sent in all.
    pub sent: u64,
    /// Deliveries due for them.
    pub expected: u64,
    /// Deliveries that came.
    pub received: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Messages that the broker did not acknowledge to their sender, at QoS 1 or on the framing.
    pub unacknowledged: u64,
    /// Nothing came for as long as the patience lasts, though something was missing.
    pub timed_out: bool,
    /// How long the measurement was.
    pub elapsed: Duration,
    /// Deliveries in that time.
    pub deliveries: u64,
    /// Their latencies in microseconds.
    pub latency: Histogram<u64>,
    /// How late the generator itself sent a message, at worst; 0 without a rate.
    pub latest_send: Duration,
    /// The broker's process at the beginning and the end of the measurement.
    pub process: Option<(Sample, Sample)>,
    /// KiB that its memory grew by for each connection while they were made.
    pub kib_per_connection: Option<f64>,
    /// Bytes that it grew by for each subscription, where there were many; its connections are in it.
    pub bytes_per_subscription: Option<f64>,
    /// What slow readers got, where there were any.
    pub slow: Option<SlowOutcome>,
}

impl Outcome {
    /// Deliveries that never came.
    pub fn missing(&self) -> u64 {
        self.expected - self.received
    }
}

/// Connects everyone, applies the load and waits for what is under way.
pub fn run(plan: &Plan, load: &Load) -> Result<Outcome, BenchError> {
    // A wrong pid is better known before than after.
    let sample = || load.pid.map(Sample::take).transpose();
    let before = sample()?;
    let mut bench = Bench::connect(plan, load)?;
    let connected = sample()?;
    bench.apply()?;
    let slow = std::mem::replace(&mut bench.slow, SlowReaders::new(bench.wire, 0));
    let slow = slow.finish(|stream| bench.streams.get(stream).map_or(0, |stream| stream.books.sent))?;
    let connections = bench.connections.len() as u64 + slow.readers;
    if load.lasting {
        end_sessions(plan, load.target)?;
    }
    let mut outcome = bench.outcome();
    if let Some((before, connected)) = before.zip(connected) {
        let filters = Some(plan.filters()).filter(|&filters| filters > 0);
        outcome.kib_per_connection = Some(connected.kib_each(&before, connections));
        outcome.bytes_per_subscription = filters.map(|count| connected.kib_each(&before, count) * 1024.0);
    }
    outcome.slow = Some(slow).filter(|slow| slow.readers > 0);
    Ok(outcome)
}

/// Ends the sessions of recipients, by a clean one each.
fn end_sessions(plan: &Plan, target: Target) -> Result<(), BenchError> {
    for recipient in plan.streams.iter().flat_map(|stream| &stream.receivers) {
        Client::new(target, &recipient.id).open()?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    Draining,
}

enum Role {
    /// Sends this stream.
    Sender(usize),
    /// Receives this stream; `next` is the first number that can still come.
    Receiver { stream: usize, next: u32 },
}

struct Connection {
    socket: TcpStream,
    role: Role,
    /// A packet that isn't whole yet.
    input: Vec<u8>,
    /// What the socket didn't take.
    unsent: Vec<u8>,
}

struct Stream {
    books: Books,
    sends: Vec<Message>,
    sender: usize,
    gaps_are_losses: bool,
    /// Messages that the broker has not acknowledged.
    unacknowledged: u64,
    /// How many these may be.
    limit: u64,
}

struct Bench<'a> {
    load: &'a Load,
    wire: Wire,
    poll: Poll,
    clock: Instant,
    connections: Vec<Connection>,
    slow: SlowReaders,
    streams: Vec<Stream>,
    window: usize,
    phase: Phase,
    /// Messages sent, over all streams.
    sent: u64,
    received: u64,
    /// When the measurement began, on the clock, and how much had been received.
    began: (Duration, u64),
    /// The same for its end.
    ended: (Duration, u64),
    /// When something last came, on the clock.
    heard: Duration,
    timed_out: bool,
    latest_send: Duration,
    latency: Histogram<u64>,
    process: (Option<Sample>, Option<Sample>),
    refused: Option<String>,
}

impl<'a> Bench<'a> {
    fn connect(plan: &Plan, load: &'a Load) -> Result<Self, BenchError> {
        let window = load.window.unwrap_or(if load.rate.is_some() { OPEN_WINDOW } else { plan.window });
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY, 3)
            .map_err(|error| BenchError::Usage(format!("no histogram: {error}")))?;
        let mut bench = Self {
            load,
            wire: Wire(load.target.protocol),
            poll: Poll::new()?,
            clock: Instant::now(),
            connections: Vec::new(),
            slow: SlowReaders::new(Wire(load.target.protocol), plan.slow_rate),
            streams: Vec::new(),
            window: window.into(),
            phase: Phase::WarmUp,
            sent: 0,
            received: 0,
            began: Default::default(),
            ended: Default::default(),
            heard: Duration::ZERO,
            timed_out: false,
            latest_send: Duration::ZERO,
            latency,
            process: (None, None),
            refused: None,
        };
        for stream in &plan.streams {
            bench.connect_stream(load.target, stream)?;
        }
        Ok(bench)
    }

    fn connect_stream(&mut self, target: Target, plan: &StreamPlan) -> Result<(), BenchError> {
        let (stream, qos) = (self.streams.len(), self.load.qos);
        for Recipient { id, subscription } in &plan.receivers {
            let subscription = Some(subscription);
            let lasting = self.load.lasting;
            let opened = Client { subscription, qos, lasting, ..Client::new(target, id) }.open()?;
            self.add(opened, Role::Receiver { stream, next: 0 })?;
        }
        for Recipient { id, subscription } in &plan.slow {
            let subscription = Some(subscription);
            let receive_buffer = Some(slow::RECEIVE_BUFFER);
            let client = Client { subscription, qos, receive_buffer, ..Client::new(target, id) };
            self.slow.connect(&client, stream)?;
        }
        let subscription = plan.answers.as_ref().map(|_| &Subscription::Answers);
        let sender = Client { subscription, qos, sends: &plan.sends, ..Client::new(target, &plan.sender) };
        let opened = sender.open()?;
        let limit = opened.limit.map_or(u64::from(OPEN_WINDOW), u64::from);
        let message = |send| Message::new(target.protocol, send, &opened.handles, self.load.payload, qos);
        let sends = plan.sends.iter().map(message).collect::<Result<_, _>>()?;
        let sender = self.add(opened, Role::Sender(stream))?;
        self.streams.push(Stream {
            books: Books::default(),
            sends,
            sender,
            gaps_are_losses: plan.is_for_all(),
            unacknowledged: 0,
            limit,
        });
        Ok(())
    }

    fn add(&mut self, opened: Opened, role: Role) -> Result<usize, BenchError> {
        let index = self.connections.len();
        let mut socket = TcpStream::from_std(opened.socket);
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        self.connections.push(Connection { socket, role, input: Vec::new(), unsent: Vec::new() });
        Ok(index)
    }

    fn apply(&mut self) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(4096);
        let mut buffer = vec![0; READ_BUFFER];
        self.clock = Instant::now();
        while self.advance()? {
            let mut pause = self.send_what_is_due()?;
            if let Some(next) = self.slow.read(self.clock.elapsed())? {
                pause = pause.min(next);
            }
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                if event.is_writable() {
                    self.flush(index)?;
                }
                if event.is_readable() {
                    self.receive(index, &mut buffer)?;
                }
            }
            if let Some(why) = self.refused.take() {
                return Err(BenchError::Refused(why));
            }
        }
        Ok(())
    }

    /// Goes on to the next phase when it is time; `false` at the end.
    fn advance(&mut self) -> Result<bool, BenchError> {
        let now = self.clock.elapsed();
        if self.phase == Phase::WarmUp && (self.load.messages.is_some() || now >= self.load.warm_up) {
            self.phase = Phase::Measuring;
            self.process.0 = self.sample()?;
            self.began = (self.clock.elapsed(), self.received);
        }
        if self.phase == Phase::Measuring {
            let over = match self.load.messages {
                Some(messages) => self.sent >= messages && self.is_drained(),
                None => now.saturating_sub(self.began.0) >= self.load.seconds,
            };
            if over {
                self.end_measurement()?;
            }
        }
        let waits = !self.is_drained();
        if self.phase == Phase::Draining && !waits {
            return Ok(false);
        }
        if waits && now.saturating_sub(self.heard) > self.load.patience {
            self.timed_out = true;
            if self.phase != Phase::Draining {
                self.end_measurement()?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn end_measurement(&mut self) -> Result<(), BenchError> {
        self.ended = (self.clock.elapsed(), self.received);
        self.process.1 = self.sample()?;
        self.phase = Phase::Draining;
        Ok(())
    }

    fn sample(&self) -> Result<Option<Sample>, BenchError> {
        self.load.pid.map(Sample::take).transpose()
    }

    fn is_drained(&self) -> bool {
        let acknowledges = self.wire.acknowledges(self.load.qos);
        self.streams
            .iter()
            .all(|stream| stream.books.under_way() == 0 && (!acknowledges || stream.unacknowledged == 0))
    }

    /// Sends, and says how long to wait for what comes in.
    fn send_what_is_due(&mut self) -> Result<Duration, BenchError> {
        let idle = Duration::from_millis(20);
        if self.phase == Phase::Draining {
            return Ok(idle);
        }
        let left = self.load.messages.map_or(u64::MAX, |messages| messages.saturating_sub(self.sent));
        let Some(rate) = self.load.rate else {
            self.fill_windows(left)?;
            return Ok(idle);
        };
        for _ in 0..left.min(OPEN_WINDOW.into()) {
            let (now, due) = (self.clock.elapsed(), Duration::from_secs_f64(self.sent as f64 / rate));
            if due > now {
                let ahead = due - now;
                return Ok(if ahead < SPIN { Duration::ZERO } else { (ahead - SPIN).min(idle) });
            }
            let stream = (self.sent % self.streams.len() as u64) as usize;
            if !self.may_send(stream) {
                break;
            }
            self.latest_send = self.latest_send.max(now - due);
            self.send(stream, due)?;
            self.flush(self.streams[stream].sender)?;
        }
        Ok(SPIN)
    }

    fn fill_windows(&mut self, mut left: u64) -> Result<(), BenchError> {
        for stream in 0..self.streams.len() {
            let now = self.clock.elapsed();
            let mut any = false;
            while left > 0 && self.may_send(stream) {
                self.send(stream, now)?;
                (any, left) = (true, left - 1);
            }
            if any {
                self.flush(self.streams[stream].sender)?;
            }
        }
        Ok(())
    }

    fn may_send(&self, stream: usize) -> bool {
        let stream = &self.streams[stream];
        stream.books.under_way() < self.window
            && stream.unacknowledged < stream.limit
            && self.connections[stream.sender].unsent.len() < MAX_UNSENT
    }

    fn send(&mut self, index: usize, due: Duration) -> Result<(), BenchError> {
        let stream = &mut self.streams[index];
        let number = stream.books.next();
        let message = stream.sends.get(number as usize % stream.sends.len().max(1));
        let message = message.ok_or_else(|| BenchError::Usage("a stream sends nothing".to_owned()))?;
        let stamp = Stamp { stream: index as u32, number, due: due.as_nanos() as u64 };
        message.put(stamp, &mut self.connections[stream.sender].unsent);
        // Else the broker would seem silent for as long as the generator was.
        if stream.books.under_way() == 0 {
            self.heard = self.clock.elapsed();
        }
        stream.books.send(message.recipients);
        stream.unacknowledged += u64::from(self.wire.acknowledges(self.load.qos));
        self.sent += 1;
        Ok(())
    }

    fn flush(&mut self, index: usize) -> Result<(), BenchError> {
        let connection = &mut self.connections[index];
        let mut written = 0;
        while written < connection.unsent.len() {
            match connection.socket.write(&connection.unsent[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::Broker(format!("closed a connection: {error}"))),
            }
        }
        connection.unsent.drain(..written);
        Ok(())
    }

    /// Reads until the socket is empty.
    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> Result<(), BenchError> {
        loop {
            let connection = &mut self.connections[index];
            let kept = connection.input.len();
            if kept >= buffer.len() {
                return Err(BenchError::Broker("sent a packet too large for this".to_owned()));
            }
            buffer[..kept].copy_from_slice(&connection.input);
            let read = match connection.socket.read(&mut buffer[kept..]) {
                Ok(0) => return Err(BenchError::Broker("closed a connection".to_owned())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BenchError::Broker(format!("closed a connection: {error}"))),
            };
            connection.input.clear();
            self.handle(index, &buffer[..kept + read])?;
            if kept + read < buffer.len() {
                break;
            }
        }
        self.flush(index)
    }

    /// Counts what is whole in `bytes` and keeps the rest.
    fn handle(&mut self, index: usize, bytes: &[u8]) -> Result<(), BenchError> {
        let now = self.clock.elapsed();
        let Connection { role, input, unsent, .. } = &mut self.connections[index];
        let (streams, latency) = (&mut self.streams, &mut self.latency);
        let (refused, phase, began) = (&mut self.refused, self.phase, self.began.0);
        let mut received = 0;
        let taken = self.wire.walk(bytes, unsent, |event| match (event, &mut *role) {
            (Event::Message(payload), Role::Receiver { stream, next }) => {
                let Some(stamp) = Stamp::of(payload).filter(|stamp| stamp.stream as usize == *stream) else {
                    return;
                };
                let Stream { books, gaps_are_losses, .. } = &mut streams[*stream];
                let before = books.received;
                books.deliver(stamp.number, next, *gaps_are_losses);
                let is_new = books.received > before;
                received += u64::from(is_new);
                let due = Duration::from_nanos(stamp.due);
                if is_new && phase != Phase::WarmUp && due >= began {
                    latency.saturating_record(now.saturating_sub(due).as_micros() as u64);
                }
            }
            // A sender subscribes to nothing but what became of its signals.
            (Event::Message(answer), Role::Sender(_)) => {
                *refused = Some(String::from_utf8_lossy(answer).into_owned());
            }
            (Event::Acknowledged(messages), Role::Sender(stream)) => {
                let stream = &mut streams[*stream];
                stream.unacknowledged = stream.unacknowledged.saturating_sub(messages.into());
            }
            (Event::Refused(why), _) => *refused = Some(why),
            _ => {}
        })?;
        input.extend_from_slice(&bytes[taken..]);
        self.received += received;
        self.heard = now;
        Ok(())
    }

    fn outcome(self) -> Outcome {
        let sum = |of: fn(&Stream) -> u64| self.streams.iter().map(of).sum();
        Outcome {
            sent: sum(|stream| stream.books.sent),
            expected: sum(|stream| stream.books.expected),
            received: sum(|stream| stream.books.received),
            repeated: sum(|stream| stream.books.repeated),
            unacknowledged: sum(|stream| stream.unacknowledged),
            timed_out: self.timed_out,
            elapsed: self.ended.0.saturating_sub(self.began.0),
            deliveries: self.ended.1 - self.began.1,
            latency: self.latency,
            latest_send: self.latest_send,
            process: self.process.0.zip(self.process.1),
            kib_per_connection: None,
            bytes_per_subscription: None,
            slow: None,
        }
    }
}
