//! An MQTT 5 client as microcontrollers have them, minimq, on a board of its own.

use std::collections::VecDeque;

use bugle_tests::{Message, soon};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use minimq::{
    Buffers, ConfigBuilder, Connection, InboundPublish, Property, Publication, QoS, Session,
    SubscriptionOptions, TopicFilter,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::board::GATEWAY;

/// A connected minimq, and what it got.
pub struct MinimqApp {
    id: &'static str,
    publish: UnboundedSender<Publish>,
    inbound: UnboundedReceiver<Message>,
    messages: VecDeque<Message>,
}

struct Publish {
    topic: String,
    payload: Vec<u8>,
    acknowledged: oneshot::Sender<()>,
}

impl MinimqApp {
    /// Connects, subscribes to its notices and its inbox, and joins a group.
    pub async fn member(stack: Stack<'static>, id: &'static str, group: &str) -> Self {
        let (publish, requests) = unbounded_channel();
        let (tell, inbound) = unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let topics = [format!("sig/r/{id}"), format!("sig/c/{id}"), format!("sig/g/{group}")];
        spawn_local(run(stack, id, topics, ready, requests, tell));
        soon("minimq's subscriptions", is_ready).await.unwrap();
        Self { id, publish, inbound, messages: VecDeque::new() }
    }

    /// Publishes with QoS 1, and waits for the acknowledgement.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let (acknowledged, is_acknowledged) = oneshot::channel();
        let request = Publish { topic: topic.to_owned(), payload: payload.into(), acknowledged };
        assert!(self.publish.send(request).is_ok(), "minimq has ended");
        soon("minimq's PUBACK", is_acknowledged).await.unwrap();
    }

    /// Publishes, and gives each recipient's status from the receipt.
    pub async fn send(&mut self, topic: &str, payload: &str) -> serde_json::Value {
        self.publish(topic, payload).await;
        let notice = self.message(&format!("sig/r/{}", self.id)).await;
        let notice: serde_json::Value = serde_json::from_str(&notice.text).unwrap();
        assert_eq!(notice["type"], "receipt", "{notice}");
        notice["statuses"].clone()
    }

    /// The next message on `topic`; those on other topics are kept.
    pub async fn message(&mut self, topic: &str) -> Message {
        loop {
            if let Some(index) = self.messages.iter().position(|message| message.topic == topic) {
                return self.messages.remove(index).unwrap();
            }
            let message = soon(topic, self.inbound.recv()).await;
            self.messages.push_back(message.expect("minimq goes on"));
        }
    }
}

/// Serves one connection, and panics when it ends.
async fn run(
    stack: Stack<'static>,
    id: &str,
    topics: [String; 3],
    ready: oneshot::Sender<()>,
    mut requests: UnboundedReceiver<Publish>,
    tell: UnboundedSender<Message>,
) {
    let (mut receive, mut transmit) = ([0; 4096], [0; 2048]);
    let mut socket = TcpSocket::new(stack, &mut receive, &mut transmit);
    socket.set_nagle_enabled(false);
    socket.connect(GATEWAY).await.unwrap();
    let (mut inbound, mut outbound) = ([0; 9_216], [0; 10_240]);
    let buffers = Buffers::new(&mut inbound, &mut outbound);
    let mut session = Session::new(ConfigBuilder::new(buffers).client_id(id).unwrap());
    let mut connection = session.connect(socket).await.unwrap();
    let options = SubscriptionOptions::default().maximum_qos(QoS::AtLeastOnce);
    let filters: Vec<_> = topics.iter().map(|topic| TopicFilter::new(topic).options(options)).collect();
    let subscribed = connection.subscribe(&filters, &[]).await.unwrap();
    while connection.is_pending(&subscribed) {
        poll(&mut connection, &tell).await;
    }
    ready.send(()).unwrap();
    loop {
        // Both are cancel-safe.
        let request = tokio::select! {
            request = requests.recv() => request,
            () = poll(&mut connection, &tell) => continue,
        };
        let Some(request) = request else { return };
        let publication = Publication::bytes(&request.topic, &request.payload).qos(QoS::AtLeastOnce);
        let published = connection.publish(publication).await.unwrap().unwrap();
        while connection.is_pending(&published) {
            poll(&mut connection, &tell).await;
        }
        // Whoever asked may wait no more.
        let _ = request.acknowledged.send(());
    }
}

async fn poll(connection: &mut Connection<'_, '_, TcpSocket<'_>>, tell: &UnboundedSender<Message>) {
    if let Some(publish) = connection.poll().await.unwrap() {
        // Whoever listened may be gone.
        let _ = tell.send(owned(&publish));
    }
}

fn owned(publish: &InboundPublish<'_>) -> Message {
    let property = |property| match property {
        Ok(Property::UserProperty(key, value)) => Some((key.to_owned(), value.to_owned())),
        _ => None,
    };
    Message {
        topic: publish.topic().to_owned(),
        text: String::from_utf8_lossy(publish.payload()).into_owned(),
        retain: publish.retained(),
        properties: publish.properties().iter().filter_map(property).collect(),
    }
}
