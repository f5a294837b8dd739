//! The controller of the serial flash (MX66UW1G45G), and the caches before its memory.
//!
//! The flash starts with one bit at a time and is then told to take eight: an instruction is the byte that every
//! flash knows, followed by its complement, and everything has an address.

use cortex_m::Peripherals;
use cortex_m::asm::{delay, dsb, isb};
use electret_board::hardware::{empty_data_cache, switch_caches_on};
use electret_board::nor::{Bus, RESET, WRITE_ENABLE};
use embassy_stm32::mode::Blocking;
use embassy_stm32::pac::{RCC, XSPI1, XSPIM};
use embassy_stm32::peripherals::XSPI2;
use embassy_stm32::xspi::{
    AddressSize, ChipSelectHighTime, Config, DummyCycles, FIFOThresholdLevel, MemorySize, MemoryType,
    TransferConfig, Xspi, XspiWidth,
};

/// Where the flash is read.
pub const MAPPED: u32 = 0x7000_0000;
const BYTES: u32 = 128 << 20;

/// Eight bits at a time; 20 cycles until the first data, as the flash is shipped.
const READ: u8 = 0xec;
/// Writes the register that says how wide the flash listens, and the value for eight bits, once a cycle.
const WRITE_CONFIGURATION: u8 = 0x72;
const EIGHT_BITS: u8 = 1;

/// The boot ROM reads the flash by the other controller; here each has its own port again.
pub fn take_from_boot_rom() {
    RCC.ahb5enr().modify(|buses| {
        buses.set_xspi1en(true);
        buses.set_xspimen(true);
    });
    XSPI1.cr().modify(|control| control.set_abort(true));
    while XSPI1.sr().read().busy() {}
    XSPI1.cr().modify(|control| control.set_en(false));
    XSPIM.cr().modify(|control| control.set_mode(false));
}

/// 64 MHz, sampled half a cycle late.
pub fn config() -> Config {
    Config {
        fifo_threshold: FIFOThresholdLevel::_1Bytes,
        memory_type: MemoryType::Macronix,
        delay_hold_quarter_cycle: true,
        device_size: MemorySize::_128MiB,
        chip_select_high_time: ChipSelectHighTime::_5Cycle,
        clock_prescaler: 0,
        sample_shifting: true,
        ..Config::default()
    }
}

/// The controller in charge of the flash.
pub struct Octospi(Xspi<'static, XSPI2, Blocking>);

impl Octospi {
    /// Switches the caches on, resets the flash and tells it to take eight bits.
    pub fn new(controller: Xspi<'static, XSPI2, Blocking>) -> Self {
        guard(false);
        switch_caches_on();
        let mut bus = Self(controller);
        // In the width that a warm start may have left it with, and in the one that it starts with.
        RESET.into_iter().for_each(|instruction| bus.send(instruction, None, &[]));
        RESET.into_iter().for_each(|instruction| bus.send_single(instruction, None, &[]));
        // A reset that came in the midst of an erase takes 100 ms at most; here 130.
        delay(78_000_000);
        bus.send_single(WRITE_ENABLE, None, &[]);
        bus.send_single(WRITE_CONFIGURATION, Some(0), &[EIGHT_BITS]);
        bus
    }

    fn send_single(&mut self, instruction: u8, address: Option<u32>, data: &[u8]) {
        self.transfer(data, single(instruction, address, !data.is_empty()));
    }

    /// An error would mean a transfer of a form that the controller does not know; these have been told apart above.
    fn transfer(&mut self, data: &[u8], form: TransferConfig) {
        let _ = match data {
            [] => self.0.blocking_command(&form),
            data => self.0.blocking_write(data, form),
        };
    }
}

impl Bus for Octospi {
    fn unmap(&mut self) {
        guard(false);
        self.0.disable_memory_mapped_mode();
    }

    fn map(&mut self) {
        let read = TransferConfig { dummy: DummyCycles::_20, address: None, ..octal(READ, Some(0), true) };
        // Nobody writes to the window, whose guard forbids it.
        let _ = self.0.enable_memory_mapped_mode(read, read);
        empty_data_cache();
        guard(true);
    }

    fn send(&mut self, instruction: u8, address: Option<u32>, data: &[u8]) {
        self.transfer(data, octal(instruction, address, !data.is_empty()));
    }

    fn ask(&mut self, instruction: u8) -> u8 {
        let mut answer = [0];
        let form = TransferConfig { dummy: DummyCycles::_4, ..octal(instruction, Some(0), true) };
        let _ = self.0.blocking_read(&mut answer, form);
        answer[0]
    }
}

/// A bit at a time.
fn single(instruction: u8, address: Option<u32>, data: bool) -> TransferConfig {
    let wide = |there| if there { XspiWidth::SING } else { XspiWidth::NONE };
    TransferConfig {
        iwidth: XspiWidth::SING,
        instruction: Some(instruction.into()),
        adwidth: wide(address.is_some()),
        address,
        adsize: AddressSize::_32bit,
        dwidth: wide(data),
        ..TransferConfig::default()
    }
}

/// Eight bits at a time.
fn octal(instruction: u8, address: Option<u32>, data: bool) -> TransferConfig {
    let wide = |there| if there { XspiWidth::OCTO } else { XspiWidth::NONE };
    TransferConfig {
        iwidth: XspiWidth::OCTO,
        instruction: Some(u32::from(u16::from_be_bytes([instruction, !instruction]))),
        isize: AddressSize::_16bit,
        adwidth: wide(address.is_some()),
        address,
        adsize: AddressSize::_32bit,
        dwidth: wide(data),
        ..TransferConfig::default()
    }
}

/// Lets the window of the flash be read and cached, or makes it a device, which no processor reads ahead of being
/// asked; while the controller sends commands such a read would never end. (Armv8-M, B11.)
fn guard(open: bool) {
    const READ_ONLY: u32 = 0b10 << 1;
    const NEVER_CODE: u32 = 1;
    const ENABLE: u32 = 1;
    const WRITE_THROUGH: u32 = 0xaa;
    const DEVICE: u32 = 0;
    const LAST: u32 = (MAPPED + BYTES - 1) & !31;
    dsb();
    // SAFETY: nothing else uses the unit. The region is the flash's window, which nobody reads at the moment;
    // everywhere else the default map stays in force.
    unsafe {
        let core = Peripherals::steal();
        core.MPU.ctrl.write(0);
        core.MPU.mair[0].write(if open { WRITE_THROUGH } else { DEVICE });
        core.MPU.rnr.write(0);
        core.MPU.rbar.write(MAPPED | READ_ONLY | NEVER_CODE);
        core.MPU.rlar.write(LAST | ENABLE);
        core.MPU.ctrl.write(0b101);
    }
    dsb();
    isb();
}
