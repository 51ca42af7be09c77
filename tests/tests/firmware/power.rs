//! The power goes while the outbox in flash is written: the board is reset in the middle of a word, at every third of those that two
//! messages cost (device-sdk/tests/flash_outbox.rs has each). The flash is memory of the emulated board that outlasts a reset.

use std::collections::BTreeSet;

use bugle_tests::{App, Firmware, Gateway, Version};

/// The words after `word`, in lines with `part`.
fn texts<'l>(log: &'l str, word: &str, part: &str) -> Vec<&'l str> {
    log.lines()
        .filter(|line| line.contains(part))
        .filter_map(|line| line.split_once(word)?.1.split(' ').next())
        .collect()
}

#[tokio::test]
async fn s12_qemu_a_reset_amid_any_write_loses_nothing_that_was_pushed_and_repeats_nothing() {
    let gateway = Gateway::start(2).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    let mut board = Firmware::outbox(&gateway, "board", &["group=floor", "address=10.0.2.15"]).await;
    let mut resets = 0;
    let last = loop {
        board.tell(&format!("stall {}", 1 + resets * 3)).await;
        board.tell(&format!("push m{resets}")).await;
        // Behind the message's own outcome there is the word that removes it.
        let last = format!("e{resets}");
        board.tell(&format!("push {last}")).await;
        let settled = format!("settled {last} ");
        let end = loop {
            let line = board.line("").await;
            if line == "stalled" || line.starts_with(&settled) {
                break line;
            }
        };
        if end != "stalled" {
            break last;
        }
        resets += 1;
        board.reset().await;
        board.line("ready").await;
        board.line("connected").await;
    };
    assert!(resets > 6, "{resets} resets");
    let log = board.seen();
    let mut came = Vec::new();
    while came.last().is_none_or(|came| *came != last) {
        came.push(app.message("sig/g/floor").await.text);
    }
    let once: BTreeSet<_> = came.iter().collect();
    assert_eq!(once.len(), came.len(), "none twice: {came:?}\n{log}");
    let known: Vec<_> = texts(&log, "settled ", "Unconfirmed");
    for text in texts(&log, "pushed ", "pushed ") {
        assert!(came.iter().any(|one| one == text) || known.contains(&text), "{text} is lost\n{log}");
    }
}
