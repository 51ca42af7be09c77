//! More than the gateway can carry, and those who have nothing to do with it: do they notice?
//!
//! A crowd comes in all at once, is one group, and everyone in it sends, while a part of it reads nothing. Beside it *bystanders*
//! command each other at a steady pace, on a thread of their own. What they wait is the measure, by phase, beside what the
//! crowd got, what was refused, and the gateway's memory.

mod bystanders;
mod crowd;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::time::sleep;

use crate::{Gateway, Setup};
use bystanders::Bystanders;
use crowd::{Crowd, Shared};

/// How long a crowd that has gone may be on the gateway's hands.
const GONE: Duration = Duration::from_secs(300);

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Overload {
    /// Clients that come in at once, and are one group.
    pub clients: usize,
    /// How many of 100 read nothing.
    pub slow_percent: usize,
    /// Sends a second of the crowd together, each to all of it.
    pub rate: u32,
    /// Seconds of each phase.
    pub seconds: u64,
    /// Shards of the gateway.
    pub shards: u16,
    /// Its `limits.waiting_bytes`.
    pub waiting_bytes: usize,
}

/// What was seen in one phase.
struct Phase {
    name: &'static str,
    seconds: f64,
    /// Of the bystanders, in microseconds.
    bystanders: Histogram<u64>,
    /// Commands of bystanders that never came.
    missing: u64,
    /// Of those of the crowd that read, likewise.
    crowd: Histogram<u64>,
    overflow: u64,
    /// Sends refused as BUSY.
    refused: u64,
    /// Sends that waited for their turn.
    postponed: u64,
    waiting: u64,
    /// KiB in RAM, at most.
    resident: u64,
}

impl Overload {
    /// Runs it, and gives the report in Markdown. True: what is promised held.
    pub async fn run(self) -> (String, bool) {
        let setup = Setup::shards(self.shards)
            .config("[limits]")
            .config(&format!("waiting_bytes = {}", self.waiting_bytes))
            .config("connect_timeout_ms = 60000");
        let gateway = setup.start().await;
        let shared = Arc::new(Shared::default());
        let mut bystanders = Bystanders::start(gateway.port);
        let mut phases = Vec::new();

        phases.push(self.phase("nobody else", &gateway, &mut bystanders, &shared, self.wait()).await);
        let mut crowd = Crowd::new(gateway.port, self.clients, self.slow_percent, shared.clone());
        let coming = crowd.come_in();
        let phase = self.phase("all come in at once", &gateway, &mut bystanders, &shared, coming).await;
        let came_in = phase.seconds;
        phases.push(phase);
        let sending = crowd.send_at(self.rate, Duration::from_secs(self.seconds));
        phases.push(self.phase("all send, in turn", &gateway, &mut bystanders, &shared, sending).await);
        let sent = shared.sent.load(Ordering::Relaxed);
        let delivered = shared.delivered.load(Ordering::Relaxed);
        let sending = async {
            crowd.send_all().await;
            sleep(Duration::from_secs(self.seconds)).await;
        };
        phases.push(self.phase("all send at once", &gateway, &mut bystanders, &shared, sending).await);
        drop(crowd);
        let gone = async {
            let started = Instant::now();
            while gateway.metric("bugle_clients").await > bystanders::COUNT as u64 && started.elapsed() < GONE
            {
                sleep(Duration::from_millis(100)).await;
            }
            sleep(Duration::from_secs(1)).await;
        };
        phases.push(self.phase("all are gone", &gateway, &mut bystanders, &shared, gone).await);
        bystanders.stop();

        let healthy = self.clients - self.clients * self.slow_percent / 100;
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{line}");
        };
        line(format_args!(
            "{} clients in {:.1} s, {} of 100 of them read nothing; {} shards; waiting_bytes = {} MiB",
            self.clients,
            came_in,
            self.slow_percent,
            self.shards,
            self.waiting_bytes >> 20
        ));
        line(format_args!(
            "in turn: {sent} sends, {delivered} deliveries to {healthy} who read, {} of 100 of them",
            100 * delivered / (sent * healthy as u64).max(1)
        ));
        line(format_args!(
            "\n| phase | s | bystanders: p50, p99, most, ms | of theirs never came | crowd: p50, p99, ms | OVERFLOW | sends: waited, refused (BUSY) | MiB waiting | MiB in RAM |"
        ));
        line(format_args!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |"));
        let mut held = true;
        for phase in &phases {
            let ms = |micros: u64| micros as f64 / 1000.0;
            let at = |histogram: &Histogram<u64>, q: f64| ms(histogram.value_at_quantile(q));
            held &= at(&phase.bystanders, 0.99) < 50.0 && phase.missing == 0;
            line(format_args!(
                "| {} | {:.1} | {:.1}, {:.1}, {:.1} | {} | {:.1}, {:.1} | {} | {}, {} | {} | {} |",
                phase.name,
                phase.seconds,
                at(&phase.bystanders, 0.5),
                at(&phase.bystanders, 0.99),
                ms(phase.bystanders.max()),
                phase.missing,
                at(&phase.crowd, 0.5),
                at(&phase.crowd, 0.99),
                phase.overflow,
                phase.postponed,
                phase.refused,
                phase.waiting >> 20,
                phase.resident >> 10,
            ));
        }
        gateway.terminate().await;
        gateway.finish().await;
        (text, held)
    }

    async fn wait(&self) {
        sleep(Duration::from_secs(self.seconds.min(5))).await;
    }

    /// Sees what happens while `event` does.
    async fn phase(
        &self,
        name: &'static str,
        gateway: &Gateway,
        bystanders: &mut Bystanders,
        shared: &Shared,
        event: impl Future<Output = ()>,
    ) -> Phase {
        bystanders.begin();
        shared.latency.lock().unwrap().reset();
        let before = (
            overflows(gateway).await,
            gateway.metric(REFUSED).await,
            gateway.metric("bugle_postponed_total").await,
        );
        let started = Instant::now();
        let mut event = std::pin::pin!(event);
        let (mut waiting, mut resident) = (0, 0);
        loop {
            let is_over = tokio::select! {
                () = &mut event => true,
                () = sleep(Duration::from_millis(500)) => false,
            };
            resident = resident.max(gateway.resident());
            waiting = waiting.max(gateway.metric("bugle_waiting_bytes").await);
            if is_over {
                break;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let (latency, missing) = bystanders.end();
        let crowd = shared.latency.lock().unwrap().clone();
        eprintln!("{name}: {seconds:.1} s, p99 of bystanders {} us", latency.value_at_quantile(0.99));
        Phase {
            name,
            seconds,
            bystanders: latency,
            missing,
            crowd,
            overflow: overflows(gateway).await - before.0,
            refused: gateway.metric(REFUSED).await - before.1,
            postponed: gateway.metric("bugle_postponed_total").await - before.2,
            waiting,
            resident,
        }
    }
}

const REFUSED: &str = "bugle_refused_total{reason=\"BUSY\"}";

async fn overflows(gateway: &Gateway) -> u64 {
    gateway.metric("bugle_recipients_total{status=\"OVERFLOW\"}").await
}
