//! The commands of the README and the quick start, run as they stand there.
//!
//! A block of shell is run if `<!-- tested -->` stands on the line before it, all of its lines as one script that must
//! end with 0. With `<!-- tested, in another terminal -->` it goes on in the background while the blocks after it run:
//! the next waits for its first line of output. `bugle`, `cargo run --release --`, `target/release/bugle`, the examples and
//! mosquitto's clients mean the programs under test and their gateway's port.
//!
//! A block of text with `<!-- printed -->` before it is what the block of shell before it must print, in any order, and with
//! other lines as it may be. `…` stands for whatever is there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{Finished, Gateway, Program, bugle_program, example_program};

const TESTED: &str = "<!-- tested -->";
const BESIDE: &str = "<!-- tested, in another terminal -->";
const PRINTED: &str = "<!-- printed -->";

/// A block of shell that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its lines.
    pub script: String,
    /// It goes on while others run.
    pub is_beside: bool,
    /// Where it begins, from 1.
    pub line: usize,
    /// The lines that it must print.
    pub printed: Vec<String>,
}

/// The blocks of a text that are marked.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let (mark, language) = match line.trim() {
            mark @ (TESTED | BESIDE) => (mark, "```sh"),
            PRINTED => (PRINTED, "```text"),
            _ => continue,
        };
        let fence = lines.next().map(|(_, line)| line.trim()).unwrap_or_default();
        let place = index + 1;
        assert!(fence == language, "line {place}: a mark must be followed by {language}, not by {fence:?}");
        let inside: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        if mark == PRINTED {
            let block: &mut Block = blocks.last_mut().expect("something is run before it prints");
            assert!(!block.is_beside, "line {place}: what goes on in another terminal isn't read");
            block.printed = inside.into_iter().map(str::to_owned).collect();
        } else {
            let script = inside.join("\n") + "\n";
            blocks.push(Block { script, is_beside: mark == BESIDE, line: index + 3, printed: Vec::new() });
        }
    }
    blocks
}

/// Whether each of the lines is one of `text`. Their order is free: recipients are told of as they come.
fn has_printed(text: &str, lines: &[String]) -> bool {
    let mut printed: Vec<&str> = text.lines().collect();
    lines.iter().all(|line| {
        let found = printed.iter().position(|seen| is_like(seen, line));
        found.map(|index| printed.remove(index)).is_some()
    })
}

/// Whether `seen` is `line`, in which `…` stands for anything.
fn is_like(seen: &str, line: &str) -> bool {
    match line.split_once('…') {
        None => seen == line,
        Some((before, after)) => {
            let rest = seen.strip_prefix(before);
            rest.is_some_and(|rest| {
                rest.char_indices().any(|(at, _)| is_like(&rest[at..], after)) || after.is_empty()
            })
        }
    }
}

/// Runs blocks in their order against a gateway. Gives what those said that didn't end with 0 or didn't print what they
/// should; none is good.
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
        if finished.code != 0 || !has_printed(&finished.out, &block.printed) {
            failed.push((block.clone(), finished));
        }
    }
    failed
}

/// A folder with programs that stand for those of the README.
struct Terminal {
    folder: PathBuf,
    server: String,
}

impl Terminal {
    fn new(gateway: &Gateway) -> Self {
        let folder =
            std::env::temp_dir().join(format!("bugle-readme-{}-{}", std::process::id(), gateway.port));
        fs::create_dir_all(folder.join("target/release")).unwrap();
        let bugle = bugle_program().display();
        let server = gateway.server();
        // One that is started listens on ports of its own: those of the text may be in use.
        let script = format!(
            "[ $# -gt 0 ] || set serve\ncommand=$1\nshift\ncase $command in\n\
             send|watch) exec {bugle} \"$command\" --server {server} \"$@\";;\n\
             serve) exec {bugle} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 \"$@\";;\n\
             *) exec {bugle} \"$command\" \"$@\";;\nesac\n"
        );
        let terminal = Self { folder, server };
        terminal.program("bugle", &script);
        terminal.program("target/release/bugle", &script);
        // What is to be built has been built; what is to be run is what is named, or else the gateway.
        let examples = example_program("");
        let script = format!(
            "[ \"$1\" = build ] && exit\nprogram=bugle\nwhile [ $# -gt 0 ] && [ \"$1\" != -- ]; do\n\
             [ \"$1\" = --bin ] && program={}$2\nshift\ndone\n[ $# -gt 0 ] && shift\nexec \"$program\" \"$@\"\n",
            examples.display()
        );
        terminal.program("cargo", &script);
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
        command.env("BUGLE_SERVER", &self.server);
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

/// A document of the repository, by its path.
pub fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text = "```sh\nrm x\n```\n<!-- tested -->\n```sh\na\nb\n```\n<!-- printed -->\n```text\nA\n```\n\n\
            <!-- tested, in another terminal -->\n```sh\nc\n```\n";
        let expected = [
            Block { script: "a\nb\n".into(), is_beside: false, line: 6, printed: vec!["A".into()] },
            Block { script: "c\n".into(), is_beside: true, line: 16, printed: Vec::new() },
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn what_is_printed_comes_in_any_order_and_with_anything_for_an_ellipsis() {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let text = "accepted (0.9 ms): 2 delivered\n  lamp-2 DELIVERED\n  lamp-1 DELIVERED\n";
        assert!(has_printed(text, &lines(&["accepted (…): 2 delivered", "  lamp-1 DELIVERED"])));
        assert!(has_printed(text, &lines(&["accepted …", "  lamp-1 …ED"])));
        assert!(!has_printed(text, &lines(&["  lamp-2 DELIVERED", "  lamp-2 DELIVERED"])));
        assert!(!has_printed(text, &lines(&["accepted (…): 1 delivered"])));
        assert!(!has_printed(text, &lines(&["accepted"])));
    }

    #[test]
    #[should_panic(expected = "line 1")]
    fn a_mark_without_a_block_is_noticed() {
        blocks("<!-- tested -->\n\n```sh\na\n```\n");
    }
}
