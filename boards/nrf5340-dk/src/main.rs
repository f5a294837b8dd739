//! nRF5340 DK: a Cortex-M33 at 64 MHz, 512 KiB of RAM, and 8 MiB of serial flash, four bits wide.
//!
//! The serial line is the debugger's last, 1,000,000 bits a second. The firmware is in the chip's own flash; the
//! serial flash, which is read where it lies:
//!
//! | from | bytes | |
//! |---|---|---|
//! | 0 | 3.5 MiB | slot 0; `electret board update` puts a model there |
//! | 3.5 MiB | 3.5 MiB | slot 1 |
//! | 7 MiB | 1 MiB | what was learned |

#![no_std]
#![no_main]

mod flash;

use electret::Arena;
use electret_board::flash::Map;
use electret_board::hardware::{Hardware, PATIENCE, run};
use embassy_nrf::peripherals::{QSPI, SERIAL0, WDT0};
use embassy_nrf::wdt::{SleepConfig, Watchdog, WatchdogHandle};
use embassy_nrf::{bind_interrupts, buffered_uarte, qspi, uarte, wdt};
use static_cell::ConstStaticCell;

const KIB: u32 = 1 << 10;
// SAFETY: the controller maps the flash there.
const MAP: Map = unsafe {
    Map::new(0x1000_0000, flash::BYTES as usize, [0, 3584 * KIB], 3584 * KIB, 7168 * KIB..8192 * KIB)
};

bind_interrupts!(struct Interrupts {
    SERIAL0 => buffered_uarte::InterruptHandler<SERIAL0>;
    QSPI => qspi::InterruptHandler<QSPI>;
});

#[cortex_m_rt::entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 128 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 256 << 10 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 48 << 10 }>> = ConstStaticCell::new(Arena::new());
    static RECEIVED: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

    let chip = embassy_nrf::init(Default::default());
    let mut watchdog = wdt::Config::default();
    watchdog.timeout_ticks = PATIENCE * 32_768;
    // While the processor sleeps, SysTick does too, and nobody would feed it.
    watchdog.action_during_sleep = SleepConfig::Pause;
    // A watchdog of an earlier start that is set otherwise goes on; it is fed all the same.
    let _: Result<(_, [_; 1]), _> = Watchdog::try_new(chip.WDT0, watchdog);
    let mut line = uarte::Config::default();
    line.baudrate = uarte::Baudrate::Baud1m;
    let serial = buffered_uarte::BufferedUarte::new(
        chip.SERIAL0,
        chip.TIMER0,
        chip.PPI_CH0,
        chip.PPI_CH1,
        chip.PPI_GROUP0,
        chip.P0_22,
        chip.P0_20,
        Interrupts,
        line,
        RECEIVED.take(),
        SENT.take(),
    );
    let pins = (chip.P0_17, chip.P0_18, chip.P0_13, chip.P0_14, chip.P0_15, chip.P0_16);
    let (clock, select, io0, io1, io2, io3) = pins;
    flash::start_clock();
    let controller =
        qspi::Qspi::new(chip.QSPI, Interrupts, clock, select, io0, io1, io2, io3, flash::config());
    run(Hardware {
        name: env!("CARGO_PKG_NAME"),
        hz: 64_000_000,
        serial,
        chip: flash::Flash::new(controller),
        map: MAP,
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        feed,
    })
}

fn feed() {
    // SAFETY: the first of one handle of a watchdog that was started.
    unsafe { WatchdogHandle::steal::<WDT0>(0) }.pet();
}
