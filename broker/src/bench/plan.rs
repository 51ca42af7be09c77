//! Who sends what to whom: each measurement as streams, that is, a sender with recipients of its own.

use super::BenchError;
use super::options::{FanoutOptions, GroupsOptions, PairsOptions};

/// Different lists of recipients that a stream goes through.
const LISTS: u32 = 16;

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
    /// The recipients' client ids.
    pub receivers: Vec<String>,
    /// What each recipient subscribes to.
    pub subscription: Subscription,
    /// Client ids of those who subscribe too and read slowly.
    pub slow: Vec<String>,
    /// What is sent, one after the other and from the start again.
    pub sends: Vec<Send>,
}

impl StreamPlan {
    /// Whether every message is for every recipient, so that a gap in what one gets is a loss.
    pub fn is_for_all(&self) -> bool {
        self.sends.iter().all(|send| send.recipients as usize == self.receivers.len())
    }
}

/// Where a client takes messages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// A plain topic.
    Topic(String),
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
            receivers: ids(&name, "r", options.subscribers),
            subscription,
            slow: ids(&name, "slow", options.slow),
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
                receivers: vec![format!("{topic}-r")],
                subscription: Subscription::Topic(topic.clone()),
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
                receivers: vec![receiver.clone()],
                subscription: Subscription::Inbox,
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
        let recipients = if options.only.is_some() { listed } else { options.members.saturating_sub(listed) };
        if listed > options.members || recipients == 0 {
            return Err(BenchError::Usage(format!(
                "a list of {listed} of {} members leaves nobody to send to; raise --members",
                options.members
            )));
        }
        let streams = (0..options.groups).map(|number| {
            let group = unique(&format!("group{number}"));
            let receivers = ids(&group, "r", options.members);
            let sends = (0..LISTS).map(|turn| {
                let list = receivers.iter().cycle().skip((turn * listed) as usize).take(listed as usize);
                let list: Vec<String> = list.cloned().collect();
                let (only, except) =
                    if options.only.is_some() { (list, Vec::new()) } else { (Vec::new(), list) };
                Send { to: To::Group { name: group.clone(), only, except }, recipients }
            });
            StreamPlan {
                sender: format!("{group}-s"),
                answers: Some(Subscription::Answers),
                sends: sends.collect(),
                receivers,
                subscription: Subscription::Group(group),
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
}

/// A name that no other run uses at the same time.
fn unique(kind: &str) -> String {
    format!("b{}-{kind}", std::process::id())
}

fn ids(name: &str, role: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{role}{number}")).collect()
}
