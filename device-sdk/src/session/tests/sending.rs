//! Sends and their outcomes, the window, names and handles, restoring.

use super::*;

const EACH: SendOptions<'static> =
    SendOptions { ttl: None, receipt: ReceiptMode::Each, store: false, echo: false, urgent: false, id: None };

fn counts(list: &[(Status, u32)]) -> ReceiptCounts {
    let mut counts = ReceiptCounts::default();
    list.iter().for_each(|&(status, count)| counts.add(status, count));
    counts
}

fn receipt<'a>(number: u16, counts: ReceiptCounts, entries: &'a [ReceiptEntry<'a>]) -> Receipt<'a> {
    Receipt {
        number,
        interim: false,
        more: false,
        duplicate: false,
        counts,
        entries: ReceiptEntries::new(entries),
    }
}

fn entry(client: &str, status: Status) -> ReceiptEntry<'_> {
    ReceiptEntry { client: NameRef::Inline(client), status }
}

use bugle_protocol::Receipt;
use bugle_protocol::Status as At;

#[test]
fn a_send_is_named_once_and_accepted_by_the_ack() {
    let mut script = Script::online();
    let options = SendOptions { ttl: Some(500), urgent: true, ..SendOptions::default() };
    let slot = script.send(Target::group("floor3"), &options).unwrap();
    let group = bugle_protocol::Target::Group { group: handle(1), only: None, except: None };
    let send = Send { ttl: Some(500), urgent: true, ..Send::new(group, b"on") };
    script.expect(&[Frame::Name { handle: 1, kind: NameKind::Group, name: "floor3" }, Frame::Send(send)]);
    assert_eq!(script.device.poll_acceptance(slot), None);
    script.gateway(&Frame::Ack { frames: 1 });
    assert_eq!(script.device.poll_acceptance(slot), None, "that was the name");
    script.gateway(&Frame::Ack { frames: 1 });
    assert_eq!(script.device.poll_acceptance(slot), Some(Ok(Accepted)));
    assert_eq!(script.device.poll_receipt(slot), Some(Err(SendError::NoReceipt)), "none was asked for");
    script.device.release(slot);
    script.send(Target::group("floor3"), &SendOptions::default()).unwrap();
    script.expect(&[Frame::Send(Send::new(group, b"on"))]);
}

#[test]
fn a_refusal_comes_before_its_ack_and_tells_when_to_try_again() {
    let mut script = Script::online();
    let slot = script.sent("panel");
    script.gateway(&Frame::Refused { number: 1, reason: Reason::RateLimited, retry_after: 40, text: "slow" });
    let limited = SendError::Refused { reason: Reason::RateLimited, retry_after: 40 };
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(limited)));
    script.gateway(&Frame::Ack { frames: 2 });
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(limited)));
    script.expect(&[Frame::Ack { frames: 1 }]);
}

#[test]
fn receipts_come_in_parts_and_before_the_ack_too() {
    let mut script = Script::online();
    let slot = script.send(Target::group("floor3"), &EACH).unwrap();
    script.bytes();
    let sum = counts(&[(At::Delivered, 2), (At::Offline, 1)]);
    let first = [entry("lamp-2", At::Delivered), entry("lamp-3", At::Delivered)];
    script.gateway(&Frame::Receipt(Receipt { more: true, ..receipt(1, sum, &first) }));
    assert_eq!(script.device.poll_receipt(slot), None);
    script.gateway(&Frame::Receipt(receipt(1, sum, &[entry("lamp-4", At::Offline)])));
    script.gateway(&Frame::Ack { frames: 2 });
    script.expect(&[Frame::Ack { frames: 2 }]);
    let names: Vec<_> =
        core::iter::from_fn(|| script.device.poll_receipt_entry(slot)).map(|(name, _)| name).collect();
    assert_eq!(names, ["lamp-2", "lamp-3", "lamp-4"]);
    let receipt = script.device.poll_receipt(slot).unwrap().unwrap();
    assert_eq!((receipt.counts, receipt.interim, receipt.truncated), (sum, false, false));
    assert_eq!(script.device.poll_acceptance(slot), Some(Ok(Accepted)));
}

#[test]
fn an_interim_receipt_is_followed_by_the_one_that_ends_it() {
    let mut script = Script::online();
    let slot = script.send(Target::group("floor3"), &SendOptions { store: true, ..EACH }).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 2 });
    let queued = counts(&[(At::Queued, 1)]);
    script.gateway(&Frame::Receipt(Receipt { interim: true, ..receipt(1, queued, &[]) }));
    assert!(script.device.poll_receipt(slot).unwrap().unwrap().interim);
    script.pass(10);
    assert_eq!(script.device.poll_receipt(slot), None);
    script.gateway(&Frame::Receipt(receipt(1, counts(&[(At::Delivered, 1)]), &[])));
    assert_eq!(script.device.poll_receipt(slot).unwrap().unwrap().counts, counts(&[(At::Delivered, 1)]));
}

#[test]
fn an_interim_receipt_that_nobody_took_gives_way_to_the_one_that_ends_it() {
    let mut script = Script::online();
    let slot = script.send(Target::group("floor3"), &SendOptions { store: true, ..EACH }).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 2 });
    let queued = counts(&[(At::Queued, 1)]);
    script.gateway(&Frame::Receipt(Receipt { interim: true, ..receipt(1, queued, &[]) }));
    script.gateway(&Frame::Receipt(receipt(1, counts(&[(At::Delivered, 1)]), &[])));
    let receipt = script.device.poll_receipt(slot).unwrap().unwrap();
    assert_eq!((receipt.counts, receipt.interim), (counts(&[(At::Delivered, 1)]), false));
    assert_eq!(script.device.poll_receipt(slot), Some(Err(SendError::NoReceipt)));
}

#[test]
fn a_receipt_that_does_not_come_is_given_up_after_the_ttl() {
    let mut script = Script::online();
    let slot = script.send(Target::group("g"), &SendOptions { ttl: Some(1000), ..EACH }).unwrap();
    script.bytes();
    script.pass(200);
    script.gateway(&Frame::Ack { frames: 2 });
    script.pass(5_999);
    assert_eq!(script.device.poll_receipt(slot), None);
    script.pass(1);
    assert_eq!(script.device.poll_receipt(slot), Some(Err(SendError::NoReceipt)));
    script.gateway(&Frame::Receipt(receipt(1, counts(&[]), &[])));
    assert_eq!(script.device.counters().outcomes_unclaimed, 1);
}

#[test]
fn entries_beyond_the_buffer_are_counted_only() {
    let mut script = Script::online();
    let slot = script.send(Target::group("g"), &EACH).unwrap();
    script.bytes();
    let long = [entry("a-client-with-a-rather-long-name-of-50-characters-1", At::Offline); 2];
    script.gateway(&Frame::Receipt(receipt(1, counts(&[(At::Offline, 2)]), &long)));
    assert!(script.device.poll_receipt_entry(slot).is_some());
    assert!(script.device.poll_receipt_entry(slot).is_none());
    assert!(script.device.poll_receipt(slot).unwrap().unwrap().truncated);
}

#[test]
fn a_full_window_holds_back_sends_and_an_ack_opens_it() {
    let mut script = Script::online();
    script.sent("a");
    script.sent("b");
    assert_eq!(script.send(Target::client("c"), &SendOptions::default()), Err(SendError::Full));
    script.gateway(&Frame::Ack { frames: 1 });
    assert_eq!(script.send(Target::client("c"), &SendOptions::default()), Err(SendError::Full), "a name");
    script.gateway(&Frame::Ack { frames: 1 });
    script.sent("c");
}

#[test]
fn a_full_outbox_takes_all_of_a_send_or_nothing() {
    let mut script = Script::with(1024, 40, Config::new("lamp-1", b"", 1));
    script.welcomed(welcome());
    let publish = |script: &mut Script, topic, length| {
        let payload = &[1; 64][..length];
        script.device.submit(&Request::Publish { topic, payload, at_least_once: false, retain: false })
    };
    publish(&mut script, "a", 20).unwrap();
    assert_eq!(publish(&mut script, "bb", 5), Err(SendError::Full));
    let topic = handle(1);
    let full = Publish { topic, at_least_once: false, retain: false, payload: &[1; 20] };
    script.expect(&[Frame::Name { handle: 1, kind: NameKind::Topic, name: "a" }, Frame::Publish(full)]);
    script.gateway(&Frame::Ack { frames: 2 });
    assert_eq!(publish(&mut script, "a", 41), Err(SendError::TooLarge));
    publish(&mut script, "ccccc", 28).unwrap();
    let inline = NameRef::Inline("ccccc");
    let full = Publish { topic: inline, at_least_once: false, retain: false, payload: &[1; 28] };
    script.expect(&[Frame::Publish(full)]);
}

#[test]
fn handles_are_evicted_and_announced_again() {
    let mut script = Script::new();
    script.welcomed(Welcome { names: 2, window: 9, ..welcome() });
    let mut announced = Vec::new();
    for name in ["a", "b", "a", "c", "b"] {
        let slot = script.send(Target::client(name), &SendOptions::default()).unwrap();
        let bytes = script.bytes();
        for frame in frames(&bytes) {
            if let Frame::Name { handle, name, .. } = frame {
                announced.push((handle, std::string::String::from(name)));
            }
        }
        script.device.release(slot);
    }
    let expected = [(1, "a"), (2, "b"), (2, "c"), (1, "b")];
    assert_eq!(announced, expected.map(|(handle, name)| (handle, name.into())));
}

#[test]
fn lists_have_the_names_themselves() {
    let mut script = Script::new();
    script.welcomed(Welcome { names: 2, ..welcome() });
    script.send(Target::group("g").only(&["a", "b"]).except(&["c"]), &SendOptions::default()).unwrap();
    let target = bugle_protocol::Target::Group {
        group: handle(1),
        only: Some(NameList::inline(&["a", "b"])),
        except: Some(NameList::inline(&["c"])),
    };
    script.expect(&[
        Frame::Name { handle: 1, kind: NameKind::Group, name: "g" },
        Frame::Send(Send::new(target, b"on")),
    ]);
}

#[test]
fn a_refused_name_ends_naming() {
    let mut script = Script::online();
    let slot = script.sent("a");
    script.gateway(&refused(0, Reason::TooMany));
    script.gateway(&refused(1, Reason::UnknownHandle));
    script.gateway(&Frame::Ack { frames: 2 });
    let unknown = SendError::Refused { reason: Reason::UnknownHandle, retry_after: 0 };
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(unknown)));
    script.send(Target::client("a"), &SendOptions::default()).unwrap();
    let bytes = script.bytes();
    assert!(matches!(
        frames(&bytes)[..],
        [
            Frame::Ack { frames: 2 },
            Frame::Send(Send { target: bugle_protocol::Target::Client(NameRef::Inline("a")), .. })
        ]
    ));
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_sent() {
    let mut script = Script::online();
    let many = [""; 129].map(|_| "a");
    let options = SendOptions::default();
    let mut wrong = |target, options: &SendOptions<'_>| script.send(target, options).unwrap_err();
    assert_eq!(wrong(Target::group("g").only(&many), &options), SendError::ListTooLong);
    assert_eq!(wrong(Target::group("g").only(&[]), &options), SendError::NoRecipient);
    assert_eq!(wrong(Target::client("c").except(&[]), &options), SendError::BadOption);
    assert_eq!(wrong(Target::group("no group"), &options), SendError::BadName);
    assert_eq!(wrong(Target::group("g").except(&["?"]), &options), SendError::BadName);
    assert_eq!(wrong(Target::client("c"), &SendOptions { id: Some(""), ..options }), SendError::BadName);
    let mut publish = |topic, payload: &[u8]| {
        let request = Request::Publish { topic, payload, at_least_once: true, retain: true };
        script.device.submit(&request).unwrap_err()
    };
    assert_eq!(publish("a/+", b""), SendError::BadTopic);
    assert_eq!(publish("", b""), SendError::BadTopic);
    assert_eq!(publish("a", &[0; 8193]), SendError::TooLarge);
    assert_eq!(publish("a", &[0; 600]), SendError::TooLarge, "over the outbox");
    let long = std::string::String::from_utf8(vec![b'a'; 1025]).unwrap();
    assert_eq!(script.device.submit(&Request::Unsubscribe(&long)), Err(SendError::BadTopic));
    script.expect(&[]);
}

#[test]
fn a_send_over_the_gateways_limit_is_too_large() {
    let mut script = Script::new();
    script.welcomed(Welcome { max_body: 100, ..welcome() });
    let request = Request::Publish { topic: "a", payload: &[0; 101], at_least_once: true, retain: false };
    assert_eq!(script.device.submit(&request), Err(SendError::TooLarge));
}

#[test]
fn groups_and_filters_are_restored_before_anything_else_in_a_new_session() {
    let mut script = Script::online();
    let join = Frame::Join { group: NameRef::Inline("floor3") };
    let subscribe = Frame::Subscribe { at_least_once: true, filter: "a/#" };
    let slot = script.device.submit(&Request::Join("floor3")).unwrap();
    script.expect(&[join]);
    script.gateway(&Frame::Ack { frames: 1 });
    script.device.release(slot);
    script.device.submit(&Request::Subscribe { filter: "a/#", at_least_once: true }).unwrap();
    script.device.submit(&Request::Join("left")).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 2 });
    let slot = script.device.submit(&Request::Leave("left")).unwrap();
    script.expect(&[Frame::Leave { group: NameRef::Inline("left") }]);
    script.device.release(slot);
    script.device.handle_disconnected(script.now, Disconnect::Lost);
    assert!(script.device.remembers_group("floor3") && script.device.remembers_filter("a/#"));

    let first = script.welcomed(Welcome { window: 1, ..welcome() });
    assert_eq!(frames(&first)[1..], [join]);
    assert_eq!(script.device.status(), Connection::Restoring);
    assert_eq!(script.send(Target::client("a"), &SendOptions::default()), Err(SendError::NotConnected));
    script.gateway(&Frame::Ack { frames: 1 });
    script.expect(&[subscribe]);
    assert_eq!(script.device.status(), Connection::Online);
}

#[test]
fn a_refused_join_is_forgotten_and_a_refused_restore_is_told() {
    let mut script = Script::online();
    script.device.submit(&Request::Join("cellar")).unwrap();
    script.bytes();
    script.gateway(&refused(0, Reason::NotAuthorized));
    assert!(!script.device.remembers_group("cellar"));
    script.gateway(&Frame::Ack { frames: 1 });

    let slot = script.device.submit(&Request::Join("floor3")).unwrap();
    script.bytes();
    script.gateway(&Frame::Ack { frames: 1 });
    script.device.release(slot);
    script.device.handle_disconnected(script.now, Disconnect::Bye(Reason::ShuttingDown));
    script.welcomed(welcome());
    script.gateway(&Frame::Refused { number: 0, reason: Reason::Busy, retry_after: 0, text: "" });
    script.gateway(&Frame::Ack { frames: 1 });
    assert!(script.device.remembers_group("floor3"), "for now only");
    script.bytes();
    script.pass(999);
    script.expect(&[]);
    script.pass(1);
    script.expect(&[Frame::Join { group: NameRef::Inline("floor3") }]);
    while script.device.poll_event().is_some() {}
    script.gateway(&refused(1, Reason::NotAuthorized));
    assert_eq!(script.device.poll_event(), Some(Event::NotRestored(Reason::NotAuthorized)));
    assert!(!script.device.remembers_group("floor3"));
}

#[test]
fn groups_beyond_the_memory_are_refused() {
    let mut script = Script::new();
    script.welcomed(Welcome { window: 9, ..welcome() });
    let long = "a-group-with-a-name-of-forty-characters-";
    script.device.submit(&Request::Join(long)).unwrap();
    assert_eq!(script.device.submit(&Request::Join("another-group-of-characters")), Err(SendError::TooMany));
    assert!(script.device.submit(&Request::Join(long)).is_ok(), "it is remembered once");
}

#[test]
fn a_gateway_that_never_acknowledges_is_left() {
    let mut script = Script::online();
    let slot = script.sent("a");
    script.pass(29_999);
    script.gateway(&Frame::Ping { token: None });
    assert_eq!(script.closed(), None);
    script.pass(1);
    assert_eq!(script.closed(), Some(Disconnect::TimedOut));
    script.device.handle_disconnected(script.now, Disconnect::Lost);
    assert_eq!(script.device.poll_acceptance(slot), None, "the session may be resumed");
    script.pass(60_000);
    assert_eq!(script.device.poll_acceptance(slot), Some(Err(SendError::Unconfirmed)));
}
