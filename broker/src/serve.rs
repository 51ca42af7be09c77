//! The gateway as a whole: starts shards and listeners, waits for the signal to stop, and stops them in order.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bugle_core::hub::{ShardConfig, UserConnections};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{
    self, Access, Admin, AdminCounters, AdminTls, Api, OperatorsEnd, OperatorsReload, Shards,
};
use crate::audit::{AuditLog, AuditThread};
use crate::authentication;
use crate::authentication::hook::Hook;
use crate::authentication::operators::OperatorFile;
use crate::authentication::reload::CredentialsReload;
use crate::bridge::Bridges;
use crate::cli::ServeOptions;
use crate::config::{Config, ConfigError, Listener};
use crate::fifo::connect_shards;
use crate::handshake_thread::HandshakeThread;
use crate::listener::{Door, bind};
use crate::metrics::ProcessCounters;
use crate::reload_status::ReloadStatus;
use crate::rules_reload::RulesReload;
use crate::shard_thread::{self, Clock, Control, ShardHandle, ShardSender};
use crate::store::{self, Database, OpenError, ReadError, StoreHandle};
use crate::sys_topics;
use crate::tls_reload::TlsReload;
use crate::transport::TransportSettings;
use crate::transport::greeting::Admission;
use crate::transport::tls::TlsEndpoint;

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
    /// Passwords or secrets can't be used.
    #[error("{0}")]
    Credentials(String),
    /// The audit log can't be opened.
    #[error("cannot write the audit log {path}: {source}")]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or a key can't be used.
    #[error("[tls] {0}")]
    Tls(String),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What is kept can't be read.
    #[error(
        "the store can't be read: {0}. `bugle store verify` says more; with its files moved away the gateway starts empty"
    )]
    Restore(#[from] ReadError),
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
        let signal = loop {
            match signals.wait().await {
                RELOAD => gateway.reload(),
                signal => break signal,
            }
        };
        tracing::info!(signal, "stopping: clients are told");
        gateway.stop().await;
        tracing::info!("stopped");
        Ok(())
    })
}

/// A running gateway. Dropping it closes the listeners and leaves the shards to the end of the process.
pub struct Gateway {
    listeners_at: Vec<(SocketAddr, Listener)>,
    admin: Option<SocketAddr>,
    shards: Vec<ShardHandle>,
    listeners: JoinSet<()>,
    transports: Arc<TransportSettings>,
    has_certificates: bool,
    is_admin_tls: bool,
    audit: AuditLog,
    audit_thread: Option<AuditThread>,
    /// Asks for what is in files to be read again.
    reloads: Vec<Arc<Notify>>,
    bridges: Bridges,
    store: Option<StoreHandle>,
    _handshakes: HandshakeThread,
}

impl Gateway {
    /// Starts one. Must be called within a runtime, where its listeners then live.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        getrandom::fill(&mut [0; 8]).map_err(ServeError::Random)?;
        let database = match &config.store {
            Some(settings) => {
                tracing::info!(path = %settings.database().display(), durability = settings.durability.promise(), "what must last is kept");
                Some((Database::open(settings)?, settings.clone()))
            }
            None => None,
        };
        let tls = match &config.tls {
            None => None,
            Some(files) => Some((files.clone(), files.load().map_err(ServeError::Tls)?)),
        };
        let admin_tls = match (&config.tls, &config.admin_api) {
            (Some(files), Some(api)) if api.is_tls => {
                Some(AdminTls::new(files.load_for_operators().map_err(ServeError::Tls)?))
            }
            _ => None,
        };
        let operators = config.admin_api.as_ref().map(|api| OperatorFile::load(&api.operators)).transpose();
        let operators = operators.map_err(ServeError::Credentials)?;
        let addresses = config.listeners.iter().map(|listener| listener.address);
        let listeners = open(addresses, "--listen")?;
        let admin = open(config.admin, "--admin")?.pop();

        let clock = Clock::start();
        let opened = config.audit_log.as_deref().map(|path| {
            AuditLog::open(path).map_err(|source| ServeError::Audit { path: path.to_owned(), source })
        });
        let (audit, audit_thread) = opened.transpose()?.unzip();
        let audit: AuditLog = audit.unwrap_or_default();
        audit.record("started", &json!({"version": env!("CARGO_PKG_VERSION"), "pid": std::process::id()}));
        let counters = Arc::new(ProcessCounters::new(audit.clone()));
        let hook = config.hook.as_ref().map(|hook| Hook::new(hook, counters.clone())).transpose();
        let hook = hook.map_err(ServeError::Credentials)?;
        let known = config.credentials_place.load_known().map_err(ServeError::Credentials)?;
        let known = Arc::new(ArcSwap::from_pointee(known));
        let (authenticator, judge) = authentication::judge(known.clone(), hook, counters.clone());
        let store = database.map(|(database, settings)| {
            store::start(database, settings, config.shards, Box::new(move || clock.wall()))
        });
        let (store, mut store_ends) = match store.transpose()? {
            Some((store, ends)) => (Some(store), ends.into_iter()),
            None => (None, Vec::new().into_iter()),
        };
        let users = Arc::new(UserConnections::default());
        let mut shards = Vec::new();
        for (index, ends) in connect_shards(config.shards).into_iter().enumerate() {
            let shard = ShardConfig {
                index: index as u16,
                shards: config.shards,
                limits: config.limits.clone(),
                prefix: config.prefix.clone(),
                rules: config.rules.clone(),
                credentials: config.credentials.clone(),
                users: users.clone(),
                durable: store.is_some(),
                wall_at_start: clock.wall_at_start(),
            };
            let authenticator = authenticator.clone();
            let store_end = store_ends.next();
            let counters = counters.clone();
            shards.push(shard_thread::start(shard, ends, clock, counters, authenticator, store_end)?);
        }
        if let Some(store) = &store {
            // Nobody is served before all that was kept is there.
            store.wait_restored()?;
        }

        let senders: Vec<ShardSender> = shards.iter().map(|shard| shard.sender.clone()).collect();
        let max_frame = config.limits.max_packet;
        let transports =
            TransportSettings::new(config.origins.clone(), max_frame, config.client_name, counters.clone());
        let transports = Arc::new(transports);
        let handshakes = HandshakeThread::start()?;
        let door = Door::new(senders.clone(), config.limits.clone(), transports.clone(), handshakes.handle());
        let door = Arc::new(door);
        let gateway_id = random_id().map_err(ServeError::Random)?;
        let bridges = Bridges::start(&config.bridges, &config.prefix, &gateway_id, &door, &counters);
        let mut gateway = Self {
            listeners_at: Vec::new(),
            admin: None,
            shards,
            listeners: JoinSet::new(),
            transports,
            has_certificates: tls.is_some(),
            is_admin_tls: false,
            audit: audit.clone(),
            audit_thread,
            reloads: Vec::new(),
            bridges,
            store,
            _handshakes: handshakes,
        };
        let mut endpoints = Vec::new();
        for (listener, how) in listeners.into_iter().zip(&config.listeners) {
            let endpoint = match &tls {
                Some((_, base)) if how.in_clear.tls => {
                    Some(Arc::new(TlsEndpoint::new(base, how.max_fragment)))
                }
                _ => None,
            };
            endpoints.extend(endpoint.clone());
            let admission = Arc::new(Admission { in_clear: how.in_clear, in_tls: how.in_tls, tls: endpoint });
            gateway.listeners_at.push((listener.local_addr()?, how.clone()));
            let (ready, accept) = (gateway.bridges.ready(), door.clone().accept(listener, admission));
            gateway.listeners.spawn(async move {
                ready.await;
                accept.await;
            });
        }
        let reloads = Arc::new(ReloadStatus::new(audit.clone()));
        let admin_tls = admin_tls.map(Arc::new);
        if let Some((files, _)) = tls {
            let asked = Arc::new(Notify::new());
            let reload = TlsReload::new(files, endpoints, admin_tls.clone(), reloads.clone());
            gateway.listeners.spawn(reload.run(asked.clone()));
            gateway.reloads.push(asked);
        }
        let mut rules_reload = None;
        if let Some(place) = &config.rules_place {
            let asked = Arc::new(Notify::new());
            let (reload, way) = RulesReload::new(place.clone(), senders.clone(), reloads.clone());
            rules_reload = Some(way);
            gateway.listeners.spawn(reload.run(asked.clone()));
            gateway.reloads.push(asked);
        }
        gateway.listeners.spawn(judge.run());
        let place = &config.credentials_place;
        if place.has_files() {
            let asked = Arc::new(Notify::new());
            let reload = CredentialsReload::new(place.clone(), known, senders.clone(), reloads.clone());
            gateway.listeners.spawn(reload.run(asked.clone()));
            gateway.reloads.push(asked);
        }
        if let Some(period) = config.sys_interval {
            gateway.listeners.spawn(sys_topics::publish(
                senders.clone(),
                gateway.bridges.statuses(),
                clock,
                period,
            ));
        }
        if let Some(listener) = admin {
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "health and metrics can be read from other machines by anyone");
            }
            gateway.admin = Some(address);
            let bridges = gateway.bridges.statuses();
            let store = gateway.store.as_ref().map(StoreHandle::health);
            let shards = Shards::new(senders);
            let admin_counters = Arc::new(AdminCounters::default());
            let operators = match (&config.admin_api, operators) {
                (Some(api), Some(file)) => {
                    let known = Arc::new(ArcSwap::from_pointee(file));
                    let asked = Arc::new(Notify::new());
                    let reload = OperatorsReload::new(api.operators.clone(), known.clone(), reloads.clone());
                    gateway.listeners.spawn(reload.run(asked.clone()));
                    gateway.reloads.push(asked);
                    let access =
                        Access::new(known, api.requests_per_second, admin_counters.clone(), audit.clone());
                    Some(OperatorsEnd { access, api: Api { shards: shards.clone(), rules: rules_reload } })
                }
                _ => None,
            };
            let has_websocket = config.admin_has_websocket;
            let admin = Admin {
                has_websocket,
                shards,
                admin_counters,
                counters,
                clock,
                door,
                bridges,
                reloads,
                store,
            };
            gateway.is_admin_tls = admin_tls.is_some();
            gateway.listeners.spawn(admin::serve(listener, admin_tls, admin, operators));
        }
        Ok(gateway)
    }

    /// Where clients connect, or some of them if there are several listeners.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners_at.first().map(|(address, _)| *address)
    }

    /// Reads again what can be read again, and opens the audit log anew.
    fn reload(&self) {
        self.audit.reopen();
        if !self.has_certificates {
            tracing::info!("there are no certificates to be read again");
        }
        self.reloads.iter().for_each(|reload| reload.notify_one());
    }

    /// Accepts no more, tells every client, and waits for the shards to end, three seconds at most.
    pub async fn stop(mut self) {
        self.transports.stop();
        self.listeners.shutdown().await;
        self.bridges.stop().await;
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
        self.audit.record("stopped", &json!({}));
        if self.audit_thread.is_some_and(|thread| !thread.stop(STOP)) {
            tracing::error!("the audit log was not written to its end in time");
        }
        if let Some(store) = self.store
            && !store.stop(STOP)
        {
            tracing::error!(
                "the store did not commit everything in time; what it has not, nobody was told that it has"
            );
        }
    }

    /// What is listening, and what to try.
    fn greeting(&self, prefix: &str) -> String {
        let mut text = format!("Bugle {}, {} shard(s)\n", env!("CARGO_PKG_VERSION"), self.shards.len());
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{line}");
        };
        for (address, listener) in &self.listeners_at {
            line(format_args!("  {:<32} {address}", listener.to_string()));
        }
        let websocket = self.listeners_at.iter().find(|(_, listener)| listener.in_clear.websocket);
        if let Some((address, listener)) = websocket {
            let is_tls = self.has_certificates && listener.in_clear.tls;
            let tls = if is_tls { ", and all of it within TLS" } else { "" };
            line(format_args!("  MQTT in a WebSocket              ws://{address}/mqtt{tls}"));
        }
        if let Some(address) = self.admin {
            let scheme = if self.is_admin_tls { "https" } else { "http" };
            line(format_args!(
                "  health and metrics               {scheme}://{address}/healthz  {scheme}://{address}/metrics"
            ));
        }
        let port = self.address().map_or(1883, |address| address.port());
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

/// An id of this process among all that a message may come through.
fn random_id() -> Result<Arc<str>, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)).into())
}

fn open(
    addresses: impl IntoIterator<Item = SocketAddr>,
    option: &'static str,
) -> Result<Vec<TcpListener>, ServeError> {
    let one = |address| bind(address).map_err(|source| ServeError::Listen { address, option, source });
    addresses.into_iter().map(one).collect()
}

/// The signal to read certificates, rules and credentials again.
const RELOAD: &str = "SIGHUP";

/// The signals that the process obeys.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them, and says which it was.
    async fn wait(&mut self) -> &'static str {
        #[cfg(unix)]
        let (terminated, hung_up) = (self.terminate.recv(), self.hang_up.recv());
        #[cfg(not(unix))]
        let (terminated, hung_up) =
            (std::future::pending::<Option<()>>(), std::future::pending::<Option<()>>());
        // All are cancel-safe.
        tokio::select! {
            _ = terminated => "SIGTERM",
            _ = hung_up => RELOAD,
            _ = tokio::signal::ctrl_c() => "SIGINT",
        }
    }
}
