//! Reads protocol/vectors/*.txt (format: protocol/vectors/README.md). Panics on anything unexpected.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bugle_protocol::Kind;

/// The files, without `.txt`.
pub const GROUPS: [&str; 8] = ["control", "hello", "names", "send", "delivery", "receipt", "plain", "bad"];

/// Every kind that this version has. A new one needs a line here and a vector.
pub const KINDS: [(Kind, &str); 20] = [
    (Kind::PING, "PING"),
    (Kind::PONG, "PONG"),
    (Kind::ACK, "ACK"),
    (Kind::BYE, "BYE"),
    (Kind::ERROR, "ERROR"),
    (Kind::HELLO, "HELLO"),
    (Kind::WELCOME, "WELCOME"),
    (Kind::CHALLENGE, "CHALLENGE"),
    (Kind::PROOF, "PROOF"),
    (Kind::NAME, "NAME"),
    (Kind::JOIN, "JOIN"),
    (Kind::LEAVE, "LEAVE"),
    (Kind::SEND, "SEND"),
    (Kind::PUBLISH, "PUBLISH"),
    (Kind::SUBSCRIBE, "SUBSCRIBE"),
    (Kind::UNSUBSCRIBE, "UNSUBSCRIBE"),
    (Kind::REFUSED, "REFUSED"),
    (Kind::RECEIPT, "RECEIPT"),
    (Kind::DELIVERY, "DELIVERY"),
    (Kind::MESSAGE, "MESSAGE"),
];

/// One vector: its bytes, and the other lines by key.
#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    pub hex: Vec<u8>,
    pub fields: BTreeMap<String, String>,
}

/// The vectors of one file.
pub fn vectors(group: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(group).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("\n\n").filter_map(vector).collect()
}

fn vector(block: &str) -> Option<Vector> {
    let mut fields = BTreeMap::new();
    for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no `=` in {line:?}"));
        let earlier = fields.insert(key.trim().to_owned(), value.trim().to_owned());
        assert!(earlier.is_none(), "twice in one vector: {line:?}");
    }
    let name = fields.remove("name")?;
    let hex = bytes(&fields.remove("hex").unwrap_or_else(|| panic!("{name} has no hex")));
    Some(Vector { name, hex, fields })
}

/// The bytes of hex digits in pairs.
pub fn bytes(hex: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair:?} is no byte"));
    hex.split_whitespace().map(byte).collect()
}
