//! What nobody should send: each has its answer and its counter, and is nobody else's affair.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod gateway;

use std::collections::BTreeMap;
use std::path::Path;

use bugle_core::model::{Limits, Reason};
use bugle_core::session::{FirstPacket, first_packet};
use bugle_protocol::{Frame, Kind as FrameKind, split};
use gateway::{Gateway, Kind, Options, Outcome, Random, SendSpec, Setup, Who};
use proptest::prelude::*;

/// A gateway with a device and an MQTT client that only want to talk to each other, on every shard.
struct Scene {
    gateway: Gateway,
    pairs: Vec<[(String, Who); 2]>,
}

impl Scene {
    fn new(shards: u16, seed: Option<u64>) -> Self {
        let mut gateway = Gateway::new(&Setup::new(shards, seed));
        let pairs = (0..shards).map(|shard| {
            [(Kind::Device, "lamp"), (Kind::Mqtt5, "phone")].map(|(kind, base)| {
                let mut ids = (0..).map(|n| format!("{base}-{n}"));
                let id = ids.find(|id| bugle_core::hub::owner(id, shards) == shard).unwrap();
                let who = gateway.connect(kind, &id, Options::default());
                assert_eq!(gateway.join(who, "home"), Outcome::Accepted);
                (id, who)
            })
        });
        let pairs = pairs.collect();
        Self { gateway, pairs }
    }

    /// The pairs talk as if nothing had happened.
    #[track_caller]
    fn assert_unaffected(&mut self) {
        for pair in self.pairs.clone() {
            for (from, to) in [(0, 1), (1, 0)] {
                let ((_, from), (id, to)) = (&pair[from], &pair[to]);
                let spec = SendSpec::new(&format!("c/{id}?receipt=each"), "still there");
                assert_eq!(self.gateway.send(*from, &spec), Outcome::Accepted);
                assert_eq!(self.gateway.receipt(*from).line(), format!("{id}=DELIVERED"));
                assert_eq!(self.gateway.texts(*to), ["still there"]);
            }
        }
        let now = self.gateway.now() + 1000;
        self.gateway.advance(now.millis_since(self.gateway.now()));
    }

    fn clients(&self) -> u64 {
        self.gateway.shards.iter().map(|shard| shard.counters().clients).sum()
    }

    /// All refusals, by reason.
    fn refused(&self) -> BTreeMap<&'static str, u64> {
        let counts = Reason::ALL.iter().map(|&reason| (reason.name(), self.gateway.refused(reason)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// When the bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    First,
    /// After this client was let in.
    After(Kind),
}
use When::{After, First};

/// What comes when, and the answer to it.
struct Bad(&'static str, When, &'static [u8], Answer);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The end, with this reason as far as the protocol can say it.
    End(Reason),
    /// A refusal after which the connection goes on.
    Refused(Reason),
    /// Nothing: the rest may still come, or nothing is wrong.
    Nothing,
}
use Answer::{End, Nothing, Refused};

const DEVICE: When = After(Kind::Device);
const MQTT4: When = After(Kind::Mqtt4);
const MQTT5: When = After(Kind::Mqtt5);

const BAD: &[Bad] = &[
    Bad("a hello in another version", First, b"\x0b\x09BG\x02whatev", End(Reason::UnsupportedVersion)),
    Bad("a hello without its magic", First, b"\x0b\x04XX\x01\x00", End(Reason::Malformed)),
    Bad("a hello longer than may be", First, b"\x0b\x81\x80\x02", End(Reason::FrameTooLarge)),
    Bad("a length without end", First, b"\x0b\xff\xff\xff\xff\xff", End(Reason::FrameTooLarge)),
    Bad(
        "an id that isn't UTF-8",
        First,
        b"\x0b\x0dBG\x01\0\0\0\x02\0\x04\x08\0\x01\xff",
        End(Reason::Malformed),
    ),
    Bad("a bad id", First, b"\x0b\x0dBG\x01\0\0\0\x02\0\x04\x08\0\x01!", End(Reason::BadName)),
    Bad("a device too small", First, b"\x0b\x0dBG\x01\0\0\0\0\x7f\x04\x08\0\x01a", End(Reason::BadOption)),
    Bad("half a hello", First, b"\x0b\x0dBG\x01", Nothing),
    Bad("a second hello", DEVICE, b"\x0b\x0dBG\x01\0\0\0\x02\0\x04\x08\0\x01a", End(Reason::ProtocolError)),
    Bad("a body of 32769", DEVICE, b"\x13\x81\x80\x02", End(Reason::FrameTooLarge)),
    Bad("an ack of nothing", DEVICE, b"\x03\x01\x01", End(Reason::ProtocolError)),
    Bad("an unknown kind", DEVICE, b"\x06\x00", End(Reason::ProtocolError)),
    Bad("an unknown kind with a number", DEVICE, b"\x7f\x00", Refused(Reason::Unsupported)),
    Bad("an unknown kind of a hint", DEVICE, b"\xff\x03abc", Nothing),
    Bad("a join that isn't UTF-8", DEVICE, b"\x11\x03\x00\x01\xff", Refused(Reason::Malformed)),
    Bad("reserved flags", DEVICE, b"\x13\x04\x80\x00\x01g", Refused(Reason::Malformed)),
    Bad("unknown options", DEVICE, b"\x13\x05\x20\x00\x01g\x20", Refused(Reason::Malformed)),
    Bad("an unknown handle", DEVICE, b"\x13\x03\x00\x07x", Refused(Reason::UnknownHandle)),
    Bad("a handle beyond the table", DEVICE, b"\x10\x04\x81\x02\x02g", Refused(Reason::TooMany)),
    Bad("a publish under sig/", DEVICE, b"\x14\x0a\x00\x00\x07sig/g/g", Refused(Reason::BadTopic)),
    Bad("a filter under sig/", DEVICE, b"\x15\x06\x00sig/#", Refused(Reason::BadTopic)),
    Bad("a bad filter", DEVICE, b"\x15\x03\x00a#", Refused(Reason::BadTopic)),
    Bad("half a send", DEVICE, b"\x13\x7f\x00", Nothing),
    Bad("MQTT 6", First, b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01a", End(Reason::UnsupportedVersion)),
    Bad("another MQTT", First, b"\x10\x0d\0\x04MQTZ\x04\x02\0\0\0\x01a", End(Reason::UnsupportedVersion)),
    Bad("a reserved flag", First, b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a", End(Reason::Malformed)),
    Bad("an id that isn't UTF-8", First, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01\xff", End(Reason::Malformed)),
    Bad("no id, no clean session", First, b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0", End(Reason::BadName)),
    Bad("half a CONNECT", First, b"\x10\x0d\0\x04MQTT\x04", Nothing),
    Bad("a second CONNECT", MQTT4, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a", End(Reason::ProtocolError)),
    Bad("a second CONNECT", MQTT5, b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a", End(Reason::ProtocolError)),
    Bad("a packet over 1 MiB", MQTT4, b"\x30\x80\x80\x80\x01", End(Reason::FrameTooLarge)),
    Bad("a packet over 1 MiB", MQTT5, b"\x30\x80\x80\x80\x01", End(Reason::FrameTooLarge)),
    Bad("a length without end", MQTT5, b"\x30\xff\xff\xff\xff\xff", End(Reason::Malformed)),
    Bad("a topic that isn't UTF-8", MQTT4, b"\x30\x03\x00\x01\xff", End(Reason::Malformed)),
    Bad("a topic that isn't UTF-8", MQTT5, b"\x30\x04\x00\x01\xff\x00", End(Reason::Malformed)),
    Bad("QoS 3", MQTT5, b"\x36\x06\x00\x01a\x00\x07\x00", End(Reason::Malformed)),
    Bad("packet type 0", MQTT5, b"\x00\x00", End(Reason::Malformed)),
    Bad("a packet of the server", MQTT5, b"\x20\x03\x00\x00\x00", End(Reason::ProtocolError)),
    Bad("a topic with a wildcard", MQTT5, b"\x30\x04\x00\x01#\x00", End(Reason::BadTopic)),
    Bad(
        "an unknown option",
        MQTT5,
        b"\x32\x17\x00\x12sig/g/g?colour=red\x00\x63\x00",
        Refused(Reason::BadOption),
    ),
    Bad(
        "an unknown option",
        MQTT4,
        b"\x32\x16\x00\x12sig/g/g?colour=red\x00\x63",
        Refused(Reason::BadOption),
    ),
    Bad(
        "an option that isn't UTF-8",
        MQTT4,
        b"\x32\x12\x00\x0esig/g/g?id=%ff\x00\x63",
        Refused(Reason::BadOption),
    ),
    Bad("half a PUBLISH", MQTT5, b"\x30\x7f\x00", Nothing),
];

#[test]
fn bad_input_has_its_answer_and_counter_and_is_nobody_elses_affair() {
    for (Bad(name, when, bytes, answer), seed) in BAD.iter().flat_map(|bad| [(bad, None), (bad, Some(7))]) {
        let name = format!("{name}, {when:?}, {bytes:02x?}");
        let mut scene = Scene::new(1, seed);
        let who = match when {
            First => scene.gateway.raw(bytes),
            After(kind) => {
                let who = scene.gateway.connect(*kind, "bad", Options::default());
                scene.gateway.write(who, bytes);
                who
            }
        };
        let refused = |reason: Reason| format!("REFUSED {reason}");
        match answer {
            Nothing => {
                assert!(scene.gateway.is_open(who), "{name}");
                assert_eq!(scene.refused(), BTreeMap::new(), "{name}");
                scene.gateway.lose(who);
            }
            Refused(reason) => {
                assert!(
                    scene.gateway.log(who).contains(&refused(*reason)),
                    "{name}: {:?}",
                    scene.gateway.log(who)
                );
                assert!(scene.gateway.ping(who), "{name}");
                assert_eq!(scene.refused(), BTreeMap::from([(reason.name(), 1)]), "{name}");
                scene.gateway.goodbye(who);
            }
            End(reason) => {
                assert!(!scene.gateway.is_open(who), "{name}");
                match when {
                    First => assert_eq!(
                        first_answer(scene.gateway.bytes(who)),
                        told_first(bytes, *reason),
                        "{name}"
                    ),
                    After(Kind::Mqtt4) => assert_eq!(scene.gateway.end(who), Some(""), "{name}"),
                    After(_) => assert_eq!(scene.gateway.end(who), Some(reason.name()), "{name}"),
                }
                assert_eq!(scene.refused(), [(reason.name(), 1)].into(), "{name}");
            }
        }
        assert_eq!(scene.clients(), 2, "{name}");
        scene.assert_unaffected();
    }
}

/// What a raw connection was told: BYE's reason, or CONNACK's return code.
fn first_answer(bytes: &[u8]) -> String {
    match bytes.first() {
        None => String::new(),
        Some(0x20) => format!("CONNACK {}", bytes[3]),
        Some(_) => match split(bytes, usize::MAX).unwrap().unwrap().decode().unwrap() {
            Frame::Bye { reason, .. } => format!("BYE {reason}"),
            other => panic!("{other:?}"),
        },
    }
}

/// What it should have been told: 3.1.1 has few codes, and without one the connection is closed.
fn told_first(bytes: &[u8], reason: Reason) -> String {
    match (bytes[0], reason) {
        (0x0b, reason) => format!("BYE {reason}"),
        // Whoever asks for MQTT 6 is answered as MQTT 5 does.
        (_, Reason::UnsupportedVersion) if bytes.contains(&6) => "CONNACK 132".into(),
        (_, Reason::BadName) => "CONNACK 2".into(),
        _ => String::new(),
    }
}

#[test]
fn neither_protocol_is_told_by_its_first_byte() {
    for garbage in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"\0", b"\xc0\0", b"\xff\xff\xff\xff", b"\x82"]
    {
        assert_eq!(first_packet(garbage, &Limits::default()), FirstPacket::Unknown, "{garbage:02x?}");
    }
}

#[test]
fn who_never_finishes_the_first_packet_is_closed_after_10_s() {
    for half in [&b"\x0b\x0dBG"[..], b"\x10\x0d\0\x04MQTT\x04"] {
        let mut scene = Scene::new(1, None);
        let who = scene.gateway.raw(half);
        scene.gateway.advance(9_999);
        assert!(scene.gateway.is_open(who));
        // One byte more buys no more time.
        scene.gateway.write(who, &half[..1]);
        scene.gateway.advance(1);
        assert!(!scene.gateway.is_open(who), "{half:02x?}");
        scene.assert_unaffected();
    }
}

#[test]
fn a_device_over_its_window_is_closed() {
    let mut scene = Scene::new(2, None);
    let who = scene.gateway.connect(Kind::Device, "bad", Options::default());
    scene.gateway.hold(true);
    for _ in 0..33 {
        scene.gateway.start_send(who, &SendSpec::new("g/home", "much"));
    }
    scene.gateway.pump();
    assert_eq!(scene.gateway.end(who), Some("WINDOW_EXCEEDED"));
    assert_eq!(scene.refused(), BTreeMap::from([("WINDOW_EXCEEDED", 1)]));
    scene.gateway.hold(false);
    for (_, who) in scene.pairs.iter().flatten() {
        assert_eq!(scene.gateway.texts(*who).len(), 32, "what came before was accepted");
    }
    scene.assert_unaffected();
}

/// One vector of protocol/vectors: its keys and values.
type Vector = BTreeMap<String, String>;

fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|e| e == "txt"));
    let texts: Vec<_> = texts.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let blocks = texts.iter().flat_map(|text| text.split("\n\n"));
    let vector = |block: &str| -> Vector {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
    };
    blocks.map(vector).filter(|vector| !vector.is_empty()).collect()
}

fn bytes_of(vector: &Vector) -> Vec<u8> {
    vector["hex"].split(' ').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn every_golden_vector_has_its_answer_from_the_gateway() {
    let vectors = vectors();
    assert!(vectors.len() > 150, "{}", vectors.len());
    let mut answered = 0;
    for vector in &vectors {
        let (name, bytes) = (&vector["name"], bytes_of(vector));
        // To a connected device's session, whatever it is.
        let mut scene = Scene::new(1, None);
        let device = scene.gateway.connect(Kind::Device, "lamp-1", Options::default());
        // The vectors' handles: 1 is their group, the others are clients.
        let names = (1..=200).flat_map(|handle| {
            let (kind, name) =
                if handle == 1 { (2, "floor3".to_owned()) } else { (1, format!("lamp-{handle}")) };
            let reference = if handle < 128 { vec![handle] } else { vec![handle, 1] };
            let body = [&reference[..], &[kind], name.as_bytes()].concat();
            [&[FrameKind::NAME.0, body.len() as u8], &body[..]].concat()
        });
        scene.gateway.write(device, &names.collect::<Vec<u8>>());
        scene.gateway.write(device, &bytes);
        scene.gateway.advance(100);

        let from_device = vector["from"] != "gateway";
        let opens = matches!(FrameKind(bytes[0]), FrameKind::HELLO | FrameKind::PROOF);
        let Some(answer) = vector.get("answer").filter(|_| from_device && bytes[0] != FrameKind::PROOF.0)
        else {
            continue;
        };
        answered += 1;
        if opens {
            let raw = scene.gateway.raw(&bytes);
            assert_eq!(first_answer(scene.gateway.bytes(raw)), *answer, "{name}");
            continue;
        }
        let (log, end) = (scene.gateway.log(device), scene.gateway.end(device));
        match answer.split_once(' ') {
            Some(("BYE", reason)) => assert_eq!(end, Some(reason), "{name}"),
            Some(("REFUSED", _)) => assert!(log.contains(answer) && end.is_none(), "{name}: {log:?}"),
            _ => assert!(
                end.is_none() && !log.iter().any(|line| line.starts_with("REFUSED")),
                "{name}: {log:?}"
            ),
        }
        let counted = u64::from(answer.contains(' '));
        assert_eq!(scene.refused().values().sum::<u64>(), counted, "{name}: {:?}", scene.refused());
    }
    assert!(answered > 50, "{answered}");
}

// -- random bytes ---------------------------------------------------------------------------------------------

/// What a hostile client does.
#[derive(Clone, Debug)]
enum Hostile {
    Bytes(Vec<u8>),
    /// A good frame or packet, a byte of it changed.
    Twisted(u8, usize, u8),
    Wait(u16),
}

fn hostile() -> impl Strategy<Value = Hostile> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 1..64).prop_map(Hostile::Bytes),
        6 => (0..24u8, any::<usize>(), any::<u8>()).prop_map(|(which, at, to)| Hostile::Twisted(which, at, to)),
        1 => (1..20_000u16).prop_map(Hostile::Wait),
    ]
}

/// Good bytes of this protocol, to be twisted.
fn good(kind: Kind, which: u8) -> Vec<u8> {
    let device: &[&[u8]] = &[
        b"\x01\x04abcd",
        b"\x03\x01\x01",
        b"\x10\x07\x01\x02home\0",
        b"\x10\x06\x01\x02home",
        b"\x11\x06\0\x04home",
        b"\x11\x01\x01",
        b"\x12\x01\x01",
        b"\x13\x03\0\x01x",
        b"\x13\x05\x20\x01\x02xy",
        b"\x13\x07\x01\0\x03badx",
        b"\x13\x08\x02\x01\x01\0\x03bad",
        b"\x13\x0a\x28\x01\x05\x1e!",
        b"\x14\x07\x01\0\x03a/bx",
        b"\x15\x04\x01a/#",
        b"\x16\x03a/#",
        b"\x20\x04\0\0\x10\0",
        b"\x04\x01\x0c",
    ];
    let mqtt: &[&[u8]] = &[
        b"\xc0\0",
        b"\x30\x08\0\x03a/b\0xy",
        b"\x32\x0a\0\x03a/b\0\x09\0xy",
        b"\x34\x0a\0\x03a/b\0\x0a\0xy",
        b"\x82\x0a\0\x0b\0\0\x04a/+c\x01",
        b"\x82\x10\0\x0c\0\0\x0asig/g/home\x01",
        b"\xa2\x08\0\x0d\0\0\x03a/b",
        b"\x32\x11\0\x0asig/g/home\0\x0e\0xy",
        b"\x32\x16\0\x11sig/g/home?echo=1\0\x0f\0",
        b"\x40\x02\0\x01",
        b"\x50\x02\0\x01",
        b"\x62\x02\0\x0a",
        b"\x70\x02\0\x01",
        b"\xe0\0",
        b"\xf0\0",
        b"\x32\x1a\0\x0asig/g/home\0\x10\x09\x26\0\x03ttl\0\x019x",
    ];
    let all = if kind == Kind::Device { device } else { mqtt };
    all[usize::from(which) % all.len()].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_and_never_reach_others(
        seed in any::<u64>(),
        kind in prop::sample::select(vec![Kind::Device, Kind::Mqtt4, Kind::Mqtt5]),
        first in prop::collection::vec(any::<u8>(), 0..40),
        acts in prop::collection::vec(hostile(), 1..30),
    ) {
        let mut scene = Scene::new(2, Some(seed));
        for byte in [0x0b, 0x10] {
            let who = scene.gateway.raw(&[&[byte], &first[..]].concat());
            scene.gateway.lose(who);
        }
        let mut random = Random(seed);
        let mut who = None;
        for act in acts {
            let id = format!("bad-{}", random.below(2));
            let bad = *who.get_or_insert_with(|| {
                // Heard by nobody: its bytes are not taken apart.
                scene.gateway.connect_deaf(kind, &id)
            });
            match act {
                Hostile::Bytes(bytes) => scene.gateway.write(bad, &bytes),
                Hostile::Twisted(which, at, to) => {
                    let mut bytes = good(kind, which);
                    let at = at % (bytes.len() * 2);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = to;
                    }
                    scene.gateway.write(bad, &bytes);
                }
                Hostile::Wait(millis) => scene.gateway.advance(millis.into()),
            }
            if !scene.gateway.is_open(bad) {
                who = None;
            }
            // What it sent to their group is no fault of theirs.
            for (_, well_behaved) in scene.pairs.clone().iter().flatten() {
                scene.gateway.received(*well_behaved);
            }
            scene.assert_unaffected();
        }
        if let Some(who) = who {
            scene.gateway.lose(who);
        }
        prop_assert_eq!(scene.clients(), 4);
    }
}
