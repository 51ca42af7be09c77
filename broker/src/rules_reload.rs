//! Reads the rules again, when their file changes or SIGHUP asks for it, and gives them to every shard.
//!
//! A file that can't be used changes nothing: the rules that hold stay, and the log, `/healthz` and `/metrics` say so until a
//! file can be used again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::admin::ReloadRequest;
use crate::config::RulesPlace;
use crate::file_watch::FileWatches;
use crate::reload_status::{BY_CHANGE, BY_SIGNAL, ReloadStatus, Reloadable};
use crate::shard_thread::{Control, ShardSender};

/// How long the shards may take before the log says that they do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests of operators that wait; more are told to try again.
const REQUESTS: usize = 4;

/// What reads the rules again.
pub struct RulesReload {
    place: RulesPlace,
    shards: Vec<ShardSender>,
    status: Arc<ReloadStatus>,
    watches: FileWatches,
    /// Requests of operators.
    requests: mpsc::Receiver<ReloadRequest>,
}

impl RulesReload {
    /// For rules that were read just now; and the way to ask for them to be read again, and hear how that went.
    pub fn new(
        place: RulesPlace,
        shards: Vec<ShardSender>,
        status: Arc<ReloadStatus>,
    ) -> (Self, mpsc::Sender<ReloadRequest>) {
        let watches = FileWatches::new([place.path.clone()]);
        let (sender, requests) = mpsc::channel(REQUESTS);
        (Self { place, shards, status, watches, requests }, sender)
    }

    /// Looks at the file, and reads it when it has changed or when asked to.
    pub async fn run(mut self, asked: Arc<Notify>) {
        loop {
            // Both are cancel-safe.
            tokio::select! {
                look = self.watches.next(&asked) => {
                    if look.is_asked || look.has_changed {
                        let by = if look.is_asked { BY_SIGNAL } else { BY_CHANGE };
                        // How it went is in the status.
                        let _ = self.reload(by).await;
                    }
                }
                Some(ReloadRequest { by, answer }) = self.requests.recv() => {
                    // What is read now needs no second reading.
                    self.watches.have_changed();
                    // Who asked may have waited long enough.
                    let _ = answer.send(self.reload(&by).await);
                }
            }
        }
    }

    async fn reload(&self, by: &str) -> Result<(), String> {
        let path = self.place.path.display();
        let rules = match self.place.load() {
            Ok(rules) => Arc::new(rules),
            Err(error) => {
                tracing::error!(%error, "the rules stay as they are");
                self.status.set(Reloadable::Rules, by, Some(error.to_string()));
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
        self.status.set(Reloadable::Rules, by, None);
        tracing::info!(%path, "the rules were read again, and hold everywhere");
        Ok(())
    }
}
