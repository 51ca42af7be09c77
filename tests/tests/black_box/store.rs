//! The durable store of a real gateway: what happens when its disk is full, broken or stuck, when its file is corrupt, when two
//! want it; and backups.

use std::time::{Duration, Instant};

use bugle_tests::{Disk, FaultyDisk, Finished, Gateway, Program, Scratch, Setup, bugle_program};
use serde_json::Value;

/// The lamp is a member whether it is there or not, so that what it misses is kept.
const LAMP: &str = r#"
    [[group]]
    name = "lamps"
    members = ["lamp"]
"#;

/// Sends a signal that is kept for a client who isn't there.
fn store(gateway: &Gateway, payload: &str) -> Program {
    let server = gateway.server();
    let arguments = ["send", "--server", &server, "--to", "lamp", "--store", "--receipt", "none", payload];
    Program::start(bugle_program(), &arguments)
}

async fn stored(gateway: &Gateway, payload: &str) -> Finished {
    store(gateway, payload).finish().await
}

/// What has been kept for the client who is there now.
async fn taken(gateway: &Gateway, count: usize) -> Vec<String> {
    let (server, count) = (gateway.server(), count.to_string());
    let arguments = ["watch", "--server", &server, "--as", "lamp", "--count", &count, "--json"];
    let watched = Program::run(bugle_program(), &arguments, b"").await.expect(0);
    let payload =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["payload"].as_str().unwrap().to_owned();
    watched.out.lines().map(payload).collect()
}

/// A signal to one who is there, which needs no disk.
async fn is_live(gateway: &Gateway) {
    let server = gateway.server();
    let mut watch = Program::start(
        bugle_program(),
        &["watch", "--server", &server, "--as", "switch", "--group", "live", "--count", "1"],
    );
    watch.line("watching as").await;
    let send = ["send", "--server", &server, "--group", "live", "--receipt", "each", "on"];
    Program::run(bugle_program(), &send, b"").await.expect(0);
    watch.finish().await.expect(0);
}

async fn health(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.get("/healthz").await.1).unwrap()
}

/// The disk gets into trouble, is said to be, and recovers; nothing that was acknowledged is lost by it.
async fn recovers(trouble: Disk, reason: &str) {
    for shards in [1, 2] {
        let disk = FaultyDisk::new();
        let gateway = disk.setup(shards).config(LAMP).start().await;
        stored(&gateway, "before").await.expect(0);
        disk.set(trouble);
        let waits = store(&gateway, "during");
        gateway.wait_metric("bugle_store_unavailable", |value| value == 1).await;
        let refused = stored(&gateway, "refused").await.expect(1);
        assert!(refused.err.contains("BUSY"), "{refused:?}");
        let health_now = health(&gateway).await;
        assert_eq!(health_now["status"], "degraded");
        assert_eq!(health_now["store"]["state"], "unavailable");
        assert!(health_now["store"]["reason"].as_str().unwrap().contains(reason), "{health_now}");
        assert!(gateway.metric("bugle_store_failures_total").await > 0);
        is_live(&gateway).await;
        disk.set(Disk::Fine);
        waits.finish().await.expect(0);
        assert_eq!(gateway.metric("bugle_store_unavailable").await, 0);
        assert_eq!(health(&gateway).await["status"], "ok");
        stored(&gateway, "after").await.expect(0);
        gateway.kill().await;
        let gateway = disk.setup(shards).config(LAMP).start().await;
        assert_eq!(taken(&gateway, 3).await, ["before", "during", "after"]);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_must_last_and_nothing_else_until_there_is_room() {
    recovers(Disk::Full, "the disk is full").await;
}

#[tokio::test]
async fn a_disk_that_fails_refuses_what_must_last_and_nothing_else_until_it_works() {
    recovers(Disk::Broken, "the disk failed").await;
}

#[tokio::test]
async fn a_gateway_killed_while_the_disk_fails_has_what_it_had_acknowledged() {
    let disk = FaultyDisk::new();
    let gateway = disk.setup(2).config(LAMP).start().await;
    stored(&gateway, "before").await.expect(0);
    disk.set(Disk::Broken);
    let waits = store(&gateway, "during");
    gateway.wait_metric("bugle_store_unavailable", |value| value == 1).await;
    gateway.kill().await;
    assert_ne!(waits.finish().await.code, 0, "it was not acknowledged");
    disk.set(Disk::Fine);
    let gateway = disk.setup(2).config(LAMP).start().await;
    assert_eq!(taken(&gateway, 1).await, ["before"]);
}

#[tokio::test]
async fn a_stuck_disk_holds_up_what_must_last_and_nothing_else() {
    let disk = FaultyDisk::new();
    let gateway = disk.setup(2).config(LAMP).start().await;
    stored(&gateway, "before").await.expect(0);
    disk.set(Disk::Stuck);
    let began = Instant::now();
    let waits = store(&gateway, "during");
    is_live(&gateway).await;
    // It is called so after five seconds.
    gateway.wait_metric("bugle_store_unavailable", |value| value == 1).await;
    assert!(began.elapsed() > Duration::from_secs(4));
    let health_now = health(&gateway).await;
    assert_eq!(health_now["store"]["state"], "stuck", "{health_now}");
    assert!(!waits.has_written("accepted"), "{}", waits.seen());
    is_live(&gateway).await;
    disk.set(Disk::Fine);
    waits.finish().await.expect(0);
    assert_eq!(health(&gateway).await["status"], "ok");
    assert_eq!(taken(&gateway, 2).await, ["before", "during"]);
}

#[tokio::test]
async fn a_corrupt_store_is_moved_aside_and_said_so_loudly() {
    let disk = FaultyDisk::new();
    let gateway = disk.setup(1).config(LAMP).start().await;
    stored(&gateway, "before").await.expect(0);
    gateway.terminate().await;
    gateway.finish().await.expect(0);
    let file = disk.directory().join("bugle.sqlite3");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(0xA5);
    std::fs::write(&file, &bytes).unwrap();
    let verify = ["store", "verify", file.to_str().unwrap()];
    let verified = Program::run(bugle_program(), &verify, b"").await;
    assert_ne!(verified.code, 0, "{verified:?}");
    let gateway = disk.setup(1).config(LAMP).start().await;
    assert!(gateway.seen().contains("the store is corrupt: it was moved aside"), "{}", gateway.seen());
    let health_now = health(&gateway).await;
    assert_eq!(
        (&health_now["status"], &health_now["store"]["state"]),
        (&"degraded".into(), &"was_corrupt".into())
    );
    assert_eq!(gateway.metric("bugle_store_unavailable").await, 0);
    stored(&gateway, "after").await.expect(0);
    assert_eq!(taken(&gateway, 1).await, ["after"]);
    let aside = std::fs::read_dir(disk.directory()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains("sqlite3.corrupt-")).collect();
    assert_eq!(std::fs::read(&aside[0]).unwrap(), bytes);
}

#[tokio::test]
async fn a_backup_of_a_running_gateway_is_a_store_to_start_with() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name).display().to_string();
    let setup = |name: &str| Setup::shards(2).config(LAMP).argument("--data-dir").argument(&path(name));
    let gateway = setup("data").start().await;
    stored(&gateway, "in the backup").await.expect(0);
    let (data, file) = (path("data"), path("backup.sqlite3"));
    let backup = ["store", "backup", "--data-dir", &data, &file];
    Program::run(bugle_program(), &backup, b"").await.expect(0);
    stored(&gateway, "not in it").await.expect(0);
    let again = Program::run(bugle_program(), &backup, b"").await.expect(2);
    assert!(again.err.contains("is there already"), "{again:?}");
    let verified = Program::run(bugle_program(), &["store", "verify", &file], b"").await.expect(0);
    assert!(
        verified.out.contains("queued messages          1") && verified.out.ends_with("sound\n"),
        "{verified:?}"
    );
    std::fs::create_dir(scratch.path("other")).unwrap();
    std::fs::copy(&file, scratch.path("other").join("bugle.sqlite3")).unwrap();
    let other = setup("other").start().await;
    assert_eq!(taken(&other, 1).await, ["in the backup"]);
    assert_eq!(taken(&gateway, 2).await, ["in the backup", "not in it"]);
}

#[tokio::test]
async fn a_second_gateway_on_a_data_directory_is_refused() {
    let scratch = Scratch::new();
    let data = scratch.path("data").display().to_string();
    let gateway = Setup::shards(1).config(LAMP).argument("--data-dir").argument(&data).start().await;
    let second = ["serve", "--listen", "127.0.0.1:0", "--admin", "none", "--data-dir", &data];
    let refused = Program::run(bugle_program(), &second, b"").await.expect(1);
    let expected = format!("in use by another bugle (process {})", gateway.pid());
    assert!(refused.err.contains(&expected), "{refused:?}");
    stored(&gateway, "unharmed").await.expect(0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_refused_with_what_to_do() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "no directory");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "none", "--data-dir", &file];
    let refused = Program::run(bugle_program(), &serve, b"").await.expect(1);
    assert!(refused.err.contains(&file) && refused.err.contains("--data-dir"), "{refused:?}");
}

/// docs/operations.md says for each failure which test shows it.
#[test]
fn every_failure_in_the_operators_table_has_a_test_that_is_there() {
    let root = bugle_tests::source("");
    let text = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, table) = text.split_once("## When something fails").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let mut sources = String::new();
    for folder in ["broker/src", "broker/core/tests", "tests/tests"] {
        read_sources(&root.join(folder), &mut sources);
    }
    let mut count = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let name = last.split('`').nth(1).unwrap_or_else(|| panic!("no test in: {row}"));
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

/// What docs/operations.md says of metrics about the store and about failures is there.
#[tokio::test]
async fn every_metric_in_the_operators_tables_is_there() {
    let scratch = Scratch::new();
    let data = scratch.path("data").display().to_string();
    let gateway = Setup::shards(1).argument("--data-dir").argument(&data).start().await;
    let metrics = gateway.get("/metrics").await.1;
    let text = std::fs::read_to_string(bugle_tests::source("docs/operations.md")).unwrap();
    let (_, text) = text.split_once("## The durable store").unwrap();
    let (text, _) = text.split_once("## Stopping").unwrap();
    let named: Vec<&str> = text
        .split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'))
        .filter(|word| word.starts_with("bugle_"))
        .collect();
    assert!(named.len() >= 10, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("\n{name}")), "there is no metric {name}");
    }
}

fn read_sources(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
