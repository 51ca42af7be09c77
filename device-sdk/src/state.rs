//! The memory of a client, and its making.

use core::cell::RefCell;
use core::mem::ManuallyDrop;

use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::RawMutex;

use crate::client::Client;
use crate::config::{Config, ConfigError};
use crate::runner::Runner;
use crate::session::{AnnouncedSlot, CHUNK, NameSlot, SendSlot, Session, Storage};

/// The memory of a client and its runner, with all its buffers; in firmware in a `ConstStaticCell`, made by the compiler:
/// then it is all zeros and takes no flash. Made at run time, as in a `StaticCell`, it stands on the stack first.
///
/// - `M`: `NoopRawMutex` where client and runner stay on one executor, `CriticalSectionRawMutex` elsewhere.
///   Application code never runs inside of it.
/// - `RX`: bytes of the receive buffer. See [`Config::max_body`] for what it lets in.
/// - `TX`: bytes of the outbox. The largest send has to fit: payload, names, some bytes more.
/// - `NAMES`: names that have a handle, in each direction; 136 bytes or so for each. With 0, or without the feature `names`,
///   names are sent in full.
/// - `SENDS`: sends, publishes and so on whose outcome is waited for at a time, 256 at most.
/// - `INTERESTS`: bytes for joined groups and subscriptions, 3 and the name for each.
/// - `RECEIPTS`: bytes for entries of receipts, 3 and the client id for each; 0 where only counts are looked
///   at.
pub struct State<
    'a,
    M: RawMutex,
    const RX: usize = 2048,
    const TX: usize = 1024,
    const NAMES: usize = 8,
    const SENDS: usize = 4,
    const INTERESTS: usize = 256,
    const RECEIPTS: usize = 256,
> {
    receive: [u8; RX],
    outbox: [u8; TX],
    names: [NameSlot; NAMES],
    announced: [AnnouncedSlot; NAMES],
    sends: [SendSlot; SENDS],
    interests: [u8; INTERESTS],
    receipts: [u8; RECEIPTS],
    chunk: [u8; CHUNK],
    // Never dropped, so that a state on the stack may be borrowed for as long as it lives. All that is lost
    // by it are wakers of tasks that still wait, and a task that still waits keeps the borrow alive.
    shared: ManuallyDrop<Option<Shared<'a, M>>>,
}

/// What client and runner share.
pub(crate) struct Shared<'a, M: RawMutex> {
    session: Mutex<M, RefCell<Session<'a>>>,
    now: fn() -> u64,
}

impl<'a, M: RawMutex> Shared<'a, M> {
    /// Runs `f` on the session with the present time. It must not call the application.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Session<'a>, u64) -> R) -> R {
        let now = (self.now)();
        self.look(|session| f(session, now))
    }

    /// The same without the time, which has to be asked for.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&mut Session<'a>) -> R) -> R {
        self.session.lock(|session| f(&mut session.borrow_mut()))
    }
}

impl<
    'a,
    M: RawMutex,
    const RX: usize,
    const TX: usize,
    const NAMES: usize,
    const SENDS: usize,
    const INTERESTS: usize,
    const RECEIPTS: usize,
> State<'a, M, RX, TX, NAMES, SENDS, INTERESTS, RECEIPTS>
{
    /// Empty memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            receive: [0; RX],
            outbox: [0; TX],
            names: [const { NameSlot::EMPTY }; NAMES],
            announced: [const { AnnouncedSlot::EMPTY }; NAMES],
            sends: [const { SendSlot::EMPTY }; SENDS],
            interests: [0; INTERESTS],
            receipts: [0; RECEIPTS],
            chunk: [0; CHUNK],
            shared: ManuallyDrop::new(None),
        }
    }
}

impl<
    M: RawMutex,
    const RX: usize,
    const TX: usize,
    const NAMES: usize,
    const SENDS: usize,
    const INTERESTS: usize,
    const RECEIPTS: usize,
> Default for State<'_, M, RX, TX, NAMES, SENDS, INTERESTS, RECEIPTS>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a client and the runner that serves it. Nothing happens before the runner runs.
///
/// `now` tells milliseconds since any fixed moment and never goes back:
/// `|| embassy_time::Instant::now().as_millis()` on boards.
pub fn new<
    'a,
    M: RawMutex,
    const RX: usize,
    const TX: usize,
    const NAMES: usize,
    const SENDS: usize,
    const INTERESTS: usize,
    const RECEIPTS: usize,
>(
    state: &'a mut State<'a, M, RX, TX, NAMES, SENDS, INTERESTS, RECEIPTS>,
    config: Config<'a>,
    now: fn() -> u64,
) -> Result<(Client<'a, M>, Runner<'a, M>), ConfigError> {
    let storage = Storage {
        receive: &mut state.receive,
        outbox: &mut state.outbox,
        names: &mut state.names,
        announced: &mut state.announced,
        interests: &mut state.interests,
        sends: &mut state.sends,
        receipts: &mut state.receipts,
    };
    let session = Mutex::new(RefCell::new(Session::new(storage, config)?));
    // What was there is not dropped, as the state itself isn't.
    state.shared = ManuallyDrop::new(None);
    let shared: &'a Shared<'a, M> = state.shared.insert(Shared { session, now });
    Ok((Client::new(shared), Runner::new(shared, &mut state.chunk, &config)))
}
