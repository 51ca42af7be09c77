//! The socket of a stranger: what it says becomes a connection of the shard that its first packet names, as in the process's
//! listener.

use std::collections::VecDeque;

use bugle_core::hub::{ConnectionKey, Shard, owner};
use bugle_core::model::{Instant, Limits};
use bugle_core::session::{FirstPacket, first_packet};

/// The connection under test.
#[derive(Default)]
pub struct StrangersConnection {
    /// Not yet a whole first packet.
    first: Vec<u8>,
    /// Its shard and key, once it has one.
    pub place: Option<(usize, ConnectionKey)>,
    outbound: VecDeque<u8>,
    /// Either end has closed.
    pub ended: bool,
}

impl StrangersConnection {
    /// One that is over.
    pub fn over() -> Self {
        Self { ended: true, ..Self::default() }
    }

    /// Bytes that it says. It can't take the place of `others`: a takeover is no fault, and what these ids would ask for.
    pub fn say(
        &mut self,
        bytes: &[u8],
        shards: &mut [Shard],
        limits: &Limits,
        others: &[&str],
        now: Instant,
    ) {
        if self.ended {
            return;
        }
        if self.place.is_some() {
            return self.outbound.extend(bytes);
        }
        self.first.extend(bytes);
        match first_packet(&self.first, limits) {
            FirstPacket::Partial => {}
            FirstPacket::Unknown => self.ended = true,
            FirstPacket::Client { client_id: Some(id), .. } if others.contains(&&*id) => self.ended = true,
            FirstPacket::Client { protocol, client_id } => {
                let shard = client_id.map_or(0, |id| usize::from(owner(&id, shards.len() as u16)));
                self.place = Some((shard, shards[shard].open(protocol, now)));
                self.outbound.extend(std::mem::take(&mut self.first));
            }
        }
    }

    /// The network ends it.
    pub fn lose(&mut self, shards: &mut [Shard], now: Instant) {
        if let Some((shard, key)) = self.place.take()
            && !self.ended
        {
            shards[shard].handle_closed(key, now);
        }
        self.ended = true;
    }

    /// Gives the shard what was said, if it reads. Says whether something moved.
    pub fn hand_over(&mut self, shards: &mut [Shard], now: Instant) -> bool {
        let Some((shard, key)) = self.place else { return false };
        if self.ended || self.outbound.is_empty() || !shards[shard].wants_bytes(key) {
            return false;
        }
        let bytes: Vec<u8> = self.outbound.drain(..).collect();
        shards[shard].handle_bytes(key, &bytes, now);
        true
    }
}
