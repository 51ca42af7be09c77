//! Pairs of clients that command each other at a steady pace, on a thread of their own.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use super::crowd::{latencies, next_packet};
use crate::{connect_packet, publish_packet, subscribe_packet};

/// How many there are; each commands the next one.
pub const COUNT: usize = 20;
/// Between two commands of one.
const PACE: Duration = Duration::from_millis(50);
/// A command that hasn't come for so long never will.
const LOST: Duration = Duration::from_secs(10);

/// The bystanders.
pub struct Bystanders {
    seen: Arc<Mutex<Seen>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Seen {
    /// In microseconds.
    latency: Histogram<u64>,
    sent: u64,
    came: u64,
}

impl Bystanders {
    /// Connects them to the gateway on this port, and lets them begin.
    pub fn start(port: u16) -> Self {
        let seen = Arc::new(Mutex::new(Seen { latency: latencies(), sent: 0, came: 0 }));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let to_thread = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let started = Instant::now();
                let mut sockets = Vec::new();
                for number in 0..COUNT {
                    sockets.push(connect(port, number).await);
                }
                for (number, socket) in sockets.into_iter().enumerate() {
                    let (reader, writer) = socket.into_split();
                    tokio::spawn(receive(reader, started, to_thread.clone()));
                    tokio::spawn(command(writer, (number + 1) % COUNT, started, to_thread.clone()));
                }
                ready.send(()).unwrap();
                // Its sender is dropped at the end as well.
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self { seen, stop: Some(stop), thread: Some(thread) }
    }

    /// What comes from now on counts.
    pub fn begin(&mut self) {
        let mut seen = self.seen.lock().unwrap();
        let under_way = seen.sent - seen.came;
        seen.latency.reset();
        (seen.sent, seen.came) = (under_way, 0);
    }

    /// Latencies since it began, and how many commands haven't come that should have long since.
    pub fn end(&mut self) -> (Histogram<u64>, u64) {
        let started = Instant::now();
        let wanted = self.seen.lock().unwrap().sent;
        while self.seen.lock().unwrap().came < wanted && started.elapsed() < LOST {
            std::thread::sleep(Duration::from_millis(10));
        }
        let seen = self.seen.lock().unwrap();
        (seen.latency.clone(), wanted.saturating_sub(seen.came))
    }

    /// Ends them.
    pub fn stop(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn connect(port: u16, number: usize) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let id = format!("bystander-{number}");
    socket.write_all(&connect_packet(4, &id, 0)).await.unwrap();
    socket.write_all(&subscribe_packet(4, &format!("sig/c/{id}"), 0)).await.unwrap();
    // CONNACK and SUBACK.
    let mut answers = [0; 4 + 5];
    socket.read_exact(&mut answers).await.unwrap();
    socket
}

async fn command(
    mut writer: tokio::net::tcp::OwnedWriteHalf,
    to: usize,
    started: Instant,
    seen: Arc<Mutex<Seen>>,
) {
    let topic = format!("sig/c/bystander-{to}");
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        // The time at which it was due, so that what this thread is late by counts as well.
        let due = ticks.tick().await.into_std();
        let micros = due.duration_since(started).as_micros() as u64;
        seen.lock().unwrap().sent += 1;
        if writer.write_all(&publish_packet(4, &topic, &micros.to_be_bytes())).await.is_err() {
            return;
        }
    }
}

async fn receive(mut reader: tokio::net::tcp::OwnedReadHalf, started: Instant, seen: Arc<Mutex<Seen>>) {
    let mut bytes = Vec::new();
    while reader.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        let now = started.elapsed().as_micros() as u64;
        let mut seen = seen.lock().unwrap();
        let mut at = 0;
        while let Some((stamp, end)) = next_packet(&bytes[at..]) {
            at += end;
            if let Some(sent) = stamp {
                seen.came += 1;
                seen.latency.saturating_record(now.saturating_sub(sent));
            }
        }
        bytes.drain(..at);
    }
}
