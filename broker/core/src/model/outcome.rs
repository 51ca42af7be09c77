//! What a sender hears.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use super::{Addressed, ClientId, MessageId, Reason, ReceiptCounts, ReceiptMode, RequestId, Status, Target};

/// A request that was not carried out, and why, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code that programs look at.
    pub reason: Reason,
    /// When to try again, in milliseconds, where that is known (S7).
    pub retry_after: Option<u32>,
    /// What was wrong, where, and what to do.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A refusal without a time to try again.
    pub fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, retry_after: None, text: text.into() }
    }
}

/// What a refusal is about, for people to read.
#[derive(Clone, Debug)]
pub enum About {
    /// A signal.
    Signal(Rc<Addressed>),
    /// A message to a topic, or what isn't one.
    Topic(Rc<str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

impl std::error::Error for Refusal {}

/// What became of one send at its recipients (S8).
#[derive(Clone, Debug)]
pub struct ReceiptReport {
    /// The send.
    pub request: RequestId,
    /// The sender's id for it.
    pub id: Option<MessageId>,
    /// Whom it was for.
    pub target: Target,
    /// [`ReceiptMode::Summary`] or [`ReceiptMode::Each`].
    pub mode: ReceiptMode,
    /// Some recipients are QUEUED; another report will end them.
    pub interim: bool,
    /// The send's id was seen before: nothing was delivered, and this is what became of the first (S12).
    pub duplicate: bool,
    /// Recipients per status.
    pub counts: ReceiptCounts,
    /// With [`ReceiptMode::Each`]: the recipients, above 128 of them only those not DELIVERED.
    pub entries: Vec<(ClientId, Status)>,
}
