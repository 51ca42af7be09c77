//! The README's commands, run as they stand there.
//!
//! A block of shell is run if `<!-- tested -->` stands on the line before it, all of its lines as one script that must
//! end with 0. With `<!-- tested, in another terminal -->` it goes on in the background while the blocks after it run:
//! the next waits for its first line of output. `bugle`, `cargo run --release --`, `target/release/bugle` and
//! mosquitto's clients mean the programs under test and their gateway's port.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{Finished, Gateway, Program, bugle_program};

const TESTED: &str = "<!-- tested -->";
const BESIDE: &str = "<!-- tested, in another terminal -->";

/// A block of shell that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its lines.
    pub script: String,
    /// It goes on while others run.
    pub is_beside: bool,
    /// Where it begins, from 1.
    pub line: usize,
}

/// The blocks of a text that are marked.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let is_beside = line.trim() == BESIDE;
        if !is_beside && line.trim() != TESTED {
            continue;
        }
        let fence = lines.next().map(|(_, line)| line.trim()).unwrap_or_default();
        assert!(fence == "```sh", "line {}: a mark must be followed by ```sh, not by {fence:?}", index + 1);
        let script: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        blocks.push(Block { script: script.join("\n") + "\n", is_beside, line: index + 3 });
    }
    blocks
}

/// Runs blocks in their order against a gateway. Gives what those that didn't end with 0 said; none is good.
pub async fn run(blocks: &[Block], gateway: &Gateway) -> Vec<(Block, Finished)> {
    let terminal = Terminal::new(gateway);
    let mut failed = Vec::new();
    let mut beside = Vec::new();
    for block in blocks {
        let mut program = terminal.run(block);
        if block.is_beside {
            program.line("").await;
            beside.push(program);
            continue;
        }
        let finished = program.finish().await;
        if finished.code != 0 {
            failed.push((block.clone(), finished));
        }
    }
    failed
}

/// A folder with programs that stand for those of the README.
struct Terminal {
    folder: PathBuf,
}

impl Terminal {
    fn new(gateway: &Gateway) -> Self {
        let folder =
            std::env::temp_dir().join(format!("bugle-readme-{}-{}", std::process::id(), gateway.port));
        fs::create_dir_all(folder.join("target/release")).unwrap();
        let bugle = bugle_program().display();
        let server = gateway.server();
        let script = format!(
            "case \"$1\" in\nsend|watch) command=$1; shift; exec {bugle} \"$command\" --server {server} \"$@\";;\n\
             *) exec {bugle} \"$@\";;\nesac\n"
        );
        let terminal = Self { folder };
        terminal.program("bugle", &script);
        terminal.program("target/release/bugle", &script);
        terminal.program(
            "cargo",
            "while [ $# -gt 0 ] && [ \"$1\" != -- ]; do shift; done\n[ $# -gt 0 ] && shift\nexec bugle \"$@\"\n",
        );
        for name in ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"] {
            // Into a pipe they would print nothing before they end.
            let script = format!("PATH=${{PATH#*:}} exec stdbuf -oL {name} -p {} \"$@\"\n", gateway.port);
            terminal.program(name, &script);
        }
        terminal
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, block: &Block) -> Program {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.current_dir(&self.folder).env("PATH", format!("{}:{path}", self.folder.display()));
        command.stdin(std::process::Stdio::null()).args(["-eu", "-c", &block.script]);
        Program::spawn(command)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The repository's README.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text = "```sh\nrm x\n```\n<!-- tested -->\n```sh\na\nb\n```\n\n<!-- tested, in another terminal -->\n```sh\nc\n```\n";
        let expected = [
            Block { script: "a\nb\n".into(), is_beside: false, line: 6 },
            Block { script: "c\n".into(), is_beside: true, line: 12 },
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    #[should_panic(expected = "line 1")]
    fn a_mark_without_a_block_is_noticed() {
        blocks("<!-- tested -->\n\n```sh\na\n```\n");
    }
}
