//! The examples, as `examples/README.md` has them: the lamp on the device SDK, and the switch in every language, which
//! are to behave the same.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use bugle_device::Target;
use bugle_tests::{Device, Finished, Gateway, Program, Setup, example_program, foreign, in_foreign, source};
use tokio::net::TcpListener;
use tokio::process::Command;

fn start_lamp(id: &str, group: &str, server: &str) -> Program {
    let mut command = Command::new(example_program("lamp"));
    command.args([id, group]).env("BUGLE_SERVER", server).stdin(Stdio::null());
    Program::spawn(command)
}

/// A lamp that is in the group.
async fn lamp(gateway: &Gateway, id: &str, group: &str) -> Program {
    let mut lamp = start_lamp(id, group, &gateway.server());
    lamp.line(&format!("{id} is in {group}")).await;
    lamp
}

#[tokio::test]
async fn the_lamp_obeys_and_answers() {
    let gateway = Gateway::start(2).await;
    let mut lamp = lamp(&gateway, "lamp-1", "floor3").await;
    let mut panel = Device::connect(&gateway, "panel").await;
    for (command, state) in [("on", "lamp-1 is on"), ("dance", "lamp-1 is on"), ("off", "lamp-1 is off")] {
        assert_eq!(panel.send(Target::group("floor3"), command).await.unwrap()["lamp-1"], "DELIVERED");
        assert_eq!(lamp.line("lamp-1 is").await, state);
    }
    panel.send(Target::client("lamp-1"), "state?").await.unwrap();
    let answer = panel.next().await;
    assert_eq!((answer.from.as_str(), answer.text.as_str()), ("lamp-1", "off"));
}

#[tokio::test]
async fn the_lamp_says_that_it_tries_again_until_there_is_a_gateway() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut lamp = start_lamp("lamp-1", "floor3", &free);
    assert!(lamp.line("trying again").await.contains(&format!("no gateway at {free}")));
    let _gateway = Setup::shards(1).argument("--listen").argument(&free).start().await;
    lamp.line("lamp-1 is in floor3").await;
}

/// A switch: how it is called up to its own arguments.
struct Switch(Vec<OsString>);

impl Switch {
    fn new(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }

    /// Runs it to its end against the gateway at `server`.
    async fn run_at(&self, server: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).args(arguments).env("BUGLE_SERVER", server).stdin(Stdio::null());
        Program::spawn(command).finish().await
    }

    async fn run(&self, gateway: &Gateway, arguments: &[&str]) -> Finished {
        self.run_at(&gateway.server(), arguments).await
    }
}

fn on_rumqttc(name: &str) -> Switch {
    Switch::new([example_program(name)])
}

fn on_paho_mqtt() -> Switch {
    Switch::new([foreign("python/bin/python"), source("examples/python/switch.py")])
}

fn on_mqtt_js() -> Switch {
    foreign("node/node_modules");
    Switch::new(["node".into(), in_foreign("examples/node/switch.mjs", "node")])
}

/// Built by the example's own Makefile, but not among the sources.
fn on_libmosquitto() -> Switch {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        in_foreign("examples/c/switch.c", "c");
        let makefile = in_foreign("examples/c/Makefile", "c");
        let folder = makefile.parent().unwrap();
        let built = std::process::Command::new("make").arg("-BC").arg(folder).output().unwrap();
        assert!(built.status.success(), "{built:?}");
        folder.join("switch")
    };
    Switch::new([PROGRAM.get_or_init(build)])
}

fn in_shell() -> Switch {
    Switch::new([source("examples/shell/switch.sh")])
}

/// all, only and except, and who is not there.
async fn switches_lamps_and_tells_what_became_of_it(switch: Switch) {
    let provisioned = "[[group]]\nname = 'floor3'\nmembers = ['lamp-1', 'lamp-2', 'lamp-3']";
    let gateway = Setup::shards(2).config(provisioned).start().await;
    let mut lamp_1 = lamp(&gateway, "lamp-1", "floor3").await;
    let mut lamp_2 = lamp(&gateway, "lamp-2", "floor3").await;
    for (arguments, code, lines) in [
        (
            &["on", "floor3", "only=lamp-1,lamp-2"][..],
            0,
            &["lamp-1 DELIVERED", "lamp-2 DELIVERED", "2 delivered"][..],
        ),
        (&["off", "floor3", "only=lamp-1"], 0, &["lamp-1 DELIVERED", "1 delivered"]),
        (&["off", "floor3", "except=lamp-1,lamp-3"], 0, &["lamp-2 DELIVERED", "1 delivered"]),
        (&["on", "floor3", "only=lamp-1,lamp-2", "except=lamp-2"], 0, &["lamp-1 DELIVERED", "1 delivered"]),
        (
            &["on", "floor3", "only=lamp-2,nobody"],
            5,
            &["lamp-2 DELIVERED", "nobody NOT_MEMBER", "1 delivered, 1 not_member"],
        ),
        (
            &["off", "floor3"],
            5,
            &["lamp-1 DELIVERED", "lamp-2 DELIVERED", "lamp-3 OFFLINE", "2 delivered, 1 offline"],
        ),
        (&["off", "empty"], 5, &["nobody is there"]),
    ] {
        let ended = switch.run(&gateway, arguments).await.expect(code);
        let mut said: Vec<_> = ended.out.lines().collect();
        // JSON objects have no order, and programs may sort them as they like: the lamps, then the counts.
        let count = said.len() - 1;
        said[..count].sort_unstable();
        assert_eq!(said, lines, "{arguments:?}");
    }
    for (lamp, states) in
        [(&mut lamp_1, ["on", "off", "on", "off"]), (&mut lamp_2, ["on", "off", "on", "off"])]
    {
        for state in states {
            assert!(lamp.line("-").await.ends_with(&format!(" is {state}")));
        }
    }
}

/// What the gateway refuses, and what the program doesn't even ask it.
async fn ends_with_1_where_it_is_refused_and_2_where_it_is_misused(switch: Switch) {
    let gateway = Gateway::start(1).await;
    let many = format!("only={}", (0..129).map(|number| format!("l{number}")).collect::<Vec<_>>().join(","));
    for (arguments, code, said) in [
        (&["on", "floor3", "only="][..], 1, "refused: NO_RECIPIENT: 'only' is there but names nobody"),
        (&["on", "floor3", &many], 1, "refused: LIST_TOO_LONG: "),
        (&["on", "no name"], 1, "refused: BAD_NAME: 'no name' is no group name"),
        (&["on"], 2, "usage: "),
        (&["on", "floor3", "lamp-1"], 2, "usage: "),
        (&["on", "floor+"], 2, "usage: "),
    ] {
        let ended = switch.run(&gateway, arguments).await.expect(code);
        assert!(ended.err.starts_with(said), "{arguments:?}: {ended:?}");
        assert_eq!((ended.out.as_str(), ended.err.matches("refused").count() <= 1), ("", true), "{ended:?}");
    }
}

/// No gateway, one that lets nobody in, one that says nothing.
async fn ends_with_3_without_a_connection_and_4_without_an_answer(switch: Switch) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ended = switch.run_at(&address, &["on", "floor3"]).await.expect(4);
    assert!(ended.err.ends_with("no answer within 4 s\n"), "{ended:?}");
    drop(silent);
    let ended = switch.run_at(&address, &["on", "floor3"]).await.expect(3);
    assert!(
        ended.err.contains("no connection to the gateway") && ended.err.contains("bugle serve"),
        "{ended:?}"
    );

    let credentials =
        "rules_default = 'allow'\n[[credential]]\nid = 'lamp-1'\nsecret = 'correct horse battery'";
    let gateway = Setup::shards(1).config(credentials).start().await;
    let ended = switch.run(&gateway, &["on", "floor3"]).await.expect(3);
    assert!(ended.err.contains("no connection to the gateway"), "{ended:?}");
}

/// More names than one receipt has room for.
async fn reads_a_receipt_in_parts(switch: Switch) -> usize {
    let names: Vec<_> = (0..200).map(|number| format!("'{number:0>64}'")).collect();
    let provisioned = format!("[[group]]\nname = 'plant'\nmembers = [{}]", names.join(", "));
    let gateway = Setup::shards(2).config(&provisioned).start().await;
    let ended = switch.run(&gateway, &["on", "plant"]).await.expect(5);
    assert_eq!(ended.out.lines().last(), Some("200 offline"));
    ended.out.lines().filter(|line| line.ends_with(" OFFLINE")).count()
}

/// The same tests for a switch. The module has the name of the foreign program that they need.
macro_rules! tests_of {
    ($name:ident, $switch:expr, $named:expr) => {
        mod $name {
            #[tokio::test]
            async fn switches_lamps_and_tells_what_became_of_it() {
                super::switches_lamps_and_tells_what_became_of_it($switch).await;
            }

            #[tokio::test]
            async fn ends_with_1_where_it_is_refused_and_2_where_it_is_misused() {
                super::ends_with_1_where_it_is_refused_and_2_where_it_is_misused($switch).await;
            }

            #[tokio::test]
            async fn ends_with_3_without_a_connection_and_4_without_an_answer() {
                super::ends_with_3_without_a_connection_and_4_without_an_answer($switch).await;
            }

            #[tokio::test]
            async fn reads_a_receipt_in_parts() {
                let named = super::reads_a_receipt_in_parts($switch).await;
                assert!($named.contains(&named), "{named} were named");
            }
        }
    };
}

tests_of!(switch_v4, super::on_rumqttc("switch-v4"), [200]);
tests_of!(switch_v5, super::on_rumqttc("switch-v5"), [200]);
tests_of!(python3_on_paho_mqtt, super::on_paho_mqtt(), [200]);
tests_of!(node_on_mqtt_js, super::on_mqtt_js(), [200]);
tests_of!(c_on_libmosquitto, super::on_libmosquitto(), [200]);
// mosquitto_rr ends with the first part.
tests_of!(shell_on_mosquitto_rr_and_jq, super::in_shell(), 1..200);
