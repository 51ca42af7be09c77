//! Packets as a client of either MQTT version reads and writes them, in rumqttc's codec: what differs between the
//! versions ends here.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

/// Which MQTT is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

/// A message on its way over the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// 0 to 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// Seconds until it expires.
    pub expiry: Option<u32>,
    /// What else it has in MQTT 5.
    pub properties: Option<Box<v5::PublishProperties>>,
}

/// How the session begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The client id.
    pub client_id: String,
    /// User name and password; empty: none.
    pub login: (String, String),
    /// Longest silence, in seconds.
    pub keep_alive: u16,
    /// For how many seconds the session shall be kept (MQTT 5).
    pub session_expiry: u32,
    /// Unacknowledged messages that are taken at a time (MQTT 5).
    pub receive_maximum: u16,
    /// Largest packet that is taken, in bytes.
    pub max_packet: usize,
    /// Messages of QoS 2 go to this broker.
    pub releases: bool,
}

/// What the broker can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Unacknowledged messages that it takes at a time.
    pub receive_maximum: u16,
    /// Most QoS.
    pub max_qos: u8,
    /// It has retained messages.
    pub retain: bool,
    /// Largest packet that it takes, in bytes.
    pub max_packet: usize,
    /// Longest silence that it wants, in seconds.
    pub keep_alive: Option<u16>,
}

/// A filter to be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The topic filter.
    pub filter: String,
    /// Most QoS of what comes.
    pub qos: u8,
    /// When retained messages shall come (MQTT 5; in 3.1.1 they always do).
    pub retained: Replay,
}

/// When a subscription is answered with retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Each time.
    Always,
    /// If there was no such subscription.
    IfNew,
    /// Not at all.
    Never,
}

/// A packet with nothing but an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK.
    Taken,
    /// PUBREC.
    Received,
    /// PUBREL.
    Release,
    /// PUBCOMP.
    Completed,
}

/// What the broker has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// CONNACK: in, with or without a session.
    Welcome { session_present: bool, can: Capabilities },
    /// CONNACK: not in.
    Refused(String),
    /// PUBLISH.
    Publish { id: u16, dup: bool, message: Message },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, with the reason why a message was refused.
    Ack { ack: Ack, id: u16, refused: Option<String> },
    /// SUBACK, with the reason for each filter that was refused.
    Subscribed(Vec<Option<String>>),
    /// PINGRESP, or what means nothing to a client that hasn't asked for it.
    Nothing,
    /// DISCONNECT.
    Goodbye(String),
}

impl Version {
    /// The name in configuration and logs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }

    /// Takes the first packet out of `bytes`, if it is there in whole.
    pub fn read(self, bytes: &mut BytesMut, max_packet: usize) -> Result<Option<Received>, String> {
        // Asked beforehand, since a packet whose inner lengths are wrong is said to be insufficient, too.
        match self {
            Self::V311 => match rumqttc::mqttbytes::check(bytes.iter(), max_packet) {
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(error.to_string()),
                Ok(_) => {
                    let packet = v4::Packet::read(bytes, max_packet).map_err(|error| error.to_string())?;
                    received_v4(packet).map(Some)
                }
            },
            Self::V5 => {
                let max_packet = Some(max_packet.min(u32::MAX as usize) as u32);
                match v5::check(bytes.iter(), max_packet) {
                    Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                    Err(error) => Err(error.to_string()),
                    Ok(_) => {
                        let packet =
                            v5::Packet::read(bytes, max_packet).map_err(|error| error.to_string())?;
                        received_v5(packet).map(Some)
                    }
                }
            }
        }
    }

    /// Appends CONNECT.
    pub fn connect(self, opening: &Opening, out: &mut BytesMut) {
        let (user, password) = &opening.login;
        let has_login = !user.is_empty() || !password.is_empty();
        match self {
            Self::V311 => {
                let mut connect = v4::Connect::new(&*opening.client_id);
                connect.clean_session = false;
                connect.keep_alive = opening.keep_alive;
                connect.login = has_login.then(|| v4::Login::new(user, password));
                append_v4(&v4::Packet::Connect(connect), out);
            }
            Self::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(opening.session_expiry);
                properties.receive_maximum = Some(opening.receive_maximum);
                properties.max_packet_size = Some(opening.max_packet.min(u32::MAX as usize) as u32);
                let connect = v5::Connect {
                    keep_alive: opening.keep_alive,
                    client_id: opening.client_id.clone(),
                    clean_start: false,
                    properties: Some(properties),
                };
                let login = has_login.then(|| v5::Login::new(user, password));
                append_v5(&v5::Packet::Connect(connect, None, login), out);
            }
        }
    }

    /// Appends SUBSCRIBE. In MQTT 5 what this client itself publishes doesn't come back, and RETAIN stays as it was
    /// published.
    pub fn subscribe(self, id: u16, wishes: &[Wish], out: &mut BytesMut) {
        match self {
            Self::V311 => {
                let filters =
                    wishes.iter().map(|wish| v4::SubscribeFilter::new(wish.filter.clone(), qos_v4(wish.qos)));
                let mut subscribe = v4::Subscribe::new_many(filters);
                subscribe.pkid = id;
                append_v4(&v4::Packet::Subscribe(subscribe), out);
            }
            Self::V5 => {
                let filters = wishes.iter().map(|wish| v5::Filter {
                    path: wish.filter.clone(),
                    qos: qos_v5(wish.qos),
                    nolocal: true,
                    preserve_retain: true,
                    retain_forward_rule: match wish.retained {
                        Replay::Always => v5::RetainForwardRule::OnEverySubscribe,
                        Replay::IfNew => v5::RetainForwardRule::OnNewSubscribe,
                        Replay::Never => v5::RetainForwardRule::Never,
                    },
                });
                let mut subscribe = v5::Subscribe::new_many(filters, None);
                subscribe.pkid = id;
                append_v5(&v5::Packet::Subscribe(subscribe), out);
            }
        }
    }

    /// Appends PUBLISH, if it isn't larger than the broker takes. Gives its length if it is.
    pub fn publish(
        self,
        message: &Message,
        id: u16,
        dup: bool,
        max_packet: usize,
        out: &mut BytesMut,
    ) -> Result<(), usize> {
        match self {
            Self::V311 => {
                let mut publish = v4::Publish::new(&*message.topic, qos_v4(message.qos), Vec::new());
                publish.payload = message.payload.clone();
                (publish.pkid, publish.dup, publish.retain) = (id, dup, message.retain);
                let size = publish.size();
                if size > max_packet {
                    return Err(size);
                }
                append_v4(&v4::Packet::Publish(publish), out);
            }
            Self::V5 => {
                let mut properties = message.properties.as_deref().cloned();
                if message.expiry.is_some() {
                    properties.get_or_insert_default().message_expiry_interval = message.expiry;
                }
                let publish = v5::Publish {
                    dup,
                    qos: qos_v5(message.qos),
                    retain: message.retain,
                    topic: Bytes::copy_from_slice(message.topic.as_bytes()),
                    pkid: id,
                    payload: message.payload.clone(),
                    properties,
                };
                let size = publish.size();
                if size > max_packet {
                    return Err(size);
                }
                append_v5(&v5::Packet::Publish(publish), out);
            }
        }
        Ok(())
    }

    /// Appends an acknowledgement, of success.
    pub fn ack(self, ack: Ack, id: u16, out: &mut BytesMut) {
        let first = match ack {
            Ack::Taken => 0x40,
            Ack::Received => 0x50,
            Ack::Release => 0x62,
            Ack::Completed => 0x70,
        };
        // In MQTT 5 a reason code of success may be left out, so that both versions have it the same.
        let [high, low] = id.to_be_bytes();
        out.extend_from_slice(&[first, 2, high, low]);
    }

    /// Appends PINGREQ.
    pub fn ping(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xC0, 0]);
    }

    /// Appends DISCONNECT, after which the session stays.
    pub fn disconnect(self, out: &mut BytesMut) {
        out.extend_from_slice(&[0xE0, 0]);
    }
}

fn append_v4(packet: &v4::Packet, out: &mut BytesMut) {
    // It refuses what is longer than MQTT has lengths for, which all bounds here are far below.
    if let Err(error) = packet.write(out, usize::MAX) {
        tracing::error!(%error, "a packet of a bridge could not be written");
    }
}

fn append_v5(packet: &v5::Packet, out: &mut BytesMut) {
    if let Err(error) = packet.write(out, None) {
        tracing::error!(%error, "a packet of a bridge could not be written");
    }
}

fn qos_v4(qos: u8) -> rumqttc::mqttbytes::QoS {
    use rumqttc::mqttbytes::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    [AtMostOnce, AtLeastOnce, ExactlyOnce][usize::from(qos.min(2))]
}

fn qos_v5(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
    use rumqttc::v5::mqttbytes::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    [AtMostOnce, AtLeastOnce, ExactlyOnce][usize::from(qos.min(2))]
}

fn received_v4(packet: v4::Packet) -> Result<Received, String> {
    let ack = |ack, id| Ok(Received::Ack { ack, id, refused: None });
    match packet {
        v4::Packet::ConnAck(connack) if connack.code == v4::ConnectReturnCode::Success => {
            let can = Capabilities {
                receive_maximum: u16::MAX,
                max_qos: 2,
                retain: true,
                max_packet: usize::MAX,
                keep_alive: None,
            };
            Ok(Received::Welcome { session_present: connack.session_present, can })
        }
        v4::Packet::ConnAck(connack) => Ok(Received::Refused(format!("{:?}", connack.code))),
        v4::Packet::Publish(publish) => Ok(Received::Publish {
            id: publish.pkid,
            dup: publish.dup,
            message: Message {
                topic: publish.topic,
                payload: publish.payload,
                qos: publish.qos as u8,
                retain: publish.retain,
                expiry: None,
                properties: None,
            },
        }),
        v4::Packet::PubAck(packet) => ack(Ack::Taken, packet.pkid),
        v4::Packet::PubRec(packet) => ack(Ack::Received, packet.pkid),
        v4::Packet::PubRel(packet) => ack(Ack::Release, packet.pkid),
        v4::Packet::PubComp(packet) => ack(Ack::Completed, packet.pkid),
        v4::Packet::SubAck(suback) => {
            let refused = |code: &v4::SubscribeReasonCode| {
                matches!(code, v4::SubscribeReasonCode::Failure).then(|| format!("{code:?}"))
            };
            Ok(Received::Subscribed(suback.return_codes.iter().map(refused).collect()))
        }
        v4::Packet::PingResp | v4::Packet::UnsubAck(_) => Ok(Received::Nothing),
        v4::Packet::Connect(_)
        | v4::Packet::Subscribe(_)
        | v4::Packet::Unsubscribe(_)
        | v4::Packet::PingReq
        | v4::Packet::Disconnect => Err("it sent a packet that only clients send".to_owned()),
    }
}

fn received_v5(packet: v5::Packet) -> Result<Received, String> {
    let ack = |ack, id, refused| Ok(Received::Ack { ack, id, refused });
    match packet {
        v5::Packet::ConnAck(connack) if connack.code == v5::ConnectReturnCode::Success => {
            let said = connack.properties.as_ref();
            let can = Capabilities {
                receive_maximum: said.and_then(|said| said.receive_max).unwrap_or(u16::MAX).max(1),
                max_qos: said.and_then(|said| said.max_qos).unwrap_or(2),
                retain: said.and_then(|said| said.retain_available) != Some(0),
                max_packet: said
                    .and_then(|said| said.max_packet_size)
                    .map_or(usize::MAX, |size| size as usize),
                keep_alive: said.and_then(|said| said.server_keep_alive),
            };
            Ok(Received::Welcome { session_present: connack.session_present, can })
        }
        v5::Packet::ConnAck(connack) => {
            let why = connack.properties.and_then(|said| said.reason_string);
            Ok(Received::Refused(with_reason(&connack.code, why)))
        }
        v5::Packet::Publish(publish) => {
            let topic = String::from_utf8(publish.topic.to_vec())
                .map_err(|_| "it sent a topic that is no UTF-8".to_owned())?;
            let mut properties = publish.properties;
            let mut expiry = None;
            if let Some(properties) = &mut properties {
                // These two are between the far broker and this client alone.
                properties.topic_alias = None;
                properties.subscription_identifiers.clear();
                expiry = properties.message_expiry_interval.take();
            }
            Ok(Received::Publish {
                id: publish.pkid,
                dup: publish.dup,
                message: Message {
                    topic,
                    payload: publish.payload,
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    expiry,
                    properties: properties.map(Box::new),
                },
            })
        }
        v5::Packet::PubAck(packet) => {
            use v5::PubAckReason::{NoMatchingSubscribers, Success};
            let is_good = matches!(packet.reason, Success | NoMatchingSubscribers);
            let why = packet.properties.and_then(|said| said.reason_string);
            ack(Ack::Taken, packet.pkid, (!is_good).then(|| with_reason(&packet.reason, why)))
        }
        v5::Packet::PubRec(packet) => {
            use v5::PubRecReason::{NoMatchingSubscribers, Success};
            let is_good = matches!(packet.reason, Success | NoMatchingSubscribers);
            let why = packet.properties.and_then(|said| said.reason_string);
            ack(Ack::Received, packet.pkid, (!is_good).then(|| with_reason(&packet.reason, why)))
        }
        v5::Packet::PubRel(packet) => ack(Ack::Release, packet.pkid, None),
        v5::Packet::PubComp(packet) => ack(Ack::Completed, packet.pkid, None),
        v5::Packet::SubAck(suback) => {
            let why = suback.properties.and_then(|said| said.reason_string);
            let refused = |code: &v5::SubscribeReasonCode| {
                let is_good = matches!(code, v5::SubscribeReasonCode::Success(_));
                (!is_good).then(|| with_reason(code, why.clone()))
            };
            Ok(Received::Subscribed(suback.return_codes.iter().map(refused).collect()))
        }
        v5::Packet::Disconnect(packet) => {
            let why = packet.properties.and_then(|said| said.reason_string);
            Ok(Received::Goodbye(with_reason(&packet.reason_code, why)))
        }
        v5::Packet::PingResp(_) | v5::Packet::UnsubAck(_) => Ok(Received::Nothing),
        v5::Packet::Auth(_)
        | v5::Packet::Connect(..)
        | v5::Packet::Subscribe(_)
        | v5::Packet::Unsubscribe(_)
        | v5::Packet::PingReq(_) => Err("it sent a packet that only clients send".to_owned()),
    }
}

fn with_reason(code: &impl std::fmt::Debug, why: Option<String>) -> String {
    match why {
        Some(why) => format!("{code:?} ({why})"),
        None => format!("{code:?}"),
    }
}
