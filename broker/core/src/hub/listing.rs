//! What an operator asks about clients, groups and moderations: looked up, never changed.
//!
//! Every list is given in pages, sorted by name, each of what comes after the last name of the page before: so that what comes and
//! goes in between neither repeats a name nor hides one that was there all the time. A page looks through all names of
//! the shard once, and keeps no more than the page.

use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Client, ConnectionKey, Shard};
use crate::backbone::{Backbone, owner};
use crate::model::{ClientId, GroupName, Identity, Moderation};

/// A client, as a line of a list.
#[derive(Clone, Debug)]
pub struct ClientSummary {
    /// Its id.
    pub client: Identity,
    /// Its connection, where it has one.
    pub connection: Option<ConnectionKey>,
    /// What it speaks: `MQTT 3.1`, `MQTT 3.1.1`, `MQTT 5` or `device`; none while it is away.
    pub protocol: Option<&'static str>,
    /// As whom it has authenticated.
    pub user: Option<Arc<str>>,
    /// How many groups it has joined.
    pub groups: usize,
    /// How many topic filters it is subscribed to.
    pub filters: usize,
}

/// All that is told of one client.
#[derive(Clone, Debug)]
pub struct ClientDetails {
    /// The line of it; none: it has neither connection nor session.
    pub summary: Option<ClientSummary>,
    /// The roles that its credential gives it.
    pub roles: Vec<Arc<str>>,
    /// The name in its certificate.
    pub certificate: Option<Arc<str>>,
    /// The groups that it has joined, in order.
    pub groups: Vec<GroupName>,
    /// The groups that it is a provisioned member of.
    pub provisioned: Vec<GroupName>,
    /// The topic filters that it is subscribed to, in order.
    pub filters: Vec<Arc<str>>,
    /// Seconds for which its session is kept without a connection.
    pub session_expiry: u32,
    /// Messages in its mailbox.
    pub mailbox_messages: usize,
    /// Messages that the store keeps for it.
    pub stored_messages: usize,
    /// The mutes and bans that are in force for it.
    pub moderations: Vec<Moderation>,
}

/// A group, as far as one shard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its name.
    pub group: GroupName,
    /// Clients of this shard that have joined it, also those whose session goes on without a connection.
    pub joined: usize,
    /// Provisioned members, of all shards.
    pub provisioned: usize,
}

impl Shard {
    /// The first `limit` clients of this shard whose ids come after `after` and begin with `prefix`, in order; those
    /// whose session is kept included.
    pub fn list_clients(&self, after: &str, prefix: &str, limit: usize) -> Vec<ClientSummary> {
        let ids = self.by_identity.keys().map(Identity::as_str).filter(|id| id.starts_with(prefix));
        let one = |id| {
            let (identity, &key) = self.by_identity.get_key_value(id)?;
            Some(summary(identity, key, self.clients.get(key)?))
        };
        page(ids, after, limit).into_iter().filter_map(one).collect()
    }

    /// All about one client of this shard; none: there is nothing to be told, it isn't even muted.
    pub fn describe_client(&self, id: &str) -> Option<ClientDetails> {
        let found = self.by_identity.get_key_value(id);
        let found = found.and_then(|(identity, &key)| Some((identity, key, self.clients.get(key)?)));
        let client = found.map(|(_, _, client)| client);
        let provisioned = ClientId::new(id).map(|id| self.rules.groups_of(&id).to_vec()).unwrap_or_default();
        let moderations = self.moderations_of(id);
        let queue = self.queues.of(id).and_then(|key| self.queues.get(key));
        let stored_messages = queue.map_or(0, |queue| queue.plain().messages + queue.signals().messages);
        if client.is_none() && provisioned.is_empty() && moderations.is_empty() && stored_messages == 0 {
            return None;
        }
        let principal = client.and_then(|client| client.principal.as_deref());
        Some(ClientDetails {
            summary: found.map(|(identity, key, client)| summary(identity, key, client)),
            roles: principal.map(|principal| principal.roles.clone()).unwrap_or_default(),
            certificate: principal.and_then(|principal| principal.certificate.clone()),
            groups: client.map(|client| client.groups.iter().cloned().collect()).unwrap_or_default(),
            provisioned,
            filters: client.map(|client| client.filters.iter().cloned().collect()).unwrap_or_default(),
            session_expiry: client.map_or(0, |client| client.session_expiry),
            mailbox_messages: client.map_or(0, |client| client.mailbox.len()),
            stored_messages,
            moderations,
        })
    }

    /// The first `limit` groups after `after` that have a member on this shard or are provisioned, in order.
    pub fn list_groups(&self, after: &str, limit: usize) -> Vec<GroupSummary> {
        let joined = self.groups.keys().map(GroupName::as_str);
        let provisioned = self.rules.groups().filter(|group| !self.groups.contains_key(*group));
        let names = joined.chain(provisioned.map(GroupName::as_str));
        let one = |name| {
            let group = GroupName::new(name)?;
            let joined = self.groups.get(&group).map_or(0, |members| members.len());
            let provisioned = self.rules.members(&group).map_or(0, |members| members.len());
            Some(GroupSummary { group, joined, provisioned })
        };
        page(names, after, limit).into_iter().filter_map(one).collect()
    }

    /// The first `limit` members of a group on this shard after `after`, provisioned ones included, in order; and whether each
    /// is connected.
    pub fn list_members(&self, group: &GroupName, after: &str, limit: usize) -> Vec<(ClientId, bool)> {
        let joined = self.groups.get(group).into_iter().flat_map(|members| members.keys());
        let joined = joined.filter_map(|&key| self.clients.get(key)?.client_id.as_ref());
        let shards = self.backbone.shards();
        let is_member = |id: &ClientId| {
            let key = self.by_identity.get(id.as_str());
            key.is_some_and(|key| self.groups.get(group).is_some_and(|members| members.contains_key(key)))
        };
        let provisioned = self.rules.members(group).into_iter().flatten().filter(|id| {
            owner(id.as_str(), shards) == self.index
                && !is_member(id)
                && !self.is_banned(id.as_str(), Some(group))
        });
        let one = |id: &str| {
            let key = self.by_identity.get(id).filter(|_| ClientId::new(id).is_some_and(|id| is_member(&id)));
            let is_online = key.and_then(|&key| self.clients.get(key)).is_some_and(|one| one.away.is_none());
            Some((ClientId::new(id)?, is_online))
        };
        page(joined.chain(provisioned).map(ClientId::as_str), after, limit)
            .into_iter()
            .filter_map(one)
            .collect()
    }
}

fn summary(identity: &Identity, key: ConnectionKey, client: &Client) -> ClientSummary {
    let is_online = client.away.is_none();
    ClientSummary {
        client: identity.clone(),
        connection: is_online.then_some(key),
        protocol: is_online.then(|| client.session.protocol_name()),
        user: client.principal.as_ref().and_then(|principal| principal.user.clone()),
        groups: client.groups.len(),
        filters: client.filters.len(),
    }
}

/// The first `limit` of these names after `after`, in order.
fn page<'n>(names: impl Iterator<Item = &'n str>, after: &str, limit: usize) -> Vec<&'n str> {
    let mut first = BinaryHeap::new();
    for name in names.filter(|name| *name > after) {
        if first.len() < limit {
            first.push(name);
        } else if let Some(mut last) = first.peek_mut()
            && name < *last
        {
            *last = name;
        }
    }
    first.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_and_leave_nothing_out() {
        let names: Vec<String> = (0..1000).map(|n| format!("{:03}", n * 7 % 1000)).collect();
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let next = page(names.iter().map(String::as_str), &after, 64);
            let Some(last) = next.last() else { break };
            after = (*last).to_owned();
            all.extend(next);
        }
        let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        assert_eq!(all, sorted);
        assert!(page(names.iter().map(String::as_str), "", 0).is_empty());
    }
}
