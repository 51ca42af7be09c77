//! As `sdk`, with everything else that a client has: receipts by name, all four modes, plain topics, events, counters, a goodbye.

#![no_std]
#![no_main]

use bugle_device::protocol::{Frame, NameRef, Publish};
use bugle_device::{
    Client, Config, Event, Incoming, ReceiptMode, SendError, SendOptions, State, Status, Target, new, will,
};
use bugle_qemu_mps2::{Sockets, now, run, settings::Settings, start_network};
use embassy_executor::Spawner;
use embassy_futures::join::join3;
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Delay;
use static_cell::{ConstStaticCell, StaticCell};

type Bugle = Client<'static, NoopRawMutex>;

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
    let (_end, _failed, ()) = join3(runner.run(&mut sockets, &mut Delay), lamp(client), watch(client)).await;
}

async fn lamp(client: Bugle) -> Result<(), SendError> {
    client.wait_connected().await.map_err(|_| SendError::Stopped)?;
    client.join("floor3").await?;
    client.subscribe("lamps/+/set", true).await?;
    loop {
        let is_on = client
            .receive(|incoming| match incoming {
                Incoming::Signal { payload, sender, .. } => {
                    let options = SendOptions { ttl: Some(500), ..SendOptions::default() };
                    let _ = client.try_send(Target::client(sender), b"taken", &options);
                    payload == b"on"
                }
                Incoming::Message { payload, .. } => payload == b"on",
            })
            .await;
        client.publish("lamps/1", if is_on { b"on" } else { b"off" }, true, true).await?;
        let mut late = 0u8;
        let options =
            SendOptions { receipt: ReceiptMode::Each, store: true, id: Some("17"), ..SendOptions::default() };
        for target in [
            Target::group("floor3"),
            Target::group("floor3").only(&["lamp-2", "lamp-3"]),
            Target::group("floor3").except(&["lamp-2"]),
        ] {
            let each = |_: &str, status: Status| {
                late += u8::from(!matches!(status, Status::Delivered | Status::Queued))
            };
            let receipt = client.send_with_receipt(target, b"on", &options, each).await?;
            late += u8::from(receipt.counts.count(Status::Delivered) == 0);
        }
        if late > 3 || client.counters().expired > 9 || client.gateway_time().is_none() {
            client.unsubscribe("lamps/+/set").await?;
            client.leave("floor3").await?;
            client.disconnect();
        }
    }
}

async fn watch(client: Bugle) {
    while !matches!(client.event().await, Event::Disconnected(cause) if cause.needs_help()) {}
}
