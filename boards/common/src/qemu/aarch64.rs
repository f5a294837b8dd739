//! QEMU's `virt` machine: the PL011 UART, the generic timer.

use core::arch::asm;
use core::convert::Infallible;

use embedded_io::{ErrorType, Read, Write};

/// The UART's registers.
pub struct Pl011(*mut u32);

impl Pl011 {
    /// Flags, counted in words.
    const FLAGS: usize = 6;
    const RECEIVE_EMPTY: u32 = 1 << 4;
    const TRANSMIT_FULL: u32 = 1 << 5;

    /// # Safety
    /// A PL011 is at `base`, switched on, and nobody else uses it.
    pub const unsafe fn new(base: usize) -> Self {
        Self(base as *mut u32)
    }

    fn is(&self, flag: u32) -> bool {
        // SAFETY: `new` was promised that the registers are there.
        unsafe { self.0.add(Self::FLAGS).read_volatile() & flag != 0 }
    }
}

impl ErrorType for Pl011 {
    type Error = Infallible;
}

impl Read for Pl011 {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(place) = buffer.first_mut() else { return Ok(0) };
        while self.is(Self::RECEIVE_EMPTY) {
            core::hint::spin_loop();
        }
        // SAFETY: as in `is`.
        *place = unsafe { self.0.read_volatile() } as u8;
        Ok(1)
    }
}

impl Write for Pl011 {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        for &byte in buffer {
            while self.is(Self::TRANSMIT_FULL) {}
            // SAFETY: as in `is`.
            unsafe { self.0.write_volatile(byte.into()) };
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Microseconds since the machine was started.
pub fn micros() -> u64 {
    let (count, frequency): (u64, u64);
    // SAFETY: two registers of the generic timer are read.
    unsafe { asm!("mrs {}, cntvct_el0", "mrs {}, cntfrq_el0", out(reg) count, out(reg) frequency) };
    (u128::from(count) * 1_000_000 / u128::from(frequency.max(1))) as u64
}
