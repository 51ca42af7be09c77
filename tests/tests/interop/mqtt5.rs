//! mqtt5, a client that shares no code with rumqttc.

use std::time::Duration;

use bugle_tests::{Version, soon};
use mqtt5::{
    ConnectOptions, MqttClient, ProtocolVersion, PublishOptions, QoS, SubscribeOptions, WillMessage,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::broker::Broker;
use crate::peer::{Connect, Message, Peer, suite};

struct Mqtt5 {
    client: MqttClient,
    connect: Connect,
    tell: UnboundedSender<Message>,
    messages: UnboundedReceiver<Message>,
}

fn qos(qos: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

impl Mqtt5 {
    async fn open(&self, again: bool) -> bool {
        let Connect { id, port, version, expiry, will } = &self.connect;
        let version = if *version == Version::V5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut options = ConnectOptions::new(id)
            .with_keep_alive(Duration::from_secs(30))
            .with_protocol_version(version)
            .with_automatic_reconnect(false)
            .with_resume_existing_session(again)
            .with_clean_start(*expiry == 0);
        if version == ProtocolVersion::V5 {
            options = options.with_session_expiry_interval(*expiry);
        }
        if let Some(will) = will {
            let message = WillMessage::new(&will.topic, will.text.as_bytes());
            options = options.with_will(message.with_qos(qos(will.qos)).with_retain(will.retain));
        }
        let address = format!("mqtt://127.0.0.1:{port}");
        let connected = soon("the CONNACK", self.client.connect_with_options(&address, options)).await;
        connected.unwrap().session_present
    }
}

impl Peer for Mqtt5 {
    async fn connect(connect: &Connect) -> (Self, bool) {
        let (tell, messages) = unbounded_channel();
        let client = MqttClient::new(&connect.id);
        let peer = Self { client, connect: connect.clone(), tell, messages };
        let present = peer.open(false).await;
        (peer, present)
    }

    async fn subscribe(&mut self, filter: &str, level: u8) -> u8 {
        let tell = self.tell.clone();
        let take = move |message: mqtt5::Message| {
            let text = String::from_utf8(message.payload).unwrap();
            // The test may be over.
            let _ = tell.send(Message {
                topic: message.topic,
                text,
                qos: message.qos as u8,
                retain: message.retain,
            });
        };
        let options = SubscribeOptions { qos: qos(level), ..SubscribeOptions::default() };
        let granted = soon("the SUBACK", self.client.subscribe_with_options(filter, options, take)).await;
        granted.unwrap().1 as u8
    }

    async fn publish(&mut self, message: &Message) -> bool {
        let options =
            PublishOptions { qos: qos(message.qos), retain: message.retain, ..PublishOptions::default() };
        let text = message.text.as_bytes();
        soon("the acknowledgement", self.client.publish_with_options(&message.topic, text, options))
            .await
            .is_ok()
    }

    async fn message(&mut self) -> Message {
        soon("a message", self.messages.recv()).await.unwrap()
    }

    async fn cut(&mut self) {
        self.client.disconnect_abnormally().await.unwrap();
    }

    async fn reconnect(&mut self) -> bool {
        self.open(true).await
    }

    async fn leave(self) {
        self.client.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn mqtt5_in_3_1_1_and_5() {
    for shards in [1, 3] {
        let broker = Broker::bugle(shards).await;
        for version in [Version::V311, Version::V5] {
            suite::<Mqtt5>(&broker, version).await;
        }
    }
}

#[tokio::test]
async fn mqtt5_with_mosquitto_for_comparison() {
    let broker = Broker::mosquitto().await;
    for version in [Version::V311, Version::V5] {
        suite::<Mqtt5>(&broker, version).await;
    }
}
