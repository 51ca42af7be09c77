//! The device session against frames of a device and answers of a hub, in virtual time.

use bugle_protocol::{Hello, Kind, Send as SendFrame, Target as WireTarget};

use super::*;
use crate::model::{Command, Credential, Limits, RequestId};

const NOW: Instant = Instant::from_millis(5000);

struct Device {
    session: DeviceSession,
}

impl Device {
    fn new() -> Self {
        let config = SessionConfig { prefix: "sig".into(), limits: Arc::new(Limits::default()) };
        Self { session: DeviceSession::new(Arc::new(config), NOW) }
    }

    fn connected() -> Self {
        let mut device = Self::new();
        let commands = device.sends(&[hello("lamp-1")]);
        assert!(matches!(&commands[..], [Command::Connect(request)]
            if matches!(request.credential, Credential::Challengeable) && request.inbox.is_some()));
        let connected = Connected {
            identity: Identity::new("lamp-1"),
            assigned: false,
            session: 7,
            session_present: false,
            lasts: false,
            session_expiry: 0,
            authentication: None,
        };
        device.session.handle_reply(Reply::Connected(connected), NOW);
        assert!(matches!(&device.hears()[..], [(Kind::WELCOME, _)]));
        device
    }

    fn sends(&mut self, frames: &[Frame<'_>]) -> Vec<Command<'static>> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| outbound::append(frame, &mut bytes));
        self.sends_bytes(&bytes)
    }

    fn sends_bytes(&mut self, bytes: &[u8]) -> Vec<Command<'static>> {
        let mut input = bytes;
        let commands = std::iter::from_fn(|| self.session.handle_bytes(&mut input, NOW));
        let commands = commands.map(Command::into_owned).collect();
        assert!(input.is_empty(), "used up or kept");
        commands
    }

    /// Kinds and bodies of what the session writes.
    fn hears(&mut self) -> Vec<(Kind, Vec<u8>)> {
        let mut out = Vec::new();
        self.session.poll_transmit(&mut out, NOW);
        let mut rest = &out[..];
        std::iter::from_fn(|| {
            let raw = split(rest, usize::MAX).unwrap()?;
            rest = &rest[raw.length..];
            Some((raw.kind, raw.body.to_vec()))
        })
        .collect()
    }
}

fn hello(client_id: &str) -> Frame<'_> {
    Frame::Hello(Hello {
        version: VERSION,
        keep_alive: 10,
        max_body: 1024,
        window: 4,
        names: 0,
        session_expiry: 60,
        client_id,
        resume: None,
        will: None,
    })
}

fn send(to: &str) -> Frame<'_> {
    Frame::Send(SendFrame::new(WireTarget::Client(bugle_protocol::NameRef::Inline(to)), b"on"))
}

#[test]
fn acknowledgements_come_in_order_and_refusals_before_them() {
    let mut device = Device::connected();
    assert_eq!(device.sends(&[send("a"), send("b"), send("c")]).len(), 3);
    device.session.handle_reply(Reply::Done(RequestId(2)), NOW);
    assert!(device.hears().is_empty(), "the first isn't done");
    let refusal = Refusal::new(Reason::NotAuthorized, "no");
    device.session.handle_reply(Reply::Refused(RequestId(0), refusal), NOW);
    let heard = device.hears();
    assert_eq!(heard[0].0, Kind::REFUSED);
    assert_eq!(heard[0].1[..3], [0, 0, Reason::NotAuthorized.code()]);
    assert_eq!(heard[1], (Kind::ACK, vec![1]));
    device.session.handle_reply(Reply::Done(RequestId(1)), NOW);
    assert_eq!(device.hears(), [(Kind::ACK, vec![2])]);
}

#[test]
fn a_frame_may_come_a_byte_at_a_time() {
    let mut device = Device::connected();
    let mut bytes = Vec::new();
    outbound::append(&send("lamp-2"), &mut bytes);
    outbound::append(&send("lamp-3"), &mut bytes);
    let commands: Vec<_> = bytes.iter().flat_map(|byte| device.sends_bytes(&[*byte])).collect();
    assert_eq!(commands.len(), 2);
    assert!(device.session.kept.is_empty() && device.session.kept.capacity() == 0, "no idle buffer");
}

#[test]
fn frames_behind_the_hello_wait_for_the_hub() {
    let mut device = Device::new();
    assert_eq!(device.sends(&[hello("lamp-1"), send("lamp-2")]).len(), 1);
    assert!(!device.session.wants_bytes());
    let connected = Connected {
        identity: Identity::new("lamp-1"),
        assigned: false,
        session: 7,
        session_present: false,
        lasts: false,
        session_expiry: 0,
        authentication: None,
    };
    device.session.handle_reply(Reply::Connected(connected), NOW);
    assert!(matches!(&device.sends(&[])[..], [Command::Send { .. }]));
}

#[test]
fn a_refused_name_leaves_its_handle_empty() {
    let mut device = Device::connected();
    let named = |name| Frame::Name { handle: 1, kind: NameKind::Client, name };
    let to_handle = Frame::Send(SendFrame::new(
        WireTarget::Client(bugle_protocol::NameRef::Handle(std::num::NonZeroU16::MIN)),
        b"on",
    ));
    assert!(matches!(&device.sends(&[named("lamp-2"), to_handle])[..], [Command::Send { .. }]));
    let commands = device.sends(&[named("not a name"), to_handle]);
    let reasons: Vec<_> = commands
        .iter()
        .map(|command| match command {
            Command::Refuse { refusal, .. } => refusal.reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [Reason::BadName, Reason::UnknownHandle]);
}

#[test]
fn a_name_that_is_no_utf_8_leaves_its_handle_empty_too() {
    let mut device = Device::connected();
    device.sends(&[Frame::Name { handle: 1, kind: NameKind::Client, name: "lamp-1" }]);
    // The handle's new name is "k\u{fc}che" in Latin-1; what follows it isn't for lamp-1.
    let commands = device.sends_bytes(b"\x10\x07\x01\x01k\xFCche\x13\x04\x01\x01on");
    let reasons: Vec<_> = commands
        .iter()
        .map(|command| match command {
            Command::Refuse { refusal, .. } => refusal.reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [Reason::Malformed, Reason::UnknownHandle]);
}

/// Waits for the proof.
fn challenged() -> Device {
    let mut device = Device::new();
    device.sends(&[hello("lamp-1")]);
    device.session.handle_reply(Reply::Challenge(Challenge([7; 32])), NOW);
    assert_eq!(device.hears()[0].0, Kind::CHALLENGE);
    device
}

#[test]
fn a_device_that_gives_up_before_its_welcome_gets_no_answer() {
    for mut device in [Device::new(), challenged()] {
        assert!(device.sends(&[Frame::Bye { reason: Reason::Normal, text: "" }]).is_empty());
        assert!(device.session.is_closing() && device.hears().is_empty());
        assert_eq!(device.session.poll_fault(), None, "nobody is at fault");
    }
}

#[test]
fn before_the_welcome_hints_are_passed_over_and_faults_have_their_own_reasons() {
    let proof = [&[0x0E, 32], &[0; 32][..]].concat();
    for (bytes, reason) in [
        (&[0x06, 0][..], Reason::ProtocolError),
        (&[0x01, 1, 9], Reason::ProtocolError),
        (&[0x11, 2, 0, 1], Reason::ProtocolError),
        (&[0x0E, 1, 9], Reason::Malformed),
    ] {
        let mut device = challenged();
        assert!(device.sends_bytes(&[0x80, 1, 9]).is_empty() && !device.session.is_closing());
        assert!(device.sends_bytes(bytes).is_empty());
        let heard = device.hears();
        assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, reason.code()), "{bytes:02x?}");
    }
    assert!(matches!(&challenged().sends_bytes(&proof)[..], [Command::Connect(_)]));
}

#[test]
fn more_than_the_window_ends_the_connection() {
    let mut device = Device::connected();
    let frames = vec![send("a"); usize::from(WINDOW) + 1];
    assert_eq!(device.sends(&frames).len(), usize::from(WINDOW));
    assert!(device.session.is_closing());
    let heard = device.hears();
    assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, Reason::WindowExceeded.code()));
}

#[test]
fn unknown_kinds_are_refused_passed_over_or_the_end() {
    let mut device = Device::connected();
    assert!(matches!(&device.sends_bytes(&[0x7E, 0])[..],
        [Command::Refuse { refusal, .. }] if refusal.reason == Reason::Unsupported));
    assert!(device.sends_bytes(&[0x80, 1, 9]).is_empty());
    assert!(!device.session.is_closing());
    assert!(device.sends_bytes(&[0x06, 0]).is_empty());
    let heard = device.hears();
    assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, Reason::ProtocolError.code()));
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_connection() {
    let mut device = Device::connected();
    device.sends(&[Frame::Ack { frames: 1 }]);
    let heard = device.hears();
    assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, Reason::ProtocolError.code()));
}

#[test]
fn silence_for_one_and_a_half_keep_alives_ends_the_connection() {
    let mut device = Device::connected();
    assert_eq!(device.session.deadline(), Some(NOW + 15_000));
    device.session.handle_time(NOW + 14_999);
    assert!(!device.session.is_closing());
    device.session.handle_time(NOW + 15_000);
    let heard = device.hears();
    assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, Reason::KeepAliveTimeout.code()));
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let mut device = Device::new();
    device.sends_bytes(&[0x0B, 3, b'B', b'G', 9]);
    let heard = device.hears();
    assert_eq!((heard[0].0, heard[0].1[0]), (Kind::BYE, Reason::UnsupportedVersion.code()));
}
