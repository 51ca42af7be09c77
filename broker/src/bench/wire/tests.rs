use super::*;
use crate::bench::plan::{Send, To};

fn message(protocol: Protocol, to: To, qos: u8) -> (Message, Vec<u8>) {
    let message = Message::new(protocol, &Send { to, recipients: 1 }, &Handles::default(), 32, qos).unwrap();
    let mut bytes = Vec::new();
    message.put(Stamp { stream: 3, number: 70_000, due: 1 << 40 }, &mut bytes);
    (message, bytes)
}

/// The events of `input` in short, with how much was taken and what is to be answered.
fn walked(protocol: Protocol, input: &[u8]) -> (Vec<String>, usize, Vec<u8>) {
    let (mut events, mut out) = (Vec::new(), Vec::new());
    let taken = Wire(protocol).walk(input, &mut out, |event| {
        events.push(match event {
            Event::Message(payload) => format!("{:?}", Stamp::of(payload).unwrap()),
            event => format!("{event:?}"),
        });
    });
    (events, taken.unwrap(), out)
}

const STAMP: &str = "Stamp { stream: 3, number: 70000, due: 1099511627776 }";

#[test]
fn a_message_is_counted_and_acknowledged_once_it_is_whole() {
    for (qos, ack) in [(0, &[][..]), (1, &[0x40, 2, 0x11, 0x72])] {
        let (_, bytes) = message(Protocol::Mqtt, To::Topic("a".to_owned()), qos);
        let twice = [&bytes[..], &bytes[..bytes.len() - 1]].concat();
        assert_eq!(walked(Protocol::Mqtt, &twice), (vec![STAMP.to_owned()], bytes.len(), ack.to_vec()));
        for cut in 0..bytes.len() {
            assert_eq!(walked(Protocol::Mqtt, &bytes[..cut]), (vec![], 0, vec![]));
        }
    }
}

#[test]
fn a_device_acknowledges_all_it_got_at_once() {
    let message = Frame::Message(bugle_protocol::Message {
        topic: NameRef::Inline("a"),
        at_least_once: false,
        retained: false,
        payload: &Stamp { stream: 3, number: 70_000, due: 1 << 40 }.bytes(),
    });
    let mut bytes = Vec::new();
    put_frame(&message, &mut bytes).unwrap();
    put_frame(&message, &mut bytes).unwrap();
    let (events, taken, out) = walked(Protocol::Device, &bytes);
    assert_eq!((events, taken, out), (vec![STAMP.to_owned(); 2], bytes.len(), vec![3, 1, 2]));
}

#[test]
fn what_the_broker_refuses_is_said() {
    let refused = |protocol, bytes: &[u8]| {
        let (events, ..) = walked(protocol, bytes);
        assert!(matches!(&events[..], [event] if event.starts_with("Refused")), "{events:?}");
    };
    refused(Protocol::Mqtt, &[0x20, 2, 0, 5]);
    refused(Protocol::Mqtt, &[0x90, 3, 0, 1, 0x80]);
    refused(Protocol::Device, &[4, 1, 8]);
    assert!(Wire(Protocol::Mqtt).walk(&[0x30, 3, 0, 9, 0], &mut Vec::new(), |_| {}).is_err());
}

#[test]
fn the_lists_of_a_signal_ride_on_its_topic() {
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
    let to = To::Group { name: "g".to_owned(), only: ids(&["a", "b"]), except: ids(&["c"]) };
    let (_, bytes) = message(Protocol::Mqtt, to, 1);
    let topic = b"sig/g/g?only=a,b&except=c";
    assert!(bytes.windows(topic.len()).any(|window| window == topic));
}
