//! An app of the fleet: a member of a group over MQTT that also commands others, with a session that lasts. It comes back
//! after every fault, goes on where it stood, as the standards have it, and notes all of it in the ledger.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fleet::{Fleet, PAYLOAD_HEAD, Wanted};
use super::ledger::{Kind, Number, Said};
use super::wire::{Incoming, Outgoing, Wire};
use crate::Version;

/// Seconds.
const KEEP_ALIVE: u16 = 20;
/// How long a gateway may take to answer a CONNECT.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Sends of one app that wait for their acknowledgement.
const WINDOW: usize = 32;

/// What is done to a client.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Its connection is closed, or reset, and it comes back after so long.
    Cut { reset: bool, away: Duration },
    /// It doesn't read for so long.
    Stall(Duration),
    /// It opens another connection while the old one still stands.
    TakeOver,
}

/// What an app needs to know of itself.
pub struct Identity {
    /// Its number in the fleet.
    pub client: usize,
    /// Its group.
    pub group: usize,
    /// What it speaks.
    pub version: Version,
    /// In a WebSocket.
    pub in_websocket: bool,
}

/// A publish on its way.
struct Pending {
    number: Number,
    kind: Kind,
    topic: String,
    payload: Bytes,
    /// The gateway has it, and is to complete it (QoS 2).
    released: bool,
    /// In which run of the gateway it was sent first.
    run: u64,
}

/// What of a session the client keeps.
pub struct App {
    identity: Identity,
    name: String,
    fleet: Rc<RefCell<Fleet>>,
    faults: mpsc::Receiver<Fault>,
    /// By packet identifier.
    pending: BTreeMap<u16, Pending>,
    /// In the order of their sending.
    order: VecDeque<u16>,
    next_id: u16,
    /// Identifiers of QoS 2 messages that it has and that aren't released.
    received: BTreeSet<u16>,
    /// Signals whose receipts aren't final.
    receipts: BTreeSet<Number>,
    has_session: bool,
}

impl App {
    /// A client of this fleet.
    pub fn new(identity: Identity, fleet: Rc<RefCell<Fleet>>, faults: mpsc::Receiver<Fault>) -> Self {
        Self {
            name: Fleet::name(identity.client),
            identity,
            fleet,
            faults,
            pending: BTreeMap::new(),
            order: VecDeque::new(),
            next_id: 0,
            received: BTreeSet::new(),
            receipts: BTreeSet::new(),
            has_session: false,
        }
    }

    /// Lives until the fleet is told to end.
    pub async fn run(mut self) {
        while !self.fleet.borrow().is_over {
            let port = self.fleet.borrow().port;
            let opened =
                timeout(HANDSHAKE, Wire::open(port, self.identity.version, self.identity.in_websocket));
            let away = match opened.await {
                Ok(Ok(wire)) => self.live(wire).await,
                Ok(Err(_)) | Err(_) => Duration::from_millis(50),
            };
            self.note_offline();
            sleep(away).await;
        }
    }

    fn note_offline(&mut self) {
        let mut fleet = self.fleet.borrow_mut();
        fleet.offline(self.identity.client);
        // What a receipt says while nobody is there to hear it isn't said again.
        for number in std::mem::take(&mut self.receipts) {
            fleet.ledger.missed_receipt(number);
        }
    }

    /// One connection, until it ends; gives how long to stay away.
    async fn live(&mut self, mut wire: Wire) -> Duration {
        match self.serve(&mut wire).await {
            Ok(Fault::Cut { reset, away }) => {
                if reset {
                    wire.reset();
                }
                away
            }
            Ok(Fault::TakeOver) => {
                let fleet = self.fleet.clone();
                // The old connection is left behind as it is; the gateway ends it.
                tokio::task::spawn_local(async move {
                    while !fleet.borrow().is_over && wire.turn(true).await.is_ok() {}
                });
                Duration::ZERO
            }
            Ok(Fault::Stall(_)) => Duration::ZERO,
            Err(_) => Duration::from_millis(20),
        }
    }

    async fn serve(&mut self, wire: &mut Wire) -> io::Result<Fault> {
        wire.put(Outgoing::Connect { id: &self.name, keep_alive: KEEP_ALIVE })?;
        let session_present = timeout(HANDSHAKE, async {
            loop {
                wire.turn(true).await?;
                match wire.next()? {
                    Some(Incoming::Connected { session_present }) => {
                        return Ok::<_, io::Error>(session_present);
                    }
                    Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                    None => {}
                }
            }
        })
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
        if self.has_session && !session_present {
            self.fleet.borrow_mut().lost_session(self.identity.client);
            self.received.clear();
            self.has_session = false;
        }
        if !self.has_session {
            let group = Fleet::group(self.identity.group);
            let filters = [
                (format!("sig/g/{group}/+"), 1),
                (format!("plant/{group}/#"), 2),
                (format!("sig/c/{}", self.name), 1),
                (format!("sig/r/{}", self.name), 1),
            ];
            wire.put(Outgoing::Subscribe { filters: &filters })?;
        } else {
            self.resend(wire)?;
            self.fleet.borrow_mut().online(self.identity.client);
        }
        let mut ping = Instant::now() + Duration::from_secs(u64::from(KEEP_ALIVE) / 2);
        let mut stalled_until = None;
        loop {
            let next_send = self.fleet.borrow().next_send(self.identity.client);
            let wants = next_send
                .filter(|_| self.has_session && self.pending.len() < WINDOW && wire.unsent() < 65_536);
            let wake = [wants, Some(ping), stalled_until].into_iter().flatten().min().unwrap_or(ping);
            // All three are cancel-safe.
            tokio::select! {
                turned = wire.turn(stalled_until.is_none()) => turned?,
                () = sleep_until(wake) => {}
                fault = self.faults.recv() => match fault {
                    Some(Fault::Stall(time)) => stalled_until = Some(Instant::now() + time),
                    Some(fault) => return Ok(fault),
                    None => return Ok(Fault::Cut { reset: false, away: Duration::ZERO }),
                }
            }
            let now = Instant::now();
            stalled_until = stalled_until.filter(|until| *until > now);
            if ping <= now {
                wire.put(Outgoing::Ping)?;
                ping = now + Duration::from_secs(u64::from(KEEP_ALIVE) / 2);
            }
            while let Some(packet) = wire.next()? {
                self.handle(packet, wire)?;
            }
            while self.has_session && self.pending.len() < WINDOW && wire.unsent() < 65_536 {
                let wanted = self.fleet.borrow_mut().take_send(self.identity.client);
                let Some(wanted) = wanted else { break };
                self.send(wanted, wire)?;
            }
        }
    }

    /// What was sent and never answered is sent again, in the same order.
    fn resend(&mut self, wire: &mut Wire) -> io::Result<()> {
        let mut fleet = self.fleet.borrow_mut();
        for packet_id in &self.order {
            let Some(pending) = self.pending.get(packet_id) else { continue };
            if pending.released {
                wire.put(Outgoing::Release { packet_id: *packet_id })?;
                continue;
            }
            let over_restart = pending.run != fleet.run;
            fleet.ledger.resent(pending.number, over_restart);
            wire.put(Outgoing::Publish {
                topic: &pending.topic,
                payload: pending.payload.clone(),
                qos: if pending.kind == Kind::PlainOnce { 2 } else { 1 },
                packet_id: *packet_id,
                dup: true,
            })?;
        }
        Ok(())
    }

    fn send(&mut self, wanted: Wanted, wire: &mut Wire) -> io::Result<()> {
        let packet_id = loop {
            self.next_id = self.next_id % 60_000 + 1;
            if !self.pending.contains_key(&self.next_id) {
                break self.next_id;
            }
        };
        let mut fleet = self.fleet.borrow_mut();
        let mut payload = BytesMut::with_capacity(wanted.size);
        payload.put_u64(wanted.number);
        payload.put_u64(fleet.ledger.now());
        payload.put_bytes(b'.', wanted.size - PAYLOAD_HEAD);
        let payload = payload.freeze();
        let qos = if wanted.kind == Kind::PlainOnce { 2 } else { 1 };
        wire.put(Outgoing::Publish {
            topic: &wanted.topic,
            payload: payload.clone(),
            qos,
            packet_id,
            dup: false,
        })?;
        if matches!(wanted.kind, Kind::Signal | Kind::Stored) {
            self.receipts.insert(wanted.number);
        }
        let run = fleet.run;
        fleet.sent();
        let Wanted { number, kind, topic, .. } = wanted;
        self.pending.insert(packet_id, Pending { number, kind, topic, payload, released: false, run });
        self.order.push_back(packet_id);
        Ok(())
    }

    fn handle(&mut self, packet: Incoming, wire: &mut Wire) -> io::Result<()> {
        match packet {
            Incoming::Publish { topic, payload, qos, packet_id, dup } => {
                let is_new = match qos {
                    1 => true,
                    2 => self.received.insert(packet_id),
                    _ => false,
                };
                if is_new && topic.starts_with("sig/r/") {
                    self.notice(&payload, dup);
                } else if is_new {
                    self.fleet.borrow_mut().delivered(self.identity.client, &payload, dup, false);
                }
                match qos {
                    1 => wire.put(Outgoing::Acknowledge { packet_id })?,
                    2 => wire.put(Outgoing::Receive { packet_id })?,
                    _ => {}
                }
            }
            Incoming::Released { packet_id } => {
                self.received.remove(&packet_id);
                wire.put(Outgoing::Complete { packet_id })?;
            }
            Incoming::Acknowledged { packet_id, refused } => {
                if let Some(pending) = self.forget(packet_id) {
                    let mut fleet = self.fleet.borrow_mut();
                    match refused {
                        Some(code) => {
                            self.receipts.remove(&pending.number);
                            fleet.ledger.refused(pending.number, &code);
                        }
                        None => fleet.ledger.accepted(pending.number),
                    }
                }
            }
            Incoming::Received { packet_id } => {
                if let Some(pending) = self.pending.get_mut(&packet_id) {
                    pending.released = true;
                    self.fleet.borrow_mut().ledger.accepted(pending.number);
                }
                wire.put(Outgoing::Release { packet_id })?;
            }
            Incoming::Completed { packet_id } => drop(self.forget(packet_id)),
            Incoming::Subscribed { granted } => {
                assert!(granted, "{}: a subscription was refused", self.name);
                self.has_session = true;
                self.resend(wire)?;
                self.fleet.borrow_mut().online(self.identity.client);
            }
            Incoming::Connected { .. } | Incoming::Other => {}
        }
        Ok(())
    }

    fn forget(&mut self, packet_id: u16) -> Option<Pending> {
        let pending = self.pending.remove(&packet_id)?;
        self.order.retain(|id| *id != packet_id);
        Some(pending)
    }

    /// A receipt or a refusal; `is_repeat`: it may have come before.
    fn notice(&mut self, payload: &[u8], is_repeat: bool) {
        let Ok(notice) = serde_json::from_slice::<serde_json::Value>(payload) else { return };
        let Some(number) = notice["id"].as_str().and_then(Fleet::number_of) else { return };
        let mut fleet = self.fleet.borrow_mut();
        if notice["type"] == "refusal" {
            // In MQTT 3.1.1 the PUBACK came all the same.
            if self.identity.version == Version::V311 {
                self.receipts.remove(&number);
                fleet.ledger.refused(number, notice["code"].as_str().unwrap_or("?"));
            }
            return;
        }
        for (client, status) in notice["statuses"].as_object().into_iter().flatten() {
            if let (Some(client), Some(status)) = (Fleet::client_of(client), status.as_str()) {
                let said = Said { is_first: notice["final"] == false, is_repeat };
                fleet.ledger.status(number, client, status, said);
            }
        }
        if notice["final"] == true && notice["part"] == notice["parts"] {
            self.receipts.remove(&number);
        }
    }
}
