//! A gateway of two shards in one thread: a stranger who says what the fuzzer wants, beside a panel and a lamp on the
//! SDK. Whatever the stranger does, every signal from panel to lamp must arrive, in order, and be reported as delivered;
//! and what the stranger hears must be what a correct peer may hear ([`Stranger`]).

use std::collections::VecDeque;
use std::sync::Arc;

use bugle_core::hub::{ConnectionKey, Credentials, Shard, ShardConfig, Transmit, UserConnections, owner};
use bugle_core::model::{Instant, Limits};
use bugle_core::rules::Rules;
use bugle_core::session::Protocol;
use bugle_core::store::WallTime;
use bugle_device::session::{CHUNK, Request, Session};
use bugle_device::{Connection, Incoming, ReceiptMode, SendOptions, Status, Target};

use crate::connection::StrangersConnection;
use crate::memory::{Memory, patient};
use crate::stranger::{PanelSignal, Stranger};
use crate::{Step, Steps, trace};

const SHARDS: u16 = 2;
/// More than one signal of the pair takes at 100 a second.
const BETWEEN_SIGNALS: u64 = 20;
/// Bytes at a time for a socket.
const WRITE: usize = 16 * 1024;

/// Connections of the stranger. More would only take time.
const MOST_CONNECTIONS: u32 = 6;
/// Signals of the panel, but for the last. No more than it may send urgently.
const MOST_SIGNALS: u32 = 10;

/// Runs one input against the gateway. The stranger is let in, unless the input begins by itself.
pub fn run(input: &[u8], stranger: &mut dyn Stranger) {
    let Some((&flags, input)) = input.split_first() else { return };
    let (mut lamp, mut panel) = (Memory::new(4096), Memory::new(4096));
    let sessions = (lamp.session(patient("lamp")), panel.session(patient("panel")));
    let mut gateway = Gateway::new(sessions.0, sessions.1, stranger);
    gateway.connect_stranger((flags & 1 == 0).then_some(flags >> 2 & 7));
    let mut steps = Steps(input);
    while let Some(step) = steps.next() {
        match step {
            Step::Bytes(bytes) => gateway.say(bytes),
            Step::Time(millis) => gateway.advance(millis),
            Step::Other(0..8) => gateway.reads = !gateway.reads,
            Step::Other(way @ 8..16) if gateway.connections < MOST_CONNECTIONS => {
                gateway.lose_stranger();
                gateway.connect_stranger(Some(way & 7));
            }
            Step::Other(16..18) if gateway.signals < MOST_SIGNALS => gateway.exchange(),
            Step::Other(kind @ 18..24) if gateway.signals < MOST_SIGNALS => {
                gateway.send_from_panel(kind & 1 == 0, kind >= 22);
            }
            Step::Other(number) => {
                let bytes = gateway.model.phrase(number, &mut steps);
                gateway.say(&bytes);
            }
        }
        gateway.pump();
    }
    gateway.reads = true;
    gateway.exchange();
    gateway.lose_stranger();
    gateway.pump();
    let clients: u64 = gateway.shards.iter().map(|shard| shard.counters().clients).sum();
    assert_eq!(clients, 2, "the stranger has gone");
}

/// One of the pair.
struct Device<'a> {
    session: Session<'a>,
    shard: usize,
    key: ConnectionKey,
    inbound: VecDeque<u8>,
}

struct Gateway<'a> {
    shards: Vec<Shard>,
    limits: Arc<Limits>,
    now: Instant,
    lamp: Device<'a>,
    panel: Device<'a>,
    stranger: StrangersConnection,
    model: &'a mut dyn Stranger,
    /// The stranger takes what is written to it.
    reads: bool,
    connections: u32,
    signals: u32,
    /// The last that the lamp got, normal and urgent.
    lamp_got: [u32; 2],
}

impl<'a> Gateway<'a> {
    fn new(lamp: Session<'a>, panel: Session<'a>, model: &'a mut dyn Stranger) -> Self {
        let limits = Arc::new(Limits::default());
        let users = Arc::new(UserConnections::default());
        let shard = |index| {
            let config = ShardConfig {
                index,
                shards: SHARDS,
                limits: limits.clone(),
                prefix: "sig".into(),
                rules: Arc::new(Rules::open()),
                credentials: Arc::new(Credentials::open()),
                users: users.clone(),
                durable: false,
                wall_at_start: WallTime::default(),
            };
            Shard::new(config, Box::new(|bytes| bytes.fill(0x5A)))
        };
        let mut shards: Vec<_> = (0..SHARDS).map(shard).collect();
        let now = Instant::from_millis(1000);
        let mut device = |id, mut session: Session<'a>| {
            let shard = usize::from(owner(id, SHARDS));
            session.handle_connected(now.as_millis());
            let key = shards[shard].open(Protocol::Device, now);
            Device { session, shard, key, inbound: VecDeque::new() }
        };
        let (lamp, panel) = (device("lamp", lamp), device("panel", panel));
        let mut gateway = Self {
            shards,
            limits,
            now,
            lamp,
            panel,
            stranger: StrangersConnection::over(),
            model,
            reads: true,
            connections: 0,
            signals: 0,
            lamp_got: [0; 2],
        };
        gateway.pump();
        let slot = gateway.lamp.session.submit(&Request::Join("floor")).expect("it is connected");
        gateway.pump();
        assert!(matches!(gateway.lamp.session.poll_acceptance(slot), Some(Ok(_))), "the lamp has joined");
        gateway.lamp.session.release(slot);
        gateway
    }

    /// Another connection of the stranger.
    fn connect_stranger(&mut self, way: Option<u8>) {
        self.connections += 1;
        trace(|| format!("connection {}", self.connections));
        self.stranger = StrangersConnection::default();
        self.model.connected();
        if let Some(way) = way {
            let greeting = self.model.greeting(way);
            self.say(&greeting);
        }
        self.pump();
    }

    fn say(&mut self, bytes: &[u8]) {
        if !self.stranger.ended {
            self.model.said(bytes);
            self.stranger.say(bytes, &mut self.shards, &self.limits, &["lamp", "panel"], self.now);
        }
    }

    fn lose_stranger(&mut self) {
        self.stranger.lose(&mut self.shards, self.now);
    }

    fn advance(&mut self, millis: u64) {
        trace(|| format!("{millis} ms pass"));
        self.now = self.now + millis;
        for shard in &mut self.shards {
            shard.handle_time(self.now);
        }
        for device in [&mut self.lamp, &mut self.panel] {
            device.session.handle_time(self.now.as_millis());
        }
    }

    /// A signal from panel to lamp, its delivery and its receipt.
    fn exchange(&mut self) {
        let options = SendOptions { receipt: ReceiptMode::Each, ..SendOptions::default() };
        let signal = self.next_signal(true, false);
        self.model.panel_sends_elsewhere(signal);
        let slot = self.submit(Target::group("floor").only(&["lamp"]), signal, &options);
        let mut receipt = None;
        for _ in 0..64 {
            self.drain_pair();
            if let Some((id, status)) = self.panel.session.poll_receipt_entry(slot) {
                assert_eq!((id.as_str(), status), ("lamp", Status::Delivered));
            }
            receipt = receipt.or_else(|| self.panel.session.poll_receipt(slot));
            if receipt.is_some() {
                break;
            }
        }
        assert_eq!(self.lamp_got[0], self.signals, "the signal to the lamp");
        let receipt = receipt.expect("a receipt").expect("the signal was accepted");
        assert_eq!((receipt.counts.total(), receipt.counts.count(Status::Delivered)), (1, 1));
        self.panel.session.release(slot);
    }

    /// A signal from the panel to all of the group, where the lamp is, or to the stranger.
    fn send_from_panel(&mut self, to_group: bool, urgent: bool) {
        let options = SendOptions { urgent, ..SendOptions::default() };
        let signal = self.next_signal(to_group, urgent);
        self.model.panel_sends(signal);
        let target = if to_group { Target::group("floor") } else { Target::client("garbage") };
        let slot = self.submit(target, signal, &options);
        for _ in 0..64 {
            self.drain_pair();
            if !to_group || self.lamp_got[usize::from(urgent)] == signal.number {
                break;
            }
        }
        if to_group {
            assert_eq!(self.lamp_got[usize::from(urgent)], signal.number, "the signal to the group");
        }
        assert!(matches!(self.panel.session.poll_acceptance(slot), Some(Ok(_))), "nobody holds it up");
        self.panel.session.release(slot);
    }

    fn next_signal(&mut self, to_group: bool, urgent: bool) -> PanelSignal {
        // What the stranger had to say to them.
        self.drain_pair();
        self.advance(BETWEEN_SIGNALS);
        self.signals += 1;
        trace(|| format!("the panel sends {}", self.signals));
        PanelSignal { number: self.signals, urgent, to_group }
    }

    fn submit(&mut self, target: Target<'_>, signal: PanelSignal, options: &SendOptions<'_>) -> u8 {
        let payload = signal.payload();
        assert_eq!(self.panel.session.status(), Connection::Online);
        let request = Request::Send { target, payload: &payload, options };
        self.panel.session.submit(&request).expect("room for a signal")
    }

    /// Lets lamp and panel take what came for them.
    fn drain_pair(&mut self) {
        self.pump();
        let now = self.now.as_millis();
        let got = &mut self.lamp_got;
        let mut take = |incoming: Incoming<'_>| {
            if let Incoming::Signal { sender: "panel", payload, urgent, .. } = incoming {
                let last = &mut got[usize::from(urgent)];
                let number = PanelSignal::of(payload).number;
                assert!(number > *last, "{number} comes to the lamp after {last}");
                *last = number;
            }
        };
        while self.lamp.session.take(now, &mut take).is_some() {}
        while self.panel.session.take(now, |_| ()).is_some() {}
        self.pump();
    }

    /// Moves everything until nothing moves.
    fn pump(&mut self) {
        let mut turns = 0;
        while self.turn() {
            turns += 1;
            assert!(turns < 100_000, "it never comes to rest");
        }
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            while let Some((to, mut batch)) = self.shards[from].poll_peer() {
                moved = true;
                while !batch.is_empty() {
                    self.shards[usize::from(to)].handle_peer(from as u16, &mut batch, self.now);
                }
            }
            while let Some(key) = self.shards[from].poll_dirty(self.now) {
                moved |= self.write(from, key);
            }
        }
        moved |= self.stranger.hand_over(&mut self.shards, self.now);
        for device in [&mut self.lamp, &mut self.panel] {
            moved |= device.turn(&mut self.shards, self.now);
        }
        moved
    }

    /// Writes what a shard has for a connection.
    fn write(&mut self, shard: usize, key: ConnectionKey) -> bool {
        let is_stranger = self.stranger.place == Some((shard, key));
        if is_stranger && (self.stranger.ended || !self.reads) {
            return false;
        }
        let mut moved = false;
        loop {
            let mut out = Vec::new();
            let transmit = self.shards[shard].poll_transmit(key, &mut out, WRITE, self.now);
            moved |= !out.is_empty();
            let device = [&mut self.lamp, &mut self.panel]
                .into_iter()
                .find(|one| (one.shard, one.key) == (shard, key));
            if let Some(device) = device {
                assert_ne!(transmit, Transmit::Close, "one of the pair is thrown out");
                device.inbound.extend(&out);
            } else if is_stranger {
                self.model.hears(&out);
            }
            match transmit {
                Transmit::More => {}
                Transmit::Drained => return moved,
                Transmit::Close => {
                    self.shards[shard].handle_closed(key, self.now);
                    self.stranger.ended = true;
                    return true;
                }
            }
        }
    }
}

impl Device<'_> {
    fn turn(&mut self, shards: &mut [Shard], now: Instant) -> bool {
        let mut moved = false;
        if !self.inbound.is_empty() {
            let used = self.session.handle_bytes(now.as_millis(), self.inbound.make_contiguous());
            self.inbound.drain(..used);
            moved |= used > 0;
        }
        let mut chunk = [0; CHUNK];
        loop {
            let length = self.session.poll_transmit(now.as_millis(), &mut chunk);
            if length == 0 {
                return moved;
            }
            shards[self.shard].handle_bytes(self.key, &chunk[..length], now);
            moved = true;
        }
    }
}
