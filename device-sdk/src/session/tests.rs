//! A scripted gateway in virtual time.

mod hostile;
mod idle;
mod meeting;
mod receiving;
mod resuming;
mod sending;
mod vectors;

use core::sync::atomic::AtomicPtr;
use std::boxed::Box;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

use bugle_protocol::*;

use super::*;
use crate::signal::{Incoming, SendOptions, Target};

const NAME_TABLE: usize = 4;

/// Memory that is lent for ever. It stays known, so that Miri doesn't take it for lost.
fn leak<T>(items: Vec<T>) -> &'static mut [T] {
    static LENT: Mutex<Vec<AtomicPtr<()>>> = Mutex::new(Vec::new());
    let items = Box::leak(items.into_boxed_slice());
    LENT.lock().unwrap().push(AtomicPtr::new(items.as_mut_ptr().cast()));
    items
}

fn session(receive: usize, outbox: usize, config: Config<'static>) -> Session<'static> {
    let storage = Storage {
        receive: leak(vec![0; receive]),
        outbox: leak(vec![0; outbox]),
        names: leak((0..NAME_TABLE).map(|_| NameSlot::EMPTY).collect()),
        announced: leak((0..NAME_TABLE).map(|_| AnnouncedSlot::EMPTY).collect()),
        interests: leak(vec![0; 64]),
        sends: leak((0..4).map(|_| SendSlot::EMPTY).collect()),
        receipts: leak(vec![0; 64]),
    };
    Session::new(storage, config).expect("a good config")
}

/// A device and the gateway's end of its connection.
struct Script {
    device: Session<'static>,
    now: u64,
    /// The gateway's clock less the device's.
    offset: u64,
}

fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        resumed: false,
        keep_alive: 60,
        max_body: 8300,
        window: 2,
        names: 8,
        session_expiry: 60,
        session: 7,
        received: 0,
        clock: 0,
    }
}

impl Script {
    fn new() -> Self {
        Self::with(1024, 512, Config::new("lamp-1", b"secret", 1))
    }

    fn with(receive: usize, outbox: usize, config: Config<'static>) -> Self {
        Self { device: session(receive, outbox, config), now: 1000, offset: 500_000 }
    }

    /// A device that is online, with its first ping written and not answered.
    fn online() -> Self {
        let mut script = Self::new();
        script.welcomed(welcome());
        script
    }

    /// Connects, and is welcomed like this; its clock is filled in.
    fn welcomed(&mut self, welcome: Welcome) -> Vec<u8> {
        self.device.handle_connected(self.now);
        let hello = self.bytes();
        assert!(matches!(frames(&hello)[..], [Frame::Hello(_)]));
        let clock = self.now + self.offset;
        self.gateway(&Frame::Welcome(Welcome { clock, ..welcome }));
        let first = self.bytes();
        assert!(matches!(frames(&first)[0], Frame::Ping { token: Some(_) }));
        first
    }

    fn gateway(&mut self, frame: &Frame<'_>) {
        let mut bytes = vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        self.raw(&bytes);
    }

    fn raw(&mut self, bytes: &[u8]) {
        assert_eq!(self.device.handle_bytes(self.now, bytes), bytes.len(), "no room");
    }

    /// What the device writes now.
    fn bytes(&mut self) -> Vec<u8> {
        self.device.handle_time(self.now);
        let mut all = Vec::new();
        let mut chunk = [0; CHUNK];
        loop {
            match self.device.poll_transmit(self.now, &mut chunk) {
                0 => return all,
                length => all.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Asserts that the device writes exactly these frames now.
    fn expect(&mut self, expected: &[Frame<'_>]) {
        let bytes = self.bytes();
        assert_eq!(frames(&bytes), expected);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.device.handle_time(self.now);
    }

    fn send(&mut self, target: Target<'_>, options: &SendOptions<'_>) -> Result<u8, SendError> {
        self.device.submit(&Request::Send { target, payload: b"on", options })
    }

    /// A plain send, its bytes written.
    fn sent(&mut self, client: &str) -> u8 {
        let slot = self.send(Target::client(client), &SendOptions::default()).unwrap();
        assert!(!self.bytes().is_empty());
        slot
    }

    /// What the application takes next, as text.
    fn take(&mut self) -> Option<std::string::String> {
        self.device.take(self.now, |incoming| std::format!("{incoming:?}"))
    }

    fn payload(&mut self) -> Option<Vec<u8>> {
        self.device.take(self.now, |incoming| match incoming {
            Incoming::Signal { payload, .. } | Incoming::Message { payload, .. } => payload.to_vec(),
        })
    }

    fn closed(&self) -> Option<Disconnect> {
        self.device.poll_closed()
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut at = 0;
    let mut frames = Vec::new();
    while let Some(raw) = split(&bytes[at..], usize::MAX).expect("lengths are good") {
        frames.push(raw.decode().expect("the device writes good frames"));
        at += raw.length;
    }
    assert_eq!(at, bytes.len(), "the device writes whole frames");
    frames
}

fn delivery<'a>(payload: &'a [u8], deadline: Option<u32>) -> Frame<'a> {
    let sender = NameRef::Inline("panel");
    Frame::Delivery(Delivery { mode: Mode::One, urgent: false, group: None, sender, deadline, payload })
}

fn refused(number: u16, reason: Reason) -> Frame<'static> {
    Frame::Refused { number, reason, retry_after: 0, text: "" }
}

fn handle(number: u16) -> NameRef<'static> {
    NameRef::Handle(core::num::NonZeroU16::new(number).unwrap())
}
