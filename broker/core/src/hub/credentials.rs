//! Who can prove to be whom: shared secrets per client id, for both protocols alike.

use bugle_protocol::auth;
use subtle::ConstantTimeEq;

use crate::model::{Challenge, Credential, Identity, Map, Reason, Refusal};

/// The secrets. Without any, everyone is who he says.
#[derive(Default)]
pub struct Credentials {
    secrets: Map<String, Vec<u8>>,
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
        Self { secrets: secrets.into_iter().collect() }
    }

    /// Whether there are none.
    pub fn is_open(&self) -> bool {
        self.secrets.is_empty()
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
        let secret = self.secrets.get(id).map(Vec::as_slice);
        let good = match credential {
            Credential::Challengeable => return Check::ChallengeFirst,
            Credential::None => false,
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
