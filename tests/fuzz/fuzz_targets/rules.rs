//! The operator's rules: any TOML is refused or compiled, and what is compiled decides as its words say.
#![no_main]

use bugle_core::model::Principal;
use bugle_core::rules::{
    Action, Actor, DecidedBy, Effect, Object, RoleSource, RuleSource, Rules, RulesSource, decide,
};
use bugle_fuzz::naive;
use libfuzzer_sys::fuzz_target;

const ACTIONS: [Action; 11] = [
    Action::Connect,
    Action::Send,
    Action::Urgent,
    Action::Join,
    Action::Receive,
    Action::Observe,
    Action::Presence,
    Action::Moderate,
    Action::Publish,
    Action::Subscribe,
    Action::Admin,
];

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    let Ok(source) = toml::from_str::<RulesSource>(input) else { return };
    let Ok(rules) = Rules::compile(&source) else { return };
    let mut clients = vec!["app", "lamp-1", "a+b"];
    let mut names = vec!["floor3"];
    let mut topics = vec!["a/b", "#", "home/lamp-1/state"];
    for rule in source.rule.iter().take(4) {
        clients.extend(rule.clients.iter().chain(&rule.to).take(2).map(String::as_str));
        names.extend(rule.groups.iter().take(2).map(String::as_str));
        topics.extend(rule.topics.iter().take(2).map(String::as_str));
    }
    for group in source.group.iter().take(4) {
        names.push(&group.name);
        clients.extend(group.allow.iter().chain(&group.deny).take(2).map(String::as_str));
    }
    for client in clients.clone() {
        let known = Principal {
            user: Some("user".into()),
            roles: vec!["guest".into(), "operator".into()],
            certificate: Some("door.site.example".into()),
        };
        for principal in [Principal::ANONYMOUS, &known] {
            let actor = Actor { client, principal };
            let objects = names.iter().map(|name| Object::Group(name));
            let objects = objects.chain(clients.iter().map(|name| Object::Client(name)));
            let objects = objects.chain(topics.iter().map(|name| Object::Topic(name)));
            for object in objects.chain([Object::Gateway]) {
                for action in ACTIONS {
                    let verdict = decide(actor, action, object, &rules);
                    let expected = naive_verdict(actor, action, object, &source);
                    assert_eq!((verdict.allowed, verdict.by), expected, "{actor:?} {action:?} {object:?}");
                }
            }
        }
    }
});

/// Whether it is allowed, and by which rule.
fn naive_verdict(
    actor: Actor<'_>,
    action: Action,
    object: Object<'_>,
    source: &RulesSource,
) -> (bool, DecidedBy) {
    let listed = naive_lists(actor, action, object, source);
    if let Some((false, by)) = listed {
        return (false, by);
    }
    for effect in [Effect::Deny, Effect::Allow] {
        if let (Effect::Allow, Some(listed)) = (effect, listed) {
            return listed;
        }
        let mut rules = source.rule.iter().enumerate().filter(|(_, rule)| rule.effect == effect);
        if let Some((at, _)) = rules.find(|(_, rule)| concerns(rule, actor, action, object, source)) {
            return (effect == Effect::Allow, DecidedBy::Rule(at));
        }
    }
    let sensitive = [Action::Observe, Action::Moderate, Action::Admin].contains(&action);
    (source.default != Some(Effect::Deny) && !sensitive, DecidedBy::Default)
}

/// What a group's own lists say.
fn naive_lists(
    actor: Actor<'_>,
    action: Action,
    object: Object<'_>,
    source: &RulesSource,
) -> Option<(bool, DecidedBy)> {
    let Object::Group(name) = object else { return None };
    let at = source.group.iter().position(|group| group.name == name)?;
    let group = &source.group[at];
    if any(&group.deny, Some(actor.client)) {
        return Some((false, DecidedBy::DenyList(at)));
    }
    if group.allow.is_empty() {
        return None;
    }
    let is_listed = any(&group.allow, Some(actor.client));
    let takes_part = [Action::Send, Action::Join, Action::Receive, Action::Presence].contains(&action);
    (!is_listed || takes_part).then_some((is_listed, DecidedBy::AllowList(at)))
}

fn any(patterns: &[String], text: Option<&str>) -> bool {
    text.is_some_and(|text| {
        patterns.iter().any(|pattern| naive::pattern_matches(pattern.as_bytes(), text.as_bytes()))
    })
}

fn includes(role: &RoleSource, actor: Actor<'_>) -> bool {
    any(&role.clients, Some(actor.client))
        || any(&role.users, actor.principal.user.as_deref())
        || any(&role.certificates, actor.principal.certificate.as_deref())
}

fn concerns(
    rule: &RuleSource,
    actor: Actor<'_>,
    action: Action,
    object: Object<'_>,
    source: &RulesSource,
) -> bool {
    let roles = actor.principal.roles.iter().map(|role| &**role);
    let given = source.role.iter().filter(|role| includes(role, actor)).map(|role| role.name.as_str());
    let roles: Vec<&str> = roles.chain(given).collect();
    let everything = rule.groups.is_empty() && rule.to.is_empty() && rule.topics.is_empty();
    (rule.actions.is_empty() || rule.actions.contains(&action))
        && (rule.clients.is_empty() || any(&rule.clients, Some(actor.client)))
        && (rule.users.is_empty() || any(&rule.users, actor.principal.user.as_deref()))
        && (rule.roles.is_empty() || roles.iter().any(|role| any(&rule.roles, Some(role))))
        && (rule.certificates.is_empty() || any(&rule.certificates, actor.principal.certificate.as_deref()))
        && (everything
            || match object {
                Object::Gateway => false,
                Object::Group(name) => any(&rule.groups, Some(name)),
                Object::Client(name) => any(&rule.to, Some(name)),
                Object::Topic(wanted) => {
                    rule.topics.iter().any(|filter| touches(rule, filter, wanted, actor))
                }
            })
}

/// Whether a rule's filter concerns a topic or filter. (How filters cover and touch each other has its own target.)
fn touches(rule: &RuleSource, filter: &str, wanted: &str, actor: Actor<'_>) -> bool {
    let mut filled = filter.to_owned();
    for (key, id) in [("%c", Some(actor.client)), ("%u", actor.principal.user.as_deref())] {
        if filter.contains(key) {
            let Some(id) = id else { return false };
            if id.contains(['+', '#', '/', '%']) {
                return rule.effect == Effect::Deny;
            }
            filled = filled.replace(key, id);
        }
    }
    if naive::is_topic(wanted) {
        return naive::filter_matches(&filled, wanted);
    }
    match rule.effect {
        Effect::Allow => bugle_core::mqtt::topic::covers(&filled, wanted),
        Effect::Deny => bugle_core::mqtt::topic::overlap(&filled, wanted),
    }
}
