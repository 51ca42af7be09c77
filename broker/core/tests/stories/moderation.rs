//! Kick, mute and ban (S14): asked for by `app`, who has the right, or by an operator; `r1` and others are moderated.

use bugle_core::hub::owner;
use bugle_core::model::{ClientId, GroupName, Moderation, ModerationAct, ModerationRequest, Reason, Refusal};
use bugle_core::store::RecordKind;

use crate::gateway::{Kind, Options, Outcome, SendSpec, Who, Will, rules};
use crate::stage::{Run, Stage};

/// `app` moderates everywhere, `warden` in `g` alone.
const RULES: &str = r#"{"rule": [
    {"effect": "allow", "actions": ["moderate"], "clients": ["app"]},
    {"effect": "allow", "actions": ["moderate"], "clients": ["warden"], "groups": ["g"]}]}"#;

fn stage(run: Run) -> Stage {
    Stage::new(run, |setup| setup.rules = rules(RULES))
}

#[track_caller]
fn moderate(stage: &mut Stage, who: Who, asked: &str) {
    let outcome = stage.gateway.publish(who, &format!("sig/m/{asked}"), b"noise", false);
    assert_eq!(outcome, Outcome::Accepted, "{asked}");
}

#[track_caller]
fn refused(stage: &mut Stage, who: Who, asked: &str, code: &str) {
    let outcome = stage.gateway.publish(who, &format!("sig/m/{asked}"), b"noise", false);
    assert_eq!(outcome.name(), code, "{asked}");
}

fn told(run: Run, code: &'static str) -> &'static str {
    if run.to == Kind::Mqtt4 { "" } else { code }
}

/// What an operator asks for, on the shard that it belongs to.
fn operator(stage: &mut Stage, act: ModerationAct, client: &str, group: Option<&str>) -> Result<(), Refusal> {
    let request = ModerationRequest {
        act,
        client: ClientId::new(client).unwrap(),
        group: group.and_then(GroupName::new),
        seconds: None,
        why: "".into(),
    };
    let now = stage.gateway.now();
    let shard = usize::from(owner(client, stage.run.shards));
    let result = stage.gateway.shards[shard].handle_moderation(&request, "night shift", now);
    stage.gateway.pump();
    result
}

fn in_force(stage: &Stage) -> Vec<Moderation> {
    stage.gateway.shards.iter().flat_map(|shard| shard.moderations()).collect()
}

pub fn s14_mute(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    assert_eq!(stage.gateway.join(app, "g"), Outcome::Accepted);
    let will = Some(Will::Send(SendSpec::new("g/g", "will")));
    let options = Options { will, ..stage.options() };
    let (r1, r2) = (stage.member_with("r1", options), stage.member("r2"));
    // Twice, so that the way is known by heart.
    for text in ["one", "two"] {
        stage.accepted(r1, "g/g", text);
    }
    moderate(&mut stage, app, "mute/r1?group=g&for=60");
    stage.refused(r1, "g/g", "MUTED");
    stage.refused(r1, "g/g?only=app&receipt=each", "MUTED");
    stage.accepted(r1, "c/app", "elsewhere");
    stage.accepted(r1, "g/h", "elsewhere");
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "heard"), "r1=DELIVERED r2=DELIVERED");
    stage.gateway.advance(59_000);
    stage.refused(r1, "g/g", "MUTED");
    stage.gateway.advance(1_000);
    stage.accepted(r1, "g/g", "again");
    assert_eq!(in_force(&stage), []);
    moderate(&mut stage, app, "mute/r1");
    for line in ["g/g", "g/h", "c/app"] {
        stage.refused(r1, line, "MUTED");
    }
    assert!(stage.gateway.refused(Reason::Muted) > 0);
    // It is the identity's, whatever connects; and wills are sends.
    stage.gateway.lose(r1);
    let r1 = stage.member("r1");
    stage.refused(r1, "g/g", "MUTED");
    moderate(&mut stage, app, "unmute/r1?group=g");
    stage.refused(r1, "g/g", "MUTED");
    moderate(&mut stage, app, "unmute/r1");
    stage.accepted(r1, "g/g", "free");
    assert_eq!(stage.gateway.texts(r2), ["one", "two", "heard", "again", "free"]);
}

pub fn s14_kick(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    moderate(&mut stage, app, "kick/r1?group=g");
    assert_eq!((stage.gateway.ended(r1), stage.gateway.ended(r2)), (vec!["g".to_owned()], Vec::new()));
    assert_eq!(stage.receipt(app, "g/g?only=r1,r2&receipt=each", "on"), "r1=NOT_MEMBER r2=DELIVERED");
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), "r1=DELIVERED r2=DELIVERED");
    // Nobody is told whether there was someone to kick.
    for asked in ["kick/r1?group=h", "kick/nobody", "kick/nobody?group=g", "unban/r1", "unmute/nobody"] {
        moderate(&mut stage, app, asked);
    }
    assert!(stage.gateway.is_open(r1));
    moderate(&mut stage, app, "kick/r1");
    assert_eq!((stage.gateway.end(r1), stage.gateway.is_open(r1)), (Some(told(run, "KICKED")), false));
    assert_eq!(stage.receipt(app, "g/g?only=r1,r2&receipt=each", "on"), "r1=NOT_MEMBER r2=DELIVERED");
    let r1 = stage.member("r1");
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "back"), "r1=DELIVERED");
    assert_eq!(stage.gateway.texts(r1), ["back"]);
}

pub fn s14_ban(run: Run) {
    let mut stage = stage(run);
    let app = stage.app();
    let [r1, r2] = ["r1", "r2"].map(|id| stage.member(id));
    moderate(&mut stage, app, "ban/r1?group=g&for=60");
    assert_eq!((stage.gateway.ended(r1), stage.gateway.ended(r2)), (vec!["g".to_owned()], Vec::new()));
    let join = stage.gateway.join(r1, "g");
    assert!(matches!(&join, Outcome::Refused(code, _) if code == "BANNED" || run.to.is_mqtt()), "{join:?}");
    stage.refused(r1, "g/g", "BANNED");
    assert_eq!(stage.gateway.join(r1, "h"), Outcome::Accepted);
    assert_eq!(stage.receipt(app, "g/g?only=r1,r2&receipt=each", "on"), "r1=NOT_MEMBER r2=DELIVERED");
    stage.gateway.advance(60_000);
    assert_eq!(stage.gateway.join(r1, "g"), Outcome::Accepted);
    moderate(&mut stage, app, "ban/r1");
    assert_eq!(
        (stage.gateway.end(r1), stage.gateway.is_open(r1)),
        (Some(told(run, "KICKED")).map(|code| { if run.to.is_mqtt() { code } else { "BANNED" } }), false)
    );
    for kind in [run.to, Kind::Device, Kind::Mqtt5] {
        let refused = stage.gateway.try_connect(kind, "r1", stage.options());
        let code = if kind == Kind::Mqtt4 { "NOT_AUTHORIZED" } else { "BANNED" };
        assert_eq!(refused, Err(code.into()), "{kind:?}");
    }
    assert_eq!(stage.receipt(app, "c/r1?receipt=each", "gone"), "r1=DENIED");
    moderate(&mut stage, app, "unban/r1");
    let r1 = stage.member("r1");
    stage.accepted(r1, "g/g", "back");
    assert_eq!(stage.gateway.texts(r2), ["on", "back"]);
}

/// A provisioned member that is banned is put out, isn't let in by itself again, and nothing is kept for it.
pub fn s14_provisioned(run: Run) {
    let json = r#"{"group": [{"name": "g", "members": ["r1", "r2"]}],
        "rule": [{"effect": "allow", "actions": ["moderate"], "clients": ["app"]}]}"#;
    let mut stage = Stage::new(run, |setup| {
        setup.durable = true;
        setup.rules = rules(json);
    });
    let app = stage.app();
    let r2 = stage.member("r2");
    moderate(&mut stage, app, "ban/r1?group=g");
    let r1 = stage.stranger("r1");
    assert_eq!(stage.receipt(app, "g/g?receipt=each&store=1&ttl=1000", "on"), "r1=DENIED r2=DELIVERED");
    assert_eq!(stage.receipt(app, "g/g?only=r1&receipt=each", "on"), "r1=DENIED");
    assert_eq!((stage.gateway.texts(r1), stage.gateway.texts(r2)), (Vec::new(), vec!["on".to_owned()]));
}

pub fn s14_rights(run: Run) {
    let mut stage = stage(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    let warden = stage.gateway.connect(run.from, "warden", stage.options());
    for act in ["kick", "mute", "ban", "unmute", "unban"] {
        refused(&mut stage, r1, &format!("{act}/app?group=g"), "NOT_AUTHORIZED");
        refused(&mut stage, r1, &format!("{act}/app"), "NOT_AUTHORIZED");
        refused(&mut stage, warden, &format!("{act}/r1"), "NOT_AUTHORIZED");
        refused(&mut stage, warden, &format!("{act}/r1?group=h"), "NOT_AUTHORIZED");
    }
    refused(&mut stage, app, "mute/r1?for=0", "BAD_OPTION");
    refused(&mut stage, app, "silence/r1", "BAD_TOPIC");
    let retained = stage.gateway.publish(app, "sig/m/mute/r1", b"", true);
    assert_eq!(retained.name(), "RETAIN_REFUSED");
    stage.accepted(r1, "g/g", "not moderated");
    moderate(&mut stage, warden, "mute/r1?group=g");
    stage.refused(r1, "g/g", "MUTED");
}

/// It holds for what is sent after the answer, and for what the moderator sends behind it without having waited.
pub fn s14_order(run: Run) {
    let mut stage = stage(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    stage.accepted(app, "g/g", "before");
    moderate(&mut stage, app, "kick/r1?group=g");
    stage.accepted(app, "g/g", "after");
    assert_eq!(stage.gateway.texts(r1), ["before"]);
}

pub fn s14_restart(run: Run) {
    let mut stage = Stage::new(run, |setup| {
        setup.durable = true;
        setup.rules = rules(RULES);
    });
    let app = stage.app();
    for asked in ["mute/r1?group=g&for=60", "ban/r2", "mute/r3", "unmute/r3"] {
        moderate(&mut stage, app, asked);
    }
    assert_eq!(stage.gateway.store.records(RecordKind::Moderation), 2);
    stage.gateway.restart();
    assert_eq!(in_force(&stage).len(), 2);
    let [r1, r3] = ["r1", "r3"].map(|id| stage.member(id));
    stage.refused(r1, "g/g", "MUTED");
    stage.accepted(r3, "g/g", "on");
    assert!(stage.gateway.try_connect(run.to, "r2", stage.options()).is_err());
    stage.gateway.advance(60_000);
    stage.accepted(r1, "g/g", "on");
    // The acknowledgement waits for the store.
    let app = stage.app();
    stage.gateway.store_stuck = true;
    let spec = SendSpec::new("g/g", "live");
    let asked = stage.gateway.start_publish(app, "sig/m/mute/r1", b"");
    stage.gateway.pump();
    assert_eq!(stage.gateway.outcome(app, asked), None);
    assert_eq!(stage.gateway.send(r1, &spec).name(), "MUTED", "it is in force all the same");
    stage.gateway.store_stuck = false;
    stage.gateway.pump();
    assert_eq!(stage.gateway.outcome(app, asked), Some(Outcome::Accepted));
}

pub fn s14_bounds(run: Run) {
    let mut stage = Stage::new(run, |setup| {
        setup.rules = rules(RULES);
        setup.limits.moderations_per_shard = 1;
    });
    let app = stage.app();
    moderate(&mut stage, app, "mute/r1?group=g");
    moderate(&mut stage, app, "mute/r1?group=g&for=60");
    refused(&mut stage, app, "mute/r1", "TOO_MANY");
    refused(&mut stage, app, "ban/r1?group=g", "TOO_MANY");
    moderate(&mut stage, app, "kick/r1");
    moderate(&mut stage, app, "unmute/r1?group=g");
    moderate(&mut stage, app, "ban/r1");
}

pub fn s14_operator(run: Run) {
    let mut stage = stage(run);
    let (app, r1) = (stage.app(), stage.member("r1"));
    assert_eq!(operator(&mut stage, ModerationAct::Mute, "r1", Some("g")), Ok(()));
    stage.refused(r1, "g/g", "MUTED");
    let [found] = &in_force(&stage)[..] else { panic!("one is in force") };
    assert_eq!(
        (found.act, found.client.as_str(), found.by.as_str()),
        (ModerationAct::Mute, "r1", "night shift")
    );
    assert_eq!((found.group.as_ref().map(GroupName::as_str), found.until), (Some("g"), None));
    assert_eq!(operator(&mut stage, ModerationAct::Unmute, "r1", Some("g")), Ok(()));
    stage.accepted(r1, "g/g", "free");
    assert_eq!(operator(&mut stage, ModerationAct::Kick, "r1", None), Ok(()));
    assert!(!stage.gateway.is_open(r1) && stage.gateway.is_open(app));
}
