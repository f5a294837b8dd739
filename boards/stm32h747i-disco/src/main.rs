//! STM32H747I-DISCO: a Cortex-M7 at 400 MHz, 512 KiB of AXI SRAM, and 64 MiB of serial flash, four bits wide.
//!
//! The serial line is the debugger's, 921,600 bits a second. The firmware is in the chip's own flash; the serial
//! flash, which is read where it lies:
//!
//! | from | bytes | |
//! |---|---|---|
//! | 0 | 24 MiB | slot 0; `electret board update` puts a model there |
//! | 24 MiB | 24 MiB | slot 1 |
//! | 48 MiB | 1 MiB | what was learned |
//!
//! The chip's other core shares everything with this one and must not start with what it was delivered with:
//! `STM32_Programmer_CLI -c port=SWD -ob BCM4=0`, once.

#![no_std]
#![no_main]

mod quadspi;

use core::mem::MaybeUninit;

use electret::Arena;
use electret_board::flash::Map;
use electret_board::hardware::{Hardware, PATIENCE, run};
use electret_board::nor::SerialNor;
use embassy_stm32::gpio::{Level, Output, Speed};
use embassy_stm32::pac::IWDG1;
use embassy_stm32::pac::iwdg::vals::Key;
use embassy_stm32::peripherals::USART1;
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, HSIPrescaler, Pll, PllDiv, PllMul, PllPreDiv, PllSource, SupplyConfig,
    Sysclk, VoltageScale,
};
use embassy_stm32::usart::{self, BufferedInterruptHandler, BufferedUart};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{SharedData, bind_interrupts};
use static_cell::ConstStaticCell;

use quadspi::Quadspi;

const MIB: u32 = 1 << 20;
// SAFETY: the controller maps the flash there.
const MAP: Map =
    unsafe { Map::new(quadspi::MAPPED as usize, 64 << 20, [0, 24 * MIB], 24 * MIB, 48 * MIB..49 * MIB) };

bind_interrupts!(struct Interrupts {
    USART1 => BufferedInterruptHandler<USART1>;
});

#[cortex_m_rt::entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 128 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 288 << 10 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 64 << 10 }>> = ConstStaticCell::new(Arena::new());
    static RECEIVED: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
    static CORES: MaybeUninit<SharedData> = MaybeUninit::uninit();

    let chip = embassy_stm32::init_primary(clocks(), &CORES);
    IndependentWatchdog::new(chip.IWDG1, PATIENCE * 1_000_000).unleash();
    // The flash's second die hangs on the same clock and the same select: with ones on its lines it hears no command.
    let second = [
        Output::new(chip.PH2, Level::High, Speed::Low),
        Output::new(chip.PH3, Level::High, Speed::Low),
        Output::new(chip.PG9, Level::High, Speed::Low),
        Output::new(chip.PG14, Level::High, Speed::Low),
    ];
    core::mem::forget(second);
    let controller = embassy_stm32::qspi::Qspi::new_blocking_bank1(
        chip.QUADSPI,
        chip.PD11,
        chip.PF9,
        chip.PF7,
        chip.PF6,
        chip.PF10,
        chip.PG6,
        quadspi::config(),
    );
    let (sent, received) = (SENT.take(), RECEIVED.take());
    let mut line = usart::Config::default();
    line.baudrate = 921_600;
    let serial = BufferedUart::new(chip.USART1, chip.PA10, chip.PA9, sent, received, Interrupts, line);
    let Ok(serial) = serial else { cortex_m::peripheral::SCB::sys_reset() };
    run(Hardware {
        name: env!("CARGO_PKG_NAME"),
        hz: 400_000_000,
        serial,
        chip: SerialNor::new(Quadspi::new(controller)),
        map: MAP,
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        feed: || IWDG1.kr().write(|key| key.set_key(Key::RESET)),
    })
}

/// 400 MHz from the oscillator within, 200 MHz for the buses; the board feeds the core by the chip's step-down
/// converter and nothing else, and another choice here would leave it without power.
fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.supply_config = SupplyConfig::DirectSMPS;
    config.rcc.voltage_scale = VoltageScale::Scale1;
    config.rcc.hsi = Some(HSIPrescaler::DIV1);
    config.rcc.pll1 = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL50,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.ahb_pre = AHBPrescaler::DIV2;
    config.rcc.apb1_pre = APBPrescaler::DIV2;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.apb3_pre = APBPrescaler::DIV2;
    config.rcc.apb4_pre = APBPrescaler::DIV2;
    config
}
