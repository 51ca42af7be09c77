//! Every command of the README that is marked as tested; see [`bugle_tests::readme`] for the marks.

use bugle_tests::Gateway;
use bugle_tests::readme::{Block, blocks, path, run};

async fn commands_work(chosen: impl Fn(&Block) -> bool) {
    let Ok(text) = std::fs::read_to_string(path()) else {
        eprintln!("there is no README.md yet: nothing was tested");
        return;
    };
    let blocks: Vec<_> = blocks(&text).into_iter().filter(chosen).collect();
    if blocks.is_empty() {
        eprintln!("README.md marks no such commands: nothing was tested");
        return;
    }
    let gateway = Gateway::start(2).await;
    let failed = run(&blocks, &gateway).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    commands_work(|block| !block.script.contains("mosquitto_")).await;
}

#[tokio::test]
async fn the_commands_of_the_readme_for_mosquitto_work() {
    commands_work(|block| block.is_beside || block.script.contains("mosquitto_")).await;
}

#[tokio::test]
async fn a_command_that_fails_is_noticed() {
    let gateway = Gateway::start(1).await;
    let text = "<!-- tested, in another terminal -->\n```sh\nbugle watch --group floor --as lamp\n```\n\
        <!-- tested -->\n```sh\nbugle send --group floor on # in words\ncargo run --release -- send --to lamp on\n```\n\
        <!-- tested -->\n```sh\nbugle send --group floor --only '' on\n```\n";
    let failed = run(&blocks(text), &gateway).await;
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert!(failed[0].1.err.contains("NO_RECIPIENT"));
}
