//! What the durable store takes by itself, without clients: messages a second, how long a commit lets them wait, what one
//! fdatasync costs on this disk, and how long a start takes with much in it. Everything is in a directory of its own and goes at the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bugle_core::model::{Identity, Message, Origin, QoS};
use bugle_core::store::{
    BatchNumber, MessageNumber, RecordKind, Sequence, StoreBatch, StoreEvent, StoreOperation, WallTime,
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::options::StoreOptions;
use super::{BenchError, say};
use crate::store::exchange::{Exchange, Mail};
use crate::store::settings::StoreSection;
use crate::store::{Database, StoreHandle, start};

/// Syncs that are measured.
const SYNCS: u32 = 200;
/// Messages of one batch: what a shard takes in at a wake-up.
const BATCH: u64 = 16;
/// What a queue's entry is about like.
const ENTRY: &str = r#"{"qos":1,"retain":false,"ids":[]}"#;
/// How long the store may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a message waits.
type Place = (Identity, Sequence);

/// What becomes of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// They stay: their clients are away.
    Kept,
    /// Each is dequeued when its commit is known: its client acknowledged it meanwhile.
    Delivered,
    /// Each is dequeued in the batch that brought it: its client was faster than the commit before.
    AcknowledgedAtOnce,
}

impl Course {
    const ALL: [Self; 3] = [Self::Kept, Self::Delivered, Self::AcknowledgedAtOnce];

    const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Delivered => "delivered after the commit",
            Self::AcknowledgedAtOnce => "acknowledged before it",
        }
    }
}

/// Runs the measurements.
pub fn run(options: &StoreOptions) -> Result<ExitCode, BenchError> {
    if options.dir.exists() {
        return Err(BenchError::Usage(format!(
            "{} is there already: name a new directory",
            options.dir.display()
        )));
    }
    std::fs::create_dir_all(&options.dir)?;
    let measured = measure(options);
    std::fs::remove_dir_all(&options.dir)?;
    let result = measured?;
    if options.json {
        say(&result.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &StoreOptions) -> Result<Value, BenchError> {
    let tell = |text: &str| {
        if !options.json {
            say(text)
        }
    };
    let syncs = syncs(&options.dir)?;
    let (median, slow) = (syncs.value_at_quantile(0.5), syncs.value_at_quantile(0.99));
    tell(&format!("one write of 4 KiB with fdatasync: p50 {median} us, p99 {slow} us"));
    let mut courses = Vec::new();
    for course in Course::ALL {
        let mut producer = Producer::open(options)?;
        let Measured { messages, took, waits, commits } = producer.run(course, options)?;
        producer.close()?;
        std::fs::remove_dir_all(options.dir.join("store"))?;
        let rate = messages as f64 / took.as_secs_f64();
        let each = messages as f64 / commits.max(1) as f64;
        let (p50, p99, max) = (waits.value_at_quantile(0.5), waits.value_at_quantile(0.99), waits.max());
        tell(&format!(
            "{}: {rate:.0} messages/s of {} bytes, {each:.0} a commit; committed after p50 {p50} us, p99 {p99} us, max {max} us",
            course.name(),
            options.payload,
        ));
        courses.push(json!({
            "course": course.name(), "messages_per_second": rate, "messages_per_commit": each,
            "wait_p50_us": p50, "wait_p99_us": p99, "wait_max_us": max,
        }));
    }
    let restart = restart(options)?;
    if let Some(Restart { opened, restored, bytes }) = &restart {
        tell(&format!(
            "start with {} sessions and {} queued messages, {} MiB: {:.2} s to open and check, {:.2} s to read",
            options.sessions,
            options.queued,
            bytes >> 20,
            opened.as_secs_f64(),
            restored.as_secs_f64(),
        ));
    }
    Ok(json!({
        "name": "store", "payload": options.payload, "fdatasync_p50_us": median, "fdatasync_p99_us": slow, "courses": courses,
        "restart": restart.map(|Restart { opened, restored, bytes }| json!({
            "sessions": options.sessions, "queued": options.queued, "bytes": bytes,
            "open_seconds": opened.as_secs_f64(), "read_seconds": restored.as_secs_f64(),
        })),
    }))
}

/// How long a write and a sync take, in microseconds, over a file that is as large as it gets already, as the log mostly is.
fn syncs(directory: &Path) -> Result<Histogram<u64>, BenchError> {
    let path = directory.join("syncs");
    let mut file = File::create(&path)?;
    let block = [7; 4096];
    for _ in 0..SYNCS {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut times = histogram();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.saturating_record(began.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

fn histogram() -> Histogram<u64> {
    // A minute in microseconds, to three digits: both are within what the type takes.
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that it takes")
}

/// A shard that has nothing but messages for the store.
struct Producer {
    runtime: Runtime,
    exchange: Arc<Exchange>,
    store: StoreHandle,
    payload: bytes::Bytes,
    clients: Vec<Identity>,
    batch: u64,
    message: u64,
    opened: Duration,
    restored: Duration,
}

/// A batch that isn't committed.
struct Waiting {
    batch: u64,
    since: Instant,
    places: Vec<Place>,
}

struct Measured {
    messages: u64,
    took: Duration,
    /// From when a message was put to when it was known to be committed, in microseconds.
    waits: Histogram<u64>,
    commits: u64,
}

impl Producer {
    fn open(options: &StoreOptions) -> Result<Self, BenchError> {
        let section = StoreSection { durability: options.durability, ..StoreSection::default() };
        let settings = section.checked(&options.dir.join("store")).map_err(BenchError::Usage)?;
        let refused = |error: &dyn std::fmt::Display| BenchError::Refused(error.to_string());
        let began = Instant::now();
        let database = Database::open(&settings).map_err(|error| refused(&error))?;
        let opened = began.elapsed();
        let (store, ends) = start(database, settings, 1, Box::new(|| WallTime(1)))?;
        let began = Instant::now();
        ends.into_iter().for_each(|end| end.take_all(drop));
        store.wait_restored().map_err(|error| refused(&error))?;
        Ok(Self {
            runtime: crate::serve::runtime()?,
            exchange: store.exchange(),
            store,
            payload: vec![b'.'; options.payload.into()].into(),
            clients: (0..options.clients).map(|number| Identity::new(&format!("client-{number}"))).collect(),
            batch: 0,
            message: 0,
            opened,
            restored: began.elapsed(),
        })
    }

    fn put(&mut self, operations: Vec<StoreOperation>) {
        self.batch += 1;
        let bytes = operations.len() * (64 + self.payload.len() / 2);
        self.exchange.put(0, StoreBatch { number: BatchNumber(self.batch), operations, bytes });
    }

    /// Batches up to the one returned are committed.
    fn wait(&self) -> Result<u64, BenchError> {
        let arrived = async { tokio::time::timeout(PATIENCE, self.exchange.mail_arrived(0)).await };
        self.runtime
            .block_on(arrived)
            .map_err(|_| BenchError::Broker("has a store that doesn't answer".to_owned()))?;
        let mut committed = 0;
        for mail in self.exchange.mail(0) {
            match mail {
                Mail::Event(StoreEvent::Committed(number)) => committed = number.0,
                Mail::Event(StoreEvent::Unavailable(why)) => {
                    return Err(BenchError::Refused(why.to_string()));
                }
                Mail::Event(_) | Mail::Room => {}
            }
        }
        Ok(committed)
    }

    /// Another message for one of the clients, and where it is.
    fn message(&mut self, operations: &mut Vec<StoreOperation>) -> Place {
        self.message += 1;
        let client = self.clients[(self.message % self.clients.len() as u64) as usize].clone();
        let message = Arc::new(Message {
            origin: Origin::Topic {
                topic: "bench/store".into(),
                publisher: Identity::new("app"),
                retain: false,
            },
            payload: self.payload.clone(),
            properties: bytes::Bytes::new(),
            qos: QoS::AtLeastOnce,
            deadline: None,
            urgent: false,
        });
        let (number, sequence) = (MessageNumber::new(self.message, 0), Sequence(self.message));
        operations.push(StoreOperation::PutMessage { number, message, expires: None });
        let entry = ENTRY.to_owned();
        operations.push(StoreOperation::Enqueue { client: client.clone(), sequence, message: number, entry });
        (client, sequence)
    }

    /// Puts messages for as long as `options` say, so many of them waiting for their commit at any time.
    fn run(&mut self, course: Course, options: &StoreOptions) -> Result<Measured, BenchError> {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut done: Vec<Place> = Vec::new();
        let (mut waits, mut messages, mut commits) = (histogram(), 0, 0);
        let began = Instant::now();
        loop {
            let goes_on = began.elapsed() < options.seconds;
            while goes_on && (waiting.len() as u64) * BATCH < options.window.into() {
                let mut operations = Vec::with_capacity(3 * BATCH as usize);
                let places: Vec<_> = (0..BATCH).map(|_| self.message(&mut operations)).collect();
                let gone = match course {
                    Course::Kept => Vec::new(),
                    Course::Delivered => std::mem::take(&mut done),
                    Course::AcknowledgedAtOnce => places.clone(),
                };
                let dequeue = |(client, sequence)| StoreOperation::Dequeue { client, sequence };
                operations.extend(gone.into_iter().map(dequeue));
                self.put(operations);
                waiting.push_back(Waiting { batch: self.batch, since: Instant::now(), places });
            }
            if waiting.is_empty() {
                break;
            }
            let committed = self.wait()?;
            commits += u64::from(committed > 0);
            while let Some(Waiting { since, places, .. }) =
                waiting.pop_front_if(|first| first.batch <= committed)
            {
                waits.saturating_record(since.elapsed().as_micros() as u64);
                messages += BATCH;
                done.extend(places);
            }
        }
        Ok(Measured { messages, took: began.elapsed(), waits, commits })
    }

    fn close(self) -> Result<(), BenchError> {
        match self.store.stop(PATIENCE) {
            true => Ok(()),
            false => Err(BenchError::Broker("has a store that didn't keep everything".to_owned())),
        }
    }
}

struct Restart {
    opened: Duration,
    restored: Duration,
    bytes: u64,
}

/// How long a start takes with what `options` say in the store.
fn restart(options: &StoreOptions) -> Result<Option<Restart>, BenchError> {
    if options.sessions == 0 {
        return Ok(None);
    }
    let clients = StoreOptions { clients: options.sessions, ..options.clone() };
    let mut producer = Producer::open(&clients)?;
    let owners: Vec<Arc<str>> = producer.clients.iter().map(|client| client.as_str().into()).collect();
    for some in owners.chunks(1000) {
        let record = |owner: &Arc<str>, kind, key: &str| StoreOperation::PutRecord {
            kind,
            owner: owner.clone(),
            key: key.into(),
            value: r#"{"expiry":3600,"protocol":"mqtt5"}"#.to_owned(),
            expires: None,
        };
        let both = some.iter().flat_map(|owner| {
            [record(owner, RecordKind::Session, ""), record(owner, RecordKind::Subscription, "bench/#")]
        });
        producer.put(both.collect());
    }
    let mut left = options.queued;
    while left > 0 {
        let mut operations = Vec::new();
        for _ in 0..left.min(2000) {
            producer.message(&mut operations);
        }
        left -= left.min(2000);
        producer.put(operations);
        // What waits stays small.
        while producer.exchange.waiting().0 > 8 {
            producer.wait()?;
        }
    }
    producer.close()?;
    let producer = Producer::open(&clients)?;
    let (opened, restored) = (producer.opened, producer.restored);
    producer.close()?;
    let bytes = std::fs::metadata(options.dir.join("store").join(crate::store::settings::DATABASE))?.len();
    Ok(Some(Restart { opened, restored, bytes }))
}
