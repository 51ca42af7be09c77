//! Asking shards: each question goes to all of them, or to the one that owns a client, and has a second for its answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bugle_core::hub::{Cursor, Shard, owner};
use bugle_core::model::{ModerationRequest, Refusal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::shard_thread::{Control, ShardSender, Sight};

/// How long a shard may take to look something up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the pieces of a list may take together.
const LIST: Duration = Duration::from_secs(10);
/// Clients that are asked about at once.
const PIECE: usize = 256;
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

    /// The first `limit` names of all shards in order, found piece by piece by `look`, so that messages get through in between.
    pub async fn names<F>(&self, limit: usize, look: F) -> Result<BTreeSet<Arc<str>>, Problem>
    where
        F: Fn(&Shard, Cursor) -> (Vec<Arc<str>>, Cursor) + Clone + Send + 'static,
    {
        let deadline = Instant::now() + LIST;
        let mut first = BTreeSet::new();
        for shard in &self.0 {
            let mut cursor = Cursor::START;
            while !cursor.is_done() {
                let (look, from) = (look.clone(), cursor);
                let answer = ask(shard, move |sight| look(sight.shard, from))?;
                let answer = timeout_at(deadline, answer).await.ok().and_then(Result::ok);
                let (names, next) = answer.ok_or_else(busy)?;
                cursor = next;
                for name in names {
                    if first.len() < limit || first.last().is_some_and(|last| name < *last) {
                        first.insert(name);
                        if first.len() > limit {
                            first.pop_last();
                        }
                    }
                }
            }
        }
        Ok(first)
    }

    /// What the shards see that own these clients, in the same order.
    pub async fn of_each<T, F>(&self, clients: Vec<Arc<str>>, look: F) -> Result<Vec<T>, Problem>
    where
        T: Send + 'static,
        F: Fn(&Sight<'_>, &str) -> Option<T> + Clone + Send + 'static,
    {
        let deadline = Instant::now() + LIST;
        let mut all = Vec::new();
        for piece in clients.chunks(PIECE) {
            // All shards are asked about all, and each knows its own.
            let mut answers = Vec::new();
            for index in 0..self.0.len() {
                let own = |id: &Arc<str>| usize::from(owner(id, self.0.len() as u16)) == index;
                let ids: Vec<(usize, Arc<str>)> =
                    piece.iter().cloned().enumerate().filter(|(_, id)| own(id)).collect();
                let look = look.clone();
                answers.push(ask(&self.0[index], move |sight| {
                    let one = |(at, id): &(usize, Arc<str>)| Some((*at, look(sight, id)?));
                    ids.iter().filter_map(one).collect::<Vec<_>>()
                })?);
            }
            let mut found = Vec::new();
            for answer in answers {
                found.extend(timeout_at(deadline, answer).await.ok().and_then(Result::ok).ok_or_else(busy)?);
            }
            found.sort_by_key(|(at, _)| *at);
            all.extend(found.into_iter().map(|(_, one)| one));
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
