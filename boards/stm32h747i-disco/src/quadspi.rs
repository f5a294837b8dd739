//! The controller of the serial flash, and the caches and the guard before its memory.
//!
//! A Cortex-M7 reads ahead where it pleases. While the controller sends commands such a read would never end, so
//! that the memory protection unit forbids the whole window then, and what lies behind the flash always.

use cortex_m::Peripherals;
use cortex_m::asm::{dsb, isb};
use electret_board::hardware::{empty_data_cache, switch_caches_on};
use electret_board::nor::{Bus, RESET};
use embassy_stm32::mode::Blocking;
use embassy_stm32::pac;
use embassy_stm32::peripherals::QUADSPI;
use embassy_stm32::qspi::enums::{
    AddressSize, ChipSelectHighTime, DummyCycles, FIFOThresholdLevel, MemorySize, QspiWidth, SampleShifting,
};
use embassy_stm32::qspi::{Config, Qspi, TransferConfig};

/// Where the flash is read.
pub const MAPPED: u32 = 0x9000_0000;

/// Four bits at a time, addresses of four bytes, eight cycles until the first data.
const READ_QUAD: u8 = 0x6c;

/// 100 MHz, sampled half a cycle late.
pub fn config() -> Config {
    let mut config = Config::default();
    config.memory_size = MemorySize::_64MiB;
    config.address_size = AddressSize::_32bit;
    config.prescaler = 1;
    config.fifo_threshold = FIFOThresholdLevel::_1Bytes;
    config.cs_high_time = ChipSelectHighTime::_5Cycle;
    config.sample_shifting = SampleShifting::HalfCycle;
    config
}

/// The controller in charge of the flash.
pub struct Quadspi(Qspi<'static, QUADSPI, Blocking>);

impl Quadspi {
    /// Switches the caches and the guard on, so that the window is closed, and resets the flash.
    pub fn new(controller: Qspi<'static, QUADSPI, Blocking>) -> Self {
        guard(false);
        switch_caches_on();
        let mut bus = Self(controller);
        RESET.into_iter().for_each(|instruction| bus.send(instruction, None, &[]));
        // A reset that came in the midst of an erase takes so long. (MT25QL512: 30 ms at most; here 40.)
        cortex_m::asm::delay(16_000_000);
        bus
    }
}

impl Bus for Quadspi {
    fn unmap(&mut self) {
        guard(false);
        pac::QUADSPI.cr().modify(|control| control.set_abort(true));
        while pac::QUADSPI.cr().read().abort() {}
    }

    fn map(&mut self) {
        // What the controller is told while it ends a command is lost.
        while pac::QUADSPI.sr().read().busy() {}
        self.0.enable_memory_map(&TransferConfig {
            iwidth: QspiWidth::SING,
            awidth: QspiWidth::SING,
            dwidth: QspiWidth::QUAD,
            instruction: READ_QUAD,
            address: None,
            dummy: DummyCycles::_8,
        });
        empty_data_cache();
        guard(true);
    }

    fn send(&mut self, instruction: u8, address: Option<u32>, data: &[u8]) {
        let transfer = TransferConfig {
            iwidth: QspiWidth::SING,
            awidth: address.map_or(QspiWidth::NONE, |_| QspiWidth::SING),
            dwidth: if data.is_empty() { QspiWidth::NONE } else { QspiWidth::SING },
            instruction,
            address,
            dummy: DummyCycles::_0,
        };
        match data {
            [] => self.0.blocking_command(transfer),
            data => self.0.blocking_write(data, transfer),
        }
    }

    fn ask(&mut self, instruction: u8) -> u8 {
        let mut answer = [0];
        let transfer = TransferConfig {
            iwidth: QspiWidth::SING,
            dwidth: QspiWidth::SING,
            instruction,
            ..TransferConfig::default()
        };
        self.0.blocking_read(&mut answer, transfer);
        answer[0]
    }
}

/// Closes the window of 256 MiB, or opens its first 64 to be read and cached. (ARMv7-M, B3.5.)
fn guard(open: bool) {
    const ENABLE: u32 = 1;
    const NEVER_CODE: u32 = 1 << 28;
    const READ_ONLY: u32 = 0b110 << 24;
    const WRITE_THROUGH: u32 = 0b000_010 << 16;
    const fn bytes(log: u32) -> u32 {
        (log - 1) << 1
    }
    const VALID: u32 = 1 << 4;
    let window = ENABLE | NEVER_CODE | bytes(28);
    let flash = NEVER_CODE | READ_ONLY | WRITE_THROUGH | bytes(26) | u32::from(open);
    dsb();
    // SAFETY: nothing else uses the unit. The two regions cover the window of the flash, which nobody reads at the
    // moment, and nothing else; everywhere else the default map stays in force.
    unsafe {
        let core = Peripherals::steal();
        core.MPU.ctrl.write(0);
        for (region, attributes) in [(0, window), (1, flash)] {
            core.MPU.rbar.write(MAPPED | VALID | region);
            core.MPU.rasr.write(attributes);
        }
        core.MPU.ctrl.write(0b101);
    }
    dsb();
    isb();
}
