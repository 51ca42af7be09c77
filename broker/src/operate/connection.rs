//! The way of the operators' commands to a gateway's admin API: where it is, with which token, and one connection.
//!
//! Flags go before the environment, and that before the configuration. A token never leaves this machine in the clear.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::cli::AdminOptions;
use crate::client::Failure;
use crate::config::{AdminPlace, Config};
use crate::file_mode::{Holds, warn_if_open};
use crate::transport::tls::authorities;

/// Where the admin port is unless something says otherwise.
const ADMIN: &str = "127.0.0.1:8088";
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Times that a request is made again because of the rate.
const AGAIN: u32 = 5;

/// Either kind of stream.
trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A connection to an admin port.
pub struct AdminConnection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: String,
    driven: AbortHandle,
}

impl Drop for AdminConnection {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

impl AdminConnection {
    /// Connects to where the options say, or what they name.
    pub async fn open(options: &AdminOptions) -> Result<Self, Failure> {
        let place = match &options.config {
            Some(path) => Config::admin_place_of(path).map_err(|error| Failure::Usage(error.to_string()))?,
            None => AdminPlace::default(),
        };
        let token = token(options, &place)?;
        let given = options.admin.clone().or(place.address).unwrap_or_else(|| ADMIN.to_owned());
        let (is_tls, host) = match given.split_once("://") {
            None => (place.is_tls && options.admin.is_none(), given.as_str()),
            Some(("http", host)) => (false, host),
            Some(("https", host)) => (true, host),
            Some(_) => {
                return Err(Failure::Usage(format!(
                    "--admin {given} begins with neither http:// nor https://"
                )));
            }
        };
        let host = host.trim_end_matches('/');
        let address = resolve(host)?;
        if !is_tls && !address.ip().to_canonical().is_loopback() {
            return Err(Failure::Usage(format!(
                "{host} is on another machine, and the token would cross the network in the clear: write --admin https://{host}, \
                 with --ca FILE for who signed its certificate"
            )));
        }
        let lost = |error: &dyn std::fmt::Display| {
            Failure::NoConnection(format!(
                "no connection to the admin port {host}: {error}. Is the gateway running, and is that its `admin` address?"
            ))
        };
        let stream = timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| lost(&"no answer in 5 s"))?.map_err(|error| lost(&error))?;
        let stream: Pin<Box<dyn Stream>> = if is_tls {
            let connector = connector(options.ca.as_deref().or(place.ca.as_deref()))?;
            let name =
                host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name).map_err(|error| Failure::Usage(error.to_string()))?;
            let secured = timeout(CONNECT, connector.connect(name, stream)).await;
            Box::pin(secured.map_err(|_| lost(&"no TLS in 5 s"))?.map_err(|error| lost(&error))?)
        } else {
            Box::pin(stream)
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
        // Ends with the sender, or with the gateway's end.
        let driven = tokio::spawn(connection).abort_handle();
        Ok(Self { sender, host: host.to_owned(), token, driven })
    }

    /// What is at this path below `/api/v1`.
    pub async fn get(&mut self, path: &str) -> Result<Value, Failure> {
        self.ask("GET", path, String::new()).await
    }

    /// Has something done.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask("POST", path, body.to_string()).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: String) -> Result<Value, Failure> {
        for _ in 0..AGAIN {
            let (status, retry_after, answer) = self.ask_once(method, path, &body).await?;
            if status.is_success() {
                return Ok(answer);
            }
            match retry_after.filter(|_| status == StatusCode::TOO_MANY_REQUESTS) {
                Some(seconds) => sleep(Duration::from_secs(seconds.min(5))).await,
                None => {
                    let detail = answer["detail"].as_str().unwrap_or("an answer without a reason");
                    let code = answer["code"].as_str().unwrap_or("FAILED");
                    return Err(Failure::Refused(format!("{code}: {}", super::plain(detail))));
                }
            }
        }
        Err(Failure::Refused(
            "RATE_LIMITED: the gateway still wants fewer requests; try again later".to_owned(),
        ))
    }

    async fn ask_once(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(StatusCode, Option<u64>, Value), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if method == "POST" {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned())));
        let request = request.map_err(|error| Failure::Usage(error.to_string()))?;
        let lost = |error: &dyn std::fmt::Display| {
            Failure::NoConnection(format!("no answer of the admin port {}: {error}", self.host))
        };
        let asked = async {
            let answer = self.sender.send_request(request).await.map_err(|error| lost(&error))?;
            let status = answer.status();
            let retry_after = answer.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| lost(&error))?.to_bytes();
            let answer = serde_json::from_slice(&body)
                .map_err(|_| lost(&"what is there speaks no JSON, and so is no gateway's admin API"))?;
            Ok((status, retry_after, answer))
        };
        timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(lost(&"not within 30 s")))
    }
}

/// The operator's token.
fn token(options: &AdminOptions, place: &AdminPlace) -> Result<String, Failure> {
    let path = options.token_file.as_deref();
    if let (None, Some(token)) = (path, &options.token) {
        return checked(token, "BUGLE_TOKEN");
    }
    let Some(path) = path.or(place.token_file.as_deref()) else {
        return Err(Failure::Usage(
            "whose token? Name its file with --token-file or BUGLE_TOKEN_FILE, or a configuration whose [admin_api] has a \
             token_file with --config, or put it into BUGLE_TOKEN; `bugle operator add` makes one"
                .to_owned(),
        ));
    };
    warn_if_open(path, Holds::Secrets);
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    checked(text.trim(), &path.display().to_string())
}

fn checked(token: &str, place: &str) -> Result<String, Failure> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage(format!(
            "{place} has no token: one word, as `bugle operator add` prints it"
        )));
    }
    Ok(token.to_owned())
}

fn resolve(host: &str) -> Result<SocketAddr, Failure> {
    let found = host.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| Failure::Usage(format!("'{host}' is no address; write host:port, as 127.0.0.1:8088")))
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, Failure> {
    let roots = match ca {
        Some(path) => authorities(path).map_err(Failure::Usage)?,
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}
