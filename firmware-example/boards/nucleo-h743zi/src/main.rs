//! The lamp on an ST Nucleo-H743ZI2. It runs at 64 MHz, from the oscillator inside: a lamp needs no more.
#![no_std]
#![no_main]

use bugle_board::{Inverted, Network, NoThermometer, ethernet_address};
use bugle_lamp::Parts;
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_stm32::eth::{Ethernet, GenericPhy, PacketQueue, Sma};
use embassy_stm32::exti::ExtiInput;
use embassy_stm32::gpio::{Level, Output, Pull, Speed};
use embassy_stm32::peripherals::{ETH, ETH_SMA};
use panic_probe as _;
use static_cell::StaticCell;

mod interrupts {
    #![allow(unsafe_code, reason = "of the macro")]
    use embassy_stm32::interrupt::typelevel::EXTI15_10;
    use embassy_stm32::{bind_interrupts, eth, exti};

    bind_interrupts!(pub struct Interrupts {
        ETH => eth::InterruptHandler;
        EXTI15_10 => exti::InterruptHandler<EXTI15_10>;
    });
}
use interrupts::Interrupts;

type Device = Ethernet<'static, ETH, GenericPhy<Sma<'static, ETH_SMA>>>;

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let board = embassy_stm32::init(Default::default());
    let seed = bugle_board::seed(&embassy_stm32::uid::uid());

    static PACKETS: StaticCell<PacketQueue<4, 4>> = StaticCell::new();
    let device = Ethernet::new(
        PACKETS.init(PacketQueue::new()),
        board.ETH,
        Interrupts,
        board.PA1,
        board.PA7,
        board.PC4,
        board.PC5,
        board.PG13,
        board.PB13,
        board.PG11,
        ethernet_address(seed),
        board.ETH_SMA,
        board.PA2,
        board.PC1,
    );
    static NETWORK: StaticCell<Network> = StaticCell::new();
    let network = NETWORK.init(Network::new());
    let (stack, runner) = embassy_net::new(device, bugle_board::network(), network, seed.into());
    if let Ok(network) = serve_network(runner) {
        spawner.spawn(network);
    }

    let parts = Parts {
        lamp: Output::new(board.PB0, Level::Low, Speed::Low),
        // The blue button is high when it is pressed.
        button: Inverted(ExtiInput::new(board.PC13, board.EXTI13, Pull::Down, Interrupts)),
        sensor: NoThermometer,
    };
    bugle_board::lamp(parts, stack, seed).await
}

#[embassy_executor::task]
async fn serve_network(mut runner: embassy_net::Runner<'static, Device>) -> ! {
    runner.run().await
}
