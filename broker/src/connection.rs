//! One socket of a shard. It owns no buffer while nothing is under way: what is read goes through the shard's
//! buffer, and only bytes that the peer's TCP didn't take are kept, until it does.
//!
//! ```text
//! Open ── the session closes ──► Closing ── last bytes taken, or too late ──► Ended
//!   └──── the peer or the socket ends ─────────────────────────────────────────▲
//! ```
//! The shard writes to the socket directly; the task here only wakes up to read, and to write what was kept.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bugle_core::hub::ConnectionKey;
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::places::Slot;
use crate::shard_thread::ShardHost;
use crate::transport::Layers;

/// Reads in one turn of a connection before others have theirs.
const READS_PER_TURN: usize = 4;
/// Bytes that a socket didn't take, beyond which nothing is read from it either: who doesn't read its answers gets to
/// ask no more.
const MAX_UNREAD: usize = 64 * 1024;
/// How long a client may take for its last bytes and to close its end.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closing,
    Ended,
}

/// The shard's end of a socket.
pub struct Connection {
    key: ConnectionKey,
    writer: OwnedWriteHalf,
    /// TLS and WebSocket, where the connection has them.
    layers: Cell<Option<Box<Layers>>>,
    /// Bytes that the socket didn't take; while there are some, the session is only asked for control packets.
    kept: RefCell<Vec<u8>>,
    state: Cell<State>,
    /// The session takes bytes.
    reads: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// The connection over a socket, and the end to read from.
    pub fn new(key: ConnectionKey, stream: TcpStream, layers: Option<Layers>) -> (Rc<Self>, OwnedReadHalf) {
        let (reader, writer) = stream.into_split();
        let connection = Self {
            key,
            writer,
            layers: Cell::new(layers.map(Box::new)),
            kept: RefCell::default(),
            state: Cell::new(State::Open),
            reads: Cell::new(true),
            task: RefCell::default(),
        };
        (Rc::new(connection), reader)
    }

    /// Whether the session is to be asked for bytes.
    pub fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Where it comes from, as long as it is there.
    pub fn peer(&self) -> Option<IpAddr> {
        self.writer.peer_addr().ok().map(|address| address.ip())
    }

    /// How many bytes the socket has yet to take.
    pub fn kept(&self) -> usize {
        self.kept.borrow().len()
    }

    /// Writes `bytes` of the session behind what was kept, and keeps what the socket doesn't take.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut raw = Vec::new();
        let sent = self.with_layers(|layers| layers.send(bytes, &mut raw));
        let Some(sent) = sent else { return self.write_raw(bytes) };
        self.write_raw(&raw)?;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn write_raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.kept.borrow_mut();
        let rest = if kept.is_empty() { self.try_write(bytes)? } else { bytes };
        if !rest.is_empty() {
            kept.extend_from_slice(rest);
            self.wake();
        }
        Ok(())
    }

    /// Whether the session takes bytes.
    pub fn set_reads(&self, reads: bool) {
        if reads && !self.reads.replace(reads) {
            self.wake();
        }
        self.reads.set(reads);
    }

    /// Closes once the last bytes are written.
    pub fn close(&self) {
        self.with_layers(|layers| layers.close(&mut self.kept.borrow_mut()));
        self.state.set(State::Closing);
        self.wake();
    }

    /// Lends the layers, where there are some. None is lent within another loan: nothing they do comes back here.
    fn with_layers<R>(&self, f: impl FnOnce(&mut Layers) -> R) -> Option<R> {
        let mut layers = self.layers.take()?;
        let result = f(&mut layers);
        self.layers.set(Some(layers));
        Some(result)
    }

    /// Closes if the peer has closed TLS or the WebSocket before the connection came here.
    pub fn close_if_over(&self) {
        if self.with_layers(|layers| layers.is_over()) == Some(true) {
            self.close();
        }
    }

    /// Gives the session what the socket had.
    fn receive(&self, host: &ShardHost, bytes: &[u8]) {
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        let received = self.with_layers(|layers| layers.receive(bytes, &mut data, &mut reply));
        let Some(received) = received else { return host.handle_bytes(self.key, bytes) };
        if !data.is_empty() {
            host.handle_bytes(self.key, &data);
        }
        if self.write_raw(&reply).is_err() {
            host.lose(self.key);
        } else if received.is_err() && self.is_open() {
            self.close();
        }
    }

    /// It is over: the task ends.
    pub fn end(&self) {
        self.state.set(State::Ended);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    fn register(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// What remains of `bytes` when the socket takes no more.
    fn try_write<'b>(&self, mut bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        while !bytes.is_empty() {
            match self.writer.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Writes what was kept, until nothing is.
    fn poll_kept(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket: &TcpStream = self.writer.as_ref();
        loop {
            let mut kept = self.kept.borrow_mut();
            let left = self.try_write(&kept)?.len();
            let taken = kept.len() - left;
            kept.drain(..taken);
            if kept.is_empty() {
                // An idle connection has no buffer.
                *kept = Vec::new();
                return Poll::Ready(Ok(()));
            }
            ready!(socket.poll_write_ready(context))?;
        }
    }

    /// Moves bytes until the connection closes or ends.
    fn poll_open(&self, context: &mut Context<'_>, host: &ShardHost, reader: &mut OwnedReadHalf) -> Poll<()> {
        self.register(context.waker());
        for _ in 0..READS_PER_TURN {
            if self.is_open() && self.kept() > 0 {
                match self.poll_kept(context) {
                    Poll::Ready(Ok(())) => {
                        host.tick();
                        host.flush(self.key);
                    }
                    Poll::Ready(Err(_)) => host.lose(self.key),
                    Poll::Pending => {}
                }
            }
            if !self.is_open() {
                return Poll::Ready(());
            }
            if !self.reads.get() || self.kept() > MAX_UNREAD {
                return Poll::Pending;
            }
            let read = host.with_read_buffer(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let result = ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer));
                let bytes = buffer.filled();
                let is_open = result.is_ok() && !bytes.is_empty();
                if is_open {
                    self.receive(host, bytes);
                } else {
                    host.lose(self.key);
                }
                Poll::Ready(is_open)
            });
            if !ready!(read) {
                return Poll::Ready(());
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sees the last bytes off and waits for the peer to close. A socket closed with bytes unread would be reset, and
    /// the peer might never read why.
    async fn finish(&self, host: &ShardHost, reader: &mut OwnedReadHalf) {
        if poll_fn(|context| self.poll_kept(context)).await.is_err() {
            return;
        }
        host.lose(self.key);
        if SockRef::from(AsRef::<TcpStream>::as_ref(&self.writer)).shutdown(Shutdown::Write).is_err() {
            return;
        }
        let drained = |context: &mut Context<'_>| {
            host.with_read_buffer(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok::<_, io::Error>(buffer.filled().is_empty()))
            })
        };
        let mut drained = drained;
        while matches!(poll_fn(&mut drained).await, Ok(false)) {}
    }
}

/// Serves a connection to its end. `_slot` is its place among all that there may be.
pub async fn serve(host: Rc<ShardHost>, connection: Rc<Connection>, mut reader: OwnedReadHalf, _slot: Slot) {
    let ending = Ending { host: &host, key: connection.key };
    poll_fn(|context| connection.poll_open(context, &host, &mut reader)).await;
    if connection.state.get() == State::Closing {
        // Boxed, so that an open connection's task isn't larger for it.
        let _ = Box::pin(timeout(LINGER, connection.finish(&host, &mut reader))).await;
    }
    drop(ending);
}

/// Tells the host that the task has ended, however it did.
struct Ending<'h> {
    host: &'h ShardHost,
    key: ConnectionKey,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.host.lose(self.key);
        self.host.task_ended();
    }
}
