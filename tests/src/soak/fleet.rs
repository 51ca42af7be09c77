//! What all clients of a soak share: the ledger, who is there, and what is to be sent next.

use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Kind, Ledger, Number};

/// A payload's number and moment, in bytes.
pub const PAYLOAD_HEAD: usize = 16;
/// A send's time to live, in milliseconds: longer than any fault.
const TTL: u32 = 8_000;
/// That of one that is kept.
const STORED_TTL: u32 = 120_000;

/// What a client is to send.
pub struct Wanted {
    pub number: Number,
    pub kind: Kind,
    /// With its options.
    pub topic: String,
    /// The same for a device.
    pub group: String,
    pub only: Vec<String>,
    pub except: Vec<String>,
    pub ttl: u32,
    /// Bytes of the payload.
    pub size: usize,
}

/// One client, as the others see it.
#[derive(Clone, Debug)]
struct Place {
    is_online: bool,
    /// When it came.
    since: u64,
    next_send: Instant,
    is_device: bool,
}

/// All of them.
pub struct Fleet {
    /// Where the gateway listens.
    pub port: u16,
    /// How often the gateway was started.
    pub run: u64,
    /// The clients are to end.
    pub is_over: bool,
    /// Nothing more is to be sent.
    pub is_quiet: bool,
    /// What was sent and what became of it.
    pub ledger: Ledger,
    /// Sends by all clients together.
    pub sends: u64,
    places: Vec<Place>,
    random: fastrand::Rng,
    interval: Duration,
    lost_sessions: u64,
}

impl Fleet {
    /// Clients in these groups, which together send `rate` messages a second.
    pub fn new(ledger: Ledger, devices: &[bool], rate: u32, seed: u64) -> Self {
        let place = |is_device: &bool| Place {
            is_online: false,
            since: u64::MAX,
            next_send: Instant::now(),
            is_device: *is_device,
        };
        let interval = Duration::from_secs(devices.len() as u64) / rate.max(1);
        let places = devices.iter().map(place).collect();
        let random = fastrand::Rng::with_seed(seed);
        Self {
            port: 0,
            run: 0,
            is_over: false,
            is_quiet: true,
            ledger,
            sends: 0,
            places,
            random,
            interval,
            lost_sessions: 0,
        }
    }

    /// A client's id.
    pub fn name(client: usize) -> String {
        format!("c{client}")
    }

    /// The client of this id.
    pub fn client_of(name: &str) -> Option<usize> {
        name.strip_prefix('c')?.parse().ok()
    }

    /// A group's name.
    pub fn group(group: usize) -> String {
        format!("g{group}")
    }

    /// The send of this message id.
    pub fn number_of(id: &str) -> Option<Number> {
        id.strip_prefix('n')?.parse().ok()
    }

    /// A client is connected and subscribed.
    pub fn online(&mut self, client: usize) {
        let now = self.ledger.now();
        let place = &mut self.places[client];
        if !place.is_online {
            (place.is_online, place.since) = (true, now);
        }
    }

    /// A client's connection is lost.
    pub fn offline(&mut self, client: usize) {
        self.places[client].is_online = false;
    }

    /// How many are connected and subscribed.
    pub fn count_online(&self) -> usize {
        self.places.iter().filter(|place| place.is_online).count()
    }

    /// The gateway didn't know a session that lasts.
    pub fn lost_session(&mut self, _client: usize) {
        self.lost_sessions += 1;
    }

    /// How many of these there were.
    pub fn lost_sessions(&self) -> u64 {
        self.lost_sessions
    }

    /// When a client is to send again; none: never.
    pub fn next_send(&self, client: usize) -> Option<Instant> {
        (!self.is_quiet).then(|| self.places[client].next_send)
    }

    /// A send was written.
    pub fn sent(&mut self) {
        self.sends += 1;
    }

    /// What a client is to send now, if it is time.
    pub fn take_send(&mut self, client: usize) -> Option<Wanted> {
        let now = Instant::now();
        if self.is_quiet || self.places[client].next_send > now {
            return None;
        }
        let interval = self.interval;
        let place = &mut self.places[client];
        // Who was away doesn't catch up.
        place.next_send = (place.next_send + interval).max(now.checked_sub(interval).unwrap_or(now));
        let is_device = place.is_device;
        let kind = match self.random.usize(..100) {
            _ if is_device => [Kind::Signal, Kind::Signal, Kind::Stored][self.random.usize(..3)],
            0..30 => Kind::Plain,
            30..40 => Kind::PlainOnce,
            40..85 => Kind::Signal,
            _ => Kind::Stored,
        };
        let group = self.random.usize(..self.ledger.groups());
        Some(self.want(kind, client, group))
    }

    fn want(&mut self, kind: Kind, client: usize, group: usize) -> Wanted {
        let size =
            PAYLOAD_HEAD + if self.random.usize(..200) == 0 { 8_000 } else { self.random.usize(..200) };
        let members = self.ledger.members(group).to_vec();
        let name = Self::group(group);
        let places = |wanted: &dyn Fn(usize) -> bool| {
            let bits = members
                .iter()
                .enumerate()
                .filter(|(_, member)| wanted(**member))
                .map(|(place, _)| 1 << place);
            bits.fold(0u16, |mask, bit| mask | bit)
        };
        let mut wanted = Wanted {
            number: 0,
            kind,
            topic: String::new(),
            group: name.clone(),
            only: Vec::new(),
            except: Vec::new(),
            ttl: 0,
            size,
        };
        match kind {
            Kind::Plain | Kind::PlainOnce => {
                // Devices don't subscribe to it.
                let mask = places(&|member| !self.places[member].is_device);
                wanted.number = self.ledger.begin(kind, client, group, mask, 0);
                wanted.topic = format!("plant/{name}/{client}");
            }
            Kind::Signal | Kind::Stored => {
                let store = kind == Kind::Stored;
                wanted.ttl = if store { STORED_TTL } else { TTL };
                let mut pick = |count: usize| -> Vec<usize> {
                    (0..count).map(|_| members[self.random.usize(..members.len())]).collect()
                };
                let (only, except) = match pick(1)[0] % 8 {
                    0 => (pick(3), Vec::new()),
                    1 => (Vec::new(), pick(2)),
                    _ => (Vec::new(), Vec::new()),
                };
                let mask = places(&|member| {
                    let is_named = only.is_empty() || only.contains(&member);
                    is_named && !except.contains(&member) && (member != client || only.contains(&member))
                });
                let number = self.ledger.begin(kind, client, group, mask, wanted.ttl);
                let list =
                    |clients: &[usize]| -> Vec<String> { clients.iter().map(|c| Self::name(*c)).collect() };
                (wanted.only, wanted.except) = (list(&only), list(&except));
                let mut topic = format!("sig/g/{name}?receipt=each&id=n{number}&ttl={}", wanted.ttl);
                if store {
                    topic += "&store=1";
                }
                for (key, list) in [("only", &wanted.only), ("except", &wanted.except)] {
                    if !list.is_empty() {
                        topic += &format!("&{key}={}", list.join(","));
                    }
                }
                (wanted.number, wanted.topic) = (number, topic);
            }
        }
        wanted
    }

    /// A client got a message.
    pub fn delivered(&mut self, client: usize, payload: &[u8], is_repeat: bool, strictly: bool) {
        let Some(head) = payload.first_chunk::<PAYLOAD_HEAD>() else { return };
        let (number, sent_at) = head.split_at(8);
        let read = |bytes: &[u8]| bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let (number, sent_at) = (read(number), read(sent_at));
        self.ledger.delivered(number, client, is_repeat, strictly);
        if !is_repeat && self.places[client].since < sent_at {
            self.ledger.took(sent_at);
        }
    }
}
