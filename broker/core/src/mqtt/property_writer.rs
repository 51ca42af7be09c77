//! Putting properties together for a packet to be sent.

use super::properties::PropertySet;
use super::{EncodeError, Properties, Property};

/// Collects properties, and can be used again after [`clear`](Self::clear) without allocating anew.
///
/// An invalid property (a string above 65,535 bytes or with U+0000, a forbidden zero, a second one of what
/// may occur once) is remembered and told by [`finish`](Self::finish), so that pushing needs no `?` at every
/// line.
///
/// ```
/// use bugle_core::mqtt::{Property, PropertyWriter};
///
/// let mut writer = PropertyWriter::new();
/// writer.push(Property::MessageExpiryInterval(60)).push(Property::UserProperty("from", "lamp-1"));
/// let properties = writer.finish()?;
/// assert_eq!(properties.message_expiry(), Some(60));
/// # Ok::<(), bugle_core::mqtt::EncodeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct PropertyWriter {
    raw: Vec<u8>,
    present: PropertySet,
    error: Option<EncodeError>,
}

impl PropertyWriter {
    /// An empty one; doesn't allocate.
    pub const fn new() -> Self {
        Self { raw: Vec::new(), present: PropertySet::NONE, error: None }
    }

    /// Appends a property.
    pub fn push(&mut self, property: Property<'_>) -> &mut Self {
        let start = self.raw.len();
        if let Err(error) = self.try_push(property) {
            self.raw.truncate(start);
            self.error.get_or_insert(error);
        }
        self
    }

    fn try_push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        property.check()?;
        property.write(&mut self.raw)?;
        self.present.insert(property.id())?;
        Ok(())
    }

    /// Appends several. With [`Properties::iter`] and a filter this forwards what a message came with.
    pub fn extend<'a>(&mut self, properties: impl IntoIterator<Item = Property<'a>>) -> &mut Self {
        for property in properties {
            self.push(property);
        }
        self
    }

    /// What has been collected, to be put into a packet.
    ///
    /// # Errors
    ///
    /// The first property that was invalid.
    pub fn finish(&self) -> Result<Properties<'_>, EncodeError> {
        match self.error {
            None => Ok(Properties::from_parts(&self.raw, self.present)),
            Some(error) => Err(error),
        }
    }

    /// Forgets all properties and errors, but keeps the memory.
    pub fn clear(&mut self) {
        self.raw.clear();
        self.present = PropertySet::NONE;
        self.error = None;
    }
}
