//! What is checked when a client gets something: that it was a recipient, in time, once, in order, with the right name on
//! it (S3-S5, S9, S11, S16, T2).

use crate::ledger::{Delivered, Ledger, Message, NEVER, Place};
use crate::message::{Moment, Target, What, number_of};
use crate::plan::{Kind, Law, client_id, group_name, topic_name};

/// For how long an id is remembered, in milliseconds (S12).
const ID_WINDOW: u64 = 120_000;

/// Why the rules keep something from a client.
pub const FORBIDDEN: &str = "the rules forbid it";

/// Something that came in, as the client sees it.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// Who got it.
    pub client: usize,
    /// On which connection.
    pub link: u32,
    /// How it came.
    pub route: Route<'a>,
    /// The message.
    pub payload: &'a [u8],
    /// MQTT's QoS, 1 for devices.
    pub qos: u8,
    /// Marked as sent before.
    pub dup: bool,
    /// Marked as retained.
    pub retained: bool,
    /// When the gateway wrote it, at the latest.
    pub written: Moment,
    /// When it has to be within its deadline: at the write for MQTT, at the application for devices.
    pub judged_at: u64,
    /// Now.
    pub now: Moment,
}

/// How something came, as far as the protocol says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Route<'a> {
    /// The topic, if it is a plain message.
    pub topic: Option<&'a str>,
    /// The group, none if to the own inbox.
    pub group: Option<&'a str>,
    /// Who sent it.
    pub sender: Option<&'a str>,
    /// How it was addressed.
    pub mode: Option<&'a str>,
    /// It overtook others.
    pub urgent: Option<bool>,
    /// Milliseconds that are left.
    pub remaining: Option<u64>,
}

impl Ledger {
    /// A client's application got something; gives its number.
    pub fn delivered(&mut self, arrival: &Arrival<'_>) -> Option<u32> {
        let who = client_id(arrival.client);
        if arrival.payload.is_empty() && arrival.route.topic.is_some() {
            // Someone cleared the topic; which of them isn't said.
            return None;
        }
        let known = number_of(arrival.payload).filter(|number| (*number as usize) < self.messages.len());
        let Some(number) = known else {
            self.violated(format!("{who} got bytes that nobody sent: {:02x?}", arrival.payload));
            return None;
        };
        self.note(|_| {
            let (dup, retained) =
                (if arrival.dup { ", again" } else { "" }, if arrival.retained { ", retained" } else { "" });
            format!("{who} gets message {number} by QoS {}{dup}{retained}", arrival.qos)
        });
        self.check_label(number, arrival);
        self.check_recipient(number, arrival);
        self.check_once(number, arrival);
        self.check_order(number, arrival);
        self.check_told(number, arrival.client);
        let delivered = Delivered {
            client: arrival.client,
            link: arrival.link,
            written: arrival.written,
            judged_at: arrival.judged_at,
            retained: arrival.retained,
            dup: arrival.dup,
            seen: arrival.now.step,
        };
        self.check_deadline(number, &delivered);
        self.message(number).deliveries.push(delivered);
        Some(number)
    }

    /// A client has acknowledged a message.
    pub fn acknowledged(&mut self, number: u32, client: usize) {
        self.message(number).acked_by.push(client);
    }

    /// The bytes and names are those that were sent.
    fn check_label(&mut self, number: u32, arrival: &Arrival<'_>) {
        let message = &self.messages[number as usize];
        let route = arrival.route;
        let mut wrong = Vec::new();
        if arrival.payload.len() != message.submission.size {
            wrong.push("its length");
        }
        match &message.submission.what {
            What::Signal { target, urgent, ttl, .. } => {
                let group = match target {
                    Target::Client(_) => None,
                    Target::Group { group, .. } => Some(group_name(*group)),
                };
                let sender = client_id(message.sender);
                let checks = [
                    (route.topic.is_none() && !arrival.retained, "its kind"),
                    (route.group == group.as_deref(), "its group"),
                    (route.sender.is_none_or(|named| named == sender), "its sender"),
                    (route.mode.is_none_or(|named| named == target.mode()), "its mode"),
                    (route.urgent.is_none_or(|named| named == *urgent), "its lane"),
                    (
                        route.remaining.is_none_or(|left| ttl.is_some_and(|ttl| left <= u64::from(ttl))),
                        "the time left",
                    ),
                ];
                wrong.extend(checks.into_iter().filter(|(is_right, _)| !is_right).map(|(_, what)| what));
            }
            What::Publish { topic, .. } => {
                if route.topic != Some(&topic_name(*topic)) {
                    wrong.push("its topic");
                }
            }
        }
        if !wrong.is_empty() {
            let text = format!(
                "message {number} came to {} with {wrong:?} wrong: {arrival:?}",
                client_id(arrival.client)
            );
            self.violated(text);
        }
    }

    /// It was a recipient at some moment between the send and now.
    fn check_recipient(&mut self, number: u32, arrival: &Arrival<'_>) {
        let message = &self.messages[number as usize];
        let client = arrival.client;
        let who = client_id(client);
        let from = message.submitted.step;
        let to = message.answered.map_or(NEVER, |answered| answered.step).min(arrival.written.step);
        // A repetition is judged when it comes; and a publish is answered when it is on its way to other shards.
        let is_late = message.is_repeated || message.target().is_none();
        let to = if is_late { arrival.written.step } else { to };
        let mut wrong = None;
        if message.is_void() {
            wrong = Some(format!("it was {:?}", message.fate));
        } else if !(message.first_incarnation..=message.incarnation)
            .contains(&self.link_incarnations[arrival.link as usize])
        {
            wrong = Some("it was sent to the gateway that ran before".to_owned());
        } else if let Err(why) = self.may_get(number, client, from, to) {
            wrong = Some(why.to_owned());
        } else {
            let is_there = match &message.submission.what {
                What::Signal { target: Target::Client(_), .. } => {
                    self.possibly(client, Place::Inbox, from, to)
                }
                What::Signal { target: Target::Group { group, .. }, .. } => {
                    self.possibly(client, Place::Group(*group), from, to)
                }
                // A retained one may be from long ago, and may have been on its way when the subscription ended.
                What::Publish { topic, .. } if arrival.retained => {
                    self.filters(*topic).into_iter().any(|filter| self.possibly(client, filter, 0, to))
                }
                What::Publish { topic, .. } => {
                    self.filters(*topic).into_iter().any(|filter| self.possibly(client, filter, from, to))
                }
            };
            if !is_there {
                wrong = Some("it wasn't there at any time since the send".to_owned());
            }
        }
        if let Some(why) = wrong {
            self.violated(format!("{who} got message {number} on connection {}: {why}", arrival.link));
        }
    }

    /// What the lists and the rules say of a recipient that is judged between these steps.
    pub fn may_get(&self, number: u32, client: usize, from: u64, to: u64) -> Result<(), &'static str> {
        let message = &self.messages[number as usize];
        let is_own = message.sender == client;
        let refuses_own = is_own && self.plan.clients.get(client).is_some_and(|client| client.no_local);
        let What::Signal { target, echo, .. } = &message.submission.what else { return Ok(()) };
        if refuses_own {
            return Err("it wants none of its own");
        }
        match target {
            Target::Client(one) if *one != client => return Err("it is for another"),
            Target::Group { except: Some(except), .. } if except.contains(&client) => {
                return Err("it is excepted");
            }
            Target::Group { only: Some(only), .. } if !only.contains(&client) => {
                return Err("it isn't listed");
            }
            Target::Group { only: None, .. } if is_own && !echo => return Err("it is its own"),
            Target::Client(_) | Target::Group { .. } => {}
        }
        if self.laws(from, to).all(|law| Self::forbids(law, message, client)) {
            Err(FORBIDDEN)
        } else {
            Ok(())
        }
    }

    /// Whether the rules forbid it, for some time between these steps at least.
    pub fn may_be_forbidden(&self, number: u32, client: usize, from: u64, to: u64) -> bool {
        let message = &self.messages[number as usize];
        self.laws(from, to).any(|law| Self::forbids(law, message, client))
    }

    fn forbids(law: &Law, message: &Message, client: usize) -> bool {
        match message.target() {
            Some(Target::Client(_)) => law.no_hear.contains(&(client, message.sender)),
            Some(Target::Group { group, .. }) => law.no_receive.contains(&(client, *group)),
            None => false,
        }
    }

    /// Nothing comes twice where once was promised.
    fn check_once(&mut self, number: u32, arrival: &Arrival<'_>) {
        let message = &self.messages[number as usize];
        let same = |delivered: &&Delivered| {
            delivered.client == arrival.client
                && delivered.retained == arrival.retained
                && delivered.dup == arrival.dup
                // A client tells repetitions by the connection.
                && (!delivered.dup || delivered.link == arrival.link)
        };
        let count = message.deliveries.iter().filter(same).count() as u32;
        let client = &self.plan.clients[arrival.client];
        let allowed = if arrival.dup && (client.kind == Kind::Device || arrival.qos == 0) {
            0
        } else if arrival.retained {
            // Once for each time that it was asked for; a filter is asked for again after a reconnect.
            let What::Publish { topic, .. } = message.submission.what else { return };
            let filters = self.filters(topic);
            let tenures = self.accounts[arrival.client].tenures.iter();
            tenures.filter(|tenure| filters.contains(&tenure.place)).map(|tenure| tenure.asks).sum()
        } else if message.has_id() && arrival.now.at < message.submitted.at + ID_WINDOW {
            // Once for each gateway that it came to.
            1 + self.incarnation - message.first_incarnation
        } else {
            message.writes
        };
        // QoS 2 is once, whatever is repeated.
        let is_twice = arrival.qos == 2
            && !arrival.retained
            && message
                .deliveries
                .iter()
                .filter(|delivered| delivered.client == arrival.client && !delivered.retained)
                .count()
                >= message.writes as usize;
        if count >= allowed || is_twice {
            self.violated(format!(
                "{} got message {number} {} times, now by QoS {} on connection {}",
                client_id(arrival.client),
                message.deliveries.iter().filter(|delivered| delivered.client == arrival.client).count() + 1,
                arrival.qos,
                arrival.link
            ));
        }
    }

    /// What comes first after what was sent first, in its lane.
    fn check_order(&mut self, number: u32, arrival: &Arrival<'_>) {
        let message = &self.messages[number as usize];
        let seen = message.deliveries.iter().any(|delivered| delivered.client == arrival.client);
        if seen || arrival.retained || message.is_repeated {
            return;
        }
        let way = (message.sender, arrival.client, message.lane());
        let newest = self.newest.entry(way).or_insert(number);
        if *newest > number {
            let text = format!("{} got message {number} after {}", client_id(arrival.client), *newest);
            self.violated(text);
        } else {
            *newest = number;
        }
    }

    /// Not after its deadline, as far as it is known when it was accepted.
    pub fn check_deadline(&mut self, number: u32, delivered: &Delivered) {
        let message = &self.messages[number as usize];
        let Some(ttl) = message.ttl() else { return };
        if message.is_repeated {
            return;
        }
        let is_parkable = self.plan.holds_input()
            || match self.plan.clients[message.sender].kind {
                Kind::Device => false,
                Kind::Mqtt4 => true,
                Kind::Mqtt5 => message.submission.qos == 0,
            };
        // What may have been put off was accepted at the answer at the latest.
        let accepted = if is_parkable { message.answered } else { message.consumed };
        if let Some(accepted) = accepted
            && delivered.judged_at >= accepted.at + ttl
        {
            let text = format!(
                "{} got message {number} {} ms after it was accepted, with a ttl of {ttl}",
                client_id(delivered.client),
                delivered.judged_at - accepted.at
            );
            self.violated(text);
        }
    }
}
