//! What matching costs: ns for each publish, and bytes for each subscription, with 10 to 1,000,000 filters in the tree.
//!
//! ```text
//! cargo bench -p bugle-core --bench topic_tree [FILTERS ...]
//! ```
//!
//! Half of the filters are exact, a quarter have a `+`, a quarter end with `#`. Every publish matches two of them, however many
//! there are, so that what grows is the cost of the search alone: to few topics, which the processor's caches hold, and to topics
//! all over the tree, which they don't. It ends with 1 if the former grows by more than [`MOST_GROWTH`] from the smallest tree to
//! the largest; a scan would grow as the filters do. Memory is the growth of VmRSS (Linux), told for trees that are large enough.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bugle_core::hub::topic_tree::TopicTree;

/// Trees that are measured unless others are asked for.
const FILTERS: [usize; 4] = [10, 10_000, 100_000, 1_000_000];
/// Publishes to each tree.
const PUBLISHES: usize = 200_000;
/// Topics that they go through: few, and many that are spread over the whole tree.
const TOPICS: [usize; 2] = [50, 20_000];
/// How much dearer a publish to few topics may be in the largest tree.
const MOST_GROWTH: f64 = 10.0;
/// Below this, a tree doesn't show in the memory of the process.
const LARGE: usize = 10_000;

fn main() -> ExitCode {
    // cargo says `--bench`.
    let given = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let given: Vec<usize> = match given.map(|argument| argument.parse()).collect() {
        Ok(given) => given,
        Err(error) => {
            eprintln!("topic_tree: {error}; give numbers of filters, such as 10 1000000");
            return ExitCode::from(2);
        }
    };
    let sizes = if given.is_empty() { FILTERS.to_vec() } else { given };
    let [few, many] = TOPICS;
    println!(
        "| filters | ns a publish, to {few} topics | to {many} topics | matches | ns an insertion | bytes a subscription |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let measured: Vec<_> = sizes.iter().map(|&filters| measure(filters.max(4))).collect();
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else { return ExitCode::FAILURE };
    let growth = last / first;
    println!(
        "\nA publish to {few} topics costs {growth:.1} times as much in the largest tree as in the smallest."
    );
    if growth > MOST_GROWTH { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints a line and gives the nanoseconds of a publish to few topics.
fn measure(filters: usize) -> f64 {
    let all: Vec<_> = (0..filters).map(filter).collect();
    let before = resident();
    let began = Instant::now();
    let mut tree = TopicTree::default();
    for (key, filter) in all.iter().enumerate() {
        tree.insert(filter, key, 0u8);
    }
    let insertion = nanoseconds(began.elapsed(), filters);
    let grown = resident().zip(before).map(|(after, before)| after.saturating_sub(before));
    let bytes =
        grown.filter(|_| filters >= LARGE).map_or("-".to_owned(), |bytes| (bytes / filters).to_string());

    let mut matches = 0;
    let publishes = TOPICS.map(|count| {
        let topics: Vec<_> = (0..count).map(|number| topic(number, filters)).collect();
        let mut publish = |count: usize| {
            for topic in topics.iter().cycle().take(count) {
                tree.for_each_match(black_box(topic), &mut |key, _| {
                    black_box(key);
                    matches += 1;
                });
            }
        };
        publish(count);
        let began = Instant::now();
        publish(PUBLISHES);
        nanoseconds(began.elapsed(), PUBLISHES)
    });
    let [few, many] = publishes;
    let each = f64::from(matches) / (TOPICS.iter().sum::<usize>() + TOPICS.len() * PUBLISHES) as f64;
    println!("| {filters} | {few:.0} | {many:.0} | {each:.1} | {insertion:.0} | {bytes} |");
    few
}

/// Four filters for each thing, a hundred things for each floor: two exact, one with `+`, one with `#`.
fn filter(number: usize) -> String {
    let thing = number / 4;
    let floor = thing / 100;
    match number % 4 {
        0 => format!("site/floor-{floor}/thing-{thing}/state"),
        1 => format!("site/floor-{floor}/thing-{thing}/set"),
        2 => format!("site/floor-{floor}/+/alarm-{thing}"),
        _ => format!("site/floor-{floor}/thing-{thing}/#"),
    }
}

/// A topic that two of the filters match, of a thing that has all four.
fn topic(number: usize, filters: usize) -> String {
    // An odd stride, so that topics that follow each other aren't neighbours.
    let thing = number.wrapping_mul(7_919) % (filters / 4);
    let floor = thing / 100;
    match number % 3 {
        0 => format!("site/floor-{floor}/thing-{thing}/state"),
        1 => format!("site/floor-{floor}/thing-{thing}/set"),
        _ => format!("site/floor-{floor}/thing-{thing}/alarm-{thing}"),
    }
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// Bytes of memory in use.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<usize>().ok()? * 1024)
}
