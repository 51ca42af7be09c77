//! An MQTT app on rumqttc, with one face for its 3.1.1 and its 5 client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5;
use rumqttc::{NetworkOptions, TlsConfiguration, Transport, mqttbytes::v4};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ClientConfig;

use crate::{Listens, soon};

/// Which MQTT an app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V311,
    /// 5.
    V5,
}

/// What an app connects through.
#[derive(Clone)]
pub enum Way {
    /// TCP alone.
    Tcp,
    /// TLS.
    Tls(Arc<ClientConfig>),
    /// A WebSocket.
    WebSocket,
    /// A WebSocket within TLS.
    SecureWebSocket(Arc<ClientConfig>),
}

impl Way {
    /// The address as rumqttc wants it, and its transport.
    fn split(self, port: u16) -> (String, Transport) {
        let address = match self {
            Self::Tcp | Self::Tls(_) => "127.0.0.1".to_owned(),
            Self::WebSocket => format!("ws://127.0.0.1:{port}/mqtt"),
            Self::SecureWebSocket(_) => format!("wss://127.0.0.1:{port}/mqtt"),
        };
        let transport = match self {
            Self::Tcp => Transport::Tcp,
            Self::Tls(config) => Transport::Tls(TlsConfiguration::Rustls(config)),
            Self::WebSocket => Transport::Ws,
            Self::SecureWebSocket(config) => Transport::Wss(TlsConfiguration::Rustls(config)),
        };
        (address, transport)
    }
}

/// A connected app.
pub struct App {
    id: String,
    client: Client,
    events: UnboundedReceiver<Event>,
    acknowledgements: VecDeque<Acknowledgement>,
    granted: VecDeque<Vec<String>>,
    messages: VecDeque<Message>,
    ended: Option<String>,
    pump: JoinHandle<()>,
}

/// The answer to a publish with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// rumqttc's name for the reason code; always `Success` in 3.1.1.
    pub reason: String,
    /// The user property `code`.
    pub code: String,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload, as text.
    pub text: String,
    /// Whether it came as retained.
    pub retain: bool,
    /// Its user properties.
    pub properties: Vec<(String, String)>,
}

impl Message {
    /// The first user property of this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

enum Event {
    Connected,
    Subscribed(Vec<String>),
    Acknowledged(Acknowledgement),
    Message(Message),
    Ended(String),
}

impl App {
    /// Connects.
    pub async fn connect(server: &impl Listens, version: Version, id: &str) -> Self {
        Self::connect_as(server, version, id, None).await.unwrap_or_else(|error| panic!("{id}: {error}"))
    }

    /// Connects with a password, the user name being the id; or says why it wasn't let in.
    pub async fn connect_as(
        server: &impl Listens,
        version: Version,
        id: &str,
        password: Option<&str>,
    ) -> Result<Self, String> {
        Self::connect_by(server, version, id, password, Way::Tcp).await
    }

    /// The same through something.
    pub async fn connect_by(
        server: &impl Listens,
        version: Version,
        id: &str,
        password: Option<&str>,
        way: Way,
    ) -> Result<Self, String> {
        let (address, transport) = way.split(server.port());
        let (tell, events) = unbounded_channel();
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let (client, pump) = match version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(id, address, server.port());
                options.set_transport(transport);
                options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(1 << 20, 1 << 20);
                if let Some(password) = password {
                    options.set_credentials(id, password);
                }
                let (client, mut connection) = rumqttc::AsyncClient::new(options, 16);
                connection.set_network_options(network);
                (Client::V311(client), tokio::spawn(pump_v311(connection, tell)))
            }
            Version::V5 => {
                let mut options = rumqttc::v5::MqttOptions::new(id, address, server.port());
                options.set_transport(transport);
                options.set_keep_alive(Duration::from_secs(30)).set_network_options(network);
                if let Some(password) = password {
                    options.set_credentials(id, password);
                }
                let (client, connection) = rumqttc::v5::AsyncClient::new(options, 16);
                (Client::V5(client), tokio::spawn(pump_v5(connection, tell)))
            }
        };
        let (acknowledgements, granted, messages) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let id = id.to_owned();
        let mut app = Self { id, client, events, acknowledgements, granted, messages, ended: None, pump };
        match soon("the CONNACK", app.events.recv()).await {
            Some(Event::Connected) => Ok(app),
            Some(Event::Ended(error)) => Err(error),
            _ => panic!("something before the CONNACK"),
        }
    }

    /// Connects, subscribes to its notices and its inbox, and joins a group.
    pub async fn member(server: &impl Listens, version: Version, id: &str, group: &str) -> Self {
        let mut app = Self::connect(server, version, id).await;
        for topic in [format!("sig/r/{id}"), format!("sig/c/{id}"), format!("sig/g/{group}")] {
            assert_eq!(app.subscribe(&topic).await, ["Success(AtLeastOnce)"], "{topic}");
        }
        app
    }

    /// Subscribes with QoS 1, and gives rumqttc's name for what was granted.
    pub async fn subscribe(&mut self, filter: &str) -> Vec<String> {
        match &self.client {
            Client::V311(client) => client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await.unwrap(),
            Client::V5(client) => {
                client.subscribe(filter, rumqttc::v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
            }
        }
        self.wait("the SUBACK", |app| app.granted.pop_front()).await
    }

    /// Publishes with QoS 1, and waits for the answer.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Acknowledgement {
        self.publish_with(topic, payload, false, &[]).await
    }

    /// The same with RETAIN and, in version 5, user properties.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        retain: bool,
        properties: &[(&str, &str)],
    ) -> Acknowledgement {
        match &self.client {
            Client::V311(client) => {
                assert!(properties.is_empty(), "3.1.1 has no user properties");
                client.publish(topic, rumqttc::QoS::AtLeastOnce, retain, payload).await.unwrap();
            }
            Client::V5(client) => {
                let user_properties =
                    properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
                let properties = v5::PublishProperties { user_properties, ..Default::default() };
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.publish_with_properties(topic, qos, retain, payload.into(), properties).await.unwrap();
            }
        }
        self.wait("the PUBACK", |app| app.acknowledgements.pop_front()).await
    }

    /// Publishes, which must be accepted, and waits for its receipt.
    pub async fn send(&mut self, topic: &str, payload: &str) -> serde_json::Value {
        assert_eq!(self.publish(topic, payload).await.reason, "Success", "{topic}");
        self.notice("receipt").await
    }

    /// The next message on `topic`; those on other topics are kept.
    pub async fn message(&mut self, topic: &str) -> Message {
        let what = format!("a message on {topic}");
        self.wait(&what, |app| {
            let index = app.messages.iter().position(|message| message.topic == topic)?;
            app.messages.remove(index)
        })
        .await
    }

    /// The next receipt or refusal on `sig/r/{me}`; notices of other kinds before it are dropped.
    pub async fn notice(&mut self, kind: &str) -> serde_json::Value {
        let topic = format!("sig/r/{}", self.id);
        loop {
            let message = self.message(&topic).await;
            let notice: serde_json::Value = serde_json::from_str(&message.text).unwrap();
            if notice["type"] == kind {
                return notice;
            }
        }
    }

    /// Waits until the connection ends, and gives rumqttc's words for it.
    pub async fn ended(&mut self) -> String {
        self.wait("the end of the connection", |app| app.ended.take()).await
    }

    /// What came on `topic` and nobody has asked for.
    pub fn left(&self, topic: &str) -> usize {
        self.messages.iter().filter(|message| message.topic == topic).count()
    }

    async fn wait<R>(&mut self, what: &str, mut take: impl FnMut(&mut Self) -> Option<R>) -> R {
        loop {
            if let Some(result) = take(self) {
                return result;
            }
            match soon(what, self.events.recv()).await {
                Some(Event::Connected) => panic!("{} was connected again", self.id),
                Some(Event::Subscribed(codes)) => self.granted.push_back(codes),
                Some(Event::Acknowledged(acknowledgement)) => {
                    self.acknowledgements.push_back(acknowledgement)
                }
                Some(Event::Message(message)) => self.messages.push_back(message),
                Some(Event::Ended(error)) => self.ended = Some(error),
                None => panic!("{}: {what} didn't come before the end", self.id),
            }
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

async fn pump_v311(mut connection: rumqttc::EventLoop, tell: UnboundedSender<Event>) {
    loop {
        let event = match connection.poll().await {
            Ok(rumqttc::Event::Incoming(packet)) => packet,
            Ok(rumqttc::Event::Outgoing(_)) => continue,
            Err(error) => return drop(tell.send(Event::Ended(format!("{error:?}")))),
        };
        let event = match event {
            rumqttc::Packet::ConnAck(v4::ConnAck { code: v4::ConnectReturnCode::Success, .. }) => {
                Event::Connected
            }
            rumqttc::Packet::SubAck(ack) => Event::Subscribed(names(&ack.return_codes)),
            rumqttc::Packet::PubAck(_) => {
                Event::Acknowledged(Acknowledgement { reason: "Success".to_owned(), code: String::new() })
            }
            rumqttc::Packet::Publish(publish) => Event::Message(Message {
                topic: publish.topic,
                text: String::from_utf8_lossy(&publish.payload).into_owned(),
                retain: publish.retain,
                properties: Vec::new(),
            }),
            _ => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

async fn pump_v5(mut connection: rumqttc::v5::EventLoop, tell: UnboundedSender<Event>) {
    loop {
        let event = match connection.poll().await {
            Ok(rumqttc::v5::Event::Incoming(packet)) => packet,
            Ok(rumqttc::v5::Event::Outgoing(_)) => continue,
            Err(error) => return drop(tell.send(Event::Ended(format!("{error:?}")))),
        };
        let event = match event {
            v5::Packet::ConnAck(v5::ConnAck { code: v5::ConnectReturnCode::Success, .. }) => Event::Connected,
            v5::Packet::SubAck(ack) => Event::Subscribed(names(&ack.return_codes)),
            v5::Packet::PubAck(ack) => {
                let properties =
                    ack.properties.map(|properties| properties.user_properties).unwrap_or_default();
                let code = properties.into_iter().find(|(key, _)| key == "code").map(|(_, code)| code);
                let reason = format!("{:?}", ack.reason);
                Event::Acknowledged(Acknowledgement { reason, code: code.unwrap_or_default() })
            }
            v5::Packet::Publish(publish) => Event::Message(Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                text: String::from_utf8_lossy(&publish.payload).into_owned(),
                retain: publish.retain,
                properties: publish
                    .properties
                    .map(|properties| properties.user_properties)
                    .unwrap_or_default(),
            }),
            _ => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

fn names(codes: &[impl std::fmt::Debug]) -> Vec<String> {
    codes.iter().map(|code| format!("{code:?}")).collect()
}
