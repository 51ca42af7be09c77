//! The golden vectors of the framing, as the gateway would send them: each is answered as the document says.

use std::string::{String, ToString};
use std::{fs, println};

use super::*;

struct Vector {
    name: String,
    from: String,
    frame: String,
    answer: String,
    bytes: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/vectors");
    let mut vectors = Vec::new();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "txt")) {
        let text = fs::read_to_string(path).unwrap();
        for block in text.split("\n\n") {
            let value = |key: &str| {
                let lines = block.lines().filter_map(|line| line.split_once('='));
                let found = lines.into_iter().find(|(found, _)| found.trim() == key);
                found.map(|(_, value)| value.trim().to_string()).unwrap_or_default()
            };
            let hex = value("hex");
            if !value("name").is_empty() {
                let bytes =
                    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
                let (name, from) = (value("name"), value("from"));
                vectors.push(Vector { name, from, frame: value("frame"), answer: value("answer"), bytes });
            }
        }
    }
    vectors
}

#[test]
fn golden_vectors_of_the_gateway_are_answered_as_the_document_says() {
    let mut checked = 0;
    for vector in vectors().iter().filter(|vector| vector.from != "device") {
        // The handshake has its own tests, and an ACK would be of frames that this device never sent.
        if ["WELCOME", "CHALLENGE", "BYE", "ACK"].contains(&&*vector.frame) || vector.name.contains("hello") {
            continue;
        }
        println!("{}", vector.name);
        let mut script = Script::with(40_000, 512, Config::new("lamp-1", b"secret", 1));
        script.welcomed(welcome());
        // What the vectors' handles stand for.
        for (handle, kind) in [(1, NameKind::Group), (2, NameKind::Client), (3, NameKind::Topic)] {
            script.gateway(&Frame::Name { handle, kind, name: "known" });
        }
        script.device.handle_bytes(script.now, &vector.bytes);
        while script.take().is_some() {}
        let written = script.bytes();
        let goodbye = frames(&written).iter().find_map(|frame| match frame {
            Frame::Bye { reason, .. } => Some(reason.name()),
            _ => None,
        });
        match vector.answer.strip_prefix("BYE ") {
            Some(reason) => assert_eq!(goodbye, Some(reason), "{}", vector.name),
            None if vector.answer.is_empty() || vector.answer.starts_with("REFUSED") => {
                assert_eq!(goodbye, None, "{}", vector.name);
            }
            None => {}
        }
        checked += 1;
    }
    assert!(checked > 40, "only {checked}: are the vectors there?");
}
