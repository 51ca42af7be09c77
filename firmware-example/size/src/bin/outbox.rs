//! As `sdk`, but what it publishes goes through an outbox in flash.

#![no_std]
#![no_main]

use bugle_device::flash_outbox::{FlashOutbox, Next};
use bugle_device::protocol::{Frame, NameRef, Publish};
use bugle_device::{Client, Config, Incoming, SendOptions, State, Target, new, will};
use bugle_qemu_mps2::{Flash, Sockets, now, run, settings::Settings, start_network};
use embassy_executor::Spawner;
use embassy_futures::join::join3;
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Delay;
use static_cell::{ConstStaticCell, StaticCell};

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
    static MEMORY: ConstStaticCell<State<'static, NoopRawMutex>> = ConstStaticCell::new(State::new());
    static WILL: StaticCell<[u8; 64]> = StaticCell::new();
    let lost =
        Publish { topic: NameRef::Inline("lamps/1"), at_least_once: true, retain: true, payload: b"lost" };
    let mut config = Config::new("lamp-1", b"a secret of this lamp", 7);
    config.will = will(&Frame::Publish(lost), WILL.init([0; 64])).ok();
    let Ok((client, mut runner)) = new(MEMORY.take(), config, now) else { return };
    let mut sockets = Sockets::new(stack, &Settings::usual());
    static BUFFER: ConstStaticCell<[u8; 512]> = ConstStaticCell::new([0; 512]);
    let outbox = FlashOutbox::<NoopRawMutex, _>::open(Flash::open(), Flash::RANGE, BUFFER.take()).await;
    let Ok(outbox) = outbox else { return };
    let mut delay = Delay;
    let send = outbox.run(client, &mut delay, |_| Next::Remove);
    join3(runner.run(&mut sockets, &mut Delay), send, lamp(client, &outbox)).await;
}

async fn lamp(client: Client<'static, NoopRawMutex>, outbox: &FlashOutbox<'_, NoopRawMutex, Flash>) {
    let _ = client.join("floor3").await;
    loop {
        let is_on = client
            .receive(|incoming| {
                let Incoming::Signal { payload, sender, .. } = incoming else { return false };
                let is_on = payload == b"on";
                let answer = if is_on { &b"is on"[..] } else { b"is off" };
                let options = SendOptions { ttl: Some(500), ..SendOptions::default() };
                let _ = client.try_send(Target::client(sender), answer, &options);
                is_on
            })
            .await;
        let _ = outbox.push_message("lamps/1", if is_on { b"on" } else { b"off" }, true, true).await;
    }
}
