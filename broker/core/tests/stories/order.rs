//! What comes before what (S11, S16).

use crate::gateway::{Outcome, Random, SendSpec};
use crate::stage::{Run, Stage, id_beside, number};

pub fn s11_order(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let others = [id_beside("far", "app", run.shards, false), id_beside("near", "app", run.shards, true)];
    let [far, near] = others.clone().map(|id| stage.member(&id));
    stage.gateway.hold(true);
    for n in 0..28 {
        let line = match n % 4 {
            0 => "g/g".to_owned(),
            1 => format!("g/g?only={},{},none-0", others[0], others[1]),
            2 => "g/g?except=none-0".to_owned(),
            _ => format!("c/{}?receipt=each", others[n / 4 % 2]),
        };
        stage.gateway.start_send(app, &SendSpec::new(&line, &number(n)));
    }
    stage.gateway.pump();
    stage.gateway.hold(false);
    for (at, who) in [far, near].into_iter().enumerate() {
        let wanted: Vec<_> = (0..28).filter(|n| n % 4 != 3 || n / 4 % 2 == at).map(number).collect();
        assert_eq!(stage.gateway.texts(who), wanted);
    }
}

pub fn s11_own_joins(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    stage.gateway.hold(true);
    let send = |stage: &mut Stage, text| {
        stage.gateway.start_send(app, &SendSpec::new("g/g?echo=1&receipt=each", text));
    };
    send(&mut stage, "before");
    stage.gateway.start_join(app, "g");
    send(&mut stage, "in");
    stage.gateway.start_leave(app, "g");
    send(&mut stage, "after");
    stage.gateway.start_join(app, "g");
    send(&mut stage, "in again");
    stage.gateway.pump();
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(app), ["in", "in again"]);
    let lines: Vec<_> =
        stage.gateway.receipts(app).iter().map(|receipt| (receipt.ticket, receipt.line())).collect();
    let mut lines = lines;
    lines.sort();
    let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["", "app=DELIVERED", "", "app=DELIVERED"]);
}

pub fn s11_joins(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.stranger(&far);
    stage.gateway.hold(true);
    let ticket = stage.gateway.start_join(r, "g");
    stage.gateway.pump();
    assert_eq!(
        stage.gateway.outcome(r, ticket).is_none(),
        run.shards > 1,
        "the answer waits for every shard"
    );
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.outcome(r, ticket), Some(Outcome::Accepted));
    assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), format!("{far}=DELIVERED"));
}

pub fn s11_churn(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let mut random = Random(run.seed.unwrap_or(9));
    let mut clients: Vec<_> = (0..6).map(|n| (format!("r{n}"), None, false)).collect();
    for round in 0..60 {
        let (id, who, member) = &mut clients[random.below(6)];
        match (*who, random.below(4)) {
            (None, _) => (*who, *member) = (Some(stage.stranger(id)), false),
            (Some(client), 0) => {
                stage.gateway.lose(client);
                (*who, *member) = (None, false);
            }
            (Some(client), 1) => {
                stage.gateway.start_leave(client, "g");
                *member = false;
            }
            (Some(client), _) => {
                stage.gateway.start_join(client, "g");
                *member = true;
            }
        }
        // Several changes pass each other between the shards.
        stage.gateway.hold(random.below(3) > 0);
        if round % 5 < 4 {
            continue;
        }
        stage.gateway.hold(false);
        stage.gateway.advance(1000);
        let members = clients.iter().filter(|(_, _, member)| *member);
        let expected: Vec<_> = members.map(|(id, ..)| format!("{id}=DELIVERED")).collect();
        assert_eq!(stage.receipt(app, "g/g?receipt=each", "on"), expected.join(" "), "round {round}");
    }
}

pub fn s11_leaves(run: Run) {
    if run.shards == 1 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.member(&far);
    stage.gateway.hold(true);
    stage.gateway.start_send(app, &SendSpec::new("g/g?receipt=each", "all"));
    stage.gateway.start_send(app, &SendSpec::new(&format!("g/g?only={far}&receipt=each"), "only"));
    stage.gateway.pump();
    assert_eq!(stage.gateway.leave(r, "g"), Outcome::Accepted);
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(r), [""; 0], "nothing after the answer to a leave");
    let mut lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
    lines.sort();
    assert_eq!(lines, [String::new(), format!("{far}=NOT_MEMBER")]);
}

pub fn s16_mailbox(run: Run) {
    let mut stage = Stage::open(run);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    for (n, urgent) in [0, 1, 0, 1, 0].into_iter().enumerate() {
        let line = if urgent == 1 { "g/g?urgent=1" } else { "c/slow" };
        stage.accepted(app, line, &number(n));
    }
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.texts(slow), ["0001", "0003", "0000", "0002", "0004"]);
}

pub fn s16_between_shards(run: Run) {
    if run.shards == 1 {
        return;
    }
    let mut stage = Stage::open(run);
    let app = stage.app();
    let far = id_beside("r", "app", run.shards, false);
    let r = stage.member(&far);
    stage.gateway.hold(true);
    for (n, line) in ["g/g", "g/g?urgent=1", "g/g", "g/g?urgent=1"].into_iter().enumerate() {
        stage.gateway.start_send(app, &SendSpec::new(line, &number(n)));
    }
    stage.gateway.pump();
    stage.gateway.hold(false);
    assert_eq!(stage.gateway.texts(r), ["0001", "0003", "0000", "0002"]);
}

pub fn s16_bounds(run: Run) {
    let mut stage = Stage::new(run, |setup| setup.limits.mailbox_messages = 2);
    let app = stage.app();
    let slow = stage.member("slow");
    stage.gateway.stop_reading(slow);
    for expected in ["", "", "slow=OVERFLOW"] {
        stage.accepted(app, "g/g?receipt=each", "normal");
        let lines: Vec<_> = stage.gateway.receipts(app).iter().map(|receipt| receipt.line()).collect();
        assert_eq!(lines.concat(), expected);
    }
    stage.accepted(app, "g/g?urgent=1", "urgent");
    stage.gateway.read_again(slow);
    assert_eq!(stage.gateway.texts(slow), ["urgent", "normal", "normal"]);
}
