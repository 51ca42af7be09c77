//! The programs of this repository, built from its sources when a test first wants them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The program under test: what `BUGLE_BIN` names, else what `cargo build` makes of the sources.
pub fn bugle_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM
        .get_or_init(|| std::env::var_os("BUGLE_BIN").map_or_else(|| build("bugle", "bugle"), PathBuf::from))
}

/// A program of `examples/`, by its name.
pub fn example_program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    // All of them at once; they lie in one folder.
    FOLDER.get_or_init(|| build("bugle-examples", "lamp")).with_file_name(name)
}

/// Builds a package's programs, and says where the one of this name is.
fn build(package: &str, name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let format = "--message-format=json-render-diagnostics";
    command.args(["build", "--locked", "-p", package, "--bins", format]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.output().unwrap();
    assert!(built.status.success(), "{package} doesn't build:\n{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).unwrap();
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages.lines().find_map(executable).expect("cargo says where the program is")
}
