//! What goes wrong in a soak, by chance.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::app::Fault;
use super::fleet::Fleet;
use crate::{Gateway, Setup};

/// Connections of one storm.
const STORM: usize = 100;

/// Does harm to a fleet and its gateway.
pub struct Harm {
    pub gateway: Gateway,
    setup: Setup,
    fleet: Rc<RefCell<Fleet>>,
    clients: Vec<mpsc::Sender<Fault>>,
    random: fastrand::Rng,
    kills: bool,
    /// Nothing but that is done.
    pub only_kills: bool,
    /// How often each was done.
    pub done: BTreeMap<&'static str, u64>,
    /// How long each start after a kill took until clients could connect.
    pub restarts: Vec<Duration>,
}

impl Harm {
    /// To these clients and this gateway, which can be started again by `setup`; without `kills` it never is.
    pub fn new(
        gateway: Gateway,
        setup: Setup,
        fleet: Rc<RefCell<Fleet>>,
        clients: Vec<mpsc::Sender<Fault>>,
        seed: u64,
        kills: bool,
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed ^ 0xFA17);
        Self {
            gateway,
            setup,
            fleet,
            clients,
            random,
            kills,
            only_kills: false,
            done: BTreeMap::new(),
            restarts: Vec::new(),
        }
    }

    /// All faults so far.
    pub fn count(&self) -> u64 {
        self.done.values().sum()
    }

    /// The next fault, and whatever time it takes itself.
    pub async fn strike(&mut self) {
        let name = match self.random.usize(..100) {
            _ if self.only_kills => self.kill().await,
            0..45 => self.cut(1),
            45..55 => self.cut(self.clients.len() / 5),
            55..70 => {
                let time = self.millis(100, 1_500);
                self.hit("a reader stalls", Fault::Stall(time))
            }
            70..80 => self.hit("a second connection takes over", Fault::TakeOver),
            80..87 => self.garble(),
            87..92 => self.freeze().await,
            92..97 => self.storm().await,
            _ if self.kills => self.kill().await,
            _ => self.cut(1),
        };
        *self.done.entry(name).or_default() += 1;
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(least..most))
    }

    fn hit(&mut self, name: &'static str, fault: Fault) -> &'static str {
        let client = self.random.usize(..self.clients.len());
        // One that has as many faults before it as it takes is hit hard enough.
        let _ = self.clients[client].try_send(fault);
        name
    }

    fn cut(&mut self, count: usize) -> &'static str {
        let name = if count == 1 { "a link is cut" } else { "a fifth of all links is cut" };
        for _ in 0..count {
            let away = if self.random.bool() { Duration::ZERO } else { self.millis(1, 2_500) };
            let reset = self.random.bool();
            self.hit(name, Fault::Cut { reset, away });
        }
        name
    }

    /// A stranger who speaks no protocol.
    fn garble(&mut self) -> &'static str {
        let port = self.gateway.port;
        let mut bytes = vec![0; self.random.usize(1..4_096)];
        self.random.fill(&mut bytes);
        if self.random.bool() {
            bytes[0] = 0x10;
        }
        spawn_local(async move {
            if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                // The gateway may close before it has all.
                let _ = stream.write_all(&bytes).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
        "a stranger sends garbage"
    }

    /// The whole process stands still for a while.
    async fn freeze(&mut self) -> &'static str {
        let time = self.millis(50, 400);
        self.gateway.signal("STOP").await;
        sleep(time).await;
        self.gateway.signal("CONT").await;
        "the gateway stands still (SIGSTOP)"
    }

    async fn storm(&mut self) -> &'static str {
        let port = self.gateway.port;
        let mut streams = Vec::new();
        for _ in 0..STORM {
            streams.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await);
        }
        "a hundred strangers connect"
    }

    /// SIGKILL, and another one at once.
    async fn kill(&mut self) -> &'static str {
        self.gateway.signal("KILL").await;
        let started = std::time::Instant::now();
        let next = self.setup.clone().start().await;
        self.restarts.push(started.elapsed());
        std::mem::replace(&mut self.gateway, next).finish().await;
        let mut fleet = self.fleet.borrow_mut();
        fleet.port = self.gateway.port;
        fleet.run += 1;
        fleet.ledger.restarted();
        "the gateway is killed (SIGKILL)"
    }
}
