//! TLS 1.3 on the sockets.

use bugle_device::Connect;
use bugle_device::tls::{CryptoRngCore, Memory, Transport, Trust, open};
use embassy_net::tcp::TcpSocket;

use crate::{CannotConnect, Sockets};

/// Opens connections in TLS to a gateway that proves who it is.
pub struct TlsSockets<'b, R> {
    sockets: Sockets<'b>,
    memory: &'b mut Memory,
    trust: Trust<'b>,
    random: R,
}

impl<'b, R: CryptoRngCore> TlsSockets<'b, R> {
    /// On these sockets.
    pub fn new(sockets: Sockets<'b>, memory: &'b mut Memory, trust: Trust<'b>, random: R) -> Self {
        Self { sockets, memory, trust, random }
    }
}

impl<R: CryptoRngCore> Connect for TlsSockets<'_, R> {
    type Transport<'t>
        = Transport<'t, TcpSocket<'t>>
    where
        Self: 't;
    type Error = CannotConnect;

    async fn connect(&mut self) -> Result<Self::Transport<'_>, CannotConnect> {
        let socket = self.sockets.connect().await?;
        open(socket, &mut *self.memory, &self.trust, &mut self.random)
            .await
            .map_err(|error| CannotConnect::Tls(error).logged())
    }
}
