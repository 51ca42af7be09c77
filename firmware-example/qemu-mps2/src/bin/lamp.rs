//! The lamp on QEMU's board. Each byte on the serial line presses its button.

#![no_std]
#![no_main]

use bugle_lamp::{Parts, Settings};
use bugle_qemu_mps2::{
    Led, Serial, SerialButton, Sockets, Thermometer, now, run, semihosting, settings, start_network,
};
use embassy_executor::Spawner;
use embassy_net::Stack;
use embassy_time::Delay;
use static_cell::StaticCell;

#[cortex_m_rt::entry]
fn main() -> ! {
    static COMMAND_LINE: StaticCell<[u8; semihosting::COMMAND_LINE]> = StaticCell::new();
    let settings = settings::Settings::read(COMMAND_LINE.init([0; semihosting::COMMAND_LINE]));
    run(|spawner: Spawner| {
        let stack = start_network(spawner, &settings);
        if let Ok(task) = lamp(stack, settings) {
            spawner.spawn(task);
        }
    })
}

#[embassy_executor::task]
async fn lamp(stack: Stack<'static>, settings: settings::Settings) {
    defmt::info!("{} starts", settings.client_id());
    let parts =
        Parts { lamp: Led::new(), button: SerialButton::new(Serial::open()), sensor: Thermometer::new() };
    let mut sockets = Sockets::new(stack, &settings);
    let lamp = Settings {
        client_id: settings.client_id(),
        secret: settings.secret(),
        group: settings.group(),
        seed: settings.seed(),
        report_every: settings.number("report").unwrap_or(30),
    };
    let end = bugle_lamp::run(parts, &mut sockets, Delay, now, &lamp).await;
    defmt::error!("{}", end);
    semihosting::exit(false)
}
