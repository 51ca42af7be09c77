//! docs/protocol.md says what the code does: its byte dumps are the golden vectors, its tables list every
//! kind, reason, status and limit, and its costs are computed here, MQTT's too.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU16;
use std::path::Path;

use bugle_protocol::{
    FIRST_BYTE, Frame, Kind, MAX_BODY, MAX_LIST, MAX_NAME, MAX_PAYLOAD, MAX_TOPIC, MIN_DEVICE_BODY, NameKind,
    NameList, NameRef, Reason, Send, Status, Target,
};
use support::{GROUPS, KINDS, bytes, vectors};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of all table rows, without code marks.
fn rows(document: &str) -> Vec<Vec<String>> {
    let cell = |cell: &str| cell.trim().replace('`', "");
    let row =
        |line: &str| line.strip_prefix('|')?.strip_suffix('|').map(|row| row.split('|').map(cell).collect());
    document.lines().filter_map(row).collect()
}

#[test]
fn byte_dumps_are_the_vectors() {
    let vectors: BTreeMap<_, _> =
        GROUPS.into_iter().flat_map(vectors).map(|vector| (vector.name.clone(), vector)).collect();
    let document = document();
    let mut dumps = 0;
    for block in document.split("\n```hex\n").skip(1) {
        let block = block.split_once("\n```").expect("the block has an end").0;
        assert!(block.starts_with("# "), "a dump without the name of its vector: {block}");
        for dump in block.split("# ").skip(1) {
            let (heading, lines) = dump.split_once('\n').expect("bytes under the heading");
            let (name, from) = heading.split_once(", from ").expect("# VECTOR, from END");
            let vector = vectors.get(name).unwrap_or_else(|| panic!("no vector is called {name}"));
            let dumped: Vec<u8> =
                lines.lines().flat_map(|line| bytes(line.split(';').next().unwrap_or_default())).collect();
            assert_eq!(dumped, vector.hex, "{name}");
            assert!([from, "both"].contains(&&*vector.fields["from"]), "{name} isn't from {from}");
            dumps += 1;
        }
    }
    assert!(dumps > 20, "the dumps weren't found");
}

#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let documented: BTreeSet<_> = rows(&document())
        .into_iter()
        .filter(|row| row.len() == 5 && KINDS.iter().any(|(_, name)| row[1] == *name))
        .map(|row| [row[0].clone(), row[1].clone(), row[3].clone(), row[4].clone()])
        .collect();
    let coded = KINDS
        .iter()
        .map(|(kind, name)| {
            [&*format!("{:02X}", kind.0), name, yes(kind.is_numbered()), yes(kind.takes_window())]
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(documented, coded);
    assert_eq!(Kind::HELLO.0, FIRST_BYTE);
}

/// The rows of the first table after `heading` whose first cell is a number: that number and the name beside it.
fn codes(heading: &str) -> Vec<(u8, String)> {
    let document = document();
    let section = document.split_once(heading).expect(heading).1;
    let section = section.split("\n## ").next().unwrap_or_default();
    rows(section).into_iter().filter_map(|row| Some((row[0].parse().ok()?, row[1].clone()))).collect()
}

#[test]
fn every_reason_and_status_is_in_its_table() {
    let reasons: Vec<_> =
        Reason::ALL.iter().map(|reason| (reason.code(), reason.name().to_owned())).collect();
    assert_eq!(codes("## 14. Reasons"), reasons);
    let statuses: Vec<_> =
        Status::ALL.iter().map(|status| (status.code(), status.name().to_owned())).collect();
    assert_eq!(codes("## 15. Statuses"), statuses);
}

#[test]
fn the_limits_are_those_of_the_code() {
    let rows = rows(&document());
    for (limit, value) in [
        ("payload of a SEND or PUBLISH, bytes", MAX_PAYLOAD.to_string()),
        ("entries of an *only* or *except* list, counted as given", MAX_LIST.to_string()),
        ("client id, group name, message id, bytes", MAX_NAME.to_string()),
        ("topic, topic filter, bytes", MAX_TOPIC.to_string()),
        ("frame body to the gateway, bytes", MAX_BODY.to_string()),
        ("frame body to the device, bytes", format!("max_body of HELLO, at least {MIN_DEVICE_BODY}")),
    ] {
        let row = rows.iter().find(|row| row[0] == limit).unwrap_or_else(|| panic!("no limit: {limit}"));
        assert_eq!(row[1], value, "{limit}");
    }
}

#[test]
fn the_cost_table_is_computed() {
    let lengths: BTreeMap<_, _> =
        GROUPS.into_iter().flat_map(vectors).map(|vector| (vector.name, vector.hex.len())).collect();
    let vector = |name: &str| lengths[name];
    let payload = [0x55; 16];

    let group = "sig/g/floor3";
    let members: Vec<String> = (101..=228).map(|number| format!("lamp-{number}")).collect();
    let list = members.join(",");
    let alias = mqtt::number_property(2);
    let over =
        |topic: &str, properties: usize| mqtt::publish(topic, properties, payload.len()) - payload.len();

    let inline: Vec<_> = members.iter().map(|member| NameRef::Inline(member)).collect();
    let handle = NonZeroU16::MIN;
    let target = |group, only| Target::Group { group, only, except: None };
    let send = |target| Frame::Send(Send::new(target, &payload)).encoded_len() - payload.len();
    let announced: usize = (1..)
        .zip(&members)
        .map(|(handle, name)| Frame::Name { handle, kind: NameKind::Client, name }.encoded_len())
        .sum();

    let row = |what: &str, bugle: usize, mqtt: usize| [what.to_owned(), bugle.to_string(), mqtt.to_string()];
    let listed = "a command to 128 listed members, over its payload: list in a user property";
    let computed = [
        row("a 16-byte command to a group, over its payload", vector("send-all") - 16, over("", alias)),
        row(
            "the same without handle or alias",
            send(target(NameRef::Inline("floor3"), None)),
            over(group, 0),
        ),
        row("its acknowledgement", vector("ack-1"), mqtt::PUBACK),
        row("a 16-byte delivery, over its payload", vector("delivery-all") - 16, over("", alias)),
        row(
            "the same with the sender and the mode, which Bugle's has",
            vector("delivery-all") - 16,
            over("", alias + mqtt::user_property("from", "app-1") + mqtt::user_property("mode", "all")),
        ),
        row("the delivery's acknowledgement", vector("ack-1"), mqtt::PUBACK),
        row(listed, vector("send-only-128") - 16, over("", alias + mqtt::user_property("only", &list))),
        row(
            "the same with the list in the topic",
            vector("send-only-128") - 16,
            over(&format!("{group}?only={list}"), 0),
        ),
        row(
            "the same without handles for the members",
            send(target(NameRef::Handle(handle), Some(NameList::new(&inline)))),
            over("", alias + mqtt::user_property("only", &list)),
        ),
        row("announcing the group, once", vector("name-floor3"), over(group, alias) - over("", alias)),
        row("announcing the 128 members, once", announced, 0),
        row("idle ping", vector("ping"), mqtt::PINGREQ),
        row("its answer", vector("pong"), mqtt::PINGRESP),
        row(
            "opening without proof: HELLO and WELCOME, CONNECT and CONNACK with the same limits",
            vector("hello") + vector("welcome"),
            mqtt::connect("lamp-1", mqtt::LIMITS) + mqtt::connack(mqtt::LIMITS),
        ),
    ];
    let rows = rows(&document());
    for expected in computed {
        assert!(rows.iter().any(|row| row[..] == expected), "the document has no row {expected:?}");
    }
    let clock = (vector("ping-clock") + vector("pong-clock")).to_string();
    assert!(rows.contains(&vec!["ping with clock and its answer".into(), clock, "not there".into()]));
}

/// Lengths of MQTT 5 packets, section 2 and 3 of that standard.
mod mqtt {
    /// Fixed header, packet identifier; reason code and properties are left out for success [MQTT5 3.4.2.1].
    pub const PUBACK: usize = 4;
    pub const PINGREQ: usize = 2;
    pub const PINGRESP: usize = 2;
    /// Receive maximum (u16), maximum packet size (u32), topic alias maximum (u16).
    pub const LIMITS: usize = number_property(2) + number_property(4) + number_property(2);

    fn packet(rest: usize) -> usize {
        1 + varint(rest) + rest
    }

    fn varint(value: usize) -> usize {
        match value {
            0..128 => 1,
            128..16_384 => 2,
            16_384..2_097_152 => 3,
            _ => 4,
        }
    }

    fn string(text: &str) -> usize {
        2 + text.len()
    }

    /// A property that is a number of so many bytes.
    pub const fn number_property(bytes: usize) -> usize {
        1 + bytes
    }

    pub fn user_property(key: &str, value: &str) -> usize {
        1 + string(key) + string(value)
    }

    fn with_length(properties: usize) -> usize {
        varint(properties) + properties
    }

    /// PUBLISH at QoS 1: topic, packet identifier, properties, payload.
    pub fn publish(topic: &str, properties: usize, payload: usize) -> usize {
        packet(string(topic) + 2 + with_length(properties) + payload)
    }

    /// CONNECT with clean start: protocol name, version, flags, keep-alive, properties, client id.
    pub fn connect(client_id: &str, properties: usize) -> usize {
        packet(string("MQTT") + 1 + 1 + 2 + with_length(properties) + string(client_id))
    }

    /// CONNACK: flags, reason code, properties.
    pub fn connack(properties: usize) -> usize {
        packet(1 + 1 + with_length(properties))
    }
}
