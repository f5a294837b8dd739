//! The serial flash (MX25R6435F), its controller and the cache before its memory.

use electret_board::hardware::Chip;
use embassy_nrf::pac::clock::vals::{Hclk, Hclk192m};
use embassy_nrf::pac::{CACHE, CLOCK, QSPI};
use embassy_nrf::qspi::{Config, Frequency, Qspi};

/// Bytes of the flash.
pub const BYTES: u32 = 8 << 20;

const READ_STATUS: u8 = 0x05;
const READ_CONFIGURATION: u8 = 0x15;
/// Writes the status and the two bytes of the configuration.
const WRITE_STATUS: u8 = 0x01;
/// In the status: four bits may be used.
const QUAD: u8 = 0x40;
/// In the second byte of the configuration: fast, and not sparing.
const FAST: u8 = 0x02;

/// 128 MHz for the processor, and the controller's clock undivided, as nothing else works with that. (Anomaly 159.)
pub fn start_clocks() {
    CLOCK.hfclkctrl().write(|control| control.set_hclk(Hclk::Div1));
    CLOCK.hfclk192mctrl().write(|control| control.set_hclk192m(Hclk192m::Div1));
    CLOCK.events_hfclk192mstarted().write_value(0);
    CLOCK.tasks_hfclk192mstart().write_value(1);
    while CLOCK.events_hfclk192mstarted().read() == 0 {}
}

/// 32 MHz: a third of the clock, which this driver of an older chip calls so.
pub fn config() -> Config {
    let mut config = Config::default();
    config.capacity = BYTES;
    config.frequency = Frequency::M10_7;
    config
}

/// The controller in charge of the flash.
pub struct Flash(Qspi<'static>);

impl Flash {
    /// Lets the flash take four bits, fast, and switches the cache on.
    pub fn new(mut controller: Qspi<'static>) -> Self {
        let (mut status, mut configuration) = ([0], [0; 2]);
        // Custom instructions of these lengths are not refused.
        let _ = controller.blocking_custom_instruction(READ_STATUS, &[], &mut status);
        let _ = controller.blocking_custom_instruction(READ_CONFIGURATION, &[], &mut configuration);
        let wanted = [status[0] | QUAD, configuration[0], configuration[1] | FAST];
        if wanted != [status[0], configuration[0], configuration[1]] {
            let _ = controller.blocking_custom_instruction(WRITE_STATUS, &wanted, &mut []);
            while status[0] & 1 != 0 || status[0] & QUAD == 0 {
                let _ = controller.blocking_custom_instruction(READ_STATUS, &[], &mut status);
            }
        }
        CACHE.enable().write(|cache| cache.set_enable(true));
        Self(controller)
    }

    /// After what lies in the flash has changed.
    fn forget(&mut self) {
        CACHE.invalidate().write(|cache| cache.set_invalidate(true));
    }
}

/// After memory was read, the controller wants to be asked anew before it is told anything. (Anomaly 43.)
fn activate() {
    QSPI.events_ready().write_value(0);
    QSPI.tasks_activate().write_value(1);
    while QSPI.events_ready().read() == 0 {}
}

impl Chip for Flash {
    fn erase(&mut self, sector: u32) -> Result<(), ()> {
        activate();
        let erased = self.0.blocking_erase(sector).map_err(|_| ());
        self.forget();
        erased
    }

    /// The controller takes words from RAM; the last is filled up with what changes nothing.
    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
        activate();
        let mut written = Ok(());
        for (at, piece) in (offset..).step_by(256).zip(bytes.chunks(256)) {
            let mut words = Words([0xff; 256]);
            words.0[..piece.len()].copy_from_slice(piece);
            let whole = &words.0[..piece.len().next_multiple_of(4)];
            written = written.and_then(|()| self.0.blocking_write(at, whole).map_err(|_| ()));
        }
        self.forget();
        written
    }
}

#[repr(align(4))]
struct Words([u8; 256]);
