//! Many clients in one group, of whom some read nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use crate::{connect_packet, publish_packet, subscribe_packet};

/// What waits unread in a reader's buffer at most, in bytes.
const READ_BUFFER: usize = 16 * 1024;

/// What the crowd got.
pub struct Shared {
    /// Of those who read, in microseconds.
    pub latency: Mutex<Histogram<u64>>,
    /// Sends by all.
    pub sent: AtomicU64,
    /// Deliveries to those who read.
    pub delivered: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self { latency: Mutex::new(latencies()), sent: AtomicU64::new(0), delivered: AtomicU64::new(0) }
    }
}

/// The crowd. Its connections end with it.
pub struct Crowd {
    port: u16,
    count: usize,
    slow: usize,
    shared: Arc<Shared>,
    started: Instant,
    writers: Vec<OwnedWriteHalf>,
    /// Those that don't read hold on to their sockets.
    unread: Vec<OwnedReadHalf>,
    readers: Vec<tokio::task::AbortHandle>,
}

impl Crowd {
    /// Of `count` clients, of which so many of a hundred don't read.
    pub fn new(port: u16, count: usize, slow_percent: usize, shared: Arc<Shared>) -> Self {
        Self {
            port,
            count,
            slow: count * slow_percent / 100,
            shared,
            started: Instant::now(),
            writers: Vec::new(),
            unread: Vec::new(),
            readers: Vec::new(),
        }
    }

    /// All connect at once, and are in the group when this ends.
    pub async fn come_in(&mut self) {
        let mut coming = JoinSet::new();
        for number in 0..self.count {
            coming.spawn_local(come_in(self.port, number));
        }
        while let Some(client) = coming.join_next().await {
            let (number, socket) = client.unwrap();
            let (reader, writer) = socket.into_split();
            self.writers.push(writer);
            if number < self.slow {
                self.unread.push(reader);
            } else {
                let reading = spawn_local(read(reader, self.started, self.shared.clone()));
                self.readers.push(reading.abort_handle());
            }
        }
    }

    /// One after the other sends to all.
    pub async fn send_at(&mut self, rate: u32, time: Duration) {
        let began = Instant::now();
        let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in (0..self.writers.len()).cycle() {
            ticks.tick().await;
            if began.elapsed() >= time {
                break;
            }
            self.send(number).await;
        }
        // What is under way comes in still.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Everyone sends to all, at once.
    pub async fn send_all(&mut self) {
        for number in 0..self.writers.len() {
            self.send(number).await;
        }
    }

    async fn send(&mut self, number: usize) {
        let micros = self.started.elapsed().as_micros() as u64;
        let packet = publish_packet(4, "sig/g/crowd", &micros.to_be_bytes());
        // One whose sends the gateway doesn't read has something to wait for; nobody waits for it.
        let writing = self.writers[number].write_all(&packet);
        if tokio::time::timeout(Duration::from_millis(100), writing).await.is_ok_and(|sent| sent.is_ok()) {
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.readers.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

async fn come_in(port: u16, number: usize) -> (usize, TcpStream) {
    let mut socket = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(socket) => break socket,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    socket.set_nodelay(true).unwrap();
    let connect = connect_packet(4, &format!("crowd-{number}"), 0);
    let subscribe = subscribe_packet(4, "sig/g/crowd", 0);
    socket.write_all(&[connect, subscribe].concat()).await.unwrap();
    let mut answers = [0; 4 + 5];
    socket.read_exact(&mut answers).await.unwrap();
    (number, socket)
}

async fn read(mut reader: OwnedReadHalf, started: Instant, shared: Arc<Shared>) {
    let mut bytes = Vec::with_capacity(256);
    while reader.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        let now = started.elapsed().as_micros() as u64;
        let mut latency = shared.latency.lock().unwrap();
        let (mut at, mut count) = (0, 0);
        while let Some((stamp, end)) = next_packet(&bytes[at..]) {
            at += end;
            if let Some(sent) = stamp {
                count += 1;
                latency.saturating_record(now.saturating_sub(sent));
            }
        }
        drop(latency);
        shared.delivered.fetch_add(count, Ordering::Relaxed);
        bytes.drain(..at);
        if bytes.capacity() > READ_BUFFER {
            bytes.shrink_to(READ_BUFFER);
        }
    }
}

/// Of microseconds, up to ten minutes.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).unwrap()
}

/// The time in the next packet, if it is a message with one, and where it ends.
pub fn next_packet(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    // All that comes is shorter than 128 bytes.
    let (&first, &length) = (bytes.first()?, bytes.get(1)?);
    let end = 2 + usize::from(length);
    let packet = bytes.get(..end)?;
    let stamp = packet.last_chunk::<8>().filter(|_| first >> 4 == 3);
    Some((stamp.map(|stamp| u64::from_be_bytes(*stamp)), end))
}
