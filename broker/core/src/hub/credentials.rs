//! Who can prove to be whom: shared secrets, for both protocols alike, and which client ids each is good for.

use std::sync::{Arc, OnceLock};

use bugle_protocol::auth;
use subtle::ConstantTimeEq;

use super::scram::{self, ScramKeys};
use crate::model::{Challenge, Credential, Identity, Map, Principal, Reason, Refusal, Secret};
use crate::rules::Pattern;

/// The secrets. Without any, everyone is who he says.
#[derive(Default)]
pub struct Credentials {
    secrets: Map<String, Entry>,
    /// The process knows others.
    asks: bool,
    /// Makes salts, for those who are known and those who aren't.
    salt_key: [u8; 32],
}

/// One secret, and what it makes whoever knows it.
#[derive(Clone)]
pub struct SecretEntry {
    /// The user name, which is also the client id unless `clients` are given.
    pub id: String,
    /// What is to be known.
    pub secret: Secret,
    /// The client ids that it is good for; empty: that which is `id`.
    pub clients: Vec<Pattern>,
    /// Its roles.
    pub roles: Vec<Arc<str>>,
}

struct Entry {
    secret: Secret,
    clients: Vec<Pattern>,
    principal: Arc<Principal>,
    /// Made when its owner first comes by SCRAM.
    scram: OnceLock<ScramKeys>,
}

/// What comes of looking at a credential.
pub(super) enum Check {
    /// It is good; where nobody has to prove anything, for nobody in particular.
    Good(Option<Arc<Principal>>),
    ChallengeFirst,
    /// The process has to say.
    Ask,
    Refused(Refusal),
}

impl Credentials {
    /// No secrets: everyone is let in.
    pub fn open() -> Self {
        Self::default()
    }

    /// One secret for each client id.
    pub fn new(secrets: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let entry = |(id, secret): (String, Vec<u8>)| SecretEntry {
            id,
            secret: secret.into(),
            clients: Vec::new(),
            roles: Vec::new(),
        };
        Self::from_entries(secrets.into_iter().map(entry))
    }

    /// These secrets.
    pub fn from_entries(entries: impl IntoIterator<Item = SecretEntry>) -> Self {
        let checked = |entry: SecretEntry| {
            let SecretEntry { id, secret, clients, roles } = entry;
            let principal = Arc::new(Principal { roles, ..Principal::user(&id) });
            (id, Entry { secret, clients, principal, scram: OnceLock::new() })
        };
        let secrets: Map<_, _> = entries.into_iter().map(checked).collect();
        // Nobody can foresee it who doesn't know all secrets, and it stays the same while they do.
        let salt_key = secrets
            .iter()
            .fold([0; 32], |key, (id, entry)| scram::hmac(&key, &[id.as_bytes(), &[0], &entry.secret]));
        Self { secrets, asks: false, salt_key }
    }

    /// The same, and passwords that they don't have are for the process to judge.
    #[must_use]
    pub fn and_ask(self) -> Self {
        Self { asks: true, ..self }
    }

    /// Whether nobody has to prove anything.
    pub fn is_open(&self) -> bool {
        self.secrets.is_empty() && !self.asks
    }

    /// Whether a client id is bound to one of these secrets.
    pub(super) fn is_bound(&self, identity: &Identity) -> bool {
        self.secrets.contains_key(identity.as_str())
    }

    /// The salt for this user, known or not.
    pub(super) fn scram_salt(&self, user: &str) -> [u8; 16] {
        let hashed = scram::hmac(&self.salt_key, &[user.as_bytes()]);
        std::array::from_fn(|index| hashed[index])
    }

    /// What a user's proof is held against; none for one who isn't known. The first time for each it takes about a
    /// millisecond.
    pub(super) fn scram_keys(&self, user: &str) -> Option<&ScramKeys> {
        let entry = self.secrets.get(user)?;
        Some(entry.scram.get_or_init(|| ScramKeys::derive(&entry.secret, &self.scram_salt(user))))
    }

    /// What a user is who has proved himself, and comes as this client.
    pub(super) fn principal_of(&self, user: &str, identity: &Identity) -> Result<Arc<Principal>, Refusal> {
        let entry = self.secrets.get(user).ok_or_else(wrong)?;
        if !entry.is_for(user, identity) {
            return Err(Refusal::new(Reason::NotAuthorized, "this client id is not this user's"));
        }
        Ok(entry.principal.clone())
    }

    pub(super) fn check(
        &self,
        identity: &Identity,
        credential: &Credential,
        expected: Option<&Challenge>,
    ) -> Check {
        if self.is_open() {
            return Check::Good(None);
        }
        // An unknown id is refused no earlier than a wrong secret, so that ids can't be probed.
        let secret = |user: &str| self.secrets.get(user).map(|entry| &*entry.secret);
        let (user, good) = match credential {
            Credential::Challengeable => return Check::ChallengeFirst,
            // A mechanism of its own; it doesn't come here.
            Credential::None | Credential::Scram { .. } => return Check::Refused(wrong()),
            Credential::Password { user, password } => {
                (user.as_str(), bool::from(secret(user).unwrap_or(b"-").ct_eq(password)))
            }
            Credential::Proof { challenge, proof } => {
                let id = identity.as_str();
                let fits = auth::verify(secret(id).unwrap_or(b"-"), &challenge.0, id, proof);
                (id, fits && expected == Some(challenge))
            }
        };
        // Whose name isn't known here is told so no sooner than whose password is wrong.
        if !good && self.asks && matches!(credential, Credential::Password { .. }) {
            return Check::Ask;
        }
        let principal = if good { self.principal_of(user, identity) } else { Err(wrong()) };
        principal.map_or_else(Check::Refused, |principal| Check::Good(Some(principal)))
    }
}

impl Entry {
    fn is_for(&self, user: &str, identity: &Identity) -> bool {
        match self.clients.as_slice() {
            [] => user == identity.as_str(),
            patterns => patterns.iter().any(|pattern| pattern.matches(identity.as_str())),
        }
    }
}

fn wrong() -> Refusal {
    Refusal::new(Reason::NotAuthenticated, "the client id and its secret don't fit")
}

impl std::fmt::Debug for Credentials {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.secrets.len())
    }
}
