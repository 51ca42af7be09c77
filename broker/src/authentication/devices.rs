//! The file of devices' secrets: a line for each device, made by `bugle device add`.
//!
//! ```text
//! lamp-1:Jw0sF...:roles=sensor
//! ```
//! A secret is known to the gateway as it is, since a device proves it without sending it (docs/protocol.md).

use std::path::Path;

use bugle_core::hub::SecretEntry;
use bugle_core::model::ClientId;
use bugle_core::rules::Pattern;

use super::{Extras, lines, read};

/// Reads the secrets; the error names file and line.
pub fn load(path: &Path) -> Result<Vec<SecretEntry>, String> {
    parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &str) -> Result<Vec<SecretEntry>, String> {
    let mut entries: Vec<SecretEntry> = Vec::new();
    for (number, line) in lines(text) {
        let wrong = |what: &str| format!("line {number}: {what}");
        let mut fields = line.split(':');
        let id = fields.next().unwrap_or_default();
        if ClientId::new(id).is_none() {
            return Err(wrong(&format!(
                "'{id}' is no client id of 1-64 of A-Z a-z 0-9 . _ - (without ':' here)"
            )));
        }
        let secret = fields.next().unwrap_or_default();
        if secret.len() < 16 {
            return Err(wrong("the secret has less than 16 characters; make one with `bugle device add`"));
        }
        let extras = Extras::parse(fields).map_err(|what| wrong(&what))?;
        if entries.iter().any(|entry| entry.id == id) {
            return Err(wrong(&format!("the device '{id}' is there twice")));
        }
        entries.push(SecretEntry {
            id: id.to_owned(),
            secret: secret.as_bytes().into(),
            clients: extras.clients.iter().map(|pattern| Pattern::new(pattern)).collect(),
            roles: extras.roles.iter().map(|role| role.as_str().into()).collect(),
        });
    }
    Ok(entries)
}

/// What is wrong with this text, if something is.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) -> Option<String> {
    parse(text).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_device_or_is_named() {
        let entries = parse("# lamps\nlamp-1:0123456789abcdef:roles=sensor\n").unwrap();
        assert_eq!((entries.len(), &*entries[0].id, entries[0].secret.len()), (1, "lamp-1", 16));
        for (text, expected) in [
            ("lamp 1:0123456789abcdef", "line 1: 'lamp 1' is no client id"),
            ("lamp-1:short", "line 1: the secret has less"),
            ("\nlamp-1:0123456789abcdef:x", "line 2: 'x' is neither"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(expected) && !error.contains("abcdef"), "{error}");
        }
    }
}
