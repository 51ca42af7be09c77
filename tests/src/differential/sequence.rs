//! What two clients do, step by step, as a seed has it: the same for both brokers.
//!
//! A step is thrown when it is due, so that it can answer what was heard. What was heard is the same on both sides, or the
//! sequence has ended.

use bugle_core::mqtt::{Packet, PacketType, QoS, ReasonCode, Version, decode, frame_length};

use super::dice::Dice;
use super::packets::{self, ConnectPlan, PublishPlan};
use super::side::Stage;
use super::spoil::spoil;

/// One client does one thing.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which of the two.
    pub who: usize,
    /// What.
    pub act: Act,
}

/// What a client can do.
#[derive(Clone, Debug)]
pub enum Act {
    /// Begins a connection with these bytes; with the same client id where there is one.
    Open {
        /// The first packet.
        bytes: Vec<u8>,
        /// The version that it then speaks.
        version: Version,
        /// It forgets the session that it had.
        clean: bool,
    },
    /// Writes these packets.
    Say(Vec<u8>),
    /// Acknowledges a delivery by the identifier that the broker gave it.
    Answer {
        /// With what.
        kind: PacketType,
        /// Which.
        payload: String,
        /// How.
        reason: ReasonCode,
    },
    /// Cuts the connection.
    Cut,
}

/// What a sequence sees of one client.
pub struct Seen {
    /// It is connected.
    pub live: bool,
    /// In this version.
    pub version: Version,
    /// It has a receive maximum.
    pub has_window: bool,
    /// What it has to acknowledge.
    pub in_flight: Vec<(String, Stage)>,
}

/// One sequence.
pub struct Sequence {
    dice: Dice,
    /// What its topics and client ids begin with, alone in the broker.
    pub prefix: String,
    steps_left: usize,
    /// One packet in so many is spoiled; 0: none.
    spoils: usize,
    /// Whether filters may overlap.
    pub overlaps: bool,
    /// Wills may be retained; then no connection takes over another, after which brokers differ in what they retain.
    retains_wills: bool,
    versions: [Version; 2],
    /// No Local and Retain As Published by filter, for the whole sequence.
    fixed: [u64; 2],
    packet_id: u16,
    /// How many ids the broker has chosen; and for the present connections which of them they have, 0 for their own.
    assigned: usize,
    present: [usize; 2],
    /// QoS 2 publishes that have no PUBREL yet.
    unreleased: [Vec<u16>; 2],
    messages: usize,
}

const TOPICS: [&str; 10] = ["a", "a", "b/1", "b/2", "c", "c/x", "c/x/y", "s/1", "/e", "ü/ 1"];
/// Filters of which none matches what another matches.
const APART: [&str; 8] = ["a", "b/+", "c/#", "$share/$/s/1", "/e", "ü/+", "never", "d/"];
/// And those that do.
const WIDE: [&str; 8] = ["#", "+", "b/1", "c/x/#", "+/1", "+/x/y", "c/+/y", "$share/$/c/#"];

impl Sequence {
    /// The one of this seed. `attempt` tells runs of the same one apart.
    pub fn new(seed: u64, attempt: u64) -> Self {
        let mut names = Dice::new(seed ^ attempt << 56 ^ 0x6E61_6D65);
        let prefix = (0..9).map(|_| char::from(b'a' + names.below(26) as u8)).collect();
        let mut dice = Dice::new(seed);
        let spoils = dice.of(&[0, 0, 0, 12, 12, 4]);
        let overlaps = dice.one_in(5);
        let retains_wills = dice.one_in(4);
        // A quarter each, or none at all.
        let mut bits = || {
            let bits = || (0..4).fold(0, |bits, _| bits << 16 | dice.below(1 << 16) as u64);
            let mut bits = bits;
            bits() & bits()
        };
        let fixed = [bits(), bits()];
        let mut version = || dice.of(&[Version::V5, Version::V5, Version::V311]);
        let versions = [version(), version()];
        let steps_left = 6 + dice.below(16);
        let unreleased = [const { Vec::new() }; 2];
        Self {
            dice,
            prefix,
            steps_left,
            spoils,
            overlaps,
            retains_wills,
            versions,
            fixed,
            packet_id: 0,
            assigned: 0,
            present: [0; 2],
            unreleased,
            messages: 0,
        }
    }

    /// The next step, if there is one.
    pub fn next(&mut self, seen: &[Seen; 2]) -> Option<Step> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        let who = match (seen[0].live, seen[1].live) {
            (false, _) if self.dice.one_in(2) => 0,
            (_, false) if self.dice.one_in(2) => 1,
            _ => self.dice.below(2),
        };
        let act = if seen[who].live { self.speak(who, &seen[who]) } else { self.open(who) };
        Some(Step { who, act })
    }

    fn spoiled(&mut self, bytes: Vec<u8>, version: Version) -> Vec<u8> {
        if self.spoils == 0 || !self.dice.one_in(self.spoils) {
            return bytes;
        }
        // The first of several; not all changes go with all packets.
        let length = frame_length(&bytes).ok().flatten().unwrap_or(bytes.len());
        let (first, rest) = bytes.split_at(length);
        let Some(mut spoiled) = (0..8).find_map(|_| spoil(first, version, &mut self.dice)) else {
            return bytes;
        };
        match decode(&spoiled, version) {
            // It would have no PUBREL, or that of another: what is late must be known by its payload.
            Ok(Packet::Publish(publish)) if publish.qos == QoS::ExactlyOnce => return bytes,
            // Mosquitto keeps some options of an earlier subscription to the same filter.
            Ok(Packet::Subscribe(_)) => return bytes,
            _ => {}
        }
        if matches!(spoiled[0] >> 4, 8 | 10 | 14) && decode(&spoiled, version).is_err() {
            // The last step: Mosquitto has done some of it when it finds what is wrong.
            self.steps_left = 0;
        }
        spoiled.extend_from_slice(rest);
        spoiled
    }

    fn open(&mut self, who: usize) -> Act {
        let changes = self.dice.one_in(12);
        if changes {
            self.versions[who] = self.dice.of(&[Version::V5, Version::V311, Version::V31]);
        }
        if self.spoils > 0 && self.dice.one_in(12) {
            let version = self.versions[who];
            let bytes = if self.dice.one_in(2) { self.publish(who, version) } else { vec![0xC0, 0] };
            return Act::Open { bytes, version, clean: false };
        }
        // Mosquitto keeps options of version 5 in 3.1.1.
        let clean = changes || self.dice.one_in(3);
        let (bytes, version) = self.connect(who, clean);
        let bytes = if version == Version::V31 { bytes } else { self.spoiled(bytes, version) };
        Act::Open { bytes, version, clean }
    }

    fn connect(&mut self, who: usize, clean: bool) -> (Vec<u8>, Version) {
        let version = self.versions[who];
        let will = self.dice.one_in(3).then(|| {
            let topic = self.dice.of(&["a", "c", "b/1"]);
            let qos = self.dice.of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
            let retain = self.retains_wills && self.dice.one_in(2);
            (format!("{}/{topic}", self.prefix), self.payload("w"), qos, retain)
        });
        let client_id = match self.dice.below(30) {
            0 => String::new(),
            _ => format!("{}{who}", self.prefix),
        };
        self.assigned += usize::from(client_id.is_empty());
        self.present[who] = if client_id.is_empty() { self.assigned } else { 0 };
        let plan = ConnectPlan { version, client_id, clean, will };
        (packets::connect(&plan, &mut self.dice), version)
    }

    fn payload(&mut self, kind: &str) -> String {
        self.messages += 1;
        format!("{kind}{}", self.messages)
    }

    fn next_id(&mut self) -> u16 {
        // Now and then one that may be in use, but for a publish that comes late.
        let is_late = self.unreleased.iter().any(|ids| ids.contains(&self.packet_id));
        if is_late || self.packet_id == 0 || !self.dice.one_in(25) {
            self.packet_id += 1;
        }
        self.packet_id
    }

    fn speak(&mut self, who: usize, seen: &Seen) -> Act {
        let version = seen.version;
        let unruly = usize::from(self.spoils > 0);
        let weights = [
            30,
            16,
            5,
            if seen.in_flight.is_empty() { 0 } else { 24 },
            if self.unreleased[who].is_empty() { 0 } else { 8 },
            1,
            5,
            5,
            usize::from(!self.retains_wills) * 3,
            unruly * 2,
            unruly * 3,
            unruly * 2,
            4,
        ];
        let bytes = match self.dice.weighted(&weights) {
            0 => self.publish(who, version),
            1 => self.subscribe(who, version),
            2 => {
                let filters = self.filters(who);
                packets::unsubscribe(self.next_id(), &filters, version)
            }
            3 => return self.answer(seen),
            4 => {
                let at = self.dice.below(self.unreleased[who].len());
                let id = self.unreleased[who].remove(at);
                packets::ack(PacketType::PubRel, id, ReasonCode::Success, version)
            }
            5 => vec![0xC0, 0],
            6 => {
                let reason = self.dice.of(&[
                    ReasonCode::NORMAL_DISCONNECTION,
                    ReasonCode::NORMAL_DISCONNECTION,
                    ReasonCode::DisconnectWithWill,
                    ReasonCode::ImplementationSpecificError,
                ]);
                let expiry = self.dice.one_in(3).then(|| self.dice.of(&[0, 1000, 5000]));
                packets::disconnect(reason, expiry, version)
            }
            7 => return Act::Cut,
            8 => {
                // Another connection with the same id.
                let clean = self.dice.one_in(3);
                let mut plan = self.connect(who, clean);
                while plan.0.len() < 30 && self.messages > 0 {
                    // One without an id takes nobody's place.
                    plan = self.connect(who, clean);
                }
                return Act::Open { bytes: plan.0, version: plan.1, clean };
            }
            9 => {
                // The last step: a broker may forget the session with the connection.
                self.steps_left = 0;
                self.connect(who, false).0
            }
            10 => packets::never_valid(&self.prefix, version, &mut self.dice),
            11 => match self.dice.below(5) {
                0 if version == Version::V5 => packets::auth(),
                // None of these is under way.
                1 => packets::ack(PacketType::PubAck, 60_000, ReasonCode::Success, version),
                2 => packets::ack(PacketType::PubRec, 60_001, ReasonCode::Success, version),
                3 => packets::ack(PacketType::PubComp, 60_002, ReasonCode::Success, version),
                _ => packets::ack(PacketType::PubRel, 60_003, ReasonCode::Success, version),
            },
            _ => {
                // Several packets at once.
                let mut both = self.publish(who, version);
                both.extend(if self.dice.one_in(2) {
                    self.publish(who, version)
                } else {
                    self.subscribe(who, version)
                });
                return Act::Say(both);
            }
        };
        Act::Say(self.spoiled(bytes, version))
    }

    fn publish(&mut self, who: usize, version: Version) -> Vec<u8> {
        let topic = format!("{}/{}", self.prefix, self.dice.of(&TOPICS));
        let empty = self.dice.one_in(20);
        let qos = self.dice.of(&[
            QoS::AtMostOnce,
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
        ]);
        let retain = self.dice.one_in(5) || empty;
        // One broker delivers and retains on PUBLISH and another on PUBREL, so that comes at once but for a few, which
        // are known by their payload.
        let is_late = qos == QoS::ExactlyOnce && !retain && self.dice.one_in(6);
        let payload = if empty { String::new() } else { self.payload(if is_late { "late" } else { "m" }) };
        let packet_id = self.next_id();
        let highest = if self.spoils > 0 { 4 } else { 3 };
        let alias =
            self.dice.one_in(12).then(|| (self.dice.of(&[1, 2, 3, 500][..highest]), self.dice.one_in(5)));
        let plan = PublishPlan {
            topic: &topic,
            payload: &payload,
            qos,
            retain,
            dup: self.dice.one_in(12),
            packet_id,
            alias,
        };
        let mut bytes = packets::publish(&plan, version, &mut self.dice);
        if qos == QoS::ExactlyOnce {
            if is_late {
                self.unreleased[who].push(packet_id);
            } else {
                bytes.extend(packets::ack(PacketType::PubRel, packet_id, ReasonCode::Success, version));
            }
        }
        bytes
    }

    fn filters(&mut self, who: usize) -> Vec<String> {
        let count = self.dice.of(&[1, 1, 1, 2, 3]);
        let mut filters: Vec<String> = (0..count)
            .map(|_| {
                let wide = self.overlaps && self.dice.one_in(2);
                let filter = self.dice.of(if wide { &WIDE } else { &APART });
                match filter.strip_prefix("$share/$/") {
                    // A share of one: who of several gets a message is the broker's choice.
                    Some(rest) => {
                        let name = if self.overlaps { self.dice.of(&["g", "h"]) } else { "g" };
                        format!("$share/{name}{who}{}/{}/{rest}", self.present[who], self.prefix)
                    }
                    None => format!("{}/{filter}", self.prefix),
                }
            })
            .collect();
        // Of the same filter twice in a packet Mosquitto keeps some of the first one's options.
        filters.sort();
        filters.dedup();
        filters
    }

    fn subscribe(&mut self, who: usize, version: Version) -> Vec<u8> {
        let filters = self.filters(who);
        packets::subscribe(self.next_id(), &filters, version, self.fixed, &mut self.dice)
    }

    fn answer(&mut self, seen: &Seen) -> Act {
        let (payload, stage) = &seen.in_flight[self.dice.below(seen.in_flight.len())];
        let kind = match stage {
            Stage::Acknowledge => PacketType::PubAck,
            Stage::Receive => PacketType::PubRec,
            Stage::Release | Stage::Complete => PacketType::PubComp,
        };
        let kind = if self.spoils > 0 && self.dice.one_in(20) {
            self.dice.of(&[PacketType::PubAck, PacketType::PubRec, PacketType::PubComp])
        } else {
            kind
        };
        // Mosquitto doesn't count what is refused as done.
        let fails = seen.version == Version::V5
            && !seen.has_window
            && kind != PacketType::PubComp
            && self.dice.one_in(15);
        let reason = if fails { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        Act::Answer { kind, payload: payload.clone(), reason }
    }
}
