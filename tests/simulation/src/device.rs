//! A device: the SDK's session, driven as its runner drives it, and an application that waits for outcomes.

use std::collections::BTreeMap;

use bugle_device::session::{CHUNK, Request, Session};
use bugle_device::{Disconnect, Event, Incoming, SendError, SendOptions, Target as SdkTarget};
use bugle_protocol::{Frame, Mode, NameRef, Status};

use crate::arrival::{Arrival, Route};
use crate::ledger::{Fate, Ledger, Place};
use crate::link::Mark;
use crate::message::{Moment, Submission, Target, What};
use crate::plan::{client_id, group_name, topic_name};
use crate::receipt::Receipt;

/// What the SDK adds to the time in which a receipt has to come, in milliseconds, as its clock may run.
const RECEIPT_SLACK: u64 = 4_900;

/// A device.
pub struct Device<'a> {
    me: usize,
    session: Session<'a>,
    /// How far its clock is ahead of the world's, and how many of a million it runs faster.
    clock: (u64, i64),
    /// Who waits for what, by slot.
    asked: BTreeMap<u8, Asked>,
    /// Written to no connection yet.
    unwritten: Vec<Mark>,
    /// Places that a new session has from the start.
    sure_places: Vec<usize>,
    /// Places that come back with a new session.
    restored: Vec<usize>,
    /// Likewise, should the one that is asked for be new.
    restored_if_new: Vec<usize>,
    /// Which of its sessions it is in.
    epoch: u32,
    /// It has said that it won't be back.
    says_bye: bool,
    /// How many of the numbered requests were made since the session began.
    requests: u64,
    /// The connection at present.
    link: u32,
    /// Its hello is to be written.
    says_hello: bool,
    /// It was let in.
    pub is_in: bool,
    /// When the gateway wrote what was read last.
    written: Moment,
}

struct Asked {
    about: About,
    /// Asked for after the session began, so that its acknowledgement covers what was restored.
    request: u64,
    accepted: Option<u64>,
    /// In which session.
    epoch: u32,
    entries: Vec<(String, Status)>,
    receipted: bool,
}

enum About {
    Message { number: u32, ttl: Option<u64>, wants_receipt: bool },
    Join(usize),
    Leave(Vec<usize>),
}

impl<'a> Device<'a> {
    /// A device without a connection.
    pub fn new(me: usize, session: Session<'a>, clock: (u64, i64)) -> Self {
        Self {
            me,
            session,
            clock,
            asked: BTreeMap::new(),
            unwritten: Vec::new(),
            sure_places: Vec::new(),
            restored: Vec::new(),
            restored_if_new: Vec::new(),
            epoch: 0,
            says_bye: false,
            requests: 0,
            link: 0,
            says_hello: false,
            is_in: false,
            written: Moment::default(),
        }
    }

    fn local(&self, at: u64) -> u64 {
        self.clock.0 + at.saturating_add_signed(at as i64 * self.clock.1 / 1_000_000)
    }

    /// A connection is open.
    pub fn connect(&mut self, link: u32, ledger: &mut Ledger, now: Moment) {
        (self.link, self.says_hello, self.says_bye) = (link, true, false);
        self.session.restart();
        self.session.handle_connected(self.local(now.at));
        let mut begun = vec![ledger.begun(self.me, Place::Inbox, link, now)];
        for group in 0..ledger.plan.groups {
            if ledger.plan.law.is_provisioned(self.me, group) {
                begun.push(ledger.begun(self.me, Place::Group(group), link, now));
            }
        }
        self.sure_places = begun;
        self.restored_if_new.clear();
        let topics = ledger.plan.topics;
        let groups = (0..ledger.plan.groups).map(Place::Group);
        for place in groups.chain((0..topics + 2).map(Place::Filter)).collect::<Vec<_>>() {
            if self.remembers(place, topics) {
                self.restored_if_new.push(ledger.begun(self.me, place, link, now));
            }
        }
    }

    fn remembers(&self, place: Place, topics: usize) -> bool {
        match place {
            Place::Inbox => false,
            Place::Group(group) => self.session.remembers_group(&group_name(group)),
            Place::Filter(filter) => self.session.remembers_filter(&filter_text(filter, topics)),
        }
    }

    /// The connection is no more.
    pub fn lost(&mut self, ledger: &mut Ledger, now: Moment) {
        self.is_in = false;
        self.session.handle_disconnected(self.local(now.at), Disconnect::Lost);
        self.poll(ledger, now);
    }

    /// Says goodbye.
    pub fn leave_for_good(&mut self) {
        self.says_bye = true;
        self.session.disconnect();
    }

    /// Whether it takes something to be sent.
    pub fn is_ready(&self) -> bool {
        self.is_in && self.session.status() == bugle_device::Connection::Online
    }

    /// Bytes to be written, and what is in them. The second: whether the connection is over then.
    pub fn pump(&mut self, out: &mut Vec<u8>, marks: &mut Vec<(usize, Mark)>, now: Moment) -> bool {
        let local = self.local(now.at);
        let mut chunk = [0; CHUNK];
        self.session.handle_time(local);
        loop {
            let length = self.session.poll_transmit(local, &mut chunk);
            if length == 0 {
                break;
            }
            out.extend_from_slice(&chunk[..length]);
        }
        if std::mem::take(&mut self.says_hello) {
            // The SDK may have given up what the gateway still has.
            let hello = bugle_protocol::split(out, bugle_protocol::MAX_BODY).ok().flatten();
            let resumes = matches!(
                hello.map(|raw| raw.decode()),
                Some(Ok(Frame::Hello(bugle_protocol::Hello { resume: Some(_), .. })))
            );
            marks.push((out.len(), Mark::Hello(if resumes { self.epoch } else { 0 })));
        }
        let is_over = self.session.poll_closed().is_some();
        if self.is_in && !is_over {
            // All that may be written is.
            marks.extend(self.unwritten.drain(..).map(|mark| (out.len(), mark)));
        }
        if is_over && std::mem::take(&mut self.says_bye) {
            marks.push((out.len(), Mark::Goodbye));
        }
        is_over
    }

    /// How many bytes it would take.
    pub fn room(&self) -> usize {
        self.session.receive_room()
    }

    /// Bytes came; says how many were taken.
    pub fn feed(&mut self, bytes: &[u8], written: Moment, ledger: &mut Ledger, now: Moment) -> usize {
        self.written = written;
        let used = self.session.handle_bytes(self.local(now.at), bytes);
        self.poll(ledger, now);
        used
    }

    /// When it has something to do by itself, by the world's clock.
    pub fn deadline(&self, now: Moment) -> Option<u64> {
        let local = self.local(now.at);
        Some(now.at + self.session.poll_deadline(local)?.saturating_sub(local).max(1))
    }

    /// Takes one thing that came in. Whether there was one.
    pub fn take(&mut self, ledger: &mut Ledger, now: Moment) -> bool {
        let local = self.local(now.at);
        let (me, link, written) = (self.me, self.link, self.written);
        let mut look = |incoming: Incoming<'_>| {
            let (route, payload, retained) = match incoming {
                Incoming::Signal { mode, sender, group, urgent, remaining, payload } => {
                    let route = Route {
                        group,
                        sender: Some(sender),
                        mode: Some(mode_key(mode)),
                        urgent: Some(urgent),
                        remaining: remaining.map(u64::from),
                        ..Route::default()
                    };
                    (route, payload, false)
                }
                Incoming::Message { topic, retained, payload } => {
                    (Route { topic: Some(topic), ..Route::default() }, payload, retained)
                }
            };
            let (client, qos, dup, judged_at) = (me, 1, false, now.at);
            let arrival =
                Arrival { client, link, route, payload, qos, dup, retained, written, judged_at, now };
            if let Some(number) = ledger.delivered(&arrival) {
                ledger.acknowledged(number, me);
            }
        };
        let taken = self.session.take(local, &mut look).is_some();
        self.poll(ledger, now);
        taken
    }

    /// Deliveries that it dropped because they were late.
    pub fn expired(&self) -> u32 {
        self.session.counters().expired
    }

    /// What it could not read.
    pub fn faults(&self) -> u32 {
        let counters = self.session.counters();
        counters.malformed + counters.unknown_handle + counters.unsupported
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        !self.asked.is_empty()
    }

    // -- what it asks for ---------------------------------------------------------------------------------

    /// Sends a message.
    pub fn send(&mut self, submission: Submission, ledger: &mut Ledger, now: Moment) -> Option<u32> {
        let number = ledger.submitted(self.me, submission.clone(), self.link, now);
        let payload = submission.payload(number);
        let named = format!("m{number}");
        let mut message = (None, false);
        let result = match &submission.what {
            What::Signal { target, echo, urgent, ttl, receipt, id } => {
                message = (ttl.map(u64::from), *receipt != bugle_protocol::ReceiptMode::None);
                let options = SendOptions {
                    ttl: *ttl,
                    receipt: *receipt,
                    store: false,
                    echo: *echo,
                    urgent: *urgent,
                    id: id.then_some(named.as_str()),
                };
                self.send_signal(target, &payload, &options)
            }
            What::Publish { topic, retain, .. } => self.session.submit(&Request::Publish {
                topic: &topic_name(*topic),
                payload: &payload,
                at_least_once: submission.qos > 0,
                retain: *retain,
            }),
        };
        let (ttl, wants_receipt) = message;
        match result {
            Ok(slot) => {
                self.unwritten.push(Mark::Message(number));
                self.ask(slot, About::Message { number, ttl, wants_receipt });
                Some(number)
            }
            Err(_) => {
                ledger.voided(number, Fate::NotSent);
                None
            }
        }
    }

    fn send_signal(
        &mut self,
        target: &Target,
        payload: &[u8],
        options: &SendOptions<'_>,
    ) -> Result<u8, SendError> {
        match target {
            Target::Client(client) => {
                let name = client_id(*client);
                let target = SdkTarget::client(&name);
                self.session.submit(&Request::Send { target, payload, options })
            }
            Target::Group { group, only, except } => {
                let name = group_name(*group);
                let lists = [only, except].map(|list| list.as_deref().map(Submission::names));
                let [only, except] = &lists;
                let (only, except) = (texts(only), texts(except));
                let mut target = SdkTarget::group(&name);
                if let Some(only) = &only {
                    target = target.only(only);
                }
                if let Some(except) = &except {
                    target = target.except(except);
                }
                self.session.submit(&Request::Send { target, payload, options })
            }
        }
    }

    /// Joins a group, or subscribes to a filter.
    pub fn join(&mut self, place: Place, qos: u8, ledger: &mut Ledger, now: Moment) {
        let text = place_text(place, ledger.plan.topics);
        let request = match place {
            Place::Inbox => return,
            Place::Group(_) => Request::Join(&text),
            Place::Filter(_) => Request::Subscribe { filter: &text, at_least_once: qos > 0 },
        };
        if let Ok(slot) = self.session.submit(&request) {
            let tenure = ledger.asked(self.me, place, self.link, now);
            self.ask(slot, About::Join(tenure));
        }
    }

    /// Leaves it.
    pub fn leave(&mut self, place: Place, ledger: &mut Ledger, now: Moment) {
        let text = place_text(place, ledger.plan.topics);
        let request = match place {
            Place::Inbox => return,
            Place::Group(_) => Request::Leave(&text),
            Place::Filter(_) => Request::Unsubscribe(&text),
        };
        if let Ok(slot) = self.session.submit(&request) {
            let tenures = ledger.leaving(self.me, place, now);
            self.restored.retain(|tenure| !tenures.contains(tenure));
            self.ask(slot, About::Leave(tenures));
        }
    }

    fn ask(&mut self, slot: u8, about: About) {
        self.requests += 1;
        let (request, accepted, epoch) = (self.requests, None, self.epoch);
        let (entries, receipted) = (Vec::new(), false);
        self.asked.insert(slot, Asked { about, request, accepted, epoch, entries, receipted });
    }

    // -- what it is told ----------------------------------------------------------------------------------

    /// Looks at events and outcomes.
    fn poll(&mut self, ledger: &mut Ledger, now: Moment) {
        while let Some(event) = self.session.poll_event() {
            let Event::Connected { resumed } = event else { continue };
            self.is_in = true;
            ledger.session_answered(self.me, self.link, resumed);
            ledger.up(self.me, self.link, now);
            let (begun, restored) =
                (std::mem::take(&mut self.sure_places), std::mem::take(&mut self.restored_if_new));
            if resumed {
                // It has what it had, and writes again what the gateway hasn't.
                let numbers = self.asked.values().filter_map(|asked| match asked.about {
                    About::Message { number, .. } if asked.accepted.is_none() => Some(Mark::Message(number)),
                    _ => None,
                });
                self.unwritten = numbers.collect();
                ledger.never_begun(self.me, begun.into_iter().chain(restored));
                continue;
            }
            self.requests = 0;
            self.unwritten.clear();
            self.epoch = ledger.link_epochs[self.link as usize];
            self.restored = restored;
            for tenure in begun {
                ledger.confirmed(self.me, tenure, now);
            }
        }
        // What is refused as it is restored is forgotten.
        for tenure in std::mem::take(&mut self.restored) {
            if self.remembers(ledger.accounts[self.me].tenures[tenure].place, ledger.plan.topics) {
                self.restored.push(tenure);
            } else {
                ledger.not_given(self.me, tenure, now);
            }
        }
        let slots: Vec<_> = self.asked.keys().copied().collect();
        for slot in slots {
            if self.poll_slot(slot, ledger, now) {
                self.session.release(slot);
                self.asked.remove(&slot);
            }
        }
    }

    /// Whether nothing more will come.
    fn poll_slot(&mut self, slot: u8, ledger: &mut Ledger, now: Moment) -> bool {
        let Some(asked) = self.asked.get_mut(&slot) else { return false };
        if asked.accepted.is_none()
            && let Some(result) = self.session.poll_acceptance(slot)
        {
            match (result, &asked.about) {
                (Ok(_), about) => {
                    asked.accepted = Some(now.at);
                    if asked.request > 0 && self.is_in {
                        // Answers come in order, and these were asked for before.
                        for tenure in self.restored.drain(..) {
                            ledger.confirmed(self.me, tenure, now);
                        }
                    }
                    match about {
                        About::Message { number, .. } => ledger.accepted(*number, self.written),
                        About::Join(tenure) => ledger.confirmed(self.me, *tenure, now),
                        About::Leave(tenures) => ledger.left(self.me, tenures, self.written),
                    }
                }
                (Err(SendError::Refused { .. }), About::Message { number, .. }) => {
                    ledger.voided(*number, Fate::Refused);
                    return true;
                }
                (Err(SendError::NotSent), About::Message { number, .. }) => {
                    ledger.voided(*number, Fate::NotSent);
                    return true;
                }
                (Err(_), About::Message { number, .. }) => {
                    ledger.lost_sight_of(*number);
                    return true;
                }
                (Err(SendError::Refused { reason, .. }), About::Join(tenure)) => {
                    ledger.note(|_| format!("a join is refused: {reason:?}"));
                    ledger.not_given(self.me, *tenure, now);
                    return true;
                }
                (Err(_), About::Join(_) | About::Leave(_)) => return true,
            }
        }
        let About::Message { number, ttl, wants_receipt: true } = asked.about else {
            return asked.accepted.is_some();
        };
        while let Some((id, status)) = self.session.poll_receipt_entry(slot) {
            asked.entries.push((id.as_str().to_owned(), status));
        }
        if !asked.receipted {
            match self.session.poll_receipt(slot) {
                None => return false,
                Some(Ok(receipt)) => {
                    asked.receipted = true;
                    let counts =
                        Status::ALL.iter().map(|&status| (status.code(), receipt.counts.count(status)));
                    let counts = counts.filter(|(_, count)| *count > 0).collect();
                    let (entries, duplicate) = (std::mem::take(&mut asked.entries), receipt.duplicate);
                    let receipt = Receipt { counts, entries, duplicate };
                    ledger.receipted(number, &receipt, now);
                }
                Some(Err(_)) => {
                    let waited = asked.accepted.map_or(0, |accepted| now.at - accepted);
                    if self.is_in
                        && asked.epoch == self.epoch
                        && waited < ttl.unwrap_or(10_000) + RECEIPT_SLACK
                    {
                        ledger.violated(format!("{} gave up on the receipt of {number}", client_id(self.me)));
                    }
                    ledger.message(number).gave_up = true;
                    asked.receipted = true;
                }
            }
        }
        asked.receipted && asked.accepted.is_some()
    }
}

fn texts(list: &Option<Vec<String>>) -> Option<Vec<&str>> {
    list.as_ref().map(|list| list.iter().map(String::as_str).collect())
}

/// A will as the hello has it.
pub fn will_frame<'a>(
    submission: &Submission,
    number: u32,
    buffer: &'a mut [u8],
) -> Option<bugle_protocol::WillFrame<'a>> {
    let payload = submission.payload(number);
    let name = match &submission.what {
        What::Signal { target: Target::Client(client), .. } => client_id(*client),
        What::Signal { target: Target::Group { group, .. }, .. } => group_name(*group),
        What::Publish { topic, .. } => topic_name(*topic),
    };
    let name = NameRef::Inline(&name);
    let frame = match submission.what {
        What::Publish { retain, .. } => Frame::Publish(bugle_protocol::Publish {
            topic: name,
            at_least_once: true,
            retain,
            payload: &payload,
        }),
        What::Signal { ref target, echo, urgent, ttl, receipt, .. } => {
            let target = match target {
                Target::Client(_) => bugle_protocol::Target::Client(name),
                Target::Group { .. } => {
                    bugle_protocol::Target::Group { group: name, only: None, except: None }
                }
            };
            let (store, id) = (false, None);
            let payload = &payload;
            Frame::Send(bugle_protocol::Send { target, ttl, receipt, store, echo, urgent, id, payload })
        }
    };
    bugle_device::will(&frame, buffer).ok()
}

fn mode_key(mode: Mode) -> &'static str {
    mode.key()
}

/// A filter in words.
pub fn filter_text(filter: usize, topics: usize) -> String {
    match filter.checked_sub(topics) {
        None => topic_name(filter),
        Some(0) => "t/+".to_owned(),
        Some(_) => "t/#".to_owned(),
    }
}

fn place_text(place: Place, topics: usize) -> String {
    match place {
        Place::Inbox => String::new(),
        Place::Group(group) => group_name(group),
        Place::Filter(filter) => filter_text(filter, topics),
    }
}
