//! Which protocol, and which client: as much of the first packet as is needed to find the shard that owns the
//! client. The session reads it again in full.

use bugle_protocol::{FIRST_BYTE, Frame, MAX_BODY, VERSION};

use super::Protocol;
use crate::model::Limits;
use crate::mqtt::{self, Packet};

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    /// More bytes are needed.
    Partial,
    /// A session of `protocol` is to have these bytes.
    Client {
        /// Which protocol it is.
        protocol: Protocol,
        /// The client id, whose owner is to have the session. None where any shard will do: the gateway is to
        /// choose the id, or the packet is wrong and the session will say so.
        client_id: Option<String>,
    },
    /// Neither protocol: close the connection.
    Unknown,
}

/// Looks at all bytes that a connection has brought so far.
pub fn first_packet(bytes: &[u8], limits: &Limits) -> FirstPacket {
    match bytes.first() {
        None => FirstPacket::Partial,
        Some(&FIRST_BYTE) => device(bytes),
        Some(0x10) => mqtt(bytes, limits),
        Some(_) => FirstPacket::Unknown,
    }
}

fn device(bytes: &[u8]) -> FirstPacket {
    let client = |client_id| FirstPacket::Client { protocol: Protocol::Device, client_id };
    match bugle_protocol::split(bytes, MAX_BODY) {
        Ok(None) => FirstPacket::Partial,
        Ok(Some(raw)) => match raw.decode() {
            Ok(Frame::Hello(hello)) if hello.version == VERSION => client(Some(hello.client_id.to_owned())),
            _ => client(None),
        },
        Err(_) => client(None),
    }
}

fn mqtt(bytes: &[u8], limits: &Limits) -> FirstPacket {
    let client = |client_id| FirstPacket::Client { protocol: Protocol::Mqtt, client_id };
    let length = match mqtt::frame_length(bytes) {
        Ok(None) => return FirstPacket::Partial,
        Ok(Some(length)) if length <= limits.max_packet => length,
        Ok(Some(_)) | Err(_) => return client(None),
    };
    match bytes.get(..length).map(|frame| mqtt::decode(frame, mqtt::Version::V5)) {
        None => FirstPacket::Partial,
        Some(Ok(Packet::Connect(connect))) if !connect.client_id.is_empty() => {
            client(Some(connect.client_id.to_owned()))
        }
        Some(_) => client(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocol() {
        let limits = Limits::default();
        let connect = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x0a\x00\x06lamp-1";
        let expected = FirstPacket::Client { protocol: Protocol::Mqtt, client_id: Some("lamp-1".into()) };
        assert_eq!(first_packet(connect, &limits), expected);
        for cut in 0..connect.len() {
            assert_eq!(first_packet(&connect[..cut], &limits), FirstPacket::Partial);
        }
        let hello = b"\x0b\x12BG\x01\x00\x00\x3c\x20\x00\x08\x10\x00\x06lamp-1";
        let expected = FirstPacket::Client { protocol: Protocol::Device, client_id: Some("lamp-1".into()) };
        assert_eq!(first_packet(hello, &limits), expected);
        for other in [b"GET / HTTP/1.1\r\n".as_slice(), b"\x16\x03\x01\x00", b"\x00", b"\x30\x00"] {
            assert_eq!(first_packet(other, &limits), FirstPacket::Unknown);
        }
    }
}
