//! The bytes of the generator's two languages, MQTT 3.1.1 and the framing of devices (docs/protocol.md).
//!
//! What comes in is walked by length prefixes and not otherwise checked: only what the count needs is looked at. What
//! is sent is in [`message`].

use std::num::NonZeroU16;

use bugle_core::mqtt::{
    Connect, Packet, Properties, Publish, QoS, Subscribe, SubscriptionOptions, Version, encode, frame_length,
};
use bugle_protocol::{Frame, Hello, Kind, MAX_BODY, NameRef, Publish as DevicePublish, VERSION, split};

use super::BenchError;
use super::handles::Handles;
use super::options::Protocol;
use super::plan::Subscription;

mod message;

pub use message::{Message, Stamp};

/// Seconds; longer than a measurement, since the generator sends no pings. Not 0, which some brokers refuse.
pub const KEEP_ALIVE: u16 = 3600;
/// Frames that a device lets come unacknowledged; it acknowledges at every read.
const DEVICE_WINDOW: u16 = 1024;
/// Names that the gateway may announce to a device, for a few groups and senders. The generator counts without them.
const DEVICE_NAMES: u16 = 8;
/// Topic filters subscribed to in one go: within the window that the gateway gives a device.
const FILTERS_AT_ONCE: usize = 16;
/// The prefix of signals (T1).
const PREFIX: &str = "sig";

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The connection is good.
    Connected(Terms),
    /// A subscription is good.
    Subscribed,
    /// A message.
    Message(&'a [u8]),
    /// So many messages, or joins and subscriptions of a device, are acknowledged.
    Acknowledged(u32),
    /// Something was refused.
    Refused(String),
}

/// What the broker grants a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The sender may have so many messages unacknowledged, if that is limited.
    pub window: Option<u32>,
    /// The sender may announce so many names.
    pub names: u16,
}

/// One end of a connection. It holds no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Wire(pub Protocol);

impl Wire {
    /// Tells the events of the whole packets in `input`, puts the acknowledgements that they need to `out`, and says
    /// how many bytes they took.
    pub fn walk(
        self,
        input: &[u8],
        out: &mut Vec<u8>,
        on: impl FnMut(Event<'_>),
    ) -> Result<usize, BenchError> {
        match self.0 {
            Protocol::Mqtt => walk_mqtt(input, out, on),
            Protocol::Device => walk_device(input, out, on),
        }
    }

    /// The first packet. `lasting`: the session outlives the connection, in MQTT.
    pub fn connect(
        self,
        id: &str,
        keep_alive: u16,
        lasting: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        match self.0 {
            Protocol::Mqtt => {
                let connect = Connect {
                    version: Version::V311,
                    client_id: id,
                    clean_start: !lasting,
                    keep_alive,
                    username: None,
                    password: None,
                    will: None,
                    properties: Properties::EMPTY,
                };
                put_packet(&Packet::Connect(connect), out)
            }
            Protocol::Device => {
                let hello = Hello {
                    version: VERSION,
                    keep_alive,
                    max_body: MAX_BODY as u16,
                    window: DEVICE_WINDOW,
                    names: DEVICE_NAMES,
                    session_expiry: 0,
                    client_id: id,
                    resume: None,
                    will: None,
                };
                put_frame(&Frame::Hello(hello), out)
            }
        }
    }

    /// Subscribes, by requests that are sent one after the other's answer; none where this protocol needs none.
    pub fn subscribe(
        self,
        id: &str,
        subscription: &Subscription,
        qos: u8,
    ) -> Result<Vec<Request>, BenchError> {
        let single;
        let filter = match (subscription, self.0) {
            (Subscription::Group(group), Protocol::Device) => {
                return Ok(vec![Request::of(&[Frame::Join { group: NameRef::Inline(group) }])?]);
            }
            (Subscription::Inbox | Subscription::Answers, Protocol::Device) => return Ok(Vec::new()),
            (Subscription::Filters(filters), _) => return self.subscribe_to(filters, qos),
            (Subscription::Topic(filter), _) => filter,
            (Subscription::Group(group), Protocol::Mqtt) => {
                single = format!("{PREFIX}/g/{group}");
                &single
            }
            (Subscription::Inbox, Protocol::Mqtt) => {
                single = format!("{PREFIX}/c/{id}");
                &single
            }
            (Subscription::Answers, Protocol::Mqtt) => {
                single = format!("{PREFIX}/r/{id}");
                &single
            }
        };
        self.subscribe_to(std::slice::from_ref(filter), qos)
    }

    fn subscribe_to(self, filters: &[String], qos: u8) -> Result<Vec<Request>, BenchError> {
        let requests = filters.chunks(FILTERS_AT_ONCE).map(|filters| {
            if self.0 == Protocol::Device {
                let subscribe = |filter| Frame::Subscribe { at_least_once: qos > 0, filter };
                let frames: Vec<_> = filters.iter().map(|filter| subscribe(filter)).collect();
                return Request::of(&frames);
            }
            let options = SubscriptionOptions::new(quality(qos));
            let subscriptions: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
            let packet = Subscribe {
                packet_id: NonZeroU16::MIN,
                properties: Properties::EMPTY,
                subscriptions: subscriptions.as_slice().into(),
            };
            let mut bytes = Vec::new();
            put_packet(&Packet::Subscribe(packet), &mut bytes)?;
            Ok(Request { bytes, answers: 1 })
        });
        requests.collect()
    }

    /// Announces names; MQTT has none.
    pub fn announce(self, handles: &Handles) -> Result<Request, BenchError> {
        Request::of(&handles.frames().collect::<Vec<_>>())
    }

    /// A message at QoS 1 that the broker is to keep, or an empty one that takes it back.
    pub fn retain(
        self,
        topic: &str,
        payload: &[u8],
        packet_id: NonZeroU16,
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        if self.0 == Protocol::Device {
            let topic = NameRef::Inline(topic);
            let publish = DevicePublish { topic, at_least_once: true, retain: true, payload };
            return put_frame(&Frame::Publish(publish), out);
        }
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic,
            packet_id: Some(packet_id),
            properties: Properties::EMPTY,
            payload,
        };
        put_packet(&Packet::Publish(publish), out)
    }

    /// Whether the broker acknowledges messages to their sender.
    pub fn acknowledges(self, qos: u8) -> bool {
        qos > 0 || self.0 == Protocol::Device
    }
}

/// What is asked before the load begins, with how many answers are to be waited for.
#[derive(Debug, Default)]
pub struct Request {
    /// The packets.
    pub bytes: Vec<u8>,
    /// Subscriptions that are confirmed, or numbered frames acknowledged.
    pub answers: u32,
}

impl Request {
    fn of(frames: &[Frame<'_>]) -> Result<Self, BenchError> {
        let mut bytes = Vec::new();
        frames.iter().try_for_each(|frame| put_frame(frame, &mut bytes))?;
        Ok(Self { bytes, answers: frames.len() as u32 })
    }
}

fn quality(qos: u8) -> QoS {
    if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

fn put_packet(packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), BenchError> {
    encode(packet, Version::V311, out).map_err(|error| BenchError::Usage(error.to_string()))
}

fn put_frame(frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), BenchError> {
    let start = out.len();
    out.resize(start + frame.encoded_len(), 0);
    let written = frame.encode(&mut out[start..]);
    written.map(drop).map_err(|_| BenchError::Usage("a frame does not fit its own length".to_owned()))
}

fn unreadable() -> BenchError {
    BenchError::Broker("sent a packet that can't be read".to_owned())
}

fn walk_mqtt(input: &[u8], out: &mut Vec<u8>, mut on: impl FnMut(Event<'_>)) -> Result<usize, BenchError> {
    let mut taken = 0;
    loop {
        let rest = &input[taken..];
        let Some(length) = frame_length(rest).map_err(|_| unreadable())? else { return Ok(taken) };
        let Some(packet) = rest.get(..length) else { return Ok(taken) };
        taken += length;
        let first = packet[0];
        match first >> 4 {
            PUBLISH => {
                let payload = publish_payload(packet, first & 0b110 != 0, out).ok_or_else(unreadable)?;
                on(Event::Message(payload));
            }
            PUBACK => on(Event::Acknowledged(1)),
            CONNACK => match packet.get(3) {
                Some(0) => on(Event::Connected(Terms::default())),
                code => on(Event::Refused(format!("the connection, with return code {code:?}"))),
            },
            // Behind the packet identifier; with few filters, the length takes one byte.
            SUBACK => match packet.get(4..).and_then(|codes| codes.iter().find(|&&code| code > 2)) {
                None => on(Event::Subscribed),
                code => on(Event::Refused(format!("a subscription, with return code {code:?}"))),
            },
            _ => {}
        }
    }
}

/// The payload of a PUBLISH; one with an identifier is acknowledged.
fn publish_payload<'a>(packet: &'a [u8], has_id: bool, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let length_bytes = packet.get(1..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let body = packet.get(1 + length_bytes..)?;
    let (topic_length, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic_length))..)?;
    if !has_id {
        return Some(rest);
    }
    let (&[high, low], payload) = rest.split_first_chunk::<2>()?;
    out.extend_from_slice(&[PUBACK << 4, 2, high, low]);
    Some(payload)
}

fn walk_device(input: &[u8], out: &mut Vec<u8>, mut on: impl FnMut(Event<'_>)) -> Result<usize, BenchError> {
    let mut taken = 0;
    let mut numbered = 0;
    while let Some(raw) = split(&input[taken..], MAX_BODY).map_err(|_| unreadable())? {
        taken += raw.length;
        numbered += u32::from(raw.kind.is_numbered());
        if matches!(raw.kind, Kind::NAME | Kind::RECEIPT) {
            continue;
        }
        match raw.decode() {
            Ok(Frame::Delivery(delivery)) => on(Event::Message(delivery.payload)),
            Ok(Frame::Message(message)) => on(Event::Message(message.payload)),
            Ok(Frame::Ack { frames }) => on(Event::Acknowledged(frames)),
            Ok(Frame::Welcome(welcome)) => {
                on(Event::Connected(Terms { window: Some(welcome.window.into()), names: welcome.names }));
            }
            Ok(Frame::Refused { reason, text, .. }) => on(Event::Refused(format!("{reason:?}: {text}"))),
            Ok(Frame::Bye { reason, text }) => {
                on(Event::Refused(format!("the connection, {reason:?}: {text}")))
            }
            Ok(Frame::Challenge { .. }) => {
                on(Event::Refused(
                    "the connection: it wants credentials, which the generator has none of".to_owned(),
                ));
            }
            Ok(Frame::Ping { token }) => {
                put_frame(&Frame::Pong { clock: token.map(|token| (token, 0)) }, out)?;
            }
            Ok(_) => {}
            Err(_) => return Err(unreadable()),
        }
    }
    if numbered > 0 {
        put_frame(&Frame::Ack { frames: numbered }, out)?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests;
