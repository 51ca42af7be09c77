//! What a client has proved to be, beside its id.

use std::sync::Arc;

/// What rules can tell a client by beside its id (docs/security.md). It is made when a client has authenticated, and
/// shared by all clients that did so as the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principal {
    /// As whom it authenticated: the name that goes with a password or secret.
    pub user: Option<Arc<str>>,
    /// What its credential makes it. Rules may give it more roles.
    pub roles: Vec<Arc<str>>,
    /// The name in the certificate that it showed.
    pub certificate: Option<Arc<str>>,
}

impl Principal {
    /// Of a client that has proved nothing.
    pub const ANONYMOUS: &Self = &Self { user: None, roles: Vec::new(), certificate: None };

    /// Of someone who authenticated by a certificate.
    pub fn certificate(name: &str) -> Self {
        let name: Arc<str> = name.into();
        Self { user: Some(name.clone()), roles: Vec::new(), certificate: Some(name) }
    }

    /// Of someone who authenticated by a name.
    pub fn user(name: &str) -> Self {
        Self { user: Some(name.into()), ..Self::default() }
    }
}
