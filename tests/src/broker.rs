//! Foreign brokers on a port of their own, which can be killed and started again on it; and a link to one that can be cut.

use std::net::TcpListener as StdTcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::{Gateway, PATIENCE, Program, soon, source};

/// What a client can connect to, on 127.0.0.1.
pub trait Listens {
    /// Its port.
    fn port(&self) -> u16;
}

impl Listens for u16 {
    fn port(&self) -> u16 {
        *self
    }
}

impl Listens for Gateway {
    fn port(&self) -> u16 {
        self.port
    }
}

/// A folder of the test's own, which goes when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bugle-scratch-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes one, and says where it is.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker: Mosquitto or rumqttd.
pub struct Broker {
    program: Option<Program>,
    command: (PathBuf, Vec<String>),
    /// Ports that have to answer before it counts as started.
    ports: Vec<u16>,
    _scratch: Scratch,
}

impl Listens for Broker {
    fn port(&self) -> u16 {
        self.ports[0]
    }
}

impl Broker {
    /// Mosquitto, with these lines in its configuration. It keeps sessions and retained messages over a kill, and has no
    /// bound of its own for what is in flight: 2.0.11 overtakes what waits for one, when a subscriber comes back.
    pub async fn mosquitto(lines: &str) -> Self {
        let mut broker = Self::mosquitto_later(lines);
        broker.start().await;
        broker
    }

    /// The same, not yet started.
    pub fn mosquitto_later(lines: &str) -> Self {
        let (scratch, port) = (Scratch::new(), free_port());
        let folder = scratch.path("").display().to_string();
        // It would change to a user of its own, which can't read the folder.
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let config = format!(
            "user {user}\npersistence true\npersistence_location {folder}\nautosave_on_changes true\n\
             autosave_interval 1\nmax_queued_messages 0\nmax_inflight_messages 0\nlistener {port} 127.0.0.1\n{lines}\n"
        );
        let file = scratch.write("mosquitto.conf", &config);
        let program = [Path::new("/usr/sbin/mosquitto"), Path::new("/usr/local/sbin/mosquitto")];
        let program = program.into_iter().find(|path| path.exists()).unwrap_or(Path::new("mosquitto"));
        let command = (program.to_owned(), vec!["-c".to_owned(), file]);
        Self { program: None, command, ports: vec![port], _scratch: scratch }
    }

    /// rumqttd, which has a port for each version; gives the broker, whose port is that of version 5, and the port of
    /// version 3.1.1.
    pub async fn rumqttd() -> (Self, u16) {
        let (scratch, ports) = (Scratch::new(), [free_port(), free_port(), free_port()]);
        let [v5, v311, console] = ports;
        let server = |name: &str, port: u16| {
            format!(
                "[{name}.1]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
                 [{name}.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 1048576\n\
                 max_inflight_count = 100\ndynamic_filters = true\n"
            )
        };
        let config = format!(
            "id = 0\n[router]\nid = 0\nmax_connections = 100\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n{}{}[console]\nlisten = \"127.0.0.1:{console}\"\n",
            server("v5", v5),
            server("v4", v311),
        );
        let file = scratch.write("rumqttd.toml", &config);
        let command = (rumqttd_program().clone(), vec![file]);
        let mut broker = Self { program: None, command, ports: vec![v5, v311], _scratch: scratch };
        broker.start().await;
        (broker, v311)
    }

    /// Starts it, on the port that it had before, and waits until it takes connections.
    pub async fn start(&mut self) {
        let (program, arguments) = &self.command;
        self.program = Some(Program::start(program, arguments));
        for &port in &self.ports {
            let started = std::time::Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(started.elapsed() < PATIENCE, "nobody listens on {port}: {}", self.seen());
                sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }

    /// Ends it without a warning (SIGKILL).
    pub async fn kill(&mut self) {
        let program = self.program.take().expect("it runs");
        program.signal("KILL").await;
        program.finish().await;
    }

    /// What it has written so far.
    pub fn seen(&self) -> String {
        self.program.as_ref().map(Program::seen).unwrap_or_default()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    StdTcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `tests/rumqttd-peer`, built when it is first wanted.
fn rumqttd_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source("target"), PathBuf::from);
        let target = source("").join(target).join("peers");
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--release", "--locked", "--manifest-path"]);
        command.arg(source("tests/rumqttd-peer/Cargo.toml")).arg("--target-dir").arg(&target);
        let built = command.output().unwrap();
        assert!(built.status.success(), "rumqttd doesn't build: {}", String::from_utf8_lossy(&built.stderr));
        target.join("release/rumqttd-peer")
    })
}

/// A link to a port, which can be cut and come back.
pub struct Link {
    port: u16,
    is_up: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listens for Link {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Link {
    /// To this port.
    pub async fn to(far: &impl Listens) -> Self {
        let far = far.port();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_up, state) = watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", far)).await else { return };
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    // Whatever was on its way when it is cut is lost.
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Self { port, is_up, task }
    }

    /// Cuts every connection; new ones go through.
    pub fn cut(&self) {
        self.is_up.send_replace(true);
    }

    /// Cuts every connection, and new ones until [`Self::mend`].
    pub fn sever(&self) {
        self.is_up.send_replace(false);
    }

    /// Lets connections through.
    pub fn mend(&self) {
        self.is_up.send_replace(true);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A subscriber with a session that lasts, which comes back whenever it is thrown out. QoS 1, MQTT 3.1.1.
pub struct Collector {
    texts: tokio::sync::mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Of what comes on `filter`, from the moment this returns.
    pub async fn start(server: &impl Listens, id: &str, filter: &str) -> Self {
        let mut options = rumqttc::MqttOptions::new(id, "127.0.0.1", server.port());
        options.set_clean_session(false).set_keep_alive(std::time::Duration::from_secs(30));
        let (client, mut connection) = rumqttc::AsyncClient::new(options, 16);
        let (tell, texts) = tokio::sync::mpsc::unbounded_channel();
        let (tell_subscribed, mut subscribed) = watch::channel(false);
        let filter = filter.to_owned();
        let task = tokio::spawn(async move {
            loop {
                match connection.poll().await {
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_))) => {
                        client.subscribe(&filter, rumqttc::QoS::AtLeastOnce).await.unwrap();
                    }
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) => {
                        tell_subscribed.send_replace(true);
                    }
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish))) => {
                        // Nobody may want more of them.
                        let _ = tell.send(String::from_utf8_lossy(&publish.payload).into_owned());
                    }
                    Ok(_) => {}
                    Err(_) => sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        });
        soon("the SUBACK", subscribed.wait_for(|subscribed| *subscribed)).await.unwrap();
        Self { texts, task }
    }

    /// The next text.
    pub async fn next(&mut self) -> String {
        soon("a message", self.texts.recv()).await.expect("it goes on for ever")
    }

    /// All texts up to this one.
    pub async fn until(&mut self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            texts.push(self.next().await);
        }
        texts
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}
