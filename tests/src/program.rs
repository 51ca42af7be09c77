//! A program that a test runs: its lines as they come, and how it ended. It is killed when it is dropped.

use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    lines: UnboundedReceiver<String>,
    out: Pipe,
    err: Pipe,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// All of stdout.
    pub out: String,
    /// All of stderr.
    pub err: String,
}

/// One of its outputs.
struct Pipe {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    fn read(source: impl AsyncRead + Unpin + Send + 'static, tell: UnboundedSender<String>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let seen = text.clone();
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(source).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line).into_owned();
                seen.lock().unwrap().push_str(&format!("{line}\n"));
                // Nobody may want single lines.
                let _ = tell.send(line);
            }
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

impl Program {
    /// Starts `program` with these arguments, and nothing on stdin.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Runs `program` to its end with `input` on stdin.
    pub async fn run(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Finished {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        let mut program = Self::spawn(command);
        if let Some(mut stdin) = program.child.stdin.take() {
            // It may end without reading it.
            let _ = stdin.write_all(input).await;
        }
        program.finish().await
    }

    /// Starts what `command` says.
    pub fn spawn(mut command: Command) -> Self {
        // A group of its own: what a shell starts in turn has to end with it.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
        command.env_remove("RUST_LOG");
        let name = format!("{:?}", command.as_std());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (tell, lines) = unbounded_channel();
        let out = Pipe::read(child.stdout.take().unwrap(), tell.clone());
        let err = Pipe::read(child.stderr.take().unwrap(), tell);
        Self { name, child, lines, out, err }
    }

    fn kill_group(&self) {
        // None once it has ended and was waited for: then the group may be someone else's.
        if let Some(id) = self.child.id() {
            let group = format!("-{id}");
            let _ = std::process::Command::new("kill")
                .args(["-KILL", "--", &group])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it hasn't been waited for")
    }

    /// The next line of either output that has `part` in it; those before it are passed over.
    #[track_caller]
    pub fn line(&mut self, part: &str) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let found = async {
                while let Some(line) = self.lines.recv().await {
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

    /// A line with `part` that has already been written, if there is one.
    pub fn has_written(&self, part: &str) -> bool {
        self.out.text().contains(part) || self.err.text().contains(part)
    }

    /// Waits for its end.
    pub async fn finish(mut self) -> Finished {
        let Ok(status) = timeout(PATIENCE, self.child.wait()).await else {
            panic!("it goes on and on: {}", self.seen())
        };
        for pipe in [&mut self.out, &mut self.err] {
            // A program that it started may hold the pipe open.
            let _ = timeout(PATIENCE, &mut pipe.reader).await;
        }
        let code = status.unwrap().code().unwrap_or(-1);
        Finished { code, out: self.out.text(), err: self.err.text() }
    }

    /// Sends it a signal by the name that kill(1) has for it.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status().await;
        assert!(status.unwrap().success());
    }

    /// What it has written so far, for a person.
    pub fn seen(&self) -> String {
        format!("{}\n-- stdout\n{}-- stderr\n{}", self.name, self.out.text(), self.err.text())
    }
}

impl Finished {
    /// Panics unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}
