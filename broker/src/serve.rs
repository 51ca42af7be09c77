//! The gateway as a whole: starts shards and listeners, waits for the signal to stop, and stops them in order.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bugle_core::hub::ShardConfig;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{self, Admin};
use crate::cli::ServeOptions;
use crate::config::{Config, ConfigError};
use crate::fifo::connect_shards;
use crate::listener::{Door, bind};
use crate::metrics::ProcessCounters;
use crate::shard_thread::{self, Clock, Control, ShardHandle, ShardSender};

/// How long a stop may take: two seconds for the clients, and some for the threads.
const STOP: Duration = Duration::from_secs(3);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is no good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {source}. {}", advice(.option, .source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The option that says where.
        option: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The data directory could not be made.
    #[error("cannot use {path} as data directory: {source}. Name another with --data-dir")]
    DataDirectory {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The system gave no thread or other resource.
    #[error("the system refused a resource: {0}")]
    System(#[from] io::Error),
}

fn advice(option: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "Another program has that port (another bugle or mosquitto?): stop it, or choose another with {option}"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("Ports under 1024 need privileges: choose a higher one with {option}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("This machine has no such address: choose one it has with {option}")
        }
        _ => format!("Choose another address with {option}"),
    }
}

/// A runtime for the calling thread.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves until a signal to stop.
pub fn run(options: &ServeOptions) -> Result<(), ServeError> {
    if options.print_config {
        io::stdout().write_all(Config::print(options)?.as_bytes())?;
        return Ok(());
    }
    let config = Config::load(options)?;
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let gateway = Gateway::start(&config)?;
        // Whoever started it may not listen, and is served all the same.
        let _ = io::stdout().write_all(gateway.greeting(&config.prefix).as_bytes());
        let signal = signals.wait().await;
        tracing::info!(signal, "stopping: clients are told");
        gateway.stop().await;
        tracing::info!("stopped");
        Ok(())
    })
}

/// A running gateway. Dropping it closes the listeners and leaves the shards to the end of the process.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    shards: Vec<ShardHandle>,
    listeners: JoinSet<()>,
}

impl Gateway {
    /// Starts one. Must be called within a runtime, where its listeners then live.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        getrandom::fill(&mut [0; 8]).map_err(ServeError::Random)?;
        if let Some(path) = &config.data_dir {
            std::fs::create_dir_all(path)
                .map_err(|source| ServeError::DataDirectory { path: path.display().to_string(), source })?;
            tracing::info!(path = %path.display(), "the data directory is there; this version stores nothing in it yet");
        }
        let listeners = open(&config.listen, "--listen")?;
        let admin = open(config.admin.as_slice(), "--admin")?.pop();

        let clock = Clock::start();
        let counters = Arc::new(ProcessCounters::default());
        let mut shards = Vec::new();
        for (index, ends) in
            connect_shards(config.shards, config.limits.fifo_envelopes).into_iter().enumerate()
        {
            let shard = ShardConfig {
                index: index as u16,
                shards: config.shards,
                limits: config.limits.clone(),
                prefix: config.prefix.clone(),
                rules: config.rules.clone(),
                credentials: config.credentials.clone(),
            };
            shards.push(shard_thread::start(shard, ends, clock, counters.clone())?);
        }

        let senders: Vec<ShardSender> = shards.iter().map(|shard| shard.sender.clone()).collect();
        let mut gateway = Self { addresses: Vec::new(), admin: None, shards, listeners: JoinSet::new() };
        let door = Arc::new(Door::new(senders.clone(), config.limits.clone(), counters.clone()));
        for listener in listeners {
            gateway.addresses.push(listener.local_addr()?);
            gateway.listeners.spawn(door.clone().accept(listener));
        }
        if let Some(listener) = admin {
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "health and metrics can be read from other machines by anyone");
            }
            gateway.admin = Some(address);
            gateway.listeners.spawn(admin::serve(listener, Admin { shards: senders, counters, clock }));
        }
        Ok(gateway)
    }

    /// Where clients connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts no more, tells every client, and waits for the shards to end, three seconds at most.
    pub async fn stop(mut self) {
        self.listeners.shutdown().await;
        let ended = async {
            for shard in &self.shards {
                // An error says that it has ended already.
                let _ = shard.sender.control.send(Control::ShutDown).await;
            }
            for shard in &mut self.shards {
                let _ = (&mut shard.ended).await;
            }
        };
        if timeout(STOP, ended).await.is_err() {
            return tracing::warn!("a shard did not end in time");
        }
        self.shards.into_iter().for_each(ShardHandle::join);
    }

    /// What is listening, and what to try.
    fn greeting(&self, prefix: &str) -> String {
        let mut text = format!("Bugle {}, {} shard(s)\n", env!("CARGO_PKG_VERSION"), self.shards.len());
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{line}");
        };
        for address in &self.addresses {
            line(format_args!("  MQTT 3.1.1, MQTT 5 and devices   {address}"));
        }
        if let Some(address) = self.admin {
            line(format_args!(
                "  health and metrics               http://{address}/healthz  http://{address}/metrics"
            ));
        }
        let port = self.addresses.first().map_or(1883, SocketAddr::port);
        let (server, mqtt) = match port {
            1883 => (String::new(), String::new()),
            port => (format!(" --server 127.0.0.1:{port}"), format!(" -p {port}")),
        };
        line(format_args!("Try, in other terminals:"));
        line(format_args!("  bugle watch --group demo{server}"));
        line(format_args!("  mosquitto_sub{mqtt} -i me -q 1 -t '{prefix}/g/demo'"));
        line(format_args!("  bugle send --group demo{server} --receipt each \"hello\""));
        text
    }
}

fn open(addresses: &[SocketAddr], option: &'static str) -> Result<Vec<TcpListener>, ServeError> {
    let one = |&address: &SocketAddr| {
        bind(address).map_err(|source| ServeError::Listen { address, option, source })
    };
    addresses.iter().map(one).collect()
}

/// The signals that stop the process.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them, and says which it was.
    async fn wait(&mut self) -> &'static str {
        #[cfg(unix)]
        let terminated = self.terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        // Both are cancel-safe.
        tokio::select! {
            _ = terminated => "SIGTERM",
            _ = tokio::signal::ctrl_c() => "SIGINT",
        }
    }
}
