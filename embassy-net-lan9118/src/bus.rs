//! The controller's registers by name, and the way to them: on a board, or in a test.

/// A register, by its offset in bytes. All are 32 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Register {
    /// Data of received frames.
    ReceiveData = 0x00,
    /// Commands and data of frames to be sent.
    TransmitData = 0x20,
    /// Status of received frames; reading takes one out.
    ReceiveStatus = 0x40,
    /// Status of sent frames; reading takes one out.
    TransmitStatus = 0x48,
    /// Chip and revision.
    IdRevision = 0x50,
    /// Interrupt line.
    InterruptConfig = 0x54,
    /// What has happened; writing ones clears.
    InterruptStatus = 0x58,
    /// What may raise an interrupt.
    InterruptEnable = 0x5C,
    /// Always 0x87654321.
    ByteTest = 0x64,
    /// Levels at which FIFOs interrupt.
    FifoInterrupt = 0x68,
    /// Receiver.
    ReceiveConfig = 0x6C,
    /// Transmitter.
    TransmitConfig = 0x70,
    /// Reset, and sizes of FIFOs.
    HardwareConfig = 0x74,
    /// What waits in the receive FIFOs.
    ReceiveFifo = 0x7C,
    /// Room in the transmit FIFO, and status that waits.
    TransmitFifo = 0x80,
    /// Command for a register of the MAC.
    MacCommand = 0xA4,
    /// Data for or of a register of the MAC.
    MacData = 0xA8,
}

/// Reads and writes registers. What several copies do must not get mixed up: each access is one bus cycle.
pub trait Bus {
    /// Reads one.
    fn read(&self, register: Register) -> u32;
    /// Writes one.
    fn write(&self, register: Register, value: u32);
}

impl<B: Bus> Bus for &B {
    fn read(&self, register: Register) -> u32 {
        (**self).read(register)
    }

    fn write(&self, register: Register, value: u32) {
        (**self).write(register, value);
    }
}

/// Registers in memory.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
}

impl Mmio {
    /// Registers that begin at this address.
    ///
    /// # Safety
    ///
    /// A LAN9118 must be mapped there, for ever, for 256 bytes, aligned to 4, with 32-bit accesses; and only the
    /// driver and its [`State`](crate::State) may use it.
    #[allow(unsafe_code, reason = "only the caller can know what is at an address")]
    pub const unsafe fn new(base: usize) -> Self {
        Self { base }
    }
}

#[allow(unsafe_code, reason = "`new` has the caller's word that these are registers")]
impl Bus for Mmio {
    fn read(&self, register: Register) -> u32 {
        let address = (self.base + register as usize) as *const u32;
        // Safety: by `new`, a register is there, and it is aligned, since all offsets are multiples of 4.
        unsafe { address.read_volatile() }
    }

    fn write(&self, register: Register, value: u32) {
        let address = (self.base + register as usize) as *mut u32;
        // Safety: as in `read`.
        unsafe { address.write_volatile(value) }
    }
}
