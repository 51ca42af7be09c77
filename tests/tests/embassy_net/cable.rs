//! A cable between two Ethernet devices that loses, doubles and delays frames as a seed says, and that can be cut.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;

use embassy_net_driver_channel::{RxRunner, TxRunner};
use embassy_time::{Duration, Instant, Timer};

/// Largest Ethernet frame, without its checksum.
pub const MTU: usize = 1514;

/// What happens to frames, in each direction. Of a thousand so many are:
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// lost;
    pub lost: u64,
    /// carried twice;
    pub doubled: u64,
    /// carried late, so that others pass them.
    pub late: u64,
}

impl Faults {
    /// A bad radio.
    pub const BAD: Self = Self { lost: 30, doubled: 30, late: 100 };
}

/// The longest that a late frame takes, in milliseconds.
const LATEST: u64 = 20;

/// One cable. Both directions share it.
#[derive(Default)]
pub struct Cable {
    faults: Cell<Faults>,
    is_cut: Cell<bool>,
    random: Cell<u64>,
    /// Frames that were put in at either end.
    pub frames: Cell<u64>,
    /// Frames that a fault or a cut has taken.
    pub lost: Cell<u64>,
    /// Frames that were carried twice.
    pub doubled: Cell<u64>,
    /// Frames that came out behind a later one.
    pub passed: Cell<u64>,
}

impl Cable {
    /// A cable with these faults.
    pub fn new(faults: Faults, seed: u64) -> Rc<Self> {
        let cable = Self::default();
        cable.faults.set(faults);
        cable.random.set(seed);
        Rc::new(cable)
    }

    /// Loses every frame from now on.
    pub fn cut(&self) {
        self.is_cut.set(true);
    }

    /// Carries frames again.
    pub fn mend(&self) {
        self.is_cut.set(false);
    }

    /// Panics unless every kind of fault has happened.
    pub fn assert_was_bad(&self) {
        let counts = [&self.frames, &self.lost, &self.doubled, &self.passed].map(Cell::get);
        println!("frames, lost, doubled, passed by another: {counts:?}");
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    }

    /// Carries frames of one direction, for ever.
    pub async fn carry(&self, mut from: TxRunner<'static, MTU>, mut to: RxRunner<'static, MTU>) {
        let mut on_the_way = BTreeMap::<(Instant, u64), Vec<u8>>::new();
        let (mut number, mut latest_out) = (0, 0);
        loop {
            while let Some(next) = on_the_way.first_entry().filter(|next| next.key().0 <= Instant::now()) {
                let ((_, number), frame) = next.remove_entry();
                // A full receive queue loses frames, as hardware does.
                if let Some(buffer) = to.try_rx_buf() {
                    buffer[..frame.len()].copy_from_slice(&frame);
                    to.rx_done(frame.len());
                }
                if number < latest_out {
                    count(&self.passed);
                }
                latest_out = latest_out.max(number);
            }
            let next = on_the_way.keys().next().map(|key| key.0);
            let due = async {
                match next {
                    Some(at) => Timer::at(at).await,
                    None => pending().await,
                }
            };
            // Both are cancel-safe: a frame stays in its queue until `tx_done`.
            tokio::select! {
                () = due => {}
                frame = from.tx_buf() => {
                    for at in self.fate() {
                        on_the_way.insert((at, number), frame.to_vec());
                        number += 1;
                    }
                    from.tx_done();
                }
            }
        }
    }

    /// When each copy of the next frame comes out.
    fn fate(&self) -> Vec<Instant> {
        count(&self.frames);
        let faults = self.faults.get();
        // Each frame takes the same number of draws, so that a cut doesn't change what comes after it.
        let (is_lost, is_doubled) = (self.draw(1000) < faults.lost, self.draw(1000) < faults.doubled);
        let (is_late, delay) = (self.draw(1000) < faults.late, self.draw(LATEST) + 1);
        if is_lost || self.is_cut.get() {
            count(&self.lost);
            return Vec::new();
        }
        let now = Instant::now();
        let mut copies = vec![if is_late { now + Duration::from_millis(delay) } else { now }];
        if is_doubled {
            count(&self.doubled);
            copies.push(now + Duration::from_millis(delay));
        }
        copies
    }

    /// A number below `limit`: SplitMix64.
    fn draw(&self, limit: u64) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
