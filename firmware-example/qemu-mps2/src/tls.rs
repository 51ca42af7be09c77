//! What TLS wants and this board has from its debugger: random numbers, the time, and the authority's certificate. On real boards the
//! first is a peripheral, the second a battery or SNTP, and the third is in flash.

use bugle_device::tls::{Memory, Trust};
use bugle_sockets::TlsSockets;
use rand_core::{CryptoRng, Error, RngCore};
use static_cell::ConstStaticCell;

use crate::semihosting;
use crate::settings::Settings;

/// Connections in TLS.
pub type Sockets = TlsSockets<'static, HostRandom>;

/// Longest certificate of an authority, in bytes.
const AUTHORITY: usize = 1024;

/// TLS on sockets: to a gateway of the name `tls`, whose certificate was signed by the authority in the file `authority` of the host.
/// Can be called once.
pub fn sockets(sockets: bugle_sockets::Sockets<'static>, settings: &Settings) -> Sockets {
    static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory::new());
    static CERTIFICATE: ConstStaticCell<[u8; AUTHORITY]> = ConstStaticCell::new([0; AUTHORITY]);
    let authority =
        semihosting::read_file(settings.text("authority").unwrap_or_default(), CERTIFICATE.take());
    let trust = Trust { authority, name: settings.text("tls").unwrap_or_default(), clock: semihosting::time };
    TlsSockets::new(sockets, MEMORY.take(), trust, HostRandom)
}

/// The host's random numbers.
pub struct HostRandom;

impl RngCore for HostRandom {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        let length = bytes.len();
        // Numbers that anyone can guess must not be used.
        if semihosting::read_file("/dev/urandom", bytes).len() != length {
            defmt::panic!("no random numbers");
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

// The kernel's generator is one.
impl CryptoRng for HostRandom {}
