//! A device of the fleet: the SDK over TCP, which connects again by itself after every fault.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bugle_device::{Connect, Incoming, ReceiptMode, SendError, SendOptions, State, Status, Target};
use bytes::BufMut;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embedded_hal_async::delay::DelayNs;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until};

use super::app::Fault;
use super::fleet::{Fleet, PAYLOAD_HEAD, Wanted};
use super::ledger::Said;

type Memory = State<'static, CriticalSectionRawMutex, 65_536, 40_960, 32, 16, 4_096, 65_536>;
type Client = bugle_device::Client<'static, CriticalSectionRawMutex>;

/// Tasks that send, each one signal at a time.
const SENDERS: usize = 4;

/// Lives until the fleet is told to end.
pub async fn run(client: usize, group: usize, fleet: Rc<RefCell<Fleet>>, mut faults: mpsc::Receiver<Fault>) {
    let name: &'static str = Fleet::name(client).leak();
    let mut config = bugle_device::Config::new(name, b"", client as u32 + 1);
    (config.window, config.max_body, config.keep_alive) = (32, Some(9_000), 20);
    (config.backoff_base, config.backoff_cap) = (20, 500);
    let memory: &'static mut Memory = Box::leak(Box::new(State::new()));
    let (device, mut runner) = bugle_device::new(memory, config, now).expect("settings as they should be");
    let socket = Rc::new(RefCell::new(None));
    let mut connector = Dial { fleet: fleet.clone(), client, socket: socket.clone() };
    let runner = spawn_local(async move { runner.run(&mut connector, &mut Sleep).await });
    let group = Fleet::group(group);
    let mut tasks = vec![runner.abort_handle()];
    let (noting, stalled) = (fleet.clone(), Rc::new(RefCell::new(None)));
    let taker_stalled = stalled.clone();
    tasks.push(spawn_local(take(device, client, noting, taker_stalled)).abort_handle());
    if device.join(&group).await.is_ok() {
        fleet.borrow_mut().online(client);
    }
    for sender in 0..SENDERS {
        tasks.push(spawn_local(send_on_and_on(device, client, sender, fleet.clone())).abort_handle());
    }
    while let Some(fault) = faults.recv().await {
        match fault {
            Fault::Stall(time) => *stalled.borrow_mut() = Some(tokio::time::Instant::now() + time),
            Fault::Cut { .. } | Fault::TakeOver => {
                fleet.borrow_mut().offline(client);
                if let Some(socket) = socket.borrow_mut().take() {
                    // It may be closed already.
                    let _ = socket2::Socket::from(socket).shutdown(std::net::Shutdown::Both);
                }
            }
        }
    }
    tasks.iter().for_each(tokio::task::AbortHandle::abort);
}

/// Takes what comes.
async fn take(
    device: Client,
    client: usize,
    fleet: Rc<RefCell<Fleet>>,
    stalled: Rc<RefCell<Option<tokio::time::Instant>>>,
) {
    loop {
        let until = stalled.borrow_mut().take();
        if let Some(until) = until {
            sleep_until(until).await;
        }
        device
            .receive(|incoming| {
                if let Incoming::Signal { payload, .. } = incoming {
                    fleet.borrow_mut().delivered(client, payload, false, true);
                }
            })
            .await;
    }
}

async fn send_on_and_on(device: Client, client: usize, sender: usize, fleet: Rc<RefCell<Fleet>>) {
    loop {
        let due = fleet.borrow().next_send(client);
        match due {
            Some(due) => sleep_until(due).await,
            None => sleep(Duration::from_millis(20)).await,
        }
        let wanted = fleet.borrow_mut().take_send(client);
        if let Some(wanted) = wanted {
            fleet.borrow_mut().ledger.set_strand(wanted.number, sender);
            send(device, &fleet, &wanted).await;
        }
    }
}

async fn send(device: Client, fleet: &Rc<RefCell<Fleet>>, wanted: &Wanted) {
    let number = wanted.number;
    let mut payload = Vec::with_capacity(wanted.size);
    payload.put_u64(number);
    payload.put_u64(fleet.borrow().ledger.now());
    payload.put_bytes(b'.', wanted.size - PAYLOAD_HEAD);
    let id = format!("n{number}");
    let store = wanted.kind.is_kept();
    let options = SendOptions {
        ttl: Some(wanted.ttl),
        receipt: ReceiptMode::Each,
        store,
        id: Some(&id),
        ..SendOptions::default()
    };
    let only: Vec<&str> = wanted.only.iter().map(String::as_str).collect();
    let except: Vec<&str> = wanted.except.iter().map(String::as_str).collect();
    let mut target = Target::group(&wanted.group);
    if !only.is_empty() {
        target = target.only(&only);
    }
    if !except.is_empty() {
        target = target.except(&except);
    }
    fleet.borrow_mut().sent();
    // Where some are queued, the last receipt says again what the first one did.
    let mut said = HashMap::new();
    let each = |name: &str, status: Status| {
        if said.insert(name.to_owned(), status) == Some(status) {
            return;
        }
        if let Some(recipient) = Fleet::client_of(name) {
            fleet.borrow_mut().ledger.status(number, recipient, status.name(), Said::default());
        }
    };
    let result = device.send_with_receipt(target, &payload, &options, each).await;
    let ledger = &mut fleet.borrow_mut().ledger;
    match result {
        Ok(_) => ledger.accepted(number),
        Err(SendError::Refused { reason, .. }) => ledger.refused(number, reason.name()),
        Err(SendError::NoReceipt) => {
            ledger.accepted(number);
            ledger.missed_receipt(number);
        }
        Err(_) => ledger.unknown(number),
    }
}

/// Opens connections to wherever the gateway is now.
struct Dial {
    fleet: Rc<RefCell<Fleet>>,
    client: usize,
    socket: Rc<RefCell<Option<std::net::TcpStream>>>,
}

impl Connect for Dial {
    type Transport<'t> = FromTokio<TcpStream>;
    type Error = io::Error;

    async fn connect(&mut self) -> Result<Self::Transport<'_>, io::Error> {
        let port = self.fleet.borrow().port;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        // A second handle, to cut it by.
        let socket = socket2::SockRef::from(&stream).try_clone()?;
        *self.socket.borrow_mut() = Some(socket.into());
        self.fleet.borrow_mut().online(self.client);
        Ok(FromTokio::new(stream))
    }
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

struct Sleep;

impl DelayNs for Sleep {
    async fn delay_ns(&mut self, nanoseconds: u32) {
        sleep(Duration::from_nanos(nanoseconds.into())).await;
    }

    async fn delay_ms(&mut self, milliseconds: u32) {
        sleep(Duration::from_millis(milliseconds.into())).await;
    }
}
