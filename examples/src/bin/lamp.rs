//! A lamp on the device SDK, on Linux: joins a group, obeys "on" and "off", and tells whoever asks "state?".
//!
//! `cargo run -p bugle-examples --bin lamp -- lamp-1 floor3`; `BUGLE_SERVER` is the gateway, 127.0.0.1:1883 unless set
#![forbid(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::{Client, Config, Incoming, SendError, SendOptions, State, Target};
use embassy_futures::select::{Either, select};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next().unwrap_or_else(|| "lamp-1".to_owned());
    let group = arguments.next().unwrap_or_else(|| "floor3".to_owned());
    let server = std::env::var("BUGLE_SERVER").unwrap_or_else(|_| "127.0.0.1:1883".to_owned());

    let mut state = Box::new(State::<NoopRawMutex>::new());
    // A board would take its seed from its random number generator, and its secret from flash.
    let config = Config::new(&id, b"", std::process::id());
    let (client, mut runner) = bugle_device::new(&mut state, config, milliseconds)?;
    let mut connector = async || {
        // The runner tries again by itself, after longer and longer pauses; this only says so.
        let failed = |error: &_| eprintln!("{id}: no gateway at {server}: {error}; trying again");
        let stream = TcpStream::connect(&server).await.inspect_err(failed)?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(FromTokio::new(stream))
    };
    match select(runner.run(&mut connector, &mut Sleep), lamp(client, &id, &group)).await {
        Either::First(ended) => Err(format!("disconnected for good: {ended:?}").into()),
        Either::Second(result) => Ok(result?),
    }
}

/// The application: the same on a board.
async fn lamp(client: Client<'_, NoopRawMutex>, id: &str, group: &str) -> Result<(), SendError> {
    client.join(group).await?;
    println!("{id} is in {group}");
    let mut on = false;
    loop {
        let asked_by = client
            .receive(|incoming| match incoming {
                Incoming::Signal { payload: b"on", .. } => {
                    on = true;
                    None
                }
                Incoming::Signal { payload: b"off", .. } => {
                    on = false;
                    None
                }
                Incoming::Signal { payload: b"state?", sender, .. } => Some(sender.to_owned()),
                _ => None,
            })
            .await;
        println!("{id} is {}", if on { "on" } else { "off" });
        if let Some(sender) = asked_by {
            let answer: &[u8] = if on { b"on" } else { b"off" };
            // An answer that comes late is of no use to anyone.
            let options = SendOptions { ttl: Some(1000), ..SendOptions::default() };
            if let Err(error) = client.send(Target::client(&sender), answer, &options).await {
                println!("{id} could not answer {sender}: {error}");
            }
        }
    }
}

fn milliseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        tokio::time::sleep(Duration::from_nanos(nanoseconds.into())).await;
    }
}
