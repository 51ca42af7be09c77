//! What a seed makes of a run: how many shards and clients, their kinds and limits, the rules, and how often which fault
//! strikes. Each seed leaves some faults out, so that what only shows in calm isn't hidden by storms.

use bugle_core::model::Limits;
use bugle_core::rules::{Rules, RulesSource};
use bugle_protocol::ReceiptMode;
use serde_json::json;

use crate::message::{Submission, Target, What};
use crate::random::Random;

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shards of the gateway.
    pub shards: u16,
    /// Bounds of the gateway.
    pub limits: Limits,
    /// Who may not do what.
    pub law: Law,
    /// Everyone who will connect.
    pub clients: Vec<ClientPlan>,
    /// Groups, from 0.
    pub groups: usize,
    /// Plain topics, from 0.
    pub topics: usize,
    /// Steps until all is healed.
    pub steps: u32,
    /// How often what happens.
    pub odds: Odds,
    /// The gateway keeps devices' sessions, to be resumed.
    pub resumes: bool,
    /// How many of eight signals have a time to live.
    pub hurried: usize,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The framing, by the SDK.
    Device,
    /// MQTT 3.1.1.
    Mqtt4,
    /// MQTT 5.
    Mqtt5,
}

/// One client.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// What it speaks.
    pub kind: Kind,
    /// Highest QoS of its subscriptions to signals (MQTT).
    pub signal_qos: u8,
    /// Highest QoS of its subscriptions to topics.
    pub topic_qos: u8,
    /// MQTT 5's No Local on its subscriptions to signals.
    pub no_local: bool,
    /// Seconds for which its session outlives the connection; none: not at all.
    pub expiry: Option<u32>,
    /// Deliveries at a time.
    pub window: u16,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// Options ride on the topic although user properties are there (MQTT 5).
    pub inline: bool,
    /// Joins by `sig/g/{group}/+`.
    pub with_sender: bool,
    /// How far its clock is ahead of ours, in milliseconds, and how many of a million it runs faster (devices).
    pub clock: (u64, i64),
    /// Bytes that its side of the connection takes before it reads.
    pub socket: usize,
    /// What the gateway sends should its connection be lost.
    pub will: Option<Submission>,
}

/// Rules that forbid something, and provisioned groups.
#[derive(Clone, Debug, Default)]
pub struct Law {
    /// Client and group: it may not send there.
    pub no_send: Vec<(usize, usize)>,
    /// Client and group: it may not receive from there.
    pub no_receive: Vec<(usize, usize)>,
    /// Recipient and sender: it may not receive from this client.
    pub no_hear: Vec<(usize, usize)>,
    /// Client and group: it may not join.
    pub no_join: Vec<(usize, usize)>,
    /// Members by group that the operator provides.
    pub provisioned: Vec<(usize, Vec<usize>)>,
}

/// How often what happens, in a thousand steps.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// A client's application does something.
    pub act: usize,
    /// Time passes.
    pub time: usize,
    /// A connection is cut.
    pub cut: usize,
    /// A client connects again beside its old connection.
    pub double: usize,
    /// The gateway is killed.
    pub kill: usize,
    /// A client stops reading, or goes on.
    pub slow: usize,
    /// The FIFO between two shards is blocked, or opened.
    pub block: usize,
    /// The rules change.
    pub amend: usize,
}

/// The client with this number; those beyond the plan never connect.
pub fn client_id(client: usize) -> String {
    format!("c{client}")
}

/// The group with this number.
pub fn group_name(group: usize) -> String {
    format!("g{group}")
}

/// The topic with this number.
pub fn topic_name(topic: usize) -> String {
    format!("t/{topic}")
}

impl Plan {
    /// Whether a session may keep what it has read for a while, since its bounds are narrow: then it isn't known when that
    /// takes effect.
    pub fn holds_input(&self) -> bool {
        self.limits.requests_per_client < 100 || self.limits.park_bytes < 10_000
    }

    /// The number of a client's will among all messages, if it has one.
    pub fn will_number(&self, client: usize) -> Option<u32> {
        self.clients[client].will.as_ref()?;
        Some(self.clients[..client].iter().filter(|client| client.will.is_some()).count() as u32)
    }

    /// The plan of a seed.
    pub fn new(random: &mut Random) -> Self {
        let shards = random.between(1, 4) as u16;
        let count = random.between(2, 8);
        // In some runs everything lasts: sessions, and what is under way in them.
        let lasts = random.chance(1, 4);
        let mut clients: Vec<_> = (0..count).map(|_| ClientPlan::new(lasts, random)).collect();
        let groups = random.between(1, 3);
        let topics = random.between(1, 4);
        if random.chance(1, 2) {
            clients.iter_mut().for_each(|client| client.will = will(count, groups, topics, random));
        }
        let law = if random.chance(1, 3) { Law::new(count, groups, random) } else { Law::default() };
        let mut odds = Odds {
            act: random.between(60, 250),
            time: random.between(10, 60),
            cut: random.between(1, 8),
            double: random.between(1, 6),
            kill: random.between(1, 3),
            slow: random.between(1, 10),
            block: random.between(1, 20),
            amend: random.between(1, 40),
        };
        let Odds { cut, double, kill, slow, block, amend, .. } = &mut odds;
        for fault in [cut, double, kill, slow, block, amend] {
            if random.chance(1, 2) {
                *fault = 0;
            }
        }
        let mut limits = limits(random);
        let resumes = random.chance(2, 3);
        if !resumes {
            limits.device_resume = 0;
        }
        Self {
            shards,
            limits,
            law,
            clients,
            groups,
            topics,
            steps: random.between(200, 1600) as u32,
            odds,
            resumes,
            hurried: [2, 2, 6][random.below(3)],
        }
    }
}

/// What a client leaves behind, if anything.
fn will(clients: usize, groups: usize, topics: usize, random: &mut Random) -> Option<Submission> {
    let what = match random.below(6) {
        0 | 1 => {
            let target = if random.chance(1, 3) {
                Target::Client(random.below(clients))
            } else {
                Target::Group { group: random.below(groups), only: None, except: None }
            };
            let (echo, urgent, ttl, receipt, id) = (false, false, None, ReceiptMode::None, false);
            What::Signal { target, echo, urgent, ttl, receipt, id }
        }
        2 => What::Publish { topic: random.below(topics), retain: random.chance(1, 2), clear: false },
        _ => return None,
    };
    Some(Submission { what, qos: 1, size: random.between(4, 20) })
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    if random.chance(1, 2) {
        limits.rate = random.between(2, 100) as u32;
    }
    if random.chance(1, 3) {
        limits.mailbox_messages = random.between(1, 8);
    }
    if random.chance(1, 4) {
        limits.offline_messages = random.between(1, 5);
    }
    if random.chance(1, 4) {
        limits.fifo_envelopes = random.between(2, 20);
    }
    if random.chance(1, 6) {
        limits.requests_per_client = random.between(1, 4);
    }
    if random.chance(1, 6) {
        limits.receipts_per_client = random.between(1, 3);
    }
    if random.chance(1, 6) {
        limits.park_bytes = random.between(100, 1000);
    }
    if random.chance(1, 6) {
        limits.waiting_bytes = random.between(100, 5000);
    }
    if random.chance(1, 4) {
        limits.bulk_recipients = random.below(3);
        limits.bulk_unwritten = random.between(1, 3);
        limits.bulk_sends = random.between(1, 10);
    }
    limits
}

impl ClientPlan {
    fn new(lasts: bool, random: &mut Random) -> Self {
        let kinds = [Kind::Device, Kind::Device, Kind::Mqtt4, Kind::Mqtt5, Kind::Mqtt5];
        let kind = kinds[if lasts { random.between(1, 4) } else { random.below(kinds.len()) }];
        let qos = |random: &mut Random| if lasts { random.between(1, 2) } else { random.below(3) } as u8;
        Self {
            kind,
            signal_qos: qos(random),
            topic_qos: if kind == Kind::Device { random.below(2) as u8 } else { qos(random) },
            no_local: kind == Kind::Mqtt5 && random.chance(1, 5),
            expiry: (lasts || random.chance(1, 2)).then(|| [5, 30, 100][random.below(3)]),
            window: random.between(1, 8) as u16,
            keep_alive: if random.chance(1, 4) { random.between(5, 60) as u16 } else { 0 },
            inline: random.chance(1, 2),
            with_sender: kind == Kind::Mqtt4 || random.chance(1, 2),
            clock: (random.below(1 << 40) as u64, random.below(600) as i64 - 300),
            socket: [256, 2048, 65536][random.below(3)],
            will: None,
        }
    }
}

impl Law {
    fn new(clients: usize, groups: usize, random: &mut Random) -> Self {
        let mut pairs = |others: usize| {
            let count = random.below(3);
            (0..count).map(|_| (random.below(clients), random.below(others))).collect::<Vec<_>>()
        };
        let (no_send, no_receive, no_hear, no_join) =
            (pairs(groups), pairs(groups), pairs(clients), pairs(groups));
        let provisioned = (0..groups)
            .filter_map(|group| {
                let members = (0..=clients).filter(|_| random.chance(1, 3)).collect::<Vec<_>>();
                (random.chance(1, 3) && !members.is_empty()).then_some((group, members))
            })
            .collect();
        Self { no_send, no_receive, no_hear, no_join, provisioned }
    }

    /// Other rules of what may be sent and received.
    pub fn amended(&self, clients: usize, groups: usize, random: &mut Random) -> Self {
        let Self { no_send, no_receive, no_hear, .. } = Self::new(clients, groups, random);
        Self { no_send, no_receive, no_hear, ..self.clone() }
    }

    /// Whether the operator's file makes it a member.
    pub fn is_provisioned(&self, client: usize, group: usize) -> bool {
        self.provisioned.iter().any(|(of, members)| *of == group && members.contains(&client))
    }

    /// As the gateway has it.
    pub fn rules(&self) -> Result<Rules, String> {
        let deny = |action: &str, client: usize, place: &str, name: String| json!({"effect": "deny", "actions": [action], "clients": [client_id(client)], place: [name]});
        let mut rules = Vec::new();
        for (pairs, action) in
            [(&self.no_send, "send"), (&self.no_receive, "receive"), (&self.no_join, "join")]
        {
            rules.extend(
                pairs.iter().map(|(client, group)| deny(action, *client, "groups", group_name(*group))),
            );
        }
        rules.extend(self.no_hear.iter().map(|(client, of)| deny("receive", *client, "to", client_id(*of))));
        let groups: Vec<_> = self
            .provisioned
            .iter()
            .map(|(group, members)| {
                let members: Vec<_> = members.iter().map(|member| client_id(*member)).collect();
                json!({"name": group_name(*group), "members": members})
            })
            .collect();
        let source: RulesSource = serde_json::from_value(json!({"rule": rules, "group": groups}))
            .map_err(|error| error.to_string())?;
        Rules::compile(&source).map_err(|fault| fault.to_string())
    }
}
