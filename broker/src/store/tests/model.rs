//! Random batches, commits and failed commits, held against a model that keeps everything in plain maps: what folding and two places to
//! read from must never show.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use bugle_core::backbone::RetainedVersion;
use bugle_core::model::Identity;
use bugle_core::store::{MessageNumber, RecordKind, Sequence, Stage, StoreOperation};

use super::{ALL, Store, dequeue, message, put};
use crate::store::apply::apply;
use crate::store::command::examine;
use crate::store::fetch::{Window, fetch};

const CLIENTS: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["t", "u"];
const KINDS: [RecordKind; 3] = [RecordKind::Session, RecordKind::Subscription, RecordKind::Moderation];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    message: u64,
    entry: String,
    stage: Stage,
}

#[derive(Default)]
struct Model {
    records: BTreeMap<(RecordKind, &'static str, String), String>,
    queues: BTreeMap<&'static str, BTreeMap<u64, Place>>,
    retained: BTreeMap<&'static str, (u64, Option<String>)>,
    next_message: u64,
    next_place: u64,
    next_version: u64,
}

impl Model {
    fn queue(&mut self, client: &'static str) -> &mut BTreeMap<u64, Place> {
        self.queues.entry(client).or_default()
    }

    fn enqueue(&mut self, client: &'static str, message: u64) -> StoreOperation {
        self.next_place += 1;
        let (sequence, entry) = (self.next_place, format!("{{\"place\":{}}}", self.next_place));
        self.queue(client).insert(sequence, Place { message, entry: entry.clone(), stage: Stage::default() });
        let (client, message) = (Identity::new(client), MessageNumber(message));
        StoreOperation::Enqueue { client, sequence: Sequence(sequence), message, entry }
    }

    /// A place of a client; one that isn't there, sometimes.
    fn place(&mut self, client: &'static str, random: &mut Random) -> u64 {
        let places: Vec<u64> = self.queue(client).keys().copied().collect();
        match random.below(8) {
            0 => random.below(self.next_place as usize + 1) as u64,
            _ if places.is_empty() => 1,
            _ => random.one(&places),
        }
    }

    /// Something that a hub might do, as operations.
    fn step(&mut self, random: &mut Random) -> Vec<StoreOperation> {
        let client = random.one(&CLIENTS);
        match random.below(9) {
            0 | 1 => {
                self.next_message += 1;
                let number = self.next_message;
                let mut operations = vec![put(number, &format!("m{number}"))];
                for client in CLIENTS {
                    if random.below(2) == 0 {
                        operations.push(self.enqueue(client, number));
                    }
                }
                operations
            }
            // Another wants a message that someone waits for.
            2 => {
                let waiting: Vec<u64> =
                    self.queues.values().flat_map(BTreeMap::values).map(|place| place.message).collect();
                let message = (!waiting.is_empty()).then(|| random.one(&waiting));
                message.map(|message| self.enqueue(client, message)).into_iter().collect()
            }
            3 | 4 => {
                let sequence = self.place(client, random);
                self.queue(client).remove(&sequence);
                vec![dequeue(client, sequence)]
            }
            5 => {
                let sequence = self.place(client, random);
                let packet_id = NonZeroU16::new(random.below(3) as u16);
                let stage = Stage { packet_id, released: random.below(2) == 0 };
                if let Some(place) = self.queue(client).get_mut(&sequence) {
                    place.stage = stage;
                }
                vec![StoreOperation::SetStage {
                    client: Identity::new(client),
                    sequence: Sequence(sequence),
                    stage,
                }]
            }
            6 => {
                let (kind, key) = (random.one(&KINDS), random.below(2).to_string());
                let owner = client.into();
                if random.below(3) == 0 {
                    self.records.remove(&(kind, client, key.clone()));
                    return vec![StoreOperation::RemoveRecord { kind, owner, key: key.as_str().into() }];
                }
                let value = random.below(100).to_string();
                self.records.insert((kind, client, key.clone()), value.clone());
                vec![StoreOperation::PutRecord {
                    kind,
                    owner,
                    key: key.as_str().into(),
                    value,
                    expires: None,
                }]
            }
            7 => {
                self.records.retain(|(kind, owner, _), _| *owner != client || !kind.ends_with_session());
                vec![StoreOperation::EndSession { client: Identity::new(client) }]
            }
            _ => {
                let topic = random.one(&TOPICS);
                // Some come late.
                let number = (self.next_version + 2).saturating_sub(random.below(4) as u64);
                self.next_version = self.next_version.max(number);
                let version = RetainedVersion { number, shard: 0 };
                let text = (random.below(3) > 0).then(|| format!("r{number}-{}", random.below(100)));
                let known = self.retained.entry(topic).or_insert((0, None));
                if number >= known.0 {
                    *known = (number, text.clone());
                }
                vec![match text {
                    Some(text) => StoreOperation::PutRetained {
                        topic: topic.into(),
                        version,
                        message: message(&text),
                        expires: None,
                    },
                    None => StoreOperation::RemoveRetained { topic: topic.into(), version },
                }]
            }
        }
    }
}

impl Store {
    fn holds(&mut self, model: &Model, random: &mut Random) {
        for client in CLIENTS {
            let window = Window {
                after: Sequence(random.below(model.next_place as usize + 1) as u64),
                messages: 1 + random.below(4),
                bytes: ALL.bytes,
            };
            for window in [ALL, window] {
                let client_id = Identity::new(client);
                let found = fetch(&self.connection, &self.pending, &mut self.clients, &client_id, window);
                let (messages, more) = found.unwrap();
                let told: Vec<(u64, Place)> = messages
                    .into_iter()
                    .map(|queued| {
                        assert_eq!(queued.message.payload, format!("m{}", queued.number.0));
                        let message = queued.number.0;
                        (queued.sequence.0, Place { message, entry: queued.entry, stage: queued.stage })
                    })
                    .collect();
                let queue = model.queues.get(client).cloned().unwrap_or_default();
                let mut all = queue.into_iter().filter(|(place, _)| *place > window.after.0);
                let expected: Vec<_> = all.by_ref().take(window.messages).collect();
                assert_eq!((told, more), (expected, all.next().is_some()), "{client} {window:?}");
            }
        }
    }

    fn has_written(&self, model: &Model) {
        assert_eq!(examine(&self.connection).unwrap().faults, [""; 0]);
        let mut statement =
            self.connection.prepare("SELECT kind || ' ' || owner || ' ' || key, value FROM record").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let records: BTreeMap<String, String> = rows.map(Result::unwrap).collect();
        let expected = model.records.iter();
        let expected = expected
            .map(|((kind, owner, key), value)| (format!("{} {owner} {key}", kind.as_str()), value.clone()));
        assert_eq!(records, expected.collect());
        let mut statement =
            self.connection.prepare("SELECT topic, CAST(payload AS TEXT) FROM retained").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let retained: BTreeMap<String, String> = rows.map(Result::unwrap).collect();
        let expected = model.retained.iter();
        let expected = expected.filter_map(|(topic, (_, text))| Some(((*topic).to_owned(), text.clone()?)));
        assert_eq!(retained, expected.collect());
    }
}

#[test]
fn whatever_is_done_reads_as_if_nothing_were_folded() {
    for seed in 0..150 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (mut store, mut model) = (Store::new(), Model::default());
        store.connection.pragma_update(None, "synchronous", "OFF").unwrap();
        for _ in 0..40 {
            let operations: Vec<_> = (0..1 + random.below(6)).flat_map(|_| model.step(&mut random)).collect();
            store.fold(operations);
            if random.below(2) == 0 {
                store.holds(&model, &mut random);
            }
            match random.below(4) {
                0 => {
                    store.commit();
                    store.has_written(&model);
                }
                // The disk is full.
                1 => {
                    let transaction = store.connection.transaction().unwrap();
                    apply(&transaction, &store.pending, &mut store.clients).unwrap();
                    transaction.rollback().unwrap();
                    store.clients.clear();
                    store.holds(&model, &mut random);
                }
                _ => {}
            }
        }
        store.fold([]);
        store.commit();
        store.has_written(&model);
        store.holds(&model, &mut random);
    }
}
