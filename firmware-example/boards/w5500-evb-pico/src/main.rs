//! The lamp on a WIZnet W5500-EVB-Pico.
#![no_std]
#![no_main]

use bugle_board::{Network, ethernet_address};
use bugle_lamp::Parts;
use bugle_rp2040::Thermometer;
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_net_wiznet::chip::W5500;
use embassy_net_wiznet::{Device, State};
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::SPI0;
use embassy_rp::spi::{Async, Config, Spi};
use embassy_time::Delay;
use embedded_hal_bus::spi::ExclusiveDevice;
use panic_probe as _;
use static_cell::StaticCell;

mod interrupts {
    #![allow(unsafe_code, reason = "of the macro")]
    use embassy_rp::peripherals::{DMA_CH0, DMA_CH1};
    use embassy_rp::{adc, bind_interrupts, dma};

    bind_interrupts!(pub struct Interrupts {
        ADC_IRQ_FIFO => adc::InterruptHandler;
        DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>, dma::InterruptHandler<DMA_CH1>;
    });
}
use interrupts::Interrupts;

/// The W5500 on its bus. It takes no more than 33.3 MHz for sure.
type Controller = ExclusiveDevice<Spi<'static, SPI0, Async>, Output<'static>, Delay>;
const CLOCK: u32 = 33_300_000;

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let board = embassy_rp::init(Default::default());
    let seed = bugle_rp2040::seed(board.FLASH);

    let mut config = Config::default();
    config.frequency = CLOCK;
    let bus = Spi::new(
        board.SPI0,
        board.PIN_18,
        board.PIN_19,
        board.PIN_16,
        board.DMA_CH0,
        board.DMA_CH1,
        Interrupts,
        config,
    );
    let select = Output::new(board.PIN_17, Level::High);
    // Nothing can fail: a pin of its own selects it.
    let Ok(controller) = ExclusiveDevice::new(bus, select, Delay);
    let (interrupt, reset) = (Input::new(board.PIN_21, Pull::Up), Output::new(board.PIN_20, Level::High));
    static STATE: StaticCell<State<4, 4>> = StaticCell::new();
    let state = STATE.init(State::new());
    let (device, runner) =
        match embassy_net_wiznet::new(ethernet_address(seed), state, controller, interrupt, reset).await {
            Ok(made) => made,
            Err(_) => defmt::panic!("the W5500 doesn't answer"),
        };
    static NETWORK: StaticCell<Network> = StaticCell::new();
    let network = NETWORK.init(Network::new());
    let (stack, stack_runner) = embassy_net::new(device, bugle_board::network(), network, seed.into());
    if let (Ok(controller), Ok(network)) = (serve_controller(runner), serve_network(stack_runner)) {
        spawner.spawn(controller);
        spawner.spawn(network);
    }

    let parts = Parts {
        lamp: Output::new(board.PIN_25, Level::Low),
        button: Input::new(board.PIN_15, Pull::Up),
        sensor: Thermometer::new(board.ADC, board.ADC_TEMP_SENSOR, Interrupts),
    };
    bugle_board::lamp(parts, stack, seed).await
}

#[embassy_executor::task]
async fn serve_controller(
    runner: embassy_net_wiznet::Runner<'static, W5500, Controller, Input<'static>, Output<'static>>,
) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn serve_network(mut runner: embassy_net::Runner<'static, Device<'static>>) -> ! {
    runner.run().await
}
