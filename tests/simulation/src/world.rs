//! The world of a run: one clock, one source of chance, a gateway that may die, connections, and clients. A step moves one
//! thing; which is next is chance's to say. So everything that could happen at once happens in every order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bugle_core::hub::{ConnectionKey, Transmit, owner};
use bugle_core::rules::Rules;
use bugle_core::session::{FirstPacket, first_packet};

use crate::client::{Body, Client};
use crate::gateway::{Gateway, Setup};
use crate::ledger::{Ledger, NEVER};
use crate::link::{End, Link, Mark};
use crate::message::{Moment, Target, What};
use crate::plan::{Plan, client_id};
use crate::random::Random;
use crate::settled::Dropped;
use crate::trace::Trace;

/// Bytes that a session may leave unread before the process closes its connection.
const MOST_UNREAD: usize = 256 * 1024;
/// Milliseconds that nothing stays between shards.
const LONG: u64 = 1000;
/// Moves until all is quiet, at most.
const MOST_MOVES: usize = 200_000;

/// A run.
pub struct World<'a> {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: Moment,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    pub(crate) clients: Vec<Client<'a>>,
    rules: Arc<Rules>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) links: BTreeMap<u32, Link>,
    by_key: BTreeMap<(usize, ConnectionKey), u32>,
    next_link: u32,
    /// Shards that may have something for others.
    touched: Vec<bool>,
    /// Shards that haven't heard of the present rules.
    unaware: Vec<bool>,
    moves: Vec<Move>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Read(u32),
    Write(u32),
    /// The gateway notices that a connection is gone.
    Notice(u32),
    ClientRead(u32),
    /// Its client does.
    ClientNotice(u32),
    Take(usize),
    Peer(usize),
    Forward(usize),
    Timer(usize),
    /// A shard hears of other rules.
    Rules(usize),
    Pump(usize),
    Connect(usize),
    Restart,
}

impl<'a> World<'a> {
    /// A world in which nobody is connected.
    pub fn new(plan: Plan, rules: Rules, clients: Vec<Client<'a>>, mut random: Random, trace: Trace) -> Self {
        let rules = Arc::new(rules);
        let now = Moment { step: 0, at: 1000 };
        let gateway = Gateway::new(&setup(&plan, &rules), now.at, &mut random);
        Self {
            ledger: Ledger::new(plan.clone(), trace.keeps_lines()),
            touched: vec![false; plan.shards.into()],
            unaware: vec![false; plan.shards.into()],
            plan,
            random,
            now,
            trace,
            clients,
            rules,
            gateway: Some(gateway),
            links: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_link: 1,
            moves: Vec::new(),
        }
    }

    /// Whether nothing was violated so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.ledger.violations().is_empty()
    }

    pub(crate) fn begin_step(&mut self, kind: u64) {
        for note in self.ledger.take_notes() {
            self.say(|| format!("    {note}"));
        }
        self.now.step += 1;
        self.trace.number(self.now.step << 8 | kind);
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        let Moment { step, at } = self.now;
        self.trace.line(|| format!("{step:6} {at:7} ms  {}", line()));
    }

    // -- what moves ---------------------------------------------------------------------------------------

    /// Moves one thing, any of those that can; says whether there was one.
    pub(crate) fn move_something(&mut self) -> bool {
        let mut moves = std::mem::take(&mut self.moves);
        moves.clear();
        self.collect(&mut moves);
        let chosen = self.random.pick(&moves).copied();
        self.moves = moves;
        let Some(chosen) = chosen else { return false };
        match chosen {
            Move::Read(link) => self.read(link),
            Move::Write(link) => self.write(link),
            Move::Notice(link) => self.notice(link),
            Move::ClientRead(link) => self.client_reads(link),
            Move::ClientNotice(link) => self.client_notices(link),
            Move::Take(client) => self.take(client),
            Move::Peer(way) => self.peer(way),
            Move::Forward(shard) => self.forward(shard),
            Move::Timer(shard) => self.timer(shard),
            Move::Rules(shard) => self.hear_of_rules(shard),
            Move::Pump(client) => self.pump(client),
            Move::Connect(client) => self.connect(client),
            Move::Restart => self.restart(),
        }
        true
    }

    fn collect(&self, moves: &mut Vec<Move>) {
        if let Some(gateway) = &self.gateway {
            moves.extend(gateway.ways().map(Move::Peer));
            let now = gateway.now(self.now.at);
            for (index, shard) in gateway.shards.iter().enumerate() {
                if self.touched[index] {
                    moves.push(Move::Forward(index));
                }
                if self.unaware[index] {
                    moves.push(Move::Rules(index));
                }
                if shard.deadline().is_some_and(|deadline| deadline <= now) {
                    moves.push(Move::Timer(index));
                }
            }
        } else {
            moves.push(Move::Restart);
        }
        for (&number, link) in &self.links {
            let waits = link.up_waiting() > 0 && link.wanted;
            match link.gateway_end {
                End::Over => {}
                End::Open if waits => moves.push(Move::Read(number)),
                End::Open => {}
                End::Closing | End::Lost if waits => moves.push(Move::Read(number)),
                // The end of the stream is behind what isn't read.
                End::Closing if !link.wanted => {}
                End::Closing | End::Lost => moves.push(Move::Notice(number)),
            }
            if link.gateway_end != End::Over && link.writable && link.place.is_some() {
                moves.push(Move::Write(number));
            }
            match link.client_end {
                End::Over => {}
                End::Open | End::Closing if link.down_waiting() > 0 => {
                    if self.clients[link.client].may_read(number) {
                        moves.push(Move::ClientRead(number));
                    }
                }
                End::Open => {}
                End::Closing | End::Lost => moves.push(Move::ClientNotice(number)),
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            match client.link {
                Some(_) if client.awake => moves.push(Move::Pump(index)),
                None if client.wants && self.gateway.is_some() => moves.push(Move::Connect(index)),
                _ => {}
            }
            if client.may_take && client.reads {
                moves.push(Move::Take(index));
            }
        }
    }

    /// What a shard wants to write, and whose bytes it wants.
    fn after(&mut self, shard: usize) {
        let Some(gateway) = &mut self.gateway else { return };
        self.touched[shard] = true;
        let now = gateway.now(self.now.at);
        while let Some(key) = gateway.shards[shard].poll_dirty(now) {
            if let Some(link) = self.by_key.get(&(shard, key)).and_then(|link| self.links.get_mut(link)) {
                link.writable = true;
                link.wanted = gateway.shards[shard].wants_bytes(key);
            }
        }
    }

    fn read(&mut self, number: u32) {
        self.begin_step(1);
        let (Some(gateway), Some(link)) = (&mut self.gateway, self.links.get_mut(&number)) else { return };
        let there = link.up_waiting();
        let count = if self.random.chance(1, 2) { there } else { self.random.between(1, there) };
        let (bytes, marks) = link.read_up(count);
        let now = gateway.now(self.now.at);
        let shard = match link.place {
            Some((shard, key)) => {
                gateway.shards[shard].handle_bytes(key, &bytes, now);
                shard
            }
            None => {
                link.first.extend_from_slice(&bytes);
                match first_packet(&link.first, &gateway.limits) {
                    FirstPacket::Partial => return,
                    FirstPacket::Unknown => {
                        let text = format!("{} isn't understood", client_id(link.client));
                        return self.ledger.violated(text);
                    }
                    FirstPacket::Client { protocol, client_id } => {
                        let shards = gateway.shards.len() as u16;
                        let shard = usize::from(client_id.map_or(0, |id| owner(&id, shards)));
                        // Otherwise a session that has ended may still be there.
                        if gateway.pass_time(shard, self.now.at) {
                            self.ledger.judged_anew(self.now);
                        }
                        let key = gateway.shards[shard].open(protocol, now);
                        link.place = Some((shard, key));
                        self.by_key.insert((shard, key), number);
                        let first = std::mem::take(&mut link.first);
                        gateway.shards[shard].handle_bytes(key, &first, now);
                        shard
                    }
                }
            }
        };
        if let Some((shard, key)) = link.place {
            link.wanted = gateway.shards[shard].wants_bytes(key);
        }
        let client = link.client;
        self.trace.bytes(&bytes);
        let is_device = matches!(self.clients[client].body, Body::Device(_));
        for mark in &marks {
            match *mark {
                Mark::Message(message) => self.ledger.consumed(message, self.now),
                Mark::Connect => self.ledger.introduced(client, number, None, self.now),
                Mark::Hello(epoch) => self.ledger.introduced(client, number, Some(epoch), self.now),
                Mark::Goodbye if is_device => self.ledger.session_ended(client, number, self.now),
                Mark::Goodbye => self.ledger.connection_over(client, number, true, self.now),
            }
        }
        self.say(|| format!("shard {shard} reads {} bytes of {} {marks:?}", bytes.len(), client_id(client)));
        self.after(shard);
    }

    fn write(&mut self, number: u32) {
        self.begin_step(2);
        let (Some(gateway), Some(link)) = (&mut self.gateway, self.links.get_mut(&number)) else { return };
        let Some((shard, key)) = link.place else { return };
        let is_full = link.down_waiting() >= link.socket;
        let limit = if is_full { 0 } else { [64, 512, 16 * 1024][self.random.below(3)] };
        let mut out = Vec::new();
        let now = gateway.now(self.now.at);
        let transmit = gateway.shards[shard].poll_transmit(key, &mut out, limit, now);
        link.write_down(&out, self.now);
        let client = link.client;
        let stalled = link.down_waiting() >= link.socket;
        gateway.shards[shard].set_stalled(key, stalled);
        if stalled && !link.stalled {
            self.clients[client].stalled_at = self.now.step;
        }
        link.stalled = stalled;
        link.writable = transmit == Transmit::More && !stalled;
        link.wanted = gateway.shards[shard].wants_bytes(key);
        let is_unread = link.down_waiting() > MOST_UNREAD;
        self.trace.bytes(&out);
        self.say(|| {
            let full = if stalled { ", full" } else { "" };
            let (length, who, bytes) = (out.len(), client_id(client), hexadecimal(&out));
            format!("shard {shard} writes {length} bytes to {who} ({transmit:?}{full}) {bytes}")
        });
        self.after(shard);
        if transmit == Transmit::Close || is_unread {
            self.end_of_gateway(number);
        }
    }

    /// The gateway closes its side, or knows that the other is gone.
    fn end_of_gateway(&mut self, number: u32) {
        let (Some(gateway), Some(link)) = (&mut self.gateway, self.links.get_mut(&number)) else { return };
        link.gateway_end = End::Over;
        link.drop_up();
        if link.client_end == End::Open {
            link.client_end = End::Closing;
        }
        let client = link.client;
        let place = link.place;
        if let Some((shard, key)) = place {
            let now = gateway.now(self.now.at);
            gateway.shards[shard].handle_closed(key, now);
            self.by_key.remove(&(shard, key));
        }
        if self.clients[client].link == Some(number) {
            self.ledger.shaky(client, self.now);
        }
        self.ledger.connection_over(client, number, false, self.now);
        if let Some((shard, _)) = place {
            self.after(shard);
        }
        self.forget_link(number);
    }

    fn notice(&mut self, number: u32) {
        self.begin_step(3);
        self.say(|| format!("the gateway notices the end of connection {number}"));
        self.end_of_gateway(number);
    }

    fn client_reads(&mut self, number: u32) {
        self.begin_step(4);
        let Some(link) = self.links.get_mut(&number) else { return };
        let client = link.client;
        let is_current = self.clients[client].link == Some(number);
        let room = if is_current { self.clients[client].room() } else { usize::MAX };
        let count = if self.random.chance(1, 2) { room } else { self.random.between(1, 300).min(room) };
        let Some((written, bytes)) = link.read_down(count) else { return };
        if link.stalled && link.down_waiting() < link.socket {
            link.stalled = false;
            link.writable = true;
            if let (Some(gateway), Some((shard, key))) = (&mut self.gateway, link.place)
                && link.gateway_end != End::Over
            {
                gateway.shards[shard].set_stalled(key, false);
            }
            let since = self.clients[client].stalled_at;
            self.ledger.accounts[client].stalls.push((since, self.now.step));
        }
        self.trace.bytes(&bytes);
        if !is_current {
            return;
        }
        let closed = link.gateway_end == End::Over;
        self.say(|| format!("{} reads {} bytes", client_id(client), bytes.len()));
        let before = self.clients[client].answered;
        self.clients[client].feed(&bytes, written, number, &mut self.ledger, self.now);
        let is_let_in = before != self.clients[client].answered;
        // An older CONNECT that is still on its way will take this connection over.
        let is_followed = self.links.iter().any(|(other, link)| {
            *other != number && link.client == client && link.gateway_end != End::Over && link.place.is_none()
        });
        if is_let_in && is_followed {
            self.ledger.shaky(client, self.now);
        }
        // The gateway may have closed what the client hears only now to be open.
        if closed && is_let_in {
            self.ledger.shaky(client, self.now);
        }
    }

    fn client_notices(&mut self, number: u32) {
        self.begin_step(5);
        let Some(link) = self.links.get_mut(&number) else { return };
        link.client_end = End::Over;
        if link.gateway_end == End::Open {
            link.gateway_end = End::Lost;
        }
        let client = link.client;
        if matches!(self.clients[client].body, Body::Device(_)) && link.place.is_none() {
            link.cut(0);
        }
        if self.clients[client].link == Some(number) {
            self.say(|| format!("{} notices the end of connection {number}", client_id(client)));
            self.ledger.shaky(client, self.now);
            self.clients[client].lost(&mut self.ledger, self.now);
        }
        self.forget_link(number);
    }

    fn forget_link(&mut self, number: u32) {
        if self.links.get(&number).is_some_and(Link::is_over) {
            self.links.remove(&number);
        }
    }

    fn take(&mut self, client: usize) {
        self.begin_step(6);
        self.clients[client].take(&mut self.ledger, self.now);
    }

    fn peer(&mut self, way: usize) {
        self.begin_step(7);
        let Some(gateway) = &mut self.gateway else { return };
        gateway.take(way, self.now.at);
        let (from, to) = gateway.ends(way);
        self.say(|| format!("shard {to} takes what shard {from} has for it"));
        self.touched[from] = true;
        self.after(to);
    }

    fn forward(&mut self, shard: usize) {
        self.begin_step(8);
        self.touched[shard] = false;
        if let Some(gateway) = &mut self.gateway {
            gateway.forward(shard);
        }
    }

    fn timer(&mut self, shard: usize) {
        self.begin_step(9);
        let Some(gateway) = &mut self.gateway else { return };
        if gateway.pass_time(shard, self.now.at) {
            self.ledger.judged_anew(self.now);
        }
        self.say(|| format!("shard {shard} does what is due"));
        self.after(shard);
    }

    fn hear_of_rules(&mut self, shard: usize) {
        self.begin_step(13);
        let Some(gateway) = &mut self.gateway else { return };
        self.unaware[shard] = false;
        if gateway.shards[shard].is_judging() {
            // By the rules before these, at once.
            self.ledger.judged_anew(self.now);
        }
        let now = gateway.now(self.now.at);
        gateway.shards[shard].handle_rules(self.rules.clone(), now);
        self.say(|| format!("shard {shard} hears of other rules"));
        if !self.unaware.contains(&true) {
            self.ledger.amendment_holds(self.now);
        }
        self.after(shard);
    }

    pub(crate) fn pump(&mut self, client: usize) {
        self.begin_step(10);
        let Some(number) = self.clients[client].link else { return };
        let (mut out, mut marks) = (Vec::new(), Vec::new());
        let is_over = self.clients[client].pump(&mut out, &mut marks, self.now);
        let Some(link) = self.links.get_mut(&number) else { return };
        self.trace.bytes(&out);
        link.write_up(&out, marks);
        if !out.is_empty() {
            self.say(|| format!("{} writes {} bytes {}", client_id(client), out.len(), hexadecimal(&out)));
        }
        if is_over {
            self.close_by_client(client);
        }
    }

    /// The client closes its connection, behind what it has written.
    fn close_by_client(&mut self, client: usize) {
        let Some(number) = self.clients[client].link else { return };
        self.say(|| format!("{} closes connection {number}", client_id(client)));
        let is_device = matches!(self.clients[client].body, Body::Device(_));
        if let Some(link) = self.links.get_mut(&number) {
            if is_device && link.place.is_none() {
                link.cut(0);
            }
            if link.gateway_end == End::Open {
                link.gateway_end = End::Closing;
            }
            link.client_end = End::Over;
            link.drop_down();
        }
        self.ledger.shaky(client, self.now);
        self.clients[client].lost(&mut self.ledger, self.now);
        self.forget_link(number);
    }

    pub(crate) fn connect(&mut self, client: usize) {
        self.begin_step(11);
        if self.gateway.is_none() {
            return;
        }
        let number = self.next_link;
        self.next_link += 1;
        let socket = self.plan.clients[client].socket;
        self.ledger.link_incarnations.push(self.ledger.incarnation);
        self.ledger.link_epochs.push(0);
        self.links.insert(number, Link::new(client, self.ledger.incarnation, socket));
        self.say(|| format!("{} opens connection {number}", client_id(client)));
        self.clients[client].connect(number, &mut self.ledger, self.now);
    }

    fn restart(&mut self) {
        self.begin_step(12);
        self.say(|| "the gateway starts".to_owned());
        self.gateway = Some(Gateway::new(&setup(&self.plan, &self.rules), self.now.at, &mut self.random));
        self.touched = vec![false; self.plan.shards.into()];
        self.unaware = vec![false; self.plan.shards.into()];
    }

    // -- faults -------------------------------------------------------------------------------------------

    /// The network loses a connection.
    pub(crate) fn cut(&mut self) {
        let numbers: Vec<_> = self.links.keys().copied().collect();
        let Some(&number) = self.random.pick(&numbers) else { return };
        self.begin_step(20);
        let Some(link) = self.links.get_mut(&number) else { return };
        let arriving = self.random.below(link.up_waiting() + 1);
        link.cut(arriving);
        let client = link.client;
        self.say(|| format!("connection {number} of {} is cut", client_id(client)));
        if self.clients[client].link == Some(number) {
            self.ledger.shaky(client, self.now);
        }
    }

    /// A client forgets its connection and makes another one; the gateway still has the old one.
    pub(crate) fn double(&mut self) {
        let client = self.random.below(self.clients.len());
        let Some(number) = self.clients[client].link else { return };
        if self.gateway.is_none() {
            return;
        }
        self.begin_step(21);
        self.say(|| format!("{} leaves connection {number} behind", client_id(client)));
        let is_device = matches!(self.clients[client].body, Body::Device(_));
        if let Some(link) = self.links.get_mut(&number) {
            link.client_end = End::Over;
            link.drop_down();
            // A hello that comes after a newer one would say what isn't true any more, and end the session.
            if is_device && link.place.is_none() {
                link.cut(0);
            }
        }
        self.ledger.shaky(client, self.now);
        self.clients[client].lost(&mut self.ledger, self.now);
        self.forget_link(number);
        self.connect(client);
    }

    /// The gateway dies, with all that it has.
    pub(crate) fn kill(&mut self) {
        if self.gateway.take().is_none() {
            return;
        }
        self.begin_step(22);
        self.say(|| "the gateway is killed".to_owned());
        self.by_key.clear();
        for link in self.links.values_mut() {
            link.gateway_end = End::Over;
            link.drop_up();
            if self.random.chance(1, 2) {
                link.drop_down();
            }
            if link.client_end == End::Open {
                link.client_end = End::Closing;
            }
        }
        self.links.retain(|_, link| !link.is_over());
        self.ledger.gateway_died(self.now);
    }

    /// A client stops reading, or goes on.
    pub(crate) fn slow(&mut self) {
        let client = self.random.below(self.clients.len());
        self.begin_step(23);
        self.clients[client].reads = !self.clients[client].reads;
        let reads = self.clients[client].reads;
        self.say(|| format!("{} reads: {reads}", client_id(client)));
    }

    /// A FIFO is blocked, or opened.
    pub(crate) fn block(&mut self) {
        self.begin_step(24);
        let Some(gateway) = &mut self.gateway else { return };
        let way = self.random.below(gateway.way_count());
        let blocked = self.random.chance(1, 2);
        gateway.block(way, blocked);
        let (from, to) = gateway.ends(way);
        self.say(|| format!("the way from shard {from} to {to} is blocked: {blocked}"));
    }

    /// The rules change: each shard hears of it in its time.
    pub(crate) fn amend(&mut self) {
        if self.gateway.is_none() || self.unaware.contains(&true) {
            return;
        }
        self.begin_step(26);
        let mut law = self.plan.law.amended(self.clients.len(), self.plan.groups, &mut self.random);
        // Best what someone does all the time.
        let usual = self.clients.iter().filter_map(|client| Some((client.me, client.usual.as_ref()?)));
        let usual: Vec<_> = usual.map(|(client, usual)| (client, usual.what.clone())).collect();
        match self.random.pick(&usual) {
            Some((client, What::Signal { target: Target::Group { group, .. }, .. })) => {
                law.no_send.push((*client, *group));
            }
            Some((client, What::Signal { target: Target::Client(to), .. })) => {
                law.no_hear.push((*to, *client))
            }
            _ => {}
        }
        let Ok(rules) = law.rules() else { return };
        self.say(|| format!("the rules change: {law:?}"));
        self.rules = Arc::new(rules);
        self.unaware = vec![true; self.plan.shards.into()];
        self.ledger.amended(law, self.now);
    }

    /// Milliseconds pass.
    pub(crate) fn pass(&mut self, millis: u64) {
        self.begin_step(25);
        if millis >= LONG {
            self.exchange();
        }
        self.now.at += millis;
        self.trace.number(self.now.at);
        self.ledger.time_passed(self.now);
        for client in &mut self.clients {
            client.wake_if_due(self.now);
        }
    }

    /// Shards may be slow, but don't sleep for seconds: what is between them arrives.
    fn exchange(&mut self) {
        let Some(gateway) = &mut self.gateway else { return };
        let mut moved = true;
        while moved {
            moved = false;
            for shard in 0..gateway.shards.len() {
                moved |= gateway.forward(shard);
            }
            for way in 0..gateway.way_count() {
                moved |= gateway.take(way, self.now.at);
            }
        }
        for shard in 0..self.touched.len() {
            self.after(shard);
        }
    }

    // -- peace --------------------------------------------------------------------------------------------

    /// All is healed: everything moves until nothing does, and what is due within so many milliseconds happens.
    pub(crate) fn settle(&mut self, horizon: u64) {
        let end = self.now.at + horizon;
        for client in &mut self.clients {
            (client.reads, client.wants) = (true, true);
        }
        let mut moves = 0;
        while self.is_sound() {
            if let Some(gateway) = &mut self.gateway {
                (0..gateway.way_count()).for_each(|way| gateway.block(way, false));
            }
            while self.is_sound() && self.move_something() {
                moves += 1;
                if moves > MOST_MOVES {
                    return self.ledger.violated("it never comes to rest".to_owned());
                }
            }
            let gateway = self.gateway.as_ref().and_then(Gateway::deadline);
            let clients = self.clients.iter().filter_map(|client| client.deadline(self.now));
            match clients.chain(gateway).min().filter(|due| *due <= end) {
                Some(due) => self.pass(due.saturating_sub(self.now.at).max(1)),
                None => break,
            }
        }
        self.now.at = self.now.at.max(end);
    }

    /// What the gateway and the devices counted as dropped.
    pub(crate) fn dropped(&self) -> Dropped {
        let mut dropped = Dropped::default();
        for shard in self.gateway.iter().flat_map(|gateway| &gateway.shards) {
            dropped.add(shard.counters());
        }
        for client in &self.clients {
            if let Body::Device(device) = &client.body {
                dropped.signals += u64::from(device.expired());
            }
        }
        dropped
    }

    /// Whether a client is there, and has been all the time since that step.
    pub(crate) fn is_up_since(&self, client: usize, step: u64) -> bool {
        self.ledger.surely_up(client, step, NEVER)
    }
}

/// The first of some bytes, for a person.
fn hexadecimal(bytes: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown: Vec<_> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    shown.join(" ") + if bytes.len() > SHOWN { " ..." } else { "" }
}

fn setup(plan: &Plan, rules: &Arc<Rules>) -> Setup {
    let limits = Arc::new(plan.limits.clone());
    Setup { shards: plan.shards, limits, rules: rules.clone(), durable_since: None }
}
