//! RP2350 with 16 MiB of flash, as Pimoroni's Pico Plus 2 (Raspberry Pi's own Pico 2 has 4): a Cortex-M33 at 150 MHz, 520 KiB
//! of RAM.
//!
//! The serial line is UART0 on GPIO 0 and 1, 115,200 bits a second. The flash, which is read where it lies:
//!
//! | from | bytes | |
//! |---|---|---|
//! | 0 | 1 MiB | this firmware |
//! | 1 MiB | 7 MiB | slot 0; `electret board flash` puts a model there |
//! | 8 MiB | 7 MiB | slot 1 |
//! | 15 MiB | 1 MiB | what was learned |

#![no_std]
#![no_main]

use electret::Arena;
use electret_board::flash::{Chip, Map, SECTOR};
use electret_board::hardware::{Hardware, PATIENCE, run};
use embassy_rp::bind_interrupts;
use embassy_rp::flash::{Blocking, Flash};
use embassy_rp::peripherals::{FLASH, UART0, WATCHDOG};
use embassy_rp::uart::{BufferedInterruptHandler, BufferedUart, Config};
use embassy_rp::watchdog::Watchdog;
use embassy_time::Duration;
use static_cell::ConstStaticCell;

const MIB: u32 = 1 << 20;
const FLASH_BYTES: usize = 16 << 20;
// SAFETY: the flash is read there, this firmware too.
const MAP: Map = unsafe { Map::new(0x1000_0000, FLASH_BYTES, [MIB, 8 * MIB], 7 * MIB, 15 * MIB..16 * MIB) };

bind_interrupts!(struct Interrupts {
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

/// The flash that this firmware runs from: the HAL does what must be done from RAM meanwhile.
struct Qspi(Flash<'static, FLASH, Blocking, FLASH_BYTES>);

impl Chip for Qspi {
    fn erase(&mut self, sector: u32) -> Result<(), ()> {
        self.0.blocking_erase(sector, sector + SECTOR as u32).map_err(|_| ())
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
        self.0.blocking_write(offset, bytes).map_err(|_| ())
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 128 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 256 << 10 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 48 << 10 }>> = ConstStaticCell::new(Arena::new());
    static RECEIVED: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

    let chip = embassy_rp::init(Default::default());
    Watchdog::new(chip.WATCHDOG).start(TIMEOUT);
    let (sent, received) = (SENT.take(), RECEIVED.take());
    let mut serial =
        BufferedUart::new(chip.UART0, chip.PIN_0, chip.PIN_1, Interrupts, sent, received, Config::default());
    if is_too_small() {
        // What was meant for a slot would be written over the firmware.
        let _ = serial.blocking_write(b"this flash has less than 16 MiB\r\n");
        let _ = serial.blocking_flush();
        panic!();
    }
    run(Hardware {
        name: env!("CARGO_PKG_NAME"),
        hz: 150_000_000,
        serial,
        chip: Qspi(Flash::new_blocking(chip.FLASH)),
        map: MAP,
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        feed,
    })
}

/// Whether the flash ends before the map does: a smaller one takes no notice of the upper bits of an address, and its
/// first bytes come again.
fn is_too_small() -> bool {
    // SAFETY: it is read there, whatever its size.
    let page = |offset| unsafe { core::slice::from_raw_parts((0x1000_0000 + offset) as *const u8, 256) };
    [4 << 20, 8 << 20].into_iter().any(|offset| page(offset) == page(0))
}

const TIMEOUT: Duration = Duration::from_secs(PATIENCE as u64);

fn feed() {
    // SAFETY: whoever started the watchdog has let go of it.
    Watchdog::new(unsafe { WATCHDOG::steal() }).feed(TIMEOUT);
}
