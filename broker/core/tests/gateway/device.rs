//! A client of the compact framing, with as little of its own as can be.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use bugle_core::model::{Mode, Reason};
use bugle_protocol::{
    Frame, Hello, Kind, MAX_BODY, NameKind, NameList, NameRef, Publish, RawFrame, Resume, Send, Target,
    VERSION, Welcome, WillFrame, auth, is_name, split,
};

use super::{Framing, Heard, Options, Outcome, Receipt, Received, SendSpec, Ticket, Will};

pub struct Device {
    id: String,
    options: Options,
    /// Its session, and the numbered frames that it sent in it.
    session: Option<u64>,
    frames: Vec<Vec<u8>>,
    /// Let in: what is sent before waits for that.
    online: bool,
    /// The gateway's numbered frames.
    received: u32,
    now: u64,
    inline: bool,
    acks: bool,
    /// Numbered frames so far, and how many of them are acknowledged.
    sent: u32,
    acknowledged: u32,
    refused: BTreeMap<u32, (Reason, u32)>,
    /// Numbered frames of the gateway that aren't acknowledged.
    unacknowledged: u32,
    holding: bool,
    /// It wrote bytes that it doesn't know the meaning of.
    astray: bool,
    /// Announced, by handle - 1.
    announced: Vec<(NameKind, String)>,
    names: BTreeMap<u16, String>,
    /// Parts of receipts that have more coming.
    parts: BTreeMap<u16, Receipt>,
}

/// Appends a frame.
pub fn put(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + frame.encoded_len(), 0);
    frame.encode(&mut out[start..]).unwrap();
}

/// A hello, with the will's bytes.
pub fn hello(id: &str, options: &Options, out: &mut Vec<u8>) {
    hello_again(id, options, None, out);
}

fn hello_again(id: &str, options: &Options, resume: Option<Resume>, out: &mut Vec<u8>) {
    let mut will = Vec::new();
    match &options.will {
        Some(Will::Send(spec)) => {
            with_send(spec, |name, _| NameRef::Inline(name), |send| put(&send, &mut will))
        }
        Some(Will::Publish(topic, payload)) => {
            let topic = NameRef::Inline(topic);
            put(&Frame::Publish(Publish { topic, at_least_once: true, retain: false, payload }), &mut will);
        }
        None => {}
    }
    let will: Option<RawFrame<'_>> = split(&will, MAX_BODY).unwrap();
    let hello = Hello {
        version: VERSION,
        keep_alive: options.keep_alive,
        max_body: options.longest,
        window: options.window,
        names: if options.inline { 0 } else { 64 },
        session_expiry: options.session_expiry,
        client_id: id,
        resume,
        will: will.map(|will| WillFrame::new(will.kind, will.body).unwrap()),
    };
    put(&Frame::Hello(hello), out);
}

/// The SEND for `spec`, with names as `refer` writes them.
fn with_send<'a>(
    spec: &'a SendSpec,
    mut refer: impl FnMut(&'a str, NameKind) -> NameRef<'a>,
    then: impl FnOnce(Frame<'_>),
) {
    let mut list = |list: &'a Option<Vec<String>>| {
        list.as_ref().map(|list| list.iter().map(|id| refer(id, NameKind::Client)).collect::<Vec<_>>())
    };
    let (only, except) = (list(&spec.only), list(&spec.except));
    let target = if spec.to_client {
        Target::Client(refer(&spec.name, NameKind::Client))
    } else {
        let group = refer(&spec.name, NameKind::Group);
        Target::Group {
            group,
            only: only.as_deref().map(NameList::new),
            except: except.as_deref().map(NameList::new),
        }
    };
    then(Frame::Send(Send {
        target,
        ttl: spec.ttl,
        receipt: spec.receipt,
        store: spec.store,
        echo: spec.echo,
        urgent: spec.urgent,
        id: spec.id.as_deref(),
        payload: &spec.payload,
    }));
}

impl Device {
    pub fn new(id: &str, options: Options, out: &mut Vec<u8>) -> Self {
        hello(id, &options, out);
        Self {
            id: id.into(),
            now: 0,
            inline: options.inline,
            acks: options.acks,
            options,
            session: None,
            frames: Vec::new(),
            online: false,
            received: 0,
            sent: 0,
            acknowledged: 0,
            refused: BTreeMap::new(),
            unacknowledged: 0,
            holding: false,
            astray: false,
            announced: Vec::new(),
            names: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }
}

impl Framing for Device {
    fn handle_time(&mut self, now: u64) {
        self.now = now;
    }

    fn go_astray(&mut self) {
        self.astray = true;
    }

    fn reconnect(&mut self, out: &mut Vec<u8>) {
        self.online = false;
        let resume = self.session.map(|session| Resume {
            session,
            received: self.received,
            taken: self.received - self.unacknowledged,
            acknowledged: self.acknowledged,
        });
        hello_again(&self.id, &self.options, resume, out);
    }

    fn join(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        let group = self.refer(group, NameKind::Group, out);
        self.put_numbered(&Frame::Join { group }, out)
    }

    fn leave(&mut self, group: &str, out: &mut Vec<u8>) -> Ticket {
        let group = self.refer(group, NameKind::Group, out);
        self.put_numbered(&Frame::Leave { group }, out)
    }

    fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) -> Ticket {
        self.put_numbered(&Frame::Subscribe { at_least_once: qos > 0, filter }, out)
    }

    fn unsubscribe(&mut self, filter: &str, out: &mut Vec<u8>) -> Ticket {
        self.put_numbered(&Frame::Unsubscribe { filter }, out)
    }

    fn publish(&mut self, topic: &str, payload: &[u8], retain: bool, out: &mut Vec<u8>) -> Ticket {
        let topic = self.refer(topic, NameKind::Topic, out);
        self.put_numbered(&Frame::Publish(Publish { topic, at_least_once: true, retain, payload }), out)
    }

    fn send(&mut self, spec: &SendSpec, out: &mut Vec<u8>) -> Ticket {
        let mut body = Vec::new();
        with_send(spec, |name, kind| self.refer(name, kind, out), |send| put(&send, &mut body));
        self.put_frame(body, out)
    }

    fn ping(&mut self, out: &mut Vec<u8>) -> Ticket {
        put(&Frame::Ping { token: Some(7) }, out);
        Ticket(0)
    }

    fn bye(&mut self, out: &mut Vec<u8>) -> Ticket {
        put(&Frame::Bye { reason: Reason::Normal, text: "" }, out);
        Ticket(0)
    }

    fn ack_again(&mut self, out: &mut Vec<u8>) -> Ticket {
        (self.acks, self.holding) = (true, false);
        self.acknowledge(out);
        Ticket(0)
    }

    /// A frame is accepted when it is acknowledged and wasn't refused before that.
    fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        (ticket.0 < self.acknowledged).then(|| match self.refused.get(&ticket.0) {
            Some((reason, retry_after)) => Outcome::Refused(reason.name().into(), *retry_after),
            None => Outcome::Accepted,
        })
    }

    fn handle_bytes(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>, heard: &mut Heard) {
        let mut used = 0;
        while let Some(raw) = split(&input[used..], MAX_BODY).unwrap() {
            used += raw.length;
            self.handle_frame(&raw, out, heard);
        }
        input.drain(..used);
        if !self.holding {
            self.acknowledge(out);
        }
    }
}

impl Device {
    fn handle_frame(&mut self, raw: &RawFrame<'_>, out: &mut Vec<u8>, heard: &mut Heard) {
        assert!(raw.body.len() <= MAX_BODY && heard.end.is_none(), "nothing comes after BYE");
        self.unacknowledged += u32::from(raw.kind.is_numbered());
        self.received += u32::from(raw.kind.is_numbered());
        let name = |name: NameRef<'_>, names: &BTreeMap<u16, String>| match name {
            NameRef::Handle(handle) => names.get(&handle.get()).expect("announced before it is used").clone(),
            NameRef::Inline(text) => text.to_owned(),
        };
        match raw.decode().unwrap() {
            Frame::Welcome(welcome) => self.handle_welcome(&welcome, out, heard),
            Frame::Challenge { nonce } => {
                let proof = auth::proof(self.id.as_bytes(), nonce, &self.id);
                put(&Frame::Proof { proof: &proof }, out);
            }
            Frame::Bye { reason, .. } => heard.end = Some(reason.name().into()),
            Frame::Ping { token } => put(&Frame::Pong { clock: token.map(|token| (token, 0)) }, out),
            Frame::Pong { .. } => heard.pongs += 1,
            Frame::Ack { frames } => {
                self.acknowledged += frames;
                assert!(
                    self.astray || self.acknowledged <= self.sent,
                    "no more is acknowledged than was sent"
                );
            }
            Frame::Name { handle, name, .. } => drop(self.names.insert(handle, name.to_owned())),
            Frame::Refused { number, reason, retry_after, .. } => {
                // The latest of the numbers with these bits.
                let back = (self.sent.wrapping_sub(1) as u16).wrapping_sub(number);
                let number = self.sent.wrapping_sub(1).wrapping_sub(u32::from(back));
                assert!(
                    self.astray || number >= self.acknowledged,
                    "a refusal comes before its acknowledgement"
                );
                self.refused.insert(number, (reason, retry_after));
                heard.log.push(format!("REFUSED {reason}"));
            }
            Frame::Receipt(receipt) => {
                let whole = self.parts.entry(receipt.number).or_default();
                whole.ticket = receipt.number.into();
                whole.duplicate = receipt.duplicate;
                whole.interim = receipt.interim;
                for entry in receipt.entries.iter() {
                    let client = name(entry.client, &self.names);
                    let twice = whole.each.insert(client, entry.status.name().into());
                    assert_eq!(twice, None, "a recipient has one status");
                }
                for &status in bugle_core::model::Status::ALL {
                    if receipt.counts.count(status) > 0 {
                        whole.counts.insert(status.name().into(), receipt.counts.count(status));
                    }
                }
                if !receipt.more {
                    heard.receipts.extend(self.parts.remove(&receipt.number));
                }
            }
            Frame::Delivery(delivery) => {
                self.holding |= !self.acks;
                let ttl = delivery.deadline.map(|deadline| u64::from(deadline.wrapping_sub(self.now as u32)));
                let group = delivery.group.map(|group| name(group, &self.names));
                assert_eq!(group.is_none(), delivery.mode == Mode::One);
                heard.received.push(Received {
                    group,
                    topic: None,
                    sender: name(delivery.sender, &self.names),
                    mode: Some(delivery.mode.key().into()),
                    ttl,
                    payload: delivery.payload.into(),
                });
            }
            Frame::Message(message) => {
                self.holding |= !self.acks;
                heard.received.push(Received {
                    group: None,
                    topic: Some(name(message.topic, &self.names)),
                    sender: String::new(),
                    mode: None,
                    ttl: None,
                    payload: message.payload.into(),
                });
            }
            Frame::Error { text, .. } => {
                heard.ended.push(text.split(": ").next().unwrap_or_default().to_owned());
            }
            other => panic!("{:?} isn't for a device", other.kind()),
        }
        match raw.kind {
            Kind::REFUSED | Kind::ACK => {}
            kind => heard.log.push(format!("{kind:?}")),
        }
    }

    /// The name or, if it is a good one and handles are used, its handle, announced before.
    fn refer<'a>(&mut self, name: &'a str, kind: NameKind, out: &mut Vec<u8>) -> NameRef<'a> {
        let known = self.announced.iter().position(|(has, text)| *has == kind && text == name);
        let good = kind == NameKind::Topic || is_name(name);
        let index = match known {
            Some(index) => index,
            None if self.inline || !good || self.announced.len() == 256 => return NameRef::Inline(name),
            None => {
                self.announced.push((kind, name.into()));
                let handle = self.announced.len() as u16;
                self.put_numbered(&Frame::Name { handle, kind, name }, out);
                self.announced.len() - 1
            }
        };
        NameRef::Handle(NonZeroU16::new(index as u16 + 1).unwrap())
    }

    fn put_numbered(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Ticket {
        let mut bytes = Vec::new();
        put(frame, &mut bytes);
        self.put_frame(bytes, out)
    }

    fn put_frame(&mut self, bytes: Vec<u8>, out: &mut Vec<u8>) -> Ticket {
        if self.online {
            out.extend(&bytes);
        }
        self.frames.push(bytes);
        self.sent += 1;
        Ticket(self.sent - 1)
    }

    fn handle_welcome(&mut self, welcome: &Welcome, out: &mut Vec<u8>, heard: &mut Heard) {
        (heard.connected, heard.resumed) = (true, welcome.resumed);
        if welcome.resumed {
            assert_eq!(Some(welcome.session), self.session);
            assert!(self.acknowledged <= welcome.received && welcome.received <= self.sent);
        } else {
            // Nothing is left, and what wasn't acknowledged stays so.
            (self.sent, self.acknowledged, self.received, self.unacknowledged) = (0, 0, 0, 0);
            (self.frames, self.announced, self.names) = Default::default();
            (self.parts, self.refused) = Default::default();
            self.session = (welcome.session_expiry > 0).then_some(welcome.session);
            assert_eq!(welcome.received, 0);
        }
        self.frames[welcome.received as usize..].iter().for_each(|frame| out.extend(frame));
        self.online = true;
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if self.unacknowledged > 0 && self.online {
            put(&Frame::Ack { frames: std::mem::take(&mut self.unacknowledged) }, out);
        }
    }
}
