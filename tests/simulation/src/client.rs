//! A client of either protocol, with its person or program: whether it reads, wants to be connected, has something to do.

use crate::device::Device;
use crate::ledger::{Ledger, Place};
use crate::link::Mark;
use crate::message::{Moment, Submission};
use crate::mqtt::Mqtt;

/// A client.
pub struct Client<'a> {
    /// Its number.
    pub me: usize,
    /// What it speaks.
    pub body: Body<'a>,
    /// The connection that it uses.
    pub link: Option<u32>,
    /// The last connection on which it was let in.
    pub answered: Option<u32>,
    /// It wants to be connected.
    pub wants: bool,
    /// It reads what comes.
    pub reads: bool,
    /// It may have something to write.
    pub awake: bool,
    /// Its application may have something to take.
    pub may_take: bool,
    /// When the gateway was last told that it takes no more.
    pub stalled_at: u64,
    /// What it sends again and again.
    pub usual: Option<Submission>,
}

/// What it speaks.
pub enum Body<'a> {
    /// The framing.
    Device(Box<Device<'a>>),
    /// MQTT.
    Mqtt(Box<Mqtt>),
}

macro_rules! either {
    ($self:expr, $body:ident => $call:expr) => {
        match &mut $self.body {
            Body::Device($body) => $call,
            Body::Mqtt($body) => $call,
        }
    };
}

impl<'a> Client<'a> {
    /// A client without a connection.
    pub fn new(me: usize, body: Body<'a>) -> Self {
        Self {
            me,
            body,
            link: None,
            answered: None,
            wants: true,
            reads: true,
            awake: false,
            may_take: false,
            stalled_at: 0,
            usual: None,
        }
    }

    /// Whether it reads from this connection now.
    pub fn may_read(&self, link: u32) -> bool {
        // What came on a connection that was left behind is thrown away.
        self.link != Some(link) || (self.reads && self.room() > 0)
    }

    /// Bytes that it would take.
    pub fn room(&self) -> usize {
        match &self.body {
            Body::Device(device) => device.room(),
            Body::Mqtt(_) => usize::MAX,
        }
    }

    /// A connection is open.
    pub fn connect(&mut self, link: u32, ledger: &mut Ledger, now: Moment) {
        (self.link, self.awake) = (Some(link), true);
        match &mut self.body {
            Body::Device(device) => device.connect(link, ledger, now),
            Body::Mqtt(mqtt) => mqtt.connect(link, ledger, now),
        }
    }

    /// The connection is no more.
    pub fn lost(&mut self, ledger: &mut Ledger, now: Moment) {
        (self.link, self.may_take) = (None, false);
        match &mut self.body {
            Body::Device(device) => device.lost(ledger, now),
            Body::Mqtt(mqtt) => mqtt.lost(ledger),
        }
    }

    /// Bytes came.
    pub fn feed(&mut self, bytes: &[u8], written: Moment, link: u32, ledger: &mut Ledger, now: Moment) {
        self.awake = true;
        let is_in = match &mut self.body {
            Body::Device(device) => {
                let used = device.feed(bytes, written, ledger, now);
                if used != bytes.len() {
                    ledger.violated(format!(
                        "the SDK took {used} of {} bytes for which it had room",
                        bytes.len()
                    ));
                }
                self.may_take = true;
                device.is_in
            }
            Body::Mqtt(mqtt) => {
                mqtt.feed(bytes, written, ledger, now);
                mqtt.was_let_in
            }
        };
        if is_in {
            self.answered = Some(link);
        }
    }

    /// Its application takes something.
    pub fn take(&mut self, ledger: &mut Ledger, now: Moment) {
        if let Body::Device(device) = &mut self.body {
            self.may_take = device.take(ledger, now);
            self.awake = true;
        }
    }

    /// Bytes to be written, and what is in them; whether the connection is over then.
    pub fn pump(&mut self, out: &mut Vec<u8>, marks: &mut Vec<(usize, Mark)>, now: Moment) -> bool {
        self.awake = false;
        either!(self, body => body.pump(out, marks, now))
    }

    /// Whether it takes something to be sent.
    pub fn is_ready(&self) -> bool {
        match &self.body {
            Body::Device(device) => device.is_ready(),
            Body::Mqtt(mqtt) => mqtt.is_ready(),
        }
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        match &self.body {
            Body::Device(device) => device.waits(),
            Body::Mqtt(mqtt) => mqtt.waits(),
        }
    }

    /// Sends a message; gives its number.
    pub fn send(&mut self, submission: Submission, ledger: &mut Ledger, now: Moment) -> Option<u32> {
        self.awake = true;
        either!(self, body => body.send(submission, ledger, now))
    }

    /// Joins a group, or subscribes to a filter.
    pub fn join(&mut self, place: Place, ledger: &mut Ledger, now: Moment) {
        self.awake = true;
        let qos = ledger.plan.clients[self.me].topic_qos;
        match &mut self.body {
            Body::Device(device) => device.join(place, qos, ledger, now),
            Body::Mqtt(mqtt) => mqtt.join(place, ledger, now),
        }
    }

    /// Leaves it.
    pub fn leave(&mut self, place: Place, ledger: &mut Ledger, now: Moment) {
        self.awake = true;
        either!(self, body => body.leave(place, ledger, now));
    }

    /// Says goodbye.
    pub fn leave_for_good(&mut self, ledger: &mut Ledger, now: Moment) {
        (self.awake, self.wants) = (true, false);
        ledger.shaky(self.me, now);
        either!(self, body => body.leave_for_good());
    }

    /// When it has something to do by itself.
    pub fn deadline(&self, now: Moment) -> Option<u64> {
        self.link?;
        match &self.body {
            Body::Device(device) => device.deadline(now),
            Body::Mqtt(mqtt) => mqtt.deadline(),
        }
    }

    /// Looks at the clock.
    pub fn wake_if_due(&mut self, now: Moment) {
        if self.deadline(now).is_some_and(|due| due <= now.at + 1) {
            self.awake = true;
        }
    }
}
