//! No gateway can panic the SDK, and whatever it says, the SDK writes well-formed frames.
#![no_main]

use bugle_device::protocol::split;
use bugle_device::session::{CHUNK, Request, Session};
use bugle_device::{Disconnect, ReceiptMode, SendOptions, Target};
use bugle_fuzz::memory::{Memory, patient};
use bugle_fuzz::{Step, Steps};
use libfuzzer_sys::fuzz_target;

/// WELCOME of the protocol's document.
const WELCOME: &[u8] = b"\x0c\x1e\x01\x00\x00\x3c\x80\x00\x20\x80\x02\x00\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x36\xee\x80";

fuzz_target!(|input: &[u8]| {
    let Some((&flags, input)) = input.split_first() else { return };
    let mut memory = Memory::new(if flags & 2 == 0 { 1024 } else { 4096 });
    let mut config = patient("lamp");
    if flags & 4 != 0 {
        (config.keep_alive, config.ack_timeout, config.session_expiry) = (60, 30_000, 60);
    }
    let mut client =
        Client { session: memory.session(config), now: 1000, written: Vec::new(), slots: Vec::new() };
    client.connect(flags & 1 == 0);
    for step in Steps(input) {
        client.perform(step);
        client.settle();
    }
});

struct Client<'a> {
    session: Session<'a>,
    now: u64,
    /// Bytes that aren't a whole frame yet.
    written: Vec<u8>,
    slots: Vec<u8>,
}

impl Client<'_> {
    fn connect(&mut self, welcome: bool) {
        self.written.clear();
        self.session.handle_connected(self.now);
        self.settle();
        if welcome {
            self.hear(WELCOME);
        }
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        // What the inbox has no room for is lost with the connection.
        while !bytes.is_empty() {
            let used = self.session.handle_bytes(self.now, bytes);
            bytes = &bytes[used..];
            self.settle();
            if used == 0 && self.session.take(self.now, |_| ()).is_none() {
                break;
            }
        }
    }

    fn perform(&mut self, step: Step<'_>) {
        let options = SendOptions { receipt: ReceiptMode::Each, ..SendOptions::default() };
        let request = match step {
            Step::Bytes(bytes) => return self.hear(bytes),
            Step::Time(millis) => {
                self.now += millis;
                return self.session.handle_time(self.now);
            }
            Step::Other(0) => {
                self.session.handle_disconnected(self.now, Disconnect::Lost);
                return self.connect(true);
            }
            Step::Other(1) => {
                self.session.handle_disconnected(self.now, Disconnect::Lost);
                return self.connect(false);
            }
            Step::Other(2) => return self.session.disconnect(),
            Step::Other(3) => {
                self.session.handle_disconnected(self.now, Disconnect::Lost);
                self.session.restart();
                return self.connect(true);
            }
            Step::Other(4) => Request::Join("floor"),
            Step::Other(5) => Request::Leave("floor"),
            Step::Other(6) => Request::Subscribe { filter: "home/#", at_least_once: true },
            Step::Other(7) => {
                Request::Publish { topic: "home/x", payload: b"on", at_least_once: true, retain: false }
            }
            Step::Other(8) => {
                Request::Send { target: Target::client("app"), payload: &[7; 600], options: &options }
            }
            Step::Other(9) => {
                let target = Target::group("floor").only(&["a", "b"]).except(&["c"]);
                Request::Send { target, payload: b"on", options: &options }
            }
            Step::Other(10..16) => {
                if let Some(slot) = self.slots.pop() {
                    self.session.release(slot);
                }
                return;
            }
            Step::Other(_) => {
                let _ = self.session.take(self.now, |_| ());
                return;
            }
        };
        if let Ok(slot) = self.session.submit(&request) {
            self.slots.push(slot);
        }
    }

    /// Looks at everything that the session has to tell, and writes what it has to say.
    fn settle(&mut self) {
        for &slot in &self.slots {
            let _ = self.session.poll_acceptance(slot);
            while self.session.poll_receipt_entry(slot).is_some() {}
            let _ = self.session.poll_receipt(slot);
        }
        while self.session.poll_event().is_some() {}
        let _ = (
            self.session.status(),
            self.session.poll_deadline(self.now),
            self.session.gateway_time(self.now),
        );
        let mut chunk = [0; CHUNK];
        for turn in 0.. {
            assert!(turn < 1000, "it writes for ever");
            let length = self.session.poll_transmit(self.now, &mut chunk);
            if length == 0 {
                break;
            }
            self.written.extend(&chunk[..length]);
        }
        while let Some(raw) = split(&self.written, usize::MAX).expect("the SDK writes good lengths") {
            raw.decode().expect("the SDK writes good frames");
            let length = raw.length;
            self.written.drain(..length);
        }
        if let Some(cause) = self.session.poll_closed() {
            self.session.handle_disconnected(self.now, cause);
        }
    }
}
