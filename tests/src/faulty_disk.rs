//! A disk under a gateway's data directory that fails when a test says so.

use std::path::PathBuf;
use std::process::Command;

use crate::{Scratch, Setup};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// All that it should.
    Fine,
    /// It has no room (ENOSPC).
    Full,
    /// It fails to keep what was written (EIO of a sync).
    Broken,
    /// It doesn't answer.
    Stuck,
}

/// A data directory on such a disk, which goes when this is dropped.
pub struct FaultyDisk {
    scratch: Scratch,
    library: PathBuf,
}

impl FaultyDisk {
    /// One that is fine for now.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let (source, library) = (scratch.path("faulty_disk.c"), scratch.path("faulty_disk.so"));
        std::fs::write(&source, include_str!("faulty_disk.c")).unwrap();
        let mut cc = Command::new("cc");
        let built = cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(built.unwrap().success());
        let disk = Self { scratch, library };
        std::fs::create_dir(disk.directory()).unwrap();
        disk.set(Disk::Fine);
        disk
    }

    /// The data directory.
    pub fn directory(&self) -> PathBuf {
        self.scratch.path("data")
    }

    /// From now on it is like this.
    pub fn set(&self, disk: Disk) {
        let text = match disk {
            Disk::Fine => "",
            Disk::Full => "full",
            Disk::Broken => "broken",
            Disk::Stuck => "stuck",
        };
        // At once, so that none is seen half.
        let next = self.scratch.write("next", text);
        std::fs::rename(next, self.scratch.path("disk")).unwrap();
    }

    /// A gateway with its store on it.
    pub fn setup(&self, shards: u16) -> Setup {
        let directory = self.directory().display().to_string();
        Setup::shards(shards)
            .argument("--data-dir")
            .argument(&directory)
            .environment("LD_PRELOAD", &self.library.display().to_string())
            .environment("FAULTY_DIRECTORY", &directory)
            .environment("FAULTY_DISK", &self.scratch.path("disk").display().to_string())
    }
}
