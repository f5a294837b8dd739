//! QEMU's virt machine without an operating system: a Cortex-A72 with NEON, caches and MMU on, and memory for two
//! models of SMALL's size.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

use electret::Arena;
use electret_board::qemu::aarch64::{Pl011, micros};
use electret_board::qemu::{FileSlots, Machine, fail, run};
use electret_board::{key_from_hex, stack_depth};

global_asm!(include_str!("boot.s"));

/// Whose updates are taken; everybody's if the build names nobody.
const KEY: Option<[u8; 32]> = key_from_hex(option_env!("ELECTRET_PUBLIC_KEY"));

static mut ANSWERING: Arena<{ 1 << 20 }> = Arena::new();
static mut LEARNING: Arena<{ 2 << 20 }> = Arena::new();
static mut ADAPTER: Arena<{ 512 << 10 }> = Arena::new();

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the start comes here once, and nobody else names the buffers.
    let (answering, learning, adapter) =
        unsafe { (&mut *(&raw mut ANSWERING), &mut *(&raw mut LEARNING), &mut *(&raw mut ADAPTER)) };
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's UART, which is used here only.
        serial: unsafe { Pl011::new(0x0900_0000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x4800_0000 as *mut u8, 0x4900_0000 as *mut u8], 16 << 20) },
        answering: answering.as_mut_slice(),
        learning: learning.as_mut_slice(),
        adapter: adapter.as_mut_slice(),
        key: KEY,
        clock: micros,
        stack: stack_depth,
    })
}

#[unsafe(no_mangle)]
extern "C" fn exception() -> ! {
    let (cause, place): (u64, u64);
    // SAFETY: two registers that say what happened are read.
    unsafe { asm!("mrs {}, esr_el1", "mrs {}, elr_el1", out(reg) cause, out(reg) place) };
    fail(format_args!("exception {cause:#x} at {place:#x}"))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
