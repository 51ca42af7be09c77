//! The password file: a line for each user, with an argon2id hash, made by `bugle passwd`.
//!
//! ```text
//! anna:$argon2id$v=19$m=19456,t=2,p=1$...$...:clients=anna-*:roles=operator
//! ```
//! Lines that begin with `#` are passed over. Without `clients` a user may use any client id but one that is another user's
//! name; in any case the hub has the last word on ids that belong to devices.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use bugle_core::hub::{AuthenticationRequest, Judgement};
use bugle_core::model::Principal;
use bugle_core::rules::Pattern;

use super::{Extras, lines, read};

/// Longest password that is looked at, in bytes.
pub const MAX_PASSWORD: usize = 1024;
/// Longest name of a user, in bytes.
const MAX_NAME: usize = 256;

/// The users, and how each proves to be one.
#[derive(Default)]
pub struct PasswordFile {
    users: HashMap<String, User>,
    /// What nobody's password fits, so that a name that isn't known takes as long as one that is.
    nobody: String,
}

struct User {
    hash: String,
    clients: Vec<Pattern>,
    principal: Arc<Principal>,
}

impl PasswordFile {
    /// Reads it; the error names file and line.
    pub fn load(path: &Path) -> Result<Self, String> {
        Self::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let users = Self::users(text)?;
        let mut password = [0; 32];
        getrandom::fill(&mut password).map_err(|error| error.to_string())?;
        Ok(Self { users, nobody: hash(&password)? })
    }

    fn users(text: &str) -> Result<HashMap<String, User>, String> {
        let mut users = HashMap::new();
        for (number, line) in lines(text) {
            let wrong = |what: &str| format!("line {number}: {what}");
            let mut fields = line.split(':');
            let name = fields.next().unwrap_or_default();
            check_name(name).map_err(|what| wrong(&what))?;
            let hash = fields.next().unwrap_or_default();
            let is_hash = PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id");
            if !is_hash {
                return Err(wrong("no argon2id hash after the name; write the line with `bugle passwd`"));
            }
            let extras = Extras::parse(fields).map_err(|what| wrong(&what))?;
            let roles = extras.roles.iter().map(|role| role.as_str().into()).collect();
            let user = User {
                hash: hash.to_owned(),
                clients: extras.clients.iter().map(|pattern| Pattern::new(pattern)).collect(),
                principal: Arc::new(Principal { roles, ..Principal::user(name) }),
            };
            if users.insert(name.to_owned(), user).is_some() {
                return Err(wrong(&format!("the user '{name}' is there twice")));
            }
        }
        Ok(users)
    }

    /// What is wrong with this text, if something is.
    #[cfg(fuzzing)]
    pub fn fuzz(text: &str) -> Option<String> {
        Self::users(text).err()
    }

    /// Whether there is a user of this name.
    pub fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Looks at a password, which takes some ten milliseconds.
    pub fn judge(&self, request: &AuthenticationRequest) -> Judgement {
        let AuthenticationRequest { identity, is_assigned, user: name, password, .. } = request;
        if password.len() > MAX_PASSWORD {
            return Judgement::Wrong;
        }
        let user = self.users.get(name);
        let hash = PasswordHash::new(user.map_or(&self.nobody, |user| &user.hash));
        let fits = hash.is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
        match user {
            Some(user) if fits => {
                let id = identity.as_str();
                let may_be = match user.clients.as_slice() {
                    [] => id == name || !self.users.contains_key(id),
                    patterns => patterns.iter().any(|pattern| pattern.matches(id)),
                };
                if *is_assigned || may_be {
                    Judgement::Good(user.principal.clone())
                } else {
                    Judgement::NotThisClient
                }
            }
            _ => Judgement::Wrong,
        }
    }
}

/// A fresh hash of a password.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password_with_salt(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// Whether something can be the name of a user in these files.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains([':', '#']) || name.trim() != name {
        return Err(format!(
            "'{name}' is no name: 1 to 256 bytes without ':' and '#', and without spaces around"
        ));
    }
    Ok(())
}

impl std::fmt::Debug for PasswordFile {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PasswordFile({})", self.users.len())
    }
}

#[cfg(test)]
mod tests {
    use bugle_core::hub::ConnectionKey;
    use bugle_core::model::Identity;

    use super::*;

    fn asked(user: &str, password: &str, client: &str) -> AuthenticationRequest {
        AuthenticationRequest {
            key: ConnectionKey::default(),
            identity: Identity::new(client),
            is_assigned: false,
            user: user.to_owned(),
            password: password.as_bytes().into(),
        }
    }

    #[test]
    fn a_password_lets_its_user_in_as_his_clients() {
        let (anna, bob) = (hash(b"mellon").unwrap(), hash(b"sesame").unwrap());
        let text = format!("# users\nanna:{anna}:clients=anna-*,panel:roles=operator,night\n\nbob:{bob}\n");
        let file = PasswordFile::parse(&text).unwrap();
        let judge = |user, password, client| match file.judge(&asked(user, password, client)) {
            Judgement::Good(principal) => format!("{:?}", principal.roles),
            judgement => format!("{judgement:?}"),
        };
        assert_eq!(judge("anna", "mellon", "anna-1"), "[\"operator\", \"night\"]");
        assert_eq!(judge("anna", "mellon", "panel"), "[\"operator\", \"night\"]");
        assert_eq!(judge("anna", "mellon", "bob"), "NotThisClient");
        assert_eq!(judge("bob", "sesame", "whatever"), "[]");
        assert_eq!(judge("bob", "sesame", "anna"), "NotThisClient");
        for (user, password) in [("anna", "sesame"), ("anna", ""), ("carl", "mellon"), ("", "")] {
            assert_eq!(judge(user, password, "anna-1"), "Wrong", "{user}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let good = hash(b"x").unwrap();
        for (text, expected) in [
            ("# a\nanna".to_owned(), "line 2: no argon2id hash"),
            ("anna:mellon".to_owned(), "line 1: no argon2id hash"),
            (format!("anna:{good}:role=x"), "line 1: 'role=x' is neither"),
            (format!("anna:{good}\nanna:{good}"), "line 2: the user 'anna' is there twice"),
            (format!(":{good}"), "line 1: '' is no name"),
        ] {
            let error = PasswordFile::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("mellon"), "a password that was written there isn't repeated");
        }
    }
}
