//! `bugle bench floor`: a broker that only copies. One thread, one write per subscriber and wake-up, QoS 0, exact
//! topics; no check, no rule, no limit but one on unread bytes. It is what the others are held against: nothing that
//! writes to each subscriber's socket on its own can cost much less.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bugle_core::mqtt::frame_length;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{BenchError, say};

const LISTENER: Token = Token(usize::MAX);
/// What is read at a time, in bytes. A shorter read has emptied the socket.
const READ_BUFFER: usize = 256 * 1024;
/// Bytes that a subscriber may leave unread before it is closed.
const MAX_UNREAD: usize = 64 * 1024 * 1024;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;

struct Client {
    socket: TcpStream,
    /// A packet that isn't whole yet.
    input: Vec<u8>,
    /// What is to be written.
    out: Vec<u8>,
    /// It is among those to be written to after this wake-up.
    is_due: bool,
}

#[derive(Default)]
struct Floor {
    clients: Vec<Option<Client>>,
    /// Places in `clients` that are free again after this wake-up.
    free: Vec<usize>,
    topics: HashMap<Vec<u8>, BTreeSet<usize>>,
    due: Vec<usize>,
    gone: Vec<usize>,
}

/// Serves until the process is ended.
pub fn run(address: SocketAddr) -> Result<(), BenchError> {
    let mut listener = TcpListener::bind(address).map_err(|error| {
        BenchError::Usage(format!("cannot listen on {address}: {error}; choose another --listen"))
    })?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    say(&format!("The copy-only broker: MQTT, QoS 0, exact topics, on {}", listener.local_addr()?));
    let mut events = Events::with_capacity(4096);
    let mut buffer = vec![0; READ_BUFFER];
    let mut floor = Floor::default();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, &poll)?,
                Token(index) => {
                    if event.is_readable() && !floor.read(index, &mut buffer) {
                        floor.gone.push(index);
                    } else if event.is_writable() {
                        floor.is_due(index);
                    }
                }
            }
        }
        floor.write_what_is_due();
        floor.forget_the_gone();
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.clients.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut socket, Token(index), interest)?;
            let client = Client { socket, input: Vec::new(), out: Vec::new(), is_due: false };
            match self.clients.get_mut(index) {
                Some(place) => *place = Some(client),
                None => self.clients.push(Some(client)),
            }
        }
    }

    /// Reads and copies; `false` when the client is gone.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        loop {
            let Some(Some(client)) = self.clients.get_mut(index) else { return true };
            let kept = client.input.len();
            if kept >= buffer.len() {
                return false;
            }
            buffer[..kept].copy_from_slice(&client.input);
            let length = match client.socket.read(&mut buffer[kept..]) {
                Ok(0) => return false,
                Ok(read) => kept + read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            client.input.clear();
            let Some(taken) = self.handle(index, &buffer[..length]) else { return false };
            if let Some(Some(client)) = self.clients.get_mut(index) {
                client.input.extend_from_slice(&buffer[taken..length]);
            }
            if length < buffer.len() {
                return true;
            }
        }
    }

    /// Handles the whole packets in `bytes` and says how many bytes they took; `None` for what isn't served.
    fn handle(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let Some(length) = frame_length(rest).ok()? else { return Some(taken) };
            let Some(packet) = rest.get(..length) else { return Some(taken) };
            taken += length;
            let body = packet.get(packet.get(1..)?.iter().position(|byte| byte & 0x80 == 0)? + 2..)?;
            match packet[0] >> 4 {
                PUBLISH if packet[0] & 0b110 == 0 => self.copy(topic_of(body)?, packet),
                CONNECT => self.answer(index, &[0x20, 2, 0, 0]),
                SUBSCRIBE => self.subscribe(index, body)?,
                PINGREQ => self.answer(index, &[0xD0, 0]),
                _ => return None,
            }
        }
    }

    fn copy(&mut self, topic: &[u8], packet: &[u8]) {
        let Some(subscribers) = self.topics.get(topic) else { return };
        for &index in subscribers {
            let Some(Some(client)) = self.clients.get_mut(index) else { continue };
            client.out.extend_from_slice(packet);
            if !client.is_due {
                client.is_due = true;
                self.due.push(index);
            }
        }
    }

    fn subscribe(&mut self, index: usize, body: &[u8]) -> Option<()> {
        let (&[high, low], mut filters) = body.split_first_chunk::<2>()?;
        let mut answer = vec![0x90, 2, high, low];
        while !filters.is_empty() {
            let topic = topic_of(filters)?;
            self.topics.entry(topic.to_vec()).or_default().insert(index);
            // Behind the topic's length, the topic and the wanted QoS.
            filters = filters.get(2 + topic.len() + 1..)?;
            answer.push(0);
        }
        // One byte says it for at most 125 filters.
        answer[1] = u8::try_from(answer.len() - 2).ok().filter(|&length| length < 128)?;
        self.answer(index, &answer);
        Some(())
    }

    fn answer(&mut self, index: usize, bytes: &[u8]) {
        if let Some(Some(client)) = self.clients.get_mut(index) {
            client.out.extend_from_slice(bytes);
            self.is_due(index);
        }
    }

    fn is_due(&mut self, index: usize) {
        if let Some(Some(client)) = self.clients.get_mut(index)
            && !client.out.is_empty()
            && !client.is_due
        {
            client.is_due = true;
            self.due.push(index);
        }
    }

    fn write_what_is_due(&mut self) {
        for index in self.due.drain(..) {
            let Some(Some(client)) = self.clients.get_mut(index) else { continue };
            client.is_due = false;
            match client.socket.write(&client.out) {
                Ok(length) if length == client.out.len() => client.out.clear(),
                Ok(length) => drop(client.out.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone.push(index),
            }
            if client.out.len() > MAX_UNREAD {
                self.gone.push(index);
            }
        }
    }

    fn forget_the_gone(&mut self) {
        for index in std::mem::take(&mut self.gone) {
            // Closing it takes it out of the poll.
            if self.clients.get_mut(index).and_then(Option::take).is_some() {
                self.topics.retain(|_, subscribers| {
                    subscribers.remove(&index);
                    !subscribers.is_empty()
                });
                self.free.push(index);
            }
        }
    }
}

/// The string that `bytes` begins with.
fn topic_of(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.get(..u16::from_be_bytes(*length).into())
}
