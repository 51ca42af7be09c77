//! What the system knows of the broker's process (Linux, /proc).

use std::fs;
use std::time::Duration;

use super::BenchError;

/// Clock ticks a second in /proc (USER_HZ), the same on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU time, its own and the kernel's for it.
    pub cpu: Duration,
    /// Context switches of all its threads.
    pub switches: Switches,
    /// Memory in use (VmRSS), in KiB.
    pub rss_kib: u64,
}

/// How often a process gave a core up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It had nothing to do, or waited.
    pub voluntary: u64,
    /// The system took the core for another.
    pub involuntary: u64,
}

impl std::ops::Sub for Switches {
    type Output = Self;

    /// Those since `before`; threads that ended meanwhile took theirs with them.
    fn sub(self, before: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }
}

impl std::iter::Sum for Switches {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            voluntary: sum.voluntary + one.voluntary,
            involuntary: sum.involuntary + one.involuntary,
        })
    }
}

impl Sample {
    /// Reads it.
    pub fn take(pid: u32) -> Result<Self, BenchError> {
        let read = |file: &str| {
            fs::read_to_string(file).map_err(|error| {
                BenchError::Usage(format!("--pid {pid}: {file}: {error}; is that the broker's process?"))
            })
        };
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let status = read(&format!("/proc/{pid}/status"))?;
        let unreadable = || BenchError::Usage(format!("--pid {pid}: /proc/{pid} does not say what it used"));
        let ticks = ticks(&stat).ok_or_else(unreadable)?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1000 / TICKS),
            switches: switches(pid),
            rss_kib: field(&status, "VmRSS:").ok_or_else(unreadable)?,
        })
    }

    /// KiB of memory for each of `count` things that came since `before`.
    pub fn kib_each(&self, before: &Self, count: u64) -> f64 {
        self.rss_kib.saturating_sub(before.rss_kib) as f64 / count.max(1) as f64
    }
}

/// Refuses a measurement that this program, or the broker's if it is known, can't open so many sockets for.
pub fn check_open_files(broker: Option<u32>, connections: u32) -> Result<(), BenchError> {
    // Besides: listeners, pollers, files.
    let needed = u64::from(connections) + 100;
    let limits = [
        ("self".to_owned(), "this program"),
        (broker.map_or_else(String::new, |pid| pid.to_string()), "the broker"),
    ];
    for (pid, who) in limits.iter().filter(|(pid, _)| !pid.is_empty()) {
        let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { continue };
        if let Some(most) = open_files(&limits).filter(|&most| most < needed) {
            return Err(BenchError::Usage(format!(
                "{who} may open {most} files, and {connections} connections need {needed}: start it after `ulimit -n {needed}`"
            )));
        }
    }
    Ok(())
}

/// The soft limit; nothing where there is none.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The fields utime and stime, 14 and 15. The second field is the program's name in brackets, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Threads that end meanwhile aren't counted.
fn switches(pid: u32) -> Switches {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |status: String| {
        let count = |key| field(&status, key).unwrap_or_default();
        Switches {
            voluntary: count("voluntary_ctxt_switches:"),
            involuntary: count("nonvoluntary_ctxt_switches:"),
        }
    };
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).map(of_task).sum()
}

fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_brackets_in_its_name_is_read() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 700 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(ticks(stat), Some(750));
        assert_eq!(ticks("42 (a"), None);
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Max processes             94937                94937                processes \n\
                      Max open files            1024                 20000                files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            None
        );
    }

    #[test]
    fn a_field_of_the_status_is_found_by_its_whole_name() {
        let status = "VmRSS:\t    1234 kB\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(6));
    }
}
