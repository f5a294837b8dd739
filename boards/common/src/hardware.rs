//! What boards on a desk share: a flash that is read as memory, a line that is waited for asleep, a watchdog.
//!
//! A board says how its chip erases and programs ([`Chip`]) and where things lie in it ([`Map`]); [`run`] does the rest.

use core::cell::RefCell;

use electret::tune::store::FlashStore;
use embedded_io_async::{Read, Write};
use embedded_storage::nor_flash::NorFlash;

use crate::flash::{Chip, Map, MappedFlash};
use crate::patient::Patient;
use crate::{Board, KEY, painted_stack, ticks};

/// Seconds without a sign of life after which a watchdog should bite. What takes longest is the signature of a model:
/// SHA-512 over some MiB, at a hundred cycles a byte or so.
pub const PATIENCE: u32 = 15;

/// What differs between boards; see [`Board`].
pub struct Hardware<S, C> {
    /// What it is called.
    pub name: &'static str,
    /// Hz of the processor.
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
pub fn run<S: Read + Write, C: Chip>(hardware: Hardware<S, C>) -> ! {
    let Hardware { name, hz, serial, chip, map, answering, learning, adapter, feed } = hardware;
    // SAFETY: SysTick is nobody else's.
    ticks::start(&mut unsafe { cortex_m::Peripherals::steal() }.SYST, hz);
    let chip = RefCell::new(chip);
    let flash = || MappedFlash::new(&chip, &map, feed);
    let range = map.store();
    let open = || FlashStore::open(flash(), range.clone());
    let store = open().or_else(|error| {
        // The flash has never been a store, or is one no longer, and nobody else could make it one.
        let _ = flash().erase(range.start, range.end);
        open().map_err(|_| error)
    });
    let Ok(store) = store else { reset() };
    let mut board = Board {
        name,
        serial: Patient { serial, idle: || rest(feed) },
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
        // Another model was installed.
        let _ = board.serve();
    }
}

/// Switches the caches of instructions and data on, in a processor that has them.
pub fn switch_caches_on() {
    // SAFETY: nothing else uses the caches.
    let mut core = unsafe { cortex_m::Peripherals::steal() };
    core.SCB.enable_icache();
    core.SCB.enable_dcache(&mut core.CPUID);
}

/// Writes what the data cache holds of the RAM there, and forgets all that it holds.
pub fn empty_data_cache() {
    // SAFETY: nothing else uses the caches.
    let mut core = unsafe { cortex_m::Peripherals::steal() };
    core.SCB.clean_invalidate_dcache(&mut core.CPUID);
}

/// Sleeps until an interrupt, or not at all if one has come since the last time. That is the next tick at the latest,
/// where SysTick goes on in sleep.
fn rest(feed: fn()) {
    feed();
    cortex_m::asm::wfe();
}

fn reset() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    reset()
}
