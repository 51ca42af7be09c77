//! What the controller understands: start, MAC and PHY registers, frames in and out, interrupts. It knows nothing of
//! embassy-net. No wait in it is without a limit.

use crate::bus::{Bus, Register};

/// Largest Ethernet frame, without its checksum.
pub(crate) const MTU: usize = 1514;

/// How often a busy bit is looked at. A look takes a bus cycle, some tens of nanoseconds.
const LOOKS: u32 = 1_000_000;

const BYTE_TEST: u32 = 0x8765_4321;

mod mac {
    pub const CONTROL: u32 = 1;
    pub const ADDRESS_HIGH: u32 = 2;
    pub const ADDRESS_LOW: u32 = 3;
    pub const MII_ACCESS: u32 = 6;
    pub const MII_DATA: u32 = 7;
    pub const BUSY: u32 = 1 << 31;
    pub const READ: u32 = 1 << 30;
    /// Of CONTROL: full duplex, transmitter on, receiver on.
    pub const START: u32 = 1 << 20 | 1 << 3 | 1 << 2;
    /// Of CONTROL: takes all multicast frames.
    pub const ALL_MULTICAST: u32 = 1 << 19;
}

mod phy {
    /// The internal PHY's address, at its place in MII_ACCESS.
    pub const ADDRESS: u32 = 1 << 11;
    pub const WRITE: u32 = 1 << 1;
    pub const BUSY: u32 = 1;
    pub const CONTROL: u32 = 0;
    pub const STATUS: u32 = 1;
    pub const INTERRUPT_SOURCE: u32 = 29;
    pub const INTERRUPT_MASK: u32 = 30;
    /// Of CONTROL: auto-negotiation on, and begun anew.
    pub const NEGOTIATE: u32 = 1 << 12 | 1 << 9;
    /// Of STATUS.
    pub const LINK: u32 = 1 << 2;
    /// Of the interrupts: negotiation complete, link down.
    pub const LINK_CHANGES: u32 = 1 << 6 | 1 << 4;
}

/// Bits of the interrupt registers.
pub(crate) mod interrupt {
    /// Frames wait.
    pub const RECEIVED: u32 = 1 << 3;
    /// There is room to send.
    pub const ROOM: u32 = 1 << 9;
    /// The PHY has something to say.
    pub const PHY: u32 = 1 << 18;
}

/// Room that one frame takes in the transmit FIFO, in bytes: itself, and two words of command.
const ROOM: u32 = 1536 + 8;
/// The level for interrupts on room, in units of 64 bytes.
const ROOM_LEVEL: u32 = ROOM.div_ceil(64);

/// Why there is no driver: the board isn't what it is thought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// No such controller at this place: it read so, where 0x87654321 is right.
    NotFound(u32),
    /// It didn't come out of its reset.
    ResetTimedOut,
    /// The MAC or the PHY stayed busy.
    Busy,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotFound(_) => "no LAN9118 at this address",
            Self::ResetTimedOut => "the LAN9118 stays in reset",
            Self::Busy => "the MAC or PHY of the LAN9118 stays busy",
        })
    }
}

impl core::error::Error for Error {}

pub(crate) struct Chip<B> {
    bus: B,
}

impl<B: Bus> Chip<B> {
    /// Resets the controller and starts it, with interrupts off. Returns it with its address.
    pub fn start(bus: B, fallback: [u8; 6]) -> Result<(Self, [u8; 6]), Error> {
        // A sleeping chip wakes at the first access, whatever that reads.
        bus.read(Register::ByteTest);
        let test = bus.read(Register::ByteTest);
        if test != BYTE_TEST {
            return Err(Error::NotFound(test));
        }
        let chip = Self { bus };
        chip.write(Register::HardwareConfig, 1);
        chip.wait(Register::HardwareConfig, 1).ok_or(Error::ResetTimedOut)?;
        // 5 KiB for sending; store and forward.
        chip.write(Register::HardwareConfig, 5 << 16 | 1 << 20);
        chip.write(Register::InterruptEnable, 0);
        chip.write(Register::InterruptStatus, u32::MAX);
        // Deasserted for 340 us at least, enabled, active high, push-pull.
        chip.write(Register::InterruptConfig, 0x22 << 24 | 1 << 8 | 1 << 4 | 1);
        chip.write(Register::FifoInterrupt, ROOM_LEVEL << 24);

        let mut address = chip.address()?;
        if address == [0xFF; 6] || address == [0; 6] {
            address = fallback;
            let [a, b, c, d, e, f] = fallback;
            chip.write_mac(mac::ADDRESS_LOW, u32::from_le_bytes([a, b, c, d]))?;
            chip.write_mac(mac::ADDRESS_HIGH, u32::from_le_bytes([e, f, 0, 0]))?;
        }
        chip.write_phy(phy::INTERRUPT_MASK, phy::LINK_CHANGES)?;
        chip.write_phy(phy::CONTROL, phy::NEGOTIATE)?;
        chip.write_mac(mac::CONTROL, mac::START | mac::ALL_MULTICAST)?;
        chip.write(Register::TransmitConfig, 1 << 1);
        chip.write(Register::ReceiveConfig, 0);
        Ok((chip, address))
    }

    /// Allows these interrupts and no others.
    pub fn allow(&self, interrupts: u32) {
        self.write(Register::InterruptEnable, interrupts);
    }

    /// Whether a frame waits.
    pub fn has_frame(&self) -> bool {
        self.read(Register::ReceiveFifo) >> 16 & 0xFF != 0
    }

    /// Takes the frame that waits longest, and says how long it is. `None` where it is damaged or too long: it is gone
    /// then.
    pub fn receive(&self, frame: &mut [u8; MTU]) -> Option<usize> {
        let status = self.read(Register::ReceiveStatus);
        // With the checksum, of 4 bytes.
        let length = (status >> 16 & 0x3FFF) as usize;
        let is_damaged = status & 1 << 15 != 0;
        for word in 0..length.div_ceil(4) {
            let bytes = self.read(Register::ReceiveData).to_le_bytes();
            let at = (word * 4).min(MTU);
            let end = (at + 4).min(MTU);
            frame[at..end].copy_from_slice(&bytes[..end - at]);
        }
        let length = length.checked_sub(4)?;
        (!is_damaged && length <= MTU).then_some(length)
    }

    /// Whether any frame could be sent now.
    pub fn has_room(&self) -> bool {
        let fifo = self.read(Register::TransmitFifo);
        // What became of earlier frames is nothing that anyone could act on, but it fills its FIFO.
        for _ in 0..fifo >> 16 & 0xFF {
            self.read(Register::TransmitStatus);
        }
        fifo & 0xFFFF >= ROOM
    }

    /// Sends a frame of [`MTU`] bytes at most, for which there has to be room.
    pub fn send(&self, frame: &[u8]) {
        let length = frame.len() as u32;
        // First and last segment of its frame; the tag comes back with the status.
        self.write(Register::TransmitData, 1 << 13 | 1 << 12 | length);
        self.write(Register::TransmitData, length << 16 | length);
        for word in frame.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            self.write(Register::TransmitData, u32::from_le_bytes(bytes));
        }
    }

    /// Whether there is a link; forgets that the PHY had something to say. A busy PHY counts as none.
    pub fn has_link(&self) -> bool {
        let status = self.read_phy(phy::INTERRUPT_SOURCE).and_then(|_| {
            // A loss is latched: the second look is the present.
            self.read_phy(phy::STATUS)?;
            self.read_phy(phy::STATUS)
        });
        self.write(Register::InterruptStatus, interrupt::PHY);
        status.is_ok_and(|status| status & phy::LINK != 0)
    }

    fn address(&self) -> Result<[u8; 6], Error> {
        let [a, b, c, d] = self.read_mac(mac::ADDRESS_LOW)?.to_le_bytes();
        let [e, f, ..] = self.read_mac(mac::ADDRESS_HIGH)?.to_le_bytes();
        Ok([a, b, c, d, e, f])
    }

    fn read_phy(&self, register: u32) -> Result<u32, Error> {
        self.write_mac(mac::MII_ACCESS, phy::ADDRESS | register << 6 | phy::BUSY)?;
        self.wait_phy()?;
        self.read_mac(mac::MII_DATA)
    }

    fn write_phy(&self, register: u32, value: u32) -> Result<(), Error> {
        self.write_mac(mac::MII_DATA, value)?;
        self.write_mac(mac::MII_ACCESS, phy::ADDRESS | register << 6 | phy::WRITE | phy::BUSY)?;
        self.wait_phy()
    }

    fn wait_phy(&self) -> Result<(), Error> {
        for _ in 0..LOOKS {
            if self.read_mac(mac::MII_ACCESS)? & phy::BUSY == 0 {
                return Ok(());
            }
        }
        Err(Error::Busy)
    }

    fn read_mac(&self, register: u32) -> Result<u32, Error> {
        self.write(Register::MacCommand, mac::BUSY | mac::READ | register);
        self.wait(Register::MacCommand, mac::BUSY).ok_or(Error::Busy)?;
        Ok(self.read(Register::MacData))
    }

    fn write_mac(&self, register: u32, value: u32) -> Result<(), Error> {
        self.write(Register::MacData, value);
        self.write(Register::MacCommand, mac::BUSY | register);
        self.wait(Register::MacCommand, mac::BUSY).ok_or(Error::Busy)
    }

    /// Waits until these bits are clear, but not for ever.
    fn wait(&self, register: Register, bits: u32) -> Option<()> {
        (0..LOOKS).find(|_| self.read(register) & bits == 0).map(|_| ())
    }

    fn read(&self, register: Register) -> u32 {
        self.bus.read(register)
    }

    fn write(&self, register: Register, value: u32) {
        self.bus.write(register, value);
    }
}
