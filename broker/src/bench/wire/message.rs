//! The generator's messages: encoded once and copied, with the stamp of each and its packet identifier written over.

use bugle_core::mqtt::{EncodedPublish, Properties, Publish, Version};
use bugle_protocol::{
    Frame, NameKind, NameList, NameRef, Publish as DevicePublish, Send as DeviceSend, Target as DeviceTarget,
};

use super::{PREFIX, put_frame, quality};
use crate::bench::BenchError;
use crate::bench::handles::Handles;
use crate::bench::options::Protocol;
use crate::bench::plan::{Send, To};

/// An encoded message, to be copied and stamped.
pub struct Message {
    bytes: Vec<u8>,
    payload_at: usize,
    packet_id_at: Option<usize>,
    /// How many get it.
    pub recipients: u32,
}

impl Message {
    /// Encodes one to be sent many times, with a payload of so many zeroes.
    pub fn new(
        protocol: Protocol,
        send: &Send,
        handles: &Handles,
        payload: u16,
        qos: u8,
    ) -> Result<Self, BenchError> {
        let payload = vec![0; payload.into()];
        let (bytes, packet_id_at) = match protocol {
            Protocol::Mqtt => mqtt_message(&send.to, &payload, qos)?,
            Protocol::Device => (device_message(&send.to, handles, &payload, qos)?, None),
        };
        let payload_at = bytes.len() - payload.len();
        Ok(Self { bytes, payload_at, packet_id_at, recipients: send.recipients })
    }

    /// Appends the message with this stamp; its packet identifier comes from its number.
    pub fn put(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut write = |at: usize, bytes: &[u8]| {
            if let Some(place) = out.get_mut(start + at..start + at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        write(self.payload_at, &stamp.bytes());
        if let Some(at) = self.packet_id_at {
            // 1 to 65535: never twice among the 32768 that may be under way.
            let id = (stamp.number % 65_535 + 1) as u16;
            write(at, &id.to_be_bytes());
        }
    }
}

/// The first bytes of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which stream it is of.
    pub stream: u32,
    /// Its number in the stream, from 0.
    pub number: u32,
    /// When it should have left, in nanoseconds of the generator's clock.
    pub due: u64,
}

impl Stamp {
    pub(super) fn bytes(self) -> [u8; 16] {
        let Self { stream, number, due } = self;
        (u128::from(due) << 64 | u128::from(number) << 32 | u128::from(stream)).to_le_bytes()
    }

    /// Reads it from a payload.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let all = u128::from_le_bytes(payload.get(..16)?.try_into().ok()?);
        Some(Self { stream: all as u32, number: (all >> 32) as u32, due: (all >> 64) as u64 })
    }
}

fn mqtt_message(to: &To, payload: &[u8], qos: u8) -> Result<(Vec<u8>, Option<usize>), BenchError> {
    let topic = match to {
        To::Topic(topic) => topic.clone(),
        To::Client(id) => format!("{PREFIX}/c/{id}"),
        To::Group { name, only, except } => {
            let lists = [("only", only), ("except", except)];
            let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
            let options: Vec<_> = lists.map(|(key, list)| format!("{key}={}", list.join(","))).collect();
            let mark = if options.is_empty() { "" } else { "?" };
            format!("{PREFIX}/g/{name}{mark}{}", options.join("&"))
        }
    };
    let publish = Publish {
        dup: false,
        qos: quality(qos),
        retain: false,
        topic: &topic,
        packet_id: None,
        properties: Properties::EMPTY,
        payload,
    };
    let encoded = EncodedPublish::new(&publish, Version::V311);
    let encoded = encoded.map_err(|error| BenchError::Usage(error.to_string()))?;
    Ok((encoded.as_bytes().to_vec(), encoded.packet_id_at()))
}

fn device_message(to: &To, handles: &Handles, payload: &[u8], qos: u8) -> Result<Vec<u8>, BenchError> {
    let (listed, excluded);
    let target = match to {
        To::Topic(topic) => {
            let topic = handles.refer(NameKind::Topic, topic);
            let publish = DevicePublish { topic, at_least_once: qos > 0, retain: false, payload };
            let mut bytes = Vec::new();
            put_frame(&Frame::Publish(publish), &mut bytes)?;
            return Ok(bytes);
        }
        To::Client(id) => DeviceTarget::Client(handles.refer(NameKind::Client, id)),
        To::Group { name, only, except } => {
            (listed, excluded) = (refs(handles, only), refs(handles, except));
            DeviceTarget::Group {
                group: handles.refer(NameKind::Group, name),
                only: (!listed.is_empty()).then(|| NameList::new(&listed)),
                except: (!excluded.is_empty()).then(|| NameList::new(&excluded)),
            }
        }
    };
    let mut bytes = Vec::new();
    put_frame(&Frame::Send(DeviceSend::new(target, payload)), &mut bytes)?;
    Ok(bytes)
}

fn refs<'a>(handles: &Handles, ids: &'a [String]) -> Vec<NameRef<'a>> {
    ids.iter().map(|id| handles.refer(NameKind::Client, id)).collect()
}
