//! What a broker has to do for a client in Rust, whichever it is.

use bugle_tests::Version;
use serde_json::{Value, json};

use crate::broker::Broker;

/// What a client connects with.
#[derive(Clone, Debug)]
pub struct Connect {
    pub port: u16,
    pub version: Version,
    pub id: String,
    /// Seconds for which the session outlives the connection; 0 for a clean one.
    pub expiry: u32,
    pub will: Option<Message>,
}

/// A message, as it is sent or as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub text: String,
    pub qos: u8,
    pub retain: bool,
}

impl Message {
    fn new(topic: &str, text: &str, qos: u8) -> Self {
        Self { topic: topic.to_owned(), text: text.to_owned(), qos, retain: false }
    }

    fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

/// A connected client, whose every step waits for the broker's answer.
pub trait Peer: Sized {
    /// Connects; also whether the broker had a session.
    async fn connect(connect: &Connect) -> (Self, bool);
    /// Gives the granted QoS.
    async fn subscribe(&mut self, filter: &str, qos: u8) -> u8;
    /// Whether it was accepted.
    async fn publish(&mut self, message: &Message) -> bool;
    async fn message(&mut self) -> Message;
    /// Ends the connection without a DISCONNECT.
    async fn cut(&mut self);
    /// Connects again after a cut; whether the broker had the session.
    async fn reconnect(&mut self) -> bool;
    async fn leave(self);
}

/// All cases that the broker has.
pub async fn suite<P: Peer>(broker: &Broker, version: Version) {
    let stage = Stage { port: broker.port(), version, client: std::marker::PhantomData::<P> };
    stage.qos().await;
    stage.will().await;
    stage.retained().await;
    stage.resume().await;
    if version == Version::V5 {
        stage.shared().await;
    }
    if broker.is_bugle() {
        stage.signals().await;
    }
}

struct Stage<P> {
    port: u16,
    version: Version,
    client: std::marker::PhantomData<P>,
}

impl<P: Peer> Stage<P> {
    fn options(&self, id: &str) -> Connect {
        Connect { port: self.port, version: self.version, id: id.to_owned(), expiry: 0, will: None }
    }

    async fn client(&self, id: &str) -> P {
        P::connect(&self.options(id)).await.0
    }

    /// Each QoS of a publish to each of a subscription: the lower one holds, in order.
    async fn qos(&self) {
        let mut publisher = self.client("publisher").await;
        for granted in 0..=2 {
            let mut subscriber = self.client("subscriber").await;
            assert_eq!(subscriber.subscribe("qos/#", granted).await, granted);
            for sent in 0..=2 {
                for text in ["", "x", &"y".repeat(5000)] {
                    let message = Message::new("qos/topic", text, sent);
                    assert!(publisher.publish(&message).await);
                    let wanted = Message { qos: sent.min(granted), ..message };
                    assert_eq!(subscriber.message().await, wanted);
                }
            }
            for number in 0..100 {
                publisher.publish(&Message::new("qos/many", &number.to_string(), granted)).await;
            }
            for number in 0..100 {
                assert_eq!(subscriber.message().await.text, number.to_string());
            }
            subscriber.leave().await;
        }
        publisher.leave().await;
    }

    /// Published when the connection is lost, not when the client leaves.
    async fn will(&self) {
        let mut witness = self.client("witness").await;
        witness.subscribe("will/#", 2).await;
        for qos in 0..=2 {
            let will = Message::new("will/lost", "gone", qos);
            let with_will = Connect { will: Some(will.clone()), ..self.options("mortal") };
            P::connect(&with_will).await.0.cut().await;
            assert_eq!(witness.message().await, will);
            P::connect(&with_will).await.0.leave().await;
            let end = Message::new("will/end", "end", qos);
            witness.publish(&end).await;
            assert_eq!(witness.message().await, end, "who leaves has no will");
        }
        witness.leave().await;
    }

    /// Kept for later subscribers, and cleared by an empty one.
    async fn retained(&self) {
        let mut publisher = self.client("publisher").await;
        for qos in 0..=2 {
            let message = Message::new("retained/lamp", &format!("at {qos}"), qos).retained();
            publisher.publish(&message).await;
            // At QoS 0 nothing says that it is there: the next of the same client comes after it.
            publisher.publish(&Message::new("fence", "", 1)).await;
            let mut late = self.client("late").await;
            late.subscribe("retained/+", 2).await;
            assert_eq!(late.message().await, message);
            publisher.publish(&message).await;
            assert_eq!(late.message().await, Message { retain: false, ..message }, "for those present");
            late.leave().await;
        }
        publisher.publish(&Message::new("retained/lamp", "", 1).retained()).await;
        let mut late = self.client("late").await;
        late.subscribe("retained/#", 1).await;
        publisher.publish(&Message::new("retained/end", "end", 1)).await;
        assert_eq!(late.message().await.text, "end", "what was cleared is gone");
        late.leave().await;
        publisher.leave().await;
    }

    /// A session goes on after a cut: its subscriptions, and what came for it, in order and once.
    async fn resume(&self) {
        let mut publisher = self.client("publisher").await;
        let (mut sleeper, present) = P::connect(&Connect { expiry: 60, ..self.options("sleeper") }).await;
        assert!(!present);
        for qos in 1..=2 {
            sleeper.subscribe(&format!("resume/{qos}"), qos).await;
        }
        for _ in 0..2 {
            sleeper.cut().await;
            for number in 0..50 {
                let topic = format!("resume/{}", 1 + number % 2);
                publisher.publish(&Message::new(&topic, &number.to_string(), 2)).await;
            }
            assert!(sleeper.reconnect().await, "the session is there");
            let mut got = Vec::new();
            for _ in 0..50 {
                got.push(sleeper.message().await);
            }
            // So that what it got is acknowledged before it is cut: else it would come again.
            sleeper.publish(&Message::new("fence", "", 2)).await;
            for qos in 1..=2 {
                let of_it: Vec<u8> = got
                    .iter()
                    .filter(|message| message.qos == qos)
                    .map(|message| message.text.parse().unwrap())
                    .collect();
                assert!(of_it.is_sorted() && of_it.len() == 25, "{of_it:?}");
            }
        }
        sleeper.leave().await;
        let (fresh, present) = P::connect(&self.options("sleeper")).await;
        assert!(!present, "a clean start ends the session");
        fresh.leave().await;
        publisher.leave().await;
    }

    /// A shared subscription: each message to one of them.
    async fn shared(&self) {
        let mut publisher = self.client("publisher").await;
        let mut workers = [self.client("worker-1").await, self.client("worker-2").await];
        for worker in &mut workers {
            assert_eq!(worker.subscribe("$share/crew/shared", 1).await, 1);
            worker.subscribe("shared-end", 1).await;
        }
        for number in 0..40 {
            publisher.publish(&Message::new("shared", &number.to_string(), 1)).await;
        }
        publisher.publish(&Message::new("shared-end", "end", 1)).await;
        let mut all = Vec::new();
        for worker in &mut workers {
            let before = all.len();
            loop {
                let text = worker.message().await.text;
                if text == "end" {
                    break;
                }
                all.push(text.parse::<u8>().unwrap());
            }
            assert!(all.len() > before, "both have work");
        }
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
        for client in workers.into_iter().chain([publisher]) {
            client.leave().await;
        }
    }

    /// A group, a receipt, a refusal.
    async fn signals(&self) {
        let mut lamps = Vec::new();
        for number in 1..=3 {
            lamps.push(self.client(&format!("lamp-{number}")).await);
            lamps[number - 1].subscribe("sig/g/floor", 2).await;
        }
        let mut app = self.client("app").await;
        app.subscribe("sig/r/app", 1).await;
        let notice = async |app: &mut P| serde_json::from_str::<Value>(&app.message().await.text).unwrap();
        for (qos, list) in [(1, "only=lamp-1,lamp-2"), (2, "except=lamp-3")] {
            assert!(app.publish(&Message::new(&format!("sig/g/floor?receipt=each&{list}"), "on", qos)).await);
            let statuses = json!({"lamp-1": "DELIVERED", "lamp-2": "DELIVERED"});
            assert_eq!(notice(&mut app).await["statuses"], statuses);
            for lamp in &mut lamps[..2] {
                assert_eq!(lamp.message().await, Message::new("sig/g/floor", "on", qos));
            }
        }
        let refused = !app.publish(&Message::new("sig/g/floor?only=", "on", 1)).await;
        assert_eq!(refused, self.version == Version::V5);
        assert_eq!(notice(&mut app).await["code"], "NO_RECIPIENT");
        app.publish(&Message::new("sig/g/floor?only=lamp-3", "only", 1)).await;
        assert_eq!(lamps[2].message().await.text, "only", "it got nothing before");
        for client in lamps.into_iter().chain([app]) {
            client.leave().await;
        }
    }
}
