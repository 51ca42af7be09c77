//! A bare TCP application: connects, says who it is, and answers each chunk of bytes with some of its own; connects again.

#![no_std]
#![no_main]

use bugle_device::Connect;
use bugle_qemu_mps2::{Sockets, run, settings::Settings, start_network};
use embassy_executor::Spawner;
use embassy_net::Stack;
use embassy_time::Timer;
use embedded_io_async::Write;

#[cortex_m_rt::entry]
fn main() -> ! {
    run(|spawner: Spawner| {
        let stack = start_network(spawner, &Settings::usual());
        if let Ok(task) = application(stack) {
            spawner.spawn(task);
        }
    })
}

#[embassy_executor::task]
async fn application(stack: Stack<'static>) {
    let mut sockets = Sockets::new(stack, &Settings::usual());
    let mut bytes = [0; 512];
    loop {
        if let Ok(mut socket) = sockets.connect().await {
            let _ = socket.write_all(b"lamp-1").await;
            while let Ok(1..) = socket.read(&mut bytes).await {
                let answer = if bytes.starts_with(b"on") { &b"is on"[..] } else { b"is off" };
                if socket.write_all(answer).await.is_err() {
                    break;
                }
            }
        }
        Timer::after_millis(1_000).await;
    }
}
