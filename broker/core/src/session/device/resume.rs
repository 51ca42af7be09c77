//! Going on with a session over another connection, without loss and without repeating anything (S12, docs/protocol.md
//! section 12).
//!
//! A session that may be resumed keeps what it wrote until the device acknowledges it. When its connection is lost it is
//! taken off it whole ([`DeviceSession::detach`]), goes on taking answers from the hub, and becomes part of the device's
//! next session ([`DeviceSession::adopt`]), if that asks for it with counts that fit.

use std::collections::VecDeque;
use std::mem;

use bugle_protocol::Reason;

use super::{DeviceSession, Phase, Sent, What};
use crate::model::{Instant, Settled, Status};

impl DeviceSession {
    /// Whether the session can go on over another connection.
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Takes the session off its connection. What is left there can only tell the device why.
    pub fn detach(&mut self, now: Instant) -> Self {
        let mut left = Self::new(self.config.clone(), now);
        if self.is_closing() {
            left.phase = Phase::Closing;
        }
        let mut session = mem::replace(self, left);
        self.fault = session.fault.take();
        // Its frames are kept as well; all else was about the connection.
        (session.control, session.kept, session.kept_at) = (Vec::new(), Vec::new(), 0);
        session.phase = Phase::Away;
        // The device's refusals of them may have been lost again.
        let waiting = session.presumed.iter().flatten();
        session.settled.extend(waiting.map(|slot| (*slot, Settled::Written)));
        session
    }

    /// Whether this connection's hello asks for `kept`, which then goes on without loss.
    pub fn fits(&self, kept: &Self) -> bool {
        let Phase::AwaitingHub(asking) = &self.phase else { return false };
        let Some(resume) = &asking.resume else { return false };
        let (new, old) = (&asking.terms, &kept.terms);
        let outstanding = kept.unacknowledged.len() as u32;
        let first = kept.sent.wrapping_sub(outstanding);
        let [taken, received] = [resume.taken, resume.received].map(|count| count.wrapping_sub(first));
        // More acknowledgements than were written would lie more than half the range ahead.
        let unheard = kept.acknowledged().wrapping_sub(resume.acknowledged);
        kept.resumable
            && resume.session == kept.number
            && (new.max_body >= old.max_body && new.window >= old.window && new.names >= old.names)
            && taken <= received
            && received <= outstanding
            && unheard < 1 << 31
    }

    /// Goes on with `kept`, of which [`fits`](Self::fits) has to be true.
    pub fn adopt(&mut self, kept: Self) {
        let Phase::AwaitingHub(asking) = &self.phase else { return };
        let Some(resume) = asking.resume else { return };
        let names = asking.terms.names;
        let first = kept.sent.wrapping_sub(kept.unacknowledged.len() as u32);
        self.number = kept.number;
        self.names = kept.names;
        self.received = kept.received;
        self.unfinished = kept.unfinished;
        self.announcer = kept.announcer;
        self.announcer.grow(names);
        self.sent = kept.sent;
        self.unacknowledged = kept.unacknowledged;
        self.in_window = kept.in_window;
        self.retained = kept.retained;
        self.presumed = kept.presumed;
        self.settled.extend(kept.settled);
        let done = self.received.wrapping_sub(self.unfinished.len() as u32);
        self.ack_due = done.wrapping_sub(resume.acknowledged);
        for _ in 0..resume.taken.wrapping_sub(first) {
            let Some(sent) = self.forget_oldest() else { break };
            // The device may have refused it in a frame that was lost: it says so before its first acknowledgement.
            self.presumed.push_back(sent.slot());
        }
        let waiting = self.presumed.iter().flatten();
        self.settled.extend(waiting.map(|slot| (*slot, Settled::Taken)));
        let there = resume.received.wrapping_sub(resume.taken) as usize;
        let bytes = self.unacknowledged.iter().take(there).map(|sent| sent.bytes as usize);
        self.resends = Some((bytes.sum(), kept.control));
    }

    /// The device is done with the oldest frame.
    pub(super) fn forget_oldest(&mut self) -> Option<Sent> {
        let sent = self.unacknowledged.pop_front()?;
        self.in_window -= usize::from(matches!(sent.what, What::Payload(_)));
        self.retained.drain(..(sent.bytes as usize).min(self.retained.len()));
        if self.retained.is_empty() && self.retained.capacity() > 1024 {
            self.retained = VecDeque::new();
        }
        Some(sent)
    }

    /// Whether frames are kept until they are acknowledged.
    pub(super) fn keeps_frames(&self) -> bool {
        self.resumable
    }

    /// Can't go on over another connection: nothing is kept for that any more.
    pub(super) fn give_up_resuming(&mut self) {
        self.resumable = false;
        self.retained = VecDeque::new();
        self.unacknowledged.iter_mut().for_each(|sent| sent.bytes = 0);
    }

    /// The session is over: what was written and not acknowledged stays so.
    pub fn end(&mut self) {
        self.give_up_resuming();
        let sent = self.unacknowledged.drain(..).filter_map(|sent| sent.slot());
        let unconfirmed = self.presumed.drain(..).flatten().chain(sent);
        self.settled.extend(unconfirmed.map(|slot| (slot, Settled::Final(Status::Unconfirmed))));
        self.in_window = 0;
    }

    /// Whether a session goes on when its connection ended for this reason.
    pub(super) fn outlives(reason: Reason) -> bool {
        reason == Reason::KeepAliveTimeout
    }

    /// How many of the device's frames were covered by acknowledgements that were written.
    fn acknowledged(&self) -> u32 {
        self.received.wrapping_sub(self.unfinished.len() as u32).wrapping_sub(self.ack_due)
    }
}
