//! QEMU's mps2-an386: a Cortex-M4 that holds TINY. The linker gives it no more than 128 KiB of RAM, for the
//! buffers, all statics and the stack; it answers and does not learn.

#![no_std]
#![no_main]

use cortex_m::singleton;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use electret::{Arena, Plan, TINY};
use electret_board::qemu::cortex_m::{Uart, micros, tick};
use electret_board::qemu::{FileSlots, Machine, fail, run};
use electret_board::{key_from_hex, stack_depth};

/// Whose updates are taken; everybody's if the build names nobody.
const KEY: Option<[u8; 32]> = key_from_hex(option_env!("ELECTRET_PUBLIC_KEY"));

#[entry]
fn main() -> ! {
    let Some(answering) = singleton!(: Arena<{ Plan::inference(&TINY, 64).bytes() }> = Arena::new()) else {
        started_twice()
    };
    let Some(adapter) = singleton!(: Arena<{ 4 << 10 }> = Arena::new()) else { started_twice() };
    run(Machine {
        name: env!("CARGO_PKG_NAME"),
        // SAFETY: the machine's first UART, which is used here only.
        serial: unsafe { Uart::start(0x4000_4000, 25_000_000) },
        // SAFETY: this is where QEMU's loader puts the slots, beside the linker's memory.
        slots: unsafe { FileSlots::new([0x2100_0000 as *mut u8, 0x2140_0000 as *mut u8], 2560 << 10) },
        answering: answering.as_mut_slice(),
        learning: &mut [],
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
