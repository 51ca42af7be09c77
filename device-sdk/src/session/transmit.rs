//! What goes out, in this order: the rest of a frame that was begun, what keeps the connection alive,
//! acknowledgements, queued frames. An acknowledgement never overtakes the refusal of a frame that it covers.

use bugle_protocol::{Hello, Kind, NameRef, Reason, Resume, VERSION, Writer, write};

use super::interest::Interest;
use super::submit::{Refusal, Request, push};
use super::timer::{NEVER, Timer};
use super::{Greeting, Link, Session};
use crate::signal::{Disconnect, Event};

/// Bytes being written.
struct Out<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl Out<'_> {
    fn rest(&mut self) -> &mut [u8] {
        &mut self.buffer[self.length..]
    }

    /// A frame of this kind. Whether it fitted.
    fn frame(&mut self, kind: Kind, write: impl FnOnce(&mut Writer<'_>)) -> bool {
        let mut writer = write::body(self.rest());
        write(&mut writer);
        let body = writer.written();
        self.finish(kind, body)
    }

    #[inline(never)]
    fn finish(&mut self, kind: Kind, body: usize) -> bool {
        let Ok(length) = write::finish(self.rest(), kind, body) else { return false };
        self.length += length;
        true
    }

    fn bye(&mut self, reason: Reason) -> bool {
        self.frame(Kind::BYE, |writer| write::bye(writer, reason, ""))
    }
}

impl Session<'_> {
    /// Writes what is to be sent now into `buffer`, which has [`CHUNK`](super::CHUNK) bytes or more, and says
    /// how many bytes; 0 when there is nothing.
    #[inline(never)]
    pub fn poll_transmit(&mut self, now: u64, buffer: &mut [u8]) -> usize {
        let now = now as u32;
        let mut out = Out { buffer, length: 0 };
        if matches!(self.link, Link::Down | Link::Closing(_, None)) {
            return 0;
        }
        out.length += self.outbox.poll_rest(out.rest());
        if self.outbox.is_within_a_frame() {
            self.last_sent = now;
            return out.length;
        }
        match &mut self.link {
            Link::Down | Link::Greeting(Greeting::Waiting) | Link::Closing(_, None) => {}
            Link::Greeting(Greeting::WriteHello) => {
                // While the application holds the inbox it isn't known what counts as received.
                if let Some(inbox) = &self.inbox {
                    let done = inbox.done;
                    out.frame(Kind::HELLO, |writer| write::hello(writer, &self.hello(done)));
                    self.link = Link::Greeting(Greeting::Waiting);
                    self.asked_at = now;
                }
            }
            Link::Greeting(Greeting::WriteProof) => {
                out.frame(Kind::PROOF, |writer| write::proof(writer, &self.proof));
                self.link = Link::Greeting(Greeting::Waiting);
                self.asked_at = now;
            }
            Link::Closing(_, goodbye) => {
                if let Some(reason) = *goodbye
                    && out.bye(reason)
                {
                    *goodbye = None;
                }
            }
            Link::Open => self.transmit_open(now, &mut out),
            Link::Leaving => {
                self.transmit_queued(now, &mut out);
                if self.outbox.is_all_written() && out.bye(Reason::Normal) {
                    self.link = Link::Closing(Disconnect::Stopped, None);
                }
            }
        }
        if out.length > 0 {
            self.last_sent = now;
        }
        out.length
    }

    fn transmit_open(&mut self, now: u32, out: &mut Out<'_>) {
        self.restore(now);
        if let Some(token) = self.pong
            && out.frame(Kind::PONG, |writer| write::pong(writer, token.map(|token| (token, 0))))
        {
            self.pong = None;
        }
        if self.ping_left(now) == 0 {
            self.transmit_ping(now, out);
        }
        self.transmit_queued(now, out);
    }

    /// Acknowledgements and queued frames.
    fn transmit_queued(&mut self, now: u32, out: &mut Out<'_>) {
        if self.outbox.refusals_unwritten == 0 {
            self.transmit_ack(out);
        }
        let owed = self.outbox.first != self.outbox.unwritten;
        out.length += self.outbox.poll(out.rest());
        if !owed {
            self.owed_since = now;
        }
        if self.outbox.is_all_written() {
            self.transmit_ack(out);
        }
    }

    fn transmit_ack(&mut self, out: &mut Out<'_>) {
        let Some(inbox) = &self.inbox else { return };
        let frames = inbox.done.wrapping_sub(self.acknowledged);
        if frames > 0 && out.frame(Kind::ACK, |writer| write::ack(writer, frames)) {
            self.acknowledged = inbox.done;
        }
    }

    /// Milliseconds after which a ping has to follow what was last sent or heard; or [`NEVER`].
    fn ping_interval(&self) -> u32 {
        match self.keep_alive() {
            NEVER => NEVER,
            keep_alive => keep_alive - keep_alive / 4,
        }
    }

    /// Milliseconds until a ping is due.
    pub(super) fn ping_left(&self, now: u32) -> u32 {
        let age = |since: u32| now.wrapping_sub(since);
        let quiet_for = age(self.last_ping).min(age(self.last_sent).max(age(self.last_heard)));
        Timer::new(now.wrapping_sub(quiet_for), self.ping_interval()).left(now).min(self.sync.left(now))
    }

    fn transmit_ping(&mut self, now: u32, out: &mut Out<'_>) {
        let interval = self.ping_interval();
        let next = if interval == NEVER { 0 } else { interval };
        // A ping that has to go anyway asks for the clock if that would be due before the next.
        let token = (self.sync.left(now) <= next).then_some(now);
        if !out.frame(Kind::PING, |writer| write::ping(writer, token)) {
            return;
        }
        self.last_ping = now;
        if token.is_some() {
            self.sync_asked = token;
            self.sync = match (interval, self.config.clock_sync) {
                (NEVER, _) | (_, 0) => Timer::ENDLESS,
                (_, seconds) => Timer::new(now, u32::from(seconds) * 1000),
            };
        }
    }

    fn hello(&self, done: u32) -> Hello<'_> {
        let resume = self.agreed.is_session.then(|| Resume {
            session: u64::from(self.agreed.session[0]) << 32 | u64::from(self.agreed.session[1]),
            received: done,
            taken: done,
            acknowledged: self.outbox.first,
        });
        Hello {
            version: VERSION,
            keep_alive: self.config.keep_alive,
            max_body: self.max_body,
            window: self.config.window,
            names: self.inbox.as_ref().map_or(0, |inbox| inbox.table_size()),
            session_expiry: self.config.session_expiry,
            client_id: self.config.client_id,
            resume,
            will: self.config.will,
        }
    }

    /// Queues what joins groups and subscribes again in a new session, as far as there is room.
    fn restore(&mut self, now: u32) {
        if self.restore.left(now) > 0 {
            return;
        }
        self.restore = Timer::OVER;
        while let Some((at, interest)) = self.interests.wanted() {
            if self.outbox.in_flight >= self.agreed.window {
                return;
            }
            let (request, name) = match interest {
                Interest::Group(group) => (Request::Join(group), group),
                Interest::Filter { filter, at_least_once } => {
                    (Request::Subscribe { filter, at_least_once }, filter)
                }
            };
            match push(&mut self.outbox, self.agreed.max_body, &request, NameRef::Inline(name)) {
                Ok(_) => {}
                Err(Refusal::Full) => return,
                Err(_) => {
                    warning!("cannot be restored: {:?}", Reason::TooLarge);
                    self.tell(Event::NotRestored(Reason::TooLarge));
                }
            }
            self.interests.sent(at);
        }
        if self.is_restoring {
            self.is_restoring = false;
            self.wake();
        }
    }
}
