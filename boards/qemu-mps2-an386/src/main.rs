//! QEMU's mps2-an386: a Cortex-M4 that holds TINY. The linker gives it no more than 128 KiB of RAM, for the
//! buffers, all statics and the stack; it answers and does not learn.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use electret::{Arena, Plan, TINY};
use electret_board::qemu::cortex_m::{Uart, micros};
use electret_board::qemu::{FileSlots, Machine, run};
use static_cell::ConstStaticCell;

#[entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ Plan::inference(&TINY, 64).bytes() }>> =
        ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 4 << 10 }>> = ConstStaticCell::new(Arena::new());
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's first UART, which is used here only.
        serial: unsafe { Uart::start(0x4000_4000, 25_000_000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x2100_0000 as *mut u8, 0x2140_0000 as *mut u8], 2560 << 10) },
        answering: ANSWERING.take().as_mut_slice(),
        learning: &mut [],
        adapter: ADAPTER.take().as_mut_slice(),
        clock: micros,
    })
}
