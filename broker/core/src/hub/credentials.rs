//! Who can prove to be whom: shared secrets per client id, for both protocols alike.

use std::sync::OnceLock;

use bugle_protocol::auth;
use subtle::ConstantTimeEq;

use super::scram::{self, ScramKeys};
use crate::model::{Challenge, Credential, Identity, Map, Reason, Refusal};

/// The secrets. Without any, everyone is who he says.
#[derive(Default)]
pub struct Credentials {
    secrets: Map<String, Secret>,
    /// Makes salts, for those who are known and those who aren't.
    salt_key: [u8; 32],
}

struct Secret {
    secret: Vec<u8>,
    /// Made when its owner first comes by SCRAM.
    scram: OnceLock<ScramKeys>,
}

/// What comes of looking at a credential.
pub(super) enum Check {
    Good,
    ChallengeFirst,
    Refused(Refusal),
}

impl Credentials {
    /// No secrets: everyone is let in.
    pub fn open() -> Self {
        Self::default()
    }

    /// One secret for each client id.
    pub fn new(secrets: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let secrets: Map<_, _> =
            secrets.into_iter().map(|(id, secret)| (id, Secret { secret, scram: OnceLock::new() })).collect();
        // Nobody can foresee it who doesn't know all secrets, and it stays the same while they do.
        let salt_key = secrets
            .iter()
            .fold([0; 32], |key, (id, secret)| scram::hmac(&key, &[id.as_bytes(), &[0], &secret.secret]));
        Self { secrets, salt_key }
    }

    /// Whether there are none.
    pub fn is_open(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The salt for this user, known or not.
    pub(super) fn scram_salt(&self, user: &str) -> [u8; 16] {
        let hashed = scram::hmac(&self.salt_key, &[user.as_bytes()]);
        std::array::from_fn(|index| hashed[index])
    }

    /// What a user's proof is held against; none for one who isn't known. The first time for each it takes about a
    /// millisecond.
    pub(super) fn scram_keys(&self, user: &str) -> Option<&ScramKeys> {
        let secret = self.secrets.get(user)?;
        Some(secret.scram.get_or_init(|| ScramKeys::derive(&secret.secret, &self.scram_salt(user))))
    }

    pub(super) fn check(
        &self,
        identity: Option<&Identity>,
        credential: &Credential,
        expected: Option<&Challenge>,
    ) -> Check {
        if self.is_open() {
            return Check::Good;
        }
        let id = identity.map(Identity::as_str).unwrap_or_default();
        // An unknown id is refused no earlier than a wrong secret, so that ids can't be probed.
        let secret = self.secrets.get(id).map(|secret| secret.secret.as_slice());
        let good = match credential {
            Credential::Challengeable => return Check::ChallengeFirst,
            // A mechanism of its own; it doesn't come here.
            Credential::None | Credential::Scram { .. } => false,
            Credential::Password { user, password } => {
                bool::from(secret.unwrap_or(b"-").ct_eq(password)) && secret.is_some() && user == id
            }
            Credential::Proof { challenge, proof } => {
                auth::verify(secret.unwrap_or(b"-"), &challenge.0, id, proof)
                    && secret.is_some()
                    && expected == Some(challenge)
            }
        };
        if good {
            Check::Good
        } else {
            Check::Refused(Refusal::new(Reason::NotAuthenticated, "the client id and its secret don't fit"))
        }
    }
}

impl std::fmt::Debug for Credentials {
    /// Says how many there are, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.secrets.len())
    }
}
