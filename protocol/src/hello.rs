//! HELLO and WELCOME: how a connection begins, and what the two ends agree on.

use crate::VERSION;
use crate::frame::{Frame, Kind};
use crate::wire::{Field, Malformed, NoSpace, Reader, Writer, flag};

const MAGIC: &[u8; 2] = b"BG";

/// The device's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The version that the device speaks.
    pub version: u8,
    /// The wanted keep-alive, in seconds; 0 for none.
    pub keep_alive: u16,
    /// The largest frame body that the device can receive, in bytes.
    pub max_body: u16,
    /// How many numbered frames the gateway may have unacknowledged at the device.
    pub window: u16,
    /// Size of the device's table for names that the gateway announces; 0 for none.
    pub names: u16,
    /// How long the gateway shall keep the session after the connection is lost, in seconds.
    pub session_expiry: u32,
    /// The device's client id (S1).
    pub client_id: &'a str,
    /// The session to go on with, if any (S12).
    pub resume: Option<Resume>,
    /// What the gateway sends or publishes when the connection is lost without a BYE.
    pub will: Option<WillFrame<'a>>,
}

/// Where an earlier session stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Resume {
    /// The session's number, from its welcome.
    pub session: u64,
    /// How many of the gateway's numbered frames the device has received.
    pub received: u32,
    /// How many of those it has done with, that is, acknowledged: the gateway takes this for the sum of the
    /// device's acknowledgements so far, whatever of them was lost with the connection.
    pub taken: u32,
    /// How many of its own numbered frames the device knows to be acknowledged: the gateway's
    /// acknowledgements go on from here.
    pub acknowledged: u32,
}

/// A SEND or PUBLISH for later, with inline names only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillFrame<'a> {
    kind: Kind,
    body: &'a [u8],
}

impl<'a> WillFrame<'a> {
    /// A will of kind SEND or PUBLISH with an encoded body; anything else is an error.
    pub fn new(kind: Kind, body: &'a [u8]) -> Result<Self, Malformed> {
        if !matches!(kind, Kind::SEND | Kind::PUBLISH) {
            return Err(Malformed::WILL_KIND);
        }
        Frame::decode(kind, body)?;
        Ok(Self { kind, body })
    }

    /// A will of this frame, with its body encoded into `buffer`; `None` of one that is neither [`Frame::Send`] nor
    /// [`Frame::Publish`].
    pub fn encode(frame: &Frame<'_>, buffer: &'a mut [u8]) -> Result<Option<Self>, NoSpace> {
        let mut writer = Writer::new(buffer);
        match frame {
            Frame::Send(send) => send.encode(&mut writer),
            Frame::Publish(publish) => publish.encode(&mut writer),
            _ => return Ok(None),
        }
        let length = writer.finish()?;
        Ok(Some(Self { kind: frame.kind(), body: &buffer[..length] }))
    }

    /// How many bytes its body has.
    pub const fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The frame: [`Frame::Send`] or [`Frame::Publish`].
    pub fn frame(&self) -> Result<Frame<'a>, Malformed> {
        Frame::decode(self.kind, self.body)
    }
}

const RESUME: u8 = 1;
const WILL: u8 = 1 << 1;

impl<'a> Hello<'a> {
    /// Reads the body. Of a version other than [`VERSION`] nothing but the version is looked at, and the
    /// rest is empty.
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Self {
        if reader.take(MAGIC.len(), Field::Magic) != MAGIC {
            reader.fail(Field::Magic);
        }
        let version = reader.u8(Field::Version);
        let mut hello = Self {
            version,
            keep_alive: 0,
            max_body: 0,
            window: 0,
            names: 0,
            session_expiry: 0,
            client_id: "",
            resume: None,
            will: None,
        };
        if version != VERSION {
            reader.rest();
            return hello;
        }
        let flags = reader.u8(Field::HelloFlags);
        reader.reserve(flags, RESUME | WILL, Field::HelloReserved);
        hello.keep_alive = reader.u16(Field::KeepAlive);
        hello.max_body = reader.u16(Field::LargestBody);
        hello.window = reader.varint16(Field::Window);
        hello.names = reader.varint16(Field::TableSize);
        hello.session_expiry = reader.varint(Field::SessionExpiry);
        hello.client_id = reader.text(Field::ClientId);
        if flags & RESUME != 0 {
            hello.resume = Some(Resume {
                session: reader.u64(Field::Session),
                received: reader.u32(Field::Received),
                taken: reader.u32(Field::Taken),
                acknowledged: reader.u32(Field::Acknowledged),
            });
        }
        if flags & WILL != 0 {
            let kind = Kind(reader.u8(Field::WillKind));
            let length = reader.varint(Field::WillLength) as usize;
            let body = reader.take(length, Field::Will);
            match WillFrame::new(kind, body) {
                Ok(will) => hello.will = Some(will),
                Err(malformed) => reader.fail_as(malformed),
            }
        }
        hello
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(MAGIC);
        writer.u8(self.version);
        writer.u8(flag(self.resume.is_some(), RESUME) | flag(self.will.is_some(), WILL));
        writer.u16(self.keep_alive);
        writer.u16(self.max_body);
        writer.varint(self.window.into());
        writer.varint(self.names.into());
        writer.varint(self.session_expiry);
        writer.text(self.client_id);
        if let Some(resume) = &self.resume {
            writer.u64(resume.session);
            writer.u32(resume.received);
            writer.u32(resume.taken);
            writer.u32(resume.acknowledged);
        }
        if let Some(will) = &self.will {
            writer.u8(will.kind.0);
            writer.varint(will.body.len() as u32);
            writer.bytes(will.body);
        }
    }
}

/// The gateway's answer to a good hello: what holds for this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u8,
    /// The session goes on where it stood; else it is a new one.
    pub resumed: bool,
    /// The keep-alive that holds, in seconds; 0 for none.
    pub keep_alive: u16,
    /// The largest frame body that the gateway receives, in bytes.
    pub max_body: u16,
    /// How many numbered frames the device may have unacknowledged at the gateway.
    pub window: u16,
    /// Size of the gateway's table for names that the device announces.
    pub names: u16,
    /// How long the session outlives the connection, in seconds.
    pub session_expiry: u32,
    /// The session's number, for a later resume.
    pub session: u64,
    /// How many of the device's numbered frames the gateway has received in this session.
    pub received: u32,
    /// The gateway's clock, in milliseconds since it started.
    pub clock: u64,
}

const RESUMED: u8 = 1;

impl Welcome {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Self {
        let version = reader.u8(Field::Version);
        let flags = reader.u8(Field::WelcomeFlags);
        reader.reserve(flags, RESUMED, Field::WelcomeReserved);
        Self {
            version,
            resumed: flags & RESUMED != 0,
            keep_alive: reader.u16(Field::KeepAlive),
            max_body: reader.u16(Field::LargestBody),
            window: reader.varint16(Field::Window),
            names: reader.varint16(Field::TableSize),
            session_expiry: reader.varint(Field::SessionExpiry),
            session: reader.u64(Field::Session),
            received: reader.u32(Field::Received),
            clock: reader.u64(Field::Clock),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.version);
        writer.u8(flag(self.resumed, RESUMED));
        writer.u16(self.keep_alive);
        writer.u16(self.max_body);
        writer.varint(self.window.into());
        writer.varint(self.names.into());
        writer.varint(self.session_expiry);
        writer.u64(self.session);
        writer.u32(self.received);
        writer.u64(self.clock);
    }
}
