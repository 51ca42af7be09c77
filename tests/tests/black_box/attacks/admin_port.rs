//! The admin port: strangers, pages in browsers, slow and greedy ones, and operators who may only look.

use std::time::{Duration, Instant};

use bugle_tests::{App, Gateway, Operators, Setup, Version, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn with_operators(operators: &Operators, more: &str) -> Gateway {
    Setup::shards(1).config(&operators.section()).config(more).start().await
}

#[tokio::test]
async fn without_a_right_token_there_is_no_api() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = with_operators(&operators, "").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    let half = &token[..12];
    for fields in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {half}\r\n"),
        format!("Authorization: Bearer {token}x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Cookie: token={token}\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer {}\r\n", "x".repeat(4000)),
    ] {
        for (method, path) in [("GET", "/clients"), ("POST", "/clients/app/kick"), ("GET", "/nothing")] {
            let request = format!(
                "{method} /api/v1{path}?token={token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\
                 Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = gateway.admin_raw(request.as_bytes()).await;
            assert!(answer.status == 401 || answer.status == 429, "{fields:?} {path}: {answer:?}");
            answer.problem();
            assert!(!answer.text.contains(&token) && !answer.text.contains("app"), "{answer:?}");
        }
    }
    assert_eq!(app.publish("sig/g/floor", "still here").await.reason, "Success");
    // Nor does the token stand anywhere.
    assert!(!gateway.seen().contains(&token) && !gateway.get("/metrics").await.1.contains(&token));
}

#[tokio::test]
async fn without_operators_the_api_is_closed() {
    let gateway = Gateway::start(1).await;
    for path in ["/clients", "/clients/a/kick", ""] {
        let answer = gateway.admin("", "POST", path, "{}").await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "NOT_FOUND"));
        assert!(answer.text.contains("[admin_api]"), "{answer:?}");
    }
}

#[tokio::test]
async fn guessing_tokens_is_slowed_and_shuts_no_operator_of_another_address_out() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = with_operators(&operators, "").await;
    for _ in 0..34 {
        assert_eq!(gateway.admin("guess", "GET", "/clients", "").await.status, 401);
    }
    let started = Instant::now();
    gateway.admin("guess", "GET", "/clients", "").await;
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    // It waits from here as well, and gets in.
    gateway.admin_get(&token, "/clients").await;
    let started = Instant::now();
    App::connect(&gateway, Version::V5, "app").await;
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "clients don't wait for what operators get wrong"
    );
}

#[tokio::test]
async fn a_page_in_a_browser_acts_in_nobodys_name() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = with_operators(&operators, "").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    // What forms can send, even if they had the token.
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=a", ""] {
        let request = format!(
            "POST /api/v1/clients/app/kick HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let answer = gateway.admin_raw(request.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (415, "BAD_CONTENT_TYPE"), "{kind}");
    }
    // What a browser asks before it sends more is never agreed to.
    let preflight = "OPTIONS /api/v1/clients/app/kick HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nConnection: close\r\n\
                     Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, content-type\r\n\r\n";
    let answer = gateway.admin_raw(preflight.as_bytes()).await;
    assert_eq!(answer.status, 401);
    assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    assert_eq!(app.publish("sig/g/floor", "still here").await.reason, "Success");
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let operators = Operators::new();
    let viewer = operators.add("screen", &["--viewer"]).await;
    let gateway = with_operators(&operators, "").await;
    let mut app = App::member(&gateway, Version::V5, "app", "floor").await;
    gateway.admin_get(&viewer, "/clients").await;
    for path in ["/clients/app/kick", "/clients/app/ban", "/clients/app/unban", "/rules/reload"] {
        let answer = gateway.admin(&viewer, "POST", path, "{}").await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "NOT_AUTHORIZED"), "{path}");
    }
    assert_eq!(app.publish("sig/g/floor", "still here").await.reason, "Success");
}

#[tokio::test]
async fn an_operator_has_a_rate() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let other = operators.add("bob", &[]).await;
    let section = format!("{}\nrequests_per_second = 3", operators.section());
    let gateway = Setup::shards(1).config(&section).start().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(gateway.admin(&token, "GET", "/clients", "").await);
    }
    let refused = statuses.iter().find(|answer| answer.status == 429).expect("a rate");
    assert_eq!(refused.problem(), "RATE_LIMITED");
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: 1"), "{refused:?}");
    assert!(statuses[..3].iter().all(|answer| answer.status == 200));
    gateway.admin_get(&other, "/clients").await;
    gateway.wait_metric("bugle_admin_requests_total{result=\"rate_limited\"}", |count| count > 0).await;
}

#[tokio::test]
async fn half_a_request_has_an_end_on_the_admin_port() {
    let operators = Operators::new();
    let token = operators.add("anna", &[]).await;
    let gateway = with_operators(&operators, "").await;
    let head = "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned();
    let body = format!(
        "POST /api/v1/clients/a/mute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n{{"
    );
    let drip = async |first: String| {
        let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let started = Instant::now();
        let (mut reader, mut writer) = stream.into_split();
        let mut answer = Vec::new();
        let ended = async { drop(reader.read_to_end(&mut answer).await) };
        let dripping = async {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            while writer.write_all(b" ").await.is_ok() {
                pace.tick().await;
            }
            std::future::pending::<()>().await;
        };
        soon("the deadline", async {
            tokio::select! { () = ended => {}, () = dripping => {} }
        })
        .await;
        (started.elapsed(), String::from_utf8_lossy(&answer).into_owned())
    };
    let silent = drip(String::new());
    let ((of_head, _), (of_body, told), _) = tokio::join!(drip(head), drip(body), silent);
    assert!(of_head < Duration::from_secs(13), "{of_head:?}");
    assert!(of_body < Duration::from_secs(8) && told.contains("408"), "{of_body:?} {told}");
    gateway.wait_metric("bugle_admin_connections_closed_total{reason=\"timeout\"}", |count| count >= 1).await;
}

#[tokio::test]
async fn silent_connections_to_the_admin_port_are_bounded() {
    let gateway = Gateway::start(1).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(gateway.admin).await.unwrap());
    }
    let mut further = TcpStream::connect(gateway.admin).await.unwrap();
    let ended = soon("the end of one too many", further.read_u8()).await;
    assert!(ended.is_err());
    drop(silent);
    gateway.wait_admin().await;
    let closed = "bugle_admin_connections_closed_total{reason=\"full_of_address\"}";
    assert!(gateway.metric(closed).await >= 1);
}

#[tokio::test]
async fn tokens_do_not_cross_a_network_in_the_clear_unless_said_twice() {
    use bugle_tests::{Program, Scratch, bugle_program};
    let operators = Operators::new();
    let scratch = Scratch::new();
    let config = scratch.write("bugle.toml", &operators.section());
    let arguments = ["serve", "--config", &config, "--admin", "0.0.0.0:0", "--listen", "127.0.0.1:0"];
    let ended = Program::run(bugle_program(), &arguments, b"").await.expect(1);
    assert!(ended.err.contains("allow_clear_text") && ended.err.contains("admin_api.tls"), "{ended:?}");
}

#[tokio::test]
async fn files_that_others_can_read_or_write_are_warned_of() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    let (operators, authority) = (Operators::new(), bugle_tests::Authority::new());
    operators.add("anna", &[]).await;
    let server = authority.sign("server", &["localhost"]);
    let scratch = bugle_tests::Scratch::new();
    let rules = scratch.write("rules.toml", "default = 'allow'\n");
    let set = |mode: u32| {
        for path in [&operators.path(), &server.key.display().to_string(), &rules] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let lines = format!("rules = '{rules}'\n{}\n{}", operators.section(), server.section());
    set(0o666);
    let gateway = Setup::shards(1).config(&lines).start().await;
    let warned = |seen: &str, name: &str| {
        seen.lines().any(|line| line.contains("others on this machine") && line.contains(name))
    };
    let seen = gateway.seen();
    for name in ["operators", "server.key", "rules.toml"] {
        assert!(warned(&seen, name), "{name}: {seen}");
    }
    drop(gateway);
    set(0o600);
    let seen = Setup::shards(1).config(&lines).start().await.seen();
    for name in ["operators", "server.key", "rules.toml"] {
        assert!(!warned(&seen, name), "{name}: {seen}");
    }
}
