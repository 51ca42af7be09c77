//! What happened: a hash of all of it and, for a person who looks into one seed, a line for each step.

use std::collections::VecDeque;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    wanted: Wanted,
    lines: VecDeque<String>,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: the hash alone.
    Nothing,
    /// They are kept.
    All,
    /// They are printed as they come.
    Printed,
}

impl Trace {
    /// An empty one.
    pub fn new(wanted: Wanted) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, wanted, lines: VecDeque::new() }
    }

    /// What stands for everything that was noted.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether lines are wanted.
    pub fn keeps_lines(&self) -> bool {
        self.wanted != Wanted::Nothing
    }

    /// The lines that were kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Notes a number.
    pub fn number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x100_0000_01B3).rotate_left(23);
    }

    /// Notes bytes that went from one to another.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// Notes a line in words.
    pub fn line(&mut self, line: impl FnOnce() -> String) {
        match self.wanted {
            Wanted::Nothing => {}
            Wanted::All => self.lines.push_back(line()),
            Wanted::Printed => println!("{}", line()),
        }
    }
}
