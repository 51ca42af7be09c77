//! What an application decides once: identity, timing, limits. Checked when the client is made.

use bugle_protocol::{Frame, NoSpace, WillFrame, is_name};

use crate::session::CHUNK;

/// Settings of a client. Make one with [`Config::new`] and change what has to differ.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Config<'a> {
    /// The client id (S1).
    pub client_id: &'a str,
    /// The secret that the gateway's challenge is answered with. It never crosses the wire.
    pub secret: &'a [u8],
    /// What the gateway sends or publishes when the connection is lost without a goodbye; see [`will`].
    pub will: Option<WillFrame<'a>>,
    /// Where the jitter of reconnects starts from. Must differ between devices: a hardware random number,
    /// or a hash of the unique id.
    pub seed: u32,
    /// The wanted keep-alive in seconds, 0 for none. Default 60. Without one a dead link is only noticed by
    /// a write that fails, and the gateway's clock isn't followed after the first minute of a connection.
    pub keep_alive: u16,
    /// How many deliveries the gateway may have on their way at a time, 1 or more. Default 4.
    pub window: u16,
    /// Largest frame body to receive, in bytes. `None`, the default, takes what makes it impossible that
    /// untaken deliveries stop the acknowledgements behind them: the receive buffer divided by `window + 1`.
    /// With more than that, don't wait for the outcome of a send in the task that takes the deliveries.
    pub max_body: Option<u16>,
    /// How long the gateway shall keep the session after a lost connection, in seconds. Default 60. The device gives it up
    /// after 24 days.
    pub session_expiry: u32,
    /// How often the gateway's clock is asked for, in seconds, where there is a keep-alive. Default 60.
    pub clock_sync: u16,
    /// Limit for opening a transport, in milliseconds. Default 10,000.
    pub connect_timeout: u32,
    /// Limit from the open transport to the welcome, in milliseconds. Default 10,000.
    pub handshake_timeout: u32,
    /// Limit for the transport to take a chunk of bytes, in milliseconds. Default 10,000.
    pub write_timeout: u32,
    /// How long the gateway may take to acknowledge a frame before the connection counts as lost, in
    /// milliseconds. Also how long the application may look at a delivery while more bytes wait behind it.
    /// Default 30,000.
    pub ack_timeout: u32,
    /// Upper bound of the first wait before a reconnect, in milliseconds; doubles per failure. Default 250.
    pub backoff_base: u32,
    /// Upper bound of any wait before a reconnect, in milliseconds. Default 30,000.
    pub backoff_cap: u32,
}

/// Most bytes of a will's body, so that a hello fits one chunk.
pub const MAX_WILL: usize = CHUNK - 128;

/// Why settings don't make a client: the application's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ConfigError {
    /// The client id isn't 1-64 of `A-Z a-z 0-9 . _ : -` (S1).
    BadClientId,
    /// The will is longer than [`MAX_WILL`].
    WillTooLarge,
    /// A window of 0: nothing could be received.
    NoWindow,
    /// The receive buffer holds less than [`bugle_protocol::MIN_DEVICE_BODY`] for each frame of the window,
    /// or less than `max_body`.
    ReceiveBufferTooSmall,
}

impl ConfigError {
    fn text(self) -> &'static str {
        match self {
            Self::BadClientId => "not a client id",
            Self::WillTooLarge => "the will is too large",
            Self::NoWindow => "a window of 0",
            Self::ReceiveBufferTooSmall => "the receive buffer is too small",
        }
    }
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for ConfigError {}

impl<'a> Config<'a> {
    /// Default settings for a client id and its secret.
    pub const fn new(client_id: &'a str, secret: &'a [u8], seed: u32) -> Self {
        Self {
            client_id,
            secret,
            will: None,
            seed,
            keep_alive: 60,
            window: 4,
            max_body: None,
            session_expiry: 60,
            clock_sync: 60,
            connect_timeout: 10_000,
            handshake_timeout: 10_000,
            write_timeout: 10_000,
            ack_timeout: 30_000,
            backoff_base: 250,
            backoff_cap: 30_000,
        }
    }

    /// Checks everything, and says the largest frame body that a receive buffer of this size stands for.
    pub(crate) fn check(&self, receive_buffer: usize) -> Result<u16, ConfigError> {
        const HEADER: usize = 4;
        const SMALLEST: usize = bugle_protocol::MIN_DEVICE_BODY;
        if !is_name(self.client_id) {
            return Err(ConfigError::BadClientId);
        }
        if self.will.is_some_and(|will| will.body_len() > MAX_WILL) {
            return Err(ConfigError::WillTooLarge);
        }
        if self.window == 0 {
            return Err(ConfigError::NoWindow);
        }
        let largest = receive_buffer.saturating_sub(HEADER).min(u16::MAX.into());
        let share = (receive_buffer / (usize::from(self.window) + 1)).saturating_sub(HEADER);
        let body = self.max_body.map_or(share, usize::from).min(u16::MAX.into());
        if body < SMALLEST || body > largest {
            return Err(ConfigError::ReceiveBufferTooSmall);
        }
        Ok(body as u16)
    }
}

/// Why a frame doesn't make a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WillError {
    /// The buffer is too small for it.
    NoSpace,
    /// Only a [`Frame::Send`] or [`Frame::Publish`] can be a will.
    NotAllowed,
}

impl core::fmt::Display for WillError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoSpace => "the buffer is too small for the will",
            Self::NotAllowed => "only a send or a publish can be a will",
        })
    }
}

impl core::error::Error for WillError {}

impl From<NoSpace> for WillError {
    fn from(_: NoSpace) -> Self {
        Self::NoSpace
    }
}

/// Encodes a will into `buffer`: a [`Frame::Send`] or [`Frame::Publish`] with inline names, of at most
/// [`MAX_WILL`] bytes.
///
/// ```
/// use bugle_device::protocol::{Frame, NameRef, Publish};
/// use bugle_device::{Config, will};
///
/// let gone = Publish { topic: NameRef::Inline("lamps/1"), at_least_once: true, retain: true, payload: b"off" };
/// let mut buffer = [0; 32];
/// let mut config = Config::new("lamp-1", b"secret", 1);
/// config.will = Some(will(&Frame::Publish(gone), &mut buffer).unwrap());
/// ```
pub fn will<'a>(frame: &Frame<'_>, buffer: &'a mut [u8]) -> Result<WillFrame<'a>, WillError> {
    WillFrame::encode(frame, buffer)?.ok_or(WillError::NotAllowed)
}
