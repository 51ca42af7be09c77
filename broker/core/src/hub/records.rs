//! How the hub writes down what the store keeps for it: JSON of these shapes. Who changes one has to read the old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::stored::StoredSend;
use crate::model::{
    ClientId, Filter, GroupName, Instant, MessageId, Principal, QoS, ReceiptCounts, ReceiptMode, Reception,
    RequestId, Status, Target,
};
use crate::store::WallTime;

fn is_false(value: &bool) -> bool {
    !value
}

/// How a client wants what it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptReception {
    qos: u8,
    #[serde(default, skip_serializing_if = "is_false")]
    no_local: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    with_sender: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    retain_as_published: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscription: Option<u32>,
}

impl From<&Reception> for KeptReception {
    fn from(reception: &Reception) -> Self {
        let Reception { qos, no_local, with_sender, retain_as_published, subscription } = *reception;
        Self { qos: qos.as_u8(), no_local, with_sender, retain_as_published, subscription }
    }
}

impl From<KeptReception> for Reception {
    fn from(kept: KeptReception) -> Self {
        let KeptReception { qos, no_local, with_sender, retain_as_published, subscription } = kept;
        let qos = match qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        Self { qos, no_local, with_sender, retain_as_published, subscription }
    }
}

/// A message in a queue, beside the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptEntry {
    #[serde(flatten)]
    reception: KeptReception,
    /// The share by which it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<String>,
    /// It is a signal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) signal: bool,
    /// The sender who is to hear of its end, and the number of the send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<(String, u64)>,
}

impl KeptEntry {
    /// `signal`: it is one, with who is to hear of its end.
    pub(super) fn new(
        reception: &Reception,
        share: Option<&str>,
        signal: Option<Option<&(ClientId, u64)>>,
    ) -> Self {
        Self {
            reception: reception.into(),
            share: share.map(str::to_owned),
            signal: signal.is_some(),
            receipt: signal.flatten().map(|(client, number)| (client.to_string(), *number)),
        }
    }

    pub(super) fn to_text(&self) -> String {
        // Nothing in it can't be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One that can't be read is of a plain message at QoS 1, so that the message at least comes.
    pub(super) fn from_text(text: &str) -> Self {
        let kept = KeptReception { qos: 1, ..KeptReception::default() };
        serde_json::from_str(text).unwrap_or(Self { reception: kept, ..Self::default() })
    }

    pub(super) fn reception(&self) -> Reception {
        self.reception.into()
    }

    pub(super) fn receipt(&self) -> Option<(ClientId, u64)> {
        let (client, number) = self.receipt.as_ref()?;
        Some((ClientId::new(client)?, *number))
    }
}

/// A subscription of a session that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptSubscription {
    #[serde(flatten)]
    reception: KeptReception,
    /// As in [`SubscribeItem::forms`](crate::model::SubscribeItem::forms).
    #[serde(default)]
    pub(super) forms: u8,
}

impl KeptSubscription {
    pub(super) fn new(reception: &Reception, forms: u8) -> Self {
        Self { reception: reception.into(), forms }
    }

    pub(super) fn reception(&self) -> Reception {
        self.reception.into()
    }
}

/// A session that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptSessionRecord {
    /// Seconds without a connection after which it ends.
    pub(super) expiry: u32,
    /// When that is, if its client is away; in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<String>,
}

impl KeptSessionRecord {
    pub(super) fn new(expiry: u32, ends: Option<WallTime>, principal: Option<&Principal>) -> Self {
        let ends = ends.map(|ends| ends.0);
        match principal {
            None => Self { expiry, ends, ..Self::default() },
            Some(principal) => {
                let text = |name: &Option<Arc<str>>| name.as_deref().map(str::to_owned);
                let (user, certificate) = (text(&principal.user), text(&principal.certificate));
                let roles = principal.roles.iter().map(|role| role.to_string()).collect();
                Self { expiry, ends, user, roles, certificate }
            }
        }
    }

    pub(super) fn principal(&self) -> Option<Principal> {
        let name = |name: &Option<String>| name.as_deref().map(Arc::from);
        let (user, certificate) = (name(&self.user), name(&self.certificate));
        let roles = self.roles.iter().map(|role| role.as_str().into()).collect();
        let principal = Principal { user, roles, certificate };
        (principal != Principal::default()).then_some(principal)
    }
}

/// A send of which some recipients are queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptReceipt {
    request: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    target: KeptTarget,
    each: bool,
    counts: BTreeMap<u8, u32>,
    entries: Vec<(String, u8)>,
    open: i64,
}

/// Whom it was for; the lists are nobody's concern any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeptTarget {
    Client(String),
    Group(String),
}

impl From<&Target> for KeptTarget {
    fn from(target: &Target) -> Self {
        match target {
            Target::Client(client) => Self::Client(client.to_string()),
            Target::Group { group, .. } => Self::Group(group.to_string()),
        }
    }
}

impl KeptTarget {
    fn target(&self) -> Option<Target> {
        match self {
            Self::Client(client) => Some(Target::Client(ClientId::new(client)?)),
            Self::Group(group) => Target::group(GroupName::new(group)?, None, None).ok(),
        }
    }
}

fn kept_counts(counts: &ReceiptCounts) -> BTreeMap<u8, u32> {
    let present = Status::ALL.iter().map(|&status| (status.code(), counts.count(status)));
    present.filter(|(_, count)| *count > 0).collect()
}

fn counts_of(kept: &BTreeMap<u8, u32>) -> ReceiptCounts {
    let mut counts = ReceiptCounts::default();
    for (code, count) in kept {
        if let Some(status) = Status::from_code(*code) {
            counts.add(status, *count);
        }
    }
    counts
}

impl KeptReceipt {
    pub(super) fn new(send: &StoredSend) -> Self {
        Self {
            request: send.request.0,
            id: send.id.as_ref().map(|id| id.as_str().to_owned()),
            target: (&send.target).into(),
            each: send.mode == ReceiptMode::Each,
            counts: kept_counts(&send.counts),
            entries: send
                .entries
                .iter()
                .map(|(client, status)| (client.to_string(), status.code()))
                .collect(),
            open: send.open,
        }
    }

    /// The send, which is given up at `ends`.
    pub(super) fn send(&self, sender: ClientId, ends: Instant) -> Option<StoredSend> {
        let entry = |(client, code): &(String, u8)| Some((ClientId::new(client)?, Status::from_code(*code)?));
        Some(StoredSend {
            sender,
            origin: None,
            request: RequestId(self.request),
            id: self.id.as_deref().and_then(MessageId::new),
            target: self.target.target()?,
            mode: if self.each { ReceiptMode::Each } else { ReceiptMode::Summary },
            counts: counts_of(&self.counts),
            entries: self.entries.iter().filter_map(entry).collect(),
            open: self.open,
            announced: true,
            ends,
        })
    }
}

/// A message id that was used for a stored send, and what became of that (S12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMessageId {
    pub(super) fingerprint: u64,
    target: KeptTarget,
    counts: BTreeMap<u8, u32>,
}

impl KeptMessageId {
    pub(super) fn new(fingerprint: u64, target: &Target, counts: &ReceiptCounts) -> Self {
        Self { fingerprint, target: target.into(), counts: kept_counts(counts) }
    }

    pub(super) fn target(&self) -> Option<Target> {
        self.target.target()
    }

    pub(super) fn counts(&self) -> ReceiptCounts {
        counts_of(&self.counts)
    }
}

/// The key of a subscription's record.
pub(super) fn subscription_key(filter: &Filter) -> Arc<str> {
    match filter {
        Filter::Group(group) => format!("group {group}").into(),
        Filter::Inbox => "inbox".into(),
        Filter::Notices => "notices".into(),
        Filter::Topic(topic) => format!("topic {topic}").into(),
    }
}

/// What such a key names.
pub(super) fn subscription_of(key: &str) -> Option<Filter> {
    match key.split_once(' ') {
        None if key == "inbox" => Some(Filter::Inbox),
        None if key == "notices" => Some(Filter::Notices),
        Some(("group", name)) => GroupName::new(name).map(Filter::Group),
        Some(("topic", filter)) => Some(Filter::Topic(filter.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let reception = Reception {
            qos: QoS::ExactlyOnce,
            no_local: true,
            with_sender: true,
            retain_as_published: true,
            subscription: Some(7),
        };
        let sender = (ClientId::new("desk").unwrap(), 9);
        let entry = KeptEntry::new(&reception, Some("$share/a/b"), Some(Some(&sender)));
        let read = KeptEntry::from_text(&entry.to_text());
        assert_eq!((&read, read.reception(), read.receipt()), (&entry, reception, Some(sender)));
        let plain = KeptEntry::new(&Reception::DEVICE, None, None).to_text();
        assert_eq!(plain, r#"{"qos":1}"#);
        let principal = Principal { roles: vec!["r".into()], ..Principal::user("u") };
        let record = KeptSessionRecord::new(5, Some(WallTime(6)), Some(&principal));
        let text = serde_json::to_string(&record).unwrap();
        let read: KeptSessionRecord = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, read.principal()), (&record, Some(principal)));
        for filter in [
            Filter::Inbox,
            Filter::Notices,
            Filter::Group(GroupName::new("g").unwrap()),
            Filter::Topic("a b/ c".into()),
        ] {
            assert_eq!(subscription_of(&subscription_key(&filter)), Some(filter));
        }
        assert_eq!(subscription_of("nonsense"), None);
    }

    #[test]
    fn what_cannot_be_read_is_a_plain_message() {
        assert_eq!(KeptEntry::from_text("{").reception(), Reception::DEVICE);
    }
}
