//! How a bridge is doing: what it shows in `/healthz` and `/metrics`, and its lines in the log, one for each change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bugle_core::hub::EachNumber;

use super::end::Drop;
use super::pattern::Way;

/// Reasons told in the log for messages that were dropped, at least so many apart.
const LOG_EACH: u64 = 1000;

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        /// Why a bridge isn't connected.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics and logs.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

failures! {
    /// Nobody answers there.
    Unreachable = "unreachable";
    /// TLS could not be agreed on: a certificate that isn't trusted, for one.
    Tls = "tls";
    /// The far broker doesn't let this gateway in.
    Refused = "refused";
    /// It took too long, or stayed silent.
    Timeout = "timeout";
    /// The connection was lost.
    Lost = "lost";
    /// The far broker said goodbye.
    Goodbye = "goodbye";
    /// What came is no MQTT of this version.
    Protocol = "protocol";
    /// This gateway didn't take its own bridge.
    Local = "local";
}

/// Where a bridge is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Waiting(Failure, String),
    Stopped,
}

/// What is known of one bridge.
#[derive(Debug)]
pub struct BridgeStatus {
    name: Arc<str>,
    state: Mutex<State>,
    connects: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
    crossed: [AtomicU64; Way::ALL.len()],
    dropped: [[AtomicU64; Drop::ALL.len()]; Way::ALL.len()],
    subscriptions_refused: [AtomicU64; Way::ALL.len()],
}

impl BridgeStatus {
    /// Of a bridge that begins.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            state: Mutex::new(State::Connecting),
            connects: AtomicU64::default(),
            failures: Default::default(),
            crossed: Default::default(),
            dropped: Default::default(),
            subscriptions_refused: Default::default(),
        }
    }

    /// The bridge's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether messages cross it.
    pub fn is_connected(&self) -> bool {
        matches!(&*self.lock(), State::Connected)
    }

    /// `connected`, `connecting` or `waiting`, with the reason why.
    pub fn state(&self) -> (&'static str, Option<String>) {
        match &*self.lock() {
            State::Connecting => ("connecting", None),
            State::Connected => ("connected", None),
            State::Stopped => ("stopped", None),
            State::Waiting(_, why) => ("waiting", Some(why.clone())),
        }
    }

    /// Calls `each` for every number: its name, help, labels beside the bridge's, value, and whether it is a gauge.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let is_connected = self.is_connected().into();
        each("bridge_connected", "Whether the bridge is connected", &[], is_connected, true);
        each(
            "bridge_connects",
            "Connections of the bridge that came about",
            &[],
            load(&self.connects),
            false,
        );
        for &why in Failure::ALL {
            let help = "Connections of the bridge that failed or ended";
            let count = load(&self.failures[why as usize]);
            each("bridge_failures", help, &[("reason", why.key())], count, false);
        }
        for way in Way::ALL {
            let direction = ("direction", way.key());
            let help = "Messages that the other side has taken";
            each("bridge_messages", help, &[direction], load(&self.crossed[way as usize]), false);
            for why in Drop::ALL {
                let help = "Messages that did not cross the bridge";
                let count = load(&self.dropped[way as usize][why as usize]);
                each("bridge_dropped", help, &[direction, ("reason", why.key())], count, false);
            }
            let help = "Patterns of the bridge that the broker where messages come from refused";
            let count = load(&self.subscriptions_refused[way as usize]);
            each("bridge_subscriptions_refused", help, &[direction], count, false);
        }
    }

    /// A message has crossed.
    pub(super) fn crossed(&self, way: Way) {
        self.crossed[way as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A message hasn't.
    pub(super) fn dropped(&self, way: Way, why: Drop, text: &str) {
        let count = self.dropped[way as usize][why as usize].fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(LOG_EACH) {
            let (direction, reason) = (way.key(), why.key());
            tracing::warn!(
                bridge = &*self.name,
                direction,
                reason,
                text,
                "a message didn't cross; the metrics count the next"
            );
        }
    }

    /// A broker doesn't give what a pattern asks for.
    pub(super) fn subscription_refused(&self, way: Way, filter: &str, why: &str) {
        self.subscriptions_refused[way as usize].fetch_add(1, Ordering::Relaxed);
        let (bridge, direction) = (&*self.name, way.key());
        match way {
            Way::In => {
                tracing::error!(bridge, direction, filter, why, "the far broker refused a subscription")
            }
            Way::Out => tracing::error!(
                bridge,
                direction,
                filter,
                why,
                "this gateway refused a subscription: allow the bridge's client id to subscribe to it with a [[rule]]"
            ),
        }
    }

    /// It is connected on both sides.
    pub(super) fn connected(&self, far: &str) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        *self.lock() = State::Connected;
        tracing::info!(bridge = &*self.name, far, "connected");
    }

    /// It isn't. The same again is told to who looks closely.
    pub(super) fn failed(&self, far: &str, why: Failure, text: String, pause: Duration) {
        self.failures[why as usize].fetch_add(1, Ordering::Relaxed);
        let next = State::Waiting(why, text.clone());
        let is_same = std::mem::replace(&mut *self.lock(), next.clone()) == next;
        let (bridge, reason, again_ms) = (&*self.name, why.key(), pause.as_millis() as u64);
        if is_same {
            tracing::debug!(bridge, far, reason, again_ms, "still not connected: {text}");
        } else {
            tracing::warn!(bridge, far, reason, again_ms, "not connected: {text}");
        }
    }

    /// It is no more.
    pub(super) fn stopped(&self) {
        *self.lock() = State::Stopped;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held, and nobody waits.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
