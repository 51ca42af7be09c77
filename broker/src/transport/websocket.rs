//! One end of a WebSocket (RFC 6455), the server's, without a socket: frames in, the bytes within them out, and back.
//!
//! MQTT is a stream of bytes to a WebSocket [MQTT-6.0.0-2], so no message is put together here: what has come of a
//! frame goes on at once, and an idle WebSocket has no buffer. Refused are text, frames that are larger than they
//! may be (by their header, before anything of them is read), and whatever breaks the RFC. Extensions are not
//! negotiated. Frame headers are read and written by tungstenite.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest header of a frame, in bytes.
const MAX_HEADER: usize = 14;
/// Longest body of a control frame, in bytes (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125;

/// Where a WebSocket is within what its client sends.
#[derive(Debug)]
pub struct WebSocket {
    expect: Expect,
    /// A binary message has begun and not ended: a continuation is to come.
    is_within_message: bool,
    /// Our close frame has gone; nothing else may follow it.
    has_closed: bool,
}

#[derive(Debug)]
enum Expect {
    /// A header, of which these bytes have come.
    Header { bytes: [u8; MAX_HEADER], length: u8 },
    /// The rest of the data of a frame.
    Data { rest: u64, mask: Mask },
    /// The rest of a control frame.
    Control { rest: u64, mask: Mask, kind: Control, body: Vec<u8> },
}

impl Expect {
    const START: Self = Self::Header { bytes: [0; MAX_HEADER], length: 0 };
}

/// Why a WebSocket is at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebSocketEnd {
    /// The client closed it. It has got its answer.
    Closed,
    /// The client broke a rule, and is to be told this code.
    Failed(WebSocketFailure),
}

/// What a client may do wrong once it has its WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketFailure {
    /// A text message: MQTT travels in binary ones [MQTT-6.0.0-1].
    Text,
    /// A frame larger than any packet may be.
    TooLarge,
    /// Something else that the RFC forbids.
    Protocol,
}

impl WebSocketFailure {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Text, Self::TooLarge, Self::Protocol];

    /// The name in metrics and logs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
        }
    }

    /// What the close frame says.
    pub fn code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::TooLarge => CloseCode::Size,
            Self::Protocol => CloseCode::Protocol,
        }
    }
}

/// A mask, turned to where the data is.
#[derive(Clone, Copy, Debug)]
struct Mask([u8; 4]);

impl Mask {
    /// Appends `bytes` without the mask.
    fn remove(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(bytes);
        let mut chunks = out[start..].chunks_exact_mut(4);
        for chunk in &mut chunks {
            for (byte, mask) in chunk.iter_mut().zip(self.0) {
                *byte ^= mask;
            }
        }
        for (byte, mask) in chunks.into_remainder().iter_mut().zip(self.0) {
            *byte ^= mask;
        }
        self.0.rotate_left(bytes.len() % 4);
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { expect: Expect::START, is_within_message: false, has_closed: false }
    }
}

impl WebSocket {
    /// Takes what came. Data of frames is appended to `data`, and what is to be answered (pongs, a close) to `reply`.
    /// After an error nothing more is to be given.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        max_frame: usize,
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), WebSocketEnd> {
        while !bytes.is_empty() {
            self.step(&mut bytes, max_frame, data, reply)?;
        }
        Ok(())
    }

    /// Appends the header of a binary frame for `length` bytes, which are to follow.
    pub fn send_header(&self, length: usize, out: &mut Vec<u8>) {
        put_header(OpCode::Data(Data::Binary), length, out);
    }

    /// Appends a close frame, unless there has been one.
    pub fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_closed, true) {
            put_header(OpCode::Control(Control::Close), 2, out);
            out.extend_from_slice(&u16::from(code).to_be_bytes());
        }
    }

    fn step(
        &mut self,
        bytes: &mut &[u8],
        max_frame: usize,
        data: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(), WebSocketEnd> {
        match &mut self.expect {
            Expect::Header { bytes: start, length } => {
                let had = usize::from(*length);
                let came = bytes.len().min(MAX_HEADER - had);
                start[had..had + came].copy_from_slice(&bytes[..came]);
                let mut cursor = Cursor::new(&start[..had + came]);
                let parsed =
                    FrameHeader::parse(&mut cursor).map_err(|_| failed(WebSocketFailure::Protocol))?;
                let Some((header, size)) = parsed else {
                    *length += came as u8;
                    *bytes = &bytes[came..];
                    return Ok(());
                };
                let used = cursor.position() as usize;
                // A header is never whole before its last byte is there, so `used` is more than `had`.
                *bytes = &bytes[used.saturating_sub(had)..];
                self.begin(&header, size, max_frame)?;
                // A frame may have no body at all.
                self.finish_frame(reply)
            }
            Expect::Data { rest, mask } => {
                let length = take(bytes.len(), *rest);
                mask.remove(&bytes[..length], data);
                *rest -= length as u64;
                *bytes = &bytes[length..];
                self.finish_frame(reply)
            }
            Expect::Control { rest, mask, body, .. } => {
                let length = take(bytes.len(), *rest);
                mask.remove(&bytes[..length], body);
                *rest -= length as u64;
                *bytes = &bytes[length..];
                self.finish_frame(reply)
            }
        }
    }

    /// Judges a header.
    fn begin(&mut self, header: &FrameHeader, size: u64, max_frame: usize) -> Result<(), WebSocketEnd> {
        let protocol = Err(failed(WebSocketFailure::Protocol));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return protocol;
        }
        // A client has to mask what it sends (RFC 6455, 5.1).
        let Some(mask) = header.mask.map(Mask) else { return protocol };
        match header.opcode {
            OpCode::Control(kind) => {
                if !header.is_final || size > MAX_CONTROL {
                    return protocol;
                }
                self.expect = Expect::Control { rest: size, mask, kind, body: Vec::new() };
            }
            OpCode::Data(Data::Text) => return Err(failed(WebSocketFailure::Text)),
            OpCode::Data(kind) => {
                if (kind == Data::Continue) != self.is_within_message {
                    return protocol;
                }
                if size > max_frame as u64 {
                    return Err(failed(WebSocketFailure::TooLarge));
                }
                self.is_within_message = !header.is_final;
                self.expect = Expect::Data { rest: size, mask };
            }
        }
        Ok(())
    }

    /// Goes on to the next frame if this one is whole.
    fn finish_frame(&mut self, reply: &mut Vec<u8>) -> Result<(), WebSocketEnd> {
        match &mut self.expect {
            Expect::Data { rest: 0, .. } => self.expect = Expect::START,
            Expect::Control { rest: 0, kind, body, .. } => {
                let (kind, body) = (*kind, std::mem::take(body));
                self.expect = Expect::START;
                match kind {
                    Control::Ping if !self.has_closed => {
                        put_header(OpCode::Control(Control::Pong), body.len(), reply);
                        reply.extend_from_slice(&body);
                    }
                    Control::Close => {
                        self.close(echoed(&body)?, reply);
                        return Err(WebSocketEnd::Closed);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The code that answers a close frame with this body (RFC 6455, 5.5.1 and 7.4).
fn echoed(body: &[u8]) -> Result<CloseCode, WebSocketEnd> {
    let code = match body {
        [] => return Ok(CloseCode::Normal),
        [one, two, reason @ ..] if std::str::from_utf8(reason).is_ok() => u16::from_be_bytes([*one, *two]),
        _ => return Err(failed(WebSocketFailure::Protocol)),
    };
    let code = CloseCode::from(code);
    if code.is_allowed() { Ok(code) } else { Err(failed(WebSocketFailure::Protocol)) }
}

fn failed(why: WebSocketFailure) -> WebSocketEnd {
    WebSocketEnd::Failed(why)
}

fn take(length: usize, rest: u64) -> usize {
    usize::try_from(rest).map_or(length, |rest| rest.min(length))
}

fn put_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec can't fail.
    let _ = header.format(length as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 70_000;

    /// A frame as a client sends it.
    fn frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut bytes = vec![first];
        match body.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// What comes of `bytes`, given `step` at a time.
    fn received(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, Result<(), WebSocketEnd>) {
        let mut socket = WebSocket::default();
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            if let Err(end) = socket.receive(chunk, MAX, &mut data, &mut reply) {
                return (data, reply, Err(end));
            }
        }
        (data, reply, Ok(()))
    }

    #[test]
    fn data_comes_out_however_it_is_cut() {
        let long: Vec<u8> = (0..66_000_u32).map(|number| number as u8).collect();
        let frames = [
            frame(0x82, b"one"),
            frame(0x02, b"tw"),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"o"),
            frame(0x8A, b"unasked"),
            frame(0x82, &long[..300]),
            frame(0x82, &long),
        ];
        let expected = [b"onetwo".as_slice(), &long[..300], &long].concat();
        for step in [1, 2, 3, 5, 7, 11, 13, 100, usize::MAX] {
            let (data, reply, end) = received(&frames.concat(), step);
            assert!(end.is_ok() && data == expected, "by {step}");
            assert_eq!(reply, b"\x8A\x0Dare you there");
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused_with_the_code_that_fits() {
        use WebSocketFailure::{Protocol, Text, TooLarge};
        let unmasked = b"\x82\x01a".to_vec();
        let endless = b"\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00\x00\x00\x00".to_vec();
        let cases = [
            ("text", frame(0x81, b"hello"), Text),
            ("text in fragments", frame(0x01, b"hel"), Text),
            ("unmasked", unmasked, Protocol),
            ("a reserved bit", frame(0xC2, b"a"), Protocol),
            ("a reserved opcode", frame(0x83, b"a"), Protocol),
            ("a reserved control frame", frame(0x8B, b""), Protocol),
            ("a control frame in fragments", frame(0x09, b"a"), Protocol),
            ("a long control frame", frame(0x89, &[0; 126]), Protocol),
            ("a continuation of nothing", frame(0x80, b"a"), Protocol),
            ("a message within another", [frame(0x02, b"a"), frame(0x82, b"b")].concat(), Protocol),
            ("a close code of one byte", frame(0x88, b"\x03"), Protocol),
            ("a close code that may not be sent", frame(0x88, b"\x03\xED"), Protocol),
            ("a close reason that is no text", frame(0x88, b"\x03\xE8\xFF"), Protocol),
            ("a large frame", frame(0x82, &vec![0; MAX + 1]), TooLarge),
            ("an endless frame", endless, TooLarge),
        ];
        for (name, bytes, failure) in cases {
            for step in [1, usize::MAX] {
                let (_, _, end) = received(&bytes, step);
                assert_eq!(end, Err(WebSocketEnd::Failed(failure)), "{name}");
            }
        }
        assert_eq!(u16::from(Text.code()), 1003);
        assert_eq!(u16::from(TooLarge.code()), 1009);
        assert_eq!(u16::from(Protocol.code()), 1002);
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_by_its_header() {
        let large = frame(0x82, &vec![0; MAX + 1]);
        let mut socket = WebSocket::default();
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        let end = socket.receive(&large[..14], MAX, &mut data, &mut reply);
        assert_eq!(end, Err(WebSocketEnd::Failed(WebSocketFailure::TooLarge)));
        assert_eq!(data.capacity(), 0);
    }

    #[test]
    fn a_close_is_answered_once() {
        let (_, reply, end) = received(&frame(0x88, b"\x03\xE9bye"), 1);
        assert_eq!((reply.as_slice(), end), (b"\x88\x02\x03\xE9".as_slice(), Err(WebSocketEnd::Closed)));
        let (_, reply, end) = received(&frame(0x88, b""), 1);
        assert_eq!((reply.as_slice(), end), (b"\x88\x02\x03\xE8".as_slice(), Err(WebSocketEnd::Closed)));

        let mut socket = WebSocket::default();
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        socket.close(CloseCode::Away, &mut reply);
        socket.close(CloseCode::Normal, &mut reply);
        let mut answers = Vec::new();
        socket.receive(&frame(0x89, b"late"), MAX, &mut data, &mut answers).unwrap();
        let end = socket.receive(&frame(0x88, b"\x03\xE9"), MAX, &mut data, &mut answers);
        assert_eq!((reply.as_slice(), end), (b"\x88\x02\x03\xE9".as_slice(), Err(WebSocketEnd::Closed)));
        assert_eq!(answers, b"");
    }

    #[test]
    fn tungstenite_reads_what_is_sent() {
        use tungstenite::protocol::{Message, Role, WebSocket as Other};

        let socket = WebSocket::default();
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            socket.send_header(length, &mut bytes);
            bytes.extend(vec![7; length]);
        }
        let mut other = Other::from_raw_socket(Cursor::new(bytes), Role::Client, None);
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            assert_eq!(other.read().unwrap(), Message::binary(vec![7; length]));
        }
    }

    #[test]
    fn an_idle_websocket_is_small() {
        assert!(size_of::<WebSocket>() <= 64, "{}", size_of::<WebSocket>());
    }
}
