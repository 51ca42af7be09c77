//! A client that says exactly the bytes that a test wants, in MQTT or in the device framing.

use bugle_protocol::{Frame, Hello, VERSION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Gateway, soon};

/// A socket, and what it has brought.
pub struct RawClient {
    /// The socket.
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    /// Connects, and writes `bytes`.
    pub async fn open(gateway: &Gateway, bytes: &[u8]) -> Self {
        let mut client = Self::on(gateway.connect().await);
        client.write(bytes).await;
        client
    }

    /// On this socket.
    pub fn on(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Writes bytes. The gateway may have closed meanwhile, which reading will show.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("room to write", self.stream.write_all(bytes)).await;
    }

    /// The next MQTT packet: its first byte and its body. None at the end.
    pub async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((length, header)) = packet_length(&self.received)
                && self.received.len() >= header + length
            {
                let packet: Vec<u8> = self.received.drain(..header + length).collect();
                return Some((packet[0], packet[header..].to_vec()));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// All that comes until the gateway closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.received)
    }

    async fn read(&mut self) -> bool {
        // A reset is an end, too.
        soon("bytes or the end", self.stream.read_buf(&mut self.received))
            .await
            .is_ok_and(|length| length > 0)
    }
}

/// The next MQTT packet of any stream: its first byte and its body. None at the end. Reads no further.
pub async fn mqtt_packet(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut header = Vec::new();
    let length = loop {
        header.push(soon("a packet or the end", stream.read_u8()).await.ok()?);
        if let Some((length, _)) = packet_length(&header) {
            break length;
        }
    };
    let mut body = vec![0; length];
    soon("the rest of a packet", stream.read_exact(&mut body)).await.ok()?;
    Some((header[0], body))
}

fn packet_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, index + 2));
        }
    }
    None
}

/// An MQTT packet of these parts, whatever they are.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first];
    let mut length = body.len();
    while {
        let more = length > 0x7F;
        packet.push((length & 0x7F) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        more
    } {}
    packet.extend(body);
    packet
}

/// A string as MQTT has it: its length, and its bytes.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// CONNECT with a clean session, in version 4 (3.1.1) or 5.
pub fn connect_packet(version: u8, id: &str, keep_alive: u16) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x10, &[&text("MQTT"), &[version, 0x02], &keep_alive.to_be_bytes(), properties, &text(id)])
}

/// CONNECT of version 4 with a will, of QoS 1 and not retained.
pub fn connect_packet_with_will(id: &str, topic: &str, payload: &str) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[4, 0x0E, 0, 0], &text(id), &text(topic), &text(payload)])
}

/// SUBSCRIBE with packet identifier 1.
pub fn subscribe_packet(version: u8, filter: &str, qos: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x82, &[&[0, 1], properties, &text(filter), &[qos]])
}

/// PUBLISH with QoS 0.
pub fn publish_packet(version: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x30, &[&text(topic), properties, payload])
}

/// The reason code of the DISCONNECT in `bytes`, of version 5.
pub fn disconnect_reason(packet: &Option<(u8, Vec<u8>)>) -> Option<u8> {
    match packet {
        Some((0xE0, body)) => body.first().copied(),
        _ => None,
    }
}

/// HELLO of a device.
pub fn device_hello(id: &str, keep_alive: u16) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        keep_alive,
        max_body: 512,
        window: 4,
        names: 8,
        session_expiry: 0,
        client_id: id,
        resume: None,
        will: None,
    };
    let frame = Frame::Hello(hello);
    let mut bytes = vec![0; frame.encoded_len()];
    frame.encode(&mut bytes).unwrap();
    bytes
}
