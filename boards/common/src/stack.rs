//! How deep the stack was: `cortex-m-rt`, or a board's own start, has painted it.

use crate::Stack;

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// What it is painted with.
const PAINT: u32 = 0xcccc_cccc;

/// Of the stack between the linker's two symbols.
pub fn painted_stack() -> Stack {
    let (end, top) = (&raw const _stack_end, &raw const _stack_start);
    let mut place = end;
    // SAFETY: between the two lies the stack; only its end that was never used is read.
    while place < top && unsafe { place.read_volatile() } == PAINT {
        place = place.wrapping_add(1);
    }
    let bytes = |from: *const u32| (top as usize).wrapping_sub(from as usize) as u32;
    Stack { deepest: bytes(place), room: Some(bytes(end)) }
}
