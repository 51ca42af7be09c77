//! Wills [section 3.1.2.5, 3.1.3.2].

use bugle_core::mqtt::{Property, ReasonCode};

use crate::peer::{Broker, How, Peer, V5, VERSIONS, Version, WillSpec, each};

fn watcher(broker: &mut Broker, version: Version) -> Peer {
    let mut watcher = broker.fresh(version, "watcher");
    broker.subscribe(&mut watcher, "will/#", 1);
    watcher
}

fn delayed(seconds: u32, expiry: u32) -> How {
    let properties = vec![Property::WillDelayInterval(seconds)];
    let will = Some(WillSpec { properties, ..WillSpec::new("will/x", "gone") });
    How { clean: false, expiry, will, ..How::default() }
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3] and 3.1.1 [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3]
#[test]
fn a_will_fires_when_the_connection_is_lost_and_not_after_a_goodbye() {
    each(&VERSIONS, |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let how = How { will: Some(WillSpec::new("will/x", "gone")), ..How::default() };
        let peer = broker.connect(version, "peer", &how);
        broker.disconnect(peer);
        assert_eq!(broker.heard(&mut watcher), [""; 0]);
        let peer = broker.connect(version, "peer", &how);
        broker.lose(peer);
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"]);
    });
}

/// [MQTT-3.1.2-8]: only reason 0x00 of DISCONNECT takes the will back, not only 0x04 wants it (section 3.14.2.1).
#[test]
fn a_disconnect_that_is_not_normal_fires_the_will() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let how = How { will: Some(WillSpec::new("will/x", "gone")), ..How::default() };
        for reason in [
            ReasonCode::DisconnectWithWill,
            ReasonCode::UnspecifiedError,
            ReasonCode::ProtocolError,
            ReasonCode::AdministrativeAction,
        ] {
            let mut peer = broker.connect(version, "peer", &how);
            assert_eq!(broker.disconnect_with(&mut peer, reason, &[]), [""; 0]);
            assert!(!broker.gateway.is_open(peer.who));
            assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"], "{reason}");
        }
    });
}

/// [MQTT-3.1.3-10] and [MQTT-3.1.2-7]: as it was, in order.
#[test]
fn a_will_keeps_its_properties_and_their_order() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let properties = vec![
            Property::UserProperty("b", "1"),
            Property::ResponseTopic("answers"),
            Property::UserProperty("a", "2"),
            Property::UserProperty("b", "3"),
        ];
        let will = Some(WillSpec { properties, ..WillSpec::new("will/x", "gone") });
        let peer = broker.connect(version, "peer", &How { will, ..How::default() });
        broker.lose(peer);
        let heard = broker.heard(&mut watcher);
        assert_eq!(heard, ["PUBLISH q0 will/x gone {b=1, ResponseTopic(\"answers\"), a=2, b=3}"]);
    });
}

/// [MQTT-3.1.2-10] and 3.1.1 [MQTT-3.1.2-10] [MQTT-3.1.2-12]
#[test]
fn who_has_no_will_leaves_none() {
    each(&VERSIONS, |mut broker, version| {
        let mut app = broker.fresh(version, "app");
        broker.subscribe(&mut app, "#", 0);
        let with_will = How { will: Some(WillSpec::new("w", "x")), ..How::kept() };
        let peer = broker.connect(version, "peer", &with_will);
        broker.disconnect(peer);
        let peer = broker.connect(version, "peer", &How::kept());
        broker.lose(peer);
        assert_eq!(broker.heard(&mut app), [""; 0], "nor that of an earlier connection");
        let peer = broker.connect(version, "peer", &with_will);
        broker.lose(peer);
        assert_eq!(broker.heard(&mut app), ["PUBLISH q0 w x"]);
        let peer = broker.connect(version, "peer", &How::kept());
        broker.lose(peer);
        assert_eq!(broker.heard(&mut app), [""; 0], "nor one that was published");
    });
}

/// [MQTT-3.1.2-10] and section 3.1.3.2.2: after its delay, if nobody came back.
#[test]
fn a_delayed_will_waits_and_fires_once() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let peer = broker.connect(version, "peer", &delayed(10, 100));
        broker.lose(peer);
        broker.gateway.advance(9_999);
        assert_eq!(broker.heard(&mut watcher), [""; 0]);
        broker.gateway.advance(1);
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"]);
        broker.gateway.advance(200_000);
        assert_eq!(broker.heard(&mut watcher), [""; 0]);
    });
}

/// [MQTT-3.1.3-9]: a new connection to the session keeps it from firing.
#[test]
fn a_client_that_is_back_in_time_takes_its_will_back() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let peer = broker.connect(version, "peer", &delayed(10, 100));
        broker.lose(peer);
        broker.gateway.advance(9_000);
        let (peer, _) = broker.resume(version, "peer", &How::kept());
        broker.gateway.advance(50_000);
        assert_eq!(broker.heard(&mut watcher), [""; 0]);
        broker.lose(peer);
        assert_eq!(broker.heard(&mut watcher), [""; 0], "the new connection has no will");
        let older = broker.connect(version, "peer", &delayed(10, 100));
        broker.resume(version, "peer", &delayed(10, 100));
        assert!(!broker.gateway.is_open(older.who));
        broker.gateway.advance(50_000);
        assert_eq!(broker.heard(&mut watcher), [""; 0], "nor at a takeover");
    });
}

/// Section 3.1.3.2.2: the end of the session fires it, whatever its delay.
#[test]
fn a_delayed_will_fires_when_its_session_ends() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let peer = broker.connect(version, "peer", &delayed(100, 10));
        broker.lose(peer);
        broker.gateway.advance(9_999);
        assert_eq!(broker.heard(&mut watcher), [""; 0]);
        broker.gateway.advance(1);
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"], "expired");
        let peer = broker.connect(version, "peer", &delayed(100, 0));
        broker.lose(peer);
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"], "not kept");
        let peer = broker.connect(version, "peer", &delayed(100, 100));
        broker.lose(peer);
        broker.fresh(version, "peer");
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"], "a clean start");
        broker.connect(version, "peer", &delayed(100, 100));
        broker.fresh(version, "peer");
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"], "a clean start takes over");
    });
}

/// Section 3.1.4: without a delay a takeover is a loss like any other.
#[test]
fn a_will_without_delay_fires_at_a_takeover() {
    each(&[V5], |mut broker, version| {
        let mut watcher = watcher(&mut broker, version);
        let first = broker.connect(version, "peer", &delayed(0, 100));
        broker.resume(version, "peer", &How::kept());
        assert!(!broker.gateway.is_open(first.who));
        assert_eq!(broker.heard(&mut watcher), ["PUBLISH q0 will/x gone"]);
    });
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] and 3.1.1 [MQTT-3.1.2-16] [MQTT-3.1.2-17]
#[test]
fn a_will_is_retained_if_it_says_so() {
    each(&VERSIONS, |mut broker, version| {
        for (retain, expected) in [(false, 1), (true, 2)] {
            let will = Some(WillSpec { retain, ..WillSpec::new("will/x", "gone") });
            let peer = broker.connect(version, "peer", &How { will, ..How::default() });
            broker.lose(peer);
            let mut late = broker.fresh(version, "late");
            assert_eq!(broker.subscribe(&mut late, "will/x", 0).len(), expected);
        }
    });
}

/// [MQTT-3.1.2-15] and its expiry from the moment it fires.
#[test]
fn a_will_can_be_retained_and_expires_from_when_it_fires() {
    each(&[V5], |mut broker, version| {
        let properties = vec![
            Property::WillDelayInterval(10),
            Property::MessageExpiryInterval(20),
            Property::ContentType("x"),
        ];
        let will = Some(WillSpec { qos: 1, retain: true, properties, ..WillSpec::new("will/x", "gone") });
        let peer = broker.connect(version, "peer", &How { will, expiry: 100, ..How::kept() });
        broker.lose(peer);
        broker.gateway.advance(15_000);
        let mut late = broker.fresh(version, "late");
        let heard = broker.subscribe(&mut late, "will/x", 0);
        assert_eq!(
            heard[1..],
            ["PUBLISH q0 retain will/x gone {MessageExpiryInterval(15), ContentType(\"x\")}"]
        );
    });
}
