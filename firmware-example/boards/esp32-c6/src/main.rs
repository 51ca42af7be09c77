//! The lamp on an ESP32-C6. The radio's driver wants a heap; nothing of ours does.
#![no_std]
#![no_main]

use bugle_board::{Network, WIFI, WIFI_PASSWORD};
use bugle_lamp::{Parts, Sensor};
use embassy_executor::Spawner;
use embassy_time::Timer;
use esp_backtrace as _;
use esp_hal::gpio::{Input, InputConfig, Level, Output, OutputConfig, Pull};
use esp_hal::timer::timg::TimerGroup;
use esp_hal::tsens::TemperatureSensor;
use esp_println as _;
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{AuthenticationMethodConfig, Config, Interface, WifiController};
use static_cell::StaticCell;

mod description {
    #![allow(unsafe_code, missing_docs, reason = "of the macro")]
    esp_bootloader_esp_idf::esp_app_desc!();
}

/// Seconds until the next attempt to join the wireless network.
const AGAIN: u64 = 5;

#[allow(unsafe_code, reason = "of the macro")]
fn make_heap() {
    esp_alloc::heap_allocator!(size: 80 * 1024);
}

#[esp_rtos::main]
async fn main(spawner: Spawner) {
    let board = esp_hal::init(esp_hal::Config::default());
    make_heap();
    let timers = TimerGroup::new(board.TIMG0);
    esp_rtos::start(timers.timer0, board.FROM_CPU_INTR0);
    let seed = bugle_board::seed(esp_hal::efuse::base_mac_address().as_bytes());

    let controller = match WifiController::new(board.WIFI, Default::default()) {
        Ok(controller) => controller,
        Err(error) => defmt::panic!("no radio: {}", error),
    };
    static NETWORK: StaticCell<Network> = StaticCell::new();
    let network = NETWORK.init(Network::new());
    let (stack, runner) =
        embassy_net::new(Interface::station(), bugle_board::network(), network, seed.into());
    if let (Ok(network), Ok(link)) = (serve_network(runner), keep_link(controller)) {
        spawner.spawn(network);
        spawner.spawn(link);
    }

    let parts = Parts {
        lamp: Output::new(board.GPIO10, Level::Low, OutputConfig::default()),
        button: Input::new(board.GPIO9, InputConfig::default().with_pull(Pull::Up)),
        sensor: Thermometer(TemperatureSensor::new(board.TSENS, Default::default()).ok()),
    };
    bugle_board::lamp(parts, stack, seed).await
}

#[embassy_executor::task]
async fn serve_network(mut runner: embassy_net::Runner<'static, Interface>) -> ! {
    runner.run().await
}

/// Joins the wireless network, again whenever it is lost.
#[embassy_executor::task]
async fn keep_link(mut controller: WifiController<'static>) -> ! {
    let station = StationConfig::default().with_authentication(match WIFI_PASSWORD {
        "" => AuthenticationMethodConfig::Open,
        password => match password.try_into() {
            Ok(password) => AuthenticationMethodConfig::Wpa2Personal(password),
            Err(_) => defmt::panic!("BUGLE_WIFI_PASSWORD has not 8 to 64 characters"),
        },
    });
    let Ok(name) = WIFI.try_into() else { defmt::panic!("BUGLE_WIFI is no network's name") };
    if let Err(error) = controller.set_config(&Config::Station(station.with_ssid(name))) {
        defmt::panic!("not a wireless network: {}", error);
    }
    loop {
        match controller.connect_async().await {
            Ok(_) => {
                defmt::info!("joined {}", WIFI);
                if let Ok(lost) = controller.wait_for_disconnect_async().await {
                    defmt::warn!("{} is lost: {}", WIFI, lost);
                }
            }
            Err(error) => defmt::warn!("cannot join {}: {}", WIFI, error),
        }
        Timer::after_secs(AGAIN).await;
    }
}

/// The thermometer of the chip itself.
struct Thermometer(Option<TemperatureSensor<'static>>);

impl Sensor for Thermometer {
    async fn measure(&mut self) -> Option<i16> {
        Some((self.0.as_ref()?.get_temperature().to_celsius() * 10.0) as i16)
    }
}
