//! What boards on a desk share: a NOR flash outside the chip that is read as memory, a line that is waited for asleep,
//! a watchdog.
//!
//! A board says how its chip erases and programs ([`Chip`]) and where things lie in it ([`Map`]); [`run`] does the rest.

mod flash;
mod line;
mod nor;

pub use flash::{Chip, Map, SECTOR};
pub use nor::{Bus, RESET, SerialNor, WRITE_ENABLE};

use core::cell::RefCell;

use electret::tune::store::FlashStore;
use embedded_io::{Read, ReadReady, Write};

use crate::{Board, KEY, painted_stack, ticks};
use flash::MappedFlash;
use line::Patient;

/// Seconds without a sign of life after which a watchdog should bite: erasing a sector, or checking the signature of a
/// model of several MiB, takes a few.
pub const PATIENCE: u32 = 15;

/// What differs between boards; see [`Board`].
pub struct Hardware<S, C> {
    /// What it is called.
    pub name: &'static str,
    /// Interrupts per second of the processor's clock, for [`ticks`].
    pub hz: u32,
    /// A serial line with a buffer that interrupts fill.
    pub serial: S,
    /// The flash.
    pub chip: C,
    /// Where things lie in it.
    pub map: Map,
    /// Memory to answer in.
    pub answering: &'static mut [u8],
    /// Memory to learn in.
    pub learning: &'static mut [u8],
    /// Memory for the adapter that answers.
    pub adapter: &'static mut [u8],
    /// Feeds the watchdog, which bites after [`PATIENCE`].
    pub feed: fn(),
}

/// Serves for ever.
pub fn run<S: Read + ReadReady + Write, C: Chip>(hardware: Hardware<S, C>) -> ! {
    let Hardware { name, hz, serial, chip, map, answering, learning, adapter, feed } = hardware;
    // SAFETY: SysTick is nobody else's.
    ticks::start(&mut unsafe { cortex_m::Peripherals::steal() }.SYST, hz);
    let chip = RefCell::new(chip);
    let flash = || MappedFlash { chip: &chip, map: &map };
    let Ok(store) = FlashStore::open(flash(), map.store.clone()) else { reset() };
    let mut board = Board {
        name,
        serial: Patient { serial, feed },
        store,
        slots: flash(),
        answering,
        learning,
        adapter,
        key: KEY,
        clock: ticks::micros,
        pulse: feed,
        stack: painted_stack,
    };
    loop {
        // Another model was installed, or noise on the line made the UART complain: on it goes.
        let _ = board.serve();
    }
}

fn reset() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    reset()
}
