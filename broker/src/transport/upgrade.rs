//! The HTTP request that asks for a WebSocket, without a socket: judged, and answered in either case.
//!
//! Any other request gets an answer too, a short text that says what this port is for: someone may have typed its
//! address into a browser.

use std::fmt::Write as _;

use tungstenite::handshake::derive_accept_key;

/// Longest request head, in bytes.
pub const MAX_HEAD: usize = 8 * 1024;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;
/// Where the WebSocket is; `/` will do as well.
pub const PATH: &str = "/mqtt";
/// What is spoken within it [MQTT-6.0.0-3].
pub const SUBPROTOCOL: &str = "mqtt";
/// The one version of the WebSocket protocol.
const VERSION: &[u8] = b"13";

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $status:literal, $text:literal;)*) => {
        /// Why a request gets no WebSocket.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum UpgradeRefusal { $($(#[$doc])* $name,)* }

        impl UpgradeRefusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics and logs.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// The status line, without the version.
            pub const fn status(self) -> &'static str {
                match self { $(Self::$name => $status,)* }
            }

            /// The status code.
            pub fn code(self) -> u16 {
                self.status()[..3].parse().unwrap_or(400)
            }

            /// What the client is told.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// It isn't HTTP/1.
    Malformed = "malformed", "400 Bad Request", "This is no HTTP/1.1 request.\n";
    /// Its head is too long, or has too many fields.
    HeadTooLarge = "head_too_large", "431 Request Header Fields Too Large",
        "The head of a request may have 64 fields and 8 KiB here.\n";
    /// There is nothing at this path.
    NotFound = "not_found", "404 Not Found",
        "Bugle serves MQTT on this port: over TCP, and over a WebSocket with subprotocol mqtt at /mqtt. \
         Health and metrics are on the admin port.\n";
    /// Only GET can become a WebSocket.
    Method = "method", "405 Method Not Allowed", "Only GET can become a WebSocket.\n";
    /// It doesn't ask for a WebSocket.
    NotUpgrade = "not_upgrade", "426 Upgrade Required",
        "Bugle serves MQTT on this port: connect with an MQTT client, as \
         mqtt://HOST:PORT, or as ws://HOST:PORT/mqtt from a browser (WebSocket, version 13, subprotocol mqtt).\n";
    /// The WebSocket's key is missing or isn't one.
    Key = "key", "400 Bad Request", "Sec-WebSocket-Key has to be 16 bytes in base64.\n";
    /// The client doesn't speak MQTT within it.
    Subprotocol = "subprotocol", "400 Bad Request",
        "The WebSocket has to offer the subprotocol mqtt (Sec-WebSocket-Protocol: mqtt).\n";
    /// A page of another origin than those that may.
    Origin = "origin", "403 Forbidden",
        "A page of this origin may not connect here. The operator allows it by [websocket] origins = [...] in the \
         gateway's configuration.\n";
}

/// Which pages may open a WebSocket. Programs that aren't browsers name no origin and are not judged by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Pages of any origin.
    Any,
    /// Pages that this machine serves itself. A gateway that asks for no credentials would else be open to every page
    /// that somebody on its machine looks at.
    Local,
    /// Pages of these, as `https://app.example`.
    Listed(Vec<String>),
}

impl Origins {
    fn allow(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        match self {
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|one| one.eq_ignore_ascii_case(origin)),
            Self::Local => {
                let Some((_, authority)) = origin.split_once("://") else { return false };
                let host = match authority.rsplit_once(':') {
                    Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                    _ => authority,
                };
                ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host.eq_ignore_ascii_case(name))
            }
        }
    }
}

/// The head of a request, whoever read it.
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with or without a query.
    pub path: &'a str,
    /// Whether it is HTTP/1.1 or more.
    pub is_http_1_1: bool,
    /// All fields.
    pub fields: Vec<(&'a str, &'a [u8])>,
}

/// What the bytes of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// There is more to come.
    Partial,
    /// It becomes a WebSocket: `answer` goes to the client, and what is behind the first `length` bytes belongs to
    /// the WebSocket already.
    Accepted {
        /// Bytes of the head.
        length: usize,
        /// The whole answer.
        answer: String,
    },
    /// It doesn't. [`refusal`] makes the answer.
    Refused(UpgradeRefusal),
}

/// Judges all bytes that have come of a request.
pub fn upgrade(bytes: &[u8], origins: &Origins) -> Upgrade {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Upgrade::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Upgrade::Refused(UpgradeRefusal::HeadTooLarge);
        }
        Err(_) => return Upgrade::Refused(UpgradeRefusal::Malformed),
    };
    let head = RequestHead {
        method: request.method.unwrap_or_default(),
        path: request.path.unwrap_or_default(),
        is_http_1_1: request.version == Some(1),
        fields: request.headers.iter().map(|field| (field.name, field.value)).collect(),
    };
    match head.accept(origins) {
        Ok(accept) => Upgrade::Accepted {
            length,
            answer: format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
            ),
        },
        Err(why) => Upgrade::Refused(why),
    }
}

/// The whole answer to a request that gets no WebSocket.
pub fn refusal(why: UpgradeRefusal) -> String {
    let text = why.text();
    let mut answer = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
        why.status(),
        text.len()
    );
    // Writing to a String can't fail.
    let _ = match why {
        UpgradeRefusal::NotUpgrade => answer.write_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        UpgradeRefusal::Method => answer.write_str("Allow: GET\r\n"),
        _ => Ok(()),
    };
    answer + "\r\n" + text
}

impl RequestHead<'_> {
    /// The value of `Sec-WebSocket-Accept`, or why there is none.
    pub fn accept(&self, origins: &Origins) -> Result<String, UpgradeRefusal> {
        let path = self.path.split('?').next().unwrap_or_default();
        if path != PATH && path != "/" {
            return Err(UpgradeRefusal::NotFound);
        }
        if self.method != "GET" {
            return Err(UpgradeRefusal::Method);
        }
        let asks = self.is_http_1_1
            && self.lists("connection", "upgrade")
            && self.lists("upgrade", "websocket")
            && self.values("sec-websocket-version").eq([VERSION]);
        if !asks {
            return Err(UpgradeRefusal::NotUpgrade);
        }
        if !self.values("origin").all(|origin| origins.allow(origin)) {
            return Err(UpgradeRefusal::Origin);
        }
        let mut keys = self.values("sec-websocket-key");
        let key = match (keys.next(), keys.next()) {
            // 16 bytes are 22 characters of base64, and two to fill it up.
            (Some(key), None) if key.len() == 24 && key.ends_with(b"==") => key,
            _ => return Err(UpgradeRefusal::Key),
        };
        let offers = |field: &[u8]| items(field).any(|item| item == SUBPROTOCOL.as_bytes());
        if !self.values("sec-websocket-protocol").any(offers) {
            return Err(UpgradeRefusal::Subprotocol);
        }
        Ok(derive_accept_key(key))
    }

    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        let named = self.fields.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_ascii())
    }

    fn lists(&self, name: &str, wanted: &str) -> bool {
        self.values(name).any(|field| items(field).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes())))
    }
}

fn items(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser sends, with `change` applied line by line: None leaves a line out.
    fn request(change: impl Fn(&str) -> Option<String>) -> String {
        let lines = [
            "GET /mqtt HTTP/1.1",
            "Host: 127.0.0.1:1883",
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            "Origin: http://localhost:8000",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: other, mqtt",
        ];
        let lines: Vec<String> = lines.into_iter().filter_map(change).collect();
        lines.join("\r\n") + "\r\n\r\n"
    }

    fn unchanged() -> String {
        request(|line| Some(line.to_owned()))
    }

    #[track_caller]
    fn refused(request: &str, why: UpgradeRefusal) {
        assert_eq!(upgrade(request.as_bytes(), &Origins::Local), Upgrade::Refused(why), "{request}");
    }

    #[test]
    fn a_browsers_request_is_accepted_once_it_is_whole() {
        let request = unchanged();
        for cut in 0..request.len() {
            assert_eq!(upgrade(&request.as_bytes()[..cut], &Origins::Local), Upgrade::Partial);
        }
        let with_more = request.clone() + "more";
        let Upgrade::Accepted { length, answer } = upgrade(with_more.as_bytes(), &Origins::Local) else {
            panic!("it was refused");
        };
        assert_eq!(length, request.len());
        // The example of RFC 6455, 1.3.
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_answer() {
        let without =
            |name: &'static str| request(move |line| (!line.starts_with(name)).then(|| line.to_owned()));
        let with = |from: &'static str, to: &'static str| request(move |line| Some(line.replace(from, to)));
        refused("SSH-2.0-OpenSSH_9\r\n", UpgradeRefusal::Malformed);
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UpgradeRefusal::Malformed);
        refused("GET / HTTP/1.0\r\n\r\n", UpgradeRefusal::NotUpgrade);
        refused("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", UpgradeRefusal::NotFound);
        refused(&with("/mqtt", "/mqttx"), UpgradeRefusal::NotFound);
        refused(&with("GET", "POST"), UpgradeRefusal::Method);
        refused(&with("HTTP/1.1", "HTTP/1.0"), UpgradeRefusal::NotUpgrade);
        refused(&without("Connection"), UpgradeRefusal::NotUpgrade);
        refused(&without("Upgrade"), UpgradeRefusal::NotUpgrade);
        refused(&with(": 13", ": 8"), UpgradeRefusal::NotUpgrade);
        refused(&without("Sec-WebSocket-Key"), UpgradeRefusal::Key);
        refused(&with("bXBsZSBub25jZQ==", "bXBsZSBub25jZQ"), UpgradeRefusal::Key);
        refused(&without("Sec-WebSocket-Protocol"), UpgradeRefusal::Subprotocol);
        refused(&with("other, mqtt", "mqttv3.1"), UpgradeRefusal::Subprotocol);
        let answer = refusal(UpgradeRefusal::NotUpgrade);
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let long = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "a".repeat(MAX_HEAD));
        refused(&long, UpgradeRefusal::HeadTooLarge);
        refused(&(long + "\r\n\r\n"), UpgradeRefusal::HeadTooLarge);
        let many = format!("GET /mqtt HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        refused(&many, UpgradeRefusal::HeadTooLarge);
    }

    #[test]
    fn pages_of_other_machines_are_kept_out_unless_they_are_listed() {
        let from = |origin: &str| {
            request(|line| {
                Some(if line.starts_with("Origin") { format!("Origin: {origin}") } else { line.to_owned() })
            })
        };
        let is_accepted = |origin: &str, origins: &Origins| {
            matches!(upgrade(from(origin).as_bytes(), origins), Upgrade::Accepted { .. })
        };
        for origin in
            ["http://localhost", "https://LOCALHOST:3000", "http://127.0.0.1:80", "http://[::1]:8080"]
        {
            assert!(is_accepted(origin, &Origins::Local), "{origin}");
        }
        let others =
            ["null", "file://", "http://evil.example", "http://localhost.evil.example", "http://127.0.0.1.x"];
        for origin in others {
            assert!(!is_accepted(origin, &Origins::Local), "{origin}");
            assert!(is_accepted(origin, &Origins::Any), "{origin}");
        }
        let listed = Origins::Listed(vec!["https://app.example".to_owned()]);
        assert!(is_accepted("https://app.example", &listed));
        assert!(!is_accepted("http://localhost", &listed));
        let no_origin = request(|line| (!line.starts_with("Origin")).then(|| line.to_owned()));
        assert!(matches!(upgrade(no_origin.as_bytes(), &Origins::Local), Upgrade::Accepted { .. }));
    }
}
