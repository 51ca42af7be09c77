//! Who may do what: one pure function, [`decide`], for both protocols (S15).
//!
//! Deny goes before allow, and the default comes last. Nothing here knows a session, a socket or a clock.

mod pattern;
mod source;

pub use pattern::Pattern;
pub use source::{Effect, GroupSource, RuleSource, RulesSource};

use crate::model::{ClientId, GroupName, Map, Principal, Set};
use crate::mqtt::topic;

/// What someone wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Action {
    /// Connect at all.
    Connect,
    /// Send a signal to a group or a client.
    Send,
    /// Send an urgent one (S16); [`Action::Send`] is needed as well.
    Urgent,
    /// Join a group.
    Join,
    /// Receive signals from a client or through a group.
    Receive,
    /// See signals to others through a wildcard (T6).
    Observe,
    /// List and watch who is there (S13).
    Presence,
    /// Kick, mute and ban (S14).
    Moderate,
    /// Publish to a plain topic.
    Publish,
    /// Subscribe to a plain topic.
    Subscribe,
    /// Operate the gateway.
    Admin,
}

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The client's id.
    pub client: &'a str,
    /// What it has proved to be.
    pub principal: &'a Principal,
}

impl<'a> Actor<'a> {
    /// A client that has proved nothing but, at most, its id.
    pub fn anonymous(client: &'a str) -> Self {
        Self { client, principal: Principal::ANONYMOUS }
    }
}

/// What it is about.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    /// The gateway itself.
    Gateway,
    /// A group.
    Group(&'a str),
    /// A client.
    Client(&'a str),
    /// A topic name, or a topic filter for [`Action::Subscribe`].
    Topic(&'a str),
}

/// The answer, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may.
    pub allowed: bool,
    /// The deciding rule's place in the file, from 0; none where the default decided.
    pub rule: Option<usize>,
}

/// One checked rule. Lists that are empty match everything of their kind.
#[derive(Clone, Debug)]
struct Rule {
    allow: bool,
    /// Bit n for the action with the number n; 0 for all.
    actions: u16,
    clients: Vec<Pattern>,
    users: Vec<Pattern>,
    roles: Vec<Pattern>,
    certificates: Vec<Pattern>,
    groups: Vec<Pattern>,
    to: Vec<Pattern>,
    topics: Vec<String>,
}

/// A snapshot of all rules.
#[derive(Clone, Debug)]
pub struct Rules {
    allow_by_default: bool,
    rules: Vec<Rule>,
    /// Actions that some rule names or, naming none, concerns.
    concerned: u16,
    /// Provisioned members by group, and the other way round (S2).
    members: Map<GroupName, Set<ClientId>>,
    groups_of: Map<ClientId, Vec<GroupName>>,
}

impl Rules {
    /// What holds when nothing is configured and anyone on the loopback may connect: everything but what
    /// reveals others' signals or governs them.
    pub fn open() -> Self {
        Self { allow_by_default: true, ..Self::closed() }
    }

    /// Nothing is allowed but what a rule allows.
    pub fn closed() -> Self {
        Self {
            allow_by_default: false,
            rules: Vec::new(),
            concerned: 0,
            members: Map::default(),
            groups_of: Map::default(),
        }
    }

    /// The provisioned members of a group, none if it has none (S2).
    pub fn members(&self, group: &GroupName) -> Option<&Set<ClientId>> {
        self.members.get(group)
    }

    /// The groups that a client is a provisioned member of.
    pub fn groups_of(&self, client: &ClientId) -> &[GroupName] {
        self.groups_of.get(client).map_or(&[], Vec::as_slice)
    }

    /// Whether every actor gets the same answer to this action, which is then the default's.
    pub fn is_uniform(&self, action: Action) -> bool {
        self.concerned & (1 << action as u16) == 0
    }

    fn default_for(&self, action: Action) -> bool {
        self.allow_by_default && !matches!(action, Action::Observe | Action::Moderate | Action::Admin)
    }
}

/// Whether `actor` may do `action` to `object` under `rules`: denied by the first deny that matches, else
/// allowed by the first allow that matches, else as the default has it.
pub fn decide(actor: Actor<'_>, action: Action, object: Object<'_>, rules: &Rules) -> Verdict {
    if rules.is_uniform(action) {
        return Verdict { allowed: rules.default_for(action), rule: None };
    }
    let matching = |allow: bool| {
        rules.rules.iter().position(|rule| rule.allow == allow && rule.matches(actor, action, object))
    };
    if let Some(rule) = matching(false) {
        return Verdict { allowed: false, rule: Some(rule) };
    }
    match matching(true) {
        Some(rule) => Verdict { allowed: true, rule: Some(rule) },
        None => Verdict { allowed: rules.default_for(action), rule: None },
    }
}

impl Rule {
    fn matches(&self, actor: Actor<'_>, action: Action, object: Object<'_>) -> bool {
        let any = |patterns: &[Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
        let Principal { user, roles, certificate } = actor.principal;
        (self.actions == 0 || self.actions & (1 << action as u16) != 0)
            && (self.clients.is_empty() || any(&self.clients, actor.client))
            && (self.users.is_empty() || user.as_ref().is_some_and(|user| any(&self.users, user)))
            && (self.roles.is_empty() || roles.iter().any(|role| any(&self.roles, role)))
            && (self.certificates.is_empty()
                || certificate.as_ref().is_some_and(|name| any(&self.certificates, name)))
            && match object {
                _ if self.groups.is_empty() && self.to.is_empty() && self.topics.is_empty() => true,
                Object::Gateway => false,
                Object::Group(group) => any(&self.groups, group),
                Object::Client(client) => any(&self.to, client),
                Object::Topic(name) => self.topics.iter().any(|filter| self.concerns(filter, name, actor)),
            }
    }

    /// Whether a rule's topic filter, with `%c` and `%u` filled in, concerns a topic name or a filter that is subscribed to:
    /// what is allowed must lie within it; what is denied mustn't touch it.
    fn concerns(&self, filter: &str, wanted: &str, actor: Actor<'_>) -> bool {
        let concerns = if self.allow { topic::covers } else { topic::overlap };
        if !filter.contains('%') {
            return concerns(filter, wanted);
        }
        let mut filled = filter.to_owned();
        for (key, id) in [("%c", Some(actor.client)), ("%u", actor.principal.user.as_deref())] {
            match id {
                _ if !filter.contains(key) => {}
                None => return false,
                // An id with a wildcard or a level separator in it must not widen what is allowed, or narrow what is denied.
                Some(id) if id.contains(['+', '#', '/', '%']) => return !self.allow,
                Some(id) => filled = filled.replace(key, id),
            }
        }
        concerns(&filled, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(toml_like: serde_json::Value) -> Rules {
        let source: RulesSource = serde_json::from_value(toml_like).unwrap();
        Rules::compile(&source).unwrap()
    }

    fn may(rules: &Rules, client: &str, action: Action, object: Object<'_>) -> bool {
        decide(Actor::anonymous(client), action, object, rules).allowed
    }

    #[test]
    fn open_rules_allow_all_but_what_reveals_or_governs_others() {
        let open = Rules::open();
        assert!(may(&open, "a", Action::Send, Object::Group("g")));
        assert!(may(&open, "a", Action::Urgent, Object::Client("b")));
        for action in [Action::Observe, Action::Moderate, Action::Admin] {
            assert!(!may(&open, "a", action, Object::Group("g")), "{action:?}");
        }
    }

    #[test]
    fn deny_goes_before_allow_whatever_the_order() {
        let rules = rules(serde_json::json!({"rule": [
            {"effect": "allow", "actions": ["send"], "groups": ["floor*"]},
            {"effect": "deny", "clients": ["guest-*"], "actions": ["send"]},
        ], "default": "deny"}));
        assert!(may(&rules, "app", Action::Send, Object::Group("floor3")));
        assert!(!may(&rules, "guest-1", Action::Send, Object::Group("floor3")));
        assert!(!may(&rules, "app", Action::Send, Object::Group("roof")));
        assert!(!may(&rules, "app", Action::Join, Object::Group("floor3")), "default deny");
        let verdict = decide(Actor::anonymous("guest-1"), Action::Send, Object::Group("floor3"), &rules);
        assert_eq!(verdict.rule, Some(1));
    }

    #[test]
    fn users_roles_and_certificates_are_told_apart_and_all_lists_of_a_rule_have_to_match() {
        let rules = rules(serde_json::json!({"rule": [
            {"effect": "allow", "actions": ["send"], "users": ["anna"], "clients": ["app-*"]},
            {"effect": "allow", "actions": ["join"], "roles": ["ops*"]},
            {"effect": "allow", "actions": ["observe"], "certificates": ["*.site.example"]},
            {"effect": "allow", "actions": ["publish"], "topics": ["home/%u/#"]},
        ], "default": "deny"}));
        let anna = Principal {
            user: Some("anna".into()),
            roles: vec!["guest".into(), "ops-night".into()],
            certificate: Some("door.site.example".into()),
        };
        let (plain, named) = (Principal::user("anna"), Principal::user("door.site.example"));
        let may = |client, principal, action, object| {
            decide(Actor { client, principal }, action, object, &rules).allowed
        };
        let group = Object::Group("g");
        assert!(may("app-1", &anna, Action::Send, group));
        assert!(!may("lamp-1", &anna, Action::Send, group), "another client id");
        assert!(!may("app-1", Principal::ANONYMOUS, Action::Send, group), "no user");
        assert!(may("x", &anna, Action::Join, group));
        assert!(!may("x", &plain, Action::Join, group), "no role");
        assert!(may("x", &anna, Action::Observe, group));
        assert!(!may("x", &named, Action::Observe, group), "no certificate");
        assert!(may("x", &anna, Action::Publish, Object::Topic("home/anna/door")));
        assert!(!may("anna", Principal::ANONYMOUS, Action::Publish, Object::Topic("home/anna/door")));
    }

    #[test]
    fn a_subscription_wider_than_its_rule_went_around_it() {
        let rules = rules(serde_json::json!({"rule": [
            {"effect": "allow", "actions": ["subscribe"], "clients": ["guest"], "topics": ["home/+"]},
            {"effect": "deny", "actions": ["subscribe"], "clients": ["guest"], "topics": ["secret/#"]},
            {"effect": "allow", "actions": ["subscribe"], "clients": ["app"]},
        ], "default": "deny"}));
        assert!(may(&rules, "guest", Action::Subscribe, Object::Topic("home/lamp")));
        assert!(
            !may(&rules, "guest", Action::Subscribe, Object::Topic("home/#")),
            "it has home/lamp/state, too"
        );
        assert!(may(&rules, "app", Action::Subscribe, Object::Topic("#")));
        let denied = serde_json::json!({"rule": [
            {"effect": "deny", "actions": ["subscribe"], "topics": ["secret/#"]}]});
        let rules = self::rules(denied);
        for filter in ["secret/door", "secret/#", "#", "+/door", "+/#"] {
            assert!(
                !may(&rules, "guest", Action::Subscribe, Object::Topic(filter)),
                "{filter} has secret/door"
            );
        }
        assert!(may(&rules, "guest", Action::Subscribe, Object::Topic("home/#")));
    }

    #[test]
    fn topic_rules_fill_in_the_client_and_are_not_widened_by_its_name() {
        let rules = rules(serde_json::json!({"rule": [
            {"effect": "allow", "actions": ["publish", "subscribe"], "topics": ["home/%c/#"]},
        ], "default": "deny"}));
        assert!(may(&rules, "lamp", Action::Publish, Object::Topic("home/lamp/state")));
        assert!(!may(&rules, "lamp", Action::Publish, Object::Topic("home/door/state")));
        assert!(!may(&rules, "+", Action::Publish, Object::Topic("home/door/state")));
        let source = serde_json::json!({"rule": [{"effect": "deny", "topics": ["home/%c/#"]}]});
        let denied = self::rules(source);
        assert!(!may(&denied, "lamp", Action::Publish, Object::Topic("home/lamp/state")));
        assert!(may(&denied, "lamp", Action::Publish, Object::Topic("home/door/state")));
        assert!(!may(&denied, "+", Action::Publish, Object::Topic("home/door/state")));
        assert!(!may(&rules, "lamp", Action::Subscribe, Object::Topic("#")));
        assert!(!may(&rules, "lamp", Action::Subscribe, Object::Topic("home/+/state")));
        assert!(may(&rules, "lamp", Action::Subscribe, Object::Topic("home/lamp/#")));
    }
}
