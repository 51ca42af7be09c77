//! What clients send, in no protocol's terms, and its way into a payload and back.

use bugle_protocol::ReceiptMode;

use crate::plan::{client_id, group_name};

/// A moment of a run: its step, and the world's clock in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The step, which no two things that happen one after another share.
    pub step: u64,
    /// Milliseconds.
    pub at: u64,
}

/// Whom a signal is for. Clients and groups by their numbers in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One client.
    Client(usize),
    /// Members of a group.
    Group {
        /// The group.
        group: usize,
        /// Only these.
        only: Option<Vec<usize>>,
        /// Not these.
        except: Option<Vec<usize>>,
    },
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A signal.
    Signal {
        /// Whom it is for.
        target: Target,
        /// To the sender too.
        echo: bool,
        /// Before what isn't.
        urgent: bool,
        /// Milliseconds to live.
        ttl: Option<u32>,
        /// What the sender wants to hear.
        receipt: ReceiptMode,
        /// With an id of its own, under which it is accepted once (S12).
        id: bool,
    },
    /// A message to a plain topic.
    Publish {
        /// The topic.
        topic: usize,
        /// To be retained.
        retain: bool,
        /// With an empty payload, which clears what is retained.
        clear: bool,
    },
}

/// Something to be sent.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What.
    pub what: What,
    /// MQTT's QoS; a device's signals are at least once.
    pub qos: u8,
    /// Bytes of payload, 4 or more.
    pub size: usize,
}

impl Submission {
    /// The payload of message `number`.
    pub fn payload(&self, number: u32) -> Vec<u8> {
        if let What::Publish { clear: true, .. } = self.what {
            return Vec::new();
        }
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend((payload.len()..self.size).map(|at| filler(number, at)));
        payload
    }

    /// Names that a list is written with.
    pub fn names(list: &[usize]) -> Vec<String> {
        list.iter().map(|client| client_id(*client)).collect()
    }
}

/// The number in a payload, if all of it is as [`Submission::payload`] made it.
pub fn number_of(payload: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(*payload.first_chunk()?);
    let is_whole = payload.iter().enumerate().skip(4).all(|(at, byte)| *byte == filler(number, at));
    is_whole.then_some(number)
}

fn filler(number: u32, at: usize) -> u8 {
    (number as u8).wrapping_mul(31).wrapping_add(at as u8)
}

impl Target {
    /// The mode that recipients are told.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Client(_) => "one",
            Self::Group { only: Some(_), .. } => "only",
            Self::Group { except: Some(except), .. } if !except.is_empty() => "except",
            Self::Group { .. } => "all",
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Client(client) => client_id(*client),
            Self::Group { group, only, except } => {
                let mut text = group_name(*group);
                if let Some(only) = only {
                    text += &format!(" only {}", Submission::names(only).join(","));
                }
                if let Some(except) = except {
                    text += &format!(" except {}", Submission::names(except).join(","));
                }
                text
            }
        }
    }
}

impl What {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Signal { target, echo, urgent, ttl, receipt, id } => {
                let mut text = format!("a signal to {}", target.text());
                for (set, word) in [(*echo, ", echo"), (*urgent, ", urgent"), (*id, ", with an id")] {
                    text += if set { word } else { "" };
                }
                text += &ttl.map(|ttl| format!(", ttl {ttl}")).unwrap_or_default();
                text + &format!(", receipt {}", receipt.key())
            }
            Self::Publish { topic, retain, clear } => {
                let (kept, empty) =
                    (if *retain { ", retained" } else { "" }, if *clear { ", empty" } else { "" });
                format!("a message to t/{topic}{kept}{empty}")
            }
        }
    }
}
