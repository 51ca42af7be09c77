//! How much anyone may have. The defaults are the design's; configuration replaces them.

/// Which message is dropped when a client that is away has as many as are kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfflineFull {
    /// The one that comes.
    RefuseNewest,
    /// The one that has waited longest.
    DropOldest,
}

impl std::fmt::Display for OfflineFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RefuseNewest => "refuse-newest",
            Self::DropOldest => "drop-oldest",
        })
    }
}

/// Bounds that hold for every client and every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Signals a second of one identity, which is also the bucket's capacity (S7).
    pub rate: u32,
    /// Urgent signals a second of one identity (S16).
    pub urgent_rate: u32,
    /// Bytes of one signal's payload; never more than S6 has it.
    pub signal_payload: usize,
    /// Entries of each list of one signal; never more than S4 has it.
    pub signal_list: usize,
    /// Bytes of publishes that wait where their sender can't be refused (S7).
    pub park_bytes: usize,
    /// Messages that wait for one recipient.
    pub mailbox_messages: usize,
    /// Bytes of payload that wait for one recipient.
    pub mailbox_bytes: usize,
    /// Bytes of all that waits for clients in memory, as if each had copies of its own: what wasn't written yet, and what is kept
    /// until it is acknowledged. With more, one message waits for a client, and no second one (S7).
    pub waiting_bytes: usize,
    /// Messages kept for one client that is away.
    pub offline_messages: usize,
    /// Bytes of payload kept for one client that is away.
    pub offline_bytes: usize,
    /// Signals stored for one client (S10).
    pub stored_per_client: usize,
    /// Bytes of their payloads and properties.
    pub stored_bytes_per_client: usize,
    /// Signals stored in all.
    pub stored_signals: usize,
    /// Bytes of their payloads and properties.
    pub stored_bytes: usize,
    /// The time to live of a stored signal without one, in milliseconds.
    pub store_ttl: u64,
    /// What becomes of a message for which that leaves no room.
    pub offline_full: OfflineFull,
    /// Seconds for which any session is kept at most while its client is away; `u32::MAX` is for ever.
    pub session_expiry_max: u32,
    /// Seconds for which a device's session can be resumed at most after its connection was lost; 0: not at all (S12).
    pub device_resume: u32,
    /// Seconds of keep-alive that a client of MQTT 5 may have at most, and that one without gets; 0: as it says.
    pub keep_alive_max: u16,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of topics, properties and payloads of retained messages.
    pub retained_bytes: usize,
    /// Envelopes that wait between two shards.
    pub fifo_envelopes: usize,
    /// Groups that one client may be in.
    pub groups_per_client: usize,
    /// Topic filters that one client may have.
    pub filters_per_client: usize,
    /// Sends, joins and subscriptions of one client that wait for their answer before its input pauses.
    pub requests_per_client: usize,
    /// Sends of one client whose receipts are still open, before `BUSY`.
    pub receipts_per_client: usize,
    /// Message ids that one client may use in 120 s, before `BUSY` (S12).
    pub message_ids_per_client: usize,
    /// Bytes that all message ids of 120 s and what became of their sends may take, before `BUSY`.
    pub message_id_bytes: usize,
    /// When the receipt of a send without ttl closes, in milliseconds (S8).
    pub receipt_timeout: u64,
    /// Time from connecting to a whole CONNECT or hello, and again to a proof, in milliseconds.
    pub connect_timeout: u64,
    /// Largest MQTT packet that is read, in bytes.
    pub max_packet: usize,
    /// Longest MQTT client id that is not a client id of S1, in bytes.
    pub max_mqtt_client_id: usize,
    /// Members of a group up to which each change is told at once to those who watch it, and above it once a second (S13).
    pub presence_at_once: usize,
    /// Mutes and bans in force on one shard (S14).
    pub moderations_per_shard: usize,
    /// Recipients on one shard above which a message is one to many, and waits for others of its kind.
    pub bulk_recipients: usize,
    /// Connections with such messages to be written from which on the next one waits.
    pub bulk_unwritten: usize,
    /// Signals to many that wait on one shard, before `BUSY`.
    pub bulk_sends: usize,
    /// Connections of one user, as all of his clients.
    pub connections_per_user: u32,
    /// Connections of one address; of IPv6, of one /64 network. For the process.
    pub connections_per_address: u32,
    /// Whether this machine's own addresses are bounded, too. For the process.
    pub limit_loopback: bool,
    /// Clients on one shard.
    pub clients_per_shard: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate: 100,
            urgent_rate: 10,
            signal_payload: bugle_protocol::MAX_PAYLOAD,
            signal_list: bugle_protocol::MAX_LIST,
            park_bytes: 64 * 1024,
            mailbox_messages: 1000,
            mailbox_bytes: 1024 * 1024,
            waiting_bytes: 512 * 1024 * 1024,
            offline_messages: 1000,
            offline_bytes: 1024 * 1024,
            stored_per_client: 100,
            stored_bytes_per_client: 1024 * 1024,
            stored_signals: 1_000_000,
            stored_bytes: 1024 * 1024 * 1024,
            store_ttl: 24 * 3600 * 1000,
            offline_full: OfflineFull::RefuseNewest,
            session_expiry_max: u32::MAX,
            device_resume: 120,
            keep_alive_max: 0,
            retained_messages: 1_000_000,
            retained_bytes: 256 * 1024 * 1024,
            fifo_envelopes: 8192,
            groups_per_client: 256,
            filters_per_client: 1024,
            requests_per_client: 1024,
            receipts_per_client: 2048,
            message_ids_per_client: 12_000,
            message_id_bytes: 64 * 1024 * 1024,
            receipt_timeout: 10_000,
            connect_timeout: 10_000,
            max_packet: 1024 * 1024,
            max_mqtt_client_id: 256,
            presence_at_once: 50,
            moderations_per_shard: 10_000,
            bulk_recipients: 256,
            bulk_unwritten: 1024,
            bulk_sends: 128,
            connections_per_user: u32::MAX,
            connections_per_address: 1000,
            limit_loopback: false,
            clients_per_shard: 100_000,
        }
    }
}
