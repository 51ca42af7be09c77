//! Firmware for the end-to-end tests of the outbox in flash: does what the lines on its serial line say, and logs what becomes of it.
//!
//! ```text
//! push TEXT    stores a signal to the group
//! stall N      the flash stops in the middle of its Nth word or page from here on
//! ```

#![no_std]
#![no_main]

use bugle_device::flash_outbox::{FlashOutbox, Next, Settled};
use bugle_device::{Client, Config, Event, SendOptions, State, Target, new};
use bugle_qemu_mps2::{Flash, Serial, Sockets, now, run, semihosting, settings::Settings, start_network};
use defmt::{error, info};
use embassy_executor::Spawner;
use embassy_futures::join::join4;
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Delay;
use heapless::String;
use static_cell::{ConstStaticCell, StaticCell};

type Outbox<'b> = FlashOutbox<'b, NoopRawMutex, Flash>;

#[cortex_m_rt::entry]
fn main() -> ! {
    static COMMAND_LINE: StaticCell<[u8; semihosting::COMMAND_LINE]> = StaticCell::new();
    let settings = Settings::read(COMMAND_LINE.init([0; semihosting::COMMAND_LINE]));
    run(|spawner: Spawner| {
        let stack = start_network(spawner, &settings);
        if let Ok(task) = application(stack, settings) {
            spawner.spawn(task);
        }
    })
}

#[embassy_executor::task]
async fn application(stack: Stack<'static>, settings: Settings) {
    static MEMORY: ConstStaticCell<State<'static, NoopRawMutex>> = ConstStaticCell::new(State::new());
    static BUFFER: ConstStaticCell<[u8; 512]> = ConstStaticCell::new([0; 512]);
    let mut config = Config::new(settings.client_id(), settings.secret(), settings.seed());
    (config.backoff_cap, config.session_expiry) = (1_000, 0);
    let (client, mut runner) = match new(MEMORY.take(), config, now) {
        Ok(made) => made,
        Err(error) => defmt::panic!("{}", error),
    };
    let outbox: Outbox<'_> = match FlashOutbox::open(Flash::open(), Flash::RANGE, BUFFER.take()).await {
        Ok(outbox) => outbox,
        Err(error) => defmt::panic!("no outbox: {}", error),
    };
    let mut sockets = Sockets::new(stack, &settings);
    let send = async {
        let error = outbox.run(client, &mut Delay, settle).await;
        error!("the outbox ends: {}", error);
    };
    join4(runner.run(&mut sockets, &mut Delay), send, tell(client), obey(&outbox, settings.group())).await;
}

fn settle(settled: &Settled<'_>) -> Next {
    let text = core::str::from_utf8(settled.message.payload()).unwrap_or("not text");
    match settled.outcome {
        Ok(_) => info!("settled {} accepted", text),
        Err(error) => info!("settled {} {}", text, error),
    }
    Next::Remove
}

async fn tell(client: Client<'static, NoopRawMutex>) {
    loop {
        match client.event().await {
            Event::Connected { .. } => info!("connected"),
            other => info!("event {}", other),
        }
    }
}

async fn obey(outbox: &Outbox<'_>, group: &str) {
    let mut serial = Serial::open();
    info!("ready");
    loop {
        let mut line = String::<100>::new();
        loop {
            match serial.byte().await {
                b'\n' => break,
                byte if line.push(byte.into()).is_err() => error!("a line of more than 100 bytes"),
                _ => {}
            }
        }
        match line.split_once(' ') {
            Some(("push", text)) => {
                let options = SendOptions::default();
                match outbox.push_signal(Target::group(group), text.as_bytes(), &options).await {
                    Ok(_) => info!("pushed {}", text),
                    Err(error) => error!("not pushed: {}", error),
                }
            }
            Some(("stall", count)) => Flash::stall_after(count.parse().unwrap_or(0)),
            _ => error!("not understood: {}", line),
        }
    }
}
