//! QEMU's mps2-an500: a Cortex-M7 with 4 MiB of flash, 4 MiB of RAM, and 16 MiB beside them for one model of
//! SMALL's size.

#![no_std]
#![no_main]

use cortex_m::singleton;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use electret::Arena;
use electret_board::qemu::cortex_m::{Uart, micros, tick};
use electret_board::qemu::{FileSlots, Machine, fail, run};
use electret_board::{key_from_hex, stack_depth};

/// Whose updates are taken; everybody's if the build names nobody.
const KEY: Option<[u8; 32]> = key_from_hex(option_env!("ELECTRET_PUBLIC_KEY"));

#[entry]
fn main() -> ! {
    let Some(answering) = singleton!(: Arena<{ 512 << 10 }> = Arena::new()) else { started_twice() };
    let Some(learning) = singleton!(: Arena<{ 1 << 20 }> = Arena::new()) else { started_twice() };
    let Some(adapter) = singleton!(: Arena<{ 256 << 10 }> = Arena::new()) else { started_twice() };
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's first UART, which is used here only.
        serial: unsafe { Uart::start(0x4000_4000, 25_000_000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x6000_0000 as *mut u8, core::ptr::null_mut()], 16 << 20) },
        answering: answering.as_mut_slice(),
        learning: learning.as_mut_slice(),
        adapter: adapter.as_mut_slice(),
        key: KEY,
        clock: micros,
        stack: stack_depth,
    })
}

fn started_twice() -> ! {
    fail(format_args!("started twice"))
}

#[exception]
fn SysTick() {
    tick();
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    fail(format_args!("hard fault at {:#x}", frame.pc()))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
