//! How deep the stack was: `cortex-m-rt`, or a board's own start, has painted it.

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// What it is painted with.
const PAINT: u32 = 0xcccc_cccc;

/// Bytes of stack in use when it was deepest.
pub fn stack_depth() -> u32 {
    let (mut place, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: between the two lies the stack; only its end that was never used is read.
    while place < top && unsafe { place.read_volatile() } == PAINT {
        place = place.wrapping_add(1);
    }
    (top as usize).wrapping_sub(place as usize) as u32
}
