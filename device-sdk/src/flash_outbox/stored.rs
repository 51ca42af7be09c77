//! A message as it lies in the flash: its number, the format, and the frame of docs/protocol.md that sends it, with inline
//! names.

use bugle_protocol::{
    Kind, NameList, NameRef, Publish, ReceiptMode, Send, Target as FrameTarget, body, split, write,
};
use embassy_sync::blocking_mutex::raw::RawMutex;
use heapless::Vec;

use super::MARK;
use crate::client::Client;
use crate::session::Request;
use crate::signal::{Accepted, SendError, SendOptions, Target};

/// Most entries of a list in a message that is stored: they stand on the stack when it is sent.
pub const MAX_STORED_LIST: usize = 16;

/// Changes with what lies in the flash, so that a new firmware doesn't take an old one's messages for something else.
const FORMAT: u8 = 1;

/// A message in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'m>(Message<'m>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message<'m> {
    Send(Send<'m>),
    Publish(Publish<'m>),
}

impl<'m> Stored<'m> {
    pub(super) fn decode(bytes: &'m [u8]) -> Option<Self> {
        let (FORMAT, frame) = bytes.get(MARK..)?.split_first().map(|(format, frame)| (*format, frame))?
        else {
            return None;
        };
        let frame = split(frame, usize::MAX).ok()??;
        match frame.kind {
            Kind::SEND => Some(Self(Message::Send(body::send(frame.body).ok()?))),
            Kind::PUBLISH => Some(Self(Message::Publish(body::publish(frame.body).ok()?))),
            _ => None,
        }
    }

    /// The message.
    pub fn payload(&self) -> &'m [u8] {
        match self.0 {
            Message::Send(Send { payload, .. }) | Message::Publish(Publish { payload, .. }) => payload,
        }
    }

    /// The client, group or topic that it is for.
    pub fn name(&self) -> &'m str {
        match self.0 {
            Message::Send(Send { target: FrameTarget::Client(name), .. })
            | Message::Send(Send { target: FrameTarget::Group { group: name, .. }, .. })
            | Message::Publish(Publish { topic: name, .. }) => text(name),
        }
    }

    /// Whether it is for a plain topic, and not a signal.
    pub fn is_to_topic(&self) -> bool {
        matches!(self.0, Message::Publish(_))
    }

    /// The id that it was given (S12).
    pub fn id(&self) -> Option<&'m str> {
        match self.0 {
            Message::Send(Send { id, .. }) => id,
            Message::Publish(_) => None,
        }
    }

    pub(super) async fn send<M: RawMutex>(&self, client: Client<'_, M>) -> Result<Accepted, SendError> {
        match &self.0 {
            Message::Send(send) => {
                let (only, except, target);
                match &send.target {
                    FrameTarget::Client(name) => target = Target::client(text(*name)),
                    FrameTarget::Group { group, only: some, except: not } => {
                        (only, except) = (names(some.as_ref())?, names(not.as_ref())?);
                        let mut group = Target::group(text(*group));
                        group.only = only.as_deref();
                        group.except = except.as_deref();
                        target = group;
                    }
                }
                let &Send { ttl, store, echo, urgent, id, .. } = send;
                let options = SendOptions { ttl, receipt: ReceiptMode::None, store, echo, urgent, id };
                client.send(target, send.payload, &options).await
            }
            Message::Publish(publish) => {
                client
                    .publish(text(publish.topic), publish.payload, publish.at_least_once, publish.retain)
                    .await
            }
        }
    }
}

/// Writes format and frame, and gives their length. [`SendError::TooLarge`] where they don't fit.
pub(super) fn encode(request: &Request<'_>, buffer: &mut [u8]) -> Result<usize, SendError> {
    let (format, buffer) = buffer.split_first_mut().ok_or(SendError::TooLarge)?;
    *format = FORMAT;
    let options;
    let request = match *request {
        Request::Send { target, payload, options: wanted } => {
            if [target.only, target.except].iter().flatten().any(|list| list.len() > MAX_STORED_LIST) {
                return Err(SendError::ListTooLong);
            }
            // Nobody would take the receipt.
            options = SendOptions { receipt: ReceiptMode::None, ..*wanted };
            Request::Send { target, payload, options: &options }
        }
        Request::Publish { .. } => *request,
        Request::Join(_) | Request::Leave(_) | Request::Subscribe { .. } | Request::Unsubscribe(_) => {
            return Err(SendError::BadOption);
        }
    };
    let mut writer = write::body(buffer);
    let kind = request.write(NameRef::Inline(request.name().1), &mut writer);
    let body = writer.written();
    Ok(1 + write::finish(buffer, kind, body).map_err(|_| SendError::TooLarge)?)
}

fn names<'n>(list: Option<&NameList<'n>>) -> Result<Option<Vec<&'n str, MAX_STORED_LIST>>, SendError> {
    let Some(list) = list else { return Ok(None) };
    let mut names = Vec::new();
    for name in list.iter() {
        names.push(text(name)).map_err(|_| SendError::ListTooLong)?;
    }
    Ok(Some(names))
}

/// Names are stored inline; a handle would be none.
fn text(name: NameRef<'_>) -> &str {
    match name {
        NameRef::Inline(text) => text,
        NameRef::Handle(_) => "",
    }
}
