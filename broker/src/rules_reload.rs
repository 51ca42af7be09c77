//! Reads the rules again, when their file changes or SIGHUP asks for it, and gives them to every shard.
//!
//! A file that can't be used changes nothing: the rules that hold stay, and the log, `/healthz` and `/metrics` say so until a
//! file can be used again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bugle_core::hub::EachNumber;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::admin::ReloadRequest;
use crate::config::RulesPlace;
use crate::file_watch::FileWatch;
use crate::shard_thread::{Control, ShardSender};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the shards may take before the log says that they do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests of operators that wait; more are told to try again.
const REQUESTS: usize = 4;

/// How the rules are doing.
#[derive(Debug, Default)]
pub struct RulesStatus {
    taken: AtomicU64,
    refused: AtomicU64,
    /// Why the file that is there isn't what holds.
    fault: Mutex<Option<String>>,
    /// The same of passwords and devices' secrets.
    credentials: Mutex<Option<String>>,
    /// The same of operators' tokens.
    operators: Mutex<Option<String>>,
}

impl RulesStatus {
    /// Why the file that is there isn't what holds; none: it is.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same of passwords and devices' secrets.
    pub fn credentials_fault(&self) -> Option<String> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether passwords and devices' secrets are those of their files.
    pub fn set_credentials(&self, fault: Option<String>) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The same of operators' tokens.
    pub fn operators_fault(&self) -> Option<String> {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether operators' tokens are those of their file.
    pub fn set_operators(&self, fault: Option<String>) {
        *self.operators.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Calls `each` for every number.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        for (result, count) in [("taken", &self.taken), ("refused", &self.refused)] {
            let help = "Times that the rules were read again";
            each("rules_reloads", help, &[("result", result)], count.load(Ordering::Relaxed), false);
        }
        let help = "1 while older rules hold than the file has, because it can't be used";
        each("rules_outdated", help, &[], self.fault().is_some().into(), true);
        let help = "1 while older passwords or secrets hold than their files have, because one can't be used";
        each("credentials_outdated", help, &[], self.credentials_fault().is_some().into(), true);
        let help = "1 while older operators' tokens hold than their file has, because it can't be used";
        each("operators_outdated", help, &[], self.operators_fault().is_some().into(), true);
    }

    fn set(&self, fault: Option<String>) {
        let count = if fault.is_some() { &self.refused } else { &self.taken };
        count.fetch_add(1, Ordering::Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// What reads the rules again.
pub struct RulesReload {
    place: RulesPlace,
    shards: Vec<ShardSender>,
    status: Arc<RulesStatus>,
    watch: FileWatch,
    /// Requests of operators.
    requests: mpsc::Receiver<ReloadRequest>,
}

impl RulesReload {
    /// For rules that were read just now; and the way to ask for them to be read again, and hear how that went.
    pub fn new(
        place: RulesPlace,
        shards: Vec<ShardSender>,
        status: Arc<RulesStatus>,
    ) -> (Self, mpsc::Sender<ReloadRequest>) {
        let watch = FileWatch::new(place.path.clone());
        let (sender, requests) = mpsc::channel(REQUESTS);
        (Self { place, shards, status, watch, requests }, sender)
    }

    /// Looks at the file, and reads it when it has changed or when asked to.
    pub async fn run(mut self, asked: Arc<Notify>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (mut is_asked, mut request) = (false, None);
            // All are cancel-safe.
            tokio::select! {
                () = asked.notified() => is_asked = true,
                Some(asking) = self.requests.recv() => request = Some(asking),
                _ = looks.tick() => {}
            }
            if self.watch.has_changed() || is_asked || request.is_some() {
                let result = self.reload().await;
                if let Some(request) = request {
                    // Who asked may have waited long enough.
                    let _ = request.send(result);
                }
            }
        }
    }

    async fn reload(&self) -> Result<(), String> {
        let path = self.place.path.display();
        let rules = match self.place.load() {
            Ok(rules) => Arc::new(rules),
            Err(error) => {
                tracing::error!(%error, "the rules stay as they are");
                self.status.set(Some(error.to_string()));
                return Err(error.to_string());
            }
        };
        let mut waiting = Vec::new();
        for shard in &self.shards {
            let (judged, is_judged) = oneshot::channel();
            // A shard that has ended has nobody left to be judged.
            if shard.control.send(Control::Rules(rules.clone(), judged)).await.is_ok() {
                waiting.push(is_judged);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for judged in &mut waiting {
            if timeout_at(deadline, judged).await.is_err() {
                tracing::warn!(%path, "a shard takes long to judge its clients by the new rules");
            }
        }
        self.status.set(None);
        tracing::info!(%path, "the rules were read again, and hold everywhere");
        Ok(())
    }
}
