//! The network: the LAN9118 with its interrupt, embassy-net, and sockets for the SDK's runner.

use bugle_device::Connect;
use bugle_sockets::{Buffers, CannotConnect};
use embassy_executor::Spawner;
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_lan9118::{Lan9118, Mmio, State};
use static_cell::{ConstStaticCell, StaticCell};

use crate::interrupts::Interrupt;
use crate::settings::{HOST, Settings};

static STATE: State = State::new();

type Driver = Lan9118<'static, Mmio>;

/// Sockets at a time, those of DHCP and DNS included.
pub type Network = StackResources<4>;

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
            gateway: Some(HOST),
            dns_servers: settings.dns().into_iter().collect(),
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

/// Opens connections to the gateway, by TCP or, with the feature `tls`, by TLS.
pub struct Sockets(Inner);

#[cfg(not(feature = "tls"))]
type Inner = bugle_sockets::Sockets<'static>;
#[cfg(feature = "tls")]
type Inner = crate::tls::Sockets;

impl Sockets {
    /// To the gateway of these settings. Can be called once.
    pub fn new(stack: Stack<'static>, settings: &Settings) -> Self {
        static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers::new());
        let sockets = bugle_sockets::Sockets::new(stack, settings.gateway(), BUFFERS.take());
        #[cfg(feature = "tls")]
        let sockets = crate::tls::sockets(sockets, settings);
        Self(sockets)
    }
}

impl Connect for Sockets {
    type Transport<'t> = <Inner as Connect>::Transport<'t>;
    type Error = CannotConnect;

    async fn connect(&mut self) -> Result<Self::Transport<'_>, CannotConnect> {
        self.0.connect().await
    }
}
