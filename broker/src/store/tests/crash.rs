//! A process that writes all the time, killed with SIGKILL, or the power cut while it runs: what it had reported as committed is
//! there afterwards, each commit is there as a whole or not at all, and the file is sound.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bugle_core::store::{RecordKind, Restored};

use super::running::Running;
use super::{Place, dequeue, enqueue, place, put, record};
use crate::store::command::examine;
use crate::store::settings::{Durability, StoreSettings};

/// Where the process that writes has its store, and with what durability.
const DIRECTORY: &str = "BUGLE_TEST_STORE_DIRECTORY";
const DURABILITY: &str = "BUGLE_TEST_STORE_DURABILITY";
/// Messages that one batch brings.
const MESSAGES: u64 = 10;
/// After so many batches they are taken out again.
const KEPT_BATCHES: u64 = 10;

fn writer_settings(directory: &Path, durability: Durability) -> StoreSettings {
    let (cache_kib, pending_bytes) = (1024, 1 << 20);
    // Often copied to the database, so that it is hit in the middle of that too.
    StoreSettings {
        directory: directory.to_owned(),
        durability,
        cache_kib,
        pending_bytes,
        checkpoint_pages: 60,
    }
}

/// The number of the batch that a store holds, if what it holds is what some batch leaves behind, exactly.
fn batch_in(store: &Running) -> u64 {
    let places: Vec<u64> = store.restored[0]
        .iter()
        .filter_map(|restored| match restored {
            Restored::Queued { sequence, .. } => Some(sequence.0),
            _ => None,
        })
        .collect();
    let records: Vec<&str> = store.restored[0]
        .iter()
        .filter_map(|restored| match restored {
            Restored::Record { key, .. } => Some(&**key),
            _ => None,
        })
        .collect();
    let last = places.last().map_or(0, |place| place / MESSAGES);
    let first = last.saturating_sub(KEPT_BATCHES) * MESSAGES + 1;
    assert_eq!(places, (first..=last * MESSAGES).collect::<Vec<_>>(), "no batch leaves that behind");
    let expected = if last == 0 { Vec::new() } else { vec![last.to_string()] };
    assert_eq!(records, expected, "a record of another batch");
    last
}

/// Not a test, but the process that the tests kill: it reports each batch that is committed.
#[test]
#[ignore = "runs until it is killed"]
fn writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let durability = match std::env::var(DURABILITY).as_deref() {
        Ok("os") => Durability::Os,
        _ => Durability::Fsync,
    };
    let mut store = Running::open(&writer_settings(directory.as_ref(), durability), 1).unwrap();
    let first = batch_in(&store) + 1;
    let mut last = None;
    for batch in first.. {
        let text = format!("{batch}").repeat(300);
        let numbers = (batch - 1) * MESSAGES + 1..=batch * MESSAGES;
        let mut operations = Vec::new();
        for number in numbers {
            operations.extend([put(number, &text), enqueue("lamp", number, number)]);
            if let Some(old) = number.checked_sub(KEPT_BATCHES * MESSAGES).filter(|old| *old > 0) {
                operations.push(dequeue("lamp", old));
            }
        }
        let before = (batch - 1).to_string();
        operations.push(record(RecordKind::Receipt, "lamp", &batch.to_string()));
        operations.push(bugle_core::store::StoreOperation::RemoveRecord {
            kind: RecordKind::Receipt,
            owner: "lamp".into(),
            key: before.as_str().into(),
        });
        let number = store.put(0, operations);
        // Some commits have several batches.
        if !batch.is_multiple_of(3)
            && let Some((batch, number)) = last.replace((batch, number))
        {
            store.wait_committed(0, number);
            println!("committed {batch}");
        }
    }
}

fn start_writer(place: &Place, durability: &str, more: &[(&str, &Path)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, &place.directory)
        .env(DURABILITY, durability)
        .envs(more.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the writer report so often, kills it, and returns the last batch that it had reported.
fn kill_after(mut writer: Child, reports: usize) -> u64 {
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let number = |line: String| line.strip_prefix("committed ").map(|number| number.parse().unwrap());
    let first = lines.by_ref().filter_map(number).take(reports).last().expect("it reports something");
    writer.kill().unwrap();
    let last = lines.filter_map(number).last().unwrap_or(first);
    assert!(!writer.wait().unwrap().success(), "it was killed");
    last
}

#[test]
fn after_a_kill_all_that_was_reported_committed_is_there() {
    let place = place();
    for round in 0..12 {
        let reported = kill_after(start_writer(&place, "fsync", &[]), 1 + round * 17 % 60);
        let store = Running::open(&writer_settings(&place.directory, Durability::Fsync), 1).unwrap();
        let found = batch_in(&store);
        assert!(found >= reported, "round {round}: batch {reported} was reported, {found} is there");
        assert_eq!(store.store.health().trouble(), None);
        assert!(store.stop());
        let connection = rusqlite::Connection::open(place.database()).unwrap();
        assert_eq!(examine(&connection).unwrap().faults, [""; 0]);
    }
}

#[cfg(target_os = "linux")]
mod powercut {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// Something that was done to a file, not synced yet.
    #[derive(Clone, Debug)]
    enum Change {
        Write(u64, Vec<u8>),
        Truncate(u64),
    }

    #[derive(Clone, Debug, Default)]
    struct DiskFile {
        synced: Vec<u8>,
        since: Vec<Change>,
    }

    /// What a disk has for sure, and what it may have.
    #[derive(Clone, Debug, Default)]
    struct Disk {
        /// By name, as programs see them.
        files: BTreeMap<String, DiskFile>,
        /// Names that the directory has for sure.
        entries: BTreeMap<String, DiskFile>,
    }

    fn change(content: &mut Vec<u8>, change: &Change, random: &mut Random) {
        match change {
            Change::Write(offset, data) => {
                // A disk writes sectors, in any order.
                for (index, sector) in data.chunks(512).enumerate() {
                    let at = *offset as usize + index * 512;
                    if random.is_likely() {
                        content.resize(content.len().max(at + sector.len()), 0);
                        content[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            Change::Truncate(size) => content.resize(*size as usize, 0),
        }
    }

    impl DiskFile {
        fn sync(&mut self) {
            for change in std::mem::take(&mut self.since) {
                super::powercut::change(&mut self.synced, &change, &mut Random::Always);
            }
        }

        /// One of the contents that it may have.
        fn after_a_cut(&self, random: &mut Random) -> Vec<u8> {
            let mut content = self.synced.clone();
            for change in &self.since {
                if random.is_likely() {
                    super::powercut::change(&mut content, change, random);
                }
            }
            content
        }
    }

    /// Chances, from a seed that a failure prints.
    enum Random {
        Always,
        Seed(u64),
    }

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            let Self::Seed(state) = self else { return 0 };
            // SplitMix64.
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % bound
        }

        fn is_likely(&mut self) -> bool {
            matches!(self, Self::Always) || self.below(2) == 0
        }
    }

    /// What the writer did, in order.
    #[derive(Clone, Debug)]
    struct Deed {
        what: u8,
        name: String,
        offset: u64,
        data: Vec<u8>,
    }

    fn read_log(path: &Path) -> Vec<Deed> {
        let log = std::fs::read(path).unwrap();
        let mut rest = &log[..];
        let mut deeds = Vec::new();
        while let Some((head, after)) = rest.split_at_checked(17) {
            let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
            let (name, data) = (length(1), length(5));
            let offset = u64::from_le_bytes(head[9..17].try_into().unwrap());
            // The last one may have been cut off by the kill.
            let Some((body, after)) = after.split_at_checked(name + data) else { break };
            let name_text = String::from_utf8(body[..name].to_vec()).unwrap();
            deeds.push(Deed { what: head[0], name: name_text, offset, data: body[name..].to_vec() });
            rest = after;
        }
        deeds
    }

    impl Disk {
        fn apply(&mut self, deed: &Deed) {
            let name = &deed.name;
            match deed.what {
                b'W' | b'T' => {
                    let change = match deed.what {
                        b'W' => Change::Write(deed.offset, deed.data.clone()),
                        _ => Change::Truncate(deed.offset),
                    };
                    self.files.entry(name.clone()).or_default().since.push(change.clone());
                    if let Some(file) = self.entries.get_mut(name) {
                        file.since.push(change);
                    }
                }
                b'S' => {
                    for files in [&mut self.files, &mut self.entries] {
                        files.get_mut(name).into_iter().for_each(DiskFile::sync);
                    }
                }
                b'U' => drop(self.files.remove(name)),
                b'D' => self.entries = self.files.clone(),
                other => panic!("operation {other}"),
            }
        }

        /// One of the things that may be in the directory.
        fn after_a_cut(&self, directory: &Path, random: &mut Random) {
            let names =
                self.files.keys().chain(self.entries.keys()).collect::<std::collections::BTreeSet<_>>();
            for name in names {
                let file = match (self.entries.get(name), self.files.get(name)) {
                    // Made or removed since the directory was synced: both may be.
                    (None, Some(file)) | (Some(file), None) if random.is_likely() => file,
                    (Some(_), Some(file)) => file,
                    _ => continue,
                };
                std::fs::write(directory.join(name), file.after_a_cut(random)).unwrap();
            }
        }
    }

    /// A library of the shim, built beside the store.
    fn shim(directory: &Path) -> PathBuf {
        let (source, library) = (directory.join("powercut.c"), directory.join("powercut.so"));
        std::fs::write(&source, include_str!("powercut.c")).unwrap();
        let built =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(built.unwrap().success(), "cc, which SQLite was built with, builds this too");
        library
    }

    /// Runs the writer, then cuts the power at many moments of its run. How many cuts lost a batch that had been reported.
    fn cuts_that_lose(durability: &str, cuts: u64) -> u64 {
        let (place, aside) = (place(), place());
        // As the process sees it.
        let directory = place.directory.canonicalize().unwrap();
        let log = aside.directory.join("log");
        let library = shim(&aside.directory);
        let more: [(&str, &Path); 3] =
            [("LD_PRELOAD", &library), ("POWERCUT_DIRECTORY", &directory), ("POWERCUT_LOG", &log)];
        kill_after(start_writer(&place, durability, &more), 100);
        let deeds = read_log(&log);
        let syncs = deeds.iter().filter(|deed| deed.what == b'S' && deed.name == "bugle.sqlite3").count();
        assert!(syncs >= 3, "the log was copied to the database {syncs} times");
        let mut losses = 0;
        for seed in 0..cuts {
            let mut random = Random::Seed(seed);
            let cut = random.below(deeds.len() as u64) as usize;
            let (mut disk, mut reported) = (Disk::default(), 0);
            for deed in &deeds[..cut] {
                match (deed.what, std::str::from_utf8(&deed.data)) {
                    (b'P', Ok(line)) => {
                        let number =
                            line.trim().strip_prefix("committed ").map(|number| number.parse().unwrap());
                        reported = number.unwrap_or(reported);
                    }
                    (b'P', Err(_)) => {}
                    _ => disk.apply(deed),
                }
            }
            let after = super::place();
            disk.after_a_cut(&after.directory, &mut random);
            let settings = writer_settings(&after.directory, Durability::Fsync);
            let store = Running::open(&settings, 1).unwrap();
            assert_eq!(store.store.health().trouble(), None, "seed {seed}, cut at {cut}");
            losses += u64::from(batch_in(&store) < reported);
            assert!(store.stop());
        }
        losses
    }

    #[test]
    fn after_a_power_cut_all_that_was_reported_committed_is_there() {
        assert_eq!(cuts_that_lose("fsync", 150), 0);
    }

    #[test]
    fn without_syncs_a_power_cut_costs_the_last_commits_and_the_store_is_sound() {
        assert!(cuts_that_lose("os", 150) > 0, "cuts that would show a missing sync");
    }
}
