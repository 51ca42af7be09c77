//! Rules and credentials.

use bugle_core::model::Reason;

use crate::gateway::{Kind, Options, Outcome, SendSpec, Will, rules};
use crate::stage::{Run, Stage};

pub fn rules_send(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["send"], "clients": ["app"], "groups": ["g"]},
        {"effect": "deny", "actions": ["send"], "clients": ["app"], "to": ["r1"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    for line in ["g/g?receipt=each", "g/g?only=r1", "g/g?except=r1", "c/r1"] {
        stage.refused(app, line, "NOT_AUTHORIZED");
    }
    assert_eq!(stage.gateway.refused(Reason::NotAuthorized), 4);
    assert_eq!(stage.gateway.receipts(app), []);
    stage.accepted(app, "c/r2", "allowed");
    stage.accepted(r2, "c/r1", "others may");
    assert_eq!([r1, r2].map(|who| stage.gateway.texts(who).concat()), ["others may", "allowed"]);
}

pub fn rules_receive(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["receive"], "clients": ["r1"], "groups": ["g"]},
        {"effect": "deny", "actions": ["receive"], "clients": ["r2"], "to": ["app"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), "r1=DENIED r2=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "only"), "r1=DENIED");
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "one"), "r1=DELIVERED");
    assert_eq!(stage.receipt(app, "c/r2?receipt=each", "one"), "r2=DENIED");
    stage.accepted(app, "g/g", "no receipt");
    assert_eq!(stage.gateway.texts(r1), ["one"]);
    assert_eq!(stage.gateway.texts(r2), ["all", "no receipt"]);
}

pub fn rules_join(run: Run) {
    let json =
        r#"{"rule": [{"effect": "deny", "actions": ["join"], "clients": ["r*"], "groups": ["private*"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let r1 = stage.member("r1");
    assert_eq!(stage.gateway.join(app, "private"), Outcome::Accepted);
    let told = if run.to == Kind::Mqtt4 { "80" } else { "NOT_AUTHORIZED" };
    let refused = stage.gateway.join(r1, "private");
    assert!(refused.name() == told || refused.name() == "NOT_AUTHORIZED", "{refused:?}");
    let line = "g/private?only=r1,app&receipt=each";
    assert_eq!(stage.receipt(app, line, "on"), "app=DELIVERED r1=NOT_MEMBER");
    assert_eq!(stage.receipt(app, "g/private?receipt=each", "on"), "");
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

pub fn rules_connect(run: Run) {
    let json = r#"{"rule": [{"effect": "deny", "actions": ["connect"], "clients": ["guest-*"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let refused = stage.gateway.try_connect(run.to, "guest-1", stage.options());
    assert_eq!(refused, Err("NOT_AUTHORIZED".into()));
    assert_eq!(stage.gateway.refused(Reason::NotAuthorized), 1);
    let app = stage.app();
    assert_eq!(stage.receipt(app, "c/guest-1?receipt=each", "on"), "guest-1=OFFLINE");
}

pub fn rules_urgent(run: Run) {
    let json =
        r#"{"rule": [{"effect": "deny", "actions": ["urgent"], "clients": ["app"], "groups": ["g"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let app = stage.app();
    let r1 = stage.member("r1");
    stage.refused(app, "g/g?urgent=1", "NOT_AUTHORIZED");
    stage.accepted(app, "g/g", "calm");
    stage.accepted(app, "c/r1?urgent=1", "urgent");
    assert_eq!(stage.gateway.texts(r1), ["calm", "urgent"]);
}

pub fn rules_plain(run: Run) {
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["publish"], "topics": ["locked/#"]},
        {"effect": "deny", "actions": ["subscribe"], "topics": ["secret/#"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let (app, r1) = (stage.app(), stage.stranger("r1"));
    assert_eq!(stage.gateway.subscribe(r1, "locked/#", 1), Outcome::Accepted);
    assert!(matches!(stage.gateway.subscribe(r1, "secret/door", 1), Outcome::Refused(..)));
    assert_eq!(stage.gateway.publish(app, "locked/door", b"open", false).name(), "NOT_AUTHORIZED");
    assert_eq!(stage.gateway.publish(app, "secret/door", b"open", false), Outcome::Accepted);
    assert_eq!(stage.gateway.texts(r1), [""; 0]);
}

/// Clients of the tests prove themselves with their id as secret.
pub fn credentials(run: Run) {
    let secrets = ["app", "r1"].map(|id| (id.to_owned(), id.as_bytes().to_vec()));
    let wrong = ("wrong".to_owned(), b"something else".to_vec());
    let mut stage = Stage::new(run, |setup| setup.secrets = secrets.into_iter().chain([wrong]).collect());
    let (app, _) = (stage.app(), stage.member("r1"));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r1=DELIVERED");
    for id in ["wrong", "unknown"] {
        let refused = stage.gateway.try_connect(run.to, id, stage.options());
        assert_eq!(refused, Err("NOT_AUTHENTICATED".into()), "{id}");
    }
    assert_eq!(stage.gateway.refused(Reason::NotAuthenticated), 2);
}

/// A client is judged by its user and roles wherever it is judged: connecting, joining, sending, receiving, and when
/// its will fires after it has gone.
pub fn roles(run: Run) {
    let json = r#"{"default": "deny", "rule": [
        {"effect": "allow", "actions": ["connect"], "roles": ["staff"]},
        {"effect": "allow", "actions": ["join"], "users": ["r*"]},
        {"effect": "allow", "actions": ["send", "publish"], "roles": ["operator"]},
        {"effect": "allow", "actions": ["receive"], "roles": ["listener"]}]}"#;
    let mut stage = Stage::new(run, |setup| {
        setup.rules = rules(json);
        setup.secrets = ["app", "r1", "r2", "r3"].map(|id| (id.to_owned(), id.as_bytes().to_vec())).into();
        setup.roles = vec![("app", "staff"), ("app", "operator"), ("r1", "staff"), ("r1", "listener")];
        setup.roles.push(("r2", "staff"));
    });
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    let refused = stage.gateway.try_connect(run.to, "r3", stage.options());
    assert_eq!(refused, Err("NOT_AUTHORIZED".into()), "it has no role");
    let will = Some(Will::Send(SendSpec::new("g/g", "will")));
    let app = stage.gateway.connect(run.from, "app", Options { will, ..stage.options() });
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r1=DELIVERED r2=DENIED");
    assert!(matches!(stage.gateway.join(app, "g"), Outcome::Refused(..)), "it is no r*");
    stage.gateway.lose(app);
    assert_eq!(stage.gateway.texts(r1), ["on", "will"]);
    assert_eq!(stage.gateway.texts(r2), [""; 0]);
}

/// The first role of a client that has limits says what it may have; others have what all have.
pub fn role_limits(run: Run) {
    let json = |rate: u32| {
        format!(
            r#"{{"role": [{{"name": "none", "clients": ["*"]}},
                {{"name": "small", "clients": ["app"], "limits": {{"signals_per_second": {rate},
                  "payload_bytes": 4, "list_entries": 2, "groups": 1, "subscriptions": 1}}}},
                {{"name": "large", "clients": ["*"], "limits": {{"groups": 3}}}}]}}"#
        )
    };
    let mut stage = Stage::new(run, |setup| setup.rules = rules(&json(100)));
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    stage.accepted(app, "g/g", "1234");
    assert_eq!(stage.gateway.send(app, &SendSpec::new("g/g", "12345")).name(), "TOO_LARGE");
    for line in ["g/g?only=r1,r2,r3", "g/g?except=r1,r2,r3"] {
        assert_eq!(stage.gateway.send(app, &SendSpec::new(line, "on")).name(), "LIST_TOO_LONG", "{line}");
    }
    stage.accepted(app, "g/g?only=r1,r2", "two");
    stage.accepted(r1, "g/g?only=r1,r2,r3", "longer");
    let full = |outcome: Outcome| assert!(matches!(outcome, Outcome::Refused(..)), "{outcome:?}");
    assert_eq!(stage.gateway.join(app, "h"), Outcome::Accepted);
    full(stage.gateway.join(app, "i"));
    assert_eq!(stage.gateway.subscribe(app, "a", 1), Outcome::Accepted);
    full(stage.gateway.subscribe(app, "b", 1));
    for group in ["h", "i"] {
        assert_eq!(stage.gateway.join(r1, group), Outcome::Accepted);
    }
    full(stage.gateway.join(r1, "j"));
    // A new rate holds at the next message, with what is left in the bucket.
    stage.gateway.reload(&json(1));
    stage.gateway.advance(10_000);
    stage.gateway.texts(r2);
    stage.accepted(app, "g/g", "one");
    let (first, parked) = (SendSpec::new("g/g", "two"), run.from == Kind::Mqtt4);
    if parked {
        let _ = stage.gateway.start_send(app, &first);
        stage.gateway.pump();
    } else {
        assert_eq!(stage.gateway.send(app, &first), Outcome::Refused("RATE_LIMITED".into(), 1000));
    }
    assert_eq!(stage.gateway.texts(r2).len(), 1);
    stage.gateway.advance(1000);
    assert_eq!(stage.gateway.texts(r2).len(), usize::from(parked));
    stage.accepted(r1, "g/g", "others are as fast as ever");
    stage.accepted(r1, "g/g", "others are as fast as ever");
}

pub fn reload_sending(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    // Without a receipt twice, so that the way is known by heart.
    for text in ["one", "two"] {
        stage.accepted(app, "g/g", text);
        stage.accepted(app, "c/r1", text);
    }
    stage.gateway.reload(
        r#"{"rule": [{"effect": "deny", "actions": ["receive"], "clients": ["r1"], "groups": ["g"]}]}"#,
    );
    stage.accepted(app, "g/g", "three");
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "four"), "r1=DENIED r2=DELIVERED");
    stage.gateway.reload(r#"{"rule": [{"effect": "deny", "actions": ["send"], "to": ["r1"]}]}"#);
    stage.accepted(app, "g/g", "five");
    stage.refused(app, "c/r1", "NOT_AUTHORIZED");
    stage.gateway.reload("{}");
    stage.accepted(app, "c/r1", "six");
    assert_eq!(stage.gateway.texts(r1), ["one", "one", "two", "two", "five", "six"]);
    assert_eq!(stage.gateway.texts(r2), ["one", "two", "three", "four", "five"]);
    for who in [app, r1, r2] {
        assert_eq!(stage.gateway.ended(who), [""; 0]);
    }
}

pub fn reload_memberships(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    for filter in ["secret/#", "open/#"] {
        assert_eq!(stage.gateway.subscribe(r1, filter, 1), Outcome::Accepted);
    }
    assert_eq!(stage.gateway.join(r1, "h"), Outcome::Accepted);
    let json = r#"{"rule": [
        {"effect": "deny", "actions": ["join"], "clients": ["r1"], "groups": ["g"]},
        {"effect": "deny", "actions": ["subscribe"], "topics": ["secret/#"]}]}"#;
    stage.gateway.reload(json);
    let mut ended = stage.gateway.ended(r1);
    ended.sort();
    assert_eq!((ended, stage.gateway.ended(r2)), (vec!["g".to_owned(), "secret/#".to_owned()], Vec::new()));
    assert_eq!(stage.receipt(app, "g/g?only=r1,r2&receipt=each", "g"), "r1=NOT_MEMBER r2=DELIVERED");
    assert_eq!(stage.receipt(app, "g/h?receipt=each", "h"), "r1=DELIVERED");
    for topic in ["secret/a", "open/a"] {
        assert_eq!(stage.gateway.publish(app, topic, topic.as_bytes(), false), Outcome::Accepted);
    }
    assert_eq!(stage.gateway.texts(r1), ["h", "open/a"]);
    // What ended can begin again once it is allowed.
    assert!(matches!(stage.gateway.join(r1, "g"), Outcome::Refused(..)));
    stage.gateway.reload("{}");
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    assert_eq!(stage.gateway.subscribe(r1, "secret/#", 1), Outcome::Accepted);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "again"), "r1=DELIVERED r2=DELIVERED");
    assert_eq!(stage.gateway.publish(app, "secret/a", b"known", false), Outcome::Accepted);
    assert_eq!(stage.gateway.texts(r1), ["again", "known"]);
}

pub fn reload_connections(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    stage.gateway.reload(r#"{"rule": [{"effect": "deny", "actions": ["connect"], "clients": ["r1"]}]}"#);
    let why = if run.to == Kind::Mqtt4 { "" } else { "NOT_AUTHORIZED" };
    assert_eq!((stage.gateway.end(r1), stage.gateway.is_open(r1)), (Some(why), false));
    assert!(stage.gateway.is_open(app) && stage.gateway.is_open(r2));
    let line = "g/g?only=r1,r2&receipt=each";
    assert_eq!(stage.receipt(app, line, "on"), "r1=NOT_MEMBER r2=DELIVERED");
    assert_eq!(stage.gateway.try_connect(run.to, "r1", stage.options()), Err("NOT_AUTHORIZED".into()));
    stage.gateway.reload("{}");
    assert!(stage.gateway.try_connect(run.to, "r1", stage.options()).is_ok());
}

pub fn reload_provisioned(run: Run) {
    let mut stage = Stage::open(run);
    let (app, r1) = (stage.app(), stage.stranger("r1"));
    stage.gateway.reload(r#"{"group": [{"name": "g", "members": ["r1", "r2"]}]}"#);
    let is_device = !run.to.is_mqtt();
    let r1_is = if is_device { "DELIVERED" } else { "OFFLINE" };
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "in"), format!("r1={r1_is} r2=OFFLINE"));
    stage.gateway.reload("{}");
    assert_eq!(stage.receipt(app, "g/g?only=r1,r2&receipt=each", "out"), "r1=NOT_MEMBER r2=NOT_MEMBER");
    let (texts, ended) = (stage.gateway.texts(r1), stage.gateway.ended(r1));
    let expected: &[&str] = if is_device { &["in"] } else { &[] };
    assert_eq!((texts.len(), ended.len()), (expected.len(), expected.len()), "{texts:?} {ended:?}");
}

pub fn reload_lists(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    stage.gateway.reload(r#"{"group": [{"name": "g", "allow": ["r1", "app"], "deny": ["app"]}]}"#);
    assert_eq!((stage.gateway.ended(r1), stage.gateway.ended(r2)), (Vec::new(), vec!["g".to_owned()]));
    stage.refused(app, "g/g", "NOT_AUTHORIZED");
    stage.refused(r2, "g/g", "NOT_AUTHORIZED");
    assert_eq!(stage.receipt(r1, "g/g?echo=1&receipt=each", "own"), "r1=DELIVERED");
    stage.gateway.reload(r#"{"group": [{"name": "g", "deny": ["r2"]}]}"#);
    stage.accepted(app, "g/g", "on");
    assert!(matches!(stage.gateway.join(r2, "g"), Outcome::Refused(..)));
    assert_eq!(stage.gateway.texts(r1), ["own", "on"]);
}

/// Always members: a device gets it without joining, an MQTT client once it subscribes, and who isn't there is
/// OFFLINE and never NOT_MEMBER.
pub fn s2_provisioned(run: Run) {
    let json = r#"{"group": [{"name": "g", "members": ["r1", "r2", "r3"]}]}"#;
    let mut stage = Stage::new(run, |setup| setup.rules = rules(json));
    let (app, r1, r2) = (stage.app(), stage.stranger("r1"), stage.member("r2"));
    let gets_it = !run.to.is_mqtt();
    let unjoined = if gets_it { "DELIVERED" } else { "OFFLINE" };
    let all = format!("r1={unjoined} r2=DELIVERED r3=OFFLINE");
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "all"), all);
    let only = "g/g?only=r1,r3,r4&receipt=each";
    assert_eq!(stage.receipt(app, only, "only"), format!("r1={unjoined} r3=OFFLINE r4=NOT_MEMBER"));
    let except = "g/g?except=r1,r3&receipt=each";
    assert_eq!(stage.receipt(app, except, "except"), "r2=DELIVERED");
    stage.gateway.lose(r1);
    let gone = "r1=OFFLINE r2=DELIVERED r3=OFFLINE";
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "gone"), gone);
    assert_eq!(stage.gateway.texts(r2), ["all", "except", "gone"]);
}
