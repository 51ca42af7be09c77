//! Another program that is asked about credentials: what it says holds, and what isn't a clear yes lets nobody in.

use std::sync::{Arc, Mutex};

use bugle_tests::{App, Gateway, Setup, Version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A program that answers by the user's name, and notes whom it was asked about.
async fn answering() -> (u16, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, noted.clone()));
        }
    });
    (port, asked)
}

async fn answer(mut stream: TcpStream, noted: Arc<Mutex<Vec<Value>>>) {
    let mut bytes = Vec::new();
    let question: Value = loop {
        if stream.read_buf(&mut bytes).await.is_ok_and(|length| length == 0) {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(question) = serde_json::from_str(body)
        {
            assert!(head.starts_with("POST /auth HTTP/1.1"), "{head}");
            break question;
        }
    };
    noted.lock().unwrap().push(question.clone());
    let good = question["password"] == "mellon";
    let (status, body) = match question["user"].as_str().unwrap() {
        "anna" => (200, json!({"allow": good, "user": "anna.smith", "roles": ["staff"]}).to_string()),
        "bob" => (200, json!({"allow": good, "clients": ["bob-*"]}).to_string()),
        "brief" => (200, json!({"allow": good, "seconds": 1, "roles": ["staff"]}).to_string()),
        "broken" => (500, json!({"allow": true}).to_string()),
        "garbage" => (200, "yes".to_owned()),
        "huge" => (200, format!("{{\"allow\": true, \"x\": \"{}\"}}", "x".repeat(100_000))),
        // Never answers.
        "silent" => return std::future::pending().await,
        _ => (200, json!({"allow": false}).to_string()),
    };
    let answer =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    // It may have had enough.
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn guarded(port: u16, more: &str) -> Gateway {
    let lines = format!(
        "[[rule]]\neffect = 'allow'\nactions = ['connect']\n\
         [[rule]]\neffect = 'allow'\nroles = ['staff']\nusers = ['anna.smith']\nactions = ['join']\n\
         [authentication_hook]\nurl = 'http://127.0.0.1:{port}/auth'\ntimeout_ms = 500\n{more}\n"
    );
    Setup::shards(2).config(&lines).start().await
}

#[tokio::test]
async fn what_the_hook_says_holds_and_is_kept_for_a_while() {
    let (port, asked) = answering().await;
    let gateway = guarded(port, "").await;
    for version in [Version::V311, Version::V5] {
        for _ in 0..2 {
            let mut anna = App::connect_as(&gateway, version, "anna", Some("mellon")).await.unwrap();
            assert_eq!(
                anna.subscribe("sig/g/floor").await,
                ["Success(AtLeastOnce)"],
                "user and role are the hook's"
            );
        }
        for (id, password) in [("anna", "sesame"), ("carl", "mellon"), ("bob", "mellon")] {
            let error = App::connect_as(&gateway, version, id, Some(password)).await.err();
            let error = error.unwrap_or_else(|| panic!("{id} was let in"));
            assert!(error.contains("BadUserNamePassword") || error.contains("NotAuthorized"), "{error}");
        }
    }
    let asked = asked.lock().unwrap();
    let good = asked.iter().filter(|question| question["password"] == "mellon" && question["user"] == "anna");
    assert_eq!(good.count(), 1, "a yes is kept");
    let wrong = asked.iter().filter(|question| question["password"] == "sesame");
    assert_eq!(wrong.count(), 2, "a no isn't");
    assert_eq!(asked[0]["client_id"], "anna");
    assert!(!gateway.seen().contains("mellon"), "no password is logged");
}

#[tokio::test]
async fn a_hook_that_fails_lets_nobody_in() {
    let (port, _asked) = answering().await;
    let gateway = guarded(port, "").await;
    for user in ["broken", "garbage", "huge", "silent"] {
        let error = App::connect_as(&gateway, Version::V5, user, Some("mellon")).await.err();
        assert!(error.unwrap_or_else(|| panic!("{user} was let in")).contains("ServerBusy"), "{user}");
    }
    assert_eq!(gateway.metric("bugle_authentication_hook_failures_total").await, 4);
    // Nobody listens there.
    let gateway = guarded(bugle_tests::free_port(), "").await;
    assert!(App::connect_as(&gateway, Version::V5, "anna", Some("mellon")).await.is_err());
}

#[tokio::test]
async fn a_yes_for_a_time_ends_with_it() {
    let (port, _asked) = answering().await;
    let gateway = guarded(port, "cache_seconds = 0").await;
    let mut brief = App::connect_as(&gateway, Version::V5, "brief", Some("mellon")).await.unwrap();
    assert!(brief.ended().await.contains("NotAuthorized"));
}
