//! Settings from QEMU's command line: `-semihosting-config enable=on,target=native,arg=lamp,arg=id=lamp-1,arg=port=1883`.
//! On real boards they are in flash.

use core::net::Ipv4Addr;

use bugle_sockets::{Gateway, Host};

use crate::semihosting;

/// The host's loopback, as it is seen from inside; also the way to everywhere else.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// What a firmware is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    words: &'static str,
}

impl Settings {
    /// Reads them, into memory of the caller's.
    pub fn read(buffer: &'static mut [u8; semihosting::COMMAND_LINE]) -> Self {
        Self { words: semihosting::command_line(buffer) }
    }

    /// What holds without a command line.
    pub const fn usual() -> Self {
        Self { words: "" }
    }

    /// The value of `key=value`.
    pub fn text(&self, key: &str) -> Option<&'static str> {
        self.words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The same as a number.
    pub fn number(&self, key: &str) -> Option<u32> {
        self.text(key)?.parse().ok()
    }

    /// The client id: `id`, else `lamp-1`.
    pub fn client_id(&self) -> &'static str {
        self.text("id").unwrap_or("lamp-1")
    }

    /// The secret: `secret`, else none.
    pub fn secret(&self) -> &'static [u8] {
        self.text("secret").unwrap_or_default().as_bytes()
    }

    /// The group: `group`, else `floor3`.
    pub fn group(&self) -> &'static str {
        self.text("group").unwrap_or("floor3")
    }

    /// Where the gateway is: `gateway`, a name or an address, else the host's loopback; and `port`, else 1883.
    pub fn gateway(&self) -> Gateway<'static> {
        let port = self.number("port").and_then(|port| port.try_into().ok()).unwrap_or(1883);
        Gateway { host: self.text("gateway").map_or(Host::Address(HOST), Host::new), port }
    }

    /// Who resolves names where the address is fixed: `dns`. DHCP tells by itself.
    pub fn dns(&self) -> Option<Ipv4Addr> {
        self.text("dns")?.parse().ok()
    }

    /// The board's own address: `address`, else it asks DHCP. With one from DHCP a cable that is pulled out ends every
    /// connection at once, since embassy-net gives the address up; with a fixed one TCP goes on when it is back.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.text("address")?.parse().ok()
    }

    /// A number that differs between devices, from the client id: FNV-1a.
    pub fn seed(&self) -> u32 {
        self.client_id()
            .bytes()
            .fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}
