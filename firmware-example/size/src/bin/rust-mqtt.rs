//! The same on rust-mqtt: subscribes to the group and its inbox, answers each message to its sender, publishes its state, and pings.

#![no_std]
#![no_main]

use core::num::NonZero;

use bugle_device::Connect;
use bugle_qemu_mps2::{Sockets, run, settings::Settings, start_network};
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use rust_mqtt::Bytes;
use rust_mqtt::buffer::BumpBuffer;
use rust_mqtt::client::Client;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{
    ConnectOptions, PublicationOptions, SubscriptionOptions, TopicReference, WillOptions,
};
use rust_mqtt::config::KeepAlive;
use rust_mqtt::types::{MqttBinary, MqttString, TopicFilter, TopicName};
use static_cell::ConstStaticCell;

/// Two subscriptions, four messages each way, and the gateway's three user properties with one more.
type Mqtt<'c, 's> = Client<'c, 'c, TcpSocket<'s>, BumpBuffer<'c>, 2, 4, 4, 0, 4, 0, 0>;

const KEEP_ALIVE: NonZero<u16> = NonZero::<u16>::MIN.saturating_add(59);

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
    let memory = RECEIVE.take();
    let mut sockets = Sockets::new(stack, &Settings::usual());
    loop {
        if let Ok(socket) = sockets.connect().await {
            let mut buffer = BumpBuffer::new(memory);
            serve(Client::new(&mut buffer), socket).await;
        }
        Timer::after_millis(1_000).await;
    }
}

/// Until the connection ends, or anything is wrong.
async fn serve<'s>(mut client: Mqtt<'_, 's>, socket: TcpSocket<'s>) -> Option<()> {
    let (Ok(id), Ok(secret)) =
        (MqttString::from_str("lamp-1"), MqttBinary::from_slice(b"a secret of this lamp"))
    else {
        return None;
    };
    let will = WillOptions::new(topic("lamps/1")?, MqttBinary::from_slice(b"lost").ok()?).retain();
    let options = ConnectOptions::new()
        .keep_alive(KeepAlive::Seconds(KEEP_ALIVE))
        .user_name(id.clone())
        .password(secret)
        .will(will);
    client.connect(socket, &options, Some(id)).await.ok()?;
    for filter in ["sig/g/floor3", "sig/c/lamp-1"] {
        let filter = TopicFilter::new(MqttString::from_str(filter).ok()?)?;
        client.subscribe(filter, &SubscriptionOptions::new().at_least_once()).await.ok()?;
    }
    let answer_to =
        PublicationOptions::new(TopicReference::Name(topic("sig/c/panel?ttl=500")?)).at_least_once();
    let state_at = PublicationOptions::new(TopicReference::Name(topic("lamps/1")?)).at_least_once().retain();
    loop {
        let header = match select(client.poll_header(), Timer::after_secs(45)).await {
            Either::First(header) => header.ok()?,
            Either::Second(()) => {
                client.ping().await.ok()?;
                continue;
            }
        };
        let is_on = match client.poll_body(header).await.ok()? {
            Event::Publish(message) => Some(message.message.as_bytes() == b"on"),
            _ => None,
        };
        #[expect(
            unsafe_code,
            reason = "the event is the only one that borrows from the buffer, and it is gone"
        )]
        // SAFETY: nothing that was made from the buffer is alive: the event was dropped by the match above, and what the
        // connection gave before the loop.
        unsafe {
            client.buffer_mut().reset();
        }
        if let Some(is_on) = is_on {
            let answer = if is_on { &b"is on"[..] } else { b"is off" };
            let state = if is_on { &b"on"[..] } else { b"off" };
            client.publish(&answer_to, Bytes::from(answer)).await.ok()?;
            client.publish(&state_at, Bytes::from(state)).await.ok()?;
        }
    }
}

fn topic(name: &'static str) -> Option<TopicName<'static>> {
    TopicName::new(MqttString::from_str(name).ok()?)
}
