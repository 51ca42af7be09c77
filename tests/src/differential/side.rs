//! One broker's side of a sequence: the sockets of the two clients, and what came on them as lines that can be compared.
//!
//! What the standards leave to a broker is taken out here: packet identifiers that it chose (a message is known by its
//! payload), topic aliases that it set, the client id that it gave, reason strings and user properties of its own, the
//! properties by which a CONNACK tells its limits, the second that an expiry has lost meanwhile, and whether it says that nobody had
//! subscribed (0x10). Below, [`Heard`] also says in which order lines have to be.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use bugle_core::mqtt::{
    Ack, ConnAck, Packet, PacketType, Property, Publish, QoS, ReasonCode, Version, decode, frame_length,
};
use socket2::SockRef;

use super::packets;
use super::sequence::{Act, Seen};

/// What a client asks after everything that it says, and waits for.
const PING: [u8; 2] = [0xC0, 0];
/// What stands in place of an answer that doesn't come.
pub const SILENCE: &str = "NOTHING";
/// The last line of a connection that the broker ended.
pub const END: &str = "END";

/// What comes next of a delivery's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client's PUBACK.
    Acknowledge,
    /// The client's PUBREC.
    Receive,
    /// The broker's PUBREL.
    Release,
    /// The client's PUBCOMP.
    Complete,
}

/// One line, and where it belongs among those of a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// What isn't a message comes first: a broker may send its answers before or after what they cause.
    order: u8,
    /// Messages are in order for a topic and a QoS; 0 for the rest.
    topic: String,
    /// What is compared.
    pub text: String,
}

/// What came to one client in a step.
pub type Heard = Vec<Line>;

/// One client at one broker.
pub struct Party {
    link: Option<Link>,
    version: Version,
    /// By its packet identifier, in the session's order.
    in_flight: Vec<(u16, String, Stage)>,
    /// Replaced by another connection with the same id.
    replaced: Option<Link>,
    /// What came in this step, on the connection and on the one before.
    pub heard: [Heard; 2],
}

struct Link {
    stream: TcpStream,
    /// The client id that its CONNECT has; none where the broker chose one.
    id: Option<String>,
    /// So many messages may be unacknowledged, and those that are, by identifier.
    window: usize,
    unacknowledged: Vec<u16>,
    /// Largest packet that the client takes, in bytes.
    max_packet: usize,
    bytes: Vec<u8>,
    read: usize,
    aliases: Vec<(u16, String)>,
    is_in: bool,
    /// Pings that have no answer yet.
    pings: usize,
}

/// One broker, and the clients of a sequence.
pub struct Side {
    port: u16,
    patience: Duration,
    /// The clients.
    pub parties: [Party; 2],
}

impl Side {
    /// At the broker on this port. An answer that doesn't come for so long is none.
    pub fn new(port: u16, patience: Duration) -> Self {
        let party = || Party {
            link: None,
            version: Version::V5,
            in_flight: Vec::new(),
            replaced: None,
            heard: Default::default(),
        };
        Self { port, patience, parties: [party(), party()] }
    }

    /// Writes what a step says, and a ping behind it.
    pub fn act(&mut self, who: usize, act: &Act) {
        let party = &mut self.parties[who];
        match act {
            Act::Open { bytes, version, .. } => {
                let link = Link::open(self.port, self.patience, terms(bytes, *version));
                party.replaced = party.link.replace(link);
                party.version = *version;
                party.say(bytes);
            }
            Act::Say(bytes) => party.say(bytes),
            Act::Answer { kind, payload, reason } => {
                if let Some(id) = party.answer(*kind, payload, *reason) {
                    let bytes = packets::ack(*kind, id, *reason, party.version);
                    party.say(&bytes);
                }
            }
            Act::Cut => {
                if let Some(link) = &mut party.link {
                    link.close();
                    link.pings = usize::MAX;
                }
            }
        }
    }

    /// Reads until the client that acted has its answer or its end.
    pub fn hear(&mut self, who: usize, act: &Act) {
        let party = &mut self.parties[who];
        party.hear(0);
        let accepted = party.link.as_ref().is_some_and(|link| link.is_in);
        match act {
            Act::Open { .. } if accepted => {
                if let Some(link) = party.link.take() {
                    let replaced = party.replaced.take();
                    if let Some(mut replaced) = replaced {
                        let is_taken_over = replaced.id.is_some() && replaced.id == link.id;
                        if !is_taken_over {
                            // It is another client's, which goes: there are two of them.
                            replaced.close();
                        }
                        replaced.pings = usize::MAX;
                        party.link = Some(replaced);
                        party.hear(1);
                        if !is_taken_over {
                            party.heard[1].retain(|line| line.text != END);
                        }
                    }
                    party.link = Some(link);
                }
            }
            Act::Open { .. } => {
                if let Some(replaced) = party.replaced.take() {
                    party.link = Some(replaced);
                }
            }
            Act::Cut => party.heard[0].retain(|line| line.text != END),
            _ => {}
        }
    }

    /// Asks every client that is there for one more answer.
    pub fn ping(&mut self) {
        for party in &mut self.parties {
            party.say(&[]);
        }
    }

    /// Reads those answers, and everything that the brokers wrote before them.
    pub fn hear_all(&mut self) {
        for party in &mut self.parties {
            party.hear(0);
        }
    }

    /// What the sequence sees of it.
    pub fn seen(&self) -> [Seen; 2] {
        std::array::from_fn(|who| {
            let party = &self.parties[who];
            let mut in_flight: Vec<_> =
                party.in_flight.iter().map(|(_, payload, stage)| (payload.clone(), *stage)).collect();
            in_flight.sort_by(|one, other| one.0.cmp(&other.0));
            Seen {
                live: party.link.is_some(),
                version: party.version,
                has_window: party.has_window(),
                in_flight,
            }
        })
    }
}

impl Drop for Side {
    /// Ends at once and leaves no socket waiting in the kernel, of which there will be hundreds of thousands.
    fn drop(&mut self) {
        for link in self.parties.iter().flat_map(|party| [&party.link, &party.replaced]).flatten() {
            let _ = SockRef::from(&link.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Link {
    fn open(port: u16, patience: Duration, (id, window, max_packet): (Option<String>, usize, usize)) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        Self {
            stream,
            id,
            window,
            max_packet,
            unacknowledged: Vec::new(),
            bytes: Vec::new(),
            read: 0,
            aliases: Vec::new(),
            is_in: false,
            pings: 0,
        }
    }

    /// Closes the way there. The broker closes in turn, which shows that it has noticed.
    fn close(&self) {
        // It may have done so already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next whole packet of what has come.
    fn frame(&mut self) -> Option<Result<Vec<u8>, String>> {
        let rest = &self.bytes[self.read..];
        match frame_length(rest) {
            Ok(Some(length)) if rest.len() >= length => {
                self.read += length;
                Some(Ok(rest[..length].to_vec()))
            }
            Ok(_) => {
                self.bytes.drain(..self.read);
                self.read = 0;
                None
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }
}

impl Party {
    /// What it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it said how many messages it takes at a time.
    pub fn has_window(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.window < usize::MAX)
    }

    fn say(&mut self, bytes: &[u8]) {
        if let Some(link) = &mut self.link {
            link.pings += 1 + pings(bytes);
            // It may have been closed meanwhile, which reading shows.
            let _ = link.stream.write_all(&[bytes, &PING].concat());
        }
    }

    /// The identifier of a delivery, and what comes next of it.
    fn answer(&mut self, kind: PacketType, payload: &str, reason: ReasonCode) -> Option<u16> {
        let at = self.in_flight.iter().position(|(_, name, _)| name == payload)?;
        let id = self.in_flight[at].0;
        match (kind, self.in_flight[at].2) {
            (PacketType::PubRec, Stage::Receive) if !reason.is_failure() => {
                self.in_flight[at].2 = Stage::Release;
            }
            (PacketType::PubAck, Stage::Acknowledge)
            | (PacketType::PubRec, Stage::Receive)
            | (PacketType::PubComp, Stage::Complete) => {
                self.in_flight.remove(at);
                if let Some(link) = &mut self.link {
                    link.unacknowledged.retain(|other| *other != id);
                }
            }
            _ => {}
        }
        Some(id)
    }

    /// Reads until every ping has its answer, or the end.
    fn hear(&mut self, place: usize) {
        let Some(mut link) = self.link.take() else { return };
        let mut chunk = [0; 4096];
        loop {
            while let Some(frame) = link.frame() {
                let line = match &frame {
                    Ok(frame) => match decode(frame, self.version) {
                        Ok(Packet::PingResp) if link.pings > 0 && link.pings < usize::MAX => {
                            link.pings -= 1;
                            continue;
                        }
                        Ok(packet) => self.line(&packet, frame.len(), &mut link),
                        Err(error) => line(0, format!("MALFORMED {error}: {frame:x?}")),
                    },
                    Err(error) => line(0, format!("MALFORMED {error}")),
                };
                let is_broken = frame.is_err();
                self.heard[place].push(line);
                if is_broken {
                    return;
                }
            }
            if link.pings == 0 {
                self.link = Some(link);
                return;
            }
            match link.stream.read(&mut chunk) {
                Ok(0) => break self.heard[place].push(line(9, END.to_owned())),
                Ok(length) => link.bytes.extend(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break self.heard[place].push(line(9, SILENCE.to_owned()));
                }
                // A reset is an end, too.
                Err(_) => break self.heard[place].push(line(9, END.to_owned())),
            }
        }
    }

    /// A packet as it is compared; and what it says about identifiers and aliases.
    fn line(&mut self, packet: &Packet<'_>, length: usize, link: &mut Link) -> Line {
        let text = match packet {
            Packet::ConnAck(connack) => {
                if connack.reason == ReasonCode::Success {
                    link.is_in = true;
                    if !connack.session_present {
                        self.in_flight.clear();
                    }
                }
                connack_line(connack)
            }
            Packet::Publish(publish) => return self.publish_line(publish, length, link),
            Packet::PubRel(ack) => {
                let id = ack.packet_id.get();
                let known = self.in_flight.iter_mut().find(|(number, ..)| *number == id);
                let name = known.map_or("of nothing".to_owned(), |(_, payload, stage)| {
                    *stage = Stage::Complete;
                    format!("of {payload}")
                });
                format!("PUBREL {name} {:02x}", ack.reason.as_u8())
            }
            Packet::PubAck(ack) => ack_line("PUBACK", ack),
            Packet::PubRec(ack) => ack_line("PUBREC", ack),
            Packet::PubComp(ack) => ack_line("PUBCOMP", ack),
            Packet::Disconnect(disconnect) => format!("DISCONNECT {:02x}", disconnect.reason.as_u8()),
            Packet::SubAck(ack) => {
                let codes: Vec<String> =
                    ack.reasons.iter().map(|reason| format!("{:02x}", reason.as_u8())).collect();
                format!("SUBACK {} {}", ack.packet_id, codes.join(" "))
            }
            other => other.line(),
        };
        line(u8::from(matches!(packet, Packet::Disconnect(_))) * 8, text)
    }

    fn publish_line(&mut self, publish: &Publish<'_>, length: usize, link: &mut Link) -> Line {
        let mut topic = publish.topic.to_owned();
        if let Some(alias) = publish.properties.topic_alias() {
            link.aliases.retain(|(number, _)| *number != alias || topic.is_empty());
            if topic.is_empty() {
                let known = link.aliases.iter().find(|(number, _)| *number == alias);
                topic = known.map_or("(an unknown alias)".to_owned(), |(_, topic)| topic.clone());
            } else {
                link.aliases.push((alias, topic.clone()));
            }
        }
        let payload = String::from_utf8_lossy(publish.payload).into_owned();
        let qos = publish.qos.as_u8();
        let mut properties: Vec<String> = publish
            .properties
            .iter()
            .filter_map(|property| match property {
                Property::TopicAlias(_) | Property::UserProperty(..) => None,
                // Seconds pass.
                Property::MessageExpiryInterval(seconds) => Some(format!("expiry {}", seconds.div_ceil(100))),
                other => Some(format!("{other:?}")),
            })
            .collect();
        // Only user properties have an order.
        properties.sort();
        properties
            .extend(publish.properties.user_properties().map(|(name, value)| format!("{name}={value}")));
        let flags = format!(
            "{}{}",
            if publish.dup { " dup" } else { "" },
            if publish.retain { " retain" } else { "" }
        );
        if let Some(id) = publish.packet_id {
            self.in_flight.retain(|(number, ..)| *number != id.get());
            let stage = if publish.qos == QoS::ExactlyOnce { Stage::Receive } else { Stage::Acknowledge };
            self.in_flight.push((id.get(), payload.clone(), stage));
        }
        let mut text = format!("PUBLISH q{qos}{flags} {topic} {payload}");
        if link.unacknowledged.len() >= link.window {
            text += " (the window is full)";
        }
        if length > link.max_packet {
            text += " (larger than the client takes)";
        } else if publish.topic.is_empty() && length + topic.len() > link.max_packet {
            text += " (with its alias it fits)";
        }
        if let Some(id) = publish.packet_id {
            link.unacknowledged.push(id.get());
        }
        if !properties.is_empty() {
            text += &format!(" {{{}}}", properties.join(", "));
        }
        Line { order: 5, topic: format!("{topic} {qos}"), text }
    }
}

/// The client id of a CONNECT, if it has one, its receive maximum and its maximum packet size.
fn terms(bytes: &[u8], version: Version) -> (Option<String>, usize, usize) {
    let Ok(Packet::Connect(connect)) = decode(bytes, version) else { return (None, usize::MAX, usize::MAX) };
    let id = (!connect.client_id.is_empty()).then(|| connect.client_id.to_owned());
    let window = connect.properties.receive_maximum().map_or(usize::MAX, usize::from);
    let max_packet = connect.properties.iter().find_map(|property| match property {
        Property::MaximumPacketSize(size) => Some(size as usize),
        _ => None,
    });
    (id, window, max_packet.unwrap_or(usize::MAX))
}

/// How many pings a step says itself.
fn pings(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(length)) = frame_length(bytes)
        && let Some(frame) = bytes.get(..length)
    {
        count += usize::from(frame == PING);
        bytes = &bytes[length..];
    }
    count
}

fn line(order: u8, text: String) -> Line {
    Line { order, topic: String::new(), text }
}

fn ack_line(name: &str, ack: &Ack<'_>) -> String {
    let reason = match ack.reason {
        ReasonCode::NoMatchingSubscribers => ReasonCode::Success,
        other => other,
    };
    format!("{name} {} {:02x}", ack.packet_id, reason.as_u8())
}

fn connack_line(connack: &ConnAck<'_>) -> String {
    let mut text = format!("CONNACK {:02x}", connack.reason.as_u8());
    if connack.session_present {
        text += " present";
    }
    if connack.properties.assigned_client_id().is_some() {
        text += " with an id";
    }
    text
}

/// Puts what came in a step into one order that says the same: answers in theirs, then messages, topic by topic.
pub fn in_order(mut heard: Heard) -> Heard {
    // Stable: what has the same topic and QoS stays in its order.
    heard.sort_by(|one, other| (one.order, &one.topic).cmp(&(other.order, &other.topic)));
    heard
}
