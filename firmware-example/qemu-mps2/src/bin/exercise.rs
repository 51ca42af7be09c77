//! Firmware for the end-to-end tests: does what the lines on its serial line say, and logs what becomes of it.
//!
//! ```text
//! join GROUP
//! send g/GROUP|c/CLIENT [only=A,B] [except=A,B] [ttl=MS] [urgent=1] TEXT   a TEXT of *N is N times an x
//! burst g/GROUP|c/CLIENT N      N signals one after another, "0" to "N-1"; waits where it is told to, and sends again
//! pace g/GROUP|c/CLIENT N       the same, one in each 10 ms
//! slow MS                       waits so long after each signal that it takes; 0 to take at once
//! report                        logs counters and how deep the stack was
//! end                           says goodbye and ends the program
//! ```

#![no_std]
#![no_main]

use core::cell::Cell;

use bugle_device::{
    Client, Config, Disconnect, Event, Incoming, Reason, ReceiptMode, SendError, SendOptions, State, Target,
    new,
};
use bugle_qemu_mps2::{Serial, Sockets, now, run, semihosting, settings::Settings, stack_use, start_network};
use defmt::{error, info, warn};
use embassy_executor::Spawner;
use embassy_futures::join::join4;
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::{Delay, Duration, Instant, Timer};
use heapless::{String, Vec};
use static_cell::{ConstStaticCell, StaticCell};

/// Takes and sends payloads of 8 KiB; of 2 KiB in TLS, whose stack takes the place.
#[cfg(not(feature = "tls"))]
type Memory = State<'static, NoopRawMutex, 10_240, 8_704, 8, 4, 128, 512>;
#[cfg(feature = "tls")]
type Memory = State<'static, NoopRawMutex, 4_096, 2_304, 8, 4, 128, 512>;
const MAX_BODY: u16 = if cfg!(feature = "tls") { 2_300 } else { 8_400 };
type Bugle = Client<'static, NoopRawMutex>;

#[cortex_m_rt::entry]
fn main() -> ! {
    static COMMAND_LINE: StaticCell<[u8; semihosting::COMMAND_LINE]> = StaticCell::new();
    let settings = Settings::read(COMMAND_LINE.init([0; semihosting::COMMAND_LINE]));
    run(|spawner: Spawner| {
        let stack = start_network(spawner, &settings);
        if let Ok(task) = exercise(stack, settings) {
            spawner.spawn(task);
        }
    })
}

#[embassy_executor::task]
async fn exercise(stack: Stack<'static>, settings: Settings) {
    // Made by the compiler: made at run time, it would stand on the stack first.
    static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(State::new());
    let mut config = Config::new(settings.client_id(), settings.secret(), settings.seed());
    config.max_body = Some(MAX_BODY);
    config.keep_alive = settings.number("keepalive").unwrap_or(60) as u16;
    config.ack_timeout = settings.number("ack").unwrap_or(30_000);
    config.backoff_cap = 1_000;
    config.session_expiry = settings.number("expiry").unwrap_or(0);
    let (client, mut runner) = match new(MEMORY.take(), config, now) {
        Ok(made) => made,
        Err(error) => defmt::panic!("{}", error),
    };
    let mut sockets = Sockets::new(stack, &settings);
    let pause = Cell::new(0);
    let runner = async {
        let end = runner.run(&mut sockets, &mut Delay).await;
        info!("ended: {}", end);
        semihosting::exit(end == Disconnect::Stopped)
    };
    join4(runner, take(client, &pause), tell(client), obey(client, &pause)).await;
}

/// Logs what comes in.
async fn take(client: Bugle, pause: &Cell<u32>) {
    loop {
        client
            .receive(|incoming| match incoming {
                Incoming::Signal { mode, sender, group, remaining, payload, .. } => {
                    let text = text(payload);
                    let group = group.unwrap_or("-");
                    let left = remaining.unwrap_or(0);
                    info!("got {} {} {} {} {} {}", mode.key(), sender, group, left, payload.len(), text);
                }
                Incoming::Message { topic, payload, .. } => info!("got topic {} {}", topic, text(payload)),
            })
            .await;
        Timer::after_millis(pause.get().into()).await;
    }
}

/// What can be logged of a payload.
fn text(payload: &[u8]) -> &str {
    core::str::from_utf8(&payload[..payload.len().min(32)]).unwrap_or("not text")
}

async fn tell(client: Bugle) {
    loop {
        match client.event().await {
            Event::Connected { resumed } => info!("connected {}", resumed),
            Event::Disconnected(cause) => info!("disconnected {}", cause),
            other => warn!("event {}", other),
        }
    }
}

/// Does what it is told.
async fn obey(client: Bugle, pause: &Cell<u32>) {
    let mut serial = Serial::open();
    info!("ready");
    loop {
        let mut line = String::<200>::new();
        loop {
            let byte = serial.byte().await;
            if byte == b'\n' {
                break;
            }
            if line.push(byte.into()).is_err() {
                error!("a line of more than 200 bytes");
            }
        }
        if act(client, pause, line.split(' ')).await.is_none() {
            error!("not understood: {}", line);
        }
    }
}

/// Does what one line says, if it can be understood.
async fn act<'w>(client: Bugle, pause: &Cell<u32>, mut words: impl Iterator<Item = &'w str>) -> Option<()> {
    match words.next()? {
        "join" => match client.join(words.next()?).await {
            Ok(_) => info!("joined"),
            Err(error) => failed(error),
        },
        "send" => send(client, words).await?,
        "burst" => burst(client, words, Duration::MIN).await?,
        "pace" => burst(client, words, Duration::from_millis(10)).await?,
        "slow" => {
            pause.set(words.next()?.parse().ok()?);
            info!("pauses {}", pause.get());
        }
        "report" => report(client),
        "end" => client.disconnect(),
        _ => return None,
    }
    Some(())
}

fn target(word: &str) -> Option<Target<'_>> {
    match word.split_once('/')? {
        ("g", group) => Some(Target::group(group)),
        ("c", client) => Some(Target::client(client)),
        _ => None,
    }
}

async fn send<'w>(client: Bugle, mut words: impl Iterator<Item = &'w str>) -> Option<()> {
    let mut target = target(words.next()?)?;
    let mut options = SendOptions { receipt: ReceiptMode::Each, ..SendOptions::default() };
    let (mut only, mut except) = (Vec::<&str, 8>::new(), Vec::<&str, 8>::new());
    let mut payload = "";
    for word in words {
        match word.split_once('=') {
            Some(("only", names)) => only.extend(names.split(',')),
            Some(("except", names)) => except.extend(names.split(',')),
            Some(("ttl", millis)) => options.ttl = millis.parse().ok(),
            Some(("urgent", _)) => options.urgent = true,
            _ => payload = word,
        }
    }
    if !only.is_empty() {
        target = target.only(&only);
    }
    if !except.is_empty() {
        target = target.except(&except);
    }
    static LARGE: [u8; 8193] = [b'x'; 8193];
    let payload = match payload.strip_prefix('*') {
        Some(length) => LARGE.get(..length.parse().ok()?)?,
        None => payload.as_bytes(),
    };
    let each = |id: &str, status: bugle_device::Status| info!("status {} {}", id, status.name());
    match client.send_with_receipt(target, payload, &options, each).await {
        Ok(receipt) => info!("receipt {}", receipt.counts.total()),
        Err(error) => failed(error),
    }
    Some(())
}

/// Sends number after number, not sooner after one another than `pace`.
async fn burst<'w>(client: Bugle, mut words: impl Iterator<Item = &'w str>, pace: Duration) -> Option<()> {
    let target = target(words.next()?)?;
    let count: u16 = words.next()?.parse().ok()?;
    let (began, mut refused) = (now(), 0u32);
    let started = Instant::now();
    for number in 0..count {
        Timer::at(started + pace * number.into()).await;
        let mut text = String::<8>::new();
        // Five digits fit.
        let _ = core::fmt::Write::write_fmt(&mut text, format_args!("{number}"));
        loop {
            match client.send(target, text.as_bytes(), &SendOptions::default()).await {
                Ok(_) => break,
                Err(SendError::Refused { reason: Reason::RateLimited, retry_after }) => {
                    refused += 1;
                    Timer::after_millis(retry_after.into()).await;
                }
                Err(error) => {
                    failed(error);
                    return Some(());
                }
            }
        }
    }
    info!("burst of {} in {} ms, rate limited {}", count, now() - began, refused);
    Some(())
}

fn failed(error: SendError) {
    match error {
        SendError::Refused { reason, retry_after } => info!("refused {} {}", reason.name(), retry_after),
        other => info!("failed {}", other),
    }
}

fn report(client: Bugle) {
    let (stack, counters) = (stack_use(), client.counters());
    info!("stack {} of {}", stack.used, stack.size);
    info!(
        "welcomes {} taken {} expired {} too_large {}",
        counters.welcomes, counters.taken, counters.expired, counters.too_large
    );
}
