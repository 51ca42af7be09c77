//! Kick, mute and ban (S14): who asks for it, what is in force, and where that is looked at.
//!
//! ```text
//! client ── rules ──► its shard ── Moderate ──► the moderated client's shard ── (committed) ── Moderated ──► the answer
//! operator ─────────────────────────────────────►
//! ```
//!
//! A client is moderated on the shard that owns its id, and nowhere else: there it connects, joins and sends, and its will
//! fires. So what is in force there holds for the client's next message, and nothing has to be told to other shards.
//! [`Shard::judge_moderation`] is the one place where a send, a join or a connect is held against it.
//!
//! Whatever changes is written down by [`Shard::keep_moderation`], and read again by [`Shard::restore_moderation`].
//! docs/decisions/0011 has the readings of S14.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::outbox::AfterCommit;
use super::timers::Timer;
use super::{ConnectionKey, ModerationKey, Shard};
use crate::backbone::{Backbone, PeerMessage, ShardIndex, owner};
use crate::model::{
    ClientId, Filter, GroupName, Identity, Instant, Map, Moderation, ModerationAct, ModerationRequest,
    Reason, Refusal, Reply, RequestId,
};
use crate::rules::{Action, Object};
use crate::store::{RecordKind, StoreOperation, WallTime};

/// Who waits to hear that a moderation on another shard is in force.
pub(super) struct AskedModeration {
    /// The connection on which its session began.
    origin: ConnectionKey,
    request: RequestId,
}

/// A mute or a ban of one client.
#[derive(Clone, Debug)]
struct Restraint {
    /// None: everywhere.
    group: Option<GroupName>,
    is_ban: bool,
    until: Option<Instant>,
    by: Identity,
    why: Arc<str>,
}

impl Restraint {
    fn act(&self) -> ModerationAct {
        if self.is_ban { ModerationAct::Ban } else { ModerationAct::Mute }
    }

    fn refusal(&self, now: Instant) -> Refusal {
        let reason = if self.is_ban { Reason::Banned } else { Reason::Muted };
        let what = if self.is_ban { "banned" } else { "muted" };
        let seconds = self.until.map(|until| until.millis_since(now).div_ceil(1000));
        Refusal::new(reason, told(what, self.group.as_ref(), seconds, &self.why))
    }
}

/// `muted in floor3 for 600 s: language`.
fn told(what: &str, group: Option<&GroupName>, seconds: Option<u64>, why: &str) -> String {
    let mut text = what.to_owned();
    if let Some(group) = group {
        let _ = write!(text, " in {group}");
    }
    if let Some(seconds) = seconds {
        let _ = write!(text, " for {seconds} s");
    }
    if !why.is_empty() {
        let _ = write!(text, ": {why}");
    }
    text
}

/// What is in force for the clients of a shard.
#[derive(Debug, Default)]
pub(super) struct Moderations {
    by_client: Map<ClientId, Vec<Restraint>>,
    count: usize,
}

impl Moderations {
    /// What keeps a client from sending to a group, or from sending at all.
    fn find(&self, client: &str, group: Option<&GroupName>, only_bans: bool) -> Option<&Restraint> {
        // Nearly always it is empty.
        let restraints = if self.count == 0 { None } else { self.by_client.get(client) };
        restraints?.iter().find(|restraint| {
            (restraint.is_ban || !only_bans)
                && (restraint.group.is_none() || restraint.group.as_ref() == group)
        })
    }

    fn put(&mut self, client: &ClientId, restraint: Restraint) {
        let restraints = self.by_client.entry(client.clone()).or_default();
        let same = |old: &&mut Restraint| old.is_ban == restraint.is_ban && old.group == restraint.group;
        match restraints.iter_mut().find(same) {
            Some(old) => *old = restraint,
            None => {
                restraints.push(restraint);
                self.count += 1;
            }
        }
    }

    fn contains(&self, client: &ClientId, group: Option<&GroupName>, is_ban: bool) -> bool {
        self.by_client.get(client).is_some_and(|restraints| {
            restraints.iter().any(|old| old.is_ban == is_ban && old.group.as_ref() == group)
        })
    }

    fn remove(&mut self, client: &ClientId, group: Option<&GroupName>, is_ban: bool) -> bool {
        self.retain(|other, old| !(other == client && old.is_ban == is_ban && old.group.as_ref() == group))
    }

    /// Whether something was taken out.
    fn retain(&mut self, keep: impl Fn(&ClientId, &Restraint) -> bool) -> bool {
        let before = self.count;
        self.by_client.retain(|client, restraints| {
            restraints.retain(|restraint| keep(client, restraint));
            !restraints.is_empty()
        });
        self.count = self.by_client.values().map(Vec::len).sum();
        self.count != before
    }
}

/// How it is written down; the record's key says the rest.
#[derive(Serialize, Deserialize)]
struct KeptModeration {
    by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
    /// Milliseconds since 1970; none: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// `mute floor3`, `ban`.
fn record_key(act: ModerationAct, group: Option<&GroupName>) -> Arc<str> {
    match group {
        Some(group) => format!("{act} {group}").into(),
        None => act.key().into(),
    }
}

impl Shard {
    /// A kick, mute or ban, or the end of one, that an operator asks for in the name `by`; no rule is asked. To be
    /// given to the shard that is [`owner`] of the client's id.
    ///
    /// When it returns it is in force: nothing more that the client sends is accepted against it. With a durable store it is in
    /// the next batch that [`poll_store`](Self::poll_store) gives. Fails with `TOO_MANY` when
    /// [`moderations_per_shard`](crate::model::Limits::moderations_per_shard) are in force (a kick, and the end of a moderation, never
    /// do), with `BAD_OPTION` for a request that contradicts itself, and with `INTERNAL` on another shard. That a client isn't
    /// there, or isn't moderated, is no error (S14).
    pub fn handle_moderation(
        &mut self,
        request: &ModerationRequest,
        by: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let result = self.moderate(request, &Identity::new(by), now);
        self.resume_sessions(now);
        result
    }

    /// All mutes and bans that are in force for clients of this shard, at most
    /// [`moderations_per_shard`](crate::model::Limits::moderations_per_shard).
    pub fn moderations(&self) -> Vec<Moderation> {
        let all = self.moderations.by_client.iter();
        all.flat_map(|(client, restraints)| self.listed(client, restraints)).collect()
    }

    /// Those among them of one client.
    pub(super) fn moderations_of(&self, client: &str) -> Vec<Moderation> {
        let found = self.moderations.by_client.get_key_value(client);
        found.map(|(client, restraints)| self.listed(client, restraints)).unwrap_or_default()
    }

    fn listed(&self, client: &ClientId, restraints: &[Restraint]) -> Vec<Moderation> {
        let one = |restraint: &Restraint| Moderation {
            act: restraint.act(),
            client: client.clone(),
            group: restraint.group.clone(),
            until: restraint.until.map(|until| self.store.wall(until)),
            by: restraint.by.clone(),
            why: restraint.why.clone(),
        };
        restraints.iter().map(one).collect()
    }

    /// A client asks for a moderation: it needs the right to, in the group or over the client.
    pub(super) fn handle_moderate(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        moderation: Box<ModerationRequest>,
        now: Instant,
    ) {
        let object = match &moderation.group {
            Some(group) => Object::Group(group.as_str()),
            None => Object::Client(moderation.client.as_str()),
        };
        if !self.client_may(key, Action::Moderate, object) {
            let refusal = Refusal::new(
                Reason::NotAuthorized,
                "the rules don't let this client kick, mute or ban there",
            );
            if let Some(by) = self.clients.get(key).and_then(|client| client.identity.clone()) {
                self.note_moderation(&moderation, &by, &Err(refusal.clone()));
            }
            return self.refuse(key, request, refusal, now);
        }
        let Some(by) = self.clients.get(key).and_then(|client| client.identity.clone()) else { return };
        let shard = owner(moderation.client.as_str(), self.backbone.shards());
        if shard == self.index {
            return match self.moderate(&moderation, &by, now) {
                Ok(()) => self.reply_when_committed(key, Reply::Done(request), now),
                Err(refusal) => self.refuse(key, request, refusal, now),
            };
        }
        if !self.backbone.has_room(shard) {
            let text = "the queue to a part of the gateway is full";
            return self.refuse(key, request, Refusal::new(Reason::Overflow, text), now);
        }
        // As many as sessions have requests without an answer.
        let asked = self.asked_moderations.insert(AskedModeration { origin: self.origin(key), request });
        self.backbone.forward(shard, PeerMessage::Moderate { asked, moderation, by });
    }

    /// Another shard's client, or operator, asks for it.
    pub(super) fn moderate_for_peer(
        &mut self,
        from: ShardIndex,
        asked: ModerationKey,
        moderation: &ModerationRequest,
        by: &Identity,
        now: Instant,
    ) {
        let mark = self.store.mark();
        let result = self.moderate(moderation, by, now);
        let answer = PeerMessage::Moderated { asked, result };
        match self.store.since(mark) {
            super::outbox::Kept::WhenCommitted => self.store.after(AfterCommit::Peer(from, answer)),
            _ => self.backbone.forward(from, answer),
        }
    }

    /// Another shard has done what a client of this one asked for.
    pub(super) fn handle_moderated(
        &mut self,
        asked: ModerationKey,
        result: Result<(), Refusal>,
        now: Instant,
    ) {
        let Some(AskedModeration { origin, request }) = self.asked_moderations.remove(asked) else { return };
        let key = self.current(origin);
        match result {
            Ok(()) => self.reply(key, Reply::Done(request), now),
            Err(refusal) => self.refuse(key, request, refusal, now),
        }
    }

    /// Why a client may not send, to this group or, without one, to a client.
    pub(super) fn judge_moderation(
        &self,
        client: &str,
        group: Option<&GroupName>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.moderations.find(client, group, false).map_or(Ok(()), |found| Err(found.refusal(now)))
    }

    /// Why a client may not join this group or, without one, connect.
    pub(super) fn judge_ban(
        &self,
        client: &str,
        group: Option<&GroupName>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.moderations.find(client, group, true).map_or(Ok(()), |found| Err(found.refusal(now)))
    }

    /// Whether a client is banned from this group, or everywhere.
    pub(super) fn is_banned(&self, client: &str, group: Option<&GroupName>) -> bool {
        self.moderations.find(client, group, true).is_some()
    }

    /// Carries it out, and notes that.
    fn moderate(&mut self, request: &ModerationRequest, by: &Identity, now: Instant) -> Result<(), Refusal> {
        let result = self.carry_out(request, by, now);
        self.note_moderation(request, by, &result);
        result
    }

    fn carry_out(&mut self, request: &ModerationRequest, by: &Identity, now: Instant) -> Result<(), Refusal> {
        let ModerationRequest { act, client, group, seconds, why } = request;
        if owner(client.as_str(), self.backbone.shards()) != self.index {
            return Err(Refusal::new(Reason::Internal, "this client is moderated by another shard"));
        }
        if *seconds == Some(0) || (seconds.is_some() && !act.lasts()) {
            let text = "a mute or a ban lasts for at least one second; nothing else has a time";
            return Err(Refusal::new(Reason::BadOption, text));
        }
        let is_ban = matches!(act, ModerationAct::Ban | ModerationAct::Unban);
        match act {
            ModerationAct::Mute | ModerationAct::Ban => {
                let is_full = self.moderations.count >= self.limits.moderations_per_shard;
                if is_full && !self.moderations.contains(client, group.as_ref(), is_ban) {
                    let text = "as many mutes and bans are in force as the gateway keeps; lift some first";
                    return Err(Refusal::new(Reason::TooMany, text));
                }
                let until = seconds.map(|seconds| now + u64::from(seconds) * 1000);
                let (group, by, why) = (group.clone(), by.clone(), why.clone());
                let restraint = Restraint { group, is_ban, until, by, why };
                self.keep_moderation(client, *act, &restraint);
                self.restrain(client, restraint);
            }
            ModerationAct::Unmute | ModerationAct::Unban => {
                let lifted = if is_ban { ModerationAct::Ban } else { ModerationAct::Mute };
                if self.moderations.remove(client, group.as_ref(), is_ban) {
                    self.store.push(StoreOperation::RemoveRecord {
                        kind: RecordKind::Moderation,
                        owner: client.as_str().into(),
                        key: record_key(lifted, group.as_ref()),
                    });
                }
                self.moderation_changed();
            }
            ModerationAct::Kick => {}
        }
        if matches!(act, ModerationAct::Kick | ModerationAct::Ban) {
            let seconds = seconds.map(u64::from);
            let (reason, what) = match act {
                ModerationAct::Ban => (Reason::Banned, "banned"),
                _ => (Reason::Kicked, "kicked out"),
            };
            self.put_out(
                client,
                group.as_ref(),
                Refusal::new(reason, told(what, group.as_ref(), seconds, why)),
                now,
            );
        }
        Ok(())
    }

    /// A mute or ban is in force from here on.
    fn restrain(&mut self, client: &ClientId, restraint: Restraint) {
        if let Some(until) = restraint.until {
            self.timers.push(until, Timer::Moderation);
        }
        self.moderations.put(client, restraint);
        self.moderation_changed();
    }

    /// What was found out from the moderations before doesn't hold any more: ways of signals that are kept.
    fn moderation_changed(&mut self) {
        self.counters.moderations = self.moderations.count as u64;
        self.by_identity.touch();
        // A provisioned member that is banned is none.
        self.look_at_all();
    }

    /// Ends what is over.
    pub(super) fn expire_moderations(&mut self, now: Instant) {
        self.moderations.retain(|_, restraint| restraint.until.is_none_or(|until| until > now));
        self.moderation_changed();
    }

    /// The client leaves the group or the gateway, now. Who kept a session for it has none any more.
    fn put_out(&mut self, client: &ClientId, group: Option<&GroupName>, why: Refusal, now: Instant) {
        let Some(&key) = self.by_identity.get(client.as_str()) else { return };
        let Some(found) = self.clients.get_mut(key) else { return };
        match group {
            Some(group) if found.groups.contains(group) => {
                self.end_subscription_for(key, Filter::Group(group.clone()), why, now);
            }
            Some(_) => {}
            None if found.away.is_some() => self.end_away(key, now),
            None => {
                found.session_expiry = 0;
                self.end_client(key, true, now);
                self.close(key, why, now);
            }
        }
    }

    /// A mute or ban is to outlive the gateway (S14).
    fn keep_moderation(&mut self, client: &ClientId, act: ModerationAct, restraint: &Restraint) {
        let until = restraint.until.map(|until| self.store.wall(until));
        let kept = KeptModeration {
            by: restraint.by.as_str().to_owned(),
            why: restraint.why.to_string(),
            until: until.map(|until| until.0),
        };
        self.store.push(StoreOperation::PutRecord {
            kind: RecordKind::Moderation,
            owner: client.as_str().into(),
            key: record_key(act, restraint.group.as_ref()),
            // Nothing in it can't be written.
            value: serde_json::to_string(&kept).unwrap_or_default(),
            expires: until,
        });
    }

    /// What was in force before the gateway started. None: it can't be read.
    pub(super) fn restore_moderation(&mut self, owner: &str, key: &str, value: &str) -> Option<()> {
        let kept: KeptModeration = serde_json::from_str(value).ok()?;
        let client = ClientId::new(owner)?;
        let (act, group) = match key.split_once(' ') {
            Some((act, group)) => (act, Some(GroupName::new(group)?)),
            None => (key, None),
        };
        let act = ModerationAct::from_key(act).filter(|act| act.lasts())?;
        let until = kept.until.map(|until| self.store.moment(WallTime(until)));
        let (by, why) = (Identity::new(&kept.by), kept.why.into());
        self.restrain(&client, Restraint { group, is_ban: act == ModerationAct::Ban, until, by, why });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restraint(group: Option<&str>, is_ban: bool) -> Restraint {
        let group = group.and_then(GroupName::new);
        Restraint { group, is_ban, until: None, by: Identity::new("op"), why: "".into() }
    }

    #[test]
    fn s14_a_ban_holds_for_joins_and_sends_and_a_mute_for_sends_alone() {
        let client = ClientId::new("c").unwrap();
        let (g, h) = (GroupName::new("g").unwrap(), GroupName::new("h").unwrap());
        let mut all = Moderations::default();
        all.put(&client, restraint(Some("g"), false));
        assert!(all.find("c", Some(&g), false).is_some() && all.find("c", Some(&g), true).is_none());
        assert!(all.find("c", Some(&h), false).is_none() && all.find("c", None, false).is_none());
        assert!(all.find("d", Some(&g), false).is_none());
        all.put(&client, restraint(None, true));
        assert!(all.find("c", Some(&h), true).is_some() && all.find("c", None, true).is_some());
        all.put(&client, restraint(None, true));
        assert_eq!(all.count, 2, "the same twice is one");
        assert!(!all.remove(&client, Some(&g), true), "it is a mute");
        assert!(all.remove(&client, Some(&g), false) && all.remove(&client, None, true));
        assert_eq!((all.count, all.by_client.len()), (0, 0));
    }

    #[test]
    fn s14_the_client_is_told_where_how_long_and_why() {
        let group = GroupName::new("floor3");
        assert_eq!(
            told("muted", group.as_ref(), Some(600), "language"),
            "muted in floor3 for 600 s: language"
        );
        assert_eq!(told("banned", None, None, ""), "banned");
    }
}
