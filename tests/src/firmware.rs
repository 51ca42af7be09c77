//! A board that QEMU emulates, with firmware of ours on it, its log decoded line by line.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};

use defmt_decoder::{DecodeError, Table};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::{Listens, PATIENCE, soon};

/// The processor of the emulated board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Cortex-M3, on `mps2-an385`.
    M3,
    /// Cortex-M4, on `mps2-an386`.
    M4,
}

impl Core {
    const fn target(self) -> &'static str {
        match self {
            Self::M3 => "thumbv7m-none-eabi",
            Self::M4 => "thumbv7em-none-eabihf",
        }
    }

    const fn machine(self) -> [&'static str; 4] {
        match self {
            Self::M3 => ["-M", "mps2-an385", "-cpu", "cortex-m3"],
            Self::M4 => ["-M", "mps2-an386", "-cpu", "cortex-m4"],
        }
    }
}

/// A running board. It ends with this value.
pub struct Firmware {
    name: String,
    child: Child,
    serial: TcpStream,
    monitor: BufReader<TcpStream>,
    log: UnboundedReceiver<String>,
    seen: Arc<Mutex<String>>,
}

impl Firmware {
    /// Boots the image `lamp` or `exercise`, or `tls/exercise` of the build with TLS, as this client of the gateway, with more
    /// settings as `key=value`.
    pub async fn boot(gateway: &impl Listens, core: Core, image: &str, id: &str, settings: &[&str]) -> Self {
        let (build, image) = match image.strip_prefix("tls/") {
            Some(image) => (Build::Tls, image),
            None => (Build::Plain, image),
        };
        let image = images(core, build).join(image);
        let serial = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let monitor = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let mut semihosting =
            format!("enable=on,target=native,arg=firmware,arg=id={id},arg=port={}", gateway.port());
        for setting in settings {
            semihosting += &format!(",arg={setting}");
        }
        let mut command = Command::new("qemu-system-arm");
        command.args(core.machine());
        command.args(["-display", "none", "-nic", "user,model=lan9118,id=net0"]);
        command.args(["-serial", &format!("tcp:127.0.0.1:{}", port(&serial))]);
        command.args(["-qmp", &format!("tcp:127.0.0.1:{}", port(&monitor))]);
        command.args(["-semihosting-config", &semihosting, "-kernel"]).arg(&image);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start QEMU: {error}"));
        let (serial, _) = soon("QEMU's serial line", serial.accept()).await.unwrap();
        let (monitor, _) = soon("QEMU's monitor", monitor.accept()).await.unwrap();
        let elf = std::fs::read(&image).unwrap();
        let table = Table::parse(&elf).unwrap().expect("firmware that logs by defmt");
        let (tell, log) = unbounded_channel();
        let seen = Arc::new(Mutex::new(String::new()));
        tokio::spawn(decode(table, child.stdout.take().unwrap(), tell, seen.clone()));
        let monitor = BufReader::new(monitor);
        let mut firmware = Self { name: id.to_owned(), child, serial, monitor, log, seen };
        firmware.order("qmp_capabilities", serde_json::json!({})).await;
        firmware
    }

    /// Boots the image that does what it is told, and waits until it is connected.
    pub async fn exercise(gateway: &impl Listens, id: &str, settings: &[&str]) -> Self {
        let mut firmware = Self::boot(gateway, Core::M3, "exercise", id, settings).await;
        firmware.line("ready").await;
        firmware.line("connected false").await;
        firmware
    }

    /// The same image of the build with TLS, whose settings say whom it trusts; it may not get connected.
    pub async fn exercise_in_tls(gateway: &impl Listens, id: &str, settings: &[&str]) -> Self {
        let mut firmware = Self::boot(gateway, Core::M3, "tls/exercise", id, settings).await;
        firmware.line("ready").await;
        firmware
    }

    /// The image that does what it is told, connected, as a member of a group.
    pub async fn member(gateway: &impl Listens, id: &str, group: &str, settings: &[&str]) -> Self {
        let mut firmware = Self::exercise(gateway, id, settings).await;
        firmware.does(&format!("join {group}"), "joined").await;
        firmware
    }

    /// The image with an outbox in flash, connected.
    pub async fn outbox(gateway: &impl Listens, id: &str, settings: &[&str]) -> Self {
        let mut firmware = Self::boot(gateway, Core::M3, "outbox", id, settings).await;
        firmware.line("ready").await;
        firmware.line("connected").await;
        firmware
    }

    /// The next line of its log with `part` in it; those before it are passed over.
    #[track_caller]
    pub fn line(&mut self, part: &str) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let found = async {
                while let Some(line) = self.log.recv().await {
                    if line.contains(part) {
                        return Some(line);
                    }
                }
                None
            };
            match timeout(PATIENCE, found).await {
                Ok(Some(line)) => line,
                _ => panic!("no line with {part:?} ({place}) in {}", self.seen()),
            }
        }
    }

    /// Writes a line to its serial port.
    pub async fn tell(&mut self, line: &str) {
        self.serial.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The same, and waits for a line of its log with `part` in it.
    pub async fn does(&mut self, line: &str, part: &str) -> String {
        self.tell(line).await;
        self.line(part).await
    }

    /// Sends, and gives the statuses of its receipt, sorted.
    pub async fn send(&mut self, what: &str) -> Vec<String> {
        self.tell(&format!("send {what}")).await;
        let mut statuses = Vec::new();
        loop {
            let line = self.line("").await;
            if let Some(status) = line.strip_prefix("status ") {
                statuses.push(status.to_owned());
            } else if line.starts_with("receipt ") {
                statuses.sort();
                return statuses;
            } else if line.starts_with("refused") || line.starts_with("failed") {
                panic!("{what}: {line}");
            }
        }
    }

    /// The words of the next signal that it got: mode, sender, group, milliseconds left, length, text.
    pub async fn got(&mut self) -> Vec<String> {
        let line = self.line("got ").await;
        line.split(' ').skip(1).map(str::to_owned).collect()
    }

    /// Pulls its network cable out, or puts it in.
    pub async fn set_link(&mut self, is_up: bool) {
        self.order("set_link", serde_json::json!({"name": "net0", "up": is_up})).await;
    }

    /// Resets it. Its memory keeps what start-up code doesn't write.
    pub async fn reset(&mut self) {
        self.order("system_reset", serde_json::json!({})).await;
    }

    /// Waits for its end, and gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        soon("the firmware's end", self.child.wait()).await.unwrap().code()
    }

    /// What it has logged so far.
    pub fn seen(&self) -> String {
        format!("the log of {}:\n{}", self.name, self.seen.lock().unwrap())
    }

    /// Has QEMU do something, and waits until it has.
    async fn order(&mut self, what: &str, arguments: serde_json::Value) {
        let order = serde_json::json!({"execute": what, "arguments": arguments}).to_string();
        self.monitor.get_mut().write_all(order.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains("\"return\"") {
            answer.clear();
            soon("QEMU's answer", self.monitor.read_line(&mut answer)).await.unwrap();
            assert!(!answer.is_empty() && !answer.contains("\"error\""), "{what}: {answer}");
        }
    }
}

async fn decode(
    table: Table,
    mut output: ChildStdout,
    tell: UnboundedSender<String>,
    seen: Arc<Mutex<String>>,
) {
    let mut decoder = table.new_stream_decoder();
    let mut bytes = vec![0; 4096];
    while let Ok(length @ 1..) = output.read(&mut bytes).await {
        decoder.received(&bytes[..length]);
        loop {
            let line = match decoder.decode() {
                Ok(frame) => {
                    let line = frame.display_message().to_string();
                    let time = frame.display_timestamp().map(|time| time.to_string()).unwrap_or_default();
                    seen.lock().unwrap().push_str(&format!("{time} {line}\n"));
                    line
                }
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => "not a line of defmt".to_owned(),
            };
            // Whoever listened may be gone.
            let _ = tell.send(line);
        }
    }
}

/// What the firmware is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Plain,
    Tls,
}

impl Build {
    /// Its folder below the target's.
    const fn folder(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls => "tls",
        }
    }

    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Tls => &["--features", "bugle-qemu-mps2/tls"],
        }
    }
}

/// Where the firmware's images are: in the folder of this target that `BUGLE_FIRMWARE` has, else where cargo puts them.
fn images(core: Core, build: Build) -> &'static PathBuf {
    static IMAGES: [[OnceLock<PathBuf>; 2]; 2] = [const { [const { OnceLock::new() }; 2] }; 2];
    IMAGES[core as usize][build as usize].get_or_init(|| match std::env::var_os("BUGLE_FIRMWARE") {
        Some(folder) => Path::new(&folder).join(build.folder()).join(core.target()).join("release"),
        None => build_images(core, build),
    })
}

fn build_images(core: Core, build: Build) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("firmware-example");
    let mut command = std::process::Command::new("../tests/thumb-toolchain");
    command.current_dir(&folder).args(["build", "--release", "--locked", "--target", core.target()]);
    command.args(build.features());
    // A folder of its own, whatever folder these tests are built in.
    let target = folder.join("target").join(build.folder());
    command.env("CARGO_TARGET_DIR", &target);
    let built = command.output().unwrap();
    assert!(built.status.success(), "no firmware:\n{}", String::from_utf8_lossy(&built.stderr));
    target.join(core.target()).join("release")
}
