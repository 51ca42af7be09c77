//! Rules as an operator writes them, and their way to a checked snapshot.

use serde::{Deserialize, Serialize};

use super::{Action, Lists, Pattern, Role, Rule, Rules};
use crate::model::{ClientId, GroupName, Limits, Map, Set};
use crate::mqtt::topic;

/// The rules part of a configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesSource {
    /// `allow` or `deny` where no rule matches. Observing, moderating and administering are never allowed by
    /// default.
    #[serde(default)]
    pub default: Option<Effect>,
    /// The rules; deny goes before allow, whatever their order.
    #[serde(default)]
    pub rule: Vec<RuleSource>,
    /// Groups with members and lists that the operator provides.
    #[serde(default)]
    pub group: Vec<GroupSource>,
    /// Roles, and who has them.
    #[serde(default)]
    pub role: Vec<RoleSource>,
}

/// A group that the operator provides for. Members are provisioned: always members, online or not (S2).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSource {
    /// The group's name.
    pub name: String,
    /// Client ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// The only clients that may take part; `*` stands for any run of characters. Left out: whom the rules let.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Clients that may do nothing with it, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// A role, and who has it beside those whose credential gives it: whoever is in one of the lists.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSource {
    /// The role's name.
    pub name: String,
    /// Client ids; `*` stands for any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// User names, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Names in certificates, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// What its clients may have, instead of what all may.
    #[serde(default, skip_serializing_if = "RoleLimits::is_empty")]
    pub limits: RoleLimits,
}

/// Limits of a role's clients. What is left out is as for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleLimits {
    /// Signals a second (S7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals_per_second: Option<u32>,
    /// Urgent signals a second (S16).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urgent_signals_per_second: Option<u32>,
    /// Entries of each list of a signal, at most 128 (S4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_entries: Option<usize>,
    /// Bytes of a signal's payload, at most 8192 (S6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<usize>,
    /// Connections that one of its users may have, as all of his clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Groups that it may be in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
    /// Topic filters that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<usize>,
    /// Messages, and signals with `store`, kept for it while it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_messages: Option<usize>,
}

impl RoleLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and the others as they are for all.
    pub fn over(&self, all: &Limits) -> Limits {
        Limits {
            rate: self.signals_per_second.unwrap_or(all.rate),
            urgent_rate: self.urgent_signals_per_second.unwrap_or(all.urgent_rate),
            signal_list: self.list_entries.unwrap_or(all.signal_list),
            signal_payload: self.payload_bytes.unwrap_or(all.signal_payload),
            connections_per_user: self.connections.unwrap_or(all.connections_per_user),
            groups_per_client: self.groups.unwrap_or(all.groups_per_client),
            filters_per_client: self.subscriptions.unwrap_or(all.filters_per_client),
            stored_per_client: self.stored_messages.unwrap_or(all.stored_per_client),
            offline_messages: self.stored_messages.unwrap_or(all.offline_messages),
            ..all.clone()
        }
    }

    fn check(&self) -> Result<(), String> {
        let rate = |name: &str, value: Option<u32>| match value {
            Some(value) if !(1..=1_000_000).contains(&value) => {
                Err(format!("{name} = {value} is not within 1 to 1000000"))
            }
            _ => Ok(()),
        };
        let most = |name: &str, value: Option<usize>, most: usize| match value {
            Some(value) if value > most => Err(format!("{name} = {value} is over {most}")),
            _ => Ok(()),
        };
        rate("signals_per_second", self.signals_per_second)?;
        rate("urgent_signals_per_second", self.urgent_signals_per_second)?;
        most("list_entries", self.list_entries, bugle_protocol::MAX_LIST)?;
        most("payload_bytes", self.payload_bytes, bugle_protocol::MAX_PAYLOAD)?;
        rate("connections", self.connections)?;
        most("groups", self.groups, 1_000_000)?;
        most("subscriptions", self.subscriptions, 1_000_000)?;
        most("stored_messages", self.stored_messages, 10_000_000)
    }
}

/// What is wrong with rules that could be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesFault {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub text: String,
}

/// A table of the rules, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A `[[rule]]`.
    Rule(usize),
    /// A `[[group]]`.
    Group(usize),
    /// A `[[role]]`.
    Role(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, index) = match self {
            Self::Rule(index) => ("rule", index),
            Self::Group(index) => ("group", index),
            Self::Role(index) => ("role", index),
        };
        write!(f, "[[{kind}]] number {}", index + 1)
    }
}

impl std::fmt::Display for RulesFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for RulesFault {}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
}

/// One rule. A list that is left out matches everything; of `groups`, `to` and `topics` those that are there
/// say what kind of object the rule is about.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSource {
    /// `allow` or `deny`.
    pub effect: Effect,
    /// What is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
    /// Client ids that do it; `*` stands for any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// User names that do it, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Roles of which it has one, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Names in its certificate, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Groups that it is done to, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Clients that it is done to, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Topic filters that it is done to; `%c` is the client's id, `%u` its user name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
}

impl Rules {
    /// Checks the rules and makes a snapshot.
    pub fn compile(source: &RulesSource) -> Result<Self, RulesFault> {
        let rules = source.rule.iter().enumerate().map(|(index, rule)| rule.checked(index));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let roles = source.role.iter().enumerate().map(|(index, role)| role.checked(index));
        let roles = roles.collect::<Result<Vec<_>, _>>()?;
        let mut concerned =
            rules.iter().fold(0, |bits, rule| bits | if rule.actions == 0 { u16::MAX } else { rule.actions });
        let mut members: Map<GroupName, Set<ClientId>> = Map::default();
        let mut groups_of: Map<ClientId, Vec<GroupName>> = Map::default();
        let mut lists = Map::default();
        for (place, group) in source.group.iter().enumerate() {
            let wrong = |text: String| RulesFault { place: Place::Group(place), text };
            let name = GroupName::new(&group.name).ok_or_else(|| {
                wrong(format!("name = '{}' is not 1-64 of A-Z a-z 0-9 . _ : -", group.name))
            })?;
            if members.contains_key(&name) {
                return Err(wrong(format!("group '{name}' is there twice")));
            }
            let ids = group
                .members
                .iter()
                .map(|id| ClientId::new(id).ok_or_else(|| wrong(format!("member '{id}' is no client id"))));
            let ids = ids.collect::<Result<Set<_>, _>>()?;
            for id in &ids {
                groups_of.entry(id.clone()).or_default().push(name.clone());
            }
            if !(group.allow.is_empty() && group.deny.is_empty()) {
                concerned = u16::MAX;
                let (allow, deny) = (patterns(&group.allow), patterns(&group.deny));
                lists.insert(name.clone(), Lists { place, allow, deny });
            }
            members.insert(name, ids);
        }
        let allow_by_default = source.default != Some(Effect::Deny);
        Ok(Self { allow_by_default, rules, roles, lists, concerned, members, groups_of })
    }
}

impl RuleSource {
    fn checked(&self, index: usize) -> Result<Rule, RulesFault> {
        if let Some(filter) = self.topics.iter().find(|filter| !topic::is_valid_filter(filter)) {
            let text = format!("'{filter}' is no topic filter");
            return Err(RulesFault { place: Place::Rule(index), text });
        }
        Ok(Rule {
            allow: self.effect == Effect::Allow,
            actions: self.actions.iter().fold(0, |bits, action| bits | 1 << *action as u16),
            clients: patterns(&self.clients),
            users: patterns(&self.users),
            roles: patterns(&self.roles),
            certificates: patterns(&self.certificates),
            groups: patterns(&self.groups),
            to: patterns(&self.to),
            topics: self.topics.clone(),
        })
    }
}

impl RoleSource {
    fn checked(&self, index: usize) -> Result<Role, RulesFault> {
        if self.name.is_empty() || self.name.contains('*') {
            let text = format!("name = '{}' is no name of a role", self.name);
            return Err(RulesFault { place: Place::Role(index), text });
        }
        self.limits.check().map_err(|text| RulesFault { place: Place::Role(index), text })?;
        let limits = (!self.limits.is_empty()).then(|| self.limits.clone());
        Ok(Role {
            name: self.name.clone(),
            limits,
            clients: patterns(&self.clients),
            users: patterns(&self.users),
            certificates: patterns(&self.certificates),
        })
    }
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}
