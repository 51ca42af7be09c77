//! Who and where: client ids, group names and message ids (S1, S2, S12).

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bugle_protocol::is_name;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if `text` is one: 1-64 of `A-Z a-z 0-9 . _ : -`.
            pub fn new(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, to be kept without a copy.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A client id, which is the identity (S1).
    ClientId
}
name! {
    /// The name of a group (S2).
    GroupName
}
name! {
    /// The sender's own id for a message (S12).
    MessageId
}

/// Whoever is connected: a client id, or another id that an MQTT client chose, which makes it a plain MQTT
/// client that can neither be addressed nor send signals (S1).
#[derive(Clone)]
pub struct Identity {
    name: Arc<str>,
    addressable: bool,
}

impl Identity {
    /// The identity with this id. Any text will do; the caller bounds its length.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), addressable: is_name(name) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The same, to be kept without a copy.
    pub fn shared(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The client id, if it is one.
    pub fn client_id(&self) -> Option<ClientId> {
        self.addressable.then(|| ClientId(self.name.clone()))
    }
}

// Equal and hashed as its text, so that tables can be asked by text.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl From<ClientId> for Identity {
    fn from(id: ClientId) -> Self {
        Self { name: id.0, addressable: true }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Map;

    #[test]
    fn an_identity_is_found_by_its_text_whatever_its_form() {
        let mut clients = Map::default();
        for id in ["lamp-1", "not a client id"] {
            clients.insert(Identity::new(id), ());
            assert!(clients.contains_key(id), "{id}");
        }
    }

    #[test]
    fn s1_names_are_1_to_64_of_few_characters() {
        let longest = "x".repeat(64);
        for good in ["a", "lamp-1", "A.b_c:d-9", longest.as_str()] {
            assert!(ClientId::new(good).is_some() && Identity::new(good).client_id().is_some(), "{good}");
        }
        for bad in ["", "a b", "a/b", "\u{e4}", "x".repeat(65).as_str()] {
            assert!(GroupName::new(bad).is_none() && Identity::new(bad).client_id().is_none(), "{bad}");
        }
    }
}
