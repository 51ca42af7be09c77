//! What the real boards have in common: settings that are built in, and the lamp on embassy-net.
//!
//! | environment, when it is built | holds | else |
//! | --- | --- | --- |
//! | `BUGLE_ID` | the client id | `lamp-1` |
//! | `BUGLE_SECRET` | its secret | none |
//! | `BUGLE_GROUP` | its group | `floor3` |
//! | `BUGLE_GATEWAY` | the gateway's name or IPv4 address | `gateway.local.`, which the DNS has to know |
//! | `BUGLE_PORT` | its port | 1883 |
//! | `BUGLE_WIFI`, `BUGLE_WIFI_PASSWORD` | the wireless network | none |
#![no_std]

use bugle_lamp::{Parts, Sensor, Settings};
use bugle_sockets::{Buffers, Gateway, Host, Sockets};
use embassy_net::{Stack, StackResources};
use embassy_time::{Delay, Instant, Timer};
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_hal_async::digital::Wait;
use static_cell::ConstStaticCell;

/// The client id.
pub const CLIENT_ID: &str = built_in(option_env!("BUGLE_ID"), "lamp-1");
/// The wireless network's name.
pub const WIFI: &str = built_in(option_env!("BUGLE_WIFI"), "");
/// Its password; empty for a network that has none.
pub const WIFI_PASSWORD: &str = built_in(option_env!("BUGLE_WIFI_PASSWORD"), "");

const SECRET: &str = built_in(option_env!("BUGLE_SECRET"), "");
const GROUP: &str = built_in(option_env!("BUGLE_GROUP"), "floor3");
const GATEWAY: &str = built_in(option_env!("BUGLE_GATEWAY"), "gateway.local.");
const PORT: u16 = match u16::from_str_radix(built_in(option_env!("BUGLE_PORT"), "1883"), 10) {
    Ok(port) => port,
    Err(_) => panic!("BUGLE_PORT isn't a port"),
};
/// Seconds between two reports of the temperature.
const REPORT_EVERY: u32 = 30;

const fn built_in(set: Option<&'static str>, usual: &'static str) -> &'static str {
    match set {
        Some(set) => set,
        None => usual,
    }
}

/// Memory for the sockets at a time: the lamp's, and those of DHCP and DNS.
pub type Network = StackResources<4>;

/// The network's settings: an address from DHCP.
pub fn network() -> embassy_net::Config {
    embassy_net::Config::dhcpv4(Default::default())
}

/// A number that differs between boards, from the chip's unique id: FNV-1a.
pub fn seed(unique: &[u8]) -> u32 {
    unique.iter().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A locally administered Ethernet address, for boards that come without one.
pub fn ethernet_address(seed: u32) -> [u8; 6] {
    let [a, b, c, d] = seed.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// Runs the lamp for ever. Can be called once.
pub async fn lamp<L: OutputPin, B: Wait, S: Sensor>(
    parts: Parts<L, B, S>,
    stack: Stack<'static>,
    seed: u32,
) -> ! {
    static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers::new());
    defmt::info!("{} starts", CLIENT_ID);
    let gateway = Gateway { host: Host::new(GATEWAY), port: PORT };
    let mut sockets = Sockets::new(stack, gateway, BUFFERS.take());
    let settings = Settings {
        client_id: CLIENT_ID,
        secret: SECRET.as_bytes(),
        group: GROUP,
        seed,
        report_every: REPORT_EVERY,
    };
    let end = bugle_lamp::run(parts, &mut sockets, Delay, || Instant::now().as_millis(), &settings).await;
    defmt::error!("{}", end);
    // Someone has to look at it: another device has its name, or the settings are wrong.
    loop {
        Timer::after_secs(3_600).await;
    }
}

/// For boards without a thermometer.
pub struct NoThermometer;

impl Sensor for NoThermometer {
    async fn measure(&mut self) -> Option<i16> {
        None
    }
}

/// A button that is high when it is pressed, the other way round.
pub struct Inverted<B>(pub B);

impl<B: ErrorType> ErrorType for Inverted<B> {
    type Error = B::Error;
}

impl<B: Wait> Wait for Inverted<B> {
    async fn wait_for_high(&mut self) -> Result<(), B::Error> {
        self.0.wait_for_low().await
    }

    async fn wait_for_low(&mut self) -> Result<(), B::Error> {
        self.0.wait_for_high().await
    }

    async fn wait_for_rising_edge(&mut self) -> Result<(), B::Error> {
        self.0.wait_for_falling_edge().await
    }

    async fn wait_for_falling_edge(&mut self) -> Result<(), B::Error> {
        self.0.wait_for_rising_edge().await
    }

    async fn wait_for_any_edge(&mut self) -> Result<(), B::Error> {
        self.0.wait_for_any_edge().await
    }
}
