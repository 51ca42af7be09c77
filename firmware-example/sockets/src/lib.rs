//! Sockets to the gateway for the SDK's runner, on embassy-net: any board's, with any driver.
//!
//! The address comes from whatever the stack was started with, DHCP or fixed; the gateway's from the DNS (feature `dns`), unless it
//! is given as an address. All of it anew for each connection: neither outlives a move of the gateway. With the feature `tls` there
//! is TLS 1.3 on top.
#![no_std]

#[cfg(feature = "tls")]
mod tls;

use core::net::Ipv4Addr;

use bugle_device::Connect;
use embassy_net::tcp::{ConnectError, TcpSocket};
use embassy_net::{IpAddress, IpEndpoint, Stack};

#[cfg(feature = "tls")]
pub use tls::TlsSockets;

/// Where the gateway is.
#[derive(Clone, Copy, Debug)]
pub struct Gateway<'a> {
    /// The machine.
    pub host: Host<'a>,
    /// Its port.
    pub port: u16,
}

/// A machine.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// By its address.
    Address(Ipv4Addr),
    /// By its name, which takes the feature `dns`.
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// Of a name, or an address in its usual form.
    pub fn new(text: &'a str) -> Self {
        text.parse().map_or(Self::Name(text), Self::Address)
    }
}

/// The buffers of a socket: TCP's windows. In a static.
pub struct Buffers<const RECEIVE: usize = 4096, const TRANSMIT: usize = 2048> {
    receive: [u8; RECEIVE],
    transmit: [u8; TRANSMIT],
}

impl<const RECEIVE: usize, const TRANSMIT: usize> Buffers<RECEIVE, TRANSMIT> {
    /// All zeros.
    pub const fn new() -> Self {
        Self { receive: [0; RECEIVE], transmit: [0; TRANSMIT] }
    }
}

impl<const RECEIVE: usize, const TRANSMIT: usize> Default for Buffers<RECEIVE, TRANSMIT> {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens sockets to the gateway, one at a time.
pub struct Sockets<'b> {
    stack: Stack<'static>,
    gateway: Gateway<'b>,
    receive: &'b mut [u8],
    transmit: &'b mut [u8],
}

impl<'b> Sockets<'b> {
    /// To this gateway.
    pub fn new<const RECEIVE: usize, const TRANSMIT: usize>(
        stack: Stack<'static>,
        gateway: Gateway<'b>,
        buffers: &'b mut Buffers<RECEIVE, TRANSMIT>,
    ) -> Self {
        Self { stack, gateway, receive: &mut buffers.receive, transmit: &mut buffers.transmit }
    }
}

/// Why there is no connection. It was logged.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub enum CannotConnect {
    /// The gateway's name has no IPv4 address, as far as the DNS knows; or there is no DNS, and it is no address.
    NoAddress,
    /// TCP.
    Tcp(ConnectError),
    /// TLS, or what the gateway has to prove by it.
    #[cfg(feature = "tls")]
    Tls(bugle_device::tls::OpenError),
}

impl CannotConnect {
    fn logged(self) -> Self {
        defmt::warn!("cannot connect: {}", self);
        self
    }
}

async fn address(stack: Stack<'static>, host: Host<'_>) -> Option<IpAddress> {
    match host {
        Host::Address(address) => Some(address.into()),
        Host::Name(name) => resolve(stack, name).await,
    }
}

#[cfg(feature = "dns")]
async fn resolve(stack: Stack<'static>, name: &str) -> Option<IpAddress> {
    let found = stack.dns_query(name, embassy_net::dns::DnsQueryType::A).await.ok()?;
    let first = found.first().copied();
    defmt::debug!("{} is {}", name, first);
    first
}

#[cfg(not(feature = "dns"))]
async fn resolve(_stack: Stack<'static>, _name: &str) -> Option<IpAddress> {
    None
}

impl Connect for Sockets<'_> {
    type Transport<'t>
        = TcpSocket<'t>
    where
        Self: 't;
    type Error = CannotConnect;

    async fn connect(&mut self) -> Result<TcpSocket<'_>, CannotConnect> {
        // Without an address yet, or with the cable out. The runner limits how long this takes.
        self.stack.wait_config_up().await;
        let address = address(self.stack, self.gateway.host).await;
        let address = address.ok_or_else(|| CannotConnect::NoAddress.logged())?;
        let mut socket = TcpSocket::new(self.stack, &mut *self.receive, &mut *self.transmit);
        socket.set_nagle_enabled(false);
        match socket.connect(IpEndpoint::new(address, self.gateway.port)).await {
            Ok(()) => Ok(socket),
            Err(error) => Err(CannotConnect::Tcp(error).logged()),
        }
    }
}
