//! The golden vectors: each frame's bytes decode to what its description says and are what that encodes to,
//! and the bad ones fail as they should. Format and rules: protocol/vectors/README.md.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::num::NonZeroU16;
use std::str::FromStr;

use bugle_protocol::{
    Delivery, Frame, Hello, Kind, MAX_BODY, Message, Mode, NameKind, NameList, NameRef, Publish, Reason,
    Receipt, ReceiptCounts, ReceiptEntries, ReceiptEntry, ReceiptMode, Resume, Send, Status, Target, VERSION,
    Welcome, WillFrame, auth, split,
};
use support::{GROUPS, KINDS, Vector, bytes, vectors};

#[test]
fn names_of_vectors_are_unique() {
    let mut names = BTreeSet::new();
    for vector in GROUPS.into_iter().flat_map(vectors) {
        assert!(names.insert(vector.name.clone()), "two vectors are called {}", vector.name);
    }
}

#[test]
fn frames_decode_to_their_description_and_encode_to_their_bytes() {
    let mut kinds = BTreeSet::new();
    for vector in GROUPS.into_iter().filter(|group| *group != "bad").flat_map(vectors) {
        let mut fields = Fields::of(&vector);
        assert!(matches!(&*fields.text("from"), "device" | "gateway" | "both"), "{}", vector.name);
        let canonical = fields.take("canonical").is_none();
        fields.take("note");
        fields.take("answer");
        let described = fields.frame();
        kinds.insert(described.kind().0);
        let raw = split(&vector.hex, MAX_BODY).expect(&vector.name).expect(&vector.name);
        assert_eq!(raw.length, vector.hex.len(), "{}: length", vector.name);
        assert_eq!(raw.decode(), Ok(described), "{}: decoded", vector.name);
        if canonical {
            assert_eq!(encoded(&described), vector.hex, "{}: encoded", vector.name);
            assert_eq!(described.encoded_len(), vector.hex.len(), "{}", vector.name);
        }
    }
    assert_eq!(kinds, KINDS.iter().map(|(kind, _)| kind.0).collect(), "every kind has a vector");
}

#[test]
fn bad_bytes_fail_as_described() {
    for vector in vectors("bad") {
        let mut fields = Fields::of(&vector);
        let max_body = fields.take("max_body").map_or(MAX_BODY, |limit| parsed(&limit));
        let known = |kind: Kind| KINDS.iter().any(|(known, _)| *known == kind);
        let (error, field) = match split(&vector.hex, max_body) {
            Err(_) => ("FRAME_TOO_LARGE", None),
            Ok(None) => ("INCOMPLETE", None),
            Ok(Some(raw)) => match raw.decode() {
                Err(malformed) if malformed.is_unknown_kind() && !known(raw.kind) => ("UNKNOWN_KIND", None),
                Err(malformed) => ("MALFORMED", Some(malformed.field())),
                Ok(frame) => panic!("{} is a good frame: {frame:?}", vector.name),
            },
        };
        assert_eq!(
            (fields.text("error").as_str(), fields.take("field").as_deref()),
            (error, field),
            "{}",
            vector.name
        );
        let answer = match error {
            "INCOMPLETE" => "WAIT",
            "FRAME_TOO_LARGE" => "BYE FRAME_TOO_LARGE",
            "UNKNOWN_KIND" if Kind(vector.hex[0]).is_optional() => "NOTHING",
            "UNKNOWN_KIND" if Kind(vector.hex[0]).is_numbered() => "REFUSED UNSUPPORTED",
            "UNKNOWN_KIND" => "BYE PROTOCOL_ERROR",
            // A refusal is never refused, lest two ends refuse each other's for ever.
            _ if Kind(vector.hex[0]) == Kind::REFUSED => "BYE MALFORMED",
            _ if Kind(vector.hex[0]).is_numbered() => "REFUSED MALFORMED",
            _ => "BYE MALFORMED",
        };
        assert_eq!(fields.text("answer"), answer, "{}", vector.name);
        fields.take("note");
        fields.text("from");
        fields.finish();
    }
}

/// A part of a frame is never an error and never a frame, wherever it is cut.
#[test]
fn every_beginning_of_a_frame_waits_for_more() {
    for vector in GROUPS.into_iter().filter(|group| *group != "bad").flat_map(vectors) {
        for cut in 0..vector.hex.len() {
            assert_eq!(split(&vector.hex[..cut], MAX_BODY), Ok(None), "{} cut at {cut}", vector.name);
        }
    }
}

#[test]
fn the_proof_is_what_its_inputs_give() {
    let vector = vectors("hello").into_iter().find(|vector| vector.name == "proof").expect("vector proof");
    let nonce = bytes(&vector.fields["nonce"]).try_into().expect("32 bytes");
    let proof = auth::proof(vector.fields["secret"].as_bytes(), &nonce, &vector.fields["client_id"]);
    assert_eq!(proof[..], vector.hex[2..]);
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut buffer = vec![0; frame.encoded_len()];
    let length = frame.encode(&mut buffer).expect("encoded_len is enough");
    buffer.truncate(length);
    buffer
}

fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

/// The fields of one vector, taken one by one so that none is overlooked. What frames borrow is leaked: a
/// test process is short.
struct Fields {
    vector: String,
    left: BTreeMap<String, String>,
}

impl Fields {
    fn of(vector: &Vector) -> Self {
        Self { vector: vector.name.clone(), left: vector.fields.clone() }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.left.remove(key)
    }

    fn text(&mut self, key: &str) -> String {
        self.take(key).unwrap_or_else(|| panic!("{} has no {key}", self.vector))
    }

    fn finish(&self) {
        assert!(self.left.is_empty(), "{} has keys that nobody reads: {:?}", self.vector, self.left);
    }

    fn number<T: FromStr<Err: Debug>>(&mut self, key: &str) -> T {
        parsed(&self.text(key))
    }

    fn optional<T: FromStr<Err: Debug>>(&mut self, key: &str) -> Option<T> {
        self.take(key).map(|text| parsed(&text))
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some_and(|value| {
            assert_eq!(value, "yes", "{}: {key}", self.vector);
            true
        })
    }

    fn str(&mut self, key: &str) -> &'static str {
        self.take(key).unwrap_or_default().leak()
    }

    fn array<const N: usize>(&mut self, key: &str) -> &'static [u8; N] {
        let bytes = bytes(&self.text(key));
        (&*bytes.leak()).try_into().unwrap_or_else(|_| panic!("{}: {key} is not {N} bytes", self.vector))
    }

    fn payload(&mut self) -> &'static [u8] {
        let Some(value) = self.take("payload") else { return &[] };
        match value.split_once(' ') {
            Some(("text", text)) => text.to_owned().leak().as_bytes(),
            Some(("hex", hex)) => bytes(hex).leak(),
            _ => panic!("{}: payload = {value}", self.vector),
        }
    }

    fn name(&mut self, key: &str) -> NameRef<'static> {
        reference(&self.text(key))
    }

    fn list(&mut self, key: &str) -> Option<NameList<'static>> {
        let value = self.take(key)?;
        let names: Vec<_> = if value == "empty" {
            Vec::new()
        } else if let Some(range) = value.strip_prefix("handles ") {
            let (first, last) = range.split_once('-').expect("handles FIRST-LAST");
            (parsed(first)..=parsed(last)).map(handle).collect()
        } else {
            value.split(", ").map(reference).collect()
        };
        Some(NameList::new(names.leak()))
    }

    fn reason(&mut self) -> Reason {
        let name = self.text("reason");
        let found = Reason::ALL.iter().find(|reason| reason.name() == name);
        *found.unwrap_or_else(|| panic!("{}: reason = {name}", self.vector))
    }

    /// The fields whose keys begin with `prefix`, without it.
    fn under(&mut self, prefix: &str) -> Option<Self> {
        let (inner, rest): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.left).into_iter().partition(|(key, _)| key.starts_with(prefix));
        self.left = rest;
        let left: BTreeMap<_, _> =
            inner.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect();
        (!left.is_empty()).then(|| Self { vector: format!("{}: {prefix}", self.vector), left })
    }

    /// The frame that all fields together describe.
    fn frame(mut self) -> Frame<'static> {
        let frame = match &*self.text("frame") {
            "PING" => Frame::Ping { token: self.optional("token") },
            "PONG" => {
                let token = self.optional("token");
                Frame::Pong { clock: token.map(|token| (token, self.number("clock"))) }
            }
            "ACK" => Frame::Ack { frames: self.number("frames") },
            "BYE" => Frame::Bye { reason: self.reason(), text: self.str("text") },
            "ERROR" => Frame::Error { reason: self.reason(), text: self.str("text") },
            "HELLO" => Frame::Hello(self.hello()),
            "WELCOME" => Frame::Welcome(Welcome {
                version: self.number("version"),
                resumed: self.flag("resumed"),
                keep_alive: self.number("keep_alive"),
                max_body: self.number("max_body"),
                window: self.number("window"),
                names: self.number("names"),
                session_expiry: self.number("session_expiry"),
                session: self.number("session"),
                received: self.number("received"),
                clock: self.number("clock"),
            }),
            "CHALLENGE" => Frame::Challenge { nonce: self.array("nonce") },
            "PROOF" => {
                // What it is computed from: `the_proof_is_what_its_inputs_give`.
                for input in ["secret", "nonce", "client_id"] {
                    self.text(input);
                }
                Frame::Proof { proof: self.array("proof") }
            }
            "NAME" => Frame::Name {
                handle: self.number("handle"),
                kind: match &*self.text("kind") {
                    "client" => NameKind::Client,
                    "group" => NameKind::Group,
                    "topic" => NameKind::Topic,
                    other => panic!("{}: kind = {other}", self.vector),
                },
                name: self.str("text"),
            },
            "JOIN" => Frame::Join { group: self.name("group") },
            "LEAVE" => Frame::Leave { group: self.name("group") },
            "SEND" => Frame::Send(self.send()),
            "PUBLISH" => Frame::Publish(Publish {
                topic: self.name("topic"),
                at_least_once: self.flag("at_least_once"),
                retain: self.flag("retain"),
                payload: self.payload(),
            }),
            "SUBSCRIBE" => {
                Frame::Subscribe { at_least_once: self.flag("at_least_once"), filter: self.str("filter") }
            }
            "UNSUBSCRIBE" => Frame::Unsubscribe { filter: self.str("filter") },
            "REFUSED" => Frame::Refused {
                number: self.number("number"),
                reason: self.reason(),
                retry_after: self.number("retry_after"),
                text: self.str("text"),
            },
            "RECEIPT" => Frame::Receipt(self.receipt()),
            "DELIVERY" => Frame::Delivery(Delivery {
                mode: match &*self.text("mode") {
                    "one" => Mode::One,
                    "all" => Mode::All,
                    "only" => Mode::Only,
                    "except" => Mode::Except,
                    other => panic!("{}: mode = {other}", self.vector),
                },
                urgent: self.flag("urgent"),
                group: self.take("group").map(|name| reference(&name)),
                sender: self.name("sender"),
                deadline: self.optional("deadline"),
                payload: self.payload(),
            }),
            "MESSAGE" => Frame::Message(Message {
                at_least_once: self.flag("at_least_once"),
                retained: self.flag("retained"),
                topic: self.name("topic"),
                payload: self.payload(),
            }),
            other => panic!("{}: frame = {other}", self.vector),
        };
        self.finish();
        let name = KINDS.iter().find(|(kind, _)| *kind == frame.kind()).map(|(_, name)| *name);
        assert!(name.is_some(), "{}: a kind that KINDS doesn't have", self.vector);
        frame
    }

    fn hello(&mut self) -> Hello<'static> {
        let will = self.under("will.").map(|fields| {
            let frame = fields.frame();
            let mut body = encoded(&frame);
            let header = body.len() - frame.body_len();
            body.drain(..header);
            WillFrame::new(frame.kind(), body.leak()).expect("a will")
        });
        let resume = self.under("resume.").map(|mut fields| {
            let resume = Resume {
                session: fields.number("session"),
                received: fields.number("received"),
                taken: fields.number("taken"),
                acknowledged: fields.number("acknowledged"),
            };
            fields.finish();
            resume
        });
        let version = self.number("version");
        Hello {
            version,
            keep_alive: self.number("keep_alive"),
            max_body: self.number("max_body"),
            window: self.number("window"),
            names: self.number("names"),
            session_expiry: self.number("session_expiry"),
            client_id: if version == VERSION { self.text("client_id").leak() } else { "" },
            resume,
            will,
        }
    }

    fn send(&mut self) -> Send<'static> {
        let target = match self.take("client") {
            Some(client) => Target::Client(reference(&client)),
            None => Target::Group {
                group: self.name("group"),
                only: self.list("only"),
                except: self.list("except"),
            },
        };
        Send {
            target,
            ttl: self.optional("ttl"),
            receipt: match self.take("receipt").as_deref() {
                None => ReceiptMode::None,
                Some("summary") => ReceiptMode::Summary,
                Some("each") => ReceiptMode::Each,
                Some(other) => panic!("{}: receipt = {other}", self.vector),
            },
            store: self.flag("store"),
            echo: self.flag("echo"),
            urgent: self.flag("urgent"),
            id: self.take("id").map(|id| &*id.leak()),
            payload: self.payload(),
        }
    }

    fn receipt(&mut self) -> Receipt<'static> {
        let mut counts = ReceiptCounts::default();
        for count in self.take("counts").iter().flat_map(|counts| counts.split(", ")) {
            let (name, count) = count.split_once(' ').expect("STATUS COUNT");
            counts.add(status(name), parsed(count));
        }
        let mut entries = Vec::new();
        for entry in self.take("entries").iter().flat_map(|entries| entries.split(", ")) {
            let (client, name) = entry.rsplit_once(' ').expect("NAME STATUS");
            entries.push(ReceiptEntry { client: reference(client), status: status(name) });
        }
        Receipt {
            number: self.number("number"),
            interim: self.flag("interim"),
            more: self.flag("more"),
            duplicate: self.flag("duplicate"),
            counts,
            entries: ReceiptEntries::new(entries.leak()),
        }
    }
}

fn handle(number: u16) -> NameRef<'static> {
    NameRef::Handle(NonZeroU16::new(number).expect("handle 0 is an inline name"))
}

fn reference(text: &str) -> NameRef<'static> {
    match text.split_once(' ') {
        Some(("handle", number)) => handle(parsed(number)),
        Some(("name", name)) => NameRef::Inline(name.to_owned().leak()),
        _ => panic!("{text:?} is no name reference"),
    }
}

fn status(name: &str) -> Status {
    let found = Status::ALL.iter().find(|status| status.name() == name);
    *found.unwrap_or_else(|| panic!("{name:?} is no status"))
}
