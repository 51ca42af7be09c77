//! The admin API: what operators see of clients and groups, and what they do about them.

use bugle_device::Target;
use bugle_tests::{App, Device, Gateway, Operators, Setup, Version};
use serde_json::{Value, json};

async fn gateway(operators: &Operators, shards: u16, more: &str) -> Gateway {
    // Tables of the configuration come after its plain keys.
    Setup::shards(shards).config(more).config(&operators.section()).start().await
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn clients_are_listed_with_what_they_are_and_one_is_told_whole() {
    for shards in [1, 3] {
        let operators = Operators::new();
        let token = operators.add("anna", &[]).await;
        let gateway = gateway(&operators, shards, "").await;
        let _lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V311, "app", "floor").await;
        app.subscribe("home/+/state").await;
        let all = gateway.admin_get(&token, "/clients").await;
        assert_eq!(names(&all["clients"], "client"), ["app", "lamp"], "{all}");
        assert_eq!(all["next"], Value::Null);
        let lamp = &all["clients"][1];
        assert_eq!(
            *lamp,
            json!({"client": "lamp", "online": true, "protocol": "device", "address": "127.0.0.1", "user": null,
                "groups": 1, "filters": 0})
        );
        let one = gateway.admin_get(&token, "/clients/app").await;
        assert_eq!((&one["protocol"], &one["online"]), (&json!("MQTT 3.1.1"), &json!(true)));
        assert_eq!((&one["groups"], &one["filters"]), (&json!(["floor"]), &json!(["home/+/state"])));
        assert_eq!((&one["moderations"], &one["session"]), (&json!([]), &json!(true)));
        let none = gateway.admin(&token, "GET", "/clients/nobody", "").await;
        assert_eq!((none.status, none.problem().as_str()), (404, "NOT_FOUND"));
    }
}

#[tokio::test]
async fn pages_give_every_client_once_in_order() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = gateway(&operators, 3, "").await;
    let mut apps = Vec::new();
    for n in 0..23 {
        apps.push(App::connect(&gateway, Version::V5, &format!("app-{:02}", n * 7 % 23)).await);
    }
    let _other = App::connect(&gateway, Version::V5, "other").await;
    let (mut seen, mut path) = (Vec::new(), "/clients?limit=5&prefix=app-".to_owned());
    loop {
        let page = gateway.admin_get(&token, &path).await;
        let clients = names(&page["clients"], "client");
        assert!(clients.len() <= 5);
        seen.extend(clients);
        match page["next"].as_str() {
            Some(next) => path = format!("/clients?limit=5&prefix=app-&after={next}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..23).map(|n| format!("app-{n:02}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn groups_and_their_members_are_listed_online_or_not() {
    for shards in [1, 3] {
        let operators = Operators::new();
        let token = operators.add("anna", &[]).await;
        let provisioned = "[[group]]\nname = 'floor'\nmembers = ['lamp-1', 'lamp-2']";
        let gateway = gateway(&operators, shards, provisioned).await;
        let _lamp = Device::member(&gateway, "lamp-1", "floor").await;
        let _app = App::member(&gateway, Version::V5, "app", "class").await;
        let groups = gateway.admin_get(&token, "/groups").await;
        assert_eq!(
            groups["groups"],
            json!([{"group": "class", "joined": 1, "provisioned": 0}, {"group": "floor", "joined": 1, "provisioned": 2}])
        );
        let members = gateway.admin_get(&token, "/groups/floor/members").await;
        let expected = json!([{"client": "lamp-1", "online": true}, {"client": "lamp-2", "online": false}]);
        assert_eq!((&members["members"], &members["group"]), (&expected, &json!("floor")));
        let page = gateway.admin_get(&token, "/groups?limit=1").await;
        assert_eq!(
            (names(&page["groups"], "group"), &page["next"]),
            (vec!["class".to_owned()], &json!("class"))
        );
    }
}

#[tokio::test]
async fn s14_an_operator_mutes_kicks_and_bans_and_lifts_it_again() {
    for shards in [1, 3] {
        let operators = Operators::new();
        let token = operators.add("anna", &[]).await;
        let gateway = gateway(&operators, shards, "").await;
        let mut lamp = Device::member(&gateway, "lamp", "floor").await;
        let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
        let done = gateway
            .admin_post(
                &token,
                "/clients/app/mute",
                r#"{"group": "floor", "seconds": 600, "why": "language"}"#,
            )
            .await;
        assert_eq!(done, json!({"act": "mute", "client": "app", "group": "floor", "seconds": 600}));
        assert_eq!(app.publish("sig/g/floor", "x").await.code, "MUTED");
        let listed = gateway.admin_get(&token, "/moderations").await;
        let one = &listed["moderations"][0];
        assert_eq!((&one["by"], &one["why"]), (&json!("operator anna"), &json!("language")));
        assert_eq!(gateway.admin_get(&token, "/clients/app").await["moderations"][0], *one);
        gateway.admin_post(&token, "/clients/app/unmute", r#"{"group": "floor"}"#).await;
        assert_eq!(app.publish("sig/g/floor", "x").await.reason, "Success");
        assert_eq!(lamp.text().await, "x");

        gateway.admin_post(&token, "/clients/app/kick", "").await;
        assert!(app.ended().await.contains("AdministrativeAction"));
        let app = App::connect(&gateway, Version::V5, "app").await;
        gateway.admin_post(&token, "/clients/app/ban", "{}").await;
        drop(app);
        assert!(App::connect_as(&gateway, Version::V5, "app", None).await.is_err());
        gateway.admin_post(&token, "/clients/app/unban", "{}").await;
        let mut app = App::connect_as(&gateway, Version::V5, "app", None).await.unwrap();

        gateway.admin_post(&token, "/clients/lamp/kick", r#"{"group": "floor"}"#).await;
        app.subscribe("sig/r/app").await;
        let receipt = app.send("sig/g/floor?only=lamp&receipt=each", "x").await;
        assert!(receipt.to_string().contains("NOT_MEMBER"), "{receipt}");
        assert!(lamp.send(Target::client("app"), "still here").await.is_ok());
    }
}

#[tokio::test]
async fn s14_what_an_operator_was_told_is_in_force_is_so_after_a_kill() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let data = bugle_tests::Scratch::new();
    let directory = data.path("data").display().to_string();
    let start = || {
        let setup = Setup::shards(2).config(&operators.section());
        setup.argument("--data-dir").argument(&directory).start()
    };
    let gateway = start().await;
    for n in 0..10 {
        gateway.admin_post(&token, &format!("/clients/guest-{n}/ban"), r#"{"why": "enough"}"#).await;
    }
    gateway.kill().await;
    let gateway = start().await;
    let listed = gateway.admin_get(&token, "/moderations").await;
    assert_eq!(listed["moderations"].as_array().unwrap().len(), 10, "{listed}");
    assert!(App::connect_as(&gateway, Version::V5, "guest-3", None).await.is_err());
}

#[tokio::test]
async fn rules_are_read_again_and_what_is_wrong_with_them_is_told() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let scratch = bugle_tests::Scratch::new();
    let rules = scratch.write("rules.toml", "default = 'allow'\n");
    let gateway = gateway(&operators, 2, &format!("rules = '{rules}'")).await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    scratch.write("rules.toml", "default = 'allow'\n[[rule]]\neffect = 'deny'\nactions = ['send']\n");
    let answer = gateway.admin_post(&token, "/rules/reload", "{}").await;
    assert_eq!(answer, json!({"rules": "taken"}));
    assert_eq!(app.publish("sig/g/floor", "x").await.code, "NOT_AUTHORIZED");
    scratch.write("rules.toml", "[[rule]]\nefect = 'deny'\n");
    let answer = gateway.admin(&token, "POST", "/rules/reload", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (409, "RULES_REFUSED"));
    assert!(answer.text.contains("did you mean 'effect'?") && answer.text.contains(&rules), "{answer:?}");
    assert_eq!(app.publish("sig/g/floor", "x").await.code, "NOT_AUTHORIZED", "the old rules hold");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_says_why() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = gateway(&operators, 1, "").await;
    for (method, path, body, status, code) in [
        ("GET", "/", "", 404, "NOT_FOUND"),
        ("GET", "/clientss", "", 404, "NOT_FOUND"),
        ("GET", "/clients?limit=0", "", 400, "BAD_REQUEST"),
        ("GET", "/clients?limit=1001", "", 400, "BAD_REQUEST"),
        ("GET", "/clients?lmit=1", "", 400, "BAD_REQUEST"),
        ("GET", "/groups?prefix=a", "", 400, "BAD_REQUEST"),
        ("GET", "/groups/a%20b/members", "", 400, "BAD_NAME"),
        ("GET", "/groups/a%a1/members", "", 400, "BAD_REQUEST"),
        ("POST", "/clients", "", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/clients/lamp", "", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/clients/lamp/kick", "", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/clients/lamp/kick", "", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/clients/lamp/silence", "{}", 404, "NOT_FOUND"),
        ("POST", "/clients/a%20b/kick", "{}", 400, "BAD_NAME"),
        ("POST", "/clients/lamp/kick", r#"{"gruop": "floor"}"#, 400, "BAD_REQUEST"),
        ("POST", "/clients/lamp/kick", r#"{"group": "a b"}"#, 400, "BAD_NAME"),
        ("POST", "/clients/lamp/kick", r#"{"seconds": 3}"#, 400, "BAD_OPTION"),
        ("POST", "/clients/lamp/mute", r#"{"seconds": 0}"#, 400, "BAD_OPTION"),
        ("POST", "/clients/lamp/mute", r#"{"seconds": -1}"#, 400, "BAD_REQUEST"),
        ("POST", "/clients/lamp/mute", r#"{"why": "two\nlines"}"#, 400, "BAD_REQUEST"),
        ("POST", "/clients/lamp/mute", "{", 400, "BAD_REQUEST"),
        ("POST", "/clients/lamp/mute", "[]", 400, "BAD_REQUEST"),
    ] {
        let answer = gateway.admin(&token, method, path, body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{method} {path} {body}");
    }
    let answer = gateway.admin(&token, "POST", "/clients/lamp/mute", &" ".repeat(20_000)).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "TOO_LARGE"));
    assert_eq!(gateway.admin_get(&token, "/moderations").await["moderations"], json!([]));
    assert_eq!(gateway.metric("bugle_panics_total").await, 0);
}

#[tokio::test]
async fn operators_are_read_again_when_their_file_changes() {
    let operators = Operators::new();
    let first = operators.add("anna", &[]).await;
    let gateway = gateway(&operators, 1, "").await;
    gateway.admin_get(&first, "/clients").await;
    let second = operators.add("anna", &["--replace"]).await;
    gateway.wait_metric("bugle_operators_reloads_total{result=\"taken\"}", |count| count == 1).await;
    assert_eq!(gateway.admin(&second, "GET", "/clients", "").await.status, 200);
    assert_eq!(gateway.admin(&first, "GET", "/clients", "").await.status, 401);
    std::fs::write(operators.path(), "anna:nonsense\n").unwrap();
    gateway.wait_metric("bugle_operators_outdated", |value| value == 1).await;
    assert!(gateway.get("/healthz").await.1.contains("line 1"));
    gateway.admin_get(&second, "/clients").await;
}
