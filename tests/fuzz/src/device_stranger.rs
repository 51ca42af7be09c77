//! A device, and what docs/protocol.md promises it: acknowledgements and refusals once and in order, handles announced
//! before they are used, no more in flight than its window, receipts that add up, and nothing from where it isn't.
//!
//! What it said counts from when it is on its way, whether or not the gateway has read it: that errs to the gateway's side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bugle_protocol::{
    Frame, Hello, Kind, MAX_BODY, Mode, NameKind, NameList, NameRef, Publish, RawFrame, Reason, Receipt,
    ReceiptMode, Send, Target, VERSION, announced_handle, is_name, split,
};

use crate::stranger::{FromPanel, PanelSignal, Stranger};
use crate::{Steps, naive, trace};

const ID: &str = "garbage";
const CLIENTS: [&str; 4] = [ID, "lamp", "panel", "nobody"];
const GROUPS: [&str; 4] = ["floor", "roof", "floor ", "g"];
const TOPICS: [&str; 4] = ["a/b", "a/c", "sig/g/floor", "a/+"];
const FILTERS: [&str; 4] = ["a/b", "a/+", "#", "sig/#"];

/// A device under test.
#[derive(Default)]
pub struct DeviceStranger {
    connection: Connection,
    /// It spoke MQTT once, and may have groups from then.
    has_another_past: bool,
}

#[derive(Default)]
struct Connection {
    said: Vec<u8>,
    heard: Vec<u8>,
    /// It speaks something else.
    is_foreign: bool,
    /// It said what is no frame: nothing behind that is read.
    is_broken: bool,
    /// Window, names and body limit of a good hello.
    terms: Option<(usize, u16, usize)>,
    has_begun: bool,
    is_welcome: bool,
    has_ended: bool,
    /// Numbered frames said.
    sent: u32,
    acknowledged: u32,
    refused: BTreeSet<u32>,
    requests: BTreeMap<u32, Request>,
    handles: BTreeMap<u16, (NameKind, String)>,
    /// Numbered frames heard: whether each takes window.
    received: Vec<bool>,
    /// Of these acknowledged, as said.
    acks: usize,
    names: BTreeMap<u16, (NameKind, String)>,
    pings: VecDeque<Option<u32>>,
    /// Every group that a join was said for.
    groups: BTreeSet<String>,
    filters: BTreeSet<String>,
    receipts: BTreeMap<u32, OpenReceipt>,
    panel: FromPanel,
}

enum Request {
    Join(String),
    Leave(String),
    Send(ReceiptMode),
}

#[derive(Default)]
struct OpenReceipt {
    parts: usize,
    entries: BTreeSet<String>,
    is_closed: bool,
}

fn put(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + frame.encoded_len(), 0);
    frame.encode(&mut out[start..]).expect("there is room");
}

fn pick<'a>(all: &[&'a str; 4], steps: &mut Steps<'_>) -> &'a str {
    all[usize::from(steps.byte() & 3)]
}

fn handle(number: u8) -> NameRef<'static> {
    NameRef::Handle(NonZeroU16::new(u16::from(number & 15) + 1).expect("not 0"))
}

impl Stranger for DeviceStranger {
    fn greeting(&mut self, way: u8) -> Vec<u8> {
        let mut out = Vec::new();
        put(
            &Frame::Hello(Hello {
                version: VERSION,
                keep_alive: if way & 4 == 0 { 0 } else { 60 },
                max_body: if way & 2 == 0 { 512 } else { 128 },
                window: if way & 2 == 0 { 4 } else { 1 },
                names: if way & 1 == 0 { 8 } else { 0 },
                session_expiry: 60,
                client_id: ID,
                resume: None,
                will: None,
            }),
            &mut out,
        );
        out
    }

    fn phrase(&mut self, number: u8, steps: &mut Steps<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let name = |text| NameRef::Inline(text);
        let frame = match number {
            24 | 25 => Frame::Join { group: name(pick(&GROUPS, steps)) },
            26 => Frame::Leave { group: name(pick(&GROUPS, steps)) },
            27 => Frame::Join { group: handle(steps.byte()) },
            28 => Frame::Leave { group: handle(steps.byte()) },
            29 => {
                let (kind, all) =
                    [(NameKind::Client, &CLIENTS), (NameKind::Group, &GROUPS), (NameKind::Topic, &TOPICS)]
                        [usize::from(steps.byte() % 3)];
                Frame::Name { handle: u16::from(steps.byte() & 15) + 1, kind, name: pick(all, steps) }
            }
            30..=35 => return self.send(number, steps),
            36 => {
                let retain = steps.byte() & 1 == 1;
                Frame::Publish(Publish {
                    topic: name(pick(&TOPICS, steps)),
                    at_least_once: true,
                    retain,
                    payload: b"p",
                })
            }
            37 => Frame::Subscribe { at_least_once: true, filter: pick(&FILTERS, steps) },
            38 => Frame::Unsubscribe { filter: pick(&FILTERS, steps) },
            39 => Frame::Ping { token: Some(steps.byte().into()) },
            40 => Frame::Ping { token: None },
            41..=46 => {
                // All that it has heard.
                let due = self.connection.received.len().saturating_sub(self.connection.acks);
                if due == 0 {
                    return out;
                }
                Frame::Ack { frames: due as u32 }
            }
            47 => Frame::Ack { frames: u32::from(steps.byte() & 7) + 1 },
            48 | 49 => {
                let last = self.connection.received.len() as u16;
                let reasons = [Reason::Expired, Reason::NotAuthorized, Reason::Busy, Reason::Malformed];
                let reason = reasons[usize::from(steps.byte() & 3)];
                Frame::Refused { number: last.wrapping_sub(1), reason, retry_after: 0, text: "" }
            }
            50 => Frame::Bye { reason: Reason::Normal, text: "" },
            _ => return out,
        };
        put(&frame, &mut out);
        out
    }

    fn connected(&mut self) {
        self.has_another_past |= self.connection.is_foreign;
        self.connection = Connection::default();
    }

    fn said(&mut self, bytes: &[u8]) {
        let connection = &mut self.connection;
        connection.said.extend(bytes);
        let said = std::mem::take(&mut connection.said);
        let mut rest = &said[..];
        connection.is_foreign |=
            !connection.has_begun && said.first().is_some_and(|&first| first != Kind::HELLO.0);
        while !connection.is_foreign && !connection.is_broken {
            match split(rest, MAX_BODY) {
                Ok(Some(raw)) => {
                    rest = &rest[raw.length..];
                    connection.say(raw);
                }
                Ok(None) => break,
                Err(_) => connection.is_broken = true,
            }
        }
        connection.said = rest.to_vec();
    }

    fn hears(&mut self, bytes: &[u8]) {
        if self.connection.is_foreign {
            return;
        }
        self.connection.heard.extend(bytes);
        let heard = std::mem::take(&mut self.connection.heard);
        let mut rest = &heard[..];
        while let Some(raw) = split(rest, usize::from(u16::MAX)).expect("the gateway writes good lengths") {
            rest = &rest[raw.length..];
            self.connection.hear(raw, self.has_another_past);
        }
        self.connection.heard = rest.to_vec();
    }

    fn panel_sends(&mut self, signal: PanelSignal) {
        let connection = &mut self.connection;
        let may_be_member = connection.may_be_member("floor") || self.has_another_past;
        if signal.to_group && !may_be_member {
            connection.panel.forbid(signal);
        }
    }

    fn panel_sends_elsewhere(&mut self, signal: PanelSignal) {
        self.connection.panel.forbid(signal);
    }
}

impl DeviceStranger {
    fn send(&self, number: u8, steps: &mut Steps<'_>) -> Vec<u8> {
        let bits = steps.byte();
        let lists: Vec<NameRef<'_>> =
            CLIENTS.iter().map(|id| NameRef::Inline(id)).chain([handle(bits)]).collect();
        let payload = vec![bits; if bits & 0xC0 == 0xC0 { 300 } else { 3 }];
        let target = match number {
            30 => Target::Client(NameRef::Inline(pick(&CLIENTS, steps))),
            31 => Target::Client(handle(steps.byte())),
            32 => Target::Group { group: handle(steps.byte()), only: None, except: None },
            _ => Target::Group {
                group: NameRef::Inline(if number == 33 { GROUPS[usize::from(bits & 1)] } else { "floor" }),
                only: (number == 34)
                    .then(|| NameList::new(&lists[..usize::from(bits >> 2 & 7).min(lists.len())])),
                except: (number == 35).then(|| NameList::new(&lists[..usize::from(bits >> 2 & 3)])),
            },
        };
        let receipt = [ReceiptMode::None, ReceiptMode::Summary, ReceiptMode::Each][usize::from(bits % 3)];
        let send = Send {
            receipt,
            echo: bits & 8 != 0,
            urgent: bits & 16 != 0,
            ttl: (bits & 32 != 0).then_some(50),
            ..Send::new(target, &payload)
        };
        let mut out = Vec::new();
        put(&Frame::Send(send), &mut out);
        out
    }
}

impl Connection {
    /// One frame of its own.
    fn say(&mut self, raw: RawFrame<'_>) {
        let decoded = raw.decode();
        trace(|| format!("  > {decoded:?}"));
        if !self.has_begun {
            self.has_begun = true;
            if let Ok(Frame::Hello(hello)) = decoded {
                self.terms = Some((hello.window.into(), hello.names, hello.max_body.into()));
            }
            return;
        }
        let number = self.sent;
        self.sent += u32::from(raw.kind.is_numbered());
        let request = match decoded {
            Ok(Frame::Ack { frames }) => return self.acks = self.acks.saturating_add(frames as usize),
            Ok(Frame::Ping { token }) => return self.pings.push_back(token),
            Ok(Frame::Name { handle, kind, name }) => {
                let good = if kind == NameKind::Topic { naive::is_topic(name) } else { is_name(name) };
                self.handles.remove(&handle);
                if good {
                    self.handles.insert(handle, (kind, name.to_owned()));
                }
                return;
            }
            Err(_) if raw.kind == Kind::NAME => {
                if let Some(handle) = announced_handle(raw.body) {
                    self.handles.remove(&handle.get());
                }
                return;
            }
            Ok(Frame::Join { group }) => self.group(group).map(Request::Join),
            Ok(Frame::Leave { group }) => self.group(group).map(Request::Leave),
            Ok(Frame::Send(send)) => Some(Request::Send(send.receipt)),
            Ok(Frame::Subscribe { filter, .. }) => {
                self.filters.insert(filter.to_owned());
                None
            }
            _ => None,
        };
        if let Some(Request::Join(group)) = &request {
            self.groups.insert(group.clone());
        }
        self.requests.extend(request.map(|request| (number, request)));
    }

    fn group(&self, group: NameRef<'_>) -> Option<String> {
        match group {
            NameRef::Inline(text) => Some(text.to_owned()),
            NameRef::Handle(handle) => match self.handles.get(&handle.get()) {
                Some((NameKind::Group, name)) => Some(name.clone()),
                _ => None,
            },
        }
    }

    /// It has asked to join, and wasn't told that it has left since or couldn't.
    fn may_be_member(&self, group: &str) -> bool {
        self.requests.values().any(|request| matches!(request, Request::Join(joined) if joined == group))
    }

    /// One frame of the gateway's.
    fn hear(&mut self, raw: RawFrame<'_>, has_another_past: bool) {
        assert!(!self.has_ended, "{:?} after BYE", raw.kind);
        let frame = raw.decode().expect("the gateway writes good frames");
        trace(|| format!("  < {frame:?}"));
        if let Some((.., max_body)) = self.terms {
            assert!(raw.body.len() <= max_body.max(128), "{:?} is larger than the device takes", raw.kind);
        }
        if !self.is_welcome {
            match frame {
                Frame::Welcome(welcome) => {
                    assert!(self.terms.is_some() && !welcome.resumed && welcome.received == 0);
                    self.is_welcome = true;
                }
                Frame::Challenge { .. } => {}
                Frame::Bye { .. } => self.has_ended = true,
                other => panic!("{other:?} before WELCOME"),
            }
            return;
        }
        let (window, names, _) = self.terms.expect("it was welcomed");
        if raw.kind.is_numbered() {
            self.received.push(raw.kind.takes_window());
            let unacknowledged = self.received.get(self.acks..).unwrap_or_default();
            let in_flight = unacknowledged.iter().filter(|windowed| **windowed).count();
            assert!(!raw.kind.takes_window() || in_flight <= window, "{in_flight} in flight, of {window}");
        }
        match frame {
            Frame::Bye { .. } => self.has_ended = true,
            Frame::Ping { .. } | Frame::Error { .. } => {}
            Frame::Pong { clock } => {
                let asked = self.pings.pop_front().expect("a pong was asked for");
                assert_eq!(clock.map(|(token, _)| token), asked);
            }
            Frame::Ack { frames } => {
                assert!(
                    frames <= self.sent - self.acknowledged,
                    "{frames} more are acknowledged than were sent"
                );
                for number in self.acknowledged..self.acknowledged + frames {
                    self.hear_done(number);
                }
                self.acknowledged += frames;
            }
            Frame::Refused { number, reason, .. } => {
                let number = u32::from(number);
                assert!((self.acknowledged..self.sent).contains(&number), "{number} refused: {reason}");
                assert!(self.refused.insert(number), "{number} is refused twice");
            }
            Frame::Name { handle, kind, name } => {
                assert!((1..=names).contains(&handle), "handle {handle} of {names}");
                assert!(
                    if kind == NameKind::Topic { naive::is_topic(name) } else { is_name(name) },
                    "{name:?}"
                );
                self.names.insert(handle, (kind, name.to_owned()));
            }
            Frame::Receipt(receipt) => self.hear_receipt(&receipt),
            Frame::Delivery(delivery) => {
                let sender = self.name(delivery.sender, NameKind::Client);
                let group = delivery.group.map(|group| self.name(group, NameKind::Group));
                assert_eq!(group.is_none(), delivery.mode == Mode::One);
                if let Some(group) = group {
                    assert!(has_another_past || self.groups.contains(&group), "it never joined {group}");
                }
                if sender == "panel" {
                    let signal = self.panel.check(delivery.payload);
                    assert_eq!(
                        (signal.urgent, signal.to_group),
                        (delivery.urgent, delivery.mode == Mode::All)
                    );
                }
            }
            Frame::Message(message) => {
                let topic = self.name(message.topic, NameKind::Topic);
                let asked = self.filters.iter().any(|filter| naive::filter_matches(filter, &topic));
                assert!(asked || has_another_past, "it never subscribed to {topic}");
            }
            other => panic!("{other:?} isn't for a device"),
        }
    }

    fn name(&self, name: NameRef<'_>, kind: NameKind) -> String {
        match name {
            NameRef::Inline(text) => text.to_owned(),
            NameRef::Handle(handle) => {
                let (found, name) = self.names.get(&handle.get()).expect("announced before it is used");
                assert_eq!(*found, kind);
                name.clone()
            }
        }
    }

    /// A request is answered: a leave that took place ends the joins before it, and a join that was refused never was one.
    fn hear_done(&mut self, number: u32) {
        let is_refused = self.refused.contains(&number);
        match self.requests.get(&number) {
            Some(Request::Join(_)) if is_refused => drop(self.requests.remove(&number)),
            Some(Request::Leave(group)) if !is_refused => {
                let group = group.clone();
                self.requests.retain(
                    |&at, request| !matches!(request, Request::Join(joined) if *joined == group && at < number),
                );
            }
            _ => {}
        }
    }

    fn hear_receipt(&mut self, receipt: &Receipt<'_>) {
        let number = u32::from(receipt.number);
        let Some(Request::Send(mode)) = self.requests.get(&number) else { panic!("a receipt for {number}") };
        assert!(*mode != ReceiptMode::None && !self.refused.contains(&number), "{number} gets no receipt");
        let each = *mode == ReceiptMode::Each;
        let entries: Vec<_> =
            receipt.entries.iter().map(|entry| self.name(entry.client, NameKind::Client)).collect();
        let open = self.receipts.entry(number).or_default();
        assert!(!open.is_closed, "a second receipt for {number}");
        open.parts += 1;
        assert!(each || (entries.is_empty() && !receipt.more && open.parts == 1));
        for entry in entries {
            assert!(open.entries.insert(entry), "a recipient is named twice");
        }
        if !receipt.more {
            open.is_closed = true;
            let total = receipt.counts.total() as usize;
            assert!(
                !each || total > 128 || open.entries.len() == total,
                "{total} recipients: {:?}",
                open.entries
            );
        }
    }
}
