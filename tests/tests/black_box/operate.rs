//! The operators' commands: what they print, do, and end with.

use bugle_tests::websocket::websocket_request;
use bugle_tests::{
    App, Authority, Device, Finished, Gateway, Operators, Program, Scratch, Setup, Tls, Version,
    bugle_program, soon, tls_on,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An operator's terminal.
struct Terminal {
    operators: Operators,
    scratch: Scratch,
    token: String,
    gateway: Gateway,
}

impl Terminal {
    async fn start(more: &str) -> Self {
        let operators = Operators::new();
        let token = operators.add("anna", &[]).await;
        let gateway = Setup::shards(2).config(more).config(&operators.section()).start().await;
        let scratch = Scratch::new();
        scratch.write("token", &format!("{token}\n"));
        Self { operators, scratch, token, gateway }
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        let (admin, token) = (self.gateway.admin.to_string(), self.scratch.path("token"));
        let place = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
        Program::run(bugle_program(), &[arguments, &place].concat(), b"").await
    }

    async fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.run(arguments).await.expect(0);
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn an_operator_looks_around_and_acts_in_a_terminal() {
    let terminal = Terminal::start("").await;
    let gateway = &terminal.gateway;
    let _lamp = Device::member(gateway, "lamp", "floor").await;
    let mut app = App::member(gateway, Version::V5, "app", "floor").await;
    let listed = terminal.run(&["clients"]).await.expect(0).out;
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["CLIENT", "STATE", "PROTOCOL", "ADDRESS", "USER", "GROUPS", "FILTERS"]);
    assert_eq!(rows[1][..4], ["app", "online", "MQTT", "5"]);
    assert_eq!(rows[2], ["lamp", "online", "device", "127.0.0.1", "-", "1", "0"]);
    assert_eq!(rows.len(), 3);
    let json = terminal.lines(&["clients", "--prefix", "la", "--json"]).await;
    assert_eq!((json.len(), &json[0]["client"]), (1, &json!("lamp")));
    let one = terminal.run(&["clients", "app"]).await.expect(0).out;
    assert!(one.contains("groups: floor") && one.contains("moderations: -"), "{one}");
    assert_eq!(
        terminal.lines(&["groups", "--json"]).await,
        [json!({"group": "floor", "joined": 2, "provisioned": 0})]
    );
    let members = terminal.run(&["presence", "floor"]).await.expect(0).out;
    assert!(members.lines().any(|line| line.split_whitespace().eq(["lamp", "online"])), "{members}");

    let muted = terminal.run(&["mute", "app", "--group", "floor", "--for", "600", "--why", "language"]).await;
    assert_eq!(muted.expect(0).out.trim(), "mute app: done, in floor, for 600 s");
    assert_eq!(app.publish("sig/g/floor", "x").await.code, "MUTED");
    let force = terminal.run(&["moderations"]).await.expect(0).out;
    assert!(force.contains("operator anna") && force.contains("language"), "{force}");
    terminal.run(&["unmute", "app", "--group", "floor"]).await.expect(0);
    assert_eq!(app.publish("sig/g/floor", "x").await.reason, "Success");
    terminal.run(&["kick", "app"]).await.expect(0);
    app.ended().await;
    terminal.run(&["ban", "app"]).await.expect(0);
    assert!(App::connect_as(gateway, Version::V5, "app", None).await.is_err());
    let done = terminal.lines(&["unban", "app", "--json"]).await;
    assert_eq!(done, [json!({"act": "unban", "client": "app", "group": null, "seconds": null})]);
    App::connect(gateway, Version::V5, "app").await;
}

#[tokio::test]
async fn a_list_of_many_pages_is_printed_whole() {
    let names: Vec<String> = (0..2500).map(|n| format!("'lamp-{n:04}'")).collect();
    let group = format!("[[group]]\nname = 'floor'\nmembers = [{}]", names.join(","));
    let terminal = Terminal::start(&group).await;
    let members = terminal.lines(&["presence", "floor", "--json"]).await;
    assert_eq!(members.len(), 2500);
    assert!(members.is_sorted_by_key(|member| member["client"].as_str().unwrap().to_owned()));
}

#[tokio::test]
async fn refusals_are_told_and_show_in_the_exit_code() {
    let terminal = Terminal::start("").await;
    let refused = terminal.run(&["clients", "nobody"]).await.expect(1);
    assert!(refused.err.contains("NOT_FOUND: nothing is known of a client 'nobody'"), "{refused:?}");
    let refused = terminal.run(&["kick", "no body"]).await.expect(1);
    assert!(refused.err.contains("BAD_NAME"), "{refused:?}");
    terminal.run(&["kick", "lamp", "--for", "3"]).await.expect(2);
    terminal.scratch.write("token", "guess");
    let refused = terminal.run(&["clients"]).await.expect(1);
    assert!(
        refused.err.contains("NOT_AUTHENTICATED") && refused.err.contains("bugle operator add"),
        "{refused:?}"
    );
    terminal.scratch.write("token", "");
    assert!(terminal.run(&["clients"]).await.expect(2).err.contains("has no token"));
    let admin = terminal.gateway.admin.to_string();
    let none = Program::run(bugle_program(), &["clients", "--admin", &admin], b"").await.expect(2);
    assert!(none.err.contains("--token-file"), "{none:?}");
    // Nothing listens there any more, nor is the token sent to other machines in the clear.
    let token = terminal.scratch.write("token", &terminal.token);
    let port = bugle_tests::free_port();
    let gone = ["clients", "--token-file", &token, "--admin", &format!("127.0.0.1:{port}")];
    assert!(
        Program::run(bugle_program(), &gone, b"")
            .await
            .expect(3)
            .err
            .contains("no connection to the admin port")
    );
    let far = ["clients", "--token-file", &token, "--admin", "192.0.2.1:8088"];
    assert!(Program::run(bugle_program(), &far, b"").await.expect(2).err.contains("in the clear"));
    // What isn't a gateway's client port but its clients' is no admin API.
    let clients = ["clients", "--token-file", &token, "--admin", &terminal.gateway.server()];
    Program::run(bugle_program(), &clients, b"").await.expect(3);
}

#[tokio::test]
async fn rules_are_read_again_from_a_terminal() {
    let scratch = Scratch::new();
    let rules = scratch.write("rules.toml", "default = 'allow'\n");
    let terminal = Terminal::start(&format!("rules = '{rules}'")).await;
    let done = terminal.run(&["rules", "reload"]).await.expect(0);
    assert!(done.out.contains("hold everywhere"), "{done:?}");
    scratch.write("rules.toml", "defualt = 'allow'\n");
    let refused = terminal.run(&["rules", "reload"]).await.expect(1);
    assert!(
        refused.err.contains("RULES_REFUSED") && refused.err.contains("did you mean 'default'?"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_configuration_says_where_and_the_environment_may() {
    let authority = Authority::new();
    let server = authority.sign("server", &["localhost"]);
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let section = format!("{}\ntls = true\n{}", operators.section(), server.section());
    let gateway = Setup::shards(1).config(&section).start().await;
    let address = format!("localhost:{}", gateway.admin.port());
    // Within TLS there is no WebSocket, nor anything in the clear.
    let socket = gateway.connect_to(gateway.admin.port()).await;
    let mut stream = tls_on(socket, authority.client(Tls::V13), "localhost").await.unwrap();
    let upgrade = websocket_request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    soon("an answer", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 404");
    assert_ne!(gateway.admin(&token, "GET", "/clients", "").await.status, 200);
    let scratch = Scratch::new();
    let token_file = scratch.write("token", &token);
    let (ca, path) = (authority.pem(), operators.path());
    let config = scratch.write(
        "bugle.toml",
        &format!(
            "admin = '{address}'\n[admin_api]\noperators = '{path}'\ntls = true\ntoken_file = '{token_file}'\nca = '{}'\n",
            ca.display()
        ),
    );
    let ended = Program::run(bugle_program(), &["groups", "--config", &config], b"").await.expect(0);
    assert!(ended.out.starts_with("GROUP"), "{ended:?}");
    // By the environment, where a token may be as it is.
    let environment = |with_ca: bool| {
        let mut command = tokio::process::Command::new(bugle_program());
        command.arg("groups").env("BUGLE_ADMIN", format!("https://{address}")).env("BUGLE_TOKEN", &token);
        if with_ca {
            command.env("BUGLE_CA", &ca);
        }
        command
    };
    Program::spawn(environment(true)).finish().await.expect(0);
    let untrusted = Program::spawn(environment(false)).finish().await.expect(3);
    assert!(untrusted.err.contains("certificate"), "{untrusted:?}");
}

#[tokio::test]
async fn what_others_call_themselves_does_nothing_to_a_terminal() {
    let terminal = Terminal::start("").await;
    let _app = App::connect(&terminal.gateway, Version::V311, "a\u{9b}31mb").await;
    let listed = terminal.run(&["clients"]).await.expect(0).out;
    assert!(listed.contains("a\\u{9b}31mb") && !listed.contains('\u{9b}'), "{listed:?}");
    assert!(!terminal.operators.path().is_empty());
}
