//! The audit log: who came in, who didn't and why, who went, who moderated whom, who changed what; as a line of JSON each.
//!
//! Lines go through a bounded queue to a thread of their own, so that a slow disk holds up no message: what finds the queue full is
//! dropped and counted. What strangers can cause without number, refusals above all, has a budget of [`STRANGERS`] lines a second; what
//! is over it is counted in a line of its own. The file is only ever appended to, and opened anew on SIGHUP, so that whatever rotates
//! logs may move it away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bugle_core::hub::{AuditEvent, ConnectionKey, EachNumber};
use serde_json::{Value, json};
use slotmap::Key;
use time::OffsetDateTime;

/// Lines that wait for the disk.
const QUEUE: usize = 16 * 1024;
/// Lines a second about those who aren't in.
const STRANGERS: u32 = 100;
/// Bytes that are written at a time, about.
const BATCH: usize = 64 * 1024;
/// Longest text in a line that somebody else chose, in characters.
const MAX_TEXT: usize = 512;
/// How often the thread looks about when nothing comes.
const LOOK: Duration = Duration::from_millis(500);

/// What there is to be written.
enum Message {
    Line(String),
    /// To look at the flags.
    Wake,
}

/// How the audit log is doing.
#[derive(Debug, Default)]
struct Status {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
    reopen: AtomicBool,
    stop: AtomicBool,
    fault: Mutex<Option<String>>,
    strangers: Mutex<Budget>,
}

/// What is left of a second's lines about strangers.
#[derive(Debug, Default)]
struct Budget {
    since: Option<Instant>,
    used: u32,
    left_out: u64,
}

impl Budget {
    /// Whether there is a line left, and how many were left out in the seconds before.
    fn take(&mut self, now: Instant) -> (bool, u64) {
        let mut before = 0;
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            before = self.left_out;
            *self = Self { since: Some(now), used: 0, left_out: 0 };
        }
        let has_room = self.used < STRANGERS;
        if has_room {
            self.used += 1;
        } else {
            self.left_out += 1;
        }
        (has_room, before)
    }
}

#[derive(Debug)]
struct Inner {
    sender: SyncSender<Message>,
    status: Status,
}

/// The way to the audit log, if there is one.
#[derive(Clone, Debug, Default)]
pub struct AuditLog(Option<Arc<Inner>>);

/// The thread that writes it.
pub struct AuditThread {
    log: AuditLog,
    ended: Receiver<()>,
}

impl AuditLog {
    /// Opens the file, and makes it if it isn't there, for its owner alone.
    pub fn open(path: &Path) -> io::Result<(Self, AuditThread)> {
        let file = append(path)?;
        let (sender, messages) = sync_channel(QUEUE);
        let (tell, ended) = channel();
        let inner = Arc::new(Inner { sender, status: Status::default() });
        let writer = Writer { path: path.to_owned(), file: Some(file), is_torn: false, inner: inner.clone() };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            writer.run(&messages);
            // Nobody may wait for it.
            let _ = tell.send(());
        })?;
        let log = Self(Some(inner));
        Ok((log.clone(), AuditThread { log, ended }))
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes something that an operator, or somebody who is in, has done.
    pub fn record(&self, event: &str, fields: &Value) {
        let Some(inner) = &self.0 else { return };
        inner.put(line(event, fields));
    }

    /// Notes something that anyone can cause, of which there may be too much.
    pub fn record_stranger(&self, event: &str, fields: &Value) {
        let Some(inner) = &self.0 else { return };
        let budget = inner.status.strangers.lock();
        let (has_room, before) = budget.unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if before > 0 {
            inner.put(line("left_out", &json!({"lines": before})));
        }
        if has_room {
            inner.put(line(event, fields));
        } else {
            inner.status.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what a shard tells, of a connection that comes from this address.
    pub fn record_event(
        &self,
        shard: u16,
        event: AuditEvent,
        address: impl Fn(ConnectionKey) -> Option<IpAddr>,
    ) {
        let number = |key: ConnectionKey| format!("{shard}-{:x}", key.data().as_ffi());
        let address = |key| address(key).map(shown_address);
        match event {
            AuditEvent::Connected { connection, client, principal, protocol, session_present } => {
                let principal = principal.as_deref();
                self.record(
                    "connected",
                    &json!({
                        "client": shown(client.as_str()),
                        "user": principal.and_then(|one| one.user.as_deref()).map(shown),
                        "certificate": principal.and_then(|one| one.certificate.as_deref()).map(shown),
                        "protocol": protocol,
                        "address": address(connection),
                        "session_present": session_present,
                        "connection": number(connection),
                    }),
                );
            }
            AuditEvent::Refused { connection, client, user, reason, text } => self.record_stranger(
                "refused",
                &json!({
                    "client": client.as_ref().map(|client| shown(client.as_str())),
                    "user": user.as_deref().map(shown),
                    "reason": reason.name(),
                    "text": shown(&text),
                    "address": address(connection),
                    "connection": number(connection),
                }),
            ),
            AuditEvent::Disconnected { connection, client, how } => self.record(
                "disconnected",
                &json!({"client": shown(client.as_str()), "reason": how.name(), "connection": number(connection)}),
            ),
            AuditEvent::Moderated { request, by, refused } => self.record(
                "moderated",
                &json!({
                    "act": request.act.key(),
                    "client": request.client.as_str(),
                    "group": request.group.as_ref().map(|group| group.as_str()),
                    "seconds": request.seconds,
                    "why": shown(&request.why),
                    "by": shown(by.as_str()),
                    "refused": refused.map(|reason| reason.name()),
                }),
            ),
            AuditEvent::Missed(count) => {
                if let Some(inner) = &self.0 {
                    inner.status.dropped.fetch_add(count, Ordering::Relaxed);
                }
            }
        }
    }

    /// Opens the file anew, before the next line.
    pub fn reopen(&self) {
        let Some(inner) = &self.0 else { return };
        inner.status.reopen.store(true, Ordering::Relaxed);
        // With a full queue the thread is at work, and looks.
        let _ = inner.sender.try_send(Message::Wake);
    }

    /// Why nothing can be written for now.
    pub fn fault(&self) -> Option<String> {
        self.0.as_ref()?.status.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `each` for every number, which all are 0 without a log.
    pub fn each(&self, each: &mut EachNumber<'_>) {
        let none = Status::default();
        let status = self.0.as_ref().map_or(&none, |inner| &inner.status);
        for (result, count) in [
            ("written", &status.written),
            ("dropped", &status.dropped),
            ("failed", &status.failed),
            ("left_out", &status.left_out),
        ] {
            let help = "Lines of the audit log by what became of them";
            each("audit_lines", help, &[("result", result)], count.load(Ordering::Relaxed), false);
        }
        let help = "1 while the audit log can't be written";
        each("audit_unavailable", help, &[], self.fault().is_some().into(), true);
    }
}

impl Inner {
    fn put(&self, line: String) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.status.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AuditThread {
    /// Writes what is there, and ends; false if that takes longer than `patience`.
    pub fn stop(self, patience: Duration) -> bool {
        let Some(inner) = &self.log.0 else { return true };
        inner.status.stop.store(true, Ordering::Relaxed);
        let _ = inner.sender.try_send(Message::Wake);
        self.ended.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }
}

/// The thread's end.
struct Writer {
    path: PathBuf,
    /// None: it couldn't be opened, or written.
    file: Option<File>,
    /// The last write may have ended within a line.
    is_torn: bool,
    inner: Arc<Inner>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut batch = Vec::new();
        loop {
            let mut next = messages.recv_timeout(LOOK);
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            let mut lines = 0;
            while let Ok(message) = next {
                if let Message::Line(line) = message {
                    batch.extend_from_slice(line.as_bytes());
                    lines += 1;
                }
                if batch.len() >= BATCH {
                    break;
                }
                next = messages.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            if self.inner.status.reopen.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
            if lines > 0 {
                self.write(&batch, lines);
            }
            let is_whole = batch.len() < BATCH;
            batch.clear();
            if is_whole && self.inner.status.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn reopen(&mut self) {
        match append(&self.path) {
            Ok(file) => {
                (self.file, self.is_torn) = (Some(file), false);
                self.set_fault(None);
            }
            // The old one, if it is there, is better than none.
            Err(error) => self.set_fault(Some(&error)),
        }
    }

    fn write(&mut self, batch: &[u8], lines: u64) {
        let status = &self.inner.status;
        if self.file.is_none() {
            self.file = append(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            status.failed.fetch_add(lines, Ordering::Relaxed);
            return;
        };
        let ended = if self.is_torn { file.write_all(b"\n") } else { Ok(()) };
        match ended.and_then(|()| file.write_all(batch)) {
            Ok(()) => {
                status.written.fetch_add(lines, Ordering::Relaxed);
                self.is_torn = false;
                self.set_fault(None);
            }
            Err(error) => {
                status.failed.fetch_add(lines, Ordering::Relaxed);
                (self.file, self.is_torn) = (None, true);
                self.set_fault(Some(&error));
            }
        }
    }

    fn set_fault(&self, fault: Option<&io::Error>) {
        let text = fault.map(|error| format!("cannot write {}: {error}", self.path.display()));
        let mut known = self.inner.status.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != text {
            match &text {
                Some(text) => tracing::error!("the audit log has gaps: {text}"),
                None => tracing::info!(path = %self.path.display(), "the audit log is written again"),
            }
            *known = text;
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The line: when, what, and the rest.
fn line(event: &str, fields: &Value) -> String {
    let now = OffsetDateTime::now_utc();
    let ((year, month, day), (hour, minute, second, milli)) = (now.to_calendar_date(), now.to_hms_milli());
    let month = u8::from(month);
    let rest = fields.to_string();
    let rest = rest.strip_prefix('{').unwrap_or("}");
    let comma = if rest == "}" { "" } else { "," };
    format!(
        "{{\"time\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"event\":\"{event}\"{comma}{rest}\n"
    )
}

/// Somebody's text, not longer than it may be.
fn shown(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT).map_or(text, |(end, _)| &text[..end])
}

/// An address as the log has it.
pub fn shown_address(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let text = line("refused", &json!({"client": "a\"\n\u{1b}", "user": null}));
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["event"], &value["client"]), (&json!("refused"), &json!("a\"\n\u{1b}")));
        let time = value["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert!(serde_json::from_str::<Value>(&line("started", &json!({}))).is_ok());
        assert_eq!(shown(&"\u{e4}".repeat(600)).chars().count(), MAX_TEXT);
    }

    #[test]
    fn strangers_have_a_budget_and_what_is_over_it_is_told() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let taken = (0..STRANGERS + 7).filter(|_| budget.take(now).0).count();
        assert_eq!(taken, STRANGERS as usize);
        assert_eq!(budget.take(now + Duration::from_secs(1)), (true, 7));
        assert_eq!(budget.take(now + Duration::from_secs(1)), (true, 0));
    }
}
