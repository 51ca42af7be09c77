//! What was promised of what must last, and whether it was kept (S8, S10, S12; MQTT's QoS 1 and 2).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To a plain topic that all subscribe to.
    Plain,
    /// Likewise, and retained: the topic is its sender's own.
    Retained,
    /// To a plain topic of which one member of a share gets it.
    Shared,
    /// A signal to the group of all, with `store`, a receipt and, if so, an id.
    Stored { id: bool },
}

/// A message.
#[derive(Debug)]
pub struct Message {
    pub sender: usize,
    pub kind: Kind,
    pub qos: u8,
    /// Who was surely subscribed when it was sent.
    addressed: Vec<usize>,
    accepted: bool,
    refused: bool,
    /// How often it was sent again, and how often to another gateway.
    repeated: u32,
    repeated_after_kill: u32,
    /// Which gateway it was last sent to.
    gateway: u32,
    /// Which of its sender's connections it was sent on.
    connection: u32,
    receipts: u32,
    got: BTreeMap<usize, Copies>,
}

/// What one client got of a message.
#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    count: u32,
    /// Which gateway the last one came from.
    gateway: u32,
    /// Those of it that weren't repetitions on another connection, and marked.
    unmarked: u32,
}

/// All that was promised in a run.
#[derive(Debug, Default)]
pub struct Promises {
    pub messages: Vec<Message>,
    /// The number of the gateway that runs, or ran last.
    pub gateway: u32,
    /// The store refused for a while: what was sent then may come out of order.
    pub was_refusing: bool,
    /// Mailboxes are small.
    pub is_narrow: bool,
    /// The QoS of each client's subscriptions.
    qos: Vec<u8>,
    /// Whose are confirmed.
    subscribed: BTreeSet<usize>,
    /// The last message that came for the first time: per recipient, sender, and QoS of both: MQTT keeps no
    /// order between the levels.
    last: BTreeMap<(usize, usize, u8, u8), u32>,
    pub deliveries: usize,
    pub violations: Vec<String>,
}

impl Promises {
    /// None so far, to clients with subscriptions of these QoS.
    pub fn new(qos: Vec<u8>) -> Self {
        Self { qos, ..Self::default() }
    }

    pub fn violated(&mut self, text: String) {
        self.violations.push(text);
    }

    /// A client's subscriptions are confirmed.
    pub fn subscribed(&mut self, client: usize) {
        self.subscribed.insert(client);
    }

    pub fn is_subscribed(&self, client: usize) -> bool {
        self.subscribed.contains(&client)
    }

    /// A message is being sent, on so many-th connection of its sender.
    pub fn sent(&mut self, sender: usize, connection: u32, kind: Kind, qos: u8) -> u32 {
        let number = self.messages.len() as u32;
        self.messages.push(Message {
            sender,
            kind,
            qos,
            addressed: self.subscribed.iter().copied().collect(),
            accepted: false,
            refused: false,
            repeated: 0,
            repeated_after_kill: 0,
            gateway: self.gateway,
            connection,
            receipts: 0,
            got: BTreeMap::new(),
        });
        number
    }

    pub fn repeated(&mut self, number: u32) {
        let gateway = self.gateway;
        let message = &mut self.messages[number as usize];
        message.repeated += 1;
        message.repeated_after_kill += u32::from(std::mem::replace(&mut message.gateway, gateway) != gateway);
    }

    /// A message is acknowledged or refused; `is_mute`: a signal may be refused all the same.
    pub fn answered(&mut self, number: u32, refused: bool, is_mute: bool) {
        let message = &mut self.messages[number as usize];
        let refused = refused || is_mute && matches!(message.kind, Kind::Stored { .. });
        message.accepted |= !refused;
        message.refused |= refused;
    }

    fn effective_qos(&self, number: u32, client: usize) -> u8 {
        let qos = self.qos.get(client).copied().unwrap_or(0);
        qos.min(self.messages[number as usize].qos)
    }

    /// A client's application got a message.
    pub fn got(&mut self, client: usize, topic: &str, number: u32, dup: bool, connections: u32) {
        self.deliveries += 1;
        let qos = self.effective_qos(number, client);
        let Some(message) = self.messages.get_mut(number as usize) else {
            return self.violated(format!("{client} got {number}, which nobody sent"));
        };
        let copies = message.got.entry(client).or_default();
        copies.count += 1;
        if std::mem::replace(&mut copies.gateway, self.gateway) != self.gateway {
            copies.unmarked = 0;
        }
        copies.unmarked += u32::from(!(dup && connections > 1));
        let unmarked = copies.unmarked;
        let (count, kind, sender) = (copies.count, message.kind, message.sender);
        let text =
            |what: &str| format!("{client} got {number} on {topic} {what}: {count} times, {message:?}");
        if matches!(kind, Kind::Stored { .. }) && sender == client {
            let text = text("of its own");
            return self.violated(text);
        }
        // Retained ones come with the subscription as well, and a share may hand on.
        let is_counted = matches!(kind, Kind::Plain | Kind::Stored { .. });
        let most = match (kind, qos) {
            // The refusal of what couldn't be kept for all may be lost with the connection; the repetition is a new one then.
            (Kind::Plain, 2) if self.was_refusing => 1 + message.repeated,
            (Kind::Plain, 2) => 1,
            (Kind::Plain, 1) => 1 + message.repeated,
            (Kind::Plain, _) => 1,
            (Kind::Stored { id: true }, 2) => 1 + message.repeated_after_kill,
            (Kind::Stored { id: false }, 2) => 1 + message.repeated,
            (Kind::Stored { id: true }, _) => 1 + message.repeated_after_kill,
            (Kind::Stored { .. }, _) => 1 + message.repeated,
            _ => u32::MAX,
        };
        // What wasn't acknowledged comes again on another connection, marked; or from another gateway, which may not know that it
        // was written. What is never acknowledged leaves the store after it is written.
        let may_come_again = qos == 1 || (qos == 0 && matches!(kind, Kind::Stored { .. }));
        let judged = if may_come_again { unmarked } else { count };
        if is_counted && judged > most {
            let text = text("too often");
            return self.violated(text);
        }
        let is_ordered =
            kind == Kind::Plain && qos > 0 && !self.was_refusing && message.addressed.contains(&client);
        if is_ordered && count == 1 {
            let last = self.last.entry((client, sender, message.qos, qos)).or_default();
            if number < *last {
                let text = text(&format!("after {last}"));
                return self.violated(text);
            }
            *last = number;
        }
    }

    /// One to whom nothing lasting is promised got a message, perhaps as a member of the share.
    pub fn got_of_share(&mut self, client: usize, number: u32) {
        if let Some(message) =
            self.messages.get_mut(number as usize).filter(|message| message.kind == Kind::Shared)
        {
            message.got.entry(client).or_default().count += 1;
        }
    }

    /// A receipt came to the sender of a message.
    pub fn receipted(&mut self, number: u32, notice: &Value) {
        let Some(message) = self.messages.get_mut(number as usize) else { return };
        message.receipts += 1;
        let counts = notice["counts"].as_object();
        let total: u64 = counts.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        let named = notice["statuses"].as_object().map_or(0, serde_json::Map::len) as u64;
        let all = notice["members"].as_u64();
        let most = self.qos.len() as u64;
        // Of what was lost with a killed gateway, numbers are known and no names.
        if named > total || all.is_some_and(|all| all != total) || total > most {
            let text = format!("the receipt of {number} doesn't add up: {notice}");
            return self.violated(text);
        }
        let delivered: Vec<&str> = notice["statuses"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, status)| *status == "DELIVERED")
            .map(|(id, _)| id.as_str())
            .collect();
        for id in delivered {
            let client = (0..64).find(|client| crate::plan::client_id(*client) == id);
            let is_watched = client.is_none_or(|client| self.subscribed.contains(&client));
            if is_watched
                && client.is_none_or(|client| !self.messages[number as usize].got.contains_key(&client))
            {
                self.violated(format!("{id} never got {number}, which is DELIVERED to it"));
            }
        }
    }

    /// All is healed and quiet: whoever was promised something has it.
    pub fn check_end(&mut self, connections: &[u32]) {
        let mut broken = Vec::new();
        for (number, message) in self.messages.iter().enumerate() {
            // A connection takes what is on its way with it; a killed gateway loses receipts, or gives them twice.
            let is_heard = message.accepted && message.qos > 0 && message.addressed.contains(&message.sender);
            if message.kind == (Kind::Stored { id: true })
                && is_heard
                && self.gateway == 1
                && !self.was_refusing
            {
                let connection = connections.get(message.sender).copied().unwrap_or(1);
                let is_missing = message.receipts == 0 && connection == message.connection;
                if is_missing || message.receipts > message.repeated + connection {
                    broken.push(format!("{} last receipts came of {number}: {message:?}", message.receipts));
                }
            }
            if !message.accepted && !message.refused && message.qos > 0 {
                broken.push(format!("{number} was never answered: {message:?}"));
            }
            if !message.accepted || message.qos == 0 {
                continue;
            }
            if message.kind == Kind::Shared {
                // A member whose session ends takes its QoS 2 messages with it [MQTT-4.8.2-5], and a killed gateway those of such
                // sessions; members that have no room are passed over, and it is counted as dropped if none has.
                // What is handed on from shard to shard in the moment of a kill is lost, too: docs/reliability.md.
                let all_last = self.qos.len() == self.subscribed.len();
                if all_last
                    && self.gateway == 1
                    && !self.is_narrow
                    && !message.addressed.is_empty()
                    && message.got.is_empty()
                {
                    broken.push(format!("nobody of the share got {number}: {message:?}"));
                }
                continue;
            }
            // A shard that can't store a signal for a recipient says so: OVERFLOW.
            if self.was_refusing && matches!(message.kind, Kind::Stored { .. }) {
                continue;
            }
            for &client in &message.addressed {
                let is_own = matches!(message.kind, Kind::Stored { .. }) && client == message.sender;
                if !is_own && !message.got.contains_key(&client) {
                    broken.push(format!("{client} never got {number}: {message:?}"));
                }
            }
        }
        self.violations.extend(broken);
    }

    /// What may be retained of a sender's own topic: the last that was accepted, or one after it that was refused.
    pub fn may_be_retained(&self, sender: usize, number: Option<u32>) -> bool {
        // A repetition of what was refused, or of what was refused on some shards only, may come after a later one.
        if self.was_refusing {
            return true;
        }
        let of_sender = |message: &&Message| message.sender == sender && message.kind == Kind::Retained;
        let last = self
            .messages
            .iter()
            .rposition(|message| of_sender(&message) && message.accepted && message.qos > 0);
        match (last, number) {
            (None, None) => true,
            (Some(_), None) => false,
            (last, Some(number)) => {
                let at = number as usize;
                // At QoS 1 a repetition can't be told from a new one, and is retained as such.
                self.messages.get(at).is_some_and(|message| {
                    of_sender(&message)
                        && (last.is_none_or(|last| at >= last) || message.qos == 1 && message.repeated > 0)
                })
            }
        }
    }
}
