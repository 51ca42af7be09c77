//! A message as it lies in the flash: its number, the format, and the frame of docs/protocol.md that sends it, with inline
//! names.

use bugle_protocol::{Frame, NameList, NameRef, Publish, ReceiptMode, Send, Target as FrameTarget, split};
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
pub struct Stored<'m> {
    frame: Frame<'m>,
}

impl<'m> Stored<'m> {
    pub(super) fn decode(bytes: &'m [u8]) -> Option<Self> {
        let (FORMAT, frame) = bytes.get(MARK..)?.split_first().map(|(format, frame)| (*format, frame))?
        else {
            return None;
        };
        let frame = split(frame, usize::MAX).ok()??.decode().ok()?;
        matches!(frame, Frame::Send(_) | Frame::Publish(_)).then_some(Self { frame })
    }

    /// The message.
    pub fn payload(&self) -> &'m [u8] {
        match self.frame {
            Frame::Send(Send { payload, .. }) | Frame::Publish(Publish { payload, .. }) => payload,
            _ => &[],
        }
    }

    /// The client, group or topic that it is for.
    pub fn name(&self) -> &'m str {
        match self.frame {
            Frame::Send(Send { target: FrameTarget::Client(name), .. })
            | Frame::Send(Send { target: FrameTarget::Group { group: name, .. }, .. })
            | Frame::Publish(Publish { topic: name, .. }) => text(name),
            _ => "",
        }
    }

    /// Whether it is for a plain topic, and not a signal.
    pub fn is_to_topic(&self) -> bool {
        matches!(self.frame, Frame::Publish(_))
    }

    /// The id that it was given (S12).
    pub fn id(&self) -> Option<&'m str> {
        match self.frame {
            Frame::Send(Send { id, .. }) => id,
            _ => None,
        }
    }

    pub(super) async fn send<M: RawMutex>(&self, client: Client<'_, M>) -> Result<Accepted, SendError> {
        match &self.frame {
            Frame::Send(send) => {
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
            Frame::Publish(publish) => {
                client
                    .publish(text(publish.topic), publish.payload, publish.at_least_once, publish.retain)
                    .await
            }
            // `decode` lets no other through.
            _ => Err(SendError::BadOption),
        }
    }
}

/// Writes format and frame, and gives their length. [`SendError::TooLarge`] where they don't fit.
pub(super) fn encode(request: &Request<'_>, buffer: &mut [u8]) -> Result<usize, SendError> {
    let (format, buffer) = buffer.split_first_mut().ok_or(SendError::TooLarge)?;
    *format = FORMAT;
    let mut write = |frame: Frame<'_>| frame.encode(buffer).map_err(|_| SendError::TooLarge);
    let length = match *request {
        Request::Send { target, payload, options } => {
            let (only, except) = (references(target.only)?, references(target.except)?);
            let name = NameRef::Inline(target.name);
            let target = if target.is_group {
                let only = only.as_deref().map(NameList::new);
                let except = except.as_deref().map(NameList::new);
                FrameTarget::Group { group: name, only, except }
            } else {
                FrameTarget::Client(name)
            };
            let &SendOptions { ttl, store, echo, urgent, id, .. } = options;
            write(Frame::Send(Send { ttl, store, echo, urgent, id, ..Send::new(target, payload) }))?
        }
        Request::Publish { topic, payload, at_least_once, retain } => {
            write(Frame::Publish(Publish { topic: NameRef::Inline(topic), at_least_once, retain, payload }))?
        }
        Request::Join(_) | Request::Leave(_) | Request::Subscribe { .. } | Request::Unsubscribe(_) => {
            return Err(SendError::BadOption);
        }
    };
    Ok(1 + length)
}

fn references<'n>(names: Option<&[&'n str]>) -> Result<Option<Vec<NameRef<'n>, MAX_STORED_LIST>>, SendError> {
    let Some(names) = names else { return Ok(None) };
    let mut list = Vec::new();
    for name in names {
        list.push(NameRef::Inline(name)).map_err(|_| SendError::ListTooLong)?;
    }
    Ok(Some(list))
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
