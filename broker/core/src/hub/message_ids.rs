//! Message ids: a send that is made twice is delivered once (S12).
//!
//! For 120 s after a send with an id was accepted, another one with the same id from the same identity delivers nothing;
//! it is told what became of the first, or waits for that with it. The window is the identity's: it outlives connections
//! and changes of protocol. Refused sends aren't in it, so that they can be repeated.
//!
//! What a sender may have here is bounded in ids, and all of them together in bytes; who wants more is BUSY. Read
//! docs/decisions/0009 for what a repetition with other options gets.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::records::KeptMessageId;
use super::timers::Timer;
use super::{ConnectionKey, SendKey, Shard};
use crate::backbone::Backbone;
use crate::model::{
    Addressed, ClientId, Instant, Map, MessageId, Reason, ReceiptCounts, ReceiptMode, ReceiptReport,
    RecipientList, Recipients, Refusal, Reply, RequestId, Signal, Status, Target,
};
use crate::store::{RecordKind, StoreOperation};

/// For how long an id counts, in milliseconds (S12).
pub(super) const WINDOW: u64 = 120_000;

/// What an id costs in bytes beside its text, about.
const ENTRY: usize = 256;
/// What a named recipient costs beside its id, about.
const NAMED: usize = 40;

/// The ids that one shard's clients used in the last 120 s.
#[derive(Debug, Default)]
pub(super) struct MessageIds {
    windows: Map<ClientId, Map<MessageId, First>>,
    /// All of them, in the order in which they end.
    ends: VecDeque<(Instant, ClientId, MessageId)>,
    bytes: usize,
}

/// The first send with an id.
#[derive(Debug)]
struct First {
    /// Of what was sent to whom.
    fingerprint: u64,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// It isn't known to the end yet.
    Open(SendKey),
    Over(Box<Known>),
}

/// What became of a send.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) target: Target,
    /// What is known: counts, or who as well.
    pub(super) mode: ReceiptMode,
    pub(super) counts: ReceiptCounts,
    pub(super) entries: Vec<(ClientId, Status)>,
}

/// What is known of an id.
enum Seen {
    Open(SendKey),
    Over(Known),
}

impl MessageIds {
    fn seen(&self, sender: &ClientId, id: &MessageId) -> Option<(Seen, u64)> {
        let first = self.windows.get(sender)?.get(id)?;
        let seen = match &first.outcome {
            Outcome::Open(send) => Seen::Open(*send),
            Outcome::Over(known) => Seen::Over(Known::clone(known)),
        };
        Some((seen, first.fingerprint))
    }

    fn insert(&mut self, sender: &ClientId, id: &MessageId, first: First, now: Instant) {
        self.bytes += size(id);
        self.windows.entry(sender.clone()).or_default().insert(id.clone(), first);
        self.ends.push_back((now + WINDOW, sender.clone(), id.clone()));
    }

    /// Notes the outcome of `send`, if it is still the first with its id. Recipients are named only as far as the
    /// budget goes.
    fn finish(&mut self, sender: &ClientId, id: &MessageId, send: SendKey, mut known: Known, budget: usize) {
        let Some(first) = self.windows.get_mut(sender).and_then(|ids| ids.get_mut(id)) else { return };
        if !matches!(first.outcome, Outcome::Open(open) if open == send) {
            return;
        }
        let bytes = known.bytes();
        if self.bytes + bytes > budget {
            (known.mode, known.entries) = (ReceiptMode::Summary, Vec::new());
        } else {
            self.bytes += bytes;
        }
        first.outcome = Outcome::Over(Box::new(known));
    }

    /// Forgets what is over by `now`, and says when the next one is.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        while self.ends.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, sender, id)) = self.ends.pop_front() else { break };
            let Some(ids) = self.windows.get_mut(&sender) else { continue };
            if let Some(first) = ids.swap_remove(&id) {
                self.bytes -= size(&id);
                if let Outcome::Over(known) = first.outcome {
                    self.bytes -= known.bytes();
                }
            }
            if ids.is_empty() {
                self.windows.swap_remove(&sender);
            }
        }
        if self.ends.is_empty() {
            *self = Self::default();
        }
        self.ends.front().map(|(at, ..)| *at)
    }

    fn count(&self, sender: &ClientId) -> usize {
        self.windows.get(sender).map_or(0, Map::len)
    }
}

impl Known {
    /// What its names cost, about.
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(client, _)| client.as_str().len() + NAMED).sum()
    }
}

fn size(id: &MessageId) -> usize {
    id.as_str().len() + ENTRY
}

impl Shard {
    /// Answers a send whose id was seen in the last 120 s, so that nothing more is to be done with it. None: it is new.
    pub(super) fn answer_duplicate(
        &mut self,
        waits: Option<(ConnectionKey, RequestId)>,
        sender: &ClientId,
        signal: &Signal<'_>,
        now: Instant,
    ) -> Option<Result<(), Refusal>> {
        let id = signal.options().id.as_ref()?;
        self.expire_message_ids(now);
        let (seen, fingerprint) = self.message_ids.seen(sender, id)?;
        self.counters.duplicates += 1;
        self.counters.duplicates_differing += u64::from(fingerprint != fingerprint_of(signal));
        // Nobody waits for an answer: not where it goes by QoS 0, nor where its sender has left it parked.
        let Some((key, request)) = waits else { return Some(Ok(())) };
        let receipt = signal.options().receipt;
        if let Err(refusal) = self.check_receipts(key, receipt) {
            return Some(Err(refusal));
        }
        match seen {
            Seen::Open(send) => return Some(self.join_send(send, key, request, receipt, now)),
            Seen::Over(known) => {
                self.reply(key, Reply::Done(request), now);
                if receipt != ReceiptMode::None {
                    let report = known.report(request, id, receipt, true);
                    self.reply(key, Reply::Receipt(Box::new(report)), now);
                }
            }
        }
        Some(Ok(()))
    }

    /// Whether there is room for the id of a new send.
    pub(super) fn check_message_id(&self, sender: &ClientId, id: &MessageId) -> Result<(), Refusal> {
        if self.message_ids.count(sender) >= self.limits.message_ids_per_client {
            return Err(Refusal::new(
                Reason::Busy,
                "this client used too many message ids in the last 120 s",
            ));
        }
        if self.message_ids.bytes + size(id) > self.message_id_budget() {
            let text = "the gateway remembers as many message ids as it may; try again, or send without one";
            return Err(Refusal::new(Reason::Busy, text));
        }
        Ok(())
    }

    /// What may be remembered here.
    fn message_id_budget(&self) -> usize {
        self.limits.message_id_bytes / usize::from(self.backbone.shards().max(1))
    }

    /// Remembers the id of an accepted send.
    pub(super) fn remember_message_id(
        &mut self,
        sender: &ClientId,
        signal: &Signal<'_>,
        send: SendKey,
        now: Instant,
    ) {
        let Some(id) = &signal.options().id else { return };
        if self.message_ids.ends.is_empty() {
            self.timers.push(now + WINDOW, Timer::MessageIds);
        }
        let first = First { fingerprint: fingerprint_of(signal), outcome: Outcome::Open(send) };
        self.message_ids.insert(sender, id, first, now);
        self.count_message_ids();
    }

    /// Has the store remember the id of a stored send that is about to be acknowledged, and what is known of it.
    pub(super) fn store_message_id(&mut self, send: SendKey, now: Instant) {
        let Some(in_flight) = self.sends.get(send) else { return };
        let Some((sender, addressed)) = in_flight.identified() else { return };
        let Some(id) = &addressed.options.id else { return };
        let first = self.message_ids.windows.get(sender).and_then(|ids| ids.get(id));
        let Some(first) = first else { return };
        let kept = KeptMessageId::new(first.fingerprint, &addressed.target, in_flight.outcome().0);
        let value = serde_json::to_string(&kept).unwrap_or_default();
        let (owner, key) = (sender.as_str().into(), id.as_str().into());
        let expires = Some(self.store.wall(now + WINDOW));
        self.store.push(StoreOperation::PutRecord {
            kind: RecordKind::MessageId,
            owner,
            key,
            value,
            expires,
        });
    }

    /// An id that was used before the gateway started.
    pub(super) fn restore_message_id(
        &mut self,
        sender: &str,
        id: &str,
        kept: &KeptMessageId,
        ends: Instant,
    ) -> Option<()> {
        let (sender, id) = (ClientId::new(sender)?, MessageId::new(id)?);
        let known = Known {
            target: kept.target()?,
            mode: ReceiptMode::Summary,
            counts: kept.counts(),
            entries: Vec::new(),
        };
        let first = First { fingerprint: kept.fingerprint, outcome: Outcome::Over(Box::new(known)) };
        self.message_ids.bytes += size(&id);
        self.message_ids.windows.entry(sender.clone()).or_default().insert(id.clone(), first);
        let all = &mut self.message_ids.ends;
        let awaited = all.front().map(|(at, ..)| *at);
        let at = all.partition_point(|(at, ..)| *at <= ends);
        all.insert(at, (ends, sender, id));
        if awaited.is_none_or(|awaited| ends < awaited) {
            if let Some(awaited) = awaited {
                self.timers.remove(awaited, Timer::MessageIds);
            }
            self.timers.push(ends, Timer::MessageIds);
        }
        self.count_message_ids();
        Some(())
    }

    /// Remembers what became of a send with an id.
    pub(super) fn know_message_id(
        &mut self,
        sender: &ClientId,
        addressed: &Addressed,
        send: SendKey,
        known: &Known,
    ) {
        let Some(id) = &addressed.options.id else { return };
        let budget = self.message_id_budget();
        self.message_ids.finish(sender, id, send, known.clone(), budget);
        self.count_message_ids();
    }

    /// Forgets ids whose time is over.
    pub(super) fn expire_message_ids(&mut self, now: Instant) {
        let awaited = self.message_ids.ends.front().map(|(at, ..)| *at);
        let next = self.message_ids.expire(now);
        if let (Some(awaited), true) = (awaited, awaited != next) {
            self.timers.remove(awaited, Timer::MessageIds);
            if let Some(next) = next {
                self.timers.push(next, Timer::MessageIds);
            }
        }
        self.count_message_ids();
    }

    fn count_message_ids(&mut self) {
        self.counters.message_ids = self.message_ids.ends.len() as u64;
    }
}

impl Known {
    /// What is known of a send to `addressed` when all of it is.
    pub(super) fn new(
        addressed: &Addressed,
        mode: ReceiptMode,
        counts: ReceiptCounts,
        entries: Vec<(ClientId, Status)>,
    ) -> Self {
        // The lists are nobody's concern any more.
        let target = match &addressed.target {
            Target::Client(client) => Target::Client(client.clone()),
            Target::Group { group, .. } => Target::Group {
                group: group.clone(),
                recipients: Recipients::All,
                except: Arc::new(RecipientList::default()),
            },
        };
        Self { target, mode, counts, entries }
    }

    /// For whoever asked for this much of it.
    pub(super) fn report(
        &self,
        request: RequestId,
        id: &MessageId,
        receipt: ReceiptMode,
        duplicate: bool,
    ) -> ReceiptReport {
        let names = receipt == ReceiptMode::Each && self.mode == ReceiptMode::Each;
        ReceiptReport {
            request,
            id: Some(id.clone()),
            target: self.target.clone(),
            mode: if names { ReceiptMode::Each } else { ReceiptMode::Summary },
            interim: false,
            duplicate,
            counts: self.counts,
            entries: if names { self.entries.clone() } else { Vec::new() },
        }
    }
}

/// Tells sends apart that have the same id but aren't the same. The time to live may differ: less of it is left.
fn fingerprint_of(signal: &Signal<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match signal.target() {
        Target::Client(client) => client.hash(&mut hasher),
        Target::Group { group, recipients, except } => {
            group.hash(&mut hasher);
            if let Recipients::Only(only) = recipients {
                only.iter().for_each(|client| client.hash(&mut hasher));
            }
            except.len().hash(&mut hasher);
            except.iter().for_each(|client| client.hash(&mut hasher));
        }
    }
    let options = signal.options();
    (options.store, options.echo, options.urgent, signal.target().mode() as u8).hash(&mut hasher);
    signal.payload.hash(&mut hasher);
    hasher.finish()
}
