//! How many connections each user has, on all shards together: the one thing that shards share, looked at when a client is let in
//! and when it goes, and by no message.

use std::sync::{Arc, Mutex, PoisonError};

use super::Shard;
use crate::model::{Identity, Map, Principal, Reason, Refusal};

/// The connections of each user of the process; a user without one isn't remembered.
#[derive(Debug, Default)]
pub struct UserConnections(Mutex<Map<Arc<str>, u32>>);

impl UserConnections {
    /// A place for one more connection of this user, if he has fewer than `most`.
    fn take(self: &Arc<Self>, user: &Arc<str>, most: u32) -> Option<UserPlace> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.get(user).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        table.insert(user.clone(), count + 1);
        Some(UserPlace { users: self.clone(), user: user.clone() })
    }
}

/// A connection's place among its user's, freed when it is dropped.
pub(super) struct UserPlace {
    users: Arc<UserConnections>,
    user: Arc<str>,
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut table = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                table.swap_remove(&self.user);
            }
        }
    }
}

impl Shard {
    /// The place of a client among its user's connections, which are at most so many; none for one without a user. The connection
    /// that it takes over leaves its own to it.
    pub(super) fn user_place(
        &self,
        identity: &Identity,
        principal: Option<&Principal>,
        most: u32,
    ) -> Result<Option<Box<UserPlace>>, Refusal> {
        let Some(user) = principal.and_then(|principal| principal.user.as_ref()) else { return Ok(None) };
        let older = self.by_identity.get(identity).and_then(|&key| self.clients.get(key));
        let is_taken_over = older.is_some_and(|older| older.user_place.is_some());
        let most = most.saturating_add(u32::from(is_taken_over));
        match self.users.take(user, most) {
            Some(place) => Ok(Some(Box::new(place))),
            None => {
                let text = "this user has all the connections that his role lets him have";
                Err(Refusal::new(Reason::TooMany, text))
            }
        }
    }
}
