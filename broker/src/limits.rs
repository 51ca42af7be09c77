//! The `[limits]` of the configuration: the model's limits, with the units in their names.

use bugle_core::model::{Limits, OfflineFull};
use serde::{Deserialize, Serialize};

macro_rules! limits {
    ($($(#[$doc:meta])* $key:ident => $field:ident: $type:ty, $range:expr;)*) => {
        /// The section as it stands in the file. A key that isn't there keeps its default.
        #[derive(Clone, Debug, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct LimitsSection {
            $($(#[$doc])* pub $key: $type,)*
        }

        impl Default for LimitsSection {
            fn default() -> Self {
                let limits = Limits::default();
                Self { $($key: limits.$field,)* }
            }
        }

        impl LimitsSection {
            /// The limits, if every one of them is within its range.
            pub fn checked(&self) -> Result<Limits, String> {
                $(
                    let range: std::ops::RangeInclusive<$type> = $range;
                    if !range.contains(&self.$key) {
                        return Err(format!(
                            "limits.{} = {} is not within {} to {}",
                            stringify!($key), self.$key, range.start(), range.end(),
                        ));
                    }
                )*
                let mut limits = Limits::default();
                self.apply(&mut limits);
                Ok(limits)
            }

            fn apply(&self, limits: &mut Limits) {
                $(limits.$field = self.$key;)*
            }
        }
    };
}

limits! {
    /// Signals a second of one client, which is also how many may come at once (S7).
    signals_per_second => rate: u32, 1..=1_000_000;
    /// Urgent signals a second of one client (S16).
    urgent_signals_per_second => urgent_rate: u32, 1..=1_000_000;
    /// Bytes of publishes that wait where their sender can't be refused (S7).
    park_bytes => park_bytes: usize, 1024..=1 << 30;
    /// Messages that wait for one recipient.
    mailbox_messages => mailbox_messages: usize, 1..=10_000_000;
    /// Bytes of payload that wait for one recipient.
    mailbox_bytes => mailbox_bytes: usize, 8192..=1 << 30;
    /// Bytes of what waits for clients in memory in all, over which each has room for one message.
    waiting_bytes => waiting_bytes: usize, 1 << 20..=1 << 40;
    /// Messages kept for one client that is away.
    offline_messages => offline_messages: usize, 1..=10_000_000;
    /// Bytes of payload kept for one client that is away.
    offline_bytes => offline_bytes: usize, 1024..=1 << 30;
    /// Signals stored for one client (S10).
    stored_signals_per_client => stored_per_client: usize, 0..=10_000_000;
    /// Bytes of their payloads and properties.
    stored_bytes_per_client => stored_bytes_per_client: usize, 8192..=1 << 30;
    /// Signals stored in all, and sends that wait for the ends of their recipients.
    stored_signals => stored_signals: usize, 0..=100_000_000;
    /// Bytes of the payloads and properties of stored signals in all.
    stored_bytes => stored_bytes: usize, 8192..=1 << 40;
    /// The time to live of a stored signal that says none, in milliseconds.
    store_ttl_ms => store_ttl: u64, 1..=u32::MAX as u64;
    /// What becomes of a message for which that leaves no room: `refuse-newest` or `drop-oldest`.
    offline_full => offline_full: OfflineFull, OfflineFull::RefuseNewest..=OfflineFull::DropOldest;
    /// Seconds for which a session is kept at most while its client is away; 4294967295 is for ever.
    session_expiry_max_seconds => session_expiry_max: u32, 0..=u32::MAX;
    /// Seconds for which a device's session can be resumed at most after its connection was lost; 0: not at all (S12).
    device_resume_seconds => device_resume: u32, 0..=86_400;
    /// Longest keep-alive of an MQTT 5 client, in seconds, which one without it gets too; 0: as the client says.
    keep_alive_max_seconds => keep_alive_max: u16, 0..=u16::MAX;
    /// Retained messages.
    retained_messages => retained_messages: usize, 0..=100_000_000;
    /// Bytes of topics, properties and payloads of retained messages.
    retained_bytes => retained_bytes: usize, 0..=1 << 40;
    /// Envelopes that wait between two shards.
    fifo_envelopes => fifo_envelopes: usize, 16..=1 << 24;
    /// Groups that one client may be in.
    groups_per_client => groups_per_client: usize, 1..=1_000_000;
    /// Topic filters that one client may have.
    filters_per_client => filters_per_client: usize, 1..=1_000_000;
    /// Requests of one client that wait for their answer before its input pauses.
    requests_per_client => requests_per_client: usize, 1..=65_535;
    /// Sends of one client whose receipts are open before `BUSY`.
    receipts_per_client => receipts_per_client: usize, 1..=1_000_000;
    /// Message ids of one client in 120 s before `BUSY` (S12).
    message_ids_per_client => message_ids_per_client: usize, 0..=10_000_000;
    /// Bytes that all message ids of 120 s may take, with what became of their sends, before `BUSY`.
    message_id_bytes => message_id_bytes: usize, 0..=1 << 40;
    /// When the receipt of a send without ttl closes, in milliseconds (S8).
    receipt_timeout_ms => receipt_timeout: u64, 1..=3_600_000;
    /// Time for a first packet, and again for a proof, in milliseconds.
    connect_timeout_ms => connect_timeout: u64, 10..=600_000;
    /// Largest MQTT packet that is read, in bytes.
    max_packet_bytes => max_packet: usize, 16_384..=268_435_460;
    /// Longest MQTT client id that can't be addressed, in bytes.
    max_mqtt_client_id_bytes => max_mqtt_client_id: usize, 23..=65_535;
    /// Members of a group up to which each change is told at once to those who watch it; above, once a second (S13).
    presence_coalesce_members => presence_at_once: usize, 0..=10_000_000;
    /// Mutes and bans in force on one shard before `TOO_MANY` (S14).
    moderations_per_shard => moderations_per_shard: usize, 1..=10_000_000;
    /// Connections of one address; of IPv6, of one /64 network.
    connections_per_address => connections_per_address: u32, 1..=10_000_000;
    /// Whether that, and what else is bounded by address, holds for this machine's own (127.0.0.0/8 and ::1), too.
    limit_loopback => limit_loopback: bool, false..=true;
    /// Clients on one shard.
    clients_per_shard => clients_per_shard: usize, 1..=10_000_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_models_and_within_range() {
        assert_eq!(LimitsSection::default().checked(), Ok(Limits::default()));
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        let limits = LimitsSection { signals_per_second: 0, ..LimitsSection::default() };
        assert!(limits.checked().unwrap_err().contains("limits.signals_per_second = 0"));
    }
}
