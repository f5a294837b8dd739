//! QEMU's mps2-an500: a Cortex-M7 with 4 MiB of flash, 4 MiB of RAM, and 16 MiB beside them for one model of
//! SMALL's size.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use electret::Arena;
use electret_board::qemu::cortex_m::{Uart, micros};
use electret_board::qemu::{FileSlots, Machine, run};
use static_cell::ConstStaticCell;

#[entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 512 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 1 << 20 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 256 << 10 }>> = ConstStaticCell::new(Arena::new());
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's first UART, which is used here only.
        serial: unsafe { Uart::start(0x4000_4000, 25_000_000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x6000_0000 as *mut u8, core::ptr::null_mut()], 16 << 20) },
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        clock: micros,
    })
}
