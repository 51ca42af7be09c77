//! The store's thread: commits, answers, what is given at the start, and what it does when it can't write.

use bugle_core::hub::owner;
use bugle_core::model::Identity;
use bugle_core::store::{RecordKind, Restored, Sequence, StoreEvent, StoreOperation, WallTime};
use rusqlite::Connection;

use super::running::Running;
use super::{dequeue, enqueue, message, place, put, record, written};
use crate::store::command::examine;
use crate::store::open::{Database, OpenError};

fn fetch(client: &str) -> StoreOperation {
    StoreOperation::Fetch {
        client: Identity::new(client),
        after: Sequence::NONE,
        messages: 100,
        bytes: 1 << 20,
    }
}

fn places(event: StoreEvent) -> Vec<u64> {
    let StoreEvent::Fetched { messages, .. } = event else { panic!("{event:?}") };
    messages.iter().map(|message| message.sequence.0).collect()
}

fn is_fetched(event: &StoreEvent) -> bool {
    matches!(event, StoreEvent::Fetched { .. })
}

/// What a client of `store` has in its queue.
fn queue(store: &mut Running, client: &str) -> Vec<u64> {
    store.put(0, [fetch(client)]);
    places(store.wait(0, is_fetched))
}

#[test]
fn what_is_reported_committed_is_in_the_file() {
    let place = place();
    let mut store = Running::open(&place, 2).unwrap();
    store.keep(0, [put(1, "on"), enqueue("a", 1, 1)]);
    store.keep(1, [record(RecordKind::Session, "b", "")]);
    let other = Connection::open(place.database()).unwrap();
    let count = |table: &str| -> i64 {
        other.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("message"), count("queue"), count("record")), (1, 1, 1));
    assert!(store.stop());
}

#[test]
fn an_answer_is_as_of_its_place_among_the_operations() {
    let place = place();
    let mut store = Running::open(&place, 1).unwrap();
    store.keep(0, [put(1, "one"), enqueue("a", 1, 1)]);
    store.put(
        0,
        [put(2, "two"), enqueue("a", 2, 2), fetch("a"), dequeue("a", 1), fetch("a"), fetch("nobody")],
    );
    assert_eq!(places(store.wait(0, is_fetched)), [1, 2]);
    assert_eq!(places(store.wait(0, is_fetched)), [2]);
    assert_eq!(places(store.wait(0, is_fetched)), [0; 0]);
}

#[test]
fn what_was_put_before_the_stop_is_kept() {
    let place = place();
    let mut store = Running::open(&place, 1).unwrap();
    for number in 1..=500 {
        store.put(0, [put(number, "x"), enqueue("a", number, number)]);
    }
    assert!(store.stop());
    let mut store = Running::open(&place, 1).unwrap();
    store.put(
        0,
        [StoreOperation::Fetch {
            client: Identity::new("a"),
            after: Sequence(400),
            messages: 1000,
            bytes: 1 << 20,
        }],
    );
    assert_eq!(places(store.wait(0, is_fetched)), (401..=500).collect::<Vec<_>>());
}

#[test]
fn each_shard_is_given_what_is_its_own_and_all_that_is_retained() {
    let place = place();
    let mut store = Running::open(&place, 1).unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("lamp-{number}")).collect();
    let mut operations = vec![put(1024 * 7 + 3, "kept")];
    for name in &names {
        operations.push(record(RecordKind::Subscription, name, "t/#"));
        operations.push(record(RecordKind::Session, name, ""));
        operations.extend((1..=3).map(|place| enqueue(name, place, 1024 * 7 + 3)));
        operations.push(written(name, 2, 9));
    }
    let expired = WallTime(999_999);
    operations.push(StoreOperation::PutRecord {
        kind: RecordKind::MessageId,
        owner: "app".into(),
        key: "id-1".into(),
        value: "{}".to_owned(),
        expires: Some(expired),
    });
    let version = bugle_core::backbone::RetainedVersion { number: 4, shard: 2 };
    let topic = || "t".into();
    operations.push(StoreOperation::PutRetained {
        topic: topic(),
        version,
        message: message("r"),
        expires: None,
    });
    store.keep(0, operations);
    assert!(store.stop());

    let shards = 3;
    let store = Running::open(&place, shards).unwrap();
    let mut seen = 0;
    for (shard, restored) in store.restored.iter().enumerate() {
        let mine = |client: &str| assert_eq!(usize::from(owner(client, shards)), shard, "{client}");
        let (mut sessions, mut subscriptions, mut retained) = (0, 0, 0);
        let mut places = Vec::new();
        for one in restored {
            match one {
                Restored::Record { kind, owner, value, .. } => {
                    mine(owner);
                    assert_eq!(value, "{}");
                    match kind {
                        RecordKind::Session => sessions += 1,
                        RecordKind::Subscription => subscriptions += 1,
                        other => panic!("{other:?} has expired"),
                    }
                    assert!(
                        places.is_empty() && *kind == RecordKind::Session || subscriptions > 0,
                        "sessions are first"
                    );
                }
                Restored::Queued { client, sequence, bytes, entry, .. } => {
                    mine(client.as_str());
                    assert_eq!((*bytes, entry.as_str()), (4, "{}"));
                    places.push((client.clone(), sequence.0));
                }
                Restored::InFlight { client, message } => {
                    mine(client.as_str());
                    assert_eq!(message.stage.packet_id.map(|id| id.get()), Some(9));
                    assert_eq!(&message.message.payload[..], b"kept");
                    places.push((client.clone(), message.sequence.0));
                }
                Restored::Retained { message, version, .. } => {
                    assert_eq!((&message.payload[..], version.number, version.shard), (&b"r"[..], 4, 2));
                    retained += 1;
                }
                Restored::End { next_message } => assert_eq!(*next_message, 8),
            }
        }
        assert!(matches!(restored.last(), Some(Restored::End { .. })));
        assert_eq!((sessions, retained), (subscriptions, 1));
        assert_eq!(places.len(), 3 * sessions);
        assert!(places.chunks(3).all(|three| three.iter().map(|(_, place)| *place).eq(1..=3)), "in order");
        seen += sessions;
    }
    assert_eq!(seen, names.len());
}

#[test]
fn while_another_program_has_locked_the_file_nothing_is_reported_and_nothing_is_lost() {
    let place = place();
    let mut store = Running::open(&place, 2).unwrap();
    store.keep(0, [put(1, "one"), enqueue("a", 1, 1)]);
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let number = store.put(0, [put(2, "two"), enqueue("a", 2, 2)]);
    for shard in [0, 1] {
        let event = store.wait(shard, |event| !matches!(event, StoreEvent::Committed(_)));
        let StoreEvent::Unavailable(reason) = event else { panic!("{event:?}") };
        assert!(reason.contains("another program has locked the store"), "{reason}");
    }
    assert_eq!(store.store.health().trouble().unwrap().state, "unavailable");
    // Reads go on, and know what waits.
    assert_eq!(queue(&mut store, "a"), [1, 2]);
    store.put(0, [dequeue("a", 1)]);
    other.execute_batch("ROLLBACK").unwrap();
    store.wait(1, |event| matches!(event, StoreEvent::Available));
    store.wait_committed(0, number);
    assert_eq!(store.store.health().trouble(), None);
    assert_eq!(queue(&mut store, "a"), [2]);
    assert!(store.stop());
}

#[test]
fn a_full_disk_ends_when_there_is_room_without_a_restart() {
    let place = place();
    let database = Database::open(&place).unwrap();
    let pages: i64 = database.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    database.connection.pragma_update(None, "max_page_count", pages + 8).unwrap();
    let mut store = Running::over(database, &place, 1);
    store.keep(0, [put(1, "kept"), enqueue("a", 1, 1)]);
    let large = "x".repeat(100_000);
    let number = store.put(0, [put(2, &large), enqueue("a", 2, 2), record(RecordKind::Session, "a", "")]);
    let event = store.wait(0, |event| matches!(event, StoreEvent::Unavailable(_)));
    let StoreEvent::Unavailable(reason) = event else { unreachable!() };
    assert!(reason.contains("the disk is full; make room on it"), "{reason}");
    assert_eq!(queue(&mut store, "a"), [1, 2]);
    // What was too much goes before it was ever written.
    store.put(0, [dequeue("a", 2)]);
    store.wait(0, |event| matches!(event, StoreEvent::Available));
    store.wait_committed(0, number);
    assert_eq!(queue(&mut store, "a"), [1]);
    assert!(store.stop());
}

#[test]
fn while_nothing_can_be_written_what_waits_is_bounded() {
    let mut place = place();
    place.0.pending_bytes = 50_000;
    let mut store = Running::open(&place, 1).unwrap();
    store.keep(0, []);
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let text = "x".repeat(10_000);
    for number in 1..=50 {
        store.put(0, [put(number, &text), enqueue("a", number, number)]);
        if number == 1 {
            store.wait(0, |event| matches!(event, StoreEvent::Unavailable(_)));
        }
    }
    let waiting = store.exchange.waiting().0;
    assert!(waiting > 20, "{waiting} of 50 still wait to be taken");
    other.execute_batch("ROLLBACK").unwrap();
    store.wait_committed(0, bugle_core::store::BatchNumber(51));
    assert_eq!(queue(&mut store, "a").len(), 50);
}

#[test]
fn a_second_process_is_refused_with_the_number_of_the_first() {
    let place = place();
    let store = Running::open(&place, 1).unwrap();
    let refused = Database::open(&place).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }));
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    assert!(store.stop());
}

#[test]
fn a_corrupt_file_is_moved_aside_with_its_log_and_an_empty_store_begins() {
    let place = place();
    let mut store = Running::open(&place, 1).unwrap();
    store.keep(0, (1..=200).flat_map(|number| [put(number, &"x".repeat(500)), enqueue("a", number, number)]));
    assert!(store.stop());
    let mut bytes = std::fs::read(place.database()).unwrap();
    for page in bytes.chunks_mut(4096).skip(2) {
        page[..64].fill(0xA5);
    }
    std::fs::write(place.database(), &bytes).unwrap();
    let store = Running::open(&place, 1).unwrap();
    assert!(matches!(store.restored[0][..], [Restored::End { next_message: 0 }]));
    let trouble = store.store.health().trouble().unwrap();
    assert_eq!(trouble.state, "was_corrupt");
    let aside: Vec<_> = std::fs::read_dir(&place.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bugle.sqlite3.corrupt-"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(trouble.reason.contains(&aside[0]), "{}", trouble.reason);
    assert_eq!(std::fs::read(place.directory.join(&aside[0])).unwrap(), bytes, "nothing of it is lost");
    assert!(store.stop());
    std::fs::write(place.database(), b"no database at all, and longer than a header is").unwrap();
    assert!(Running::open(&place, 1).unwrap().stop());
}

#[test]
fn a_file_that_is_sound_and_not_ours_is_left_alone() {
    let place = place();
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    assert!(matches!(Database::open(&place), Err(OpenError::Foreign { .. })));
    std::fs::remove_file(place.database()).unwrap();
    drop(Database::open(&place).unwrap());
    let newer = Connection::open(place.database()).unwrap();
    newer.pragma_update(None, "user_version", 999).unwrap();
    drop(newer);
    assert!(matches!(Database::open(&place), Err(OpenError::Newer { found: 999, .. })));
}

#[test]
fn a_store_of_version_1_is_read_as_it_was_written() {
    let place = place();
    let connection = Connection::open(place.database()).unwrap();
    connection.execute_batch(include_str!("version-1.sql")).unwrap();
    assert_eq!(examine(&connection).unwrap().faults, [""; 0]);
    drop(connection);
    let mut store = Running::open(&place, 1).unwrap();
    let tell = |restored: &Restored| match restored {
        Restored::Record { kind, owner, key, value, expires } => {
            format!("{} {owner} {key} {value} {}", kind.as_str(), expires.is_some())
        }
        Restored::Queued { client, sequence, bytes, expires, entry } => {
            format!("queued {client} {} {bytes} {} {entry}", sequence.0, expires.is_some())
        }
        Restored::InFlight { client, message } => {
            let id = message.stage.packet_id.map_or(0, |id| id.get());
            let (place, released) = (message.sequence.0, message.stage.released);
            format!(
                "in flight {client} {place} {id} {released} {} {:?}",
                message.entry, message.message.origin
            )
        }
        Restored::Retained { version, message, .. } => {
            format!(
                "retained {} {} {:?} {:?}",
                version.number, version.shard, message.origin, message.payload
            )
        }
        Restored::End { next_message } => format!("end {next_message}"),
    };
    let told: Vec<String> = store.restored[0].iter().map(tell).collect();
    let signal = "Signal { sender: \"app\", group: Some(\"floor\"), client: None, mode: Only }";
    let retained = "Topic { topic: \"a/b\", publisher: \"app\", retain: true }";
    let expected = [
        "session lamp-1  {\"v\":1} false".to_owned(),
        "subscription lamp-1 sig/g/floor {} false".to_owned(),
        "received lamp-1 7 {} false".to_owned(),
        "message_id app id-1 {} true".to_owned(),
        "receipt app 5 {} false".to_owned(),
        "moderation lamp-1 floor {} true".to_owned(),
        format!("in flight lamp-1 5 9 true {{\"e\":1}} {signal}"),
        "queued lamp-1 6 4 false {\"e\":2}".to_owned(),
        "queued lamp 2 1 2 true {\"e\":3}".to_owned(),
        format!("retained 12 1 {retained} b\"r\""),
        "end 3".to_owned(),
    ];
    assert_eq!(told, expected);
    assert_eq!(queue(&mut store, "lamp-1"), [5, 6]);
    assert!(store.stop());
}

#[test]
fn moments_are_named_as_calendars_do() {
    use crate::store::open::utc;
    assert_eq!(utc(0), "19700101T000000Z");
    assert_eq!(utc(951_782_399), "20000228T235959Z");
    assert_eq!(utc(951_782_400), "20000229T000000Z");
    assert_eq!(utc(4_107_542_400), "21000301T000000Z");
}
