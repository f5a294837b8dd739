//! Raspberry Pi Pico 2 and boards like it: RP2350 with 16 MiB of flash, a Cortex-M33 at 150 MHz, 520 KiB of RAM.
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

use core::cell::RefCell;

use electret::tune::store::FlashStore;
use electret::{Arena, Error};
use electret_board::{Board, KEY, Slots, stack_depth};
use embassy_rp::bind_interrupts;
use embassy_rp::flash::{self, Blocking, Flash};
use embassy_rp::peripherals::{FLASH, UART0};
use embassy_rp::uart::{BufferedInterruptHandler, BufferedUart, Config};
use embassy_time::Instant;
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use static_cell::{ConstStaticCell, StaticCell};

/// Where the flash is read.
const MAPPED: usize = 0x1000_0000;
const FLASH_BYTES: usize = 16 << 20;
const SLOTS: [u32; 2] = [1 << 20, 8 << 20];
const SLOT_BYTES: u32 = 7 << 20;
const STORE: u32 = 15 << 20;

bind_interrupts!(struct Interrupts {
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

type Chip = Flash<'static, FLASH, Blocking, FLASH_BYTES>;

/// The one flash, of which store and slots have a part each.
#[derive(Clone, Copy)]
struct Shared(&'static RefCell<Chip>);

impl ErrorType for Shared {
    type Error = flash::Error;
}

impl ReadNorFlash for Shared {
    const READ_SIZE: usize = Chip::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), flash::Error> {
        self.0.borrow_mut().blocking_read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        FLASH_BYTES
    }
}

impl NorFlash for Shared {
    // What the chip programs at once is 256 bytes; the store may write less of a page at a time.
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = flash::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), flash::Error> {
        self.0.borrow_mut().blocking_erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), flash::Error> {
        self.0.borrow_mut().blocking_write(offset, bytes)
    }
}

impl Slots for Shared {
    fn read(&self, slot: u8) -> &'static [u8] {
        let Some(&start) = SLOTS.get(usize::from(slot)) else { return &[] };
        // SAFETY: the flash is mapped there, and nobody writes to the slot that runs.
        unsafe { core::slice::from_raw_parts((MAPPED + start as usize) as *const u8, SLOT_BYTES as usize) }
    }

    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error> {
        let start = SLOTS.get(usize::from(slot)).ok_or(Error::StoreFailed)? + offset;
        let (end, sector) = (start + data.len() as u32, Self::ERASE_SIZE as u32);
        let begins = start.next_multiple_of(sector)..end.next_multiple_of(sector);
        let mut chip = self.0.borrow_mut();
        if !begins.is_empty() {
            chip.blocking_erase(begins.start, begins.end).map_err(|_| Error::StoreFailed)?;
        }
        chip.blocking_write(start, data).map_err(|_| Error::StoreFailed)
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 128 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 256 << 10 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 48 << 10 }>> = ConstStaticCell::new(Arena::new());
    static RECEIVED: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
    static CHIP: StaticCell<RefCell<Chip>> = StaticCell::new();

    let chip = embassy_rp::init(Default::default());
    let (sent, received) = (SENT.take(), RECEIVED.take());
    let config = Config::default();
    let serial = BufferedUart::new(chip.UART0, chip.PIN_0, chip.PIN_1, Interrupts, sent, received, config);
    let flash = Shared(CHIP.init(RefCell::new(Flash::new_blocking(chip.FLASH))));
    let Ok(store) = FlashStore::open(flash, STORE..FLASH_BYTES as u32) else { reset() };
    let mut board = Board {
        name: env!("CARGO_PKG_NAME"),
        serial,
        store,
        slots: flash,
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        key: KEY,
        clock: || Instant::now().as_micros(),
        pulse: || (),
        stack: stack_depth,
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
