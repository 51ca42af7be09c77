//! What `send`, `watch` and `demo` share: a client of the device SDK over tokio's sockets.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::{Config, ConfigError, Disconnect, Reason, SendError, State};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::cli::ConnectOptions;

/// How long opening a socket may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest secret that is read from a file, in bytes.
const MAX_SECRET_FILE: usize = 4096;

/// A client as a terminal is one: room for whole payloads, full lists and long receipts.
pub type TerminalState<'a> = State<'a, NoopRawMutex, 65_536, 40_960, 64, 16, 32_768, 65_536>;
/// The application's side of it.
pub type Client<'a> = bugle_device::Client<'a, NoopRawMutex>;
/// What the SDK writes to and reads from.
pub type Transport = FromTokio<TcpStream>;

/// Why a client command ended without having done its job, with the exit code that says so.
#[derive(Debug)]
pub enum Failure {
    /// The gateway, or the SDK in its stead, said no: 1.
    Refused(String),
    /// It can't be done as asked: 2.
    Usage(String),
    /// No gateway could be reached, or it was lost: 3.
    NoConnection(String),
}

impl Failure {
    /// Says it on stderr.
    pub fn report(&self) -> ExitCode {
        eprintln!("bugle: {self}");
        ExitCode::from(match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::NoConnection(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(text) | Self::Usage(text) | Self::NoConnection(text)) = self;
        f.write_str(text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(match error {
            ConfigError::BadClientId => "a client id is 1 to 64 of A-Z a-z 0-9 . _ : -".to_owned(),
            other => other.to_string(),
        })
    }
}

/// A client id and its secret.
pub struct Identity {
    /// The client id.
    pub id: String,
    /// The secret; empty where the gateway asks for none.
    pub secret: Vec<u8>,
}

impl Identity {
    /// As the command line says; else named after the command and this process.
    pub fn new(options: &ConnectOptions, command: &str) -> Result<Self, Failure> {
        let id = options.client_id.clone().unwrap_or_else(|| format!("{command}-{}", std::process::id()));
        let mut secret = match &options.secret_file {
            None => Vec::new(),
            Some(path) => std::fs::read(path)
                .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?,
        };
        if secret.len() > MAX_SECRET_FILE {
            return Err(Failure::Usage("the secret file is too long: is it the right one?".to_owned()));
        }
        while matches!(secret.last(), Some(b'\n' | b'\r')) {
            secret.pop();
        }
        Ok(Self { id, secret })
    }

    /// Settings for the SDK.
    pub fn config(&self) -> Config<'_> {
        config(&self.id, &self.secret)
    }
}

/// Settings for a client that nothing of shall remain once it has gone.
pub fn config<'a>(id: &'a str, secret: &'a [u8]) -> Config<'a> {
    // Keyed anew in each process.
    let seed = RandomState::new().hash_one(id) as u32;
    let mut config = Config::new(id, secret, seed);
    config.session_expiry = 0;
    config.window = 16;
    config.max_body = Some(bugle_device::protocol::MAX_PAYLOAD as u16 + 256);
    config
}

/// Opens a socket to the gateway.
pub async fn connect(server: &str) -> Result<Transport, Failure> {
    let fail = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::ConnectionRefused => "Is the gateway running there? Start one with: bugle serve",
            _ => "Say where the gateway is with --server HOST:PORT",
        };
        Failure::NoConnection(format!("cannot connect to {server}: {error}. {advice}"))
    };
    let opening = async {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(FromTokio::new(stream))
    };
    timeout(CONNECT, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(fail)
}

/// The SDK's clock: milliseconds since it was first asked.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// The SDK's timer, on tokio's.
pub struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        sleep(Duration::from_nanos(nanoseconds.into())).await;
    }

    async fn delay_ms(&mut self, milliseconds: u32) {
        sleep(Duration::from_millis(milliseconds.into())).await;
    }
}

/// Runs `application` beside the runner, which gets to say goodbye after it. Ends early if the runner does.
pub async fn alongside<R>(
    client: Client<'_>,
    runner: impl Future<Output = Disconnect>,
    application: impl Future<Output = Result<R, Failure>>,
) -> Result<R, Failure> {
    let mut runner = std::pin::pin!(runner);
    // If the runner ends first the application is dropped, which is all that is wanted of it.
    let result = tokio::select! {
        biased;
        result = application => result,
        end = runner.as_mut() => return Err(connection_ended(end)),
    };
    client.disconnect();
    let _ = timeout(Duration::from_secs(2), runner).await;
    result
}

/// What it means for a command that its connection has ended.
pub fn connection_ended(end: Disconnect) -> Failure {
    let advice = match end {
        Disconnect::Bye(Reason::NotAuthenticated) => {
            ": the gateway wants a secret that belongs to this client id: give --as and --secret-file"
        }
        Disconnect::Bye(Reason::TakenOver) => {
            ": another client connected with the same id: take another one with --as"
        }
        Disconnect::Bye(Reason::NotAuthorized) => ": the rules don't let this client id in",
        Disconnect::Bye(Reason::ShuttingDown) => ": the gateway is stopping",
        Disconnect::Lost | Disconnect::TimedOut => ": is it a Bugle gateway that listens there?",
        _ => "",
    };
    Failure::NoConnection(format!("the connection ended ({end}){advice}"))
}

/// What it means for a command that the gateway, or the SDK in its stead, didn't do what was asked.
pub fn not_done(error: SendError) -> Failure {
    let reason = match error {
        SendError::Refused { reason, .. } => reason,
        SendError::TooLarge => Reason::TooLarge,
        SendError::ListTooLong => Reason::ListTooLong,
        SendError::NoRecipient => Reason::NoRecipient,
        SendError::BadName => Reason::BadName,
        SendError::BadTopic => Reason::BadTopic,
        SendError::BadOption => Reason::BadOption,
        SendError::TooMany => Reason::TooMany,
        other => return Failure::NoConnection(format!("the connection ended before an answer: {other}")),
    };
    let advice = match reason {
        Reason::TooLarge => "a payload is at most 8192 bytes",
        Reason::ListTooLong => "a list has at most 128 entries: send in several parts",
        Reason::NoRecipient => {
            "an --only list names nobody: name someone, or leave it out to reach the whole group"
        }
        Reason::RateLimited => "this client sends too fast: wait, and send fewer a second",
        Reason::BadName => "ids and group names are 1 to 64 of A-Z a-z 0-9 . _ : -",
        Reason::NotAuthorized => "the rules don't allow it for this client id",
        Reason::Overflow | Reason::Busy => "the gateway is overloaded: try again later",
        Reason::Expired => "its deadline passed first: give it a longer --ttl",
        _ => "see Reasons in docs/protocol.md",
    };
    let wait = match error {
        SendError::Refused { retry_after: wait @ 1.., .. } => format!(" (again in {wait} ms)"),
        _ => String::new(),
    };
    Failure::Refused(format!("refused: {reason}{wait}: {advice}"))
}
