//! A gateway of the test's own, on free ports of the loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;

use crate::{Finished, PATIENCE, Program, bugle_program, soon};

/// What a gateway is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// With so many shards.
    pub fn shards(shards: u16) -> Self {
        Self::default().argument("--shards").argument(&shards.to_string())
    }

    /// With these lines in its configuration file.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config += lines;
        self.config += "\n";
        self
    }

    /// With one more argument of `bugle serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it says that it listens.
    pub async fn start(self) -> Gateway {
        let file = ConfigFile::new(&self.config);
        let mut arguments: Vec<String> =
            ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]
                .map(String::from)
                .into();
        arguments.push(file.0.display().to_string());
        arguments.extend(self.arguments);
        let mut command = Command::new(bugle_program());
        command.args(&arguments).envs(self.environment).stdin(Stdio::null());
        let mut program = Program::spawn(command);
        let address = |line: &str| {
            let digits = |text: &str| text.split('/').next().and_then(|text| text.parse::<SocketAddr>().ok());
            let bare =
                |word: &'_ str| digits(word.trim_start_matches("http://").trim_start_matches("https://"));
            line.split_whitespace().find_map(bare)
        };
        let clients = address(&program.line("MQTT 5 and devices").await).unwrap();
        let admin = address(&program.line("/metrics").await).unwrap();
        Gateway { program, port: clients.port(), admin, _file: file }
    }
}

/// A running gateway.
pub struct Gateway {
    program: Program,
    /// Where clients connect, on 127.0.0.1.
    pub port: u16,
    /// Where metrics are.
    pub admin: SocketAddr,
    _file: ConfigFile,
}

impl Gateway {
    /// With its defaults, and so many shards.
    pub async fn start(shards: u16) -> Self {
        Setup::shards(shards).start().await
    }

    /// The address as a command line wants it.
    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new socket to it.
    pub async fn connect(&self) -> TcpStream {
        self.connect_to(self.port).await
    }

    /// A new socket to one of its listeners, by what the gateway calls it when it starts.
    pub async fn connect_to_listener(&self, name: &str) -> TcpStream {
        let seen = self.seen();
        let address = seen.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok());
        let address: SocketAddr = address.unwrap_or_else(|| panic!("no listener {name:?} in {seen}"));
        self.connect_to(address.port()).await
    }

    /// A new socket to this port.
    pub async fn connect_to(&self, port: u16) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Status line and body of the admin listener's answer to `GET path`.
    pub async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer of the admin listener", stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// One number of `/metrics`, by its name with labels, as `bugle_refused_total{reason="TOO_LARGE"}`.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.parse::<f64>().unwrap() as u64
    }

    /// Waits until a number is as wanted. Counters have no event, so it asks again.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, is_wanted: impl Fn(u64) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let started = Instant::now();
            loop {
                let value = self.metric(name).await;
                if is_wanted(value) {
                    return;
                }
                assert!(started.elapsed() < PATIENCE, "{name} is still {value} ({place}): {}", self.seen());
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits until something lies unread in one of its sockets of this port, by what Linux says of them.
    pub async fn wait_unread(&self, port: u16) {
        let wanted = format!(":{port:04X}");
        let has_unread = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            // Local address, state (01 is established), and the queues: to send, and received.
            let [_, local, _, "01", queues, ..] = words[..] else { return false };
            local.ends_with(&wanted) && !queues.ends_with(":00000000")
        };
        let unread = async {
            while !std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(has_unread) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("something unread", unread).await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.program.id()
    }

    /// Memory that the process has in RAM, in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends its process a signal by the name that kill(1) has for it.
    pub async fn signal(&self, name: &str) {
        self.program.signal(name).await;
    }

    /// Asks it to stop, as a service manager does.
    pub async fn terminate(&self) {
        self.program.signal("TERM").await;
    }

    /// Holds all of it (SIGSTOP). The kernel takes what comes to its sockets all the same.
    pub async fn suspend(&self) {
        self.program.signal("STOP").await;
    }

    /// Asks it to read its certificates again, and waits until it says how that went.
    pub async fn reload(&mut self) -> String {
        self.program.signal("HUP").await;
        self.program.line("certificates").await
    }

    /// Ends it without a warning (SIGKILL).
    pub async fn kill(self) {
        self.program.signal("KILL").await;
        self.finish().await;
    }

    /// Waits for its end.
    pub async fn finish(self) -> Finished {
        self.program.finish().await
    }

    /// What it has written so far.
    pub fn seen(&self) -> String {
        self.program.seen()
    }
}

/// A configuration file, which goes when this is dropped.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn new(text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bugle-test-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_file(&self.0);
    }
}
