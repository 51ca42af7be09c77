//! An operator of a gateway's admin API: raw HTTP, so that nothing is sent that a test didn't mean to.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::{Gateway, Program, Scratch, bugle_program, soon};

/// An operators' file, and the tokens in it.
pub struct Operators {
    scratch: Scratch,
}

impl Operators {
    /// A file without any.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let operators = Self { scratch: Scratch::new() };
        operators.scratch.write("operators", "# operators\n");
        operators
    }

    /// Where it is.
    pub fn path(&self) -> String {
        self.scratch.path("operators").display().to_string()
    }

    /// The section of the configuration that names it.
    pub fn section(&self) -> String {
        format!("[admin_api]\noperators = '{}'", self.path())
    }

    /// Adds an operator by `bugle operator add`, and gives his token.
    pub async fn add(&self, name: &str, more: &[&str]) -> String {
        let path = self.path();
        let arguments = [&["operator", "add", name, "--file", &path], more].concat();
        Program::run(bugle_program(), &arguments, b"").await.expect(0).out.trim().to_owned()
    }
}

/// What came in answer to a request.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The head, all of it.
    pub head: String,
    /// The body.
    pub text: String,
}

impl Answered {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem, whose form is looked at.
    pub fn problem(&self) -> String {
        assert!(
            self.head.to_ascii_lowercase().contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Gateway {
    /// Sends the admin port what is given, and reads until it closes.
    pub async fn admin_raw(&self, request: &[u8]) -> Answered {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        soon("the answer of the admin port", stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Answered { status, head: head.to_owned(), text: text.to_owned() }
    }

    /// Waits until the admin port answers.
    pub async fn wait_admin(&self) {
        soon("an answer of the admin port", async {
            loop {
                let mut answer = Vec::new();
                if let Ok(mut stream) = TcpStream::connect(self.admin).await
                    && stream
                        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        .await
                        .is_ok()
                    && stream.read_to_end(&mut answer).await.is_ok()
                    && !answer.is_empty()
                {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// A request of an operator below `/api/v1`. A POST has a body of JSON.
    pub async fn admin(&self, token: &str, method: &str, path: &str, body: &str) -> Answered {
        let length = body.len();
        let of_body = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        let of_body = if method == "POST" { of_body } else { String::new() };
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{of_body}\r\n"
        );
        self.admin_raw(format!("{head}{body}").as_bytes()).await
    }

    /// The same by GET, which must be answered.
    pub async fn admin_get(&self, token: &str, path: &str) -> Value {
        let answer = self.admin(token, "GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The same by POST, which must be done.
    pub async fn admin_post(&self, token: &str, path: &str, body: &str) -> Value {
        let answer = self.admin(token, "POST", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}
