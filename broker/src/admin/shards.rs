//! Asking shards: each question goes to all of them, or to the one that owns a client, and has a second for its answer.

use std::time::Duration;

use bugle_core::hub::owner;
use bugle_core::model::{ModerationRequest, Refusal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::shard_thread::{Control, ShardSender, Sight};

/// How long a shard may take to look something up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a moderation may take, which waits for the disk.
const COMMIT: Duration = Duration::from_secs(5);

/// The ways to all shards.
#[derive(Clone)]
pub struct Shards(Vec<ShardSender>);

impl Shards {
    /// These.
    pub fn new(shards: Vec<ShardSender>) -> Self {
        Self(shards)
    }

    /// All of them.
    pub fn all(&self) -> &[ShardSender] {
        &self.0
    }

    /// What each of them sees.
    pub async fn each<T, F>(&self, look: F) -> Result<Vec<T>, Problem>
    where
        T: Send + 'static,
        F: Fn(&Sight<'_>) -> T + Clone + Send + 'static,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        for shard in &self.0 {
            answers.push(ask(shard, look.clone())?);
        }
        let mut all = Vec::new();
        for answer in answers {
            all.push(timeout_at(deadline, answer).await.ok().and_then(Result::ok).ok_or_else(busy)?);
        }
        Ok(all)
    }

    /// What the shard sees that owns this client.
    pub async fn of<T, F>(&self, client: &str, look: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Fn(&Sight<'_>) -> T + Send + 'static,
    {
        let answer = ask(self.owner(client)?, look)?;
        timeout(PATIENCE, answer).await.ok().and_then(Result::ok).ok_or_else(busy)
    }

    /// Kicks, mutes or bans in an operator's name, or ends that. When it returns it is in force, and in the store if there is one.
    pub async fn moderate(
        &self,
        request: ModerationRequest,
        by: &str,
    ) -> Result<Result<(), Refusal>, Problem> {
        let shard = self.owner(request.client.as_str())?;
        let (answer, answered) = oneshot::channel();
        let control = Control::Moderate(request, by.into(), answer);
        shard.control.try_send(control).map_err(|_| busy())?;
        match timeout(COMMIT, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(busy()),
            Err(_) => {
                let detail = "the store doesn't say that it is written: it may be in force, and be gone after a restart; \
                              see /healthz";
                Err(Problem::unavailable(detail).after(5))
            }
        }
    }

    fn owner(&self, client: &str) -> Result<&ShardSender, Problem> {
        self.0.get(usize::from(owner(client, self.0.len() as u16))).ok_or_else(busy)
    }
}

fn ask<T, F>(shard: &ShardSender, look: F) -> Result<oneshot::Receiver<T>, Problem>
where
    T: Send + 'static,
    F: Fn(&Sight<'_>) -> T + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let look = Box::new(move |sight: &Sight<'_>| {
        // Who asked may have waited long enough.
        let _ = answer.send(look(sight));
    });
    shard.control.try_send(Control::Look(look)).map_err(|_| busy())?;
    Ok(answered)
}

fn busy() -> Problem {
    Problem::unavailable("a part of the gateway didn't answer in time; try again").after(1)
}
