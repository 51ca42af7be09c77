//! How deep the stack was. It is painted before the start; what isn't painted any more was used.

/// Bytes of stack that were used at most, and those that there are.
#[derive(Clone, Copy, Debug, defmt::Format)]
pub struct StackUse {
    /// Used.
    pub used: usize,
    /// There: all RAM that isn't static.
    pub size: usize,
}

/// How deep the stack was so far.
#[allow(unsafe_code, reason = "it reads memory that nobody owns")]
pub fn stack_use() -> StackUse {
    unsafe extern "C" {
        static _stack_start: u32;
        static _stack_end: u32;
    }
    let (top, bottom) = ((&raw const _stack_start) as usize, (&raw const _stack_end) as usize);
    let mut painted = bottom;
    // Safety: the linker script puts the stack between these two, aligned to 4. Below its deepest frame nobody writes.
    while painted < top
        && unsafe { (painted as *const u32).read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE
    {
        painted += 4;
    }
    StackUse { used: top - painted, size: top - bottom }
}
