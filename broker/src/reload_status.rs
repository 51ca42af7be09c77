//! How it went to read files again: rules, credentials, operators, certificates. What can't be used changes nothing; why that is so stands
//! here for `/healthz` and `/metrics`, and every reading stands in the audit log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bugle_core::hub::EachNumber;
use serde_json::json;

use crate::audit::AuditLog;

macro_rules! reloadables {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $gauge:literal, $help:literal;)*) => {
        /// What is read again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reloadable { $($(#[$doc])* $name,)* }

        impl Reloadable {
            /// All of it.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word for it in `/healthz` and the audit log.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            const fn counter(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$name => (concat!($key, "_reloads"), concat!("Times that the ", $key, " were read again")),)*
                }
            }

            const fn gauge(self) -> (&'static str, &'static str) {
                match self { $(Self::$name => ($gauge, $help),)* }
            }
        }
    };
}

reloadables! {
    /// The rules.
    Rules = "rules", "rules_outdated",
        "1 while older rules hold than the file has, because it can't be used";
    /// Passwords, devices' secrets and keys of tokens.
    Credentials = "credentials", "credentials_outdated",
        "1 while older passwords or secrets hold than their files have, because one can't be used";
    /// Operators' tokens.
    Operators = "operators", "operators_outdated",
        "1 while older operators' tokens hold than their file has, because it can't be used";
    /// Certificates, keys, authorities and revocations.
    Certificates = "certificates", "certificates_outdated",
        "1 while older certificates, authorities or revocations hold than their files have, because one can't be used";
}

/// Who asked for files to be read again.
pub const BY_SIGNAL: &str = "SIGHUP";
/// Nobody: one has changed.
pub const BY_CHANGE: &str = "change of the file";

/// How the last readings went.
#[derive(Debug, Default)]
pub struct ReloadStatus {
    taken: [AtomicU64; Reloadable::ALL.len()],
    refused: [AtomicU64; Reloadable::ALL.len()],
    /// Why the file that is there isn't what holds.
    faults: [Mutex<Option<String>>; Reloadable::ALL.len()],
    audit: AuditLog,
}

impl ReloadStatus {
    /// Nothing was read again yet. What is goes into this audit log.
    pub fn new(audit: AuditLog) -> Self {
        Self { audit, ..Self::default() }
    }

    /// Why what is in the files isn't what holds; none: it is.
    pub fn fault(&self, what: Reloadable) -> Option<String> {
        self.faults[what as usize].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something was read again, asked for by `by`; or couldn't be used.
    pub fn set(&self, what: Reloadable, by: &str, fault: Option<String>) {
        let count = if fault.is_some() { &self.refused } else { &self.taken };
        count[what as usize].fetch_add(1, Ordering::Relaxed);
        let result = if fault.is_some() { "refused" } else { "taken" };
        self.audit.record("reload", &json!({"what": what.key(), "by": by, "result": result, "error": fault}));
        *self.faults[what as usize].lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Calls `each` for every number.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        for &what in Reloadable::ALL {
            let (name, help) = what.counter();
            for (result, counts) in [("taken", &self.taken), ("refused", &self.refused)] {
                let count = counts[what as usize].load(Ordering::Relaxed);
                each(name, help, &[("result", result)], count, false);
            }
            let (name, help) = what.gauge();
            each(name, help, &[], self.fault(what).is_some().into(), true);
        }
    }
}
