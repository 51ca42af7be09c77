//! The properties of a PUBLISH that pass from sender to recipient unaltered (T2, [MQTT-3.3.2-17]): kept as
//! bytes while the message travels, since most recipients' packets only need them copied.
//!
//! What is written here is what the codec has checked; reading stops at the first byte that isn't.

use bytes::Bytes;

use crate::mqtt::{Properties, Property};

/// The properties that pass, but for those user properties that `consumed` names.
pub(super) fn write(properties: &Properties<'_>, consumed: fn(&str) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for property in properties.iter() {
        match property {
            Property::PayloadFormatIndicator(flag) => out.extend_from_slice(&[property.id(), flag.into()]),
            Property::ContentType(text) | Property::ResponseTopic(text) => {
                out.push(property.id());
                put(text.as_bytes(), &mut out);
            }
            Property::CorrelationData(bytes) => {
                out.push(property.id());
                put(bytes, &mut out);
            }
            Property::UserProperty(name, value) if !consumed(name) => {
                out.push(property.id());
                put(name.as_bytes(), &mut out);
                put(value.as_bytes(), &mut out);
            }
            _ => {}
        }
    }
    out
}

/// The properties of a message of the gateway's own.
pub(crate) fn passed_through(properties: &Properties<'_>) -> Bytes {
    write(properties, |_| false).into()
}

/// The same properties, and these subscription identifiers behind them: for a client that has several that match
/// [MQTT-3.3.4-3].
pub(crate) fn with_subscriptions(properties: &[u8], subscriptions: &[u32]) -> Bytes {
    let mut out = properties.to_vec();
    for number in subscriptions {
        out.push(Property::SubscriptionIdentifier(*number).id());
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.into()
}

/// Two bytes of length in front; the codec has read it from a field of that kind.
fn put(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.get(..length.into()).unwrap_or(bytes));
}

/// The properties that [`write`] wrote.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Property<'_>> {
    core::iter::from_fn(move || {
        let (&id, rest) = bytes.split_first()?;
        bytes = rest;
        match id {
            0x01 => {
                let (&flag, rest) = bytes.split_first()?;
                bytes = rest;
                Some(Property::PayloadFormatIndicator(flag != 0))
            }
            0x0B => {
                let (number, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                Some(Property::SubscriptionIdentifier(u32::from_be_bytes(*number)))
            }
            0x03 => text(&mut bytes).map(Property::ContentType),
            0x08 => text(&mut bytes).map(Property::ResponseTopic),
            0x09 => take(&mut bytes).map(Property::CorrelationData),
            0x26 => {
                let name = text(&mut bytes)?;
                Some(Property::UserProperty(name, text(&mut bytes)?))
            }
            _ => None,
        }
    })
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (field, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(field)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    core::str::from_utf8(take(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::PropertyWriter;

    #[test]
    fn t2_what_passes_comes_out_as_it_went_in_and_in_order() {
        let passing = [
            Property::UserProperty("a", "1"),
            Property::ContentType("text/plain"),
            Property::PayloadFormatIndicator(true),
            Property::UserProperty("a", ""),
            Property::ResponseTopic("answers/here"),
            Property::CorrelationData(b"\x00\x01"),
        ];
        let mut writer = PropertyWriter::new();
        writer.extend(passing).push(Property::UserProperty("gone", "x"));
        writer.push(Property::MessageExpiryInterval(7)).push(Property::TopicAlias(1));
        let bytes = write(&writer.finish().unwrap(), |name| name == "gone");
        assert_eq!(read(&bytes).collect::<Vec<_>>(), passing);
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).count() < passing.len());
        }
    }
}
