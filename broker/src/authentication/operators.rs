//! The file of operators' tokens for the admin API: a line for each, made by `bugle operator add`.
//!
//! ```text
//! anna:9f86d081...
//! grafana:60303ae2...:roles=viewer
//! ```
//! A token is known to the gateway by its SHA-256 alone: it has enough randomness that this can't be guessed backwards, and who reads
//! the file has no token.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Extras, lines, read};

/// The role of who may look, and change nothing.
pub const VIEWER: &str = "viewer";
/// Most operators: each is looked at for every token.
const MAX_OPERATORS: usize = 256;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;

/// Who uses the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its name.
    pub name: Arc<str>,
    /// It may look, and change nothing.
    pub is_viewer: bool,
}

impl Operator {
    /// As others see who did something: no client has such an id.
    pub fn shown(&self) -> String {
        format!("operator {}", self.name)
    }
}

/// The operators, and how each proves to be one.
#[derive(Default)]
pub struct OperatorFile(Vec<([u8; 32], Operator)>);

impl OperatorFile {
    /// Reads it; the error names file and line.
    pub fn load(path: &Path) -> Result<Self, String> {
        Self::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut operators: Vec<([u8; 32], Operator)> = Vec::new();
        for (number, line) in lines(text) {
            let wrong = |what: &str| format!("line {number}: {what}");
            let mut fields = line.split(':');
            let name = fields.next().unwrap_or_default();
            check_name(name).map_err(|what| wrong(&what))?;
            let digest = fields.next().and_then(parse_digest).ok_or_else(|| {
                wrong("no SHA-256 of a token after the name; write the line with `bugle operator add`")
            })?;
            let extras = Extras::parse(fields).map_err(|what| wrong(&what))?;
            if let Some(role) = extras.roles.iter().find(|role| *role != VIEWER) {
                return Err(wrong(&format!(
                    "the role '{role}' is none of the admin API, where '{VIEWER}' is"
                )));
            }
            if !extras.clients.is_empty() {
                return Err(wrong("an operator has no clients"));
            }
            if operators.iter().any(|(_, known)| &*known.name == name) {
                return Err(wrong(&format!("the operator '{name}' is there twice")));
            }
            operators.push((digest, Operator { name: name.into(), is_viewer: !extras.roles.is_empty() }));
        }
        if operators.len() > MAX_OPERATORS {
            return Err(format!("there are more than {MAX_OPERATORS} operators"));
        }
        Ok(Self(operators))
    }

    /// Whether there is an operator of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(_, operator)| &*operator.name == name)
    }

    /// Whose token it is. How long that takes doesn't depend on how much of it is right.
    pub fn find(&self, token: &[u8]) -> Option<&Operator> {
        let digest = digest(token);
        let mut found = None;
        for (known, operator) in &self.0 {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(operator);
            }
        }
        found
    }
}

impl std::fmt::Debug for OperatorFile {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OperatorFile({})", self.0.len())
    }
}

/// Whether something can be the name of an operator.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_good) {
        return Err(format!("'{name}' is no operator's name of 1-64 of A-Z a-z 0-9 . _ - @"));
    }
    Ok(())
}

/// The line of an operator with this token.
pub fn line(name: &str, token: &str, is_viewer: bool) -> String {
    let digest: String = digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let roles = if is_viewer { format!(":roles={VIEWER}") } else { String::new() };
    format!("{name}:{digest}{roles}")
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = <&[u8; 64]>::try_from(text.as_bytes()).ok()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_digest_alone() {
        let text = format!("# who\n{}\n{}\n", line("anna", "mellon", false), line("bob", "sesame", true));
        assert!(!text.contains("mellon"));
        let file = OperatorFile::parse(&text).unwrap();
        assert_eq!(file.find(b"mellon"), Some(&Operator { name: "anna".into(), is_viewer: false }));
        assert_eq!(file.find(b"sesame"), Some(&Operator { name: "bob".into(), is_viewer: true }));
        for wrong in [&b""[..], b"mello", b"mellon ", b"sesame\0"] {
            assert_eq!(file.find(wrong), None);
        }
        assert_eq!(OperatorFile::default().find(b""), None);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = line("anna", "mellon", false);
        for (text, expected) in [
            ("anna".to_owned(), "line 1: no SHA-256"),
            ("\nanna:mellon".to_owned(), "line 2: no SHA-256"),
            (format!("{good}0"), "line 1: no SHA-256"),
            (format!("{good}:roles=admin"), "the role 'admin' is none"),
            (format!("{good}:clients=a"), "has no clients"),
            (format!("{good}\n{good}"), "line 2: the operator 'anna' is there twice"),
            (good.replace("anna", "an na"), "line 1: 'an na' is no operator's name"),
        ] {
            let error = OperatorFile::parse(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("mellon"), "{error}");
        }
    }
}
