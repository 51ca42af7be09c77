//! What a retained message costs: the growth of the broker's memory over many of them, each on a topic of its own; and
//! how fast a new subscriber gets them all. They are taken back at the end.

use std::num::NonZeroU16;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::open::{Client, Dialogue};
use super::options::RetainedOptions;
use super::plan::Subscription;
use super::process::Sample;
use super::report::per_second;
use super::wire::{Event, Wire};
use super::{BenchError, say};

/// Messages before the first look, so that what a broker allocates only once isn't counted.
const FIRST: u32 = 16;
/// Messages sent before their acknowledgements are waited for: within what a gateway lets a device send, and other
/// brokers keep in flight.
const AT_ONCE: u32 = 16;

/// Runs the measurement.
pub fn run(options: &RetainedOptions) -> Result<ExitCode, BenchError> {
    let name = format!("b{}-retained", std::process::id());
    let (mut publisher, ..) = Client::new(options.target, &format!("{name}-s")).open_dialogue()?;
    let mut publish = |from: u32, to: u32, payload: &[u8]| {
        put(&mut publisher, Wire(options.target.protocol), &name, from..to, payload)
    };
    let payload = vec![b'.'; options.payload.into()];
    let all = FIRST + options.messages;
    publish(0, FIRST, &payload)?;
    sleep(options.settle);
    let before = Sample::take(options.pid)?;
    let began = Instant::now();
    publish(FIRST, all, &payload)?;
    let published = began.elapsed();
    sleep(options.settle);
    let after = Sample::take(options.pid)?;
    let (came, replay) = replayed(options, &name, all)?;
    publish(0, all, &[])?;

    let bytes = after.kib_each(&before, options.messages.into()) * 1024.0;
    let rate = per_second(options.messages.into(), published).unwrap_or_default();
    let replay_rate = per_second(came.into(), replay).unwrap_or_default();
    if options.json {
        let result = json!({
            "name": "retained",
            "target": options.target.to_string(),
            "messages": options.messages,
            "payload": options.payload,
            "bytes_per_message": bytes,
            "rss_kib_before": before.rss_kib,
            "rss_kib_after": after.rss_kib,
            "published_per_second": rate,
            "expected": all,
            "replayed": came,
            "replayed_per_second": replay_rate,
        });
        say(&result.to_string());
    } else {
        say(&format!(
            "{} retained messages of {} bytes, {}: {bytes:.0} bytes each ({} KiB before, {} KiB after), published at \
             {rate:.0} a second; a new subscriber got {came} of {all}, {replay_rate:.0} a second",
            options.messages, options.payload, options.target, before.rss_kib, after.rss_kib
        ));
    }
    Ok(if came == all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Publishes these, and waits until all are acknowledged.
fn put(
    publisher: &mut Dialogue,
    wire: Wire,
    name: &str,
    numbers: std::ops::Range<u32>,
    payload: &[u8],
) -> Result<(), BenchError> {
    let mut bytes = Vec::new();
    let mut from = numbers.start;
    while from < numbers.end {
        let to = numbers.end.min(from + AT_ONCE);
        bytes.clear();
        for number in from..to {
            let packet_id = NonZeroU16::MIN.saturating_add((number % AT_ONCE) as u16);
            wire.retain(&topic(name, number), payload, packet_id, &mut bytes)?;
        }
        publisher
            .send(&bytes)
            .map_err(|error| BenchError::Broker(format!("closed a connection: {error}")))?;
        let mut lacking = to - from;
        publisher.wait(|event| {
            if let Event::Acknowledged(messages) = event {
                lacking = lacking.saturating_sub(messages);
            }
            lacking == 0
        })?;
        from = to;
    }
    Ok(())
}

/// How many a new subscriber gets, and in which time.
fn replayed(options: &RetainedOptions, name: &str, all: u32) -> Result<(u32, Duration), BenchError> {
    let (id, filter) = (format!("{name}-r"), Subscription::Topic(format!("{name}/#")));
    let (mut subscriber, ..) = Client::new(options.target, &id).open_dialogue()?;
    let began = Instant::now();
    let mut came = 0;
    for request in Wire(options.target.protocol).subscribe(&id, &filter, 0)? {
        subscriber
            .send(&request.bytes)
            .map_err(|error| BenchError::Broker(format!("closed a connection: {error}")))?;
    }
    let mut last = began;
    let waited = subscriber.wait(|event| {
        if matches!(event, Event::Message(_)) {
            came += 1;
            last = Instant::now();
        }
        came == all
    });
    // When fewer come than there are, the wait ends for want of more.
    match waited {
        Err(BenchError::Refused(why)) => Err(BenchError::Refused(why)),
        _ => Ok((came, last - began)),
    }
}

/// Ten to a room, a hundred rooms to a floor.
fn topic(name: &str, number: u32) -> String {
    format!("{name}/floor-{}/room-{}/thing-{number}/state", number / 1000, number / 10)
}
