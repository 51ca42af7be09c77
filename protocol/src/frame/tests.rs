//! Round trips, hostile bytes, and the costs that docs/protocol.md promises.

use core::num::NonZeroU16;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::*;

/// Where frames are cut: everywhere, but under Miri, which is some hundred times as slow.
const STEP: usize = if cfg!(miri) { 197 } else { 1 };

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut buffer = vec![0; frame.encoded_len()];
    let length = frame.encode(&mut buffer).expect("encoded_len is enough");
    assert_eq!(length, buffer.len());
    buffer
}

fn round_trip(frame: &Frame<'_>) {
    let bytes = encoded(frame);
    let raw = split(&bytes, usize::MAX).unwrap().expect("whole");
    assert_eq!(raw.length, bytes.len());
    assert_eq!(&raw.decode().unwrap(), frame);
    halves_agree(frame, &bytes, &raw);
    for cut in (0..bytes.len()).step_by(STEP) {
        assert_eq!(split(&bytes[..cut], usize::MAX), Ok(None), "a part of a frame is no frame");
        assert!(frame.encode(&mut vec![0; cut]).is_err());
    }
}

/// What firmware has of the codec says the same as the whole.
fn halves_agree(frame: &Frame<'_>, bytes: &[u8], raw: &RawFrame<'_>) {
    let is_devices_alone = matches!(raw.kind.0, 0x0B | 0x0E | 0x11..=0x16);
    let from_gateway = Frame::decode_from_gateway(raw.kind, raw.body);
    assert_eq!(from_gateway.is_ok(), !is_devices_alone);
    assert!(from_gateway.is_err() || from_gateway.as_ref() == Ok(frame));
    let mut buffer = vec![0; bytes.len()];
    let mut writer = write::body(&mut buffer);
    frame.encode_body(&mut writer);
    let body = writer.written();
    assert_eq!(write::finish(&mut buffer, raw.kind, body), Ok(bytes.len()));
    assert_eq!(buffer, bytes);
    assert!(write::finish(&mut buffer[1..], raw.kind, body).is_err());
    let Some(will) = WillFrame::encode(frame, &mut buffer).expect("shorter without a header") else {
        return assert!(!matches!(frame, Frame::Send(_) | Frame::Publish(_)));
    };
    assert_eq!(will.frame().as_ref(), Ok(frame));
}

fn handle(number: u16) -> NameRef<'static> {
    NameRef::Handle(NonZeroU16::new(number).unwrap())
}

fn group<'a>(only: Option<NameList<'a>>, except: Option<NameList<'a>>) -> Target<'a> {
    Target::Group { group: handle(1), only, except }
}

prop_compose! {
    fn name_refs()(refs in prop::collection::vec(prop_oneof![
        (1u16..).prop_map(Err),
        "[a-z0-9]{0,70}".prop_map(Ok),
    ], 0..140)) -> Vec<Result<String, u16>> { refs }
}

fn borrowed(refs: &[Result<String, u16>]) -> Vec<NameRef<'_>> {
    refs.iter().map(|r| r.as_ref().map_or_else(|h| handle(*h), |s| NameRef::Inline(s))).collect()
}

proptest! {
    #[test]
    fn sends_round_trip(
        (only, except) in (prop::option::of(name_refs()), prop::option::of(name_refs())),
        to_client: bool, ttl: Option<u32>, receipt in 0u8..3, store: bool, echo: bool, urgent: bool,
        id in prop::option::of("[a-z]{1,64}"), payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (only, except) = (only.as_deref().map(borrowed), except.as_deref().map(borrowed));
        let list = |refs: &'_ Option<Vec<NameRef<'_>>>| refs.is_some();
        prop_assume!(!to_client || (!list(&only) && !list(&except)));
        let target = if to_client {
            Target::Client(NameRef::Inline("lamp-1"))
        } else {
            group(only.as_deref().map(NameList::new), except.as_deref().map(NameList::new))
        };
        let receipt = [ReceiptMode::None, ReceiptMode::Summary, ReceiptMode::Each][usize::from(receipt)];
        round_trip(&Frame::Send(Send { target, ttl, receipt, store, echo, urgent, id: id.as_deref(), payload: &payload }));
    }

    #[test]
    fn deliveries_and_messages_round_trip(
        mode in 0u8..4, urgent: bool, deadline: Option<u32>, retained: bool,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mode = Mode::from_bits(mode);
        let group = (mode != Mode::One).then_some(NameRef::Inline("floor3"));
        round_trip(&Frame::Delivery(Delivery { mode, urgent, group, sender: handle(300), deadline, payload: &payload }));
        round_trip(&Frame::Message(Message { at_least_once: urgent, retained, topic: handle(1), payload: &payload }));
        round_trip(&Frame::Publish(Publish { topic: NameRef::Inline("a/b"), at_least_once: urgent, retain: retained, payload: &payload }));
    }

    #[test]
    fn receipts_round_trip(
        number: u16, interim: bool, more: bool, duplicate: bool, counts: [u32; Status::COUNT],
        refs in name_refs(), status in 0u8..8,
    ) {
        let status = Status::from_code(status).unwrap();
        let entries: Vec<_> = borrowed(&refs).into_iter().map(|client| ReceiptEntry { client, status }).collect();
        let mut sum = ReceiptCounts::default();
        Status::ALL.iter().zip(counts).for_each(|(status, count)| sum.add(*status, count));
        round_trip(&Frame::Receipt(Receipt {
            number, interim, more, duplicate, counts: sum, entries: ReceiptEntries::new(&entries),
        }));
    }

    #[test]
    fn hellos_round_trip(
        keep_alive: u16, max_body: u16, window: u16, names: u16, session_expiry: u32,
        client_id in ".{0,70}", resume in prop::option::of(any::<(u64, u32, u32, u32)>()), will: bool,
    ) {
        let body = [0, 0, 3, b'a', b'/', b'b', b'x'];
        let will = will.then(|| WillFrame::new(Kind::PUBLISH, &body).unwrap());
        let resume = resume.map(|(session, received, taken, acknowledged)| Resume { session, received, taken, acknowledged });
        let hello = Hello { version: VERSION, keep_alive, max_body, window, names, session_expiry, client_id: &client_id, resume, will };
        round_trip(&Frame::Hello(hello));
        round_trip(&Frame::Welcome(Welcome {
            version: VERSION, resumed: resume.is_some(), keep_alive, max_body, window, names, session_expiry,
            session: 7, received: 9, clock: u64::MAX,
        }));
    }

    #[test]
    fn control_frames_round_trip(token: Option<u32>, clock: u64, frames in 1u32.., number: u16, retry_after: u32, text in ".{0,40}", code in 0u8..64) {
        round_trip(&Frame::Ping { token });
        round_trip(&Frame::Pong { clock: token.map(|token| (token, clock)) });
        round_trip(&Frame::Ack { frames });
        round_trip(&Frame::Name { handle: number, kind: NameKind::Topic, name: &text });
        round_trip(&Frame::Join { group: NameRef::Inline(&text) });
        round_trip(&Frame::Leave { group: NameRef::Inline(&text) });
        round_trip(&Frame::Subscribe { at_least_once: token.is_some(), filter: &text });
        round_trip(&Frame::Unsubscribe { filter: &text });
        if let Some(reason) = Reason::from_code(code) {
            round_trip(&Frame::Refused { number, reason, retry_after, text: &text });
            round_trip(&Frame::Bye { reason, text: &text });
            round_trip(&Frame::Error { reason, text: &text });
        }
    }

    /// Whatever arrives, `split` and `decode` answer without a panic, and what decodes encodes to bytes that decode alike.
    #[test]
    fn any_bytes_are_answered(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = split(&body, 100);
        if let Ok(frame) = Frame::decode(Kind(kind), &body) {
            let bytes = encoded(&frame);
            if !matches!(frame, Frame::Hello(Hello { version, .. }) if version != VERSION) {
                prop_assert_eq!(split(&bytes, usize::MAX).unwrap().unwrap().decode(), Ok(frame));
            }
        }
    }
}

/// The cost table of docs/protocol.md: bytes over the payload once handles are announced, without options.
#[test]
fn costs_stay_within_the_promise() {
    let payload = [0x55; 16];
    let over = |frame: Frame<'_>| frame.encoded_len() - payload.len();
    assert_eq!(over(Frame::Send(Send::new(group(None, None), &payload))), 4, "promised: 6");
    assert_eq!(Frame::Ack { frames: 1 }.encoded_len(), 3, "promised: 3");
    let delivery = Delivery {
        mode: Mode::All,
        urgent: false,
        group: Some(handle(1)),
        sender: handle(2),
        deadline: None,
        payload: &payload,
    };
    assert_eq!(over(Frame::Delivery(delivery)), 5, "promised: 8");
    let handles: Vec<_> = (1..=128).map(handle).collect();
    let listed = over(Frame::Send(Send::new(group(Some(NameList::new(&handles)), None), &payload)));
    assert_eq!(listed, 5 + 2 + 129, "promised: 2 an entry");
    assert_eq!(Frame::Ping { token: None }.encoded_len(), 2, "promised: 2");
}

#[test]
fn a_body_over_the_limit_is_refused_when_its_length_is_known() {
    assert_eq!(split(&[0x13, 0x81, 0x01], 128), Err(TooLarge));
    assert_eq!(split(&[0x13, 0x80], 128), Ok(None));
    assert_eq!(split(&[0x13, 0x80, 0x80, 0x80, 0x80], 128), Ok(None));
    assert_eq!(split(&[0x13, 0x80, 0x80, 0x80, 0x80, 0x80], 128), Err(TooLarge));
}

#[test]
fn the_first_byte_is_neither_mqtt_nor_tls_nor_http() {
    assert_eq!(FIRST_BYTE >> 4, 0, "type 0 is reserved in MQTT");
    assert!(!(0x14..=0x18).contains(&FIRST_BYTE) && !FIRST_BYTE.is_ascii_alphabetic());
    assert_eq!(Kind::HELLO.0, FIRST_BYTE);
}

#[test]
fn a_list_count_beyond_the_frame_is_malformed() {
    let body = [2, 1, 0xFF, 0xFF, 0x03, 1, 2, 3];
    assert!(Frame::decode(Kind::SEND, &body).is_err());
}
