//! Bridges that aren't let in, or let nobody in: TLS, passwords, rules, and configurations that are no good.

use bugle_tests::{
    Authority, Broker, Certificate, Program, Scratch, Setup, bugle_program, mosquitto_pub, soon,
};

use super::{bridge, bridged, failures, messages};

const OUT: &str = "pattern = 'out'\ndirection = 'out'\nqos = 1";

fn files(certificate: Certificate) -> [String; 2] {
    [certificate.certificate, certificate.key].map(|path| path.display().to_string())
}

#[tokio::test]
async fn tls_to_mosquitto_with_its_authority_and_a_certificate_of_ours() {
    let authority = Authority::new();
    let ca = authority.pem().display().to_string();
    let [certificate, key] = files(authority.sign("both", &["localhost"]));
    let lines = format!(
        "allow_anonymous true\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true"
    );
    // Mosquitto's port answers to TCP all the same, which is what is waited for.
    let far = Broker::mosquitto(&lines).await;
    let tls = format!(
        "[bridge.tls]\nca = '{ca}'\ncertificate = '{certificate}'\nkey = '{key}'\nserver_name = 'localhost'"
    );
    let gateway = bridged(&bridge(&far, &tls, &[OUT])).await;
    mosquitto_pub(&gateway, "5", "pub", "out", "x", &[]).await.expect(0);
    gateway.wait_metric(&messages("far", "out"), |count| count == 1).await;
}

#[tokio::test]
async fn tls_to_mosquitto_with_another_authority_or_name_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.pem().display().to_string();
    let [certificate, key] = files(authority.sign("far", &["localhost"]));
    let lines = format!("allow_anonymous true\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}");
    let far = Broker::mosquitto(&lines).await;
    for tls in [
        format!("[bridge.tls]\nca = '{}'\nserver_name = 'localhost'", other.pem().display()),
        format!("[bridge.tls]\nca = '{ca}'\nserver_name = 'elsewhere.example'"),
        "[bridge.tls]\nserver_name = 'localhost'".to_owned(),
    ] {
        let gateway = Setup::shards(1).config(&bridge(&far, &tls, &[OUT])).start().await;
        gateway.wait_metric(&failures("far", "tls"), |count| count >= 2).await;
        let (status, health) = gateway.get("/healthz").await;
        assert!(status.contains("200") && health.contains("\"status\":\"ok\""), "{status} {health}");
        assert!(health.contains("invalid peer certificate"), "{health}");
        assert_eq!(gateway.metric("bugle_bridge_connected{bridge=\"far\"}").await, 0);
        assert_eq!(gateway.seen().matches("not connected").count(), 1, "said once: {}", gateway.seen());
    }
}

#[tokio::test]
async fn a_password_that_mosquitto_refuses_is_told_and_tried_again() {
    let scratch = Scratch::new();
    let passwords = scratch.path("passwords").display().to_string();
    let arguments = ["-b", "-c", &passwords, "site", "right"];
    Program::run("mosquitto_passwd", &arguments, b"").await.expect(0);
    let far = Broker::mosquitto(&format!("allow_anonymous false\npassword_file {passwords}")).await;
    for (version, word) in [("3.1.1", "NotAuthorized"), ("5", "NotAuthorized")] {
        let wrong = format!("mqtt = '{version}'\nusername = 'site'\npassword = 'wrong'");
        let gateway = Setup::shards(1).config(&bridge(&far, &wrong, &[OUT])).start().await;
        gateway.wait_metric(&failures("far", "refused"), |count| count >= 2).await;
        let seen = gateway.seen();
        assert!(seen.contains(word) && seen.contains("Check client_id, username and password"), "{seen}");
        let file = scratch.write("password", "right\n");
        let right = format!("mqtt = '{version}'\nusername = 'site'\npassword_file = '{file}'");
        let gateway = bridged(&bridge(&far, &right, &[OUT])).await;
        assert_eq!(gateway.metric(&failures("far", "refused")).await, 0);
    }
}

#[tokio::test]
async fn credentials_and_rules_hold_for_the_bridge_to_mosquitto() {
    let far = Broker::mosquitto("allow_anonymous true").await;
    let config = "rules_default = 'allow'\n[[credential]]\nid = 'app'\nsecret = 'open'\n\
                  [[rule]]\neffect = 'deny'\nclients = ['bridge.*']\nactions = ['subscribe']\ntopics = ['secret/#']\n\
                  [[rule]]\neffect = 'deny'\nclients = ['bridge.*']\nactions = ['publish']\ntopics = ['in/private']\n";
    let topics = [
        "pattern = 'secret/a'\ndirection = 'out'\nqos = 1",
        OUT,
        "pattern = 'in/#'\ndirection = 'in'\nqos = 1",
    ];
    let gateway = bridged(&format!("{config}{}", bridge(&far, "", &topics))).await;
    let refused = "bugle_bridge_subscriptions_refused_total{bridge=\"far\",direction=\"out\"}";
    // Once when it had its session, and again when it was connected.
    gateway.wait_metric(refused, |count| count >= 1).await;
    assert!(gateway.seen().contains("secret/a"), "{}", gateway.seen());
    let login = ["-u", "app", "-P", "open"];
    for topic in ["secret/a", "out"] {
        mosquitto_pub(&gateway, "5", "app", topic, "x", &login).await.expect(0);
    }
    gateway.wait_metric(&messages("far", "out"), |count| count == 1).await;
    for topic in ["in/private", "in/public"] {
        mosquitto_pub(&far, "5", "pub", topic, "x", &[]).await.expect(0);
    }
    gateway.wait_metric(&messages("far", "in"), |count| count == 1).await;
    gateway.wait_metric(&super::dropped("far", "in", "refused"), |count| count == 1).await;
}

#[tokio::test]
async fn a_version_that_rumqttd_has_on_another_port_is_not_understood() {
    let (_far, port) = Broker::rumqttd().await;
    let gateway = Setup::shards(1).config(&bridge(&port, "mqtt = '5'", &[OUT])).start().await;
    let failed = async || {
        let mut count = 0;
        for reason in ["refused", "protocol", "lost", "timeout"] {
            count += gateway.metric(&failures("far", reason)).await;
        }
        count
    };
    while soon("a failure", failed()).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.metric("bugle_bridge_connected{bridge=\"far\"}").await, 0);
}

#[tokio::test]
async fn a_bridge_that_is_no_good_stops_the_start() {
    let scratch = Scratch::new();
    for (text, expected) in [
        ("[[bridge]]\nname = 'a'\naddress = 'b:1'\nclient_id = 'c'\nqoss = 1", "unknown field `qoss`"),
        (
            "[[bridge]]\nname = 'a'\naddress = 'b:1'\nclient_id = 'c'\nusrname = 'u'",
            "did you mean 'username'?",
        ),
        (
            "[[bridge]]\nname = 'a'\naddress = 'b'\nclient_id = 'c'",
            "the [[bridge]] \"a\" has the address \"b\"",
        ),
        (
            "[[bridge]]\nname = 'a'\naddress = 'b:1'\nclient_id = 'c'\n[[bridge.topic]]\npattern = 'sig/#'\ndirection = 'in'",
            "are signals",
        ),
    ] {
        let file = scratch.write("bugle.toml", text);
        let finished = Program::run(bugle_program(), &["serve", "--config", &file], b"").await.expect(1);
        assert!(finished.err.contains(expected), "{finished:?}");
    }
}
