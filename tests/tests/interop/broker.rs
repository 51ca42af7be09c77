//! The broker that a suite runs against: Bugle, or Mosquitto as the reference.

use bugle_tests::{Gateway, PATIENCE, Program};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// How the clients reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

/// A running broker.
pub enum Broker {
    Bugle(Gateway),
    Mosquitto { _program: Program, port: u16 },
}

impl Broker {
    /// Bugle, with so many shards.
    pub async fn bugle(shards: u16) -> Self {
        Self::Bugle(Gateway::start(shards).await)
    }

    /// Mosquitto, on a port that was free a moment ago: it can't be asked to choose. Over TCP alone: its WebSocket waits 40 ms for
    /// every small packet.
    pub async fn mosquitto() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = std::env::temp_dir().join(format!("bugle-test-mosquitto-{port}.conf"));
        // As many in flight as a client likes, as with Bugle.
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\n"
        );
        std::fs::write(&file, config).unwrap();
        let program = Program::start("mosquitto", &["-c", file.to_str().unwrap()]);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "mosquitto doesn't listen: {}", program.seen());
            sleep(std::time::Duration::from_millis(10)).await;
        }
        std::fs::remove_file(&file).unwrap();
        Self::Mosquitto { _program: program, port }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        match self {
            Self::Bugle(gateway) => gateway.port,
            Self::Mosquitto { port, .. } => *port,
        }
    }

    /// Whether it has signals.
    pub fn is_bugle(&self) -> bool {
        matches!(self, Self::Bugle(_))
    }
}
