//! Mosquitto's clients. What they do with signals is in the black-box tests.

use bugle_tests::Program;

use crate::broker::Broker;

/// Mosquitto's clients of one version, at one broker.
struct Clients {
    port: String,
    version: &'static str,
}

impl Clients {
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let common = ["-h", "127.0.0.1", "-p", &self.port, "-V", self.version];
        common.iter().chain(more).map(|&argument| argument.to_owned()).collect()
    }

    /// A subscriber that prints `got TOPIC|PAYLOAD|QOS|RETAIN`, started but perhaps not yet subscribed.
    fn sub(&self, more: &[&str]) -> Program {
        let mut arguments = ["-oL", "mosquitto_sub"].map(String::from).to_vec();
        arguments.extend(self.arguments(&["-d", "-F", "got %t|%p|%q|%r"]));
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Program::start("stdbuf", &arguments)
    }

    async fn subscribed(&self, more: &[&str]) -> Program {
        let mut program = self.sub(more);
        program.line("Subscribed (mid").await;
        program
    }

    async fn publish(&self, more: &[&str]) {
        Program::run("mosquitto_pub", &self.arguments(more), b"").await.expect(0);
    }

    async fn qos(&self) {
        for granted in ["0", "1", "2"] {
            let mut subscriber = self.subscribed(&["-t", "qos", "-q", granted]).await;
            for sent in ["0", "1", "2"] {
                self.publish(&["-t", "qos", "-q", sent, "-m", "on"]).await;
                let qos = sent.min(granted);
                assert_eq!(got(&mut subscriber).await, format!("qos|on|{qos}|0"));
            }
        }
    }

    async fn will(&self) {
        let mut witness = self.subscribed(&["-t", "will", "-q", "2"]).await;
        let will =
            ["-t", "x", "-i", "mortal", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "2"];
        let mortal = self.subscribed(&will).await;
        mortal.signal("KILL").await;
        assert_eq!(got(&mut witness).await, "will|gone|2|0");
        // It says goodbye at an INT; in MQTT 5 by 0x04, which asks for the will all the same.
        let mortal = self.subscribed(&will).await;
        mortal.signal("INT").await;
        mortal.finish().await.expect(0);
        if self.version == "5" {
            assert_eq!(got(&mut witness).await, "will|gone|2|0");
        }
        self.publish(&["-t", "will", "-m", "end"]).await;
        assert_eq!(got(&mut witness).await, "will|end|0|0");
    }

    async fn retained(&self) {
        self.publish(&["-t", "retained/a", "-r", "-q", "1", "-m", "kept"]).await;
        self.publish(&["-t", "retained/b", "-r", "-q", "2", "-m", "kept, too"]).await;
        let mut late = self.sub(&["-t", "retained/#", "-q", "2"]);
        let mut lines = [got(&mut late).await, got(&mut late).await];
        lines.sort();
        assert_eq!(lines, ["retained/a|kept|1|1", "retained/b|kept, too|2|1"]);
        // One with an empty message, the other by the client's own way to be rid of them.
        self.publish(&["-t", "retained/a", "-r", "-n", "-q", "1"]).await;
        assert_eq!(got(&mut late).await, "retained/a||1|0");
        let mut remover = self.sub(&["-t", "retained/#", "--remove-retained", "-q", "1"]);
        assert_eq!(got(&mut remover).await, "retained/b|kept, too|1|1");
        assert_eq!(got(&mut late).await, "retained/b||1|0");
        let mut later = self.subscribed(&["-t", "retained/#"]).await;
        self.publish(&["-t", "retained/end", "-m", "end"]).await;
        assert_eq!(got(&mut later).await, "retained/end|end|0|0", "all else is gone");
    }

    async fn resume(&self) {
        let mut session = vec!["-i", "sleeper", "-c", "-t", "resume", "-q", "2"];
        if self.version == "5" {
            session.extend(["-x", "60"]);
        }
        self.subscribed(&session).await.signal("KILL").await;
        for number in 0..20 {
            self.publish(&["-t", "resume", "-q", "2", "-m", &number.to_string()]).await;
        }
        let mut sleeper = self.sub(&session);
        for number in 0..20 {
            assert_eq!(got(&mut sleeper).await, format!("resume|{number}|2|0"));
        }
    }
}

async fn got(subscriber: &mut Program) -> String {
    subscriber.line("got ").await.trim_start_matches("got ").to_owned()
}

async fn suite(broker: &Broker) {
    for version in ["311", "5"] {
        let clients = Clients { port: broker.port().to_string(), version };
        clients.qos().await;
        clients.will().await;
        clients.retained().await;
        clients.resume().await;
        // What the next version's sleeper is not to find.
        clients.publish(&["-i", "sleeper", "-t", "x", "-m", "x"]).await;
    }
}

/// 3.1.1 [MQTT-7.0.0-2]: who knows only the standard gets along.
#[tokio::test]
async fn mosquitto_pub_and_sub_in_3_1_1_and_5() {
    for shards in [1, 3] {
        suite(&Broker::bugle(shards).await).await;
    }
}

#[tokio::test]
async fn mosquitto_pub_and_sub_with_mosquitto_for_comparison() {
    suite(&Broker::mosquitto().await).await;
}
