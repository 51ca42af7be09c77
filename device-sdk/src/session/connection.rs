//! The ways from one state of the connection to another, and what time does to them.

use bugle_protocol::{Reason, VERSION, Welcome};

use super::inbox::Inbox;
use super::timer::{LONGEST, NEVER, Timer};
use super::{Agreed, Greeting, Link, OnReturn, Session, halves};
use crate::signal::{Disconnect, Event};

impl<'a> Session<'a> {
    /// A transport is open: the hello is next.
    pub fn handle_connected(&mut self, now: u64) {
        self.link = Link::Greeting(Greeting::WriteHello);
        self.connected_at = now as u32;
    }

    /// Connections are wanted again after an end that was final.
    pub fn restart(&mut self) {
        self.stopped = None;
    }

    /// Why no more connections are wanted.
    pub fn stopped(&self) -> Option<Disconnect> {
        self.stopped
    }

    /// The transport is gone, or could not be opened. Where the session itself knew a reason, that one
    /// stands. Returns what stands.
    pub fn handle_disconnected(&mut self, now: u64, cause: Disconnect) -> Disconnect {
        let (cause, was_up) = match self.link {
            Link::Closing(known, _) => (known, true),
            Link::Down => (cause, false),
            Link::Leaving => (Disconnect::Stopped, true),
            Link::Greeting(_) | Link::Open => (cause, true),
        };
        debug!("disconnected: {:?}", cause);
        self.link = Link::Down;
        if was_up {
            self.lost_at = now as u32;
            self.outbox.interrupt();
        }
        let expiry = self.agreed.session_expiry;
        if cause.is_final() || matches!(cause, Disconnect::Broken(_)) || expiry == 0 {
            self.lose_session();
        } else if was_up {
            // What wasn't taken counts as not received, and comes again when the session is resumed.
            if let Some(inbox) = &mut self.inbox {
                self.known_until = inbox.looked_at;
                inbox.clear();
            } else {
                self.on_return = OnReturn::Clear;
            }
        }
        self.last = Some(cause);
        if cause.is_final() {
            self.stopped = Some(cause);
        }
        self.tell(Event::Disconnected(cause));
        self.wake();
        cause
    }

    /// The session can't be gone on with: what was written is unconfirmed, what wasn't is not sent (S12).
    pub(super) fn lose_session(&mut self) {
        self.agreed = Agreed::default();
        self.outcomes.session_lost(self.outbox.unwritten);
        self.outbox.restart();
        self.announced.restart(0);
        self.acknowledged = 0;
        self.known_until = 0;
        match &mut self.inbox {
            Some(inbox) => {
                inbox.clear();
                inbox.begin_session();
            }
            None => self.on_return = OnReturn::Restart,
        }
        self.wake();
    }

    /// The gateway let the device in.
    pub(super) fn handle_welcome(
        &mut self,
        inbox: &mut Inbox<'a>,
        welcome: Welcome,
        now: u32,
    ) -> Result<(), Reason> {
        if welcome.version != VERSION {
            return Err(Reason::UnsupportedVersion);
        }
        if welcome.resumed {
            if !self.agreed.is_session || self.agreed.session != halves(welcome.session) {
                return Err(Reason::ProtocolError);
            }
            self.outbox.resume(welcome.received).map_err(|_| Reason::ProtocolError)?;
            self.acknowledged = inbox.done;
        } else {
            // Here the inbox is not at its place.
            self.lose_session();
            self.on_return = OnReturn::Nothing;
            inbox.begin_session();
            self.announced.restart(welcome.names);
            self.interests.want_all();
            self.is_restoring = true;
            self.restore = Timer::OVER;
        }
        self.link = Link::Open;
        self.agreed = Agreed::from(&welcome);
        self.clock.restart();
        self.clock.sample(welcome.clock, self.asked_at, now);
        (self.last_sent, self.last_heard, self.last_ping) = (now, now, now);
        (self.sync, self.sync_asked, self.owed_since, self.pong) = (Timer::OVER, None, now, None);
        self.counters.welcomes = self.counters.welcomes.wrapping_add(1);
        self.tell(Event::Connected { resumed: welcome.resumed });
        self.wake();
        Ok(())
    }

    /// Ends the connection, with a goodbye where the gateway can use one.
    pub(super) fn close(&mut self, cause: Disconnect, goodbye: Option<Reason>) {
        warning!("closing: {:?}", cause);
        self.link = Link::Closing(cause, goodbye);
        self.call_runner();
    }

    /// Ends the connection with a goodbye behind what is queued, and the runner with it.
    pub fn disconnect(&mut self) {
        match self.link {
            Link::Down => {
                self.stopped = Some(Disconnect::Stopped);
                self.lose_session();
                self.call_runner();
            }
            // Before the hello a goodbye would make no sense to the gateway.
            Link::Greeting(Greeting::WriteHello) => self.close(Disconnect::Stopped, None),
            Link::Greeting(_) => self.close(Disconnect::Stopped, Some(Reason::Normal)),
            Link::Open | Link::Leaving => {
                self.link = Link::Leaving;
                self.call_runner();
            }
            Link::Closing(_, goodbye) => self.link = Link::Closing(Disconnect::Stopped, goodbye),
        }
    }

    /// Why the connection is over, when all is written that is to be; the transport may then be closed.
    pub fn poll_closed(&self) -> Option<Disconnect> {
        match self.link {
            Link::Closing(cause, None) => Some(cause),
            _ => None,
        }
    }

    /// Does what is due by `now`. Has to be called every 12 days at the latest.
    pub fn handle_time(&mut self, now: u64) {
        let now = now as u32;
        if self.is_open() && self.receive_room() == 0 {
            // Nothing is heard because the application doesn't take what is there.
            (self.last_heard, self.owed_since) = (now, now);
        }
        if self.link_left(now) == 0 {
            match self.link {
                Link::Down => self.lose_session(),
                _ => self.close(Disconnect::TimedOut, None),
            }
        }
        if self.outcomes.handle_time(now) {
            self.wake();
        }
        self.clock.handle_time(now);
    }

    /// When [`handle_time`](Self::handle_time) or [`poll_transmit`](Self::poll_transmit) has something to do
    /// at the latest.
    pub fn poll_deadline(&self, now: u64) -> Option<u64> {
        let left = self.left(now as u32);
        (left != NEVER).then(|| now.saturating_add(left.into()))
    }

    /// Milliseconds until then.
    pub(super) fn left(&self, now: u32) -> u32 {
        let mut left = self.link_left(now).min(self.outcomes.left(now));
        if self.is_open() {
            left = left.min(self.ping_left(now));
            if !self.restore.is_over() {
                left = left.min(self.restore.left(now));
            }
        }
        left
    }

    /// Milliseconds until the link has to change by itself.
    fn link_left(&self, now: u32) -> u32 {
        match self.link {
            Link::Greeting(_) => Timer::new(self.connected_at, self.config.handshake_timeout).left(now),
            Link::Open => self.silence_left(now).min(self.ack_left(now)),
            Link::Down if self.agreed.is_session => {
                let lasts = self.agreed.session_expiry.saturating_mul(1000).min(LONGEST);
                Timer::new(self.lost_at, lasts).left(now)
            }
            Link::Down | Link::Leaving | Link::Closing(..) => NEVER,
        }
    }

    /// The agreed keep-alive in milliseconds; [`NEVER`] without one.
    pub(super) fn keep_alive(&self) -> u32 {
        match self.agreed.keep_alive {
            0 => NEVER,
            seconds => u32::from(seconds) * 1000,
        }
    }

    /// Until the gateway has been silent for one and a half keep-alives.
    fn silence_left(&self, now: u32) -> u32 {
        let keep_alive = self.keep_alive();
        Timer::new(self.last_heard, keep_alive.saturating_add(keep_alive / 2)).left(now)
    }

    fn ack_left(&self, now: u32) -> u32 {
        if self.outbox.first == self.outbox.unwritten {
            return NEVER;
        }
        Timer::new(self.owed_since, self.config.ack_timeout).left(now)
    }
}
