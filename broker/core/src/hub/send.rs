//! The sender's side of a signal: rate, rules, which shards, and what the sender hears (S3-S9).

use std::rc::Rc;
use std::sync::Arc;

use super::{Client, ConnectionKey, SendKey, Shard, Who};
use crate::backbone::{
    AcceptedSignal, Backbone, Envelope, PeerMessage, ShardIndex, ShardReport, Share, owner,
};
use crate::model::{
    About, Addressed, ClientId, Identity, Instant, Limits, Map, QoS, Reason, ReceiptCounts, ReceiptMode,
    ReceiptReport, Recipients, Refusal, Reply, RequestId, Set, Signal, SignalOptions, Status, Target,
};
use crate::rules::{Action, Actor, Object};

use super::message_ids::{Known, WINDOW};
use super::outbox::{AfterCommit, Kept};
use super::park::Parked;
use super::receipts::NAMED;
use super::timers::Timer;

/// Who waits to hear of a send.
#[derive(Clone, Copy)]
struct Waiter {
    /// The connection on which its session began.
    origin: ConnectionKey,
    request: RequestId,
    receipt: ReceiptMode,
    /// It sent the same once more (S12).
    is_duplicate: bool,
}

/// Repetitions of one send that may wait for its outcome.
const WAITERS: usize = 64;

/// A send that somebody waits to hear of, or may still ask for by its id.
pub(super) struct InFlight {
    /// None: nobody waits.
    waiter: Option<Waiter>,
    /// Who sent the same once more.
    joined: Vec<Waiter>,
    /// Whose the message id is, if there is one.
    sender: Option<ClientId>,
    addressed: Rc<Addressed>,
    /// What is noted of recipients.
    tracked: ReceiptMode,
    /// Who sent it at QoS 2, by which packet identifier, if it is to be kept: its repetition may ask for the answer.
    asked_by: Option<(ClientId, RequestId)>,
    /// Its number, if ends of queued recipients are awaited.
    stored_as: Option<u64>,
    /// Shards whose mailboxes haven't said yet that they took or refused it.
    awaiting_taken: usize,
    /// Shards whose recipients aren't all final.
    awaiting_final: usize,
    /// The sender has been told that it is accepted.
    acknowledged: bool,
    counts: ReceiptCounts,
    entries: Vec<(ClientId, Status)>,
}

impl Shard {
    /// A signal that a client sends: accepted, refused, or parked. Without a `request` nobody waits for the answer.
    pub(super) fn handle_send(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: Signal<'_>,
        refusable: bool,
        now: Instant,
    ) {
        let is_crowded = self.is_crowded();
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.park.admit(signal.options().urgent, &client.limits, now) {
            Ok(()) if client.postponed > 0 || is_crowded => self.take_turn(key, request, &signal, now),
            Ok(()) => self.accept_and_answer(key, request, &signal, now),
            Err(retry_after) if refusable => {
                let text = "over the rate of this client; try again after the time given";
                let refusal =
                    Refusal { retry_after: Some(retry_after), ..Refusal::new(Reason::RateLimited, text) };
                self.refuse_signal(key, request, &signal, refusal, now);
            }
            Err(wait) => {
                self.counters.parked += 1;
                client.park.push(Parked { request, signal: signal.into_owned() }, wait, now);
                if client.park.bytes() >= self.limits.park_bytes {
                    client.session.pause(now);
                }
                self.schedule(key);
            }
        }
    }

    /// Sends what was parked, as far as there are tokens.
    pub(super) fn release_parked(&mut self, key: ConnectionKey, now: Instant) {
        while let Some(client) = self.clients.get_mut(key) {
            let was_full = client.park.bytes() >= self.limits.park_bytes;
            let Some(Parked { request, signal }) = client.park.pop_ready(&client.limits, now) else { break };
            if was_full && self.may_go_on(key) {
                if let Some(client) = self.clients.get_mut(key) {
                    client.session.resume(now);
                }
                self.resumable.push(key);
            }
            self.take_turn(key, request, &signal, now);
        }
    }

    /// A signal that may have to wait for others that go to many. Out of line, so that the usual way stays short.
    #[cold]
    #[inline(never)]
    fn take_turn(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) {
        let postponed = self.clients.get(key).map_or(0, |client| client.postponed);
        if (postponed == 0 && !self.is_crowded()) || !self.has_to_wait(postponed, signal) {
            return self.accept_in_turn(key, request, signal, now);
        }
        if self.has_room_to_wait() {
            self.postpone(key, request, signal.clone(), now);
        } else {
            let text = "too many sends to large groups wait for their turn; try again in a moment";
            let refusal = Refusal { retry_after: Some(1000), ..Refusal::new(Reason::Busy, text) };
            self.refuse_signal(key, request, signal, refusal, now);
        }
    }

    /// Sends what clients that have gone left parked, as far as there are tokens.
    pub(super) fn release_departed(&mut self, now: Instant) {
        let mut ready = Vec::new();
        let mut next: Option<Instant> = None;
        for (identity, departed) in &mut self.departed {
            while let Some(parked) = departed.park.pop_ready(&departed.limits, now) {
                let (principal, limits) = (departed.principal.clone(), departed.limits.clone());
                let who = Who { identity: identity.clone(), principal, limits };
                ready.push((who, parked.signal));
            }
            next = next.into_iter().chain(departed.park.release()).min();
        }
        if let Some(next) = next {
            self.timers.push(next, Timer::Departed);
        }
        for (who, signal) in ready {
            self.accept_unheard(&who, signal, now);
        }
    }

    /// A send whose sender has gone, or has come back on a new connection: nobody hears of it but the counters.
    pub(super) fn accept_unheard(&mut self, sender: &Who, signal: Signal<'_>, now: Instant) {
        if let Err(refusal) = self.send_will(sender, signal, now) {
            self.counters.count_refusal(refusal.reason);
        }
    }

    pub(super) fn refuse(&mut self, key: ConnectionKey, request: RequestId, refusal: Refusal, now: Instant) {
        self.counters.count_refusal(refusal.reason);
        self.reply(key, Reply::Refused(request, refusal), now);
    }

    fn refuse_signal(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        refusal: Refusal,
        now: Instant,
    ) {
        match request {
            Some(request) => self.refuse(key, request, refusal, now),
            None => self.refuse_unasked(key, About::Signal(signal.addressed.clone()), refusal, now),
        }
    }

    pub(super) fn refuse_unasked(
        &mut self,
        key: ConnectionKey,
        about: About,
        refusal: Refusal,
        now: Instant,
    ) {
        self.counters.count_refusal(refusal.reason);
        self.reply(key, Reply::RefusedUnasked(about, refusal), now);
    }

    /// A signal whose turn it is. By the long way: a second copy of the short one would make it longer.
    pub(super) fn accept_in_turn(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) {
        match self.oversize(key, signal) {
            Some(refusal) => self.refuse_signal(key, request, signal, refusal, now),
            None => self.accept_closely(key, request, signal, now),
        }
    }

    fn accept_and_answer(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) {
        if !self.allowances.is_empty()
            && let Some(refusal) = self.oversize(key, signal)
        {
            return self.refuse_signal(key, request, signal, refusal, now);
        }
        match self.send_along(key, request, signal, now) {
            Some(Ok(())) => {}
            Some(Err(refusal)) => self.refuse_signal(key, request, signal, refusal, now),
            None => self.accept_closely(key, request, signal, now),
        }
    }

    /// Why a signal is more than its sender's role may send.
    #[cold]
    fn oversize(&self, key: ConnectionKey, signal: &Signal<'_>) -> Option<Refusal> {
        check_size(signal, &self.clients.get(key)?.limits).err()
    }

    /// Looks at all of a signal. Out of line, so that the usual way stays short.
    #[inline(never)]
    fn accept_closely(
        &mut self,
        key: ConnectionKey,
        request: Option<RequestId>,
        signal: &Signal<'_>,
        now: Instant,
    ) {
        let Some(sender) = self.clients.get(key).and_then(Client::who) else { return };
        let waits = request.map(|request| (key, request));
        if let Err(refusal) = self.accept(waits, &sender, signal, now) {
            self.refuse_signal(key, request, signal, refusal, now);
        }
    }

    /// A will on a signalling topic: nobody waits to hear of it.
    pub(super) fn send_will(
        &mut self,
        sender: &Who,
        mut signal: Signal<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        check_size(&signal, &sender.limits)?;
        if signal.options().receipt != ReceiptMode::None {
            Rc::make_mut(&mut signal.addressed).options.receipt = ReceiptMode::None;
        }
        self.accept(None, sender, &signal, now)
    }

    /// Whether the rules let this client send so, and the gateway can.
    pub(super) fn judge_send(
        &self,
        sender: Actor<'_>,
        addressed: &Addressed,
        now: Instant,
    ) -> Result<(), Refusal> {
        let (object, group) = match &addressed.target {
            Target::Client(client) => (Object::Client(client.as_str()), None),
            Target::Group { group, .. } => (Object::Group(group.as_str()), Some(group)),
        };
        self.judge_moderation(sender.client, group, now)?;
        if !self.may(sender, Action::Send, object) {
            return Err(Refusal::new(Reason::NotAuthorized, "the rules don't let this client send there"));
        }
        if addressed.options.urgent && !self.may(sender, Action::Urgent, object) {
            return Err(Refusal::new(
                Reason::NotAuthorized,
                "the rules don't let this client send urgent signals",
            ));
        }
        // To take it and keep nothing would be a promise broken (S10).
        if addressed.options.store && !self.store.is_durable() {
            let text = "this gateway has no store: it needs a data directory (--data-dir)";
            return Err(Refusal::new(Reason::Unsupported, text));
        }
        Ok(())
    }

    /// Judges a signal, and sends it on its way to every shard that has a recipient or observer.
    fn accept(
        &mut self,
        waits: Option<(ConnectionKey, RequestId)>,
        who: &Who,
        signal: &Signal<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(sender) = &who.identity.client_id() else {
            let text = "only a client id of 1-64 of A-Z a-z 0-9 . _ : - can send signals";
            return Err(Refusal::new(Reason::NotAuthorized, text));
        };
        if signal.options().id.is_some()
            && let Some(answered) = self.answer_duplicate(waits, sender, signal, now)
        {
            return answered;
        }
        self.judge_send(who.actor(), &signal.addressed, now)?;
        if let Some((key, _)) = waits {
            self.check_receipts(key, signal.options().receipt)?;
        }
        if let Some(id) = &signal.options().id {
            self.check_message_id(sender, id)?;
        }
        self.check_stored(signal)?;
        let shares = self.shares(sender, signal.target());
        if shares.keys().any(|&shard| shard != self.index && !self.backbone.has_room(shard)) {
            return Err(Refusal::new(Reason::Overflow, "the queue to a part of the gateway is full"));
        }
        self.counters.signals += 1;
        let send = self.begin_send(waits, sender, signal, shares.len());
        self.remember_message_id(sender, signal, send, now);
        let accepted = Arc::new(self.accepted(sender, signal, now));
        if let (Some(number), Some(waits)) = (accepted.stored_as, waits) {
            let SignalOptions { id, receipt, .. } = signal.options();
            self.begin_stored(number, sender, waits, &accepted, id.clone(), *receipt);
            if let Some(in_flight) = self.sends.get_mut(send) {
                in_flight.stored_as = Some(number);
            }
        }
        self.dispatch(send, &accepted, shares, now);
        Ok(())
    }

    /// The signal for all shards that have a share of it.
    pub(super) fn accepted(
        &mut self,
        sender: &ClientId,
        signal: &Signal<'_>,
        now: Instant,
    ) -> AcceptedSignal {
        let stored_as = self.number_stored(signal);
        let mut view = signal.view(sender, now);
        let store = signal.options().store;
        if store {
            // What is kept has an end (S10), and those who are there are heard of before it.
            view.deadline = view.deadline.or(Some(now + self.limits.store_ttl));
        }
        let closes = view.deadline.unwrap_or(now + self.limits.receipt_timeout);
        // What nobody asked for yet is noted for as long as somebody may.
        let asked = signal.options().receipt != ReceiptMode::None;
        let closes = if asked { closes } else { closes.min(now + WINDOW) };
        let closes = if store { closes.min(now + self.limits.receipt_timeout) } else { closes };
        AcceptedSignal {
            message: Arc::new(view.to_message(|| Identity::from(sender.clone()))),
            sender: sender.clone(),
            target: signal.target().clone(),
            echo: signal.options().echo,
            store,
            stored_as,
            receipt: tracked(signal),
            closes,
        }
    }

    /// Whether a client may have one more open receipt, if it asks for one.
    pub(super) fn check_receipts(&self, key: ConnectionKey, receipt: ReceiptMode) -> Result<(), Refusal> {
        let open = self.clients.get(key).map_or(0, |client| client.open_receipts);
        if receipt != ReceiptMode::None && open >= self.limits.receipts_per_client {
            return Err(Refusal::new(Reason::Busy, "too many receipts of this client are still open"));
        }
        Ok(())
    }

    /// Notes who waits for what `shards` shards make of a send.
    pub(super) fn begin_send(
        &mut self,
        waits: Option<(ConnectionKey, RequestId)>,
        sender: &ClientId,
        signal: &Signal<'_>,
        shards: usize,
    ) -> SendKey {
        let options = signal.options();
        if waits.is_none() && options.id.is_none() {
            return SendKey::default();
        }
        let receipt = options.receipt;
        let waiter = waits.map(|(key, request)| {
            let origin = self.origin(key);
            Waiter { origin, request, receipt, is_duplicate: false }
        });
        self.open_receipt(waiter);
        self.sends.insert(InFlight {
            waiter,
            joined: Vec::new(),
            sender: options.id.as_ref().map(|_| sender.clone()),
            addressed: signal.addressed.clone(),
            tracked: tracked(signal),
            asked_by: waits
                .filter(|_| options.store && signal.qos == QoS::ExactlyOnce)
                .map(|(_, request)| (sender.clone(), request)),
            stored_as: None,
            awaiting_taken: shards,
            awaiting_final: shards,
            acknowledged: false,
            counts: ReceiptCounts::default(),
            entries: Vec::new(),
        })
    }

    /// A QoS 2 send comes again on another connection, while what came of it isn't known: whoever asks last is answered. False:
    /// it is known.
    pub(super) fn ask_again(&mut self, key: ConnectionKey, request: RequestId) -> bool {
        let origin = self.origin(key);
        let Some(sender) = self.clients.get(key).and_then(|client| client.client_id.as_ref()) else {
            return false;
        };
        let is_it = |in_flight: &&mut InFlight| {
            !in_flight.acknowledged
                && in_flight.asked_by.as_ref().is_some_and(|(by, asked)| by == sender && *asked == request)
        };
        let waiter = self.sends.values_mut().find(is_it).and_then(|in_flight| in_flight.waiter.as_mut());
        waiter.map(|waiter| waiter.origin = origin).is_some()
    }

    /// Lets one who sent the same once more wait for the outcome of the first (S12).
    pub(super) fn join_send(
        &mut self,
        send: SendKey,
        key: ConnectionKey,
        request: RequestId,
        receipt: ReceiptMode,
        now: Instant,
    ) -> Result<(), Refusal> {
        let origin = self.origin(key);
        let Some(in_flight) = self.sends.get_mut(send) else { return Ok(()) };
        let acknowledged = in_flight.acknowledged;
        if !acknowledged || receipt != ReceiptMode::None {
            if in_flight.joined.len() >= WAITERS {
                let (moved, clients) = (&self.moved, &self.clients);
                let current = |waiter: &Waiter| *moved.get(&waiter.origin).unwrap_or(&waiter.origin);
                in_flight.joined.retain(|waiter| clients.contains_key(current(waiter)));
            }
            if in_flight.joined.len() >= WAITERS {
                return Err(Refusal::new(Reason::Busy, "too many repetitions of this send wait already"));
            }
            let waiter = Waiter { origin, request, receipt, is_duplicate: true };
            in_flight.joined.push(waiter);
            self.open_receipt(Some(waiter));
        }
        if acknowledged {
            self.reply(key, Reply::Done(request), now);
        }
        Ok(())
    }

    fn open_receipt(&mut self, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter
            && waiter.receipt != ReceiptMode::None
            && let Some(client) = self.clients.get_mut(self.current(waiter.origin))
        {
            client.open_receipts += 1;
        }
    }

    fn dispatch(
        &mut self,
        send: SendKey,
        signal: &Arc<AcceptedSignal>,
        shares: Map<ShardIndex, Share>,
        now: Instant,
    ) {
        let mut own = None;
        for (shard, share) in shares {
            let envelope = Envelope { send, signal: signal.clone(), share };
            if shard == self.index {
                own = Some(envelope);
            } else {
                self.backbone.forward(shard, PeerMessage::Signal(envelope));
            }
        }
        if let Some(envelope) = own {
            let mark = self.store.mark();
            let report = self.deliver_signal(self.index, &envelope, now);
            match self.store.since(mark) {
                Kept::WhenCommitted => self.store.after(AfterCommit::Taken(send, report)),
                Kept::Nothing | Kept::Not => self.handle_taken(send, report, now),
            }
        } else {
            // With no shard to wait for, a send to a group without members is done already.
            self.answer_if_done(send, now);
        }
    }

    /// Which shards are to judge which recipients. Shards without interest are left out, but listed clients'
    /// owners are always asked, since only they can say NOT_MEMBER.
    pub(super) fn shares(&self, sender: &ClientId, target: &Target) -> Map<ShardIndex, Share> {
        let shards = self.backbone.shards();
        let mut shares: Map<ShardIndex, Share> = Map::default();
        match target {
            Target::Client(client) => {
                shares.insert(owner(client.as_str(), shards), Share::Client);
            }
            Target::Group { group, recipients, except } => match recipients {
                Recipients::All => {
                    let peers = self.peer_groups.get(group).into_iter().flatten().copied();
                    let own = self.groups.contains_key(group).then_some(self.index);
                    let provisioned = self.rules.members(group).into_iter().flatten();
                    let owners = provisioned.map(|client| owner(client.as_str(), shards));
                    shares.extend(peers.chain(own).chain(owners).map(|shard| (shard, Share::Members)));
                }
                Recipients::Only(listed) => {
                    for client in listed.iter().filter(|client| !except.contains(client.as_str())) {
                        let share = shares
                            .entry(owner(client.as_str(), shards))
                            .or_insert_with(|| Share::Listed(Vec::new()));
                        if let Share::Listed(clients) = share {
                            clients.push(client.clone());
                        }
                    }
                }
            },
        }
        if self.observing > 0 {
            shares.entry(self.index).or_insert(Share::Observers);
        }
        if self.peer_observing > 0 {
            let prefix = &self.session_config.prefix;
            let observed = match target {
                Target::Client(client) => format!("{prefix}/c/{client}/{sender}"),
                Target::Group { group, .. } => format!("{prefix}/g/{group}/{sender}"),
            };
            let short = observed.rsplit_once('/').map_or(observed.as_str(), |(short, _)| short);
            let mut observing: Set<ShardIndex> = Set::default();
            for name in [short, &observed] {
                self.peer_topics.for_each_match(name, &mut |&shard, ()| {
                    observing.insert(shard);
                });
            }
            for shard in observing {
                shares.entry(shard).or_insert(Share::Observers);
            }
        }
        shares
    }

    /// A shard's mailboxes have taken or refused the signal.
    pub(super) fn handle_taken(&mut self, send: SendKey, report: Option<ShardReport>, now: Instant) {
        if let Some(in_flight) = self.sends.get_mut(send) {
            in_flight.awaiting_taken = in_flight.awaiting_taken.saturating_sub(1);
            if let Some(report) = report {
                in_flight.merge(report);
            }
            self.answer_if_done(send, now);
        }
    }

    /// A shard's recipients are all final.
    pub(super) fn handle_finished(&mut self, send: SendKey, report: ShardReport, now: Instant) {
        if let Some(in_flight) = self.sends.get_mut(send) {
            in_flight.merge(report);
            self.answer_if_done(send, now);
        }
    }

    /// The acknowledgement once every mailbox has answered, and the receipt once every recipient is final (S8).
    fn answer_if_done(&mut self, send: SendKey, now: Instant) {
        let Some(in_flight) = self.sends.get_mut(send) else { return };
        if in_flight.awaiting_taken > 0 {
            return;
        }
        let first_time = !std::mem::replace(&mut in_flight.acknowledged, true);
        let finished = in_flight.tracked == ReceiptMode::None || in_flight.awaiting_final == 0;
        if first_time {
            let joined = in_flight.joined.clone();
            let waiters: Vec<_> = in_flight.waiter.into_iter().chain(joined).collect();
            let lasts = in_flight.addressed.options.store && in_flight.sender.is_some();
            if lasts {
                self.store_message_id(send, now);
            }
            for Waiter { origin, request, .. } in waiters {
                let key = self.current(origin);
                if lasts {
                    self.reply_when_committed(key, Reply::Done(request), now);
                } else {
                    self.reply(key, Reply::Done(request), now);
                }
            }
        }
        if !finished {
            return;
        }
        let Some(in_flight) = self.sends.remove(send) else { return };
        if in_flight.tracked != ReceiptMode::None {
            self.finish_send(send, in_flight, now);
        }
    }

    /// Tells all who wait what became of a send, and remembers it for who asks later.
    fn finish_send(&mut self, send: SendKey, in_flight: InFlight, now: Instant) {
        let stored_as = in_flight.stored_as;
        let interim = self.announce_stored(stored_as, &in_flight);
        let InFlight { waiter, joined, sender, addressed, tracked, counts, mut entries, .. } = in_flight;
        if counts.total() as usize > NAMED {
            entries.retain(|(_, status)| *status != Status::Delivered);
        }
        let mut heard = false;
        if let Some((sender, id)) = sender.zip(addressed.options.id.as_ref()) {
            let known = Known::new(&addressed, tracked, counts, entries.clone());
            self.know_message_id(&sender, &addressed, send, &known);
            for waiter in joined {
                let report = known.report(waiter.request, id, waiter.receipt, true);
                heard |= self.answer_receipt(waiter, report, now);
            }
        }
        if let Some(waiter) = waiter {
            let report = ReceiptReport {
                request: waiter.request,
                id: addressed.options.id.clone(),
                target: addressed.target.clone(),
                mode: waiter.receipt,
                interim,
                duplicate: waiter.is_duplicate,
                counts,
                entries,
            };
            heard |= self.answer_receipt(waiter, report, now);
        }
        match stored_as {
            Some(number) if interim => self.stored_changed(number, now),
            Some(number) => self.drop_stored(number, heard, now),
            None => {}
        }
    }

    /// Gives a receipt to who waits for it. False: the connection on which it waited is over.
    fn answer_receipt(&mut self, waiter: Waiter, report: ReceiptReport, now: Instant) -> bool {
        if waiter.receipt == ReceiptMode::None {
            return false;
        }
        let key = self.current(waiter.origin);
        let Some(client) = self.clients.get_mut(key) else {
            self.counters.receipts_abandoned += 1;
            return false;
        };
        client.open_receipts = client.open_receipts.saturating_sub(1);
        self.reply(key, Reply::Receipt(Box::new(report)), now);
        true
    }
}

/// What is noted of a send's recipients: of one with an id at least the counts, since it may be asked for once more.
fn tracked(signal: &Signal<'_>) -> ReceiptMode {
    match (signal.options().receipt, &signal.options().id) {
        (ReceiptMode::None, Some(_)) => ReceiptMode::Summary,
        (receipt, _) => receipt,
    }
}

/// Whether a signal is within what its sender's role may send.
fn check_size(signal: &Signal<'_>, limits: &Limits) -> Result<(), Refusal> {
    let most = limits.signal_payload;
    if signal.payload.len() > most {
        let text = format!("this client's payloads have at most {most} bytes");
        return Err(Refusal::new(Reason::TooLarge, text));
    }
    let longest = match signal.target() {
        Target::Client(_) => 0,
        Target::Group { recipients: Recipients::Only(only), except, .. } => only.len().max(except.len()),
        Target::Group { except, .. } => except.len(),
    };
    let most = limits.signal_list;
    if longest > most {
        let text = format!("this client's lists have at most {most} entries");
        return Err(Refusal::new(Reason::ListTooLong, text));
    }
    Ok(())
}

impl InFlight {
    /// What became of it so far.
    pub(super) fn outcome(&self) -> (&ReceiptCounts, &[(ClientId, Status)]) {
        (&self.counts, &self.entries)
    }

    /// Who sent what, if it has an id.
    pub(super) fn identified(&self) -> Option<(&ClientId, &Addressed)> {
        Some((self.sender.as_ref()?, &*self.addressed))
    }

    fn merge(&mut self, report: ShardReport) {
        self.awaiting_final = self.awaiting_final.saturating_sub(1);
        self.counts.merge(&report.counts);
        self.entries.extend(report.entries);
    }
}
