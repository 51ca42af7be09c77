//! The upgrade to a WebSocket and what comes through one: any bytes, cut anywhere, come to the same; nothing is answered
//! twice, and no data is made up. An input that begins with a capital letter is a request, any other is frames.
#![no_main]
#![allow(dead_code, reason = "the process uses what this doesn't")]

// These two files need nothing of the process.
#[path = "../../../broker/src/transport/upgrade.rs"]
mod upgrade;
#[path = "../../../broker/src/transport/websocket.rs"]
mod websocket;

use libfuzzer_sys::fuzz_target;
use upgrade::{MAX_HEAD, Origins, Upgrade, refusal, upgrade as judge};
use websocket::{WebSocket, WebSocketEnd};

const MAX_FRAME: usize = 1000;

fuzz_target!(|input: &[u8]| match input.first() {
    Some(b'A'..=b'Z') => check_request(input),
    Some(_) => check_frames(&input[1..], usize::from(input[0])),
    None => {}
});

fn check_request(input: &[u8]) {
    let whole = judge(input, &Origins::Local);
    let mut decided = false;
    for cut in (0..input.len()).rev().take(300).rev() {
        match judge(&input[..cut], &Origins::Local) {
            Upgrade::Partial => assert!(!decided, "it was decided before"),
            early => {
                decided = true;
                assert_eq!(early, whole, "by {cut} of {} bytes", input.len());
            }
        }
    }
    match whole {
        Upgrade::Partial => assert!(input.len() < MAX_HEAD, "it may go on for ever"),
        Upgrade::Refused(why) => assert!(refusal(why).contains(why.status())),
        Upgrade::Accepted { length, answer } => {
            assert!(length <= input.len() && input[..length].ends_with(b"\n"));
            let head = String::from_utf8_lossy(&input[..length]).to_ascii_lowercase();
            for part in ["get ", "upgrade", "websocket", "sec-websocket-key", "mqtt", "13"] {
                assert!(head.contains(part), "{head}");
            }
            assert_eq!(answer.matches("\r\n\r\n").count(), 1, "{answer}");
        }
    }
    if let (Upgrade::Accepted { .. }, Upgrade::Refused(why)) =
        (judge(input, &Origins::Local), judge(input, &Origins::Any))
    {
        panic!("a page of this machine may, and another may not: {why:?}");
    }
}

struct Received {
    data: Vec<u8>,
    reply: Vec<u8>,
    end: Option<WebSocketEnd>,
}

fn receive(input: &[u8], step: usize) -> Received {
    let (mut socket, mut data, mut reply) = (WebSocket::default(), Vec::new(), Vec::new());
    let mut chunks = input.chunks(step);
    let end = chunks.find_map(|chunk| socket.receive(chunk, MAX_FRAME, &mut data, &mut reply).err());
    if let Some(WebSocketEnd::Failed(why)) = &end {
        socket.close(why.code(), &mut reply);
    }
    Received { data, reply, end }
}

fn check_frames(input: &[u8], step: usize) {
    let whole = receive(input, usize::MAX);
    let pieces = receive(input, step.max(1));
    assert_eq!((&whole.data, &whole.reply, &whole.end), (&pieces.data, &pieces.reply, &pieces.end));
    assert!(whole.data.len() <= input.len());
    // What it says is frames without a mask, pongs and, last, one close.
    let mut reply = &whole.reply[..];
    let mut closed = false;
    while let [kind, length, rest @ ..] = reply {
        assert!(!closed, "nothing comes after a close");
        assert!([0x8A, 0x88].contains(kind) && *length <= 125, "{kind:x} {length}");
        closed = *kind == 0x88;
        reply = &rest[usize::from(*length)..];
    }
    assert!(reply.is_empty());
    assert_eq!(closed, whole.end.is_some());
}
