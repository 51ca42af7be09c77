//! A sender's rate, and the sends that wait for it where the sender can't be refused (S7).
//!
//! Urgent signals have a bucket and a queue of their own, so that an emergency stop isn't behind what its sender
//! sent too fast (S16).

use std::collections::VecDeque;

use super::rate::TokenBucket;
use crate::model::{Instant, Limits, Recipients, RequestId, Signal, Target};

/// A send that waits for its token.
pub(super) struct Parked {
    /// Who waits for the answer; nobody once the sender has gone.
    pub(super) request: Option<RequestId>,
    pub(super) signal: Signal<'static>,
}

/// One identity's buckets and waiting sends. It outlives the connection: reconnecting refills no bucket, and what
/// was sent before leaving is still sent. Who never sent has none of it.
#[derive(Default)]
pub(super) struct Park(Option<Box<Used>>);

struct Used {
    normal: Lane,
    urgent: Lane,
    bytes: usize,
}

struct Lane {
    bucket: TokenBucket,
    queue: VecDeque<Parked>,
    /// When there is a token for the first of the queue.
    release: Instant,
}

impl Park {
    /// Takes a token, or says in how many milliseconds there may be one. What waits goes first, so that the order
    /// stays (S11).
    #[inline(always)]
    pub(super) fn admit(&mut self, urgent: bool, limits: &Limits, now: Instant) -> Result<(), u32> {
        let rate = rate(urgent, limits);
        let lane = self.0.get_or_insert_with(|| Box::new(Used::new(limits, now))).lane(urgent);
        if lane.queue.is_empty() {
            return lane.bucket.try_take(rate, now);
        }
        let behind = lane.queue.len() as u64 * 1000 / u64::from(rate.max(1));
        Err(u32::try_from(lane.release.millis_since(now) + behind).unwrap_or(u32::MAX).max(1))
    }

    /// Lets a send wait, `wait` milliseconds if it is the first.
    pub(super) fn push(&mut self, parked: Parked, wait: u32, now: Instant) {
        // It was asked for a token before.
        let Some(used) = &mut self.0 else { return };
        used.bytes += size(&parked.signal);
        let lane = used.lane(parked.signal.options().urgent);
        if lane.queue.is_empty() {
            lane.release = now + u64::from(wait);
        }
        lane.queue.push_back(parked);
    }

    /// The next send that has its token.
    pub(super) fn pop_ready(&mut self, limits: &Limits, now: Instant) -> Option<Parked> {
        let used = self.0.as_mut()?;
        [true, false].into_iter().find_map(|urgent| {
            let rate = rate(urgent, limits);
            let lane = used.lane(urgent);
            if lane.queue.is_empty() || lane.release > now {
                return None;
            }
            if let Err(wait) = lane.bucket.try_take(rate, now) {
                lane.release = now + u64::from(wait);
                return None;
            }
            let parked = lane.queue.pop_front()?;
            used.bytes -= size(&parked.signal);
            Some(parked)
        })
    }

    /// When [`pop_ready`](Self::pop_ready) may have something.
    pub(super) fn release(&self) -> Option<Instant> {
        let used = self.0.as_ref()?;
        let lanes = [&used.normal, &used.urgent].into_iter();
        lanes.filter(|lane| !lane.queue.is_empty()).map(|lane| lane.release).min()
    }

    /// How many sends wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |used| used.normal.queue.len() + used.urgent.queue.len())
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |used| used.bytes)
    }

    /// The sender has gone: nobody waits for answers any more.
    pub(super) fn forget_requests(&mut self) {
        let Some(used) = &mut self.0 else { return };
        for parked in used.normal.queue.iter_mut().chain(&mut used.urgent.queue) {
            parked.request = None;
        }
    }

    /// Whether it is as if new.
    pub(super) fn is_idle(&mut self, limits: &Limits, now: Instant) -> bool {
        self.waiting() == 0
            && self.0.as_mut().is_none_or(|used| {
                used.normal.bucket.is_full(limits.rate, now)
                    && used.urgent.bucket.is_full(limits.urgent_rate, now)
            })
    }
}

impl Used {
    /// Full buckets, nothing waiting.
    fn new(limits: &Limits, now: Instant) -> Self {
        let lane = |rate| Lane { bucket: TokenBucket::full(rate, now), queue: VecDeque::new(), release: now };
        Self { normal: lane(limits.rate), urgent: lane(limits.urgent_rate), bytes: 0 }
    }

    fn lane(&mut self, urgent: bool) -> &mut Lane {
        if urgent { &mut self.urgent } else { &mut self.normal }
    }
}

fn rate(urgent: bool, limits: &Limits) -> u32 {
    if urgent { limits.urgent_rate } else { limits.rate }
}

/// What a waiting signal costs, in bytes.
fn size(signal: &Signal<'_>) -> usize {
    const OVERHEAD: usize = 64;
    const ENTRY: usize = 16;
    let entries = match signal.target() {
        Target::Client(_) => 0,
        Target::Group { recipients: Recipients::Only(only), except, .. } => only.len() + except.len(),
        Target::Group { except, .. } => except.len(),
    };
    signal.payload.len() + signal.properties.len() + entries * ENTRY + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::rc::Rc;

    use super::*;
    use crate::model::{Addressed, ClientId, QoS, SignalOptions};

    fn signal(urgent: bool) -> Signal<'static> {
        let target = Target::Client(ClientId::new("lamp-1").expect("a name"));
        let options = SignalOptions { urgent, ..SignalOptions::default() };
        Signal {
            addressed: Rc::new(Addressed { target, options }),
            payload: Cow::Borrowed(b"on"),
            properties: Cow::Borrowed(&[]),
            qos: QoS::AtMostOnce,
            as_sent: None,
        }
    }

    #[test]
    fn s7_what_waits_goes_in_order_and_urgent_ones_have_their_own_lane() {
        let at = Instant::from_millis;
        let limits = Limits { rate: 2, urgent_rate: 1, ..Limits::default() };
        let mut park = Park::default();
        assert_eq!([park.admit(false, &limits, at(0)), park.admit(false, &limits, at(0))], [Ok(()), Ok(())]);
        for request in 0..2 {
            let wait = park.admit(false, &limits, at(0)).expect_err("no token");
            park.push(Parked { request: Some(RequestId(request)), signal: signal(false) }, wait, at(0));
        }
        assert_eq!(park.admit(true, &limits, at(0)), Ok(()), "not behind what isn't urgent");
        assert_eq!((park.waiting(), park.release()), (2, Some(at(500))));
        assert!(park.pop_ready(&limits, at(499)).is_none());
        let first = park.pop_ready(&limits, at(500)).expect("its token is there");
        assert_eq!(first.request, Some(RequestId(0)));
        assert!(park.pop_ready(&limits, at(500)).is_none());
        assert!(park.admit(false, &limits, at(999)).is_err(), "behind what waits");
        park.forget_requests();
        assert_eq!(park.pop_ready(&limits, at(1000)).expect("the second").request, None);
        assert_eq!((park.bytes(), park.is_idle(&limits, at(1000))), (0, false));
        assert!(park.is_idle(&limits, at(2000)));
    }
}
