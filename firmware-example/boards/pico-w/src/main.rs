//! The lamp on a Raspberry Pi Pico W.
#![no_std]
#![no_main]

use core::convert::Infallible;

use bugle_board::{Network, WIFI, WIFI_PASSWORD};
use bugle_lamp::Parts;
use bugle_rp2040::Thermometer;
use cyw43::{Control, JoinOptions, NetDriver, PowerManagementMode, SpiBus, State, aligned_bytes};
use cyw43_pio::{PioSpi, RM2_CLOCK_DIVIDER};
use defmt_rtt as _;
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_rp::dma::Channel;
use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::PIO0;
use embassy_rp::pio::Pio;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Timer;
use embedded_hal::digital::{ErrorType, OutputPin};
use panic_probe as _;
use static_cell::StaticCell;

mod interrupts {
    #![allow(unsafe_code, reason = "of the macro")]
    use embassy_rp::peripherals::{DMA_CH0, PIO0};
    use embassy_rp::{adc, bind_interrupts, dma, pio};

    bind_interrupts!(pub struct Interrupts {
        ADC_IRQ_FIFO => adc::InterruptHandler;
        DMA_IRQ_0 => dma::InterruptHandler<DMA_CH0>;
        PIO0_IRQ_0 => pio::InterruptHandler<PIO0>;
    });
}
use interrupts::Interrupts;

type Radio = cyw43::Runner<'static, SpiBus<Output<'static>, PioSpi<'static, PIO0, 0>>>;
/// The radio's pin that the board's LED is on.
const LED: u8 = 0;
/// Seconds until the next attempt to join the wireless network.
const AGAIN: u64 = 5;

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let board = embassy_rp::init(Default::default());
    let seed = bugle_rp2040::seed(board.FLASH);
    let firmware = aligned_bytes!(concat!(env!("OUT_DIR"), "/43439A0.bin"));
    let regions = aligned_bytes!(concat!(env!("OUT_DIR"), "/43439A0_clm.bin"));
    let nvram = aligned_bytes!(concat!(env!("OUT_DIR"), "/nvram_rp2040.bin"));
    // The linker has to see all of it, also where it is empty.
    if core::hint::black_box(firmware).is_empty() {
        defmt::panic!("this image was built without the radio's firmware: see its README");
    }

    let mut pio = Pio::new(board.PIO0, Interrupts);
    let bus = PioSpi::new(
        &mut pio.common,
        pio.sm0,
        RM2_CLOCK_DIVIDER,
        pio.irq0,
        Output::new(board.PIN_25, Level::High),
        board.PIN_24,
        board.PIN_29,
        Channel::new(board.DMA_CH0, Interrupts),
    );
    static STATE: StaticCell<State> = StaticCell::new();
    let power = Output::new(board.PIN_23, Level::Low);
    let (device, mut control, runner) =
        cyw43::new(STATE.init(State::new()), power, bus, firmware, nvram).await;
    if let Ok(radio) = serve_radio(runner) {
        spawner.spawn(radio);
    }
    control.init(regions).await;
    control.set_power_management(PowerManagementMode::PowerSave).await;

    static NETWORK: StaticCell<Network> = StaticCell::new();
    let network = NETWORK.init(Network::new());
    let (stack, runner) = embassy_net::new(device, bugle_board::network(), network, seed.into());
    if let (Ok(network), Ok(link)) = (serve_network(runner), keep_link(control, stack)) {
        spawner.spawn(network);
        spawner.spawn(link);
    }

    let parts = Parts {
        lamp: RadioLed,
        button: Input::new(board.PIN_15, Pull::Up),
        sensor: Thermometer::new(board.ADC, board.ADC_TEMP_SENSOR, Interrupts),
    };
    bugle_board::lamp(parts, stack, seed).await
}

#[embassy_executor::task]
async fn serve_radio(runner: Radio) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn serve_network(mut runner: embassy_net::Runner<'static, NetDriver<'static>>) -> ! {
    runner.run().await
}

/// What the LED is to show.
static SHOWN: Signal<CriticalSectionRawMutex, bool> = Signal::new();

/// Joins the wireless network, again whenever it is lost, and sets the LED.
#[embassy_executor::task]
async fn keep_link(mut control: Control<'static>, stack: Stack<'static>) -> ! {
    loop {
        let options = match WIFI_PASSWORD {
            "" => JoinOptions::new_open(),
            password => JoinOptions::new(password.as_bytes()),
        };
        match control.join(WIFI, options).await {
            Ok(()) => defmt::info!("joined {}", WIFI),
            Err(_) => {
                defmt::warn!("cannot join {}", WIFI);
                Timer::after_secs(AGAIN).await;
                continue;
            }
        }
        while let Either::First(is_on) = select(SHOWN.wait(), stack.wait_link_down()).await {
            control.gpio_set(LED, is_on).await;
        }
        defmt::warn!("{} is lost", WIFI);
    }
}

/// The board's LED, which the radio's task sets.
struct RadioLed;

impl ErrorType for RadioLed {
    type Error = Infallible;
}

impl OutputPin for RadioLed {
    fn set_low(&mut self) -> Result<(), Infallible> {
        SHOWN.signal(false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        SHOWN.signal(true);
        Ok(())
    }
}
