//! Who may do what: one pure function, [`decide`], for both protocols (S15).
//!
//! Deny goes before allow, and the default comes last; a group's own lists are looked at with the rules. Nothing here knows a
//! session, a socket or a clock. docs/security.md has the language.

mod pattern;
mod source;

pub use pattern::Pattern;
pub use source::{Effect, GroupSource, Place, RoleLimits, RoleSource, RuleSource, RulesFault, RulesSource};

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
    /// What decided.
    pub by: DecidedBy,
}

/// What a verdict comes from. Places are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// No rule or list matched.
    Default,
    /// The rule at this place.
    Rule(usize),
    /// The standing deny list of the group at this place: the client is on it.
    DenyList(usize),
    /// The standing allow list of the group at this place: the client is on it, or isn't.
    AllowList(usize),
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

/// Who has a role beside those whose credential gives it: whoever one of these matches.
#[derive(Clone, Debug)]
struct Role {
    name: String,
    clients: Vec<Pattern>,
    users: Vec<Pattern>,
    certificates: Vec<Pattern>,
    /// What its clients may have, where that is another thing than for all.
    limits: Option<RoleLimits>,
}

/// A group's standing lists of clients.
#[derive(Clone, Debug)]
struct Lists {
    /// The group's place in the file.
    place: usize,
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
}

/// A snapshot of all rules.
#[derive(Clone, Debug)]
pub struct Rules {
    allow_by_default: bool,
    rules: Vec<Rule>,
    roles: Vec<Role>,
    lists: Map<GroupName, Lists>,
    /// Actions that some rule or list names or, naming none, concerns.
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
            roles: Vec::new(),
            lists: Map::default(),
            concerned: 0,
            members: Map::default(),
            groups_of: Map::default(),
        }
    }

    /// The provisioned members of a group, none if it has none (S2).
    pub fn members(&self, group: &GroupName) -> Option<&Set<ClientId>> {
        self.members.get(group)
    }

    /// The groups that have provisioned members.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &GroupName> {
        self.members.keys()
    }

    /// The groups that a client is a provisioned member of.
    pub fn groups_of(&self, client: &ClientId) -> &[GroupName] {
        self.groups_of.get(client).map_or(&[], Vec::as_slice)
    }

    /// Whether every actor gets the same answer to this action, which is then the default's.
    pub fn is_uniform(&self, action: Action) -> bool {
        self.concerned & (1 << action as u16) == 0
    }

    /// The place of the role whose limits are a client's, and these: the first one that it has and that has limits.
    pub fn limits_of(&self, actor: Actor<'_>) -> Option<(usize, &RoleLimits)> {
        self.roles.iter().enumerate().find_map(|(place, role)| {
            let limits = role.limits.as_ref()?;
            let is_given = actor.principal.roles.iter().any(|given| **given == role.name);
            (is_given || role.includes(actor)).then_some((place, limits))
        })
    }

    /// Whether a client has a role that matches one of these patterns: by its credential, or by the rules.
    fn has_role(&self, actor: Actor<'_>, patterns: &[Pattern]) -> bool {
        actor.principal.roles.iter().any(|role| any(patterns, role))
            || self.roles.iter().any(|role| any(patterns, &role.name) && role.includes(actor))
    }

    /// What a group's standing lists say of an action: who is on the deny list may do nothing with it, nor may, where
    /// there is an allow list, who isn't on that; who is may take part in it.
    fn judge_by_lists(&self, actor: Actor<'_>, action: Action, object: Object<'_>) -> Option<Verdict> {
        let Object::Group(group) = object else { return None };
        let lists = self.lists.get(group)?;
        if any(&lists.deny, actor.client) {
            return Some(Verdict { allowed: false, by: DecidedBy::DenyList(lists.place) });
        }
        let by = DecidedBy::AllowList(lists.place);
        if lists.allow.is_empty() {
            return None;
        }
        if !any(&lists.allow, actor.client) {
            return Some(Verdict { allowed: false, by });
        }
        let takes_part = matches!(action, Action::Send | Action::Join | Action::Receive | Action::Presence);
        takes_part.then_some(Verdict { allowed: true, by })
    }

    fn default_for(&self, action: Action) -> bool {
        self.allow_by_default && !matches!(action, Action::Observe | Action::Moderate | Action::Admin)
    }
}

/// Whether `actor` may do `action` to `object` under `rules`: denied by the group's lists or the first deny that matches,
/// else allowed by the lists or the first allow that matches, else as the default has it.
pub fn decide(actor: Actor<'_>, action: Action, object: Object<'_>, rules: &Rules) -> Verdict {
    if rules.is_uniform(action) {
        return Verdict { allowed: rules.default_for(action), by: DecidedBy::Default };
    }
    let listed = rules.judge_by_lists(actor, action, object);
    if let Some(verdict) = listed.filter(|verdict| !verdict.allowed) {
        return verdict;
    }
    let matching = |allow: bool| {
        rules.rules.iter().position(|rule| rule.allow == allow && rule.matches(actor, action, object, rules))
    };
    if let Some(rule) = matching(false) {
        return Verdict { allowed: false, by: DecidedBy::Rule(rule) };
    }
    if let Some(verdict) = listed {
        return verdict;
    }
    match matching(true) {
        Some(rule) => Verdict { allowed: true, by: DecidedBy::Rule(rule) },
        None => Verdict { allowed: rules.default_for(action), by: DecidedBy::Default },
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Role {
    fn includes(&self, actor: Actor<'_>) -> bool {
        let Principal { user, certificate, .. } = actor.principal;
        any(&self.clients, actor.client)
            || user.as_ref().is_some_and(|user| any(&self.users, user))
            || certificate.as_ref().is_some_and(|name| any(&self.certificates, name))
    }
}

impl Rule {
    fn matches(&self, actor: Actor<'_>, action: Action, object: Object<'_>, rules: &Rules) -> bool {
        let Principal { user, certificate, .. } = actor.principal;
        (self.actions == 0 || self.actions & (1 << action as u16) != 0)
            && (self.clients.is_empty() || any(&self.clients, actor.client))
            && (self.users.is_empty() || user.as_ref().is_some_and(|user| any(&self.users, user)))
            && (self.roles.is_empty() || rules.has_role(actor, &self.roles))
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
        assert_eq!(verdict.by, DecidedBy::Rule(1));
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
    fn roles_are_given_by_the_rules_too() {
        let rules = rules(serde_json::json!({"default": "deny",
            "role": [{"name": "operator", "users": ["anna"], "clients": ["panel-*"]}],
            "rule": [{"effect": "allow", "roles": ["operator"]}]}));
        let anna = Principal::user("anna");
        let may = |client, principal| {
            decide(Actor { client, principal }, Action::Admin, Object::Gateway, &rules).allowed
        };
        assert!(may("phone", &anna), "by her user name");
        assert!(may("panel-3", Principal::ANONYMOUS), "by its client id");
        assert!(!may("phone", Principal::ANONYMOUS));
    }

    #[test]
    fn who_is_on_a_groups_lists_is_in_or_out_of_it() {
        let rules = rules(serde_json::json!({"default": "deny",
            "group": [{"name": "floor3", "allow": ["lamp-*", "app"], "deny": ["lamp-9"]},
                      {"name": "floor4", "deny": ["lamp-9"]}],
            "rule": [{"effect": "deny", "clients": ["lamp-8"], "actions": ["send"]},
                     {"effect": "allow", "actions": ["send", "join", "observe"]}]}));
        let decided = |client, action, group| {
            let verdict = decide(Actor::anonymous(client), action, Object::Group(group), &rules);
            (verdict.allowed, verdict.by)
        };
        assert_eq!(decided("lamp-1", Action::Receive, "floor3"), (true, DecidedBy::AllowList(0)));
        assert_eq!(
            decided("door", Action::Send, "floor3"),
            (false, DecidedBy::AllowList(0)),
            "a rule isn't enough"
        );
        assert_eq!(decided("door", Action::Observe, "floor3"), (false, DecidedBy::AllowList(0)));
        assert_eq!(
            decided("app", Action::Moderate, "floor3"),
            (false, DecidedBy::Default),
            "nor is the list for all"
        );
        assert_eq!(decided("lamp-8", Action::Send, "floor3"), (false, DecidedBy::Rule(0)));
        assert_eq!(decided("lamp-9", Action::Join, "floor3"), (false, DecidedBy::DenyList(0)));
        assert_eq!(decided("lamp-9", Action::Join, "floor4"), (false, DecidedBy::DenyList(1)));
        assert_eq!(decided("door", Action::Join, "floor4"), (true, DecidedBy::Rule(1)));
        assert_eq!(decided("lamp-9", Action::Join, "roof"), (true, DecidedBy::Rule(1)));
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
