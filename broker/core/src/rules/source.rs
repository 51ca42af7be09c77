//! Rules as an operator writes them, and their way to a checked snapshot.

use serde::{Deserialize, Serialize};

use super::{Action, Pattern, Rule, Rules};
use crate::model::{ClientId, GroupName, Map, Set};
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
    /// Groups with members that the operator provides.
    #[serde(default)]
    pub group: Vec<GroupSource>,
}

/// A group with provisioned members: they are always members, online or not (S2).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSource {
    /// The group's name.
    pub name: String,
    /// Client ids.
    #[serde(default)]
    pub members: Vec<String>,
}

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
    /// Checks the rules and makes a snapshot. The error says which rule is wrong, and how.
    pub fn compile(source: &RulesSource) -> Result<Self, String> {
        let rules = source.rule.iter().enumerate().map(|(index, rule)| {
            let wrong = |what: String| format!("rule {} ({:?}): {what}", index + 1, rule.effect);
            for filter in &rule.topics {
                if !topic::is_valid_filter(filter) {
                    return Err(wrong(format!("'{filter}' is no topic filter")));
                }
            }
            let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
            Ok(Rule {
                allow: rule.effect == Effect::Allow,
                actions: rule.actions.iter().fold(0, |bits, action| bits | 1 << *action as u16),
                clients: patterns(&rule.clients),
                users: patterns(&rule.users),
                roles: patterns(&rule.roles),
                certificates: patterns(&rule.certificates),
                groups: patterns(&rule.groups),
                to: patterns(&rule.to),
                topics: rule.topics.clone(),
            })
        });
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let concerned =
            rules.iter().fold(0, |bits, rule| bits | if rule.actions == 0 { u16::MAX } else { rule.actions });
        let mut members: Map<GroupName, Set<ClientId>> = Map::default();
        let mut groups_of: Map<ClientId, Vec<GroupName>> = Map::default();
        for group in &source.group {
            let name = GroupName::new(&group.name).ok_or_else(|| {
                format!("group '{}': its name is not 1-64 of A-Z a-z 0-9 . _ : -", group.name)
            })?;
            if members.contains_key(&name) {
                return Err(format!("group '{name}' is there twice"));
            }
            let ids = group
                .members
                .iter()
                .map(|id| ClientId::new(id).ok_or_else(|| format!("group '{name}': '{id}' is no client id")));
            let ids = ids.collect::<Result<Set<_>, _>>()?;
            for id in &ids {
                groups_of.entry(id.clone()).or_default().push(name.clone());
            }
            members.insert(name, ids);
        }
        let allow_by_default = source.default != Some(Effect::Deny);
        Ok(Self { allow_by_default, rules, concerned, members, groups_of })
    }
}
