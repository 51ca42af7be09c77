//! The names that a device of the generator announces and then sends by their handles (docs/protocol.md, section 7), as
//! the device SDK does: in the order of their first use, as many as the gateway's table takes, and others by name.

use std::collections::HashMap;
use std::num::NonZeroU16;

use bugle_protocol::{Frame, NameKind, NameRef};

use super::plan::{Send, To};

/// The announced names of one connection.
#[derive(Debug, Default)]
pub struct Handles(HashMap<(NameKind, String), NonZeroU16>);

impl Handles {
    /// Gives handles to what `sends` name, up to the size of the gateway's table.
    pub fn new(sends: &[Send], table: u16) -> Self {
        let mut handles = HashMap::new();
        for (kind, name) in sends.iter().flat_map(|send| names(&send.to)) {
            let next = u16::try_from(handles.len() + 1).ok().filter(|&next| next <= table);
            let Some(handle) = next.and_then(NonZeroU16::new) else { break };
            handles.entry((kind, name.to_owned())).or_insert(handle);
        }
        Self(handles)
    }

    /// The frames that announce them.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.0.iter().map(|((kind, name), &handle)| Frame::Name { handle: handle.into(), kind: *kind, name })
    }

    /// The name by its handle if it has one.
    pub fn refer<'a>(&self, kind: NameKind, name: &'a str) -> NameRef<'a> {
        let handle = self.0.get(&(kind, name.to_owned()));
        handle.map_or(NameRef::Inline(name), |&handle| NameRef::Handle(handle))
    }
}

/// What a message's target names, the most used first.
fn names(to: &To) -> Box<dyn Iterator<Item = (NameKind, &str)> + '_> {
    match to {
        To::Topic(topic) => Box::new(std::iter::once((NameKind::Topic, topic.as_str()))),
        To::Client(id) => Box::new(std::iter::once((NameKind::Client, id.as_str()))),
        To::Group { name, only, except } => {
            let listed = only.iter().chain(except).map(|id| (NameKind::Client, id.as_str()));
            Box::new(std::iter::once((NameKind::Group, name.as_str())).chain(listed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_gateways_table_stay_names() {
        let only = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let to = To::Group { name: "g".to_owned(), only, except: Vec::new() };
        let handles = Handles::new(&[Send { to, recipients: 3 }], 3);
        assert_eq!(handles.frames().count(), 3);
        assert_eq!(handles.refer(NameKind::Group, "g"), NameRef::Handle(NonZeroU16::MIN));
        assert!(matches!(handles.refer(NameKind::Client, "b"), NameRef::Handle(_)));
        assert_eq!(handles.refer(NameKind::Client, "c"), NameRef::Inline("c"));
        // The same text as a client is another name.
        assert_eq!(handles.refer(NameKind::Client, "g"), NameRef::Inline("g"));
        assert_eq!(Handles::new(&[], 256).frames().count(), 0);
    }
}
