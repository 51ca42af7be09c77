//! TLS of the admin port, with the certificates that clients see, and without certificates of its own clients: operators have tokens.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What ALPN calls HTTP.
const ALPN: &[u8] = b"http/1.1";

/// What the next connection of the admin port gets.
#[derive(Debug)]
pub struct AdminTls(ArcSwap<ServerConfig>);

impl AdminTls {
    /// With this configuration.
    pub fn new(config: ServerConfig) -> Self {
        Self(ArcSwap::from_pointee(prepared(config)))
    }

    /// Puts another in its place, for connections to come.
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(prepared(config)));
    }

    /// The handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.load_full()).accept(stream).await
    }
}

fn prepared(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}
