//! Other people's clients: where `tests/foreign-clients` puts those from PyPI and npm, and programs of this repository
//! that run beside them.

use std::fs;
use std::path::{Path, PathBuf};

/// What `tests/foreign-clients` installed, by its path below `target/foreign`, as `python/bin/python`.
pub fn foreign(path: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let path = repository().join(target).join("foreign").join(path);
    assert!(path.exists(), "there is no {}: run tests/foreign-clients python node", path.display());
    path
}

/// A copy of a file of this repository in a folder below `target/foreign`: a script beside the modules that it imports,
/// or a source whose program mustn't lie among the sources.
pub fn in_foreign(file: &str, folder: &str) -> PathBuf {
    let source = source(file);
    let copy = foreign("").join(folder).join(source.file_name().unwrap());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    // Tests run side by side: none may see half a file.
    let unfinished = copy.with_added_extension(format!("{:?}", std::thread::current().id()));
    fs::copy(source, &unfinished).unwrap();
    fs::rename(unfinished, &copy).unwrap();
    copy
}

/// A file of this repository, by its path.
pub fn source(path: &str) -> PathBuf {
    repository().join(path)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
