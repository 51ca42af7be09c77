//! The application's side: send, join, publish, subscribe, receive. Copies of one client may be used from
//! several tasks.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};

use bugle_protocol::{ReceiptMode, Status};
use embassy_sync::blocking_mutex::raw::RawMutex;

use crate::session::{Lent, Request};
use crate::signal::{
    Accepted, Connection, Counters, Disconnect, Event, Incoming, Receipt, SendError, SendOptions, Target,
};
use crate::state::Shared;

/// Sends and receives for the application; see [`new`](crate::new).
///
/// Its `async` methods wait for a connection, for room and for the gateway's answer without a limit of their
/// own, other than that a gateway that doesn't answer loses the connection. For a limit, `select` them with a
/// timer; each says what dropping it means. Where more than 15 tasks wait at a time, they
/// wait by polling.
pub struct Client<'a, M: RawMutex> {
    shared: &'a Shared<'a, M>,
}

impl<M: RawMutex> Clone for Client<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: RawMutex> Copy for Client<'_, M> {}

impl<'a, M: RawMutex> Client<'a, M> {
    pub(crate) fn new(shared: &'a Shared<'a, M>) -> Self {
        Self { shared }
    }

    /// Sends a signal and waits until the gateway has accepted it (S8).
    ///
    /// It is sent again by itself only where the first attempt surely had no effect.
    ///
    /// Cancel-safe until it is queued; dropped after that, it is sent all the same, and nobody learns its
    /// outcome.
    pub fn send<'r>(
        &self,
        target: Target<'r>,
        payload: &'r [u8],
        options: &'r SendOptions<'r>,
    ) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Send { target, payload, options })
    }

    /// Sends a signal and waits for what became of it at all its recipients (S8). `each` hears of every
    /// recipient that a receipt names; of one that was QUEUED twice, the second time with what became of it
    /// in the end.
    ///
    /// Asks for [`ReceiptMode::Each`], unless the options ask for a summary. With `store` the last
    /// recipient's fate may take until the ttl: use [`try_send`](Self::try_send) to look at the interim
    /// receipt.
    ///
    /// Cancel-safe until it is queued; dropped after that, it is sent all the same, and the rest of the
    /// receipt is lost.
    pub async fn send_with_receipt(
        &self,
        target: Target<'_>,
        payload: &[u8],
        options: &SendOptions<'_>,
        mut each: impl FnMut(&str, Status),
    ) -> Result<Receipt, SendError> {
        let receipt = if options.receipt == ReceiptMode::None { ReceiptMode::Each } else { options.receipt };
        let options = &SendOptions { receipt, ..*options };
        let mut acceptance = self.perform(Request::Send { target, payload, options });
        (&mut acceptance).await?;
        loop {
            let receipt = acceptance.sending.receipt(&mut each).await?;
            if !receipt.interim {
                return Ok(receipt);
            }
        }
    }

    /// Queues a signal without waiting, for an outcome that can be asked for or left.
    ///
    /// Fails with [`SendError::NotConnected`] or [`SendError::Full`] where [`send`](Self::send) would wait.
    pub fn try_send(
        &self,
        target: Target<'_>,
        payload: &[u8],
        options: &SendOptions<'_>,
    ) -> Result<Sending<'a, M>, SendError> {
        self.try_queue(&Request::Send { target, payload, options })
    }

    /// Publishes to a plain topic (T7) and waits until the gateway has accepted it.
    ///
    /// Cancel-safe until it is queued; dropped after that, it is published all the same.
    pub fn publish<'r>(
        &self,
        topic: &'r str,
        payload: &'r [u8],
        at_least_once: bool,
        retain: bool,
    ) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Publish { topic, payload, at_least_once, retain })
    }

    /// Queues a message to a plain topic without waiting.
    pub fn try_publish(
        &self,
        topic: &str,
        payload: &[u8],
        at_least_once: bool,
        retain: bool,
    ) -> Result<Sending<'a, M>, SendError> {
        self.try_queue(&Request::Publish { topic, payload, at_least_once, retain })
    }

    /// Joins a group, now and in every new session until [`leave`](Self::leave), and waits until the gateway
    /// has done so.
    ///
    /// Cancel-safe until it is queued; dropped after that, the group is joined all the same.
    pub fn join<'r>(&self, group: &'r str) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Join(group))
    }

    /// Leaves a group. Cancel-safe likewise.
    pub fn leave<'r>(&self, group: &'r str) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Leave(group))
    }

    /// Subscribes to a plain topic filter, now and in every new session until
    /// [`unsubscribe`](Self::unsubscribe), with QoS 1 or 0. Cancel-safe until it is queued; dropped after
    /// that, it is subscribed to all the same.
    pub fn subscribe<'r>(&self, filter: &'r str, at_least_once: bool) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Subscribe { filter, at_least_once })
    }

    /// Ends a subscription. Cancel-safe likewise.
    pub fn unsubscribe<'r>(&self, filter: &'r str) -> Acceptance<'a, 'r, M> {
        self.perform(Request::Unsubscribe(filter))
    }

    /// Waits for something to come in and lends it to `take`; when that returns, the gateway is told that the
    /// application has it. While nothing is taken the gateway's window fills, and it holds back the rest.
    ///
    /// `take` may use the client, but cannot receive. What comes in meanwhile waits.
    ///
    /// Cancel-safe: nothing is lost by dropping it before it is ready.
    pub fn receive<R>(&self, take: impl FnOnce(Incoming<'_>) -> R) -> impl Future<Output = R> {
        let shared = self.shared;
        let mut take = Some(take);
        poll_fn(move |context| {
            loop {
                let lent = shared.with(|session, now| {
                    let lent = session.lend(now);
                    if lent.is_none() {
                        session.register(context.waker());
                    }
                    lent
                });
                let Some(lent) = lent else { return Poll::Pending };
                if let Some(result) = Loan::new(shared, lent).show(&mut take) {
                    return Poll::Ready(result);
                }
            }
        })
    }

    /// Lends what came in to `take`, if there is something.
    pub fn try_receive<R>(&self, take: impl FnOnce(Incoming<'_>) -> R) -> Option<R> {
        let lent = self.shared.with(|session, now| session.lend(now))?;
        Loan::new(self.shared, lent).show(&mut Some(take))
    }

    /// Waits for something that concerns no single call. The oldest of more than eight is lost. Cancel-safe.
    pub async fn event(&self) -> Event {
        poll_fn(|context| {
            self.shared.look(|session| match session.poll_event() {
                Some(event) => Poll::Ready(event),
                None => {
                    session.register(context.waker());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// How the client stands to the gateway.
    pub fn status(&self) -> Connection {
        self.shared.look(|session| session.status())
    }

    /// What was counted since the client was made.
    pub fn counters(&self) -> Counters {
        self.shared.look(|session| session.counters())
    }

    /// Whether a group is joined, or will be again.
    pub fn remembers_group(&self, group: &str) -> bool {
        self.shared.look(|session| session.remembers_group(group))
    }

    /// Whether a filter is subscribed to, or will be again.
    pub fn remembers_filter(&self, filter: &str) -> bool {
        self.shared.look(|session| session.remembers_filter(filter))
    }

    /// The latest that the gateway's clock can show now, in milliseconds since it started (S9).
    pub fn gateway_time(&self) -> Option<u64> {
        self.shared.with(|session, now| session.gateway_time(now))
    }

    /// Waits until the client is online, or its runner has ended. Cancel-safe.
    pub async fn wait_connected(&self) -> Result<(), Disconnect> {
        poll_fn(|context| {
            self.shared.look(|session| match session.status() {
                Connection::Online => Poll::Ready(Ok(())),
                Connection::Stopped(cause) => Poll::Ready(Err(cause)),
                Connection::Offline(_) | Connection::Restoring => {
                    session.register(context.waker());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Says goodbye behind what is queued, and ends the runner. A will is not carried out. Outcomes that are
    /// still open are lost: wait for them first.
    pub fn disconnect(&self) {
        self.shared.look(|session| session.disconnect());
    }

    fn try_queue(&self, request: &Request<'_>) -> Result<Sending<'a, M>, SendError> {
        let slot = self.shared.look(|session| session.submit(request))?;
        Ok(Sending { shared: self.shared, slot: Some(slot) })
    }

    fn perform<'r>(&self, request: Request<'r>) -> Acceptance<'a, 'r, M> {
        let sending = Sending { shared: self.shared, slot: None };
        Acceptance { sending, request, may_name_again: true }
    }
}

/// Queues what was asked for when there is room, and waits until the gateway has accepted it.
#[must_use = "nothing is asked for before it is awaited"]
pub struct Acceptance<'a, 'r, M: RawMutex> {
    sending: Sending<'a, M>,
    request: Request<'r>,
    may_name_again: bool,
}

impl<M: RawMutex> Future for Acceptance<'_, '_, M> {
    type Output = Result<Accepted, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { sending, request, may_name_again } = &mut *self;
        let waker = context.waker();
        sending.shared.look(|session| session.poll_request(request, &mut sending.slot, may_name_again, waker))
    }
}

/// A signal or message that was queued. Dropping it loses nothing but its outcome.
pub struct Sending<'a, M: RawMutex> {
    shared: &'a Shared<'a, M>,
    /// Where its outcome will be; `None` before it is queued.
    slot: Option<u8>,
}

impl<M: RawMutex> Sending<'_, M> {
    /// Waits until the gateway has accepted or refused it (S8). Cancel-safe.
    pub async fn accepted(&self) -> Result<Accepted, SendError> {
        poll_fn(|context| {
            let Some(slot) = self.slot else { return Poll::Pending };
            self.shared.look(|session| {
                let acceptance = session.poll_acceptance(slot);
                acceptance.map_or_else(
                    || {
                        session.register(context.waker());
                        Poll::Pending
                    },
                    Poll::Ready,
                )
            })
        })
        .await
    }

    /// Waits for the next whole receipt. After an interim one it may be called again for the one that ends
    /// it.
    ///
    /// Cancel-safe, but `each` doesn't hear of a recipient again.
    pub async fn receipt(&mut self, mut each: impl FnMut(&str, Status)) -> Result<Receipt, SendError> {
        loop {
            let (entry, receipt) = poll_fn(|context| {
                let Some(slot) = self.slot else { return Poll::Pending };
                self.shared.look(|session| {
                    let entry = session.poll_receipt_entry(slot);
                    let receipt = if entry.is_none() { session.poll_receipt(slot) } else { None };
                    if entry.is_none() && receipt.is_none() {
                        session.register(context.waker());
                        return Poll::Pending;
                    }
                    Poll::Ready((entry, receipt))
                })
            })
            .await;
            if let Some((client, status)) = entry {
                each(&client, status);
            }
            if let Some(receipt) = receipt {
                return receipt;
            }
        }
    }
}

impl<M: RawMutex> Drop for Sending<'_, M> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.shared.look(|session| session.release(slot));
        }
    }
}

/// Gives the receive buffer back whatever happens.
struct Loan<'a, M: RawMutex> {
    shared: &'a Shared<'a, M>,
    lent: Option<Lent<'a>>,
    is_taken: bool,
}

impl<'a, M: RawMutex> Loan<'a, M> {
    fn new(shared: &'a Shared<'a, M>, lent: Lent<'a>) -> Self {
        Self { shared, lent: Some(lent), is_taken: false }
    }

    fn show<R>(mut self, take: &mut Option<impl FnOnce(Incoming<'_>) -> R>) -> Option<R> {
        let incoming = self.lent.as_ref()?.incoming()?;
        let result = take.take().map(|take| take(incoming));
        self.is_taken = true;
        result
    }
}

impl<M: RawMutex> Drop for Loan<'_, M> {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.shared.with(|session, now| session.give_back(now, lent, self.is_taken));
        }
    }
}
