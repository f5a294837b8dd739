//! Arm's MPS2 and MPS3 boards: the CMSDK UART.

use core::convert::Infallible;

use cortex_m_rt::{ExceptionFrame, exception};
use embedded_io::{ErrorType, Read, Write};

use super::fail;
use crate::ticks;
pub use crate::ticks::micros;

/// The UART's registers: data, state, control.
pub struct Uart(*mut u32);

impl Uart {
    const STATE: usize = 1;
    const CONTROL: usize = 2;
    const DIVIDER: usize = 4;
    const TRANSMIT_FULL: u32 = 1;
    const RECEIVE_FULL: u32 = 2;
    /// Looks for a byte before it sleeps until the next tick.
    const LOOKS: usize = 20_000;

    /// Switches the UART on, and SysTick for a processor of so many Hz.
    ///
    /// # Safety
    /// A CMSDK UART is at `base`, and nobody else uses it.
    pub unsafe fn start(base: usize, hz: u32) -> Self {
        let Some(mut peripherals) = cortex_m::Peripherals::take() else {
            fail(format_args!("started twice"))
        };
        ticks::start(&mut peripherals.SYST, hz);
        let uart = Self(base as *mut u32);
        uart.write(Self::DIVIDER, 16);
        uart.write(Self::CONTROL, 3);
        uart
    }

    fn read(&self, register: usize) -> u32 {
        // SAFETY: `start` was promised that the registers are there.
        unsafe { self.0.add(register).read_volatile() }
    }

    fn write(&self, register: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.0.add(register).write_volatile(value) };
    }

    fn has_byte(&self) -> bool {
        self.read(Self::STATE) & Self::RECEIVE_FULL != 0
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(place) = buffer.first_mut() else { return Ok(0) };
        while !(0..Self::LOOKS).any(|_| self.has_byte()) {
            cortex_m::asm::wfi();
        }
        *place = Uart::read(self, 0) as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        for &byte in buffer {
            while Uart::read(self, Self::STATE) & Self::TRANSMIT_FULL != 0 {}
            Uart::write(self, 0, byte.into());
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    fail(format_args!("hard fault at {:#x}", frame.pc()))
}
