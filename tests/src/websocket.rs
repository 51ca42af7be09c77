//! A WebSocket that says exactly the frames that a test wants, over any stream.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::soon;

/// Continues a message.
pub const CONTINUATION: u8 = 0;
/// A text message.
pub const TEXT: u8 = 1;
/// A binary message.
pub const BINARY: u8 = 2;
/// Closes.
pub const CLOSE: u8 = 8;
/// Asks for a pong.
pub const PING: u8 = 9;
/// Answers a ping.
pub const PONG: u8 = 10;

/// The key of every request, whose answer RFC 6455 gives.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An open WebSocket, the client's end.
pub struct WebSocket<S> {
    /// What it runs over.
    pub stream: S,
    received: Vec<u8>,
}

/// A request for a WebSocket, with these fields besides those that every one has.
pub fn websocket_request(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A frame of a client, masked.
pub fn websocket_frame(is_final: bool, opcode: u8, body: &[u8]) -> Vec<u8> {
    let mask = [0xA5, 0x5A, 0x0F, 0xF1];
    let mut frame = vec![if is_final { 0x80 | opcode } else { opcode }];
    match body.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for one with the subprotocol `mqtt`, and gets it.
    pub async fn open(stream: S) -> Self {
        Self::try_open(stream).await.unwrap_or_else(|error| panic!("no WebSocket: {error}"))
    }

    /// The same, where the gateway may be gone meanwhile.
    ///
    /// # Errors
    ///
    /// That it ended before its answer.
    pub async fn try_open(stream: S) -> std::io::Result<Self> {
        let mut socket = Self { stream, received: Vec::new() };
        let request = websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
        socket.write(request.as_bytes()).await;
        let end = loop {
            if let Some(end) = socket.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if !socket.read().await {
                let seen = String::from_utf8_lossy(&socket.received).into_owned();
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, seen));
            }
        };
        let answer = String::from_utf8(socket.received.drain(..end).collect()).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        let accept = format!("sec-websocket-accept: {ACCEPT}\r\n").to_ascii_lowercase();
        assert!(answer.contains(&accept) && answer.contains("sec-websocket-protocol: mqtt\r\n"), "{answer}");
        Ok(socket)
    }

    /// Writes bytes. The gateway may have closed meanwhile, which reading will show.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("room to write", self.stream.write_all(bytes)).await;
        let _ = self.stream.flush().await;
    }

    /// Sends a whole message.
    pub async fn send(&mut self, opcode: u8, body: &[u8]) {
        self.write(&websocket_frame(true, opcode, body)).await;
    }

    /// The next frame: its opcode and its body. None at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((start, length)) = frame_length(&self.received)
                && self.received.len() >= start + length
            {
                let frame: Vec<u8> = self.received.drain(..start + length).collect();
                assert_eq!(frame[0] & 0xF0, 0x80, "the gateway sends whole messages");
                return Some((frame[0] & 0x0F, frame[start..].to_vec()));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Data of the next binary messages, at least so many bytes.
    pub async fn data(&mut self, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < length {
            match self.frame().await {
                Some((BINARY, body)) => data.extend(body),
                other => panic!("{other:?} after {data:?}"),
            }
        }
        data
    }

    /// The code of the close frame, which comes next but for data, and then the end.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((opcode, body)) = self.frame().await {
            assert!(code.is_none(), "something after the close: {opcode} {body:?}");
            if opcode == CLOSE {
                code = Some(u16::from_be_bytes([body[0], body[1]]));
            }
        }
        code
    }

    async fn read(&mut self) -> bool {
        // A reset is an end, too.
        soon("bytes or the end", self.stream.read_buf(&mut self.received))
            .await
            .is_ok_and(|length| length > 0)
    }
}

fn frame_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = usize::from(*bytes.get(1)?);
    assert!(second < 128, "a server masks nothing");
    match second {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        length => Some((2, length)),
    }
}
