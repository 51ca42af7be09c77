//! How two brokers' answers to one step differ, and what that is called.

use serde::Deserialize;

use super::side::{Heard, in_order};

/// What of a step's lines only one broker wrote, to one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// `actor`, `other`, or `replaced` for the connection that another took the place of.
    pub to: &'static str,
    /// Only Bugle.
    pub bugle: Vec<String>,
    /// Only Mosquitto.
    pub mosquitto: Vec<String>,
}

impl Difference {
    /// None where they say the same. `late` has messages that Bugle has delivered and Mosquitto hasn't yet: those it
    /// delivers now are taken out.
    pub fn between(to: &'static str, bugle: Heard, mosquitto: Heard, late: &mut Vec<String>) -> Option<Self> {
        let texts = |heard: Heard| in_order(heard).into_iter().map(|line| line.text).collect::<Vec<_>>();
        let (bugle, mut mosquitto) = (texts(bugle), texts(mosquitto));
        if bugle == mosquitto {
            return None;
        }
        let mut only_bugle = Vec::new();
        let in_both: Vec<String> = bugle
            .into_iter()
            .filter_map(|text| {
                match mosquitto.iter().position(|other| *other == text) {
                    Some(at) => return Some(mosquitto.remove(at)),
                    None => only_bugle.push(text),
                }
                None
            })
            .collect();
        // A second copy of what both have delivered.
        for line in only_bugle.iter_mut().chain(&mut mosquitto) {
            let (message, _) = message_of(line);
            if !message.is_empty() && in_both.iter().any(|other| message_of(other).0 == message) {
                *line = format!("COPY {line}");
            }
        }
        let so_many = mosquitto.len();
        mosquitto.retain(|text| match late.iter().position(|other| other == text) {
            Some(at) => {
                late.remove(at);
                false
            }
            None => true,
        });
        if only_bugle.is_empty() && so_many == 0 {
            // The same lines, in another order.
            only_bugle = vec![format!("ORDER {}", in_both.join(", "))];
        }
        let difference = Self { to, bugle: only_bugle, mosquitto };
        (!difference.bugle.is_empty() || !difference.mosquitto.is_empty()).then_some(difference)
    }
}

/// Topic and payload of a delivery's line, and what else it has; of another line, nothing.
fn message_of(line: &str) -> (&str, &str) {
    let Some((_qos, rest)) = line.strip_prefix("PUBLISH ").and_then(|rest| rest.split_once(' ')) else {
        return ("", "");
    };
    let rest = rest.strip_prefix("dup ").unwrap_or(rest);
    let rest = rest.strip_prefix("retain ").unwrap_or(rest);
    rest.split_once(" {").unwrap_or((rest, ""))
}

/// `explained.toml`: differences that are known, each with its reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanations {
    /// In the order in which they are tried.
    pub explained: Vec<Explained>,
}

/// A kind of difference. In its patterns `*` stands for any characters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// What it is called in reports.
    pub name: String,
    /// What the step has to be: as a report shows it.
    #[serde(default = "anything")]
    pub step: String,
    /// Which connection; any where it isn't said.
    pub to: Option<String>,
    /// Lines that only Bugle wrote.
    #[serde(default)]
    pub bugle: Vec<String>,
    /// Lines that only Mosquitto wrote.
    #[serde(default)]
    pub mosquitto: Vec<String>,
    /// Who keeps to the standard.
    pub right: Right,
    /// Why, with the statement.
    pub because: String,
    /// All else that came to this client is explained with it: one of the brokers didn't take the packet.
    #[serde(default)]
    pub all: bool,
    /// Both are in the same state afterwards, so that the sequence goes on.
    #[serde(default)]
    pub goes_on: bool,
    /// What only Bugle wrote comes from Mosquitto later.
    #[serde(default)]
    pub later: bool,
}

/// Who keeps to the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// The standard leaves it open.
    Both,
    /// Only Bugle. Where Mosquitto is, it is a fault to be mended.
    Bugle,
}

fn anything() -> String {
    "*".to_owned()
}

/// What the explanations make of a step's differences.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is explained, by these; and whether the sequence goes on.
    Explained {
        /// By their places.
        by: Vec<usize>,
        /// Both brokers are in the same state.
        goes_on: bool,
    },
    /// Something isn't.
    Unexplained,
}

impl Explanations {
    /// Those of the repository.
    pub fn known() -> Self {
        toml::from_str(include_str!("explained.toml")).unwrap()
    }

    /// Explains what can be. `late` takes up what comes from Mosquitto later, by client.
    pub fn judge(
        &self,
        step: &str,
        differences: &[(usize, Difference)],
        late: &mut [Vec<String>; 2],
    ) -> Verdict {
        let (mut by, mut goes_on) = (Vec::new(), true);
        for (who, difference) in differences {
            let mut rest = difference.clone();
            while !(rest.bugle.is_empty() && rest.mosquitto.is_empty()) {
                let found = self
                    .explained
                    .iter()
                    .enumerate()
                    .find_map(|(at, explained)| Some((at, explained.take(step, &mut rest)?)));
                let Some((at, taken)) = found else { return Verdict::Unexplained };
                by.push(at);
                goes_on &= self.explained[at].goes_on;
                if self.explained[at].later {
                    late[*who].extend(taken);
                }
            }
        }
        Verdict::Explained { by, goes_on }
    }
}

impl Explained {
    /// Name, who is right, and why.
    pub fn text(&self) -> String {
        let right = match self.right {
            Right::Both => "both are right",
            Right::Bugle => "Bugle is right",
        };
        format!("{} ({right}): {}", self.name, self.because)
    }

    /// Takes out the lines that it explains, and gives those of Bugle; None where it explains none.
    fn take(&self, step: &str, rest: &mut Difference) -> Option<Vec<String>> {
        if self.to.as_ref().is_some_and(|to| *to != rest.to) || !matches(&self.step, step) {
            return None;
        }
        let bugle = places(&self.bugle, &rest.bugle)?;
        let mosquitto = places(&self.mosquitto, &rest.mosquitto)?;
        let remove = |lines: &mut Vec<String>, mut places: Vec<usize>| {
            places.sort_unstable();
            places.into_iter().rev().map(|place| lines.remove(place)).collect::<Vec<_>>()
        };
        remove(&mut rest.mosquitto, mosquitto);
        let taken = remove(&mut rest.bugle, bugle);
        if self.all {
            (rest.bugle, rest.mosquitto) = Default::default();
        }
        Some(taken)
    }
}

/// A line of its own for each pattern.
fn places(patterns: &[String], lines: &[String]) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    for pattern in patterns {
        let place =
            (0..lines.len()).find(|place| !places.contains(place) && matches(pattern, &lines[*place]))?;
        places.push(place);
    }
    Some(places)
}

/// Whether a pattern, in which `*` is any run of characters and `|` parts alternatives, matches all of a text.
fn matches(pattern: &str, text: &str) -> bool {
    pattern.split('|').any(|pattern| {
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_all_of_a_text() {
        assert!(matches("DISCONNECT 8*", "DISCONNECT 82"));
        assert!(matches("a*c*e", "abcde") && matches("x|a*", "abc"));
        assert!(!matches("DISCONNECT", "DISCONNECT 82") && !matches("a*c", "acd"));
    }

    #[test]
    fn every_explanation_says_why_and_has_something_to_match() {
        let explanations = Explanations::known();
        for explained in &explanations.explained {
            assert!(
                !explained.bugle.is_empty() || !explained.mosquitto.is_empty(),
                "{} would match for ever",
                explained.name
            );
            assert!(!explained.because.is_empty(), "{}", explained.name);
        }
    }
}
