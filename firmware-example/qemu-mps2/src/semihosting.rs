//! What the debugger, here QEMU, does for the firmware: its exit code, the words of its command line, files of the host, and the time.

use core::ffi::c_void;

/// Longest command line, in bytes.
pub const COMMAND_LINE: usize = 384;

/// Ends the program with this exit code, 0 or 1.
pub fn exit(is_good: bool) -> ! {
    // Not to a place in memory, but a number: ADP_Stopped_ApplicationExit or ADP_Stopped_RunTimeErrorUnknown.
    let reason = if is_good { 0x2_0026 } else { 0x2_0023 };
    loop {
        call(0x18, reason as *mut c_void);
    }
}

/// The command line, in a buffer of the caller's; empty where there is none.
pub fn command_line(buffer: &mut [u8; COMMAND_LINE]) -> &str {
    #[repr(C)]
    struct Block {
        buffer: *mut u8,
        length: usize,
    }
    let mut block = Block { buffer: buffer.as_mut_ptr(), length: buffer.len() };
    if call(0x15, (&raw mut block).cast()) != 0 {
        return "";
    }
    let length = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
    core::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Reads from the start of a file of the host. Gives what was read: the whole buffer, or less where the file is shorter or can't be read.
pub fn read_file<'b>(path: &str, buffer: &'b mut [u8]) -> &'b [u8] {
    #[repr(C)]
    struct Open {
        path: *const u8,
        mode: usize,
        length: usize,
    }
    #[repr(C)]
    struct Read {
        handle: usize,
        buffer: *mut u8,
        length: usize,
    }
    // Its end is marked, too.
    let mut name = [0; COMMAND_LINE + 1];
    let Some(room) = name.get_mut(..path.len()) else { return &[] };
    room.copy_from_slice(path.as_bytes());
    // Binary, to be read.
    let mut open = Open { path: name.as_ptr(), mode: 1, length: path.len() };
    let Ok(handle) = usize::try_from(call(0x01, (&raw mut open).cast())) else { return &[] };
    let mut read = Read { handle, buffer: buffer.as_mut_ptr(), length: buffer.len() };
    let missing = call(0x06, (&raw mut read).cast());
    let mut close = handle;
    call(0x02, (&raw mut close).cast());
    let missing = usize::try_from(missing).unwrap_or(usize::MAX);
    &buffer[..buffer.len().saturating_sub(missing)]
}

/// Seconds since 1970, by the host's clock.
pub fn time() -> Option<u64> {
    u64::try_from(call(0x11, core::ptr::null_mut())).ok()
}

/// One call to the debugger.
#[allow(unsafe_code, reason = "a trap to the debugger")]
fn call(number: usize, argument: *mut c_void) -> isize {
    let mut result = number;
    // Safety: by the semihosting specification BKPT 0xAB takes number and argument in r0 and r1, changes r0 alone, and
    // writes to memory only where the argument says, which is the callers' own.
    unsafe { core::arch::asm!("bkpt 0xAB", inout("r0") result, in("r1") argument, options(nostack)) };
    result as isize
}
