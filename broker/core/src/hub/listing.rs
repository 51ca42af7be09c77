//! What an operator asks about clients, groups and members: looked up, never changed, a little at a time.
//!
//! A shard may have a hundred thousand of them, and messages to deliver. So nothing here looks at more than [`LOOKED_AT`] names at once:
//! whoever wants a list asks for the names piece by piece, sorts them himself, and asks again about those that he wants to know more of.
//! Names are gone through from the last to the first, since the last one is what takes the place of one that goes: who is there all the
//! time is seen, whatever comes and goes in between, and may be seen twice.

use std::sync::Arc;

use super::{Client, ConnectionKey, Shard};
use crate::backbone::{Backbone, owner};
use crate::model::{ClientId, GroupName, Identity, Moderation};

/// Names that are looked at in one go.
pub const LOOKED_AT: usize = 1024;

/// How far names were gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Those before this place of the shard's own are left.
    own: usize,
    /// Those before this place of the operator's file are left.
    provisioned: usize,
}

impl Cursor {
    /// At the beginning.
    pub const START: Self = Self { own: usize::MAX, provisioned: usize::MAX };

    /// Whether there is nothing left.
    pub fn is_done(self) -> bool {
        self.own == 0 && self.provisioned == 0
    }
}

/// Which names are wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Those that come after this one.
    pub after: Arc<str>,
    /// Those that begin so.
    pub prefix: Arc<str>,
}

impl Wanted {
    fn includes(&self, name: &str) -> bool {
        name > &*self.after && name.starts_with(&*self.prefix)
    }
}

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
    /// Ids of clients of this shard that have a connection or a session, and how far that went.
    pub fn client_names(&self, wanted: &Wanted, cursor: Cursor) -> (Vec<Arc<str>>, Cursor) {
        let (from, to) = piece(cursor.own, self.by_identity.len());
        let ids = (from..to).filter_map(|at| Some(self.by_identity.get_index(at)?.0));
        let names = ids.filter(|id| wanted.includes(id.as_str())).map(Identity::shared);
        (names.collect(), Cursor { own: from, provisioned: 0 })
    }

    /// The line of a client, if it is there.
    pub fn client_summary(&self, id: &str) -> Option<ClientSummary> {
        let (identity, &key) = self.by_identity.get_key_value(id)?;
        Some(summary(identity, key, self.clients.get(key)?))
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

    /// Names of groups that have members on this shard or are provisioned, and how far that went.
    pub fn group_names(&self, wanted: &Wanted, cursor: Cursor) -> (Vec<Arc<str>>, Cursor) {
        let (from, to) = piece(cursor.own, self.groups.len());
        let own = (from..to).filter_map(|at| Some(self.groups.get_index(at)?.0));
        let provisioned = self.rules.groups();
        let (first, end) = piece(cursor.provisioned, provisioned.len());
        let names = own.chain(provisioned.skip(first).take(end - first));
        let names = names.filter(|group| wanted.includes(group.as_str())).map(GroupName::shared);
        (names.collect(), Cursor { own: from, provisioned: first })
    }

    /// The line of a group, if it is there.
    pub fn group_summary(&self, group: &GroupName) -> Option<GroupSummary> {
        let joined = self.groups.get(group).map(|members| members.len());
        let provisioned = self.rules.members(group).map(|members| members.len());
        if joined.is_none() && provisioned.is_none() {
            return None;
        }
        let (joined, provisioned) = (joined.unwrap_or(0), provisioned.unwrap_or(0));
        Some(GroupSummary { group: group.clone(), joined, provisioned })
    }

    /// Ids of a group's members on this shard, provisioned ones included, and how far that went.
    pub fn member_names(
        &self,
        group: &GroupName,
        wanted: &Wanted,
        cursor: Cursor,
    ) -> (Vec<Arc<str>>, Cursor) {
        let members = self.groups.get(group);
        let (from, to) = piece(cursor.own, members.map_or(0, |members| members.len()));
        let keys = (from..to).filter_map(|at| Some(members?.get_index(at)?.0));
        let joined = keys.filter_map(|&key| self.clients.get(key)?.client_id.as_ref());
        let file = self.rules.members(group);
        let (first, end) = piece(cursor.provisioned, file.map_or(0, |members| members.len()));
        let provisioned = (first..end).filter_map(|at| file?.get_index(at));
        let shards = self.backbone.shards();
        let provisioned = provisioned.filter(|id| owner(id.as_str(), shards) == self.index);
        let names = joined.chain(provisioned).filter(|id| wanted.includes(id.as_str()));
        (names.map(ClientId::shared).collect(), Cursor { own: from, provisioned: first })
    }

    /// Whether a member of a group is connected as such; none: it is no member, or banned from it. Of a client of this shard.
    pub fn member_state(&self, group: &GroupName, id: &str) -> Option<bool> {
        let key = self.by_identity.get(id);
        let key = key.filter(|key| self.groups.get(group).is_some_and(|members| members.contains_key(*key)));
        if let Some(&key) = key {
            return Some(self.clients.get(key).is_some_and(|client| client.away.is_none()));
        }
        let is_provisioned = self.rules.members(group).is_some_and(|members| members.contains(id));
        (is_provisioned && !self.is_banned(id, Some(group))).then_some(false)
    }
}

/// The places that are looked at next: from where to where.
fn piece(left: usize, length: usize) -> (usize, usize) {
    let end = left.min(length);
    (end.saturating_sub(LOOKED_AT), end)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_to_an_end_and_leave_nothing_out_though_names_go() {
        let mut names: Vec<usize> = (0..5 * LOOKED_AT + 3).collect();
        let (mut left, mut seen, mut gone) = (usize::MAX, std::collections::BTreeSet::new(), Vec::new());
        while left > 0 {
            let (from, to) = piece(left, names.len());
            assert!(to - from <= LOOKED_AT && (from < to || names.is_empty()));
            seen.extend(names[from..to].iter().copied());
            left = from;
            // As in the tables here, the last one takes the place.
            for at in [from / 2, from / 3, names.len() - 5] {
                gone.push(names.swap_remove(at));
            }
        }
        let missed: Vec<_> = names.iter().filter(|name| !seen.contains(name)).collect();
        assert!(missed.is_empty(), "{missed:?}");
        assert!(gone.len() > 15);
        assert!(Cursor { own: 0, provisioned: 0 }.is_done() && !Cursor::START.is_done());
    }
}
