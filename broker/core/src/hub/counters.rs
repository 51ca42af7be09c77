//! What a shard counts: everything that it accepts, refuses and drops, with the reason.

use crate::model::{Reason, Status};
use crate::session::SessionCounters;

/// Takes one number: its name, help, labels, value, and whether it is a gauge.
pub type EachNumber<'a> =
    dyn FnMut(&'static str, &'static str, &[(&'static str, &'static str)], u64, bool) + 'a;

/// One shard's counters and gauges.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Clients connected now.
    pub clients: u64,
    /// Sessions kept now whose client is away.
    pub sessions_away: u64,
    /// Sessions that went on with a new connection.
    pub sessions_resumed: u64,
    /// Sessions that ended while their client was away, by expiry or by a clean start.
    pub sessions_ended: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Bytes of their topics, properties and payloads.
    pub retained_bytes: u64,
    /// Messages that the store keeps for clients of this shard.
    pub queued_messages: u64,
    /// Bytes of their properties and payloads.
    pub queued_bytes: u64,
    /// Bytes that wait for clients in memory, as if each had copies of its own.
    pub waiting_bytes: u64,
    /// Deliveries refused while that was as much as may.
    pub waiting_full: u64,
    /// Messages that the store should have had, and hadn't.
    pub queued_lost: u64,
    /// Records of the store that couldn't be read.
    pub records_unread: u64,
    /// Groups and topic filters that clients are subscribed to.
    pub subscriptions: u64,
    /// Memberships and subscriptions that new rules ended.
    pub subscriptions_ended: u64,
    /// Groups with a member on this shard now.
    pub groups: u64,
    /// Connections that were let in.
    pub connects: u64,
    /// Connections that a newer one took over (S1).
    pub takeovers: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes given to sockets.
    pub bytes_sent: u64,
    /// Signals accepted (S8).
    pub signals: u64,
    /// Message ids of the last 120 s (S12).
    pub message_ids: u64,
    /// Times that a watcher of presence had no room, and has to begin anew (S13).
    pub presence_renewed: u64,
    /// Mutes and bans in force (S14).
    pub moderations: u64,
    /// Signals whose message id was seen before: nothing was delivered (S12).
    pub duplicates: u64,
    /// Those among them that weren't what the first one was.
    pub duplicates_differing: u64,
    /// Messages accepted to plain topics.
    pub publishes: u64,
    /// Signals and publishes of senders over their rate that were slowed (S7).
    pub parked: u64,
    /// Signals to many that waited for their turn.
    pub postponed: u64,
    /// Parked sends of clients that had gone, lost because too many of these were kept.
    pub parked_lost: u64,
    /// Deliveries put into mailboxes: signals, plain messages, observations.
    pub mailed: u64,
    /// Requests and connections refused, by reason code.
    refused: [u64; 256],
    /// Recipients by status, as far as it is known: final for what asked for a receipt, for others only what
    /// was refused or dropped.
    statuses: [u64; Status::COUNT],
    /// Plain messages dropped because the subscriber's mailbox was full.
    pub publishes_overflowed: u64,
    /// Plain messages dropped because they expired in the mailbox.
    pub publishes_expired: u64,
    /// Plain messages in the mailbox of a subscriber that went away.
    pub publishes_abandoned: u64,
    /// Observers that missed a signal: mailbox full, deadline passed, or gone (T6).
    pub observations_dropped: u64,
    /// Receipts whose sender had gone.
    pub receipts_abandoned: u64,
    /// What sessions dropped or passed over.
    pub sessions: SessionCounters,
    /// Wills sent.
    pub wills: u64,
    /// Wills refused when they fired.
    pub wills_refused: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            clients: 0,
            sessions_away: 0,
            sessions_resumed: 0,
            sessions_ended: 0,
            retained_messages: 0,
            retained_bytes: 0,
            queued_messages: 0,
            queued_bytes: 0,
            waiting_bytes: 0,
            waiting_full: 0,
            queued_lost: 0,
            records_unread: 0,
            subscriptions: 0,
            subscriptions_ended: 0,
            groups: 0,
            connects: 0,
            takeovers: 0,
            bytes_received: 0,
            bytes_sent: 0,
            signals: 0,
            message_ids: 0,
            presence_renewed: 0,
            moderations: 0,
            duplicates: 0,
            duplicates_differing: 0,
            publishes: 0,
            parked: 0,
            postponed: 0,
            parked_lost: 0,
            mailed: 0,
            refused: [0; 256],
            statuses: [0; Status::COUNT],
            publishes_overflowed: 0,
            publishes_expired: 0,
            publishes_abandoned: 0,
            observations_dropped: 0,
            receipts_abandoned: 0,
            sessions: SessionCounters::default(),
            wills: 0,
            wills_refused: 0,
        }
    }
}

impl Counters {
    /// Requests and connections refused for `reason`.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[usize::from(reason.code())]
    }

    /// Recipients with `status`.
    pub fn status(&self, status: Status) -> u64 {
        self.statuses[status as usize]
    }

    pub(super) fn count_refusal(&mut self, reason: Reason) {
        self.refused[usize::from(reason.code())] += 1;
    }

    pub(super) fn count_status(&mut self, status: Status, recipients: u64) {
        self.statuses[status as usize] += recipients;
    }

    pub(super) fn count_session(&mut self, counted: &SessionCounters) {
        self.sessions.oversize += counted.oversize;
        self.sessions.no_room += counted.no_room;
        self.sessions.notices_dropped += counted.notices_dropped;
        self.sessions.acks_unknown += counted.acks_unknown;
        self.sessions.resumes_given_up += counted.resumes_given_up;
    }

    /// Calls `each` for every number.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        let mut one = |name, help, value, gauge| each(name, help, &[], value, gauge);
        one("clients", "Clients connected now", self.clients, true);
        one("sessions_away", "Sessions kept now whose client is away", self.sessions_away, true);
        one("sessions_resumed", "Sessions that went on with a new connection", self.sessions_resumed, false);
        one(
            "resumes_given_up",
            "Device sessions that can't be resumed because too much would be sent again",
            self.sessions.resumes_given_up,
            false,
        );
        one("sessions_ended", "Sessions that ended while their client was away", self.sessions_ended, false);
        one("retained_messages", "Retained messages", self.retained_messages, true);
        one("retained_bytes", "Bytes of retained messages", self.retained_bytes, true);
        one("queued_messages", "Messages that the store keeps for clients", self.queued_messages, true);
        one("queued_bytes", "Bytes of their properties and payloads", self.queued_bytes, true);
        one("queued_lost", "Messages that the store should have had, and hadn't", self.queued_lost, false);
        one("records_unread", "Records of the store that couldn't be read", self.records_unread, false);
        one(
            "waiting_bytes",
            "Bytes that wait for clients in memory, as if each had copies of its own",
            self.waiting_bytes,
            true,
        );
        let help = "Deliveries refused while as much waited as limits.waiting_bytes lets";
        one("waiting_full", help, self.waiting_full, false);
        one("subscriptions", "Groups and topic filters subscribed to", self.subscriptions, true);
        let help = "Memberships and subscriptions that new rules ended";
        one("subscriptions_ended", help, self.subscriptions_ended, false);
        one("groups", "Groups with a member, summed over shards", self.groups, true);
        one("connects", "Connections let in", self.connects, false);
        one("takeovers", "Connections taken over by a newer one", self.takeovers, false);
        one("received_bytes", "Bytes read", self.bytes_received, false);
        one("sent_bytes", "Bytes given to sockets", self.bytes_sent, false);
        one("signals", "Signals accepted", self.signals, false);
        one("message_ids", "Message ids of the last 120 s", self.message_ids, true);
        let text = "Times that a watcher of presence had no room for changes";
        one("presence_renewed_total", text, self.presence_renewed, false);
        one("moderations", "Mutes and bans in force", self.moderations, true);
        one("duplicates", "Signals whose message id was seen before", self.duplicates, false);
        one(
            "duplicates_differing",
            "Those that weren't what the first one was",
            self.duplicates_differing,
            false,
        );
        one("publishes", "Messages accepted to plain topics", self.publishes, false);
        one("parked", "Signals of senders over their rate that were slowed", self.parked, false);
        one("postponed", "Signals to many that waited for others of their kind", self.postponed, false);
        one("parked_lost", "Parked signals of clients that had gone, lost", self.parked_lost, false);
        one("mailed", "Deliveries put into mailboxes", self.mailed, false);
        one("receipts_abandoned", "Receipts whose sender had gone", self.receipts_abandoned, false);
        one("observations_dropped", "Signals that an observer missed", self.observations_dropped, false);
        one("wills", "Wills sent", self.wills, false);
        one("wills_refused", "Wills refused when they fired", self.wills_refused, false);
        for (reason, value) in [
            ("overflow", self.publishes_overflowed),
            ("expired", self.publishes_expired),
            ("offline", self.publishes_abandoned),
        ] {
            each("publishes_dropped", "Plain messages not delivered", &[("reason", reason)], value, false);
        }
        for &reason in Reason::ALL {
            let labels = [("reason", reason.name())];
            each("refused", "Requests and connections refused", &labels, self.refused(reason), false);
        }
        for &status in Status::ALL {
            let labels = [("status", status.name())];
            each("recipients", "Recipients of signals by status", &labels, self.status(status), false);
        }
    }

    /// Adds another shard's numbers.
    pub fn add(&mut self, other: &Self) {
        macro_rules! sum {
            ($($field:ident)*; $($own:ident)*) => {
                // Named one by one, so that none is forgotten.
                let Self { $($field,)* $($own,)* } = other;
                $(self.$field += $field;)*
            };
        }
        sum!(message_ids moderations presence_renewed duplicates duplicates_differing clients sessions_away sessions_resumed sessions_ended retained_messages retained_bytes subscriptions
            subscriptions_ended groups connects takeovers bytes_received bytes_sent signals publishes parked postponed parked_lost mailed
            publishes_overflowed publishes_expired publishes_abandoned observations_dropped
            receipts_abandoned wills wills_refused queued_messages queued_bytes queued_lost records_unread
            waiting_bytes waiting_full; sessions refused statuses);
        self.count_session(sessions);
        self.refused.iter_mut().zip(refused).for_each(|(sum, more)| *sum += more);
        self.statuses.iter_mut().zip(statuses).for_each(|(sum, more)| *sum += more);
    }
}
