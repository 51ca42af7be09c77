//! What survives a lost connection, and what doesn't (S12).

use super::*;

fn resume(script: &mut Script) -> Option<Resume> {
    script.device.handle_disconnected(script.now, Disconnect::Lost);
    script.pass(100);
    script.device.handle_connected(script.now);
    let bytes = script.bytes();
    let [Frame::Hello(hello)] = frames(&bytes)[..] else { panic!() };
    hello.resume
}

#[test]
fn a_granted_resume_goes_on_without_loss_or_repeat() {
    let mut script = Script::online();
    let first = script.sent("a");
    script.gateway(&Frame::Ack { frames: 2 });
    assert_eq!(script.device.poll_acceptance(first), Some(Ok(Accepted)));
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Client, name: "panel" });
    script.gateway(&delivery(b"taken", None));
    assert_eq!(script.payload().unwrap(), b"taken");
    script.gateway(&delivery(b"untaken", None));
    // Number 2 reaches the gateway, number 3 doesn't.
    let reached = script.sent("a");
    let lost = script.sent("a");

    let asked = resume(&mut script).unwrap();
    assert_eq!(asked, Resume { session: 7, received: 2, taken: 2, acknowledged: 2 });
    assert!(script.take().is_none(), "it comes again");
    script.gateway(&Frame::Welcome(Welcome { resumed: true, received: 3, ..welcome() }));
    let bytes = script.bytes();
    assert!(
        matches!(frames(&bytes)[..], [Frame::Ping { .. }, Frame::Send(_)]),
        "only the second, by its handle"
    );
    assert_eq!(script.device.poll_acceptance(reached), None);
    script.gateway(&Frame::Ack { frames: 2 });
    assert_eq!(script.device.poll_acceptance(reached), Some(Ok(Accepted)));
    assert_eq!(script.device.poll_acceptance(lost), Some(Ok(Accepted)));

    let sender = handle(1);
    let (mode, group, deadline, payload) = (Mode::One, None, None, &b"untaken"[..]);
    script.gateway(&Frame::Delivery(Delivery { mode, urgent: false, group, sender, deadline, payload }));
    assert!(script.take().unwrap().contains("panel"), "names outlive the connection");
    script.expect(&[Frame::Ack { frames: 1 }]);
}

#[test]
fn a_refused_resume_reports_what_was_written_and_what_was_not() {
    let mut script = Script::online();
    let written = script.sent("a");
    let unwritten = script.send(Target::client("a"), &SendOptions::default()).unwrap();
    let asked = resume(&mut script).unwrap();
    assert_eq!((asked.received, asked.acknowledged), (0, 0));
    assert_eq!(script.device.poll_acceptance(written), None, "not known yet");
    script.gateway(&Frame::Welcome(welcome()));
    assert_eq!(script.device.poll_acceptance(written), Some(Err(SendError::Unconfirmed)));
    assert_eq!(script.device.poll_acceptance(unwritten), Some(Err(SendError::NotSent)));
    let bytes = script.bytes();
    assert!(matches!(frames(&bytes)[..], [Frame::Ping { .. }]), "nothing is sent again by itself");
    script.device.release(written);
    script.sent("a");
    let slot = script.send(Target::client("a"), &SendOptions::default()).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 3 });
    assert_eq!(script.device.poll_acceptance(slot), Some(Ok(Accepted)), "numbers began anew");
}

#[test]
fn a_session_that_expired_is_not_asked_for() {
    let mut script = Script::online();
    let slot = script.sent("a");
    script.device.handle_disconnected(script.now, Disconnect::Lost);
    assert_eq!(script.device.poll_deadline(script.now), Some(script.now + 60_000));
    script.pass(60_000);
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(SendError::Unconfirmed)));
    assert_eq!(resume(&mut script), None);
}

#[test]
fn a_gateway_that_keeps_no_sessions_is_not_asked_for_one() {
    let mut script = Script::new();
    script.welcomed(Welcome { session_expiry: 0, ..welcome() });
    let slot = script.sent("a");
    script.device.handle_disconnected(script.now, Disconnect::Lost);
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(SendError::Unconfirmed)));
    assert_eq!(resume(&mut script), None);
}

#[test]
fn outcomes_that_come_again_after_a_resume_change_nothing() {
    let mut script = Script::online();
    let options = SendOptions { receipt: ReceiptMode::Each, ..SendOptions::default() };
    let slot = script.send(Target::group("g"), &options).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 2 });
    script.gateway(&delivery(b"1", None));
    let entries = [ReceiptEntry { client: NameRef::Inline("a"), status: Status::Delivered }];
    let part = Frame::Receipt(bugle_protocol::Receipt {
        number: 1,
        interim: false,
        more: true,
        duplicate: false,
        counts: ReceiptCounts::default(),
        entries: ReceiptEntries::new(&entries),
    });
    script.gateway(&part);
    assert_eq!(resume(&mut script).unwrap().received, 0);
    script.gateway(&Frame::Welcome(Welcome { resumed: true, received: 2, ..welcome() }));
    script.gateway(&delivery(b"1", None));
    script.gateway(&part);
    assert!(script.device.poll_receipt_entry(slot).is_some());
    assert!(script.device.poll_receipt_entry(slot).is_none());
    assert_eq!(script.payload().unwrap(), b"1");
    let bytes = script.bytes();
    assert!(frames(&bytes).contains(&Frame::Ack { frames: 2 }));
}

#[test]
fn a_frame_cut_off_half_way_is_sent_whole_again() {
    let mut script = Script::with(1024, 1024, Config::new("lamp-1", b"", 1));
    script.welcomed(welcome());
    let payload = [5; 700];
    let topic = "t";
    script
        .device
        .submit(&Request::Publish { topic, payload: &payload, at_least_once: true, retain: false })
        .unwrap();
    let mut chunk = [0; CHUNK];
    assert_eq!(script.device.poll_transmit(script.now, &mut chunk), CHUNK);
    resume(&mut script).unwrap();
    script.gateway(&Frame::Welcome(Welcome { resumed: true, received: 1, ..welcome() }));
    let bytes = script.bytes();
    assert!(matches!(
        frames(&bytes)[..],
        [Frame::Ping { .. }, Frame::Publish(Publish { topic: NameRef::Handle(_), .. })]
    ));
}

#[test]
fn refusals_that_were_lost_are_written_before_the_acks_that_cover_them() {
    let mut script = Script::online();
    script.raw(&[0x40, 0]);
    script.expect(&[refused(0, Reason::Unsupported), Frame::Ack { frames: 1 }]);
    let asked = resume(&mut script).unwrap();
    assert_eq!((asked.received, asked.taken), (1, 1));
    script.gateway(&Frame::Welcome(Welcome { resumed: true, received: 0, ..welcome() }));
    script.raw(&[0x40, 0]);
    let bytes = script.bytes();
    assert_eq!(
        frames(&bytes)[1..],
        [refused(0, Reason::Unsupported), refused(1, Reason::Unsupported), Frame::Ack { frames: 1 }]
    );
}

#[test]
fn a_resume_that_nobody_asked_for_or_that_lies_is_a_protocol_error() {
    let mut script = Script::new();
    script.device.handle_connected(script.now);
    script.bytes();
    script.gateway(&Frame::Welcome(Welcome { resumed: true, ..welcome() }));
    script.expect(&[Frame::Bye { reason: Reason::ProtocolError, text: "" }]);

    for (received, session) in [(3, 7), (1, 8)] {
        let mut script = Script::online();
        script.sent("a");
        resume(&mut script).unwrap();
        script.gateway(&Frame::Welcome(Welcome { resumed: true, received, session, ..welcome() }));
        script.expect(&[Frame::Bye { reason: Reason::ProtocolError, text: "" }]);
    }
}
