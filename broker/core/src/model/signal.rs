//! A send as the hub gets it: checked against S3, S4 and S6, whichever protocol it came by.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bugle_protocol::{MAX_LIST, MAX_PAYLOAD, Mode, Reason, ReceiptMode};

use super::{AsSent, ClientId, GroupName, Instant, MessageId, MessageView, OriginView, QoS, Refusal, Set};

/// An *only* or *except* list: at most 128 entries counted as given, duplicates collapsed (S4).
#[derive(Clone, Debug, Default)]
pub struct RecipientList(Set<ClientId>);

impl RecipientList {
    /// Checks and collapses `entries`: a list of 129 or an entry that is no client id refuses the send.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, Refusal> {
        let mut list = Set::default();
        for (index, entry) in entries.into_iter().enumerate() {
            if index == MAX_LIST {
                return Err(Refusal::new(Reason::ListTooLong, "a list has at most 128 entries"));
            }
            list.insert(ClientId::new(entry).ok_or_else(|| {
                Refusal::new(
                    Reason::BadName,
                    format!("entry {} of a list, '{}', is no client id", index + 1, shown(entry)),
                )
            })?);
        }
        Ok(Self(list))
    }

    /// Whether `client` is listed.
    pub fn contains(&self, client: &str) -> bool {
        self.0.contains(client)
    }

    /// Whether nobody is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are listed, duplicates collapsed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those listed, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &ClientId> {
        self.0.iter()
    }
}

/// Of outside text, as much as an error message should repeat.
fn shown(text: &str) -> &str {
    // No text of MQTT may have a NUL in it: the refusal would have to go without its reason.
    let mut end = text.find(char::is_control).unwrap_or(text.len()).min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Which members of a group (S3, S4).
#[derive(Clone, Debug)]
pub enum Recipients {
    /// All of them.
    All,
    /// The named ones; never empty as given.
    Only(Arc<RecipientList>),
}

/// Whom a signal is for (S3).
#[derive(Clone, Debug)]
pub enum Target {
    /// One client.
    Client(ClientId),
    /// Members of a group, minus those in `except`.
    Group {
        /// The group.
        group: GroupName,
        /// Which members.
        recipients: Recipients,
        /// Without these; *except* always wins (S5).
        except: Arc<RecipientList>,
    },
}

impl Target {
    /// A group with its lists. An *only* that is there but empty is refused: it must never become a
    /// broadcast (S4). An empty *except* is a broadcast.
    pub fn group(
        group: GroupName,
        only: Option<RecipientList>,
        except: Option<RecipientList>,
    ) -> Result<Self, Refusal> {
        let recipients = match only {
            None => Recipients::All,
            Some(list) if list.is_empty() => {
                return Err(Refusal::new(Reason::NoRecipient, "'only' is there but names nobody"));
            }
            Some(list) => Recipients::Only(Arc::new(list)),
        };
        Ok(Self::Group { group, recipients, except: Arc::new(except.unwrap_or_default()) })
    }

    /// The mode that recipients see (S3).
    pub fn mode(&self) -> Mode {
        match self {
            Self::Client(_) => Mode::One,
            Self::Group { recipients: Recipients::Only(_), .. } => Mode::Only,
            Self::Group { except, .. } if !except.is_empty() => Mode::Except,
            Self::Group { .. } => Mode::All,
        }
    }
}

/// Options of a send (T1).
#[derive(Clone, Debug, Default)]
pub struct SignalOptions {
    /// Time to live in milliseconds from acceptance, at least 1 (S9).
    pub ttl: Option<u32>,
    /// What the sender wants to hear (S8).
    pub receipt: ReceiptMode,
    /// Keep it for offline recipients (S10).
    pub store: bool,
    /// Deliver to the sender too (S5).
    pub echo: bool,
    /// Overtake what isn't urgent (S16).
    pub urgent: bool,
    /// Accept it once (S12).
    pub id: Option<MessageId>,
}

/// Whom a signal is for, and how: what a sender mostly says again with the next one, so that it is shared.
#[derive(Clone, Debug)]
pub struct Addressed {
    /// Whom it is for.
    pub target: Target,
    /// How.
    pub options: SignalOptions,
}

/// A signal, ready to be judged by the rules, in the packet that brought it as far as it can be.
#[derive(Clone, Debug)]
pub struct Signal<'i> {
    /// Whom it is for, and how.
    pub addressed: Rc<Addressed>,
    /// At most 8192 bytes.
    pub payload: Cow<'i, [u8]>,
    /// MQTT 5 properties that pass unaltered, as on the wire: user properties, content type, response
    /// topic, correlation data, payload format (T2).
    pub properties: Cow<'i, [u8]>,
    /// The QoS that it was sent with; a device's signals are at least once.
    pub qos: QoS,
    /// The packet, if it is one that recipients may get as it is.
    pub as_sent: Option<AsSent<'i>>,
}

impl Signal<'_> {
    /// Whom it is for.
    pub fn target(&self) -> &Target {
        &self.addressed.target
    }

    /// How it is sent.
    pub fn options(&self) -> &SignalOptions {
        &self.addressed.options
    }

    /// A look at the message that its recipients get, accepted from `sender` at this moment.
    pub fn view<'a>(&'a self, sender: &'a ClientId, now: Instant) -> MessageView<'a> {
        let (group, client) = match self.target() {
            Target::Client(client) => (None, Some(client)),
            Target::Group { group, .. } => (Some(group), None),
        };
        MessageView {
            origin: OriginView::Signal { sender, group, client, mode: self.target().mode() },
            payload: &self.payload,
            properties: &self.properties,
            qos: self.qos,
            deadline: self.options().ttl.map(|ttl| now + u64::from(ttl)),
            urgent: self.options().urgent,
            as_sent: self.as_sent,
        }
    }

    /// The signal for itself.
    pub fn into_owned(self) -> Signal<'static> {
        Signal {
            addressed: self.addressed,
            payload: Cow::Owned(self.payload.into_owned()),
            properties: Cow::Owned(self.properties.into_owned()),
            qos: self.qos,
            as_sent: None,
        }
    }

    /// Whether a payload of this length may be sent (S6).
    pub fn check_payload(length: usize) -> Result<(), Refusal> {
        if length <= MAX_PAYLOAD {
            Ok(())
        } else {
            Err(Refusal::new(Reason::TooLarge, format!("a payload of {length} bytes is over 8192")))
        }
    }

    /// Whether this ttl may be asked for: 0 would be over before it began.
    pub fn check_ttl(ttl: Option<u32>) -> Result<(), Refusal> {
        match ttl {
            Some(0) => Err(Refusal::new(Reason::BadOption, "'ttl' is at least 1 ms")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("lamp-{n}")).collect()
    }

    fn list(ids: &[String]) -> Result<RecipientList, Refusal> {
        RecipientList::new(ids.iter().map(String::as_str))
    }

    #[test]
    fn s4_a_list_of_128_is_taken_and_129_is_refused_even_as_duplicates() {
        assert_eq!(list(&ids(128)).unwrap().len(), 128);
        assert_eq!(list(&ids(129)).unwrap_err().reason, Reason::ListTooLong);
        assert_eq!(list(&vec!["a".to_owned(); 128]).unwrap().len(), 1);
        assert_eq!(list(&vec!["a".to_owned(); 129]).unwrap_err().reason, Reason::ListTooLong);
    }

    #[test]
    fn s4_an_empty_only_is_refused_and_an_empty_except_is_a_broadcast() {
        let group = GroupName::new("g").unwrap();
        let empty = || Some(RecipientList::default());
        assert_eq!(Target::group(group.clone(), empty(), None).unwrap_err().reason, Reason::NoRecipient);
        assert_eq!(Target::group(group, None, empty()).unwrap().mode(), Mode::All);
    }

    #[test]
    fn s4_an_entry_that_is_no_client_id_is_named_in_the_refusal() {
        let refusal = RecipientList::new(["a", "b c"]).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadName);
        assert!(refusal.text.contains("'b c'"), "{}", refusal.text);
    }
}
