//! Warns of files that others on the machine can read or write, and shouldn't.

use std::path::Path;

/// Who may do what with a file that deserves a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Secrets: nobody but its owner is to read it.
    Secrets,
    /// A private key, which a group of its own may read.
    Key,
    /// What decides who may do what: nobody but its owner is to write it.
    Policy,
}

impl Holds {
    const fn forbidden(self) -> u32 {
        match self {
            Self::Secrets => 0o077,
            Self::Key => 0o027,
            Self::Policy => 0o022,
        }
    }
}

/// Warns if others can do with this file what they shouldn't.
#[cfg(unix)]
pub fn warn_if_open(path: &Path, holds: Holds) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & holds.forbidden() != 0 {
        let (what, advice) = match holds {
            Holds::Secrets => ("read or write this file", "chmod 600"),
            Holds::Key => ("read or write this key", "chmod 640, or 600"),
            Holds::Policy => ("write this file", "chmod go-w"),
        };
        tracing::warn!(
            path = %path.display(), mode = %format_args!("{:o}", mode & 0o777),
            "others on this machine can {what}; {advice} it"
        );
    }
}

/// Elsewhere it isn't known.
#[cfg(not(unix))]
pub fn warn_if_open(_: &Path, _: Holds) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_do_depends_on_what_is_in_the_file() {
        let is_open = |mode: u32, holds: Holds| mode & holds.forbidden() != 0;
        for (mode, secrets, key, policy) in [
            (0o600, false, false, false),
            (0o640, true, false, false),
            (0o644, true, true, false),
            (0o660, true, true, true),
            (0o602, true, true, true),
        ] {
            assert_eq!(
                [is_open(mode, Holds::Secrets), is_open(mode, Holds::Key), is_open(mode, Holds::Policy)],
                [secrets, key, policy],
                "{mode:o}"
            );
        }
    }
}
