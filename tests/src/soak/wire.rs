//! One MQTT connection as an app has it, in rumqttc's codec: version 3.1.1 or 5, over TCP or a WebSocket.

use std::io;
use std::net::Ipv4Addr;

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{self as mqttbytes5, v5};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::Version;
use crate::websocket::{BINARY, CLOSE, WebSocket, websocket_frame};

/// Largest packet, in bytes.
const MAX_PACKET: usize = 1 << 20;

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// The connection is good.
    Connected { session_present: bool },
    /// A message.
    Publish { topic: String, payload: Bytes, qos: u8, packet_id: u16, dup: bool },
    /// PUBACK, or a PUBREC that refuses: with the code of a refusal.
    Acknowledged { packet_id: u16, refused: Option<String> },
    /// PUBREC.
    Received { packet_id: u16 },
    /// PUBREL.
    Released { packet_id: u16 },
    /// PUBCOMP.
    Completed { packet_id: u16 },
    /// SUBACK, and whether everything was granted.
    Subscribed { granted: bool },
    /// Nothing to be done.
    Other,
}

/// What is sent.
#[derive(Debug)]
pub enum Outgoing<'a> {
    Connect { id: &'a str, keep_alive: u16 },
    Subscribe { filters: &'a [(String, u8)] },
    Publish { topic: &'a str, payload: Bytes, qos: u8, packet_id: u16, dup: bool },
    Acknowledge { packet_id: u16 },
    Receive { packet_id: u16 },
    Release { packet_id: u16 },
    Complete { packet_id: u16 },
    Ping,
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    version: Version,
    in_websocket: bool,
    /// Bytes of TCP, where they are in a WebSocket.
    framed: BytesMut,
    /// Bytes of MQTT.
    received: BytesMut,
    packet: BytesMut,
    out: BytesMut,
}

fn broken(error: impl std::fmt::Debug) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}"))
}

impl Wire {
    /// To this port of the loopback.
    pub async fn open(port: u16, version: Version, in_websocket: bool) -> io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        if in_websocket {
            stream = WebSocket::try_open(stream).await?.stream;
        }
        let [framed, received, packet, out] = [(); 4].map(|()| BytesMut::new());
        Ok(Self { stream, version, in_websocket, framed, received, packet, out })
    }

    /// Ends with a reset instead of a farewell.
    pub fn reset(self) {
        // Should it fail, it ends with a farewell.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Bytes that TCP hasn't taken yet.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Puts a packet to what is to be written.
    pub fn put(&mut self, packet: Outgoing<'_>) -> io::Result<()> {
        self.packet.clear();
        match self.version {
            Version::V311 => v311(packet).write(&mut self.packet, MAX_PACKET).map_err(broken)?,
            Version::V5 => v5(packet).write(&mut self.packet, None).map_err(broken)?,
        };
        if self.in_websocket {
            self.out.extend_from_slice(&websocket_frame(true, BINARY, &self.packet));
        } else {
            self.out.extend_from_slice(&self.packet);
        }
        Ok(())
    }

    /// Writes what there is and reads what comes, whichever is ready first. Cancel-safe.
    pub async fn turn(&mut self, reads: bool) -> io::Result<()> {
        let interest = match (reads, self.out.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, false) => Interest::WRITABLE,
            (false, true) => return std::future::pending().await,
        };
        let ready = self.stream.ready(interest).await?;
        if ready.is_writable() && !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(length) => self.out.advance(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if ready.is_readable() && reads {
            let into = if self.in_websocket { &mut self.framed } else { &mut self.received };
            into.reserve(16 * 1024);
            match self.stream.try_read_buf(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.unframe()?;
        }
        Ok(())
    }

    /// Takes whole frames out of their WebSocket.
    fn unframe(&mut self) -> io::Result<()> {
        while self.in_websocket {
            let [first, length, ..] = self.framed[..] else { break };
            let (header, length) = match length {
                126 if self.framed.len() >= 4 => {
                    (4, usize::from(u16::from_be_bytes([self.framed[2], self.framed[3]])))
                }
                126 => break,
                127 => return Err(broken("a frame of more than 64 KiB")),
                length => (2, usize::from(length)),
            };
            if self.framed.len() < header + length {
                break;
            }
            if first & 0x0F == CLOSE {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.framed.advance(header);
            let body = self.framed.split_to(length);
            if first & 0x0F <= BINARY {
                self.received.extend_from_slice(&body);
            }
        }
        Ok(())
    }

    /// The next packet of what has come.
    pub fn next(&mut self) -> io::Result<Option<Incoming>> {
        match self.version {
            Version::V311 => match v4::Packet::read(&mut self.received, MAX_PACKET) {
                Ok(packet) => Ok(Some(of_v311(packet))),
                Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(broken(error)),
            },
            Version::V5 => match v5::Packet::read(&mut self.received, None) {
                Ok(packet) => Ok(Some(of_v5(packet))),
                Err(mqttbytes5::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(broken(error)),
            },
        }
    }
}

fn qos(level: u8) -> mqttbytes::QoS {
    mqttbytes::qos(level).unwrap_or(mqttbytes::QoS::AtMostOnce)
}

fn qos5(level: u8) -> mqttbytes5::QoS {
    mqttbytes5::qos(level).unwrap_or(mqttbytes5::QoS::AtMostOnce)
}

fn v311(packet: Outgoing<'_>) -> v4::Packet {
    match packet {
        Outgoing::Connect { id, keep_alive } => {
            let mut connect = v4::Connect::new(id);
            (connect.clean_session, connect.keep_alive) = (false, keep_alive);
            v4::Packet::Connect(connect)
        }
        Outgoing::Subscribe { filters } => {
            let filters =
                filters.iter().map(|(path, level)| v4::SubscribeFilter::new(path.clone(), qos(*level)));
            let mut subscribe = v4::Subscribe::new_many(filters);
            subscribe.pkid = u16::MAX;
            v4::Packet::Subscribe(subscribe)
        }
        Outgoing::Publish { topic, payload, qos: level, packet_id, dup } => {
            let mut publish = v4::Publish::from_bytes(topic, qos(level), payload);
            (publish.pkid, publish.dup) = (packet_id, dup);
            v4::Packet::Publish(publish)
        }
        Outgoing::Acknowledge { packet_id } => v4::Packet::PubAck(v4::PubAck::new(packet_id)),
        Outgoing::Receive { packet_id } => v4::Packet::PubRec(v4::PubRec::new(packet_id)),
        Outgoing::Release { packet_id } => v4::Packet::PubRel(v4::PubRel::new(packet_id)),
        Outgoing::Complete { packet_id } => v4::Packet::PubComp(v4::PubComp::new(packet_id)),
        Outgoing::Ping => v4::Packet::PingReq,
    }
}

fn v5(packet: Outgoing<'_>) -> v5::Packet {
    match packet {
        Outgoing::Connect { id, keep_alive } => {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval = Some(86_400);
            let connect = v5::Connect {
                keep_alive,
                client_id: id.to_owned(),
                clean_start: false,
                properties: Some(properties),
            };
            v5::Packet::Connect(connect, None, None)
        }
        Outgoing::Subscribe { filters } => {
            let filters = filters.iter().map(|(path, level)| v5::Filter::new(path.clone(), qos5(*level)));
            let mut subscribe = v5::Subscribe::new_many(filters, None);
            subscribe.pkid = u16::MAX;
            v5::Packet::Subscribe(subscribe)
        }
        Outgoing::Publish { topic, payload, qos: level, packet_id, dup } => {
            let mut publish = v5::Publish::new(topic, qos5(level), payload, None);
            (publish.pkid, publish.dup) = (packet_id, dup);
            v5::Packet::Publish(publish)
        }
        Outgoing::Acknowledge { packet_id } => v5::Packet::PubAck(v5::PubAck::new(packet_id, None)),
        Outgoing::Receive { packet_id } => v5::Packet::PubRec(v5::PubRec::new(packet_id, None)),
        Outgoing::Release { packet_id } => v5::Packet::PubRel(v5::PubRel::new(packet_id, None)),
        Outgoing::Complete { packet_id } => v5::Packet::PubComp(v5::PubComp::new(packet_id, None)),
        Outgoing::Ping => v5::Packet::PingReq(v5::PingReq),
    }
}

fn of_v311(packet: v4::Packet) -> Incoming {
    match packet {
        v4::Packet::ConnAck(ack) if ack.code == v4::ConnectReturnCode::Success => {
            Incoming::Connected { session_present: ack.session_present }
        }
        v4::Packet::Publish(publish) => Incoming::Publish {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos as u8,
            packet_id: publish.pkid,
            dup: publish.dup,
        },
        v4::Packet::PubAck(ack) => Incoming::Acknowledged { packet_id: ack.pkid, refused: None },
        v4::Packet::PubRec(received) => Incoming::Received { packet_id: received.pkid },
        v4::Packet::PubRel(release) => Incoming::Released { packet_id: release.pkid },
        v4::Packet::PubComp(complete) => Incoming::Completed { packet_id: complete.pkid },
        v4::Packet::SubAck(ack) => {
            let granted = ack.return_codes.iter().all(|code| *code != v4::SubscribeReasonCode::Failure);
            Incoming::Subscribed { granted }
        }
        _ => Incoming::Other,
    }
}

fn of_v5(packet: v5::Packet) -> Incoming {
    let code = |reason: String, properties: Option<Vec<(String, String)>>| {
        let properties = properties.unwrap_or_default();
        properties.into_iter().find(|(key, _)| key == "code").map_or(reason, |(_, value)| value)
    };
    match packet {
        v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
            Incoming::Connected { session_present: ack.session_present }
        }
        v5::Packet::Publish(publish) => Incoming::Publish {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            qos: publish.qos as u8,
            packet_id: publish.pkid,
            dup: publish.dup,
        },
        v5::Packet::PubAck(ack) => {
            let is_good =
                matches!(ack.reason, v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers);
            let properties = ack.properties.map(|properties| properties.user_properties);
            let refused = (!is_good).then(|| code(format!("{:?}", ack.reason), properties));
            Incoming::Acknowledged { packet_id: ack.pkid, refused }
        }
        v5::Packet::PubRec(ack) => {
            let is_good =
                matches!(ack.reason, v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers);
            let properties = ack.properties.map(|properties| properties.user_properties);
            if is_good {
                Incoming::Received { packet_id: ack.pkid }
            } else {
                let refused = Some(code(format!("{:?}", ack.reason), properties));
                Incoming::Acknowledged { packet_id: ack.pkid, refused }
            }
        }
        v5::Packet::PubRel(release) => Incoming::Released { packet_id: release.pkid },
        v5::Packet::PubComp(complete) => Incoming::Completed { packet_id: complete.pkid },
        v5::Packet::SubAck(ack) => {
            let granted =
                ack.return_codes.iter().all(|code| matches!(code, v5::SubscribeReasonCode::Success(_)));
            Incoming::Subscribed { granted }
        }
        _ => Incoming::Other,
    }
}
