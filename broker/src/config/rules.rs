//! Rules as they stand in a file, in one of their own or within the configuration: read, checked, and told where they are
//! wrong by line and nearest valid word.

use std::path::PathBuf;

use bugle_core::rules::{
    DecidedBy, Effect, GroupSource, Place, RoleSource, RuleSource, Rules, RulesFault, RulesSource,
};
use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, ConfigFile, explained, parse};

/// A rules file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesText {
    pub default: Option<Effect>,
    pub rule: Vec<Spanned<RuleSource>>,
    pub group: Vec<Spanned<GroupSource>>,
    pub role: Vec<Spanned<RoleSource>>,
    /// All of the file, in which the tables have their lines.
    #[serde(skip)]
    pub text: String,
}

/// Where rules are read from, again and again.
#[derive(Clone, Debug)]
pub struct RulesPlace {
    /// The file.
    pub path: PathBuf,
    /// It is the configuration, with the rules within it.
    pub is_config: bool,
    /// Clients have to prove themselves: what no rule allows is denied unless the file says otherwise.
    pub authenticates: bool,
}

impl RulesPlace {
    /// Reads and checks the rules.
    pub fn load(&self) -> Result<Rules, ConfigError> {
        self.read()?.compile(self.authenticates).map_err(|message| self.malformed(message))
    }

    /// Reads them.
    pub fn read(&self) -> Result<RulesText, ConfigError> {
        let path = self.path.clone();
        let text =
            std::fs::read_to_string(&self.path).map_err(|source| ConfigError::Unreadable { path, source })?;
        let rules = if self.is_config {
            parse(&text).map(|file| RulesText::within(&file))
        } else {
            RulesText::parse(text)
        };
        rules.map_err(|message| self.malformed(message))
    }

    fn malformed(&self, message: String) -> ConfigError {
        ConfigError::Malformed { path: self.path.clone(), message }
    }
}

impl RulesText {
    /// The rules of a file of their own. The error says where and what is wrong.
    pub fn parse(text: String) -> Result<Self, String> {
        let rules: Self = toml::from_str(&text).map_err(|error| explained(&error))?;
        Ok(Self { text, ..rules })
    }

    /// The rules within a configuration.
    pub(super) fn within(file: &ConfigFile) -> Self {
        Self {
            default: file.rules_default,
            rule: file.rule.clone(),
            group: file.group.clone(),
            role: file.role.clone(),
            text: file.text.clone(),
        }
    }

    /// Whether it says nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none() && self.rule.is_empty() && self.group.is_empty() && self.role.is_empty()
    }

    /// What holds where no rule matches.
    pub fn default(&self, authenticates: bool) -> Effect {
        self.default.unwrap_or(if authenticates { Effect::Deny } else { Effect::Allow })
    }

    /// The checked rules.
    pub fn compile(&self, authenticates: bool) -> Result<Rules, String> {
        let allows = self.default == Some(Effect::Deny)
            || self.rule.iter().any(|rule| rule.get_ref().effect == Effect::Allow);
        if self.default(authenticates) == Effect::Deny && !allows {
            return Err(
                "clients have to prove themselves, and there is no rule that allows anything: nobody could \
                        do anything. Add [[rule]]s with effect = \"allow\", or say default = \"allow\" \
                        (rules_default in the configuration) if everyone who proves himself may do everything"
                    .to_owned(),
            );
        }
        let source = RulesSource {
            default: Some(self.default(authenticates)),
            rule: values(&self.rule),
            group: values(&self.group),
            role: values(&self.role),
        };
        Rules::compile(&source).map_err(|fault| self.located(&fault))
    }

    /// The line in which a table begins, and the table's own lines.
    pub fn table(&self, place: Place) -> Option<(usize, &str)> {
        let span = match place {
            Place::Rule(index) => self.rule.get(index)?.span(),
            Place::Group(index) => self.group.get(index)?.span(),
            Place::Role(index) => self.role.get(index)?.span(),
        };
        let before = self.text.get(..span.start)?;
        // A table's span may be its header alone: it ends where the next begins.
        let rest = self.text.get(span.start..)?;
        let next = rest.match_indices("\n[").map(|(at, _)| at).find(|&at| at > 0).unwrap_or(rest.len());
        let table = rest.get(..next)?.trim_end();
        Some((before.matches('\n').count() + 1, table))
    }

    /// The table that decided something.
    pub fn deciding(&self, by: DecidedBy) -> Option<(usize, &str)> {
        match by {
            DecidedBy::Default => None,
            DecidedBy::Rule(index) => self.table(Place::Rule(index)),
            DecidedBy::DenyList(index) | DecidedBy::AllowList(index) => self.table(Place::Group(index)),
        }
    }

    fn located(&self, fault: &RulesFault) -> String {
        match self.table(fault.place) {
            Some((line, _)) => format!("line {line}: {fault}"),
            None => fault.to_string(),
        }
    }
}

fn values<T: Clone>(tables: &[Spanned<T>]) -> Vec<T> {
    tables.iter().map(|table| table.get_ref().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "# who may what\ndefault = \"deny\"\n\n[[rule]] # first\neffect = \"allow\"\n\n\
                         [[rule]]\neffect = \"deny\"\ntopics = [\"a/#/b\"]\n\n[[group]]\nname = \"floor3\"\n";

    #[test]
    fn a_fault_has_its_line() {
        let rules = RulesText::parse(RULES.to_owned()).unwrap();
        let error = rules.compile(true).unwrap_err();
        assert_eq!(error, "line 7: [[rule]] number 2: 'a/#/b' is no topic filter");
        let (line, table) = rules.table(Place::Group(0)).unwrap();
        assert_eq!((line, table), (11, "[[group]]\nname = \"floor3\""));
        assert_eq!(rules.table(Place::Rule(0)).unwrap().0, 4);
    }

    #[test]
    fn a_limit_that_cannot_be_is_named() {
        let role = |limit: &str| format!("\n[[role]]\nname = 'sensor'\nlimits = {{ {limit} }}\n");
        let rules = RulesText::parse(role("payload_bytes = 9000")).unwrap();
        let error = rules.compile(false).unwrap_err();
        assert_eq!(error, "line 2: [[role]] number 1: payload_bytes = 9000 is over 8192");
        let error = RulesText::parse(role("payload = 9")).unwrap_err();
        assert!(error.contains("did you mean 'payload_bytes'?"), "{error}");
    }

    #[test]
    fn an_unknown_word_has_its_line_and_the_nearest_one() {
        for (wrong, line, nearest) in [
            ("[[rule]]\neffect = 'alow'", "line 2", "did you mean 'allow'?"),
            ("[[rule]]\neffect = 'allow'\nactions = ['sned']", "line 3", "did you mean 'send'?"),
            ("[[rule]]\neffect = 'allow'\nclient = ['a']", "line 3", "did you mean 'clients'?"),
            ("[[groop]]\nname = 'a'", "line 1", "did you mean 'group'?"),
        ] {
            let error = RulesText::parse(wrong.to_owned()).unwrap_err();
            assert!(error.contains(line) && error.contains(nearest), "{error}");
        }
    }
}
