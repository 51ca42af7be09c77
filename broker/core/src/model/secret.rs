//! Passwords and secrets: nothing prints them, and nothing of them is left in memory when they are done with.

use std::fmt;
use std::ops::Deref;

use zeroize::Zeroizing;

/// Bytes that nobody else is to know. They are overwritten when this is dropped, and their comparison isn't offered: who has to compare
/// does so in constant time.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl fmt::Debug for Secret {
    /// Not even how long it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::from(&b"mellon"[..]);
        assert_eq!((format!("{secret:?}").as_str(), &secret[..]), ("Secret", &b"mellon"[..]));
    }
}
