//! A page in Chromium: served by the test, and telling it what happens by `POST /told`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::{Program, soon};

/// What is served: path, media type, content.
pub type File = (&'static str, &'static str, Vec<u8>);

/// A browser without a window, in a folder of its own, that shows a page.
pub struct Browser {
    program: Program,
    told: UnboundedReceiver<String>,
    server: JoinHandle<()>,
    folder: PathBuf,
}

impl Browser {
    /// Serves these files on a port of its own, and opens one of them; `page` may have a query.
    pub async fn show(page: &str, files: Vec<File>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("bugle-test-chromium-{}-{number}", std::process::id()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{page}", listener.local_addr().unwrap());
        let (tell, told) = unbounded_channel();
        let server = tokio::spawn(serve(listener, Arc::new(files), tell));
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", folder.display())).arg(url).stdin(Stdio::null());
        Self { program: Program::spawn(command), told, server, folder }
    }

    /// What the page tells next.
    pub async fn told(&mut self) -> String {
        let told = soon("word from the page", self.told.recv()).await;
        told.unwrap_or_else(|| panic!("nothing more from {}", self.program.seen()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.server.abort();
        // The system clears its temporary files in any case.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve(listener: TcpListener, files: Arc<Vec<File>>, tell: UnboundedSender<String>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (files, tell) = (files.clone(), tell.clone());
        // A browser may end in the middle of a request.
        tokio::spawn(async move { drop(answer(stream, &files, &tell).await) });
    }
}

async fn answer(stream: TcpStream, files: &[File], tell: &UnboundedSender<String>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await?;
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).await?;
        let field = field.trim().to_ascii_lowercase();
        if let Some(text) = field.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if field.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, kind, body) = match files.iter().find(|(name, ..)| *name == path) {
        Some((_, kind, content)) => ("200 OK", *kind, content.as_slice()),
        None if path == "/told" => {
            let mut text = vec![0; length];
            stream.read_exact(&mut text).await?;
            // The test may have heard enough.
            let _ = tell.send(String::from_utf8(text).unwrap());
            ("200 OK", "text/plain", [].as_slice())
        }
        None => ("404 Not Found", "text/plain", [].as_slice()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await
}
