//! The cases that take several steps. Each says itself where a protocol can't do or say a thing.

mod endings;
mod identity;
mod once;
mod order;
mod rate;
mod receipts;
mod rules;
mod topics;

use crate::stage::Run;

/// Panics if the rules aren't the same.
pub type Story = fn(Run);

/// What each is about, and the clause.
pub const STORIES: &[(&str, Story)] = &[
    ("S1 takeover across protocols", identity::s1_takeover),
    ("S1 a full gateway still lets a client take over its own connection", identity::s1_full),
    ("S1 an id that is no client id is a plain client", identity::s1_plain_client),
    ("S2 leaving, and the end of a connection, end membership", identity::s2_leaving),
    ("S5 No Local wins over only and echo", identity::s5_no_local),
    ("S5 No Local wins in the own inbox too", identity::s5_no_local_own_inbox),
    ("S7 100 at once, then refused or slowed", rate::s7_rate),
    ("S7 QoS 0 is slowed", rate::s7_qos_0),
    ("S7 while slowed, pings are answered", rate::s7_pings),
    ("S7 a full park pauses reading and the keep-alive, and nothing is lost", rate::s7_full_park),
    ("S7 what is parked is sent after a goodbye too", rate::s7_goodbye),
    ("S7 the rate is the identity's, over all protocols and connections", rate::s7_identity),
    ("S8 one without a subscription to its inbox is OFFLINE", receipts::s8_no_inbox),
    ("S8 the ack waits for all mailboxes", receipts::s8_ack_waits),
    ("S8 who never acknowledges is UNCONFIRMED after 10 s", receipts::s8_never_acks),
    ("S8 or at the ttl", receipts::s8_never_acks_ttl),
    ("S8 a link lost after the write is UNCONFIRMED, before it OFFLINE", receipts::s8_link_lost),
    ("S8 QoS 0 is UNCONFIRMED", receipts::s8_qos_0),
    ("S8 above 128 recipients only those not DELIVERED are named", receipts::s8_many),
    ("S8 a full mailbox is OVERFLOW, and nobody else's affair", receipts::s8_overflow),
    ("S8 a device without a window gets nothing and can send", receipts::s8_no_window),
    ("S8 too large for the recipient is OVERFLOW", receipts::s8_too_large),
    ("S8 a receipt isn't for who takes over its sender", receipts::s8_sender_gone),
    ("S8 a full queue between shards refuses with OVERFLOW", receipts::s8_full_queue),
    ("S8 a full window fills the mailbox", receipts::s8_window),
    ("S8 a complete receipt leaves nothing that waits for its ttl", receipts::s8_nothing_left),
    ("S9 past its ttl a signal is dropped from the mailbox", receipts::s9_expires),
    ("S9 a client refuses what isn't surely in time", receipts::s9_not_surely),
    ("S9 the remaining time comes with the delivery", receipts::s9_remaining),
    ("S11 in order over all modes", order::s11_order),
    ("S11 joins and leaves are ordered with the own sends", order::s11_own_joins),
    ("S11 a join holds for what is sent after its answer", order::s11_joins),
    ("S11 whatever joins and leaves, in the end the members get it", order::s11_churn),
    ("S11 a leave holds for what is still on its way", order::s11_leaves),
    ("S12 the same id within 120 s is the first outcome", once::s12_repeated),
    ("S12 a repetition that nobody waits for is none", once::s12_repeated_unasked),
    ("S12 a repetition may ask for more than the first", once::s12_asked_later),
    ("S12 a repetition joins the wait for the outcome", once::s12_joins),
    ("S12 ids are the identity's, over connections and protocols", once::s12_identity),
    ("S12 an outcome that wasn't heard can be asked for again", once::s12_unheard),
    ("S12 only accepted sends are remembered", once::s12_refused),
    ("S12 ids are bounded", once::s12_bounds),
    ("S16 urgent overtakes in the mailbox", order::s16_mailbox),
    ("S16 urgent overtakes between shards", order::s16_between_shards),
    ("S16 urgent overtakes what is parked", rate::s16_parked),
    ("S16 urgent has a rate of its own", rate::s16_rate),
    ("S16 the urgent lane has bounds of its own", order::s16_bounds),
    ("T1 retained signals are refused", topics::t1_retain),
    ("T2 overlapping subscriptions deliver once", topics::t2_overlap),
    ("T2 only the own inbox and notices, and nothing shared", topics::t2_not_yours),
    ("T6 observing takes a right", topics::t6_observers),
    ("T6 an observer that is a recipient gets it once", topics::t6_observing_member),
    ("T7 plain topics, both ways", topics::t7_plain),
    ("S2 provisioned members are always members", rules::s2_provisioned),
    ("rules: sending", rules::rules_send),
    ("rules: receiving", rules::rules_receive),
    ("rules: joining", rules::rules_join),
    ("rules: connecting", rules::rules_connect),
    ("rules: urgent", rules::rules_urgent),
    ("rules: plain topics", rules::rules_plain),
    ("credentials", rules::credentials),
    ("roles: what they allow, wills included", rules::roles),
    ("new rules: sending and receiving, at the next message", rules::reload_sending),
    ("new rules: memberships and subscriptions end, and are told", rules::reload_memberships),
    ("new rules: connections end", rules::reload_connections),
    ("new rules: provisioned members", rules::reload_provisioned),
    ("new rules: a group's lists", rules::reload_lists),
    ("limits of a role", rules::role_limits),
    ("wills that are signals", endings::wills_signals),
    ("wills to plain topics", endings::wills_plain),
    ("wills are checked when they fire", endings::wills_refused),
    ("a silent client is closed", endings::keep_alive),
    ("a stop is told", endings::shut_down),
];
