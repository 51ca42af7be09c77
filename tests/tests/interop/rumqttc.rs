//! rumqttc, its 3.1.1 client and its 5.

use std::time::Duration;

use bugle_tests::{Version, soon};
use rumqttc::Outgoing;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::peer::{Connect, Message, Peer, suite};

struct Rumqttc {
    connect: Connect,
    client: Client,
    events: UnboundedReceiver<Event>,
    messages: std::collections::VecDeque<Message>,
    pump: JoinHandle<()>,
}

enum Client {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

enum Event {
    Connected(bool),
    Granted(u8),
    /// A publish has got as far as its QoS goes.
    Published(bool),
    Message(Message),
    Disconnecting,
}

impl Rumqttc {
    async fn start(connect: &Connect) -> (Self, bool) {
        let (tell, events) = unbounded_channel();
        let Connect { id, port, expiry, .. } = connect;
        let keep_alive = Duration::from_secs(30);
        let (client, pump) = match connect.version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(id, "127.0.0.1", *port);
                options.set_keep_alive(keep_alive).set_clean_session(*expiry == 0);
                if let Some(will) = &connect.will {
                    let qos = rumqttc::qos(will.qos).unwrap();
                    options.set_last_will(rumqttc::LastWill::new(
                        &will.topic,
                        will.text.as_str(),
                        qos,
                        will.retain,
                    ));
                }
                let (client, connection) = rumqttc::AsyncClient::new(options, 16);
                (Client::V4(client), tokio::spawn(pump_v4(connection, tell)))
            }
            Version::V5 => {
                let mut options = rumqttc::v5::MqttOptions::new(id, "127.0.0.1", *port);
                options.set_keep_alive(keep_alive).set_clean_start(*expiry == 0);
                options.set_session_expiry_interval(Some(*expiry));
                if let Some(will) = &connect.will {
                    let qos = rumqttc::v5::mqttbytes::qos(will.qos).unwrap();
                    options.set_last_will(v5::LastWill::new(
                        &will.topic,
                        will.text.as_str(),
                        qos,
                        will.retain,
                        None,
                    ));
                }
                let (client, connection) = rumqttc::v5::AsyncClient::new(options, 16);
                (Client::V5(client), tokio::spawn(pump_v5(connection, tell)))
            }
        };
        let mut peer = Self { connect: connect.clone(), client, events, messages: Default::default(), pump };
        let present = peer.wait("the CONNACK", |event| match event {
            Event::Connected(present) => Some(present),
            _ => None,
        });
        let present = present.await;
        (peer, present)
    }

    /// The next event that is wanted; messages are kept, and others passed over.
    async fn wait<R>(&mut self, what: &str, mut wanted: impl FnMut(Event) -> Option<R>) -> R {
        loop {
            match soon(what, self.events.recv()).await {
                Some(Event::Message(message)) => self.messages.push_back(message),
                Some(event) => {
                    if let Some(found) = wanted(event) {
                        return found;
                    }
                }
                None => panic!("the connection ended before {what}"),
            }
        }
    }
}

impl Peer for Rumqttc {
    async fn connect(connect: &Connect) -> (Self, bool) {
        Self::start(connect).await
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        match &self.client {
            Client::V4(client) => client.subscribe(filter, rumqttc::qos(qos).unwrap()).await.unwrap(),
            Client::V5(client) => {
                client.subscribe(filter, rumqttc::v5::mqttbytes::qos(qos).unwrap()).await.unwrap();
            }
        }
        self.wait("the SUBACK", |event| match event {
            Event::Granted(qos) => Some(qos),
            _ => None,
        })
        .await
    }

    async fn publish(&mut self, message: &Message) -> bool {
        let Message { topic, text, qos, retain } = message.clone();
        match &self.client {
            Client::V4(client) => {
                client.publish(topic, rumqttc::qos(qos).unwrap(), retain, text).await.unwrap();
            }
            Client::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::qos(qos).unwrap();
                client.publish(topic, qos, retain, text).await.unwrap();
            }
        }
        if qos == 0 {
            return true;
        }
        self.wait("the acknowledgement", |event| match event {
            Event::Published(accepted) => Some(accepted),
            _ => None,
        })
        .await
    }

    async fn message(&mut self) -> Message {
        if let Some(message) = self.messages.pop_front() {
            return message;
        }
        loop {
            match soon("a message", self.events.recv()).await {
                Some(Event::Message(message)) => return message,
                Some(_) => {}
                None => panic!("the connection ended before a message"),
            }
        }
    }

    async fn cut(&mut self) {
        self.pump.abort();
        // Its socket goes with it.
        let _ = (&mut self.pump).await;
    }

    async fn reconnect(&mut self) -> bool {
        let (peer, present) = Self::start(&self.connect.clone()).await;
        *self = peer;
        present
    }

    async fn leave(mut self) {
        match &self.client {
            Client::V4(client) => client.disconnect().await.unwrap(),
            Client::V5(client) => client.disconnect().await.unwrap(),
        }
        self.wait("the DISCONNECT", |event| matches!(event, Event::Disconnecting).then_some(())).await;
        self.cut().await;
    }
}

impl Drop for Rumqttc {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

async fn pump_v4(mut connection: rumqttc::EventLoop, tell: UnboundedSender<Event>) {
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    connection.set_network_options(network);
    loop {
        let polled = connection.poll().await;
        let event = match polled.unwrap_or_else(|error| panic!("{error}")) {
            rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(ack)) => Event::Connected(ack.session_present),
            rumqttc::Event::Incoming(rumqttc::Packet::SubAck(ack)) => match ack.return_codes[..] {
                [v4::SubscribeReasonCode::Success(qos)] => Event::Granted(qos as u8),
                _ => panic!("refused: {ack:?}"),
            },
            rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_) | rumqttc::Packet::PubComp(_)) => {
                Event::Published(true)
            }
            rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => Event::Message(Message {
                topic: publish.topic,
                text: String::from_utf8(publish.payload.to_vec()).unwrap(),
                qos: publish.qos as u8,
                retain: publish.retain,
            }),
            rumqttc::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnecting,
            _ => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

async fn pump_v5(mut connection: rumqttc::v5::EventLoop, tell: UnboundedSender<Event>) {
    use rumqttc::v5::Event::{Incoming, Outgoing as Out};
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    connection.options.set_network_options(network);
    loop {
        let polled = connection.poll().await;
        let event = match polled.unwrap_or_else(|error| panic!("{error}")) {
            Incoming(v5::Packet::ConnAck(ack)) => Event::Connected(ack.session_present),
            Incoming(v5::Packet::SubAck(ack)) => match ack.return_codes[..] {
                [v5::SubscribeReasonCode::Success(qos)] => Event::Granted(qos as u8),
                _ => panic!("refused: {ack:?}"),
            },
            Incoming(v5::Packet::PubAck(ack)) => {
                use v5::PubAckReason::{NoMatchingSubscribers, Success};
                Event::Published(matches!(ack.reason, Success | NoMatchingSubscribers))
            }
            Incoming(v5::Packet::PubComp(_)) => Event::Published(true),
            Incoming(v5::Packet::Publish(publish)) => Event::Message(Message {
                topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                text: String::from_utf8(publish.payload.to_vec()).unwrap(),
                qos: publish.qos as u8,
                retain: publish.retain,
            }),
            Out(Outgoing::Disconnect) => Event::Disconnecting,
            _ => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn rumqttc_v4() {
    for shards in [1, 3] {
        suite::<Rumqttc>(&Broker::bugle(shards).await, Version::V311).await;
    }
}

#[tokio::test]
async fn rumqttc_v5() {
    for shards in [1, 3] {
        suite::<Rumqttc>(&Broker::bugle(shards).await, Version::V5).await;
    }
}

#[tokio::test]
async fn rumqttc_with_mosquitto_for_comparison() {
    let broker = Broker::mosquitto().await;
    for version in [Version::V311, Version::V5] {
        suite::<Rumqttc>(&broker, version).await;
    }
}
