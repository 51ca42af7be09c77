//! The network: the LAN9118 with its interrupt, embassy-net, and sockets for the SDK's runner.

use core::net::Ipv4Addr;

use bugle_device::Connect;
use embassy_executor::Spawner;
use embassy_net::tcp::{ConnectError, TcpSocket};
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_lan9118::{Lan9118, Mmio, State};
use static_cell::{ConstStaticCell, StaticCell};

use crate::interrupts::Interrupt;
use crate::settings::Settings;

static STATE: State = State::new();

/// Bytes of the TCP windows. The board's receive FIFO has 10,560.
const RECEIVE: usize = 4096;
const TRANSMIT: usize = 2048;

type Driver = Lan9118<'static, Mmio>;

/// Sockets at a time, DHCP's included.
pub type Network = StackResources<3>;

#[allow(unsafe_code, reason = "where the board has its controller")]
fn registers() -> Mmio {
    // Safety: QEMU's board has a LAN9118 there, and only driver and interrupt handler use it.
    unsafe { Mmio::new(0x4020_0000) }
}

/// For the controller's interrupt.
pub(crate) fn on_interrupt() {
    STATE.on_interrupt(&registers());
}

/// Starts the controller and the stack, which runs in a task of its own. Ends the program where there is no network
/// hardware. Can be called once.
pub fn start_network(spawner: Spawner, settings: &Settings) -> Stack<'static> {
    static RESOURCES: StaticCell<Network> = StaticCell::new();
    let seed = settings.seed();
    let [a, b, c, d] = seed.to_be_bytes();
    let driver = match Lan9118::new(registers(), &STATE, [2, 0, a, b, c, d]) {
        Ok(driver) => driver,
        Err(error) => defmt::panic!("no network: {}", error),
    };
    Interrupt::Ethernet.enable();
    let config = match settings.address() {
        Some(address) => Config::ipv4_static(StaticConfigV4 {
            address: Ipv4Cidr::new(address, 24),
            gateway: Some(settings.gateway().0),
            dns_servers: Default::default(),
        }),
        None => Config::dhcpv4(Default::default()),
    };
    let (stack, runner) =
        embassy_net::new(driver, config, RESOURCES.init(StackResources::new()), seed.into());
    match serve(runner) {
        Ok(task) => spawner.spawn(task),
        Err(error) => defmt::panic!("the network has been started: {}", error),
    }
    stack
}

#[embassy_executor::task]
async fn serve(mut runner: embassy_net::Runner<'static, Driver>) -> ! {
    runner.run().await
}

/// Opens sockets to the gateway.
pub struct Sockets {
    stack: Stack<'static>,
    gateway: (Ipv4Addr, u16),
    receive: &'static mut [u8; RECEIVE],
    transmit: &'static mut [u8; TRANSMIT],
}

impl Sockets {
    /// To the gateway of these settings. Can be called once.
    pub fn new(stack: Stack<'static>, settings: &Settings) -> Self {
        static RECEIVE_BUFFER: ConstStaticCell<[u8; RECEIVE]> = ConstStaticCell::new([0; RECEIVE]);
        static TRANSMIT_BUFFER: ConstStaticCell<[u8; TRANSMIT]> = ConstStaticCell::new([0; TRANSMIT]);
        let (receive, transmit) = (RECEIVE_BUFFER.take(), TRANSMIT_BUFFER.take());
        Self { stack, gateway: settings.gateway(), receive, transmit }
    }
}

impl Connect for Sockets {
    type Transport<'t> = TcpSocket<'t>;
    type Error = ConnectError;

    async fn connect(&mut self) -> Result<TcpSocket<'_>, ConnectError> {
        // Without an address yet, or with the cable out. The runner limits how long this takes.
        self.stack.wait_config_up().await;
        let mut socket = TcpSocket::new(self.stack, &mut *self.receive, &mut *self.transmit);
        socket.set_nagle_enabled(false);
        match socket.connect(self.gateway).await {
            Ok(()) => Ok(socket),
            Err(error) => {
                defmt::warn!("cannot connect: {}", error);
                Err(error)
            }
        }
    }
}
