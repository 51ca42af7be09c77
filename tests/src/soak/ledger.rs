//! Every send of a run and what became of it: what the gateway said, what the recipients got, and whether both agree.
//!
//! A violation is noted the moment that it shows, or at the end by [`Ledger::close`]: each is one promise broken.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Violations that are told in full; more are only counted.
const TOLD: usize = 40;
/// Groups have at most so many members: a set of them is a bit mask.
pub const MAX_MEMBERS: usize = 16;

/// The number of a send in the whole run; its payload begins with it.
pub type Number = u64;

/// What kind of message it is, which says what is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A plain topic at QoS 1: at least once to each session that lasts.
    Plain,
    /// A plain topic at QoS 2: exactly once.
    PlainOnce,
    /// A signal with a receipt for each recipient.
    Signal,
    /// The same with `store`.
    Stored,
}

impl Kind {
    /// Whether it is kept for a recipient that is offline.
    pub fn is_kept(self) -> bool {
        self != Self::Signal
    }

    fn is_signal(self) -> bool {
        matches!(self, Self::Signal | Self::Stored)
    }

    /// What order is promised within.
    fn lane(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::PlainOnce => 1,
            Self::Signal | Self::Stored => 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not answered yet.
    Open,
    Accepted,
    Refused,
    /// Its sender can't know, and doesn't send it again.
    Unknown,
}

#[derive(Debug)]
struct Send {
    kind: Kind,
    sender: u16,
    group: u16,
    /// Who is to get it, a bit for each member of its group.
    recipients: u16,
    /// Who has got it.
    delivered: u16,
    /// Who has been named in a receipt that was final for it.
    reported: u16,
    /// Of these, who is said to have it, and who is said not to.
    said_delivered: u16,
    said_not: u16,
    /// Who is said to have it waiting.
    queued: u16,
    /// Whose status a first receipt said, which the last one says again.
    said_first: u16,
    /// In which run of the gateway it was sent.
    run: u64,
    /// Sends of one sender are in order within this.
    strand: usize,
    fate: Fate,
    /// It was sent again, so that the gateway may have taken it twice where it doesn't know it again.
    resent: bool,
    /// The gateway has started anew since it was sent.
    over_restart: bool,
    /// Nobody was there to hear the receipt.
    unheard: bool,
    /// When, in microseconds of the run; and after how many milliseconds it is not to be acted on.
    accepted_at: u64,
    ttl: u32,
}

/// How a receipt said it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Another receipt follows, which says all of it again.
    pub is_first: bool,
    /// It is marked as one that may have come before.
    pub is_repeat: bool,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Sends by kind, and how many of them were accepted.
    pub sends: BTreeMap<&'static str, (u64, u64)>,
    /// First deliveries of accepted sends.
    pub deliveries: u64,
    /// The same, of messages that are kept for who is offline.
    pub kept_deliveries: u64,
    /// Further deliveries that the protocol allows: of QoS 1 after a lost connection.
    pub repeated: u64,
    /// Refusals by code.
    pub refusals: BTreeMap<String, u64>,
    /// Final statuses in receipts.
    pub statuses: BTreeMap<String, u64>,
    /// Recipients that were QUEUED first.
    pub queued: u64,
    /// Receipts that nobody was there to hear.
    pub unheard: u64,
    /// Sends of which the sender doesn't know whether they were accepted, and doesn't repeat.
    pub unknown: u64,
    /// Promises broken.
    pub violations: u64,
}

/// All that was sent.
pub struct Ledger {
    started: Instant,
    sends: Vec<Send>,
    /// Members by group and place: which client.
    groups: Vec<Vec<usize>>,
    /// Of each client: its place in its group.
    places: Vec<usize>,
    /// Sessions that last, by client.
    lasting: Vec<bool>,
    /// The last number that each client got first from each sender, in each strand and lane.
    last: BTreeMap<(usize, u16, usize), Number>,
    totals: Totals,
    told: Vec<String>,
    /// How often the gateway was killed.
    run: u64,
    /// Microseconds from a send to its first delivery, of what isn't kept.
    pub latency: Histogram<u64>,
}

fn bit(place: usize) -> u16 {
    1 << place
}

impl Ledger {
    /// A ledger for clients in these groups; `lasting` says of each client whether its session outlives a connection.
    pub fn new(groups: Vec<Vec<usize>>, lasting: Vec<bool>) -> Self {
        let mut places = vec![0; lasting.len()];
        for members in &groups {
            assert!(members.len() <= MAX_MEMBERS, "a group of {} members", members.len());
            for (place, &client) in members.iter().enumerate() {
                places[client] = place;
            }
        }
        Self {
            started: Instant::now(),
            sends: Vec::new(),
            groups,
            places,
            lasting,
            last: BTreeMap::new(),
            totals: Totals::default(),
            told: Vec::new(),
            run: 0,
            latency: Histogram::new_with_bounds(1, 600_000_000, 3).expect("bounds as they should be"),
        }
    }

    /// Microseconds of the run.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The members of a group, in the order of their places.
    pub fn members(&self, group: usize) -> &[usize] {
        &self.groups[group]
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// What was counted so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The violations that are told in full.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// A send begins, to these places of a group.
    pub fn begin(&mut self, kind: Kind, sender: usize, group: usize, recipients: u16, ttl: u32) -> Number {
        self.sends.push(Send {
            kind,
            sender: sender as u16,
            group: group as u16,
            recipients,
            delivered: 0,
            reported: 0,
            said_delivered: 0,
            said_not: 0,
            queued: 0,
            said_first: 0,
            run: self.run,
            strand: 0,
            fate: Fate::Open,
            resent: false,
            over_restart: false,
            unheard: false,
            accepted_at: u64::MAX,
            ttl,
        });
        (self.sends.len() - 1) as Number
    }

    fn violation(&mut self, number: Number, text: std::fmt::Arguments<'_>) {
        self.totals.violations += 1;
        if self.told.len() < TOLD {
            let send = &self.sends[number as usize];
            self.told.push(format!("{:.3} s: {text}: {number} {send:?}", self.now() as f64 / 1e6));
        }
    }

    /// It is sent beside others of the same sender, which are in order among themselves alone.
    pub fn set_strand(&mut self, number: Number, strand: usize) {
        if let Some(send) = self.sends.get_mut(number as usize) {
            send.strand = strand;
        }
    }

    /// The gateway has answered.
    pub fn accepted(&mut self, number: Number) {
        let now = self.now();
        let Some(send) = self.sends.get_mut(number as usize) else { return };
        send.fate = Fate::Accepted;
        send.accepted_at = send.accepted_at.min(now);
    }

    /// The gateway has refused it.
    pub fn refused(&mut self, number: Number, code: &str) {
        *self.totals.refusals.entry(code.to_owned()).or_default() += 1;
        let Some(send) = self.sends.get_mut(number as usize) else { return };
        send.fate = Fate::Refused;
        if send.delivered != 0 && !send.resent {
            self.violation(number, format_args!("refused, and delivered"));
        }
    }

    /// The gateway was killed, and starts anew.
    pub fn restarted(&mut self) {
        self.run += 1;
    }

    /// Its sender will never know.
    pub fn unknown(&mut self, number: Number) {
        if let Some(send) = self.sends.get_mut(number as usize)
            && send.fate == Fate::Open
        {
            send.fate = Fate::Unknown;
            send.unheard = true;
        }
    }

    /// Its sender sends it again, in the same session of the same run of the gateway or not.
    pub fn resent(&mut self, number: Number, over_restart: bool) {
        let Some(send) = self.sends.get_mut(number as usize) else { return };
        send.resent = true;
        send.over_restart |= over_restart;
    }

    /// Whoever waits for its receipt may have missed it: the connection was lost.
    pub fn missed_receipt(&mut self, number: Number) {
        if let Some(send) = self.sends.get_mut(number as usize) {
            send.unheard = true;
        }
    }

    /// A receipt says this of a client.
    pub fn status(&mut self, number: Number, client: usize, status: &str, said: Said) {
        let Some(&place) = self.places.get(client) else { return };
        let Some(send) = self.sends.get_mut(number as usize) else { return };
        let bit = bit(place);
        if send.recipients & bit == 0 {
            return self.violation(number, format_args!("{client} is in the receipt, and was not addressed"));
        }
        if status == "QUEUED" {
            send.queued |= bit;
            self.totals.queued += 1;
            return;
        }
        let class = match status {
            "DELIVERED" => send.said_delivered,
            "UNCONFIRMED" => !(send.said_delivered | send.said_not),
            _ => send.said_not,
        };
        let Said { is_first, is_repeat } = said;
        let is_repeated = class & bit != 0 && (is_repeat || !is_first && send.said_first & bit != 0);
        send.said_first &= !bit;
        if is_first {
            send.said_first |= bit;
        }
        // A gateway that is killed may have said it, and not have written down that it did.
        let is_repeated = is_repeated || send.run != self.run && class & bit != 0;
        if is_repeated {
            return;
        }
        let again = send.reported & bit != 0;
        send.reported |= bit;
        match status {
            "DELIVERED" => send.said_delivered |= bit,
            "UNCONFIRMED" => {}
            _ => send.said_not |= bit,
        }
        if send.queued & bit != 0 && matches!(status, "OFFLINE" | "OVERFLOW") {
            self.violation(number, format_args!("{client} was QUEUED and is {status}"));
        }
        if again && !self.sends[number as usize].resent {
            return self.violation(number, format_args!("{client} has a second final status, {status}"));
        }
        *self.totals.statuses.entry(status.to_owned()).or_default() += 1;
    }

    /// A client got it. `is_repeat`: marked as a duplicate by the gateway. `strictly`: the client is a device, whose SDK
    /// promises that nothing comes past its deadline.
    pub fn delivered(&mut self, number: Number, client: usize, is_repeat: bool, strictly: bool) {
        let now = self.now();
        let Some(send) = self.sends.get_mut(number as usize) else {
            self.totals.violations += 1;
            return self.told.push(format!("{client} got {number}, which was never sent"));
        };
        let place = self.places[client];
        let bit = bit(place);
        if send.recipients & bit == 0 || self.groups[usize::from(send.group)].get(place) != Some(&client) {
            return self.violation(number, format_args!("{client} got it, and was not addressed"));
        }
        if send.fate == Fate::Refused && !send.resent {
            self.violation(number, format_args!("{client} got it, and it was refused"));
            return;
        }
        if send.delivered & bit != 0 {
            // At least once: a gateway that was killed may not have written down that it had delivered it.
            let over_restart = send.over_restart || send.run != self.run;
            let is_allowed = match send.kind {
                Kind::PlainOnce => false,
                Kind::Plain => is_repeat || send.resent || over_restart,
                // Of the message ids of S12 only those of stored sends that were acknowledged are known after a restart; and
                // those aren't sent again.
                Kind::Stored => is_repeat || over_restart,
                Kind::Signal => is_repeat || send.over_restart,
            };
            self.totals.repeated += 1;
            if !is_allowed {
                self.violation(number, format_args!("{client} got it twice (marked: {is_repeat})"));
            }
            return;
        }
        send.delivered |= bit;
        let (kind, sender, strand, ttl) = (send.kind, send.sender, send.strand, send.ttl);
        let accepted_at = send.accepted_at;
        let over_restart = send.over_restart;
        self.totals.deliveries += 1;
        self.totals.kept_deliveries += u64::from(kind.is_kept());
        if strictly && ttl > 0 && accepted_at != u64::MAX && now > accepted_at + u64::from(ttl) * 1000 {
            self.violation(number, format_args!("{client} got it at {now}, past its deadline"));
        }
        let last = self.last.entry((client, sender, strand << 2 | kind.lane())).or_default();
        if number < *last && over_restart {
            // It wasn't acknowledged when the gateway was killed, and is sent again after what was.
        } else if number < *last {
            let last = *last;
            self.violation(number, format_args!("{client} got it after {last} of the same sender"));
        } else {
            *last = number;
        }
    }

    /// Notes how long a delivery took, from the moment in its payload.
    pub fn took(&mut self, sent_at: u64) {
        let micros = self.now().saturating_sub(sent_at).max(1);
        self.latency.saturating_record(micros);
    }

    /// What is still awaited of what sessions that last are owed: messages of plain topics, and final statuses.
    pub fn open(&self) -> u64 {
        self.sends.iter().filter(|send| !self.missing(send).is_empty()).count() as u64
    }

    fn missing(&self, send: &Send) -> Vec<String> {
        if send.fate == Fate::Open {
            return vec!["it was never answered".to_owned()];
        }
        if send.fate != Fate::Accepted {
            return Vec::new();
        }
        let members = &self.groups[usize::from(send.group)];
        let lost = |&(place, &client): &(usize, &usize)| {
            let bit = bit(place);
            if send.recipients & bit == 0 || !self.lasting[client] {
                false
            } else if send.kind.is_signal() {
                let waits = send.queued & bit != 0 || send.reported & bit == 0;
                waits && send.reported & bit == 0 && !send.unheard
            } else {
                send.delivered & bit == 0
            }
        };
        let name = |(_, client): (usize, &usize)| {
            let what = if send.kind.is_signal() { "has no final status" } else { "never got it" };
            format!("{client} {what}")
        };
        members.iter().enumerate().filter(lost).map(name).collect()
    }

    /// The end of the run: what was never accounted for, and receipts that were not true.
    pub fn close(&mut self) {
        for number in 0..self.sends.len() {
            let send = &self.sends[number];
            let missing = self.missing(send);
            let (said, not) = (send.said_delivered & !send.delivered, send.said_not & send.delivered);
            let untrue_not = if send.resent { 0 } else { not & !send.said_delivered };
            let key = match send.kind {
                Kind::Plain => "plain, QoS 1",
                Kind::PlainOnce => "plain, QoS 2",
                Kind::Signal => "signal",
                Kind::Stored => "signal with store",
            };
            let accepted = u64::from(send.fate == Fate::Accepted);
            let unheard = u64::from(send.kind.is_signal() && send.unheard && send.fate == Fate::Accepted);
            let is_unknown = send.fate == Fate::Unknown;
            let entry = self.totals.sends.entry(key).or_default();
            *entry = (entry.0 + 1, entry.1 + accepted);
            self.totals.unheard += unheard;
            self.totals.unknown += u64::from(is_unknown);
            let number = number as Number;
            for text in missing {
                self.violation(number, format_args!("{text}"));
            }
            if said != 0 {
                self.violation(number, format_args!("DELIVERED, and not got by {said:#b}"));
            }
            if untrue_not != 0 {
                self.violation(number, format_args!("said not to be delivered, and got by {untrue_not:#b}"));
            }
        }
    }
}
