//! The memory of an SDK session, and settings for one.

use bugle_device::Config;
use bugle_device::session::{AnnouncedSlot, NameSlot, SendSlot, Session, Storage};

/// Buffers on the heap.
pub struct Memory {
    receive: Vec<u8>,
    outbox: Vec<u8>,
    names: [NameSlot; 8],
    announced: [AnnouncedSlot; 8],
    interests: [u8; 256],
    sends: [SendSlot; 4],
    receipts: [u8; 1024],
}

impl Memory {
    /// With so many bytes to receive into.
    pub fn new(receive: usize) -> Self {
        Self {
            receive: vec![0; receive],
            outbox: vec![0; 2048],
            names: [const { NameSlot::EMPTY }; 8],
            announced: [const { AnnouncedSlot::EMPTY }; 8],
            interests: [0; 256],
            sends: [const { SendSlot::EMPTY }; 4],
            receipts: [0; 1024],
        }
    }

    /// A session on it.
    pub fn session<'a>(&'a mut self, config: Config<'a>) -> Session<'a> {
        let storage = Storage {
            receive: &mut self.receive,
            outbox: &mut self.outbox,
            names: &mut self.names,
            announced: &mut self.announced,
            interests: &mut self.interests,
            sends: &mut self.sends,
            receipts: &mut self.receipts,
        };
        Session::new(storage, config).expect("good settings")
    }
}

/// Settings of a client that isn't timed out while time jumps.
pub fn patient(id: &str) -> Config<'_> {
    let mut config = Config::new(id, b"", 1);
    (config.keep_alive, config.ack_timeout, config.session_expiry) = (0, u32::MAX, 0);
    config
}
