//! What is true: every message with what its sender was told and who got it, and who was certainly, or possibly, a
//! member, subscriber or online, when. Clients and world report here; the checks are in [`crate::arrival`],
//! [`crate::receipt`] and [`crate::settled`].
//!
//! A fact about a client is only known between bounds, since requests and answers are on their way for a while. So each
//! is kept twice: *surely*, for what has to happen, and *possibly*, for what may.

use std::collections::BTreeMap;

use bugle_protocol::Status;

use crate::message::{Moment, Submission, Target, What};
use crate::plan::{Kind, Law, Plan, client_id};

/// What is there to be a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The own inbox.
    Inbox,
    /// A group.
    Group(usize),
    /// A topic filter, by its number: those of single topics, then `t/+`, then `t/#`.
    Filter(usize),
}

/// For ever, as a step.
pub const NEVER: u64 = u64::MAX;

/// A client's stay in a place.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// Where.
    pub place: Place,
    /// It may have begun at this step.
    pub asked: u64,
    /// It surely has at this one.
    pub sure_from: u64,
    /// It surely holds until this one,
    pub sure_until: u64,
    /// and surely no longer after this one.
    pub over: u64,
    /// How often it was asked for: retained messages come that often.
    pub asks: u32,
    /// On which connection it began.
    pub link: u32,
}

/// A client's connection, surely up between these steps.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From.
    pub from: u64,
    /// Until, [`NEVER`] while nothing is wrong with it.
    pub until: u64,
}

/// What is known of one client.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its memberships and subscriptions, ended ones too.
    pub tenures: Vec<Tenure>,
    /// When it was surely connected.
    pub spans: Vec<Span>,
    /// What the gateway has of its session.
    pub session: SessionBelief,
    /// The connection that has, or had last, the session, by the order in which the gateway read who they are from.
    pub holder: u32,
    /// Connections that the gateway knows whose they are.
    pub known: Vec<u32>,
    /// How often the gateway has begun a session for it.
    pub epoch: u32,
    /// Whether the holder found a session.
    pub found: bool,
    /// Times at which its reader went on, and since when it had not read.
    pub stalls: Vec<(u64, u64)>,
}

/// What the gateway has of a client's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionBelief {
    /// Nothing.
    #[default]
    None,
    /// It is connected, as far as the gateway knows.
    Connected,
    /// It ends at this time of the world.
    Ends(u64),
}

/// What the sender was told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// It was taken.
    Accepted,
    /// It was refused: nothing may come of it.
    Refused,
    /// It was never written: nothing may come of it.
    NotSent,
    /// Nobody will ever say.
    Unknown,
}

/// One delivery to a client's application.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Who.
    pub client: usize,
    /// On which connection.
    pub link: u32,
    /// When the gateway wrote it, at the latest.
    pub written: Moment,
    /// When the deadline has to be held: at the write for MQTT, at the application for devices.
    pub judged_at: u64,
    /// It was retained, and came with a subscription.
    pub retained: bool,
    /// It was marked as sent before.
    pub dup: bool,
    /// The application saw it now.
    pub seen: u64,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who.
    pub sender: usize,
    /// What.
    pub submission: Submission,
    /// When the client was told to send it.
    pub submitted: Moment,
    /// The run of the gateway it was sent to.
    pub incarnation: u32,
    /// Likewise, when it was sent first.
    pub first_incarnation: u32,
    /// The connection that it was last sent on.
    pub link: u32,
    /// How often it may have come to the gateway.
    pub writes: u32,
    /// It was sent again on another connection.
    pub is_repeated: bool,
    /// When the gateway had read all of it.
    pub consumed: Option<Moment>,
    /// What its sender was told.
    pub fate: Fate,
    /// When the gateway had written that it is accepted.
    pub answered: Option<Moment>,
    /// Who got it.
    pub deliveries: Vec<Delivered>,
    /// Who acknowledged it.
    pub acked_by: Vec<usize>,
    /// Its sender waits for no receipt any more, as it may after a while.
    pub gave_up: bool,
    /// Whole receipts that came.
    pub receipts: u32,
    /// What receipts said of whom.
    pub statuses: Vec<(usize, Status)>,
    /// It may have been refused by a notice that is still to come (MQTT 3.1.1).
    pub may_be_refused: bool,
}

/// The truth about a run.
pub struct Ledger {
    /// The plan of the run.
    pub plan: Plan,
    /// All messages by number.
    pub messages: Vec<Message>,
    /// Wills that the present gateway has had to send.
    pub wills: u64,
    /// All clients by number.
    pub accounts: Vec<Account>,
    /// Which run of the gateway it is.
    pub incarnation: u32,
    /// The rules, one after the other.
    pub reigns: Vec<Reign>,
    /// The newest message that came first to a recipient, by sender, recipient and lane.
    pub newest: BTreeMap<(usize, usize, Lane), u32>,
    /// Which run of the gateway connections are to, by their number.
    pub link_incarnations: Vec<u32>,
    /// Which of their clients' sessions connections are in, by their number, once the gateway knows whose they are.
    pub link_epochs: Vec<u32>,
    violations: Vec<String>,
    /// What was heard, for the trace; kept if wanted.
    notes: Option<Vec<String>>,
}

/// Rules, and when a shard judged by them.
#[derive(Clone, Debug)]
pub struct Reign {
    /// The rules.
    pub law: Law,
    /// From this step on, the first shard.
    pub from: u64,
    /// Until this one, the last.
    pub until: u64,
}

/// What keeps its order (S11, S16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Signals.
    Normal,
    /// Urgent signals.
    Urgent,
    /// Messages to topics.
    Plain,
}

impl Message {
    /// What is to be sent when its client's connection is lost: not yet, and perhaps several times.
    fn will(sender: usize, submission: Submission) -> Self {
        let submitted = Moment { step: NEVER, at: u64::MAX };
        Self {
            writes: 0,
            fate: Fate::Unknown,
            is_repeated: true,
            ..Self::new(sender, submission, 0, 0, submitted)
        }
    }

    fn new(sender: usize, submission: Submission, incarnation: u32, link: u32, submitted: Moment) -> Self {
        Self {
            sender,
            submission,
            submitted,
            incarnation,
            first_incarnation: incarnation,
            link,
            writes: 1,
            is_repeated: false,
            consumed: None,
            fate: Fate::Open,
            answered: None,
            deliveries: Vec::new(),
            acked_by: Vec::new(),
            gave_up: false,
            receipts: 0,
            statuses: Vec::new(),
            may_be_refused: false,
        }
    }

    /// The lane that it goes in.
    pub fn lane(&self) -> Lane {
        match self.submission.what {
            What::Signal { urgent: true, .. } => Lane::Urgent,
            What::Signal { .. } => Lane::Normal,
            What::Publish { .. } => Lane::Plain,
        }
    }

    /// Its place of delivery, if it is a signal.
    pub fn target(&self) -> Option<&Target> {
        match &self.submission.what {
            What::Signal { target, .. } => Some(target),
            What::Publish { .. } => None,
        }
    }

    /// Its time to live, in milliseconds.
    pub fn ttl(&self) -> Option<u64> {
        match self.submission.what {
            What::Signal { ttl, .. } => ttl.map(u64::from),
            What::Publish { .. } => None,
        }
    }

    /// Whether it has an id of its own.
    pub fn has_id(&self) -> bool {
        matches!(self.submission.what, What::Signal { id: true, .. })
    }

    /// Whether nothing may come of it.
    pub fn is_void(&self) -> bool {
        matches!(self.fate, Fate::Refused | Fate::NotSent) && !self.is_repeated
    }
}

impl Ledger {
    /// Of a run that begins.
    pub fn new(plan: Plan, keeps_notes: bool) -> Self {
        let accounts = vec![Account::default(); plan.clients.len()];
        let reigns = vec![Reign { law: plan.law.clone(), from: 0, until: NEVER }];
        let wills = plan.clients.iter().enumerate();
        let messages =
            wills.filter_map(|(client, plan)| Some(Message::will(client, plan.will.clone()?))).collect();
        Self {
            plan,
            reigns,
            messages,
            wills: 0,
            accounts,
            incarnation: 0,
            newest: BTreeMap::new(),
            // Numbers begin with 1.
            link_incarnations: vec![0],
            link_epochs: vec![0],
            violations: Vec::new(),
            notes: keeps_notes.then(Vec::new),
        }
    }

    /// Notes something that was heard.
    pub fn note(&mut self, note: impl FnOnce(&Self) -> String) {
        if self.notes.is_some() {
            let note = note(self);
            self.notes.get_or_insert_default().push(note);
        }
    }

    /// Takes what was noted.
    pub fn take_notes(&mut self) -> Vec<String> {
        self.notes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a connection is one to a gateway that is no more.
    pub fn is_dead(&self, link: u32) -> bool {
        self.link_incarnations.get(link as usize) != Some(&self.incarnation)
    }

    /// Notes that a promise was broken.
    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The promises that were broken.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    // -- messages -----------------------------------------------------------------------------------------

    /// A client is about to send something.
    pub fn submitted(&mut self, sender: usize, submission: Submission, link: u32, now: Moment) -> u32 {
        let number = self.messages.len() as u32;
        let incarnation = self.link_incarnations.get(link as usize).copied().unwrap_or_default();
        self.messages.push(Message::new(sender, submission, incarnation, link, now));
        number
    }

    /// The message, by the number that stands in it.
    pub fn message(&mut self, number: u32) -> &mut Message {
        &mut self.messages[number as usize]
    }

    /// The gateway has read all of it.
    pub fn consumed(&mut self, number: u32, now: Moment) {
        self.message(number).consumed.get_or_insert(now);
    }

    /// Its sender was told that it is accepted.
    pub fn accepted(&mut self, number: u32, written: Moment) {
        let (sender, group) = match &self.message(number).submission.what {
            What::Signal { target: Target::Group { group, .. }, .. } => {
                let group = *group;
                (self.message(number).sender, group)
            }
            _ => (usize::MAX, usize::MAX),
        };
        let message = self.message(number);
        match message.fate {
            Fate::Refused | Fate::NotSent if !message.is_repeated => {
                let text = format!("message {number} was {:?} and then accepted", message.fate);
                return self.violated(text);
            }
            _ => message.fate = Fate::Accepted,
        }
        message.answered.get_or_insert(written);
        self.note(|_| format!("message {number} is accepted"));
        let message = self.message(number);
        let is_certain = !message.may_be_refused && !message.is_repeated;
        let from = message.submitted.step;
        if is_certain && self.laws(from, written.step).all(|law| law.no_send.contains(&(sender, group))) {
            self.violated(format!("message {number} was accepted, and the rules forbid it"));
        }
        for at in 0..self.message(number).deliveries.len() {
            let delivered = self.message(number).deliveries[at];
            self.check_deadline(number, &delivered);
        }
    }

    /// Its sender was told that nothing will come of it.
    pub fn voided(&mut self, number: u32, fate: Fate) {
        self.note(|_| format!("message {number} is {fate:?}"));
        let message = self.message(number);
        if message.is_repeated {
            // One of several was.
            message.fate = if message.fate == Fate::Accepted { Fate::Accepted } else { Fate::Unknown };
            return;
        }
        message.fate = fate;
        if let Some(delivered) = message.deliveries.first() {
            let text = format!("message {number} was {fate:?}, but {} got it", client_id(delivered.client));
            self.violated(text);
        }
    }

    /// Its sender will never know.
    pub fn lost_sight_of(&mut self, number: u32) {
        let message = self.message(number);
        if message.fate == Fate::Open {
            message.fate = Fate::Unknown;
        }
    }

    // -- rules --------------------------------------------------------------------------------------------

    /// The rules by which some shard may have judged between these steps.
    pub fn laws(&self, from: u64, to: u64) -> impl Iterator<Item = &Law> {
        let holds = move |reign: &&Reign| reign.from <= to && reign.until >= from;
        self.reigns.iter().filter(holds).map(|reign| &reign.law)
    }

    /// Shards begin to judge by other rules.
    pub fn amended(&mut self, law: Law, now: Moment) {
        self.reigns.push(Reign { law, from: now.step, until: NEVER });
    }

    /// A shard has judged its clients by other rules: a device is put back into what the operator gives it.
    pub fn judged_anew(&mut self, now: Moment) {
        let there = self.accounts.len();
        for (group, members) in self.plan.law.provisioned.clone() {
            for client in members.into_iter().filter(|client| *client < there) {
                if self.plan.clients[client].kind == Kind::Device {
                    let holder = self.accounts[client].holder;
                    self.begun(client, Place::Group(group), holder, now);
                }
            }
        }
    }

    /// All of them do.
    pub fn amendment_holds(&mut self, now: Moment) {
        let last = self.reigns.len() - 1;
        for reign in self.reigns[..last].iter_mut() {
            reign.until = reign.until.min(now.step);
        }
    }

    // -- places -------------------------------------------------------------------------------------------

    /// A client asks for a place; gives the number of its tenure.
    pub fn asked(&mut self, client: usize, place: Place, link: u32, now: Moment) -> usize {
        let tenures = &mut self.accounts[client].tenures;
        let open =
            |tenure: &Tenure| tenure.place == place && tenure.over == NEVER && tenure.sure_until == NEVER;
        if let Some(at) = tenures.iter().position(open) {
            tenures[at].asks += 1;
            tenures[at].link = link;
            return at;
        }
        self.begun(client, place, link, now)
    }

    /// A client will have a place with the session that it asks for; gives the number of its tenure.
    pub fn begun(&mut self, client: usize, place: Place, link: u32, now: Moment) -> usize {
        let (asked, sure_from, sure_until, over, asks) = (now.step, NEVER, NEVER, NEVER, 1);
        let tenures = &mut self.accounts[client].tenures;
        tenures.push(Tenure { place, asked, sure_from, sure_until, over, asks, link });
        tenures.len() - 1
    }

    /// It has the place.
    pub fn confirmed(&mut self, client: usize, tenure: usize, now: Moment) {
        let tenure = &mut self.accounts[client].tenures[tenure];
        tenure.sure_from = tenure.sure_from.min(now.step);
        let place = tenure.place;
        self.note(|_| format!("{} has {place:?}", client_id(client)));
        if let Place::Group(group) = place
            && self.plan.law.no_join.contains(&(client, group))
            && !self.plan.law.is_provisioned(client, group)
        {
            self.violated(format!("{} is in g{group}, and the rules forbid it", client_id(client)));
        }
    }

    /// It is refused the place that it asked for; if it has it already, it keeps it.
    pub fn not_given(&mut self, client: usize, tenure: usize, now: Moment) {
        let asks = &mut self.accounts[client].tenures[tenure].asks;
        *asks -= 1;
        if *asks == 0 {
            self.left(client, &[tenure], now);
        }
    }

    /// It asks to leave a place; gives the tenures that end.
    pub fn leaving(&mut self, client: usize, place: Place, now: Moment) -> Vec<usize> {
        let tenures = self.accounts[client].tenures.iter_mut().enumerate();
        let ending = tenures.filter(|(_, tenure)| tenure.place == place && tenure.over == NEVER);
        ending
            .map(|(at, tenure)| {
                tenure.sure_until = tenure.sure_until.min(now.step);
                at
            })
            .collect()
    }

    /// These tenures are over.
    pub fn left(&mut self, client: usize, tenures: &[usize], now: Moment) {
        for &at in tenures {
            let tenure = &mut self.accounts[client].tenures[at];
            tenure.over = tenure.over.min(now.step);
            tenure.sure_until = tenure.sure_until.min(now.step);
            let (place, step) = (tenure.place, now.step);
            self.note(|_| format!("{} has no {place:?} any more, since step {step}", client_id(client)));
        }
    }

    /// The session that began with one of these connections is over, and with it all its places.
    fn places_over(&mut self, client: usize, links: &[u32], now: Moment) {
        for tenure in &mut self.accounts[client].tenures {
            if tenure.over == NEVER && links.contains(&tenure.link) {
                tenure.over = now.step;
                tenure.sure_until = tenure.sure_until.min(now.step);
            }
        }
    }

    /// Whether it may be in a place at some time between these steps.
    pub fn possibly(&self, client: usize, place: Place, from: u64, to: u64) -> bool {
        self.accounts.get(client).is_some_and(|account| {
            let holds = |tenure: &Tenure| tenure.place == place && tenure.asked <= to && tenure.over >= from;
            account.tenures.iter().any(holds)
        })
    }

    /// Whether it is in a place all the time between these steps.
    pub fn surely(&self, client: usize, place: Place, from: u64, to: u64) -> bool {
        self.accounts.get(client).is_some_and(|account| {
            let holds = |tenure: &Tenure| {
                tenure.place == place && tenure.sure_from <= from && tenure.sure_until >= to
            };
            account.tenures.iter().any(holds)
        })
    }

    /// The filters that a topic matches.
    pub fn filters(&self, topic: usize) -> [Place; 3] {
        [topic, self.plan.topics, self.plan.topics + 1].map(Place::Filter)
    }

    // -- connections --------------------------------------------------------------------------------------

    /// It is connected.
    pub fn up(&mut self, client: usize, link: u32, now: Moment) {
        if let Some(span) = self.accounts[client].spans.last_mut() {
            span.until = span.until.min(now.step);
        }
        if self.is_dead(link) {
            return;
        }
        self.note(|_| format!("{} is let in", client_id(client)));
        self.accounts[client].spans.push(Span { from: now.step, until: NEVER });
    }

    /// From now on nothing is sure of its connection, nor of what ends with that.
    pub fn shaky(&mut self, client: usize, now: Moment) {
        if !self.keeps_session(client) {
            for tenure in self.accounts[client].tenures.iter_mut().filter(|tenure| tenure.over == NEVER) {
                tenure.sure_until = tenure.sure_until.min(now.step);
            }
        }
        if let Some(span) = self.accounts[client].spans.last_mut() {
            span.until = span.until.min(now.step);
        }
    }

    /// Whether it is connected all the time between these steps.
    pub fn surely_up(&self, client: usize, from: u64, to: u64) -> bool {
        self.accounts
            .get(client)
            .is_some_and(|account| account.spans.iter().any(|span| span.from <= from && span.until >= to))
    }

    /// The gateway is no more.
    pub fn gateway_died(&mut self, now: Moment) {
        for client in 0..self.accounts.len() {
            self.shaky(client, now);
            for tenure in self.accounts[client].tenures.iter_mut().filter(|tenure| tenure.over == NEVER) {
                tenure.over = now.step;
                tenure.sure_until = tenure.sure_until.min(now.step);
            }
            self.accounts[client].session = SessionBelief::None;
            self.accounts[client].known.clear();
        }
        self.incarnation += 1;
        self.wills = 0;
        self.amendment_holds(now);
    }

    /// These places were only to be there in a session that didn't begin.
    pub fn never_begun(&mut self, client: usize, tenures: impl IntoIterator<Item = usize>) {
        for at in tenures {
            let tenure = &mut self.accounts[client].tenures[at];
            (tenure.asked, tenure.over) = (NEVER, 0);
        }
    }

    /// The gateway has to send a client's will.
    fn will_is_due(&mut self, client: usize, now: Moment) {
        let Some(number) = self.plan.will_number(client) else { return };
        self.wills += 1;
        let incarnation = self.incarnation;
        let will = self.message(number);
        will.writes += 1;
        will.incarnation = incarnation;
        will.submitted = will.submitted.min(now);
        self.note(|_| format!("message {number}, the will of {}, is due", client_id(client)));
    }

    /// The gateway has read who a connection is from, and has let it in; it goes on with its session of that epoch, if
    /// with any.
    pub fn introduced(&mut self, client: usize, link: u32, epoch: Option<u32>, now: Moment) {
        if self.is_dead(link) {
            return;
        }
        let is_kept = self.keeps_session(client);
        if self.accounts[client].session == SessionBelief::Connected {
            // It takes over.
            self.will_is_due(client, now);
        }
        let account = &mut self.accounts[client];
        account.found = is_kept
            && epoch.is_none_or(|epoch| epoch == account.epoch)
            && match account.session {
                SessionBelief::None => false,
                SessionBelief::Connected => true,
                SessionBelief::Ends(at) => now.at < at,
            };
        if !account.found {
            account.epoch += 1;
            let known = std::mem::take(&mut account.known);
            self.places_over(client, &known, now);
        }
        let account = &mut self.accounts[client];
        account.known.push(link);
        self.link_epochs[link as usize] = account.epoch;
        (account.session, account.holder) = (SessionBelief::Connected, link);
    }

    /// Whether the gateway keeps its session without a connection.
    fn keeps_session(&self, client: usize) -> bool {
        let plan = &self.plan.clients[client];
        match plan.kind {
            Kind::Device => plan.expiry.is_some() && self.plan.resumes,
            _ => plan.expiry.is_some(),
        }
    }

    /// Whether what is sent to it waits while it is without a connection.
    pub fn waits_for_it(&self, client: usize) -> bool {
        self.plan.clients.get(client).is_some_and(|plan| plan.kind == Kind::Device)
            && self.keeps_session(client)
    }

    /// A client has ended its session.
    pub fn session_ended(&mut self, client: usize, link: u32, now: Moment) {
        if self.accounts[client].holder == link {
            self.accounts[client].session = SessionBelief::None;
            let known = self.accounts[client].known.clone();
            self.places_over(client, &known, now);
        }
    }

    /// The gateway knows that a connection is over; without its client's goodbye, unless `is_planned`.
    pub fn connection_over(&mut self, client: usize, link: u32, is_planned: bool, now: Moment) {
        let is_kept = self.keeps_session(client);
        let account = &mut self.accounts[client];
        if account.holder != link || account.session != SessionBelief::Connected {
            return;
        }
        if !is_planned {
            self.will_is_due(client, now);
        }
        let plan = &self.plan.clients[client];
        let account = &mut self.accounts[client];
        account.session = match (is_kept, plan.kind, plan.expiry) {
            (true, Kind::Mqtt5 | Kind::Device, Some(seconds)) => {
                SessionBelief::Ends(now.at + u64::from(seconds) * 1000)
            }
            (true, ..) => SessionBelief::Ends(u64::MAX),
            _ => SessionBelief::None,
        };
        if !is_kept {
            let known = account.known.clone();
            self.places_over(client, &known, now);
        }
    }

    /// Sessions without a connection may have ended by now.
    pub fn time_passed(&mut self, now: Moment) {
        for client in 0..self.accounts.len() {
            let account = &mut self.accounts[client];
            if matches!(account.session, SessionBelief::Ends(at) if at <= now.at) {
                let known = account.known.clone();
                for tenure in account.tenures.iter_mut() {
                    if tenure.over == NEVER && known.contains(&tenure.link) {
                        tenure.sure_until = tenure.sure_until.min(now.step);
                    }
                }
            }
        }
    }

    /// A client was told whether its session is there.
    pub fn session_answered(&mut self, client: usize, link: u32, present: bool) {
        let account = &self.accounts[client];
        // What another connection of its own found since isn't this one's affair.
        if account.holder == link && !self.is_dead(link) && account.found != present {
            let text = format!(
                "{} was told that its session is {}there",
                client_id(client),
                if present { "" } else { "not " }
            );
            self.violated(text);
        }
    }
}
