//! Signals where the standard's machinery is under them: QoS 2, sessions that are kept, a client that changes its
//! protocol (S1, S2, S8, S9).

use crate::gateway::{Kind, Options, SendSpec};
use crate::peer::{Broker, How, Peer, V5, V311, VERSIONS, Version, each, each_with, publish};
use bugle_core::hub::owner;
use bugle_core::mqtt::Publish;

fn app(broker: &mut Broker, version: Version) -> Peer {
    let mut app = broker.fresh(version, "app");
    broker.subscribe(&mut app, "sig/r/app", 0);
    app
}

/// What the receipt in these lines says of each recipient.
fn statuses(heard: &[String]) -> String {
    let receipt =
        heard.iter().find(|line| line.contains("\"statuses\"")).unwrap_or_else(|| panic!("{heard:?}"));
    let statuses = receipt.split("\"statuses\":{").nth(1).unwrap();
    statuses.split('}').next().unwrap().replace('"', "")
}

/// [MQTT-4.3.3-8] for both hops; DELIVERED when the recipient has it (PUBREC), and once whatever is repeated.
#[test]
fn s8_a_signal_at_qos_2_is_delivered_once_and_told() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = app(&mut broker, version);
        let mut lamp = broker.fresh(version, "lamp");
        broker.subscribe(&mut lamp, "sig/g/floor", 2);
        let signal = publish(2, 7, "sig/g/floor?receipt=each", "on");
        assert_eq!(broker.publish_as(&mut app, &signal, &[]), ["PUBREC 7 00"]);
        let again = Publish { dup: true, ..signal };
        assert_eq!(broker.publish_as(&mut app, &again, &[]), ["PUBREC 7 00"]);
        assert_eq!(broker.pubrel(&mut app, 7), ["PUBCOMP 7 00"]);
        let heard = broker.heard(&mut lamp);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].starts_with("PUBLISH q2 #1 sig/g/floor on"), "{heard:?}");
        assert_eq!(broker.heard(&mut app), [""; 0], "not yet known");
        assert_eq!(broker.pubrec(&mut lamp, 1), ["PUBREL 1 00"]);
        assert_eq!(statuses(&broker.heard(&mut app)), "lamp:DELIVERED");
        assert_eq!(broker.pubcomp(&mut lamp, 1), [""; 0]);
    });
}

/// T3: while an earlier QoS 0 send still waited for other shards, its notice was written for the refusal of a later one.
#[test]
fn t3_the_refusal_of_a_qos_0_send_is_told_as_its_own() {
    each_with(
        &VERSIONS,
        |limits| limits.receipts_per_client = 1,
        |mut broker, version| {
            let shards = broker.gateway.shards.len() as u16;
            if shards == 1 {
                return;
            }
            let mut app = app(&mut broker, version);
            let far =
                (0..).map(|n| format!("r{n}")).find(|id| owner(id, shards) != owner("app", shards)).unwrap();
            let mut lamp = broker.fresh(version, &far);
            broker.subscribe(&mut lamp, "sig/g/floor", 0);
            broker.gateway.hold(true);
            let first = publish(0, 0, "sig/g/floor?id=first&receipt=each", "on");
            assert_eq!(broker.publish_as(&mut app, &first, &[]), [""; 0], "it waits for the other shard");
            let heard = broker.publish(&mut app, 0, 0, "sig/g/floor?id=second&receipt=each", "refused");
            assert!(heard.len() == 1 && heard[0].contains("\"id\":\"second\""), "{heard:?}");
            broker.gateway.hold(false);
            assert_eq!(statuses(&broker.heard(&mut app)), format!("{far}:UNCONFIRMED"));
        },
    );
}

/// S8, S9: the link is lost behind the write. The sender hears UNCONFIRMED; the session gets it again, unless it is late.
#[test]
fn s9_an_unacknowledged_signal_comes_again_unless_its_deadline_is_past() {
    each(&VERSIONS, |mut broker, version| {
        for (wait, comes) in [(400, true), (600, false)] {
            let mut app = app(&mut broker, version);
            let mut lamp = broker.connect(version, "lamp", &How::kept());
            broker.subscribe(&mut lamp, "sig/g/floor", 1);
            broker.publish(&mut app, 1, 1, "sig/g/floor?receipt=each&ttl=500", "on");
            assert_eq!(broker.heard(&mut lamp).len(), 1);
            broker.lose(lamp);
            assert_eq!(statuses(&broker.heard(&mut app)), "lamp:UNCONFIRMED");
            broker.gateway.advance(wait);
            let (lamp, heard) = broker.resume(version, "lamp", &How::kept());
            assert_eq!(heard.len(), usize::from(comes), "{heard:?}");
            assert!(
                heard.iter().all(|line| line.starts_with("PUBLISH q1 #1 dup sig/g/floor on")),
                "{heard:?}"
            );
            broker.lose(lamp);
            broker.disconnect(app);
            broker.fresh(version, "lamp");
        }
    });
}

/// [MQTT-4.3.3-10] The late signal's packet identifier was used again while the client still had it, and took the next
/// message for a repetition: it was lost, and told as DELIVERED.
#[test]
fn s9_a_late_signal_at_qos_2_is_released_before_its_identifier_is_used_again() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = app(&mut broker, version);
        let mut lamp = broker.connect(version, "lamp", &How::kept());
        broker.subscribe(&mut lamp, "sig/g/floor", 2);
        broker.publish(&mut app, 1, 1, "sig/g/floor?ttl=500", "late");
        broker.publish_as(&mut app, &publish(2, 2, "sig/g/floor?ttl=500", "late"), &[]);
        assert_eq!(broker.heard(&mut lamp).len(), 2);
        broker.lose(lamp);
        broker.gateway.advance(500);
        let (mut lamp, heard) = broker.resume(version, "lamp", &How::kept());
        assert_eq!(heard, ["PUBREL 2 00"], "at QoS 1 there is nothing to release");
        // The second waits with what was released before.
        for (number, id) in [(3, 1), (4, 3), (5, 2)] {
            if id == 2 {
                assert_eq!(broker.pubcomp(&mut lamp, id), [""; 0]);
            }
            broker.publish_as(&mut app, &publish(2, number, "sig/g/floor", "on"), &[]);
            let heard = broker.heard(&mut lamp);
            assert!(heard[0].starts_with(&format!("PUBLISH q2 #{id} ")), "{heard:?}");
        }
    });
}

/// S1: a device with the id of a kept MQTT session is the same member, with what waited; and back again.
#[test]
fn s1_membership_and_what_waits_survive_a_change_of_protocol() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = app(&mut broker, version);
        let mut phone = broker.connect(version, "x", &How::kept());
        broker.subscribe(&mut phone, "sig/g/floor", 1);
        broker.subscribe(&mut phone, "sig/c/x", 1);
        broker.subscribe(&mut phone, "plain", 1);
        broker.lose(phone);
        broker.publish(&mut app, 1, 1, "plain", "waited");

        let device = broker.gateway.connect(Kind::Device, "x", Options::default());
        assert_eq!(broker.gateway.texts(device), ["waited"]);
        let heard = broker.publish(&mut app, 1, 2, "sig/g/floor?receipt=each", "to the device");
        assert_eq!(statuses(&heard), "x:DELIVERED");
        assert_eq!(broker.gateway.texts(device), ["to the device"]);
        broker.publish(&mut app, 1, 3, "plain", "filters belong to the protocol");
        assert_eq!(broker.gateway.texts(device), [""; 0]);
        broker.gateway.lose(device);
        let heard = broker.publish(&mut app, 1, 4, "sig/g/floor?receipt=each", "nobody");
        assert_eq!(statuses(&heard), "x:OFFLINE");

        let (mut phone, connack) = broker.try_connect(version, "x", &How::kept());
        assert!(!connack[0].contains("present"), "its packets' state is gone: {connack:?}");
        broker.publish(&mut app, 1, 5, "sig/g/floor", "to the phone");
        broker.publish(&mut app, 1, 6, "sig/c/x", "to its inbox");
        let heard = broker.heard(&mut phone);
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(
            heard[0].contains("sig/g/floor to the phone") && heard[1].contains("sig/c/x to its inbox"),
            "{heard:?}"
        );
        let left = broker.unsubscribe(&mut phone, "sig/g/floor");
        assert_eq!(
            left,
            if version == V5 { ["UNSUBACK 901 00"] } else { ["UNSUBACK 901"] },
            "it knows the form"
        );
        let heard = broker.publish(&mut app, 1, 7, "sig/g/floor?receipt=each", "left");
        assert_eq!(statuses(&heard), "");
    });
}

/// S1: the device takes a live MQTT connection over, and a clean start of MQTT ends what the device had kept.
#[test]
fn s1_a_device_takes_an_mqtt_connection_over_and_a_clean_start_ends_it_all() {
    each(&[V311], |mut broker, version| {
        let mut app = app(&mut broker, version);
        let mut phone = broker.connect(version, "x", &How::kept());
        broker.subscribe(&mut phone, "sig/g/floor", 1);
        let device = broker.gateway.connect(Kind::Device, "x", Options::default());
        assert!(!broker.gateway.is_open(phone.who));
        let heard = broker.publish(&mut app, 1, 1, "sig/g/floor?receipt=each", "on");
        assert_eq!(statuses(&heard), "x:DELIVERED");
        let spec = SendSpec::new("c/app?receipt=each", "from the device");
        assert_eq!(broker.gateway.send(device, &spec).name(), "ACCEPTED");
        let clean = broker.fresh(version, "x");
        assert!(!broker.gateway.is_open(device));
        let heard = broker.publish(&mut app, 1, 2, "sig/g/floor?receipt=each", "off");
        assert_eq!(statuses(&heard), "");
        broker.lose(clean);
        let away: u64 = broker.gateway.shards.iter().map(|shard| shard.counters().sessions_away).sum();
        assert_eq!(away, 0);
    });
}
