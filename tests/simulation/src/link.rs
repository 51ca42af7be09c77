//! One connection between a client and the gateway: bytes on their way in both directions, which of them are there, and
//! what each side knows of its end.

use std::collections::VecDeque;

use bugle_core::hub::ConnectionKey;

use crate::message::Moment;

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// Who made it.
    pub client: usize,
    /// Which run of the gateway it was made to.
    pub incarnation: u32,
    /// Where in the gateway it is, once its first packet was there.
    pub place: Option<(usize, ConnectionKey)>,
    /// First bytes, until they tell whose shard it is.
    pub first: Vec<u8>,
    /// On the way to the gateway.
    up: VecDeque<u8>,
    /// Bytes that were ever sent up, and that the gateway has read.
    up_sent: u64,
    up_read: u64,
    /// What the gateway has when it has read so many bytes.
    marks: VecDeque<(u64, Mark)>,
    /// On the way to the client.
    down: VecDeque<(Moment, VecDeque<u8>)>,
    down_bytes: usize,
    /// Bytes that may be on the way to the client.
    pub socket: usize,
    /// The gateway wants more bytes.
    pub wanted: bool,
    /// The gateway may have something to write.
    pub writable: bool,
    /// The gateway was told that the socket takes no more.
    pub stalled: bool,
    /// The gateway has, or may still get to know, this connection.
    pub gateway_end: End,
    /// Likewise the client.
    pub client_end: End,
}

/// How one side stands to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is open.
    Open,
    /// It ends when the bytes that are on their way have been read.
    Closing,
    /// It is gone; this side doesn't know yet.
    Lost,
    /// Over.
    Over,
}

/// What the gateway has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The packet that asks to be let in.
    Connect,
    /// Likewise of a device, that would go on with its session of this epoch; 0 is none.
    Hello(u32),
    /// A message.
    Message(u32),
    /// The last packet: it ends here, whenever the connection does.
    Goodbye,
}

impl Link {
    /// A connection that begins.
    pub fn new(client: usize, incarnation: u32, socket: usize) -> Self {
        Self {
            client,
            incarnation,
            place: None,
            first: Vec::new(),
            up: VecDeque::new(),
            up_sent: 0,
            up_read: 0,
            marks: VecDeque::new(),
            down: VecDeque::new(),
            down_bytes: 0,
            socket,
            wanted: true,
            writable: false,
            stalled: false,
            gateway_end: End::Open,
            client_end: End::Open,
        }
    }

    /// The client writes; each mark is behind so many of the bytes.
    pub fn write_up(&mut self, bytes: &[u8], marks: impl IntoIterator<Item = (usize, Mark)>) {
        if self.gateway_end != End::Open {
            return;
        }
        self.marks.extend(marks.into_iter().map(|(at, mark)| (self.up_sent + at as u64, mark)));
        self.up.extend(bytes);
        self.up_sent += bytes.len() as u64;
    }

    /// Bytes that wait for the gateway.
    pub fn up_waiting(&self) -> usize {
        self.up.len()
    }

    /// The gateway reads so many of them.
    pub fn read_up(&mut self, count: usize) -> (Vec<u8>, Vec<Mark>) {
        let bytes: Vec<u8> = self.up.drain(..count.min(self.up.len())).collect();
        self.up_read += bytes.len() as u64;
        let mut reached = Vec::new();
        while let Some((at, mark)) = self.marks.front().copied()
            && at <= self.up_read
        {
            self.marks.pop_front();
            reached.push(mark);
        }
        (bytes, reached)
    }

    /// The gateway writes.
    pub fn write_down(&mut self, bytes: &[u8], now: Moment) {
        if self.client_end == End::Open && !bytes.is_empty() {
            self.down.push_back((now, bytes.iter().copied().collect()));
            self.down_bytes += bytes.len();
        }
    }

    /// Bytes that wait for the client.
    pub fn down_waiting(&self) -> usize {
        self.down_bytes
    }

    /// The client reads so many bytes, of one write of the gateway at most; with when that was.
    pub fn read_down(&mut self, count: usize) -> Option<(Moment, Vec<u8>)> {
        let (written, bytes) = self.down.front_mut()?;
        let written = *written;
        let taken: Vec<u8> = bytes.drain(..count.min(bytes.len())).collect();
        if bytes.is_empty() {
            self.down.pop_front();
        }
        self.down_bytes -= taken.len();
        Some((written, taken))
    }

    /// The network loses it: some of what is on the way up still arrives, and of what is on the way down nothing.
    pub fn cut(&mut self, arriving: usize) {
        self.up.truncate(arriving);
        self.drop_down();
        if self.gateway_end == End::Open {
            self.gateway_end = End::Lost;
        }
        if matches!(self.client_end, End::Open | End::Closing) {
            self.client_end = End::Lost;
        }
    }

    /// What is on the way to the client never arrives.
    pub fn drop_down(&mut self) {
        self.down.clear();
        self.down_bytes = 0;
    }

    /// What is on the way to the gateway never arrives.
    pub fn drop_up(&mut self) {
        self.up.clear();
    }

    /// Both sides are done with it.
    pub fn is_over(&self) -> bool {
        self.gateway_end == End::Over && self.client_end == End::Over
    }
}
