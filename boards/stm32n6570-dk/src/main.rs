//! STM32N6570-DK: a Cortex-M55 with Helium at 600 MHz, 4 MiB of SRAM, and 128 MiB of serial flash, eight bits wide.
//!
//! The serial line is the debugger's, 921,600 bits a second. The serial flash, which is read where it lies:
//!
//! | from | bytes | |
//! |---|---|---|
//! | 0 | 1 MiB | this firmware, signed by ST's tool for the boot ROM |
//! | 1 MiB | 24 MiB | slot 0; `electret board update` puts a model there |
//! | 25 MiB | 24 MiB | slot 1 |
//! | 49 MiB | 1 MiB | what was learned |
//!
//! With the switch BOOT1 at 1 the chip waits for a debugger: `cargo run --release` here loads the firmware into RAM and starts it. To
//! keep it, `llvm-objcopy -O binary` of the ELF, `STM32_SigningTool_CLI -bin IN -nk -of 0x80000000 -t fsbl -hv 2.3 -align -o OUT`,
//! `probe-rs download --chip STM32N657 --binary-format bin --base-address 0x70000000 OUT`, and both switches at 0.

#![no_std]
#![no_main]

mod octospi;

use electret::Arena;
use electret_board::flash::Map;
use electret_board::hardware::{Hardware, PATIENCE, run};
use electret_board::nor::SerialNor;
use embassy_stm32::bind_interrupts;
use embassy_stm32::pac::iwdg::vals::Key;
use embassy_stm32::pac::rcc::vals::{Cpusw, Cpusws, Syssw, Syssws};
use embassy_stm32::pac::{IWDG, RCC};
use embassy_stm32::peripherals::USART1;
use embassy_stm32::rcc::{
    CpuClk, IcConfig, Icint, Icsel, Pll, Plldivm, Pllpdiv, Pllsel, SupplyConfig, SysClk, XspiClkSrc,
};
use embassy_stm32::usart::{self, BufferedInterruptHandler, BufferedUart};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::xspi::Xspi;
use static_cell::ConstStaticCell;

use octospi::Octospi;

const MIB: u32 = 1 << 20;
// SAFETY: the controller maps the flash there.
const MAP: Map =
    unsafe { Map::new(octospi::MAPPED as usize, 128 << 20, [MIB, 25 * MIB], 24 * MIB, 49 * MIB..50 * MIB) };

bind_interrupts!(struct Interrupts {
    USART1 => BufferedInterruptHandler<USART1>;
});

// Switches the bank on that the variables lie in, before they are initialised: AXISRAM1EN in RCC_MEMENR.
core::arch::global_asm!(
    ".thumb_func",
    ".global __pre_init",
    "__pre_init:",
    "ldr r0, ={memenr}",
    "ldr r1, [r0]",
    "orr r1, r1, #0x80",
    "str r1, [r0]",
    "ldr r1, [r0]",
    "bx lr",
    memenr = const 0x4602_824c_u32,
);

#[cortex_m_rt::entry]
fn main() -> ! {
    static ANSWERING: ConstStaticCell<Arena<{ 384 << 10 }>> = ConstStaticCell::new(Arena::new());
    static LEARNING: ConstStaticCell<Arena<{ 512 << 10 }>> = ConstStaticCell::new(Arena::new());
    static ADAPTER: ConstStaticCell<Arena<{ 128 << 10 }>> = ConstStaticCell::new(Arena::new());
    static RECEIVED: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static SENT: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);

    octospi::take_from_boot_rom();
    take_clocks_from_boot_rom();
    let chip = embassy_stm32::init(clocks());
    IndependentWatchdog::new(chip.IWDG, PATIENCE * 1_000_000).unleash();
    let controller = Xspi::new_blocking_xspi(
        chip.XSPI2,
        chip.PN6,
        chip.PN2,
        chip.PN3,
        chip.PN4,
        chip.PN5,
        chip.PN8,
        chip.PN9,
        chip.PN10,
        chip.PN11,
        chip.PN1,
        octospi::config(),
    );
    let (sent, received) = (SENT.take(), RECEIVED.take());
    let mut line = usart::Config::default();
    line.baudrate = 921_600;
    let serial = BufferedUart::new(chip.USART1, chip.PE6, chip.PE5, sent, received, Interrupts, line);
    let Ok(serial) = serial else { cortex_m::peripheral::SCB::sys_reset() };
    run(Hardware {
        name: env!("CARGO_PKG_NAME"),
        hz: 600_000_000,
        serial,
        chip: SerialNor::new(Octospi::new(controller)),
        map: MAP,
        answering: ANSWERING.take().as_mut_slice(),
        learning: LEARNING.take().as_mut_slice(),
        adapter: ADAPTER.take().as_mut_slice(),
        feed: || IWDG.kr().write(|key| key.set_key(Key::RESET)),
    })
}

/// Started from flash, the boot ROM leaves the core on the first PLL, which is set up only while nothing runs by it: back to
/// the oscillator within. The serial flash has the clock of the peripherals, which nobody else switches on.
fn take_clocks_from_boot_rom() {
    RCC.cfgr().modify(|clocks| {
        clocks.set_cpusw(Cpusw::HSI);
        clocks.set_syssw(Syssw::HSI);
    });
    while RCC.cfgr().read().cpusws() != Cpusws::HSI || RCC.cfgr().read().syssws() != Syssws::HSI {}
    RCC.ccr().write(|off| off.set_pllonc(0, true));
    while RCC.sr().read().pllrdy(0) {}
    RCC.miscensr().write(|on| on.set_perens(true));
}

/// 600 MHz from the oscillator within, which the boot ROM uses too, 400 MHz for the SRAM, and 64 MHz for the flash,
/// whose pins have 1.8 V. The board feeds the core by a converter outside the chip; another choice here would wait for ever.
fn clocks() -> embassy_stm32::Config {
    let divided =
        |divider: u8| Some(IcConfig { source: Icsel::PLL1, divider: Icint::from_bits(divider - 1) });
    let mut config = embassy_stm32::Config::default();
    config.rcc.supply_config = SupplyConfig::External;
    config.rcc.vddio3_1v8 = true;
    config.rcc.pll1 = Some(Pll::Oscillator {
        source: Pllsel::HSI,
        divm: Plldivm::DIV4,
        fractional: 0,
        divn: 75,
        divp1: Pllpdiv::DIV1,
        divp2: Pllpdiv::DIV1,
    });
    config.rcc.ic1 = divided(2);
    config.rcc.ic2 = divided(3);
    config.rcc.ic6 = divided(3);
    config.rcc.ic11 = divided(3);
    config.rcc.cpu = CpuClk::Ic1;
    config.rcc.sys = SysClk::Ic2;
    config.rcc.mux.xspi2sel = XspiClkSrc::PER;
    config
}
