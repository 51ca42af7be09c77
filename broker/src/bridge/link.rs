//! The sockets of a bridge: over TCP, with or without TLS, to the far broker; and within this process to the gateway.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::settings::BridgeSettings;
use super::status::Failure;
use crate::listener::Door;

/// What is read at a time, in bytes.
const READ: usize = 64 * 1024;

/// What a bridge's bytes go through.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The half to read from.
pub struct Reader {
    half: ReadHalf<Box<dyn Stream>>,
    /// What was read and isn't a whole packet yet.
    pub input: BytesMut,
}

impl Reader {
    /// Reads what has come, or waits for something. Cancel-safe.
    pub async fn read(&mut self) -> io::Result<()> {
        self.input.reserve(READ);
        match self.half.read_buf(&mut self.input).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            _ => Ok(()),
        }
    }
}

/// The half to write to.
pub struct Writer {
    half: WriteHalf<Box<dyn Stream>>,
    /// Something was written that a layer below may still hold.
    is_unflushed: bool,
}

impl Writer {
    /// Whether [`Self::write`] has something to do.
    pub fn has_work(&self, out: &BytesMut) -> bool {
        !out.is_empty() || self.is_unflushed
    }

    /// Writes some of `out`, or what the layers below hold. Cancel-safe: what was taken out of `out` was written.
    pub async fn write(&mut self, out: &mut BytesMut) -> io::Result<()> {
        if out.is_empty() {
            self.half.flush().await?;
            self.is_unflushed = false;
            return Ok(());
        }
        let taken = self.half.write_buf(out).await?;
        self.is_unflushed = true;
        if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Writes all of `out`.
    pub async fn write_all(&mut self, out: &mut BytesMut) -> io::Result<()> {
        while self.has_work(out) {
            self.write(out).await?;
        }
        Ok(())
    }
}

/// Both halves of a stream.
pub fn halves(stream: Box<dyn Stream>) -> (Reader, Writer) {
    let (reader, writer) = split(stream);
    (Reader { half: reader, input: BytesMut::new() }, Writer { half: writer, is_unflushed: false })
}

/// Connects to the far broker, up to TLS.
pub async fn far(settings: &BridgeSettings) -> Result<Box<dyn Stream>, (Failure, String)> {
    let tcp = async {
        let tcp = TcpStream::connect((settings.host.as_str(), settings.port)).await?;
        tcp.set_nodelay(true)?;
        Ok::<_, io::Error>(tcp)
    };
    let tcp = tcp.await.map_err(|error| (Failure::Unreachable, error.to_string()))?;
    let Some(tls) = &settings.tls else { return Ok(Box::new(tcp)) };
    let connecting = TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), tcp);
    match connecting.await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            let text = format!(
                "TLS failed: {error}. Its certificate must be signed by an authority of tls.ca and be for the name {}",
                tls.server_name.to_str()
            );
            Err((Failure::Tls, text))
        }
    }
}

/// Connects to this gateway without leaving the process: nobody else can be at the other end.
pub async fn local(door: &Arc<Door>) -> io::Result<Box<dyn Stream>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    ours.set_nodelay(true)?;
    let own_address = ours.local_addr()?;
    loop {
        let (theirs, peer) = listener.accept().await?;
        // Somebody else may have found the port meanwhile.
        if peer == own_address {
            tokio::spawn(door.clone().admit_mqtt(theirs, peer));
            return Ok(Box::new(ours));
        }
    }
}
