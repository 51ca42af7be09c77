//! `bugle rules`: what the rules say of something, and whether they say what an operator expects. The same function
//! decides as in the gateway, over the same files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bugle_core::model::Principal;
use bugle_core::rules::{Action, Actor, DecidedBy, Effect, Object, Rules, decide};
use serde::Deserialize;
use toml::Spanned;

use crate::cli::{ExplainOptions, RulesCommand, RulesFileOptions, TestOptions};
use crate::config::{Config, ConfigError, RulesPlace, RulesText, explained};

/// Something is denied, or isn't as expected.
const DENIED: u8 = 1;
/// A file or an option can't be used.
const MISUSED: u8 = 2;

/// Runs the command.
pub fn run(command: &RulesCommand) -> ExitCode {
    let result = match command {
        RulesCommand::Explain(options) => explain(options),
        RulesCommand::Test(options) => test(options),
        RulesCommand::Reload(options) => return crate::block_on(crate::operate::reload_rules(options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bugle rules: {error}");
        ExitCode::from(MISUSED)
    })
}

/// Rules, and the file in which they have their lines.
struct Policy {
    place: RulesPlace,
    text: RulesText,
    rules: Rules,
}

impl Policy {
    /// The rules that a gateway with this configuration has, or that are in this file.
    fn open(options: &RulesFileOptions) -> Result<Self, ConfigError> {
        let place = match (&options.rules, &options.config) {
            (Some(path), _) => {
                RulesPlace { path: path.clone(), is_config: false, authenticates: !options.open }
            }
            (None, Some(path)) => Config::rules_place_of(path)?,
            (None, None) => {
                let text = "which rules? Name their file with --rules, or a configuration with --config";
                return Err(ConfigError::Invalid(text.to_owned()));
            }
        };
        let (text, rules) = (place.read()?, place.load()?);
        Ok(Self { place, text, rules })
    }

    /// What is decided, and why, for people.
    fn explain(&self, actor: Actor<'_>, action: Action, object: Object<'_>) -> (bool, String) {
        let verdict = decide(actor, action, object, &self.rules);
        let word = if verdict.allowed { "allowed" } else { "denied" };
        let why = match verdict.by {
            DecidedBy::Default => self.explain_default(action),
            by => {
                let what = match by {
                    DecidedBy::DenyList(_) => "the client is on the group's deny list",
                    DecidedBy::AllowList(_) if verdict.allowed => "the client is on the group's allow list",
                    DecidedBy::AllowList(_) => "the group has an allow list, and the client is not on it",
                    DecidedBy::Rule(_) | DecidedBy::Default => "this rule decides",
                };
                let Some((line, table)) = self.text.deciding(by) else {
                    return (verdict.allowed, what.to_owned());
                };
                let table: String = table.lines().map(|line| format!("\n    {line}")).collect();
                format!("{}:{line}: {what}{table}", self.place.path.display())
            }
        };
        (verdict.allowed, format!("{word}: {why}"))
    }

    fn explain_default(&self, action: Action) -> String {
        let default = self.text.default(self.place.authenticates);
        if default == Effect::Allow && matches!(action, Action::Observe | Action::Moderate | Action::Admin) {
            return "no rule matches; observe, moderate and admin are never allowed by default".to_owned();
        }
        let word = if default == Effect::Allow { "allow" } else { "deny" };
        let said = match self.text.default {
            Some(_) => "as the file says",
            None if self.place.authenticates => "since clients have to prove themselves",
            None => "since nobody has to prove himself",
        };
        format!("no rule matches, and the default is to {word}, {said}")
    }
}

fn explain(options: &ExplainOptions) -> Result<ExitCode, ConfigError> {
    let policy = Policy::open(&options.file)?;
    let who = Who {
        client: options.client.clone().unwrap_or_default(),
        user: options.user.clone(),
        roles: options.roles.clone(),
        certificate: options.certificate.clone(),
    };
    let about = About { group: options.group.clone(), to: options.to.clone(), topic: options.topic.clone() };
    let (action, principal) = (options.action, who.principal());
    let object = about.object(action).map_err(ConfigError::Invalid)?;
    let actor = Actor { client: &who.client, principal: &principal };
    let (allowed, why) = policy.explain(actor, action, object);
    println!("{why}");
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

/// A table of expectations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    /// The rules file, from where this one is; unless the command line says another.
    rules: Option<PathBuf>,
    #[serde(default)]
    expect: Vec<Spanned<Expectation>>,
}

/// What is expected of the rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    #[serde(default)]
    client: String,
    user: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    certificate: Option<String>,
    /// Each of these.
    actions: Vec<Action>,
    group: Option<String>,
    to: Option<String>,
    topic: Option<String>,
    verdict: Expected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allowed,
    Denied,
}

fn test(options: &TestOptions) -> Result<ExitCode, ConfigError> {
    let malformed = |message: String| ConfigError::Malformed { path: options.table.clone(), message };
    let text = std::fs::read_to_string(&options.table)
        .map_err(|source| ConfigError::Unreadable { path: options.table.clone(), source })?;
    let table: Expectations = toml::from_str(&text).map_err(|error| malformed(explained(&error)))?;
    let mut file = options.file.clone();
    if file.rules.is_none() && file.config.is_none() {
        let beside = options.table.parent().unwrap_or(Path::new(""));
        file.rules = table.rules.as_ref().map(|rules| beside.join(rules));
    }
    let policy = Policy::open(&file)?;
    let (mut passed, mut failed) = (0, 0);
    for expected in &table.expect {
        let line = text.get(..expected.span().start).map_or(0, |before| before.matches('\n').count() + 1);
        let expectation = expected.get_ref();
        let Expectation { client, user, roles, certificate, .. } = expectation.clone();
        let principal = Who { client, user, roles, certificate }.principal();
        let actor = Actor { client: &expectation.client, principal: &principal };
        let Expectation { group, to, topic, .. } = expectation.clone();
        let about = About { group, to, topic };
        for &action in &expectation.actions {
            let object = about.object(action).map_err(|error| malformed(format!("line {line}: {error}")))?;
            let (allowed, why) = policy.explain(actor, action, object);
            if allowed == (expectation.verdict == Expected::Allowed) {
                passed += 1;
            } else {
                failed += 1;
                let path = options.table.display();
                println!("{path}:{line}: {} {action:?} is {why}", expectation.client);
            }
        }
    }
    println!("{passed} as expected, {failed} not");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

/// Who, in words.
struct Who {
    client: String,
    user: Option<String>,
    roles: Vec<String>,
    certificate: Option<String>,
}

impl Who {
    fn principal(&self) -> Principal {
        Principal {
            user: self.user.as_deref().map(Into::into),
            roles: self.roles.iter().map(|role| role.as_str().into()).collect(),
            certificate: self.certificate.as_deref().map(Into::into),
        }
    }
}

/// What something is about, in words.
struct About {
    group: Option<String>,
    to: Option<String>,
    topic: Option<String>,
}

impl About {
    /// The object, if it is of the kind that the action has.
    fn object(&self, action: Action) -> Result<Object<'_>, String> {
        let object = match (&self.group, &self.to, &self.topic) {
            (Some(group), None, None) => Object::Group(group),
            (None, Some(to), None) => Object::Client(to),
            (None, None, Some(topic)) => Object::Topic(topic),
            (None, None, None) => Object::Gateway,
            _ => return Err("it is about one thing: a group, a client (to) or a topic".to_owned()),
        };
        let (fits, wanted) = match action {
            Action::Connect | Action::Admin => (matches!(object, Object::Gateway), "nothing further"),
            Action::Send | Action::Urgent | Action::Receive | Action::Observe => {
                (matches!(object, Object::Group(_) | Object::Client(_)), "a group or a client (to)")
            }
            Action::Join | Action::Presence => (matches!(object, Object::Group(_)), "a group"),
            Action::Moderate => {
                (matches!(object, Object::Group(_) | Object::Gateway), "a group, or nothing: everywhere")
            }
            Action::Publish | Action::Subscribe => (matches!(object, Object::Topic(_)), "a topic"),
        };
        if fits { Ok(object) } else { Err(format!("{action:?} is about {wanted}")) }
    }
}
