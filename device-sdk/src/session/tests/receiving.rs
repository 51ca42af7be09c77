//! Deliveries, deadlines, the gateway's names, acknowledgements.

use super::*;

#[test]
fn a_delivery_is_acknowledged_once_the_application_has_it() {
    let mut script = Script::online();
    script.gateway(&Frame::Name { handle: 2, kind: NameKind::Client, name: "panel" });
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Group, name: "floor3" });
    script.expect(&[Frame::Ack { frames: 2 }]);
    let delivery = Delivery {
        mode: Mode::Only,
        urgent: true,
        group: Some(handle(1)),
        sender: handle(2),
        deadline: None,
        payload: b"on",
    };
    script.gateway(&Frame::Delivery(delivery));
    script.expect(&[]);
    let seen = script.device.take(script.now, |incoming| {
        let expected = Incoming::Signal {
            mode: Mode::Only,
            sender: "panel",
            group: Some("floor3"),
            urgent: true,
            remaining: None,
            payload: b"on",
        };
        assert_eq!(incoming, expected);
    });
    assert!(seen.is_some());
    script.expect(&[Frame::Ack { frames: 1 }]);
    assert!(script.take().is_none());
    assert_eq!(script.device.counters().taken, 1);
}

#[test]
fn outcomes_behind_an_untaken_delivery_are_known_at_once_and_acknowledged_later() {
    let mut script = Script::online();
    let slot = script.sent("panel");
    script.gateway(&delivery(b"1", None));
    script.gateway(&refused(1, Reason::NotAuthorized));
    script.gateway(&Frame::Ack { frames: 2 });
    assert!(matches!(script.device.poll_acceptance(slot), Some(Err(SendError::Refused { .. }))));
    script.gateway(&delivery(b"2", None));
    script.expect(&[]);
    assert_eq!(script.payload().unwrap(), b"1");
    script.expect(&[Frame::Ack { frames: 2 }]);
    assert_eq!(script.payload().unwrap(), b"2");
    script.expect(&[Frame::Ack { frames: 1 }]);
}

#[test]
fn an_announcement_behind_an_untaken_delivery_does_not_rename_its_sender() {
    let mut script = Script::online();
    let from = |payload| {
        let sender = handle(1);
        let (mode, group, deadline) = (Mode::One, None, None);
        Frame::Delivery(Delivery { mode, urgent: false, group, sender, deadline, payload })
    };
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Client, name: "ann" });
    script.gateway(&from(b"1"));
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Client, name: "bob" });
    script.gateway(&from(b"2"));
    // A receipt that comes now means the new one.
    let options = SendOptions { receipt: ReceiptMode::Each, ..SendOptions::default() };
    let slot = script.send(Target::client("bob"), &options).unwrap();
    script.bytes();
    let entries = [ReceiptEntry { client: handle(1), status: Status::Delivered }];
    script.gateway(&Frame::Receipt(Receipt {
        number: 1,
        interim: false,
        more: false,
        duplicate: false,
        counts: ReceiptCounts::default(),
        entries: ReceiptEntries::new(&entries),
    }));
    assert_eq!(script.device.poll_receipt_entry(slot).unwrap().0, "bob");
    assert!(script.take().unwrap().contains("ann"));
    assert!(script.take().unwrap().contains("bob"));
}

use bugle_protocol::Receipt;

#[test]
fn a_delivery_that_is_not_surely_in_time_is_dropped_unseen() {
    let mut script = Script::new();
    // The welcome takes 40 ms, so the gateway's clock may be 40 ms further than it said.
    script.device.handle_connected(1000);
    script.bytes();
    script.pass(40);
    script.gateway(&Frame::Welcome(Welcome { clock: 501_020, ..welcome() }));
    script.bytes();
    assert_eq!(script.device.gateway_time(1040), Some(501_062));
    script.gateway(&delivery(b"late", Some(501_061)));
    script.expect(&[refused(0, Reason::Expired), Frame::Ack { frames: 1 }]);
    script.gateway(&delivery(b"good", Some(501_062)));
    assert_eq!(script.payload().unwrap(), b"good");
    assert_eq!(script.device.counters().expired, 1);
    // A faster answer to the ping shows that there is more time.
    script.pass(4);
    script.gateway(&Frame::Pong { clock: Some((1040, 501_042)) });
    assert_eq!(script.device.gateway_time(1044), Some(501_048));
}

#[test]
fn a_deadline_is_looked_at_again_when_the_application_takes_it() {
    let mut script = Script::online();
    let soon = (script.now + script.offset + 100) as u32;
    script.gateway(&delivery(b"shut", Some(soon)));
    script.gateway(&delivery(b"open", None));
    script.bytes();
    script.pass(99);
    assert_eq!(script.payload().unwrap(), b"open", "2 ms are for rounding");
    script.expect(&[refused(0, Reason::Expired), Frame::Ack { frames: 2 }]);
}

#[test]
fn a_message_from_a_topic_comes_with_its_name() {
    let mut script = Script::online();
    let topic = NameRef::Inline("house/door");
    script.gateway(&Frame::Message(Message { at_least_once: true, retained: true, topic, payload: b"shut" }));
    let seen = script.device.take(script.now, |incoming| {
        assert_eq!(incoming, Incoming::Message { topic: "house/door", retained: true, payload: b"shut" });
    });
    assert!(seen.is_some());
}

#[test]
fn names_that_do_not_fit_are_refused_and_their_handle_stands_for_nothing() {
    let mut script = Script::online();
    let long = "a/topic/with/more/than/sixty-four/bytes/in/its/name/which/does/not/fit";
    let message =
        |topic| Frame::Message(Message { at_least_once: false, retained: false, topic, payload: b"" });
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Topic, name: "short" });
    script.gateway(&Frame::Name { handle: 1, kind: NameKind::Topic, name: long });
    script.gateway(&message(handle(1)));
    script.gateway(&Frame::Name { handle: 5, kind: NameKind::Topic, name: "x" });
    script.gateway(&Frame::Name { handle: 0, kind: NameKind::Topic, name: "x" });
    assert!(script.take().is_none());
    script.expect(&[
        refused(1, Reason::TooLarge),
        refused(2, Reason::UnknownHandle),
        refused(3, Reason::TooMany),
        refused(4, Reason::TooMany),
        Frame::Ack { frames: 5 },
    ]);
    script.gateway(&message(NameRef::Inline(long)));
    assert!(script.take().is_some());
}

#[test]
fn a_full_receive_buffer_takes_no_more_and_is_not_silence() {
    let mut script = Script::with(700, 512, Config::new("lamp-1", b"", 1));
    script.welcomed(welcome());
    let payload = [3; 100];
    let mut frame = [0; 200];
    let length = delivery(&payload, None).encode(&mut frame).unwrap();
    let mut taken = 0;
    let mut sent = 0;
    loop {
        let used = script.device.handle_bytes(script.now, &frame[taken..length]);
        taken += used;
        if taken < length {
            break;
        }
        (taken, sent) = (0, sent + 1);
    }
    assert_eq!((sent, script.device.receive_room()), (700 / length, 0));
    script.pass(80_000);
    script.pass(80_000);
    assert_eq!(script.closed(), None);
    assert_eq!(script.payload().unwrap(), payload);
    assert_eq!(script.device.handle_bytes(script.now, &frame[taken..length]), length - taken);
    for _ in 0..sent {
        assert_eq!(script.payload().unwrap(), payload);
    }
    assert!(script.take().is_none());
}

#[test]
fn a_lent_buffer_receives_nothing_and_cannot_be_lent_again() {
    let mut script = Script::online();
    script.gateway(&delivery(b"1", None));
    let lent = script.device.lend(script.now).unwrap();
    assert!(script.device.lend(script.now).is_none());
    assert_eq!(script.device.receive_room(), 0);
    assert_eq!(script.device.handle_bytes(script.now, &[1, 0]), 0);
    script.device.give_back(script.now, lent, false);
    assert_eq!(script.payload().unwrap(), b"1", "it was not taken");
}

#[test]
fn a_buffer_that_is_lent_while_the_session_is_lost_comes_back_empty() {
    let mut script = Script::online();
    script.gateway(&delivery(b"1", None));
    script.gateway(&delivery(b"2", None));
    let lent = script.device.lend(script.now).unwrap();
    script.device.handle_disconnected(script.now, Disconnect::Broken(Reason::Malformed));
    script.device.handle_connected(script.now);
    script.expect(&[]);
    script.device.give_back(script.now, lent, true);
    assert!(matches!(frames(&script.bytes())[..], [Frame::Hello(Hello { resume: None, .. })]));
    assert!(script.take().is_none());
}
