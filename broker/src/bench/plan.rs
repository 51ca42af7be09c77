//! Who sends what to whom: each measurement as streams, that is, a sender with recipients of its own.

use super::BenchError;
use super::options::{FanoutOptions, GroupsOptions, PairsOptions, SubscriptionsOptions};

/// Different lists of recipients that a stream goes through.
const LISTS: u32 = 16;
/// Topics that publishes go through where there are many subscriptions.
const TOPICS: u32 = 4096;

/// A measurement.
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// Its senders with their recipients.
    pub streams: Vec<StreamPlan>,
    /// Messages of one stream under way, where nothing else is asked for.
    pub window: u16,
    /// What a slow recipient reads, in bytes a second.
    pub slow_rate: u32,
}

/// A sender and its recipients.
pub struct StreamPlan {
    /// The sender's client id.
    pub sender: String,
    /// Where the sender hears of what was refused.
    pub answers: Option<Subscription>,
    /// The recipients.
    pub receivers: Vec<Recipient>,
    /// Those who subscribe too and read slowly.
    pub slow: Vec<Recipient>,
    /// What is sent, one after the other and from the start again.
    pub sends: Vec<Send>,
}

impl StreamPlan {
    /// Whether every message is for every recipient, so that a gap in what one gets is a loss.
    pub fn is_for_all(&self) -> bool {
        self.sends.iter().all(|send| send.recipients as usize == self.receivers.len())
    }
}

/// A client that takes messages.
pub struct Recipient {
    /// Its client id.
    pub id: String,
    /// Where it takes them from.
    pub subscription: Subscription,
}

/// Where a client takes messages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// A plain topic.
    Topic(String),
    /// Many topic filters.
    Filters(Vec<String>),
    /// Membership of a group.
    Group(String),
    /// Signals to the client alone. Devices get them unasked.
    Inbox,
    /// Refusals of the client's own signals. Devices get them unasked.
    Answers,
}

/// One message's target.
pub struct Send {
    /// Where it goes.
    pub to: To,
    /// How many get it.
    pub recipients: u32,
}

/// Where a message goes.
pub enum To {
    /// A plain topic.
    Topic(String),
    /// A client.
    Client(String),
    /// A group, or some of it.
    Group {
        /// The group.
        name: String,
        /// Only these; nobody named means all.
        only: Vec<String>,
        /// Not these.
        except: Vec<String>,
    },
}

impl Plan {
    /// One to many.
    pub fn fanout(options: &FanoutOptions) -> Self {
        let name = unique("fanout");
        let kind = if options.signals { "signals to a group" } else { "plain topic" };
        let (subscription, to, answers) = if options.signals {
            let to = To::Group { name: name.clone(), only: Vec::new(), except: Vec::new() };
            (Subscription::Group(name.clone()), to, Some(Subscription::Answers))
        } else {
            (Subscription::Topic(name.clone()), To::Topic(name.clone()), None)
        };
        let stream = StreamPlan {
            sender: format!("{name}-s"),
            answers,
            receivers: recipients(ids(&name, "r", options.subscribers), &subscription),
            slow: recipients(ids(&name, "slow", options.slow), &subscription),
            sends: vec![Send { to, recipients: options.subscribers }],
        };
        Self {
            name: format!("fan-out 1 to {}, {kind}", options.subscribers),
            streams: vec![stream],
            window: 1,
            slow_rate: options.slow_rate,
        }
    }

    /// Topics with one sender and one subscriber each.
    pub fn pairs(options: &PairsOptions) -> Self {
        let streams = (0..options.pairs).map(|number| {
            let topic = unique(&format!("pair{number}"));
            StreamPlan {
                sender: format!("{topic}-s"),
                answers: None,
                receivers: recipients(vec![format!("{topic}-r")], &Subscription::Topic(topic.clone())),
                slow: Vec::new(),
                sends: vec![Send { to: To::Topic(topic), recipients: 1 }],
            }
        });
        Self {
            name: format!("{} pairs, plain topics", options.pairs),
            streams: streams.collect(),
            window: 64,
            slow_rate: 0,
        }
    }

    /// Signals to one client each.
    pub fn unicast(options: &PairsOptions) -> Self {
        let streams = (0..options.pairs).map(|number| {
            let name = unique(&format!("one{number}"));
            let receiver = format!("{name}-r");
            StreamPlan {
                sender: format!("{name}-s"),
                answers: Some(Subscription::Answers),
                receivers: recipients(vec![receiver.clone()], &Subscription::Inbox),
                slow: Vec::new(),
                sends: vec![Send { to: To::Client(receiver), recipients: 1 }],
            }
        });
        Self {
            name: format!("{} pairs, signals to one client", options.pairs),
            streams: streams.collect(),
            window: 64,
            slow_rate: 0,
        }
    }

    /// Signals to some of a group.
    pub fn groups(options: &GroupsOptions) -> Result<Self, BenchError> {
        let listed = options.only.or(options.except).unwrap_or_default();
        let each = if options.only.is_some() { listed } else { options.members.saturating_sub(listed) };
        if listed > options.members || each == 0 {
            return Err(BenchError::Usage(format!(
                "a list of {listed} of {} members leaves nobody to send to; raise --members",
                options.members
            )));
        }
        let streams = (0..options.groups).map(|number| {
            let group = unique(&format!("group{number}"));
            let members = ids(&group, "r", options.members);
            let sends = (0..LISTS).map(|turn| {
                let list = members.iter().cycle().skip((turn * listed) as usize).take(listed as usize);
                let list: Vec<String> = list.cloned().collect();
                let (only, except) =
                    if options.only.is_some() { (list, Vec::new()) } else { (Vec::new(), list) };
                Send { to: To::Group { name: group.clone(), only, except }, recipients: each }
            });
            StreamPlan {
                sender: format!("{group}-s"),
                answers: Some(Subscription::Answers),
                sends: sends.collect(),
                receivers: recipients(members, &Subscription::Group(group)),
                slow: Vec::new(),
            }
        });
        let mode = if options.only.is_some() { "only" } else { "except" };
        let (groups, members) = (options.groups, options.members);
        Ok(Self {
            name: format!("{groups} group(s) of {members}, {mode} {listed}"),
            streams: streams.collect(),
            window: 1,
            slow_rate: 0,
        })
    }

    /// Many topic filters, and publishes that one of them matches: half are exact, a quarter have a `+`, a quarter end
    /// with `#`.
    pub fn subscriptions(options: &SubscriptionsOptions) -> Self {
        let name = unique("subs");
        let filters = options.clients * options.filters;
        let filter = |number: u32| {
            let (thing, floor) = (number / 4, number / 400);
            match number % 4 {
                0 => format!("{name}/floor-{floor}/thing-{thing}/state"),
                1 => format!("{name}/floor-{floor}/thing-{thing}/set"),
                2 => format!("{name}/floor-{floor}/+/alarm-{thing}"),
                _ => format!("{name}/floor-{floor}/thing-{thing}/log/#"),
            }
        };
        let sends = (0..TOPICS.min(filters)).map(|turn| {
            // An odd stride, so that topics that follow each other aren't neighbours.
            let filter = filter((u64::from(turn) * 7_919 % u64::from(filters)) as u32);
            let topic = filter.replace('+', "thing").replace('#', "start");
            Send { to: To::Topic(topic), recipients: 1 }
        });
        let receivers = (0..options.clients).map(|client| Recipient {
            id: format!("{name}-r{client}"),
            subscription: Subscription::Filters(
                (client * options.filters..(client + 1) * options.filters).map(filter).collect(),
            ),
        });
        let stream = StreamPlan {
            sends: sends.collect(),
            receivers: receivers.collect(),
            sender: format!("{name}-s"),
            answers: None,
            slow: Vec::new(),
        };
        Self {
            name: format!("{filters} subscriptions of {} clients", options.clients),
            streams: vec![stream],
            window: 64,
            slow_rate: 0,
        }
    }

    /// Topic filters of those who subscribe to many.
    pub fn filters(&self) -> u64 {
        let of = |recipient: &Recipient| match &recipient.subscription {
            Subscription::Filters(filters) => filters.len() as u64,
            _ => 0,
        };
        self.streams.iter().flat_map(|stream| &stream.receivers).map(of).sum()
    }
}

/// A name that no other run uses at the same time.
fn unique(kind: &str) -> String {
    format!("b{}-{kind}", std::process::id())
}

fn recipients(ids: Vec<String>, subscription: &Subscription) -> Vec<Recipient> {
    ids.into_iter().map(|id| Recipient { id, subscription: subscription.clone() }).collect()
}

fn ids(name: &str, role: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{role}{number}")).collect()
}
