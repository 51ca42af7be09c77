//! A gateway that is broken or means harm: no panic, a bounded answer, and a device that goes on where it
//! can.

use proptest::prelude::*;

use super::*;

#[test]
fn an_unknown_numbered_kind_is_refused_and_an_optional_one_passed_over() {
    let mut script = Script::online();
    script.raw(&[0x40, 2, 1, 2]);
    script.raw(&[0x90, 1, 0]);
    // A kind that only devices send is as unknown.
    script.raw(&[0x11, 1, 0]);
    script.expect(&[
        refused(0, Reason::Unsupported),
        refused(1, Reason::Unsupported),
        Frame::Ack { frames: 2 },
    ]);
    assert_eq!(script.device.counters().unsupported, 2);
}

#[test]
fn a_malformed_numbered_frame_is_refused_and_a_malformed_control_frame_ends_the_connection() {
    for numbered in [&[0x22, 1, 0xFF][..], &[0x10, 1, 1], &[0x21, 0]] {
        let mut script = Script::online();
        script.raw(numbered);
        script.expect(&[refused(0, Reason::Malformed), Frame::Ack { frames: 1 }]);
    }
    // A refusal is among them: refusing it in turn could go on for ever.
    for (control, reason) in [
        (&[0x03, 1, 0][..], Reason::Malformed),
        (&[0x20, 1, 9], Reason::Malformed),
        (&[0x02, 1, 1], Reason::Malformed),
        (&[0x0A, 0], Reason::ProtocolError),
    ] {
        let mut script = Script::online();
        script.raw(control);
        script.expect(&[Frame::Bye { reason, text: "" }]);
        assert_eq!(script.closed(), Some(Disconnect::Broken(reason)));
        script.raw(b"whatever follows is not looked at");
    }
}

#[test]
fn an_ack_for_what_was_never_sent_ends_the_connection() {
    for frames in [1, 3, u32::MAX] {
        let mut script = Script::online();
        if frames > 1 {
            script.sent("a");
        }
        script.gateway(&Frame::Ack { frames });
        script.expect(&[Frame::Bye { reason: Reason::ProtocolError, text: "" }]);
    }
}

#[test]
fn outcomes_of_what_was_never_sent_are_counted() {
    let mut script = Script::online();
    script.gateway(&refused(77, Reason::Busy));
    script.expect(&[Frame::Ack { frames: 1 }]);
    assert_eq!(script.device.counters().outcomes_unclaimed, 1);
}

#[test]
fn a_delivery_over_the_limit_is_refused_and_the_next_arrives() {
    let mut script = Script::online();
    let payload = [1; 5000];
    let mut bytes = vec![0; 6000];
    let length = delivery(&payload, None).encode(&mut bytes).unwrap();
    let end = length + delivery(b"next", None).encode(&mut bytes[length..]).unwrap();
    for chunk in bytes[..end].chunks(100) {
        script.raw(chunk);
    }
    script.expect(&[refused(0, Reason::TooLarge), Frame::Ack { frames: 1 }]);
    assert_eq!(script.payload().unwrap(), b"next");
    assert_eq!(script.device.counters().too_large, 1);
}

#[test]
fn lengths_without_end_and_oversized_control_frames_end_the_connection() {
    for (bytes, reason) in [
        (&[0x22, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..], Reason::FrameTooLarge),
        (&[0x03, 0xFF, 0xFF, 0x03], Reason::FrameTooLarge),
        (&[0x10, 0xFF, 0xFF, 0x03], Reason::FrameTooLarge),
        (&[0x20, 0xFF, 0xFF, 0x03], Reason::FrameTooLarge),
    ] {
        let mut script = Script::online();
        script.raw(bytes);
        script.expect(&[Frame::Bye { reason, text: "" }]);
    }
}

#[test]
fn a_name_that_cannot_be_read_leaves_its_handle_empty() {
    let mut script = Script::online();
    script.gateway(&Frame::Name { handle: 2, kind: NameKind::Client, name: "panel" });
    script.raw(b"\x10\x04\x02\x01\xFC\xFF");
    script.raw(b"\x22\x03\x00\x02x");
    assert!(script.take().is_none(), "it isn't from the panel");
    script.expect(&[
        refused(1, Reason::Malformed),
        refused(2, Reason::UnknownHandle),
        Frame::Ack { frames: 3 },
    ]);
}

#[test]
fn handles_that_were_never_announced_are_refused() {
    let mut script = Script::online();
    let sender = handle(3);
    let (mode, group, deadline) = (Mode::One, None, None);
    script.gateway(&Frame::Delivery(Delivery { mode, urgent: false, group, sender, deadline, payload: b"" }));
    script.gateway(&Frame::Name { handle: 3, kind: NameKind::Group, name: "g" });
    script.gateway(&Frame::Delivery(Delivery { mode, urgent: false, group, sender, deadline, payload: b"" }));
    assert!(script.take().is_none());
    script.expect(&[
        refused(0, Reason::UnknownHandle),
        refused(2, Reason::UnknownHandle),
        Frame::Ack { frames: 3 },
    ]);
}

#[test]
fn a_flood_of_bad_frames_waits_for_room_for_its_refusals() {
    let mut script = Script::with(700, 20, Config::new("lamp-1", b"", 1));
    script.welcomed(welcome());
    // Each refusal takes 6 bytes, so three fit.
    let flood = [0x40, 0].repeat(100);
    script.raw(&flood);
    let bytes = script.bytes();
    assert_eq!(frames(&bytes).len(), 4);
    assert_eq!(frames(&bytes)[3], Frame::Ack { frames: 3 });
    assert!(script.take().is_none());
    script.gateway(&Frame::Ack { frames: 3 });
    let bytes = script.bytes();
    assert_eq!(frames(&bytes)[0], refused(3, Reason::Unsupported));
}

#[test]
fn a_window_of_nothing_sends_nothing() {
    let mut script = Script::new();
    script.welcomed(Welcome { window: 0, names: 0, keep_alive: 1, ..welcome() });
    assert_eq!(script.send(Target::client("a"), &SendOptions::default()), Err(SendError::Full));
}

/// One step of a gateway without manners.
#[derive(Clone, Debug)]
enum Step {
    Frame(u8, Vec<u8>),
    Raw(Vec<u8>),
    Welcome(bool, u32, u16),
    Ack(u8),
    Refused(u8),
    Delivery(u16, Option<u32>, u8),
    Name(u16, u8),
    Pass(u32),
    Take,
    Send(bool),
    Publish(u16),
    Join(u8),
    Release(u8),
    Reconnect,
    Write(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    prop::collection::vec(
        prop_oneof![
            (any::<u8>(), body.clone()).prop_map(|(kind, body)| Step::Frame(kind, body)),
            body.prop_map(Step::Raw),
            (any::<bool>(), 0u32..6, 0u16..6)
                .prop_map(|(resumed, received, w)| Step::Welcome(resumed, received, w)),
            (1u8..4).prop_map(Step::Ack),
            (0u8..8).prop_map(Step::Refused),
            (0u16..6, any::<Option<u32>>(), any::<u8>()).prop_map(|(h, d, l)| Step::Delivery(h, d, l)),
            (0u16..6, 0u8..80).prop_map(|(handle, length)| Step::Name(handle, length)),
            (0u32..100_000).prop_map(Step::Pass),
            Just(Step::Take),
            any::<bool>().prop_map(Step::Send),
            (0u16..600).prop_map(Step::Publish),
            (0u8..9).prop_map(Step::Join),
            (0u8..4).prop_map(Step::Release),
            Just(Step::Reconnect),
            (CHUNK as u16..600).prop_map(Step::Write),
        ],
        0..60,
    )
}

fn play(steps: &[Step]) {
    let mut script = Script::with(700, 200, Config::new("lamp-1", b"secret", 1));
    if steps.len().is_multiple_of(2) {
        script.welcomed(welcome());
    } else {
        script.device.handle_connected(script.now);
    }
    let mut feed = Vec::new();
    for step in steps {
        let mut push = |frame: Frame<'_>| {
            let mut bytes = vec![0; frame.encoded_len()];
            frame.encode(&mut bytes).unwrap();
            feed.extend(bytes);
        };
        match step {
            Step::Frame(kind, body) => feed.extend([&[*kind, body.len() as u8], &body[..]].concat()),
            Step::Raw(bytes) => feed.extend(bytes),
            Step::Welcome(resumed, received, window) => push(Frame::Welcome(Welcome {
                resumed: *resumed,
                received: *received,
                window: *window,
                ..welcome()
            })),
            Step::Ack(frames) => push(Frame::Ack { frames: (*frames).into() }),
            Step::Refused(number) => push(refused((*number).into(), Reason::Busy)),
            Step::Delivery(number, deadline, length) => push(Frame::Delivery(Delivery {
                mode: Mode::One,
                urgent: false,
                group: None,
                sender: if *number == 0 { NameRef::Inline("x") } else { handle(*number) },
                deadline: *deadline,
                payload: &[1; 256][..(*length).into()],
            })),
            Step::Name(handle, length) => {
                let name = "n".repeat((*length).into());
                push(Frame::Name { handle: *handle, kind: NameKind::Client, name: &name });
            }
            Step::Pass(time) => script.pass((*time).into()),
            Step::Take => drop(script.take()),
            Step::Send(listed) => {
                let target = Target::group("g");
                let target = if *listed { target.only(&["a", "b", "c"]).except(&["d"]) } else { target };
                let receipt = ReceiptMode::Each;
                let _ = script.send(target, &SendOptions { receipt, ..SendOptions::default() });
            }
            Step::Publish(length) => {
                let payload = &[2; 600][..(*length).into()];
                let request = Request::Publish { topic: "t", payload, at_least_once: true, retain: true };
                let _ = script.device.submit(&request);
            }
            Step::Join(number) => {
                let group = ["a", "bb", "ccc"][usize::from(number % 3)];
                let _ = script.device.submit(&match number / 3 {
                    0 => Request::Join(group),
                    1 => Request::Leave(group),
                    _ => Request::Subscribe { filter: group, at_least_once: true },
                });
            }
            Step::Release(slot) => {
                let _ = script.device.poll_receipt(*slot);
                script.device.release(*slot);
            }
            Step::Reconnect => {
                script.device.handle_disconnected(script.now, Disconnect::Lost);
                script.device.restart();
                script.device.handle_connected(script.now);
                feed.clear();
            }
            Step::Write(length) => {
                let _ = script.device.poll_transmit(script.now, &mut vec![0; (*length).into()]);
            }
        }
        let used = script.device.handle_bytes(script.now, &feed);
        feed.drain(..used);
        let _ =
            (script.device.poll_deadline(script.now), script.device.status(), script.device.poll_closed());
        while script.device.poll_event().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_and_no_order_of_calls_panics(steps in steps()) {
        play(&steps);
    }

    /// However the bytes are cut, the same comes of them.
    #[test]
    fn cuts_in_the_stream_do_not_matter(
        frames in prop::collection::vec((prop_oneof![Just(0x22u8), Just(0x40), Just(0x90)], 0usize..300), 1..12),
        cuts in prop::collection::vec(1usize..50, 1..40),
    ) {
        let mut stream = Vec::new();
        for (kind, length) in frames {
            let mut frame = vec![0; 400];
            let encoded = if kind == 0x22 {
                delivery(&[1; 300][..length], None).encode(&mut frame).unwrap()
            } else {
                frame[..2].copy_from_slice(&[kind, 3]);
                5
            };
            stream.extend(&frame[..encoded]);
        }
        let run = |mut cuts: std::boxed::Box<dyn Iterator<Item = usize>>| {
            let mut script = Script::with(5000, 2000, Config::new("lamp-1", b"", 1));
            script.welcomed(welcome());
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let length = cuts.next().unwrap_or(usize::MAX).min(rest.len());
                script.raw(&rest[..length]);
                rest = &rest[length..];
            }
            let mut payloads = Vec::new();
            while let Some(payload) = script.payload() {
                payloads.push(payload);
            }
            (payloads, script.device.counters())
        };
        let whole = run(std::boxed::Box::new(core::iter::empty()));
        prop_assert_eq!(whole, run(std::boxed::Box::new(cuts.into_iter().cycle())));
    }
}
