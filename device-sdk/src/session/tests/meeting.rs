//! Hello, challenge, welcome, keep-alive, goodbye.

use super::*;

#[test]
fn the_hello_says_what_the_device_can_take() {
    let mut script = Script::new();
    script.device.handle_connected(1000);
    let bytes = script.bytes();
    let [Frame::Hello(hello)] = frames(&bytes)[..] else { panic!() };
    assert_eq!((hello.client_id, hello.window, hello.names), ("lamp-1", 4, NAME_TABLE as u16));
    assert_eq!(hello.max_body, 1024 / 5 - 4, "a full window and one more frame fit the receive buffer");
    assert_eq!((hello.resume, hello.will), (None, None));
    assert!(script.bytes().is_empty(), "nothing but a proof until the welcome");
}

#[test]
fn a_challenge_is_answered_with_a_proof() {
    let mut script = Script::new();
    script.device.handle_connected(1000);
    script.bytes();
    script.gateway(&Frame::Challenge { nonce: &[9; 32] });
    let bytes = script.bytes();
    let [Frame::Proof { proof }] = frames(&bytes)[..] else { panic!() };
    assert!(auth::verify(b"secret", &[9; 32], "lamp-1", proof));
    assert_eq!(script.device.status(), Connection::Offline(None));
    script.gateway(&Frame::Welcome(welcome()));
    script.bytes();
    assert_eq!(script.device.status(), Connection::Online);
    assert_eq!(script.device.poll_event(), Some(Event::Connected { resumed: false }));
}

#[test]
fn what_follows_the_welcome_in_the_same_chunk_is_not_lost() {
    let mut script = Script::new();
    script.device.handle_connected(1000);
    script.bytes();
    let mut bytes = [0; 200];
    let length = Frame::Welcome(welcome()).encode(&mut bytes).unwrap();
    let end = length + delivery(b"first", None).encode(&mut bytes[length..]).unwrap();
    script.raw(&bytes[..end - 3]);
    script.raw(&bytes[end - 3..end]);
    assert_eq!(script.payload().unwrap(), b"first");
}

#[test]
fn a_gateway_that_does_not_answer_the_hello_is_left() {
    let mut script = Script::new();
    script.device.handle_connected(1000);
    script.bytes();
    assert_eq!(script.device.poll_deadline(script.now), Some(11_000));
    script.pass(9_999);
    assert_eq!(script.closed(), None);
    script.pass(1);
    assert_eq!(script.closed(), Some(Disconnect::TimedOut));
}

#[test]
fn a_wrong_credential_is_told_and_needs_help() {
    let mut script = Script::new();
    script.device.handle_connected(1000);
    script.bytes();
    script.gateway(&Frame::Bye { reason: Reason::NotAuthenticated, text: "no" });
    let cause = script.closed().unwrap();
    assert!(cause.needs_help() && !cause.is_final());
    script.device.handle_disconnected(1000, Disconnect::Lost);
    assert_eq!(
        script.device.status(),
        Connection::Offline(Some(cause)),
        "the session knows better than the transport"
    );
}

#[test]
fn frames_before_the_welcome_are_a_protocol_error() {
    for frame in [delivery(b"x", None), Frame::Ack { frames: 1 }, Frame::Ping { token: None }] {
        let mut script = Script::new();
        script.device.handle_connected(1000);
        script.bytes();
        script.gateway(&frame);
        script.expect(&[Frame::Bye { reason: Reason::ProtocolError, text: "" }]);
        assert_eq!(script.closed(), Some(Disconnect::Broken(Reason::ProtocolError)));
    }
}

#[test]
fn a_takeover_is_final() {
    let mut script = Script::online();
    let slot = script.sent("panel");
    script.gateway(&Frame::Bye { reason: Reason::TakenOver, text: "" });
    assert_eq!(script.closed(), Some(Disconnect::Bye(Reason::TakenOver)));
    let cause = script.device.handle_disconnected(script.now, Disconnect::Lost);
    assert!(cause.is_final());
    assert_eq!(script.device.status(), Connection::Stopped(cause));
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(SendError::Unconfirmed)));
    assert_eq!(script.send(Target::client("panel"), &SendOptions::default()), Err(SendError::Stopped));
}

#[test]
fn a_disconnect_says_goodbye() {
    let mut script = Script::online();
    script.device.disconnect();
    script.expect(&[Frame::Bye { reason: Reason::Normal, text: "" }]);
    assert_eq!(script.closed(), Some(Disconnect::Stopped));
}

#[test]
fn what_is_queued_goes_before_the_goodbye() {
    let mut script = Script::online();
    script.gateway(&delivery(b"1", None));
    script.payload().unwrap();
    script.device.submit(&Request::Leave("floor3")).unwrap();
    script.device.disconnect();
    assert_eq!(script.device.submit(&Request::Leave("floor3")), Err(SendError::NotConnected));
    script.expect(&[
        Frame::Ack { frames: 1 },
        Frame::Leave { group: NameRef::Inline("floor3") },
        Frame::Bye { reason: Reason::Normal, text: "" },
    ]);
    assert_eq!(script.closed(), Some(Disconnect::Stopped));
}

#[test]
fn a_goodbye_waits_for_the_end_of_the_frame_that_was_begun() {
    let mut script = Script::with(1024, 1024, Config::new("lamp-1", b"", 1));
    script.welcomed(welcome());
    let payload = [7; 700];
    let request = Request::Publish { topic: "t", payload: &payload, at_least_once: false, retain: false };
    script.device.submit(&request).unwrap();
    let mut chunk = [0; CHUNK];
    let mut all = Vec::new();
    let length = script.device.poll_transmit(1000, &mut chunk);
    all.extend_from_slice(&chunk[..length]);
    script.device.disconnect();
    assert_eq!(script.closed(), None);
    all.extend(script.bytes());
    assert!(matches!(frames(&all)[..], [Frame::Name { .. }, Frame::Publish(_), Frame::Bye { .. }]));
}

#[test]
fn pings_keep_a_quiet_connection_and_silence_ends_it() {
    let mut script = Script::online();
    script.gateway(&Frame::Pong { clock: Some((1000, 501_000)) });
    assert_eq!(script.device.poll_deadline(script.now), Some(1000 + 45_000));
    script.pass(44_999);
    script.expect(&[]);
    script.pass(1);
    script.expect(&[Frame::Ping { token: Some(46_000) }]);
    script.gateway(&Frame::Pong { clock: Some((46_000, 546_000)) });
    script.pass(45_000);
    script.expect(&[Frame::Ping { token: Some(91_000) }]);
    script.pass(44_999);
    assert_eq!(script.closed(), None, "last heard 89,999 ms ago");
    script.pass(1);
    assert_eq!(script.closed(), Some(Disconnect::TimedOut));
}

#[test]
fn pings_are_answered_with_their_token() {
    let mut script = Script::online();
    script.gateway(&Frame::Ping { token: None });
    script.expect(&[Frame::Pong { clock: None }]);
    script.gateway(&Frame::Ping { token: Some(5) });
    script.expect(&[Frame::Pong { clock: Some((5, 0)) }]);
}

#[test]
fn without_a_keep_alive_only_the_first_ping_goes() {
    let mut script = Script::new();
    script.welcomed(Welcome { keep_alive: 0, ..welcome() });
    assert_eq!(script.device.poll_deadline(script.now), None);
    script.pass(10_000_000);
    script.expect(&[]);
    assert_eq!(script.closed(), None);
}

#[test]
fn bad_settings_are_refused_when_the_client_is_made() {
    let check = |change: fn(&mut Config<'static>)| {
        let mut config = Config::new("lamp-1", b"", 1);
        change(&mut config);
        config.check(1024).err()
    };
    assert_eq!(check(|_| {}), None);
    assert_eq!(check(|config| config.client_id = "a lamp"), Some(ConfigError::BadClientId));
    let will = |length: usize| {
        let payload = leak(vec![0; length]);
        let topic = NameRef::Inline("t");
        let frame = Frame::Publish(Publish { topic, at_least_once: true, retain: false, payload });
        crate::will(&frame, leak(vec![0; 1024])).unwrap()
    };
    for (length, error) in
        [(crate::MAX_WILL - 4, None), (crate::MAX_WILL - 3, Some(ConfigError::WillTooLarge))]
    {
        let mut config = Config::new("lamp-1", b"", 1);
        config.will = Some(will(length));
        assert_eq!(config.check(1024).err(), error);
    }
    assert_eq!(check(|config| config.window = 0), Some(ConfigError::NoWindow));
    assert_eq!(check(|config| config.window = 100), Some(ConfigError::ReceiveBufferTooSmall));
    assert_eq!(check(|config| config.max_body = Some(1020)), None);
    assert_eq!(check(|config| config.max_body = Some(1021)), Some(ConfigError::ReceiveBufferTooSmall));
}
