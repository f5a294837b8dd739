//! QEMU's virt machine without an operating system: a Cortex-A72 with NEON, caches and MMU on, and memory for two
//! models of SMALL's size.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

use electret::Arena;
use electret_board::qemu::aarch64::{Pl011, micros};
use electret_board::qemu::{FileSlots, Machine, fail, run};
use static_cell::ConstStaticCell;

global_asm!(include_str!("boot.s"));

static ANSWERING: ConstStaticCell<Arena<{ 1 << 20 }>> = ConstStaticCell::new(Arena::new());
static LEARNING: ConstStaticCell<Arena<{ 2 << 20 }>> = ConstStaticCell::new(Arena::new());
static ADAPTER: ConstStaticCell<Arena<{ 512 << 10 }>> = ConstStaticCell::new(Arena::new());

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's UART, which is used here only.
        serial: unsafe { Pl011::new(0x0900_0000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x4800_0000 as *mut u8, 0x4900_0000 as *mut u8], 16 << 20) },
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        clock: micros,
    })
}

#[unsafe(no_mangle)]
extern "C" fn exception() -> ! {
    let (cause, place): (u64, u64);
    // SAFETY: two registers that say what happened are read.
    unsafe { asm!("mrs {}, esr_el1", "mrs {}, elr_el1", out(reg) cause, out(reg) place) };
    fail(format_args!("exception {cause:#x} at {place:#x}"))
}
