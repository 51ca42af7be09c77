//! The same on minimq: subscribes to the group and its inbox, answers each message to its sender, and publishes its state.

#![no_std]
#![no_main]

use bugle_device::Connect;
use bugle_qemu_mps2::{Sockets, run, settings::Settings, start_network};
use embassy_executor::Spawner;
use embassy_net::Stack;
use embassy_time::Timer;
use minimq::{Buffers, ConfigBuilder, Publication, QoS, Session, TopicFilter, Will};
use static_cell::ConstStaticCell;

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
    static RECEIVE: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static TRANSMIT: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut sockets = Sockets::new(stack, &Settings::usual());
    let buffers = Buffers::new(RECEIVE.take(), TRANSMIT.take());
    let config = ConfigBuilder::new(buffers).client_id("lamp-1").and_then(|config| {
        config.auth("lamp-1", b"a secret of this lamp")?.will(Will::new("lamps/1", b"lost", &[])?.retained())
    });
    let Ok(config) = config else { return };
    let mut session = Session::new(config);
    loop {
        if let Ok(socket) = sockets.connect().await
            && let Ok(mut connection) = session.connect(socket).await
        {
            let filters = [TopicFilter::new("sig/g/floor3"), TopicFilter::new("sig/c/lamp-1")];
            let _ = connection.subscribe(&filters, &[]).await;
            while let Ok(message) = connection.recv().await {
                let is_on = message.payload() == b"on";
                let answer = if is_on { &b"is on"[..] } else { b"is off" };
                let state = if is_on { &b"on"[..] } else { b"off" };
                let answer = Publication::bytes("sig/c/panel?ttl=500", answer).qos(QoS::AtLeastOnce);
                let state = Publication::bytes("lamps/1", state).qos(QoS::AtLeastOnce).retain();
                if connection.publish(answer).await.is_err() || connection.publish(state).await.is_err() {
                    break;
                }
            }
        }
        Timer::after_millis(1_000).await;
    }
}
