//! A thread for TLS handshakes: they cost up to a millisecond of computing each, which neither a shard nor the accept
//! loop has to spare when all clients of a site come back at once.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread, which ends with this, and the tasks on it.
pub struct HandshakeThread {
    handle: Handle,
    _running: oneshot::Sender<()>,
}

impl HandshakeThread {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (_running, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("handshakes".to_owned()).spawn(move || {
            // An error says that the other end is no more, which is all that is waited for.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, _running })
    }

    /// Where to spawn.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}
