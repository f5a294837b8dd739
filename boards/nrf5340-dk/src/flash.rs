//! The serial flash (MX25R6435F), its controller and the cache before its memory.

use electret_board::flash::Chip;
use electret_board::nor::{BUSY, READ_STATUS};
use embassy_nrf::pac::clock::vals::Hclk192m;
use embassy_nrf::pac::{CACHE, CLOCK, QSPI};
use embassy_nrf::qspi::{Config, Frequency, Qspi};

/// Bytes of the flash.
pub const BYTES: u32 = 8 << 20;

const READ_CONFIGURATION: u8 = 0x15;
/// Writes the status and the two bytes of the configuration.
const WRITE_STATUS: u8 = 0x01;
/// In the status: four bits may be used.
const QUAD: u8 = 0x40;
/// In the second byte of the configuration: fast, and not sparing.
const FAST: u8 = 0x02;

/// The controller's clock, undivided. The processor's stays at half its speed, as after every reset: the two at full
/// speed do not go together. (Anomaly 159.)
pub fn start_clock() {
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
    config.rx_delay = 6;
    config
}

/// The controller in charge of the flash.
pub struct Flash(Qspi<'static>);

impl Flash {
    /// Lets the flash take four bits, fast, and switches the cache on.
    pub fn new(mut controller: Qspi<'static>) -> Self {
        // Two bits of no name, and the delay above: anomaly 121.
        QSPI.ifconfig0().modify(|interface| interface.0 = (interface.0 | 1 << 16) & !(1 << 17));
        activate();
        let (status, mut configuration) = (status(&mut controller), [0; 2]);
        // Custom instructions of these lengths are not refused.
        let _ = controller.blocking_custom_instruction(READ_CONFIGURATION, &[], &mut configuration);
        let wanted = [status | QUAD, configuration[0], configuration[1] | FAST];
        if wanted != [status, configuration[0], configuration[1]] {
            let _ = controller.blocking_custom_instruction(WRITE_STATUS, &wanted, &mut []);
        }
        let mut flash = Self(controller);
        flash.wait();
        CACHE.enable().write(|cache| cache.set_enable(true));
        flash
    }

    /// Until the flash has done what it was told, which the controller does not wait for; what was read of it before is
    /// forgotten.
    fn wait(&mut self) {
        while status(&mut self.0) & BUSY != 0 {}
        CACHE.invalidate().write(|cache| cache.set_invalidate(true));
    }
}

fn status(controller: &mut Qspi<'static>) -> u8 {
    let mut status = [0];
    let _ = controller.blocking_custom_instruction(READ_STATUS, &[], &mut status);
    status[0]
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
        self.wait();
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
        self.wait();
        written
    }
}

#[repr(align(4))]
struct Words([u8; 256]);
